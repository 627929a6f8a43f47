"""lab.py: settings, data, record, intervals; and a training that is killed goes on as if nothing had happened."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from accelerate.state import AcceleratorState

HERE = Path(__file__).parent
SETTINGS = {
    "epochs": (1, 2, 30, 3),
    "rate": (0.1, 0.1, 0.2),
    "name": ("a", "b", "c"),
    "flag": (False, True, True),
    "seeds": ((0,), (0,), (0, 1)),
    "seed": (5, 5, 5),
}


@pytest.fixture
def lab(room, monkeypatch):
    """A fresh lab.py in an empty room, with no variable set."""
    for name in ("NNDL_PROFILE", "NNDL_SET", "NNDL_DATA", "NNDL_DOWNLOAD", "NNDL_TRACK"):
        monkeypatch.delenv(name, raising=False)
    spec = importlib.util.spec_from_file_location("lab_under_test", room / "lab.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    AcceleratorState._reset_state(True)
    yield module
    AcceleratorState._reset_state(True)


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def finished(lab, profile="demo", value=1.0):
    """A run with one metric, finished."""
    run = lab.start(SETTINGS, profile)
    run.use_data("toy", "embedded", {"test": 3}, [np.arange(3)])
    run.metric("m", lab.over_items([value, value]), "", "a metric", "toy", headline=True)
    run.save_arrays("curve", y=[1, 2])
    return run.finish()


# ---------------------------------------------------------------- settings

KNOWN = {"epochs": 2, "rate": 0.1, "name": "b", "flag": True, "seeds": (0,)}


@pytest.mark.parametrize(
    "text, values",
    [
        ("", {}),
        ("epochs=3", {"epochs": 3}),
        (" epochs = 3 , rate=1e-3,", {"epochs": 3, "rate": 1e-3}),
        ("rate=1", {"rate": 1.0}),
        ("seeds=(0,1),epochs=4", {"seeds": (0, 1), "epochs": 4}),
        ("name=big model", {"name": "big model"}),
        ("flag=False", {"flag": False}),
    ],
)
def test_good_settings(lab, text, values):
    read = lab.parse_settings(text, KNOWN)
    assert read == values
    assert all(type(read[name]) is type(KNOWN[name]) for name in read)


@pytest.mark.parametrize(
    "text, words",
    [
        ("epoch=3", "unknown setting 'epoch'; known: epochs, rate"),
        ("epochs=3.5", "epochs=3.5 is not of type int"),
        ("epochs=True", "epochs=True is not of type int"),
        ("epochs=many", "epochs=many is not of type int"),
        ("epochs", "epochs= is not of type int"),
        ("flag=1", "flag=1 is not of type bool"),
        ("seeds=3", "seeds=3 is not of type tuple"),
        ("rate=__import__('os').getpid()", "is not of type float"),
    ],
)
def test_bad_settings(lab, text, words):
    with pytest.raises(lab.LabError) as error:
        lab.parse_settings(text, KNOWN)
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("profile, epochs", [("tiny", 1), ("demo", 2), ("full", 3)])
def test_profile_chooses_the_column(lab, no_gpu, monkeypatch, profile, epochs):
    monkeypatch.setenv("NNDL_PROFILE", profile)
    run = lab.start(SETTINGS)
    assert (run.profile, run.cfg.epochs, run.reduced) == (profile, epochs, profile == "full")


def test_demo_is_the_default_and_overrides_count(lab, monkeypatch):
    monkeypatch.setenv("NNDL_SET", "epochs=7,name=x")
    run = lab.start(SETTINGS)
    assert (run.profile, run.cfg.epochs, run.cfg.name, run.cfg.rate) == ("demo", 7, "x", 0.1)
    run.use_data("toy", "embedded", {"test": 3}, [np.arange(3)])
    record = run.finish()
    assert record["overrides"] == {"epochs": 7, "name": "x"} and record["settings"]["epochs"] == 7


def test_full_with_a_gpu_is_not_reduced(lab, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(lab, "Run", lambda profile, reduced, cfg, overrides: (reduced, cfg["epochs"], cfg["rate"]))
    assert lab.start(SETTINGS, "full") == (False, 30, 0.2)


@pytest.mark.parametrize("profile", ["huge", "Demo", "full "])
def test_unknown_profile(lab, monkeypatch, profile):
    monkeypatch.setenv("NNDL_PROFILE", profile)
    with pytest.raises(lab.LabError, match=f"NNDL_PROFILE={profile}: unknown profile; known: tiny, demo, full"):
        lab.start(SETTINGS)


def test_settings_table_shows_all_profiles(lab):
    table = lab.settings_table(SETTINGS)
    assert list(table.loc["epochs"]) == [1, 2, 30, 3] and list(table.loc["rate"]) == [0.1, 0.1, 0.2, 0.2]


# ---------------------------------------------------------------- data


def test_missing_data_folder(lab, monkeypatch, tmp_path):
    monkeypatch.setenv("NNDL_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(lab.LabError, match=r"NNDL_DATA=.*nowhere: no such folder"):
        lab.start(SETTINGS)


def test_full_without_data_stops(lab):
    with pytest.raises(lab.LabError, match=r"full needs real data: no folder .*cifar10; set NNDL_DATA"):
        lab.start(SETTINGS, "full").find_data("cifar10")


def test_full_may_download(lab, monkeypatch):
    monkeypatch.setenv("NNDL_DOWNLOAD", "1")
    assert lab.start(SETTINGS, "full").find_data("cifar10").name == "cifar10"


@pytest.mark.parametrize("profile, found", [("tiny", True), ("demo", False), ("full", True)])
def test_who_takes_real_data(lab, monkeypatch, tmp_path, profile, found):
    (tmp_path / "data" / "cifar10").mkdir(parents=True)
    monkeypatch.setenv("NNDL_DATA", str(tmp_path / "data"))
    run = lab.start(SETTINGS, profile)
    assert run.find_data("cifar10") == (tmp_path / "data" / "cifar10" if found else None)


def test_data_lie_beside_the_room_by_default(lab, room):
    (room.parent / "data" / "cifar10").mkdir(parents=True)
    assert lab.start(SETTINGS, "tiny").find_data("cifar10") == room.parent / "data" / "cifar10"


def test_tiny_falls_back_and_demo_needs_nothing(lab):
    assert lab.start(SETTINGS, "tiny").find_data("cifar10") is None
    assert lab.start(SETTINGS, "demo").find_data("cifar10") is None


def test_fingerprint(lab):
    x = np.arange(6.0).reshape(2, 3)
    assert lab.fingerprint(x) == lab.fingerprint(x.copy()) == lab.fingerprint(np.asfortranarray(x))
    assert len({lab.fingerprint(x), lab.fingerprint(x + 1e-9), lab.fingerprint(x.astype(np.float32))}) == 3


# ---------------------------------------------------------------- record


def test_record_is_written_and_read(lab, room):
    record = finished(lab)
    folder = room / "results" / "demo"
    assert json.loads((folder / "record.json").read_text(encoding="utf-8")) == json.loads(json.dumps(record))
    assert list(np.load(folder / "curve.npz")["y"]) == [1, 2]
    read, place = lab.load_record()
    assert read["metrics"]["m"]["value"] == 1.0 and place == folder
    assert sorted(path.name for path in folder.iterdir()) == ["curve.npz", "record.json"]


def test_record_fits_the_schema(lab):
    from test_structure import assert_record

    record = json.loads(json.dumps(finished(lab)))
    assert_record(record | {"assignment": "CA0_room"}, "CA0_room", "demo")


def test_report_reads_full_then_demo_and_tiny_only_its_own(lab, monkeypatch):
    with pytest.raises(lab.LabError, match=r"no record under CA0_room/results: run code\.ipynb first"):
        lab.load_record()
    finished(lab, "demo")
    assert lab.load_record()[0]["profile"] == "demo"
    finished(lab, "full")
    assert lab.load_record()[0]["profile"] == "full"
    monkeypatch.setenv("NNDL_PROFILE", "tiny")
    with pytest.raises(lab.LabError):
        lab.load_record()


def test_a_run_that_dies_leaves_the_old_record(lab, room, monkeypatch):
    finished(lab, value=1.0)
    before = (room / "results" / "demo" / "record.json").read_bytes()

    def fails(self, *args, **kwargs):
        with open(self, "w", encoding="utf-8") as file:
            file.write('{"half": ')
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_text", fails)
    with pytest.raises(OSError):
        finished(lab, value=2.0)
    assert (room / "results" / "demo" / "record.json").read_bytes() == before


@pytest.mark.parametrize(
    "change",
    [dict(value=float("nan")), dict(low=float("nan")), dict(low=1.5), dict(high=0.5)],
    ids=["nan", "nan-bound", "low-above", "high-below"],
)
def test_metric_refuses_what_is_no_result(lab, change):
    run = lab.start(SETTINGS)
    run.use_data("toy", "embedded", {"test": 3}, [np.arange(3)])
    with pytest.raises(lab.LabError, match="metric m"):
        run.metric("m", dict(value=1.0, low=0.9, high=1.1, n=3, interval="x") | change, "", "m", "toy")
    assert run.metrics == {}


def test_metric_refuses_unknown_data(lab):
    run = lab.start(SETTINGS)
    with pytest.raises(lab.LabError, match="data 'toy' was not announced"):
        run.metric("m", lab.over_items([1.0]), "", "m", "toy")


def test_a_metric_with_a_target_is_a_headline(lab):
    run = lab.start(SETTINGS)
    run.use_data("toy", "embedded", {"test": 3}, [np.arange(3)])
    run.metric("plain", lab.over_items([1.0]), "", "m", "toy")
    run.metric("aimed", lab.over_items([1.0]), "", "m", "toy", target={"value": 2, "source": "the assignment"})
    assert [metric["headline"] for metric in run.metrics.values()] == [False, True]


def test_stages_add_up(lab):
    run = lab.start(SETTINGS)
    for _ in range(2):
        with run.stage("train"):
            pass
    assert list(run.seconds) == ["train"] and run.seconds["train"] > 0


def test_seed_is_set_at_the_start(lab):
    first = (lab.start(SETTINGS), torch.rand(3), np.random.rand(3))
    second = (lab.start(SETTINGS), torch.rand(3), np.random.rand(3))
    assert torch.equal(first[1], second[1]) and np.array_equal(first[2], second[2])


# ---------------------------------------------------------------- intervals and sentences


def test_over_items_has_the_width_of_the_normal_interval(lab):
    values = np.random.default_rng(0).normal(5, 2, 2000)
    got = lab.over_items(values)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert got["value"] == pytest.approx(values.mean()) and got["n"] == 2000
    assert got["low"] == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert got["high"] == pytest.approx(values.mean() + half, abs=0.15 * half)
    narrow = lab.over_items(values, level=0.5)
    assert got["low"] < narrow["low"] < narrow["high"] < got["high"]
    assert lab.over_items(values) == got


@pytest.mark.parametrize("values", [[1.0], [0.5, 0.5, 0.5], [True, True]])
def test_over_items_without_spread(lab, values):
    got = lab.over_items(values)
    assert got["low"] == got["value"] == got["high"] == float(values[0]) and got["n"] == len(values)


def test_over_seeds_is_the_t_interval(lab):
    values = [0.90, 0.93, 0.95, 0.91]
    got = lab.over_seeds(values)
    low, high = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (got["value"], got["low"], got["high"]) == pytest.approx((np.mean(values), low, high))
    # by hand: t(0.975, 1) = 12.7062, standard error of 0 and 2 is 1
    assert lab.over_seeds([0.0, 2.0])["high"] == pytest.approx(1 + 12.7062, abs=1e-4)
    assert np.isinf(lab.over_seeds([1.0])["high"])


@pytest.mark.parametrize(
    "low, high, words",
    [
        (0.1, 0.3, "better than"),
        (-0.3, -0.1, "worse than"),
        (-0.1, 0.3, "not distinguishable from"),
        (0.0, 0.3, "not distinguishable from"),
        (-0.3, 0.0, "not distinguishable from"),
    ],
)
def test_verdict(lab, low, high, words):
    assert lab.verdict(dict(low=low, high=high)) == words
    assert lab.verdict(dict(low=low, high=high), "up", "down", "even") in ("up", "down", "even")


def test_text(lab):
    assert lab.text(dict(value=94.12, low=93.6, high=94.64, unit="%")) == "94.1 % [93.6, 94.6]"
    assert lab.text(dict(value=0.5, low=0.25, high=0.75, unit="nats"), 2) == "0.50 nats [0.25, 0.75]"


# ---------------------------------------------------------------- resume


def train(folder, **environment):
    """Start toy_training.py in a folder; returns the finished process."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("NNDL_")}
    variables |= {"NNDL_PROFILE": "demo", "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"} | environment
    command = [sys.executable, "toy_training.py"]
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, encoding="utf-8")


