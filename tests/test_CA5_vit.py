"""CA5_vit: what code.ipynb defines, held against PyTorch, timm and torchvision, or against a case done by hand.

The exercises have their checks in the notebook (`make checks`, `make mutants`); here is what those leave out: training,
loaders, settings, real data, and what the drawn data promise.
"""

import io
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from hashlib import md5
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.stats
import timm
import torch
import torchvision
from matplotlib.colors import rgb_to_hsv
from nasty_files import PICTURES, STRAYS, by_name, put_strays, weights
from PIL import Image
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from timm.layers import resample_abs_pos_embed
from torch import nn
from torch.testing import assert_close

from nndl import rooms
from nndl.notebooks import load_definitions
from real_data import REAL, needs

ROOM = rooms.ROOT / "CA5_vit"
close = partial(assert_close, atol=1e-5, rtol=1e-4)


@pytest.fixture(scope="module")
def vit():
    return load_definitions(ROOM / "code.ipynb")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def start(vit, begin_run):
    """start(profile, overrides) begins a run whose results stay out of the checkout; vit.run and vit.cfg are set."""
    return partial(begin_run, vit)


def shaken(model):
    """Add noise to every parameter, so that none is at its first value (biases 0, norms 1)."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return model.eval()


# ---------------------------------------------------------------- the model


def test_vit_base_has_the_published_size(vit, monkeypatch):
    monkeypatch.setattr(vit.VisionTransformer, "reset_parameters", lambda self: None)  # only counted
    model = vit.VisionTransformer(224, num_classes=1000, **vit.VIT_BASE)
    assert vit.count_parameters(model) == 86_567_656
    with torch.device("meta"):
        theirs = timm.create_model("vit_base_patch16_224")
    shapes = [{name: tensor.shape for name, tensor in m.state_dict().items()} for m in (model, theirs)]
    assert shapes[0] == shapes[1]


SMALL = dict(image_size=16, patch_size=4, num_classes=5, dim=12, depth=2, heads=3, mlp_dim=24)


@pytest.mark.parametrize("pooling", ["class", "mean"])
def test_only_positions_tell_the_order_of_patches(vit, pooling):
    x, order = torch.randn(2, 3, 16, 16), torch.randperm(16)
    moved = vit.shuffle_patches(x, 4, order)
    for new, old in enumerate(order.tolist()):  # by hand: patch `old` stands at place `new`
        at = [(slice(4 * (p // 4), 4 * (p // 4) + 4), slice(4 * (p % 4), 4 * (p % 4) + 4)) for p in (new, old)]
        assert torch.equal(moved[:, :, *at[0]], x[:, :, *at[1]])
    for positions in (False, True):
        model = shaken(vit.VisionTransformer(**SMALL, pooling=pooling, positions=positions))
        change = (model(moved) - model(x)).abs().max()
        assert change > 1e-3 if positions else change < 1e-5


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(patch_size=5), "patch_size 5 does not divide image_size 16"),
        (dict(heads=5), "heads 5 does not divide dim 12"),
        (dict(pooling="max"), "pooling 'max'"),
    ],
)
def test_bad_shape_is_named(vit, change, words):
    with pytest.raises(ValueError, match=words):
        vit.VisionTransformer(**(SMALL | change))


# ---------------------------------------------------------------- weights: loading, positions, transfer


@pytest.mark.parametrize("old, new", [(14, 6), (4, 7), (14, 24), (5, 5)])
def test_resized_positions_are_timms(vit, old, new):
    positions = torch.randn(1, 1 + old * old, 8)
    ours = vit.resize_positions(positions, new)
    close(ours, resample_abs_pos_embed(positions, new_size=[new, new], num_prefix_tokens=1))
    assert torch.equal(ours[:, 0], positions[:, 0])
    if old == new:
        close(ours, positions)


SPOILED = {
    "wrong shape": ("blocks.1.mlp.fc1.weight", lambda state, name: state.update({name: torch.zeros(3, 3)})),
    "missing": ("blocks.0.attn.qkv.bias", lambda state, name: state.pop(name)),
    "extra": ("blocks.2.norm1.weight", lambda state, name: state.update({name: torch.zeros(12)})),
}


@pytest.mark.parametrize("kind", SPOILED)
@pytest.mark.parametrize("transfer", [False, True], ids=["fit_weights", "from_pretrained"])
def test_weights_that_do_not_fit_are_named(vit, kind, transfer):
    model = vit.VisionTransformer(**SMALL)
    state, before = dict(model.state_dict()), [p.clone() for p in model.parameters()]
    name, spoil = SPOILED[kind]
    spoil(state, name)
    with pytest.raises(vit.helper.DataError) as error:
        if transfer:
            shape = {key: SMALL[key] for key in ("patch_size", "dim", "depth", "heads", "mlp_dim")}
            vit.from_pretrained(state, shape, 24, 3, "some.safetensors")
        else:
            vit.files.fit_weights(model, state, "some.safetensors")
    message = str(error.value)
    assert "some.safetensors" in message and name in message and "\n" not in message
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters())), "nothing may be half loaded"


def test_transfer_without_positions_is_named(vit):
    state = dict(vit.VisionTransformer(**SMALL).state_dict())
    del state["pos_embed"]
    shape = {key: SMALL[key] for key in ("patch_size", "dim", "depth", "heads", "mlp_dim")}
    with pytest.raises(vit.helper.DataError, match=r"some\.safetensors: pos_embed"):
        vit.from_pretrained(state, shape, 24, 3, "some.safetensors")


def test_missing_weights_file_is_named(vit, tmp_path, monkeypatch):
    run = SimpleNamespace(find_data=lambda name, can_download: None, download=False)
    monkeypatch.setattr(vit, "run", run, raising=False)
    assert vit.imagenet_weights() is None
    monkeypatch.setattr(vit.run, "find_data", lambda name, can_download: tmp_path / name)
    with pytest.raises(vit.helper.DataError, match=r"vit_tiny_patch16_224\.safetensors is missing"):
        vit.imagenet_weights()


NASTY_WEIGHTS = weights({"a": torch.ones(2)}, "vit_tiny_patch16_224.safetensors")


@pytest.mark.parametrize("nasty", [nasty for nasty in NASTY_WEIGHTS if not nasty.name.endswith("xz")], ids=str)
def test_nasty_weights(vit, tmp_path, monkeypatch, nasty):
    nasty.write(tmp_path)
    # with download=True: what is there is not fetched again
    run = SimpleNamespace(find_data=lambda name, can_download: tmp_path, download=True)
    monkeypatch.setattr(vit, "run", run, raising=False)
    state = nasty.meets(vit.imagenet_weights)
    assert state is None or state["a"].tolist() == [1, 1]


def test_weights_are_fetched_once(vit, tmp_path, monkeypatch):
    class Fake:
        def state_dict(self):
            return {"a": torch.ones(2)}

    folder, asked = tmp_path / "data" / "weights", []
    run = SimpleNamespace(find_data=lambda name, can_download: folder, download=True)
    monkeypatch.setattr(vit, "run", run, raising=False)
    monkeypatch.setattr(vit.timm, "create_model", lambda *args, **kwargs: asked.append(kwargs) or Fake())
    for _ in range(2):
        assert vit.imagenet_weights()["a"].tolist() == [1, 1]
    assert len(asked) == 1 and [path.name for path in folder.iterdir()] == ["vit_tiny_patch16_224.safetensors"]


def test_failed_fetch_of_weights_leaves_nothing(vit, tmp_path, monkeypatch):
    def fail(*args, cache_dir, **kwargs):
        (cache_dir / "half").mkdir(parents=True)
        raise OSError("no route\nto host")

    run = SimpleNamespace(find_data=lambda name, can_download: tmp_path / "data" / "weights", download=True)
    monkeypatch.setattr(vit, "run", run, raising=False)
    monkeypatch.setattr(vit.timm, "create_model", fail)
    with pytest.raises(vit.helper.DataError, match=r"download failed .no route to host.; by hand: timm's"):
        vit.imagenet_weights()
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- batches and augmentation


def test_loader_hands_out_every_picture_once(vit):
    batches = vit.Batches(np.zeros((10, 4, 4, 3), np.uint8), np.arange(10))
    loader = torch.utils.data.DataLoader(batches, 3, shuffle=True, collate_fn=vit.as_it_is)
    sizes, labels = zip(*((len(x), y.tolist()) for x, y in loader))
    assert sizes == (3, 3, 3, 1) and sorted(np.concatenate(labels)) == list(range(10))


# ---------------------------------------------------------------- recipe and training


@pytest.mark.parametrize("steps, warmup", [(100, 0.1), (37, 0.2), (10, 0.0), (1, 0.1)])
def test_learning_rate_is_pytorchs_warmup_and_cosine(vit, steps, warmup):
    first = max(1, round(warmup * steps))
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 1.0)
    linear = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / first, total_iters=first - 1)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps - first))
    scheduler = torch.optim.lr_scheduler.SequentialLR(optimizer, [linear, cosine], [first])
    expected = []
    for _ in range(steps):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert [vit.learning_rate(step, steps, warmup) for step in range(steps)] == pytest.approx(expected, abs=1e-6)


def test_weight_decay_is_for_matrices_only(vit):
    for model in (vit.VisionTransformer(**SMALL), vit.VisionTransformer(**SMALL, pooling="mean"), vit.resnet18(8, 4)):
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        groups = {g["weight_decay"]: [names[id(p)] for p in g["params"]] for g in vit.parameter_groups(model, 0.3)}
        assert sorted(groups[0.3] + groups[0.0]) == sorted(names.values()), "each parameter exactly once"
        free = {name for name in names.values() if re.search(r"bias$|norm|bn|cls_token|pos_embed|downsample\.1", name)}
        assert set(groups[0.0]) == free


def toy_pictures(vit, n=24):
    images = np.random.default_rng(0).integers(0, 256, (n, 16, 16, 3), dtype=np.uint8)
    part = (images, np.arange(n) % 5)
    return vit.helper.Pictures("toy", "embedded", list("abcde"), part, part, part)


def test_accuracy_by_hand(vit, start):
    start()
    pictures, model = toy_pictures(vit), shaken(vit.VisionTransformer(**SMALL))
    images, labels = pictures.test
    x = torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1
    close(torch.from_numpy(vit.predict(model, images, batch_size=7)), model(x).detach())
    correct = (model(x).argmax(1).numpy() == labels).sum()
    assert vit.accuracy(model, (images, labels)) == pytest.approx(100 * correct / 24)


def trained(vit, epochs=2, seed=0, heads=3, **recipe):
    torch.manual_seed(seed)
    model = vit.VisionTransformer(**(SMALL | dict(heads=heads)))
    torch.seed()  # what train() draws must follow from its own seed
    return vit.train("toy", model, toy_pictures(vit), vit.Recipe(epochs, batch_size=8, crop=1, **recipe), seed)


def same_weights(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters()))


def test_training_follows_from_the_seed(vit, start, tmp_path):
    models = []
    for seed in (1, 1, 2):
        start()
        models.append(trained(vit, seed=seed)[0])
        shutil.rmtree(tmp_path / "CA5_vit")
    assert same_weights(models[0], models[1]) and not same_weights(models[0], models[2])


def test_average_is_returned_when_asked_for(vit, start, tmp_path):
    """With a decay of 1 - 1e-9 the average stays where the model was after its first step, of 1e-3 at most."""
    start()
    torch.manual_seed(0)
    first = vit.VisionTransformer(**SMALL)
    averaged, history = trained(vit, ema=1 - 1e-9)
    for a, b in zip(first.parameters(), averaged.parameters()):
        assert_close(a, b, atol=1.2e-3, rtol=0)
    assert len(history) == 2 and history[0]["loss"] > 0
    shutil.rmtree(tmp_path / "CA5_vit")
    start()
    plain, _ = trained(vit)
    assert max((a - b).abs().max() for a, b in zip(first.parameters(), plain.parameters())) > 2e-3


def test_training_is_taken_up_again(vit, start, tmp_path, monkeypatch):
    """A training that dies after its second of three epochs ends like one that did not."""
    start()
    whole, _ = trained(vit, epochs=3, ema=0.5)
    shutil.rmtree(tmp_path / "CA5_vit")
    run = start()
    save = type(run.checkpoint("x", [])).save

    def dies(self, done):
        save(self, done)
        if done == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(vit.lab.Checkpoint, "save", dies)
        with pytest.raises(KeyboardInterrupt):
            trained(vit, epochs=3, ema=0.5)
    start()
    again, history = trained(vit, epochs=3, ema=0.5)
    assert same_weights(whole, again) and len(history) == 3


def test_state_of_another_network_is_not_used(vit, start, tmp_path):
    """Another number of heads has the same parameters, and is another network all the same."""
    start()
    whole, _ = trained(vit, heads=2)
    shutil.rmtree(tmp_path / "CA5_vit")
    for heads in (3, 2):
        start()
        model, _ = trained(vit, heads=heads)
    assert same_weights(whole, model)


# ---------------------------------------------------------------- rivals and baselines


def test_colour_histogram(vit):
    images = np.random.default_rng(0).integers(0, 256, (4, 9, 7, 3), dtype=np.uint8)
    for bins in (2, 4, 8):
        ours = vit.colour_histogram(images, bins)
        for row, image in zip(ours, images):
            theirs, _ = np.histogramdd(image.reshape(-1, 3), bins=bins, range=[(0, 256)] * 3)
            np.testing.assert_allclose(row, theirs.ravel() / theirs.sum())


def test_resnets_have_the_published_size(vit):
    with torch.device("meta"):
        counts = [vit.count_parameters(build(64, 10)) for build in (vit.resnet18, vit.resnet50)]
    assert counts == [11_173_962, 23_520_842]


def test_resnet18_is_torchvisions_with_another_stem(vit):
    ours, theirs = vit.resnet18(64, 10), torchvision.models.resnet18(num_classes=10)
    theirs.conv1, theirs.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(4, 3, 32, 32)
    close(ours(x), theirs(x), atol=1e-4)  # the batch's statistics
    close(ours.eval()(x), theirs.eval()(x), atol=1e-4)  # the running ones


@pytest.mark.parametrize("width", [8, 16])
def test_rivals_give_logits(vit, width):
    x = torch.randn(2, 3, 24, 24)
    for model in (vit.resnet50(width, 4), vit.small_cnn(24, width, 4), vit.patch_mlp(24, 8, 4, width)):
        assert model(x).shape == (2, 4)


# ---------------------------------------------------------------- attention maps, rollout, distance


def test_hooks_are_removed(vit):
    model = vit.VisionTransformer(**SMALL)
    vit.attention_maps(model, torch.zeros(1, 3, 16, 16))
    with pytest.raises(ValueError, match="takes 16 x 16"):
        vit.attention_maps(model, torch.zeros(1, 3, 20, 20))
    assert not any(module._forward_hooks for module in model.modules())


def test_flops_of_a_linear_layer(vit):
    assert vit.flops(nn.Sequential(nn.Flatten(), nn.Linear(3 * 16, 7)), 4) == 2 * 48 * 7


# ---------------------------------------------------------------- find the twin

NAMES = ["plus", "ring", "cross", "tee"]


def shape_name(ink):
    """The shape of a 6x6 mask, told by its corners and its centre."""
    corners, centre = ink[[0, 0, 5, 5], [0, 5, 0, 5]], ink[2:4, 2:4].all()
    if not centre:
        return "ring"
    return {(0, 0, 0, 0): "plus", (1, 1, 1, 1): "cross", (1, 1, 0, 0): "tee"}[tuple(corners.astype(int))]


def read_twins(image):
    """What the pixels show: cue cell, {glyph's cell: (shape, distance of its hue to the cue's, ink, corner)}."""
    cue, cue_hue, glyphs = None, None, {}
    for cell in range(9):
        tile = image[8 * (cell // 3) :, 8 * (cell % 3) :][:8, :8].astype(float)
        inked = tile.max(-1) > 120
        frame = np.concatenate([tile[0], tile[-1], tile[:, 0], tile[:, -1]])
        if (frame == 255).all():
            assert cue is None, "two frames"
            cue, cue_hue = cell, rgb_to_hsv(tile[1:7, 1:7].mean((0, 1)) / 255)[0]
        elif inked.any():
            top, left = np.argwhere(inked).min(0)
            shape = shape_name(inked[top : top + 6, left : left + 6])
            glyphs[cell] = shape, tile[inked].mean(0), inked.sum(), (top, left)
    assert cue is not None, "no frame"

    def apart(colour):
        difference = abs(rgb_to_hsv(colour / 255)[0] - cue_hue)
        return min(difference, 1 - difference)

    return cue, {cell: (shape, apart(colour), ink, at) for cell, (shape, colour, ink, at) in glyphs.items()}


@pytest.mark.parametrize("fewest, shift", [(4, 0), (1, 0), (4, 1)])
def test_twins_can_be_read_from_the_pixels(vit, fewest, shift):
    images, labels, cues, twins = vit.helper.make_twins(300, 1, fewest, shift)
    assert list(vit.helper.SHAPES) == NAMES
    numbers, places = set(), set()
    for image, label, cue, twin in zip(images, labels, cues, twins):
        found, glyphs = read_twins(image)
        nearest = sorted(glyphs, key=lambda cell: glyphs[cell][1])
        assert (found, nearest[0], glyphs[nearest[0]][0]) == (cue, twin, NAMES[label])
        assert glyphs[nearest[0]][1] < 0.02 and all(glyphs[cell][1] > 0.15 for cell in nearest[1:]), "hues too near"
        assert len({shape for shape, *_ in glyphs.values()}) == len(glyphs), "a shape twice"
        assert {ink for _, _, ink, _ in glyphs.values()} == {20}, "ink tells the shape"
        numbers.add(len(glyphs))
        places |= {tuple(at) for *_, at in glyphs.values()}
    assert numbers == set(range(fewest, 5))
    assert places == {(top, left) for top in range(1 - shift, 2 + shift) for left in range(1 - shift, 2 + shift)}


def test_twins_follow_from_the_seed(vit):
    a, b, c = (vit.helper.make_twins(20, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(x, y) for x, y in zip(a, b)) and not np.array_equal(a[0], c[0])


def test_twin_labels_are_even_and_places_tell_nothing(vit):
    for fewest in (1, 4):
        _, labels, cue, twin = vit.helper.make_twins(4000, 3, fewest)
        assert scipy.stats.chisquare(np.bincount(labels, minlength=4)).pvalue > 1e-3
        for cell in (cue, twin):
            table = np.histogram2d(labels, cell, bins=[range(5), range(10)])[0]
            assert scipy.stats.chi2_contingency(table).pvalue > 1e-3


def test_no_colour_has_a_meaning(vit):
    images, _, cues, _ = vit.helper.make_twins(800, 4)
    middle = [image[8 * (cue // 3) + 4, 8 * (cue % 3) + 4] for image, cue in zip(images, cues)]
    hues = rgb_to_hsv(np.array(middle) / 255)[:, 0]
    assert scipy.stats.kstest(hues, "uniform").pvalue > 1e-3, "hues are not drawn anew for each picture"


def test_twin_parts(vit):
    twins = vit.helper.load_twins(120, 40, seed=7)
    assert (twins.source, twins.counts()) == ("embedded", {"train": 120, "val": 40, "test": 40})
    parts = {part: getattr(twins, part)[0] for part in ("train", "val", "test")}
    shown = {part: {len(read_twins(image)[1]) for image in images} for part, images in parts.items()}
    assert shown == {"train": {1, 2, 3, 4}, "val": {4}, "test": {4}}
    every = [image.tobytes() for part in (twins.train, twins.val, twins.test) for image in part[0]]
    assert len(set(every)) == 200, "the same picture in two parts"


def histogram_accuracy(vit, spoil=lambda images, labels: images):
    images, labels, *_ = vit.helper.make_twins(2400, 5)
    rows = vit.colour_histogram(spoil(images, labels))
    rows = (rows - rows.mean(0)) / (rows.std(0) + 1e-9)
    return LogisticRegression(max_iter=200).fit(rows[:1600], labels[:1600]).score(rows[1600:], labels[1600:])


def test_colours_do_not_tell_the_label(vit):
    assert abs(histogram_accuracy(vit) - 0.25) < 4 * (0.25 * 0.75 / 800) ** 0.5


def test_notices_ink_that_tells_the_label(vit):
    """A few pixels of white ink that depend on the label, and the classifier finds it."""

    def spoil(images, labels):
        images = images.copy()
        for image, label in zip(images, labels):
            image[0, : 6 * label] = (255, 0, 255)
        return images

    assert histogram_accuracy(vit, spoil) > 0.5


def test_digits(vit):
    digits = vit.helper.load_digits()
    assert digits.counts() == {"train": 997, "val": 300, "test": 500} and len(digits.classes) == 10
    every = [image.tobytes() for part in (digits.train, digits.val, digits.test) for image in part[0]]
    assert len(set(every)) == 1797 and digits.train[0].shape[1:] == (16, 16, 3)
    half = vit.only_classes(digits, 5, 9, limit=30)
    assert half.classes == list("56789") and set(half.test[1]) == set(range(5)) and len(half.train[1]) == 30
    keep = digits.test[1] >= 5
    assert np.array_equal(half.test[0], digits.test[0][keep]) and np.array_equal(half.test[1], digits.test[1][keep] - 5)


# ---------------------------------------------------------------- CIFAR-10 in its three layouts


def png(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "png")
    return file.getvalue()


def toy_cifar(a_class=5, seed=0):
    """(images, labels) of both parts: ten classes with `a_class` pictures each in train, two in test."""
    rng, parts = np.random.default_rng(seed), {}
    for part, n in (("train", a_class), ("test", 2)):
        labels = rng.permutation(np.repeat(np.arange(10), n))
        parts[part] = rng.integers(0, 256, (len(labels), 32, 32, 3), dtype=np.uint8), labels
    return parts


def write_parquet(folder, parts, drop=None):
    (folder / "plain_text").mkdir(parents=True)
    for part, (images, labels) in parts.items():
        rows = [{"bytes": image if isinstance(image, bytes) else png(image), "path": None} for image in images]
        table = pa.table({"img": rows, "label": labels})
        table = table.drop_columns([drop]) if drop and part == "train" else table
        pq.write_table(table, folder / "plain_text" / f"{part}-00000-of-00001.parquet")


def write_torchvision(folder, parts, patch):
    """torchvision's batches, and their checksums in the place of the published ones."""
    place = folder / "cifar-10-batches-py"
    place.mkdir(parents=True)

    def write(name, content):
        data = pickle.dumps(content)
        (place / name).write_bytes(data)
        return md5(data).hexdigest()

    lists = {"train": [], "test": []}
    for name, part, rows in (("data_batch_1", "train", slice(0, 20)), ("data_batch_2", "train", slice(20, None)),
                             ("test_batch", "test", slice(None))):  # fmt: skip
        images, labels = (array[rows] for array in parts[part])
        content = {"data": images.transpose(0, 3, 1, 2).reshape(len(images), -1), "labels": labels.tolist()}
        lists[part].append([name, write(name, content)])
    names = {"label_names": ["airplane", "automobile"]}
    meta = dict(torchvision.datasets.CIFAR10.meta, md5=write("batches.meta", names))
    patch.setattr(torchvision.datasets.CIFAR10, "train_list", lists["train"])
    patch.setattr(torchvision.datasets.CIFAR10, "test_list", lists["test"])
    patch.setattr(torchvision.datasets.CIFAR10, "meta", meta)


