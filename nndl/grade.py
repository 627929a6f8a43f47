"""make grade: submissions graded, one exercise at a time, with the reference for all others.

    make grade S=submissions [A=CA5_vit] [OUT=grades]

S is one exercises.ipynb, a folder of one person, or a folder of such folders (or of notebooks). Which assignment a
notebook belongs to stands in its metadata, else in its folder's name. Written are grades.csv, grades.json, and a page
of feedback for each person. How a submission is kept from doing harm: see nndl/sandbox.py.
"""

import ast
import csv
import html
import json
import math
import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

from nndl import rooms
from nndl.attempts import Attempt, Bench
from nndl.exercises import WRITTEN, names_in, source_of
from nndl.records import LabError
from nndl.rooms import CourseError, UsageError, chosen_rooms, existing_rooms

MOST_BYTES = 20 * 2**20  # of a notebook, its outputs included
LONGEST_CELL = 50_000  # characters


@dataclass
class Submission:
    """What one person handed in for one assignment; `problem`: why it cannot be read."""

    person: str
    path: Path
    room: str = ""
    problem: str = ""
    cells: list = field(default_factory=list)  # sources of code cells
    answers: dict = field(default_factory=dict)  # {name: source} of every function and class, the last one counts
    support: dict = field(default_factory=dict)  # {name: source} of imports and constants
    broken: list = field(default_factory=list)  # (cell, message) of cells that are no Python
    taken: set = field(default_factory=set)  # exercises taken from the reference


# ---------------------------------------------------------------- reading


def find(folder):
    """[(person, path)] of the notebooks under a path. A person is the first folder, or the notebook's name."""
    folder = Path(folder)
    if folder.is_file():
        return [(folder.parent.name if folder.stem == "exercises" else folder.stem, folder)]
    found, own = [], set(rooms.ROOMS)
    for path in sorted(folder.rglob("*.ipynb")):
        parts = path.relative_to(folder).parts
        hidden = any(part.startswith((".", "__MACOSX")) for part in parts)
        if hidden or "reference" in parts or path.name in ("description.ipynb", "report.ipynb", "code.ipynb"):
            continue
        outside = [part for part in parts[:-1] if part not in own]
        found.append((outside[0] if outside else folder.name if path.stem == "exercises" else path.stem, path))
    return found


def read(person, path, only=""):
    """A Submission, whatever the file holds."""
    found = Submission(person, path)
    try:
        if path.is_symlink() or path.stat().st_size > MOST_BYTES:
            found.problem = f"larger than {MOST_BYTES / 2**20:.0f} MiB, or a link"
            return found
        notebook = json.loads(path.read_text(encoding="utf-8-sig"))
        cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        found.cells = ["".join(cell["source"]) for cell in cells]
        named = str(notebook.get("metadata", {}).get("assignment", ""))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        found.problem = f"not a notebook that can be read ({type(error).__name__})"
        return found
    folders = [part for part in reversed(path.parts) if part in rooms.ROOMS]
    found.room = named if named in rooms.ROOMS else folders[0] if folders else only
    if found.room not in existing_rooms():
        found.problem = "which assignment? neither the notebook's metadata nor its folder says so; A=... does"
    for number, source in enumerate(found.cells, 1):
        take_apart(found, number, source)
    return found


def take_apart(found, number, source):
    """Note the definitions, imports and constants of one cell."""
    try:
        if len(source) > LONGEST_CELL:
            raise ValueError(f"longer than {LONGEST_CELL} characters")
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        name = re.search(r"^(?:class|def)\s+(\w+)", source, re.MULTILINE)
        found.broken.append((number, name[1] if name else "", f"{type(error).__name__}: {error}"))
        return
    for node in tree.body:
        if isinstance(node, WRITTEN):
            found.answers[node.name] = source_of(node, source)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                found.support[(alias.asname or alias.name).split(".")[0]] = ast.unparse(node)
        elif isinstance(node, ast.Assign) and all(isinstance(t, ast.Name) and t.id.isupper() for t in node.targets):
            found.support.update({target.id: ast.unparse(node) for target in node.targets})
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args and ast.unparse(node.func).endswith("take_reference"):
            found.taken.add(getattr(node.args[0], "value", None))


