"""CA2_covid_cnn: what code.ipynb defines, held against scikit-learn, torchvision, OpenCV, or against a case by hand.

What a student writes is checked in the notebook itself (`nndl checks`, `nndl mutants`); here is the rest.
"""

import csv
import io
import lzma
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from nasty_files import PICTURES, STRAYS, by_name, put_strays, tables
from PIL import Image
from safetensors.torch import save
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from torch import nn
from torchmetrics.classification import BinaryCalibrationError

from nndl import rooms
from nndl.notebooks import load_definitions
from real_data import REAL, needs

ROOM = rooms.ROOT / "CA2_covid_cnn"
CLASSES = ["COVID19", "NORMAL", "PNEUMONIA"]


@pytest.fixture(scope="module")
def room():
    return load_definitions(ROOM / "code.ipynb")


@pytest.fixture(scope="module")
def films(room):
    """Synthetic films, unmarked: (Part, lungs, disease)."""
    return room.helper.make_films(48, 5, 64, room.percentile_stretch)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def start(room, begin_run):
    """start(profile, overrides) begins a run whose results stay out of the checkout; room.run and room.cfg are set."""
    return partial(begin_run, room)


# ---------------------------------------------------------------- preparing a film


def test_clahe_is_opencvs(room, films):
    film = films[0].images[0]
    assert np.array_equal(room.clahe(film), cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8)).apply(film))


# ---------------------------------------------------------------- audit


def test_outer_ring(room):
    grid = np.arange(64).reshape(1, 8, 8)
    ring = room.outer_ring(grid)
    inside = {8 * y + x for y in range(1, 7) for x in range(1, 7)}
    assert ring.shape == (1, 28) and set(ring[0]) == set(range(64)) - inside


def test_thumbnails_are_tile_means(room, films):
    images = films[0].images[:3]
    expected = images.reshape(3, 8, 8, 8, 8).mean((2, 4)) / 255
    assert np.abs(room.thumbnails(images) - expected).max() < 0.5 / 255 + 1e-9


# ---------------------------------------------------------------- metrics


def part_of(room, patients):
    return room.helper.Part(None, None, np.asarray(patients), None, None)


scored = st.lists(st.tuples(st.integers(0, 6), st.booleans(), st.integers(0, 3)), min_size=4, max_size=40).filter(
    lambda rows: len({positive for _, positive, weight in rows if weight}) == 2
)


def assert_metrics_are_scikit_learns(module, rows):
    scores, positive, weight = (np.array(column) for column in zip(*rows))
    scores, w = scores.astype(float), weight[None].astype(float)
    kept = weight > 0
    assert np.isclose(module.auc(scores, positive, w)[0], roc_auc_score(positive, scores, sample_weight=weight))
    expected = average_precision_score(positive[kept], scores[kept], sample_weight=weight[kept])
    assert np.isclose(module.average_precision(scores, positive, w)[0], expected)
    false_rate, true_rate, _ = roc_curve(
        positive[kept], scores[kept], sample_weight=weight[kept], drop_intermediate=False
    )
    for specificity in (0.5, 0.9, 0.95):
        expected = true_rate[false_rate <= 1 - specificity + 1e-9].max()
        assert np.isclose(module.sensitivity_at(scores, positive, w, specificity)[0], expected)


def test_ranking_metrics(room):
    @settings(max_examples=60, deadline=None)
    @given(scored)
    def holds(rows):
        assert_metrics_are_scikit_learns(room, rows)

    holds()


def test_intervals_are_wider_over_patients_than_over_films(room):
    """Each patient five times with the same score: the films pretend to be five times as many."""
    rng = np.random.default_rng(0)
    positive = np.repeat(rng.random(60) < 0.5, 5)
    scores = np.repeat(rng.standard_normal(60), 5) + positive
    widths = []
    for patients in (np.repeat(np.arange(60), 5), np.arange(300)):
        w = room.patient_weights(part_of(room, patients), positive, 1000)
        widths.append(room.auc(scores, positive, w)[1:].std())
    assert 1.8 < widths[0] / widths[1] < 2.7  # the root of 5 is 2.24


