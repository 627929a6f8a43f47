"""Data, refusals and drawing for the robustness assignment: no model, no loss, no method.

A picture is uint8 (S, S, C); networks get float (B, C, S, S) in [0, 1], and sizes of attacks on data are in 1/255.
"""

import functools
import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle, pairwise
from pathlib import Path
from typing import NamedTuple

import cv2
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch
from torchvision.models import ResNet50_Weights

from nndl import files, mnist
from nndl.figures import (  # noqa: F401 (notebooks take them from here)
    COLOURS,
    ORANGE,
    finish,
    show_lines,
    show_pictures,
    show_points,
    style,
)
from nndl.files import DataError
from nndl.records import LabError

CIFAR10_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
NORMS = ("linf", "l2")

# what the course asks for, by data and size of attacks (1/255): accuracy under AutoAttack and clean accuracy, in %
TARGETS = {("MNIST", 76.5): (91.0, 98.5), ("CIFAR-10", 8.0): (45.0, 80.0)}
BREAKS, HOLDS = 15.0, 30.0  # %: on the drawn shapes standard training is below the first, adversarial above the second
BAND = 0.36  # cycles a pixel: below the faint patterns of the drawn shapes
# alarms of the checklist by which another attack breaks more than PGD that knows the network
BETTER = {"another loss breaks more", "no gradient breaks more", "transfer breaks more", "random signs break more"}


class Part(NamedTuple):
    """Pictures of one part with their labels: images (N, S, S, C) uint8, labels (N,) int64."""

    images: np.ndarray
    labels: np.ndarray

    def take(self, index):
        """The pictures of an index or a mask."""
        return Part(self.images[index], self.labels[index])


@dataclass
class Pictures:
    """A data set: parts for training, choosing and testing; a part that is not there has no picture."""

    name: str
    source: str  # "real" or "embedded"
    classes: list
    train: Part
    val: Part
    test: Part
    note: str = ""

    def parts(self):
        """{name: Part}, the empty ones too."""
        return {"train": self.train, "val": self.val, "test": self.test}

    def counts(self):
        """Number of pictures in each part."""
        return {name: len(part.labels) for name, part in self.parts().items()}

    def arrays(self):
        """All arrays in a fixed order, for fingerprints."""
        return [array for part in self.parts().values() for array in part]


# ---------------------------------------------------------------- embedded: shapes with a faint pattern

# Two features give each class away. Its large shape is robust: no change of 8/255 hides it. Its faint pattern is not:
# a network that relies on it is fooled by adding the pattern of another class.

SHAPES = ["disc", "ring", "bar", "column", "slash", "backslash", "plus", "cross"]
MARGIN = 16  # drawn pixels keep so far from 0 and 255 that no pattern is cut off
REACH = 1.15  # of a stencil's edge, in radii


def frequencies():
    """High frequencies (u, v) in 1/8 cycles per pixel, each direction once: (18, 2); the larger is 3/8 or 4/8.

    Those that are their own mirror image are left out: their amplitude would depend on the phase.
    """
    pairs = [(u, v) for u in range(5) for v in range(-3, 5) if max(abs(u), abs(v)) >= 3]
    return np.array([(u, v) for u, v in pairs if not (u in (0, 4) and (v < 0 or v in (0, 4)))])


def patterns(classes, size, seed=0):
    """The faint pattern of each class: (classes, size, size, 3) in [-1, 1], and every channel reaches both ends.

    Plane waves of period 8, one frequency a class and one phase a channel, orthogonal to each other. classes: 1 to 18;
    size: a multiple of 8.
    """
    rng, every = np.random.default_rng(seed), frequencies()
    if not 1 <= classes <= len(every) or size < 8 or size % 8:
        raise LabError(f"patterns: classes={classes}, size={size}; 1 to {len(every)} and a multiple of 8 are needed")
    u, v = every[rng.permutation(len(every))[:classes]].T[..., None, None, None] / 8
    phase = rng.uniform(0, 2 * np.pi, (classes, 1, 1, 3))
    y, x = np.arange(size)[:, None, None], np.arange(size)[:, None]
    waves = np.cos(2 * np.pi * (u * x + v * y) + phase)
    return waves / np.abs(waves).max(axis=(1, 2), keepdims=True)


