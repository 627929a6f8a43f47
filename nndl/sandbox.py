"""What keeps a student's definition from anything but solving its exercise: rules for its code, limits for its process.

Two layers. `prepare` reads the code before it runs: it refuses what no exercise needs (files, frames, the attributes of
modules and classes, names with two underscores), and guards what only shows while it runs. `confine` is for the process
in which it runs: memory, size of files, no network, and an audit hook that refuses files outside the process's own
folder, other processes, and raw memory. Python code that wants to break out of Python can; who fears that runs
`make grade` in a container. What is here ends the known tricks, and every honest accident.
"""

import ast
import builtins
import os
import re
import sys
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType

from nndl.records import LabError

PLAIN = {"math", "itertools", "functools", "collections", "dataclasses", "copy", "random", "statistics", "warnings"}
NEVER = {"os", "sys", "subprocess", "shutil", "pathlib", "importlib", "inspect", "gc", "ctypes", "socket", "signal",
         "builtins", "linecache", "threading", "multiprocessing", "pickle", "operator", "types", "io", "tempfile",
         "resource", "marshal", "code", "atexit", "weakref", "unittest", "urllib", "requests", "traceback"}  # fmt: skip
NAMES = {"eval", "exec", "compile", "open", "globals", "locals", "vars", "dir", "input", "breakpoint", "memoryview",
         "exit", "quit", "help", "get_ipython", "copyright", "credits", "license"}  # fmt: skip
SPECIAL = {"__init__", "__call__", "__len__", "__getitem__", "__getitems__", "__iter__", "__next__", "__repr__",
           "__post_init__", "__enter__", "__exit__"}  # fmt: skip
FRAMES = re.compile(r"(gi|cr|ag|tb|f)_(frame|code|back|globals|locals|builtins|next|lineno|trace)|func_globals|mro")
FILES = re.compile(
    r"read(_\w+|lines?)?|write\w*|load(txt|z|_library)?|save\w*|open|fromfile|from_file|tofile|memmap|genfromtxt|"
    r"to_(csv|pickle|json|parquet|sql|hdf|excel|feather)|imread|imwrite|hub|jit|cpp_extension|system|query|eval"
)
GUARD = "guarded_target"  # what a target of an assignment to an attribute is wrapped in


class Refused(LabError):
    """Code that a submission may not hold; the message names line and thing."""


# ---------------------------------------------------------------- before it runs


