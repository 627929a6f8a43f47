"""make checks: whether a room's exercises can be graded fairly.

The reference passes, and every check stands by itself; each exercise has a check that its stub fails; a right solution
with other private names passes; no check reads an attribute that no docstring names.
"""

import ast
import re

from nndl.attempts import Bench
from nndl.exercises import WRITTEN, stub
from nndl.grade import Submission, grade_room
from nndl.records import LabError
from nndl.rooms import CourseError, chosen_rooms


def documented(node):
    """The words of the docstrings of a definition and of its methods."""
    parts = [node, *(part for part in ast.walk(node) if isinstance(part, WRITTEN))]
    return set(re.findall(r"\w+", " ".join(ast.get_docstring(part) or "" for part in parts)))


def private_names(node):
    """Attributes and methods of a class that are its own business: no docstring names them, nobody else may."""
    known = documented(node)
    methods = [part for part in node.body if isinstance(part, WRITTEN)]
    found = {part.name for part in methods if not ast.get_docstring(part)}
    found -= {name for name in found if name.startswith("__") or name in ("forward", "backward", "extra_repr")}
    for part in ast.walk(node):
        if isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Store) and ast.unparse(part.value) == "self":
            found.add(part.attr)
    public = {part.name for part in methods if ast.get_docstring(part)}
    return found - known - public


class Renamed(ast.NodeTransformer):
    """A solution with other names for what is private: attributes of a class, variables of a function."""

    def __init__(self, attributes=(), variables=()):
        self.attributes, self.variables = set(attributes), set(variables)

    def visit_Attribute(self, node):
        self.generic_visit(node)
        if node.attr in self.attributes:
            node.attr = f"own_{node.attr}"
        return node

    def visit_Name(self, node):
        if node.id in self.variables:
            node.id = f"own_{node.id}"
        return node

    def visit_FunctionDef(self, node):
        if node.name in self.attributes:
            node.name = f"own_{node.name}"
        inner = [part for part in ast.walk(node) if isinstance(part, ast.FunctionDef | ast.Lambda)]
        given = {arg.arg for part in inner for arg in ast.walk(part.args) if isinstance(arg, ast.arg)}
        given |= {part.name for part in inner if isinstance(part, ast.FunctionDef)}
        stored = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        before, self.variables = self.variables, self.variables | (stored - given)
        self.generic_visit(node)
        self.variables = before
        return node


def renamed(source):
    """The same solution as another person would have named it."""
    (node,) = ast.parse(source).body
    attributes = private_names(node) if isinstance(node, ast.ClassDef) else ()
    return ast.unparse(Renamed(attributes).visit(node))


def attributes_read(room):
    """Complaints about attributes that a check reads and no docstring of their class names."""
    private = {}
    for exercise in room.exercises.values():
        (node,) = ast.parse(exercise.source).body
        if isinstance(node, ast.ClassDef):
            private[exercise.name] = private_names(node)
    for check in room.checks:
        read = {node.attr for node in ast.walk(ast.parse(check.source)) if isinstance(node, ast.Attribute)}
        for name in set(check.names) & set(private):
            for attribute in sorted(read & private[name]):
                yield f"the check in cell {check.cell} reads {name}.{attribute}, which its docstring does not name"


def complaints(bench):
    """What is wrong with the exercises of a room, a line each."""
    room = bench.room
    found = [f"{name}: no check names it" for name in room.exercises if not room.checks_of(name)]
    found += [f"the check in cell {check.cell} names no exercise" for check in room.checks if not check.names]
    found += attributes_read(room)
    try:
        bench.reference()
    except LabError as error:
        return [*found, str(error)]
    other = Submission("another person", room.path, room.name)
    other.answers = {name: renamed(exercise.source) for name, exercise in room.exercises.items()}
    empty = Submission("nobody", room.path, room.name)
    empty.answers = {name: stub(exercise.source, name) for name, exercise in room.exercises.items()}
    right, nothing = grade_room(bench, [other, empty])
    for row in right["exercises"]:
        if not row["points"]:
            said = row["problem"] or next((c["message"] for c in row["checks"] if not c["passed"]), "")
            found.append(f"{row['exercise']}: a right solution with other private names fails: {said}")
    found += [f"{row['exercise']}: its stub passes the checks" for row in nothing["exercises"] if row["points"]]
    return found


def checks(room):
    """Print what is wrong, for one room or all; CourseError if anything is."""
    wrong = 0
    for name in chosen_rooms(room):
        try:
            found = complaints(Bench(name))
        except LabError as error:
            found = [str(error)]
        for line in found:
            print(f"{name}: {line}", flush=True)
        wrong += len(found)
    if wrong:
        raise CourseError(f"{wrong} complaints")
    print("every exercise can be graded fairly")
