"""How a notebook is run: profile, settings, seed, data, stages, resume, and the record at the end.

code.ipynb:    run = lab.start(SETTINGS); ...; run.compare(...); run.finish()      writes runs/<profile>/record.json
report.ipynb:  record, folder = lab.load_record()

The working directory is the assignment's folder, as Jupyter has it for a notebook.
"""

import inspect
import json
import os
import platform
import re
import shutil
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, set_seed

from nndl import source
from nndl.exercises import points_table  # noqa: F401 (description.ipynb calls it)
from nndl.homework import homework, take_reference  # noqa: F401 (exercises.ipynb calls them)
from nndl.intervals import (  # noqa: F401 (rooms call them as lab.over_items, ...)
    difference,
    mean_of,
    over_blocks,
    over_draws,
    over_items,
    over_seeds,
    over_seeds_and_items,
    share_of,
    text,
    verdict,
    wilson,
)
from nndl.machine import (
    data_root,
    fingerprint,
    installed,
    missing_data,
    peak_memory,
    processor,
    reason,
    take_lock,
    writing,
)
from nndl.records import LabError, check_record, fits, load_record, show_looks, show_run  # noqa: F401
from nndl.settings import choose, settings_table  # noqa: F401

RECORDED = ("torch", "torchvision", "timm", "accelerate", "numpy", "scikit-learn")


# ---------------------------------------------------------------- a run


def fast_bf16():
    """False on x86 processors with AVX2 alone, which emulate bf16 (measured: about ten times slower than float32)."""
    return torch.backends.cpu.get_cpu_capability() != "AVX2"


def start(settings, profile=None, overrides=None):
    """Begin a run of the code notebook in the working directory.

    settings: {name: (tiny, demo, full)} or {name: (tiny, demo, full, full without a GPU)}; profile, overrides: by
    default from NNDL_PROFILE and NNDL_SET. Two settings have a meaning here: `seed`, and `precision` (accelerate's
    mixed precision: "no", "bf16", ...). Raises LabError for an unknown profile or setting, a value of the wrong type, a
    missing data folder, a folder that cannot be written, and where another run of this room and profile is going on.
    """
    return Run(*choose(settings, profile, overrides))


