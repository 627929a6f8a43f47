"""The student's edition and the grader, on a small room of its own; then the real rooms, see test_structure.py."""

import csv
import json
import os
import subprocess
import sys

import nbformat
import nbformat.v4 as v4
import pytest
from hostile import HOSTILE

from nndl import attempts, exercises, grade, homework, mutants, nbgrader, sandbox
from nndl.records import LabError

IMPORTS = "import numpy as np\nimport torch\nfrom torch import nn\n\nimport toy_helper as helper\nfrom nndl import lab"
SETTINGS = 'SETTINGS = {"seed": (0, 0, 0, 0), "batch_size": (1, 2, 2, 2)}'
DOUBLE = '''def double(x):
    """Twice the numbers. (N,) -> (N,). Raises ValueError for an empty tensor."""
    if not len(x):
        raise ValueError("empty")
    return 2 * x


def given(x):
    """Not an exercise."""
    hidden = x + 1
    return hidden'''
LAYER = '''class Layer(nn.Module):
    """A linear map after doubling. (N, d) -> (N, d). `weight`: (d, d)."""

    def __init__(self, d):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(d))
        self.hidden = 3

    def forward(self, x):
        return double(x) @ self.weight.T + self.hidden - 3'''
USER = '''def twice_twice(x):
    """Four times the numbers, by double. (N,) -> (N,)."""
    return double(double(x))'''
CHECK_DOUBLE = """x = torch.tensor([1.0, -2.0, 0.5])
assert torch.allclose(double(x), torch.tensor([2.0, -4.0, 1.0])), "double does not double"
np.testing.assert_raises(ValueError, double, torch.zeros(0))
print("doubled", cfg.batch_size)"""
CHECK_LAYER = '''layer = Layer(2)
nn.init.constant_(layer.weight, 2.0)
assert layer(torch.tensor([[1.0, 3.0]])).tolist() == [[16.0, 16.0]], "not the map after doubling"'''
CHECK_USER = 'assert twice_twice(torch.tensor([3.0])).tolist() == [12.0], "not four times"'


def code(source, tags=(), **metadata):
    return v4.new_code_cell(source, metadata={"tags": list(tags), **metadata} if tags else metadata)


def toy_notebook():
    cells = [
        v4.new_markdown_cell("# Toy"),
        code(IMPORTS),
        code(SETTINGS, ["parameters"]),
        code("run = lab.start(SETTINGS)\ncfg = run.cfg"),
        code(DOUBLE, ["solution"], task=1, points={"double": 3}),
        code(CHECK_DOUBLE, ["check"]),
        code("numbers = double(torch.ones(2))\nnumbers"),
        code("total = numbers.sum().item()"),
        code("print('total', total)"),
        code(LAYER, ["solution"], task=2, points={"Layer": 5.5}),
        code(CHECK_LAYER, ["check"]),
        code(USER, ["solution"], task=2, points={"twice_twice": 1}),
        code(CHECK_USER, ["check"]),
    ]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    return v4.new_notebook(cells=cells, metadata=metadata)


