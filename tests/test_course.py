"""course.py: executing, cleaning, refusing, and the words of the tables."""

import base64
import io
import json
import os
import subprocess
import sys

import course
import nbformat
import nbformat.v4 as v4
import numpy as np
import pytest
from PIL import Image
from test_structure import RECORD, changed


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
        (output(f"{course.ROOT}/CA5_vit"), str(course.ROOT)),
        (v4.new_output("display_data", {"text/html": "<a href='/root/x'>"}), "/root/x"),
        (v4.new_output("error", ename="ValueError", evalue="no", traceback=["no"]), "ValueError"),
    ],
)
def test_unfit(bad, words):
    problems = course.unfit(notebook(output("fine"), bad))
    assert problems and words in " ".join(problems) and problems[0].startswith("cell 1:")


@pytest.mark.parametrize("text", ["loss 0.3, 12 work/unit", "https://example.org/home/x", "train/work/tmp"])
def test_fit(text):
    assert course.unfit(notebook(output(text))) == []


def png(picture):
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "png")
    return base64.b64encode(out.getvalue()).decode()


def test_large_pictures_get_a_palette():
    noisy = np.random.default_rng(0).integers(0, 255, (200, 250, 3), dtype=np.uint8)
    small = course.smaller_png(png(noisy))
    assert len(small) < len(png(noisy)) / 2
    picture = Image.open(io.BytesIO(base64.b64decode(small)))
    assert picture.size == (250, 200) and picture.mode == "P"
    assert np.abs(np.asarray(picture.convert("RGB"), float) - noisy).mean() < 30


def test_small_pictures_stay():
    text = png(np.random.default_rng(0).integers(0, 255, (90, 90, 3), dtype=np.uint8))
    assert course.smaller_png(text) == text


def test_clean_keeps_ids_tags_and_counts():
    dirty = notebook(output("x"))
    cell = dirty.cells[0]
    left = {"execution": {"iopub.status": "now"}, "papermill": {"a": 1}, "lines_to_next_cell": 2}
    cell.metadata = nbformat.from_dict({"tags": ["check"]} | left)
    dirty.metadata = nbformat.from_dict({"language_info": {"name": "python", "version": "3.12.1"}, "papermill": {}})
    before = cell.id
    clean = course.clean(dirty)
    assert clean.cells[0].id == before and clean.cells[0].execution_count == 1
    assert clean.cells[0].metadata == {"tags": ["check"]}
    assert set(clean.metadata) == {"kernelspec", "language_info"} and "version" not in clean.metadata.language_info
    nbformat.validate(clean)


# ---------------------------------------------------------------- a course of one small room


@pytest.fixture
def small_course(tmp_path, monkeypatch, make_notebook):
    """course.py at work on a folder of its own with one room."""
    folder = tmp_path / "course" / "CA6_vae"
    folder.mkdir(parents=True)
    monkeypatch.setattr(course, "ROOT", folder.parent)
    monkeypatch.setattr(course, "BUILD", folder.parent / "_build")
    make_notebook("import os\nprint(os.environ['NNDL_PROFILE'])", name="description", folder=folder)
    make_notebook("x = 2", "open('mark', 'w').write(str(x))", name="code", folder=folder)
    make_notebook("print(open('mark').read())", name="report", folder=folder)
    return folder


def test_run_builds_pages_and_leaves_the_notebooks(small_course, capsys):
    before = {path: path.read_bytes() for path in small_course.glob("*.ipynb")}
    course.run("CA6_vae", "tiny")
    build = small_course.parent / "_build"
    assert "<pre>tiny\n</pre>" in (build / "CA6_vae" / "description.html").read_text(encoding="utf-8")
    assert "CA6_vae/report.html" in (build / "index.html").read_text(encoding="utf-8")
    assert {path: path.read_bytes() for path in small_course.glob("*.ipynb")} == before
    assert "CA6_vae/code.ipynb  cell 2/2  0:0" in capsys.readouterr().out


def test_run_names_the_failing_cell(small_course, make_notebook):
    make_notebook("x = 2", "def f():\n    raise ValueError('one\\ntwo')", "f()", name="code", folder=small_course)
    with pytest.raises(course.CourseError, match=r"^CA6_vae/code\.ipynb, cell 3: ValueError: two$"):
        course.run("CA6_vae", "demo")
    build = small_course.parent / "_build" / "CA6_vae"
    assert (build / "description.html").exists() and not (build / "report.html").exists()


