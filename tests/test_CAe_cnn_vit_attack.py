"""CAe_cnn_vit_attack: drawn shapes, real files, what is refused, settings, drawing; attacks, what counts as robust,
certificates, defences, networks, training.
"""

import copy
import dataclasses
import functools
import gc
import hashlib
import importlib.util
import itertools
import math
import shutil
from functools import partial
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
import torchattacks
from drafts import definitions
from nasty_files import PICTURES, SHARDS, STRAYS, by_name, encode, put_strays, tables
from scipy import optimize, special, stats
from test_mnist import idx, write_mnist
from torch import nn

from nndl import rooms
from nndl.files import DataError
from nndl.records import LabError
from nndl.source import digest
from real_data import REAL, needs


@pytest.fixture(scope="module")
def helper():
    path = rooms.ROOT / "CAe_cnn_vit_attack" / "attack_helper.py"
    spec = importlib.util.spec_from_file_location("attack_helper", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def checksum(arrays):
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()[:16]


# ---------------------------------------------------------------- embedded


@pytest.fixture(scope="module")
def shapes(helper):
    return helper.load_embedded(counts=(80, 16, 160))


def test_the_embedded_pictures(helper, shapes):
    assert shapes.counts() == {"train": 80, "val": 16, "test": 160} and shapes.source == "embedded"
    for part in shapes.parts().values():
        assert part.images.shape == (len(part.labels), 32, 32, 3) and part.images.dtype == np.uint8
        assert part.labels.dtype == np.int64 and set(np.bincount(part.labels)) == {len(part.labels) // 8}
    again, other = (helper.load_embedded(counts=(80, 16, 160), seed=seed) for seed in (0, 1))
    assert checksum(shapes.arrays()) == checksum(again.arrays()) != checksum(other.arrays())
    assert helper.load_embedded(size=16, counts=(8, 9, 10)).test.images.shape == (10, 16, 16, 3)
    part = shapes.test.take(shapes.test.labels == 3)
    assert set(part.labels) == {3} and np.array_equal(part.images[0], shapes.test.images[shapes.test.labels == 3][0])


@pytest.mark.parametrize("faint", [4.0, 16.0, 2.5])
def test_the_pattern_is_all_that_faint_changes(helper, shapes, faint):
    """Taken away, it leaves the same pictures: nothing was cut off at 0 or 255."""
    with_, without = (helper.load_embedded(counts=(80, 16, 160), faint=amount) for amount in (faint, 0))
    for (images, labels), (plain, same) in zip(with_.parts().values(), without.parts().values()):
        added = helper.faint_pixels(labels, 32, faint)
        assert np.array_equal(labels, same) and np.array_equal(images.astype(int) - added, plain)
        assert np.abs(added).max() == round(faint) and np.abs(added).max((1, 2)).min() == round(faint)


def test_patterns_are_high_frequencies_of_their_own(helper):
    found = helper.patterns(18, 32, seed=3)
    assert found.shape == (18, 32, 32, 3) and np.allclose(found.min((1, 2)), -1) and np.allclose(found.max((1, 2)), 1)
    power = np.abs(np.fft.fft2(found, axes=(1, 2))) ** 2
    axis = np.abs(np.fft.fftfreq(32))
    radius = np.maximum(axis[:, None], axis)
    assert power[:, radius < 3 / 8 - 1e-9].sum() < 1e-9 * power.sum(), "nothing below three eighths of a cycle"
    flat = found.reshape(18, -1)
    gram = flat @ flat.T
    assert np.abs(gram - np.diag(np.diag(gram))).max() < 1e-6 * gram.max(), "orthogonal"
    assert np.allclose(found[:, :8, :8], found[:, 8:16, 16:24]), "of period 8"
    assert not np.array_equal(found, helper.patterns(18, 32, seed=4))


def test_a_pattern_alone_tells_the_class_and_an_attack_of_8_can_replace_it(helper, shapes):
    """The largest product with the patterns names the class of every picture; moved by 8/255, it names another."""
    images, labels = shapes.test
    flat = helper.patterns(8, 32).reshape(8, -1)

    def told(pictures):
        return (pictures.reshape(len(pictures), -1) @ flat.T).argmax(1)

    assert np.array_equal(told(images / 1.0), labels)
    other = (labels + 1) % 8
    change = helper.faint_pixels(other, 32) - helper.faint_pixels(labels, 32)
    moved = images + change
    assert np.abs(change).max() <= 8 and moved.min() >= 0 and moved.max() <= 255
    assert np.array_equal(told(moved / 1.0), other)
    plain = helper.load_embedded(counts=(8, 8, 160), faint=0).test
    assert (told(plain.images / 1.0) == plain.labels).mean() < 0.25, "without the pattern it knows nothing"


def test_shapes_are_what_their_names_say(helper):
    forms = dict(zip(helper.SHAPES, helper.stencils(32)))
    assert forms["bar"][16, 4:28].min() == 1 and forms["bar"][8:24, 16].sum() < 9
    assert np.array_equal(forms["column"], forms["bar"].T) and np.allclose(forms["slash"], forms["backslash"][::-1])
    assert forms["backslash"][8, 8] == forms["backslash"][24, 24] == 1 and forms["backslash"][8, 24] == 0
    assert np.array_equal(forms["plus"], np.maximum(forms["bar"], forms["column"]))
    assert np.array_equal(forms["cross"], np.maximum(forms["slash"], forms["backslash"]))
    assert forms["disc"][16, 16] == 1 and forms["ring"][16, 16] == 0 and forms["ring"][16, 5] == 1


def test_a_stamp_lies_where_and_as_large_as_it_says(helper):
    image = np.zeros((64, 64, 3), np.float32)
    helper.stamp(image, helper.stencils(32)[2], 12.0, (20.0, 40.0), 0.0, np.float32([1, 2, 3]))
    ink = image[..., 0]
    y, x = (np.average(grid, weights=ink) for grid in np.mgrid[:64, :64])
    assert abs(x - 20) < 0.1 and abs(y - 40) < 0.1 and np.allclose(image[..., 2], 3 * ink)
    assert abs(ink.sum() - 24 * 0.52 * 12) < 0.05 * 24 * 0.52 * 12 and abs(ink[40].sum() - 24) < 1
    turned = np.zeros((64, 64, 3), np.float32)
    helper.stamp(turned, helper.stencils(32)[2], 12.0, (20.0, 40.0), math.pi / 2, np.float32([1, 2, 3]))
    assert abs(turned[:, 20, 0].sum() - 24) < 1 and abs(turned[40, :, 0].sum() - 6.24) < 1
    edge = np.zeros((32, 32, 3), np.float32)
    helper.stamp(edge, helper.stencils(32)[0], 10.0, (0.0, 31.0), 0.3, np.float32([1, 1, 1]))
    assert abs(edge[..., 0].sum() - math.pi * 8.5**2 / 4) < 12, "a quarter of a disc lies in the picture"


def test_the_large_shape_is_the_class(helper, monkeypatch):
    """Each picture gets a large shape, that of its label and brighter than the ground, under two small ones."""
    drawn, labels = {}, np.arange(160) % 8
    monkeypatch.setattr(helper, "stamp", lambda image, *what: drawn.setdefault(image.ctypes.data, []).append(what))
    helper.draw_shapes(labels, 32, np.random.default_rng(0))
    large = [[what for what in calls if len(what[0]) == 32] for calls in drawn.values()]
    assert [len(calls) for calls in drawn.values()] == [3] * 160 and [len(calls) for calls in large] == [1] * 160
    assert all(np.array_equal(calls[0][0], helper.stencils(32)[label]) for calls, label in zip(large, labels))
    assert all(len(calls[0][0]) == 32 for calls in drawn.values()), "the large one is drawn first"
    radii = [calls[0][1] for calls in large]
    assert 8 <= min(radii) < 8.5 and 11.7 < max(radii) <= 0.38 * 32
    small = [what for calls in drawn.values() for what in calls if len(what[0]) == 10]
    assert max(what[1] for what in small) < 4.2 and len({what[0].tobytes() for what in small}) == 8


@pytest.mark.parametrize("values, words", [
    (dict(size=12), "size=12"), (dict(size=8), "size=8"), (dict(counts=(7, 8, 8)), r"counts=\(7, 8, 8\)"),
    (dict(counts=(8, 8)), "three numbers"), (dict(faint=-1), "faint=-1"), (dict(faint=17), "from 0 to 16"),
    (dict(faint=math.nan), "faint=nan"),
])  # fmt: skip
def test_embedded_data_that_cannot_be_made(helper, values, words):
    with pytest.raises(LabError, match=words):
        helper.load_embedded(**values)


@pytest.mark.parametrize("classes, size", [(0, 32), (19, 32), (8, 20), (8, 0)])
def test_patterns_that_cannot_be_made(helper, classes, size):
    with pytest.raises(LabError, match=f"classes={classes}, size={size}"):
        helper.patterns(classes, size)


# ---------------------------------------------------------------- order and parts


def test_every_beginning_is_stratified(helper):
    labels = np.repeat([0, 1, 2], [600, 300, 3])
    order = helper.stratified(labels, np.random.default_rng(0))
    assert sorted(order) == list(range(903)) and set(labels[order[:3]]) == {0, 1, 2}
    for n in (30, 100, 301, 903):
        shares = np.bincount(labels[order[:n]], minlength=3) * 903 / n
        assert np.abs(shares - [600, 300, 3]).max() < 2.1 * 903 / n
    assert not np.array_equal(order, helper.stratified(labels, np.random.default_rng(1)))


@pytest.fixture
def digits(tmp_path):
    write_mnist(tmp_path, n=200)
    return tmp_path


def test_mnist_in_three_parts(helper, digits):
    data = helper.load_mnist(digits, held=50)
    assert data.counts() == {"train": 150, "val": 50, "test": 200} and data.source == "real"
    assert data.train.images.shape == (150, 28, 28, 1) and data.train.labels.dtype == np.int64
    images, labels = helper.mnist.load_mnist(digits, "train")
    of = {image.tobytes(): label for image, label in zip(images, labels)}
    mixed = np.concatenate([data.train.images, data.val.images])
    assert {image.tobytes() for image in mixed} == set(of), "each training picture stands in one of the two"
    assert [of[image.tobytes()] for image in mixed] == [*data.train.labels, *data.val.labels]
    assert np.bincount(data.val.labels).tolist() == [5] * 10 and np.bincount(data.train.labels).tolist() == [15] * 10
    assert checksum(data.arrays()) == checksum(helper.load_mnist(digits, held=50).arrays())
    assert checksum(data.arrays()) != checksum(helper.load_mnist(digits, held=50, seed=1).arrays())


def test_a_limit_is_stratified_and_gives_the_beginning(helper, digits):
    whole, few = helper.load_mnist(digits, held=50), helper.load_mnist(digits, held=50, limit=20)
    assert few.counts() == {"train": 20, "val": 20, "test": 20}
    for name, part in few.parts().items():
        assert np.bincount(part.labels).tolist() == [2] * 10
        assert np.array_equal(part.images, whole.parts()[name].images[:20])


@pytest.mark.parametrize("values, words", [
    (dict(held=9), "held=9: from 10 to 190"), (dict(held=191), "held=191"), (dict(), "held=3000"),
    (dict(held=50, limit=9), "limit=9"), (dict(held=50, limit=-1), "limit=-1"),
])  # fmt: skip
def test_settings_that_do_not_fit_the_files(helper, digits, values, words):
    with pytest.raises(LabError, match=f"setting {words}"):
        helper.load_mnist(digits, **values)


def test_mnist_that_cannot_be_used(helper, digits):
    with pytest.raises(DataError, match=r"nowhere: no such folder; torchvision.datasets.MNIST"):
        helper.load_mnist(digits / "nowhere")
    raw = digits / "MNIST" / "raw"
    (raw / "train-labels-idx1-ubyte.gz").write_bytes(idx(np.arange(200, dtype=np.uint8) % 9))
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte: no picture for training has the class 9"):
        helper.load_mnist(digits, held=50)
    (raw / "train-labels-idx1-ubyte.gz").write_bytes(b"<html>")
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte.gz: no IDX file \(it is a web page"):
        helper.load_mnist(digits, held=50)


@pytest.mark.parametrize("part, other", [("t10k", "train"), ("train", "train")])
def test_a_digit_in_two_parts_is_named(helper, digits, part, other):
    """Test picture 7 stands in train too; training pictures 7 and 17 are the same, and one of them is held."""
    path, source = (digits / "MNIST" / "raw" / f"{name}-images-idx3-ubyte.gz" for name in (part, other))
    images = helper.mnist.read_idx(path).copy()
    images[7] = helper.mnist.read_idx(source)[17]
    path.write_bytes(idx(images))
    if part == "t10k":
        with pytest.raises(DataError, match=r"t10k-.*, picture 7: the same picture as .*train-.*, picture 17; keep"):
            helper.load_mnist(digits, held=50)
        return
    found = []
    for seed in range(12):
        try:
            helper.load_mnist(digits, held=100, seed=seed)
        except DataError as error:
            found.append(str(error))
    assert 2 <= len(found) <= 10, "copies inside one part are let be"
    assert all("picture 7" in text and "picture 17" in text for text in found)


# ---------------------------------------------------------------- CIFAR-10


def noise(n, seed, size=(32, 32)):
    return np.random.default_rng(seed).integers(0, 256, (n, *size, 3), dtype=np.uint8)


@functools.cache
def cells(seed):
    """One hundred pictures of noise as cells of the column img."""
    return tuple(dict(bytes=encode(image, "PNG"), path=None) for image in noise(100, seed))


def with_cell(place, cell, seed=0):
    """The same with another cell at one place."""
    return [*cells(seed)[:place], cell, *cells(seed)[place + 1 :]]


def write_cifar10(folder, **changes):
    """A small CIFAR-10 of noise; changes: {"train_img" | "test_label" | ...: list in place of the column}, drop."""
    (folder / "plain_text").mkdir()
    for seed, part in enumerate(("train", "test")):
        columns = {"img": list(cells(seed)), "label": 10 * [*range(10)]}
        columns = {name: changes.get(f"{part}_{name}", cell) for name, cell in columns.items()}
        columns.pop(changes.get("drop"), None)
        pq.write_table(pa.table(columns), folder / "plain_text" / f"{part}-00000-of-00001.parquet")
    return folder


def test_cifar10_in_three_parts(helper, tmp_path):
    data = helper.load_cifar10(write_cifar10(tmp_path), held=20)
    assert data.counts() == {"train": 80, "val": 20, "test": 100} and data.classes[3] == "cat"
    assert data.note == "PNG pictures"
    place = {image.tobytes(): i for i, image in enumerate(noise(100, 0))}
    both = [place[image.tobytes()] for image in np.concatenate([data.train.images, data.val.images])]
    assert sorted(both) == list(range(100)) and np.array_equal(
        np.array(both) % 10, [*data.train.labels, *data.val.labels]
    )
    few = helper.load_cifar10(tmp_path, held=20, limit=10)
    assert few.counts() == {"train": 10, "val": 10, "test": 10} and sorted(few.train.labels) == list(range(10))


def test_strays_beside_parquet_are_left_alone(helper, tmp_path):
    write_cifar10(tmp_path)
    put_strays(tmp_path)
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "train-00000-of-00001.parquet").write_bytes(b"half")
    assert helper.load_cifar10(tmp_path, held=20).counts()["train"] == 80


@pytest.mark.parametrize("nasty", PICTURES, ids=str)
def test_nasty_pictures_in_cifar10(helper, tmp_path, nasty):
    write_cifar10(tmp_path, test_img=with_cell(33, dict(bytes=nasty.data, path=nasty.name), seed=1))
    if nasty.words:
        with pytest.raises(DataError, match=rf"test-00000-of-00001.parquet, row 33: {nasty.words}") as error:
            helper.load_cifar10(tmp_path, held=20)
        assert "\n" not in str(error.value)
        return
    images, labels = helper.load_cifar10(tmp_path, held=20).test
    grey = images[labels == 3].mean(axis=3) / 255
    assert np.abs(grey - nasty.light).mean((1, 2)).min() < 0.02


BAD = {
    "no column": (dict(drop="label"), r"train-.*: no column label; there are: img"),
    "label 10": (dict(train_label=[*range(1, 11)] * 10), r"train-.*, row 9: label 10; a whole number from 0 to 9"),
    "label -1": (dict(test_label=[-1, *range(1, 10)] * 10), r"test-.*, row 0: label -1"),
    "no label": (dict(test_label=[0, None] + [1] * 98), r"test-.*, row 1: label None"),
    "names": (dict(train_label=["cat"] * 100), r"train-.*, row 0: label 'cat'"),
    "fractions": (dict(train_label=[0.5] * 100), r"train-.*, row 0: label 0.5"),
    "a path alone": (dict(train_img=with_cell(4, dict(bytes=None, path="a.png"))), r"train-.*, row 4: no bytes in img"),
    "text": (dict(train_img=["a.png"] * 100), r"train-.*, row \d+: no bytes in img"),
    "a size": (dict(train_img=with_cell(5, dict(bytes=encode(noise(1, 3, (28, 32))[0], "PNG"), path=None))),
               r"train-.*, row 5: 32x28 pixels; 32x32 is expected"),
    "a copy": (dict(test_img=with_cell(6, dict(bytes=encode(noise(100, 0)[8], "WEBP", lossless=True), path=None), 1)),
               r"test-.*, row 6: the same picture as .*train-.*, row 8; keep one"),
    "no row": (dict(test_img=[], test_label=[]), r"test-.*: no row in test"),
    "no ship": (dict(train_label=[0, *range(8), 9] * 10), r"train-.*: no picture for training has the class ship"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_cifar10_that_cannot_be_used(helper, tmp_path, kind):
    changes, words = BAD[kind]
    write_cifar10(tmp_path, **changes)
    with pytest.raises(DataError, match=words) as error:
        helper.load_cifar10(tmp_path, held=20)
    assert "\n" not in str(error.value)


def test_pickles_are_refused_and_named(helper, tmp_path):
    with pytest.raises(DataError, match=r"nowhere: no such folder; hf download"):
        helper.load_cifar10(tmp_path / "nowhere")
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(DataError, match=r"cifar-10-batches-py: pickle files.*not read; plain_text/train-\*.parquet"):
        helper.load_cifar10(tmp_path)
    write_cifar10(tmp_path)
    assert helper.load_cifar10(tmp_path, held=20).counts()["test"] == 100, "parquet beside them is taken"


@pytest.mark.parametrize("kind", [kind for kind, (_, words) in SHARDS.items() if words])
def test_shards_that_are_not_one_set(helper, tmp_path, kind):
    names, words = SHARDS[kind]
    by_name(tmp_path, names)
    with pytest.raises(DataError, match=words):
        helper.load_cifar10(tmp_path)


# ---------------------------------------------------------------- ImageNet

LABELS = [("a.webp", 0), ("b.png", 999), ("c.png", 7), ("d.png", 7), ("e.png", 7), ("f.png", 8)]


def write_imagenet(folder, table=None, size=(36, 40)):
    (folder / "images").mkdir()
    for image, (name, _) in zip(noise(6, 5, size), LABELS):
        kind = name[-4:].strip(".").upper()
        (folder / "images" / name).write_bytes(encode(image, kind, **({"lossless": True} if kind == "WEBP" else {})))
    rows = "\n".join(f"{name},{label}" for name, label in LABELS)
    (folder / "labels.csv").write_bytes(table or f"image,label\n{rows}\n".encode())
    return folder


def test_imagenet_is_cut_to_its_middle(helper, tmp_path):
    data = helper.load_imagenet_val(write_imagenet(tmp_path), size=32)
    assert data.counts() == {"train": 0, "val": 0, "test": 6} and data.train.images.shape == (0, 32, 32, 3)
    assert len(data.classes) == 1000 and data.classes[0] == "tench" and data.classes[999] == "toilet tissue"
    expected = {(image[2:34, 4:36].tobytes(), label) for image, (_, label) in zip(noise(6, 5, (36, 40)), LABELS)}
    assert {(image.tobytes(), label) for image, label in zip(*data.test)} == expected
    few = helper.load_imagenet_val(tmp_path, size=32, limit=4).test
    assert sorted(few.labels) == [0, 7, 8, 999] and np.array_equal(few.images, data.test.images[:4])


def test_strays_beside_imagenet_are_counted(helper, tmp_path):
    write_imagenet(tmp_path)
    put_strays(tmp_path / "images")
    (tmp_path / "images" / "more.png").write_bytes(encode(noise(1, 9)[0], "PNG"))
    assert helper.load_imagenet_val(tmp_path, 32).note.startswith(
        f"1 pictures not in labels.csv; {len(STRAYS)} files not read: "
    )


@pytest.mark.parametrize("nasty", tables(["image", "label"], LABELS, "labels.csv"), ids=str)
def test_nasty_tables_of_imagenet(helper, tmp_path, nasty):
    write_imagenet(tmp_path)
    nasty.write(tmp_path)
    found = nasty.meets(lambda: helper.load_imagenet_val(tmp_path, 32))
    assert not found or sorted(found.test.labels) == [0, 7, 7, 7, 8, 999]


@pytest.mark.parametrize("text, words", [
    ("a.webp,0\nb.png,1000", r"labels.csv, line 3, b.png: label 1000; .*from 0 to 999"),
    ("a.webp,-1", "line 2, a.webp: label -1"), ("a.webp,1.5", "line 2, column 'label': '1.5' is not a whole number"),
    ("a.webp,0\nz.png,1", "no file for z.png"),
    ("a.webp,0\nb.png,1\na.webp,0", "line 4, a.webp: the same picture as .*line 2, a.webp"),
])  # fmt: skip
def test_tables_of_imagenet_that_cannot_be_used(helper, tmp_path, text, words):
    write_imagenet(tmp_path, f"image,label\n{text}\n".encode())
    with pytest.raises(DataError, match=words) as error:
        helper.load_imagenet_val(tmp_path, 32)
    assert "\n" not in str(error.value)


def test_imagenet_that_is_not_there_or_too_small(helper, tmp_path):
    with pytest.raises(DataError, match=r"nowhere: no such folder; .*images/ and labels.csv"):
        helper.load_imagenet_val(tmp_path / "nowhere")
    write_imagenet(tmp_path)
    with pytest.raises(DataError, match=r"a.webp: 40x36 pixels, smaller than 224"):
        helper.load_imagenet_val(tmp_path)
    for values in (dict(size=0), dict(limit=-1)):
        with pytest.raises(LabError, match="settings size"):
            helper.load_imagenet_val(tmp_path, **values)


# ---------------------------------------------------------------- the real files


@needs("mnist")
def test_the_real_mnist(helper):
    data = helper.load_mnist(REAL / "mnist")
    assert data.counts() == {"train": 57000, "val": 3000, "test": 10000}
    shares = np.array([5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]) / 20
    assert np.abs(np.bincount(data.val.labels) - shares).max() <= 1


@needs("cifar10")
def test_the_real_cifar10(helper):
    data = helper.load_cifar10(REAL / "cifar10", limit=500)
    assert data.counts() == {"train": 500, "val": 500, "test": 500} and data.note == "WEBP pictures (lossy)"
    assert all(np.bincount(part.labels).tolist() == [50] * 10 for part in data.parts().values())
    assert np.abs(data.train.images.mean((0, 1, 2)) / 255 - [0.4918, 0.4825, 0.4469]).max() < 0.03


@needs("imagenet-val")
def test_the_real_imagenet(helper):
    data = helper.load_imagenet_val(REAL / "imagenet-val", limit=100)
    assert data.test.images.shape == (100, 224, 224, 3) and len(set(data.test.labels)) == 100 and not data.note


# ---------------------------------------------------------------- what goes into an attack

X, Y = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 1])


def test_good_batches_pass(helper):
    helper.check_images(X)
    helper.check_images(X.half(), Y, 3)
    helper.check_images(torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1), Y[:2])
    for values in (
        dict(eps=0),
        dict(eps=8 / 255, steps=7, restarts=2),
        dict(eps=1, norm="linf"),
        dict(eps=3.5, norm="l2"),
    ):
        helper.check_attack(**values)


@pytest.mark.parametrize("x, labels, classes, words", [
    (X.numpy(), None, None, "pictures are ndarray"), ((255 * X).byte(), None, None, r"torch.uint8 \(4, 3, 8, 8\)"),
    (X[0], None, None, r"\(3, 8, 8\); a float tensor \(B, C, H, W\)"), (X[:0], None, None, "the batch is empty"),
    (255 * X, None, None, "divide by 255, and normalise inside"), (X - 0.1, None, None, r"values from -0\."),
    (X + 0.01, None, None, r"to 1\.0"), (X * torch.nan, None, None, "have NaN"), (X / 0, None, None, "to inf"),
    (X.where(X.max() != X, torch.nan), None, None, "have NaN"),
    (X, Y, 2, "label 2: 0 to 1 is expected"), (X, Y - 1, None, "label -1: none is below 0"), (X, Y - 1, 3, "label -1"),
    (X, Y[:3], 3, r"labels of shape \(3,\) for 4 pictures"), (X, Y[:, None], 3, r"shape \(4, 1\)"),
    (X, Y.float(), 3, "whole numbers"), (X, Y > 0, 3, "whole numbers"), (X, Y.numpy(), 3, "labels are a tensor"),
])  # fmt: skip
def test_batches_that_no_attack_can_take(helper, x, labels, classes, words):
    with pytest.raises(LabError, match=words) as error:
        helper.check_images(x, labels, classes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("values, words", [
    (dict(eps=-1 / 255), "eps=-0.0039"), (dict(eps=math.nan), "eps=nan"), (dict(eps=math.inf, norm="l2"), "eps=inf"),
    (dict(eps=8), "is 8/255 meant"), (dict(eps=0.1, steps=0), "steps=0"), (dict(eps=0.1, steps=1.5), "steps=1.5"),
    (dict(eps=0.1, restarts=0), "restarts=0"), (dict(eps=0.1, steps=math.nan), "steps=nan"),
    (dict(eps=0.1, norm="l1"), "norm='l1': unknown; known: linf, l2"),
])  # fmt: skip
def test_attacks_that_cannot_work(helper, values, words):
    with pytest.raises(LabError, match=words):
        helper.check_attack(**values)


class Through(nn.Module):
    """A linear classifier behind a change of the pictures."""

    def __init__(self, change=lambda x: x, after=lambda z: z):
        super().__init__()
        self.linear, self.change, self.after = nn.Linear(192, 3), change, after
        self.drop = nn.Dropout()

    def forward(self, x):
        return self.after(self.linear(self.change(x).flatten(1)))


def test_a_good_model_passes_and_keeps_no_gradient(helper):
    model = Through().eval()
    for x in (X, X.clone().requires_grad_(True)):
        with torch.no_grad():
            helper.check_model(model, x)
        assert x.grad is None and all(p.grad is None for p in model.parameters())
    for p in model.parameters():
        p.requires_grad_(False)
    helper.check_model(model, X)


@pytest.mark.parametrize("model, words", [
    (Through(torch.detach).eval(), "no gradient comes through the model to the pictures; .*BPDA"),
    (Through(torch.round).eval(), "no gradient comes through the model to the pictures"),
    (Through(after=torch.detach).eval(), "no gradient comes through the model; .*transfer"),
    (Through(after=lambda z: z[:, 0]).eval(), r"gives \(4,\) for 4 pictures; logits \(B, K\)"),
    (Through(after=lambda z: z / 0).eval(), "logits that are NaN or infinite"),
    (Through(lambda x: (x - x).sqrt()).eval(), "gradient at the pictures is NaN or infinite"),
    (Through(), r"training mode \(Through\): call model.eval\(\)"),
])  # fmt: skip
def test_models_that_no_attack_can_use(helper, model, words):
    with pytest.raises(LabError, match=words) as error:
        helper.check_model(model, X)
    assert "\n" not in str(error.value)


def test_one_layer_in_training_mode_is_named(helper):
    model = Through().eval()
    model.drop.train()
    with pytest.raises(LabError, match=r"training mode \(drop\)"):
        helper.check_model(model, X)


# ---------------------------------------------------------------- settings

GOOD = dict(seeds=(0, 1), trial_seed=2, steps=600, trial_steps=100, batch_size=64, rates=(1e-3, 2e-3),
            eps=(0.0, 0.5, 8.0), watched=64, train_eps=8.0, attack_steps=5, strong_steps=20, fab_steps=10,
            restarts=1, queries=100, draws=200, limit=0, held=300, tested=200, trial_pictures=200, photographs=0,
            longer=2, longer_tested=200, longer_eps=8.0, defence_eps=2.0, sigma=0.25, l2_eps=0.5, trades=6.0,
            dataset="mnist", repeated=("standard", "pgd"), once=("fgsm", "fast", "noise"))  # fmt: skip


def test_settings(helper):
    helper.check_settings(SimpleNamespace(**GOOD))
    edges = dict(
        limit=200,
        held=10,
        tested=20,
        longer_tested=20,
        trial_pictures=20,
        longer=0,
        eps=(0, 255),
        seeds=(2**32 - 1, 0),
        dataset="cifar10",
        trades=0.0,
    )
    helper.check_settings(SimpleNamespace(**GOOD | edges))


@pytest.mark.parametrize("name, value", [
    *((name, 0) for name in ("steps", "trial_steps", "attack_steps", "strong_steps", "fab_steps", "restarts", "queries",
                             "watched", "train_eps", "defence_eps", "sigma", "l2_eps")),
    ("batch_size", 1), ("steps", 1.5), ("steps", math.nan), ("limit", -1), ("limit", 100), ("held", 9), ("tested", 19),
    ("tested", math.inf), ("draws", 19), ("photographs", -1), ("train_eps", -8), ("train_eps", math.nan),
    ("train_eps", 256), ("sigma", math.inf), ("trades", -1), ("trades", math.nan), ("rates", ()), ("rates", (0.0, 0.1)),
    ("rates", (1.0,)), ("rates", (math.nan,)), ("rates", (0.1, 0.1)),
    ("eps", ()), ("eps", (0,)), ("eps", (0, 8, 4)), ("eps", (0, 4, 4)), ("eps", (1, 8)),
    ("eps", (0, 1e-7, 1.0000001e-7)), ("eps", (-1, 4)), ("eps", (0, math.nan)), ("eps", (0, 300)),
    ("seeds", ()), ("seeds", (0,)), ("seeds", (0, 0)), ("seeds", (-1, 0)), ("seeds", (0.5, 1)), ("seeds", (2**32, 0)),
    ("seeds", (math.nan, 1)), ("repeated", ("standard",)), ("repeated", ("standard", "pgd", "magic")),
    ("repeated", ("standard", "pgd", "pgd")), ("once", ("fgsm", "fast")), ("once", ("fgsm", "fast", "noise", "pgd")),
    ("dataset", "cifar100"), ("longer", -1), ("longer", 0.5), ("longer_tested", 19), ("trial_pictures", 19),
    ("longer_eps", 0), ("longer_eps", 256), ("trial_seed", 0), ("trial_seed", -1), ("trial_seed", 1.5),
])  # fmt: skip
def test_settings_that_cannot_work(helper, name, value):
    with pytest.raises(LabError, match="tested" if (name, value) == ("limit", 100) else f"setting {name}="):
        helper.check_settings(SimpleNamespace(**GOOD | {name: value}))


@pytest.mark.parametrize("name, value", [("train_eps", 25.5), ("defence_eps", 17), ("longer_eps", 76.5)])
def test_sizes_meant_for_mnist_are_refused_for_cifar10(helper, name, value):
    with pytest.raises(LabError, match=f"setting {name}={value} with dataset=cifar10"):
        helper.check_settings(SimpleNamespace(**GOOD | {"dataset": "cifar10", name: value}))
    helper.check_settings(SimpleNamespace(**GOOD | {"dataset": "cifar10", "longer": 0, "longer_eps": 76.5}))


@pytest.mark.parametrize("name, part", [
    ("tested", "test"), ("longer_tested", "test"), ("trial_pictures", "val"), ("watched", "val"),
    ("batch_size", "train"),
])  # fmt: skip
def test_more_pictures_than_there_are(helper, name, part):
    pictures = helper.load_embedded(32, (50, 40, 30))
    fits = dict(tested=30, longer_tested=30, trial_pictures=40, watched=40, batch_size=50)
    helper.check_fit(SimpleNamespace(**fits), pictures)
    there = pictures.counts()[part]
    with pytest.raises(LabError, match=f"setting {name}={there + 1}: the {part} part of .* has {there} pictures"):
        helper.check_fit(SimpleNamespace(**fits | {name: there + 1}), pictures)


# ---------------------------------------------------------------- drawing


def test_pictures_and_tensors(helper):
    images = noise(5, 0)
    x = helper.to_tensor(images)
    assert (
        x.shape == (5, 3, 32, 32) and x.dtype == torch.float32 and x[2, 1, 3, 4] == images[2, 3, 4, 1] / np.float32(255)
    )
    assert np.array_equal(helper.to_pictures(x), images), "there and back"
    assert helper.to_pictures(torch.tensor([[[[-0.5, 0.499, 2.0]]]])).tolist() == [[[[0] * 3, [127] * 3, [255] * 3]]]


def test_perturbations_are_shown_enlarged(helper, figure):
    clean = torch.full((2, 1, 4, 4), 0.5)
    attacked = clean.clone()
    attacked[1, 0, 2, 3] += 8 / 255
    helper.show_perturbations(clean, attacked, ["one", "two"], ["one", "six"], "broken", factor=10)
    axes = np.array(figure().axes).reshape(3, 2)
    assert [axis.get_title() for axis in axes.flat] == ["one", "two", "one", "six", "", ""]
    assert axes[1, 1].title.get_color() == helper.ORANGE and axes[1, 0].title.get_color() == "black"
    shown = axes[2, 1].images[0].get_array()
    assert shown[2, 3, 0] == round(127.5 + 80) and shown[0, 0, 0] == 128
    assert axes[1, 1].images[0].get_array()[2, 3, 0] == round(127.5 + 8) and "10" in axes[2, 0].get_ylabel()


def test_curves_have_their_bands(helper, figure):
    x = np.array([0, 4, 8])
    values = {name: dict(x=x, value=y, low=y - 5, high=y + 5) for name, y in (("CNN", 90 - x), ("ViT", 80 - x))}
    helper.show_curves(values, "accuracy falls")
    axis = figure().axes[0]
    lines = {line.get_label(): line for line in axis.lines}
    assert list(lines) == ["CNN", "ViT"] and np.array_equal(lines["ViT"].get_ydata(), 80 - x)
    assert lines["CNN"].get_color() != lines["ViT"].get_color() and axis.get_xlabel() == "eps in 1/255"
    corners = axis.collections[1].get_paths()[0].vertices
    assert corners[:, 1].min() == 67 and corners[:, 1].max() == 85


def test_the_transfer_matrix_has_sources_in_rows(helper, figure):
    helper.show_matrix([[1, 2, 3], [40, 50, 60.6]], ["CNN", "ViT"], ["a", "b", "c"], "transfer")
    axis = figure().axes[0]
    assert [text.get_text() for text in axis.texts] == ["1", "2", "3", "40", "50", "61"]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["CNN", "ViT"] and axis.yaxis_inverted()
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("attacked model", "attack made on")


def test_spectra_are_logarithmic(helper, figure):
    helper.show_spectrum({"PGD": (np.array([0.1, 0.2]), np.array([1.0, 100.0]))}, "spectrum")
    axis = figure().axes[0]
    assert axis.get_yscale() == "log" and axis.lines[0].get_ydata().tolist() == [1, 100]
    assert "cycles per pixel" in axis.get_xlabel()


def test_the_surface_has_x_across(helper, figure):
    x, y = np.linspace(-8, 8, 5), np.linspace(-4, 4, 3)
    helper.show_surface(x, y, np.add.outer(0 * y, x), "loss", "along the gradient", "across", eps=4)
    axis = figure().axes[0]
    assert axis.get_xlim() == (-8, 8) and axis.get_ylim() == (-4, 4)
    box = axis.patches[0].get_bbox()
    assert (box.x0, box.y0, box.x1, box.y1) == (-4, -4, 4, 4)
    assert figure().axes[1].get_ylabel() == "loss"


# ================================================================ the notebook


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    return definitions("CAe_cnn_vit_attack", tmp_path_factory)


LOSSES = partial(F.cross_entropy, reduction="none")


def curved(seed=0, classes=3, shape=(3, 4, 4), dtype=torch.float64):
    """A small network whose loss is no plane, in eval mode."""
    torch.manual_seed(seed)
    inside = nn.Linear(math.prod(shape), 16)
    nn.init.normal_(inside.weight, std=0.5)
    return nn.Sequential(nn.Flatten(), inside, nn.Tanh(), nn.Linear(16, classes)).to(dtype).eval()


def linear(weight, bias=None, dtype=torch.float64):
    """The linear classifier of these rows."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(weight.shape[1], len(weight))).to(dtype).eval()
    with torch.no_grad():
        net[1].weight.copy_(weight)
        net[1].bias.copy_(torch.zeros(len(weight)) if bias is None else bias)
    return net


def batch(seed=0, n=6, classes=3, shape=(3, 4, 4), dtype=torch.float64, edges=False):
    """Pictures and labels; edges: half of their numbers are 0 or 1."""
    torch.manual_seed(100 + seed)
    x = torch.rand(n, *shape, dtype=dtype)
    if edges:
        x = torch.where(torch.rand_like(x) < 0.5, x.round(), x)
    return x, torch.arange(n) % classes


def length(delta, norm="l2"):
    return delta.flatten(1).norm({"l2": 2, "linf": math.inf}[norm], dim=1)


def corners(x, eps):
    """All corners of the box of radius eps about each picture, cut to [0, 1]: (2^n, B, C, H, W)."""
    low, high = (x - eps).clamp(min=0), (x + eps).clamp(max=1)
    which = torch.tensor(list(itertools.product([False, True], repeat=x[0].numel())))
    return torch.stack([torch.where(one.reshape(x.shape[1:]), high, low) for one in which])


# ---------------------------------------------------------------- gradient, one step, geometry


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_gradients_are_finite_differences_of_each_pictures_own_loss(room, smoothing):
    net, (x, y), h = curved(), batch(n=5), 1e-6
    loss = partial(F.cross_entropy, label_smoothing=smoothing)
    found = room.loss_gradient(net, x, y, loss)
    with torch.no_grad():
        for k, direction in enumerate(torch.eye(48, dtype=x.dtype).reshape(48, 3, 4, 4)):
            up, down = (loss(net(x + s * h * direction), y, reduction="none") for s in (1, -1))
            assert torch.allclose(found.flatten(1)[:, k], (up - down) / (2 * h), atol=1e-7)
    if smoothing == 0:
        assert torch.equal(found, room.loss_gradient(net, x, y)), "cross-entropy is what is meant without a loss"


@pytest.mark.parametrize("eps", [0.02, 0.3, 1.0])
def test_one_step_reaches_the_worst_corner_of_a_linear_model(room, eps):
    """With two classes the loss rises along one direction alone: no corner of the box in [0, 1] is worse."""
    torch.manual_seed(0)
    net, (x, y) = linear(torch.randn(2, 8)), batch(n=6, classes=2, shape=(2, 2, 2), edges=True)
    with torch.no_grad():
        worst = torch.stack([LOSSES(net(corner), y) for corner in corners(x, eps)]).amax(0)
    for out in (room.fgsm(net, x, y, eps), room.pgd(net, x, y, eps, 12, eps / 4)):
        assert torch.allclose(LOSSES(net(out), y), worst, atol=1e-12)
    with torch.no_grad():
        assert (worst > LOSSES(net(x), y) + 1e-3).all()


@pytest.mark.parametrize("norm, dual", [("linf", "l1"), ("l2", "l2")])
def test_projections_are_the_nearest_points(room, norm, dual):
    """P is nearest to d exactly if no z of the ball has <d - P, z> above <d - P, P>; the largest is eps |d - P|*."""
    torch.manual_seed(0)
    delta, eps = torch.randn(40, 3, 2, 3, dtype=torch.float64) * torch.logspace(-2, 1, 40)[:, None, None, None], 0.7
    near = room.project(delta, eps, norm)
    left = (delta - near).flatten(1)
    most = eps * left.norm({"l1": 1, "l2": 2}[dual], dim=1)
    assert torch.allclose((left * near.flatten(1)).sum(1), most, atol=1e-12)
    inside = length(delta, norm) <= eps
    assert (length(near, norm) <= eps + 1e-12).all() and 5 < inside.sum() < 35
    assert torch.allclose(near[inside], delta[inside], rtol=1e-14)
    assert not room.project(delta, 0.0, norm).any() and not room.project(0 * delta, eps, norm).any()


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("norm, dual", [("linf", 1), ("l2", 2)])
def test_steepest_directions_reach_the_dual_norm(room, norm, dual, scale):
    """The largest <u, g> of all u of length 1 is |g|*, whatever the size of the gradient."""
    torch.manual_seed(1)
    gradient = scale * torch.randn(9, 3, 2, 3, dtype=torch.float64)
    way = room.steepest(gradient, norm)
    assert torch.allclose(length(way, norm), torch.ones(9, dtype=torch.float64))
    assert torch.allclose((way * gradient).flatten(1).sum(1), gradient.flatten(1).norm(dual, dim=1), rtol=1e-12)
    assert not room.steepest(0 * gradient, norm).any(), "no gradient, no direction, and no NaN"


def test_random_starts_are_uniform(room):
    """linf: every number; l2: the length, in a direction that has no preference. Each picture its own."""
    torch.manual_seed(2)
    x = torch.rand(4000, 1, 2, 3)
    box, ball = (room.random_start(x, 0.25, norm) for norm in ("linf", "l2"))
    assert box.shape == ball.shape == x.shape and box.dtype == ball.dtype == x.dtype
    assert stats.kstest(box.flatten(), stats.uniform(-0.25, 0.5).cdf).pvalue > 0.01
    assert stats.kstest(length(ball), stats.uniform(0, 0.25).cdf).pvalue > 0.01
    way = (ball / length(ball)[:, None, None, None]).flatten(1)
    assert way.mean(0).abs().max() < 5 / 24000**0.5
    assert (way.T @ way / 4000 - torch.eye(6) / 6).abs().max() < 0.02
    cosine = stats.beta(2.5, 2.5, -1, 2)  # of one coordinate of a uniform direction in 6 dimensions
    assert stats.kstest(way[:, 0], cosine.cdf).pvalue > 0.01


# ---------------------------------------------------------------- PGD


def targeted(attack, target):
    attack.set_mode_targeted_by_function(lambda images, labels: target)
    return attack


PARITY = {  # ours, theirs
    "fgsm": (lambda r, n, x, y: r.fgsm(n, x, y, 0.07), lambda n, y: torchattacks.FGSM(n, eps=0.07)),
    "linf": (lambda r, n, x, y: r.pgd(n, x, y, 0.2, 9, 0.05),
             lambda n, y: torchattacks.PGD(n, eps=0.2, alpha=0.05, steps=9)),
    "l2": (lambda r, n, x, y: r.pgd(n, x, y, 0.9, 9, 0.2, "l2"),
           lambda n, y: torchattacks.PGDL2(n, eps=0.9, alpha=0.2, steps=9)),
    "momentum": (lambda r, n, x, y: r.pgd(n, x, y, 0.5, 15, 0.06, momentum=0.8, start=False),
                 lambda n, y: torchattacks.MIFGSM(n, eps=0.5, alpha=0.06, steps=15, decay=0.8)),
    "targeted": (lambda r, n, x, y: r.pgd(n, x, y, 0.2, 9, 0.05, target=(y + 1) % 3),
                 lambda n, y: targeted(torchattacks.PGD(n, eps=0.2, alpha=0.05, steps=9), (y + 1) % 3)),
    "targeted l2": (lambda r, n, x, y: r.pgd(n, x, y, 0.9, 9, 0.2, "l2", target=(y + 1) % 3),
                    lambda n, y: targeted(torchattacks.PGDL2(n, eps=0.9, alpha=0.2, steps=9), (y + 1) % 3)),
}  # fmt: skip


@pytest.mark.parametrize("kind", PARITY)
@pytest.mark.parametrize("edges", [False, True])
def test_attacks_are_torchattacks_from_the_same_seed(room, kind, edges):
    net, (x, y) = curved(3), batch(1, n=12, edges=edges)
    ours, theirs = PARITY[kind]
    attack = theirs(net, y)
    torch.manual_seed(5)
    wanted = attack(x, y)
    torch.manual_seed(5)
    assert torch.allclose(ours(room, net, x, y), wanted, atol=1e-8)
    assert length(wanted - x, "linf").min() > 0.01


@pytest.mark.parametrize("wanted", [False, True], ids=["untargeted", "targeted"])
def test_pgd_finds_the_optimum_in_the_box(room, wanted):
    """Of a linear model the loss is convex in the picture: the largest is at a corner, the smallest is L-BFGS-B's."""
    torch.manual_seed(4)
    eps, net, (x, y) = 0.3, linear(torch.randn(3, 8)), batch(2, n=6, shape=(2, 2, 2), edges=True)
    if wanted:
        target = (y + 1) % 3
        out = room.pgd(net, x, y, eps, 200, 0.01, restarts=2, target=target)
        for picture, label, found in zip(x, target, LOSSES(net(out), target).tolist()):
            box = [(max(0, v - eps), min(1, v + eps)) for v in picture.flatten().tolist()]

            def loss(flat, shape=picture.shape, label=label):
                z = torch.tensor(flat).reshape(1, *shape).requires_grad_()
                value = F.cross_entropy(net(z), label[None])
                return value.item(), torch.autograd.grad(value, z)[0].flatten().numpy()

            best = optimize.minimize(loss, picture.flatten().numpy(), jac=True, bounds=box, method="L-BFGS-B")
            assert abs(found / best.fun - 1) < 0.01 and best.fun > 0.001
        return
    with torch.no_grad():
        worst = torch.stack([LOSSES(net(corner), y) for corner in corners(x, eps)]).amax(0)
    found = LOSSES(net(room.pgd(net, x, y, eps, 20, 0.06, restarts=20)), y)
    assert torch.allclose(found, worst, rtol=1e-9)


@pytest.mark.parametrize("eps", [0.05, 0.2])
def test_pgd_l2_goes_straight_across_the_plane(room, eps):
    """Two classes, far from the edges: x + eps w / |w| is the worst of the ball, from any start."""
    torch.manual_seed(0)
    weight = torch.randn(2, 48)
    net, (x, y) = linear(weight), batch(n=8, classes=2)
    x = 0.35 + 0.3 * x
    apart = (weight[1] - weight[0]) / (weight[1] - weight[0]).norm()
    wanted = eps * (1 - 2 * y)[:, None] * apart
    for start in (False, True):
        out = room.pgd(net, x, y, eps, 150, eps / 5, "l2", start=start)
        assert torch.allclose((out - x).flatten(1), wanted.double(), atol=0.01 * eps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pgd_stays_in_the_ball_and_in_the_picture(room, norm, dtype):
    rng, slack = np.random.default_rng(0), {torch.float32: 3e-7, torch.float64: 1e-14}[dtype]
    for case in range(40):
        shape = (int(rng.choice([1, 3])), *rng.integers(1, 9, 2).tolist())
        eps = float(rng.choice([0.5 / 255, 8 / 255, 0.3, 1, 0.1, 2.5 if norm == "l2" else 0.9]))  # in [0, 1] for linf
        net = curved(case, 4, shape, dtype)
        x, y = batch(case, n=int(rng.integers(1, 6)), classes=4, shape=shape, dtype=dtype, edges=True)
        target = (y + 1) % 4 if rng.random() < 0.3 else None
        out = room.pgd(net, x, y, eps, int(rng.integers(1, 5)), eps * float(rng.choice([0.1, 0.5, 3])), norm,
                       restarts=int(rng.integers(1, 4)), momentum=float(rng.choice([0, 0.9])),
                       start=bool(rng.random() < 0.7), target=target)  # fmt: skip
        assert out.shape == x.shape and out.dtype == dtype and out.min() >= 0 and out.max() <= 1
        assert (length(out - x, norm) <= eps * (1 + slack) + slack).all(), (case, eps)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("target", [None, torch.arange(1, 13) % 3], ids=["untargeted", "targeted"])
def test_restarts_keep_what_is_worst_for_each_picture(room, norm, target):
    net, (x, y) = curved(2), batch(3, n=12)
    sign, wanted = (1, y) if target is None else (-1, target)
    attack = partial(room.pgd, net, x, y, 0.4, 1, 0.02, norm, target=target)
    torch.manual_seed(0)
    single = [attack() for _ in range(6)]
    scores = torch.stack([-sign * room.margin(net(out), wanted) for out in single]).detach()
    torch.manual_seed(0)
    out = attack(restarts=6)
    assert torch.equal(out, torch.stack(single)[scores.argmax(0), torch.arange(12)])
    assert len(scores.argmax(0).unique()) > 2, "no single restart is the best of all pictures"
    before = -math.inf
    for restarts in (1, 2, 4, 6):
        torch.manual_seed(0)
        now = -sign * room.margin(net(attack(restarts=restarts)), wanted)
        assert (now >= before - 1e-12).all(), "more restarts never give a fooling end away"
        before = now


def test_starts_differ_and_without_one_there_is_no_chance(room):
    net, (x, y) = curved(), batch()
    fixed = [room.pgd(net, x, y, 0.1, 2, 0.01, start=False) for _ in range(2)]
    drawn = [room.pgd(net, x, y, 0.1, 2, 0.01) for _ in range(2)]
    assert torch.equal(*fixed) and not torch.equal(*drawn)
    assert (fixed[0] - x).abs().max() < 0.021, "it begins at the picture itself"


# ---------------------------------------------------------------- all attacks


class Regularised(nn.Module):
    """A network with batch norm and dropout, which a pass in training mode would change."""

    def __init__(self, dtype=torch.float64):
        super().__init__()
        torch.manual_seed(0)
        self.convolution, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.drop, self.head = nn.Dropout(0.5), nn.Linear(128, 3)
        self.to(dtype)

    def forward(self, x):
        return self.head(self.drop(self.norm(self.convolution(x)).tanh().flatten(1)))


ATTACKS = {
    "fgsm": lambda r, n, x, y, eps: r.fgsm(n, x, y, eps),
    "fast": lambda r, n, x, y, eps: r.fast_step(n, x, y, eps),
    "linf": lambda r, n, x, y, eps: r.pgd(n, x, y, eps, 3, eps / 2, restarts=2, momentum=0.9),
    "l2": lambda r, n, x, y, eps: r.pgd(n, x, y, eps, 3, eps / 2, "l2", restarts=2),
    "no start": lambda r, n, x, y, eps: r.pgd(n, x, y, eps, 3, eps / 2, start=False),
    "targeted": lambda r, n, x, y, eps: r.pgd(n, x, y, eps, 3, eps / 2, "l2", target=(y + 1) % 3),
}
OTHERS = {
    "carlini wagner": lambda r, n, x, y, eps: r.carlini_wagner(n, x, y, 5.0, 4),
    "patch": lambda r, n, x, y, eps: r.patch_attack(n, x, y, 2, 3, 0.1),
    "gradient": lambda r, n, x, y, eps: r.loss_gradient(n, x, y),
}


@pytest.mark.parametrize("name", ATTACKS | OTHERS)
@pytest.mark.parametrize("training", [False, True], ids=["eval", "training"])
@pytest.mark.parametrize("frozen", [False, True], ids=["", "frozen"])
def test_attacks_leave_no_trace(room, name, training, frozen):
    """In the model, in the pictures, in the labels, in what torch records."""
    net, (x, y) = Regularised().requires_grad_(not frozen), batch()
    net.train(training)
    before, x_before, y_before = copy.deepcopy(net.state_dict()), x.clone(), y.clone()
    out = (ATTACKS | OTHERS)[name](room, net, x, y, 0.1)
    assert not out.requires_grad and out.isfinite().all() and torch.is_grad_enabled()
    assert torch.equal(x, x_before) and not x.requires_grad and torch.equal(y, y_before)
    assert out.data_ptr() != x.data_ptr()
    assert all(p.grad is None and p.requires_grad is not frozen for p in net.parameters())
    assert {module.training for module in net.modules()} == {training}
    if not training:
        assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_attacks_add_nothing_to_gradients_that_are_there(room):
    net, (x, y) = Regularised().eval(), batch()
    F.cross_entropy(net(x), y).backward()
    before = [p.grad.clone() for p in net.parameters()]
    for attack in (ATTACKS | OTHERS).values():
        attack(room, net, x, y, 0.1)
    assert all(torch.equal(p.grad, old) for p, old in zip(net.parameters(), before))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", ATTACKS)
def test_eps_0_gives_the_pictures_back_and_the_clean_accuracy(room, name, dtype):
    net, (x, y) = Regularised(dtype).eval(), batch(n=60, dtype=dtype, edges=True)
    assert torch.equal(ATTACKS[name](room, net, x, y, 0.0), x)
    found = room.unbroken(net, x, y, {"none": lambda m, a, b: ATTACKS[name](room, m, a, b, 0.0)}, 17)
    assert torch.equal(found["none"], found["clean"]) and 0 < found["clean"].sum() < 60
    assert torch.equal(found["clean"], net(x).argmax(1) == y)


@pytest.mark.parametrize("name", ["fgsm", "linf", "no start", "l2"])
def test_more_eps_breaks_more_of_a_linear_model(room, name):
    """With two classes, steps of eps / 2 and the pictures off the edges, the attacked accuracy can only fall."""
    torch.manual_seed(0)
    net, (x, _) = linear(torch.randn(2, 48)), batch(n=200, classes=2)
    x = 0.3 + 0.4 * x
    y = net(x).argmax(1)
    sizes = {"l2": (0.02, 0.05, 0.1, 0.8)}.get(name, (0.003, 0.006, 0.012, 0.1))
    attack = ATTACKS[name] if name != "l2" else lambda r, n, x, y, eps: r.pgd(n, x, y, eps, 60, eps / 4, "l2")
    holds = [(net(attack(room, net, x, y, eps)).argmax(1) == y).double().mean().item() for eps in (0.0, *sizes)]
    assert holds[0] == 1 and all(a >= b for a, b in itertools.pairwise(holds)) and 1 > holds[2] > 0.5 > 0.2 > holds[-1]


# ---------------------------------------------------------------- Carlini and Wagner, patches


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_margins_by_loops(room, classes):
    torch.manual_seed(classes)
    logits, y = 5 * torch.randn(200, classes) - 20, torch.randint(0, classes, (200,))
    kept = logits.clone()
    wanted = [z[k] - max(z[:k] + z[k + 1 :]) for z, k in zip(logits.tolist(), y.tolist())]
    found = room.margin(logits, y)
    assert torch.allclose(found, torch.tensor(wanted)) and torch.equal(logits, kept)
    assert torch.equal(found < 0, logits.argmax(1) != y)


@pytest.mark.parametrize("classes, dtype", [(2, torch.float64), (4, torch.float64), (4, torch.float32)], ids=str)
def test_carlini_wagner_is_as_short_as_the_way_to_the_nearest_plane(room, classes, dtype):
    torch.manual_seed(1)
    weight, bias = torch.randn(classes, 12), 0.3 * torch.randn(classes)
    net, (x, _) = linear(weight, bias, dtype), batch(n=12, shape=(3, 2, 2), dtype=dtype)
    x = 0.3 + 0.4 * x
    with torch.no_grad():
        z = net(x)
    y = z.argmax(1)
    ways = [[(z[b, y[b]] - z[b, k]) / (weight[y[b]] - weight[k]).norm() for k in range(classes) if k != y[b]]
            for b in range(12)]  # fmt: skip
    least = torch.tensor(ways, dtype=dtype).amin(1)
    out = room.carlini_wagner(net, x, y, 10.0, 400, 0.01)
    assert (net(out).argmax(1) != y).all() and out.min() >= 0 and out.max() <= 1 and out.dtype == dtype
    assert (length(out - x) >= least - 1e-6).all() and (length(out - x) <= 1.08 * least + 0.004).all()


def test_carlini_wagner_takes_torchattacks_steps(room):
    """Where logits are positive, which theirs needs, and pictures are off the edges."""
    net, (x, y) = curved(6), batch(4, n=10)
    x = 0.1 + 0.8 * x
    with torch.no_grad():
        net[3].bias += 20
        y = net(x).argmax(1)
    attack = torchattacks.CW(net, c=3.0, steps=60, lr=0.02)
    wanted = attack(x, y)
    out = room.carlini_wagner(net, x, y, 3.0, 60, 0.02)
    assert torch.allclose(out, wanted, atol=1e-7) and (net(out).argmax(1) != y).sum() >= 5


def test_carlini_wagner_keeps_the_shortest(room):
    net, (x, _) = curved(6), batch(4, n=10, edges=True)
    y, before = net(x).argmax(1), torch.full((10,), math.inf, dtype=torch.float64)
    for steps in (1, 10, 40, 100, 200):
        out = room.carlini_wagner(net, x, y, 10.0, steps, 0.02)
        fooled = net(out).argmax(1) != y
        assert torch.equal(out[~fooled], x[~fooled]), "who is not fooled comes back as he was"
        assert out.min() >= 0 and out.max() <= 1
        now = torch.where(fooled, length(out - x), math.inf)
        assert (now <= before + 1e-12).all()
        before = now
    assert fooled.all()
    wrong = room.carlini_wagner(net, x, (y + 1) % 3, 10.0, 30, 0.02)
    assert (wrong - x).abs().max() < 1e-5, "what is wrong already needs nothing"


def test_a_patch_is_pasted_where_it_says(room):
    rng, (x, _) = np.random.default_rng(0), batch(n=9, shape=(2, 7, 5))
    patch = torch.rand(2, 3, 2, dtype=torch.float64).requires_grad_()
    rows, columns = (
        torch.tensor([0, 4, 0, 4, *rng.integers(0, 5, 5)]),
        torch.tensor([0, 3, 3, 0, *rng.integers(0, 4, 5)]),
    )
    kept = x.clone()
    out = room.pasted(x, patch, rows, columns)
    for b, c, i, j in itertools.product(range(9), range(2), range(7), range(5)):
        u, v = i - int(rows[b]), j - int(columns[b])
        inside = 0 <= u < 3 and 0 <= v < 2
        assert out[b, c, i, j] == (patch[c, u, v] if inside else x[b, c, i, j])
    assert torch.equal(x, kept)
    weights = torch.rand_like(x)
    gradient = torch.autograd.grad((out * weights).sum(), patch)[0]
    cut = [weights[b, :, i : i + 3, j : j + 2] for b, (i, j) in enumerate(zip(rows.tolist(), columns.tolist()))]
    assert torch.allclose(gradient, torch.stack(cut).sum(0))


def test_patches_are_learnt_at_all_places_of_all_pictures(room, monkeypatch):
    seen, original = [], room.pasted
    monkeypatch.setattr(room, "pasted", lambda *given: (seen.append(given), original(*given))[1])
    net, (x, y) = curved(0, 3, (3, 6, 5)), batch(n=7, shape=(3, 6, 5))
    patch = room.patch_attack(net, x, y, 2, 60, 0.05, batch=4)
    assert patch.shape == (3, 2, 2) and patch.dtype == x.dtype and patch.min() >= 0 and patch.max() <= 1
    assert {len(given[0]) for given in seen} == {4}
    places = {place for given in seen for place in zip(given[2].tolist(), given[3].tolist())}
    assert places == set(itertools.product(range(5), range(4)))
    shown = {picture.numpy().tobytes() for given in seen for picture in given[0]}
    assert shown == {picture.numpy().tobytes() for picture in x}
    whole = room.patch_attack(net, torch.rand(40, 3, 6, 5, dtype=x.dtype)[..., :5], y[0].repeat(40), 5, 2, 0.05)
    assert whole.shape == (3, 5, 5), "as large as a side, and more pictures than a batch"


def test_a_patch_raises_the_loss_more_than_random_ones(room):
    """One patch for all pictures and places: against 30 random patches on the same places, and the clean pictures."""
    net, (x, y) = curved(1, 3, (3, 6, 6)), batch(n=60, shape=(3, 6, 6))
    y = net(x).argmax(1)

    def harm(patch):
        rng = torch.Generator().manual_seed(0)
        places = torch.randint(0, 3, (2, 60), generator=rng)
        return F.cross_entropy(net(room.pasted(x, patch, *places)), y).item()

    torch.manual_seed(0)
    found = harm(room.patch_attack(net, x, y, 4, 80, 0.05))
    drawn = [harm(torch.rand(3, 4, 4, dtype=torch.float64).round()) for _ in range(30)]
    assert found > max(drawn) and found > F.cross_entropy(net(x), y).item() + 0.2


# ---------------------------------------------------------------- what counts as robust


def pushed(by, model, x, y, seen=None):
    """Pictures moved by `by` along one direction, whatever the model: an attack that works on each by itself."""
    if seen is not None:
        seen.append(x.clone())
    return (x + by).clamp(0, 1)


@pytest.mark.parametrize("size", [1, 7, 250])
def test_robust_is_right_clean_and_under_every_attack(room, size):
    net, (x, y) = curved(4), batch(6, n=43)
    pushes = {f"by {by}": by for by in (0.3, -0.3, 0.0, 0.6, -0.5)}
    seen = {name: [] for name in pushes}
    attacks = {name: partial(pushed, by, seen=seen[name]) for name, by in pushes.items()}
    found = room.unbroken(net, x, y, attacks, size)
    holds = [int(net(picture[None]).argmax()) == label for picture, label in zip(x, y.tolist())]
    assert list(found) == ["clean", *pushes] and found["clean"].tolist() == holds
    for name, by in pushes.items():
        asked = torch.cat(seen[name])
        assert torch.equal(asked, x[torch.tensor(holds)]), "each unbroken picture is attacked once, no other"
        assert max(map(len, seen[name])) <= size
        after = [int(net((picture[None] + by).clamp(0, 1)).argmax()) == label for picture, label in zip(x, y.tolist())]
        holds = [a and b for a, b in zip(holds, after)]
        assert found[name].dtype == torch.bool and found[name].tolist() == holds
    counts = [part.sum().item() for part in found.values()]
    assert 43 > counts[0] > counts[1] > counts[2] == counts[3] > 0


def test_an_attack_that_mends_counts_for_nothing(room):
    """Who is wrong without an attack, or broken by an earlier one, stays so."""
    net, (x, y) = curved(4), batch(6, n=60)
    right = {label: x[(net(x).argmax(1) == label).nonzero()[0, 0]] for label in range(3)}
    shown = torch.stack([right[label] for label in range(3)])
    mends = lambda model, x, y: shown[y]  # noqa: E731
    breaks = lambda model, x, y: shown[(y + 1) % 3]  # noqa: E731
    found = room.unbroken(net, x, y, {"mends": mends, "breaks": breaks, "mends again": mends}, 5)
    assert torch.equal(found["mends"], net(x).argmax(1) == y) and found["mends"].any() and not found["mends"].all()
    assert not found["breaks"].any() and not found["mends again"].any()


def test_without_attacks_only_the_clean_answers(room):
    net, (x, y) = Regularised(), batch(n=40)  # in training mode: dropout and statistics of the batch
    found = room.unbroken(net, x, y, {}, 7)
    again = room.unbroken(net, x, y, {"as it is": lambda model, x, y: x}, 40)
    assert list(found) == ["clean"] and torch.equal(found["clean"], net.eval()(x).argmax(1) == y)
    assert torch.equal(again["clean"], found["clean"]) and torch.equal(again["as it is"], found["clean"])
    assert all(p.grad is None for p in net.parameters())


def test_attacks_get_a_model_in_eval_mode_that_lets_gradients_through(room):
    net, (x, y) = Regularised(), batch(n=30)
    room_check, seen = room.helper.check_model, []

    def attack(model, x, y):
        room_check(model, x)
        room.helper.check_images(x, y, 3)
        seen.append(model is net)
        return room.pgd(model, x, y, 0.3, 5, 0.1)

    y = net.eval()(x).argmax(1)
    net.train()
    found = room.unbroken(net, x, y, {"pgd": attack}, 16)
    assert seen == [True, True] and found["clean"].all() and not found["pgd"].all()


# ---------------------------------------------------------------- certified radius


@pytest.mark.parametrize("draws", [1, 10, 100, 1000, 100_000])
@pytest.mark.parametrize("alpha", [0.001, 0.05])
def test_radii_have_scipys_exact_lower_bound(room, draws, alpha):
    counts = np.unique(np.r_[0, draws // 2, np.linspace(draws // 2, draws, 9).astype(int), max(0, draws - 1), draws])
    radii = []
    for count in counts.tolist():
        test = stats.binomtest(count, draws, alternative="greater")
        least = test.proportion_ci(1 - alpha, "exact").low
        wanted = 0.25 * stats.norm.ppf(least) if least > 0.5 else 0.0
        radii.append(room.certified_radius(count, draws, 0.25, alpha))
        assert isinstance(radii[-1], float) and abs(radii[-1] - wanted) < 1e-9
    assert np.all(np.diff(radii) >= 0) and radii[0] == 0 and math.isfinite(radii[-1])
    assert radii[-1] > 0 or draws * math.log(2) < -math.log(alpha), "all of n show a majority from n = log2(1 / alpha)"
    assert room.certified_radius(int(counts[-2]), draws, 0.25, alpha / 10) <= radii[-2], "more certainty, less radius"


@pytest.mark.parametrize("p", [0.4, 0.5, 0.55, 0.8, 0.99, 0.9999])
@pytest.mark.parametrize("alpha", [0.001, 0.05])
def test_a_radius_is_too_large_in_no_more_than_alpha_of_all_draws(room, p, alpha):
    """Summed over all counts, without simulating."""
    draws, true = 400, max(0.0, stats.norm.ppf(p))
    radii = np.array([room.certified_radius(count, draws, 1.0, alpha) for count in range(draws + 1)])
    share = stats.binom.pmf(np.arange(draws + 1), draws, p)[radii > true].sum()
    assert share <= alpha
    assert p not in (0.55, 0.8) or share > alpha / 20, "and it is not wasteful"


def test_a_half_space_is_certified_up_to_its_plane(room):
    """Right under noise with probability Phi(d / sigma): the true radius is d, reached by many draws."""
    for sigma, d in ((0.25, 0.1), (0.5, 0.8), (1.0, 2.5)):
        p = stats.norm.cdf(d / sigma)
        radii = [room.certified_radius(round(n * p), n, sigma) for n in (100, 1000, 100_000, 10**8)]
        assert all(a <= b for a, b in itertools.pairwise(radii)) and 0.99 * d < radii[-1] < d
        moved = stats.norm.cdf((d - np.array(radii)) / sigma)
        assert (moved > 0.5).all(), "a step of the radius towards the plane leaves the majority"


@pytest.mark.parametrize("dimensions, around, sigma", [(2, 1.0, 0.4), (12, 2.0, 0.4), (48, 2.0, 0.25)])
def test_a_ball_is_certified_by_less_than_its_true_radius(room, dimensions, around, sigma):
    """Class 1 inside a ball, seen from its middle: the smoothed answer turns where noncentral chi-square says."""
    inside = stats.chi2.cdf((around / sigma) ** 2, dimensions)
    turn = optimize.brentq(lambda t: stats.ncx2.cdf((around / sigma) ** 2, dimensions, (t / sigma) ** 2) - 0.5, 1e-6, 5)
    rng = np.random.default_rng(0)
    radii = [room.certified_radius(count, 1000, sigma) for count in rng.binomial(1000, inside, 200).tolist()]
    assert max(radii) <= turn and min(radii) > 0.1 * turn


@pytest.mark.parametrize("batched", [7, 60, 500])
def test_votes_are_draws_of_each_picture(room, batched):
    """Against the exact probability of a linear model's class under noise; every draw counts once."""
    net, (x, _) = linear(torch.randn(2, 48, generator=torch.Generator().manual_seed(0))), batch(n=7)
    torch.manual_seed(0)
    counts = room.votes(net, x, 0.4, 500, batched)
    z, slope = net(x), (net[1].weight[0] - net[1].weight[1]).norm()
    p = stats.norm.cdf(((z[:, 0] - z[:, 1]) / slope / 0.4).detach().numpy())
    assert counts.shape == (7, 2) and (counts.sum(1) == 500).all() and p.min() < 0.2 and p.max() > 0.6
    assert (np.abs(counts[:, 0].numpy() - 500 * p) < 4.5 * np.sqrt(500 * p * (1 - p)) + 1).all()
    assert torch.equal(room.votes(net, x, 0.0, 11, batched), 11 * F.one_hot(z.argmax(1), 2)), "without noise, all alike"


def test_certificates_do_not_reach_the_true_boundary(room):
    """Of two classes by a plane the distance is known; a third class that never comes is never certified."""
    weight = torch.randn(3, 48, generator=torch.Generator().manual_seed(1))
    net, (x, _) = linear(weight, torch.tensor([0.0, 0.0, -1e6])), batch(n=60)
    torch.manual_seed(0)
    answers, radii = room.certify(net, x, 0.2, 400, 0.01)
    z = net(x).detach()
    way = ((z[:, 0] - z[:, 1]) / (weight[0] - weight[1]).norm()).numpy()
    sure = radii > 0
    assert sure.sum() > 20 and np.array_equal(answers.numpy()[sure], (way < 0).astype(int)[sure])
    assert (radii[sure] <= np.abs(way)[sure]).mean() > 0.95 and set(answers.tolist()) == {0, 1}
    near = sure & (np.abs(way) < 0.3)
    assert near.sum() > 3 and (radii[near] > 0.5 * np.abs(way)[near] - 0.05).all()
    assert radii.max() <= room.certified_radius(400, 400, 0.2, 0.01)


# ---------------------------------------------------------------- losses of training


def test_the_fast_step_has_the_right_distribution(room):
    """Of a linear model with two classes the step is 1.25 eps s from uniform u, cut at eps: u s + 1.25 eps."""
    torch.manual_seed(0)
    weight, eps = torch.randn(2, 48), 0.1
    net, (x, y) = linear(weight), batch(n=400, classes=2)
    x = 0.3 + 0.4 * x
    s = ((weight[1] - weight[0]).sign() * (1 - 2 * y)[:, None]).reshape(x.shape)
    out = room.fast_step(net, x, y, eps)
    along = (out - x) * s / eps
    full = along > 1 - 1e-9
    assert abs(full.double().mean() - 0.625) < 0.015, "u s is above -0.25 eps in 5 of 8 cases"
    assert along.min() > 0.25 - 1e-9 and along.max() < 1 + 1e-9
    assert stats.kstest(along[~full].numpy(), stats.uniform(0.25, 0.75).cdf).pvalue > 0.01
    assert not torch.equal(out, room.fast_step(net, x, y, eps))
    near, _ = batch(n=30, classes=2, dtype=torch.float32, edges=True)
    out = room.fast_step(linear(weight, dtype=torch.float32), near, y[:30], 0.3)
    assert out.min() >= 0 and out.max() <= 1 and (out - near).abs().max() <= 0.3 + 1e-6


def test_the_divergence_is_that_of_scipy(room):
    torch.manual_seed(0)
    logits, wanted = 3 * torch.randn(30, 5, dtype=torch.float64), torch.randn(30, 5, dtype=torch.float64).softmax(1)
    wanted[:5] = F.one_hot(torch.arange(5), 5)  # 0 log 0 is 0
    slow = special.rel_entr(wanted.numpy(), logits.softmax(1).numpy()).sum(1)
    assert abs(room.divergence(logits, wanted.clamp(min=1e-300).log()).item() - slow.mean()) < 1e-12
    assert abs(room.divergence(logits, wanted.clamp(min=1e-300).log(), "sum").item() - slow.sum()) < 1e-10
    assert torch.allclose(
        room.divergence(logits, wanted.clamp(min=1e-300).log()),
        F.kl_div(logits.log_softmax(1), wanted, reduction="batchmean"),
    )
    assert abs(room.divergence(logits, logits).item()) < 1e-12 < slow.min()
    there = logits[:4].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: room.divergence(z, wanted[:4].clamp(min=1e-300).log()), there)
    gradient = torch.autograd.grad(room.divergence(there, wanted[:4].clamp(min=1e-300).log(), "sum"), there)[0]
    assert torch.allclose(gradient, there.softmax(1) - wanted[:4]), "softmax minus what is wanted"


@pytest.mark.parametrize("eps, steps, size", [(0.1, 4, 0.03), (0.3, 7, 0.1), (0.0005, 2, 0.001)])
def test_trades_attacks_as_torchattacks_does(room, eps, steps, size):
    net, (x, y) = curved(4), batch(n=12, edges=True)
    attack = torchattacks.TPGD(net, eps=eps, alpha=size, steps=steps)
    torch.manual_seed(3)
    there = attack(x, y)
    torch.manual_seed(3)
    found = room.trades(net, x, y, eps, steps, size, 6.0)
    apart = F.kl_div(net(there).log_softmax(1), net(x).softmax(1), reduction="batchmean")
    wanted = F.cross_entropy(net(x), y) + 6 * apart
    assert torch.allclose(found, wanted, rtol=1e-9) and apart > 1e-9
    slopes = [torch.autograd.grad(value, list(net.parameters())) for value in (found, wanted)]
    assert all(torch.allclose(*pair, atol=1e-10) for pair in zip(*slopes))


@pytest.fixture
def settings(room, monkeypatch):
    """settings(name=value, ...): what the definitions read of cfg, without a run."""

    def use(**values):
        known = dict(attack_steps=3, trades=6.0, sigma=0.25)
        monkeypatch.setattr(room, "cfg", SimpleNamespace(**known | values), raising=False)

    use()
    return use


def attacked(room, net, x, y, kind, eps, steps):
    """The loss of a kind by other code, with pictures of torchattacks."""
    if kind == "trades":
        there = torchattacks.TPGD(net, eps=eps, alpha=2.5 * eps / steps, steps=steps)(x, y)
        apart = F.kl_div(net(there).log_softmax(1), net(x).softmax(1), reduction="batchmean")
        return F.cross_entropy(net(x), y) + 4.5 * apart
    if kind == "pgd":
        x = torchattacks.PGD(net, eps=eps, alpha=2.5 * eps / steps, steps=steps)(x, y)
    if kind == "fgsm":
        x = torchattacks.FGSM(net, eps=eps)(x, y)
    if kind == "fast":
        x = room.fast_step(net, x, y, eps)
    if kind == "noise":
        x = torch.normal(x, 0.25)
    return F.cross_entropy(net(x), y)


@pytest.mark.parametrize("kind", ["standard", "noise", "fgsm", "fast", "pgd", "trades"])
@pytest.mark.parametrize("steps", [1, 5])
def test_the_loss_of_each_kind(room, settings, kind, steps):
    settings(attack_steps=steps, trades=4.5)
    net, (x, y) = curved(4), batch(n=12)
    values = []
    for loss in (room.batch_loss, partial(attacked, room, steps=steps)):
        torch.manual_seed(8)
        values.append(loss(net, x, y, kind, 0.15))
    slopes = [torch.autograd.grad(value, list(net.parameters())) for value in values]
    assert torch.allclose(*values, rtol=1e-9) and all(torch.allclose(*pair, atol=1e-10) for pair in zip(*slopes))
    plain = F.cross_entropy(net(x), y)
    if kind in ("standard", "noise"):
        assert torch.equal(values[0], plain) is (kind == "standard"), "no attack"
    else:
        assert values[0] > plain + 0.1
        assert torch.allclose(room.batch_loss(net, x, y, kind, 0.0), plain, rtol=1e-12), "eps 0 is standard training"
    assert all(p.grad is None for p in net.parameters()), "only the caller goes backwards"


# ---------------------------------------------------------------- defences


def coarse(x):
    """Five grey levels."""
    return (4 * x).round() / 4


DEFENCES = {"levels": coarse, "itself": lambda x: x, "mirror": lambda x: x.flip(3), "square": torch.square,
            "numpy": lambda x: torch.from_numpy(np.floor(x.numpy() * 3) / 3)}  # fmt: skip


@pytest.mark.parametrize("name", DEFENCES)
def test_straight_through_is_the_defence_forward_and_the_identity_backward(room, name):
    net, (x, y) = curved(), batch()
    defended = room.Defended(net, DEFENCES[name]).eval()
    with torch.no_grad():
        there = DEFENCES[name](x)
        assert torch.equal(defended(x), net(there))
    assert torch.allclose(room.loss_gradient(defended, x, y), room.loss_gradient(net, there, y))
    leaf, weights = x.clone().requires_grad_(), torch.rand_like(x)
    out = room.StraightThrough.apply(leaf, DEFENCES[name])
    assert torch.equal(out, there) and torch.equal(torch.autograd.grad((out * weights).sum(), leaf)[0], weights)


def test_without_the_straight_way_the_gradient_is_the_defences_own(room):
    net, (x, y) = curved(), batch(n=2)
    smooth = room.Defended(net, lambda x: x**2 + 0.1 * x.flip(2), straight=False).eval()
    assert torch.autograd.gradcheck(lambda z: LOSSES(smooth(z), y), x.clone().requires_grad_())
    assert not room.loss_gradient(room.Defended(net, coarse, straight=False), x, y).any()


def test_bpda_breaks_what_a_blind_attack_cannot(room):
    """Five grey levels: the gradient as it is finds nothing, the straight way fools most, also through torchattacks."""
    net, (x, _) = curved(1), batch(n=60, dtype=torch.float64)
    knowing, blind = room.Defended(net, coarse).eval(), room.Defended(net, coarse, straight=False).eval()
    y = knowing(x).argmax(1)
    held = {}
    for name, source in {"blind": blind, "knowing": knowing}.items():
        out = room.pgd(source, x, y, 0.2, 20, 0.03, start=False)
        held[name] = (knowing(out).argmax(1) == y).double().mean().item()
    theirs = torchattacks.PGD(knowing, eps=0.2, alpha=0.03, steps=20, random_start=False)(x, y)
    assert held["blind"] == 1 and held["knowing"] < 0.5
    assert torch.allclose(theirs, room.pgd(knowing, x, y, 0.2, 20, 0.03, start=False))


def test_models_behind_defences_are_checked_as_they_are(room):
    check, net, (x, _) = room.helper.check_model, curved(), batch()
    check(room.Defended(net, coarse).eval(), x)
    check(room.Expected(room.Defended(net, lambda x: x + 0.1 * torch.randn_like(x), straight=False), 3).eval(), x)
    with pytest.raises(LabError, match=r"no gradient comes through the model to the pictures; .*BPDA"):
        check(room.Defended(net, coarse, straight=False).eval(), x)
    with pytest.raises(LabError, match=r"training mode \(Defended\)"):
        check(room.Defended(net, coarse), x)
    behind = room.Defended(Regularised(), coarse).eval()
    check(behind, x)
    behind.model.drop.train()
    with pytest.raises(LabError, match=r"training mode \(model.drop\)"):
        check(behind, x)
    shifted = room.Defended(net, lambda x: x * torch.nan).eval()
    with pytest.raises(LabError, match="NaN or infinite"):
        check(shifted, x)


class Turns(nn.Module):
    """A random network that answers with the given logits in turn."""

    def __init__(self, answers):
        super().__init__()
        self.answers, self.calls = answers, 0

    def forward(self, x):
        self.calls += 1
        return x.flatten(1)[:, :1] + self.answers[(self.calls - 1) % len(self.answers)]


def test_expected_answers_are_mean_probabilities(room):
    torch.manual_seed(0)
    answers, (x, _) = 60 * torch.randn(4, 6, 3, dtype=torch.float64), batch()
    for draws in (1, 3, 4):
        net = Turns(answers)
        found = room.Expected(net, draws)(x)
        mean = answers[:draws].softmax(2).mean(0)
        assert net.calls == draws and torch.allclose(found.exp(), mean) and found.isfinite().all()
        assert torch.equal(found.argmax(1), mean.argmax(1))
        assert (found >= answers[:draws].log_softmax(2).mean(0) - 1e-9).all(), "the logarithm of a mean, by Jensen"
    far = room.Expected(Turns(torch.tensor([[[0.0, -300.0]], [[0.0, -310.0]]])), 2)(x[:1].float())
    assert torch.allclose(far, torch.tensor([[0.0, -300 + math.log((1 + math.exp(-10)) / 2)]])), "nothing underflows"


def test_expected_gradients_are_those_of_the_mean(room):
    """EOT: over random halves of a picture, against the mean over all of them."""
    net, (x, y) = curved(), batch()
    masks = [torch.zeros(4, 4, dtype=torch.float64).index_fill_(0, torch.tensor(rows), 1) for rows in ([0, 1], [2, 3])]
    turn = itertools.count()
    random = room.Defended(net, lambda x: x * masks[next(turn) % 2], straight=False)
    found = room.loss_gradient(room.Expected(random, 2), x, y)
    leaf = x.clone().requires_grad_()
    mean = (net(leaf * masks[0]).softmax(1) + net(leaf * masks[1]).softmax(1)) / 2
    assert torch.allclose(found, torch.autograd.grad(F.nll_loss(mean.log(), y, reduction="sum"), leaf)[0])


def test_levels_are_the_nearest_of_so_many(room):
    x = torch.rand(2, 3, 9, 9, dtype=torch.float64)
    for bits in (1, 2, 3, 5):
        grid = torch.linspace(0, 1, 2**bits, dtype=torch.float64)
        nearest = grid[(x[..., None] - grid).abs().argmin(-1)]
        assert torch.allclose(room.fewer_levels(x, bits), nearest)


@pytest.mark.parametrize("channels", [1, 3])
def test_defences_give_pictures_of_the_same_kind(room, channels):
    torch.manual_seed(0)
    smooth = torch.linspace(0.1, 0.9, 16).expand(3, channels, 16, 16).clone()
    noisy = (smooth + 0.1 * torch.randn_like(smooth)).clamp(0, 1)
    before = noisy.clone()
    for defence in (room.fewer_levels, room.jpeg, room.blur, room.denoised, room.resized):
        out = defence(noisy)
        assert out.shape == noisy.shape and out.dtype == noisy.dtype and torch.equal(noisy, before), defence
        assert out.isfinite().all() and out.min() >= -1e-6 and out.max() <= 1 + 1e-6, defence
    for defence in (room.blur, room.denoised):
        assert (defence(noisy) - smooth).square().mean() < 0.6 * (noisy - smooth).square().mean(), defence
    assert (room.jpeg(smooth, 100) - smooth).abs().max() < 0.02 < (room.jpeg(noisy, 5) - noisy).abs().max()
    colours = torch.zeros(1, 3, 16, 16)
    colours[:, 0] = 0.8
    assert (room.jpeg(colours, 95) - colours).abs().max() < 0.03, "channels stay in their order"
    flat = torch.full((1, 1, 8, 8), 0.37)
    assert all(torch.allclose(defence(flat), flat, atol=0.01) for defence in (room.jpeg, room.blur, room.denoised))


def test_random_resizing_shows_the_whole_picture_somewhere(room):
    torch.manual_seed(0)
    seen, full = set(), torch.ones(2, 3, 20, 20)
    for _ in range(300):
        rows, columns = (room.resized(full)[0, 0] > 0.5).nonzero().T
        high, wide = (int(part.max() - part.min()) + 1 for part in (rows, columns))
        assert high == wide and len(rows) == high * wide
        seen.add((high, int(rows.min()), int(columns.min())))
    assert {side for side, *_ in seen} == {16, 17, 18, 19, 20}
    for side in (17, 19):
        corners = {place for size, *place in map(list, seen) for place in [tuple(place)] if size == side}
        assert {(0, 0), (20 - side, 20 - side)} <= corners, "up to both edges"


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_filtered_gradients_move_what_they_keep(room, norm):
    net, (x, y) = curved(), batch()
    x, kept = 0.4 + 0.2 * x, torch.zeros(3, 4, 4, dtype=torch.float64)
    kept[1, 2:] = 1
    out = room.pgd(net, x, y, 0.1, 5, 0.04, norm, start=False, keep=lambda g: g * kept)
    moved = (out - x).abs().amax(0) > 0
    assert torch.equal(moved, kept.bool()) and (LOSSES(net(out), y) > LOSSES(net(x), y)).all()
    plain, itself = (room.pgd(net, x, y, 0.1, 5, 0.04, norm, start=False, keep=keep) for keep in (None, lambda g: g))
    assert torch.equal(plain, itself) and (LOSSES(net(plain), y) > LOSSES(net(out), y)).all()


# ---------------------------------------------------------------- frequencies


@pytest.mark.parametrize("size", [7, 16, 28])
@pytest.mark.parametrize("channels", [1, 3])
def test_spectra_by_loops(room, size, channels):
    torch.manual_seed(size)
    delta = torch.randn(5, channels, size, size, dtype=torch.float64) + 0.3
    frequency, power = room.radial_spectrum(delta)
    coefficients = np.abs(np.fft.fft2(delta.numpy())) ** 2 / size**2
    wanted = np.zeros(len(power))
    for i, j in itertools.product(range(size), repeat=2):
        u, v = (k - size if k > size / 2 else k for k in (i, j))
        wanted[round(math.hypot(u, v))] += coefficients[:, :, i, j].sum(1).mean()
    assert np.allclose(power, wanted, rtol=1e-9) and np.allclose(frequency, np.arange(len(power)) / size)
    assert math.isclose(power.sum(), delta.square().sum().item() / 5, rel_tol=1e-12), "Parseval"
    assert math.isclose(power[0], size**2 * delta.mean((2, 3)).square().sum(1).mean(), rel_tol=1e-9), "ring 0: the mean"
    assert torch.allclose(power, room.radial_spectrum(delta.transpose(2, 3).roll(3, 3))[1]), "neither turn nor shift"
    single = room.radial_spectrum(delta.float())[1]
    assert torch.allclose(single.double(), power, rtol=1e-4)


@pytest.mark.parametrize("limit", [0.0, 0.11, 0.25, 0.4])
@pytest.mark.parametrize("size", [16, 28, 9])
def test_a_low_pass_is_a_projection(room, size, limit):
    torch.manual_seed(0)
    delta = torch.randn(4, 3, size, size, dtype=torch.float64) + 0.5
    low = room.low_pass(delta, limit)
    high = delta - low
    assert low.shape == delta.shape and low.dtype == delta.dtype and not low.is_complex()
    assert torch.allclose(room.low_pass(low, limit), low, atol=1e-12), "what has passed passes again"
    assert torch.allclose(room.low_pass(high, limit), 0 * low, atol=1e-12), "and nothing of the rest"
    parts = [part.square().flatten(1).sum(1) for part in (delta, low, high)]
    assert torch.allclose(parts[0], parts[1] + parts[2]), "the two parts are orthogonal"
    assert torch.allclose(room.low_pass(delta + 2 * delta.flip(0), limit), low + 2 * low.flip(0), atol=1e-12), "linear"
    if limit == 0:
        assert torch.allclose(low, delta.mean((2, 3), keepdim=True).expand_as(delta), atol=1e-12)
    rings = room.radial_spectrum(low)[1]
    above = torch.arange(len(rings)) > size * limit + 0.5
    assert not above.any() or rings[above].max() < 1e-20
    assert (room.low_pass(delta.float(), limit) - low).abs().max() < 1e-5


@pytest.mark.parametrize("size", [16, 28])
def test_waves_pass_up_to_the_limit_and_no_further(room, size):
    place = 2 * math.pi * torch.arange(size, dtype=torch.float64) / size
    for down, across in ((0, 1), (3, 0), (3, 4), (2, 2), (size // 2, 0), (6, 8)):
        wave = torch.cos(down * place[:, None] + across * place)[None, None]
        reach = math.hypot(down, across) / size
        assert torch.allclose(room.low_pass(wave, reach), wave, atol=1e-9), (down, across)
        assert room.low_pass(wave, reach - 0.003).abs().max() < 1e-9, (down, across)


# ---------------------------------------------------------------- networks


def sizes(room, channels, size, classes):
    return {"CNN": room.small_cnn(channels, classes), "ViT": room.small_vit(channels, classes, size)}


INPUTS = [(1, 28, 10), (3, 32, 8), (3, 32, 10)]  # MNIST, embedded, CIFAR-10


@pytest.mark.parametrize("name", ["CNN", "ViT"])
@pytest.mark.parametrize("channels, size, classes", INPUTS[:2])
def test_networks_take_pictures_from_0_to_1_and_learn_with_all_parameters(room, name, channels, size, classes):
    torch.manual_seed(0)
    net = sizes(room, channels, size, classes)[name]
    x, y = torch.rand(6, channels, size, size), torch.arange(6) % classes
    seen = []
    net[1].register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    assert net(x).shape == (6, classes)
    assert torch.allclose(seen[0], 4 * x - 2), "(x - 0.5) / 0.25 is the first layer"
    with torch.no_grad():
        for p in net.parameters():  # some scales begin at 0, which stops what lies behind them
            p.add_(0.02 * torch.randn_like(p))
    F.cross_entropy(net(x), y).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in net.parameters())
    net.eval()
    room.helper.check_model(net, x)
    with torch.no_grad():
        assert torch.allclose(net(x)[2:3], net(x[2:3]), atol=1e-5), "a picture's answer is its own"
        assert not torch.allclose(net(x), net(x.roll(size // 4, 3)), atol=1e-4)


@pytest.mark.parametrize("name", ["CNN", "ViT"])
def test_attacks_on_the_networks_are_torchattacks(room, name):
    """In float32, with normalisation inside: few signs of tiny gradients may differ."""
    torch.manual_seed(0)
    net = sizes(room, 1, 28, 10)[name].eval()
    x, y = torch.rand(4, 1, 28, 28), torch.arange(4)
    attack = torchattacks.PGD(net, eps=0.1, alpha=0.03, steps=2)
    torch.manual_seed(1)
    wanted = attack(x, y)
    torch.manual_seed(1)
    out = room.pgd(net, x, y, 0.1, 2, 0.03)
    assert ((out - wanted).abs() > 1e-5).double().mean() < 0.01 and (LOSSES(net(out), y) > LOSSES(net(x), y)).all()


# ---------------------------------------------------------------- training


@pytest.fixture
def start(room, begin_run, monkeypatch):
    """start(name=value, ...) begins a tiny run whose results stay out of the checkout, without earlier states.

    saved: whether states are kept; source: whether they depend on the code too. Both take longer than the trainings.
    """
    monkeypatch.setattr(gc, "collect", lambda *given: 0)  # accelerate's, at each beginning: longer than these trainings

    def begin(saved=False, source=False, **values):
        values = dict(batch_size=8, attack_steps=2) | values
        run = begin_run(room, "tiny", ",".join(f"{name}={value}" for name, value in values.items()))
        shutil.rmtree(run.folder / "state", ignore_errors=True)
        if not saved:
            run.checkpoint = lambda name, config, **extra: SimpleNamespace(done=0, save=lambda done: None)
        if not source:
            run.identity = lambda name, config, frame: (name, digest(config))
        return run

    return begin


def in_parts(room, images, labels):
    """Pictures of which the last tenth is held out."""
    cut = len(labels) * 9 // 10
    train, val = (room.helper.Part(images[part], labels[part]) for part in (slice(cut), slice(cut, None)))
    return room.helper.Pictures("few", "embedded", ["a", "b", "c"], train, val, val)


@pytest.fixture(scope="module")
def few(room):
    """Sixty small pictures of three classes: a bright stripe at one of three places."""
    rng, labels = np.random.default_rng(0), np.arange(60) % 3
    images = rng.integers(0, 120, (60, 6, 6, 1), dtype=np.uint8)
    for image, label in zip(images, labels):
        image[:, 2 * label : 2 * label + 2] += 100
    return in_parts(room, images, labels)


def fit(room, make, pictures, kind, seed, steps, lr=2e-3):
    """A training of the notebook, under one name."""
    return room.train("net", make, pictures, kind, seed, lr, steps, room.cfg.train_eps)


def make_net():
    """A network with statistics of the batch and dropout."""
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.2),
                         nn.Linear(12, 3))  # fmt: skip


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


KINDS = ("standard", "noise", "fgsm", "fast", "pgd", "trades")


@pytest.mark.parametrize("kind", KINDS)
def test_training_follows_from_its_seed_and_pictures(room, start, few, kind):
    found, other = [], dataclasses.replace(few, train=few.train._replace(labels=(few.train.labels + 1) % 3))
    for seed, pictures in ((0, few), (0, few), (1, few), (0, other)):
        start()
        torch.manual_seed(len(found))  # what was drawn before does not count
        net, history = fit(room, make_net, pictures, kind, seed, 3)
        assert not any(module.training for module in net.modules()) and all(p.grad is None for p in net.parameters())
        assert [row[0] for row in history] == [1, 2, 3] and np.isfinite(history).all()
        found.append((net.state_dict(), history))
    assert same(found[0][0], found[1][0]) and found[0][1] == found[1][1]
    assert not same(found[0][0], found[2][0]) and not same(found[0][0], found[3][0])


def test_held_out_pictures_are_watched_and_not_learnt(room, start, few):
    found = []
    for labels in (few.val.labels, (few.val.labels + 1) % 3):
        start()
        pictures = dataclasses.replace(few, val=few.val._replace(labels=labels), test=None)
        found.append(fit(room, make_net, pictures, "pgd", 0, 3))
    assert same(found[0][0].state_dict(), found[1][0].state_dict()) and found[0][1] != found[1][1]


@pytest.mark.parametrize("kind", ["pgd", "trades"])
def test_an_interrupted_training_ends_as_an_uninterrupted_one(room, start, few, kind, monkeypatch):
    """Weights, average, statistics, optimizer, rate, history and what is drawn go on where they were."""
    start()
    whole, history = fit(room, make_net, few, kind, 1, 8)
    start(saved=True)
    taken, loss = [], room.batch_loss

    def stops(*given):
        taken.append(1)
        if len(taken) == 6:
            raise KeyboardInterrupt
        return loss(*given)

    monkeypatch.setattr(room, "batch_loss", stops)
    with pytest.raises(KeyboardInterrupt):
        fit(room, make_net, few, kind, 1, 8)
    torch.manual_seed(99)
    net, again = fit(room, make_net, few, kind, 1, 8)
    assert len(taken) == 6 + 3, "five steps were done and saved"
    assert again == history and len(history) == 8 and same(whole.state_dict(), net.state_dict())


def test_a_state_is_taken_up_by_the_same_training_alone(room, start, few, capsys):
    """Any other one would be given under this one's name."""
    start(saved=True)
    parts = {name: part._replace(images=part.images[::-1].copy()) for name, part in few.parts().items()}
    others = [dataclasses.replace(few, **{name: parts[name]}) for name in ("train", "val")]
    fit(room, make_net, few, "trades", 0, 1)
    rest = [(few, "pgd", 0, 2e-3), (few, "trades", 1, 2e-3), (few, "trades", 0, 1e-3)]
    for pictures, kind, seed, lr in (*rest, *((other, "trades", 0, 2e-3) for other in others)):
        fit(room, make_net, pictures, kind, seed, 1, lr)
        assert "goes on from" not in capsys.readouterr().out
    fit(room, make_net, few, "trades", 0, 1)
    assert "goes on from epoch 1" in capsys.readouterr().out


def test_a_state_of_other_settings_is_not_taken_up(room, start, few, capsys):
    run = start(saved=True, source=True)
    for name, value in (("trades", 1.0), ("attack_steps", 1), ("train_eps", 4.0)):
        fit(room, make_net, few, "trades", 0, 1)
        setattr(run.cfg, name, value)
    assert "goes on from" not in capsys.readouterr().out


def test_a_loss_that_is_not_finite_stops(room, start, few):
    run = start(saved=True)

    def broken():
        net = make_net()
        nn.init.constant_(net[-1].bias, math.nan)
        return net

    with pytest.raises(LabError, match=r"net, standard: .*not finite after 1 steps") as error:
        fit(room, broken, few, "standard", 0, 4)
    assert "\n" not in str(error.value) and not list((run.folder / "state").glob("*/epoch-*"))


@pytest.mark.parametrize("kind", ["standard", "trades"])
@pytest.mark.parametrize("steps", [1, 12])
def test_eps_grows_over_the_first_third_and_batches_are_drawn_anew(room, start, few, monkeypatch, kind, steps):
    start(train_eps=51.0)
    made, seen, loss = [], [], room.batch_loss

    def watched(model, x, y, kind, eps):
        seen.append((model, model.training, model[1].weight.detach().clone(), x, y, kind, eps))
        return loss(model, x, y, kind, eps)

    monkeypatch.setattr(room, "batch_loss", watched)
    fit(room, lambda: made.append(make_net()) or made[-1], few, kind, 0, steps)
    assert all(model is made[0] and training and kind == told for model, training, *_, told, _ in seen)
    assert [round(eps / 0.2, 9) for *_, eps in seen] == [round(min(1, 3 * (k + 1) / steps), 9) for k in range(steps)]
    assert all(not torch.equal(a[2], b[2]) for a, b in itertools.pairwise(seen)), "each step changes the weights"
    known = {image.tobytes(): label for image, label in zip(few.train.images, few.train.labels)}
    for _, _, _, x, y, _, _ in seen:
        pictures = (255 * x).round().byte().permute(0, 2, 3, 1).numpy()
        assert [known[picture.tobytes()] for picture in pictures] == y.tolist() and len(y) == 8
    assert steps == 1 or not torch.equal(seen[0][3], seen[1][3])


@pytest.mark.parametrize("kind, name", [("fgsm", "fgsm"), ("fast", "fast_step"), ("pgd", "pgd")])
def test_attacks_of_training_meet_the_weights_of_their_step(room, start, few, monkeypatch, kind, name):
    start()
    original, seen, made = getattr(room, name), [], []

    def watched(model, x, *given, **named):
        out = original(model, x, *given, **named)
        seen.append((model, model.training, model[1].weight.detach().clone(), (out - x).abs().max().item(), len(x)))
        return out

    monkeypatch.setattr(room, name, watched)
    fit(room, lambda: made.append(make_net()) or made[-1], few, kind, 0, 4)
    learnt = [entry for entry in seen if entry[4] == 8]  # others are of held-out pictures
    assert len(learnt) == 4 and not any(entry[1] for entry in seen), "in evaluation mode"
    assert all(entry[0] is made[0] and entry[3] > 0 for entry in seen)
    assert all(not torch.equal(a[2], b[2]) for a, b in itertools.pairwise(learnt))


def test_the_network_that_comes_back_is_the_average_of_weights_and_of_batch_norm(room, start, few, monkeypatch):
    start()
    states, loss, made = [], room.batch_loss, []

    def watched(model, *given):
        states.append({key: value.clone() for key, value in model.state_dict().items()})
        return loss(model, *given)

    monkeypatch.setattr(room, "batch_loss", watched)
    net, _ = fit(room, lambda: made.append(make_net()) or made[-1], few, "standard", 0, 6)
    after = [*states[1:], made[0].state_dict()]
    for key in ("1.weight", "2.running_mean", "5.bias"):
        wanted = after[0][key]
        for count, state in enumerate(after[1:], 1):
            decay = (1 + count) / (10 + count)
            wanted = decay * wanted + (1 - decay) * state[key]
        assert torch.allclose(net.state_dict()[key], wanted, atol=1e-6), key
        assert not torch.equal(net.state_dict()[key], after[-1][key])


@pytest.mark.parametrize("one, many, at", [
    ((30, 40, 60, 90, 95), (25, 35, 40, 10, 1), 40), ((30, 40, 60, 90, 95), (25, 35, 40, 21, 19), 50),
    ((30, 40, 60, 70, 75), (25, 35, 40, 38, 36), None), ((50, 60, 10, 10, 9), (40, 50, 5, 5, 4), None),
    ((30, 60, 95, 95, 95), (25, 2, 30, 31, 32), 20), ((0, 0, 0, 0, 0), (0, 0, 0, 0, 0), None),
])  # fmt: skip
def test_a_collapse_is_seen_where_pgd_falls_and_fgsm_does_not(room, one, many, at):
    assert room.collapsed_at(np.arange(10, 60, 10), np.array(one), np.array(many)) == at


@pytest.mark.parametrize("count, decay", [(1, 2 / 11), (9, 10 / 19), (10_000, 0.99)])
def test_the_average_forgets_its_beginning(room, count, decay):
    for average, current in ((1.0, 0.0), (3.0, 3.0), (-2.0, 5.0)):
        found = room.averaged(torch.tensor(average), torch.tensor(current), torch.tensor(count))
        assert math.isclose(found, decay * average + (1 - decay) * current, rel_tol=1e-5)


def test_training_against_attacks_holds_where_standard_training_breaks(room, start):
    """Faint pixels tell the class surely, a strong one nearly: an attack of eps turns the faint ones round."""
    rng, labels = np.random.default_rng(0), np.arange(400) % 2
    images, side = rng.integers(118, 138, (400, 3, 3, 1), dtype=np.uint8), 2 * labels - 1
    images[:, 0, :, 0] = (128 + 6 * side)[:, None]  # three faint pixels, never wrong
    images[:, 2, 2, 0] = 128 + np.where(rng.random(400) < 0.9, 60, -60) * side
    x, y, held = room.helper.to_tensor(images), torch.from_numpy(labels), {}
    for kind in ("standard", "pgd", "trades"):
        start(batch_size=64, train_eps=25.5)
        make = partial(nn.Sequential, nn.Flatten(), nn.Linear(9, 2))
        net, history = fit(room, make, in_parts(room, images, labels), kind, 0, 60, 0.05)
        found = room.unbroken(net, x, y, {"pgd": lambda m, a, b: room.pgd(m, a, b, 0.1, 10, 0.03)})
        held[kind] = [100 * found[name].double().mean().item() for name in ("clean", "pgd")]
        assert [row[0] for row in history][-2:] == [57, 60] and history[-1][1] < history[0][1]
    assert held["standard"][0] > 90 and held["standard"][1] < 40, held
    assert all(held[kind][1] > 80 for kind in held if kind != "standard"), held


@pytest.mark.parametrize("kind", KINDS)
def test_batch_norm_sees_what_is_learnt_and_no_steps_of_attacks(room, settings, kind):
    net, (x, y) = Regularised().train(), batch()
    before = net.norm.running_mean.clone()
    room.batch_loss(net, x, y, kind, 0.1).backward()
    assert net.norm.num_batches_tracked == (2 if kind == "trades" else 1)  # the picture and the attacked one
    assert all(module.training for module in net.modules()) and not torch.equal(net.norm.running_mean, before)
    if kind == "standard":
        with torch.no_grad():
            mean = net.convolution(x).mean((0, 2, 3))
        assert torch.allclose(net.norm.running_mean, 0.9 * before + 0.1 * mean)


def test_unknown_trainings_are_refused(room, settings):
    with pytest.raises(ValueError, match="unknown training: free"):
        room.batch_loss(curved(), *batch(), "free", 0.1)


# ---------------------------------------------------------------- tiny gradients, failed attacks, bad input


@pytest.mark.parametrize("scale", [1e-14, 1e-20, 1e-30])
def test_steepest_directions_of_small_gradients_have_length_1(room, scale):
    gradient = scale * torch.randn(4, 1, 28, 28)
    assert torch.allclose(length(room.steepest(gradient, "l2")), torch.ones(4), atol=1e-4)


def test_pgd_l2_is_as_strong_against_a_confident_network(room):
    """All logits times 60 leave the answers and their boundary where they are."""
    torch.manual_seed(1)
    weight, x = 0.1 * torch.randn(1, 192), 0.25 + 0.5 * torch.rand(50, 3, 8, 8)
    plain, sure = (linear(torch.cat([weight, -weight]) * k, dtype=torch.float32) for k in (1, 60))
    y = plain(x).argmax(1)
    left = [
        (net(room.pgd(net, x, y, 1.0, 20, 0.2, "l2", start=False)).argmax(1) == y).sum().item() for net in (plain, sure)
    ]
    assert left[0] == left[1], left


@pytest.mark.parametrize("size", [7, 28])
def test_waves_at_the_limit_pass_in_float32(room, size):
    place = torch.arange(size, dtype=torch.float64)
    for k in range(1, size // 2 + 1):
        wave = torch.cos(2 * math.pi * k * place / size).expand(1, 1, size, size).float()
        assert torch.allclose(room.low_pass(wave, k / size), wave, atol=1e-4), k


@pytest.mark.parametrize("norm", ["L2", "Linf", "l1", "linf "])
def test_unknown_norms_are_refused(room, norm):
    x, y = batch()
    with pytest.raises(LabError, match="norm"):
        room.pgd(curved(), x, y, 0.1, 2, 0.05, norm)


def test_attacks_are_not_asked_about_nothing(room):
    """After everything is broken."""
    net, (x, _), sizes = curved(), batch(), []
    wrong = (net(x).argmax(1) + 1) % 3
    room.unbroken(net, x, wrong, {"any": lambda model, x, y: (sizes.append(len(x)), x)[1]})
    assert 0 not in sizes


def test_pictures_that_are_nan_do_not_count_as_robust(room):
    """The answer to NaN is class 0, so that pictures of class 0 withstand an attack that failed."""
    net, (x, _) = curved(), batch(n=30)
    y = net(x).argmax(1)
    with pytest.raises(LabError, match=r"NaN|finite|\[0, 1\]"):
        room.unbroken(net, x, y, {"fails": lambda model, x, y: x * math.nan})


@pytest.mark.parametrize("spread", [150.0, 400.0])
def test_trades_of_a_confident_network_has_a_gradient(room, spread):
    """A probability that underflows to 0 in float32 makes the gradient NaN."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    x, y = torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])
    with torch.no_grad():
        net[1].bias.copy_(torch.tensor([0.0, spread / 2, spread]))
    loss = room.trades(net, x, y, 0.1, 2, 0.05, 6.0)
    assert torch.autograd.grad(loss, net[1].weight)[0].isfinite().all() and loss.isfinite()


@pytest.mark.parametrize("call", ["fgsm", "pgd", "cw", "fast"])
def test_pictures_of_0_to_255_are_refused(room, call):
    net, (x, y) = curved(), batch()
    calls = {
        "fgsm": lambda z: room.fgsm(net, z, y, 0.1),
        "pgd": lambda z: room.pgd(net, z, y, 0.1, 2, 0.05),
        "cw": lambda z: room.carlini_wagner(net, z, y, 1.0, 3),
        "fast": lambda z: room.fast_step(net, z, y, 0.1),
    }
    with pytest.raises(LabError, match="0, 1"):
        calls[call](255 * x)


def test_a_model_of_whose_middle_class_alone_the_pictures_tell_is_no_model_without_gradient(room):
    """Whatever the weights of the logits in check_model, none may be 0."""

    class Middle(nn.Module):
        def forward(self, x):
            z = x.flatten(1).sum(1)
            return torch.stack([0 * z, z, 0 * z], 1)

    x, y = batch()
    assert room.loss_gradient(Middle().eval(), x, y).any()
    room.helper.check_model(Middle().eval(), x)


def test_carlini_wagner_takes_pictures_that_require_a_gradient(room):
    net, (x, y) = curved(), batch()
    out = room.carlini_wagner(net, x.clone().requires_grad_(), y, 5.0, 3)
    assert not out.requires_grad and F.mse_loss(out, x) < 1


# ---------------------------------------------------------------- what the notebook looks at


class Brightness(nn.Module):
    """Class 1 where the mean of a picture is above one half, else 0, never 2 to 4: torchattacks wants four classes.

    The first two logits are `steepness` times the distance to one half.
    """

    def __init__(self, steepness=8.0):
        super().__init__()
        self.steepness = nn.Parameter(torch.tensor(steepness))

    def forward(self, x):
        apart = self.steepness * (x.flatten(1).mean(1) - 0.5)
        return torch.stack([-apart, apart, *[0 * apart - 9] * 3], 1)


class Steps(Brightness):
    """The same answers from a picture of 5 grey levels: no gradient anywhere."""

    def forward(self, x):
        return super().forward(x + ((4 * x).round() / 4 - x).detach() - (x - x.detach()))


@pytest.fixture
def bright(room, monkeypatch):
    """Pictures whose mean is 0.1 off one half, and what Brightness answers."""
    monkeypatch.setattr(room, "classes", 5, raising=False)
    torch.manual_seed(0)
    x = torch.rand(24, 1, 6, 6) * 0.2 + torch.where(torch.arange(24) % 2 == 0, 0.3, 0.5)[:, None, None, None]
    return x, (x.flatten(1).mean(1) > 0.5).long()


SHORT = dict(strong_steps=8, queries=40, restarts=1, fab_steps=5)


def test_the_checklist_attacks_pictures_that_are_right(room, settings, bright):
    settings(**SHORT)
    x, y = bright
    wrong = torch.cat([y[:20], 1 - y[20:]])  # of the last four the clean answer is wrong
    weak, strong = (room.checklist(Brightness().eval(), [Brightness().eval()], x, wrong, eps) for eps in (0.01, 0.2))
    assert weak.pop("largest class") == strong.pop("largest class") == 50
    assert set(weak.values()) == {100.0, 0.0} and weak["PGD of 0.5"] == 0
    weak["largest class"] = strong["largest class"] = 50.0
    assert strong["one step"] == strong["PGD"] == strong["PGD, restarts"] == strong["transfer"] == 0
    assert strong["random signs"] > 50, "random signs cancel in a mean"
    assert room.alarms(weak) == room.alarms(strong) == []


def test_the_checklist_says_something_where_nothing_is_right(room, settings, bright):
    settings(**SHORT)
    found = room.checklist(Brightness().eval(), [Brightness().eval()], bright[0], 1 - bright[1], 0.01)
    assert all(math.isfinite(value) for value in found.values()) and found["one step"] == 0


def test_the_checklist_finds_a_hidden_gradient(room, settings, bright):
    settings(**SHORT)
    raised = room.alarms(room.checklist(Steps().eval(), [Brightness().eval()], *bright, 0.2))
    assert "transfer breaks more" in raised and "a perturbation of 0.5 does not break" in raised


@pytest.mark.parametrize("turn", [1, -1])
def test_the_checklist_takes_the_transfer_that_breaks_most(room, settings, bright, turn):
    settings(**SHORT)
    others = [Steps().eval(), Brightness().eval()][::turn]  # pictures made on Steps are random ones
    found = room.checklist(Steps().eval(), others, *bright, 0.2)
    assert found["transfer"] == 0 < found["PGD"]


ORDERLY = {"random signs": 95.0, "one step": 60.0, "PGD, a quarter of the steps": 50.0, "PGD": 45.0,
           "PGD, restarts": 44.0, "PGD of 0.5": 0.0, "transfer": 90.0, "APGD, targeted": 42.0, "Square": 48.0,
           "largest class": 20.0}  # fmt: skip


@pytest.mark.parametrize("change, words", [
    ({}, None), ({"PGD": 69.0, "PGD, a quarter of the steps": 69.0}, None), ({"Square": 35.0}, None),
    ({"PGD": 71.0, "PGD, a quarter of the steps": 71.0}, "many steps break less than one"),
    ({"PGD, a quarter of the steps": 34.0}, "more steps break less"), ({"Square": 33.0}, "no gradient breaks more"),
    ({"transfer": 33.0}, "transfer breaks more"), ({"random signs": 33.0}, "random signs break more"),
    ({"PGD of 0.5": 31.0}, "a perturbation of 0.5 does not break"), ({"PGD of 0.5": 29.0}, None),
    ({"APGD, targeted": 33.0}, "another loss breaks more"), ({"PGD of 0.5": 99.0, "largest class": 100.0}, None),
])  # fmt: skip
def test_each_alarm_has_its_own_sign(room, change, words):
    assert room.alarms(ORDERLY | change) == ([words] if words else [])


def test_the_surface_is_the_loss_at_its_places(room, bright):
    x, y = bright[0][:1], bright[1][:1]
    torch.manual_seed(3)
    grid, loss = room.surface(Brightness(), x, y, 8 / 255, points=5)
    torch.manual_seed(3)
    random = torch.randn_like(x).sign()
    along = room.loss_gradient(Brightness(), x, y).sign()
    assert np.allclose(grid, [-16, -8, 0, 8, 16]) and loss.shape == (5, 5)
    for i, up in enumerate(grid):
        for j, across in enumerate(grid):
            there = x + across / 255 * along + up / 255 * random
            assert abs(loss[i, j] - F.cross_entropy(Brightness()(there), y).item()) < 1e-5


def test_what_a_defence_holds_is_right_under_both_attacks(room, settings, bright):
    """A defence that darkens: blind attacks are shifted with it, one that knows it breaks all."""
    settings(**SHORT)
    x, y = bright

    def levels(x):
        return (4 * x).round() / 4

    clean, blind, adaptive = room.defended(Brightness().eval(), levels, True, 1, x, y, 0.3)
    with torch.no_grad():
        answers = Brightness()(levels(x)).argmax(1)
    assert np.array_equal(clean, 100 * (answers == y).numpy()) and set(np.unique(clean)) <= {0, 100}
    assert (adaptive <= blind).all() and adaptive.sum() == 0
    none = room.defended(Brightness().eval(), nn.Identity(), False, 1, x, y, 1e-4)
    assert all(np.array_equal(part, np.full(24, 100)) for part in none)


def test_attacks_of_the_library_leave_the_generator_alone(room):
    net, (x, _) = curved(), batch(n=8)
    y = net(x).argmax(1)
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    room.by_torchattacks(torchattacks.Square, 0.1, n_queries=3)(net, x, y)
    assert torch.equal(torch.rand(4), expected)


def test_an_attack_of_the_library_that_leaves_its_ball(room):
    class Far:
        def __init__(self, model, eps):
            self.eps = eps

        def __call__(self, x, y):
            return x + 1.1 * self.eps

    x, y = batch(n=4)
    with pytest.raises(LabError, match=r"Far of torchattacks moved a number by more than 0\.1"):
        room.by_torchattacks(Far, 0.1)(curved(), x, y)


def test_the_attacks_of_the_evaluation_stay_in_their_ball(room, settings, bright):
    settings(**SHORT)
    torch.manual_seed(0)
    x, y = bright
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 5)).eval()
    y = model(x).argmax(1)
    attacks = room.attacks_at(0.1)
    assert list(attacks) == ["FGSM", "PGD", "APGD", "APGD, targeted", "FAB, targeted", "Square"]
    for name, attack in attacks.items():
        moved = attack(model, x, y).detach()
        assert (moved - x).abs().max() <= 0.1 + 1e-5 and moved.min() >= 0 and moved.max() <= 1, name
        assert (model(moved).argmax(1) != y).any(), f"{name} breaks nothing"


@pytest.mark.parametrize("factor, broken", [(1.0, False), (2.0, True)])
def test_a_radius_that_is_too_large_is_noticed(room, factor, broken):
    """A half space, whose true radius is the distance to its plane: an attack on the answer goes straight across."""
    torch.manual_seed(0)
    plane = nn.Sequential(nn.Flatten(), nn.Linear(12, 2)).double().eval()
    x = 0.5 + 0.3 * torch.randn(30, 3, 2, 2, dtype=torch.float64)
    answers, radii = room.certify(plane, x, 0.3, 1000)
    way = plane[1].weight[1] - plane[1].weight[0]
    way = (way / way.norm()).detach().reshape(1, 3, 2, 2) * torch.where(answers == 0, 1, -1)[:, None, None, None]
    there = x + way * torch.from_numpy(factor * radii)[:, None, None, None]
    found = room.shown_wrong(plane, there, answers, 0.3, 1000)
    assert (radii > 0).sum() > 10 and found[radii > 0].any() == broken


def test_pgd_refuses_a_model_that_gives_nan(room):
    class Falls(nn.Module):
        def forward(self, x):
            return torch.stack([x.flatten(1).mean(1), -x.flatten(1).mean(1)], 1) / (x.flatten(1).std(1) < 0.1)[:, None]

    x = torch.full((3, 1, 4, 4), 0.5)
    with pytest.raises(LabError, match="not finite"):
        room.pgd(Falls().eval(), x, torch.zeros(3, dtype=torch.long), 0.4, 2, 0.2)


def test_larger_logits_are_the_same_answers(room, bright):
    with torch.no_grad():
        assert torch.equal(room.Times(Brightness(), 100)(bright[0]), 100 * Brightness()(bright[0]))


def test_threat_models_in_words(room, settings):
    settings(strong_steps=20, restarts=2, fab_steps=10, queries=200)
    assert room.threat(8, "PGD") == "linf 8/255, PGD-20, white-box"
    assert room.threat(0.5, "PGD", "l2", 7, 3) == "l2 0.5, PGD-7 (3 starts), white-box"
    words = room.all_attacks(76.5)
    assert all(part in words for part in ("linf 76.5/255", "PGD-20 (2 starts)", "targeted FAB-10", "200 queries"))
