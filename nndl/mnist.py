"""MNIST's own files (IDX), packed or not, in torchvision's layout: <folder>/MNIST/raw/train-images-idx3-ubyte.gz."""

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np

from nndl.files import DataError, foreign, one_line, read_bytes

FILES = {"train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
         "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")}  # fmt: skip
BY_HAND = "torchvision.datasets.MNIST(root=<that folder>, download=True) brings them"


def read_idx(path):
    """An IDX file of unsigned bytes, also gzipped, as a uint8 array of the shape that its header gives."""
    path, data = Path(path), read_bytes(path)
    if data.startswith(b"\x1f\x8b"):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path}: broken gzip ({one_line(error)}); fetch it again") from None
    if len(data) < 4 or data[:2] != b"\0\0":
        raise DataError(f"{path}: no IDX file ({foreign(data) or 'it does not begin with two zero bytes'})")
    kind, dims = data[2], data[3]
    if kind != 8 or dims < 1:
        raise DataError(f"{path}: IDX type {kind} with {dims} dimensions; unsigned bytes (8) are expected")
    if len(data) < 4 + 4 * dims:
        raise DataError(f"{path}: its IDX header is cut short; fetch it again")
    shape = struct.unpack(f">{dims}I", data[4 : 4 + 4 * dims])
    whole = int(np.prod(shape, dtype=object))
    if len(data) - 4 - 4 * dims != whole:
        raise DataError(
            f"{path}: {len(data) - 4 - 4 * dims} bytes for shape {shape}, which needs {whole}; fetch it again"
        )
    return np.frombuffer(data, np.uint8, offset=4 + 4 * dims).reshape(shape)


def load_mnist(folder, part):
    """Images (N, 28, 28) uint8 and labels (N,) int64 of "train" or "test". DataError names the file at fault."""
    folder, found = Path(folder), []
    places = [folder / "MNIST" / "raw", folder / "raw", folder]
    for name in FILES[part]:
        there = [place / (name + end) for place in places for end in ("", ".gz") if (place / (name + end)).is_file()]
        if not there:
            raise DataError(f"{places[0]}: no {name} or {name}.gz; {BY_HAND}")
        found.append((there[0], read_idx(there[0])))
    (images_at, images), (labels_at, labels) = found
    if images.ndim != 3 or images.shape[1:] != (28, 28) or not len(images):
        raise DataError(f"{images_at}: pictures of shape {images.shape}; (N, 28, 28) is expected")
    if labels.shape != (len(images),):
        raise DataError(f"{labels_at}: labels of shape {labels.shape} for {len(images)} pictures of {images_at.name}")
    if labels.max() > 9:
        raise DataError(f"{labels_at}: label {labels.max()}; digits are 0 to 9")
    return images, labels.astype(np.int64)