class Rules(ast.NodeVisitor):
    """Finds what is refused. `known`: the names that the code can see; `allowed`: top-level packages; `used`: names and
    attributes that the reference of the exercise uses itself, which are never refused."""

    def __init__(self, known, allowed, used):
        self.known, self.allowed, self.used, self.classes = known, allowed, used, set()

    def refuse(self, node, what, why="is not allowed in a submission"):
        raise Refused(f"line {node.lineno}: `{what}` {why}")

    def package(self, node, name):
        top = name.split(".")[0]
        if (top in NEVER or top not in self.allowed) and top not in self.used:
            self.refuse(node, name, "may not be used in a submission")

    def visit_Import(self, node):
        for alias in node.names:
            self.package(node, alias.name)

    def visit_ImportFrom(self, node):
        self.package(node, "." * node.level + (node.module or ""))
        for alias in node.names:
            self.attribute(node, alias.name)

    def visit_Name(self, node, as_root=False):
        if (node.id in NAMES or node.id.startswith("__") or node.id == GUARD) and node.id not in self.used:
            self.refuse(node, node.id)
        thing = self.known.get(node.id)
        if isinstance(thing, ModuleType) and not as_root and isinstance(node.ctx, ast.Load):
            self.refuse(node, node.id, "is a module: use what is in it, do not pass it on")

    def attribute(self, node, name):
        special = name.startswith("__") and name not in SPECIAL | {"__name__"}
        if (special or FRAMES.fullmatch(name) or FILES.fullmatch(name)) and name not in self.used:
            self.refuse(node, name)

    def visit_Attribute(self, node, inner=False):
        """Returns what a chain of names stands for, as long as it is a module."""
        self.attribute(node, node.attr)
        base = None
        if isinstance(node.value, ast.Name):
            self.visit_Name(node.value, as_root=True)
            base = self.known.get(node.value.id)
        elif isinstance(node.value, ast.Attribute):
            base = self.visit_Attribute(node.value, inner=True)
        else:
            self.visit(node.value)
        thing = getattr(base, node.attr, None) if isinstance(base, ModuleType) else None
        if isinstance(thing, ModuleType):
            self.package(node, thing.__name__)
            if not inner:
                self.refuse(node, ast.unparse(node), "is a module: use what is in it, do not pass it on")
        elif str(getattr(thing, "__module__", "")).split(".")[0] in NEVER and node.attr not in self.used:
            self.refuse(node, ast.unparse(node))
        return thing

    def definition(self, node):
        if node.name.startswith("__") and node.name not in SPECIAL and node.name not in self.used:
            self.refuse(node, node.name)
        self.generic_visit(node)

    visit_FunctionDef = visit_AsyncFunctionDef = definition

    def visit_ClassDef(self, node):
        self.classes.add(node.name)
        for base in node.bases:
            thing = evaluated(base, self.known)
            if isinstance(base, ast.Name) and base.id in self.classes:
                continue  # one of its own, looked at already
            ours = isinstance(thing, type) and thing.__module__.split(".")[0] in self.allowed | {"builtins"}
            if not ours or issubclass(thing, liars()):
                self.refuse(node, f"class {node.name}({ast.unparse(base)})")
        if node.keywords:
            self.refuse(node, f"class {node.name}(..., {node.keywords[0].arg}=...)")
        self.definition(node)

    def visit_Global(self, node):
        self.refuse(node, "global")


def liars():
    """Classes whose children could answer `==` or `torch.allclose` as they like."""
    found = [int, float, complex, str, bytes, tuple, list, dict, set, type]
    for module, name in (
        ("torch", "Tensor"),
        ("numpy", "ndarray"),
        ("torch.overrides", "TorchFunctionMode"),
        ("torch.utils._python_dispatch", "TorchDispatchMode"),
    ):
        found.append(getattr(sys.modules.get(module), name, type))
    return tuple(found)


def evaluated(node, known):
    """What a dotted name stands for, or None."""
    if isinstance(node, ast.Name):
        return known.get(node.id, getattr(builtins, node.id, None))
    if isinstance(node, ast.Attribute):
        return getattr(evaluated(node.value, known), node.attr, None)
    return None


class Targets(ast.NodeTransformer):
    """`a.b = 1` becomes `guarded_target(a).b = 1`, which refuses to change modules, classes and functions."""

    def visit_Attribute(self, node):
        self.generic_visit(node)
        if isinstance(node.ctx, ast.Load):
            return node
        wrapped = ast.Call(ast.Name(GUARD, ast.Load()), [node.value], [])
        return ast.fix_missing_locations(ast.copy_location(ast.Attribute(wrapped, node.attr, node.ctx), node))


def guarded_target(thing):
    if isinstance(thing, ModuleType | type | FunctionType | BuiltinFunctionType | MethodType):
        raise Refused(f"`{getattr(thing, '__name__', thing)}` is not yours to change")
    return thing


def checked_name(name):
    if not isinstance(name, str) or name.startswith("__") or FRAMES.fullmatch(name) or FILES.fullmatch(name):
        raise Refused(f"attribute {name!r} is not allowed in a submission")
    return name


def guarded_builtins():
    """The builtins that a submission sees. (`__import__` is the real one: libraries call it from C in its name.)"""

    def type_of(thing, *more):
        if more:
            raise Refused("`type` with three arguments is not allowed in a submission")
        return type(thing)

    own = {name: value for name, value in vars(builtins).items() if name not in NAMES}
    return own | {
        "type": type_of,
        "getattr": lambda thing, name, *default: getattr(thing, checked_name(name), *default),
        "hasattr": lambda thing, name: hasattr(thing, checked_name(name)),
        "setattr": lambda thing, name, value: setattr(guarded_target(thing), checked_name(name), value),
        "delattr": lambda thing, name: delattr(guarded_target(thing), checked_name(name)),
    }


