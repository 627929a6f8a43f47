"""CAe_cnn_vit_attack: our PGD beside torchattacks' on the same network, and the certificate's votes."""

import numpy as np
import pytest
import torch
import torchattacks

from nndl import rooms
from nndl.notebooks import load_definitions

EPS, STEPS, SIZE = 8 / 255, 10, 2 / 255


@pytest.fixture(scope="module")
def room():
    return load_definitions(rooms.ROOT / "CAe_cnn_vit_attack" / "code.ipynb")


@pytest.fixture(scope="module")
def network(room):
    torch.manual_seed(0)
    return room.small_cnn(3, 10).eval()


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.random((64, 3, 32, 32), dtype=np.float32))
    return x, torch.from_numpy(rng.integers(0, 10, 64))


@pytest.mark.parametrize("who", ["ours", "torchattacks"])
def test_pgd(benchmark, room, network, pictures, who):
    benchmark.group, benchmark.name = "ten steps of PGD on 64 pictures of 32 x 32", who
    theirs = torchattacks.PGD(network, eps=EPS, alpha=SIZE, steps=STEPS, random_start=False)
    calls = {"ours": lambda: room.pgd(network, *pictures, EPS, STEPS, SIZE, start=False),
             "torchattacks": lambda: theirs(*pictures)}  # fmt: skip
    assert torch.allclose(calls["ours"](), calls["torchattacks"](), atol=1e-6)
    benchmark.pedantic(calls[who], rounds=5, warmup_rounds=1)


def test_votes(benchmark, room, network, pictures):
    benchmark.group, benchmark.name = "100 draws for 16 pictures", "ours"
    benchmark.pedantic(room.votes, (network, pictures[0][:16], 0.25, 100), rounds=3, warmup_rounds=1)