class Run:
    """One run: `cfg` the settings, `accelerator` and `device`, the stages, and the record written at the end."""

    def __init__(self, profile, reduced, cfg, overrides):
        self.profile, self.reduced, self.overrides = profile, reduced, overrides
        self.cfg, self.seed = SimpleNamespace(**cfg), cfg.get("seed", 0)
        self.room = Path.cwd()
        self.folder = self.room / "runs" / profile
        self.data_root = data_root()
        self.download = os.environ.get("NNDL_DOWNLOAD") == "1"
        tracker, begun = os.environ.get("NNDL_TRACK"), datetime.now(UTC)
        self.accelerator = Accelerator(
            mixed_precision=cfg.get("precision", "no"),
            log_with=tracker,
            project_dir=self.folder / "track" / f"{begun:%Y%m%d-%H%M%S}",  # one folder a run
            # several processes share each batch, so that a recipe means the same on any number of them
            dataloader_config=DataLoaderConfiguration(split_batches=True),
        )
        self.device = self.accelerator.device
        if self.accelerator.mixed_precision == "bf16" and self.device.type == "cpu" and not fast_bf16():
            print('this processor only emulates bf16, many times slower than float32: NNDL_SET="precision=no"')
        self.lock = take_lock(self.folder) if self.accelerator.is_main_process else None
        if tracker:
            self.accelerator.init_trackers(self.room.name, {name: str(value) for name, value in cfg.items()})
        set_seed(self.seed)
        self.seconds, self.earlier = {}, 0.0  # earlier: seconds of trainings that were taken up again
        self.states = []  # folders of the trainings of this run
        self.read = set()  # files of arrays that were computed once
        self.data, self.metrics, self.arrays = {}, {}, {}

    # -------- data

    def find_data(self, name, optional=False, can_download=False):
        """The folder of a real data set, or None where this profile takes embedded data.

        demo never looks; tiny takes real data when it is there; full raises LabError when it is missing and not
        optional. Where the room can download it, with NNDL_DOWNLOAD=1 full also gets a folder that is to be filled.
        """
        folder = self.data_root / name
        if self.profile == "demo":
            return None
        if folder.is_dir():
            return folder
        if self.profile == "full" and not optional:
            if can_download and self.download:
                return folder
            raise LabError(missing_data(folder, can_download))
        return None

    def use_data(self, name, source, counts, arrays, note=""):
        """Note in the record which data was used: source "real" or "embedded", counts by part, a fingerprint."""
        entry = dict(source=source, counts=counts, fingerprint=fingerprint(*arrays), note=note)
        fits(entry, "properties", "data", "additionalProperties")
        self.data[name] = entry

    # -------- stages, resume

    @contextmanager
    def stage(self, name):
        """Time what happens inside, in seconds, under this name; what a training took before it was interrupted too."""
        begin, earlier = time.perf_counter(), self.earlier
        yield
        took = time.perf_counter() - begin + self.earlier - earlier
        self.seconds[name] = self.seconds.get(name, 0.0) + took

    def identity(self, name, config, frame):
        """What tells one computation from another: name, config, precision, and the source that a frame reaches."""
        parts = [name, config, self.accelerator.mixed_precision, source.reached(frame)]
        try:
            return re.sub(r"[^\w.]+", "-", name), source.digest(parts)
        except TypeError as error:
            raise LabError(f"{name}: its config holds what cannot be compared later ({error})") from None

    def cached(self, name, config, make):
        """{name: array} as make() gives it, computed once: kept in runs/cache/ and read again by later runs.

        config and source count as in checkpoint: other weights, other data or edited code are computed anew. What the
        computation took is added to the stage in which it is read again. LabError for a file that is damaged or is not
        what its name says.
        """
        named, identity = self.identity(name, config, inspect.currentframe().f_back)
        file = self.room / "runs" / "cache" / f"{named}-{identity}.npz"
        if file.exists():
            try:
                with np.load(file, allow_pickle=False) as parts:
                    kept = dict(parts)
                if str(kept.pop("identity")) != identity:
                    raise ValueError("it was made by other weights, data or code")
                seconds = float(kept.pop("seconds"))
                self.earlier += seconds if file not in self.read else 0.0  # what is read twice took its time once
                self.read.add(file)
                return kept
            except Exception as error:  # whatever a damaged file makes numpy raise
                where = file.relative_to(self.room)
                raise LabError(f"{name}: {where} cannot be used ({reason(error)}); delete it and start again") from None
        begin = time.perf_counter()
        arrays = make()
        if self.accelerator.is_main_process:
            with writing(file.parent, [file.name]) as parts, open(parts[file.name], "wb") as out:
                np.savez(out, identity=identity, seconds=time.perf_counter() - begin, **arrays)
        self.read.add(file)
        return arrays

    def checkpoint(self, name, config, **extra):
        """A training that can be interrupted: call after accelerator.prepare, loop from `.done`, call `.save(epoch)`.

        config: what the training depends on and its code does not show: recipe, seed, fingerprint of its data. The
        source of the calling function, and of what it reaches in this room, counts without being named.
        extra: further state, each with state_dict/load_state_dict or a list that is filled in place.
        """
        named, identity = self.identity(name, config, inspect.currentframe().f_back)
        checkpoint = Checkpoint(self, name, f"{named}-{identity}", extra)
        self.states.append(checkpoint.folder)
        return checkpoint

    # -------- results

    def metric(self, name, estimate, unit, label, data, target=None, headline=False):
        """Note a result.

        estimate: dict(value, low, high, n, interval), as from nndl.intervals. target: dict(value, source), what the
        assignment asks for. headline: shown in the room's README.
        """
        entry = dict(estimate, unit=unit, label=label, data=data, headline=headline or target is not None)
        if target is not None:
            entry["target"] = target
        if data not in self.data:
            raise LabError(f"metric {name}: data {data!r} was not announced with use_data")
        if self.metrics.get(name, entry)["label"] != label:  # the same again is a cell that is run once more
            raise LabError(f"metric {name} is noted already, for {self.metrics[name]['label']!r}, now for {label!r}")
        if not -np.inf < entry["low"] <= entry["value"] <= entry["high"] < np.inf:
            raise LabError(f"metric {name}: value outside its interval, or no finite interval: {entry}")
        fits(entry, "properties", "metrics", "additionalProperties")
        self.metrics[name] = entry

    def compare(
        self, name, scores, unit, data, label, reference=None, groups=None, of="test items", series=False,
        targets=None, headline=False, classes=None,
    ):  # fmt: skip
        """Note all methods of a comparison at once: each one's mean, and what the reference has over it, paired.

        scores: {method: (N,) score of each test item, or (S, N) of S seeds}; right or wrong in % is 100 or 0.
        reference: the method whose paired difference to each other (reference minus other) is noted too.
        groups: (N,) the sampling unit of each item, which `of` names ("patients"); series: items follow in time, `of`
        is their step ("hours"). label: what is measured. targets: {method: dict(value, source)}.
        classes: (N,) the class of each item; means are then means over classes (macro recall).
        A method whose seeds all say the same has an interval over items alone.
        Names in the record: <name>_<method> and <name>_<reference>_minus_<method>. Returns a table, a row a method.
        """
        full, rows = self.one_scale(name, scores, reference, targets), {}
        for method, values in scores.items():
            key, target = f"{name}_{slug(method)}", (targets or {}).get(method)
            same = np.ndim(values) == 2 and all(np.array_equal(values[0], row) for row in values)  # a table, say
            estimate = mean_of(values[0] if same else values, groups, of, full, series, classes=classes)
            self.metric(key, estimate, unit, f"{method}, {label}", data, target, headline)
            rows[method] = {label: text(self.metrics[key], None)}
            if reference is not None and method != reference:
                key = f"{name}_{slug(reference)}_minus_{slug(method)}"
                apart = difference(scores[reference], values, groups, of, full, series, classes=classes)
                points = "points" if unit == "%" else unit
                self.metric(key, apart, points, f"{reference} minus {method}, {label}", data)
                rows[method][f"{reference} minus it"] = text(self.metrics[key], None)
        return pd.DataFrame.from_dict(rows, orient="index").fillna("")

    def one_scale(self, name, scores, reference, targets):
        """What a right answer counts in all scores (1 or 100), None where they are no right and wrong; or LabError."""
        strangers = {reference, *(targets or {})} - {None, *scores}
        if strangers:
            raise LabError(
                f"compare {name}: {', '.join(map(repr, strangers))} is none of {', '.join(map(repr, scores))}"
            )
        keys = {slug(method) for method in scores}
        if len(keys) < len(scores) or "" in keys:
            raise LabError(f"compare {name}: two methods, or one without letters and digits, get one name: {keys}")
        shapes = {np.shape(part) for part in scores.values()}
        if len({shape[-1:] for shape in shapes}) > 1 or (reference is not None and len(shapes) > 1):
            raise LabError(f"compare {name}: scores of shapes {shapes}: the same items (and seeds) for all")
        scales = {share_of(np.ravel(part)) for part in scores.values()} - {None}
        if len(scales) > 1:
            raise LabError(f"compare {name}: a right answer counts 1 for one method and 100 for another")
        return share_of(np.concatenate([np.ravel(part) for part in scores.values()]))

    def save_arrays(self, name, **arrays):
        """Keep small arrays for the report's plots; written with the record as <name>.npz."""
        self.arrays[name] = {key: np.asarray(value) for key, value in arrays.items()}

    def finish(self):
        """Write arrays and record.json, all or none, then drop the states of this run (NNDL_STATE=keep keeps them).

        States of other settings or other code, of runs that were interrupted, stay.
        """
        record = dict(
            schema=2,
            assignment=self.room.name,
            profile=self.profile,
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            reduced=self.reduced,
            settings=vars(self.cfg),
            overrides=self.overrides,
            seed=self.seed,
            machine=dict(
                device=self.device.type,
                name=torch.cuda.get_device_name() if self.device.type == "cuda" else processor(),
                processes=self.accelerator.num_processes,
                threads=torch.get_num_threads(),
            ),
            versions={"python": platform.python_version()} | {name: installed(name) for name in RECORDED},
            data=self.data,
            seconds={name: round(value, 2) for name, value in self.seconds.items()},
            peak_memory_mb=peak_memory(),
            metrics=self.metrics,
        )
        if self.device.type == "cuda":
            record["peak_gpu_memory_mb"] = round(torch.cuda.max_memory_allocated() / 2**20)
        record = json.loads(json.dumps(record, allow_nan=False))
        check_record(record)
        if self.accelerator.is_main_process:
            with writing(self.folder, [f"{name}.npz" for name in self.arrays] + ["record.json"]) as parts:
                for name, arrays in self.arrays.items():
                    with open(parts[f"{name}.npz"], "wb") as file:
                        np.savez_compressed(file, **arrays)
                written = json.dumps(record, indent=1) + "\n"
                parts["record.json"].write_text(written, encoding="utf-8", newline="\n")
            for old in self.folder.glob("*.npz"):
                if old.stem not in self.arrays:  # of an earlier run: not beside this record
                    old.unlink()
            if os.environ.get("NNDL_STATE") != "keep":
                for state in self.states:
                    shutil.rmtree(state, ignore_errors=True)
                with suppress(OSError):  # not there, or not empty
                    (self.folder / "state").rmdir()
            self.lock.release(force=True)
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()
        return record


