"""What a training depends on by way of code: its source, and that of all functions and classes of the room it reaches.

A saved state is used again only when this is the same; see lab.Checkpoint. Of the room is what its notebook defines, or
a file beside it. Comments and docstrings do not count.
"""

import ast
import contextlib
import dataclasses
import hashlib
import inspect
import sys
import textwrap
from collections import ChainMap
from functools import partial
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType, SimpleNamespace

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

PLAIN = (bool, int, float, complex, str, bytes, range, type(None))


def digest(thing):
    """Twelve hex digits that stand for plain values, arrays, tensors, dataclasses, and lists, sets and dicts of these.

    TypeError for anything else: its repr might differ from one process to the next.
    """
    return hashlib.sha256(repr(stable(thing)).encode()).hexdigest()[:12]


def stable(thing):
    """The same, as something whose repr is whole and the same in every process."""
    if isinstance(thing, torch.Tensor):
        thing = thing.detach().cpu().numpy() if thing.dtype != torch.bfloat16 else thing.detach().cpu().float().numpy()
    if isinstance(thing, np.ndarray) and thing.dtype == object:
        thing = thing.tolist()
    if isinstance(thing, np.ndarray | np.generic):
        data = np.ascontiguousarray(thing)
        return str(data.dtype), data.shape, hashlib.sha256(data.tobytes()).hexdigest()
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        return type(thing).__name__, [(f.name, stable(getattr(thing, f.name))) for f in dataclasses.fields(thing)]
    if isinstance(thing, dict | SimpleNamespace):
        parts = thing if isinstance(thing, dict) else vars(thing)
        return sorted((repr(stable(key)), stable(value)) for key, value in parts.items())
    if isinstance(thing, set | frozenset):
        return "set", sorted(repr(stable(part)) for part in thing)
    if isinstance(thing, list | tuple):
        return [stable(part) for part in thing]
    if isinstance(thing, (*PLAIN, torch.dtype, torch.device, Path)):
        return repr(thing)
    raise TypeError(f"a {type(thing).__name__} does not say what it holds: name its numbers and texts instead")


def reached(frame):
    """Sources and values, as sorted texts, of what the code that runs in `frame` depends on.

    Its own source; the room's functions, classes, CONSTANTS, numbers and settings (cfg.name) that it names, and what
    those name in turn; and what the objects in its variables are made of: layers, data sets, partials, closures.
    """
    walk = Walk(frame.f_globals["__name__"])
    inside = frame.f_code.co_name != "<module>"
    local = frame.f_locals if inside else {}
    walk.source(frame.f_code, frame.f_code.co_qualname, ChainMap(local, frame.f_globals))
    for thing in local.values():
        walk.follow(thing)
    return sorted(walk.found)


class Walk:
    """Goes from object to object. `found`: the texts so far; `room`: the name of the notebook's module."""

    def __init__(self, room):
        self.room, self.found, self.seen = room, set(), {}

    def follow(self, thing, name=""):
        """Note what is behind an object. name: what plain values and arrays are noted under; without one they are not,
        for a variable like the loss so far belongs to the run, not to the code."""
        if isinstance(thing, PLAIN):
            if name:
                self.found.add(f"{name} = {thing!r}")
            return
        if id(thing) in self.seen:
            return
        self.seen[id(thing)] = thing  # kept, so that no other object gets its id
        if isinstance(thing, FunctionType):
            self.function(thing)
        elif isinstance(thing, type):
            self.kind(thing)
        elif isinstance(thing, MethodType):
            self.follow(thing.__func__)
            self.follow(thing.__self__)
        elif isinstance(thing, partial):
            self.follow(thing.func)
            self.follow([thing.args, thing.keywords], f"partial of {getattr(thing.func, '__qualname__', '')}")
        elif isinstance(thing, dict | list | tuple | set | frozenset):
            parts = sorted(thing, key=repr) if isinstance(thing, set | frozenset) else thing
            for key, part in parts.items() if isinstance(parts, dict) else enumerate(parts):
                self.follow(part, f"{name}[{key!r}]" if name else "")
        elif isinstance(thing, torch.Tensor | np.ndarray):
            if name:
                self.found.add(f"{name} = {digest(thing)}")
        elif isinstance(thing, SimpleNamespace):  # settings handed over as a whole
            self.follow(vars(thing), name or "settings")
        elif isinstance(thing, nn.Module):
            self.found.add(f"{type(thing).__name__}: {thing}")  # which layers, in which order
            for layer in thing.modules():
                self.parts(layer)
        elif isinstance(thing, DataLoader):
            for part in (thing.dataset, thing.collate_fn):
                self.follow(part)
        elif isinstance(thing, Dataset) or self.in_room(type(thing)):
            self.parts(thing)

    def parts(self, thing):
        """The class of an object, and its public attributes; its arrays are data, for which the caller answers."""
        self.follow(type(thing))
        for name, part in getattr(thing, "__dict__", {}).items():
            if name[0] != "_" and name != "training" and not isinstance(part, torch.Tensor | np.ndarray):
                self.follow(part, f"{type(thing).__name__}.{name}")

    def function(self, function):
        """A function: its source, what its closure holds, and what it wraps."""
        if self.in_room(function):
            self.source(function, function.__qualname__, function.__globals__)
        self.closure(function)
        if hasattr(function, "__wrapped__"):
            self.follow(function.__wrapped__)

    def closure(self, function):
        """What a function holds besides its source; of a function from elsewhere, as of a decorator, only the code."""
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            with contextlib.suppress(ValueError):  # a cell that is not filled yet
                held = cell.cell_contents
                if self.in_room(function) or isinstance(held, FunctionType | MethodType | partial | type):
                    self.follow(held, f"{function.__qualname__}.{name}")

    def kind(self, kind):
        """A class of the room: its source, what the closures of its methods hold, and its bases."""
        if self.in_room(kind):
            module = sys.modules.get(kind.__module__)
            self.source(kind, kind.__qualname__, vars(module) if module else {})
            for part in map(method, vars(kind).values()):
                if isinstance(part, FunctionType):
                    self.closure(part)
            for base in kind.__bases__:
                self.follow(base)

    def source(self, thing, name, namespace):
        """Note the source of a function, class or cell, and follow the names that it reads."""
        tree = tree_of(thing)
        if tree is None:  # an interactive prompt, a lambda: what the interpreter runs
            text, names = contents(thing), names_of(thing)
            self.found.add(f"{name}: {text}")
        else:
            self.found.add(f"{name}: {ast.unparse(tree)}")
            stored = {
                node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
            }
            stored |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
            names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - stored
            for node in ast.walk(tree):
                if isinstance(node, ast.Attribute):
                    self.attribute(node, namespace)
        code = getattr(inspect.unwrap(thing) if isinstance(thing, FunctionType) else thing, "__code__", None)
        names -= set(getattr(code, "co_freevars", ()))  # what the closure holds, whatever a global of that name is
        for name in sorted(names & namespace.keys()):  # in one order, since a thing is noted where it is met first
            thing = namespace[name]
            if isinstance(thing, SimpleNamespace):
                for setting in sorted(names & set(vars(thing))) if tree is None else ():
                    self.follow(getattr(thing, setting), f"{name}.{setting}")
            elif isinstance(thing, PLAIN) or name.isupper():
                self.follow(thing, name)
            else:
                self.follow(thing)

    def attribute(self, node, namespace):
        """cfg.epochs, run.cfg.epochs, helper.crop: a setting, or a function of a file of the room."""
        owner = value_of(node.value, namespace)
        if isinstance(owner, SimpleNamespace) or (isinstance(owner, ModuleType) and self.in_room(owner)):
            self.follow(getattr(owner, node.attr, None), ast.unparse(node))

    def in_room(self, thing):
        """Whether a function, class or module comes from the notebook itself, or from a file in the working folder."""
        name = getattr(thing, "__module__", None)
        if isinstance(thing, ModuleType):
            module = thing
        elif name == self.room:
            return True
        else:
            module = sys.modules.get(name) if isinstance(name, str) else None
        file = getattr(module, "__file__", None)
        return file is not None and Path(file).resolve().parent == Path.cwd().resolve()


