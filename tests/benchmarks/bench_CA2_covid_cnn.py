"""CA2_covid_cnn: our weighted bootstrap of the AUC beside a loop over scikit-learn; Grad-CAM beside a forward pass."""

import time
from statistics import median

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from nndl import rooms
from nndl.notebooks import load_definitions

FILMS, RESAMPLES = 360, 500
FASTEST = 5.0  # the vectorised bootstrap must be so many times as fast as a loop over scikit-learn


@pytest.fixture(scope="module")
def room():
    return load_definitions(rooms.ROOT / "CA2_covid_cnn" / "code.ipynb")


@pytest.fixture(scope="module")
def sample(room):
    rng = np.random.default_rng(0)
    positive = rng.random(FILMS) < 1 / 3
    scores = positive + rng.standard_normal(FILMS)
    part = room.helper.Part(None, None, np.arange(FILMS) // 2, None, None)
    return scores, positive, room.patient_weights(part, positive, RESAMPLES)


def loop(scores, positive, weights):
    """The same bootstrap, one call of scikit-learn for each resample."""
    return np.array([roc_auc_score(positive, scores, sample_weight=w) for w in weights])


@pytest.mark.parametrize("who", ["ours", "scikit-learn"])
def test_bootstrap_of_the_auc(benchmark, room, sample, who):
    benchmark.group = f"AUC of {FILMS} films, {RESAMPLES} resamples of patients"
    benchmark.name = who
    benchmark.pedantic({"ours": room.auc, "scikit-learn": loop}[who], args=sample, rounds=3, warmup_rounds=1)


def test_bootstrap_is_faster_than_a_loop(room, sample):
    seconds = {"ours": [], "scikit-learn": []}
    for _ in range(3):
        for name, function in (("ours", room.auc), ("scikit-learn", loop)):
            begin = time.perf_counter()
            values = function(*sample)
            seconds[name].append(time.perf_counter() - begin)
            assert np.isclose(values[0], roc_auc_score(sample[1], sample[0]))
    ratio = median(seconds["scikit-learn"]) / median(seconds["ours"])
    print(f"ours is {ratio:.0f} times as fast as a loop over scikit-learn")
    assert ratio > FASTEST, f"only {ratio:.1f} times as fast"


@pytest.mark.parametrize("what", ["forward", "Grad-CAM"])
def test_grad_cam_against_forward(benchmark, room, what):
    benchmark.group = "CNN, width 16, 8 films of 80 px"
    benchmark.name = what
    model, x = room.CovidCNN(16, 1).eval(), torch.rand(8, 1, 80, 80)

    def forward():
        with torch.no_grad():
            return model(x).sum().item()

    def cam():
        return room.grad_cam(model, model.blocks[5], x, lambda z: z[:, 0]).sum().item()

    benchmark.pedantic({"forward": forward, "Grad-CAM": cam}[what], rounds=5, warmup_rounds=1)