def faint_pixels(labels, size, faint=4.0, seed=0):
    """What `load_embedded` adds to pictures of these labels: (N, size, size, 3) whole numbers from -faint to faint.

    Taken from a picture as integers, it leaves the same picture as faint=0 gives.
    """
    return np.round(faint * patterns(len(SHAPES), size, seed)).astype(np.int16)[labels]


def box(u, v, length, width):
    """Signed distance to a box about 0, below 0 inside: half its length along u, half its width along v."""
    return np.maximum(np.abs(u) - length, np.abs(v) - width)


@functools.cache
def stencils(cells):
    """How much of each cell each shape covers: (8, cells, cells) float32 in [0, 1], out to REACH radii."""
    v, u = (np.mgrid[:cells, :cells] + 0.5) * (2 * REACH / cells) - REACH
    r, p, q = np.hypot(u, v), (u + v) / 2**0.5, (u - v) / 2**0.5
    bar, column, slash, backslash = (box(*pair, 1, 0.26) for pair in ((u, v), (v, u), (q, p), (p, q)))
    distances = [r - 0.85, np.abs(r - 0.78) - 0.2, bar, column, slash, backslash, np.minimum(bar, column),
                 np.minimum(slash, backslash)]  # fmt: skip
    return np.clip(0.5 - np.stack(distances) * cells / (2 * REACH), 0, 1).astype(np.float32)