def write_folders(folder, parts, classes):
    for part, (images, labels) in parts.items():
        for number, (image, label) in enumerate(zip(images, labels)):
            place = folder / part / classes[label]
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{number:03d}.png").write_bytes(png(image))


def contents(folder):
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def pairs(*parts):
    return sorted((image.tobytes(), int(label)) for images, labels in parts for image, label in zip(images, labels))


@pytest.mark.parametrize("layout", ["parquet", "torchvision", "folders"])
def test_cifar10_comes_back(vit, tmp_path, monkeypatch, layout):
    parts = toy_cifar()
    classes = vit.helper.CIFAR10_CLASSES
    write = {"parquet": write_parquet, "torchvision": partial(write_torchvision, patch=monkeypatch)}
    write.get(layout, partial(write_folders, classes=classes))(tmp_path / "cifar10", parts)
    before = contents(tmp_path)
    data = vit.helper.load_cifar10(tmp_path / "cifar10", n_val=10)
    assert pairs(data.train, data.val) == pairs(parts["train"]) and pairs(data.test) == pairs(parts["test"])
    assert np.bincount(data.val[1]).tolist() == [1] * 10, "validation is not stratified"
    assert (data.source, data.classes, data.test[1].dtype) == ("real", classes, np.int64)
    limited = vit.helper.load_cifar10(tmp_path / "cifar10", n_val=10, limit=10)
    assert limited.counts() == {"train": 10, "val": 10, "test": 10}
    assert np.bincount(limited.train[1]).tolist() == [1] * 10
    assert set(pairs(limited.train)) <= set(pairs(data.train)), "limit must not move pictures from one part to another"
    assert contents(tmp_path) == before, "something was written beside the data"