def answers(**own):
    """A submission's notebook: the toy room's, with other sources for some exercises (None: its stub)."""
    notebook = toy_notebook()
    notebook.metadata["assignment"] = "CA5_vit"
    for cell in notebook.cells:
        for name in cell.metadata.get("points", {}):
            if name in own:
                cell.source = exercises.with_stubs(cell.source, {name}) if own[name] is None else own[name]
    return notebook


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A repository with one room, called CA5_vit so that the commands know it."""
    root = tmp_path_factory.mktemp("house")
    folder = root / "CA5_vit"
    folder.mkdir()
    nbformat.write(toy_notebook(), folder / "code.ipynb")
    nbformat.write(v4.new_notebook(cells=[code("1")]), folder / "description.ipynb")
    nbformat.write(v4.new_notebook(cells=[code("2")]), folder / "report.ipynb")
    (folder / "toy_helper.py").write_text("def peek(path):\n    return open(path).read()\n", encoding="utf-8")
    (root / "requirements.in").write_text("torch\n-e .\n", encoding="utf-8")
    return root


def command(house, *arguments):
    """Run a command of the course in that repository, in a process of its own: it forks, which a used GPU forbids."""
    start = (
        "import sys, pathlib; from nndl import rooms; rooms.ROOT = pathlib.Path(sys.argv.pop(1)); "
        "from nndl import cli; sys.exit(cli.main(sys.argv[1:]))"
    )
    environment = os.environ | {"NNDL_DATA": str(house / "no-data")}
    done = subprocess.run(
        [sys.executable, "-c", start, str(house), *map(str, arguments)],
        capture_output=True, encoding="utf-8", env=environment, timeout=300,
    )  # fmt: skip
    return done


def graded(house, folder, out, *more):
    """{(person, exercise): row} and {person: points} of a graded folder."""
    done = command(house, "grade", "--submissions", folder, "--out", out, *more)
    assert done.returncode == 0, done.stderr
    found = json.loads((out / "grades.json").read_text(encoding="utf-8"))
    rows = {(one["person"], row["exercise"]): row for one in found for row in one["exercises"]}
    return rows, {one["person"]: one["points"] for one in found}


def line_of(row):
    return row["problem"] or next((check["message"] for check in row["checks"] if not check["passed"]), "")


# ---------------------------------------------------------------- exercises


def test_stub_keeps_what_a_student_needs():
    source = '''@torch.no_grad()
def f(x, y=2):
    """What it does."""
    # why
    return x'''
    assert exercises.stub(source, "f") == (
        '@torch.no_grad()\ndef f(x, y=2):\n    """What it does."""\n    raise NotImplementedError("f")\n'
    )
    bare = exercises.stub("def f(x):\n    # a secret\n    return x", "f")
    assert bare == 'def f(x):\n    raise NotImplementedError("f")\n'
    layer = exercises.stub(LAYER, "Layer")
    assert "def forward(self, x):" in layer and "`weight`" in layer and "hidden" not in layer and "double" not in layer


def test_stub_of_a_class_leaves_out_what_is_the_references_own():
    source = '''@dataclass
class A:
    """Fields."""

    a: int = 1  # kept

    def own(self):
        return 1

    @property
    def b(self):
        """Known."""
        return self.own()'''
    stub = exercises.stub(source, "A")
    assert "a: int = 1  # kept" in stub and "@property" in stub and '"""Known."""' in stub and "def own" not in stub
    compile(stub, "stub", "exec")


@pytest.mark.parametrize(
    "points, words", [({"double": 0}, "points"), ({"triple": 2}, "triple"), ({"double": "3"}, "points")]
)
def test_points_that_do_not_fit_are_named(tmp_path, points, words):
    nbformat.write(v4.new_notebook(cells=[code(DOUBLE, ["solution"], task=1, points=points)]), tmp_path / "code.ipynb")
    with pytest.raises(LabError, match=words):
        exercises.read_room(tmp_path / "code.ipynb")


def test_points_add_up(house):
    table = exercises.points({1: 7, 3: 83.5}, house / "CA5_vit")
    assert table.loc[2, "by checks"] == "`Layer` 5.5, `twice_twice` 1" and table.loc[1, "points"] == "10"
    with pytest.raises(LabError, match=r"add up to 99\.5, not to 100"):
        exercises.points({1: 7, 3: 83}, house / "CA5_vit")
    with pytest.raises(LabError, match=r"neither code\.ipynb nor exercises\.ipynb"):
        exercises.points({}, house)


# ---------------------------------------------------------------- the student's edition


@pytest.fixture(scope="module")
def edition(house):
    done = command(house, "student", "CA5_vit", "--out", house / "out")
    assert done.returncode == 0, done.stderr
    return house / "out" / "CA5_vit"


def test_edition_is_complete_and_without_solutions(edition):
    text = (edition / "exercises.ipynb").read_text(encoding="utf-8")
    assert (
        "2 * x" not in text and "double(double(x))" not in text and "def given(x)" in text and "return hidden" in text
    )
    assert "lab.homework()" in text and CHECK_LAYER.splitlines()[1] in text
    for name in ("README.md", "description.ipynb", "toy_helper.py", "nndl/lab.py", "nndl/record.schema.json"):
        assert (edition / name).is_file(), name
    assert (edition / "reference" / "CA5_vit" / "code.ipynb").is_file()
    assert "-e ." not in (edition / "requirements.txt").read_text(encoding="utf-8")


def test_edition_with_solutions_withheld(house):
    done = command(house, "student", "CA5_vit", "--out", house / "exam", "--solutions", "withheld")
    assert done.returncode == 0, done.stderr
    texts = "".join(p.read_text(encoding="utf-8") for p in (house / "exam").rglob("*") if p.suffix in (".ipynb", ".md"))
    assert "2 * x" not in texts and not list((house / "exam").rglob("report.ipynb"))
    again = command(house, "student", "CA5_vit", "--out", house / "exam")
    assert again.returncode == 1 and "is there already" in again.stderr
    wrong = command(house, "student", "CA5_vit", "--out", house / "new", "--solutions", "never")
    assert wrong.returncode == 2 and "later or withheld" in wrong.stderr and not (house / "new").exists()


def test_source_for_nbgrader(house):
    notebook = nbgrader.source_notebook(house / "CA5_vit" / "code.ipynb")
    own = {cell.source: cell.metadata.get("nbgrader", {}) for cell in notebook.cells if cell.cell_type == "code"}
    (double,) = (source for source in own if source.startswith("def double"))
    begin, end = double.index("### BEGIN SOLUTION"), double.index("### END SOLUTION")
    assert begin < double.index("return 2 * x") < end < double.index("def given")
    assert own[double]["solution"] and own[CHECK_LAYER]["points"] == 5.5 and own[CHECK_LAYER]["locked"]
    compile(double, "double", "exec")


def run_edition(edition, **own):
    """The edition's notebook executed, with some exercises answered; texts of its outputs by source."""
    from nbclient import NotebookClient

    notebook = nbformat.read(edition / "exercises.ipynb", as_version=4)
    for cell in notebook.cells:
        for name in cell.metadata.get("points", {}):
            cell.source = own.get(name, cell.source)
    NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": str(edition)}}).execute()
    found = {}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            texts = [out.get("text") or out.get("data", {}).get("text/plain", "") for out in cell.outputs]
            found[cell.source] = "".join(texts).strip()
    return found


