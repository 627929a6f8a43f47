"""A killed training goes on as if nothing had happened; a state is used only by what made it; one run at a time."""

import json
import linecache
import os
import runpy
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState

from nndl import lab, machine
from nndl.records import LabError

HERE = Path(__file__).parent
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
if not hasattr(os, "fork"):
    pytest.skip("programs are killed and limited as on Unix", allow_module_level=True)
SETTINGS = {"epochs": (1, 2, 30, 3), "compile": (False, False, False), "seed": (5, 5, 5)}


@pytest.fixture(autouse=True)
def in_the_room(room, monkeypatch):
    for name in ("NNDL_PROFILE", "NNDL_SET", "NNDL_DATA", "NNDL_DOWNLOAD", "NNDL_TRACK", "NNDL_STATE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(room)
    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)


# ---------------------------------------------------------------- a program, killed


class Program:
    """toy_training.py in a folder, started by a fork of this process: torch need not be imported again."""

    def __init__(self, folder, environment):
        variables = {name: value for name, value in os.environ.items() if not name.startswith("NNDL_")}
        variables |= {"NNDL_PROFILE": "demo", "ACCELERATE_USE_CPU": "true"} | environment
        self.files = [folder / "stdout.txt", folder / "stderr.txt"]
        self.pid = os.fork()
        if self.pid:
            return
        status = 1
        try:
            os.chdir(folder)
            os.environ.clear()
            os.environ.update(variables)
            for number, file in enumerate(self.files, 1):
                os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
            linecache.clearcache()  # the file may have changed since an earlier run
            runpy.run_path("toy_training.py", run_name="__main__")
            status = 0
        except BaseException:
            traceback.print_exc(file=sys.stderr)
        finally:
            os._exit(status)

    def wait(self):
        """(exit status, or minus the signal; stdout; last line of stderr)"""
        _, status = os.waitpid(self.pid, 0)
        out, err = (file.read_text(encoding="utf-8") for file in self.files)
        return os.waitstatus_to_exitcode(status), out, (err.strip().splitlines() or [""])[-1]


def train(folder, **environment):
    """Run toy_training.py to its end: (exit status, stdout, last line of stderr)."""
    return Program(folder, environment).wait()


def training_room(folder, *changes):
    """A folder with the program, old texts replaced by new ones."""
    folder.mkdir(exist_ok=True)
    text = (HERE / "toy_training.py").read_text(encoding="utf-8")
    for old, new in changes:
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in toy_training.py"
        text = text.replace(old, new)
    (folder / "toy_training.py").write_text(text, encoding="utf-8")
    return folder


def record(folder):
    return json.loads((folder / "runs" / "demo" / "record.json").read_text(encoding="utf-8"))


def states(folder):
    return sorted(path.name for path in (folder / "runs" / "demo" / "state").glob("*/*"))


def test_a_training_that_is_read_again_took_its_time_once():
    def state(run):
        return run.checkpoint("toy", [])

    run = lab.start(SETTINGS)
    first = state(run)
    first.begin -= 1000  # as if the training had begun so many seconds ago
    first.save(1)
    assert state(run).done == 1 and run.earlier == 0, "a cell that is run again, in the run that trained"
    AcceleratorState._reset_state(True)
    run.lock.release()
    run = lab.start(SETTINGS)
    assert [state(run).done for _ in range(3)] == [1, 1, 1] and 1000 <= run.earlier < 1900, "read three times"


def test_an_unfinished_save_is_no_other_training(tmp_path):
    broken = training_room(tmp_path / "broken")
    assert train(broken, KILL_IN_SAVE="1")[0] == -signal.SIGKILL
    assert train(broken)[1] == "done before: 0\n", "nothing was saved, so nothing is there of other settings"


def test_killed_training_ends_as_if_it_had_not_been(tmp_path):
    whole = training_room(tmp_path / "whole")
    assert train(whole)[0] == 0

    broken = training_room(tmp_path / "broken")
    # in the middle of an epoch, each of which takes a while
    assert train(broken, KILL_AT="2:3", PAUSE="0.5")[0] == -9
    assert states(broken) == ["epoch-0002"] and not (broken / "runs" / "demo" / "record.json").exists()
    # while a state is being written
    assert train(broken, KILL_IN_SAVE="4")[:2] == (-9, "toy: goes on from epoch 2\ndone before: 2\n")
    assert states(broken) == ["epoch-0003", "epoch-0004.part"]
    assert train(broken)[:2] == (0, "toy: goes on from epoch 3\ndone before: 3\n")
    assert record(broken)["metrics"] == record(whole)["metrics"]
    assert record(broken)["seconds"]["training"] > 1, "the record must count what the interrupted runs took"
    assert not (broken / "runs" / "demo" / "state").exists(), "a finished run leaves no state behind"


