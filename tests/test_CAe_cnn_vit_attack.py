"""CAe_cnn_vit_attack: drawn shapes and their faint patterns, real files, what is refused, settings, drawing."""

import functools
import hashlib
import importlib.util
import math
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from nasty_files import PICTURES, SHARDS, STRAYS, by_name, encode, put_strays, tables
from test_mnist import idx, write_mnist
from torch import nn

from nndl import rooms
from nndl.files import DataError
from nndl.records import LabError
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
    """Each picture gets eight small shapes of all kinds, and one large one: that of its label."""
    drawn, labels = {}, np.arange(160) % 8
    monkeypatch.setattr(helper, "stamp", lambda image, *what: drawn.setdefault(image.ctypes.data, []).append(what))
    helper.draw_shapes(labels, 32, np.random.default_rng(0))
    large = [[what for what in calls if len(what[0]) == 32] for calls in drawn.values()]
    assert [len(calls) for calls in drawn.values()] == [9] * 160 and [len(calls) for calls in large] == [1] * 160
    assert all(np.array_equal(calls[0][0], helper.stencils(32)[label]) for calls, label in zip(large, labels))
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

GOOD = dict(seeds=(0, 1), steps=600, trial_steps=100, batch_size=64, rates=(1e-3, 2e-3), eps=(0.0, 0.5, 8.0),
            watched=64, train_eps=8.0, attack_steps=5, strong_steps=20, fab_steps=10, restarts=1, queries=100,
            draws=200, limit=0, held=300, tested=200, photographs=0, defence_eps=2.0, sigma=0.25, l2_eps=0.5,
            trades=6.0, dataset="mnist", repeated=("standard", "pgd"), once=("fgsm", "fast", "noise"))  # fmt: skip


def test_settings(helper):
    helper.check_settings(SimpleNamespace(**GOOD))
    edges = dict(limit=200, held=10, tested=20, eps=(255,), seeds=(2**32 - 1, 0), dataset="cifar10", trades=0.0)
    helper.check_settings(SimpleNamespace(**GOOD | edges))


@pytest.mark.parametrize("name, value", [
    *((name, 0) for name in ("steps", "trial_steps", "attack_steps", "strong_steps", "fab_steps", "restarts", "queries",
                             "watched", "train_eps", "defence_eps", "sigma", "l2_eps")),
    ("batch_size", 1), ("steps", 1.5), ("steps", math.nan), ("limit", -1), ("limit", 100), ("held", 9), ("tested", 19),
    ("tested", math.inf), ("draws", 19), ("photographs", -1), ("train_eps", -8), ("train_eps", math.nan),
    ("train_eps", 256), ("sigma", math.inf), ("trades", -1), ("trades", math.nan), ("rates", ()), ("rates", (0.0, 0.1)),
    ("rates", (1.0,)), ("rates", (math.nan,)), ("rates", (0.1, 0.1)),
    ("eps", ()), ("eps", (8, 4)), ("eps", (4, 4)), ("eps", (-1, 4)), ("eps", (0, math.nan)), ("eps", (0, 300)),
    ("seeds", ()), ("seeds", (0,)), ("seeds", (0, 0)), ("seeds", (-1, 0)), ("seeds", (0.5, 1)), ("seeds", (2**32, 0)),
    ("seeds", (math.nan, 1)), ("repeated", ("standard",)), ("repeated", ("standard", "pgd", "magic")),
    ("repeated", ("standard", "pgd", "pgd")), ("once", ("fgsm", "fast")), ("once", ("fgsm", "fast", "noise", "pgd")),
    ("dataset", "cifar100"),
])  # fmt: skip
def test_settings_that_cannot_work(helper, name, value):
    with pytest.raises(LabError, match="tested" if (name, value) == ("limit", 100) else f"setting {name}="):
        helper.check_settings(SimpleNamespace(**GOOD | {name: value}))


# ---------------------------------------------------------------- drawing


@pytest.fixture
def figure(monkeypatch):
    """What a drawing function leaves behind when it shows its figure."""
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(plt.gcf()))
    yield lambda: shown[-1]
    plt.close("all")


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