def spoiled_parquet(change=lambda images, labels: (images, labels), **options):
    def write(folder, classes):
        parts = toy_cifar()
        images, labels = parts["train"]
        write_parquet(folder, parts | {"train": change(list(images), labels)}, **options)

    return write


def spoiled_folders(change):
    def write(folder, classes):
        write_folders(folder, toy_cifar(), classes)
        change(folder)

    return write


def files_of(folder, name, part="train"):
    return sorted((folder / part / name).iterdir())


def cut(path, share=0.6):
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def empty(folder):
    for path in files_of(folder, "cat"):
        path.unlink()


def keep_one(folder):
    for path in files_of(folder, "cat")[1:]:
        path.unlink()


def in_row(row, new):
    def change(images, labels):
        images[row] = new(images[row])
        return images, labels

    return change


BAD_CIFAR = {
    "no folder": (lambda folder, classes: None, "cifar10: neither"),
    "empty folder": (lambda folder, classes: folder.mkdir(), "cifar10: neither"),
    "parquet without a column": (spoiled_parquet(drop="label"), r"train-00000-of-00001\.parquet: no column label"),
    "parquet without pictures": (spoiled_parquet(drop="img"), r"train-00000-of-00001\.parquet: no column img"),
    "nine classes": (
        spoiled_parquet(lambda images, labels: (images, labels.clip(0, 8))),
        r"train-00000-of-00001\.parquet: labels .*expected 0 to 9",
    ),
    "unreadable bytes": (spoiled_parquet(in_row(3, lambda image: b"no picture")), "parquet, row 3: not a readable"),
    "truncated bytes": (
        spoiled_parquet(in_row(3, lambda image: png(image)[:900])),
        "parquet, row 3: not a readable",
    ),
    "no test parquet": (
        lambda folder, classes: (
            spoiled_parquet()(folder, classes),
            next(folder.rglob("test-*.parquet")).unlink(),
        ),
        r"cifar10: no test-\*\.parquet",
    ),
    "broken parquet": (
        lambda folder, classes: (spoiled_parquet()(folder, classes), cut(next(folder.rglob("train-*.parquet")))),
        r"train-00000-of-00001\.parquet",
    ),
    "broken batches": (
        lambda folder, classes: (
            (folder / "cifar-10-batches-py").mkdir(parents=True),
            (folder / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"x"),
        ),
        "cifar-10-batches-py: .*corrupted",
    ),
    "class without pictures": (spoiled_folders(empty), "train/cat: no picture"),
    "class with one picture": (spoiled_folders(keep_one), "train.*cat"),
    "class in train only": (
        spoiled_folders(lambda folder: shutil.rmtree(folder / "test" / "dog")),
        "only one of train and test: dog",
    ),
    "truncated file": (
        spoiled_folders(lambda folder: cut(files_of(folder, "ship")[0])),
        r"train/ship/\d+\.png: not a readable picture",
    ),
    "text for a picture": (
        spoiled_folders(lambda folder: files_of(folder, "ship", "test")[0].write_text("no picture", encoding="utf-8")),
        r"test/ship/\d+\.png: not a readable picture",
    ),
    "another size": (
        spoiled_folders(lambda folder: Image.new("RGB", (32, 31)).save(files_of(folder, "truck")[1])),
        r"train/truck/\d+\.png: .*size",
    ),
    "another size in test": (
        spoiled_folders(lambda folder: [Image.new("RGB", (28, 28)).save(p) for p in folder.glob("test/*/*.png")]),
        r"test.*size",
    ),
}