@pytest.mark.parametrize(
    "change, used",
    [
        (("lr=0.1, momentum", "lr=0.2, momentum"), False),  # the training function
        (("with_logits(model(x), y)", "with_logits(model(x), 1 - y)"), False),  # what it calls
        (('"""Returns the averaged weights', '"""Another docstring'), True),
        (("    model.train()\n", "    model.train()  # a comment\n"), True),
        (('"width": (8, 8, 8)', '"width": (8, 9, 8)'), False),  # a setting that it reads
        (('"epochs": (6, 6, 6)', '"epochs": (6, 7, 6)'), False),
        (("average.eval()\n", "average.eval()  # after the training\n"), True),
    ],
    ids=["training", "called", "docstring", "comment", "width", "epochs", "elsewhere"],
)
def test_state_of_other_code_is_not_used(tmp_path, change, used):
    folder = training_room(tmp_path / "toy")
    assert train(folder, KILL_AT="1:1")[0] == -9
    training_room(folder, change)
    status, out, _ = train(folder)
    assert status == 0
    words = (
        "goes on from epoch 1" if used else "begins anew; a saved state is there, but of other settings, data or code"
    )
    assert out.splitlines()[0] == f"toy: {words}"


def test_going_back_to_the_old_code_finds_its_state(tmp_path):
    folder = training_room(tmp_path / "toy")
    train(folder, KILL_AT="1:1")
    training_room(folder, ("lr=0.1, momentum", "lr=0.2, momentum"))
    assert train(folder, KILL_AT="0:1")[0] == -9
    training_room(folder)
    assert "goes on from epoch 1" in train(folder)[1]


def test_compiled_and_not_compiled_do_not_take_each_others_state(tmp_path):
    folder = training_room(tmp_path / "toy")
    train(folder, KILL_AT="1:1")
    status, out, _ = train(folder, NNDL_SET="compile=True")
    assert status == 0 and out.startswith("toy: begins anew")


