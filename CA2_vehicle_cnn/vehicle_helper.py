"""Data and drawing for the vehicle assignment: no model, no loss, no method.

A picture is uint8 (S, S, 3). Parts hold pictures (N, S, S, 3), labels int64 (N,), and for each picture its group: the
car model, where that is known. Pictures of one group look alike, so a fair test has none of the training groups.
"""

import colorsys
import hashlib
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import cv2
import matplotlib.pyplot as plt
import numpy as np

from nndl import files
from nndl.figures import (  # noqa: F401 (notebooks take them from here)
    BLUE,
    COLOURS,
    GREY,
    ORANGE,
    finish,
    show_confusion,
    show_lines,
    show_pictures,
    show_points,
    show_scatter,
    style,
)
from nndl.files import DataError
from nndl.records import LabError


class Part(NamedTuple):
    """Pictures of one part: images (N, S, S, 3) uint8, labels (N,), group of each (a name)."""

    images: np.ndarray
    labels: np.ndarray
    groups: np.ndarray

    def take(self, index):
        """The pictures of an index or a mask."""
        return Part(*(array[index] for array in self))


@dataclass
class Vehicles:
    """A data set: its classes, its two parts, and where it comes from."""

    name: str
    source: str  # "real" or "embedded"
    classes: list
    train: Part
    test: Part
    note: str = ""

    def counts(self):
        """Number of pictures in each part."""
        return {"train": len(self.train.labels), "test": len(self.test.labels)}

    def together(self):
        """All pictures in a row, those for training first: a Part, and which are for training, (N,) bool."""
        part = Part(*(np.concatenate(pair) for pair in zip(self.train, self.test, strict=True)))
        return part, np.arange(len(part.labels)) < len(self.train.labels)


# ---------------------------------------------------------------- embedded: drawn vehicles

# Side views in a box 2 wide and 1 high, wheels at the bottom; (x, y) in percent with y downwards, nose to the right.
BODIES = {
    "sedan": [(3, 72), (5, 45), (40, 40), (62, 16), (120, 15), (150, 42), (190, 50), (197, 72)],
    "hatchback": [(12, 74), (14, 42), (32, 14), (110, 12), (142, 42), (184, 50), (190, 74)],
    "SUV": [(8, 72), (8, 36), (20, 4), (122, 3), (145, 32), (188, 38), (194, 72)],
    "pickup": [(2, 70), (2, 40), (84, 40), (88, 10), (132, 9), (152, 38), (192, 42), (197, 70)],
    "van": [(6, 74), (6, 6), (14, 1), (142, 1), (178, 36), (192, 46), (194, 74)],
    "bus": [(0, 78), (0, 2), (5, -4), (192, -4), (198, 4), (200, 78)],
    "truck": [(0, 66), (0, -10), (134, -10), (134, 62), (140, 62), (142, 6), (180, 6), (195, 36), (197, 66)],
    "motorcycle": [(46, 50), (70, 38), (98, 42), (120, 30), (134, 20), (142, 28), (130, 42), (122, 64), (80, 68)],
}
GLASS = {
    "sedan": [[(50, 40), (66, 22), (92, 21), (92, 40)], [(97, 40), (97, 21), (117, 21), (136, 41)]],
    "hatchback": [[(34, 40), (40, 20), (74, 18), (74, 40)], [(79, 40), (79, 18), (106, 18), (127, 40)]],
    "SUV": [[(20, 30), (28, 10), (66, 9), (66, 30)], [(71, 30), (71, 9), (117, 9), (133, 30)]],
    "pickup": [[(94, 36), (95, 16), (127, 15), (142, 36)]],
    "van": [[(106, 34), (106, 8), (136, 8), (162, 34)]],
    "bus": [[(8 + x, 30), (8 + x, 6), (32 + x, 6), (32 + x, 30)] for x in range(0, 180, 30)],
    "truck": [[(152, 36), (152, 14), (176, 14), (186, 36)]],
    "motorcycle": [],
}
WHEELS = {  # radius, axles
    "sedan": (16, (42, 156)),
    "hatchback": (16, (44, 150)),
    "SUV": (19, (42, 154)),
    "pickup": (18, (40, 158)),
    "van": (16, (42, 156)),
    "bus": (15, (42, 150)),
    "truck": (17, (26, 62, 168)),
    "motorcycle": (24, (50, 146)),
}
CLASSES = list(BODIES)
CANVAS = 4  # drawn so many times larger, then reduced: smooth edges


