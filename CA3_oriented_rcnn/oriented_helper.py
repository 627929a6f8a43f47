"""Data and drawing for the oriented detection assignment: no geometry of overlaps, no model, no loss, no method.

Boxes are rows (cx, cy, w, h, theta): pixels, and radians from the x axis to the side w, clockwise on the screen
because y points down. The readers hand boxes out as a file has them, w may be the shorter side.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.patches import Polygon

from nndl import files
from nndl.figures import BLUE, GREEN, GREY, ORANGE, PINK, style  # noqa: F401 (notebooks take them from here)
from nndl.files import DataError
from nndl.lab import LabError

SPLIT_OF_DAY = dict.fromkeys(("20210116", "20210118", "20210119", "20210120"), "train") | {
    "20210123": "val",
    "20210121": "test",
}
HIT_CLASSES = {"Car": "Car", "OtherVehicle": "Car", "Bicycle": "Bicycle", "DontCare": "DontCare", "Person": None}


@dataclass
class Part:
    """Pictures (N, H, W, C) uint8 with, for each, boxes (n, 5), labels (n,) and ignore (n,): regions nobody judges."""

    images: np.ndarray
    boxes: list
    labels: list
    ignore: list

    def __len__(self):
        return len(self.images)


@dataclass
class Scenes:
    """A detection data set: three parts, class names, and where it comes from."""

    name: str
    source: str  # "real" or "embedded"
    classes: list
    train: Part
    val: Part
    test: Part
    note: str = ""

    def counts(self):
        """Number of pictures and of boxes (without ignored regions) in each part."""
        parts = {part: getattr(self, part) for part in ("train", "val", "test")}
        boxes = {f"{name} boxes": int(sum((~ignore).sum() for ignore in part.ignore)) for name, part in parts.items()}
        return {name: len(part) for name, part in parts.items()} | boxes

    def arrays(self):
        """All arrays, for a fingerprint."""
        parts = (self.train, self.val, self.test)
        return [array for part in parts for array in (part.images, *part.boxes, *part.labels)]


# ---------------------------------------------------------------- embedded: the harbour

FINE = 3  # pictures are drawn this many times larger, then averaged
HARBOUR_CLASSES = ["ship", "dock"]


def _corners(box):
    """The four corners (4, 2) of one box."""
    cx, cy, w, h, theta = box
    u, v = np.array([math.cos(theta), math.sin(theta)]) * w / 2, np.array([-math.sin(theta), math.cos(theta)]) * h / 2
    return np.array([cx, cy]) + np.array([-u - v, u - v, u + v, v - u])


def _fill(canvas, points, colour):
    """Fill a convex polygon, given in pixels, on the enlarged canvas."""
    fine = np.round(points * FINE * 16 - 8).astype(np.int32)  # a pixel covers [i, i + 1], OpenCV counts its centres
    cv2.fillConvexPoly(canvas, fine, colour, lineType=cv2.LINE_8, shift=4)


def _draw_ship(canvas, box, rng):
    """A hull with a pointed bow (at either end) and a lighter deck, filling its box."""
    cx, cy, w, h, theta = box
    u, v = np.array([math.cos(theta), math.sin(theta)]) * w / 2, np.array([-math.sin(theta), math.cos(theta)]) * h / 2
    u = u if rng.random() < 0.5 else -u
    hull = np.array([-u - v, 0.5 * u - v, u, 0.5 * u + v, v - u])
    colour = rng.uniform(60, 230, 3)
    _fill(canvas, np.array([cx, cy]) + hull, colour.tolist())
    deck = np.array([-0.8 * u - 0.45 * v, 0.3 * u - 0.45 * v, 0.3 * u + 0.45 * v, 0.45 * v - 0.8 * u])
    _fill(canvas, np.array([cx, cy]) + deck, np.clip(colour + rng.uniform(-60, 60), 0, 255).tolist())


def _place_mooring(size, rng):
    """One dock with ships side by side on one or both of its long sides: boxes, labels."""
    theta, ships = rng.uniform(-math.pi / 2, math.pi / 2), rng.integers(4, 8)
    length, width, gap = rng.uniform(33, 40), rng.uniform(6.2, 7.4), rng.uniform(0.6, 1.2)
    along, across = np.array([math.cos(theta), math.sin(theta)]), np.array([-math.sin(theta), math.cos(theta)])
    pitch, dock_width = width + gap, rng.uniform(6, 9)
    dock_length = ships * pitch + rng.uniform(2, 8)
    centre = rng.uniform(0.35, 0.65, 2) * size
    boxes, labels = [[*centre, dock_length, dock_width, theta]], [1]
    for side in (-1, 1)[: rng.integers(1, 3)]:
        for place in range(ships):
            if rng.random() < 0.1:  # a free berth
                continue
            here = length * rng.uniform(0.92, 1.0)
            middle = centre + along * (place - (ships - 1) / 2) * pitch
            middle = middle + side * across * (dock_width / 2 + here / 2 + 1.5)
            boxes.append([*middle, here, width * rng.uniform(0.92, 1.0), theta + math.pi / 2])
            labels.append(0)
    return boxes, labels


def make_harbour(n, seed, size=128):
    """n pictures of a harbour from above, any angle: ships moored side by side at a dock, and single ships.

    Returns a Part: images (n, size, size, 3) uint8; labels 0 ship, 1 dock; every object lies whole inside its picture.
    """
    rng = np.random.default_rng(seed)
    images, all_boxes, all_labels = [], [], []
    while len(images) < n:
        boxes, labels = _place_mooring(size, rng)
        taken = np.zeros((size, size), np.uint8)

        def free(box, taken=taken):
            mask = np.zeros_like(taken)
            _fill_mask(mask, [*box[:2], box[2] + 3, box[3] + 3, box[4]])
            return not (mask & taken).any()

        for box in boxes:
            _fill_mask(taken, box)
        for _ in range(rng.integers(1, 6)):
            box = [*rng.uniform(16, size - 16, 2), rng.uniform(20, 40), 0, rng.uniform(-math.pi / 2, math.pi / 2)]
            box[3] = box[2] * rng.uniform(0.18, 0.3)
            if free(box):
                _fill_mask(taken, box)
                boxes.append(box)
                labels.append(0)
        outline = np.stack([_corners(box) for box in boxes])
        inside = ((outline > 1) & (outline < size - 1)).all((1, 2))
        if not inside[: labels.count(1)].all() or inside.sum() < 4:
            continue  # the dock or nearly everything is cut by the border: draw another
        boxes, labels = np.array(boxes)[inside], np.array(labels)[inside]
        images.append(_draw_harbour(boxes, labels, size, rng))
        all_boxes.append(boxes.astype(np.float32))
        all_labels.append(labels.astype(np.int64))
    return Part(np.stack(images), all_boxes, all_labels, [np.zeros(len(b), dtype=bool) for b in all_boxes])


def _fill_mask(mask, box):
    cv2.fillConvexPoly(mask, np.round(_corners(box) * 16 - 8).astype(np.int32), 1, shift=4)


def _draw_harbour(boxes, labels, size, rng):
    """Water with slow and fast waves, docks, ships; averaged down to (size, size, 3) uint8."""
    waves = rng.normal(0, 9, (8, 8)).astype(np.float32)
    waves = cv2.resize(waves, (size * FINE, size * FINE), interpolation=cv2.INTER_CUBIC)
    canvas = (np.array([30, 70, 100]) + rng.uniform(-10, 10, 3)).astype(np.float32) + waves[..., None]
    for box, label in sorted(zip(boxes, labels, strict=True), key=lambda item: -item[1]):
        if label == 1:
            _fill(canvas, _corners(box), (rng.uniform(110, 150) + rng.uniform(-12, 12, 3)).tolist())
        else:
            _draw_ship(canvas, box, rng)
    picture = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA) + rng.normal(0, 7, (size, size, 1))
    return picture.clip(0, 255).astype(np.uint8)


def load_harbour(n_train, n_val, n_test, seed=0):
    """The harbour as a data set."""
    parts = [make_harbour(n, seed * 10 + k) for k, n in enumerate((n_train, n_val, n_test), 1)]
    return Scenes("harbour", "embedded", HARBOUR_CLASSES, *parts, note="drawn by make_harbour, 128x128")


# ---------------------------------------------------------------- reading boxes


def check_boxes(boxes, where, size=None):
    """DataError, naming `where` and the object, unless boxes (n, 5) are finite, have an area and an angle in radians.

    size: (width, height) of the picture, in which every centre must lie.
    """
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 5)
    faults = [
        (~np.isfinite(boxes).all(1), "a value that is not a number"),
        ((boxes[:, 2:4] <= 0).any(1), "no area"),
        (np.abs(boxes[:, 4]) > 2 * math.pi, "an angle beyond a full turn (degrees where radians are expected?)"),
    ]
    if size is not None:
        outside = (boxes[:, :2] < 0).any(1) | (boxes[:, :2] > np.array(size)).any(1)
        faults.append((outside, f"its centre outside the picture of {size[0]:g}x{size[1]:g}"))
    for bad, what in faults:
        if bad.any():
            number = int(np.flatnonzero(bad)[0])
            raise DataError(f"{where}: object {number + 1} has {what}: {np.round(boxes[number], 2).tolist()}")
    return boxes


def _number(text, where):
    """A finite number in a text."""
    try:
        return float((text or "").replace("_", "?"))  # Python alone would read 1_0 as 10
    except ValueError:
        raise DataError(f"{where}: {text!r} is not a number") from None


def _numbers(element, names, where):
    """The numbers under these tags of an element."""
    for name in names:
        if element.find(name) is None:
            raise DataError(f"{where}: no {name}; expected are {', '.join(names)}")
    return [_number(element.findtext(name), f"{where}, {name}") for name in names]


def read_rolabelimg(data, where):
    """A roLabelImg XML (bytes or text): class names, boxes (n, 5), difficult (n,), flight day (its folder)."""
    root = files.parse_xml(data, where, "annotation")
    names, boxes, difficult = [], [], []
    size = root.find("size")
    if size is not None:
        size = _numbers(size, ("width", "height"), f"{where}, size")
        if min(size) <= 0:
            raise DataError(
                f"{where}: its size is {size[0]:g}x{size[1]:g}; write the picture's own, or take <size> out"
            )
    for number, thing in enumerate(root.iter("object"), 1):
        here = f"{where}, object {number}"
        names.append(" ".join(thing.findtext("name", "").split()))
        difficult.append(files.flag(thing.findtext("difficult"), f"{here}, difficult"))
        if (turned := thing.find("robndbox")) is not None:
            boxes.append(_numbers(turned, ("cx", "cy", "w", "h", "angle"), here))
        elif (upright := thing.find("bndbox")) is not None:
            x1, y1, x2, y2 = _numbers(upright, ("xmin", "ymin", "xmax", "ymax"), here)
            boxes.append([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, 0.0])
        else:
            raise DataError(f"{where}: object {number} ({names[-1]}) has neither robndbox nor bndbox")
    if not names and size is None and root.find("filename") is None:
        raise DataError(f"{where}: an annotation without object, size and filename: XML of another kind?")
    day = root.findtext("folder", "").strip()
    return names, check_boxes(boxes, where, size), np.array(difficult, dtype=bool), day


def read_hrsc(data, where):
    """An HRSC2016 XML (bytes or text): class ids, boxes (n, 5) from mbox_*, difficult (n,)."""
    root = files.parse_xml(data, where, "HRSC_Image")
    if root.find("HRSC_Objects") is None:
        raise DataError(f"{where}: no HRSC_Objects in it: XML of another kind?")
    things = [(f"{where}, object {number}", thing) for number, thing in enumerate(root.iter("HRSC_Object"), 1)]
    fields = ("mbox_cx", "mbox_cy", "mbox_w", "mbox_h", "mbox_ang")
    boxes = [_numbers(thing, fields, here) for here, thing in things]
    difficult = [files.flag(thing.findtext("difficult"), f"{here}, difficult") for here, thing in things]
    names = [thing.findtext("Class_ID", "").strip() for _, thing in things]
    return names, check_boxes(boxes, where), np.array(difficult, dtype=bool)


def _crosses_itself(quad):
    """Whether two opposite sides of a quadrilateral (4, 2) cross."""

    def side(a, b, c):
        return np.sign((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]))

    for i in (0, 1):
        a, b, c, d = (quad[(i + k) % 4] for k in range(4))
        if side(a, b, c) * side(a, b, d) < 0 and side(c, d, a) * side(c, d, b) < 0:
            return True
    return False


def read_dota(text, where):
    """A DOTA labelTxt file (text or bytes): class names, polygons (n, 4, 2), difficult (n,); errors name the line."""
    names, polygons, difficult = [], [], []
    for number, line in enumerate(files.as_text(text, where).splitlines(), 1):
        words, here = line.split(), f"{where}, line {number}"
        if not words or words[0].lower().startswith(("imagesource", "gsd")):
            continue
        if not 9 <= len(words) <= 10:
            raise DataError(f"{here}: expected 8 coordinates, a class of one word, difficult: {line!r}")
        quad = np.array([_number(word, f"{here}: expected 8 coordinates, a class, difficult") for word in words[:8]])
        quad, name = quad.reshape(4, 2), words[8]
        if name.replace(".", "", 1).replace("-", "", 1).isdecimal():
            raise DataError(
                f"{here}: {name} stands where a class is expected; a YOLO file has its class first: {line!r}"
            )
        if _crosses_itself(quad):
            raise DataError(f"{here}: a polygon that crosses itself: {line!r}")
        if not np.isfinite(quad).all() or _shoelace(quad) == 0:
            raise DataError(f"{here}: a polygon without area, or not finite: {line!r}")
        names.append(name)
        polygons.append(quad)
        difficult.append(files.flag(words[9] if len(words) > 9 else "", f"{here} {line!r}, difficult"))
    return names, np.array(polygons, dtype=np.float64).reshape(-1, 4, 2), np.array(difficult, dtype=bool)


def _shoelace(quad):
    x, y = quad.T
    return 0.5 * float(x @ np.roll(y, -1) - y @ np.roll(x, -1))


def tile_windows(width, height, size, gap):
    """Top left corners (left, top) of tiles of `size` pixels that cover a picture, neighbours overlapping by `gap`."""
    if not 0 <= gap < size:
        raise DataError(f"tiles of {size} pixels cannot overlap by {gap}")

    def starts(length):
        last = max(0, length - size)
        return sorted({*range(0, last, size - gap), last})

    return [(left, top) for top in starts(height) for left in starts(width)]


# ---------------------------------------------------------------- real: HIT-UAV


BY_HAND = "git clone https://github.com/suojiashun/HIT-UAV-Infrared-Thermal-Dataset brings it; nothing is fetched here"


def _check_classes(names, where):
    """DataError naming a class that HIT-UAV does not have: its objects would become background in silence."""
    unknown = set(names) - set(HIT_CLASSES)
    if unknown:
        raise DataError(f"{where}: unknown class {', '.join(sorted(unknown))}; known: {', '.join(HIT_CLASSES)}")


def _read_table(folder):
    """{split: [(picture, classes, boxes)]} from boxes.csv and images/<split>/, and what was left out, in words."""
    columns = ["cx", "cy", "w", "h", "angle_deg"]
    table = files.read_table(folder / "boxes.csv", ("split", "image", "class", *columns))
    boxes = np.stack([files.numbers(table, name) for name in columns], axis=1)
    boxes[:, 4] = np.radians(boxes[:, 4])
    parts, skipped = {split: [] for split in ("train", "val", "test")}, []
    unknown = table.index[~table["split"].isin(list(parts))]
    if len(unknown):
        split = table["split"][unknown[0]]
        raise DataError(f"{folder / 'boxes.csv'}, line {unknown[0]}: unknown split {split!r}; known: train, val, test")
    for split in parts:
        rows = table["split"].to_numpy() == split
        images, names = table["image"].to_numpy()[rows], table["class"].to_numpy()[rows]
        listed = sorted(set(images))
        found = files.match_pictures(folder / "images" / split, listed) if listed else []
        for image, file in zip(listed, found, strict=True):
            here = images == image
            _check_classes(names[here], f"{folder / 'boxes.csv'}, {image}")
            parts[split].append((file, names[here].tolist(), boxes[rows][here]))
        skipped += sorted(set(files.list_pictures(folder / "images" / split)[0]) - set(found)) if listed else []
    return parts, files.skipped_note(skipped)


def _read_published(folder):
    """The same from the published layout: rotate_xml/Annotations/*.xml and rotate_xml/JPEGImages, split by day."""
    labelled, days, empty, other_days = {}, {}, 0, 0
    for file in files.entries(folder / "rotate_xml" / "Annotations"):
        if file.suffix.lower() != ".xml" or files.is_system(file):
            continue
        names, boxes, _, day = read_rolabelimg(files.read_bytes(file), file)
        _check_classes(names, file)
        if day not in SPLIT_OF_DAY:
            other_days += 1
        elif not any(HIT_CLASSES[name] not in (None, "DontCare") for name in names):
            empty += 1
        else:
            labelled[file.stem], days[file.stem] = (names, boxes), SPLIT_OF_DAY[day]
    pictures = files.match_pictures(folder / "rotate_xml" / "JPEGImages", labelled)
    parts = {split: [] for split in ("train", "val", "test")}
    for picture, (name, labels) in zip(pictures, labelled.items(), strict=True):
        parts[days[name]].append((picture, *labels))
    left_out = [f"{empty} pictures without a vehicle left out"] if empty else []
    return parts, "; ".join(left_out + ([f"{other_days} pictures of other days left out"] if other_days else []))


def load_hit_uav(folder, scale=1.0, limit=0):
    """HIT-UAV, thermal pictures from a drone, split by flight day; classes Car (with OtherVehicle) and Bicycle.

    folder: boxes.csv and images/<split>/, or the published rotate_xml/. scale: pictures and boxes are resized by it.
    limit: keep so many pictures of each part, spread evenly; 0: all. Persons are background, DontCare is ignored.
    Raises DataError naming the file and object at fault.
    """
    folder = Path(folder)
    if (folder / "boxes.csv").is_file():
        (parts, left_out), note = _read_table(folder), "subset, split by flight day"
    elif (folder / "rotate_xml" / "Annotations").is_dir():
        (parts, left_out), note = _read_published(folder), "published files, split by flight day"
    else:
        raise DataError(f"{folder}: neither boxes.csv nor rotate_xml/Annotations is there; {BY_HAND}")
    empty = [split for split, pictures in parts.items() if not pictures]
    if empty:
        raise DataError(f"{folder}: no pictures for {', '.join(empty)}")
    parts = {split: _load_part(pictures, scale, limit) for split, pictures in parts.items()}
    note = "; ".join(filter(None, (f"{note}, scale {scale:g}", left_out)))
    return Scenes("HIT-UAV", "real", ["Car", "Bicycle"], **parts, note=note)


def _load_part(pictures, scale, limit):
    """Decode and resize the pictures (file, class names, boxes) of one part, keep the classes that count."""
    if limit and limit < len(pictures):
        pictures = [pictures[i] for i in np.linspace(0, len(pictures) - 1, limit).round().astype(int)]
    part = Part([], [], [], [])
    for file, names, boxes in pictures:
        # boxes count the pixels as they are stored, whatever EXIF says
        image = (255 * files.decode_grey(files.read_bytes(file), file, upright=False)).round().astype(np.uint8)
        boxes = check_boxes(boxes, file, image.shape[::-1])
        size = round(image.shape[1] * scale), round(image.shape[0] * scale)
        if scale != 1:
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        if part.images and image.shape != part.images[0].shape:
            raise DataError(f"{file}: size {image.shape}, others have {part.images[0].shape}")
        names = [HIT_CLASSES[name] for name in names]
        kept = [i for i, name in enumerate(names) if name]
        part.images.append(image)
        part.boxes.append((boxes[kept] * [scale, scale, scale, scale, 1]).astype(np.float32))
        part.labels.append(np.array([int(names[i] == "Bicycle") for i in kept], dtype=np.int64))
        part.ignore.append(np.array([names[i] == "DontCare" for i in kept], dtype=bool))
    part.images = np.stack(part.images)[..., None]
    return part


# ---------------------------------------------------------------- settings


def check_settings(cfg):
    """LabError naming a setting that cannot work, whatever the data."""
    counts = ("harbour_epochs", "harbour_width", "harbour_channels", "hit_epochs", "hit_width", "hit_channels",
              "hidden", "batch_size", "proposals", "roi_samples", "resamples")  # fmt: skip
    least = dict.fromkeys(counts, 1) | dict.fromkeys(("harbour_train", "harbour_val", "harbour_test"), 2)
    least |= {"hit_limit": 0, "hit_crop": 0, "seed": 0}
    for name, lowest in least.items():
        if getattr(cfg, name) < lowest:
            raise LabError(f"setting {name}={getattr(cfg, name)}: at least {lowest} is needed")
    if not cfg.lr > 0:
        raise LabError(f"setting lr={cfg.lr}: it must be above 0")
    if cfg.backbone not in ("resnet18", "resnet50"):
        raise LabError(f"setting backbone={cfg.backbone!r}: known are 'resnet18' and 'resnet50'")
    for name in ("harbour_train", "hit_limit"):
        if 0 < getattr(cfg, name) < cfg.batch_size:
            raise LabError(f"setting batch_size={cfg.batch_size}: there are only {name}={getattr(cfg, name)} pictures")
    if cfg.hit_crop % 32:
        raise LabError(f"setting hit_crop={cfg.hit_crop}: a multiple of 32 pixels is needed; 0: whole pictures")
    zoom = cfg.hit_zoom
    if len(zoom) != 2 or not all(isinstance(z, (int, float)) for z in zoom) or not 0 < zoom[0] <= zoom[1]:
        raise LabError(f"setting hit_zoom={zoom}: a least and a largest factor above 0")
    if not 0.1 <= cfg.scale <= 1:
        raise LabError(f"setting scale={cfg.scale}: between 0.1 and 1")
    if round(640 * cfg.scale) % 32 or round(512 * cfg.scale) % 32:
        raise LabError(f"setting scale={cfg.scale}: pictures of 640x512 must become a multiple of 32 on each side")


def check_fit(cfg, scenes):
    """LabError naming a setting that does not fit a data set, DataError for a part in which nothing is to be found."""
    n, (height, width) = len(scenes.train), scenes.train.images.shape[1:3]
    if cfg.batch_size > n:
        raise LabError(f"setting batch_size={cfg.batch_size}: {scenes.name} has only {n} training pictures")
    if height % 32 or width % 32:
        raise LabError(f"setting scale: {scenes.name}'s pictures are {width}x{height}, no multiple of 32 on each side")
    for name in ("train", "val", "test"):
        if not any((~ignore).any() for ignore in getattr(scenes, name).ignore):
            raise DataError(f"{scenes.name}: no object in the {name} part")


# ---------------------------------------------------------------- drawing


YELLOW = "#F0E442"


def show_scenes(images, boxes, labels, columns=3, title=None, size=1.6):
    """Pictures with boxes (n, 5) drawn on them, class 0 yellow, class 1 pink; a list of each for every picture."""
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(columns * size, rows * size + 0.4), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, some, names in zip(axes.flat, images, boxes, labels, strict=False):
        axis.imshow(image, extent=(0, image.shape[1], image.shape[0], 0))
        for box, name in zip(some, names, strict=True):
            axis.add_patch(Polygon(_corners(box), fill=False, edgecolor=(YELLOW, PINK)[int(name)], linewidth=1))
    if title:
        figure.suptitle(title, fontsize=11)
    figure.tight_layout()
    plt.show()


def show_convention(box, points, outer):
    """The long-edge convention: one box with its centre, sides and angle, and its outer box."""
    cx, cy, w, _, theta = box
    figure, axis = plt.subplots(figsize=(5, 3.4))
    axis.add_patch(Polygon(points, facecolor=BLUE, alpha=0.25))
    axis.add_patch(Polygon(points, fill=False, edgecolor=BLUE, linewidth=1.5))
    x1, y1, x2, y2 = outer
    rim = [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]
    axis.add_patch(Polygon(rim, fill=False, edgecolor=GREY, linestyle=":", linewidth=1.2))
    u = np.array([math.cos(theta), math.sin(theta)])
    axis.plot([cx, cx + 0.55 * w], [cy, cy], color=GREY, linewidth=1)
    axis.annotate(
        "", (cx + 0.5 * w * u[0], cy + 0.5 * w * u[1]), (cx, cy), arrowprops=dict(arrowstyle="->", color=BLUE)
    )
    turn = np.linspace(0, theta, 30)
    axis.plot(cx + 24 * np.cos(turn), cy + 24 * np.sin(turn), color=ORANGE)
    axis.annotate("θ", (cx + 28 * math.cos(theta / 2), cy + 28 * math.sin(theta / 2)), color=ORANGE, va="center")
    axis.annotate("(cx, cy)", (cx - 2, cy - 3), ha="right", fontsize=9)
    axis.annotate("w", points[[2, 3]].mean(0) + np.array([-3, 6]), color=BLUE)
    axis.annotate("h", points[[3, 0]].mean(0) + np.array([-7, 2]), color=BLUE)
    axis.annotate("outer box", (x1 + 1, y1 - 2), color=GREY, fontsize=9)
    axis.set(xlim=(x1 - 8, x2 + 8), ylim=(y2 + 8, y1 - 10), aspect="equal", xlabel="x (pixels)", ylabel="y (pixels)")
    axis.set_title("θ from the x axis to the long edge, clockwise on the screen")
    sns.despine()
    figure.tight_layout()
    plt.show()


def show_midpoint(outer, points, alpha, beta):
    """The midpoint offsets of a box: outer box, its middles, and the shifts of the top and right corners."""
    x1, y1, x2, y2 = outer
    x, y, w, h = (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
    figure, axis = plt.subplots(figsize=(5, 3.4))
    axis.add_patch(Polygon(points, facecolor=BLUE, alpha=0.25))
    axis.add_patch(
        Polygon([(x1, y1), (x2, y1), (x2, y2), (x1, y2)], fill=False, edgecolor=GREY, linestyle=":", linewidth=1.2)
    )
    for middle, corner, name, place in (
        ((x, y1), (x + alpha * w, y1), "Δα · W", (0, -9)),
        ((x2, y), (x2, y + beta * h), "Δβ · H", (16, 0)),
    ):
        axis.plot(*middle, "o", color=GREY, markersize=5)
        axis.plot(*corner, "o", color=ORANGE, markersize=6)
        axis.annotate("", corner, middle, arrowprops=dict(arrowstyle="->", color=ORANGE, linewidth=1.6))
        at = (np.array(middle) + corner) / 2
        axis.annotate(name, at, place, textcoords="offset points", color=ORANGE, ha="center", va="center")
    axis.set(xlim=(x1 - 8, x2 + 24), ylim=(y2 + 6, y1 - 14), aspect="equal", xlabel="x (pixels)", ylabel="y (pixels)")
    axis.set_title(f"Midpoint offsets: Δα = {alpha:.2f}, Δβ = {beta:.2f}")
    sns.despine()
    figure.tight_layout()
    plt.show()


def show_curves(curves, title, ylabel, xlabel="epoch"):
    """Lines over epochs: {name: values}, one value an epoch."""
    figure, axis = plt.subplots(figsize=(6.5, 3.2))
    for (name, values), marker in zip(curves.items(), "os^Dvp<>", strict=False):
        axis.plot(np.arange(1, len(values) + 1), values, marker=marker, markersize=4, label=name)
    axis.set(title=title, xlabel=xlabel, ylabel=ylabel, ylim=(0, None))
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend(frameon=False, fontsize=9)
    sns.despine()
    figure.tight_layout()
    plt.show()


def show_lines(x, curves, title, xlabel, ylabel, levels=()):
    """Lines {name: values} over x; levels: a dotted height for each line, in its colour."""
    figure, axis = plt.subplots(figsize=(6.8, 3.4))
    colours = (BLUE, ORANGE, GREEN, PINK)
    for (name, values), marker, colour in zip(curves.items(), "os^D", colours, strict=False):
        axis.plot(x, values, marker=marker, markersize=4, color=colour, label=name)
    for level, colour in zip(levels, colours, strict=False):
        axis.axhline(level, color=colour, linestyle=":")
    axis.set(title=title, xlabel=xlabel, ylabel=ylabel)
    axis.set_ylim(top=max(axis.get_ylim()[1], 101 if max(max(v) for v in curves.values()) > 90 else 0))
    axis.legend(frameon=False, fontsize=9)
    sns.despine()
    figure.tight_layout()
    plt.show()


def show_pr(curves, title):
    """Precision against recall: {name: (2, points)}."""
    figure, axis = plt.subplots(figsize=(6.5, 3.8))
    for (name, (recall, precision)), dash in zip(curves.items(), ["-", "-", "--", "--", ":", ":"], strict=False):
        axis.plot(100 * recall, 100 * precision, dash, label=name)
    axis.set(title=title, xlabel="recall (%)", ylabel="precision (%)", xlim=(0, 101), ylim=(0, 102))
    axis.legend(frameon=False, fontsize=8)
    sns.despine()
    figure.tight_layout()
    plt.show()


def show_points(groups, title, xlabel, level=None, level_label=""):
    """Results with intervals as points, one row each: {label: dict(value, low, high)}."""
    figure, axis = plt.subplots(figsize=(7.8, 0.9 + 0.34 * len(groups)))
    for row, m in enumerate(groups.values()):
        axis.plot([m["low"], m["high"]], [row, row], color=BLUE, linewidth=2)
        axis.plot(m["value"], row, "o", color=BLUE)
        axis.annotate(f"{m['value']:.1f}", (m["value"], row), (0, 6), textcoords="offset points", ha="center", size=9)
    axis.set_yticks(range(len(groups)), list(groups))
    axis.invert_yaxis()
    axis.margins(x=0.08, y=0.12)
    if level is not None:
        axis.axvline(level, color=GREY, linestyle=":", label=level_label)
        axis.legend(frameon=False, fontsize=9)
    axis.set(title=title, xlabel=xlabel)
    sns.despine()
    figure.tight_layout()
    plt.show()