def test_interval_covers_its_value(room):
    entry = room.interval(np.array([0.5, *np.linspace(0.6, 0.8, 100)]), 7)
    assert entry["low"] <= entry["value"] == 50 <= entry["high"] and entry["n"] == 7


# ---------------------------------------------------------------- probabilities and thresholds


def test_calibration_error_is_torchmetrics(room):
    rng = np.random.default_rng(6)
    probability = rng.random(500)
    positive = rng.random(500) < probability**2
    ours = room.calibration_error(probability, positive, np.ones((1, 500)))[0]
    theirs = BinaryCalibrationError(n_bins=10, norm="l1")(
        torch.from_numpy(probability), torch.from_numpy(positive).int()
    )
    # torchmetrics takes confidence in the answer "positive" likewise
    assert abs(ours - theirs.item()) < 1e-6


# ---------------------------------------------------------------- networks


def test_every_parameter_gets_a_gradient(room):
    model = room.CovidCNN(4, 3)
    nn.init.normal_(model.head.weight)
    model(torch.rand(4, 1, 48, 48)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_mobilenet_is_padded_like_tensorflow(room):
    net = room.pad_like_tensorflow(torchvision.models.mobilenet_v2())
    assert sum(isinstance(m, nn.ZeroPad2d) for m in net.modules()) == 5  # the stem, and four of the blocks


def stored(state, dtype=torch.int8):
    """A state dict as the 8-bit files hold it."""
    raw = {}
    for name, tensor in state.items():
        if tensor.ndim == 4:
            scale = (tensor.abs().amax((1, 2, 3)) / 127).clamp_min(1e-8)
            raw[f"{name}.q8"] = (tensor / scale.view(-1, 1, 1, 1)).round().to(dtype)
            raw[f"{name}.scale"] = scale.half()
        else:
            raw[name] = tensor
    return raw


@pytest.mark.parametrize("packed", [False, True], ids=["safetensors", "xz"])
def test_stored_weights_come_back(room, tmp_path, packed):
    net = torchvision.models.squeezenet1_1(num_classes=7)
    raw = stored(net.state_dict())
    file = tmp_path / ("net.safetensors.xz" if packed else "net.safetensors")
    file.write_bytes(lzma.compress(save(raw)) if packed else save(raw))
    state = room.files.load_weights(file)
    for name, tensor in net.state_dict().items():
        assert (state[name] - tensor).abs().max() <= 0.02 * tensor.abs().max() + 1e-6, name


BAD_WEIGHTS = {
    "wrong shape": lambda state: state.update({"features.0.bias": torch.zeros(3)}),
    "missing": lambda state: state.pop("features.0.bias"),
    "extra": lambda state: state.update({"features.99.bias": torch.zeros(3)}),
}


@pytest.mark.parametrize("kind", BAD_WEIGHTS)
def test_weights_that_do_not_fit_are_named(room, kind):
    net = room.VGG16()
    state, before = dict(net.state_dict()), [p.clone() for p in net.parameters()]
    BAD_WEIGHTS[kind](state)
    with pytest.raises(room.helper.DataError, match=r"some\.safetensors: features\.(0|99)\.bias does not fit") as error:
        room.files.fit_weights(net, state, "some.safetensors")
    assert "\n" not in str(error.value)
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters())), "nothing may be half loaded"