def attempt_of(submission, exercise, given):
    """The Attempt for one exercise: its definition, and what of the person's own it needs. None where there is none.

    given: names that the reference's notebook defines itself; those count as they are there.
    """
    source = submission.answers.get(exercise.name)
    if source is None:
        return None
    needed, waiting = [], [source]
    while waiting:
        for name in names_in(waiting.pop()):
            if name in needed or name == exercise.name or name in given:
                continue
            own = submission.answers.get(name) or submission.support.get(name)
            if own:
                needed.append(name)
                waiting.append(own)
    support = [submission.support[name] for name in submission.support if name in needed]
    own = [submission.answers[name] for name in submission.answers if name in needed]
    return Attempt(exercise.name, source, own="\n\n".join(dict.fromkeys(support + own)))


# ---------------------------------------------------------------- grading


def given_names(room):
    """Names that the definition cells of a room make."""
    found = set()
    for _, source in room.cells:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, WRITTEN):
                found.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                found |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    return found


def grade_room(bench, submissions):
    """Grades of the submissions for one room: a list of plain dicts, as they are written to grades.json."""
    exercises, given = bench.room.exercises, given_names(bench.room)
    grades, jobs = [], []
    for index, submission in enumerate(submissions):
        rows = {}
        for name, exercise in exercises.items():
            row = dict(exercise=name, points=0.0, of=exercise.points, problem="", checks=[], output="", seconds=0.0)
            broken = [text for _, defined, text in submission.broken if defined == name]
            attempt = attempt_of(submission, exercise, given)
            if submission.problem:
                row["problem"] = submission.problem
            elif name in submission.taken:
                row["problem"] = "taken from the reference"
            elif broken:
                row["problem"] = broken[-1]
            elif attempt is None:
                row["problem"] = "not in the notebook"
            else:
                jobs.append(((index, name), attempt))
            rows[name] = row
        grades.append(rows)
    for (index, name), outcome in bench.run(jobs):
        row = grades[index][name]
        row.update(problem=outcome.problem, checks=outcome.checks, output=outcome.output, seconds=outcome.seconds)
        row["points"] = float(row["of"]) if outcome.passed else 0.0
    return [
        {
            "person": submission.person,
            "assignment": bench.room.name,
            "notebook": submission.path.name,
            "points": math.fsum(row["points"] for row in rows.values()),
            "of": math.fsum(row["of"] for row in rows.values()),
            "seconds": round(sum(row["seconds"] for row in rows.values()), 1),
            "problem": submission.problem,
            "exercises": list(rows.values()),
        }
        for submission, rows in zip(submissions, grades)
    ]


def grade(room, submissions, out, seconds=None):
    """Grade what lies at a path and write the results into the folder `out`."""
    if not submissions or not Path(submissions).exists():
        raise UsageError(f"S={submissions}: no such file or folder; e.g. make grade S=submissions")
    only = chosen_rooms(room)[0] if room else ""
    found = [read(person, path, only) for person, path in find(submissions)]
    if not found:
        raise CourseError(f"{submissions}: no notebook in it")
    unreadable = [one for one in found if one.room not in existing_rooms()]
    grades = []
    for name in existing_rooms():
        own = [one for one in found if one.room == name and only in ("", name)]
        if not own:
            continue
        begin = time.monotonic()
        try:
            bench = Bench(name, seconds=seconds)
            bench.reference()
        except LabError as error:
            raise CourseError(f"{error}; nothing is graded with a reference that fails its own checks") from None
        done = grade_room(bench, own)
        grades += done
        print(f"{name}: {len(done)} graded in {time.monotonic() - begin:.0f} s", flush=True)
    for one in unreadable:
        grades.append(dict(person=one.person, assignment="", notebook=one.path.name, points=0.0, of=0.0, seconds=0.0,
                           problem=one.problem, exercises=[]))  # fmt: skip
        print(f"{one.person}, {one.path.name}: {one.problem}")
    write(grades, Path(out))
    print(f"written: {out}/grades.csv, grades.json, and a page for each of {len({g['person'] for g in grades})}")


