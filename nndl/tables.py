"""The tables of the READMEs, made from the kept records (make readme)."""

import json
import re

from nndl import rooms
from nndl.intervals import text
from nndl.records import read_record, run_words
from nndl.rooms import NOTEBOOKS, ROOMS, CourseError, existing_rooms

COLUMNS = ("Assignment", "Result", "Target", "Measured", "Data", "Run")
MOST_ROWS = 5  # of a room's README; the report has the rest
# The begin marker of a room's results may name the metrics to show, the first one in the root README too.
BEGIN, NAMED, END = "<!-- {}:begin -->", re.compile(r"<!-- results:begin((?: \S+)*) -->"), "<!-- {}:end -->"


def measured(metric):
    """`94.1 % [93.6, 94.6]` and what the interval is over."""
    return f"{text(metric, None)} ({metric['interval']}, n = {metric['n']})"


def target(metric):
    """The target and where it is from, or a dash."""
    if "target" not in metric:
        return "–"
    unit = f" {metric['unit']}" if metric["unit"] else ""
    return f"{metric['target']['value']:g}{unit} ({metric['target']['source']})"


def kept_record(room):
    """The kept record of a room, full before demo, or None."""
    folders = (rooms.ROOT / room / "results" / profile for profile in ("full", "demo"))
    return next((record for folder in folders if (record := read_record(folder))), None)


def result_rows(room, record, names=()):
    """Rows of a room's table of results: the metrics of these names; without names all headline metrics of the record.

    CourseError where the record has no such metric, or where there are more than five.
    """
    if record is None:
        return []
    names = names or [name for name, metric in record["metrics"].items() if metric.get("headline")]
    if unknown := [name for name in names if name not in record["metrics"]]:
        raise CourseError(f"{room}/README.md: the kept record has no metric {', '.join(unknown)}; see results:begin")
    if len(names) > MOST_ROWS:
        raise CourseError(
            f"{room}/README.md: {len(names)} results, more than {MOST_ROWS}; "
            "name those to show: <!-- results:begin NAME NAME ... -->"
        )
    rows = []
    for metric in (record["metrics"][name] for name in names):
        data = f"{metric['data']} ({record['data'][metric['data']]['source']})"
        rows.append((room, metric["label"], target(metric), measured(metric), data, run_words(record)))
    return rows


def assigned(record):
    """Names of the headline metrics with a target, or of the first one; of a run that no README speaks of yet."""
    metrics = {name: metric for name, metric in record["metrics"].items() if metric.get("headline")} if record else {}
    return ([name for name, metric in metrics.items() if "target" in metric] or list(metrics)[:1])[:MOST_ROWS]


def rows_of(room):
    """Rows of a room's table of results, those that its README names."""
    file = rooms.ROOT / room / "README.md"
    named = NAMED.search(file.read_text(encoding="utf-8")) if file.exists() else None
    return result_rows(room, kept_record(room), named[1].split() if named else ())


def table(columns, rows):
    """A Markdown table."""
    cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    lines = [columns, ["---"] * len(columns), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def root_results():
    """The first row of each room's table."""
    rows = [row for room in existing_rooms() for row in rows_of(room)[:1]]
    rows = [(f"[{room}]({room}/README.md)", *rest) for room, *rest in rows]
    return table(COLUMNS, rows) if rows else "No results yet."


def read_scores(room):
    """What results/mutants.json of a room holds (see nndl/mutants.py), or None."""
    file = rooms.ROOT / room / "results" / "mutants.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def room_checks(room):
    """How many small wrong solutions the checks of a room notice, by exercise."""
    found = read_scores(room)
    if found is None:
        return f"Not measured yet: `make mutants A={room}`."
    parts = [f"`{name}` {entry['noticed']} of {entry['made']}" for name, entry in found["exercises"].items()]
    noticed, made = (sum(entry[key] for entry in found["exercises"].values()) for key in ("noticed", "made"))
    return f"The check cells notice {noticed} of {made} small wrong solutions: {', '.join(parts)}."


def room_results(room):
    rows = [row[1:] for row in rows_of(room)]
    return table(COLUMNS[1:], rows) if rows else "No results yet."


def room_list():
    """The table of the twelve assignments, with those that are not there yet."""
    there = existing_rooms()
    rows = []
    for room, topic in ROOMS.items():
        links = ", ".join(f"[{name}]({room}/{name}.ipynb)" for name in NOTEBOOKS)
        name = f"[{room}]({room}/README.md)" if room in there else room
        rows.append((name, topic, links if room in there else "not there yet"))
    return table(("Assignment", "Topic", "Read"), rows)


def between(text, name, content, file):
    """`text` with `content` between the markers of this name."""
    begin, end = BEGIN.format(name), END.format(name)
    if name == "results" and (named := NAMED.search(text)):
        begin = named[0]
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise CourseError(f"{file}: needs {begin} and, after it, {end}, once each")
    return text[: text.index(begin) + len(begin)] + f"\n{content}\n" + text[text.index(end) :]


def readme_texts():
    """{file: its text as it should be} of the root README and of the README of each room."""
    root = rooms.ROOT / "README.md"
    page = between(root.read_text(encoding="utf-8"), "results", root_results(), root.name)
    texts = {root: between(page, "rooms", room_list(), root.name)}
    for room in existing_rooms():
        file = rooms.ROOT / room / "README.md"
        if not file.exists():
            raise CourseError(f"{room}/README.md: missing")
        page = between(file.read_text(encoding="utf-8"), "results", room_results(room), f"{room}/README.md")
        texts[file] = between(page, "checks", room_checks(room), f"{room}/README.md")
    return texts


def readme(check):
    """Write the tables; with check, only compare, and CourseError names the files that are out of date."""
    stale = {file: page for file, page in readme_texts().items() if file.read_text(encoding="utf-8") != page}
    names = ", ".join(str(file.relative_to(rooms.ROOT)) for file in stale)
    if check and stale:
        raise CourseError(f"out of date: {names}; run make readme")
    for file, page in stale.items():
        file.write_text(page, encoding="utf-8", newline="\n")
    print(f"written: {names}" if stale else "tables are up to date")
