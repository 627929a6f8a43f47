"""make student NBGRADER=1: the same exercises as source notebooks for nbgrader, for courses that grade with it.

Each exercise's body stands between BEGIN SOLUTION and END SOLUTION. A check cell carries the points of the exercises
that it names, those of each shared evenly among its checks. nbgrader runs a submission as a whole, so one unfinished
exercise takes the points of all that use it with it: `make grade` does not.
"""

import ast

import nbformat

from nndl.exercises import WRITTEN, first_line, read_room

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"


def marked(source, names):
    """A solution cell with markers around the bodies of the definitions of these names."""
    lines = source.splitlines()
    for node in reversed(ast.parse(source).body):
        if isinstance(node, WRITTEN) and node.name in names:
            methods = [part for part in node.body if isinstance(part, WRITTEN)] if is_class(node) else [node]
            for part in reversed(methods):
                mark(lines, part)
    return "\n".join(lines)


def is_class(node):
    return isinstance(node, ast.ClassDef)


def mark(lines, node):
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    if body:
        indent = " " * body[0].col_offset
        lines.insert(node.end_lineno, indent + END)
        lines.insert(first_line(body[0]) - 1, indent + BEGIN)


def cell_metadata(cell, **more):
    return {"grade_id": f"cell-{cell.id}", "schema_version": 3, "task": False, "grade": False, "solution": False,
            "locked": False} | more  # fmt: skip


def source_notebook(path):
    """code.ipynb (a path) as nbgrader's source notebook."""
    room, notebook = read_room(path), nbformat.read(path, as_version=4)
    points = {}  # {source of a check: its points}
    for exercise in room.exercises.values():
        checks = room.checks_of(exercise.name)
        for check in checks:
            points[check.source] = points.get(check.source, 0) + exercise.points / len(checks)
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        cell.outputs, cell.execution_count = [], None
        if cell.metadata.get("points"):
            cell.source = marked(cell.source, set(cell.metadata["points"]))
            cell.metadata["nbgrader"] = cell_metadata(cell, solution=True)
        elif cell.source in points:
            worth = round(points[cell.source], 3)
            cell.metadata["nbgrader"] = cell_metadata(cell, grade=True, locked=True, points=worth)
    return notebook
