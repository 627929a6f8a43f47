"""CA2_vehicle_cnn: drawn vehicles, loader, settings; pretrained networks, lines, resume."""

import lzma
import shutil
from functools import partial

import numpy as np
import pytest
import torch
from nasty_files import PICTURES, STRAYS, put_strays
from PIL import Image
from safetensors.torch import save_file

from nndl import rooms
from nndl.files import DataError
from nndl.notebooks import load_definitions
from nndl.records import LabError
from real_data import REAL, needs


@pytest.fixture(scope="module")
def room():
    return load_definitions(rooms.ROOT / "CA2_vehicle_cnn" / "code.ipynb")


@pytest.fixture(scope="module")
def helper(room):
    return room.helper


@pytest.fixture
def start(room, begin_run):
    """start(profile, overrides) begins a run whose results stay out of the checkout; room.run and room.cfg are set."""
    return partial(begin_run, room)


# ---------------------------------------------------------------- drawn vehicles


def test_drawn_vehicles_follow_from_the_seed(helper):
    first, again, other = (helper.make_vehicles(3, 2, seed, 32) for seed in (1, 1, 2))
    assert all(map(np.array_equal, first, again)) and not np.array_equal(first.images, other.images)
    assert first.images.shape == (24, 32, 32, 3) and first.images.dtype == np.uint8
    assert np.bincount(first.labels).tolist() == [3] * 8


def test_groups_are_models_of_one_class(helper):
    part = helper.make_vehicles(6, 3, 0, 32)
    assert len(set(part.groups)) == 8 * 3
    for group in set(part.groups):
        own = part.groups == group
        assert (
            own.sum() == 2 and len(set(part.labels[own])) == 1 and group.startswith(helper.CLASSES[part.labels[own][0]])
        )


def test_test_models_are_other_models(helper):
    data = helper.load_embedded(4, 4, 32)
    assert not set(data.train.groups) & set(data.test.groups) and data.counts() == {"train": 32, "test": 32}


def test_colour_and_place_tell_nothing(helper):
    """The mean colour of a picture and its mean darkness in quarters: no classifier should get far with these."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score

    part = helper.make_vehicles(40, 10, 3, 32)
    means = part.images.reshape(len(part.labels), -1, 3).mean(1) / 255
    found = cross_val_score(LogisticRegression(max_iter=2000), means, part.labels, cv=5).mean()
    assert found < 0.125 + 4 * np.sqrt(0.125 * 0.875 / 320), f"{found:.2f} from the mean colour, chance is 0.125"


def test_silhouettes_for_pretraining(helper):
    images, labels = helper.make_things(32, 0, 32)
    assert images.shape == (32, 32, 32, 3) and sorted(set(labels.tolist())) == list(range(16))
    assert np.array_equal(images, helper.make_things(32, 0, 32)[0])
    assert not set(helper.INVENTED) & set(helper.CLASSES)


# ---------------------------------------------------------------- pictures in folders


def write_folder(root, classes=("bus", "car"), n=3, models=False):
    """A small, good data set; returns its manifest's lines."""
    rng, lines = np.random.default_rng(0), ["file,model"]
    for part in ("train", "test"):
        for k, name in enumerate(classes):
            (root / part / name).mkdir(parents=True)
            for i in range(n):
                Image.fromarray(rng.integers(0, 256, (20, 30 + k, 3), dtype=np.uint8)).save(
                    root / part / name / f"{name}.{i}.png"
                )
                lines.append(f"{part}/{name}/{name}.{i}.png,{name} model {i}")
    if models:
        (root / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return lines


def test_folders(helper, tmp_path):
    write_folder(tmp_path, models=True)
    data = helper.load_vehicles(tmp_path, 16, "toy")
    assert data.classes == ["bus", "car"] and data.counts() == {"train": 6, "test": 6} and data.source == "real"
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1] and data.train.images.shape == (6, 16, 16, 3)
    assert data.test.groups[4] == "car model 1" and data.note == "car models from manifest.csv"
    assert helper.load_vehicles(tmp_path, 16, "toy", limit=2).counts() == {"train": 4, "test": 4}


def test_without_a_manifest_each_picture_is_a_group(helper, tmp_path):
    write_folder(tmp_path)
    data = helper.load_vehicles(tmp_path, 16, "toy")
    assert len(set(data.train.groups) | set(data.test.groups)) == 12 and "no car models known" in data.note


def test_pictures_come_back(helper, tmp_path):
    write_folder(tmp_path)
    data = helper.load_vehicles(tmp_path, 20, "toy")
    stored = np.asarray(Image.open(tmp_path / "train" / "bus" / "bus.1.png").resize((20, 20), Image.Resampling.BOX))
    assert np.abs(data.train.images[1].astype(int) - stored).mean() < 30, "another picture, or colours in another order"


