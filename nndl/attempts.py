"""Attempts at a room's exercises: one definition put into the reference, the checks that name it, in a process apart.

    bench = Bench("CA5_vit")
    for key, outcome in bench.run([("mine", Attempt("Attention", source))]):
        ...

The reference is loaded once; each attempt is a fork of that process, with its own folder and limits (see sandbox).
"""

import ast
import json
import linecache
import os
import select
import shutil
import signal
import sys
import tempfile
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from nndl import rooms, sandbox
from nndl.exercises import WRITTEN, read_room, source_of
from nndl.notebooks import missing_names, room_imports
from nndl.records import LabError

LEAST_SECONDS = 20  # what any exercise gets; else ten times what the reference takes
LONGEST_MESSAGE = 600  # characters
LONGEST_OUTPUT = 2000


@dataclass(frozen=True)
class Attempt:
    """A definition of the exercise `name` to be tried, or (source None) the reference itself.

    own: definitions and imports of the student's that `source` may need. guarded: whether the rules for submissions
    hold. checks: numbers of the cells to run, None for all that name the exercise. stop: after the first that fails.
    """

    name: str
    source: str | None = None
    own: str = ""
    guarded: bool = True
    checks: tuple | None = None
    stop: bool = False
    seconds: float | None = None


@dataclass
class Outcome:
    """What came of it: for each check {"title", "passed", "message", "seconds"}; `problem`: why there was no more."""

    checks: list = field(default_factory=list)
    problem: str = ""
    seconds: float = 0.0
    output: str = ""

    @property
    def passed(self):
        return not self.problem and bool(self.checks) and all(check["passed"] for check in self.checks)

    @property
    def message(self):
        """The first thing that went wrong, in a line."""
        failed = [check["message"] for check in self.checks if not check["passed"]]
        return " ".join((self.problem or (failed[0] if failed else "")).split())


class Bench:
    """The reference of a room, and attempts at it. The process that makes one must not have run torch on a GPU."""

    def __init__(self, room, workers=2, seconds=None):
        if not hasattr(os, "fork"):
            raise LabError("attempts need fork: Linux, macOS, or WSL on Windows")
        self.folder, self.workers, self.limit = rooms.ROOT / room, workers, seconds
        self.room = read_room(self.folder / "code.ipynb")
        self.took = {}  # {cell of a check: seconds with the reference}
        os.environ |= {"MPLBACKEND": "Agg", "TQDM_DISABLE": "1", "ACCELERATE_USE_CPU": "true", "NNDL_PROFILE": "tiny"}
        for name in ("NNDL_SET", "NNDL_DOWNLOAD", "NNDL_TRACK"):
            os.environ.pop(name, None)
        with room_imports(self.folder):
            namespace = {"__name__": "warm"}
            for _, source in self.room.cells:  # once, for what it imports; the forks make their own
                tree = ast.parse(source)
                tree.body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
                exec(compile(tree, "imports", "exec"), namespace)
            self.helpers = {name: module for name, module in sys.modules.items() if name.endswith("_helper")}
        self.modules = set(imported(source for _, source in self.room.cells))

    def reference(self):
        """All checks with the reference as it is: {cell: Outcome}. LabError where one fails."""
        keys = [(check.cell, Attempt("", checks=(check.cell,), seconds=600)) for check in self.room.checks]
        found = dict(self.run(keys))
        for check in self.room.checks:
            outcome = found[check.cell]
            if not outcome.passed:
                raise LabError(f"{self.room.name}, check in cell {check.cell}: the reference fails: {outcome.message}")
            self.took[check.cell] = outcome.seconds
        return found

    def checks_for(self, attempt):
        """The checks to run, quick ones first."""
        wanted = [
            check
            for check in self.room.checks
            if (attempt.name in check.names if attempt.checks is None else check.cell in attempt.checks)
        ]
        return sorted(wanted, key=lambda check: self.took.get(check.cell, 0))

    def seconds_for(self, attempt):
        known = sum(self.took.get(check.cell, 0) for check in self.checks_for(attempt))
        return attempt.seconds or self.limit or max(LEAST_SECONDS, 10 * known)

    def run(self, attempts):
        """Yield (key, Outcome) of (key, Attempt) pairs as they end, `workers` of them at a time."""
        waiting, running = deque(attempts), {}
        try:
            while waiting or running:
                while waiting and len(running) < self.workers:
                    key, attempt = waiting.popleft()
                    process = Process(self, attempt)
                    running[process.pipe] = key, process
                next_end = min(process.deadline for _, process in running.values())
                ready, _, _ = select.select(list(running), [], [], max(0, next_end - time.monotonic()))
                for pipe, (key, process) in list(running.items()):
                    if process.over(pipe in ready):
                        del running[pipe]
                        yield key, process.outcome()
        finally:
            for _, process in running.values():
                process.stop()


