"""What keeps a student's definition from anything but solving its exercise: rules for its code, limits for its process.

Three layers. `prepare` reads the code before it runs: it refuses what no exercise needs (files, frames, the insides of
modules, other modules), and guards what only shows while it runs. An audit hook refuses files outside the process's own
folder, other processes, sockets and raw memory. And the kernel, where it can (Linux with Landlock and namespaces):
files can be read only where Python and its packages lie and written only in the process's folder, no program can be
started, no other process signalled, and there is no network. What of it is in force is printed with the grades.
"""

import ast
import builtins
import ctypes
import importlib
import os
import re
import secrets
import sys
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType

from nndl.records import LabError

PLAIN = {"math", "itertools", "functools", "collections", "dataclasses", "copy", "random", "statistics", "warnings",
         "typing", "enum", "abc", "time", "re", "string", "numbers", "heapq", "bisect", "contextlib",
         "__future__"}  # fmt: skip
NEVER = {"os", "posix", "sys", "subprocess", "shutil", "pathlib", "importlib", "inspect", "gc", "ctypes", "socket",
         "signal", "builtins", "linecache", "threading", "multiprocessing", "pickle", "operator", "types", "io",
         "tempfile", "resource", "marshal", "code", "atexit", "weakref", "unittest", "urllib", "requests",
         "traceback"}  # fmt: skip
NAMES = {"eval", "exec", "compile", "open", "globals", "locals", "vars", "dir", "input", "breakpoint", "memoryview",
         "exit", "quit", "help", "get_ipython", "copyright", "credits", "license"}  # fmt: skip
SPECIAL = {"__init__", "__call__", "__len__", "__getitem__", "__getitems__", "__iter__", "__next__", "__repr__",
           "__str__", "__contains__", "__post_init__", "__enter__", "__exit__", "__slots__", "__name__", "__doc__",
           "__version__", "__future__"}  # fmt: skip
# attributes of anything: frames, and what changes how torch and Python work for everybody
ANYWHERE = re.compile(
    r"(gi|cr|ag|tb|f)_(frame|code|back|globals|locals|builtins|next|lineno|trace)|func_globals|mro|"
    r"register_module_\w+|make_dataclass|update_wrapper|get_type_hints|ForwardRef|run_source"
)
# attributes of modules: files, programs, other machines, other code
IN_MODULES = re.compile(
    r"_\w*|read(_\w+|lines?)?|write\w*|load(txt|z|_library)?|save\w*|open|fromfile|from_file|tofile|memmap|genfromtxt|"
    r"imread\w*|imwrite\w*|hub|jit|cpp_extension|system|query|eval|library|profiler|distributed|multiprocessing|dump"
)
KEYWORDS = {"assigned", "updated"}  # of functools.wraps: they name attributes


class Refused(LabError):
    """Code that a submission may not hold; the message names line and thing."""


# ---------------------------------------------------------------- before it runs


def identifiers(node):
    """Every name that a node binds or reads, whatever kind of node it is."""
    for name in ("id", "attr", "arg", "name", "asname", "rest"):
        value = getattr(node, name, None)
        if isinstance(value, str):
            yield from value.split(".")
    for name in ("kwd_attrs", "names"):
        yield from (value for value in getattr(node, name, ()) if isinstance(value, str))


INNER = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef, ast.ListComp, ast.SetComp, ast.DictComp,
         ast.GeneratorExp)  # fmt: skip


def stored_in(function):
    """Names that a function binds itself: arguments and what it assigns, not what something inside it binds."""
    found = {node.arg for node in ast.walk(function.args) if isinstance(node, ast.arg)}
    waiting = list(function.body) if isinstance(function.body, list) else [function.body]
    while waiting:
        node = waiting.pop()
        if isinstance(node, INNER):
            continue
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        waiting += ast.iter_child_nodes(node)
    return found


