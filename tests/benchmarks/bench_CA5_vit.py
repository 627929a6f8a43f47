"""CA5_vit: our VisionTransformer beside timm's of the same shape, with the same weights, on the same batch."""

import time
from functools import partial
from statistics import median

import pytest
import timm
import torch
import torch.nn.functional as F

from nndl import rooms
from nndl.notebooks import load_definitions

BATCH, CLASSES = 32, 10
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPES = {
    "32 px, patch 4": dict(image_size=32, patch_size=4, dim=128, depth=6, heads=4, mlp_dim=512),
    "ViT-Tiny, 96 px": dict(image_size=96, patch_size=16, dim=192, depth=12, heads=3, mlp_dim=768),
}
PRECISIONS = {"fp32": None, "bf16": torch.bfloat16}
SLOWEST = 1.1  # ours may take so many times as long as timm's training step


@pytest.fixture(scope="module")
def ours():
    return load_definitions(rooms.ROOT / "CA5_vit" / "code.ipynb").VisionTransformer


def timms(image_size, patch_size, num_classes, dim, depth, heads, mlp_dim):
    return timm.models.VisionTransformer(
        img_size=image_size, patch_size=patch_size, num_classes=num_classes, embed_dim=dim, depth=depth,
        num_heads=heads, mlp_ratio=mlp_dim / dim,
    )  # fmt: skip


def pair(ours, shape):
    """Both models with the same weights."""
    torch.manual_seed(0)
    models = {"ours": ours(num_classes=CLASSES, **SHAPES[shape]), "timm": timms(num_classes=CLASSES, **SHAPES[shape])}
    models["timm"].load_state_dict(models["ours"].state_dict())
    return {name: model.to(DEVICE) for name, model in models.items()}


def work(model, shape, mode, precision):
    """A function without arguments that does one forward pass or one training step and waits for its end."""
    size = SHAPES[shape]["image_size"]
    x, y = torch.randn(BATCH, 3, size, size, device=DEVICE), torch.arange(BATCH, device=DEVICE) % CLASSES
    dtype = PRECISIONS[precision]
    autocast = partial(torch.autocast, DEVICE, dtype=dtype, enabled=dtype is not None)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-5)

    def forward():
        with torch.no_grad(), autocast():
            return model(x).float().sum().item()

    def training():
        with autocast():
            loss = F.cross_entropy(model(x).float(), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    model.train(mode == "training")
    return {"forward": forward, "training": training}[mode]


@pytest.mark.parametrize("who", ["ours", "timm"])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("mode", ["forward", "training"])
@pytest.mark.parametrize("shape", SHAPES)
def test_speed(benchmark, ours, shape, mode, precision, who):
    benchmark.group = f"{shape}, {mode}, {precision}, batch {BATCH}, {DEVICE}"
    benchmark.name = who
    step = work(pair(ours, shape)[who], shape, mode, precision)
    benchmark.pedantic(step, rounds=5, warmup_rounds=1)


def interleaved_medians(functions, rounds=9):
    """Median seconds of each, called in turns, so that a busy machine is busy for all; the first round warms up."""
    seconds = {name: [] for name in functions}
    for _ in range(rounds + 1):
        for name, function in functions.items():
            begin = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - begin)
    return {name: median(values[1:]) for name, values in seconds.items()}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_training_is_not_slower_than_timms(ours, shape, precision):
    steps = {name: work(model, shape, "training", precision) for name, model in pair(ours, shape).items()}
    seconds = interleaved_medians(steps)
    ratio = seconds["ours"] / seconds["timm"]
    print(f"{shape}, {precision}, {DEVICE}: ours {seconds['ours']:.3f} s, timm {seconds['timm']:.3f} s, {ratio:.2f}x")
    assert ratio < SLOWEST, f"ours takes {ratio:.2f} times as long as timm's training step ({shape}, {precision})"
