"""Data and drawing for the chest X-ray assignment: no model, no loss, no method.

A film is a grey picture. `prepare` (defined in the notebook) turns what was read, float32 of any size in [0, 1], into
uint8 of one square size; parts hold films as (N, S, S), labels int64 (N,), and a patient and a source for each film.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from scipy.special import expit
from sklearn.model_selection import StratifiedGroupKFold

from nndl import files
from nndl.figures import BLUE, COLOURS, GREEN, GREY, ORANGE, finish, style  # noqa: F401 (notebooks take them from here)
from nndl.files import DataError
from nndl.lab import LabError

CLASSES = ["COVID19", "NORMAL", "PNEUMONIA"]
COVID, NORMAL, PNEUMONIA = range(3)


class Part(NamedTuple):
    """Films of one part: images (N, S, S) uint8, labels (N,), and patient, source and width/height of each."""

    images: np.ndarray
    labels: np.ndarray
    patients: np.ndarray
    sources: np.ndarray
    aspect: np.ndarray

    def take(self, index):
        """The films of an index or a mask."""
        return Part(*(array[index] for array in self))


@dataclass
class Films:
    """A data set: its parts and where it comes from; `check` holds films of another source, none with COVID-19."""

    name: str
    source: str  # "real" or "embedded"
    train: Part
    val: Part
    test: Part
    check: Part
    note: str = ""

    def parts(self):
        """The four parts by name."""
        return {name: getattr(self, name) for name in ("train", "val", "test", "check")}

    def counts(self):
        """Number of films in each part."""
        return {name: len(part.labels) for name, part in self.parts().items()}

    def arrays(self):
        """Pictures and labels, for a fingerprint."""
        return [array for part in self.parts().values() for array in (part.images, part.labels)]


def split_by_patient(part, share, seed):
    """Two parts without a common patient, the second with about `share` of the films, classes kept in proportion."""
    folds = StratifiedGroupKFold(round(1 / share), shuffle=True, random_state=seed)
    first, second = next(folds.split(part.labels, part.labels, part.patients))
    return part.take(first), part.take(second)


# ---------------------------------------------------------------- embedded: synthetic radiographs


def _blob(yy, xx, y, x, height, width, angle=0.0, softness=0.08):
    """A soft ellipse, 1 inside and 0 outside."""
    c, s = np.cos(angle), np.sin(angle)
    u, v = (c * (xx - x) + s * (yy - y)) / width, (c * (yy - y) - s * (xx - x)) / height
    return expit((1 - u**2 - v**2) / softness)


def _noise(rng, size, scale):
    """Smooth noise with standard deviation 1."""
    noise = cv2.GaussianBlur(rng.standard_normal((size, size)), (0, 0), scale * size, borderType=cv2.BORDER_REFLECT)
    return (noise - noise.mean()) / noise.std()


def draw_film(rng, label, body, size):
    """One radiograph: (film, lungs, disease), each (size, size); film is float in [0, 1], lungs and disease are masks.

    body: the patient's own numbers (width of the chest, heart, ribs). Pose, exposure and disease are drawn anew.
    """
    yy, xx = np.mgrid[0:size, 0:size] / size - 0.5
    turn, shift_y, shift_x = rng.normal(0, 0.04), *rng.normal(0, 0.02, 2)
    yy, xx = yy - shift_y + turn * xx, xx - shift_x - turn * yy
    chest = _blob(yy, xx, 0.12, 0, 0.62, 0.47 * body["width"], softness=0.25)
    lungs = [_blob(yy, xx, -0.02, side * 0.19 * body["width"], 0.29, 0.135, side * 0.12) for side in (-1, 1)]
    heart = _blob(yy, xx, 0.14, 0.06, 0.15, body["heart"], 0.5)
    ribs = 0.5 + 0.5 * np.sin(2 * np.pi * (body["ribs"] * (yy + 0.5 * xx**2) + body["phase"]))
    air = np.maximum(*lungs) * (1 - 0.8 * heart)
    film = 0.15 + 0.6 * chest - 0.42 * air + 0.1 * ribs * chest + 0.25 * np.exp(-((xx / 0.05) ** 2)) * chest
    disease = np.zeros((size, size))
    if label == COVID:  # hazy, on both sides, near the chest wall
        for side in (-1, 1):
            for _ in range(rng.integers(2, 4)):
                y, x = rng.uniform(-0.1, 0.2), side * rng.uniform(0.23, 0.29) * body["width"]
                disease = np.maximum(disease, _blob(yy, xx, y, x, *rng.uniform(0.06, 0.1, 2), softness=0.5))
        disease = disease * (0.75 + 0.2 * _noise(rng, size, 0.02)).clip(0.2, 1)
    elif label == PNEUMONIA:  # dense, on one side
        y, x = rng.uniform(-0.05, 0.14), rng.choice((-1, 1)) * rng.uniform(0.14, 0.22)
        disease = _blob(yy, xx, y, x, rng.uniform(0.08, 0.12), rng.uniform(0.07, 0.1), softness=0.25)
    disease = disease * air
    film = film + rng.uniform(0.22, 0.32) * disease
    film = film + 0.03 * _noise(rng, size, 0.05) + 0.02 * rng.standard_normal((size, size))
    film = film.clip(0.01, 1.3) ** rng.uniform(0.75, 1.3) * rng.uniform(0.7, 1)
    return film.clip(0, 1).astype(np.float32), np.maximum(*lungs) > 0.5, disease > 0.3


def stamp(film):
    """Put a bright corner marker on a film, as an X-ray department does (in place)."""
    side = max(2, film.shape[0] // 10)
    film[2 : 2 + side, 2 : 2 + side] = 1.0
    return film


def make_films(n, seed, size, prepare, marked=(0.5, 0.5, 0.5), classes=CLASSES, source="embedded"):
    """n synthetic radiographs, classes evenly: (Part, lungs (n, size, size), disease (n, size, size)).

    marked: probability of a corner marker for each class of CLASSES. Some patients have several films.
    """
    rng = np.random.default_rng(seed)
    films, masks, labels, people = [], [], [], []
    for i in range(n):
        if i % 4 == 3 and i >= len(classes):
            people.append(people[i - len(classes)])  # a patient of the same class, filmed again
        else:
            body = dict(width=rng.uniform(0.9, 1.08), heart=rng.uniform(0.08, 0.13), ribs=rng.uniform(7, 10))
            people.append((f"{source}_{seed}_{i}", body | {"phase": rng.random()}))
        label = CLASSES.index(classes[i % len(classes)])
        film, lungs, disease = draw_film(rng, label, people[-1][1], size)
        films.append(prepare(stamp(film) if rng.random() < marked[label] else film))
        masks.append((lungs, disease))
        labels.append(label)
    patients = np.array([name for name, _ in people])
    sources = np.full(n, source)
    part = Part(np.stack(films), np.array(labels), patients, sources, np.ones(n))
    return part, *np.stack(masks, axis=1)


def load_embedded(n_train, n_test, size, prepare, shortcut, seed=0):
    """Synthetic radiographs as a data set; with `shortcut` nearly all COVID-19 films bear the marker, others hardly.

    Without it the marker is on half of all films. The check part has normal and pneumonia films of a second
    department that marks every film.
    """
    marked = (0.97, 0.03, 0.03) if shortcut else (0.5, 0.5, 0.5)
    train, val = split_by_patient(make_films(n_train, seed + 1, size, prepare, marked)[0], 0.2, seed)
    test = make_films(n_test, seed + 2, size, prepare, marked)[0]
    check = make_films(n_test // 2, seed + 3, size, prepare, (1, 1, 1), CLASSES[1:], "second department")[0]
    name = f"synthetic radiographs, planted shortcut {'on' if shortcut else 'off'}"
    return Films(name, "embedded", train, val, test, check, "drawn by make_films")


# ---------------------------------------------------------------- real films


BY_HAND = 'kagglehub.dataset_download("prashant268/chest-xray-covid19-pneumonia") brings it; nothing is fetched here'


def patient_of(path):
    """The patient in a film's name (Kermany's person12_..., patient12...), else the film stands for itself."""
    found = re.search(r"(person|patient)[-_ ]?(\d+)", path.stem, re.IGNORECASE)
    return f"{found[1].lower()}{found[2]}" if found else "/".join([*path.parts[-3:-1], path.stem])


def _manifest(folder):
    """{file: (patient, source)} of manifest.csv, or {} where there is none; file names with slashes."""
    path = folder / "manifest.csv"
    if not path.exists():
        return {}
    table = files.read_table(path, ("file", "patient", "source_repo"))
    columns = (table[name] for name in ("file", "patient", "source_repo"))
    found, spelt = {}, {}
    for line, (file, patient, source) in zip(table.index, zip(*columns, strict=True), strict=True):
        file = file.replace("\\", "/").removeprefix("./")
        if file in found:
            raise DataError(f"{path}, line {line}: {file} is listed twice; keep one")
        if not patient:
            raise DataError(f"{path}, line {line}: no patient; give a film of an unknown patient an id of its own")
        if spelt.setdefault(patient.casefold(), patient) != patient:
            both = f"{spelt[patient.casefold()]!r} and {patient!r}"
            raise DataError(f"{path}, line {line}: patients {both} differ in case alone; one or two? Name them apart")
        found[file] = patient, source
    return found


def _list_part(root, folder, names, manifest):
    """Rows (path, label, patient, source) of the films in folder/<class>/, and the paths of files that are no films."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; it should hold a folder for each class; {BY_HAND}")
    found, skipped = files.class_folders(folder)
    if set(names) - set(found):
        raise DataError(f"{folder}: class {', '.join(sorted(set(names) - set(found)))} is missing")
    if set(found) - set(names):
        raise DataError(f"{folder}: unknown class {', '.join(sorted(set(found) - set(names)))}")
    rows = []
    for name in names:
        films, others = files.list_pictures(folder / name)
        skipped += others
        if not films:
            raise DataError(f"{folder / name}: no picture in this class folder")
        for path in films:
            row = manifest.get(path.relative_to(root).as_posix())
            if manifest and row is None:
                raise DataError(f"{path}: manifest.csv does not list it")
            rows.append((path, CLASSES.index(name), *(row or (patient_of(path), "unknown"))))
    return rows, skipped