class Rules(ast.NodeVisitor):
    """Finds what is refused.

    known: the names that the code can see. modules: full names of modules, and top-level packages, that it may use.
    used: names and attributes that the reference of the exercise uses itself, which are never refused.
    """

    def __init__(self, known, modules, used):
        self.known, self.modules, self.used, self.scopes = known, modules, used, []
        named = [known.get(name) for name in used]  # a variable that is called like a module is none
        self.used_packages = {thing.__name__.split(".")[0] for thing in named if isinstance(thing, ModuleType)}

    def refuse(self, node, what, why="is not allowed in a submission"):
        raise Refused(f"line {getattr(node, 'lineno', 1)}: `{what}` {why}")

    def check(self, tree):
        """Refused where a rule is broken."""
        self.classes = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
        for node in ast.walk(tree):
            for name in identifiers(node):
                special = name.startswith("__") and name.endswith("__") and name not in SPECIAL
                if (special or ANYWHERE.fullmatch(name)) and name not in self.used:
                    self.refuse(node, name)
            if isinstance(node, ast.keyword) and node.arg in KEYWORDS:
                self.refuse(node, f"{node.arg}=")
        self.visit(tree)

    def package(self, node, name):
        """A module, by its full name: one of the room's, or of the packages that it uses."""
        top = name.split(".")[0]
        hidden = any(part.startswith("_") for part in name.split(".")) and top != "__future__"
        allowed = name in self.modules or (top in self.modules and top != "nndl")
        if (top in NEVER or hidden or not allowed) and top not in self.used_packages:
            self.refuse(node, name, "may not be used in a submission")

    def thing(self, node, name, thing):
        """What is taken out of a module."""
        home = str(getattr(thing, "__module__", "") or "").split(".")[0]
        if (home in NEVER - {"builtins"} or IN_MODULES.fullmatch(name)) and name not in self.used:
            self.refuse(node, name)
        if isinstance(thing, ModuleType):
            self.package(node, thing.__name__)

    def visit_Import(self, node):
        for alias in node.names:
            self.package(node, alias.name)
            self.known[(alias.asname or alias.name).split(".")[0]] = importlib.import_module(
                alias.name if alias.asname else alias.name.split(".")[0]
            )

    def visit_ImportFrom(self, node):
        self.package(node, "." * node.level + (node.module or ""))
        module = importlib.import_module(node.module)
        for alias in node.names:
            if alias.name == "*":
                continue
            thing = getattr(module, alias.name, None)
            if thing is None:
                thing = importlib.import_module(f"{node.module}.{alias.name}")
            self.thing(node, alias.name, thing)
            self.known[alias.asname or alias.name] = thing

    def visit_Name(self, node, as_root=False):
        if node.id in NAMES and node.id not in self.used:
            self.refuse(node, node.id)
        if isinstance(node.ctx, ast.Store) and node.id in self.classes:
            self.refuse(node, node.id, "is the name of a class")
        if isinstance(self.seen(node.id), ModuleType) and not as_root and isinstance(node.ctx, ast.Load):
            self.refuse(node, node.id, "is a module: use what is in it, do not pass it on")

    def seen(self, name):
        """What a name stands for, unless a function binds it itself."""
        return None if any(name in scope for scope in self.scopes) else self.known.get(name)

    def visit_Attribute(self, node, inner=False):
        """Returns what a chain of names stands for, as long as it begins with a module."""
        base = None
        if isinstance(node.value, ast.Name):
            self.visit_Name(node.value, as_root=True)
            base = self.seen(node.value.id)
        elif isinstance(node.value, ast.Attribute):
            base = self.visit_Attribute(node.value, inner=True)
        else:
            self.visit(node.value)
        if not isinstance(base, ModuleType):
            return None
        thing = getattr(base, node.attr, None)
        self.thing(node, node.attr, thing)
        if isinstance(thing, ModuleType) and not inner:
            self.refuse(node, ast.unparse(node), "is a module: use what is in it, do not pass it on")
        return thing

    def function(self, node):
        self.scopes.append(stored_in(node))
        self.generic_visit(node)
        self.scopes.pop()

    visit_FunctionDef = visit_AsyncFunctionDef = visit_Lambda = function

    def visit_ClassDef(self, node):
        for base in node.bases:
            if isinstance(base, ast.Name) and base.id in self.classes:
                continue  # one of its own, looked at as well
            thing = evaluated(base, self.known)
            home = getattr(thing, "__module__", "")
            ours = home == self.known.get("__name__") or home.split(".")[0] in self.modules | {"builtins"}
            if not isinstance(thing, type) or not ours or issubclass(thing, liars()):
                self.refuse(node, f"class {node.name}({ast.unparse(base)})")
        if node.keywords:
            self.refuse(node, f"class {node.name}(..., {node.keywords[0].arg}=...)")
        self.generic_visit(node)

    def visit_Global(self, node):
        self.refuse(node, "global")