@pytest.mark.parametrize("kind", BAD_CIFAR)
def test_bad_cifar10_is_named(vit, tmp_path, kind):
    spoil, words = BAD_CIFAR[kind]
    spoil(tmp_path / "cifar10", vit.helper.CIFAR10_CLASSES)
    before = contents(tmp_path)
    with pytest.raises(vit.helper.DataError, match=words) as error:
        vit.helper.load_cifar10(tmp_path / "cifar10")
    assert "\n" not in str(error.value)
    assert contents(tmp_path) == before


# ---------------------------------------------------------------- files as users have them


@pytest.mark.parametrize("nasty", PICTURES, ids=str)
def test_nasty_pictures(vit, tmp_path, nasty):
    write_folders(tmp_path, toy_cifar(), vit.helper.CIFAR10_CLASSES)
    nasty.write(tmp_path / "train" / "cat")
    data = nasty.meets(lambda: vit.helper.load_cifar10(tmp_path))
    if data:
        cats = np.concatenate([images[labels == 3] for images, labels in (data.train, data.val)])
        assert len(cats) == 6 and np.abs(cats / 255 - nasty.light[..., None]).mean((1, 2, 3)).min() < 0.02


def test_strays_are_left_out_and_named(vit, tmp_path):
    write_folders(tmp_path, toy_cifar(), vit.helper.CIFAR10_CLASSES)
    clean = vit.helper.load_cifar10(tmp_path)
    for place in (tmp_path, tmp_path / "train", tmp_path / "test" / "dog"):
        put_strays(place)
    (tmp_path / "val").mkdir()
    data = vit.helper.load_cifar10(tmp_path)
    assert data.classes == clean.classes and all(map(np.array_equal, data.arrays(), clean.arrays()))
    assert (
        clean.note == "a folder for each class, PNG pictures" and f"{3 * len(STRAYS) + 1} files not read" in data.note
    )