def draw_model(rng, kind):
    """The numbers of one model of a kind: its own proportions and details, the same in all its pictures."""
    body = np.array(BODIES[kind] if kind in BODIES else INVENTED[kind][0])
    body = body + rng.normal(0, 1.8, body.shape)
    return dict(kind=kind, body=body, stretch=rng.normal(1, 0.06), height=rng.normal(1, 0.06),
                wheel=rng.normal(1, 0.08), stripe=rng.random() < 0.3, rim=rng.random())  # fmt: skip


def background(rng, size):
    """A road with something behind it: (size, size, 3) float."""
    horizon = rng.uniform(0.35, 0.6)
    rows = np.linspace(0, 1, size)[:, None, None]
    sky, ground = (np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0, 0.35), rng.uniform(*v))) * 255
                   for v in ((0.5, 1), (0.25, 0.65)))  # fmt: skip
    picture = np.where(rows < horizon, sky * (1 - 0.3 * rows), ground * (0.8 + 0.4 * rows)) * np.ones((1, size, 1))
    for _ in range(rng.integers(1, 4)):  # houses, trees, posts
        x, w, h = rng.uniform(0, 1), rng.uniform(0.03, 0.3), rng.uniform(0.1, 0.5)
        colour = np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0, 0.6), rng.uniform(0.2, 0.9))) * 255
        top, bottom = ((horizon - h) * size, (horizon + rng.uniform(0, 0.05)) * size)
        cv2.rectangle(picture, (int(x * size), int(top)), (int((x + w) * size), int(bottom)), colour.tolist(), -1)
    return picture


def draw_vehicle(rng, model, size):
    """One picture of a model: viewpoint, place, size, colour and light are drawn anew. (size, size, 3) uint8."""
    full = CANVAS * size
    picture = background(rng, full)
    scale = rng.uniform(0.36, 0.46) * full
    turn, shear, near = rng.normal(0, 0.04), rng.normal(0, 0.08), rng.normal(0, 0.08)
    squeeze = rng.uniform(0.7, 1.0)  # seen at an angle
    centre = np.array([rng.uniform(0.42, 0.58), rng.uniform(0.5, 0.66)]) * full
    mirror = rng.choice((-1, 1))

    def place(points):
        x, y = (np.asarray(points, dtype=float) / 100 - (1, 0.5)).T
        x, y = x * model["stretch"] * squeeze, y * model["height"]
        zoom = 1 / (1 - near * x)  # the nearer end is larger
        x, y = x * zoom, y * zoom + shear * x
        x, y = np.cos(turn) * x - np.sin(turn) * y, np.sin(turn) * x + np.cos(turn) * y
        return np.stack([mirror * x, y], axis=1) * scale + centre

    def fill(points, colour):
        cv2.fillPoly(picture, [place(points).round().astype(np.int32)], [float(c) for c in colour])

    paint = np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0, 0.9), rng.uniform(0.25, 1))) * 255
    dark = np.full(3, rng.uniform(15, 45))
    kind = model["kind"]
    windows, (radius, axles) = INVENTED[kind][1:] if kind in INVENTED else (GLASS[kind], WHEELS[kind])
    fill([(10, 86), (195, 86), (200, 97), (0, 97)], 0.5 * dark)  # shadow
    if kind == "motorcycle":
        fill([(50, 74), (90, 50), (130, 36), (146, 72), (138, 74), (124, 50), (60, 78)], dark)
    fill(model["body"], paint)
    for window in windows:
        fill(window, dark + 40)
    if model["stripe"] and kind != "motorcycle":
        fill([(10, 52), (185, 54), (185, 58), (10, 56)], 255 - paint)
    angle = np.linspace(0, 2 * np.pi, 24)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    for axle in axles:
        for r, colour in ((1.0, dark), (0.3 + 0.3 * model["rim"], dark + 110)):
            fill(np.array([axle, 78]) + r * radius * model["wheel"] * circle, colour)
    picture = picture * rng.uniform(0.55, 1.1) + rng.normal(0, 12, 3)
    picture = cv2.GaussianBlur(picture, (0, 0), CANVAS * rng.uniform(0.3, 0.9))
    picture = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)
    return (picture + rng.normal(0, 6, picture.shape)).clip(0, 255).astype(np.uint8)