def test_unfinished_exercises_do_not_stop_the_notebook(edition):
    said = run_edition(edition)
    assert said[CHECK_DOUBLE] == said["print('total', total)"] == "not yet: double"
    assert said[CHECK_LAYER] == "not yet: Layer" and said[CHECK_USER] == "not yet: twice_twice"


def test_notebook_runs_on_with_a_part_from_the_reference(edition):
    said = run_edition(edition, double='lab.take_reference("double")', twice_twice=USER)
    assert said['lab.take_reference("double")'] == "double: the reference's, taken; 0 of 3 points"
    assert said[CHECK_DOUBLE] == "doubled 1" and said["print('total', total)"] == "total 4.0"
    assert said["numbers = double(torch.ones(2))\nnumbers"] == "tensor([2., 2.])", "the last expression is shown"
    assert said[CHECK_LAYER] == "not yet: Layer"


def test_wrong_answer_stops_the_notebook(edition):
    from nbclient.exceptions import CellExecutionError

    with pytest.raises(CellExecutionError, match="double does not double"):
        run_edition(edition, double=DOUBLE.replace("2 * x", "3 * x"))


@pytest.mark.parametrize(
    "error, waits",
    [
        (NotImplementedError("double"), "double"),
        (NotImplementedError(), None),
        (NameError("x", name="numbers"), "double"),
        (NameError("x", name="other"), None),
        (KeyError("acc"), "double"),
        (KeyError("other"), "double"),  # of what the waiting cell would have filled
        (AssertionError("wrong"), None),
        (IndexError("list index out of range"), "double"),
        (ZeroDivisionError(), None),
    ],
)
def test_what_counts_as_waiting(error, waits):
    waiting = homework.Waiting({"numbers": 1})
    waiting.cell("numbers = double(x)\nscores['a'].append(numbers)\nrun.metric('acc', 1)").__exit__(
        NotImplementedError, NotImplementedError("double"), None
    )
    assert "numbers" not in waiting.namespace
    waiting.cell("y = scores['a'][0]")
    assert waiting.reason(error) == waits
    waiting.cell("y = other[0]")
    assert waiting.reason(IndexError()) is None, "a cell that uses nothing of what waits"
    waiting.cell("scores['a'].append(1)").__exit__(None, None, None)
    waiting.cell("y = scores['a'][0]")
    assert waiting.reason(IndexError()) is None, "filled by now"