def training_room(folder, room):
    shutil.copytree(room, folder)
    shutil.copy(HERE / "toy_training.py", folder)
    return folder


def metrics(folder):
    return json.loads((folder / "results" / "demo" / "record.json").read_text(encoding="utf-8"))["metrics"]


def test_killed_training_ends_as_if_it_had_not_been(room, tmp_path):
    whole = training_room(tmp_path / "whole", room)
    assert train(whole).returncode == 0

    broken = training_room(tmp_path / "broken", room)
    state = broken / "results" / "demo" / "state" / "toy"
    # in the middle of an epoch
    assert train(broken, KILL_AT="2:3").returncode == -9
    assert [path.name for path in state.iterdir()] == ["epoch-0002"]
    assert not (broken / "results" / "demo" / "record.json").exists()
    # while a state is being written
    second = train(broken, KILL_IN_SAVE="4")
    assert (second.returncode, second.stdout) == (-9, "done before: 2\n")
    assert sorted(path.name for path in state.iterdir()) == ["epoch-0003", "epoch-0004.part"]
    third = train(broken)
    assert (third.returncode, third.stdout) == (0, "done before: 3\n"), third.stderr
    assert metrics(broken) == metrics(whole)
    assert not state.exists(), "a finished run leaves no state behind"


def small_training(lab, config, epochs):
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


def test_state_of_the_same_config_is_used(lab):
    small_training(lab, {"width": 8}, 2)
    assert small_training(lab, {"width": 8}, 3) == (2, 3.0, [0.0, 1.0, 2.0])


def test_state_of_another_config_is_not_used(lab):
    small_training(lab, {"width": 8}, 2)
    assert small_training(lab, {"width": 16}, 1) == (0, 1.0, [0.0])


def test_only_the_last_whole_state_is_kept(lab, room):
    small_training(lab, {}, 3)
    state = room / "results" / "demo" / "state" / "small"
    assert [path.name for path in state.iterdir()] == ["epoch-0003"]
    shutil.copytree(state / "epoch-0003", state / "epoch-0004.part")  # as a run leaves it that dies while it saves
    (state / "epoch-0004.part" / "extra.pt").unlink()
    assert small_training(lab, {}, 4)[0] == 3
    assert [path.name for path in state.iterdir()] == ["epoch-0004"]
