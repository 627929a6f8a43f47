"""The exercises of a room: which definitions a student writes, for how many points, and which cells check them.

They stand in code.ipynb. A cell tagged `solution` has {"task": 2, "points": {"Attention": 7}} in its metadata: each
definition with points is an exercise, the others of the cell are given. A cell tagged `check` checks the exercises that
it names. It stands by itself: it may use the notebook's definitions, and `run` and `cfg` of a tiny run without data.
"""

import ast
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from IPython.display import Markdown

from nndl.notebooks import DEFINITIONS, code_cells, is_definition_cell, parse
from nndl.records import LabError

NOTEBOOKS = ("code.ipynb", "exercises.ipynb")  # the reference, a student's edition
WRITTEN = DEFINITIONS[2:]  # functions and classes


@dataclass(frozen=True)
class Exercise:
    """One definition that a student writes. `source`: the reference, with decorators; `cell`: its number from 1."""

    name: str
    points: float
    task: int
    cell: int
    source: str
    says: str  # the first sentence of its docstring


@dataclass(frozen=True)
class Check:
    """One cell that checks. `names`: the exercises that it names, in order; `title`: the same in words."""

    cell: int
    source: str
    names: tuple
    title: str


@dataclass
class Room:
    """What a code notebook holds: `cells` its definition cells (number, source), `exercises` by name, `checks`."""

    path: Path
    cells: list = field(default_factory=list)
    exercises: dict = field(default_factory=dict)
    checks: list = field(default_factory=list)

    @property
    def name(self):
        return self.path.parent.name

    def checks_of(self, name):
        return [check for check in self.checks if name in check.names]


def lines_of(text):
    """The lines of a source as Python counts them: a form feed or another separator of Unicode ends none."""
    return re.split(r"\r\n|\r|\n", text)


def source_of(node, text):
    """The source of a statement; of a definition with its decorators."""
    return "\n".join(lines_of(text)[first_line(node) - 1 : node.end_lineno])


def first_sentence(node):
    text = " ".join((ast.get_docstring(node) or "").split())
    return re.split(r"(?<=[.:;])\s", text, maxsplit=1)[0].rstrip(".:;")


def names_in(source):
    """Names that a piece of code reads, in the order in which they stand."""
    tree = ast.parse(source) if isinstance(source, str) else source
    reads = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]
    return list(dict.fromkeys(node.id for node in sorted(reads, key=lambda node: (node.lineno, node.col_offset))))


def read_room(path):
    """The Room of a code.ipynb. LabError where points and definitions do not fit together."""
    path = Path(path)
    room, checks = Room(path), []
    for number, cell in code_cells(path):
        tree, tags = parse(cell.source, path, number), cell.metadata.get("tags", [])
        if is_definition_cell(tree):
            room.cells.append((number, cell.source))
        if "solution" in tags:
            defined = {node.name: node for node in tree.body if isinstance(node, WRITTEN)}
            points = cell.metadata.get("points", {})
            strangers = set(points) - set(defined)
            if strangers or not all(isinstance(value, int | float) and value > 0 for value in points.values()):
                raise LabError(f"{path}, cell {number}: points {dict(points)} for {', '.join(defined)}")
            task = cell.metadata.get("task", 0)
            for name, node in defined.items():
                if name in points:
                    source = source_of(node, cell.source)
                    room.exercises[name] = Exercise(name, points[name], task, number, source, first_sentence(node))
        elif "check" in tags:
            checks.append((number, cell.source))
    for number, source in checks:
        names = tuple(name for name in names_in(source) if name in room.exercises)
        room.checks.append(Check(number, source, names, ", ".join(names)))
    return room


# ---------------------------------------------------------------- the points


def points_table(by_hand):
    """The table of points, to be shown: see points."""
    rows = ["| task | exercises, by their checks | by hand | points |", "| --- | --- | --- | --- |"]
    for task, row in points(by_hand).iterrows():
        rows.append(f"| {task} | {row['by checks']} | {row['by hand']} | {row['points']} |")
    return Markdown("\n".join(rows))


def points(by_hand, folder="."):
    """The points of an assignment, a row a task: {task: points given by hand} and, from the notebook, the exercises.

    Reads code.ipynb of the folder, or exercises.ipynb, a student's edition. LabError unless they add up to 100.
    """
    path = next((Path(folder) / name for name in NOTEBOOKS if (Path(folder) / name).exists()), None)
    if path is None:
        raise LabError(f"{Path(folder).resolve()}: neither {' nor '.join(NOTEBOOKS)} is there")
    rows, total = [], 0
    exercises = read_room(path).exercises.values()
    for task in sorted({exercise.task for exercise in exercises} | set(by_hand)):
        own = [exercise for exercise in exercises if exercise.task == task]
        worth = sum(exercise.points for exercise in own) + by_hand.get(task, 0)
        named = ", ".join(f"`{exercise.name}` {exercise.points:g}" for exercise in own)
        rows.append({"task": task, "by checks": named, "by hand": by_hand.get(task, ""), "points": f"{worth:g}"})
        total += worth
    if total != 100:
        raise LabError(f"{path}: the points add up to {total:g}, not to 100")
    return pd.DataFrame(rows).set_index("task")


# ---------------------------------------------------------------- a definition without its body


def stub(source, name):
    """A definition as a student gets it: decorators, signature and docstring; the body raises NotImplementedError.

    Of a class stay its own docstring, its fields, `__init__`, `forward`, other special methods, and methods with a
    docstring; whatever else the reference has is its own business.
    """
    lines, (node,) = lines_of(source), ast.parse(source).body
    return "\n".join(stub_lines(lines, node, json.dumps(name))) + "\n"


def stub_lines(lines, node, message):
    start = first_line(node)
    documented = ast.get_docstring(node) is not None
    body = node.body[1:] if documented else node.body
    # header and docstring: up to the line before the first statement of the body (decorators of a method included)
    last = node.body[0].end_lineno if documented else first_line(node.body[0]) - 1
    kept = lines[start - 1 : last]
    if not isinstance(node, ast.ClassDef):
        if not documented:  # comments that explain the body go with it
            while kept and kept[-1].lstrip().startswith("#"):
                kept.pop()
        return [*kept, f"{' ' * (node.col_offset + 4)}raise NotImplementedError({message})"]
    methods = 0
    for part in body:
        if isinstance(part, WRITTEN):
            special = part.name == "forward" or (part.name.startswith("__") and part.name.endswith("__"))
            if special or ast.get_docstring(part):
                kept += ["", *stub_lines(lines, part, message)]
                methods += 1
        elif isinstance(part, ast.AnnAssign):
            kept += [""] * kept[-1].endswith('"""')
            kept += lines[part.lineno - 1 : part.end_lineno]
    if not methods:
        kept += [f"{' ' * (node.col_offset + 4)}raise NotImplementedError({message})"]
    return kept


def first_line(node):
    return min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])


def with_stubs(source, names):
    """A solution cell in which the definitions of these names are stubs."""
    lines, out, done = lines_of(source), [], 0
    for node in ast.parse(source).body:
        if isinstance(node, WRITTEN) and node.name in names:
            out += lines[done : first_line(node) - 1]
            out += stub(source_of(node, source), node.name).rstrip("\n").split("\n")
            done = node.end_lineno
    return "\n".join([*out, *lines[done:]])
