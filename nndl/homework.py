"""In a student's notebook: cells that wait for an exercise say so and the notebook goes on; the reference for one part.

lab.homework()                      # once, at the top: "not yet: Attention" instead of a stop
lab.take_reference("Attention")     # the reference's definition instead of one's own; it earns no points
"""

import ast
import inspect
from pathlib import Path

from IPython import get_ipython
from IPython.display import display

from nndl.exercises import NOTEBOOKS, names_in, read_room
from nndl.records import LabError

FILLS = {"append", "extend", "update", "add", "insert", "setdefault"}
REFERENCE = "reference/*/code.ipynb"  # where a student's edition keeps it, when it comes along


def homework():
    """From here on a cell that needs an unfinished exercise says "not yet: ..." and the notebook goes on.

    Waiting spreads: a cell that uses a name which a waiting cell would have made waits too. Any other error stops the
    notebook, as always. Outside Jupyter this does nothing.
    """
    shell = get_ipython()
    if shell is None:
        return
    shell.ast_transformers[:] = [old for old in shell.ast_transformers if not isinstance(old, Guard)]
    shell.ast_transformers.append(Guard())
    shell.user_ns["_homework"] = Waiting(shell.user_ns)


class Guard(ast.NodeTransformer):
    """Puts the statements of a cell into `with _homework.cell(...)`; the last expression is still shown."""

    def visit(self, tree):
        if not isinstance(tree, ast.Module) or not tree.body or "_homework" in ast.dump(tree):
            return tree
        source = ast.unparse(tree)
        body = list(tree.body)
        if isinstance(body[-1], ast.Expr):
            last = body[-1]
            body[-1] = ast.copy_location(ast.Expr(call("_homework.show", last.value)), last)
        head = call("_homework.cell", ast.Constant(source))
        block = ast.With([ast.withitem(head, None)], body)
        return ast.fix_missing_locations(ast.Module([ast.copy_location(block, tree.body[0])], tree.type_ignores))


def call(name, *arguments):
    return ast.Call(ast.parse(name, mode="eval").body, list(arguments), [])


class Waiting:
    """Which exercise each name and each result waits for."""

    def __init__(self, namespace):
        self.namespace, self.names, self.source, self.texts = namespace, {}, "", {}
        self.filled = {}  # lists and dicts that waiting cells would have filled

    def cell(self, source):
        self.source = source
        return self

    def show(self, value):
        if value is not None:
            display(value)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        made = stored(self.source)
        if error is None:
            for name in made:
                self.names.pop(name, None)
            for name in made | filled(self.source):
                self.filled.pop(name, None)
            return False
        exercise = self.reason(error)
        if exercise is None:
            return False
        print(f"not yet: {exercise}")
        for name in made:  # what an earlier cell left under these names is not what the cells below expect
            self.names[name] = exercise
            self.namespace.pop(name, None)
        self.filled |= dict.fromkeys(filled(self.source), exercise)
        self.texts |= {node.value: exercise for node in ast.walk(ast.parse(self.source)) if is_text(node)}
        return True

    def reason(self, error):
        """The exercise that an error waits for, or None where it is an error."""
        if isinstance(error, NotImplementedError) and error.args:
            return error.args[0]
        if isinstance(error, NameError) and error.name in self.names:
            return self.names[error.name]
        if isinstance(error, KeyError) and error.args and error.args[0] in self.texts:
            return self.texts[error.args[0]]
        if isinstance(error, LookupError | ValueError):
            short = [self.filled[name] for name in names_in(self.source) if name in self.filled]
            if short:
                return short[0]
        if isinstance(error, LabError) and "run.finish" in self.source and self.names:
            return ", ".join(dict.fromkeys(self.names.values())) + " (the record is written when all is there)"
        return None


def is_text(node):
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def stored(source):
    """Names that a cell makes by assignment; its functions and classes are there whatever happens below them."""
    nodes = ast.walk(ast.parse(source))
    return {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def filled(source):
    """Names of the lists and dicts that a cell puts something into: `a[k] = v`, `a[k].append(v)`."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in FILLS:
            node = node.func
        elif not (isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store)):
            continue
        while isinstance(node, ast.Attribute | ast.Subscript):
            node = node.value
        if isinstance(node, ast.Name):
            found.add(node.id)
    return found


def take_reference(name):
    """Define the exercise `name` in the calling notebook as the reference does; in grading it counts no points.

    LabError where the reference did not come along, and for a name that is no exercise.
    """
    places = [*Path().glob(REFERENCE), *Path().glob(NOTEBOOKS[0])]
    if not places:
        raise LabError(f"{name}: the reference is not part of this edition; ask your teacher for it")
    exercises = read_room(places[0].resolve()).exercises
    if name not in exercises:
        raise LabError(f"{name}: no such exercise; there are: {', '.join(exercises)}")
    namespace = inspect.currentframe().f_back.f_globals
    missing = [word for word in names_in(exercises[name].source) if word in exercises and word not in namespace]
    exec(compile(exercises[name].source, f"reference of {name}", "exec"), namespace)
    print(f"{name}: the reference's, taken; 0 of {exercises[name].points:g} points")
    if missing:
        print(f"it uses {', '.join(missing)}")