def test_pictures_in_unexpected_folders_are_refused(vit, tmp_path):
    write_folders(tmp_path, toy_cifar(), vit.helper.CIFAR10_CLASSES)
    by_name(tmp_path, ["train/cat/more/a.png"])
    with pytest.raises(vit.helper.DataError, match=r"train.cat.more: a folder of pictures"):
        vit.helper.load_cifar10(tmp_path)
    shutil.rmtree(tmp_path / "train" / "cat" / "more")
    by_name(tmp_path, ["train/a.png"])
    with pytest.raises(vit.helper.DataError, match=r"train.a\.png: a picture outside the class folders"):
        vit.helper.load_cifar10(tmp_path)


def test_parquet_shards(vit, tmp_path):
    write_parquet(tmp_path, toy_cifar())
    (tmp_path / "copy").mkdir()
    file = tmp_path / "plain_text" / "train-00000-of-00001.parquet"
    shutil.copy(file, tmp_path / "copy")
    with pytest.raises(vit.helper.DataError, match=r"train-\*\.parquet lies in more than one folder"):
        vit.helper.load_cifar10(tmp_path)
    shutil.rmtree(tmp_path / "copy")
    file.rename(file.with_name("train-00000-of-00002.parquet"))
    with pytest.raises(vit.helper.DataError, match=r"train-00001-of-00002\.parquet is missing"):
        vit.helper.load_cifar10(tmp_path)


