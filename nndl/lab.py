"""How a notebook is run: profile and settings, seed and device, resume, the run record.

The same file lies in all twelve folders (`make sync` copies it). It reads these variables:

NNDL_PROFILE   tiny | demo (default) | full
NNDL_SET       single settings, e.g. NNDL_SET="epochs=3,seeds=(0,1)"
NNDL_DATA      folder of the real data sets, one sub-folder each (default: data/ beside this folder)
NNDL_DOWNLOAD  1: loaders may download what is missing
NNDL_TRACK     tensorboard, wandb, ...: also log curves there (through accelerate)
"""

import ast
import hashlib
import json
import os
import platform
import re
import resource
import shutil
import time
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import scipy.stats
import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, set_seed

HERE = Path.cwd()
PROFILES = ("tiny", "demo", "full")
RECORDED = ("torch", "torchvision", "timm", "accelerate", "numpy", "scikit-learn")


class LabError(Exception):
    """A setting, file or record that cannot be used; the message says which, and what to do."""


# ---------------------------------------------------------------- settings


def parse_settings(text, known):
    """Read "epochs=3,seeds=(0,1)" into values of the types that `known` has; LabError if one does not fit."""
    values = {}
    for item in re.split(r",(?![^(]*\))", text):
        if not item.strip():
            continue
        name, _, raw = (part.strip() for part in item.partition("="))
        if name not in known:
            raise LabError(f"NNDL_SET: unknown setting {name!r}; known: {', '.join(known)}")
        kind = type(known[name])
        try:
            value = raw if kind is str else ast.literal_eval(raw)
        except (ValueError, SyntaxError):
            value = None
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise LabError(f"NNDL_SET: {name}={raw} is not of type {kind.__name__}, as in {name}={known[name]}")
        values[name] = value
    return values