def _limited(rows, limit):
    """The first films of each class, a third of `limit` each; 0 or None: all."""
    seen, kept = dict.fromkeys(range(len(CLASSES)), 0), []
    for row in rows:
        seen[row[1]] += 1
        if not limit or seen[row[1]] <= max(2, limit // len(CLASSES)):
            kept.append(row)
    return kept


def _read_part(rows, prepare):
    """Decode listed films: a Part."""
    films = [files.decode_grey(files.read_bytes(path), path) for path, *_ in rows]
    labels, patients, sources = (np.array(column) for column in list(zip(*rows))[1:])
    aspect = np.array([film.shape[1] / film.shape[0] for film in films])
    return Part(np.stack([prepare(film) for film in films]), labels, patients, sources, aspect)


def load_films(folder, prepare, limit=None, seed=0):
    """The layout of Kaggle prashant268/chest-xray-covid19-pneumonia: Data/{train,test}/<class>/, any picture ending.

    Two more things are read where they are there: manifest.csv (file, patient, source_repo), and adult_check/
    {NORMAL,PNEUMONIA}/, films of another source. A fifth of the training films, by patient, becomes validation.
    Raises DataError naming the file, class or patient at fault, before any film is decoded where that is possible.
    """
    folder = Path(folder)
    data, adults = folder / "Data", folder / "adult_check"
    manifest, skipped = _manifest(folder), []
    listed = {"train": data / "train", "test": data / "test"} | ({"check": adults} if adults.is_dir() else {})
    for name, place in listed.items():
        rows, others = _list_part(folder, place, CLASSES[1:] if name == "check" else CLASSES, manifest)
        listed[name] = _limited(rows, limit)
        skipped += others
    skipped += [path for path in files.entries(data) if path.name not in ("train", "test")]
    train, test, check = (listed.get(name, []) for name in ("train", "test", "check"))
    both = {row[2] for row in train} & {row[2] for row in test}
    if both:
        raise DataError(f"{data}: patient {min(both)} has films in both train and test ({len(both)} such patients)")
    for k, name in enumerate(CLASSES):
        patients = len({row[2] for row in train if row[1] == k})
        if patients < 5:
            few = f"films of {patients} patients" + (f" among those that limit={limit} takes" if limit else "")
            raise DataError(f"{data / 'train' / name}: {few}; 5 are needed, for a fifth becomes validation")
    train, test = (_read_part(rows, prepare) for rows in (train, test))
    check = _read_part(check, prepare) if check else test.take(slice(0))
    note = "patients from manifest.csv" if manifest else "patients from file names: copies of one patient may be missed"
    note = "; ".join(filter(None, (note, files.skipped_note(skipped))))
    return Films("covid-cxr", "real", *split_by_patient(train, 0.2, seed), test, check, note)


def load_imagenet_val(folder, size=224):
    """ImageNet validation pictures listed in labels.csv: RGB (N, size, size, 3) uint8 by centre crop, labels (N,)."""
    return files.labelled_pictures(folder, size)


# ---------------------------------------------------------------- settings


def check_settings(cfg):
    """LabError naming a setting that cannot work, whatever the data."""
    counts = ("epochs", "head_epochs", "tune_epochs", "control_epochs", "width", "control_width", "patience", "copies")
    sizes = ("size", "cnn_size", "control_size", "control_cnn_size")  # the networks halve a picture five times
    least = dict.fromkeys((*counts, "resamples"), 1) | dict.fromkeys(sizes, 32)
    least |= {"batch_size": 2, "limit": 0, "imagenet": 0, "seed": 0}
    for name, lowest in least.items():
        if getattr(cfg, name) < lowest:
            raise LabError(f"setting {name}={getattr(cfg, name)}: at least {lowest} is needed")
    for name in ("lr", "tune_lr"):
        if not getattr(cfg, name) > 0:
            raise LabError(f"setting {name}={getattr(cfg, name)}: it must be above 0")
    for name in ("seeds", "control_seeds"):
        seeds = getattr(cfg, name)
        if not seeds or len(set(seeds)) < len(seeds):
            raise LabError(f"setting {name}={seeds}: at least one seed is needed, and none twice")
    if 0 < cfg.limit < 30:
        raise LabError(f"setting limit={cfg.limit}: 30 films at least, so that validation has every class; 0: all")
    if len(cfg.films) != 2 or cfg.films[0] < 36 or cfg.films[1] < 24:
        raise LabError(f"setting films={cfg.films}: at least 36 training films and 24 test films are needed")


def check_fit(cfg, data, apart=True):
    """LabError naming a setting, or DataError naming a class, that does not fit the films.

    apart: one control trains on the films without COVID-19 alone.
    """
    for name, part in (("training", data.train), ("validation", data.val), ("test", data.test)):
        missing = [CLASSES[k] for k in range(len(CLASSES)) if not (part.labels == k).any()]
        if missing:
            raise DataError(f"{data.name}: the {name} part has no film of class {', '.join(missing)}; more are needed")
    there = int((data.train.labels != COVID).sum() if apart else len(data.train.labels))
    if cfg.batch_size > there:
        raise LabError(f"setting batch_size={cfg.batch_size}: one training has only {there} films")


# ---------------------------------------------------------------- drawing


def show_films(images, titles, columns=6, title=None, maps=None):
    """A grid of films with a title each; `maps` (N, S, S) in [0, 1] are laid over them in colour."""
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(1.45 * columns, 1.75 * rows + 0.3), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for i, (axis, image, text) in enumerate(zip(axes.flat, images, titles, strict=False)):
        axis.imshow(image, cmap="gray", vmin=0, vmax=255)
        if maps is not None:
            axis.imshow(maps[i], cmap="inferno", vmin=0, vmax=1, alpha=0.45)
        axis.set_title(text, fontsize=9)
    if title:
        figure.suptitle(title)
    finish(figure)


def show_curves(curves, title, ylabel, xlabel="epoch"):
    """Lines over epochs: {name: values}."""
    figure, axis = plt.subplots(figsize=(6.5, 3.2))
    for (name, values), marker, colour in zip(curves.items(), "os^Dvx+", COLOURS):
        axis.plot(np.arange(1, len(values) + 1), values, marker=marker, markersize=4, color=colour, label=name)
    axis.set(title=title, xlabel=xlabel, ylabel=ylabel)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend(frameon=False, fontsize=9)
    finish(figure)


def show_bars(groups, title, xlabel, lines=()):
    """Results with intervals as points: {group: {label: dict(value, low, high)}}; lines: (place, label) verticals.

    Groups share the labels of the rows, each has a colour and sits a little lower than the one before.
    """
    rows = list(dict.fromkeys(label for results in groups.values() for label in results))
    height = (0.26 + 0.1 * len(groups)) * len(rows)  # of the axis, in inches
    figure, axis = plt.subplots(figsize=(7.8, 1.2 + height))
    for k, ((name, results), colour) in enumerate(zip(groups.items(), COLOURS)):
        for label, m in results.items():
            y = rows.index(label) + 0.25 * (k - (len(groups) - 1) / 2)
            axis.plot([m["low"], m["high"]], [y, y], color=colour, linewidth=2)
            axis.plot(m["value"], y, "os^D"[k % 4], color=colour, markersize=5)
        axis.plot([], [], "os^D"[k % 4], color=colour, label=name)
    for (place, label), dash in zip(lines, (":", "--")):
        axis.axvline(place, color=GREY, linestyle=dash, label=label)
    axis.set_yticks(range(len(rows)), rows)
    axis.set(title=title, xlabel=xlabel, ylim=(len(rows) - 0.4, -0.6))
    if len(groups) > 1 or lines:
        place = (0.35, -0.55 / height)
        axis.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=place, ncols=3)
    finish(figure)


