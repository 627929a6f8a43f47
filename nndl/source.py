"""What a training depends on by way of code: its source, and that of all functions and classes of the room it reaches.

A saved state is used again only when this is the same; see lab.Checkpoint.
"""

import ast
import contextlib
import hashlib
import inspect
import sys
import textwrap
from pathlib import Path
from types import CodeType, FunctionType, ModuleType, SimpleNamespace

from torch import nn
from torch.utils.data import DataLoader

PLAIN = (bool, int, float, complex, str, bytes, type(None))


def digest(thing):
    """Twelve hex digits that stand for anything with a stable repr."""
    return hashlib.sha256(repr(thing).encode()).hexdigest()[:12]


def reached(frame):
    """{name: source or value} of what the code that runs in `frame` depends on.

    Its own source; the room's functions, classes, CONSTANTS and settings (cfg.name) that it names, and what those name
    in turn; the classes of the objects in its variables, of a network's layers and of a loader's data set. Of the room
    is what its notebook defines or a file beside it. Comments and docstrings do not count.
    """
    found = {}
    follow(frame.f_code, frame.f_globals, found)
    if frame.f_code.co_name != "<module>":
        for thing in frame.f_locals.values():
            follow(thing, frame.f_globals, found)
    return found


def follow(thing, namespace, found):
    """Note the source behind an object, and go on with the names in it. Only what belongs to the room is followed."""
    if isinstance(thing, PLAIN):
        return
    if isinstance(thing, DataLoader):
        follow(thing.dataset, namespace, found)
    elif isinstance(thing, nn.Module):
        for kind in {type(layer) for layer in thing.modules()}:
            follow(kind, namespace, found)
    elif not isinstance(thing, FunctionType | type | CodeType):
        follow(type(thing), namespace, found)
    else:
        thing = inspect.unwrap(thing)
        name = getattr(thing, "__qualname__", getattr(thing, "co_qualname", ""))
        if name in found or not (isinstance(thing, CodeType) or in_room(thing, namespace)):
            return
        tree = tree_of(thing)
        found[name] = ast.unparse(tree)
        module = sys.modules.get(getattr(thing, "__module__", None))
        follow_names(tree, getattr(thing, "__globals__", vars(module) if module else namespace), found)


def follow_names(tree, namespace, found):
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            owner, name = namespace.get(node.value.id), f"{node.value.id}.{node.attr}"
            if isinstance(owner, SimpleNamespace):  # a setting: cfg.epochs
                found[name] = repr(getattr(owner, node.attr, None))
            elif isinstance(owner, ModuleType) and in_room(owner, namespace):  # helper.crop
                note(name, getattr(owner, node.attr, None), vars(owner), found)
        elif isinstance(node, ast.Name) and node.id in namespace:
            note(node.id, namespace[node.id], namespace, found)


def note(name, thing, namespace, found):
    """A named value: a CONSTANT counts by its value, everything else by the code behind it."""
    if name.split(".")[-1].isupper():
        constant(name, thing, namespace, found)
    else:
        follow(thing, namespace, found)


def constant(name, thing, namespace, found):
    """Note a constant's value; functions and classes in it are followed."""
    if isinstance(thing, PLAIN):
        found[name] = repr(thing)
    elif isinstance(thing, dict | list | tuple):
        for key, part in thing.items() if isinstance(thing, dict) else enumerate(thing):
            constant(f"{name}[{key!r}]", part, namespace, found)
    elif hasattr(thing, "tobytes"):
        found[name] = digest(thing.tobytes())
    else:
        follow(thing, namespace, found)


def in_room(thing, namespace):
    """Whether a function, class or module comes from the notebook itself or from a file in the working folder."""
    if getattr(thing, "__module__", None) == namespace.get("__name__"):
        return True
    module = thing if isinstance(thing, ModuleType) else sys.modules.get(getattr(thing, "__module__", None))
    file = getattr(module, "__file__", None)
    return file is not None and Path(file).resolve().parent == Path.cwd().resolve()


def tree_of(thing):
    """The syntax tree of a function, class or cell without docstrings (comments are no part of it)."""
    try:
        tree = class_tree(thing) if isinstance(thing, type) else ast.parse(textwrap.dedent(inspect.getsource(thing)))
    except (OSError, TypeError, SyntaxError):  # no source: an interactive prompt, a lambda inside an expression
        return ast.parse(repr(digest(contents(thing))))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return tree


def contents(thing):
    """What stands for code without source: a class by its annotations, plain values and methods; else its bytecode."""
    if isinstance(thing, type):
        parts = {name: contents(part) for name, part in vars(thing).items() if isinstance(part, FunctionType)}
        plain = {name: part for name, part in vars(thing).items() if isinstance(part, PLAIN) and name[:2] != "__"}
        parts |= {name: repr(part) for name, part in plain.items()}
        return sorted(parts.items()), str(getattr(thing, "__annotations__", {}))
    code = getattr(thing, "__code__", thing)
    return code.co_code, code.co_names, [repr(part) for part in code.co_consts if isinstance(part, PLAIN)]


def class_tree(kind):
    """The class statement; in a notebook inspect does not find it before Python 3.13, its methods know their cell."""
    places = [part.__code__ for part in vars(kind).values() if isinstance(part, FunctionType)]
    for place in places:
        with contextlib.suppress(OSError):
            cell = ast.parse("".join(inspect.findsource(place)[0]))
            for node in ast.walk(cell):
                if isinstance(node, ast.ClassDef) and node.name == kind.__name__:
                    return node
    return ast.parse(textwrap.dedent(inspect.getsource(kind)))
