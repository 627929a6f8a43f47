"""make grade: submissions graded, one exercise at a time, with the reference for all others.

    make grade S=submissions [A=CA5_vit] [OUT=grades]

S is one exercises.ipynb, a folder of one person, or a folder of such folders (or of notebooks). Which assignment a
notebook belongs to stands in its metadata, else in its folder's name. Written are grades.csv, grades.json, and a page
of feedback for each person. How a submission is kept from doing harm: see nndl/sandbox.py.
"""

import ast
import csv
import html
import io
import json
import math
import os
import re
import time
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from nndl import rooms, sandbox
from nndl.attempts import Attempt, Bench
from nndl.exercises import WRITTEN, lines_of, names_in, source_of
from nndl.records import LabError
from nndl.rooms import CourseError, UsageError, chosen_rooms, existing_rooms

MOST_BYTES = 20 * 2**20  # of a notebook, its outputs included
LONGEST_CELL = 20_000  # characters
LONGEST_NAME = 80  # of a page's file


@dataclass
class Submission:
    """What one person handed in for one assignment; `problem`: why it cannot be read."""

    person: str
    path: Path
    room: str = ""
    problem: str = ""
    answers: dict = field(default_factory=dict)  # {name: source} of functions and classes, the last one counts
    written: dict = field(default_factory=dict)  # {name: cell in which its answer stands}
    support: list = field(default_factory=list)  # (names that it binds, source) of other statements, in order
    broken: dict = field(default_factory=dict)  # {name: message} of definitions in cells that are no Python
    taken: dict = field(default_factory=dict)  # {exercise taken from the reference: cell}


# ---------------------------------------------------------------- reading


def person_of(parts, path, folder):
    """Whose notebook it is: the folders above it that are no assignments, else its own name or the folder's."""
    outside = [part for part in parts[:-1] if part not in rooms.ROOMS]
    name = "/".join(outside) or (folder.name if path.stem.startswith("exercises") else path.stem)
    return unicodedata.normalize("NFC", name.encode("utf-8", "backslashreplace").decode("utf-8"))


def find(folder):
    """[(person, path)] of the notebooks under a path, and [(person, None)] of folders in it that hold none."""
    folder = Path(folder).absolute()
    if folder.is_file():
        return [(person_of((folder.name,), folder, folder.parent), folder)]
    found, served = [], set()
    for path in sorted(folder.rglob("*"), key=os.fsencode):
        parts = path.relative_to(folder).parts
        hidden = any(part.startswith((".", "__MACOSX")) or part == "reference" for part in parts)
        if hidden or path.suffix.lower() != ".ipynb" or path.stem in ("description", "report") or path.is_dir():
            continue
        served.add(parts[0])
        found.append((person_of(parts, path, folder), path))
    for path in sorted(folder.iterdir(), key=os.fsencode):
        if path.is_dir() and path.name not in served | set(rooms.ROOMS) and not path.name.startswith((".", "__")):
            found.append((person_of((path.name, ""), path, folder), None))
    return found


def read(person, path, only=""):
    """A Submission, whatever the file holds."""
    found = Submission(person, path or Path("-"))
    if path is None:
        found.problem = "no notebook in this folder"
    elif path.is_symlink() or not path.is_file():
        found.problem = "a link, or no plain file: not followed"
    elif path.stat().st_size > MOST_BYTES:
        found.problem = f"larger than {MOST_BYTES / 2**20:.0f} MiB"
    if found.problem:
        return found
    try:
        notebook = json.loads(path.read_text(encoding="utf-8-sig"))
        if "worksheets" in notebook:
            raise ValueError("nbformat 3: open it in Jupyter and save it")
        sources = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
        metadata = notebook.get("metadata")
        named = str(metadata.get("assignment", "")) if isinstance(metadata, dict) else ""
    except Exception as error:  # a file of a stranger: whatever json and Python make of it
        found.problem = f"not a notebook that can be read ({type(error).__name__}: {error})"
        return found
    folders = [part for part in reversed(path.parts) if part in rooms.ROOMS]
    found.room = named if named in rooms.ROOMS else folders[0] if folders else only
    if found.room not in existing_rooms():
        found.problem = "which assignment? neither the notebook's metadata nor its folder says so; A=... does"
    for number, source in enumerate(sources, 1):
        try:
            take_apart(found, number, without_magics(source))
        except Exception as error:  # one cell of a stranger: it counts as not written
            for name in re.findall(r"^(?:class|def)\s+(\w+)", source, re.MULTILINE):
                found.broken[name] = f"{type(error).__name__}: {error}"
    return found


