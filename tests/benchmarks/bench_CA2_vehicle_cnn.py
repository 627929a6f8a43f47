"""CA2_vehicle_cnn: reading features beside torchvision's own model; Span beside PCA; the nested RBF grid."""

import time
from statistics import median
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision
from sklearn.decomposition import PCA

from nndl import rooms
from nndl.notebooks import load_definitions

SLOWEST = 1.1  # reading features may take so many times what the bare network takes at its best batch size
MINUTES = 10  # for the RBF grid in 5 x 5 folds


@pytest.fixture(scope="module")
def room():
    definitions = load_definitions(rooms.ROOT / "CA2_vehicle_cnn" / "code.ipynb")
    definitions.run = SimpleNamespace(device=torch.device("cpu"))
    definitions.cfg = SimpleNamespace(folds=5, seed=0)
    return definitions


def bare(features, images, batch_size):
    """torchvision's layers on normalised pictures, in evaluation mode, and nothing else."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.inference_mode():
        return [features(part) for part in x.split(batch_size)]


def test_reading_features_is_as_fast_as_the_network(room):
    torch.manual_seed(0)
    features = torchvision.models.alexnet(weights=None).features.eval()
    stages = torch.nn.Sequential(*features)
    images = np.random.default_rng(0).integers(0, 256, (64, 224, 224, 3), dtype=np.uint8)
    seconds = {}
    for _ in range(4):  # the first round warms up
        for name, call in (
            ("ours", lambda: room.extract(stages, (13,), images, room.HALVES)),
            *((size, lambda size=size: bare(features, images, size)) for size in (1, 8, 16, 32, 64)),
        ):
            begin = time.perf_counter()
            call()
            seconds.setdefault(name, []).append(time.perf_counter() - begin)
    took = {name: median(values[1:]) for name, values in seconds.items()}
    best = min(value for name, value in took.items() if name != "ours")
    print(f"64 pictures: ours {took['ours']:.2f} s, torchvision's at its best batch {best:.2f} s ({took})")
    assert took["ours"] < SLOWEST * best, f"{took['ours'] / best:.2f} times as long"


@pytest.mark.parametrize("who", ["Span", "PCA"])
def test_coordinates(benchmark, room, who):
    x = np.random.default_rng(0).normal(size=(576, 25_088)).astype(np.float32)
    benchmark.group, benchmark.name = "coordinates of 576 rows of 25,088", who
    make = {"Span": room.Span, "PCA": lambda: PCA(575, svd_solver="full")}[who]
    benchmark.pedantic(lambda: make().fit(x).transform(x), rounds=2)


def test_rbf_grid_in_nested_folds(room):
    """720 pictures, 25,088 numbers each, six classes: 5 x 5 folds, 3 x 3 settings."""
    rng = np.random.default_rng(0)
    labels = np.arange(720) % 6
    x = (rng.normal(size=(720, 25_088)) + 0.1 * rng.normal(size=(6, 25_088))[labels]).astype(np.float16)
    begin = time.perf_counter()
    grid = {"C": [0.1, 1.0, 10.0], "gamma": [0.3, 1.0, 3.0]}
    line = room.tuned_line(x, labels, np.arange(720), room.SVC(), grid, [])
    room.cross_fit(line, np.arange(720) // 6 % 5, np.ones(720, dtype=bool))
    took = (time.perf_counter() - begin) / 60
    print(f"the RBF grid in 5 x 5 folds takes {took:.1f} minutes")
    assert took < MINUTES
