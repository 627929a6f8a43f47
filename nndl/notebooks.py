"""The definitions of a notebook, without running it.

    vit = load_definitions("CA5_vit/code.ipynb")
    vit.Attention(dim=8, heads=2)

A definition cell holds nothing but imports, functions, classes, constants and literals (a docstring). Everything else
is left out whole: a definition beside a statement that does something is not seen. A constant is a name in ALL_CAPS or
with a leading underscore (not `_` alone), and its value may only use names that the definitions before it have made:
`N_TEST = len(test_set)`, where `test_set` comes from a run, belongs to the run.
"""

import ast
import builtins
import inspect
import linecache
import re
import sys
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace

import nbformat

from nndl.records import LabError

CONSTANT = re.compile(r"_*[A-Z][A-Z0-9_]*|_+[A-Za-z0-9]\w*")
DEFINITIONS = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


class NotebookLoadError(LabError):
    """A notebook whose definitions cannot be had; the message names the notebook and the cell."""


def is_constant(statement):
    """Whether a statement gives values to constants only: `A = 1`, `A, _B = 1, 2`, `A: int = 1`."""
    if isinstance(statement, ast.Assign):
        targets = statement.targets
    elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
        targets = [statement.target]
    else:
        return False
    parts = [part for target in targets for part in (target.elts if isinstance(target, ast.Tuple) else [target])]
    return all(isinstance(part, ast.Name) and CONSTANT.fullmatch(part.id) for part in parts)


def is_definition(statement):
    """Whether a top-level statement only defines something."""
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant)
    return isinstance(statement, DEFINITIONS) or is_constant(statement)


def is_definition_cell(tree):
    return bool(tree.body) and all(is_definition(statement) for statement in tree.body)


def missing_names(tree, known):
    """Names that the constants of a cell use and that neither the notebook's definitions nor the cell itself make."""
    made = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    made |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    for statement in tree.body:
        if isinstance(statement, (ast.Import, ast.ImportFrom)):
            made |= {(alias.asname or alias.name).split(".")[0] for alias in statement.names}
        elif isinstance(statement, DEFINITIONS):
            made.add(statement.name)
    used = set()
    for statement in filter(is_constant, tree.body):
        used |= {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
    return used - made - set(known) - set(dir(builtins))


def code_cells(path):
    """(number, cell) of the code cells that are not empty, counted from 1 as Jupyter counts them."""
    cells = nbformat.read(path, as_version=4).cells
    return enumerate((cell for cell in cells if cell.cell_type == "code" and cell.source.strip()), 1)


def parse(source, path, number):
    try:
        return ast.parse(source)
    except SyntaxError as error:
        line = source.splitlines()[(error.lineno or 1) - 1].strip()
        raise NotebookLoadError(
            f"{path}, cell {number}: not plain Python (a magic or a shell line?): {line!r}"
        ) from None


@contextmanager
def room_imports(folder):
    """Imports of `*_helper` come from this folder, and those of another room are not in the way."""

    def take():
        own = [name for name in sys.modules if name.endswith("_helper")]
        return {name: sys.modules.pop(name) for name in own}

    before = take()
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        take()
        sys.modules.update(before)


def load_definitions(path):
    """A module with the notebook's definitions, made in the order of its cells."""
    path = Path(path).resolve()
    module = ModuleType(f"notebook_{path.parent.name}_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses and pickle look classes up there
    with room_imports(path.parent):
        for number, cell in code_cells(path):
            tree = parse(cell.source, path, number)
            if not is_definition_cell(tree) or missing_names(tree, vars(module)):
                continue
            # known to linecache, so that tracebacks and inspect show the source
            file = f"{path}[{number}]"
            linecache.cache[file] = (len(cell.source), None, cell.source.splitlines(keepends=True), file)
            try:
                exec(compile(tree, file, "exec"), vars(module))
            except Exception as error:
                raise NotebookLoadError(f"{path}, cell {number}: {type(error).__name__}: {error}") from error
    return module


def mutated(module, function, *changes):
    """The definitions of the cell that holds `function`, each old text of `changes` replaced by the new one."""
    source = "".join(linecache.getlines(inspect.unwrap(function).__code__.co_filename))
    for old, new in changes:
        assert source.count(old) == 1, f"the notebook has changed: {old!r} stands {source.count(old)} times in the cell"
        source = source.replace(old, new)
    namespace = dict(vars(module))
    exec(compile(source, "mutant", "exec"), namespace)
    return SimpleNamespace(**namespace)
