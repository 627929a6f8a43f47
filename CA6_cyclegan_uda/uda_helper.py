"""Data for unsupervised domain adaptation: no model, no loss, no method.

A picture is uint8 (S, S, 3). Labels of the target's training pictures exist, because its makers know them, but they lie
apart (`Pair.answers`): only the upper bound, the oracle choice and the test may ask for them.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from sklearn.datasets import load_digits, load_sample_images

from nndl import files, mnist
from nndl.files import DataError


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
    parts = {key: (part[0][: limit or None], part[1][: limit or None]) for key, part in parts.items()}
    note = "; ".join(filter(None, (f"MNIST-M made here with {len(train_photos)} and {len(test_photos)} photographs",
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
