"""The loader, on small notebooks made by hand."""

import sys

import pytest

from nndl.notebooks import NotebookLoadError, load_definitions


def test_takes_imports_functions_classes_and_constants(make_notebook):
    path = make_notebook(
        "import math\nfrom math import pi as _PI",
        '"""Constants."""\nLIMIT = 3\nA, _b = 1, 2\nRATE: float = 0.5',
        "def area(r):\n    return _PI * r**LIMIT",
        "class Box:\n    side = LIMIT",
    )
    code = load_definitions(path)
    assert code.area(2) == pytest.approx(8 * code.math.pi)
    assert (code.LIMIT, code.A, code._b, code.RATE, code.Box.side) == (3, 1, 2, 0.5, 3)


def test_runs_nothing_else(make_notebook, tmp_path):
    mark = tmp_path / "ran"
    touch = f"open({str(mark)!r}, 'w').close()"
    path = make_notebook(
        touch,
        f"for i in range(3):\n    {touch}",
        f"_ = {touch}",
        f"x = {touch}",
        f"_, axes = {touch}, 1",
        f"A, axes = {touch}, 1",
        f"def f():\n    return 1\n{touch}",
        f"if True:\n    {touch}",
        f"LIST[0] = {touch}",
        "def g():\n    return 2",
    )
    code = load_definitions(path)
    assert not mark.exists()
    assert code.g() == 2


def test_mixed_cell_is_left_out_whole(make_notebook):
    code = load_definitions(make_notebook("def f():\n    return 1\nvalue = f()", "def g():\n    return 2"))
    assert not hasattr(code, "f") and not hasattr(code, "value")
    assert code.g() == 2


def test_constants_of_the_parameters_cell(make_notebook):
    path = make_notebook(
        ("# tiny, demo, full\nSETTINGS = {\n    'epochs': (1, 2, 3),\n}", ["parameters"]),
        "def epochs():\n    return SETTINGS['epochs'][0]",
    )
    assert load_definitions(path).epochs() == 1


def test_constants_may_use_earlier_definitions(make_notebook):
    path = make_notebook(
        "def double(x):\n    return 2 * x",
        "SIZES = [double(n) for n in range(3)]\nLAST = SIZES[-1]\nKEY = max(SIZES, key=lambda v: -v)",
    )
    code = load_definitions(path)
    assert (code.SIZES, code.LAST, code.KEY) == ([0, 2, 4], 4, 0)


def test_constant_made_from_a_run_belongs_to_the_run(make_notebook):
    code = load_definitions(make_notebook("data = [1, 2]", "N = len(data)", "def f():\n    return 1"))
    assert not hasattr(code, "N")
    assert code.f() == 1


def test_decorated_functions_and_dataclasses(make_notebook):
    path = make_notebook(
        "from dataclasses import dataclass\nfrom functools import cache",
        "CALLS = []\n\n@cache\ndef f(x):\n    CALLS.append(x)\n    return x",
        "@dataclass\nclass Pair:\n    a: 'int'\n    b: int = 2",
    )
    code = load_definitions(path)
    assert code.f(1) == code.f(1) == 1 and code.CALLS == [1]
    assert code.Pair(1) == code.Pair(1, 2)


@pytest.mark.parametrize("line", ["%matplotlib inline", "!pip install x", "files = !ls", "len?"])
def test_magic_line_is_an_error_that_names_the_cell(make_notebook, line):
    path = make_notebook("X = 1", f"import math\n{line}")
    with pytest.raises(NotebookLoadError) as error:
        load_definitions(path)
    assert f"{path}, cell 2" in str(error.value) and line in str(error.value)


def test_error_in_a_definition_names_the_cell(make_notebook):
    path = make_notebook("X = 1", "", "class A(Missing):\n    pass")
    with pytest.raises(NotebookLoadError, match=r"code\.ipynb, cell 2: NameError: .*Missing"):
        load_definitions(path)


def test_two_rooms_do_not_mix(make_notebook, tmp_path):
    loaded = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "toy_helper.py").write_text(f"NAME = {name!r}", encoding="utf-8")
        path = make_notebook("import toy_helper as helper\nfrom toy_helper import NAME", folder=tmp_path / name)
        loaded.append(load_definitions(path))
    assert [code.NAME for code in loaded] == [code.helper.NAME for code in loaded] == ["one", "two"]
    assert "toy_helper" not in sys.modules
    assert str(tmp_path / "one") not in sys.path


def test_modules_of_the_same_name_are_put_back(make_notebook, tmp_path, monkeypatch):
    mine = object()
    monkeypatch.setitem(sys.modules, "toy_helper", mine)
    (tmp_path / "toy_helper.py").write_text("NAME = 'room'", encoding="utf-8")
    assert load_definitions(make_notebook("import toy_helper")).toy_helper.NAME == "room"
    assert sys.modules["toy_helper"] is mine
