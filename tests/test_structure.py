"""The house: twelve rooms, those that are there complete and alike; notebooks, records and tables fit to be read."""

import ast
import json
import re
import subprocess
import sys
from collections import Counter
from importlib.metadata import packages_distributions

import nbformat
import pytest
from nbconvert import PythonExporter
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from nndl import mutants, pages, rooms, tables
from nndl.execution import MACHINE_PATH, MAX_NOTEBOOK, unfit
from nndl.exercises import read_room
from nndl.keep import headlines
from nndl.notebooks import DEFINITIONS, code_cells
from nndl.records import LabError, check_record, read_history, read_record

ROOT = rooms.ROOT
ROOMS = rooms.existing_rooms()
NOTEBOOKS = [f"{room}/{name}.ipynb" for room in ROOMS for name in rooms.NOTEBOOKS]
PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".pgm", ".ppm", ".svg"}
DATA_FILES = {".parquet", ".zip", ".gz", ".tar", ".xz", ".npy", ".pkl", ".pickle", ".pt", ".pth", ".safetensors"}

every_room = pytest.mark.parametrize("room", ROOMS)
every_notebook = pytest.mark.parametrize("name", NOTEBOOKS)


@pytest.fixture(scope="module")
def files():
    """All files that are, or would be, committed."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    if done.returncode:
        pytest.skip("not a git checkout")
    paths = (ROOT / name for name in done.stdout.split("\0") if name)
    return [path for path in paths if path.is_file()]


def read(name):
    path = ROOT / name
    assert path.exists(), f"{name} is missing"
    return nbformat.read(path, as_version=4)


def cells(name):
    """(number, cell) of a notebook's code cells."""
    read(name)
    return list(code_cells(ROOT / name))


def lines(source):
    return sum(bool(line.strip()) for line in source.splitlines())


# ---------------------------------------------------------------- rooms and files


def test_twelve_rooms():
    assert len(rooms.ROOMS) == 12
    strangers = {path.name for path in ROOT.glob("CA*") if path.is_dir()} - set(rooms.ROOMS)
    assert not strangers, f"not one of the twelve: {strangers}"


@every_room
def test_room_is_complete(room):
    names = ["README.md", "results/history.json", "results/demo/record.json", "results/full/record.json"]
    names += [f"{name}.ipynb" for name in rooms.NOTEBOOKS]
    missing = [name for name in names if not (ROOT / room / name).is_file()]
    assert not missing, f"{room} lacks {', '.join(missing)}"
    helpers = list((ROOT / room).glob("*_helper.py"))
    assert len(helpers) == 1, f"{room} has {len(helpers)} helpers: {helpers}"


def imported(tree):
    """Top-level names of the modules that a piece of code imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." if node.level else node.module.split(".")[0]


@every_room
def test_room_stands_alone(room):
    """A room imports nndl, its own helper, the standard library, and what requirements.txt installs."""
    sources = {path.name: [path.read_text(encoding="utf-8")] for path in (ROOT / room).glob("*.py")}
    for path in (ROOT / room).glob("*.ipynb"):
        sources[path.name] = [cell.source for _, cell in code_cells(path)]
    own = {path.stem for path in (ROOT / room).glob("*.py")}
    pinned = {canonicalize_name(line.name) for line in requirements("requirements.txt")}
    packages = {
        module for module, names in packages_distributions().items() if pinned & set(map(canonicalize_name, names))
    }
    for name, parts in sources.items():
        for part in parts:
            tree = ast.parse(part)
            foreign = set(imported(tree)) - own - packages - set(sys.stdlib_module_names) - {"nndl"}
            assert not foreign, f"{room}/{name} imports {foreign}"
            assert not re.search(r"sys\.path\b", part), f"{room}/{name} changes where imports come from"
            outside = [
                node.value
                for node in ast.walk(tree)
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("..")
                if "/" in node.value
            ]
            assert not outside, f"{room}/{name} reads outside its folder: {outside}"


def test_checkout_is_small(files):
    size = sum(path.stat().st_size for path in files)
    assert size < 20 * 2**20, f"{size / 2**20:.1f} MiB"


def test_no_data_in_the_checkout(files):
    """Pictures are figures under a room's figures/; data sets and weights stay outside."""
    for path in files:
        place = path.relative_to(ROOT).parts
        if path.suffix.lower() in PICTURES:
            figure = len(place) == 3 and place[0] in rooms.ROOMS and place[1] == "figures" and path.suffix == ".png"
            assert figure, f"{path}: only figures (png, in a room's figures/) belong here"
        assert path.suffix.lower() not in DATA_FILES, f"{path}: data and weights stay outside"
        if path.suffix in (".npz", ".csv"):
            assert len(place) == 4 and place[1] == "results", f"{path}: arrays lie under results/<profile>/"


