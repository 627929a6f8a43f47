"""The set-up: requirements that are used and pinned, the same Pythons everywhere, text as UTF-8, setup.sh."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.12", "3.13")

# What is run and not imported: where it is called, and the text that stands there.
TOOLS = {
    "huggingface-hub": ("CA5_vit/README.md", "hf download"),
    "ipykernel": ("CA5_vit/code.ipynb", '"name": "python3"'),
    "ipywidgets": ("CA5_vit/code.ipynb", "from tqdm.auto import"),
    "jupyterlab": ("Makefile", "make lab"),
    "kagglehub": ("CA2_covid_cnn/README.md", "kagglehub.dataset_download("),
    "nbmake": ("Makefile", "--nbmake"),
    "pytest-benchmark": ("Makefile", "--benchmark-sort"),
    "pytest-timeout": ("pyproject.toml", "timeout = "),
    "ruff": ("Makefile", "ruff check"),
    "tensorboard": ("README.md", "NNDL_TRACK=tensorboard"),
    "uv": ("Makefile", "uv pip compile"),
}


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


# ---------------------------------------------------------------- what is imported


def sources():
    """(name, tree) of every Python file and code cell."""
    for pattern in ("*.py", "nndl/**/*.py", "tests/**/*.py", "CA*/*.py"):
        for path in sorted(ROOT.glob(pattern)):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(ROOT.glob("CA*/*.ipynb")):
        for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
            if cell["cell_type"] == "code":
                yield f"{path.relative_to(ROOT).as_posix()}, cell at {number}", ast.parse("".join(cell["source"]))


SOURCES = list(sources())
OWN = {"nndl"} | {path.stem for pattern in ("*.py", "tests/*.py", "CA*/*.py") for path in ROOT.glob(pattern)}


def imported(tree):
    """Full names of the modules that a piece of code imports, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def third_party(trees):
    """{top-level module: one of the places that import it}, without the standard library and what is ours."""
    found = {module.split(".")[0]: name for name, tree in trees for module in imported(tree)}
    return {module: name for module, name in found.items() if module not in OWN | set(sys.stdlib_module_names)}


INSTALLED = packages_distributions()


def packages_of(module):
    """The names of the packages that bring a module."""
    return {canonicalize_name(name) for name in INSTALLED.get(module, [])}


def requirements(text):
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("-")]


DIRECT = {canonicalize_name(line.name): line for line in requirements(read("requirements.in"))}


def test_direct_dependencies_are_used():
    used = {package for module in third_party(SOURCES) for package in packages_of(module)}
    idle = set(DIRECT) - used - set(TOOLS)
    assert not idle, f"requirements.in: nothing imports {idle}; take it out, or name in TOOLS where it is called"
    for tool, (file, text) in TOOLS.items():
        assert tool in DIRECT, f"{tool} is in TOOLS, not in requirements.in"
        assert text in read(file), f"{tool}: {file} does not call it any more ({text!r})"
    assert not used & set(TOOLS), f"imported, so no longer only tools: {used & set(TOOLS)}"


def test_imports_are_direct_dependencies():
    missing = {module: name for module, name in third_party(SOURCES).items() if not packages_of(module) & set(DIRECT)}
    assert not missing, f"imported, and not in requirements.in: {missing}"


def test_the_package_asks_for_what_notebooks_import_from_it():
    """A hosted notebook gets nndl by pip: what its modules need must come with it, and no more."""
    trees = dict(SOURCES)
    ours = {name for name in trees if name.startswith("nndl/")}
    todo = {module for name, tree in SOURCES if ".ipynb" in name for module in imported(tree)}
    todo |= {module for name, tree in SOURCES if re.match(r"CA\w+/\w+\.py$", name) for module in imported(tree)}
    reached = set()
    while todo:
        parts = todo.pop().split(".")
        for name in ("/".join(parts) + ".py", "/".join(parts[:-1]) + ".py"):
            if name in ours - reached:
                reached.add(name)
                todo |= set(imported(trees[name]))
    assert "nndl/lab.py" in reached
    needed = third_party((name, trees[name]) for name in reached)
    project = tomllib.loads(read("pyproject.toml"))["project"]
    asked = {canonicalize_name(Requirement(line).name) for line in project["dependencies"]}
    missing = {module: name for module, name in needed.items() if not packages_of(module) & asked}
    assert not missing, f"pyproject.toml, dependencies: {missing} missing"
    idle = asked - {package for module in needed for package in packages_of(module)}
    assert not idle, f"pyproject.toml, dependencies: {idle} not needed by {sorted(reached)}"
    assert asked <= set(DIRECT), f"not pinned in requirements.in: {asked - set(DIRECT)}"


