"""Data and drawing for the chest X-ray assignment: no model, no loss, no method.

A film is a grey picture. `prepare` (defined in the notebook) turns what was read, float32 of any size in [0, 1], into
uint8 of one square size; parts hold films as (N, S, S), labels int64 (N,), and a patient and a source for each film.
"""

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from PIL import Image, ImageOps
from scipy.special import expit
from sklearn.model_selection import StratifiedGroupKFold

ENDINGS = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
CLASSES = ["COVID19", "NORMAL", "PNEUMONIA"]
COVID, NORMAL, PNEUMONIA = range(3)


class DataError(Exception):
    """Data that cannot be used; the message names the file, class or patient, and what to do."""


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


def decode(data, where):
    """A picture's bytes as grey float32 (H, W) in [0, 1]; colour and alpha are taken off, 16 bits are kept.

    Transparent places count as black. Raises DataError naming `where` when it is no readable picture.
    """
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
        image = ImageOps.exif_transpose(image)
        if image.mode == "F":
            raise ValueError("floating point pixels")
        if image.mode.startswith("I"):
            return np.asarray(image).astype(np.float32).clip(0, 65535) / 65535
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
        return np.asarray(image.convert("L")).astype(np.float32) / 255
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{where}: not a readable picture ({error})") from None


def patient_of(path):
    """The patient in a film's name (Kermany's person12_..., patient12...), else the film stands for itself."""
    found = re.search(r"(person|patient)[-_ ]?(\d+)", path.stem, re.IGNORECASE)
    return f"{found[1].lower()}{found[2]}" if found else "/".join([*path.parts[-3:-1], path.stem])


def _manifest(folder):
    """{file: row} of manifest.csv, or {} where there is none; DataError when a column is missing."""
    path = folder / "manifest.csv"
    if not path.exists():
        return {}
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    missing = {"file", "patient", "source_repo"} - set(rows[0] if rows else ())
    if missing:
        raise DataError(f"{path}: no column {', '.join(sorted(missing))}")
    return {row["file"]: row for row in rows}


def _class_names(folder):
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; it should hold a folder for each class")
    return {path.name for path in folder.iterdir() if path.is_dir()}


def _list_part(root, folder, names, manifest):
    """Rows (path, label, patient, source) of the films in folder/<class>/; DataError for a class without films."""
    rows = []
    for name in names:
        files = sorted(path for path in (folder / name).glob("*") if path.suffix.lower() in ENDINGS)
        if not files:
            raise DataError(f"{folder / name}: no picture in this class folder")
        for path in files:
            row = manifest.get(path.relative_to(root).as_posix())
            if manifest and row is None:
                raise DataError(f"{path}: manifest.csv does not list it")
            patient = row["patient"] if row else patient_of(path)
            rows.append((path, CLASSES.index(name), patient, row["source_repo"] if row else "unknown"))
    return rows


def _read_part(rows, prepare, limit):
    """Decode listed films, with a limit the first of each class: a Part."""
    if limit:
        seen, kept = dict.fromkeys(range(len(CLASSES)), 0), []
        for row in rows:
            seen[row[1]] += 1
            if seen[row[1]] <= max(2, limit // len(CLASSES)):
                kept.append(row)
        rows = kept
    films = [decode(path.read_bytes(), path) for path, *_ in rows]
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
    data = folder / "Data"
    names = {part: _class_names(data / part) for part in ("train", "test")}
    for part, found in names.items():
        if set(CLASSES) - found:
            raise DataError(f"{data / part}: class {', '.join(sorted(set(CLASSES) - found))} is missing")
        if found - set(CLASSES):
            raise DataError(f"{data / part}: unknown class {', '.join(sorted(found - set(CLASSES)))}")
    manifest = _manifest(folder)
    train, test = (_list_part(folder, data / part, CLASSES, manifest) for part in ("train", "test"))
    both = {row[2] for row in train} & {row[2] for row in test}
    if both:
        raise DataError(f"{data}: patient {min(both)} has films in both train and test ({len(both)} such patients)")
    adults = folder / "adult_check"
    check = _list_part(folder, adults, CLASSES[1:], manifest) if adults.is_dir() else None
    train, test = (_read_part(rows, prepare, limit) for rows in (train, test))
    check = _read_part(check, prepare, limit) if check else test.take(slice(0))
    note = "patients from manifest.csv" if manifest else "patients from file names: copies of one patient may be missed"
    return Films("covid-cxr", "real", *split_by_patient(train, 0.2, seed), test, check, note)


def load_imagenet_val(folder, size=224):
    """ImageNet validation pictures listed in labels.csv: RGB (N, size, size, 3) uint8 by centre crop, labels (N,)."""
    folder, images, labels = Path(folder), [], []
    if not (folder / "labels.csv").exists():
        raise DataError(f"{folder / 'labels.csv'} is missing")
    with open(folder / "labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        found = list((folder / "images").glob(Path(row["image"]).stem + ".*"))
        if not found:
            raise DataError(f"{folder / 'images'}: no file for {row['image']}, which labels.csv lists")
        image = np.asarray(Image.open(found[0]).convert("RGB"))
        top, left = (image.shape[0] - size) // 2, (image.shape[1] - size) // 2
        images.append(image[top : top + size, left : left + size])
        labels.append(int(row["label"]))
    return np.stack(images), np.array(labels)


# ---------------------------------------------------------------- drawing

BLUE, ORANGE, GREEN, PINK, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#777777"
COLOURS = (BLUE, ORANGE, GREEN, PINK, "#E69F00", "#56B4E9", GREY)


def style():
    """One look for all figures; the palette survives colour blindness."""
    sns.set_theme(style="ticks", palette="colorblind", rc={"figure.dpi": 80, "axes.titlesize": 11, "font.size": 10})


def _finish(figure):
    sns.despine()
    figure.tight_layout()
    plt.show()


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
    _finish(figure)


def show_curves(curves, title, ylabel, xlabel="epoch"):
    """Lines over epochs: {name: values}."""
    figure, axis = plt.subplots(figsize=(6.5, 3.2))
    for (name, values), marker, colour in zip(curves.items(), "os^Dvx+", COLOURS):
        axis.plot(np.arange(1, len(values) + 1), values, marker=marker, markersize=4, color=colour, label=name)
    axis.set(title=title, xlabel=xlabel, ylabel=ylabel)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend(frameon=False, fontsize=9)
    _finish(figure)


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
    _finish(figure)


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
    _finish(figure)