def make_vehicles(per_class, models, seed, size, kinds=CLASSES):
    """`per_class` pictures of each kind, spread over so many models of it, in mixed order: a Part."""
    rng = np.random.default_rng(seed)
    images, labels, groups = [], [], []
    for label, kind in enumerate(kinds):
        own = [draw_model(rng, kind) for _ in range(models)]
        for i in range(per_class):
            images.append(draw_vehicle(rng, own[i % models], size))
            labels.append(label)
            groups.append(f"{kind} {seed}-{i % models}")
    order = rng.permutation(len(labels))
    return Part(np.stack(images), np.array(labels), np.array(groups)).take(order)


def load_embedded(per_class, test_per_class, size, seed=0):
    """Drawn vehicles: training and test pictures of different models, as a data set."""
    train = make_vehicles(per_class, max(2, per_class // 4), seed + 1, size)
    test = make_vehicles(test_per_class, max(2, test_per_class // 4), seed + 2, size)
    return Vehicles("drawn vehicles", "embedded", CLASSES, train, test, "drawn by make_vehicles; other models in test")


# What the source network of the embedded data is trained on: silhouettes on wheels that nobody has built.


def invent_kind(rng):
    """A silhouette in the box of BODIES with windows and wheels drawn at random: (body, windows, (radius, axles))."""
    n = rng.integers(5, 9)
    x = np.sort(rng.uniform(5, 195, n))
    y = rng.uniform(-8, 50, n)
    body = [(x[0], rng.uniform(66, 78)), *zip(x, y), (x[-1], rng.uniform(66, 78))]
    left = rng.uniform(20, 120)
    widths = rng.uniform(20, 60, rng.integers(0, 3))
    windows = [[(left, 44), (left, 20), (left + width, 20), (left + width, 44)] for width in widths]
    axles = np.sort(rng.uniform(20, 180, rng.integers(1, 4)))
    return body, windows, (rng.uniform(12, 26), tuple(axles))


INVENTED = {f"invented {k}": invent_kind(np.random.default_rng(100 + k)) for k in range(16)}


def make_things(n, seed, size):
    """Pictures for pretraining on embedded data: images (n, size, size, 3) uint8, labels (n,) of INVENTED kinds."""
    rng, kinds = np.random.default_rng(seed), list(INVENTED)
    labels = np.arange(n) % len(kinds)
    return np.stack([draw_vehicle(rng, draw_model(rng, kinds[k]), size) for k in labels]), labels


# ---------------------------------------------------------------- real pictures


BY_HAND = (
    'kagglehub.dataset_download("jessicali9530/stanford-cars-dataset") brings Stanford Cars, '
    "Zenodo record 6634554 the small pictures of a road; nothing is fetched here"
)


def _models(folder):
    """{file as train/class/name: model} of manifest.csv, or {} where there is none or it names no models."""
    found = [path for path in sorted(folder.iterdir()) if path.name.casefold() == "manifest.csv"]
    if not found:
        return {}
    if len(found) > 1:
        raise DataError(f"{found[0]}: {found[1].name} lies beside it; keep one")
    path, table = found[0], files.read_table(found[0])
    table.columns = [name.casefold() for name in table.columns]
    if not table.columns.is_unique:
        raise DataError(f"{path}: two columns differ by capital letters alone; keep one")
    if "file" not in table:
        raise DataError(f"{path}: no column 'file'; it should have file and model")
    if "model" not in table:
        return {}
    found = {}
    for line, (file, model) in zip(table.index, zip(table["file"], table["model"], strict=True), strict=True):
        file = file.replace("\\", "/").removeprefix("./")
        if file in found:
            raise DataError(f"{path}, line {line}: {file} is listed twice; keep one")
        if not model:
            raise DataError(f"{path}, line {line}: no model; give a picture of an unknown model a name of its own")
        found[file] = model
    return found


def _parts(folder):
    """The parts that a folder comes in: those of train and test that hold folders (a class may be called train)."""

    def holds_folders(path):
        return path.is_dir() and any(entry.is_dir() and not files.is_system(entry) for entry in path.iterdir())

    names = {path.name for path in folder.iterdir() if holds_folders(path)}
    for name in names - {"train", "test"}:
        if name.casefold() in ("train", "test"):
            raise DataError(f"{folder / name}: rename it, {name.casefold()} in small letters")
    if not names and (folder / "train").is_dir() and (folder / "test").is_dir():
        raise DataError(f"{folder / 'train'}: no class folders; it should hold a folder for each class")
    return [name for name in ("train", "test") if name in names]


def _listed(root, folder, classes, models, limit):
    """Rows (path, label, group) of folder/<class>/, at most `limit` a class, and the paths of what is no picture."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; it should hold a folder for each class; {BY_HAND}")
    found, skipped = files.class_folders(folder)
    if set(classes) != set(found):
        missing, unknown = sorted(set(classes) - set(found)), sorted(set(found) - set(classes))
        what = f"class {', '.join(missing)} is missing" if missing else f"unknown class {', '.join(unknown)}"
        raise DataError(f"{folder}: {what}")
    rows = []
    for label, name in enumerate(classes):
        pictures, others = files.list_pictures(folder / name)
        skipped += others
        if not pictures:
            raise DataError(f"{folder / name}: no picture in this class folder")
        for path in pictures[: limit or None]:
            file = path.relative_to(root).as_posix()
            if models and file not in models:
                raise DataError(f"{path}: manifest.csv does not list it")
            rows.append((path, label, models.get(file, file)))
    return rows, skipped


def _read(rows, size, known):
    """Decode listed pictures, squeezed to a square: a Part.

    known: {what tells a picture: (path, label)} of those read before; DataError where one stands in two classes.
    """
    pictures = []
    for path, label, _ in rows:
        picture = files.decode_rgb(files.read_bytes(path), path)
        mark = picture.shape, hashlib.sha256(np.ascontiguousarray(picture)).digest()
        other, other_label = known.setdefault(mark, (path, label))
        if label != other_label:
            raise DataError(f"{path}: the same picture stands in another class, {other}; keep one")
        height, width = picture.shape[:2]  # means where it shrinks, between neighbours where it grows
        picture = cv2.resize(picture, (min(width, size), min(height, size)), interpolation=cv2.INTER_AREA)
        pictures.append(cv2.resize(picture, (size, size), interpolation=cv2.INTER_LINEAR))
    labels, groups = (np.array(column) for column in list(zip(*rows))[1:])
    return Part(np.stack(pictures), labels, groups)


def load_vehicles(folder, size, name, limit=0):
    """{train,test}/<class>/ with any picture ending; or <class>/ alone, then all are in the training part, to be split.

    manifest.csv beside them (file, model), where it is there, gives the car model of each picture; else each picture is
    a group of its own. The classes are the folders of the training part. Raises DataError naming the file or class at
    fault, before a picture is decoded where that is possible.
    """
    folder = Path(folder)
    split = _parts(folder) if folder.is_dir() else []
    if len(split) == 1:
        missing = "test" if split == ["train"] else "train"
        raise DataError(
            f"{folder / missing}: no such folder; it should hold a folder for each class, as {split[0]} does; {BY_HAND}"
        )
    first = folder / "train" if split else folder
    if not first.is_dir():
        raise DataError(f"{first}: no such folder; it should hold a folder for each class; {BY_HAND}")
    classes = files.class_folders(first)[0]
    if len(classes) < 2:
        raise DataError(f"{first}: {len(classes)} class folders; two are needed at least")
    models = _models(folder)
    train, skipped = _listed(folder, first, classes, models, limit)
    others = [path for path in folder.iterdir() if split and path.is_dir() and path.name not in split]
    skipped += [path for path in others if not _parts(path)]  # what has parts is a set of its own
    test, strays = _listed(folder, folder / "test", classes, models, limit) if split else ([], [])
    note = "car models from manifest.csv" if models else "no car models known: each picture is a group of its own"
    note = "; ".join(filter(None, (note, files.skipped_note(skipped + strays))))
    known = {}
    train = _read(train, size, known)
    return Vehicles(name, "real", classes, train, _read(test, size, known) if test else train.take(slice(0, 0)), note)


# ---------------------------------------------------------------- pictures to numbers and back


def shrink(images, rows, columns):
    """Pictures (N, H, W) or (N, H, W, 3) as means over `rows` x `columns` shares of equal size: float32."""
    return np.stack([cv2.resize(np.float32(image), (columns, rows), interpolation=cv2.INTER_AREA) for image in images])


def colour_histograms(images, bins=4):
    """Joint RGB histogram of each picture: (N, S, S, 3) uint8 -> (N, bins**3), rows sum to 1."""
    index = (images // (256 // bins)).astype(np.int64) @ np.array([bins * bins, bins, 1])
    return np.stack([np.bincount(part.ravel(), minlength=bins**3) / part.size for part in index])


def cropped(image, rng, smallest, light):
    """A random part of a picture, of at least this share of its area, brought to the same size, in other light."""
    size = len(image)
    share = rng.uniform(smallest, 1)
    stretch = np.sqrt(share) ** rng.uniform(-1, 1)  # so that neither side is longer than the picture's
    w, h = (max(1, round(size * np.sqrt(share) * f)) for f in (stretch, 1 / stretch))
    x, y = rng.integers(0, size - w + 1), rng.integers(0, size - h + 1)
    part = cv2.resize(image[y : y + h, x : x + w], (size, size), interpolation=cv2.INTER_AREA)
    return part * rng.uniform(1 - light, 1 + light) + rng.uniform(-100 * light, 100 * light)


def random_crops(images, rng):
    """One random crop of each picture, of 70 to 100 % of its area, in other light. uint8 -> uint8, same shape."""
    return np.stack([cropped(image, rng, 0.7, 0.25).clip(0, 255).astype(np.uint8) for image in images])


def near_copies(images, rng):
    """A copy of each picture as the web makes them: cut by up to 2 % of its area, in other light, with noise."""
    noisy = [cropped(image, rng, 0.98, 0.08) + rng.normal(0, 2, image.shape) for image in images]
    return np.stack(noisy).clip(0, 255).astype(np.uint8)


# ---------------------------------------------------------------- settings


def check_settings(cfg):
    """LabError naming a setting that cannot work, whatever the data."""
    least = dict.fromkeys(("random_draws", "width", "epochs", "tune_epochs", "invented_epochs", "few_steps"), 1)
    least |= {"seed": 0, "limit": 0, "same_bits": 0, "crops": 1, "batch_size": 2, "folds": 2}
    least |= {"size": 64, "cnn_size": 16, "drawn_size": 16, "invented": 2 * len(INVENTED)}
    for name, lowest in least.items():
        if getattr(cfg, name) < lowest:
            raise LabError(f"setting {name}={getattr(cfg, name)}: at least {lowest} is needed")
    if 0 < cfg.limit < 2 * cfg.folds:
        raise LabError(f"setting limit={cfg.limit}: 0 (all), or {2 * cfg.folds}, two pictures of a class for each fold")
    if len(cfg.drawn) != 2 or min(cfg.drawn) < 2 or cfg.drawn[0] < 2 * cfg.folds:
        raise LabError(f"setting drawn={cfg.drawn}: at least {2 * cfg.folds} training and 2 test pictures of each kind")
    for name in ("lr", "tune_lr"):
        if not 0 < getattr(cfg, name) < 1:
            raise LabError(f"setting {name}={getattr(cfg, name)}: between 0 and 1")
    for name in ("seeds", "amounts", "grid"):
        values = getattr(cfg, name)
        if not values or len(set(values)) < len(values):
            raise LabError(f"setting {name}={values}: at least one value is needed, and none twice")
    if min(cfg.grid) <= 0 or min(cfg.amounts) < 1 or list(cfg.amounts) != sorted(cfg.amounts):
        raise LabError(f"settings grid={cfg.grid}, amounts={cfg.amounts}: above 0, amounts in rising order")
    if len(set(cfg.networks)) < len(cfg.networks):
        raise LabError(f"setting networks={cfg.networks}: one stands there twice")
    if not set(cfg.tuned) <= {*cfg.networks, "silhouettes"} or not cfg.tuned:
        raise LabError(f"setting tuned={cfg.tuned}: networks of networks={cfg.networks}, at least one")
    if not set(cfg.tuned_lightly) <= set(cfg.networks) - set(cfg.tuned):
        raise LabError(f"setting tuned_lightly={cfg.tuned_lightly}: networks of networks that are not in tuned")
    if "vit_tiny" in cfg.networks and cfg.size % 16:
        raise LabError(f"setting size={cfg.size}: vit_tiny takes a multiple of 16")
    if cfg.same_bits > 64:
        raise LabError(f"setting same_bits={cfg.same_bits}: at most 64 of 256; beyond that other pictures are the same")
    if min(cfg.seeds) < 0:
        raise LabError(f"setting seeds={cfg.seeds}: none below 0")


def check_fit(cfg, data, labels, train, copies):
    """LabError naming a setting, or DataError naming a class, that does not fit the pictures of a set.

    labels, train, copies: label, whether it is for training, and group of copies of each picture that is used.
    """
    for part, mask in (("training", train), ("test", ~train)):
        missing = [name for k, name in enumerate(data.classes) if not (labels[mask] == k).any()]
        if missing:
            raise DataError(f"{data.name}: the {part} part has no picture of class {', '.join(missing)}")
    for k, name in enumerate(data.classes):
        if len(set(copies[~train & (labels == k)])) < 2:
            raise DataError(f"{data.name}: the test part has one picture of class {name}; an interval needs two")
        apart = len(set(copies[train & (labels == k)]))
        if apart < 2 * cfg.folds:
            raise DataError(
                f"{data.name}: class {name} has {apart} training pictures that are no copies of each other; "
                f"folds={cfg.folds} needs {2 * cfg.folds} at least"
            )
    most = int(np.bincount(labels[train]).min())
    if max(cfg.amounts) > most:
        raise LabError(f"setting amounts={cfg.amounts}: the smallest class of {data.name} has {most} training pictures")


# ---------------------------------------------------------------- drawing


def show_bands(counts, lines, title, xlabel, ylabel, chance):
    """{name: metrics, one a count} over counts on a logarithmic axis, with their intervals; chance: a dotted line."""
    figure, axis = plt.subplots(figsize=(7.6, 3.6))
    axis.axhline(chance, color=GREY, linestyle=":", linewidth=1, label="chance")
    for (name, metrics), colour, marker in zip(lines.items(), COLOURS, "os^D"):
        low, value, high = ([m[side] for m in metrics] for side in ("low", "value", "high"))
        axis.fill_between(counts, low, high, color=colour, alpha=0.18, linewidth=0)
        axis.plot(counts, value, marker=marker, markersize=5, color=colour, label=name)
    axis.set_xscale("log")
    axis.set_xticks(counts, [str(count) for count in counts])
    axis.minorticks_off()
    axis.set(title=title, xlabel=xlabel, ylabel=ylabel, ylim=(0, 100))
    axis.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    finish(figure)


def show_layers(values, title):
    """{(set, network, layer): macro recall}: a panel for each set, a line for each network."""
    keys = list(dict.fromkeys(key for key, _, _ in values))
    figure, axes = plt.subplots(1, len(keys), figsize=(4.2 * len(keys) + 1.6, 3.8), squeeze=False)
    for axis, key in zip(axes[0], keys):
        names = list(dict.fromkeys(name for k, name, _ in values if k == key))
        for name, colour, marker in zip(names, cycle(COLOURS), cycle("os^Dv<>X*Ph")):
            own = {tap: value for (k, n, tap), value in values.items() if (k, n) == (key, name)}
            axis.plot(range(-len(own) + 1, 1), own.values(), marker=marker, color=colour, markersize=5, label=name)
        axis.set(title=key, xlabel="layer, counted from the last", ylabel="macro recall (%)")
        axis.set_xticks(range(min(line.get_xdata()[0] for line in axis.lines), 1))
    if len({name for _, name, _ in values}) > 1:
        axes[0, -1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.suptitle(title)
    finish(figure)
