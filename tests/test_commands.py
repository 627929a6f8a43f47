"""The commands: executing, cleaning, refusing, keeping, exporting, and the words of the tables."""

import base64
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import nbformat.v4 as v4
import numpy as np
import psutil
import pytest
from PIL import Image
from test_structure import RECORD, changed

from nndl import cli, execution, export, keep, pages, rooms, tables
from nndl.records import LabError, read_history, read_record


def output(text, name="stdout"):
    return v4.new_output("stream", name=name, text=text)


def notebook(*outputs):
    return v4.new_notebook(cells=[v4.new_code_cell("x", outputs=list(outputs), execution_count=1)])


# ---------------------------------------------------------------- what is fit to commit


@pytest.mark.parametrize(
    "bad, words",
    [
        (output("something\n", "stderr"), "stderr"),
        (output("a.py:3: UserWarning: old"), "UserWarning:"),
        (output("saved to /home/ann/x.png"), "/home/ann/x.png"),
        (output("['/tmp/x']"), "/tmp/x"),
        (output(f"{rooms.ROOT}/CA5_vit"), str(rooms.ROOT)),
        (v4.new_output("display_data", {"text/html": "<a href='/root/x'>"}), "/root/x"),
        (v4.new_output("error", ename="ValueError", evalue="no", traceback=["no"]), "ValueError"),
    ],
)
def test_unfit(bad, words):
    problems = execution.unfit(notebook(output("fine"), bad))
    assert problems and words in " ".join(problems) and problems[0].startswith("cell 1:")


@pytest.mark.parametrize("text", ["loss 0.3, 12 work/unit", "https://example.org/home/x", "train/work/tmp"])
def test_fit(text):
    assert execution.unfit(notebook(output(text))) == []


def png(picture):
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "png")
    return base64.b64encode(out.getvalue()).decode()


def test_large_pictures_get_a_palette():
    noisy = np.random.default_rng(0).integers(0, 255, (200, 250, 3), dtype=np.uint8)
    small = execution.smaller_png(png(noisy))
    assert len(small) < len(png(noisy)) / 2
    picture = Image.open(io.BytesIO(base64.b64decode(small)))
    assert picture.size == (250, 200) and picture.mode == "P"
    assert np.abs(np.asarray(picture.convert("RGB"), float) - noisy).mean() < 30


def test_small_pictures_stay():
    text = png(np.random.default_rng(0).integers(0, 255, (90, 90, 3), dtype=np.uint8))
    assert execution.smaller_png(text) == text


def test_clean_keeps_ids_tags_and_counts():
    dirty = notebook(output("x"))
    cell = dirty.cells[0]
    left = {"execution": {"iopub.status": "now"}, "papermill": {"a": 1}, "lines_to_next_cell": 2}
    cell.metadata = nbformat.from_dict({"tags": ["check"]} | left)
    dirty.metadata = nbformat.from_dict({"language_info": {"name": "python", "version": "3.12.1"}, "papermill": {}})
    before = cell.id
    clean = execution.clean(dirty)
    assert clean.cells[0].id == before and clean.cells[0].execution_count == 1
    assert clean.cells[0].metadata == {"tags": ["check"]}
    assert set(clean.metadata) == {"kernelspec", "language_info"} and "version" not in clean.metadata.language_info
    nbformat.validate(clean)


def test_what_a_compiler_without_a_gpu_makes_torch_say_is_taken_out():
    said = "W1128 05:56:04.279000 15 torch/utils/cpp_extension.py:183] No CUDA runtime is found, using CUDA_HOME='/x'\n"
    for text, left in ((said, 0), (said + "W: something else\n", 1), ("No CUDA runtime is found\n", 1)):
        clean = execution.clean(notebook(v4.new_output("stream", name="stderr", text=text)))
        assert len(clean.cells[0].outputs) == left, text


# ---------------------------------------------------------------- a course of one small room