@pytest.mark.parametrize("nasty", PICTURES, ids=str)
def test_nasty_pictures(helper, tmp_path, nasty):
    write_folder(tmp_path)
    nasty.write(tmp_path / "train" / "car")
    data = nasty.meets(lambda: helper.load_vehicles(tmp_path, 32, "toy"))
    if data:
        cars = data.train.images[data.train.labels == 1]
        assert len(cars) == 4 and np.abs(cars / 255 - nasty.light[..., None]).mean((1, 2, 3)).min() < 0.02


def test_strays_are_left_out_and_named(helper, tmp_path):
    write_folder(tmp_path)
    clean = helper.load_vehicles(tmp_path, 16, "toy")
    for place in (tmp_path / "train", tmp_path / "test" / "bus"):
        put_strays(place)
    data = helper.load_vehicles(tmp_path, 16, "toy")
    assert data.classes == clean.classes and all(map(np.array_equal, data.train, clean.train))
    assert f"{2 * len(STRAYS)} files not read" in data.note


BAD = {
    "no train": (lambda root: (root / "train").rename(root / "training"), "train: no such folder"),
    "no test": (lambda root: (root / "test").rename(root / "testing"), "test: no such folder"),
    "class missing from test": (
        lambda root: (root / "test" / "bus").rename(root / "bus"),
        "test: class bus is missing",
    ),
    "unknown class in test": (lambda root: (root / "test" / "van").mkdir(), "test: unknown class van"),
    "empty class": (lambda root: [file.unlink() for file in (root / "train" / "car").iterdir()], "car: no picture"),
    "listed twice": (
        lambda root: append(root, "train/car/car.0.png,a"),
        "line 14: train/car/car.0.png is listed twice",
    ),
    "no model": (lambda root: append(root, "train/car/x.png,"), "line 14: no model"),
    "not listed": (
        lambda root: (root / "train" / "car" / "car.0.png").rename(root / "train" / "car" / "z.png"),
        "z.png: ",
    ),
}


def append(root, line):
    with open(root / "manifest.csv", "a", encoding="utf-8") as file:
        file.write(line + "\n")


@pytest.mark.parametrize("kind", BAD)
def test_bad_folders_are_named(helper, tmp_path, kind):
    spoil, words = BAD[kind]
    write_folder(tmp_path, models=True)
    spoil(tmp_path)
    with pytest.raises(DataError) as error:
        helper.load_vehicles(tmp_path, 16, "toy")
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_single_class_is_refused(helper, tmp_path):
    write_folder(tmp_path, classes=("car",))
    with pytest.raises(DataError, match="1 class folders; two are needed"):
        helper.load_vehicles(tmp_path, 16, "toy")


@needs("vehicles")
@pytest.mark.parametrize("place, classes, counts", [(".", 7, (784, 224)), ("tiny_cctv", 6, (720, 240))])
def test_real_pictures(helper, place, classes, counts):
    data = helper.load_vehicles(REAL / "vehicles" / place, 32, place)
    assert len(data.classes) == classes and tuple(data.counts().values()) == counts


def test_folders_without_parts_are_one_part(helper, tmp_path):
    write_folder(tmp_path)
    data = helper.load_vehicles(tmp_path / "train", 16, "toy")
    assert data.counts() == {"train": 6, "test": 0} and data.classes == ["bus", "car"]
    part, train = data.together()
    assert train.all() and len(part.labels) == 6


def test_whole_groups_go_to_one_side(room, helper):
    part = helper.make_vehicles(20, 4, 0, 16)
    groups = np.unique(part.groups, return_inverse=True)[1]
    train = room.split_whole_groups(part, groups, 0.25, 0)
    assert not set(groups[train]) & set(groups[~train]) and 0.1 < (~train).mean() < 0.4
    assert set(part.labels[~train]) == set(range(8))


def test_pictures_as_numbers(helper):
    images = np.zeros((2, 8, 8, 3), np.uint8)
    images[0, :, 4:] = (255, 0, 0)
    assert helper.shrink(images, 1, 2)[0].tolist() == [[[0, 0, 0], [255, 0, 0]]]
    assert helper.shrink(images.mean(3), 2, 2)[0].tolist() == [[0, 85], [0, 85]]
    colours = helper.colour_histograms(images)
    assert colours.shape == (2, 64) and colours[0, 0] == 0.5 and colours[0, 48] == 0.5 and colours[1, 0] == 1