def test_weights_are_fetched_once(room, tmp_path, monkeypatch):
    """Without NNDL_DOWNLOAD a network keeps random weights; with it torchvision's are brought, whole or not at all."""
    state, folder = room.VGG16().state_dict(), tmp_path / "data" / "weights"
    run, asked = SimpleNamespace(download=False), []

    class Weights:
        def get_state_dict(self, progress, check_hash, model_dir):
            asked.append(model_dir)
            (model_dir / "half").write_bytes(b"x")
            if len(asked) == 1:
                raise OSError("no route\nto host")
            return state | {"classifier.0.bias": torch.ones(2)}

    monkeypatch.setattr(room, "run", run, raising=False)
    monkeypatch.setattr(room, "with_random_weights", lambda net: net)
    monkeypatch.setattr(torchvision.models, "get_model_weights", lambda name: SimpleNamespace(DEFAULT=Weights()))
    room.build.cache_clear()
    assert room.build("VGG16", folder)[1] == "random weights" and not asked
    room.build.cache_clear()
    run.download = True
    with pytest.raises(
        room.helper.DataError, match=r"VGG16_torchvision\.safetensors: the download failed .no route to"
    ):
        room.build("VGG16", folder)
    assert not list(tmp_path.iterdir())
    for run.download in (True, False):
        room.build.cache_clear()
        net, origin = room.build("VGG16", folder)
        assert origin == "ImageNet weights" and all(torch.equal(net.state_dict()[name], state[name]) for name in state)
    room.build.cache_clear()
    assert len(asked) == 2 and [path.name for path in folder.iterdir()] == ["VGG16_torchvision.safetensors"]


def test_vgg16_is_torchvisions(room):
    theirs = torchvision.models.vgg16(weights=None).features.eval()
    ours = room.VGG16()
    ours.load_state_dict({f"features.{k}": v for k, v in theirs.state_dict().items()})
    x = torch.randn(1, 3, 64, 64)
    lower, upper = room.cut(ours, "VGG16")
    assert torch.equal(upper(lower(x)), theirs(x))
    assert [type(m).__name__ for m in upper] == ["Conv2d", "ReLU"] * 3 + ["MaxPool2d"]  # block 5


def test_random_weights_do_not_saturate(room, films, monkeypatch):
    monkeypatch.setattr(room, "planted", {"off": type("Films", (), {"train": films[0]})}, raising=False)
    net = room.with_random_weights(torchvision.models.mobilenet_v2())
    x = torch.from_numpy(films[0].images[16:32])[:, None].float().expand(-1, 3, -1, -1) / 127.5 - 1
    with torch.no_grad():
        features = net.features(x).mean((2, 3))
    assert not net.training and features.std(0).mean() > 1e-3, "all films look the same to it"


# ---------------------------------------------------------------- losses and training


def test_training_keeps_the_best_epoch_and_stops(room, start, films):
    start("tiny")
    part = films[0]
    features = torch.randn(48, 4) + 2.0 * torch.from_numpy(part.labels == 0)[:, None]
    recipe = room.Recipe(30, 1e-2, batch_size=16, patience=3)
    model, history = room.train("t", room.Head(features, 1), (features, part.labels), (features, part.labels), recipe)
    aucs = [row["auc"] for row in history]
    score = room.predict(model, features)[:, 0]
    assert len(history) == int(np.argmax(aucs)) + 4 < 30, "did not stop three epochs after the best"
    assert np.isclose(roc_auc_score(part.labels == 0, score), max(aucs)), "not the weights of the best epoch"


def test_training_goes_on_where_it_was(room, start, films, monkeypatch):
    part = films[0]
    recipe = room.Recipe(4, 1e-3, batch_size=12, augment=True, size=32)
    sets = (part.images, part.labels), (part.images, part.labels)

    def run_all():
        torch.manual_seed(3)
        return room.train("cnn", room.CovidCNN(2, 1), *sets, recipe, seed=3)

    start("tiny", "seed=1")
    whole, expected = run_all()
    shutil.rmtree(room.run.folder / "state")
    start("tiny", "seed=1")
    calls, epoch = [], room.train_epoch

    def dies(*args):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(1)
        return epoch(*args)

    monkeypatch.setattr(room, "train_epoch", dies)
    with pytest.raises(KeyboardInterrupt):
        run_all()
    monkeypatch.setattr(room, "train_epoch", epoch)
    start("tiny", "seed=1")
    again, history = run_all()
    assert [row["loss"] for row in history] == [row["loss"] for row in expected]
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), again.state_dict().values()))