def test_reference_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LabError, match="ask your teacher"):
        homework.take_reference("double")
    nbformat.write(toy_notebook(), tmp_path / "code.ipynb")
    with pytest.raises(LabError, match="no such exercise; there are: double, Layer, twice_twice"):
        homework.take_reference("triple")


# ---------------------------------------------------------------- three people, by hand


RIGHT = {  # another person's right solution: other names, a helper and an import of its own
    "double": """import math


FACTOR = math.sqrt(4)


def stretched(values, by):
    return by * values


def double(x):
    if x.numel() == 0:
        raise ValueError("nothing to double")
    return stretched(x, FACTOR)""",
    "Layer": """class Layer(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width, width))

    def forward(self, inputs):
        return torch.einsum("oi,ni->no", self.weight, double(inputs))""",
}
HALF = {"double": DOUBLE.replace("2 * x", "x * x"), "twice_twice": None}  # Layer alone is right


@pytest.fixture(scope="module")
def marks(house):
    """Grades of three people and of each single stub."""
    folder = house / "class"
    people = {
        "ada": answers(**RIGHT),
        "ben": answers(**HALF),
        "cyd": answers(double=None, Layer=None, twice_twice=None),
    }
    people |= {f"without {name}": answers(**{name: None}) for name in ("double", "Layer", "twice_twice")}
    people["dan"] = answers(Layer='lab.take_reference("Layer")')
    for name, notebook in people.items():
        (folder / name / "CA5_vit").mkdir(parents=True)
        nbformat.write(notebook, folder / name / "CA5_vit" / "exercises.ipynb")
    (folder / "eve").mkdir()
    (folder / "eve" / "exercises.ipynb").write_text("{not json", encoding="utf-8")
    (folder / "=HYPERLINK()").mkdir()
    nbformat.write(v4.new_notebook(), folder / "=HYPERLINK()" / "odd.ipynb")
    return graded(house, folder, house / "marks")


def test_grades_are_those_by_hand(marks):
    rows, points = marks
    assert points["ada"] == 9.5, [line_of(row) for (person, _), row in rows.items() if person == "ada"]
    assert points["ben"] == 5.5 and rows["ben", "Layer"]["points"] == 5.5
    assert line_of(rows["ben", "double"]) == "double does not double"
    assert line_of(rows["ben", "twice_twice"]) == "not done yet: twice_twice"
    assert points["cyd"] == 0
    assert points["dan"] == 4 and line_of(rows["dan", "Layer"]) == "taken from the reference"


@pytest.mark.parametrize("name, of", [("double", 3), ("Layer", 5.5), ("twice_twice", 1)])
def test_one_stub_costs_its_own_points(marks, name, of):
    assert marks[1][f"without {name}"] == 9.5 - of


def test_unreadable_submission_is_a_line(marks, house):
    assert marks[1]["eve"] == 0
    with open(house / "marks" / "grades.csv", encoding="utf-8", newline="") as file:
        lines = {row["person"]: row for row in csv.DictReader(file)}
    assert "not a notebook that can be read" in lines["eve"]["problem"]
    assert lines["ben"]["not done"] == "double, twice_twice" and lines["ada"]["points"] == "9.5"
    assert "which assignment?" in lines["'=HYPERLINK()"]["problem"]
    page = (house / "marks" / "ben.html").read_text(encoding="utf-8")
    assert "double does not double" in page and "5.5 of 9.5" in page