def settings_table(settings):
    """The settings of all profiles as a table, one row each."""
    columns = ["tiny", "demo", "full", "full without a GPU (reduced)"]
    rows = {name: (*values, values[-1])[:4] for name, values in settings.items()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


# ---------------------------------------------------------------- a run


def start(settings, profile=None, overrides=None):
    """Begin a run of this folder's code notebook.

    settings: {name: (tiny, demo, full)} or {name: (tiny, demo, full, full without a GPU)}.
    profile, overrides: by default from NNDL_PROFILE and NNDL_SET.
    Two settings have a meaning here: `seed`, and `precision` (accelerate's mixed precision: "no", "bf16", ...).
    Raises LabError for an unknown profile or setting, a value of the wrong type, a missing data folder.
    """
    profile = profile or os.environ.get("NNDL_PROFILE", "demo")
    if profile not in PROFILES:
        raise LabError(f"NNDL_PROFILE={profile}: unknown profile; known: {', '.join(PROFILES)}")
    reduced = profile == "full" and not torch.cuda.is_available()
    column = 3 if reduced else PROFILES.index(profile)
    cfg = {name: (*values, values[-1])[column] for name, values in settings.items()}
    text = os.environ.get("NNDL_SET", "") if overrides is None else overrides
    overrides = parse_settings(text, cfg)
    return Run(profile, reduced, cfg | overrides, overrides)


class Run:
    """One run: `cfg` the settings, `accelerator` and `device`, the stages, and the record written at the end."""

    def __init__(self, profile, reduced, cfg, overrides):
        self.profile, self.reduced, self.overrides = profile, reduced, overrides
        self.cfg = SimpleNamespace(**cfg)
        self.seed = cfg.get("seed", 0)
        self.folder = HERE / "results" / profile
        self.data_root = data_root()
        self.download = os.environ.get("NNDL_DOWNLOAD") == "1"
        tracker = os.environ.get("NNDL_TRACK")
        self.accelerator = Accelerator(
            mixed_precision=cfg.get("precision", "no"),
            log_with=tracker,
            project_dir=HERE / "runs",
            # several processes share each batch, so that a recipe means the same on any number of them
            dataloader_config=DataLoaderConfiguration(split_batches=True),
        )
        self.device = self.accelerator.device
        if tracker:
            self.accelerator.init_trackers(HERE.name)
        set_seed(self.seed)
        self.seconds, self.data, self.metrics, self.arrays = {}, {}, {}, {}

    # -------- data

    def find_data(self, name, optional=False):
        """The folder of a real data set, or None where this profile takes embedded data.

        demo never looks; tiny takes real data when it is there; full raises LabError when it is missing and not
        optional. With NNDL_DOWNLOAD=1 full also gets the path of a folder that is still to be filled.
        """
        folder = self.data_root / name
        if self.profile == "demo":
            return None
        if folder.is_dir():
            return folder
        if self.profile == "full" and not optional:
            if self.download:
                return folder
            raise LabError(
                f"profile full needs real data: no folder {folder}; set NNDL_DATA, or NNDL_DOWNLOAD=1 to fetch it"
            )
        return None

    def use_data(self, name, source, counts, arrays, note=""):
        """Note in the record which data was used: source "real" or "embedded", counts by part, a fingerprint."""
        assert source in ("real", "embedded"), source
        self.data[name] = dict(source=source, counts=counts, fingerprint=fingerprint(*arrays), note=note)

    # -------- stages, resume

    @contextmanager
    def stage(self, name):
        """Time what happens inside, in seconds, under this name."""
        begin = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begin

    def checkpoint(self, name, config, **extra):
        """A training that can be interrupted: call after accelerator.prepare, loop from `.done`, call `.save(epoch)`.

        config: all that the training depends on, its data too; a state saved under another config is not used.
        extra: further state, each with state_dict/load_state_dict or a list that is filled in place.
        """
        return Checkpoint(self, name, config, extra)

    # -------- results

    def metric(self, name, estimate, unit, label, data, target=None, headline=False):
        """Note a result.

        estimate: dict(value, low, high, n, interval), as from `over_items` or `over_seeds`.
        target: dict(value, source), what the assignment asks for. headline: shown in the room's README.
        """
        entry = dict(estimate, unit=unit, label=label, data=data, headline=headline or target is not None)
        if data not in self.data:
            raise LabError(f"metric {name}: data {data!r} was not announced with use_data")
        if not -np.inf < entry["low"] <= entry["value"] <= entry["high"] < np.inf:
            raise LabError(f"metric {name}: value outside its interval, or not finite: {entry}")
        if target is not None:
            entry["target"] = target
        self.metrics[name] = entry

    def save_arrays(self, name, **arrays):
        """Keep small arrays for the report's plots; written with the record as <name>.npz."""
        self.arrays[name] = {key: np.asarray(value) for key, value in arrays.items()}

    def finish(self):
        """Write arrays and record.json, each atomically, then drop the resume state. Returns the record."""
        device = torch.cuda.get_device_name() if self.device.type == "cuda" else processor()
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        record = dict(
            schema=1,
            assignment=HERE.name,
            profile=self.profile,
            reduced=self.reduced,
            settings=vars(self.cfg),
            overrides=self.overrides,
            seed=self.seed,
            machine=dict(
                device=self.device.type,
                name=device,
                processes=self.accelerator.num_processes,
                threads=torch.get_num_threads(),
            ),
            versions={"python": platform.python_version()} | {name: installed(name) for name in RECORDED},
            data=self.data,
            seconds={name: round(value, 2) for name, value in self.seconds.items()},
            peak_memory_mb=round(memory),
            metrics=self.metrics,
        )
        if self.device.type == "cuda":
            record["peak_gpu_memory_mb"] = round(torch.cuda.max_memory_allocated() / 2**20)
        written = json.dumps(record, indent=1, allow_nan=False) + "\n"
        if self.accelerator.is_main_process:
            self.folder.mkdir(parents=True, exist_ok=True)
            for name, arrays in self.arrays.items():
                with replaced(self.folder / f"{name}.npz") as part, open(part, "wb") as file:
                    np.savez_compressed(file, **arrays)
            with replaced(self.folder / "record.json") as part:
                part.write_text(written)
            shutil.rmtree(self.folder / "state", ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()
        return record


class Checkpoint:
    """The saved state of one training, under results/<profile>/state/<name>/epoch-<k>/; see Run.checkpoint.

    accelerate's save_state is not atomic, so it writes to a ".part" folder that is renamed when it is complete:
    a folder without that ending is whole.
    """

    def __init__(self, run, name, config, extra):
        self.run, self.extra = run, extra
        self.folder = run.folder / "state" / re.sub(r"[^\w.]+", "-", name)
        self.config = json.dumps(config, sort_keys=True, default=str)
        self.done = 0
        saved = sorted(self.folder.glob("epoch-????"))
        if saved:
            # written by this class into this folder; plain tensors, lists and numbers only
            state = torch.load(saved[-1] / "extra.pt", weights_only=True, map_location=run.device)
            if state["config"] == self.config:
                run.accelerator.load_state(str(saved[-1]))
                for key, value in state["extra"].items():
                    if isinstance(extra[key], list):
                        extra[key][:] = value
                    else:
                        extra[key].load_state_dict(value)
                self.done = state["done"]

    def save(self, done):
        """Save the state after `done` epochs; the one before is removed when the new one is in place."""
        accelerator = self.run.accelerator
        final = self.folder / f"epoch-{done:04d}"
        part = final.with_suffix(".part")
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
            torch.save(dict(config=self.config, done=done, extra=extra), part / "extra.pt")
            if final.exists():
                shutil.rmtree(final)
            os.replace(part, final)
            for old in self.folder.glob("epoch-*"):
                if old != final:
                    shutil.rmtree(old)
        accelerator.wait_for_everyone()
        self.done = done


@contextmanager
def replaced(path):
    """Write to the path that is handed out; it takes the place of `path` only when the block ends well."""
    part = path.with_name(path.name + ".part")
    yield part
    os.replace(part, path)


def fingerprint(*arrays):
    """Sixteen hex digits of the SHA-256 of the arrays' bytes."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def data_root():
    """The folder of real data: NNDL_DATA (must exist when it is set), else data/ beside this folder."""
    named = os.environ.get("NNDL_DATA")
    root = Path(named) if named else HERE.parent / "data"
    if named and not root.is_dir():
        raise LabError(f"NNDL_DATA={named}: no such folder")
    return root


def installed(package):
    """The installed version of a package, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def processor():
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else []
    return names[0] if names else platform.processor() or platform.machine()


# ---------------------------------------------------------------- intervals and sentences


def over_items(values, level=0.95, seed=0):
    """Mean over test items with a percentile bootstrap interval; paired differences go in as differences."""
    values = np.asarray(values, dtype=float)
    mean = float(values.mean())
    low, high = mean, mean
    if np.ptp(values) > 0:
        result = scipy.stats.bootstrap(
            (values,), np.mean, n_resamples=2000, batch=100, confidence_level=level, method="percentile", rng=seed
        )
        low, high = map(float, result.confidence_interval)
    return dict(value=mean, low=min(low, mean), high=max(high, mean), n=len(values), interval="bootstrap, test items")


def over_seeds(values, level=0.95):
    """Mean over seeds with Student's t interval; of one seed no interval is known: low and high are infinite."""
    values = np.asarray(values, dtype=float)
    mean, n = float(values.mean()), len(values)
    half = float(scipy.stats.t.ppf((1 + level) / 2, n - 1) * scipy.stats.sem(values)) if n > 1 else float("inf")
    return dict(value=mean, low=mean - half, high=mean + half, n=n, interval="Student t, seeds")


def verdict(difference, better="better than", worse="worse than", same="not distinguishable from"):
    """The words that an interval of a difference allows: zero inside means that the two cannot be told apart."""
    if difference["low"] > 0:
        return better
    return worse if difference["high"] < 0 else same


def text(metric, digits=1):
    """A result with its interval, e.g. "94.1 % [93.6, 94.6]"."""
    value, low, high = (f"{metric[key]:.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} {metric['unit']} [{low}, {high}]"


# ---------------------------------------------------------------- reading a record


def load_record():
    """The record for the report, and its folder: NNDL_PROFILE=tiny reads that run; else full, else demo."""
    tiny = os.environ.get("NNDL_PROFILE") == "tiny"
    for profile in ("tiny",) if tiny else ("full", "demo"):
        folder = HERE / "results" / profile
        if (folder / "record.json").exists():
            return json.loads((folder / "record.json").read_text()), folder
    raise LabError(f"no record under {HERE.name}/results: run code.ipynb first")