class Process:
    """One forked attempt: what it says comes through a pipe, a line of JSON for each check."""

    def __init__(self, bench, attempt):
        self.checks, self.seconds = bench.checks_for(attempt), bench.seconds_for(attempt)
        self.folder = Path(tempfile.mkdtemp(prefix="attempt-"))
        self.pipe, child_end = os.pipe()
        self.begin = time.monotonic()
        self.deadline, self.said, self.late = self.begin + self.seconds, b"", False
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(self.pipe)
                in_the_fork(bench, attempt, self.checks, self.folder, child_end, self.seconds)
            finally:
                os._exit(0)
        os.close(child_end)

    def over(self, readable):
        """Read what is there; whether the process has ended, or was ended because its time was up."""
        if readable:
            part = os.read(self.pipe, 2**16)
            self.said += part
            if part and len(self.said) < 2**20:
                return False
        elif time.monotonic() < self.deadline:
            return False
        else:
            self.late = True
        self.stop()
        return True

    def stop(self):
        for kill, target in ((os.killpg, self.pid), (os.kill, self.pid)):
            with suppress(OSError):
                kill(target, signal.SIGKILL)
        _, self.status = os.waitpid(self.pid, 0)
        os.close(self.pipe)

    def outcome(self):
        found = Outcome(seconds=round(time.monotonic() - self.begin, 2))
        waiting = {check.cell: check.title for check in self.checks}
        for line in self.said.splitlines():
            said = verdict_of(line, waiting)
            if said is None:
                found.problem = "the process said what is no verdict"
                break
            if "problem" in said:
                found.problem = said["problem"]
            else:
                found.checks.append(said | {"title": waiting.pop(said["cell"])})
        if self.late:
            found.problem = f"not done within {self.seconds:.0f} s"
        elif not found.problem and waiting and all(check["passed"] for check in found.checks):
            signalled = f" (signal {os.WTERMSIG(self.status)})" if os.WIFSIGNALED(self.status) else ""
            found.problem = f"the process ended before the checks did{signalled}"
        output = self.folder / "output"
        if output.is_file() and not output.is_symlink():
            with open(output, encoding="utf-8", errors="replace") as file:
                found.output = file.read(LONGEST_OUTPUT)
        shutil.rmtree(self.folder, ignore_errors=True)
        return found


VERDICT = {"cell": int, "passed": bool, "message": str, "seconds": float}


def verdict_of(line, waiting):
    """A line of an attempt as a dict, or None where it is not what an attempt says: {"problem"} or a VERDICT."""
    try:
        said = json.loads(line)
    except ValueError:
        return None
    if not isinstance(said, dict):
        return None
    if set(said) == {"problem"} and isinstance(said["problem"], str):
        return said
    fits = set(said) == set(VERDICT) and all(type(said[name]) is kind for name, kind in VERDICT.items())
    return said if fits and said["cell"] in waiting and said["passed"] is not bool(said["message"]) else None


# ---------------------------------------------------------------- in the forked process