def value_of(node, namespace):
    """The value of a dotted name, as far as it leads through settings, modules and the run; else None."""
    if isinstance(node, ast.Name):
        return namespace.get(node.id)
    if isinstance(node, ast.Attribute):
        owner = value_of(node.value, namespace)
        if isinstance(owner, SimpleNamespace | ModuleType) or type(owner).__module__.startswith("nndl."):
            return getattr(owner, node.attr, None)
    return None


# ---------------------------------------------------------------- source


def method(part):
    """The function in a static method, class method or property; other things as they are."""
    return getattr(part, "__func__", None) or getattr(part, "fget", None) or part


def plain(part):
    """The same, without its decorators as far as they say what they wrap."""
    part = method(part)
    return inspect.unwrap(part) if isinstance(part, FunctionType) else part


def tree_of(thing):
    """The syntax tree of a function, class or cell without docstrings; None where no source is to be had."""
    if getattr(thing, "__name__", "") == "<lambda>":  # its lines may hold another one
        return None
    try:
        tree = class_tree(thing) if isinstance(thing, type) else ast.parse(textwrap.dedent(inspect.getsource(thing)))
    except (OSError, TypeError, SyntaxError):
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return tree


def class_tree(kind):
    """The class statement; in a notebook inspect does not find it before Python 3.13, its methods know their cell."""
    for part in map(plain, vars(kind).values()):
        if isinstance(part, FunctionType):
            with contextlib.suppress(OSError):
                cell = ast.parse("".join(inspect.findsource(part.__code__)[0]))
                for node in ast.walk(cell):
                    if isinstance(node, ast.ClassDef) and node.name == kind.__name__:
                        return node
    return ast.parse(textwrap.dedent(inspect.getsource(kind)))


def codes(thing):
    """The code objects of a function, or of all methods of a class, those inside them too."""
    parts = map(plain, vars(thing).values()) if isinstance(thing, type) else [thing]
    waiting = [getattr(part, "__code__", part) for part in parts]
    found = [part for part in waiting if isinstance(part, CodeType)]
    for code in found:
        found += [part for part in code.co_consts if isinstance(part, CodeType)]
    return found


def names_of(thing):
    return {name for code in codes(thing) for name in code.co_names}


def contents(thing):
    """What stands for code without source: bytecode and constants; of a class its annotations and plain values too."""
    parts = [
        (code.co_code, code.co_names, [repr(c) for c in code.co_consts if isinstance(c, PLAIN)])
        for code in codes(thing)
    ]
    if isinstance(thing, type):
        parts += [str(getattr(thing, "__annotations__", {}))]
        parts += [(n, repr(v)) for n, v in vars(thing).items() if isinstance(v, PLAIN) and n[:2] != "__"]
    return hashlib.sha256(repr(parts).encode()).hexdigest()