# ---------------------------------------------------------------- pins, platforms, Pythons


def test_every_direct_dependency_is_pinned():
    loose = [str(line) for line in DIRECT.values() if not re.search(r"==|<", str(line.specifier))]
    assert not loose, f"requirements.in: {loose} without a bound"


def test_requirements_fit_together():
    """requirements.txt has one pin a package, inside the bounds of requirements.in."""
    pins = {}
    for line in requirements(read("requirements.txt")):
        name, pin = canonicalize_name(line.name), str(line.specifier)
        assert pin.startswith("=="), f"requirements.txt does not pin {line}"
        assert pins.setdefault(name, pin) == pin, f"requirements.txt: two versions of {name}"
    for name, line in DIRECT.items():
        assert name in pins, f"requirements.txt lacks {name}: run make lock"
        assert line.specifier.contains(pins[name].removeprefix("==")), f"{line}, but {pins[name]}: run make lock"


def test_requirements_are_for_every_machine():
    text = read("requirements.txt")
    places = [line for line in text.splitlines() if re.search(r"file:|(^|[\s=@])(/|~|[A-Za-z]:[\\/])", line)]
    assert not places, f"requirements.txt names places of one machine: {places}"
    assert [line for line in text.splitlines() if line.startswith("-")] == ["-e ."]
    markers = {canonicalize_name(line.name): str(line.marker) for line in requirements(text)}
    for name, system in {"triton": "linux", "appnope": "darwin", "colorama": "win32"}.items():
        assert system in markers[name], f"requirements.txt: {name} for {markers[name]}; make lock with --universal"


def test_pythons_agree():
    project = tomllib.loads(read("pyproject.toml"))
    assert project["project"]["requires-python"] == f">={PYTHONS[0]}"
    assert project["tool"]["ruff"]["target-version"] == "py" + PYTHONS[0].replace(".", "")
    assert read(".python-version").split() == [PYTHONS[0]]
    assert " | ".join(PYTHONS) + ")" in read("setup.sh")
    assert f"python: {json.dumps(PYTHONS)}" in read(".github/workflows/ci.yml")
    assert f"--python-version {PYTHONS[0]}" in read("Makefile"), "make lock: for the oldest Python and later"


# ---------------------------------------------------------------- text


def without_encoding(tree):
    """Calls that read or write text in whatever encoding the machine has. (ruff's PLW1514 sees only some of them.)"""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or any(word.arg in ("encoding", None) for word in node.keywords):
            continue
        method = isinstance(node.func, ast.Attribute)
        name = node.func.attr if method else getattr(node.func, "id", "")
        words = {word.arg: word.value for word in node.keywords}
        if name == "read_text":
            bad = not node.args
        elif name == "write_text":
            bad = len(node.args) < 2
        elif name == "open" and (not method or getattr(node.func.value, "id", "") not in ("Image", "os", "tarfile")):
            modes = [part.value for part in [*node.args, *words.values()] if isinstance(part, ast.Constant)]
            bad = not any(isinstance(mode, str) and re.fullmatch(r"[rwxa+]*b[rwxa+]*", mode) for mode in modes)
        else:
            bad = name in ("run", "Popen", "check_output") and {"text", "universal_newlines"} & set(words)
        if bad:
            yield node.lineno


def test_text_is_utf8_everywhere():
    places = [f"{name}, line {line}" for name, tree in SOURCES for line in without_encoding(tree)]
    assert not places, 'without encoding="utf-8": ' + "; ".join(places)


@pytest.mark.parametrize(
    "code, bad",
    [
        ("path.read_text()", True),
        ("path.write_text('x')", True),
        ("open(path)", True),
        ("path.open('w', newline='')", True),
        ("subprocess.run(command, text=True)", True),
        ("path.read_text('utf-8')", False),
        ("path.write_text('x', encoding='utf-8')", False),
        ("open(path, 'rb')", False),
        ("path.open(mode='wb')", False),
        ("Image.open(path)", False),
        ("open(path, **how)", False),
        ("subprocess.run(command)", False),
    ],
)
def test_the_look_for_encodings_sees(code, bad):
    assert bool(list(without_encoding(ast.parse(code)))) is bad


# ---------------------------------------------------------------- setup.sh