def test_crops_and_copies_stay_pictures(helper):
    images = helper.make_vehicles(1, 1, 0, 32).images
    for make, near in ((helper.random_crops, False), (helper.near_copies, True)):
        first, again = (make(images, np.random.default_rng(0)) for _ in range(2))
        assert first.shape == images.shape and first.dtype == np.uint8 and np.array_equal(first, again)
        correlation = np.mean([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(images, first)])
        assert (correlation > 0.8) if near else (correlation < 0.95)


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("width=0", "width=0: at least 1"),
        ("batch_size=1", "batch_size=1: at least 2"),
        ("limit=3", "limit=3: 0 .all., or 10"),
        ("drawn=4;2", "drawn="),
        ("lr=0.0", "lr=0.0: between 0 and 1"),
        ("tune_lr=2.0", "tune_lr=2.0: between 0 and 1"),
        ("seeds=1;1", "seeds=.1, 1.: at least one value is needed, and none twice"),
        ("amounts=20;5", "in rising order"),
        ("size=32", "size=32: at least 64"),
        ("same_bits=100", "same_bits=100: at most 64"),
        ("crops=0", "crops=0: at least 1"),
    ],
)
def test_settings_that_cannot_work(room, start, override, words):
    name, value = override.split("=")
    value = f"({value.replace(';', ', ')})" if ";" in value else value
    with pytest.raises(LabError, match=words):
        room.helper.check_settings(start("demo", f"{name}={value}").cfg)


def test_what_does_not_fit_the_pictures(room, helper, start):
    cfg = start("demo").cfg
    data = helper.load_embedded(24, 4, 16)
    labels = np.concatenate([data.train.labels, data.test.labels])
    train = np.arange(len(labels)) < len(data.train.labels)
    fits = partial(helper.check_fit, cfg, data)
    fits(labels, train, np.arange(len(labels)))
    with pytest.raises(DataError, match="the test part has no picture of class motorcycle"):
        fits(labels, train | (labels == 7), np.arange(len(labels)))
    copies = np.where(labels == 0, 0, np.arange(len(labels)))
    with pytest.raises(DataError, match=r"class sedan has 1 training pictures that are no copies .* folds=5 needs 10"):
        fits(labels, train, copies)
    with pytest.raises(LabError, match=r"amounts=.* the smallest class of drawn vehicles has 24"):
        helper.check_fit(start("demo", "amounts=(5, 25)").cfg, data, labels, train, np.arange(len(labels)))


# ---------------------------------------------------------------- networks


@pytest.mark.parametrize(
    "name", ["vgg16", "alexnet", "squeezenet1_1", "mobilenet_v2", "resnet50", "efficientnet_lite0"]
)
def test_stages_are_the_network(room, name):
    """What the chain gives goes through the classifier of the library's network to the library's answer."""
    torch.manual_seed(0)
    net = room.SOURCES[name].build(weights=None).eval()
    stages, x = room.stages_of(net), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        maps, whole = stages(x), net(x)
        if name in ("vgg16", "alexnet"):
            own = net.classifier(net.avgpool(maps).flatten(1))
        elif name == "squeezenet1_1":
            own = net.classifier(maps).flatten(1)
        elif name == "mobilenet_v2":
            own = net.classifier(maps.mean((2, 3)))
        else:
            own = (net.fc if name == "resnet50" else net.classifier)(maps.mean((2, 3)))
    assert torch.allclose(own, whole, atol=1e-4)
    assert max(room.SOURCES[name].taps.values()) == len(stages)


def test_tokens_are_those_of_the_vit(room):
    torch.manual_seed(0)
    net, x = room.SOURCES["vit_tiny"].build(weights=None).eval(), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(room.stages_of(net)(x), net.forward_features(x), atol=1e-5)
    assert room.SOURCES["vit_tiny"].taps["norm"] == len(room.stages_of(net))


def alexnet_weights(folder, change=lambda state: None):
    torch.manual_seed(1)
    import torchvision

    state = torchvision.models.alexnet(weights=None).features.state_dict()
    state = {f"features.{name}": value.half() for name, value in state.items()}
    change(state)
    save_file(state, folder / "alexnet_features.safetensors")
    return state


def test_weights_are_loaded(room, tmp_path):
    state = alexnet_weights(tmp_path)
    stages = room.build_source("alexnet", tmp_path)
    assert torch.equal(stages[0].weight, state["features.0.weight"].float()) and not stages.training
    assert not torch.equal(room.build_source("alexnet")[0].weight, stages[0].weight)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("features.0.bias"), "0.bias does not fit: the network has .64,., the file None"),
        (lambda state: state.update({"features.0.bias": torch.zeros(3)}), "0.bias does not fit"),
        (
            lambda state: state.update({"features.99.bias": torch.zeros(3)}),
            "99.bias does not fit: the network has None",
        ),
    ],
)
def test_weights_that_do_not_fit(room, tmp_path, change, words):
    alexnet_weights(tmp_path, change)
    with pytest.raises(DataError, match=rf"alexnet_features.safetensors: {words}"):
        room.build_source("alexnet", tmp_path)