def test_grading_nothing_is_said(house, tmp_path):
    assert command(house, "grade", "--submissions", tmp_path / "no", "--out", tmp_path).returncode == 2
    done = command(house, "grade", "--submissions", tmp_path, "--out", tmp_path / "out")
    assert done.returncode == 1 and "no notebook in it" in done.stderr and not (tmp_path / "out").exists()


def test_reference_that_fails_its_checks_grades_nothing(house, tmp_path):
    broken, room = tmp_path / "house", tmp_path / "house" / "CA5_vit"
    room.mkdir(parents=True)
    (room / "toy_helper.py").write_text("", encoding="utf-8")
    notebook = toy_notebook()
    notebook.cells[5].source = 'double(torch.ones(2))\nassert False, "never right"'
    nbformat.write(notebook, room / "code.ipynb")
    nbformat.write(answers(), tmp_path / "mine.ipynb")
    done = command(broken, "grade", "--submissions", tmp_path / "mine.ipynb", "--out", tmp_path / "out")
    assert done.returncode == 1 and "the reference fails: never right" in done.stderr, done.stderr
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------- right ones, in the styles that people have

HONEST = {
    "typing, __future__ and a local import": """from __future__ import annotations

from typing import Optional


def double(x: Optional[torch.Tensor]):
    import math

    if x.numel() == 0:
        raise ValueError
    return math.sqrt(4) * x""",
    "constants in small letters, in pairs, with a type": """factor: int = 2
zero, one = 0, 1
table = [zero, one, factor]


def double(x):
    if len(x) == zero:
        raise ValueError
    return table[-1] * x""",
    "magics, a form feed, a line separator in a comment": """%matplotlib inline
# one\x0ctwo\u2028three
!ls
def double(x):
    if not len(x):
        raise ValueError
    return x + x""",
    "a name that the reference uses inside": """def hidden(values):
    return 2 * values


def double(x):
    d = hidden(x)
    if not d.shape[0]:
        raise ValueError
    return d""",
    "a variable called like a module": """def double(x):
    helper = x.clone()
    if not len(helper):
        raise ValueError
    return helper.mul_(2)""",
    "a class of its own with names that files have": """class Doubler(nn.Module):
    \"\"\"Doubles.\"\"\"

    def __init__(self, query=2):
        super().__init__()
        self.query, self.__two, self.saved = query, 2, []

    def __str__(self):
        return f"{self.query}"

    def forward(self, load):
        self.saved.append(load)
        return self.query * load


def double(x):
    if not isinstance(x, torch.Tensor) or not len(x):
        raise ValueError(type(x).__name__)
    model = Doubler()
    model.eval()
    return model(x)""",
    "a child of the notebook's own class": """class Sub(Layer):
    pass


def double(x):
    if not len(x):
        raise ValueError
    return x * 2""",
    "a broken cell beside the right one": None,
}


@pytest.fixture(scope="module")
def honest(house):
    folder = house / "honest"
    for name, source in HONEST.items():
        (folder / name).mkdir(parents=True)
        notebook = answers(double=source or DOUBLE)
        if source is None:
            notebook.cells.append(code("%%time\ndef double(x):\n    return ("))
        nbformat.write(notebook, folder / name / "exercises.ipynb")
    return graded(house, folder, house / "honest-marks")


@pytest.mark.parametrize("name", HONEST)
def test_right_solutions_in_other_styles_count(honest, name):
    rows, points = honest
    assert points[name] == 9.5, line_of(rows[name, "double"])


def test_what_comes_out_of_the_reference_is_the_last_word(house, tmp_path):
    """A part that is taken counts nothing, unless an own solution stands below it."""
    above, below = answers(), answers()
    take = code('lab.take_reference("double")')
    above.cells.insert(1, take)
    below.cells.append(take)
    for name, notebook in (("above", above), ("below", below)):
        nbformat.write(notebook, tmp_path / f"{name}.ipynb")
        found = grade.read(name, tmp_path / f"{name}.ipynb")
        assert ("double" in found.taken and found.taken["double"] >= found.written["double"]) == (name == "below")