def liars():
    """Classes whose children could answer `==` or `torch.allclose` as they like."""
    found = [int, float, complex, str, bytes, tuple, list, set, type]
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
    """`a.b = 1` becomes `guard(a).b = 1`, where guard refuses to change modules, classes and functions."""

    def __init__(self, guard):
        self.guard = guard

    def visit_Attribute(self, node):
        self.generic_visit(node)
        if isinstance(node.ctx, ast.Load):
            return node
        wrapped = ast.Call(ast.Name(self.guard, ast.Load()), [node.value], [])
        return ast.fix_missing_locations(ast.copy_location(ast.Attribute(wrapped, node.attr, node.ctx), node))


def guarded_target(thing):
    if isinstance(thing, ModuleType | type | FunctionType | BuiltinFunctionType | MethodType):
        raise Refused(f"`{getattr(thing, '__name__', thing)}` is not yours to change")
    return thing


def checked_name(thing, name):
    special = isinstance(name, str) and name.startswith("__") and name not in SPECIAL
    in_module = isinstance(thing, ModuleType) and IN_MODULES.fullmatch(str(name))
    if not isinstance(name, str) or special or ANYWHERE.fullmatch(name) or in_module:
        raise Refused(f"attribute {name!r} is not allowed in a submission")
    return name


class TypeOf:
    """`type` for a submission: of a thing, as an annotation and in isinstance; it makes no classes."""

    def __call__(self, thing, *more):
        if more:
            raise Refused("`type` with three arguments is not allowed in a submission")
        if isinstance(thing, type):
            raise Refused("`type` of a class is not allowed in a submission")
        return type(thing)

    def __getitem__(self, item):
        return type[item]

    def __instancecheck__(self, thing):
        return isinstance(thing, type)


def guarded_builtins():
    """The builtins that a submission sees. (`__import__` is the real one: libraries call it from C in its name.)"""
    own = {name: value for name, value in vars(builtins).items() if name not in NAMES}
    return own | {
        "type": TypeOf(),
        "getattr": lambda thing, name, *default: getattr(thing, checked_name(thing, name), *default),
        "hasattr": lambda thing, name: hasattr(thing, checked_name(thing, name)),
        "setattr": lambda thing, name, value: setattr(guarded_target(thing), checked_name(thing, name), value),
        "delattr": lambda thing, name: delattr(guarded_target(thing), checked_name(thing, name)),
    }


def words_of(source):
    """Names, attributes and modules that a piece of code uses."""
    return {name for node in ast.walk(ast.parse(source)) for name in identifiers(node)}


def prepare(source, known, modules, reference):
    """The syntax tree of a submission, and the builtins to run it with; Refused where a rule is broken.

    known: the namespace that it will see. modules: the modules that the room imports. reference: the source of the
    exercise's own solution: what it uses is never refused.
    """
    tree = ast.parse(source)
    packages = {name.split(".")[0] for name in modules}
    Rules(dict(known), PLAIN | packages | set(modules), words_of(reference)).check(tree)
    guard = f"guard_{secrets.token_hex(8)}"
    return Targets(guard).visit(tree), guarded_builtins() | {guard: guarded_target}


# ---------------------------------------------------------------- the process in which it runs