def show_confusion(matrix, title):
    """A confusion matrix (rows: truth) with counts."""
    figure, axis = plt.subplots(figsize=(4.2, 3.2))
    sns.heatmap(matrix, annot=True, fmt="d", cmap="Blues", cbar=False, ax=axis)
    axis.set_xticklabels(CLASSES, rotation=0, fontsize=8)
    axis.set_yticklabels(CLASSES, rotation=90, va="center", fontsize=8)
    axis.set(title=title, xlabel="predicted", ylabel="true")
    figure.tight_layout()
    plt.show()


def show_lines(curves, title, xlabel, ylabel, diagonal=False):
    """Lines {name: (x, y)} or points with lines; `diagonal` adds the line y = x."""
    figure, axis = plt.subplots(figsize=(5.6, 3.8))
    if diagonal:
        axis.plot([0, 1], [0, 1], color=GREY, linestyle=":")
    for (name, (x, y)), colour, dash in zip(curves.items(), COLOURS, ("-", "--", "-.", ":", "-", "--", "-.")):
        axis.plot(x, y, dash, color=colour, label=name, marker="o" if len(x) < 15 else None, markersize=4)
    axis.set(title=title, xlabel=xlabel, ylabel=ylabel)
    axis.legend(frameon=False, fontsize=8)
    finish(figure)