@pytest.fixture
def small_course(tmp_path, monkeypatch, make_notebook):
    """The commands at work on a folder of its own with one room."""
    for name in ("NNDL_SET", "NNDL_DATA"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "course" / "CA6_vae"
    folder.mkdir(parents=True)
    monkeypatch.setattr(rooms, "ROOT", folder.parent)
    make_notebook("import os\nprint(os.environ['NNDL_PROFILE'])", name="description", folder=folder)
    make_notebook("x = 2", "open('mark', 'w').write(str(x))", name="code", folder=folder)
    make_notebook("print(open('mark').read())", name="report", folder=folder)
    return folder


def test_run_builds_pages_and_leaves_the_notebooks(small_course, capsys):
    before = {path: path.read_bytes() for path in small_course.glob("*.ipynb")}
    pages.run("CA6_vae", "tiny")
    build = small_course.parent / "_build"
    assert "<pre>tiny\n</pre>" in (build / "CA6_vae" / "description.html").read_text(encoding="utf-8")
    assert "CA6_vae/report.html" in (build / "index.html").read_text(encoding="utf-8")
    assert {path: path.read_bytes() for path in small_course.glob("*.ipynb")} == before
    assert "CA6_vae/code.ipynb  cell 2/2  0:0" in capsys.readouterr().out


def test_index_shows_the_figures_of_this_run_alone(small_course, make_notebook):
    """An earlier record is not the run that has just failed."""
    own(small_course, "demo", RECORD)
    make_notebook("raise ValueError('no')", name="code", folder=small_course)
    index = small_course.parent / "_build" / "index.html"
    with pytest.raises(rooms.CourseError):
        pages.run("CA6_vae", "demo")
    assert "Nothing finished yet" in index.read_text(encoding="utf-8")
    make_notebook("x = 1", name="code", folder=small_course)
    (small_course / "mark").write_text("2", encoding="utf-8")
    pages.run("CA6_vae", "demo")
    assert index.read_text(encoding="utf-8").count("94.1 %") == 1


def test_run_names_the_failing_cell(small_course, make_notebook):
    make_notebook("x = 2", "def f():\n    raise ValueError('one\\ntwo')", "f()", name="code", folder=small_course)
    with pytest.raises(rooms.CourseError, match=r"^CA6_vae/code\.ipynb, cell 3: ValueError: two$"):
        pages.run("CA6_vae", "demo")
    build = small_course.parent / "_build" / "CA6_vae"
    assert (build / "description.html").exists() and not (build / "report.html").exists()


def test_execute_writes_and_is_stable(small_course):
    execution.execute("CA6_vae")
    first = {path: path.read_bytes() for path in small_course.glob("*.ipynb")}
    code = nbformat.read(small_course / "code.ipynb", as_version=4)
    assert [cell.execution_count for cell in code.cells] == [1, 2]
    assert "demo" in (small_course / "description.ipynb").read_text(encoding="utf-8")
    execution.execute("CA6_vae")
    assert {path: path.read_bytes() for path in small_course.glob("*.ipynb")} == first


def test_execute_refuses_and_leaves_the_notebook(small_course, make_notebook):
    path = make_notebook("import warnings\nwarnings.warn('old')", name="code", folder=small_course)
    before = path.read_bytes()
    with pytest.raises(rooms.CourseError, match=r"code\.ipynb is left as it was:\n  cell 1: output on stderr"):
        execution.execute("CA6_vae")
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "arguments, status, words",
    [
        (["run", "CA9_nothing"], 2, "CA9_nothing: no such assignment"),
        (["run", "--profile", "huge"], 2, "huge: no such profile"),
        (["execute"], 2, "which assignment"),
        (["keep", "CA5_vit", "--profile", "full"], 2, "why is the run made anew?"),
        (["keep", "CA5_vit/", "--profile", "tiny", "--why", "x"], 2, "tiny: only demo and full are kept"),
        (["export"], 2, "which assignment"),
    ],
)
def test_command_line_errors_are_one_line(arguments, status, words, capsys):
    assert cli.main(arguments) == status
    out, err = capsys.readouterr()
    assert words in err and err.count("\n") == 1 and out == ""


