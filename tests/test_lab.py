"""lab: settings, data, records, comparisons, and what a report shows of a run."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState

from nndl import lab as lab_module
from nndl import machine, records, settings

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
    """lab at work in an empty room, with no variable set; locks are given back at the end."""
    for name in ("NNDL_PROFILE", "NNDL_SET", "NNDL_DATA", "NNDL_DOWNLOAD", "NNDL_TRACK", "NNDL_RUN", "NNDL_STATE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(room)
    locks = []

    def take_lock(folder):
        locks.append(machine.take_lock(folder))
        return locks[-1]

    monkeypatch.setattr(lab_module, "take_lock", take_lock)
    AcceleratorState._reset_state(True)
    yield lab_module
    for lock in locks:
        lock.release(force=True)
    AcceleratorState._reset_state(True)


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def begun(lab, profile=None):
    """A run with its data noted."""
    run = lab.start(SETTINGS, profile)
    run.use_data("toy", "embedded", {"test": 3}, [np.arange(3)])
    return run


def finished(lab, profile="demo", value=1.5):
    """A run with one metric, finished."""
    run = begun(lab, profile)
    run.metric("m", lab.over_items([value, value]), "", "a metric", "toy", headline=True)
    run.save_arrays("curve", y=[1, 2])
    return run.finish()


# ---------------------------------------------------------------- settings

KNOWN = {
    "epochs": 2,
    "rate": 0.1,
    "name": "b",
    "flag": True,
    "seeds": (0,),
    "pairs": ((96, 0.5), (192, 0.5)),
    "layers": [1, 2],
    "nothing": None,
    "empty": (),
}


@pytest.mark.parametrize(
    "text, values",
    [
        ("", {}),
        ("epochs=3", {"epochs": 3}),
        (" epochs = 3 , rate=1e-3,", {"epochs": 3, "rate": 1e-3}),
        ("rate=1", {"rate": 1.0}),
        ("seeds=(0,1),epochs=4", {"seeds": (0, 1), "epochs": 4}),
        ("seeds=[0,1]", {"seeds": (0, 1)}),
        ("seeds=()", {"seeds": ()}),
        ("pairs=((96,1),(336,0.25)),epochs=4", {"pairs": ((96, 1.0), (336, 0.25)), "epochs": 4}),
        ("pairs=[[96, 1]]", {"pairs": ((96, 1.0),)}),
        ("layers=(3,)", {"layers": [3]}),
        ("name=big model", {"name": "big model"}),
        ("name=a,b,epochs=3", {"name": "a,b", "epochs": 3}),
        ("name='a,epochs=9',epochs=3", {"name": "a,epochs=9", "epochs": 3}),
        ("name=a=b", {"name": "a=b"}),
        ("name=a,", {"name": "a"}),
        ("name='a',", {"name": "a"}),
        ("pairs=((96,1),)", {"pairs": ((96, 1.0),)}),
        ("flag=False", {"flag": False}),
        ("nothing=3", {"nothing": 3}),
    ],
)
def test_good_settings(text, values):
    assert repr(settings.parse_settings(text, KNOWN)) == repr(values), "kinds count too: 1 is not 1.0"


@pytest.mark.parametrize(
    "text, words",
    [
        ("epoch=3", "unknown setting 'epoch'; known: epochs, rate"),
        ("epochs=3.5", "epochs=3.5 is not of type int; its default is 2"),
        ("epochs=True", "epochs=True is not of type int"),
        ("epochs=many", "epochs=many is not of type int"),
        ("epochs", "epochs= is not of type int"),
        ("epochs=3,epochs=4", "epochs is given twice"),
        ("flag=1", "flag=1 is not of type bool"),
        ("seeds=3", "seeds=3 is not of type tuple; its default is (0,)"),
        ("seeds=(3)", "seeds=(3) is not of type tuple"),
        ("seeds=(0,'a')", "seeds=(0,'a')"),
        ("pairs=(96,1)", "pairs=(96,1)"),
        ("rate=1e999", "rate=1e999 is not finite; its default is 0.1"),
        ("rate=nan", "rate=nan is not of type float"),
        ("pairs=((96,1e999),)", "pairs=((96,1e999),)"),
        ("seeds=(0,1", "a bracket or quote is not closed"),
        ("pairs=((96,),)", "pairs=((96,),)"),
        ("name='a',b", "unknown setting 'b'"),
        ("nothing={'a':1}", "is not a number, text, truth value, or tuple of these"),
        ("nothing=1e999", "is not finite"),
        ("empty=(1e999,)", "is not finite"),
        ("rate=1" + "0" * 400, "is too large"),
        ("name='a", "a bracket or quote is not closed"),
        ("rate=__import__('os').getpid()", "is not of type float"),
    ],
)
def test_bad_settings(text, words):
    with pytest.raises(records.LabError) as error:
        settings.parse_settings(text, KNOWN)
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
    run.metric("m", lab.over_items([1.5]), "", "m", "toy", headline=True)
    record = run.finish()
    assert record["overrides"] == {"epochs": 7, "name": "x"} and record["settings"]["epochs"] == 7


def test_full_with_a_gpu_is_not_reduced(lab, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        lab_module, "Run", lambda profile, reduced, cfg, overrides: (reduced, cfg["epochs"], cfg["rate"])
    )
    assert lab.start(SETTINGS, "full") == (False, 30, 0.2)


@pytest.mark.parametrize("profile", ["huge", "Demo", "full "])
def test_unknown_profile(lab, monkeypatch, profile):
    monkeypatch.setenv("NNDL_PROFILE", profile)
    with pytest.raises(records.LabError, match=f"NNDL_PROFILE={profile}: unknown profile; known: tiny, demo, full"):
        lab.start(SETTINGS)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU computes in bf16 itself")
@pytest.mark.parametrize("capability, told", [("AVX2", True), ("AVX512", False)])
def test_emulated_bf16_is_told(lab, monkeypatch, capsys, capability, told):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    lab.start({"precision": ("bf16", "bf16", "bf16")}, "tiny")
    assert ("only emulates bf16" in capsys.readouterr().out) == told


@pytest.mark.parametrize(
    "table, tracker, words",
    [
        ({"seed": (-1, 0, 0)}, None, "setting seed=-1: from 0"),
        ({"precision": ("foo", "no", "no")}, None, "setting precision=foo: known are no, fp8, fp16, bf16"),
        ({"seed": (0, 0, 0)}, "foo", "NNDL_TRACK=foo: known are .*tensorboard"),
    ],
)
def test_seed_precision_and_tracker_are_checked(monkeypatch, table, tracker, words):
    monkeypatch.delenv("NNDL_SET", raising=False)
    monkeypatch.setenv("NNDL_TRACK", tracker) if tracker else monkeypatch.delenv("NNDL_TRACK", raising=False)
    with pytest.raises(records.LabError, match=words):
        settings.choose(table, "tiny")


@pytest.mark.parametrize("values", ["abc", (1, 2), (1, 2, 3, 4, 5), 5, ({"a": 1}, 2, 3), (float("inf"), 1.0, 1.0)])
def test_table_that_cannot_be(lab, values):
    with pytest.raises(records.LabError, match="SETTINGS, width: "):
        lab.start({"width": values, "seed": (0, 0, 0)}, "tiny")


def test_settings_table_shows_all_profiles(lab):
    table = lab.settings_table(SETTINGS)
    assert list(table.loc["epochs"]) == [1, 2, 30, 3] and list(table.loc["rate"]) == [0.1, 0.1, 0.2, 0.2]


# ---------------------------------------------------------------- data


def test_missing_data_folder(lab, monkeypatch, tmp_path):
    monkeypatch.setenv("NNDL_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(records.LabError, match=r"NNDL_DATA=.*nowhere: no such folder"):
        lab.start(SETTINGS)


def test_full_without_data_stops(lab):
    with pytest.raises(records.LabError, match=r"full needs real data: no folder .*cifar10; set NNDL_DATA"):
        lab.start(SETTINGS, "full").find_data("cifar10")


def test_only_a_room_that_can_download_offers_it(lab, monkeypatch):
    run = lab.start(SETTINGS, "full")
    with pytest.raises(records.LabError, match="or NNDL_DOWNLOAD=1 to fetch it"):
        run.find_data("cifar10", can_download=True)
    with pytest.raises(records.LabError, match="README says where it comes from"):
        run.find_data("cifar10")
    monkeypatch.setenv("NNDL_DOWNLOAD", "1")
    run = lab.start(SETTINGS, "full")
    assert run.find_data("cifar10", can_download=True).name == "cifar10"
    with pytest.raises(records.LabError):
        run.find_data("cifar10")


def test_relative_data_folder_is_taken_from_where_the_person_stands(lab, monkeypatch, tmp_path):
    (tmp_path / "here" / "sets" / "cifar10").mkdir(parents=True)
    monkeypatch.setenv("PWD", str(tmp_path / "here"))  # a notebook's kernel works in the room, and inherits this
    monkeypatch.setenv("NNDL_DATA", "sets")
    assert lab.start(SETTINGS, "full").find_data("cifar10") == tmp_path / "here" / "sets" / "cifar10"


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


@pytest.mark.parametrize(
    "one, other",
    [
        ([np.zeros((2, 3))], [np.zeros((3, 2))]),
        ([np.zeros(2)], [np.zeros(2, dtype=np.int64)]),
        ([np.array([1, 2]), np.array([3])], [np.array([1]), np.array([2, 3])]),
    ],
    ids=["shape", "type", "cut"],
)
def test_fingerprint_tells_apart_what_has_the_same_bytes(lab, one, other):
    assert lab.fingerprint(*one) != lab.fingerprint(*other)


def test_fingerprint_of_objects_is_refused(lab):
    with pytest.raises(records.LabError, match="an array of objects"):
        lab.fingerprint(np.array(["a", None], dtype=object))


# ---------------------------------------------------------------- record


def test_record_is_written_and_read(lab, room):
    record = finished(lab)
    folder = room / "runs" / "demo"
    assert records.read_record(folder) == record and record["schema"] == 2
    assert list(np.load(folder / "curve.npz")["y"]) == [1, 2]
    read, place = lab.load_record()
    assert read["metrics"]["m"]["value"] == 1.5 and place == folder
    assert not list(room.rglob("*.part")) and not (room / "results").exists()


def kept(room, profile, record, value):
    """Put a record where the kept ones lie."""
    record = json.loads(json.dumps(record)) | {"profile": profile}
    record["metrics"]["m"] |= dict(value=value, low=value, high=value)
    folder = room / "results" / profile
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "record.json").write_text(json.dumps(record), encoding="utf-8")


def test_report_shows_the_own_run_else_the_kept_one(lab, room, monkeypatch):
    with pytest.raises(records.LabError, match=r"no record under CA0_room/runs or CA0_room/results: run code\.ipynb"):
        lab.load_record()
    record = finished(lab, "demo")
    for name in ("lock", "lock.txt", "record.json", "curve.npz"):
        (room / "runs" / "demo" / name).unlink(missing_ok=True)
    kept(room, "demo", record, 2.0)
    assert lab.load_record()[1] == room / "results" / "demo"
    kept(room, "full", record, 3.0)
    assert lab.load_record()[1] == room / "results" / "full"
    finished(lab, "demo")
    assert lab.load_record()[1] == room / "runs" / "demo"
    monkeypatch.setenv("NNDL_PROFILE", "full")
    assert lab.load_record()[1] == room / "runs" / "demo", "an own run of another profile comes before a kept one"
    monkeypatch.setenv("NNDL_PROFILE", "ful")
    with pytest.raises(records.LabError, match="NNDL_PROFILE=ful: unknown profile"):
        lab.load_record()
    monkeypatch.setenv("NNDL_PROFILE", "demo")
    monkeypatch.setenv("NNDL_RUN", "kept")
    assert lab.load_record()[1] == room / "results" / "full"
    monkeypatch.delenv("NNDL_RUN")
    monkeypatch.setenv("NNDL_PROFILE", "tiny")
    with pytest.raises(records.LabError, match="no tiny run"):
        lab.load_record()


def test_first_line_says_whose_run(lab, room):
    record = finished(lab, "demo")
    kept(room, "demo", record, 1.25)
    own = lab.show_run(*lab.load_record()).data
    assert own.startswith("**Your own run** (demo; cpu") and "toy (embedded)" in own
    assert "1.50" in own and "1.25" in own and "+0.25" in own, "own and kept figures, and their difference"
    (room / "runs" / "demo" / "record.json").unlink()
    assert lab.show_run(*lab.load_record()).data.startswith("**The kept run** (demo; cpu")
    finished(lab, "tiny")
    tiny = records.read_record(room / "runs" / "tiny")
    assert "figures mean nothing" in lab.show_run(tiny, room / "runs" / "tiny").data


def test_ledger_is_shown_for_the_profile(lab, room):
    record = finished(lab)
    assert lab.show_looks(record).data == "No earlier demo run was kept."
    entry = {"profile": "demo", "replaced": "2026-01-02", "why": "other seeds", "metrics": record["metrics"]}
    (room / "results").mkdir()
    path = room / "results" / "history.json"
    path.write_text(json.dumps([entry, entry | {"profile": "full", "why": "never"}]), encoding="utf-8")
    shown = lab.show_looks(record).data
    assert "2026-01-02" in shown and "other seeds" in shown and "a metric" in shown and "never" not in shown


@pytest.mark.parametrize("text", ["", '{"half": ', "[]", '{"schema": 2}'])
def test_broken_record_is_one_line(lab, room, text):
    finished(lab)
    (room / "runs" / "demo" / "record.json").write_text(text, encoding="utf-8")
    with pytest.raises(records.LabError, match=r"demo.record\.json is damaged \(.+\): delete it, or run") as error:
        lab.load_record()
    assert "\n" not in str(error.value)


def test_a_full_disk_leaves_the_old_record_whole(lab, room):
    finished(lab, value=1.5)
    folder = room / "runs" / "demo"
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    os.symlink("/dev/full", folder / "record.json.part")  # writing there fails as on a full disk
    with pytest.raises(records.LabError, match=r"could not be written \(No space left on device\); what was there"):
        finished(lab, value=2.5)
    after = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    for name in ("record.json", "curve.npz"):
        assert after[name] == before[name], f"{name} must stay, whole"
    assert not list(folder.glob("*.part"))


@pytest.mark.parametrize(
    "change",
    [
        dict(value=float("nan")),
        dict(low=float("nan")),
        dict(low=1.5),
        dict(high=0.5),
        dict(high=float("inf")),
        dict(n=0),
        dict(interval=""),
        dict(extra=1),
    ],
    ids=["nan", "nan-bound", "low-above", "high-below", "infinite", "no-items", "no-name", "unknown-key"],
)
def test_metric_refuses_what_is_no_result(lab, change):
    run = begun(lab)
    with pytest.raises(records.LabError):
        run.metric("m", dict(value=1.0, low=0.9, high=1.1, n=3, interval="x") | change, "", "m", "toy")
    assert run.metrics == {}


def test_metric_refuses_unknown_data(lab):
    run = lab.start(SETTINGS)
    with pytest.raises(records.LabError, match="data 'toy' was not announced"):
        run.metric("m", lab.over_items([1.0]), "", "m", "toy")


def test_data_note_is_checked_at_once(lab):
    with pytest.raises(records.LabError, match="synthetic"):
        lab.start(SETTINGS).use_data("toy", "synthetic", {"test": 3}, [])


def test_a_metric_with_a_target_is_a_headline(lab):
    run = begun(lab)
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


def test_tracking_has_a_folder_a_run_with_its_settings(lab, room, monkeypatch):
    monkeypatch.setenv("NNDL_TRACK", "tensorboard")
    run = begun(lab)
    run.metric("m", lab.over_items([1.5]), "", "m", "toy", headline=True)
    run.accelerator.log({"loss": 0.5}, step=1)
    run.finish()
    (folder,) = (room / "runs" / "demo" / "track").iterdir()
    written = "".join(path.read_text(encoding="utf-8") for path in folder.rglob("hparams.yml"))
    assert "epochs: '2'" in written and list(folder.rglob("events.out.*"))


def test_arrays_of_an_earlier_run_do_not_stay_beside_the_record(lab, room):
    finished(lab)
    run = begun(lab)
    run.metric("m", lab.over_items([1.5]), "", "m", "toy", headline=True)
    run.save_arrays("other", y=[3])
    run.finish()
    assert [path.name for path in (room / "runs" / "demo").glob("*.npz")] == ["other.npz"]


@pytest.mark.parametrize(
    "change",
    [
        {"finished": "2026-99-99T99:99:99+00:00"},
        {"overrides": {"epochs": 77}},
        {"seed": 99},
        {"profile": "full"},
        {"metrics": {"m": {"value": float("inf"), "high": float("inf")}}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_record_that_contradicts_itself_is_damaged(lab, room, change):
    finished(lab)
    path = room / "runs" / "demo" / "record.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    inner = change.get("metrics", {}).get("m")
    record = record | change if inner is None else record | {"metrics": {"m": record["metrics"]["m"] | inner}}
    path.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(records.LabError, match="damaged"):
        lab.load_record()


def test_broken_ledger_is_one_line(lab, room):
    record = finished(lab)
    (room / "results").mkdir()
    (room / "results" / "history.json").write_text("[{", encoding="utf-8")
    with pytest.raises(records.LabError, match=r"history\.json is damaged"):
        lab.show_looks(record)


def test_own_and_kept_figures_keep_their_digits_and_units(lab, room):
    record = finished(lab, value=0.0041)
    kept(room, "demo", record, 0.0039)
    assert "+0.00020" in lab.show_run(*lab.load_record()).data
    record["metrics"]["m"]["unit"] = "%"
    kept(room, "demo", record, 94.0)
    assert "not to be compared" in lab.show_run(*lab.load_record()).data


# ---------------------------------------------------------------- comparisons


def test_compare_notes_values_and_paired_differences(lab):
    run, rng = begun(lab), np.random.default_rng(0)
    truth = rng.random((3, 200))
    scores = {"ResNet-18, wide": 100.0 * (truth < 0.9), "ViT": 100.0 * (truth < 0.7)}
    table = run.compare(
        "acc", scores, "%", "toy", "test accuracy", reference="ViT", targets={"ViT": {"value": 60, "source": "x"}}
    )
    assert set(run.metrics) == {"acc_resnet18_wide", "acc_vit", "acc_vit_minus_resnet18_wide"}
    wide, vit, apart = (run.metrics[f"acc_{key}"] for key in ("resnet18_wide", "vit", "vit_minus_resnet18_wide"))
    assert wide["value"] == pytest.approx(scores["ResNet-18, wide"].mean()) and vit["target"]["value"] == 60
    assert apart["value"] == pytest.approx(vit["value"] - wide["value"]) and apart["high"] < 0
    assert (apart["unit"], wide["unit"], apart["label"]) == (
        "points",
        "%",
        "ViT minus ResNet-18, wide, test accuracy",
    )
    assert "3 seeds" in vit["interval"] and list(table.index) == ["ResNet-18, wide", "ViT"]


def test_compare_draws_the_units_that_are_named(lab):
    run, rng = begun(lab), np.random.default_rng(0)
    patients = np.repeat(np.arange(20), 10)
    scores = {"a": rng.normal(0, 1, 20)[patients], "b": rng.normal(0, 1, 20)[patients]}  # ten equal films a patient
    run.compare("films", scores, "", "toy", "score")
    run.compare("patients", scores, "", "toy", "score", groups=patients, of="patients")
    by_film, by_patient = (run.metrics[f"{name}_a"] for name in ("films", "patients"))
    assert (by_film["n"], by_patient["n"]) == (200, 20) and by_patient["interval"] == "bootstrap, patients"
    ratio = (by_patient["high"] - by_patient["low"]) / (by_film["high"] - by_film["low"])
    assert 2.4 < ratio < 4, "ten films of one patient are one observation: the interval is about sqrt(10) wider"


def test_compare_counts_no_seeds_where_they_change_nothing(lab):
    run, rng = begun(lab), np.random.default_rng(0)
    table, net = np.tile(rng.normal(size=8), (3, 1)), rng.normal(size=(3, 8))
    run.compare("score", {"table": table, "net": net}, "", "toy", "score", reference="net")
    alone = lab.mean_of(table[0])
    assert {key: run.metrics["score_table"][key] for key in alone} == alone
    assert "3 seeds" in run.metrics["score_net"]["interval"]
    assert "3 seeds" in run.metrics["score_net_minus_table"]["interval"], "the difference has the seeds of the network"


def test_compare_series_says_what_it_covers(lab):
    run, rng = begun(lab), np.random.default_rng(0)
    scores = {"a": rng.normal(0, 1, 300), "b": rng.normal(0, 1, 300)}
    run.compare("mse", scores, "", "toy", "MSE", reference="a", series=True, of="hours")
    assert 0.9 < run.metrics["mse_a"]["coverage"] <= 1 and "hours" in run.metrics["mse_a_minus_b"]["interval"]


@pytest.mark.parametrize(
    "scores, options, words",
    [
        ({"lr=1": np.ones(5), "lr=-1": np.zeros(5)}, {}, "two methods"),
        ({"β": np.ones(5)}, {}, "without letters and digits"),
        ({"ViT": np.ones(5)}, {"targets": {"Vit": {"value": 1, "source": "x"}}}, "'Vit' is none of 'ViT'"),
        ({"ViT": np.ones(5)}, {"reference": "CNN"}, "'CNN' is none of 'ViT'"),
        ({"a": np.ones(40), "b": np.ones(5)}, {}, "the same items"),
        ({"a": np.ones((3, 5)), "b": np.ones(5)}, {"reference": "a"}, "the same items"),
        ({"a": np.ones(5), "b": np.full(5, 100.0)}, {}, "counts 1 for one method and 100 for another"),
    ],
)
def test_compare_refuses_and_notes_nothing(lab, scores, options, words):
    run = begun(lab)
    with pytest.raises(records.LabError, match=words):
        run.compare("acc", scores, "%", "toy", "accuracy", **options)
    assert run.metrics == {}


def test_one_name_is_one_result(lab):
    run = begun(lab)
    for _ in range(2):  # a cell that is run again
        run.metric("m", lab.over_items([1.5]), "", "first", "toy")
    with pytest.raises(records.LabError, match="metric m is noted already, for 'first', now for 'second'"):
        run.metric("m", lab.over_items([2.5]), "", "second", "toy")


def test_a_method_that_is_never_right_has_a_width(lab):
    run = begun(lab)
    run.compare("acc", {"a": np.zeros(50), "b": np.full(50, 100.0)}, "%", "toy", "accuracy", reference="b")
    assert run.metrics["acc_a"]["high"] == pytest.approx(7.13, abs=0.01)
    assert run.metrics["acc_b"]["low"] == pytest.approx(92.87, abs=0.01)
    assert run.metrics["acc_b_minus_a"]["low"] < 99


@pytest.mark.parametrize("name, key", [("ResNet-18", "resnet18"), ("patch MLP", "patch_mlp"), ("β = 1.5", "1_5")])
def test_slug(name, key):
    assert lab_module.slug(name) == key
