"""Data for unsupervised domain adaptation: no model, no loss, no method.

A picture is uint8 (S, S, 3). Labels of the target's training pictures exist, because its makers know them, but they lie
apart (`Pair.answers`): only the upper bound, the oracle choice and the test may ask for them.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from sklearn.datasets import load_digits, load_sample_images

from nndl import files, mnist
from nndl.figures import (  # noqa: F401 (notebooks take them from here)
    BLUE,
    GREY,
    ORANGE,
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
    """Pictures of one domain with their labels: images (N, S, S, 3) uint8, labels (N,)."""

    images: np.ndarray
    labels: np.ndarray


@dataclass
class Pair:
    """A labelled source, an unlabelled target, and test parts of both."""

    name: str
    source: str  # "real" or "embedded": where the pictures come from
    classes: int
    labelled: Part  # source, for training
    held: Part  # source, for choosing
    unlabelled: np.ndarray  # target, for training: images alone
    answers: np.ndarray  # their labels: for the upper bound and the oracle choice, nowhere else
    source_test: Part
    target_test: Part
    note: str = ""

    def counts(self):
        """Number of pictures in each part."""
        parts = dict(labelled=self.labelled.labels, held=self.held.labels, unlabelled=self.unlabelled,
                     source_test=self.source_test.labels, target_test=self.target_test.labels)  # fmt: skip
        return {name: len(part) for name, part in parts.items()}

    def arrays(self):
        """All arrays in a fixed order, for fingerprints."""
        return [*self.labelled, *self.held, self.unlabelled, self.answers, *self.source_test, *self.target_test]


# ---------------------------------------------------------------- pictures over photographs


def blend(digits, photos, seed):
    """Digits over random crops of photographs, by absolute difference (Ganin et al. 2016, section 5.2.4).

    digits: (N, S, S) uint8; photos: list of (h, w, 3) uint8, at least S x S; each channel becomes |crop - digit|. The
    photograph and the place of each crop come from the seed, digit by digit. Returns (N, S, S, 3) uint8.
    """
    rng, size = np.random.default_rng(seed), digits.shape[1]
    out = np.empty((*digits.shape, 3), np.uint8)
    for place, digit in enumerate(digits):
        photo = photos[rng.integers(len(photos))]
        y, x = (rng.integers(0, side - size + 1) for side in photo.shape[:2])
        crop = photo[y : y + size, x : x + size].astype(np.int16)
        out[place] = np.abs(crop - digit[:, :, None].astype(np.int16))
    return out


def in_colour(digits):
    """White digits on black: (N, S, S) -> (N, S, S, 3), three equal channels."""
    return np.repeat(digits[..., None], 3, axis=-1)


def make_pair(name, source, parts, photos, seed, note):
    """A Pair from digits: parts {"labelled" | "held" | "unlabelled" | "source_test" | "target_test": (digits, labels)}.

    photos: lists for training and for testing, which share no photograph.
    """
    plain = {key: Part(in_colour(parts[key][0]), parts[key][1]) for key in ("labelled", "held", "source_test")}
    unlabelled = blend(parts["unlabelled"][0], photos[0], seed)
    target_test = Part(blend(parts["target_test"][0], photos[1], seed + 1), parts["target_test"][1])
    return Pair(name, source, 10, **plain, unlabelled=unlabelled, answers=parts["unlabelled"][1],
                target_test=target_test, note=note)  # fmt: skip


def swapped(pair):
    """The other direction: the blended domain has the labels, plain digits have none.

    The blended training pictures become the labelled source (a tenth of them is held for choosing), the plain ones the
    target; no digit is in both.
    """
    cut = len(pair.unlabelled) // 10
    labelled, held = (Part(pair.unlabelled[index], pair.answers[index]) for index in (slice(cut, None), slice(0, cut)))
    return replace(pair, name=f"{pair.name}, the other way", labelled=labelled, held=held,
                   unlabelled=pair.labelled.images, answers=pair.labelled.labels,
                   source_test=pair.target_test, target_test=pair.source_test)  # fmt: skip


# ---------------------------------------------------------------- embedded


def load_embedded(size=16, seed=0):
    """scikit-learn's digits, and other ones of them over scikit-learn's two sample photographs.

    1,797 digits of 8 x 8, enlarged: 600 are the source's, 180 are held for choosing, 600 others are the target's; the
    417 that are left are the test part, the same ones in both domains. Test crops come from the right third of the
    photographs, training crops from the left two.
    """
    digits = load_digits()
    images = np.stack([cv2.resize(np.uint8(image * 255 / 16), (size, size), interpolation=cv2.INTER_LINEAR)
                       for image in digits.images])  # fmt: skip
    labels = digits.target.astype(np.int64)
    order = np.random.default_rng(seed).permutation(len(labels))
    ends = np.cumsum([600, 180, 600])
    index = dict(zip(("labelled", "held", "unlabelled", "test"), np.split(order, ends)))
    parts = {key: (images[where], labels[where]) for key, where in index.items()}
    parts["source_test"] = parts["target_test"] = parts.pop("test")
    photos = [
        cv2.resize(photo, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for photo in load_sample_images().images
    ]
    cut = 2 * photos[0].shape[1] // 3
    note = "scikit-learn's digits, 8 x 8 enlarged, and parts of its two sample photographs at half size"
    return make_pair(
        "digits", "embedded", parts, ([p[:, :cut] for p in photos], [p[:, cut:] for p in photos]), seed, note
    )


# ---------------------------------------------------------------- real


BY_HAND = "the photographs of BSDS500 (BSR_bsds500.tgz) belong there, in images/train and images/test"


def load_photos(folder, smallest):
    """Photographs of a folder, sorted by name: list of (h, w, 3) uint8, and what was left out."""
    if not Path(folder).is_dir():
        raise DataError(f"{folder}: no such folder; {BY_HAND}")
    paths, skipped = files.list_pictures(Path(folder))
    if not paths:
        raise DataError(f"{folder}: no photograph; {BY_HAND}")
    photos = []
    for path in paths:
        photo = files.decode_rgb(files.read_bytes(path), path)
        if min(photo.shape[:2]) < smallest:
            raise DataError(f"{path}: {photo.shape[1]} x {photo.shape[0]} pixels; a crop needs {smallest} x {smallest}")
        photos.append(photo)
    return photos, skipped


def first_of_each(images, labels, count):
    """The first `count` pictures of each digit, in the order in which they stand."""
    rank = np.empty(len(labels), int)
    for digit in np.unique(labels):
        rank[labels == digit] = np.arange((labels == digit).sum())
    return images[rank < count], labels[rank < count]


def refuse_shared_digits(parts, folder):
    """DataError where digits are black on white, or where more than one in a hundred of a part stands in another."""
    if np.median([images.mean() for images, _ in parts.values()]) > 160:
        raise DataError(f"{folder}: digits are dark on bright ground; white ones on black are expected")
    seen = {key: {image.tobytes() for image in images} for key, (images, _) in parts.items()}
    for first, second in (("labelled", "unlabelled"), ("labelled", "target_test"), ("unlabelled", "target_test")):
        shared = len(seen[first] & seen[second])
        if 100 * shared > len(seen[second]):
            raise DataError(
                f"{folder}: {shared} digits of {second} stand in {first} too; the files of training and test part may "
                "be copies of each other"
            )


def load_mnist_pair(digits_folder, photos_folder, limit=0, seed=0):
    """MNIST and MNIST-M, made here (Ganin et al. 2016).

    Source digits are the first half of MNIST's training part, target digits the second, so no digit is in both; the
    last tenth of the first half is held for choosing. Photographs of images/train lie under the training pictures,
    those of images/test under the test pictures. limit: at most so many pictures in each part (0: all).
    """
    images, labels = mnist.load_mnist(digits_folder, "train")
    test = mnist.load_mnist(digits_folder, "test")
    (train_photos, skipped), (test_photos, strays) = (
        load_photos(Path(photos_folder) / "images" / part, images.shape[1]) for part in ("train", "test")
    )
    same = {photo.tobytes() for photo in train_photos} & {photo.tobytes() for photo in test_photos}
    if same:
        raise DataError(
            f"{photos_folder}: {len(same)} photographs stand in images/train and images/test; keep one of each"
        )
    half, held = len(images) // 2, len(images) // 20
    index = {"labelled": slice(0, half - held), "held": slice(half - held, half), "unlabelled": slice(half, None)}
    parts = {key: (images[where], labels[where]) for key, where in index.items()}
    parts |= {"source_test": test, "target_test": test}
    refuse_shared_digits(parts, digits_folder)
    if limit:
        parts = {key: first_of_each(*part, limit // 10) for key, part in parts.items()}
    note = "; ".join(filter(None, (f"MNIST-M made here with {len(train_photos)} and {len(test_photos)} photographs "
                                   f"of {np.median([photo.size // 3 for photo in train_photos]) / 1000:.0f} kilopixels",
                                   files.skipped_note(skipped + strays))))  # fmt: skip
    return make_pair("MNIST to MNIST-M", "real", parts, (train_photos, test_photos), seed, note)


# ---------------------------------------------------------------- what fits


def check_pair(pair):
    """DataError naming a part of a pair that is empty, of another size or type, or lacks a label or a class."""
    parts = {"labelled": pair.labelled.images, "held": pair.held.images, "unlabelled": pair.unlabelled,
             "source_test": pair.source_test.images, "target_test": pair.target_test.images}  # fmt: skip
    for name, images in parts.items():
        if not len(images):
            raise DataError(f"{pair.name}: the part {name} has no picture")
        if images.ndim != 4 or images.dtype != np.uint8:
            raise DataError(
                f"{pair.name}: {name} is {images.dtype} {images.shape}; uint8 (N, S, S, channels) is expected"
            )
    shapes = {name: images.shape[1:] for name, images in parts.items()}
    other = [name for name, shape in shapes.items() if shape != shapes["labelled"]]
    if other:
        raise DataError(f"{pair.name}: pictures of {other[0]} are {shapes[other[0]]}, those of the source "
                        f"{shapes['labelled']}; bring both domains to one size and number of channels")  # fmt: skip
    known = {"labelled": pair.labelled.labels, "held": pair.held.labels, "source_test": pair.source_test.labels,
             "target_test": pair.target_test.labels, "unlabelled": pair.answers}  # fmt: skip
    for name, labels in known.items():
        if labels.shape != parts[name].shape[:1]:
            raise DataError(f"{pair.name}: {labels.shape} labels for {len(parts[name])} pictures of {name}")
        if labels.min() < 0 or labels.max() >= pair.classes:
            raise DataError(f"{pair.name}: {name} has a label outside 0 to {pair.classes - 1}")
    for name in ("labelled", "target_test"):
        missing = sorted(set(range(pair.classes)) - set(known[name].tolist()))
        if missing:
            raise DataError(f"{pair.name}: {name} has no picture of class {missing[0]}")


def check_settings(cfg):
    """LabError naming a setting that cannot work, whatever the data."""
    least = dict.fromkeys(("width", "gan_width", "critic_width", "blocks", "looks"), 1)
    least |= {"seed": 0, "limit": 0, "noise": 0, "steps": 1, "batch_size": 2, "watched": 20, "size": 8}
    for name, lowest in least.items():
        if getattr(cfg, name) < lowest:
            raise LabError(f"setting {name}={getattr(cfg, name)}: at least {lowest} is needed")
    if 0 < cfg.limit < 40:
        raise LabError(f"setting limit={cfg.limit}: 0 (all), or 40 at least, four of each digit")
    if cfg.size % 4 or cfg.size > 96:
        raise LabError(f"setting size={cfg.size}: a multiple of 4, at most 96")
    if cfg.steps > 1_000_000:
        raise LabError(f"setting steps={cfg.steps}: at most 1,000,000, so that seeds do not share batches")
    if cfg.looks > cfg.steps:
        raise LabError(f"setting looks={cfg.looks}: at most one in each of steps={cfg.steps}")
    for name in ("lr", "critic_lr", "decay"):
        if not 0 < getattr(cfg, name) < 1:
            raise LabError(f"setting {name}={getattr(cfg, name)}: between 0 and 1")
    if not 0 < cfg.semantic < float("inf"):
        raise LabError(f"setting semantic={cfg.semantic}: above 0, and finite")
    for name in ("critic_noise", "cycle", "identity"):
        if not 0 <= getattr(cfg, name) < float("inf"):
            raise LabError(f"setting {name}={getattr(cfg, name)}: 0 or more, and finite")
    for name in ("seeds", "dann_weights", "pixel_weights"):
        values = getattr(cfg, name)
        if not values or len(set(values)) < len(values) or min(values) < 0:
            raise LabError(f"setting {name}={values}: at least one value is needed, none below 0 and none twice")
    if max(cfg.seeds) >= 2**32:
        raise LabError(f"setting seeds={cfg.seeds}: below 2^32")
    if len(cfg.seeds) < 2:
        raise LabError(f"setting seeds={cfg.seeds}: two seeds at least, for an interval")
    if cfg.pool < cfg.batch_size:
        raise LabError(f"setting pool={cfg.pool}: at least batch_size={cfg.batch_size}")


# ---------------------------------------------------------------- drawing


def to_pictures(x):
    """(N, 3, S, S) in [-1, 1] -> (N, S, S, 3) uint8, rounded."""
    x = ((x.detach().float().clamp(-1, 1) + 1) * 127.5).round().byte()
    return x.permute(0, 2, 3, 1).cpu().numpy()


def over_steps(log, part, factor=1.0):
    """(steps, values) of a log's entry, values times a factor."""
    return np.array([row["step"] for row in log]), factor * np.array([row[part] for row in log])


class AsFeatures(torch.nn.Module):
    """Stands where torchmetrics wants a feature extractor: vectors come in, and go out as they are."""

    def __init__(self, num_features):
        super().__init__()
        self.num_features = num_features

    def forward(self, x):
        return x
