"""How the tests run: environment, order, and which of the two processes gets what."""

import os
import re
import time
from pathlib import Path

# Before anything imports torch, and for the kernels and scripts that the tests start.
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
os.environ["NNDL_PROFILE"] = "tiny"
os.environ["TQDM_DISABLE"] = "1"
os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
for name in ("NNDL_SET", "NNDL_TRACK", "NNDL_DOWNLOAD", "NNDL_RUN", "NNDL_STATE"):
    os.environ.pop(name, None)

import pytest
from xdist.scheduler import LoadScopeScheduling

from nndl import rooms

NOTEBOOK_ORDER = {"code.ipynb": 0, "report.ipynb": 1, "description.ipynb": 2}
LONG_FIRST = ("test_resume.py", "test_grading.py", "test_structure.py", "test_commands.py", "test_launch.py")


# ---------------------------------------------------------------- order and distribution


def scope_of(nodeid):
    """What stays together on one process: a room's notebooks and the tests of their records, else a test file."""
    file, _, rest = nodeid.partition("::")
    if file.endswith(".ipynb"):
        return file.split("/")[0]
    if file.endswith("test_notebooks.py") and (found := re.search(r"\[(\w+)", rest)):
        return found[1]
    return file


def order_of(item):
    """Notebooks first, code before report before the test of the record; then the test files that take long."""
    scope = scope_of(item.nodeid)
    file = item.path.name
    return (scope not in rooms.ROOMS, scope if scope in rooms.ROOMS else "", NOTEBOOK_ORDER.get(file, 3)), (
        file not in LONG_FIRST,
        file,
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    items.sort(key=order_of)  # a stable sort: inside a file the tests keep their order


class RoomScheduling(LoadScopeScheduling):
    """Hands out whole scopes. (xdist's own loadgroup does nothing under pytest 9.)"""

    def _split_scope(self, nodeid):
        return scope_of(nodeid)


def pytest_xdist_make_scheduler(config, log):
    config.option.loadscopereorder = False  # keep the order made above
    return RoomScheduling(config, log)


# ---------------------------------------------------------------- what the tests of records need to know


class SessionStart:
    """Tells every xdist process when the whole run began."""

    def __init__(self):
        self.time = time.time()

    def pytest_configure_node(self, node):
        node.workerinput["session_start"] = self.time


def pytest_configure(config):
    if hasattr(config, "workerinput"):
        config.session_start = config.workerinput["session_start"]
    else:
        start = SessionStart()
        config.session_start = start.time
        config.pluginmanager.register(start, "session-start")


@pytest.fixture
def session_start(request):
    """Seconds since 1970 at which this run of pytest began."""
    return request.config.session_start


# ---------------------------------------------------------------- a room of one's own


@pytest.fixture
def room(tmp_path):
    """An empty room outside the checkout."""
    folder = tmp_path / "CA0_room"
    folder.mkdir()
    return folder


@pytest.fixture
def begin_run(tmp_path, monkeypatch):
    """begin_run(definitions, profile, overrides) starts a run of a notebook's definitions: on the CPU, no real data.

    The definitions get `run` and `cfg`; what the run writes stays out of the checkout.
    """
    from accelerate.state import AcceleratorState

    for name in ("NNDL_PROFILE", "NNDL_SET", "NNDL_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    runs = []

    def begin(definitions, profile="tiny", overrides=""):
        AcceleratorState._reset_state(True)
        folder = tmp_path / Path(definitions.__file__).parent.name
        folder.mkdir(exist_ok=True)
        monkeypatch.chdir(folder)
        run = definitions.lab.start(definitions.SETTINGS, profile, overrides)
        runs.append(run)
        monkeypatch.setattr(definitions, "run", run, raising=False)
        monkeypatch.setattr(definitions, "cfg", run.cfg, raising=False)
        return run

    yield begin
    for run in runs:
        run.lock.release(force=True)
    AcceleratorState._reset_state(True)


@pytest.fixture
def make_notebook(tmp_path):
    """make_notebook("x = 1", ("y = 2", ["check"])) writes a notebook of these code cells and returns its path."""
    import nbformat.v4 as v4

    def make(*cells, name="code", folder=tmp_path):
        cells = [cell if isinstance(cell, tuple) else (cell, []) for cell in cells]
        notebook = v4.new_notebook(
            cells=[v4.new_code_cell(source, metadata={"tags": tags} if tags else {}) for source, tags in cells]
        )
        path = folder / f"{name}.ipynb"
        path.write_text(v4.writes(notebook), encoding="utf-8")
        return path

    return make


# ---------------------------------------------------------------- drawing


@pytest.fixture
def figure(monkeypatch):
    """What a drawing function leaves behind when it shows its figure."""
    import matplotlib.pyplot as plt

    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(plt.gcf()))
    yield lambda: shown[-1]
    plt.close("all")