def without_magics(source):
    """A cell without Jupyter's own lines (%matplotlib inline, %%time, !ls, ?torch)."""
    return "\n".join("" if re.match(r"\s*[%!?]", line) else line for line in lines_of(source.lstrip("\ufeff")))


def take_apart(found, number, source):
    """Note what a cell defines, in order."""
    if len(source) > LONGEST_CELL:
        raise ValueError(f"longer than {LONGEST_CELL} characters")
    tree = ast.parse(source)
    for node in tree.body:
        if isinstance(node, WRITTEN):
            found.answers[node.name], found.written[node.name] = source_of(node, source), number
        elif isinstance(node, ast.Import | ast.ImportFrom | ast.Assign | ast.AnnAssign | ast.Try | ast.If):
            found.support.append((bound(node), source_of(node, source)))
    for node in ast.walk(tree):
        named = (getattr(node.func, "attr", ""), getattr(node.func, "id", "")) if isinstance(node, ast.Call) else ()
        if "take_reference" in named and node.args and isinstance(node.args[0], ast.Constant):
            found.taken[node.args[0].value] = number


def bound(statement):
    """Names that a statement binds; "*" for those of a star import."""
    found = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.alias):
            found.add((node.asname or node.name).split(".")[0])
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found


def attempt_of(submission, exercise, given):
    """The Attempt for one exercise: its definition, and what of the person's own it needs. None where there is none.

    given: names that the reference's notebook defines itself; those count as they are there.
    """
    source = submission.answers.get(exercise.name)
    if source is None:
        return None
    needed, waiting, support = set(), [source], set()
    always = [i for i, (names, text) in enumerate(submission.support) if "*" in names or "__future__" in text]
    waiting += [submission.support[i][1] for i in always]
    support.update(always)
    while waiting:
        for name in set(names_in(waiting.pop())) - needed - given - {exercise.name}:
            needed.add(name)
            if name in submission.answers:
                waiting.append(submission.answers[name])
            for i, (names, text) in enumerate(submission.support):
                if name in names and i not in support:
                    support.add(i)
                    waiting.append(text)
    own = [submission.answers[name] for name in submission.answers if name in needed]
    parts = [submission.support[i][1] for i in sorted(support)]
    future = [part for part in parts if "__future__" in part]
    return Attempt(exercise.name, source, own="\n\n".join([*future, *(p for p in parts if p not in future), *own]))


# ---------------------------------------------------------------- grading


def given_names(room):
    """Names that the definition cells of a room make."""
    found = {"run", "cfg"}
    for _, source in room.cells:
        for node in ast.parse(source).body:
            found |= {node.name} if isinstance(node, WRITTEN) else bound(node)
    return found


def grade_room(bench, submissions):
    """Grades of the submissions for one room: a list of plain dicts, as they are written to grades.json."""
    exercises, given = bench.room.exercises, given_names(bench.room)
    grades, jobs = [], []
    for index, submission in enumerate(submissions):
        rows = {}
        for name, exercise in exercises.items():
            row = dict(exercise=name, points=0.0, of=exercise.points, problem="", checks=[], output="", seconds=0.0)
            attempt = None
            if submission.problem:
                row["problem"] = submission.problem
            elif name in submission.taken and submission.taken[name] >= submission.written.get(name, 0):
                row["problem"] = "taken from the reference"
            elif name not in submission.answers:
                row["problem"] = submission.broken.get(name, "not in the notebook")
            else:
                try:
                    attempt = attempt_of(submission, exercise, given)
                except Exception as error:  # code of a stranger: whatever Python makes of it
                    row["problem"] = f"{type(error).__name__}: {error}"
            if attempt is not None:
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
    grades, several = [], Counter((one.person, one.room) for one in found if not one.problem)
    print(f"held back by: {sandbox.in_force()}", flush=True)
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
        for one in done:
            if several[one["person"], name] > 1:
                one["problem"] = f"one of {several[one['person'], name]} notebooks of this person: which one counts?"
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
    """Write a text, whatever characters strangers put into it, under its name only when it is whole."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
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
    sheet = io.StringIO(newline="")
    csv.writer(sheet, lineterminator="\n").writerows(rows)
    replace(out / "grades.csv", sheet.getvalue())
    replace(out / "grades.json", json.dumps(grades, indent=1, ensure_ascii=False) + "\n")
    pages = {}
    for one in grades:
        pages.setdefault(one["person"], []).append(one)
    names = set()
    for person, some in pages.items():
        name = re.sub(r"[^\w.-]+", "_", person).strip("._")[:LONGEST_NAME] or "nobody"
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
