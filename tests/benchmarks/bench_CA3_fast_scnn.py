"""CA3_fast_scnn: Fast-SCNN beside torchvision's light segmentation networks; our confusion matrix beside torchmetrics'.

One picture of 480 x 360 in ONNX Runtime, one thread, and calls in turn, as the notebook times them.
"""

from statistics import median
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision
from torchmetrics.functional.classification import multiclass_confusion_matrix

from nndl import rooms
from nndl.notebooks import load_definitions

SIZE, K, VOID = (360, 480), 11, 11
RIVALS = {"lraspp_mobilenet_v3_large": 1.5, "deeplabv3_mobilenet_v3_large": 3.0}  # at least so many times as slow


@pytest.fixture(scope="module")
def room():
    module = load_definitions(rooms.ROOT / "CA3_fast_scnn" / "code.ipynb")
    vars(module).update(K=K, VOID=VOID, cfg=SimpleNamespace(threads=1, rounds=12))
    return module


def network(room, name):
    torch.manual_seed(0)
    if name == "Fast-SCNN":
        return room.FastSCNN(K).eval()
    make = getattr(torchvision.models.segmentation, name)
    return make(weights=None, weights_backbone=None, num_classes=K).eval()


@pytest.mark.parametrize("name", ["Fast-SCNN", *RIVALS])
def test_latency(benchmark, room, name):
    benchmark.group, benchmark.name = "one picture of 480 x 360, ONNX Runtime, one thread", name
    call = room.in_runtime(room.exported(network(room, name), SIZE), SIZE)
    benchmark.pedantic(call, rounds=10, warmup_rounds=2)


def test_faster_than_torchvisions(room):
    names = ["Fast-SCNN", *RIVALS]
    calls = [room.in_runtime(room.exported(network(room, name), SIZE), SIZE) for name in names]
    times = dict(zip(names, room.timed_in_turn(calls).T))
    for name, least in RIVALS.items():
        ratio = median(times[name] / times["Fast-SCNN"])
        print(f"{name} takes {ratio:.1f} times as long")
        assert ratio > least, f"{name} takes only {ratio:.2f} times as long as Fast-SCNN"


@pytest.mark.parametrize("who", ["ours", "torchmetrics"])
def test_confusion_matrix(benchmark, room, who):
    benchmark.group, benchmark.name = "confusion matrix of 16 masks of 480 x 360 pixels", who
    rng = np.random.default_rng(0)
    truth, found = (rng.integers(0, top, (16, *SIZE), dtype=np.uint8) for top in (12, 11))
    tensors = [torch.from_numpy(part.astype(np.int64)) for part in (found, truth)]
    calls = {"ours": lambda: room.confusion(truth, found),
             "torchmetrics": lambda: multiclass_confusion_matrix(*tensors, K, ignore_index=VOID).numpy()}  # fmt: skip
    assert np.array_equal(calls["ours"](), calls["torchmetrics"]())
    benchmark.pedantic(calls[who], rounds=5, warmup_rounds=1)