@pytest.mark.parametrize("damage", ["empty", "truncated", "gone", "other network"])
def test_damaged_state_is_one_line(tmp_path, damage):
    folder = training_room(tmp_path / "toy")
    train(folder, KILL_AT="1:1")
    (saved,) = (folder / "runs" / "demo" / "state").glob("*/epoch-0001")
    if damage == "gone":
        (saved / "extra.pt").unlink()
    elif damage == "other network":  # as torch.compile names its parameters
        from safetensors.torch import load_file, save_file

        weights = load_file(saved / "model.safetensors")
        save_file({f"_orig_mod.{name}": value for name, value in weights.items()}, saved / "model.safetensors")
    else:
        raw = (saved / "extra.pt").read_bytes()
        (saved / "extra.pt").write_bytes(raw[: len(raw) // 2] if damage == "truncated" else b"")
    status, _, last = train(folder)
    assert status == 1 and f"LabError: toy: the saved state runs/demo/state/{saved.parent.name}/epoch-0001 is" in last
    assert "delete that folder and start again" in last
    shutil.rmtree(saved.parent)
    assert train(folder)[0] == 0


def test_one_run_at_a_time(tmp_path):
    folder = training_room(tmp_path / "toy")
    first = Program(folder, {"PAUSE": "2"})
    while not (folder / "runs" / "demo" / "lock.txt").exists():
        time.sleep(0.1)
    status, _, last = train(folder)
    assert status == 1 and f"toy, profile demo: another run is going on (process {first.pid}, since" in last
    assert train(folder, NNDL_PROFILE="tiny")[0] == 0, "another profile has its own folder"
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert train(folder)[0] == 0, "the lock of a killed run is no lock"


def test_disk_full_while_saving(tmp_path):
    """A limit on the size of files stands for the disk: writing fails in the middle, as there."""
    limit = "import resource, signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (1500, resource.RLIM_INFINITY))\n"
    folder = training_room(tmp_path / "toy", ("import os\nimport signal\n", limit + "import os\nimport signal\n"))
    status, _, last = train(folder)
    assert status == 1 and "LabError: toy: the state after epoch 1 could not be saved (" in last
    assert last.endswith("started again, the run goes on from epoch 0")
    assert states(folder) == [], "no half of a state stays behind"


# ---------------------------------------------------------------- in this process


def small_training(config, epochs):
    """One model, `epochs` steps, one state a step; returns how many it found done, the weight and the history."""
    run = lab.start(SETTINGS)
    model = torch.nn.Linear(1, 1)
    torch.nn.init.zeros_(model.weight)
    model = run.accelerator.prepare(model)
    history = []
    checkpoint = run.checkpoint("small", config, history=history)
    found = checkpoint.done
    for epoch in range(found, epochs):
        with torch.no_grad():
            model.weight += 1
        history.append(float(epoch))
        checkpoint.save(epoch + 1)
    return found, model.weight.item(), history


def test_state_of_the_same_config_is_used():
    small_training({"width": 8}, 2)
    assert small_training({"width": 8}, 3) == (2, 3.0, [0.0, 1.0, 2.0])


def test_state_of_another_config_is_not_used_and_stays():
    small_training({"width": 8}, 2)
    assert small_training({"width": 16}, 1) == (0, 1.0, [0.0])
    assert small_training({"width": 8}, 2)[0] == 2


def test_state_of_another_precision_is_not_used(monkeypatch):
    small_training({}, 2)
    accelerator = type(lab.start(SETTINGS).accelerator)
    with monkeypatch.context() as other:  # one process knows one precision, so it is only said to be another
        other.setattr(accelerator, "mixed_precision", "bf16")
        assert small_training({}, 1)[0] == 0
    assert small_training({}, 2)[0] == 2


def test_only_the_last_whole_state_is_kept(room):
    small_training({}, 3)
    (state,) = (room / "runs" / "demo" / "state").iterdir()
    assert [path.name for path in state.iterdir()] == ["epoch-0003"]
    shutil.copytree(state / "epoch-0003", state / "epoch-0004.part")  # as a run leaves it that dies while it saves
    (state / "epoch-0004.part" / "extra.pt").unlink()
    assert small_training({}, 4)[0] == 3
    assert [path.name for path in state.iterdir()] == ["epoch-0004"]


def test_what_lies_beside_a_state_is_no_state(room):
    small_training({}, 2)
    (state,) = (room / "runs" / "demo" / "state").iterdir()
    shutil.copytree(state / "epoch-0002", state / "epoch-0001 copy")
    (state / "epoch-0007.zip").write_bytes(b"PK")
    (state / "epoch-0008").write_text("a file", encoding="utf-8")
    strays = ["epoch-0001 copy", "epoch-0007.zip", "epoch-0008"]
    assert small_training({}, 3) == (2, 3.0, [0.0, 1.0, 2.0])
    assert sorted(path.name for path in state.iterdir()) == sorted([*strays, "epoch-0003"]), "others' files stay"


def test_a_stray_alone_is_no_state_of_other_settings(room, capsys):
    small_training({"width": 8}, 1)
    (state,) = (room / "runs" / "demo" / "state").iterdir()
    (state / "epoch-0001").rename(state / "epoch-0001 copy")
    assert small_training({"width": 16}, 1)[0] == 0 and "begins anew" not in capsys.readouterr().out


@pytest.mark.parametrize("stored, asked", [(["history"], ["history", "best"]), (["history", "best"], ["history"])])
def test_a_state_with_other_parts_is_refused(stored, asked):
    def state(parts):
        return lab.start(SETTINGS).checkpoint("parts", [], **parts)

    state({name: [1.0] for name in stored}).save(1)
    found = {name: [] for name in asked}
    with pytest.raises(LabError, match=r"parts: the saved state .*epoch-0001 is damaged .*best: not in both.*delete"):
        state(found)
    assert not any(found.values()), "nothing may be half taken up"


def test_many_epochs_are_found():
    for epochs in (9999, 10_000, 10_001):
        run = lab.start(SETTINGS)
        checkpoint = run.checkpoint("long", {})
        assert checkpoint.done == {9999: 0, 10_000: 9999, 10_001: 10_000}[epochs]
        checkpoint.save(epochs)


def test_a_finished_run_leaves_the_states_of_other_settings(room):
    """A short trial must not cost the long training that was interrupted before it."""
    small_training({"epochs": 200}, 2)
    run = lab.start(SETTINGS)
    run.checkpoint("small", {"epochs": 1}, history=[]).save(1)
    run.use_data("toy", "embedded", {"test": 3}, [])
    run.metric("m", lab.over_items([1.5]), "", "m", "toy", headline=True)
    run.finish()
    assert small_training({"epochs": 200}, 3)[0] == 2
    assert len(list((room / "runs" / "demo" / "state").iterdir())) == 1, "its own states are gone"


def test_states_can_be_kept(monkeypatch):
    monkeypatch.setenv("NNDL_STATE", "keep")
    run = lab.start(SETTINGS)
    run.checkpoint("small", {}).save(1)
    run.use_data("toy", "embedded", {"test": 3}, [])
    run.metric("m", lab.over_items([1.0]), "", "m", "toy", headline=True)
    run.finish()
    assert list((run.folder / "state").glob("*/epoch-0001"))


def test_an_open_notebook_may_start_again():
    first, second = lab.start(SETTINGS), lab.start(SETTINGS)
    assert first.lock is second.lock
    second.lock.release(force=True)


def test_read_only_folder_is_one_line(monkeypatch, room):
    def refuse(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(LabError, match=r"runs.demo cannot be written \(Permission denied\)"):
        lab.start(SETTINGS)


def test_config_that_cannot_be_compared_is_one_line():
    with pytest.raises(LabError, match="small: its config holds what cannot be compared later"):
        small_training({"net": torch.nn.Linear(1, 1)}, 1)


def test_peak_memory_is_in_mib():
    assert 50 < machine.peak_memory() < 100_000
