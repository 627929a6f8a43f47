"""nndl/mnist.py: IDX files as users have them, and MNIST's own."""

import gzip
import struct

import numpy as np
import pytest

from nndl import mnist
from nndl.files import DataError
from real_data import REAL, needs


def idx(array, kind=8):
    """An IDX file's bytes."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, kind, array.ndim, *array.shape) + array.tobytes()


def write_mnist(folder, n=20, pack=True, **changes):
    """A small MNIST of noise in torchvision's layout; changes: {part of a file's name: bytes}."""
    rng, raw = np.random.default_rng(0), folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for images, labels in mnist.FILES.values():
        parts = {images: rng.integers(0, 256, (n, 28, 28), dtype=np.uint8), labels: np.arange(n, dtype=np.uint8) % 10}
        for name, array in parts.items():
            data = next((new for key, new in changes.items() if key in name.replace("-", "_")), idx(array))
            (raw / (name + ".gz" * pack)).write_bytes(gzip.compress(data) if pack else data)


@pytest.mark.parametrize("pack", [True, False])
@pytest.mark.parametrize("inner", ["", "MNIST", "MNIST/raw"])
def test_packed_or_not_and_wherever_the_folder_begins(tmp_path, pack, inner):
    write_mnist(tmp_path, pack=pack)
    images, labels = mnist.load_mnist(tmp_path / inner, "test")
    assert images.shape == (20, 28, 28) and images.dtype == np.uint8 and labels.tolist() == 2 * list(range(10))
    assert not np.array_equal(images, mnist.load_mnist(tmp_path, "train")[0])


def test_rows_are_rows(tmp_path):
    array = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
    (tmp_path / "x").write_bytes(idx(array))
    assert mnist.read_idx(tmp_path / "x").tolist() == [[[0, 1, 2], [3, 4, 5]]]


GOOD = idx(np.zeros((20, 28, 28), np.uint8))
BAD = {
    "cut short": (dict(train_images=GOOD[:-1]), r"train-images.*: 15679 bytes for shape \(20, 28, 28\).* needs 15680"),
    "too long": (dict(train_images=GOOD + b"x"), "train-images.*: 15681 bytes"),
    "header cut": (dict(train_images=GOOD[:9]), "train-images.*: its IDX header is cut short"),
    "floats": (dict(train_images=idx(np.zeros((20, 28, 28), ">f4"), 13)), "IDX type 13"),
    "a web page": (dict(train_images=b"<!DOCTYPE html><html>"), "train-images.*: no IDX file"),
    "empty": (dict(train_images=b""), "train-images.*: no IDX file"),
    "other size": (dict(train_images=idx(np.zeros((20, 32, 32), np.uint8))), r"shape \(20, 32, 32\)"),
    "no picture": (dict(train_images=idx(np.zeros((0, 28, 28), np.uint8))), r"shape \(0, 28, 28\)"),
    "labels of others": (dict(train_labels=idx(np.zeros(19, np.uint8))), r"labels of shape \(19,\) for 20 pictures"),
    "label too large": (dict(train_labels=idx(np.full(20, 10, np.uint8))), "label 10; digits are 0 to 9"),
    "dimensions that overflow": (
        dict(train_images=struct.pack(">BBBB3I", 0, 0, 8, 3, 2**31, 2**31, 2**31)), "bytes for shape"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("pack", [True, False])
def test_bad_files_are_named(tmp_path, kind, pack):
    changes, words = BAD[kind]
    write_mnist(tmp_path, pack=pack, **changes)
    with pytest.raises(DataError, match=words) as error:
        mnist.load_mnist(tmp_path, "train")
    assert "\n" not in str(error.value)


def test_broken_gzip_and_missing_files_are_named(tmp_path):
    write_mnist(tmp_path)
    file = tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte.gz: broken gzip"):
        mnist.load_mnist(tmp_path, "test")
    file.unlink()
    with pytest.raises(DataError, match=r"no t10k-images-idx3-ubyte or t10k-images-idx3-ubyte.gz; torchvision"):
        mnist.load_mnist(tmp_path, "test")


@needs("mnist")
def test_the_real_files():
    images, labels = mnist.load_mnist(REAL / "mnist", "train")
    assert np.bincount(labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert images.shape == (60000, 28, 28) and 33.2 < images.mean() < 33.4
    test = mnist.load_mnist(REAL / "mnist", "test")
    assert np.bincount(test[1]).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
