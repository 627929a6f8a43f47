"""Data and drawing for the vehicle assignment: no model, no loss, no method.

A picture is uint8 (S, S, 3). Parts hold pictures (N, S, S, 3), labels int64 (N,), and for each picture its group: the
car model, where that is known. Pictures of one group look alike, so a fair test has none of the training groups.
"""

import colorsys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from nndl import files
from nndl.files import DataError


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
    body = np.array(BODIES[kind]) + rng.normal(0, 1.8, (len(BODIES[kind]), 2))
    return dict(kind=kind, body=body, stretch=rng.normal(1, 0.06), height=rng.normal(1, 0.06),
                wheel=rng.normal(1, 0.08), stripe=rng.random() < 0.3, rim=rng.random())  # fmt: skip


def background(rng, size):
    """A road with something behind it: (size, size, 3) float."""
    horizon = rng.uniform(0.35, 0.6)
    rows = np.linspace(0, 1, size)[:, None, None]
    sky, ground = (np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0, 0.35), rng.uniform(*v))) * 255
                   for v in ((0.5, 1), (0.25, 0.65)))  # fmt: skip
    picture = np.where(rows < horizon, sky * (1 - 0.3 * rows), ground * (0.8 + 0.4 * rows)) * np.ones((1, size, 1))
    for _ in range(rng.integers(2, 7)):  # houses, trees, posts
        x, w, h = rng.uniform(0, 1), rng.uniform(0.03, 0.3), rng.uniform(0.1, 0.5)
        colour = np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0, 0.6), rng.uniform(0.2, 0.9))) * 255
        top, bottom = ((horizon - h) * size, (horizon + rng.uniform(0, 0.05)) * size)
        cv2.rectangle(picture, (int(x * size), int(top)), (int((x + w) * size), int(bottom)), colour.tolist(), -1)
    return picture


def draw_vehicle(rng, model, size):
    """One picture of a model: viewpoint, place, size, colour and light are drawn anew. (size, size, 3) uint8."""
    full = CANVAS * size
    picture = background(rng, full)
    scale = rng.uniform(0.30, 0.43) * full
    turn, shear, near = rng.normal(0, 0.06), rng.normal(0, 0.12), rng.normal(0, 0.12)
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
    radius, axles = WHEELS[model["kind"]]
    fill([(10, 86), (195, 86), (200, 97), (0, 97)], 0.5 * dark)  # shadow
    if model["kind"] == "motorcycle":
        fill([(50, 74), (90, 50), (130, 36), (146, 72), (138, 74), (124, 50), (60, 78)], dark)
    fill(model["body"], paint)
    for window in GLASS[model["kind"]]:
        fill(window, dark + 40)
    if model["stripe"] and model["kind"] != "motorcycle":
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
    train = make_vehicles(per_class, max(1, per_class // 4), seed + 1, size)
    test = make_vehicles(test_per_class, max(1, test_per_class // 4), seed + 2, size)
    return Vehicles("drawn vehicles", "embedded", CLASSES, train, test, "drawn by make_vehicles; other models in test")


# What the source network of the embedded data is trained on: shapes that are no vehicles.
SOURCE_KINDS = [
    (corners, hollow, striped) for corners in (3, 4, 5, 32) for hollow in (False, True) for striped in (False, True)
]


def draw_thing(rng, kind, size):
    """A polygon with a texture on a background: what an early layer can learn from. (size, size, 3) uint8."""
    corners, hollow, striped = kind
    full = CANVAS * size
    picture = background(rng, full)
    angle = 2 * np.pi * (np.arange(corners) / corners + rng.random())
    radius = rng.uniform(0.18, 0.34, 2) * full
    centre = rng.uniform(0.4, 0.6, 2) * full
    points = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    paint, other = (np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0, 0.9), v)) * 255 for v in (0.9, 0.3))
    mask = np.zeros((full, full), np.uint8)
    cv2.fillPoly(mask, [(points * radius + centre).astype(np.int32)], 1)
    if hollow:
        cv2.fillPoly(mask, [(0.6 * points * radius + centre).astype(np.int32)], 0)
    across = np.add.outer(np.arange(full), rng.choice((-1, 1)) * np.arange(full))
    stripes = (across // (full // 14)) % 2 == 0
    picture[mask > 0] = paint
    if striped:
        picture[(mask > 0) & stripes] = other
    picture = cv2.resize(picture * rng.uniform(0.55, 1.1), (size, size), interpolation=cv2.INTER_AREA)
    return (picture + rng.normal(0, 6, picture.shape)).clip(0, 255).astype(np.uint8)


def make_things(n, seed, size):
    """Pictures for pretraining on embedded data: images (n, size, size, 3) uint8, labels (n,) of 16 kinds of shapes."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % len(SOURCE_KINDS)
    return np.stack([draw_thing(rng, SOURCE_KINDS[k], size) for k in labels]), labels


# ---------------------------------------------------------------- real pictures


BY_HAND = (
    'kagglehub.dataset_download("jessicali9530/stanford-cars-dataset") brings Stanford Cars, '
    "Zenodo record 6634554 the small pictures of a road; nothing is fetched here"
)


def _models(folder):
    """{file as train/class/name: model} of manifest.csv, or {} where there is none or it names no models."""
    path = folder / "manifest.csv"
    if not path.exists():
        return {}
    table = files.read_table(path, ("file",))
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


def _read(rows, size):
    """Decode listed pictures, squeezed to a square: a Part."""
    pictures = []
    for path, *_ in rows:
        picture = files.decode_rgb(files.read_bytes(path), path)
        pictures.append(cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA if picture.shape[0] > size
                                   else cv2.INTER_LINEAR))  # fmt: skip
    labels, groups = (np.array(column) for column in list(zip(*rows))[1:])
    return Part(np.stack(pictures), labels, groups)


def load_vehicles(folder, size, name, limit=0):
    """{train,test}/<class>/ with any picture ending; the classes are the folders of train.

    manifest.csv beside them (file, model), where it is there, gives the car model of each picture; else each picture is
    a group of its own. Raises DataError naming the file or class at fault, before a picture is decoded where that is
    possible.
    """
    folder = Path(folder)
    if not (folder / "train").is_dir():
        raise DataError(f"{folder / 'train'}: no such folder; it should hold a folder for each class; {BY_HAND}")
    classes = files.class_folders(folder / "train")[0]
    if len(classes) < 2:
        raise DataError(f"{folder / 'train'}: {len(classes)} class folders; two are needed at least")
    models = _models(folder)
    train, skipped = _listed(folder, folder / "train", classes, models, limit)
    test, others = _listed(folder, folder / "test", classes, models, limit)
    note = "car models from manifest.csv" if models else "no car models known: each picture is a group of its own"
    note = "; ".join(filter(None, (note, files.skipped_note(skipped + others))))
    return Vehicles(name, "real", classes, _read(train, size), _read(test, size), note)