def test_execute_writes_and_is_stable(small_course):
    course.execute("CA6_vae")
    first = {path: path.read_bytes() for path in small_course.glob("*.ipynb")}
    code = nbformat.read(small_course / "code.ipynb", as_version=4)
    assert [cell.execution_count for cell in code.cells] == [1, 2]
    assert "demo" in (small_course / "description.ipynb").read_text(encoding="utf-8")
    course.execute("CA6_vae")
    assert {path: path.read_bytes() for path in small_course.glob("*.ipynb")} == first


def test_execute_refuses_and_leaves_the_notebook(small_course, make_notebook):
    path = make_notebook("import warnings\nwarnings.warn('old')", name="code", folder=small_course)
    before = path.read_bytes()
    with pytest.raises(course.CourseError, match=r"code\.ipynb is left as it was:\n  cell 1: output on stderr"):
        course.execute("CA6_vae")
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "arguments, status, words",
    [
        (["run", "CA9_nothing"], 2, "CA9_nothing: no such assignment"),
        (["run", "--profile", "huge"], 2, "huge: no such profile"),
        (["execute"], 2, "which assignment"),
    ],
)
def test_command_line_errors_are_one_line(arguments, status, words):
    command = [sys.executable, str(course.ROOT / "course.py"), *arguments]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", env=os.environ)
    assert done.returncode == status
    assert words in done.stderr and done.stderr.count("\n") == 1


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
    assert course.measured(metric) == f"{words} (bootstrap, test items, n = 100)"


def put(folder, profile, record):
    place = folder / "results" / profile
    place.mkdir(parents=True)
    (place / "record.json").write_text(json.dumps(record), encoding="utf-8")


def test_rows_say_what_run_it_was(small_course):
    assert course.result_rows("CA6_vae", True) == []
    put(small_course, "demo", RECORD)
    put(small_course, "full", changed("profile", "full") | {"reduced": True})
    (row,) = course.result_rows("CA6_vae", True)
    assert row == (
        "CA6_vae",
        "accuracy",
        "90 % (the assignment)",
        "94.1 % [93.0, 95.5] (bootstrap, test items, n = 100)",
        "shapes (embedded)",
        "full, reduced, epochs=3; cpu, some CPU",
    )
    assert "full, reduced" in course.index_page("demo") and course.result_rows("CA6_vae", True, ("tiny",)) == []


def test_headline_rows_are_those_with_a_target(small_course):
    record = json.loads(json.dumps(RECORD))
    record["metrics"]["loss"] = record["metrics"]["accuracy"] | {"label": "loss"}
    del record["metrics"]["loss"]["target"]
    record["metrics"]["aside"] = record["metrics"]["loss"] | {"label": "aside", "headline": False}
    put(small_course, "demo", record)
    assert [row[1] for row in course.result_rows("CA6_vae", True)] == ["accuracy"]
    assert [row[1] for row in course.result_rows("CA6_vae", False)] == ["accuracy", "loss"]
    del record["metrics"]["accuracy"]["target"]
    (small_course / "results" / "demo" / "record.json").write_text(json.dumps(record), encoding="utf-8")
    assert [row[1:3] for row in course.result_rows("CA6_vae", True)] == [("accuracy", "–")]


def test_readme_is_written_and_checked(small_course):
    root = small_course.parent / "README.md"
    marks = "# A\n<!-- results:begin -->\nold\n<!-- results:end -->\n"
    root.write_text(marks + "<!-- rooms:begin -->\n<!-- rooms:end -->\nend\n", encoding="utf-8")
    (small_course / "README.md").write_text(marks, encoding="utf-8")
    put(small_course, "demo", RECORD)
    with pytest.raises(course.CourseError, match=r"out of date: README\.md, CA6_vae/README\.md"):
        course.readme(check=True)
    assert "old" in root.read_text(encoding="utf-8")
    course.readme(check=False)
    course.readme(check=True)
    text = root.read_text(encoding="utf-8")
    assert "94.1 %" in text and "old" not in text and text.endswith("end\n")
    assert "| CA5_vit | A vision transformer from scratch | not there yet |" in text
    assert "| accuracy | 90 % (the assignment) |" in (small_course / "README.md").read_text(encoding="utf-8")
    root.write_text("no marks", encoding="utf-8")
    with pytest.raises(course.CourseError, match=r"README\.md: needs <!-- results:begin -->"):
        course.readme(check=True)


def test_sync_copies_lab(small_course):
    source = small_course.parent / course.LAB_SOURCE
    source.mkdir()
    (source / "lab.py").write_text("1", encoding="utf-8")
    (small_course / "lab.py").write_text("2", encoding="utf-8")
    course.sync()
    assert (small_course / "lab.py").read_text(encoding="utf-8") == "1"