@pytest.mark.parametrize("limit", [1, 9, 11, 19, 35])
def test_limit_that_does_not_fit_is_named(vit, tmp_path, limit):
    """Ten classes, 40 pictures for training, 10 for validation, 20 for the test."""
    write_parquet(tmp_path, toy_cifar())
    with pytest.raises(vit.lab.LabError, match=rf"setting limit={limit}: \d+ pictures for .* take from 10 to"):
        vit.helper.load_cifar10(tmp_path, limit=limit)


def test_limit_beyond_the_data_takes_all(vit, tmp_path):
    write_parquet(tmp_path, toy_cifar())
    assert vit.helper.load_cifar10(tmp_path, limit=40).counts() == {"train": 40, "val": 10, "test": 20}


def test_too_few_pictures_for_validation_are_named(vit, tmp_path):
    write_parquet(tmp_path, toy_cifar(a_class=4))
    with pytest.raises(vit.helper.DataError, match="40 pictures in train, 50 are needed"):
        vit.helper.load_cifar10(tmp_path)


def test_download(vit, tmp_path, monkeypatch):
    parts, folder = toy_cifar(), tmp_path / "data" / "cifar10"

    def check(root, download):
        write_torchvision(root, parts, monkeypatch)
        (root / "cifar-10-python.tar.gz").write_bytes(b"x")

    monkeypatch.setattr(torchvision.datasets.CIFAR10, "download", lambda self: check(Path(self.root), True))
    data = vit.helper.load_cifar10(folder, n_val=10, download=True)
    assert pairs(data.test) == pairs(parts["test"]) and [p.name for p in folder.iterdir()] == ["cifar-10-batches-py"]