# ---------------------------------------------------------------- Grad-CAM


def test_box_share(room):
    maps = np.zeros((2, 10, 10))
    maps[0, 5, 5], maps[1, 0, 0] = 2.0, 1.0
    assert room.box_share(maps, (0.2, 0.8, 0.2, 0.8)).tolist() == [1.0, 0.0]
    assert np.isclose(room.box_share(np.ones((1, 10, 10)), (0.2, 0.8, 0.2, 0.8)), 0.36)


# ---------------------------------------------------------------- controls and remedies


def test_the_box_holds_the_lungs(room, films):
    _, lungs, disease = films
    top, bottom, left, right = (round(64 * edge) for edge in room.LUNGS)
    for mask in (lungs, disease):
        share = mask[:, top:bottom, left:right].sum() / mask.sum()
        assert share > 0.97, f"{share:.3f} of the lungs lie in the box"


def test_controls_keep_what_is_outside(room, films):
    images = films[0].images[:4]
    outside = images.copy()
    outside[:, :3] = outside[:, -3:] = 0
    for name, view in room.CONTROLS.items():
        assert not np.array_equal(view(outside), view(images)), name
        assert view(images).shape == images.shape and view(images).dtype == np.uint8


def test_equalised_and_blurred_are_opencvs(room, films):
    images = films[0].images[:2]
    assert np.array_equal(room.equalised(images)[1], cv2.equalizeHist(images[1]))
    assert np.array_equal(room.blurred(images)[0], cv2.GaussianBlur(images[0], (0, 0), 0.02 * 64))


def test_local_contrast_forgets_exposure(room, films):
    images = films[0].images[:3]
    darker = np.uint8(0.5 * images + 20)
    before = np.abs(images.astype(int) - darker).mean()
    after = np.abs(room.local_contrast(images).astype(int) - room.local_contrast(darker)).mean()
    assert after < 0.5 * before
    assert np.abs(room.fine_detail(np.full((1, 32, 32), 90, dtype=np.uint8)).astype(int) - 128).max() == 0


def test_normal_against_pneumonia(room):
    embedded = room.helper.load_embedded(36, 18, 32, room.percentile_stretch, False)
    apart = room.one_hospital(embedded)
    for name, part in apart.parts().items():
        whole = getattr(embedded, name)
        assert len(part.labels) == (whole.labels != 0).sum()
        assert (part.labels == 0).sum() == (whole.labels == 2).sum()


# ---------------------------------------------------------------- embedded films


def test_embedded_films_are_what_they_say(room, films):
    part, lungs, disease = films
    amount = disease.sum((1, 2))
    assert np.bincount(part.labels).tolist() == [16] * 3
    assert (amount[part.labels == 1] == 0).all() and (amount[part.labels != 1] > 0).all()
    assert (disease & ~lungs).sum() < 0.02 * disease.sum(), "disease outside the lungs"
    sides = np.stack([disease[:, :, :32].sum((1, 2)), disease[:, :, 32:].sum((1, 2))], 1)
    assert ((sides[part.labels == 0] > 0).all(1)).all(), "COVID-19 must be on both sides"
    assert ((sides[part.labels == 2] == 0).any(1)).mean() > 0.7, "pneumonia must be on one side"
    again = room.helper.make_films(48, 5, 64, room.percentile_stretch)[0]
    assert np.array_equal(again.images, part.images)


def test_marker_is_where_it_should_be(room):
    for marked, expected in (((1, 0, 0), [True, False, False]), ((0, 0, 0), [False] * 3), ((1, 1, 1), [True] * 3)):
        part = room.helper.make_films(30, 7, 64, room.percentile_stretch, marked)[0]
        corner = part.images[:, 2:8, 2:8].mean((1, 2)) > 200
        for label in range(3):
            assert (corner[part.labels == label] == expected[label]).all()