def words_of(source):
    """Names, attributes and modules that a piece of code uses."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
    return found


def prepare(source, known, allowed, reference):
    """The syntax tree of a submission and the builtins to run it with; Refused where a rule is broken.

    known: the namespace that it will see. allowed: the packages that the room uses. reference: the source of the
    exercise's own solution: what it uses is never refused.
    """
    tree = ast.parse(source)
    used = words_of(reference)
    allowed = PLAIN | set(allowed)
    known = dict(known)
    for node in tree.body:  # what it imports, it knows: a chain of names may begin there
        if isinstance(node, ast.Import | ast.ImportFrom):
            Rules(known, allowed, used).visit(node)
            exec(compile(ast.Module([node], []), "imports", "exec"), known)
    Rules(known, allowed, used).visit(tree)
    return Targets().visit(tree), guarded_builtins() | {GUARD: guarded_target}


# ---------------------------------------------------------------- the process in which it runs

PROCESSES = re.compile(
    r"os\.(fork\w*|exec|posix_spawn|spawn|system|startfile|kill\w*)|(subprocess|pty|signal|socket|ctypes|gc|resource)\.\w+"
    r"|sys\._current_\w+|cpython\.\w+"
)
CHANGES = re.compile(r"os\.(remove|rename|mkdir|rmdir|link|symlink|chmod|chown|truncate|utime|setxattr)|shutil\.\w+")
LISTS = ("os.listdir", "os.scandir", "os.walk", "glob.glob")


def limit_memory(resource, mebibytes):
    """At most so much more memory of its own than the process has now (Linux)."""
    with open("/proc/self/status", encoding="utf-8") as file:
        now = next(int(line.split()[1]) for line in file if line.startswith("VmData"))
    limit = now * 1024 + mebibytes * 2**20
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def confine(folder, readable, mebibytes=2048, seconds=60):
    """For a forked process, before a student's code runs; returns the list in which refused attempts are noted.

    folder: the only place that it may write in. readable: files and folders that it may read.
    """
    import resource  # not on Windows, where the rest of the course runs

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**24, 2**24))
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 5, int(seconds) + 5))
    if sys.platform == "linux":
        limit_memory(resource, mebibytes)
        no_network()
    sys.dont_write_bytecode = True
    folder = os.path.realpath(folder)
    readable = tuple({os.path.realpath(path) for path in readable} | {folder, "/dev/null", "/dev/urandom"})
    tried, imports = [], frozenset(sys.path)

    def inside(path, places):
        if isinstance(path, int) or path is None:
            return True
        path = os.path.realpath(os.fsdecode(path))
        return any(path == place or path.startswith(place + os.sep) for place in places)

    def hook(event, arguments):
        if event == "open":
            path, mode, flags = arguments
            writes = (mode is not None and set(mode) & set("wax+")) or (flags or 0) & (os.O_WRONLY | os.O_RDWR)
            allowed = inside(path, (folder, "/dev/null") if writes else readable)
        elif CHANGES.fullmatch(event):
            allowed = all(inside(path, (folder,)) for path in arguments if isinstance(path, str | bytes))
        elif event in LISTS:
            place = arguments[0] if arguments else "."
            allowed = place in imports or inside(place, readable)  # an import looks through its folders
        else:
            allowed = not PROCESSES.fullmatch(event)
        if not allowed:
            what = f"{event} {arguments[0] if arguments else ''}".strip()
            tried.append(what[:200])
            raise PermissionError(f"not allowed in a submission: {what[:200]}")

    sys.addaudithook(hook)
    return tried


def no_network():
    """An empty network of the process's own, where the kernel gives one; the audit hook refuses sockets anyway."""
    for flags in (os.CLONE_NEWUSER | os.CLONE_NEWNET, os.CLONE_NEWNET):
        try:
            os.unshare(flags)
            return True
        except OSError:
            continue
    return False
