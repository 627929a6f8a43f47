"""CA2_vehicle_cnn: drawn vehicles, loader, settings; pretrained networks, lines, resume."""

import shutil
from functools import partial

import numpy as np
import pytest
import torch
from nasty_files import PICTURES, STRAYS, put_strays
from PIL import Image

from nndl import networks, rooms
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


def test_the_same_picture_in_two_classes_is_refused(helper, tmp_path):
    write_folder(tmp_path)
    shutil.copy(tmp_path / "train" / "bus" / "bus.1.png", tmp_path / "train" / "car" / "again.png")
    with pytest.raises(DataError, match=r"again.png: the same picture stands in another class, .*bus.1.png"):
        helper.load_vehicles(tmp_path, 16, "toy")
    (tmp_path / "train" / "car" / "again.png").rename(tmp_path / "test" / "car" / "again.png")
    with pytest.raises(DataError, match=r"test.car.again.png: the same picture stands in another class, .*bus.1.png"):
        helper.load_vehicles(tmp_path, 16, "toy")


@pytest.mark.parametrize("size", [(64, 8), (8, 64), (64, 64), (6, 6), (64, 16)])
def test_pictures_are_means_where_they_shrink(helper, tmp_path, size):
    """A comb of bright lines, every fourth pixel of the long side: its mean, not every fourth line or none."""
    write_folder(tmp_path)
    comb = np.zeros((size[1], size[0]), np.uint8)
    comb[:, ::4] = 200
    if size[1] > size[0]:
        comb = np.zeros_like(comb)
        comb[::4] = 200
    Image.fromarray(comb).save(tmp_path / "train" / "bus" / "bus.0.png")
    found = helper.load_vehicles(tmp_path, 16, "toy").train.images[0]
    if max(size) > 16:
        assert np.abs(found.astype(int) - 50).max() <= 1
    else:  # it grows: lines stay lines
        assert found.max() > 150 and found.min() == 0


@pytest.mark.parametrize("name, header", [("Manifest.CSV", "File,Model"), ("manifest.csv", "MODEL,File")])
def test_manifests_in_other_spellings(helper, tmp_path, name, header):
    lines = write_folder(tmp_path)[1:]
    if header.startswith("MODEL"):
        lines = [",".join(reversed(line.split(","))) for line in lines]
    (tmp_path / name).write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    data = helper.load_vehicles(tmp_path, 16, "toy")
    assert data.test.groups[4] == "car model 1" and data.note == "car models from manifest.csv"
    (tmp_path / name).write_text("\n".join(["path,model", *lines]) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match="no column 'file'; it should have file and model"):
        helper.load_vehicles(tmp_path, 16, "toy")


def test_a_class_may_be_called_train(helper, tmp_path):
    write_folder(tmp_path, classes=("bus", "train"))
    (tmp_path / "test" / "train" / ".ipynb_checkpoints").mkdir()
    data = helper.load_vehicles(tmp_path / "test", 16, "toy")
    assert data.classes == ["bus", "train"] and data.counts() == {"train": 6, "test": 0}


def test_parts_without_classes_are_no_classes(helper, tmp_path):
    write_folder(tmp_path, classes=("train", "test"))
    with pytest.raises(DataError, match=r"train: no class folders; it should hold a folder for each class"):
        helper.load_vehicles(tmp_path / "train", 16, "toy")
    (tmp_path / "train").rename(tmp_path / "Train")
    with pytest.raises(DataError, match=r"Train: rename it, train in small letters"):
        helper.load_vehicles(tmp_path, 16, "toy")