PROCESSES = re.compile(
    r"os\.(fork\w*|exec|posix_spawn|spawn|system|startfile|kill\w*)|(subprocess|pty|signal|socket|ctypes|gc|resource)\.\w+"
    r"|sys\._current_\w+|cpython\.\w+"
)
CHANGES = re.compile(r"os\.(remove|rename|mkdir|rmdir|link|symlink|chmod|chown|truncate|utime|setxattr)|shutil\.\w+")
LISTS = ("os.listdir", "os.scandir", "os.walk", "glob.glob")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def confine(folder, readable, mebibytes=2048, seconds=60):
    """For a forked process, before a student's code runs; returns the list in which refused attempts are noted.

    folder: the only place that it may write in. readable: files and folders that it may read.
    """
    import resource  # not on Windows, where the rest of the course runs

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**24, 2**24))
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 5, int(seconds) + 5))
    folder = os.path.realpath(folder)
    readable = {os.path.realpath(path) for path in readable if os.path.exists(path)} | {"/dev/null", "/dev/urandom"}
    if sys.platform == "linux":
        limit_memory(resource, mebibytes)
        no_network()
        landlock(readable, folder)
    sys.dont_write_bytecode = True
    tried, imports, places = [], frozenset(sys.path), (*readable, folder)

    def inside(path, places):
        if isinstance(path, int) or path is None:
            return True
        path = os.path.realpath(os.fsdecode(path))
        return any(path == place or path.startswith(place + os.sep) for place in places)

    def hook(event, arguments):
        if event == "open":
            path, mode, flags = arguments
            writes = (mode is not None and set(mode) & set("wax+")) or (flags or 0) & WRITING
            allowed = inside(path, (folder, "/dev/null") if writes else places)
        elif CHANGES.fullmatch(event):
            allowed = all(inside(path, (folder,)) for path in arguments if isinstance(path, str | bytes))
        elif event in LISTS:
            place = arguments[0] if arguments else "."
            allowed = place in imports or inside(place, places)  # an import looks through its folders
        else:
            allowed = not PROCESSES.fullmatch(event)
        if not allowed:
            what = f"{event} {arguments[0] if arguments else ''}".strip()
            tried.append(what[:200])
            raise PermissionError(f"not allowed in a submission: {what[:200]}")

    sys.addaudithook(hook)
    return tried


def limit_memory(resource, mebibytes):
    """At most so much more memory of its own than the process has now (Linux)."""
    with open("/proc/self/status", encoding="utf-8") as file:
        now = next(int(line.split()[1]) for line in file if line.startswith("VmData"))
    limit = now * 1024 + mebibytes * 2**20
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def no_network():
    """An empty network of the process's own, where the kernel gives one; the audit hook refuses sockets anyway."""
    for flags in (os.CLONE_NEWUSER | os.CLONE_NEWNET, os.CLONE_NEWNET):
        try:
            os.unshare(flags)
            return True
        except OSError:
            continue
    return False


# numbers of linux/landlock.h; the calls have the same numbers on every architecture
CREATE, ADD, RESTRICT = 444, 445, 446
READ_FILE, READ_DIR, EXECUTE = 1 << 2, 1 << 3, 1 << 0
RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1}  # by version; from 5 on one more


def call_kernel(*arguments):
    found = ctypes.CDLL(None, use_errno=True).syscall(*arguments)
    if found < 0:
        raise OSError(ctypes.get_errno(), "landlock")
    return found


def landlock_version():
    """Which Landlock the kernel has; 0: none."""
    try:
        return call_kernel(CREATE, None, 0, 1) if sys.platform == "linux" else 0
    except OSError:
        return 0


def landlock(readable, folder):
    """From here on, by the kernel: read only `readable`, write only in `folder`, start nothing, signal nobody."""
    version = landlock_version()
    if not version:
        return
    rights = RIGHTS.get(version, (1 << 16) - 1)
    network = 0b11 if version >= 4 else 0
    scopes = 0b11 if version >= 6 else 0
    ruleset = (ctypes.c_uint64 * 3)(rights, network, scopes)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    handle = call_kernel(CREATE, ruleset, size, 0)
    for path in [*readable, folder]:
        wanted = rights & ~EXECUTE if path == folder else READ_FILE | READ_DIR
        if not os.path.isdir(path):
            wanted = READ_FILE | (rights & 1 << 1 if path == "/dev/null" else 0)
        place = os.open(path, os.O_PATH)
        rule = wanted.to_bytes(8, sys.byteorder) + place.to_bytes(4, sys.byteorder)
        call_kernel(ADD, handle, 1, rule, 0)
        os.close(place)
    ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)  # no new privileges
    call_kernel(RESTRICT, handle, 0)
    os.close(handle)


def in_force():
    """What holds a submission back on this machine, in words."""
    version = landlock_version()
    if version:
        return f"files, programs and signals by the kernel (Landlock {version}), memory, time, no network"
    if sys.platform == "linux":
        return "files and programs by Python's audit hook alone (no Landlock here), memory, time, network"
    return "files, programs and network by Python's audit hook alone, time"