# ---------------------------------------------------------------- writing


def replace(path, text):
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8", newline="\n")
    os.replace(part, path)


def harmless(text):
    """A text that no spreadsheet takes for a formula."""
    return f"'{text}" if str(text)[:1] in tuple("=+-@\t\r") else str(text)


def write(grades, out):
    """grades.csv (a line for each person and assignment), grades.json, and <person>.html."""
    out.mkdir(parents=True, exist_ok=True)
    rows = [["person", "assignment", "points", "of", "seconds", "not done", "problem"]]
    for one in grades:
        missed = ", ".join(row["exercise"] for row in one["exercises"] if not row["points"])
        rows.append([harmless(one["person"]), one["assignment"], f"{one['points']:g}", f"{one['of']:g}", one["seconds"],
                     harmless(missed), harmless(one["problem"])])  # fmt: skip
    part = out / "grades.csv.part"
    with open(part, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    os.replace(part, out / "grades.csv")
    replace(out / "grades.json", json.dumps(grades, indent=1, ensure_ascii=False) + "\n")
    pages = {}
    for one in grades:
        pages.setdefault(one["person"], []).append(one)
    names = set()
    for person, some in pages.items():
        name = re.sub(r"[^\w.-]+", "_", person).strip("._") or "nobody"
        while name.lower() in names:
            name += "_"
        names.add(name.lower())
        replace(out / f"{name}.html", page(person, some))


STYLE = """body{font:16px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;width:100%}td,th{border-bottom:1px solid #ccc;padding:.4rem .6rem;text-align:left;
vertical-align:top}pre{white-space:pre-wrap;background:#f4f4f4;padding:.5rem;margin:.3rem 0;font-size:13px}
.full{color:#00695c}.none{color:#a63603}"""


def page(person, grades):
    """The feedback for one person as HTML."""
    parts = []
    for one in grades:
        parts.append(
            f"<h2>{html.escape(one['assignment'] or one['notebook'])}: {one['points']:g} of {one['of']:g}</h2>"
        )
        if one["problem"]:
            parts.append(f"<p>{html.escape(one['problem'])}</p>")
        lines = "".join(map(line, one["exercises"]))
        if lines:
            parts.append(f"<table><tr><th>exercise<th>points<th>what the checks say<th>seconds</tr>{lines}</table>")
    title = f"Feedback for {html.escape(person)}"
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>
<h1>{title}</h1>
<p>Each exercise was graded by itself, with the reference for all others.
It counts when all checks that name it pass.</p>
{"".join(parts)}
</html>
"""


def line(row):
    """One exercise as a row of the table."""
    said = [row["problem"]] if row["problem"] else []
    checks = sorted(row["checks"], key=lambda check: check["cell"])
    if checks and all(check["message"].startswith("not done yet") for check in checks):
        said, checks = ["not done yet"], []
    for number, check in enumerate(checks, 1):
        words = "passed" if check["passed"] else check["message"]
        said.append(f"check {number} of {len(checks)} ({check['title']}): {words}")
    text = "<br>".join(html.escape(part) for part in said)
    if row["output"].strip() and not row["points"]:
        text += f"<details><summary>what was printed</summary><pre>{html.escape(row['output'])}</pre></details>"
    kind = "full" if row["points"] else "none"
    return (
        f'<tr class="{kind}"><td>{html.escape(row["exercise"])}<td>{row["points"]:g} of {row["of"]:g}'
        f"<td>{text}<td>{row['seconds']:g}</tr>"
    )