# Stands for uv: notes how it was called; `venv` makes a python that says which Python and torch it has.
UV = """#!/bin/sh
echo "$*" >>"$UV_LOG"
case "$1" in
    venv)
        site=.venv/lib/python3/site-packages
        mkdir -p .venv/bin $site
        printf '%s\\n' "$UV_PYTHON_IS" >.venv/python-is
        cat >.venv/bin/python <<'END'
#!/bin/sh
case "$2" in *version_info*) cat .venv/python-is ;; *torch*) cat .venv/torch-is ;; esac
END
        chmod +x .venv/bin/python ;;
    pip)
        [ "$UV_FAILS" = no ] || exit 1
        case "$*" in *--torch-backend*) echo 2.15.0+cpu ;; *) echo 2.15.0 ;; esac >.venv/torch-is
        echo /a/full/name >.venv/lib/python3/site-packages/_nndl.pth ;;
esac
"""


@pytest.fixture
def setup(tmp_path):
    """setup(NNDL_PYTHON="3.13") runs setup.sh in a folder with a blank and an accent, under an ASCII locale."""
    if sys.platform == "win32":
        pytest.skip("setup.sh is not for Windows")
    accent = "é" if sys.getfilesystemencoding() == "utf-8" else ""
    folder, tools = tmp_path / f"a folder {accent}", tmp_path / "bin"
    folder.mkdir()
    tools.mkdir()
    for name in ("setup.sh", "requirements.in", "requirements.txt"):
        (folder / name).write_text(read(name), encoding="utf-8")
    (tools / "uv").write_text(UV, encoding="utf-8")
    (tools / "uv").chmod(0o755)
    log = tmp_path / "log"

    def run(fails=False, **variables):
        log.write_text("", encoding="utf-8")
        known = {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "HOME": str(tmp_path), "LC_ALL": "C"}
        known |= {"UV_LOG": str(log), "UV_FAILS": "yes" if fails else "no"}
        known |= {"UV_PYTHON_IS": variables.get("NNDL_PYTHON", "3.12")}
        command = ["sh", str(folder / "setup.sh")]
        run.done = subprocess.run(command, env=known | variables, cwd="/", capture_output=True, encoding="utf-8")
        run.ready = (folder / ".venv" / "ready").exists()
        return [line.split()[0] for line in log.read_text(encoding="utf-8").splitlines() if line != "--version"]

    run.folder, run.log = folder, log
    return run


def test_setup_makes_an_environment(setup):
    assert setup() == ["venv", "pip"] and setup.ready, setup.done.stderr
    assert "-r requirements.txt" in setup.log.read_text(encoding="utf-8")
    (link,) = setup.folder.glob(".venv/lib/*/site-packages/_nndl.pth")
    assert (link.parent / link.read_text(encoding="utf-8").strip()).resolve() == setup.folder


def test_setup_keeps_the_python_that_is_there(setup):
    setup(NNDL_PYTHON="3.13")
    assert setup() == ["pip"] and setup.ready
    assert setup(NNDL_PYTHON="3.12") == ["venv", "pip"] and setup.ready


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere torch has no CUDA")
def test_setup_keeps_torch_without_cuda(setup):
    for expected in (["venv", "pip"], ["pip"]):
        assert setup(**{"NNDL_CPU": "1"} if "venv" in expected else {}) == expected and setup.ready
        called = setup.log.read_text(encoding="utf-8")
        assert "--torch-backend cpu -r requirements.in -c .venv/pins.txt" in called
    pins = (setup.folder / ".venv" / "pins.txt").read_text(encoding="utf-8")
    assert "torch==" in pins and "-e ." not in pins
    assert setup(NNDL_CPU="0") == ["venv", "pip"] and "-r requirements.txt" in setup.log.read_text(encoding="utf-8")


def test_setup_that_fails_is_not_ready(setup):
    setup()
    setup(fails=True)
    assert setup.done.returncode == 1 and not setup.ready
    assert "run the same command again" in setup.done.stderr
    assert setup() == ["venv", "pip"] and setup.ready


@pytest.mark.parametrize("variable", [{"NNDL_PYTHON": "3.11"}, {"NNDL_CPU": "yes"}])
def test_setup_refuses_what_it_does_not_know(setup, variable):
    setup()
    (name, value), *_ = variable.items()
    assert setup(**variable) == [] and setup.done.returncode == 1 and setup.ready
    assert setup.done.stderr.startswith(f"setup: {name}={value}") and setup.done.stderr.count("\n") == 1