def test_people_and_their_folders(tmp_path):
    for place in ("one/dan/CA5_vit/exercises.ipynb", "one/eve/exercises.ipynb", "fay/code.IPYNB", "Ada_1_file/x.ipynb"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text("{}", encoding="utf-8")
    for place in ("ida", ".hidden", "__MACOSX/ben"):
        (tmp_path / place).mkdir(parents=True)
    people = {person: path and path.name for person, path in grade.find(tmp_path)}
    assert people == {
        "one/dan": "exercises.ipynb",
        "one/eve": "exercises.ipynb",
        "fay": "code.IPYNB",
        "Ada_1_file": "x.ipynb",
        "ida": None,
    }
    assert grade.read("ida", None).problem == "no notebook in this folder"


@pytest.mark.parametrize(
    "content, words",
    [
        ("", "not a notebook"),
        ("[]", "not a notebook"),
        ('{"cells": 3}', "not a notebook"),
        ('{"worksheets": []}', "nbformat 3"),
        ('{"cells": [], "metadata": null}', "which assignment"),
        ("[" * 100000, "not a notebook"),
    ],
)
def test_files_that_are_no_notebooks(tmp_path, content, words):
    (tmp_path / "x.ipynb").write_text(content, encoding="utf-8")
    assert words in grade.read("x", tmp_path / "x.ipynb").problem


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.ipynb")
    assert "no plain file" in grade.read("x", tmp_path / "x.ipynb").problem


@pytest.mark.parametrize(
    "line",
    [
        b"5",
        b"{}",
        b'{"x": 5}',
        b'{"cell": 7, "passed": true, "message": "", "seconds": 0.1}',
        b'{"cell": 6, "passed": 1, "message": "", "seconds": 0.1}',
        b'{"cell": 6, "passed": true, "message": "no", "seconds": 0.1}',
        b'{"cell": 6, "passed": true, "message": "", "seconds": 0.1, "title": "x"}',
        b"\xff",
    ],
)
def test_only_a_verdict_is_taken_for_one(line):
    assert attempts.verdict_of(line, {6: "double"}) is None


def test_verdict():
    assert attempts.verdict_of(b'{"cell": 6, "passed": true, "message": "", "seconds": 0.1}', {6: "double"})["passed"]


# ---------------------------------------------------------------- hostile ones


@pytest.fixture(scope="module")
def hostile(house):
    folder = house / "hostile"
    for name, (source, _) in HOSTILE.items():
        (folder / name).mkdir(parents=True)
        notebook = answers(double=source.replace("CODE", str(house / "CA5_vit" / "code.ipynb")))
        nbformat.write(notebook, folder / name / "exercises.ipynb")
    before = sorted(str(path) for path in house.rglob("*") if "hostile" not in path.parts)
    found = graded(house, folder, house / "hostile-marks", "--seconds", "8")
    after = sorted(str(path) for path in house.rglob("*") if not {"hostile", "hostile-marks"} & set(path.parts))
    return found, before, after


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_submission_is_no_points_and_a_line(hostile, house, name):
    (rows, points), _, _ = hostile
    row = rows[name, "double"]
    words = HOSTILE[name][1].replace("CODE", "code.ipynb")
    assert row["points"] == 0, row
    assert words in line_of(row), line_of(row)
    assert points[name] == 6.5, "what else the person did counts"


def test_hostile_submissions_leave_nothing_behind(hostile):
    _, before, after = hostile
    assert before == after and not os.path.exists("/tmp/outside")


@pytest.mark.skipif(not sandbox.landlock_version(), reason="this kernel has no Landlock")
def test_the_kernel_holds_native_code_back(tmp_path):
    """Without rules and audit hook: reading and writing outside, and starting a program, as native code would."""
    (tmp_path / "own").mkdir()
    (tmp_path / "secret").write_text("x", encoding="utf-8")
    program = """
import os, sys
from nndl import sandbox
secret, own = sys.argv[1:]
sandbox.landlock([sys.prefix, sys.base_prefix], own)
open(own + "/mine", "w").close()
for attempt in (lambda: open(secret), lambda: open(secret, "w"), lambda: os.execv("/bin/sh", ["sh", "-c", "exit 5"])):
    try:
        attempt()
        sys.exit(3)
    except PermissionError:
        pass
"""
    done = subprocess.run([sys.executable, "-c", program, tmp_path / "secret", tmp_path / "own"], timeout=100)
    assert done.returncode == 0
    assert (tmp_path / "secret").read_text(encoding="utf-8") == "x" and (tmp_path / "own" / "mine").exists()


# ---------------------------------------------------------------- mutants


def test_mutants_are_wrong_in_the_usual_ways():
    source = '''def f(a, b):
    """Words are left alone: 1 + 1."""
    if a.ndim != 2:
        raise ValueError("2 + 2")
    c = torch.softmax(a @ b.transpose(0, 1) - 3, dim=-1)
    return c / 2'''
    found = mutants.all_mutants(source)
    kinds = {mutant.kind for mutant in found}
    assert {"operator", "transposed product", "dropped term", "dropped call", "comparison", "constant", "wrong axis",
            "sign", "input returned"} <= kinds  # fmt: skip
    texts = [mutant.source for mutant in found]
    assert len(set(texts)) == len(texts) and all("1 + 1" in text for text in texts)
    assert all("2 + 2" in text for text in texts if "raise" in text), "what an error says is left alone"
    for text in texts:
        compile(text, "mutant", "exec")
    assert any("b.transpose(0, 1) @ a" in text for text in texts)


def test_mutants_are_the_same_every_time():
    first, second = (mutants.mutants_of("Layer", LAYER, most=6) for _ in range(2))
    assert first == second and len(first) == 6
    assert mutants.mutants_of("other", LAYER, most=6) != first


def test_score_counts_what_checks_notice(house):
    done = command(house, "mutants", "CA5_vit")
    assert done.returncode == 0, done.stderr
    found = json.loads((house / "CA5_vit" / "results" / "mutants.json").read_text(encoding="utf-8"))
    double, layer = found["exercises"]["double"], found["exercises"]["Layer"]
    assert double["noticed"] == double["made"] > 3, double
    assert layer["missed"] and layer["made"] == layer["noticed"] + len(layer["missed"]), "the hidden 3 - 3 is not seen"
    assert any("self.weight" in text or "hidden" in text for text in layer["missed"])


# ---------------------------------------------------------------- fairness


def test_fair_room_has_no_complaints(house):
    done = command(house, "checks", "CA5_vit")
    assert done.returncode == 0, done.stdout + done.stderr


def complaints_about(folder, sources):
    """What `make checks` says when some cells of the toy room, by number, are others."""
    room = folder / "CA5_vit"
    room.mkdir()
    (room / "toy_helper.py").write_text("", encoding="utf-8")
    notebook = toy_notebook()
    for number, source in sources.items():
        notebook.cells[number].source = source
    nbformat.write(notebook, room / "code.ipynb")
    done = command(folder, "checks", "CA5_vit")
    assert done.returncode == 1, done.stdout
    return done.stdout


def test_unfair_checks_are_named(tmp_path):
    catches_all = "try:\n    double(torch.ones(2))\nexcept NotImplementedError:\n    pass\nassert True"
    said = complaints_about(tmp_path, {5: catches_all, 10: "assert Layer(2).hidden == 3", 12: "assert True"})
    assert "double: its stub passes the checks" in said
    assert "reads Layer.hidden, which its docstring does not name" in said
    assert "Layer: a right solution with other private names fails" in said
    assert "twice_twice: no check names it" in said


def test_check_that_does_not_stand_by_itself_is_named(tmp_path):
    said = complaints_about(tmp_path, {5: "assert double(numbers) is not None"})
    assert "the reference fails: NameError: name 'numbers' is not defined" in said