@every_room
@pytest.mark.parametrize("profile", ["demo", "full"])
def test_arrays_are_small(room, profile):
    size = sum(
        path.stat().st_size
        for path in (ROOT / room / "results" / profile).glob("*")
        if path.is_file() and path.name != "record.json"
    )
    assert size < 300_000, f"{room}/results/{profile}: {size} bytes of arrays"


# ---------------------------------------------------------------- notebooks


@every_notebook
def test_notebook_was_executed_in_order(name):
    counts = [cell.execution_count for _, cell in cells(name)]
    assert counts == list(range(1, len(counts) + 1)), f"{name}: not one run from a clean kernel; make execute"
    empty = [cell for cell in read(name).cells if not cell.source.strip()]
    assert not empty, f"{name} has {len(empty)} empty cells"


@every_notebook
def test_notebook_outputs_are_clean(name):
    problems = unfit(read(name))
    assert not problems, f"{name}: {problems}"


@every_notebook
def test_notebook_sources_name_no_machine(name):
    for number, cell in enumerate(read(name).cells):
        found = MACHINE_PATH.search(cell.source)
        assert not found, f"{name}, cell at {number}: {found[0]}"


@every_notebook
def test_notebook_bytes_are_calm(name):
    notebook = read(name)
    size = (ROOT / name).stat().st_size
    assert size < MAX_NOTEBOOK, f"{name}: {size / 1e6:.2f} MB"
    text = (ROOT / name).read_text(encoding="utf-8")
    ids = [cell.get("id") for cell in json.loads(text)["cells"]]  # nbformat would mend them
    assert None not in ids and len(set(ids)) == len(ids), f"{name}: cells without an id, or two with the same"
    assert set(notebook.metadata) == {"kernelspec", "language_info"}, f"{name}: {set(notebook.metadata)}; make execute"
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.metadata.language_info.file_extension == ".py", f"{name}: would be converted to a .txt"
    assert "version" not in notebook.metadata.language_info, f"{name}: says which Python; make execute"
    timed = [cell.id for cell in notebook.cells if {"execution", "papermill"} & set(cell.metadata)]
    assert not timed, f"{name}: times in the metadata of {timed}"


@every_notebook
def test_notebook_is_plain_python(name):
    for number, cell in cells(name):
        for line in cell.source.splitlines():
            assert not re.match(r"\s*[%!]", line), f"{name}, cell {number}: magic or shell line {line!r}"
        try:
            ast.parse(cell.source)
        except SyntaxError as error:
            pytest.fail(f"{name}, cell {number}: {error}")
    script, _ = PythonExporter().from_filename(str(ROOT / name))
    compile(script, name, "exec")
    assert "get_ipython" not in script, f"{name}: needs IPython"


@every_notebook
def test_notebook_cells_are_short(name):
    for number, cell in cells(name):
        assert lines(cell.source) <= 60, f"{name}, cell {number}: {lines(cell.source)} lines, more than 60"
        for node in ast.parse(cell.source).body:
            if isinstance(node, DEFINITIONS[2:]):
                # the docstring is the interface that an exercise is solved from: it may be as long as it must
                size = lines(ast.get_source_segment(cell.source, node)) - lines(ast.get_docstring(node) or "")
                assert size <= 40, f"{name}, cell {number}: {node.name} has {size} lines, more than 40"


@every_room
def test_code_tags(room):
    name = f"{room}/code.ipynb"
    tagged = [(number, tag, cell) for number, cell in cells(name) for tag in cell.metadata.get("tags", [])]
    count = Counter(tag for _, tag, _ in tagged)
    assert count["parameters"] == 1, f"{name}: {count['parameters']} cells tagged parameters"
    assert count["check"] and count["solution"], f"{name}: needs cells tagged check and solution: {dict(count)}"
    for number, tag, cell in tagged:
        nodes = list(ast.walk(ast.parse(cell.source)))
        if tag == "check":
            judges = any(isinstance(node, (ast.Assert, ast.Raise)) for node in nodes) or re.search(
                r"\bassert_\w+\(|\.assert_\w+\(", cell.source
            )
            assert judges, f"{name}, cell {number}: tagged check, and cannot fail"
        if tag == "solution":
            assert any(isinstance(node, DEFINITIONS[2:]) for node in nodes), f"{name}, cell {number}: defines nothing"