@pytest.mark.parametrize("name", ["CA5_vit", "CA5_vit/", "CA5_vit//"])
def test_a_slash_from_tab_completion_does_not_matter(name):
    assert rooms.chosen_rooms(name) == ["CA5_vit"]


# ---------------------------------------------------------------- told before anything runs


@pytest.mark.parametrize(
    "profile, environment, words",
    [
        ("demo", {"NNDL_SET": "epoch=3"}, "CA6_vae: NNDL_SET: unknown setting 'epoch'; known: epochs, width"),
        ("demo", {"NNDL_SET": "epochs=few"}, "CA6_vae: NNDL_SET: epochs=few is not of type int; its default is 2"),
        ("demo", {"NNDL_SET": "epochs=0"}, "CA6_vae: epochs=0: at least 1"),
        ("demo", {"NNDL_DATA": "/no/such/place"}, "CA6_vae: NNDL_DATA=/no/such/place: no such folder"),
        ("full", {}, "profile full needs real data: no folder .*endoscopy; set NNDL_DATA; the assignment's README"),
    ],
    ids=["name", "type", "value", "folder", "data"],
)
def test_what_is_wrong_is_told_before_the_first_notebook(
    small_course, make_notebook, monkeypatch, profile, environment, words
):
    make_notebook(
        ("SETTINGS = {'epochs': (1, 2, 9), 'width': (8, 8, 8)}", ["parameters"]),
        "folder = run.find_data('endoscopy')\nother = run.find_data('weights', optional=True)",
        folder=small_course,
    )
    helper = "class E(Exception): pass\nfrom nndl.records import LabError\n"
    helper += (
        "def check_settings(cfg):\n    if cfg.epochs < 1:\n        raise LabError(f'epochs={cfg.epochs}: at least 1')\n"
    )
    (small_course / "vae_helper.py").write_text(helper, encoding="utf-8")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(pages, "run_notebook", lambda path: pytest.fail(f"{path} was run"))
    with pytest.raises(rooms.CourseError, match=words):
        pages.run("CA6_vae", profile)