def stamp(image, stencil, radius, centre, turn, colour):
    """Draw a shape into an image (S, S, 3) in place: radius and centre (x, y) in pixels, turn in radians."""
    size, middle = len(image), (len(stencil) - 1) / 2
    reach = REACH * radius * (abs(math.cos(turn)) + abs(math.sin(turn))) + 1
    (x, y), scale = centre, len(stencil) / (2 * REACH * radius)
    left, top = max(int(x - reach), 0), max(int(y - reach), 0)
    right, low = min(int(x + reach) + 2, size), min(int(y + reach) + 2, size)
    cos, sin = scale * math.cos(turn), scale * math.sin(turn)
    back = np.array([[cos, -sin, middle - cos * (x - left) + sin * (y - top)],
                     [sin, cos, middle - sin * (x - left) - cos * (y - top)]])  # fmt: skip
    cover = cv2.warpAffine(stencil, back, (right - left, low - top), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    window = image[top:low, left:right]
    window += cover[..., None] * (colour - window)


def grounds(rng, count, size):
    """Coloured grounds with two slow waves: mean colours (count, 3) and pictures (count, size, size, 3), float32."""
    mean = rng.uniform(90, 165, (count, 3)).astype(np.float32)
    canvas = np.tile(mean[:, None, None], (1, size, size, 1))
    t = np.arange(size, dtype=np.float32) / size
    for _ in range(2):
        u, v = rng.uniform(-1.2, 1.2, (2, count, 1, 1)).astype(np.float32)
        phase = rng.uniform(0, 2 * np.pi, (count, 1, 1, 3)).astype(np.float32)
        canvas += 12 * np.cos(2 * np.pi * (u * t + v * t[:, None])[..., None] + phase)
    return mean, canvas


def draw_shapes(labels, size, rng):
    """Pictures of one large shape each, its class, under two small ones of any class: (N, size, size, 3) uint8.

    The large shape is 70 to 110 grey levels brighter than the ground's mean, give or take 20 in each channel, has a
    radius of 0.25 to 0.38 of the picture and is turned by up to 8 degrees; it reaches three tenths of the way from the
    middle to the edge. Small ones are as much brighter or darker, and may lie over it. Noise has a standard deviation
    of 12.
    """
    count, large, small = len(labels), stencils(32), stencils(10)
    means, canvas = grounds(rng, count, size)
    for forms in (large, small, small):
        kinds, turns = rng.integers(len(SHAPES), size=count), np.deg2rad(rng.uniform(-8, 8, count))
        radii, centres = size * rng.uniform(0.07, 0.13, count), size * rng.uniform(0.05, 0.95, (count, 2))
        contrast = rng.uniform(70, 110, (count, 1)) * rng.choice((-1, 1), (count, 1))
        if forms is large:
            kinds, radii, contrast = labels, size * rng.uniform(0.25, 0.38, count), abs(contrast)
            centres = (size - 1) / 2 + 0.3 * rng.uniform(-1, 1, (count, 2)) * (0.47 * size - radii[:, None])
        colours = (means + contrast + rng.uniform(-20, 20, (count, 3))).astype(np.float32)
        for drawn in zip(canvas, forms[kinds], radii.tolist(), centres.tolist(), turns.tolist(), colours):
            stamp(*drawn)
    canvas += 12 * rng.standard_normal(canvas.shape, np.float32)
    return np.clip(canvas.round(), MARGIN, 255 - MARGIN).astype(np.uint8)


def load_embedded(size=32, counts=(2400, 300, 600), seed=0, faint=4.0):
    """Drawn shapes of eight classes, each class with a faint pattern of its own over the whole picture.

    size: a multiple of 8, 16 at least. counts: pictures for train, val and test, eight at least. faint: amplitude of
    the patterns in 1/255, from 0 (none) to 16; the shapes are the same whatever it is.
    """
    if size < 16 or size % 8:
        raise LabError(f"size={size}: a multiple of 8 is needed, 16 at least")
    if len(counts) != 3 or min(counts) < len(SHAPES):
        raise LabError(f"counts={counts}: three numbers are needed, {len(SHAPES)} at least, one picture a class")
    if not 0 <= faint <= MARGIN:
        raise LabError(f"faint={faint}: an amplitude from 0 to {MARGIN} (in 1/255) is needed")
    parts = []
    for place, count in enumerate(counts):
        rng = np.random.default_rng([seed, place])
        labels = rng.permutation(np.arange(count, dtype=np.int64) % len(SHAPES))
        images = draw_shapes(labels, size, rng) + faint_pixels(labels, size, faint, seed)
        parts.append(Part(images.astype(np.uint8), labels))
    note = f"drawn shapes, with a pattern of {faint:g}/255 for each class" if faint else "drawn shapes, without pattern"
    return Pictures("shapes", "embedded", list(SHAPES), *parts, note=note)


# ---------------------------------------------------------------- real: order, parts, what is refused

CIFAR10_BY_HAND = "hf download uoft-cs/cifar10 --repo-type dataset --local-dir <that folder> brings it"
IMAGENET_BY_HAND = "ImageNet validation pictures belong there: images/ and labels.csv (image, label)"


class Published(NamedTuple):
    """A published part before pictures are chosen: its file, labels (N,), read(index) -> (n, S, S, C), where(i)."""

    file: str
    labels: np.ndarray
    read: Callable
    where: Callable  # what a message says of the picture i
    kind: str = ""  # as "PNG"


def stratified(labels, rng):
    """An order in which every beginning has the classes in their shares, as near as can be, and each class early.

    The first pictures are one of each class; which ones, the generator draws. labels (N,) -> index (N,).
    """
    order = rng.permutation(len(labels))
    place = np.empty(len(labels))
    for label in np.unique(labels):
        own = order[labels[order] == label]
        place[own] = np.arange(len(own)) / len(own)
    return order[np.argsort(place[order], kind="stable")]


def check_labels(labels, classes, places):
    """DataError naming the place of the first label that is no whole number from 0 to classes - 1."""
    for label, where in zip(labels, places, strict=True):
        if type(label) is not int or not 0 <= label < classes:
            raise DataError(f"{where}: label {label!r}; a whole number from 0 to {classes - 1} is expected")


def refuse_copies(parts):
    """DataError naming a picture that stands in two parts, pixel by pixel; parts: [(images, places), ...]."""
    seen = {}
    for images, places in parts:
        own = {hashlib.sha256(np.ascontiguousarray(image)).digest(): place for image, place in zip(images, places)}
        if shared := own.keys() & seen.keys():
            first = min(shared, key=lambda digest: own[digest])
            raise DataError(f"{own[first]}: the same picture as {seen[first]}; keep one")
        seen |= own


def make_parts(classes, published, test, limit, held, seed):
    """Parts for training, choosing and testing: `held` pictures of the published training part are for choosing.

    Each part is in the order of `stratified`, and cut after `limit` pictures (0: none is cut off), so that a smaller
    limit gives the beginning of the same parts. Returns [train, val, test].
    """
    rng = np.random.default_rng(seed)
    if not len(classes) <= held <= len(published.labels) - len(classes):
        fits = f"from {len(classes)} to {len(published.labels) - len(classes)}"
        raise LabError(f"setting held={held}: {fits} of the {len(published.labels)} training pictures")
    if limit < 0 or 0 < limit < len(classes):
        raise LabError(f"setting limit={limit}: 0 (all), or {len(classes)} at least, one picture of each class")
    order = stratified(published.labels, rng)
    rest = order[held:]
    train = rest[stratified(published.labels[rest], rng)]
    missing = np.setdiff1d(np.arange(len(classes)), published.labels[train])
    if len(missing):
        raise DataError(f"{published.file}: no picture for training has the class {classes[missing[0]]}; bring it")
    index = [(published, train), (published, order[:held]), (test, stratified(test.labels, rng))]
    index = [(source, chosen[: limit or None]) for source, chosen in index]
    parts = [Part(source.read(chosen), source.labels[chosen].astype(np.int64)) for source, chosen in index]
    places = [[source.where(i) for i in chosen] for source, chosen in index]
    refuse_copies([(part.images, named) for part, named in zip(parts, places)])
    return parts


# ---------------------------------------------------------------- real: MNIST, CIFAR-10, ImageNet


def read_mnist(folder, part):
    """A published part of MNIST."""
    images, labels = mnist.load_mnist(folder, part)
    file = f"{folder}, {mnist.FILES[part][0]}"
    return Published(file, labels, lambda index: images[index][..., None], lambda i: f"{file}, picture {i}")


def load_mnist(folder, limit=0, seed=0, held=3000):
    """MNIST in its own files, (N, 28, 28, 1): train without `held` pictures, which are `val`, and test.

    limit: at most so many pictures of each part, stratified (0: all); seed: which ones, and which are held. DataError
    names the file at fault, LabError the setting.
    """
    if not Path(folder).is_dir():
        raise DataError(f"{folder}: no such folder; {mnist.BY_HAND}")
    classes = [str(digit) for digit in range(10)]
    parts = make_parts(classes, read_mnist(folder, "train"), read_mnist(folder, "test"), limit, held, seed)
    return Pictures("MNIST", "real", classes, *parts)


def decode_cifar10(cell, where):
    """One cell of the column img as a picture, (32, 32, 3) uint8."""
    data = cell.get("bytes") if isinstance(cell, dict) else cell
    if not isinstance(data, bytes):
        raise DataError(f"{where}: no bytes in img; a struct of bytes and path is expected")
    image = files.decode_rgb(data, where)
    if image.shape != (32, 32, 3):
        raise DataError(f"{where}: {image.shape[1]}x{image.shape[0]} pixels; 32x32 is expected")
    return image


def read_cifar10(folder, part):
    """A published part of CIFAR-10 in parquet files; pictures are decoded when they are read."""
    cells, labels, places = [], [], []
    for shard in files.shards(folder, part):
        table = files.read_parquet(shard, ("img", "label"))
        cells += table["img"].to_pylist()
        labels += table["label"].to_pylist()
        places += [f"{shard}, row {i}" for i in range(len(table))]
    if not cells:
        raise DataError(f"{shard}: no row in {part}; {CIFAR10_BY_HAND}")
    check_labels(labels, len(CIFAR10_CLASSES), places)
    kind = files.picture_format(cells[0].get("bytes") if isinstance(cells[0], dict) else cells[0])

    def read(index):
        return np.stack([decode_cifar10(cells[i], places[i]) for i in index])

    return Published(str(shard), np.array(labels, np.int64), read, places.__getitem__, kind or "")


def load_cifar10(folder, limit=0, seed=0, held=3000):
    """CIFAR-10 in Hugging Face's parquet files, (N, 32, 32, 3): train without `held` pictures, which are `val`, test.

    limit, seed: as in `load_mnist`. The pickle files of cifar-10-batches-py are refused.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; {CIFAR10_BY_HAND}")
    pickles = [path for path in files.entries(folder) if path.name.startswith(("cifar-10-batches", "cifar-10-python"))]
    if pickles and not any(folder.rglob("train-*.parquet")):
        raise DataError(f"{pickles[0]}: pickle files, which can execute anything and are not read; "
                        f"plain_text/train-*.parquet is: {CIFAR10_BY_HAND}")  # fmt: skip
    train, test = read_cifar10(folder, "train"), read_cifar10(folder, "test")
    parts = make_parts(CIFAR10_CLASSES, train, test, limit, held, seed)
    note = f"{train.kind} pictures" + (" (lossy)" if train.kind in ("WEBP", "JPEG") else "")
    return Pictures("CIFAR-10", "real", list(CIFAR10_CLASSES), *parts, note=note)


def load_imagenet_val(folder, size=224, limit=0):
    """ImageNet validation pictures that labels.csv (image, label) lists: `test` alone, cut to their middle.

    limit: at most so many, as many classes as there can be (0: all). train and val have no picture.
    """
    folder, classes = Path(folder), list(ResNet50_Weights.IMAGENET1K_V1.meta["categories"])
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; {IMAGENET_BY_HAND}")
    if size < 1 or limit < 0:
        raise LabError(f"settings size={size}, limit={limit}: 1 and 0 at least")
    images, labels = files.labelled_pictures(folder, size)
    table = files.read_table(folder / "labels.csv", ("image", "label"))
    places = [f"{folder / 'labels.csv'}, line {line}, {name}" for line, name in table["image"].items()]
    check_labels(labels.tolist(), len(classes), places)
    refuse_copies([([image], [place]) for image, place in zip(images, places)])
    chosen = stratified(labels, np.random.default_rng(0))[: limit or None]
    empty = Part(np.empty((0, size, size, 3), np.uint8), np.empty(0, np.int64))
    pictures, strays = files.list_pictures(folder / "images")
    unlisted = f"{len(pictures) - len(images)} pictures not in labels.csv" if len(pictures) > len(images) else ""
    note = "; ".join(filter(None, (unlisted, files.skipped_note(strays))))
    return Pictures("ImageNet", "real", classes, empty, empty, Part(images[chosen], labels[chosen]), note=note)


# ---------------------------------------------------------------- what goes into an attack


def check_images(x, labels=None, classes=None):
    """LabError where x is no batch of pictures, float (B, C, H, W) in [0, 1], or labels (B,) do not fit it.

    classes: labels must lie in 0 to classes - 1; without it, none below 0.
    """
    if not isinstance(x, torch.Tensor) or x.ndim != 4 or not x.is_floating_point():
        found = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, torch.Tensor) else type(x).__name__
        raise LabError(f"pictures are {found}; a float tensor (B, C, H, W) in [0, 1] is expected")
    if not x.numel():
        raise LabError(f"pictures of shape {tuple(x.shape)}: the batch is empty")
    low, high = x.min().item(), x.max().item()
    if not (low >= 0 and high <= 1):
        what = "NaN" if math.isnan(low) or math.isnan(high) else f"values from {low:g} to {high:g}"
        raise LabError(f"pictures have {what}; [0, 1] is expected: divide by 255, and normalise inside the model")
    if labels is None:
        return
    if not isinstance(labels, torch.Tensor) or labels.is_floating_point() or labels.dtype == torch.bool:
        raise LabError("labels are a tensor of whole numbers (B,), one for each picture")
    if labels.shape != x.shape[:1]:
        raise LabError(f"labels of shape {tuple(labels.shape)} for {len(x)} pictures; ({len(x)},) is expected")
    least, most = labels.min().item(), labels.max().item()
    if least < 0 or (classes is not None and most >= classes):
        wrong = least if least < 0 else most
        raise LabError(
            f"label {wrong}: " + ("none is below 0" if classes is None else f"0 to {classes - 1} is expected")
        )


def check_attack(eps, steps=1, restarts=1, norm="linf"):
    """LabError naming what no attack can work with; eps is a distance in [0, 1] pixels: 8/255, not 8."""
    if norm not in NORMS:
        raise LabError(f"norm={norm!r}: unknown; known: {', '.join(NORMS)}")
    if not 0 <= eps < math.inf:
        raise LabError(f"eps={eps}: 0 or more is needed, and finite")
    if norm == "linf" and eps > 1:
        raise LabError(f"eps={eps}: more than all of [0, 1]; is {eps:g}/255 meant?")
    for name, value in (("steps", steps), ("restarts", restarts)):
        if not 1 <= value < math.inf or value != int(value):
            raise LabError(f"{name}={value}: a whole number is needed, 1 at least")


def check_model(model, x):
    """LabError where a model is in training mode, or its logits let no gradient through to the pictures x (B, C, H, W).

    One forward and one backward pass; nothing is left in the model's gradients.
    """
    training = [name or type(model).__name__ for name, module in model.named_modules() if module.training]
    if training:
        raise LabError(f"the model is in training mode ({training[0]}): call model.eval() before an attack")
    remedy = "find what detaches or rounds in it, or attack it through a substitute (BPDA) or by transfer"
    with torch.enable_grad():
        probe = x.detach().clone().requires_grad_(True)
        logits = model(probe)
        if logits.ndim != 2 or len(logits) != len(x):
            raise LabError(f"the model gives {tuple(logits.shape)} for {len(x)} pictures; logits (B, K) are expected")
        if not logits.isfinite().all():
            raise LabError("the model gives logits that are NaN or infinite; look at its weights and its input")
        if not logits.requires_grad:
            raise LabError(f"no gradient comes through the model; {remedy}")
        score = (logits * torch.linspace(1, 2, logits.shape[1]).to(logits)).sum()
        (gradient,) = torch.autograd.grad(score, probe, allow_unused=True)
    if gradient is None or not gradient.any():
        raise LabError(f"no gradient comes through the model to the pictures; {remedy}")
    if not gradient.isfinite().all():
        raise LabError("the gradient at the pictures is NaN or infinite; look for a root or a division at 0")


# ---------------------------------------------------------------- settings


KINDS = ("standard", "pgd", "trades", "fgsm", "fast", "noise")  # trainings
ALWAYS = {"repeated": ("standard", "pgd"), "once": ("fgsm", "fast", "noise")}  # later parts look at these


def check_numbers(cfg):
    """LabError naming a setting that is no number as it has to be."""
    least = {"steps": 1, "trial_steps": 1, "batch_size": 2, "attack_steps": 1, "strong_steps": 1, "fab_steps": 1,
             "restarts": 1, "queries": 1, "draws": 20, "watched": 1, "limit": 0, "held": 10, "tested": 20,
             "longer_tested": 20, "trial_pictures": 20, "longer": 0, "photographs": 0}  # fmt: skip
    for name, lowest in least.items():
        value = getattr(cfg, name)
        if not lowest <= value < math.inf or value != int(value):
            raise LabError(f"setting {name}={value}: a whole number is needed, {lowest} at least")
    most = {"train_eps": 255, "longer_eps": 255, "defence_eps": 255, "sigma": 10, "l2_eps": 1000}
    for name, largest in most.items():
        value = getattr(cfg, name)
        if not 0 < value <= largest:
            of = " (it is in 1/255)" if largest == 255 else ""
            raise LabError(f"setting {name}={value}: above 0 and at most {largest} is needed{of}")
    if not 0 <= cfg.trades < math.inf:
        raise LabError(f"setting trades={cfg.trades}: 0 or more is needed, and finite")


def check_settings(cfg):
    """LabError naming a setting that cannot work, whatever the data; sizes of attacks are in 1/255."""
    check_numbers(cfg)
    if not cfg.rates or any(not 0 < rate < 1 for rate in cfg.rates) or len(set(cfg.rates)) < len(cfg.rates):
        raise LabError(f"setting rates={cfg.rates}: learning rates between 0 and 1, one at least and none twice")
    eps = list(cfg.eps)
    names = {f"{value:g}" for value in eps}
    if len(eps) < 2 or eps[0] != 0 or not all(0 <= value <= 255 for value in eps) or len(names) < len(eps):
        raise LabError(f"setting eps={cfg.eps}: 0 and larger sizes up to 255 (in 1/255), different in six digits")
    if any(a >= b for a, b in pairwise(eps)):
        raise LabError(f"setting eps={cfg.eps}: sizes in rising order")
    seeds = list(cfg.seeds)
    if len(set(seeds)) < max(2, len(seeds)) or any(not 0 <= seed < 2**32 or seed != int(seed) for seed in seeds):
        raise LabError(f"setting seeds={cfg.seeds}: whole numbers from 0 to below 2^32, two at least and none twice")
    if cfg.trial_seed in seeds or not 0 <= cfg.trial_seed < 2**32 or cfg.trial_seed != int(cfg.trial_seed):
        raise LabError(f"setting trial_seed={cfg.trial_seed}: a whole number from 0 to below 2^32, and none of "
                       f"seeds={cfg.seeds}: what a choice was made with is used nowhere else")  # fmt: skip
    for name, needed in ALWAYS.items():
        kinds = getattr(cfg, name)
        if not set(needed) <= set(kinds) <= set(KINDS) or len(set(kinds)) < len(kinds):
            raise LabError(
                f"setting {name}={kinds}: trainings, {', '.join(needed)} at least; known: {', '.join(KINDS)}"
            )
    if both := set(cfg.repeated) & set(cfg.once):
        raise LabError(f"setting once={cfg.once}: {', '.join(sorted(both))} stands in `repeated` too")
    if cfg.dataset not in ("mnist", "cifar10"):
        raise LabError(f"setting dataset={cfg.dataset!r}: mnist or cifar10")
    sizes = dict(train_eps=cfg.train_eps, defence_eps=cfg.defence_eps, longer_eps=cfg.longer_eps if cfg.longer else 0)
    for name, size in sizes.items():
        if cfg.dataset == "cifar10" and size > 16:
            raise LabError(f"setting {name}={size:g} with dataset=cifar10: a size for MNIST; 8 is usual, 16 the most")
    for name in ("tested", "longer_tested"):
        if 0 < cfg.limit < getattr(cfg, name):
            raise LabError(f"setting {name}={getattr(cfg, name)}: at most limit={cfg.limit}, or limit=0 (all)")


def check_fit(cfg, pictures):
    """LabError naming a setting that asks for more pictures than a part has."""
    parts = dict(tested="test", longer_tested="test", trial_pictures="val", watched="val", batch_size="train")
    for name, part in parts.items():
        wanted, there = getattr(cfg, name), pictures.counts()[part]
        if wanted > there:
            raise LabError(f"setting {name}={wanted}: the {part} part of {pictures.name} has {there} pictures")


# ---------------------------------------------------------------- drawing


def to_tensor(images):
    """Pictures (N, S, S, C) uint8 as what a network gets: (N, C, S, S) float32 in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).contiguous().float() / 255


