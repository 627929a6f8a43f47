"""CA2_vehicle_cnn: the drawn vehicles, and the loader of pictures in a folder for each class."""

import importlib.util

import numpy as np
import pytest
from nasty_files import PICTURES, STRAYS, put_strays
from PIL import Image

from nndl import rooms
from nndl.files import DataError
from real_data import REAL, needs


@pytest.fixture(scope="module")
def helper():
    spec = importlib.util.spec_from_file_location(
        "vehicle_helper", rooms.ROOT / "CA2_vehicle_cnn" / "vehicle_helper.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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


def test_shapes_for_pretraining(helper):
    images, labels = helper.make_things(32, 0, 32)
    assert images.shape == (32, 32, 32, 3) and sorted(set(labels.tolist())) == list(range(16))
    assert np.array_equal(images, helper.make_things(32, 0, 32)[0])


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