@every_room
def test_settings_are_all_used_and_of_one_type(room):
    sources = [cell.source for _, cell in cells(f"{room}/code.ipynb")]
    (table,) = (source for source in sources if source.startswith("SETTINGS"))
    found = {}
    exec(table, found)
    assert set(re.findall(r"\bcfg\.(\w+)", "\n".join(sources))) == set(found["SETTINGS"]), f"{room}: used, not used"
    for name, values in found["SETTINGS"].items():
        assert len(values) == 4, f"{room}, {name}: a value for tiny, demo, full with a GPU and full without one"
        assert len({type(value) for value in values}) == 1, f"{room}, {name}: values of different types"


@every_room
def test_settings_are_checked_before_anything_runs(room, monkeypatch, tmp_path):
    """What `make run` does first: it reads the table of each room, and calls the room's own check."""
    for name in ("NNDL_SET", "NNDL_DATA"):
        monkeypatch.delenv(name, raising=False)
    for profile in ("tiny", "demo"):
        pages.check_before(room, profile)
    monkeypatch.setenv("NNDL_SET", "epoch_s=1")
    with pytest.raises(rooms.CourseError, match=f"{room}: NNDL_SET: unknown setting 'epoch_s'"):
        pages.check_before(room, "demo")
    monkeypatch.setenv("NNDL_SET", "batch_size=0")
    with pytest.raises(rooms.CourseError, match=f"{room}: .*batch_size"):
        pages.check_before(room, "demo")
    monkeypatch.delenv("NNDL_SET")
    monkeypatch.setenv("NNDL_DATA", str(tmp_path))
    with pytest.raises(rooms.CourseError, match=f"{room}: profile full needs real data: no folder"):
        pages.check_before(room, "full")


# ---------------------------------------------------------------- records


@every_room
@pytest.mark.parametrize("profile", ["demo", "full"])
def test_record(room, profile):
    record = read_record(ROOT / room / "results" / profile)
    assert record, f"{room}/results/{profile}/record.json is missing"
    assert (record["assignment"], record["profile"]) == (room, profile)
    if profile == "demo":
        assert all(data["source"] == "embedded" for data in record["data"].values())
        assert not record["overrides"], "the committed demo run has the settings as they are"
    else:
        assert any(data["source"] == "real" for data in record["data"].values())


@every_room
def test_ledger(room):
    """Entries of results/history.json are whole, in the order of time, and none is the record that is there now."""
    history = read_history(ROOT / room / "results")
    assert [entry["replaced"] for entry in history] == sorted(entry["replaced"] for entry in history)
    for entry in history:
        assert entry["profile"] in ("demo", "full") and len(entry["why"]) > 10 and entry["metrics"], entry
        for name, metric in entry["metrics"].items():
            assert metric["low"] <= metric["value"] <= metric["high"], f"{name}: {metric}"
        now = headlines(read_record(ROOT / room / "results" / entry["profile"]))
        assert entry["metrics"] != now, "the ledger holds what was replaced"


RECORD = {
    "schema": 2,
    "finished": "2026-11-26T12:00:00+00:00",
    "assignment": "CA5_vit",
    "profile": "demo",
    "reduced": False,
    "settings": {"epochs": 3, "seeds": [0, 1]},
    "overrides": {"epochs": 3},
    "seed": 0,
    "machine": {"device": "cpu", "name": "some CPU", "processes": 1, "threads": 1},
    "versions": {"python": "3.12.1", "torch": "2", "accelerate": "1", "numpy": "2", "timm": None},
    "data": {"shapes": {"source": "embedded", "counts": {"train": 8}, "fingerprint": "0" * 16, "note": ""}},
    "seconds": {"train": 1.5},
    "peak_memory_mb": 100,
    "metrics": {
        "accuracy": {
            "value": 94.12,
            "low": 93.0,
            "high": 95.5,
            "n": 100,
            "interval": "bootstrap, test items",
            "unit": "%",
            "label": "accuracy",
            "data": "shapes",
            "headline": True,
            "target": {"value": 90, "source": "the assignment"},
        }
    },
}


def changed(path, value):
    """RECORD with one value changed (or, with None, taken out)."""
    record = json.loads(json.dumps(RECORD))
    *way, last = path.split("/")
    place = record
    for key in way:
        place = place[key]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return record


def test_a_good_record_passes():
    check_record(RECORD)