# ---------------------------------------------------------------- stopped


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_says_stopped_and_leaves_no_kernel(tmp_path, make_notebook, number):
    """The command on a course of one room, interrupted in the middle of a cell that takes long."""
    folder = tmp_path / "course" / "CA6_vae"
    folder.mkdir(parents=True)
    make_notebook("import os, time\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(60)", folder=folder)
    program = "import sys\nfrom pathlib import Path\nfrom nndl import cli, rooms\n"
    program += f"rooms.ROOT = Path({str(folder.parent)!r})\nsys.exit(cli.main(['run', 'CA6_vae']))"
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
    )
    mark = folder / "pid"
    while not (mark.exists() and mark.read_text(encoding="utf-8")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    begin = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130 and err == "stopped\n"
    assert "FAILED" not in out and "stopped" in out
    assert time.monotonic() - begin < 5
    kernel = int(mark.read_text(encoding="utf-8"))
    for _ in range(50):
        if not psutil.pid_exists(kernel) or psutil.Process(kernel).status() == psutil.STATUS_ZOMBIE:
            break
        time.sleep(0.1)
    else:
        pytest.fail("the kernel is still there")


# ---------------------------------------------------------------- keep


def own(folder, profile, record):
    """Put a finished run of one's own into a room."""
    place = folder / "runs" / profile
    place.mkdir(parents=True, exist_ok=True)
    (place / "record.json").write_text(json.dumps(record), encoding="utf-8")
    np.savez(place / "curves.npz", y=np.arange(3))
    return place


def plain(**changes):
    """A record without settings changed by hand."""
    return changed("overrides", {}) | changes


def test_keep_takes_the_run_and_writes_the_ledger(small_course):
    own(small_course, "demo", plain())
    keep.keep("CA6_vae/", "demo", "the first run")
    kept = small_course / "results" / "demo"
    assert read_record(kept) == plain() and (kept / "curves.npz").exists()
    assert read_history(small_course / "results") == []

    better = plain()
    better["metrics"]["accuracy"] |= {"value": 95.0}
    own(small_course, "demo", better)
    keep.keep("CA6_vae", "demo", "a longer training")
    (entry,) = read_history(small_course / "results")
    assert (entry["profile"], entry["why"], entry["made"]) == ("demo", "a longer training", "2026-11-26")
    assert entry["metrics"]["accuracy"]["value"] == 94.12, "the ledger holds what was replaced"
    assert read_record(kept)["metrics"]["accuracy"]["value"] == 95.0

    own(small_course, "demo", better | {"peak_memory_mb": 7})
    keep.keep("CA6_vae", "demo", "the same figures")
    assert len(read_history(small_course / "results")) == 1 and read_record(kept)["peak_memory_mb"] == 7
    assert sorted(path.name for path in (small_course / "results").iterdir()) == ["demo", "history.json"]


@pytest.mark.parametrize(
    "record, words",
    [
        (None, "no finished demo run"),
        (plain(overrides={"epochs": 3}), "settings changed by hand"),
        (plain(data={"shapes": RECORD["data"]["shapes"] | {"source": "real"}}), "a demo run on real data"),
        ({"schema": 2}, "damaged"),
    ],
    ids=["none", "overrides", "real", "broken"],
)
def test_keep_refuses(small_course, record, words):
    if record:
        own(small_course, "demo", record)
    with pytest.raises(LabError, match=words):
        keep.keep("CA6_vae", "demo", "because")
    assert not (small_course / "results").exists()


@pytest.mark.parametrize(
    "kind, name", [("write", "history.json.part"), ("replace", "demo.part"), ("replace", "history.json.part")]
)
def test_keep_that_fails_changes_nothing(small_course, monkeypatch, kind, name):
    """A disk that is full, or a rename that is refused, at each step; the next call does all of it."""
    own(small_course, "demo", plain())
    keep.keep("CA6_vae", "demo", "the first run")
    better = plain()
    better["metrics"]["accuracy"] |= {"value": 95.0}
    own(small_course, "demo", better)

    def refuse(true):
        def call(path, *args, **kwargs):
            if Path(path).name == name:
                raise OSError(28, "No space left on device", str(path))
            return true(path, *args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        if kind == "write":
            patch.setattr(Path, "write_text", refuse(Path.write_text))
        else:
            patch.setattr(os, "replace", refuse(os.replace))
        with pytest.raises(rooms.CourseError, match=r"not kept \(No space left on device: .*the kept run is as it was"):
            keep.keep("CA6_vae", "demo", "a longer training")
    results = small_course / "results"
    assert read_record(results / "demo") == plain() and read_history(results) == []
    assert sorted(path.name for path in results.iterdir()) == ["demo", "history.json"]
    keep.keep("CA6_vae", "demo", "a longer training")
    assert len(read_history(results)) == 1 and read_record(results / "demo") == better


def test_keep_does_not_replace_a_whole_run_by_a_reduced_one(small_course):
    own(small_course, "full", plain(profile="full"))
    keep.keep("CA6_vae", "full", "on a GPU")
    own(small_course, "full", plain(profile="full", reduced=True))
    with pytest.raises(rooms.CourseError, match="the kept run is not reduced, this one is"):
        keep.keep("CA6_vae", "full", "without one")


def test_keep_that_was_killed_between_its_renames(small_course):
    own(small_course, "demo", plain())
    keep.keep("CA6_vae", "demo", "the first run")
    results = small_course / "results"
    os.replace(results / "demo", results / "demo.old")
    better = plain()
    better["metrics"]["accuracy"] |= {"value": 95.0}
    own(small_course, "demo", better)
    keep.keep("CA6_vae", "demo", "a longer training")
    assert len(read_history(results)) == 1 and not (results / "demo.old").exists()


# ---------------------------------------------------------------- one line for what is broken


def test_damaged_kept_record_is_one_line(small_course, capsys):
    put(small_course, "demo", RECORD)
    (small_course / "results" / "demo" / "record.json").write_text("{", encoding="utf-8")
    (small_course / "README.md").write_text("", encoding="utf-8")
    (small_course.parent / "README.md").write_text("", encoding="utf-8")
    assert cli.main(["readme"]) == 1
    err = capsys.readouterr().err
    assert "record.json is damaged" in err and err.count("\n") == 1


@pytest.mark.parametrize("command", ["run", "export"])
def test_magic_in_a_notebook_is_one_line(small_course, make_notebook, command, capsys, tmp_path):
    make_notebook("x = 1", "%matplotlib inline", folder=small_course)
    out = ["--out", str(tmp_path / "out")] if command == "export" else []
    assert cli.main([command, "CA6_vae", *out]) == 1
    err = capsys.readouterr().err
    assert "code.ipynb, cell 2: not plain Python" in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_helper_that_cannot_be_imported_is_one_line(small_course, make_notebook, capsys):
    make_notebook(("SETTINGS = {'epochs': (1, 2, 9)}", ["parameters"]), folder=small_course)
    (small_course / "vae_helper.py").write_text("import no_such_package", encoding="utf-8")
    assert cli.main(["run", "CA6_vae"]) == 1
    err = capsys.readouterr().err
    assert "vae_helper.py cannot be imported: No module named 'no_such_package'" in err and err.count("\n") == 1


# ---------------------------------------------------------------- export


def test_exported_room_runs_without_the_package(tmp_path):
    """The room's imports and a run of its own record, where `nndl` can only come from the folder itself."""
    export.export("CA5_vit", tmp_path / "out")
    room = tmp_path / "out" / "CA5_vit"
    assert sorted(path.name for path in (room / "nndl").iterdir()) == [
        "__init__.py", "exercises.py", "figures.py", "files.py", "homework.py", "intervals.py", "lab.py", "machine.py",
        "notebooks.py", "record.schema.json", "records.py", "settings.py", "source.py",
    ]  # fmt: skip
    assert "-e " not in (room / "requirements.txt").read_text(encoding="utf-8")
    program = """
import sys
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in str(finder)]
sys.path = ["."] + [place for place in sys.path if "site-packages" in place or "lib/python" in place or ".zip" in place]
import vit_helper as helper
from nndl import lab
assert lab.__file__.startswith(sys.argv[1]), lab.__file__
run = lab.start({"epochs": (1, 1, 1), "seed": (0, 0, 0)}, "tiny")
run.use_data("toy", "embedded", {"test": 2}, [])
run.compare("a", {"x": [1.0, 0.0], "y": [1.0, 1.0]}, "", "toy", "score", reference="x", headline=True)
run.finish()
print(lab.show_run(*lab.load_record()).data[:20], run.room.name)
"""
    environment = os.environ | {"NNDL_PROFILE": "tiny", "ACCELERATE_USE_CPU": "true"}
    line = [sys.executable, "-c", program, str(room)]
    done = subprocess.run(line, cwd=room, capture_output=True, encoding="utf-8", env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "**Your own run** (ti CA5_vit"


def test_export_does_not_write_over_anything(tmp_path):
    (tmp_path / "CA5_vit").mkdir()
    with pytest.raises(rooms.CourseError, match="is there already"):
        export.export("CA5_vit", tmp_path)


# ---------------------------------------------------------------- tables


@pytest.mark.parametrize(
    "value, low, high, words",
    [
        (94.12, 93.0, 95.5, "94.1 % [93.0, 95.5]"),
        (0.41234, 0.41, 0.4145, "0.4123 % [0.4100, 0.4145]"),
        (1234.5, 1100.0, 1400.0, "1234 % [1100, 1400]"),
        (0.0, 0.0, 0.0, "0.0 % [0.0, 0.0]"),
        (-0.001, -0.2, 0.2, "0.00 % [-0.20, 0.20]"),
    ],
)
def test_measured(value, low, high, words):
    metric = RECORD["metrics"]["accuracy"] | {"value": value, "low": low, "high": high}
    assert tables.measured(metric) == f"{words} (bootstrap, test items, n = 100)"


def put(folder, profile, record):
    place = folder / "results" / profile
    place.mkdir(parents=True)
    (place / "record.json").write_text(json.dumps(record), encoding="utf-8")


def test_rows_say_what_run_it_was(small_course):
    (small_course / "README.md").write_text("# A\n<!-- results:begin -->\n<!-- results:end -->\n", encoding="utf-8")
    assert tables.kept_record("CA6_vae") is None and tables.rows_of("CA6_vae") == []
    put(small_course, "demo", RECORD)
    put(small_course, "full", changed("profile", "full") | {"reduced": True})
    (row,) = tables.rows_of("CA6_vae")
    assert row == (
        "CA6_vae",
        "accuracy",
        "90 % (the assignment)",
        "94.1 % [93.0, 95.5] (bootstrap, test items, n = 100)",
        "shapes (embedded)",
        "full, reduced, epochs=3; cpu, some CPU",
    )
    page = pages.index_page(["CA6_vae"], "demo")
    assert "full, reduced" in page and "Nothing finished yet" in page


def test_a_readme_names_its_results(small_course):
    record = json.loads(json.dumps(RECORD))
    metrics = record["metrics"]
    untargeted = {key: part for key, part in metrics["accuracy"].items() if key != "target"}
    metrics |= {name: untargeted | {"label": name} for name in ("loss", "speed")}
    metrics["aside"] = metrics["loss"] | {"label": "aside", "headline": False}
    put(small_course, "demo", record)

    def shown(marker):
        text = f"# A\n{marker}\n<!-- results:end -->\n<!-- checks:begin -->\n<!-- checks:end -->\n"
        (small_course / "README.md").write_text(text, encoding="utf-8")
        return [row[1:3] for row in tables.rows_of("CA6_vae")]

    goal = ("accuracy", "90 % (the assignment)")
    assert shown("<!-- results:begin -->") == [goal, ("loss", "–"), ("speed", "–")], "the headline metrics"
    assert shown("<!-- results:begin aside accuracy -->") == [("aside", "–"), goal], "those named, in this order"
    with pytest.raises(rooms.CourseError, match=r"CA6_vae/README\.md: the kept record has no metric lost, los;"):
        shown("<!-- results:begin loss lost los -->")
    assert tables.assigned(record) == ["accuracy"], "of any other run: what the assignment asks for"
    del metrics["accuracy"]["target"]
    assert tables.assigned(record) == ["accuracy"] and tables.assigned(None) == []
    metrics |= {f"more {k}": metrics["loss"] for k in range(3)}
    put_again = small_course / "results" / "demo" / "record.json"
    put_again.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(rooms.CourseError, match="6 results, more than 5; name those to show"):
        shown("<!-- results:begin -->")
    assert len(shown("<!-- results:begin speed -->")) == 1
    root = small_course.parent / "README.md"
    root.write_text(
        "<!-- results:begin -->\n<!-- results:end -->\n<!-- rooms:begin -->\n<!-- rooms:end -->\n", encoding="utf-8"
    )
    shown("<!-- results:begin speed loss -->")
    tables.readme(check=False)
    text = root.read_text(encoding="utf-8")
    assert "| speed |" in text and "| loss |" not in text, "the root has the first one"
    own = (small_course / "README.md").read_text(encoding="utf-8")
    assert "<!-- results:begin speed loss -->\n| Result |" in own and "| loss |" in own


def test_readme_is_written_and_checked(small_course):
    root = small_course.parent / "README.md"
    marks = "# A\n<!-- results:begin -->\nold\n<!-- results:end -->\n"
    root.write_text(marks + "<!-- rooms:begin -->\n<!-- rooms:end -->\nend\n", encoding="utf-8")
    checks = "<!-- checks:begin -->\n<!-- checks:end -->\n"
    (small_course / "README.md").write_text(marks + checks, encoding="utf-8")
    put(small_course, "demo", RECORD)
    with pytest.raises(rooms.CourseError, match=r"out of date: README\.md, CA6_vae/README\.md"):
        tables.readme(check=True)
    assert "old" in root.read_text(encoding="utf-8")
    tables.readme(check=False)
    tables.readme(check=True)
    text = root.read_text(encoding="utf-8")
    assert "94.1 %" in text and "old" not in text and text.endswith("end\n")
    assert "| CA5_vit | A vision transformer from scratch | not there yet |" in text
    own = (small_course / "README.md").read_text(encoding="utf-8")
    assert "| accuracy | 90 % (the assignment) |" in own and "Not measured yet: `make mutants A=CA6_vae`" in own
    root.write_text("no marks", encoding="utf-8")
    with pytest.raises(rooms.CourseError, match=r"README\.md: needs <!-- results:begin -->"):
        tables.readme(check=True)


# ---------------------------------------------------------------- the Makefile, and JupyterLab


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["test", "A=CA5_vit/"], "tests/test_CA5_vit.py tests/test_notebooks.py CA5_vit/code.ipynb"),
        (["test"], "tests --ignore=tests/benchmarks CA2_covid_cnn/code.ipynb"),
        (["bench", "A=CA5_vit"], "tests/benchmarks/bench_CA5_vit.py"),
        (["lab", "PROFILE=tiny"], "nndl.cli lab --profile tiny"),
        (["lab"], "nndl.cli lab"),
        (["run", "A=CA5_vit", "PROFILE=full"], "nndl.cli run CA5_vit --profile full"),
    ],
)
def test_make_respects_its_variables(arguments, words):
    line = ["make", "-n", "-o", ".venv/ready", *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(line, cwd=rooms.ROOT, capture_output=True, encoding="utf-8", env=environment)
    assert done.returncode == 0 and words in " ".join(done.stdout.replace("\\", "").split()), done.stdout + done.stderr


@pytest.mark.parametrize("why", ['five "seeds"', "cost $5 more", "it's `date` now; exit 1"])
def test_the_reason_comes_through_make_as_it_is(tmp_path, why):
    """What stands in the ledger must be what was typed, and nothing of it may be run."""
    text = (rooms.ROOT / "Makefile").read_text(encoding="utf-8").replace("$(NNDL) keep", "@printenv NNDL_WHY; true")
    (tmp_path / "Makefile").write_text(text, encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    line = ["make", "-o", ".venv/ready", "keep", "A=CA5_vit", f"WHY={why}"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, encoding="utf-8", env=environment)
    assert done.stdout == why + "\n", done.stdout + done.stderr


@pytest.mark.parametrize("user, flags", [(0, ["--allow-root"]), (1000, [])])
def test_lab_as_root(monkeypatch, user, flags):
    started = []
    monkeypatch.setattr(os, "geteuid", lambda: user, raising=False)
    monkeypatch.setattr(subprocess, "call", lambda line, env: started.append((line[3:], env["NNDL_PROFILE"])) or 0)
    assert cli.main(["lab", "--profile", "tiny"]) == 0
    assert started == [(["lab", *flags], "tiny")]