class Checkpoint:
    """The saved state of one training, in runs/<profile>/state/<name>-<what it depends on>/epoch-<k>/.

    Another recipe, other data or edited code give another folder, so a state is never used for what it was not made by.
    accelerate's save_state is not atomic, so it writes to a ".part" folder that is renamed when it is complete.
    """

    def __init__(self, run, name, folder, extra):
        self.run, self.name, self.extra = run, name, extra
        self.folder = run.folder / "state" / folder
        self.done, self.spent, self.begin = 0, 0.0, time.perf_counter()
        saved = [path for path in self.folder.glob("epoch-*") if is_state(path)]
        if saved:
            self.load(max(saved, key=lambda path: int(path.name.removeprefix("epoch-"))))
        elif run.accelerator.is_main_process and any(
            is_state(path) for path in self.folder.parent.glob(f"{folder[:-12]}{'?' * 12}/epoch-*")
        ):
            print(f"{name}: begins anew; a saved state is there, but of other settings, data or code")

    def load(self, saved):
        accelerator = self.run.accelerator
        try:
            # written by this class into this folder; plain tensors, lists and numbers only
            state = torch.load(saved / "extra.pt", weights_only=True, map_location=self.run.device)
            if differ := sorted(self.extra.keys() ^ state["extra"].keys()):  # before anything is taken up
                raise ValueError(f"{', '.join(differ)}: not in both, the state and the call")
            accelerator.load_state(str(saved))
            for key, value in state["extra"].items():
                if isinstance(self.extra[key], list):
                    self.extra[key][:] = value
                else:
                    self.extra[key].load_state_dict(value)
        except Exception as error:  # whatever a damaged file makes torch raise
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            where = saved.relative_to(self.run.room)
            raise LabError(
                f"{self.name}: the saved state {where} is damaged or of another network ({first}); "
                f"delete that folder and start again"
            ) from None
        self.done, self.spent = state["done"], state["seconds"]
        if self.folder not in self.run.read:  # a cell that is run once more reads the same training again
            self.run.earlier += self.spent
        self.run.read.add(self.folder)
        if accelerator.is_main_process:
            print(f"{self.name}: goes on from epoch {self.done}")

    def save(self, done):
        """Save the state after `done` epochs; the one before is removed when the new one is in place."""
        accelerator, final = self.run.accelerator, self.folder / f"epoch-{done:04d}"
        part = final.with_suffix(".part")
        try:
            if accelerator.is_main_process:
                shutil.rmtree(part, ignore_errors=True)
                part.mkdir(parents=True)
            accelerator.wait_for_everyone()
            accelerator.save_state(str(part))
            accelerator.wait_for_everyone()  # each process writes its own part; only then may the folder be renamed
            if accelerator.is_main_process:
                extra = {  # lists by way of JSON: NumPy's numbers could not be loaded again
                    name: json.loads(json.dumps(value)) if isinstance(value, list) else value.state_dict()
                    for name, value in self.extra.items()
                }
                seconds = self.spent + time.perf_counter() - self.begin
                torch.save(dict(done=done, seconds=seconds, extra=extra), part / "extra.pt")
                shutil.rmtree(final, ignore_errors=True)
                os.replace(part, final)
                for old in self.folder.glob("epoch-*"):
                    if old != final and is_state(old, r"(\.part)?"):  # not what somebody else put there
                        shutil.rmtree(old)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
            shutil.rmtree(part, ignore_errors=True)
            raise LabError(
                f"{self.name}: the state after epoch {done} could not be saved ({reason(error)}); "
                f"started again, the run goes on from epoch {self.done}"
            ) from None
        accelerator.wait_for_everyone()
        self.run.read.add(self.folder)
        self.done = done


def is_state(path, ending=""):
    """Whether a path is a folder that `Checkpoint.save` wrote; copies and archives beside it are none."""
    return bool(re.fullmatch(rf"epoch-\d{{4,}}{ending}", path.name)) and path.is_dir()


def slug(name):
    """A method's name as it stands in the record: "ResNet-18, wide" -> "resnet18_wide"."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower().replace("-", "")).strip("_")