def test_damaged_and_missing_weights(room, tmp_path):
    with pytest.raises(DataError, match=r"vgg16_features.safetensors: no such file"):
        room.build_source("vgg16", tmp_path)
    (tmp_path / "resnet50_v1_pruned_int8.safetensors.xz").write_bytes(lzma.compress(b"nothing"))
    with pytest.raises(DataError, match="not a readable safetensors file"):
        room.build_source("resnet50", tmp_path)


@needs("imagenet-val")
def test_real_weights_know_imagenet(room):
    """The stages and the library's classifier name pictures of ImageNet: nothing is lost on the way."""
    import cv2
    import timm

    from nndl import files

    net = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    state = files.load_weights(REAL / "weights" / "efficientnet_lite0.safetensors")
    net.load_state_dict({name: value.float() for name, value in state.items()}, strict=False)
    stages = room.build_source("efficientnet_lite0", REAL / "weights")
    images, labels = files.labelled_pictures(REAL / "imagenet-val", 224)[:2]
    pictures = np.stack([cv2.resize(image, (224, 224)) for image in images[:40]])
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        right = (net.classifier(stages(x).mean((2, 3))).argmax(1).numpy() == np.asarray(labels[:40])).mean()
    assert right > 0.5


# ---------------------------------------------------------------- features on disk, trainings


def test_features_are_kept_and_damage_is_named(room, start):
    run, made = start("tiny"), []

    def make(number):
        return run.cached("numbers", [number], lambda: made.append(number) or {"x": np.full(3, number)})

    assert make(1)["x"].tolist() == make(1)["x"].tolist() == [1, 1, 1] and made == [1]
    assert make(2)["x"].tolist() == [2, 2, 2] and made == [1, 2]
    first, second = sorted((run.room / "runs" / "cache").glob("numbers-*.npz"), key=lambda file: file.stat().st_mtime)
    first.write_bytes(second.read_bytes())  # a stale file under another's name
    with pytest.raises(LabError, match=r"it was made by other weights, data or code.*delete it and start again"):
        make(1)
    first.write_bytes(b"damaged")
    with pytest.raises(LabError, match=r"numbers: runs.cache.numbers-.*npz cannot be used"):
        make(1)


def test_training_goes_on_where_it_was(room, start, helper, monkeypatch):
    images, labels = helper.make_things(32, 0, 16)
    recipe = room.Recipe(40, 1e-3, 8)

    def once():
        torch.manual_seed(0)
        model = room.Classifier(room.cnn_stages(2), 16, 16)
        return room.train("small", model, room.Pictures(images, 16), labels, np.arange(24), recipe, 0)

    run = start("tiny")
    _, whole, losses = once()
    shutil.rmtree(run.folder / "state")
    save, saved = room.lab.Checkpoint.save, []

    def save_and_stop(self, done):
        save(self, done)
        raise KeyboardInterrupt

    monkeypatch.setattr(room.lab.Checkpoint, "save", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        once()
    monkeypatch.setattr(room.lab.Checkpoint, "save", lambda self, done: saved.append(done) or save(self, done))
    _, again, resumed = once()
    assert saved == [40] and len(resumed) == 40 and np.allclose(losses, resumed)
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), again.state_dict().values()))


def test_frozen_stages_keep_their_statistics(room):
    model = room.Classifier(room.cnn_stages(2), 16, 3, pretrained=True).train()
    before = model.stages[1].first[1].running_mean.clone()
    model(torch.randn(4, 3, 32, 32))
    assert torch.equal(model.stages[1].first[1].running_mean, before) and model.head.dropout.training
    model = room.Classifier(room.cnn_stages(2), 16, 3).train()
    model(torch.randn(4, 3, 32, 32))
    assert not torch.equal(model.stages[1].first[1].running_mean, before)


def test_two_classes_have_two_columns(room, start):
    start("tiny")
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    views = (rng.normal(size=(2, 40, 6)) + 2 * labels[None, :, None]).astype(np.float16)
    for head in (room.svm, room.PegasosSVM, room.LogisticRegression):
        scores = room.feature_line([views], labels, head)(np.arange(30), np.arange(30, 40))
        assert scores.shape == (10, 2) and (scores.argmax(1) == labels[30:]).mean() > 0.7


def test_temperature_is_the_one_with_the_smallest_log_loss(room):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (4000, 3))
    labels = (room.softmax_at(logits, 1.0).cumsum(1) < rng.random((4000, 1))).sum(1)
    assert abs(room.temperature_of(5 * logits, labels) - 5) < 0.4