@pytest.mark.parametrize(
    "path, value",
    [
        ("schema", 3),
        ("seed", None),
        ("extra", 1),
        ("profile", "huge"),
        ("assignment", ""),
        ("finished", None),
        ("finished", "yesterday"),
        ("settings/epochs", {"a": 1}),
        ("overrides/width", 3),
        ("machine/processes", 0),
        ("data", {}),
        ("data/shapes/source", "synthetic"),
        ("data/shapes/fingerprint", "abc"),
        ("data/shapes/counts", {}),
        ("seconds/train", -1),
        ("metrics", {}),
        ("metrics/accuracy/low", None),
        ("metrics/accuracy/low", 95.0),
        ("metrics/accuracy/high", 94.0),
        ("metrics/accuracy/value", "94"),
        ("metrics/accuracy/n", 0),
        ("metrics/accuracy/interval", ""),
        ("metrics/accuracy/data", "cifar10"),
        ("metrics/accuracy/target", 90),
        ("metrics/accuracy/target/source", None),
        ("metrics/accuracy/note", "x"),
        ("metrics/accuracy/headline", None),
        ("metrics/accuracy/headline", False),
    ],
)
def test_a_bad_record_does_not(path, value):
    with pytest.raises(LabError):
        check_record(changed(path, value))


# ---------------------------------------------------------------- exercises and their checks


@every_room
def test_exercises_can_be_graded_fairly(room):
    """The reference passes by itself in every check, no stub does, a right solution with other names does."""
    done = subprocess.run(
        [sys.executable, "-m", "nndl.cli", "checks", room], capture_output=True, encoding="utf-8", cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr


@every_room
def test_checks_notice_wrong_solutions(room):
    scores = tables.read_scores(room)
    assert scores, f"{room}: make mutants A={room}"
    now = read_room(ROOT / room / "code.ipynb")
    assert scores["digest"] == mutants.digest(now), f"{room}: solutions or checks have changed; make mutants A={room}"
    assert list(scores["exercises"]) == list(now.exercises)
    shares = {name: mutants.share({name: entry}) for name, entry in scores["exercises"].items()}
    low = {name: f"{share:.0%}" for name, share in shares.items() if share < mutants.LEAST_SHARE}
    assert not low, f"{room}: the checks of these exercises notice too little: {low}"


@every_room
def test_equivalent_mutants_exist_and_have_reasons(room):
    exercises = read_room(ROOT / room / "code.ipynb").exercises
    for name, listed in mutants.read_equivalents(room).items():
        made = {str(mutant) for mutant in mutants.all_mutants(exercises[name].source)}
        assert set(listed) <= made, f"{room}, {name}: no such mutant: {set(listed) - made}"
        assert all(len(reason) > 10 for reason in listed.values()), f"{room}, {name}: a reason each"


# ---------------------------------------------------------------- READMEs and requirements


def test_tables_are_current():
    texts = tables.readme_texts()
    stale = [str(file.relative_to(ROOT)) for file, text in texts.items() if file.read_text(encoding="utf-8") != text]
    assert not stale, f"out of date: {stale}; run make readme"


def test_readme_marks_what_is_not_there():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in rooms.ROOMS:
        row = [line for line in text.splitlines() if re.match(rf"\| \[?{name}\b", line) and "Topic" not in line]
        listed = [line for line in row if "not there yet" in line or "code.ipynb" in line]
        assert len(listed) == 1, f"README.md: {len(listed)} rows for {name} in the list of assignments"
        there = any((ROOT / name).glob("*.ipynb"))
        assert ("not there yet" in listed[0]) != there, f"README.md: {name} {'is' if there else 'is not'} there"


def test_readme_links_lead_somewhere():
    for file in tables.readme_texts():
        for link in re.findall(r"\]\(([^)#\s]+)\)", file.read_text(encoding="utf-8")):
            if not link.startswith("http"):
                assert (file.parent / link).exists(), f"{file.relative_to(ROOT)}: {link} is not there"


def requirements(name):
    text = (line.split("#")[0].strip() for line in (ROOT / name).read_text(encoding="utf-8").splitlines())
    return [Requirement(line) for line in text if line and not line.startswith("-")]  # without `-e .`


def test_requirements_are_pinned():
    pins = {canonicalize_name(line.name): str(line.specifier) for line in requirements("requirements.txt")}
    loose = [name for name, pin in pins.items() if not pin.startswith("==")]
    assert not loose, f"requirements.txt does not pin {loose}"
    for line in requirements("requirements.in"):
        pin = pins.get(canonicalize_name(line.name))
        assert pin, f"requirements.txt lacks {line.name}: run make lock"
        assert line.specifier.contains(pin.removeprefix("==")), f"{line} but {pin}: run make lock"