def test_failed_download_leaves_nothing(vit, tmp_path, monkeypatch):
    def fail(self):
        (Path(self.root) / "cifar-10-python.tar.gz").write_bytes(b"half")
        raise OSError("no route\nto host")

    monkeypatch.setattr(torchvision.datasets.CIFAR10, "download", fail)
    words = "cifar-10-batches-py: the download failed .no route to host.; hf download"
    with pytest.raises(vit.helper.DataError, match=words) as error:
        vit.helper.load_cifar10(tmp_path / "data" / "cifar10", download=True)
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_truncated_pictures_are_named_wherever_they_end(vit, kind):
    image, file = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8), io.BytesIO()
    Image.fromarray(image).save(file, kind)
    data = file.getvalue()
    for end in range(0, int(0.9 * len(data)), 5):
        with pytest.raises(vit.helper.DataError, match=r"here: not a readable picture"):
            vit.files.decode_rgb(data[:end], "here")


# ---------------------------------------------------------------- ImageNet pictures


@pytest.fixture
def imagenet(tmp_path):
    """A folder with three pictures of 40 x 30 pixels."""
    (tmp_path / "images").mkdir()
    for name in "abc":
        pixels = np.random.default_rng(ord(name)).integers(0, 256, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{name}.png")
    (tmp_path / "labels.csv").write_text("image,label\nc.webp,7\na.webp,5\n", encoding="utf-8")
    return tmp_path


def test_imagenet_pictures(vit, imagenet):
    images, labels = vit.helper.load_imagenet_val(imagenet, size=20)
    assert labels.tolist() == [7, 5]
    for image, name in zip(images, "ca"):
        assert np.array_equal(image, np.asarray(Image.open(imagenet / "images" / f"{name}.png"))[5:25, 10:30])


def test_names_with_dots_and_brackets_are_no_patterns(vit, imagenet):
    for name, light in (("scan.v2", 20), ("scan", 200), ("a[1]", 30)):
        Image.new("RGB", (40, 30), (light,) * 3).save(imagenet / "images" / f"{name}.png")
    (imagenet / "labels.csv").write_text("image,label\nscan.v2.jpg,7\na[1].JPEG,5\n", encoding="utf-8")
    images, labels = vit.helper.load_imagenet_val(imagenet, size=20)
    assert images[:, 0, 0, 0].tolist() == [20, 30] and labels.tolist() == [7, 5]


@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda folder: (folder / "images" / "a.png").unlink(), r"no file for a\.webp"),
        (lambda folder: cut(folder / "images" / "a.png"), r"a\.png: not a readable picture"),
        (lambda folder: Image.new("RGB", (19, 40)).save(folder / "images" / "a.png"), r"a\.png: 19x40 pixels"),
        (lambda folder: (folder / "labels.csv").unlink(), r"labels\.csv"),
        (
            lambda folder: (folder / "labels.csv").write_text("image\nc.webp\n", encoding="utf-8"),
            r"labels\.csv: no column label",
        ),
    ],
    ids=["no picture", "truncated", "too small", "no list", "no labels"],
)
def test_bad_imagenet_is_named(vit, imagenet, spoil, words):
    spoil(imagenet)
    with pytest.raises(vit.helper.DataError, match=words):
        vit.helper.load_imagenet_val(imagenet, size=20)


# ---------------------------------------------------------------- the real files


@needs("cifar10")
def test_real_cifar10(vit):
    data = vit.helper.load_cifar10(REAL / "cifar10", limit=200)
    assert (data.source, data.counts()) == ("real", {"train": 200, "val": 200, "test": 200})
    for images, labels in (data.train, data.val, data.test):
        assert images.shape == (200, 32, 32, 3) and np.bincount(labels).tolist() == [20] * 10
        assert 0.4 < images.mean() / 255 < 0.55
    assert len(set(pairs(data.train, data.val, data.test))) == 600


@needs("weights")
@needs("imagenet-val")
@torch.no_grad()
def test_real_vit_tiny_answers_like_timms(vit, tmp_path):
    """The first 40 real pictures, from the file of weights to the answer."""
    (tmp_path / "images").symlink_to(REAL / "imagenet-val" / "images")
    lines = (REAL / "imagenet-val" / "labels.csv").read_text(encoding="utf-8").splitlines()[:41]
    (tmp_path / "labels.csv").write_text("\n".join(lines), encoding="utf-8")
    images, labels = vit.helper.load_imagenet_val(tmp_path)
    weights = load_file(REAL / "weights" / "vit_tiny_patch16_224.safetensors")
    ours = vit.files.fit_weights(
        vit.VisionTransformer(224, num_classes=1000, **vit.VIT_TINY), weights, "ViT-Tiny"
    ).eval()
    theirs = timm.create_model("vit_tiny_patch16_224").eval()
    theirs.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    x, _ = vit.Batches(images, labels.copy()).__getitems__(range(40))
    logits = ours(x), theirs(x)
    assert torch.equal(logits[0].argmax(1), logits[1].argmax(1))
    assert_close(*logits, atol=1e-3, rtol=1e-3)
    assert (logits[0].argmax(1).numpy() == labels).mean() > 0.5


# ---------------------------------------------------------------- the whole room


@pytest.mark.parametrize(
    "profile, overrides, words",
    [
        ("huge", "", "NNDL_PROFILE=huge: unknown profile"),
        ("tiny", "epoch=3", "unknown setting 'epoch'"),
        ("tiny", "twin_seeds=3", "twin_seeds=3 is not of type tuple"),
        ("demo", "epochs=ten", "epochs=ten is not of type int"),
        ("demo", "epochs=2,compile=1", "compile=1 is not of type bool"),
    ],
)
def test_bad_settings_stop_before_anything(vit, start, tmp_path, profile, overrides, words):
    record = tmp_path / "CA5_vit" / "runs" / "demo" / "record.json"
    record.parent.mkdir(parents=True)
    record.write_text("{}", encoding="utf-8")
    before = contents(tmp_path)
    with pytest.raises(vit.lab.LabError, match=words) as error:
        start(profile, overrides)
    assert "\n" not in str(error.value) and contents(tmp_path) == before