def in_the_fork(bench, attempt, checks, folder, pipe, seconds):
    """Everything of an attempt; ends the process."""
    os.setsid()

    def say(**line):
        text = json.dumps(line).encode("ascii")  # json escapes all else
        os.write(pipe, text + b"\n")

    output = os.open(folder / "output", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, target in ((0, nothing), (1, output), (2, output)):
        os.dup2(target, number)
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w", errors="replace", closefd=False)
    sys.stderr = sys.__stderr__ = os.fdopen(2, "w", errors="replace", closefd=False)
    try:
        space = begin(bench, folder)
        readable = [sys.prefix, sys.base_prefix, Path(__file__).parent, *bench.folder.glob("*_helper.py"),
                    "/usr/share", "/usr/lib", "/lib", "/lib64", "/proc/cpuinfo", "/sys/devices/system/cpu"]  # fmt: skip
        tried = sandbox.confine(folder, readable, seconds=seconds)
        load(bench, attempt, space)
    except BaseException as error:
        return say(problem=in_words(error))
    for check in checks:
        began = time.monotonic()
        try:
            space.seed()
            exec(compile(check.source, f"check in cell {check.cell}", "exec"), dict(vars(space.module)))
            message = ""
        except BaseException as error:
            message = in_words(error)
        message = f"tried {tried[0]}" if tried else message
        say(cell=check.cell, passed=not message, message=message, seconds=round(time.monotonic() - began, 2))
        if message and (attempt.stop or tried):
            break
    sys.stdout.flush()


def in_words(error):
    """Type and text of an exception; whatever its text does."""
    try:
        text = str(error)[:LONGEST_MESSAGE]
    except BaseException:
        text = ""
    kind = type(error).__name__
    if isinstance(error, NotImplementedError):
        return f"not done yet: {text}"
    if isinstance(error, sandbox.Refused):
        return text
    return f"{kind}: {text}" if text and not (isinstance(error, AssertionError) and text) else text or kind


class Space:
    """The namespace of an attempt: a module with the notebook's definitions, `run` and `cfg`."""

    def __init__(self, module):
        self.module = module

    def seed(self):
        from accelerate.utils import set_seed

        set_seed(0)
        pyplot = sys.modules.get("matplotlib.pyplot")
        if pyplot:
            pyplot.close("all")


def begin(bench, folder):
    """Start a tiny run on embedded data, in a folder of this process alone."""
    home = folder / bench.room.name
    home.mkdir()
    (folder / "no-data").mkdir()
    os.chdir(home)
    for name in list(os.environ):
        if name not in ("PATH", "LANG", "LC_ALL", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "MPLBACKEND", "TQDM_DISABLE",
                        "ACCELERATE_USE_CPU", "NNDL_PROFILE"):  # fmt: skip
            del os.environ[name]
    os.environ |= {"NNDL_DATA": str(folder / "no-data"), "HOME": str(folder), "MPLCONFIGDIR": str(folder)}
    tempfile.tempdir = str(folder)
    sys.modules.update(bench.helpers)
    module = ModuleType(f"notebook_{bench.room.name}")
    sys.modules[module.__name__] = module  # dataclasses look classes up there
    return Space(module)


def load(bench, attempt, space):
    """The notebook's definitions, with the attempt in the place of one of them."""
    names, theirs = vars(space.module), None
    exercise = bench.room.exercises.get(attempt.name) if attempt.source is not None else None
    for number, source in bench.room.cells:
        if missing_names(ast.parse(source), names):  # constants of a run
            continue
        if exercise is None or number != exercise.cell:
            run_source(source, number, names)
        else:
            for node in ast.parse(source).body:
                if isinstance(node, WRITTEN) and node.name == exercise.name:
                    theirs = student(bench, attempt, exercise, names)
                    names[exercise.name] = theirs[exercise.name]
                else:
                    run_source(source_of(node, source), f"{number}, line {node.lineno}", names)
        if "SETTINGS" in names and "run" not in names:
            from nndl import lab

            names["run"] = lab.start(names["SETTINGS"], "tiny", "")
            names["cfg"] = names["run"].cfg
    if theirs is not None:  # a function sees what the notebook defines after it, too
        own = theirs["__own__"] | {exercise.name}
        theirs.update((name, value) for name, value in names.items() if name not in own)


def run_source(source, number, names, label="cell"):
    """Execute definitions; their source is known to linecache, where inspect looks for it."""
    file = f"{label} {number}"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    exec(compile(source, file, "exec"), names)


def student(bench, attempt, exercise, names):
    """Execute a student's definition in a namespace of its own, which holds what the notebook has defined so far."""
    own = {node.name for node in ast.parse(attempt.own).body if isinstance(node, WRITTEN)}
    theirs = {name: value for name, value in names.items() if not name.startswith("__")}
    theirs |= {"__name__": names["__name__"], "__own__": own | {"__builtins__", "__name__", "__own__"}}
    source = f"{attempt.own}\n\n{attempt.source}" if attempt.own else attempt.source
    file = f"answer {attempt.name}"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    if attempt.guarded:
        tree, theirs["__builtins__"] = sandbox.prepare(source, theirs, bench.modules, exercise.source)
        exec(compile(tree, file, "exec"), theirs)
    else:
        exec(compile(source, file, "exec"), theirs)
    return theirs


def imported(sources):
    """Names of the modules that pieces of code import."""
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                yield node.module
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