def test_manifests_that_leave_a_choice(helper, tmp_path):
    write_folder(tmp_path, models=True)
    (tmp_path / "manifest.csv").write_text("file,Model,model\na,b,c\n", encoding="utf-8")
    with pytest.raises(DataError, match="two columns differ by capital letters alone"):
        helper.load_vehicles(tmp_path, 16, "toy")
    (tmp_path / "MANIFEST.csv").write_text("file,model\na,b\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"MANIFEST.csv: manifest.csv lies beside it; keep one"):
        helper.load_vehicles(tmp_path, 16, "toy")


def test_a_third_folder_is_named(helper, tmp_path):
    write_folder(tmp_path)
    shutil.copytree(tmp_path / "test", tmp_path / "valid")
    assert "valid" in helper.load_vehicles(tmp_path, 16, "toy").note


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


def toy_study(room, n=60, classes=3, models=12, seed=0):
    """A Study of noise: the labels follow from the model, a quarter of the models is for testing alone."""
    rng = np.random.default_rng(seed)
    model = rng.permutation(np.arange(n) % models)
    images = rng.integers(0, 256, (n, 16, 16, 3), dtype=np.uint8)
    train = (model % 4 != 3) & (rng.random(n) < 0.8)
    return room.Study(images, model % classes, np.array([f"model {m}" for m in model]), train, np.arange(n))


def test_folds_keep_groups_and_do_not_look_at_test_labels(room, start):
    start("tiny")
    study = toy_study(room)
    folds = room.fold_numbers(study, study.models)
    assert set(folds) == {0, 1, 2} and all(len(set(folds[study.models == m])) == 1 for m in set(study.models))
    other = np.where(study.train, study.labels, (study.labels + 1) % 3)
    assert np.array_equal(folds, room.fold_numbers(study._replace(labels=other), study.models))
    for k in range(3):
        share = np.bincount(folds[study.train & (study.labels == k)], minlength=3)
        assert share.min() > 0, "each fold has each class"
    far = np.flatnonzero(~np.isin(study.models, study.models[study.train]))
    assert len(set(folds[far])) > 1, "test models that training does not know are spread by chance"
    alone = np.where(study.labels == 2, "one model", study.models)
    with pytest.raises(LabError, match=r"folds=3: all pictures of class 2 .from 0. are in one fold"):
        room.fold_numbers(study, alone)


def test_copies_join_their_car_models(room, start):
    start("tiny")
    study = toy_study(room, 240, models=24)
    groups = room.model_groups(study)
    assert len(set(groups)) == 24 and all(len(set(groups[study.models == m])) == 1 for m in set(study.models))
    first, second = (np.flatnonzero(study.models == f"model {m}")[0] for m in (0, 3))
    copies = study.copies.copy()
    copies[second] = copies[first]
    joined = room.model_groups(study._replace(copies=copies))
    assert len(set(joined)) == 23 and joined[first] == joined[second]
    assert room.model_groups(study._replace(models=np.arange(240).astype(str))) is None, "each picture a model: unknown"
    assert room.model_groups(study._replace(models=study.labels.astype(str))) is None, "one model a class"


def test_an_own_set_is_split_with_copies_on_one_side(room, helper, start, capsys):
    start("tiny")
    part = helper.make_vehicles(6, 6, 0, 48)
    twice = helper.Part(*(np.concatenate([array, array]) for array in part))
    data = helper.Vehicles("toy", "real", helper.CLASSES, twice, twice.take(slice(0, 0)))
    study = room.make_study(data)
    assert len(study.labels) == 96 and 0 < (~study.train).sum() < 48
    assert np.array_equal(study.train[:48], study.train[48:]) and np.array_equal(study.copies[:48], study.copies[48:])
    assert len(set(study.copies)) == 48 and "48 copies, 0 training pictures dropped" in capsys.readouterr().out
    other = twice._replace(labels=np.concatenate([part.labels, (part.labels + 1) % 8]))
    room.make_study(helper.Vehicles("toy", "real", helper.CLASSES, other, twice.take(slice(0, 0))))
    assert "copies of one picture in several classes" in capsys.readouterr().out
    few = helper.make_vehicles(4, 4, 0, 48)
    with pytest.raises(LabError, match="toy: class sedan has 4 pictures that are no copies of each other"):
        room.make_study(helper.Vehicles("toy", "real", helper.CLASSES, few, few.take(slice(0, 0))))


def test_mirror_images_are_copies(room, helper, start):
    start("tiny")
    images = helper.make_vehicles(1, 1, 0, 48).images
    together = np.concatenate([images, images[[2, 5], :, ::-1]])
    groups = room.copies_of(together)
    assert groups[8] == groups[2] and groups[9] == groups[5] and len(set(groups)) == 8
    data = helper.Vehicles("toy", "embedded", list("abcdefgh"), helper.Part(images, np.arange(8), np.arange(8)),
                           helper.Part(images[[2], :, ::-1], np.array([2]), np.array([8])))  # fmt: skip
    study = room.make_study(data)
    assert len(study.labels) == 8 and study.train.sum() == 7 and 2 not in study.labels[study.train]


def test_models_are_seen_where_another_fold_has_them(room):
    models, fold = np.array(list("aaabbc")), np.array([0, 0, 1, 2, 2, 1])
    study = room.Study(None, None, models, np.array([1, 1, 0, 1, 1, 0], bool), None)
    assert room.model_was_seen(study, fold).tolist() == [False, False, True, False, False, False]
    study = study._replace(train=np.ones(6, bool))
    assert room.model_was_seen(study, fold).tolist() == [True, True, True, False, False, False]


def test_few_pictures_are_of_each_class_and_for_training(room):
    study = toy_study(room, 120)
    few = room.draw_few(study, 4, 0)
    assert study.train[few].all() and np.bincount(study.labels[few]).tolist() == [4, 4, 4]
    assert len(set(few)) == 12 and np.all(np.diff(few) > 0)
    assert not np.array_equal(few, room.draw_few(study, 4, 1)) and np.array_equal(few, room.draw_few(study, 4, 0))
    assert len(room.draw_few(study, 1000, 0)) == study.train.sum()


def test_pictures_as_numbers(helper):
    images = np.zeros((2, 8, 8, 3), np.uint8)
    images[0, :, 4:] = (255, 0, 0)
    assert helper.shrink(images, 1, 2)[0].tolist() == [[[0, 0, 0], [255, 0, 0]]]
    assert helper.shrink(images.mean(3), 2, 2)[0].tolist() == [[0, 85], [0, 85]]
    colours = helper.colour_histograms(images)
    assert colours.shape == (2, 64) and colours[0, 0] == 0.5 and colours[0, 48] == 0.5 and colours[1, 0] == 1


def alike(first, second):
    """Correlation of pictures, pair by pair: (N,)."""
    return np.array([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(first, second)])


def test_crops_and_copies_are_of_the_same_pictures(helper):
    images = helper.make_vehicles(2, 2, 0, 48).images
    others = alike(images, np.roll(images, 1, axis=0)).mean()
    crops, copies = (make(images, np.random.default_rng(0)) for make in (helper.random_crops, helper.near_copies))
    for make, made in ((helper.random_crops, crops), (helper.near_copies, copies)):
        assert made.shape == images.shape and made.dtype == np.uint8
        assert np.array_equal(made, make(images, np.random.default_rng(0)))
        assert not np.array_equal(made, make(images, np.random.default_rng(1)))
    assert others + 0.1 < alike(images, crops).mean() < 0.95 < alike(images, copies).mean() < 0.9999


def test_crops_have_the_area_they_say(helper):
    """A picture whose red is its column and whose green is its row tells what was cut."""
    ramp = np.zeros((100, 100, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = 2 * np.arange(100), 2 * np.arange(100)[:, None]
    for smallest in (0.98, 0.7):
        rng, shares = np.random.default_rng(0), []
        for _ in range(100):
            found = helper.cropped(ramp, rng, smallest, 0.0)
            width, height = (np.ptp(found[..., channel]) / 2 + 1 for channel in (0, 1))
            shares.append(width * height / 100**2)
        assert smallest - 0.02 < min(shares) < smallest + 0.1 * (1 - smallest) + 0.02 and max(shares) > 0.98


def test_models_of_a_kind_differ_and_their_pictures_too(helper):
    rng = np.random.default_rng(0)
    first, second = (helper.draw_model(rng, "sedan") for _ in range(2))
    assert np.abs(first["body"] - second["body"]).max() > 0.5 and first["stretch"] != second["stretch"]
    same = [helper.draw_vehicle(np.random.default_rng(1), model, 32) for model in (first, first, second)]
    assert np.array_equal(same[0], same[1]) and not np.array_equal(same[0], same[2])
    part = helper.make_vehicles(6, 2, 0, 32)
    own = part.images[part.groups == part.groups[0]]
    assert len(own) == 3 and not np.array_equal(own[0], own[1])


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("width=0", "width=0: at least 1"),
        ("batch_size=1", "batch_size=1: at least 2"),
        ("limit=3", "limit=3: 0 .all., or 6"),
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
    with pytest.raises(DataError, match="the test part has one picture of class motorcycle; an interval needs two"):
        fits(labels, train, np.where(~train & (labels == 7), 1000, np.arange(len(labels))))
    with pytest.raises(DataError, match="the test part has no picture of class motorcycle"):
        fits(labels, train | (labels == 7), np.arange(len(labels)))
    copies = np.where(train & (labels == 0), 0, np.arange(len(labels)))
    with pytest.raises(DataError, match=r"class sedan has 1 training pictures that are no copies .* folds=3 needs 6"):
        fits(labels, train, copies)
    with pytest.raises(LabError, match=r"amounts=.* the smallest class of drawn vehicles has 24"):
        helper.check_fit(start("demo", "amounts=(5, 25)").cfg, data, labels, train, np.arange(len(labels)))


# ---------------------------------------------------------------- networks


@pytest.mark.parametrize("name", list(networks.NETWORKS))
def test_layers_are_those_of_the_chain(room, name):
    source, stages = room.SOURCES[name], networks.stages_of(networks.build(name))
    assert max(source.taps.values()) == len(stages) and 0 < source.frozen < len(stages)


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
        model = room.Classifier(room.cnn_stages(8), 64, 16)
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


def small_training(room, helper, lr=1e-3, first=0, data=0, turn=0, seed=0):
    images, labels = helper.make_things(32, data, 16)
    torch.manual_seed(first)
    model = room.Classifier(room.cnn_stages(8), 64, 16)
    recipe = room.Recipe(2, lr, 8)
    return room.train("small", model, room.Pictures(images, 16), (labels + turn) % 16, np.arange(24), recipe, seed)


def test_other_initial_weights_are_another_training(room, start, helper):
    run = start("tiny")
    small_training(room, helper)
    small_training(room, helper)
    assert len(list((run.folder / "state").iterdir())) == 1
    for number, other in enumerate((dict(first=1), dict(data=1), dict(turn=1), dict(seed=1), dict(lr=2e-3)), 2):
        small_training(room, helper, **other)
        assert len(list((run.folder / "state").iterdir())) == number, f"{other} is not another training"


def test_epochs_are_drawn_anew(room, start, helper, monkeypatch):
    start("tiny")
    orders = []
    monkeypatch.setattr(
        room, "train_epoch", lambda model, average, draw, labels, order, *_: orders.append(order) or 1.0
    )
    small_training(room, helper)
    small_training(room, helper, seed=1)
    assert len({tuple(order.tolist()) for order in orders}) == 4 and all(len(set(o.tolist())) == 24 for o in orders)


def test_a_picture_and_its_mirror_image_get_the_same_answer(room, helper, start):
    start("tiny")
    images, _ = helper.make_things(16, 0, 16)
    torch.manual_seed(0)
    model, every = room.Classifier(room.cnn_stages(8), 64, 16), np.arange(16)
    plain, turned = (
        room.answers(model, room.Pictures(part, 16), every) for part in (images, images[:, :, ::-1].copy())
    )
    assert np.allclose(plain, turned, atol=1e-5) and np.ptp(plain) > 1e-3
    maps = np.random.default_rng(0).normal(size=(2, 16, 4, 3, 3)).astype(np.float32)
    head = room.Classifier(torch.nn.Identity(), 4, 16)
    both, swapped, first = (room.answers(head, room.Maps(maps[order]), every) for order in ([0, 1], [1, 0], [0, 0]))
    assert np.allclose(both, swapped, atol=1e-5) and not np.allclose(both, first, atol=1e-3)


def test_mirrored_features_are_asked_too(room, start):
    start("tiny")
    rng, labels = np.random.default_rng(0), np.arange(40) % 2
    views = (rng.normal(size=(2, 40, 6)) + labels[None, :, None]).astype(np.float16)
    both, swapped, first = (
        room.feature_line([views[order]], labels, room.svm)(np.arange(30), np.arange(30, 40))
        for order in ([0, 1], [1, 0], [0, 0])
    )
    assert np.allclose(both, swapped, atol=1e-2) and not np.allclose(both, first, atol=5e-2)


def test_lines_are_kept_and_the_test_part_has_no_say(room, start):
    """try_line, validated, by_fold and probabilities on a toy set."""
    start("tiny")
    study = toy_study(room, 120)
    names = dict(studies={"toy": study}, folds={"toy": room.fold_numbers(study, study.copies)}, model_folds={},
                 oof={"toy": {}}, test={"toy": {}}, by_model={"toy": {}})  # fmt: skip
    vars(room).update(names)
    x = np.eye(3)[study.labels] + np.random.default_rng(0).normal(0, 0.8, (120, 3))
    room.try_line("toy", "svm", room.plain_line(x, study.labels, room.plain_svm), unseen=True)
    assert room.oof["toy"]["svm"].shape == (120, 3) and len(room.test["toy"]["svm"]) == (~study.train).sum()
    folds = room.by_fold("toy", "svm")
    assert 40 < room.validated("toy", "svm") < 100 and len(folds) == 3 and folds.min() <= room.validated("toy", "svm")
    before = room.probabilities("toy", "svm", room.test)
    assert np.allclose(before.sum(1), 1)
    labels = np.where(study.train, study.labels, (study.labels + 1) % 3)
    room.studies["toy"] = study._replace(labels=labels)
    assert np.array_equal(before, room.probabilities("toy", "svm", room.test))
    with pytest.raises(LabError, match="toy, broken: some scores are not finite"):
        room.try_line("toy", "broken", lambda fit, ask: np.full((len(ask), 3), np.nan))


def test_the_two_lines_of_the_cnn_are_trained_once(room, helper, start, monkeypatch):
    cfg = start("tiny").cfg
    images, labels = helper.make_things(32, 0, 32)
    study, trainings, train = room.Study(images, labels, None, None, None), [], room.train
    names = dict(studies={"toy": study}, sets={"toy": helper.Vehicles("toy", "embedded", list(range(16)), None, None)},
                 cnn_inputs={"toy": room.Pictures(images, 32)}, losses_of={})  # fmt: skip
    vars(room).update(names)
    monkeypatch.setattr(room, "train", lambda *given: trainings.append(given) or train(*given))
    lines, fit, ask = room.cnn_lines("toy", room.Recipe(2, cfg.lr, 8)), np.arange(24), np.arange(24, 32)
    last, averaged = (line(fit, ask) for line in lines.values())
    assert len(trainings) == 1 and last.shape == (8, 16) and not np.allclose(last, averaged)
    lines["CNN"](np.arange(8, 32), np.arange(8))
    assert len(trainings) == 2, "other pictures are another training"


def test_a_training_that_diverges_is_no_chance_result(room, start, helper):
    start("tiny")
    with pytest.raises(LabError, match=r"small: the loss is nan after \d epochs; a smaller lr may help"):
        small_training(room, helper, lr=1e30)


def test_the_head_learns_faster_where_the_recipe_says_so(room, start, helper):
    """With a rate of zero for the stages, only the head moves."""
    start("tiny")
    images, labels = helper.make_things(32, 0, 16)
    torch.manual_seed(0)
    model = room.Classifier(room.cnn_stages(8), 64, 16)
    before = {name: value.clone() for name, value in model.named_parameters()}
    recipe = room.Recipe(1, 1e-12, 8, head_lr=1e10)
    trained = room.train("head", model, room.Pictures(images, 16), labels, np.arange(32), recipe, 0)[0]
    for name, value in trained.named_parameters():
        assert torch.allclose(value, before[name], atol=1e-6) != name.startswith("head"), name


def test_frozen_stages_keep_their_statistics(room):
    model = room.Classifier(room.cnn_stages(8), 64, 3, pretrained=True).train()
    before = model.stages[1].first[1].running_mean.clone()
    model(torch.randn(4, 3, 32, 32))
    assert torch.equal(model.stages[1].first[1].running_mean, before) and model.head.dropout.training
    model = room.Classifier(room.cnn_stages(8), 64, 3).train()
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