def test_embedded_split_is_by_patient(room):
    data = room.helper.load_embedded(90, 30, 32, room.percentile_stretch, True)
    groups = [set(part.patients) for part in data.parts().values()]
    assert sum(map(len, groups)) == len(set().union(*groups))
    assert len(set(data.train.patients)) < len(data.train.labels), "some patients have several films"
    assert not (data.check.labels == 0).any()


# ---------------------------------------------------------------- real layout, and bad input


def png(pixels, kind="png", **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def make_folder(folder, each=12, manifest=True, ending="png"):
    """A small set in the published layout, with patients of two films, and adult_check/."""
    rng, rows = np.random.default_rng(0), []
    for part in ("Data/train", "Data/test", "adult_check"):
        for name in CLASSES[1:] if part == "adult_check" else CLASSES:
            place = folder / part / name
            place.mkdir(parents=True)
            for i in range(each):
                pixels = rng.integers(0, 256, (20, 24), dtype=np.uint8)
                (place / f"{name}({i}).{ending}").write_bytes(png(pixels, "JPEG" if ending == "jpg" else "PNG"))
                rows.append((f"{part}/{name}/{name}({i}).{ending}", f"{part}_{name}_{i // 2}", f"source of {name}"))
    if manifest:
        with open(folder / "manifest.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("file", "patient", "source_repo"), *rows])
    return folder


def small(film):
    """A stand-in for `prepare`."""
    return cv2.resize(np.uint8(255 * film), (16, 16))


@pytest.mark.parametrize("manifest", [True, False], ids=["manifest", "no manifest"])
@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_layout(room, tmp_path, manifest, ending):
    data = room.helper.load_films(make_folder(tmp_path, 12, manifest, ending), small)
    assert data.source == "real" and sum(data.counts().values()) == 12 * 8
    assert np.bincount(data.test.labels).tolist() == [12] * 3 and np.bincount(data.check.labels).tolist() == [0, 12, 12]
    assert data.train.images.shape[1:] == (16, 16) and np.allclose(data.train.aspect, 24 / 20)
    assert not set(data.train.patients) & set(data.val.patients)
    assert set(data.test.sources) == ({f"source of {name}" for name in CLASSES} if manifest else {"unknown"})
    assert len(set(data.test.patients)) == (18 if manifest else 36)
    assert ("file names" in data.note) != manifest


def test_limit_keeps_every_class(room, tmp_path):
    data = room.helper.load_films(make_folder(tmp_path, 14), small, limit=36)
    assert len(data.train.labels) + len(data.val.labels) == 36 and np.bincount(data.test.labels).tolist() == [12] * 3


def test_patients_in_names(room):
    patient_of = room.helper.patient_of
    assert patient_of(Path("train/PNEUMONIA/person12_bacteria_46.jpeg")) == "person12"
    assert patient_of(Path("test/PNEUMONIA/Person12_virus_3.jpeg")) == "person12"
    assert patient_of(Path("train/COVID19/patient-7 (2).png")) == "patient7"
    names = ("train/NORMAL/NORMAL(3).jpg", "train/NORMAL/NORMAL(4).jpg", "test/NORMAL/NORMAL(3).jpg")
    assert len({patient_of(Path(name)) for name in names}) == 3, "the published names start anew in each part"


GREY = np.random.default_rng(1).integers(0, 256, (30, 40), dtype=np.uint8)
KINDS = {
    "grey": (png(GREY), GREY / 255),
    "RGB": (png(np.stack([GREY] * 3, -1)), GREY / 255),
    "RGBA, opaque": (png(np.stack([GREY] * 3 + [np.full_like(GREY, 255)], -1)), GREY / 255),
    "RGBA, transparent": (png(np.stack([GREY] * 3 + [np.zeros_like(GREY)], -1)), 0 * GREY),
    "16 bits": (png(GREY.astype(np.uint16) * 257), GREY / 255),
    "16-bit TIFF": (png(GREY.astype(np.uint16) * 257, "TIFF"), GREY / 255),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_pictures(room, kind):
    data, expected = KINDS[kind]
    film = room.files.decode_grey(data, "here")
    assert film.dtype == np.float32 and film.shape == GREY.shape
    assert np.abs(film - expected).max() < 0.005


def test_sixteen_bits_are_kept(room):
    dark = np.arange(1200, dtype=np.uint16).reshape(30, 40)  # all black in 8 bits
    assert len(np.unique(room.files.decode_grey(png(dark), "here"))) == 1200


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_truncated_films_are_named(room, kind):
    data = png(GREY, kind)
    for end in range(0, int(0.8 * len(data)), 40):
        with pytest.raises(room.helper.DataError, match=r"here: not a readable picture"):
            room.files.decode_grey(data[:end], "here")


def rewrite_manifest(change):
    def spoil(folder):
        with open(folder / "manifest.csv", newline="", encoding="utf-8") as file:
            rows = change(list(csv.reader(file)))
        with open(folder / "manifest.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)

    return spoil


def same_patient(rows):
    """The first training and the first test film get one patient."""
    for part in ("Data/train", "Data/test"):
        next(row for row in rows if row[0].startswith(part))[1] = "p7"
    return rows


def films_of(folder, part="train", name="NORMAL"):
    return sorted((folder / "Data" / part / name).iterdir())


BAD_FOLDERS = {
    "no folder": (lambda folder: shutil.rmtree(folder / "Data"), r"Data/train: no such folder"),
    "no class in train": (lambda f: shutil.rmtree(f / "Data/train/COVID19"), r"train: class COVID19 is missing"),
    "no class in test": (lambda f: shutil.rmtree(f / "Data/test/PNEUMONIA"), r"test: class PNEUMONIA is missing"),
    "class only in test": (lambda f: (f / "Data/test/TB").mkdir(), r"test: unknown class TB"),
    "empty class": (lambda f: [p.unlink() for p in films_of(f)], r"train/NORMAL: no picture"),
    "text": (
        lambda f: films_of(f)[1].write_text("no picture", encoding="utf-8"),
        r"train/NORMAL/.*\.png: not a readable picture",
    ),
    "truncated": (
        lambda f: films_of(f, "test")[2].write_bytes(films_of(f, "test")[2].read_bytes()[:150]),
        r"test/NORMAL/.*\.png: not a readable picture",
    ),
    "patient in two splits": (rewrite_manifest(same_patient), r"patient p7 has films in both train and test"),
    "film not in the manifest": (rewrite_manifest(lambda rows: rows[:-1]), r"png: manifest\.csv does not list it"),
    "manifest without patients": (
        rewrite_manifest(lambda rows: [[row[0], row[2]] for row in rows]),
        r"manifest\.csv: no column patient",
    ),
    "empty manifest": (lambda f: (f / "manifest.csv").write_bytes(b""), r"manifest\.csv: not a CSV .*empty"),
    "film listed twice": (
        rewrite_manifest(lambda rows: [*rows, rows[1]]),
        r"manifest\.csv, line \d+: .* is listed twice",
    ),
    "no patient": (
        rewrite_manifest(lambda rows: [rows[0], [rows[1][0], " ", rows[1][2]], *rows[2:]]),
        r"manifest\.csv, line 2: no patient",
    ),
    "two spellings of a patient": (
        rewrite_manifest(lambda rows: [rows[0], [rows[1][0], rows[3][1].upper(), rows[1][2]], *rows[2:]]),
        r"manifest\.csv, line \d: patients .* differ in case alone",
    ),
    "patient in two splits, with a blank": (
        rewrite_manifest(lambda rows: [[row[0], row[1].replace("p7", "p7 "), row[2]] for row in same_patient(rows)]),
        r"patient p7 has films in both train and test",
    ),
    "few patients": (lambda f: None, r"train.COVID19: films of 3 patients; 5 are needed"),
    "unknown class in adult_check": (lambda f: (f / "adult_check" / "TB").mkdir(), r"adult_check: unknown class TB"),
    "folder in a class": (
        lambda f: by_name(f, ["Data/train/NORMAL/masks/a.png"]),
        r"train.NORMAL.masks: a folder of pictures",
    ),
    "film outside the classes": (lambda f: by_name(f, ["Data/test/a.png"]), r"test.a\.png: a picture outside"),
}


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", BAD_FOLDERS)
def test_bad_folder_is_named(room, tmp_path, kind):
    spoil, words = BAD_FOLDERS[kind]
    spoil(make_folder(tmp_path, 6 if kind == "few patients" else 10))
    before = contents(tmp_path)
    with pytest.raises(room.helper.DataError, match=words) as error:
        room.helper.load_films(tmp_path, small)
    assert "\n" not in str(error.value) and contents(tmp_path) == before


@pytest.mark.parametrize("nasty", PICTURES, ids=str)
def test_nasty_pictures(room, tmp_path, nasty):
    nasty.write(make_folder(tmp_path, 6, manifest=False) / "Data" / "test" / "NORMAL")
    data = nasty.meets(lambda: room.helper.load_films(tmp_path, small))
    if data:
        normal = data.test.images[data.test.labels == 1].astype(float)
        off = np.abs(normal - small(nasty.light.astype(np.float32))).mean((1, 2))
        assert len(normal) == 7 and off.min() < 5


def rows_of_manifest(folder):
    with open(folder / "manifest.csv", newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize("k", range(len(tables(["a", "b"], [[1, 2]]))))
def test_nasty_manifests(room, tmp_path, k):
    header, *rows = rows_of_manifest(make_folder(tmp_path, 10))
    nasty = tables(header, rows, "manifest.csv")[k]
    nasty.write(tmp_path)
    data = nasty.meets(lambda: room.helper.load_films(tmp_path, small))
    if data:
        assert len(set(data.test.patients)) == 15 and set(data.test.sources) == {f"source of {c}" for c in CLASSES}


def test_strays_are_left_out_and_named(room, tmp_path):
    clean = room.helper.load_films(make_folder(tmp_path, 10), small)
    for place in ("Data", "Data/train", "Data/test/NORMAL", "adult_check/NORMAL"):
        put_strays(tmp_path / place)
    by_name(tmp_path, ["Data/val/NORMAL/a.png"])
    data = room.helper.load_films(tmp_path, small)
    assert all(map(np.array_equal, data.arrays(), clean.arrays()))
    assert clean.note == "patients from manifest.csv" and f"{4 * len(STRAYS) + 1} files not read" in data.note


def test_limit_with_too_few_patients_is_named(room, tmp_path):
    with pytest.raises(room.helper.DataError, match="films of 4 patients among those that limit=24 takes"):
        room.helper.load_films(make_folder(tmp_path, 14), small, limit=24)


def test_patient_in_two_splits_without_manifest(room, tmp_path):
    make_folder(tmp_path, 6, manifest=False)
    for part in ("train", "test"):
        films_of(tmp_path, part, "PNEUMONIA")[0].rename(tmp_path / f"Data/{part}/PNEUMONIA/person3_virus_{part}.png")
    with pytest.raises(room.helper.DataError, match="patient person3 has films in both"):
        room.helper.load_films(tmp_path, small)


# ---------------------------------------------------------------- the real files


@needs("covid-cxr")
def test_real_films(room, start):
    start("tiny")
    data = room.helper.load_films(REAL / "covid-cxr", partial(room.prepare, size=64), limit=45)
    assert data.source == "real" and data.counts()["test"] == 45 and np.bincount(data.check.labels)[0] == 0
    groups = [set(part.patients) for part in data.parts().values()]
    assert sum(map(len, groups)) == len(set().union(*groups))
    for part in data.parts().values():
        assert part.images.dtype == np.uint8 and 60 < part.images.mean() < 190


@needs("covid-cxr")
def test_real_folder_is_split_by_patient(room):
    """Without decoding: the loader's listing of all films."""
    folder, manifest = REAL / "covid-cxr", room.helper._manifest(REAL / "covid-cxr")
    rows = {p: room.helper._list_part(folder, folder / "Data" / p, CLASSES, manifest)[0] for p in ("train", "test")}
    assert {p: len(r) for p, r in rows.items()} == {"train": 1365, "test": 360}
    assert not {r[2] for r in rows["train"]} & {r[2] for r in rows["test"]}


@needs("weights")
@needs("imagenet-val")
@pytest.mark.parametrize("name", ["MobileNetV2", "ResNet-50"])
@torch.no_grad()
def test_real_weights_recognise_pictures(room, start, name):
    start("tiny")
    room.build.cache_clear()
    net, origin = room.build(name, REAL / "weights")
    room.build.cache_clear()
    pictures, truth = room.helper.load_imagenet_val(REAL / "imagenet-val")
    mean, std = (torch.tensor(part).view(3, 1, 1) for part in room.PRETRAINED[name].mean_std)
    x = torch.from_numpy(pictures[:24]).permute(0, 3, 1, 2) / 255
    right = net((x - mean) / std).argmax(1).numpy() == truth[:24]
    assert "ImageNet" in origin and right.mean() > 0.5


# ---------------------------------------------------------------- the whole room


@pytest.mark.parametrize(
    "overrides, words",
    [
        ("epochs=0", "epochs=0: at least 1"),
        ("size=16", "size=16: at least 32"),
        ("seeds=()", r"seeds=\(\): at least one seed"),
        ("control_seeds=(1,1)", r"control_seeds=\(1, 1\): .* none twice"),
        ("limit=9", "limit=9: 30 films at least"),
        ("limit=-5", "limit=-5: at least 0"),
        ("batch_size=1", "batch_size=1: at least 2"),
        ("tune_lr=-1.0", "tune_lr=-1.0: it must be above 0"),
        ("imagenet=-1", "imagenet=-1: at least 0"),
        ("films=(450,)", r"films=\(450,\): at least 36"),
        ("films=(10,300)", r"films=\(10, 300\): at least 36"),
    ],
)
def test_bad_settings_are_named(room, start, overrides, words):
    run = start("demo", overrides)
    with pytest.raises(room.lab.LabError, match=words):
        room.helper.check_settings(run.cfg)


def test_good_settings_pass(room, start):
    for profile in ("tiny", "demo", "full"):
        room.helper.check_settings(start(profile).cfg)


def test_settings_that_do_not_fit_the_films_are_named(room, start):
    data = room.helper.load_embedded(60, 40, 32, partial(cv2.resize, dsize=(32, 32)), shortcut=True)
    every, apart = len(data.train.labels), int((data.train.labels != 0).sum())
    room.helper.check_fit(start("demo", f"batch_size={apart}").cfg, data)
    room.helper.check_fit(start("demo", f"batch_size={every}").cfg, data, apart=False)
    with pytest.raises(room.lab.LabError, match=f"batch_size={apart + 1}: one training has only {apart} films"):
        room.helper.check_fit(start("demo", f"batch_size={apart + 1}").cfg, data)
    with pytest.raises(room.lab.LabError, match=f"batch_size={every + 1}: one training has only {every} films"):
        room.helper.check_fit(start("demo", f"batch_size={every + 1}").cfg, data, apart=False)
    data.val = data.val.take(data.val.labels != 2)
    with pytest.raises(room.helper.DataError, match="the validation part has no film of class PNEUMONIA"):
        room.helper.check_fit(start("demo").cfg, data)