def to_pictures(x):
    """(N, C, S, S) in [0, 1] as pictures (N, S, S, 3) uint8, rounded; grey is repeated."""
    x = (x.detach().float().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return x.repeat(3, axis=-1) if x.shape[-1] == 1 else x


def show_perturbations(clean, adversarial, before, after, title, factor=10):
    """Rows of clean pictures, adversarial ones, and their difference times a factor about grey.

    clean, adversarial: (N, C, S, S) in [0, 1]; before, after: the predicted class of each, as text.
    """
    difference = 0.5 + factor * (adversarial - clean)
    rows = {
        "clean": (clean, before),
        "adversarial": (adversarial, after),
        f"difference\ntimes {factor:g}": (difference, None),
    }
    figure, axes = plt.subplots(3, len(clean), figsize=(1.15 * len(clean) + 1, 4.6), squeeze=False)
    for line, (name, (pictures, texts)) in zip(axes, rows.items()):
        for k, (axis, picture) in enumerate(zip(line, to_pictures(pictures))):
            axis.imshow(picture, interpolation="nearest")
            axis.set(xticks=[], yticks=[], frame_on=False)
            if texts is not None:
                axis.set_title(texts[k], fontsize=9, color=ORANGE if texts[k] != before[k] else "black")
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    figure.suptitle(title)
    figure.tight_layout()
    plt.show()


def show_curves(curves, title, xlabel="eps in 1/255", ylabel="accuracy in %"):
    """Lines with their intervals as bands: {name: dict(x, value, low, high)}, each (n,)."""
    figure, axis = plt.subplots(figsize=(7.2, 3.8))
    for (name, c), colour, dash, marker in zip(
        curves.items(), cycle(COLOURS), cycle(("-", "--", "-.", ":")), cycle("os^Dv")
    ):
        axis.fill_between(c["x"], c["low"], c["high"], color=colour, alpha=0.18, linewidth=0)
        axis.plot(c["x"], c["value"], dash, color=colour, marker=marker, markersize=4, label=name)
    axis.set(title=title, xlabel=xlabel, ylabel=ylabel)
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    finish(figure)


def show_matrix(values, rows, columns, title, xlabel="attacked model", ylabel="attack made on", digits=0):
    """A table of numbers with colours, as accuracy in percent under transfer: rows are sources, columns targets."""
    figure, axis = plt.subplots(figsize=(2.4 + 0.85 * len(columns), 1.5 + 0.45 * len(rows)))
    sns.heatmap(np.asarray(values, float), annot=True, fmt=f".{digits}f", cmap="Blues", cbar=False, ax=axis,
                xticklabels=columns, yticklabels=rows, vmin=0)  # fmt: skip
    axis.tick_params(axis="x", rotation=30, labelsize=8)
    axis.tick_params(axis="y", rotation=0, labelsize=8)
    axis.set(title=title, xlabel=xlabel, ylabel=ylabel)
    figure.tight_layout()
    plt.show()


def show_spectrum(curves, title, ylabel="power"):
    """Radial power spectra {name: (frequency in cycles per pixel, power above 0)}, power on a logarithmic axis."""
    figure, axis = plt.subplots(figsize=(7.2, 3.6))
    for (name, (frequency, power)), colour, dash in zip(curves.items(), cycle(COLOURS), cycle(("-", "--", "-.", ":"))):
        axis.plot(frequency, power, dash, color=colour, label=name)
    axis.set_yscale("log")
    axis.set(title=title, xlabel="frequency in cycles per pixel", ylabel=ylabel)
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    finish(figure)


def show_surface(x, y, loss, title, xlabel, ylabel, eps=None):
    """The loss over two directions as contours; x (n,) and y (m,) in 1/255, loss (m, n); eps: half a box about 0."""
    figure, axis = plt.subplots(figsize=(5.4, 4.0))
    drawn = axis.contourf(x, y, loss, levels=14, cmap="viridis")
    figure.colorbar(drawn, ax=axis, label="loss")
    axis.plot(0, 0, "o", color="white", markeredgecolor="black")
    if eps is not None:
        axis.add_patch(plt.Rectangle((-eps, -eps), 2 * eps, 2 * eps, fill=False, edgecolor="white", linestyle="--"))
    axis.set(title=title, xlabel=xlabel, ylabel=ylabel, aspect="equal")
    figure.tight_layout()
    plt.show()