@pytest.mark.parametrize("profile", ["tiny", "demo", "full"])
def test_settings_of_every_profile_pass(vit, start, profile):
    vit.helper.check_settings(start(profile).cfg)


@pytest.mark.parametrize(
    "overrides, words",
    [
        ("epochs=0", "epochs=0: at least 1"),
        ("batch_size=1", "batch_size=1: at least 2"),
        ("twin_train=100", "twin_train=100: at least 128"),
        ("limit=-5", "limit=-5: at least 0"),
        ("heads=0", "heads=0: at least 1"),
        ("heads=3", "heads=3 does not divide dim=64"),
        ("patch_size=0", "patch_size=0: at least 1"),
        ("other_patches=(2,0)", r"other_patches=\(2, 0\): whole numbers from 1"),
        ("other_depths=(-1,)", r"other_depths=\(-1,\): whole numbers"),
        ("twin_seeds=()", r"twin_seeds=\(\): an interval over seeds"),
        ("twin_seeds=(3,3)", r"twin_seeds=\(3, 3\): .*all different"),
        ("lr=0.0", "lr=0.0: it must be above 0"),
        ("ema=1.0", "ema=1.0: a share"),
        ("mix=-0.1", "mix=-0.1: a share"),
        ("data_steps=0", "data_steps=0: at least 1"),
    ],
)
def test_settings_that_cannot_work_are_named(vit, start, overrides, words):
    run = start("demo", overrides)
    with pytest.raises(vit.lab.LabError, match=words) as error:
        vit.helper.check_settings(run.cfg)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "overrides, patch, words",
    [
        ("", None, ""),
        ("transfer_size=32,final_size=48", 16, ""),
        ("patch_size=5", None, "patch_size: patches of 5 do not tile pictures of 16 pixels"),
        ("other_patches=(2,6)", None, "other_patches: patches of 6 do not tile"),
        ("pretrain_size=0", None, "pretrain_size=0: patches of 4 do not tile it"),
        ("transfer_size=40", 16, "transfer_size=40: patches of 16 do not tile it"),
        ("batch_size=600", None, r"batch_size=600: there are only \d+ training pictures"),
        ("transfer_size=32,final_size=48,batch_size=1000", 16, "batch_size=1000: there are only 997"),
        ("transfer_batch=101", None, "transfer_batch=101: there are only 100"),
        ("ablation_train=9", None, "ablation_train=9: at least one picture for each of 10"),
        ("probe_train=3", None, "probe_train=3: at least one picture"),
    ],
)
def test_settings_that_do_not_fit_the_pictures_are_named(vit, start, overrides, patch, words):
    cfg, data = start("demo", overrides).cfg, vit.helper.load_digits()
    vit.helper.check_settings(cfg)
    if words:
        with pytest.raises(vit.lab.LabError, match=words):
            vit.helper.check_fit(cfg, data, patch)
    else:
        vit.helper.check_fit(cfg, data, patch)


def room_script(folder):
    """The room in a folder of its own, its code notebook as main.py."""
    shutil.copytree(ROOM, folder, ignore=shutil.ignore_patterns("results", "runs", "__pycache__"))
    convert = [sys.executable, "-m", "nbconvert", "--to", "script", "code.ipynb", "--output", "main"]
    subprocess.run(convert, cwd=folder, check=True, capture_output=True)
    next(folder.glob("main.*")).rename(folder / "main.py")  # .txt, from a notebook that was never executed
    return folder


def begin_tiny(folder):
    """Start main.py under tiny, on the CPU, without real data."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NNDL_")}
    environment |= {"NNDL_PROFILE": "tiny", "ACCELERATE_USE_CPU": "true", "MPLBACKEND": "agg"}
    with open(folder / "log", "w", encoding="utf-8") as log:
        return subprocess.Popen([sys.executable, "main.py"], cwd=folder, env=environment, stdout=log, stderr=log)


def saved_states(folder):
    """{folder of a saved training: its inode}; a training that is done again gets a new folder."""
    states = (folder / "runs" / "tiny" / "state").glob("*/epoch-????")
    return {path: path.stat().st_ino for path in states}


def finished_record(process, folder):
    assert process.wait() == 0, (folder / "log").read_text(encoding="utf-8")[-3000:]
    assert not (folder / "runs" / "tiny" / "state").exists(), "a finished run leaves no state behind"
    return json.loads((folder / "runs" / "tiny" / "record.json").read_text(encoding="utf-8"))


@pytest.mark.timeout(600)
def test_killed_room_ends_as_if_it_had_not_been(tmp_path):
    """code.ipynb as a script, killed when some of its trainings are saved, then started again."""
    whole = room_script(tmp_path / "whole" / "CA5_vit")
    expected = finished_record(begin_tiny(whole), whole)

    broken = room_script(tmp_path / "broken" / "CA5_vit")
    process = begin_tiny(broken)
    while len(saved_states(broken)) < 12 and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run was over before it could be killed"
    assert not (broken / "runs" / "tiny" / "record.json").exists()

    before = saved_states(broken)
    process = begin_tiny(broken)
    while len(now := saved_states(broken)) < len(before) + 2 and process.poll() is None:
        time.sleep(0.02)
    assert process.poll() is None and before.items() <= now.items(), "finished trainings were done again"
    record = finished_record(process, broken)
    assert record["metrics"] == expected["metrics"]
    assert {name: part["fingerprint"] for name, part in record["data"].items()} == {
        name: part["fingerprint"] for name, part in expected["data"].items()
    }
