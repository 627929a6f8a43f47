"""CA6_cyclegan_uda: the pairs of domains, drawn over photographs or read; ways, views, choices, resume."""

import hashlib
import math
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from drafts import definitions
from nasty_files import PICTURES, STRAYS, put_strays
from PIL import Image
from test_mnist import write_mnist
from torchmetrics.image.inception import InceptionScore

from nndl.files import DataError
from nndl.records import LabError
from real_data import REAL, needs


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    return definitions("CA6_cyclegan_uda", tmp_path_factory)


@pytest.fixture(scope="module")
def helper(room):
    return room.helper


def checksum(arrays):
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()[:16]


# ---------------------------------------------------------------- blending


def test_blending_is_the_absolute_difference(helper):
    photo = np.full((8, 8, 3), (10, 100, 250), np.uint8)
    digits = np.zeros((1, 8, 8), np.uint8)
    digits[0, 2, 3] = 255
    digits[0, 4, 4] = 60
    found = helper.blend(digits, [photo], 0)[0]
    assert found[2, 3].tolist() == [245, 155, 5] and found[4, 4].tolist() == [50, 40, 190]
    found[2, 3] = found[4, 4] = photo[0, 0]
    assert np.array_equal(found, photo)


def test_crops_come_from_all_of_all_photographs(helper):
    photos = [np.zeros((9, 12, 3), np.uint8) + 100 * k for k in range(2)]
    for photo in photos:
        photo[..., 0] += np.arange(9, dtype=np.uint8)[:, None]
        photo[..., 1] += np.arange(12, dtype=np.uint8)
    found = helper.blend(np.zeros((400, 8, 8), np.uint8), photos, 0)
    corners = {tuple(picture[0, 0]) for picture in found}
    assert corners == {(100 * k + y, 100 * k + x, 100 * k) for k in range(2) for y in range(2) for x in range(5)}
    assert np.array_equal(found, helper.blend(np.zeros((400, 8, 8), np.uint8), photos, 0))
    assert not np.array_equal(found, helper.blend(np.zeros((400, 8, 8), np.uint8), photos, 1))


# ---------------------------------------------------------------- embedded


def test_the_embedded_pair(helper):
    pair = helper.load_embedded()
    helper.check_pair(pair)
    assert pair.counts() == {"labelled": 600, "held": 180, "unlabelled": 600, "source_test": 417, "target_test": 417}
    assert pair.labelled.images.shape == (600, 16, 16, 3) and np.ptp(pair.labelled.images, axis=3).max() == 0
    assert np.ptp(pair.unlabelled, axis=3).max() > 100, "the target is in colour"
    assert np.array_equal(pair.source_test.labels, pair.target_test.labels)
    assert checksum(pair.arrays()) == checksum(helper.load_embedded().arrays())
    assert checksum(pair.arrays()) != checksum(helper.load_embedded(seed=1).arrays())


def test_no_digit_and_no_background_is_in_two_parts(helper):
    """Digits are told by their pixels, since scikit-learn's are all different; backgrounds by where crops come from."""
    pair, digits = helper.load_embedded(), set()
    for part in (pair.labelled, pair.held, pair.source_test):
        own = {picture.tobytes() for picture in part.images}
        assert len(own) == len(part.images) and not own & digits
        digits |= own
    assert len(digits) == 600 + 180 + 417 < 1797 - 599
    counts = np.bincount(
        np.concatenate([pair.labelled.labels, pair.held.labels, pair.answers, pair.source_test.labels])
    )
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180], "each digit once"


def test_test_crops_are_of_other_places(helper, monkeypatch):
    seen = []
    monkeypatch.setattr(helper, "blend", lambda digits, photos, seed: seen.append((len(digits), photos)) or
                        np.zeros((*digits.shape, 3), np.uint8))  # fmt: skip
    helper.load_embedded()
    (_, train), (_, test) = seen
    whole = [np.concatenate(pair, axis=1) for pair in zip(train, test)]
    assert [photo.shape for photo in whole] == [(214, 320, 3)] * 2 and len(seen) == 2
    assert min(photo.shape[1] for photo in test) > 100 and seen[0][0] == 600


def test_the_other_way(helper):
    pair = helper.load_embedded()
    back = helper.swapped(pair)
    helper.check_pair(back)
    assert len(back.labelled.labels) + len(back.held.labels) == len(pair.unlabelled)
    assert np.array_equal(np.concatenate([back.held.images, back.labelled.images]), pair.unlabelled)
    assert np.array_equal(np.concatenate([back.held.labels, back.labelled.labels]), pair.answers)
    assert np.array_equal(back.unlabelled, pair.labelled.images) and np.array_equal(back.answers, pair.labelled.labels)
    assert back.target_test is pair.source_test and back.source_test is pair.target_test


# ---------------------------------------------------------------- real files


def write_photos(folder, n=3, size=(40, 30)):
    rng = np.random.default_rng(1)
    for part in ("train", "test"):
        (folder / "images" / part).mkdir(parents=True)
        for k in range(n):
            picture = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
            Image.fromarray(picture).save(folder / "images" / part / f"{k}.png")


@pytest.fixture
def real(tmp_path):
    write_mnist(tmp_path / "mnist", n=100)
    write_photos(tmp_path / "bsds500")
    return tmp_path


def test_digits_are_apart_and_photographs_too(helper, real):
    pair = helper.load_mnist_pair(real / "mnist", real / "bsds500")
    helper.check_pair(pair)
    assert pair.counts() == {"labelled": 45, "held": 5, "unlabelled": 50, "source_test": 100, "target_test": 100}
    images, labels = helper.mnist.load_mnist(real / "mnist", "train")
    assert np.array_equal(pair.labelled.images[..., 1], images[:45]) and np.array_equal(pair.answers, labels[50:])
    train, test = (helper.load_photos(real / "bsds500" / "images" / part, 28)[0] for part in ("train", "test"))
    assert np.array_equal(pair.unlabelled, helper.blend(images[50:], train, 0))
    assert np.array_equal(
        pair.target_test.images, helper.blend(helper.mnist.load_mnist(real / "mnist", "test")[0], test, 1)
    )
    few = helper.load_mnist_pair(real / "mnist", real / "bsds500", limit=20)
    chosen, labels = helper.first_of_each(images[50:], labels[50:], 2)
    assert np.array_equal(few.unlabelled, helper.blend(chosen, train, 0)) and np.bincount(few.answers).max() == 2


def test_the_first_of_each_digit(helper):
    images, labels = np.arange(7)[:, None], np.array([3, 1, 3, 3, 1, 0, 3])
    found, of = helper.first_of_each(images, labels, 2)
    assert found[:, 0].tolist() == [0, 1, 2, 4, 5] and of.tolist() == [3, 1, 3, 1, 0]


def test_digits_that_are_in_two_parts_are_refused(helper, real):
    raw = real / "mnist" / "MNIST" / "raw"
    for path in raw.glob("train-*"):
        path.with_name(path.name.replace("train", "t10k")).write_bytes(path.read_bytes())
    with pytest.raises(DataError, match="digits of target_test stand in labelled too"):
        helper.load_mnist_pair(real / "mnist", real / "bsds500")


def test_dark_digits_on_bright_ground_are_refused(helper, tmp_path):
    bright = np.full((30, 8, 8), 250, np.uint8)
    with pytest.raises(DataError, match="mnist: digits are dark on bright ground"):
        helper.refuse_shared_digits({"labelled": (bright, None), "unlabelled": (bright, None)}, "mnist")


def test_a_photograph_on_both_sides_is_refused(helper, real):
    photos = real / "bsds500" / "images"
    (photos / "test" / "again.png").write_bytes((photos / "train" / "1.png").read_bytes())
    with pytest.raises(
        DataError, match="bsds500: 1 photographs stand in images/train and images/test; keep one of each"
    ):
        helper.load_mnist_pair(real / "mnist", real / "bsds500")


@pytest.mark.parametrize("nasty", PICTURES, ids=str)
def test_nasty_photographs(helper, tmp_path, nasty):
    write_photos(tmp_path)
    nasty.write(tmp_path / "images" / "train")
    found = nasty.meets(lambda: helper.load_photos(tmp_path / "images" / "train", 28))
    if found:
        photos = [photo for photo in found[0] if photo.shape[:2] == nasty.light.shape]
        assert len(found[0]) == 4 and min(np.abs(p / 255 - nasty.light[..., None]).mean() for p in photos) < 0.02


def test_photographs_that_are_missing_or_small(helper, tmp_path):
    with pytest.raises(DataError, match="no such folder; the photographs of BSDS500"):
        helper.load_photos(tmp_path / "images", 28)
    write_photos(tmp_path, size=(40, 27))
    with pytest.raises(DataError, match=r"0.png: 27 x 40 pixels; a crop needs 28 x 28"):
        helper.load_photos(tmp_path / "images" / "train", 28)
    (tmp_path / "empty").mkdir()
    put_strays(tmp_path / "empty")
    with pytest.raises(DataError, match="empty: no photograph"):
        helper.load_photos(tmp_path / "empty", 28)


def test_strays_beside_photographs_are_named(helper, real):
    put_strays(real / "bsds500" / "images" / "test")
    assert f"{len(STRAYS)} files not read" in helper.load_mnist_pair(real / "mnist", real / "bsds500").note


@needs("mnist")
@needs("bsds500")
def test_mnist_m_is_the_same_bit_for_bit(helper):
    """The checksum holds for these photographs (half size, quality 85) as this Pillow decodes them."""
    pair = helper.load_mnist_pair(REAL / "mnist", REAL / "bsds500")
    assert pair.note.endswith("with 200 and 200 photographs of 39 kilopixels")
    assert checksum([pair.unlabelled[:500], pair.target_test.images[:500]]) == "d30a4edec52d5d8b"


# ---------------------------------------------------------------- pairs that do not fit


def shifted(part, by):
    return part._replace(labels=part.labels + by)


SPOILT = {
    "empty": (lambda p: dict(unlabelled=p.unlabelled[:0], answers=p.answers[:0]), "unlabelled has no picture"),
    "size": (
        lambda p: dict(unlabelled=p.unlabelled[:, :8, :8]),
        r"unlabelled are \(8, 8, 3\), .* \(16, 16, 3\); bring",
    ),
    "channels": (lambda p: dict(unlabelled=p.unlabelled[..., :1]), r"pictures of unlabelled are \(16, 16, 1\)"),
    "floats": (lambda p: dict(unlabelled=p.unlabelled / 255), "unlabelled is float64"),
    "no channels": (lambda p: dict(unlabelled=p.unlabelled[..., 0]), r"unlabelled is uint8 \(600, 16, 16\)"),
    "labels too few": (lambda p: dict(answers=p.answers[1:]), r"\(599,\) labels for 600 pictures of unlabelled"),
    "label outside": (lambda p: dict(held=shifted(p.held, 1)), "held has a label outside 0 to 9"),
    "negative": (lambda p: dict(held=shifted(p.held, -1)), "held has a label outside 0 to 9"),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_pairs_that_do_not_fit(helper, kind):
    make, words = SPOILT[kind]
    pair = helper.load_embedded()
    with pytest.raises(DataError, match=words):
        helper.check_pair(replace(pair, **make(pair)))


@pytest.mark.parametrize("part", ["labelled", "target_test"])
def test_a_missing_class_is_named(helper, part):
    pair = helper.load_embedded()
    images, labels = getattr(pair, part)
    keep = labels != 4
    with pytest.raises(DataError, match=f"digits: {part} has no picture of class 4"):
        helper.check_pair(replace(pair, **{part: helper.Part(images[keep], labels[keep])}))


# ---------------------------------------------------------------- the notebook's ways


@pytest.fixture
def start(room, begin_run):
    """start(overrides) begins a tiny run whose results stay out of the checkout, without states of an earlier one."""

    def begin(overrides=""):
        run = begin_run(room, "tiny", overrides)
        shutil.rmtree(run.folder / "state", ignore_errors=True)
        return run

    return begin


@pytest.fixture(scope="module")
def pair(helper):
    return helper.load_embedded()


def ways(room):
    return {"source": room.SourceOnly, "DANN": partial(room.DANN, weight=0.3),
            "PixelDA": partial(room.PixelDA, weight=0.1), "CycleGAN": partial(room.CycleGAN, weight=0.1)}  # fmt: skip


def weights_of(networks):
    return {f"{part}.{key}": value.clone() for part, net in networks.items() for key, value in net.state_dict().items()}


def same(first, second):
    return all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", ["source", "DANN", "PixelDA", "CycleGAN"])
def test_target_labels_are_not_used(room, start, pair, name):
    """Shuffled labels of the target give the same training, bit for bit; the source's do not."""
    shuffled = np.random.default_rng(0).permutation(pair.answers)
    start()
    plain = weights_of(room.train(name, ways(room)[name], room.seen_of(pair), 0)[0])
    start()
    other = weights_of(room.train(name, ways(room)[name], room.seen_of(replace(pair, answers=shuffled)), 0)[0])
    assert same(plain, other)
    turned = replace(pair, labelled=pair.labelled._replace(labels=(pair.labelled.labels + 1) % 10))
    start()
    assert not same(plain, weights_of(room.train(name, ways(room)[name], room.seen_of(turned), 0)[0]))


@pytest.mark.parametrize("name", ["DANN", "PixelDA", "CycleGAN"])
def test_target_pictures_are_used(room, start, pair, name):
    start()
    plain = weights_of(room.train(name, ways(room)[name], room.seen_of(pair), 0)[0])
    start()
    dark = replace(pair, unlabelled=pair.unlabelled // 2)
    assert not same(plain, weights_of(room.train(name, ways(room)[name], room.seen_of(dark), 0)[0]))


@pytest.mark.parametrize("name", ["DANN", "CycleGAN"])
def test_an_interrupted_training_ends_as_an_uninterrupted_one(room, start, pair, name, monkeypatch):
    """Noise, pool, averages and optimizers go on where they were."""
    start("pool=8,steps=6,looks=3")
    networks, history = room.train(name, ways(room)[name], room.seen_of(pair), 1)
    whole, log = weights_of(networks), history.log
    start("pool=8,steps=6,looks=3")
    make, taken = ways(room)[name], []

    def stops(*sizes):
        way = make(*sizes)
        step = way.step

        def counted(*batch):
            taken.append(1)
            if len(taken) == 4:
                raise KeyboardInterrupt
            return step(*batch)

        way.step = counted
        return way

    monkeypatch.setattr(room.run, "identity", lambda name, config, frame: (name, "0" * 12))
    with pytest.raises(KeyboardInterrupt):
        room.train(name, stops, room.seen_of(pair), 1)
    networks, history = room.train(name, make, room.seen_of(pair), 1)
    assert len(taken) == 4 and same(whole, weights_of(networks))
    assert history.log == log and [row["step"] for row in log] == [2, 4, 6]


def test_a_class_that_the_target_lacks_in_training(room, start, pair):
    """Nobody can see that without labels: training, information and reverse validation go through, for all classes."""
    start()
    some = pair.answers != 4
    lacks = replace(pair, unlabelled=pair.unlabelled[some], answers=pair.answers[some])
    trained = {1.0: room.train("DANN", ways(room)["DANN"], room.seen_of(lacks), 0)}
    weight, table = room.choose_weight("DANN", trained, lacks, 0)
    assert weight == 1.0 and np.isfinite(table.to_numpy()).all() and table["information"].max() <= math.log(10)
    assert room.outputs(trained[1.0][0]["task"], lacks.target_test.images)[0].shape[1] == 10


def test_a_loss_that_is_not_finite_stops(room, start, pair):
    start()

    class Broken(room.SourceOnly):
        def step(self, *batch):
            return {"task loss": float("nan")}

    with pytest.raises(LabError, match="broken: a loss is not finite after 3 steps"):
        room.train("broken", Broken, room.seen_of(pair), 0)


class Painter(torch.nn.Module):
    """Lays pictures over a colour that is drawn for each of them; of so many colours."""

    def __init__(self, colours):
        super().__init__()
        self.colours = torch.nn.Parameter(torch.rand(colours, 3, 1, 1, generator=torch.Generator().manual_seed(0)))

    def forward(self, x):
        drawn = self.colours[torch.randint(len(self.colours), (len(x),))]
        return 2 * (drawn - (x + 1) / 2).abs() - 1


def test_variety_sees_noise_that_is_ignored(room, pair):
    """One background for all digits has none, though digits differ; fresh backgrounds have as much as the target."""
    torch.manual_seed(0)
    xs = room.scaled(torch.from_numpy(pair.labelled.images[:256]).permute(0, 3, 1, 2))
    colours = Painter(200)
    with torch.no_grad():
        xt = colours(xs)
    assert room.variety(Painter(1), xs, xt) == 0 and 0.6 < room.variety(colours, xs, xt) < 1.2


@pytest.mark.parametrize("colours, told", [(1, True), (200, False)])
def test_mode_collapse_is_told_and_kept(room, start, pair, capsys, colours, told):
    start()

    class Paints(room.SourceOnly):
        def __init__(self, *sizes):
            super().__init__(*sizes)
            self.averages = room.averages_of(to_target=Painter(colours))
            self.kept = {"to_target": self.averages["to_target"].module}

    _, history = room.train("paints", Paints, room.seen_of(pair), 0)
    assert ("MODE COLLAPSE by step 3" in capsys.readouterr().out) == told == (history.log[0]["variety"] < 0.1)


def test_views(room):
    """Augmentation sees no target picture; blending is the formula of MNIST-M with target pictures as photographs."""
    xs, xt = torch.rand(16, 3, 8, 8) * 2 - 1, torch.rand(16, 3, 8, 8) * 2 - 1
    first, again, other = (room.augmented(xs, None, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other) and first.abs().max() <= 1
    wanted = 2 * ((xt + 1) / 2 - (xs + 1) / 2).abs() - 1
    assert torch.allclose(room.blended(xs, xt, None), wanted, atol=1e-6)


def test_batches_follow_from_seed_and_step(room, start, pair):
    start()
    parts = [room.on_device(pair.labelled.images), torch.tensor(pair.labelled.labels), room.on_device(pair.unlabelled)]
    first, again, later, other = (room.draw(*parts, *place)[0] for place in ((0, 3), (0, 3), (0, 4), (1, 3)))
    assert torch.equal(first, again) and not torch.equal(first, later) and not torch.equal(first, other)
    assert first.min() == -1 and first.max() <= 1


@pytest.mark.parametrize("name, weight, hears", [("PixelDA", 0.0, False), ("CycleGAN", 0.0, False),
                                                 ("PixelDA", 0.1, True), ("CycleGAN", 0.1, True)])  # fmt: skip
def test_a_generator_hears_the_classifier_by_its_weight(room, start, name, weight, hears):
    """Other labels change the generators only through the weight, and the classifier in any case."""
    start()
    xs, xt, ys = torch.rand(8, 3, 16, 16) * 2 - 1, torch.rand(8, 3, 16, 16) * 2 - 1, torch.arange(8)
    generators, classifiers = [], []
    for labels in (ys, (ys + 1) % 10):
        torch.manual_seed(0)
        way = getattr(room, name)(16, 10, weight=weight)
        for _ in range(2):
            way.step(xs, labels, xt, xs, 0.5)
        generators.append(weights_of({"to_target": way.to_target}))
        classifiers.append(weights_of({"task": way.task}))
    assert same(*generators) != hears and not same(*classifiers)


def test_the_cycle_error_is_that_of_the_cycle_alone(room, start):
    x, ys = torch.rand(8, 3, 16, 16) * 2 - 1, torch.arange(8)
    found = []
    for overrides in ("identity=0.0", "identity=5.0"):
        start(overrides)
        torch.manual_seed(0)
        found.append(room.CycleGAN(16, 10, weight=0.1).step(x, ys, x.flip(3), x, 0.5)["cycle error"])
    assert found[0] == found[1]


def test_identity_loss_is_that_of_pictures_of_the_own_domain(room):
    xs, xt = torch.randn(4, 3, 4, 4), torch.randn(2, 3, 4, 4)
    found = room.identity_loss(lambda x: 3 * x, lambda x: x + 0.5, xs, xt)
    assert torch.allclose(found, 2 * xt.abs().mean() + 0.5)


def test_precision_holds_for_all_networks(room, start):
    """The running averages are made before accelerate takes a network, so that nothing of it is undone."""
    start("precision=bf16")
    way, seen = room.PixelDA(16, 10, weight=0.1), {}
    for name, net in {"task": way.task, "to_target": way.to_target, "critic": way.critic}.items():
        layer = next(part for part in net.modules() if isinstance(part, torch.nn.Conv2d))
        layer.register_forward_hook(lambda _, __, out, name=name: seen.update({name: out.dtype}))
    x = torch.rand(8, 3, 16, 16) * 2 - 1
    way.step(x, torch.arange(8), x, x, 0.5)
    assert set(seen) == {"task", "to_target", "critic"} and set(seen.values()) == {torch.bfloat16}


def test_averages_are_the_running_mean_of_the_weights(room, start, pair):
    """Also of what batch norm has counted; and they are what is handed on."""
    start("steps=2,looks=1,decay=0.75")
    made = []

    class Watched(room.SourceOnly):
        def step(self, *batch):
            made.append({key: value.clone() for key, value in self.task.state_dict().items()})
            row = super().step(*batch)
            made.append({key: value.clone() for key, value in self.task.state_dict().items()})
            return row

    networks, _ = room.train("watched", Watched, room.seen_of(pair), 0)
    for key in ("head.weight", "convolutions.1.running_mean"):
        wanted = 0.75 * made[1][key] + 0.25 * made[3][key]  # the first update copies
        assert torch.allclose(networks["task"].state_dict()[key], wanted, atol=1e-6), key


def test_spectral_norm_bounds_the_discriminator(room):
    torch.manual_seed(0)
    net = room.Discriminator(8, 0.0, spectral=True)
    for _ in range(50):
        net(torch.randn(4, 3, 16, 16))  # each pass is a step of the power iteration
    for layer in net.eval().layers:
        assert abs(torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() - 1) < 0.05


def test_alike_pictures_show_in_the_discriminators_maps(room):
    """The batch's differences are seen: the same picture gets another score beside copies of itself."""
    torch.manual_seed(0)
    net = room.Discriminator(8).eval()
    x = torch.randn(8, 3, 16, 16)
    with torch.no_grad():
        assert not torch.allclose(net(x)[0], net(x[:1].expand(8, -1, -1, -1))[0], atol=1e-5)


def test_noise_is_on_all_scales(room):
    torch.manual_seed(0)
    z = room.noise_maps(200, 1, 8, "cpu")
    assert z.shape == (200, 4, 8, 8)
    assert z[:, 0].std((1, 2)).max() < 1e-6  # one number a picture
    near = [(z[:, k, :, 1:] - z[:, k, :, :-1]).square().mean() for k in range(4)]
    assert near[0] < 1e-10 and near[1] < near[2] < near[3]  # rougher and rougher


def test_inception_score_is_the_exponential_of_information(room):
    torch.manual_seed(0)
    logits = 2 * torch.randn(500, 4)
    score = InceptionScore(feature=room.helper.AsFeatures(4), splits=1)
    score.update(logits)
    assert abs(score.compute()[0].item() - math.exp(room.information(logits.log_softmax(1)))) < 1e-4


def test_the_epoch_is_chosen_by_information(room):
    """Whatever is right: sure and balanced answers win over unsure ones, and over one answer for all."""
    sure = torch.eye(10).repeat(3, 1).clamp(min=1e-6).log_softmax(1) * 9
    unsure, one = torch.zeros(30, 10).log_softmax(1), sure[:1].repeat(30, 1)
    assert room.take_look([unsure, sure.log_softmax(1), one.log_softmax(1)]) == 1
    with pytest.raises(LabError, match="not finite"):
        room.take_look([unsure, unsure * float("nan")])


def test_the_weight_is_chosen_without_target_labels(room, start, pair, monkeypatch):
    """By reverse validation alone: its figure decides, and shuffled labels of the target change nothing."""
    start()
    figures = {"way 0.1": 60.0, "way 1": 90.0, "way 3": 70.0}
    monkeypatch.setattr(room, "reverse_validation", lambda name, *others: figures[name])
    net = room.Classifier(16, 8, 10)
    trained = dict.fromkeys((0.1, 1.0, 3.0), ({"task": net}, None))
    shuffled = replace(pair, answers=np.random.default_rng(0).permutation(pair.answers))
    for some in (pair, shuffled):
        assert room.choose_weight("way", trained, some, 0)[0] == 1.0


def test_reverse_validation_tells_right_answers_from_wrong_ones(room, start, pair):
    """With true answers the second classifier reads source pictures; with answers turned by one it does not."""
    start("steps=120,looks=1,batch_size=32,pool=32,width=16")
    true = room.train("true", room.SourceOnly, room.Seen(pair.unlabelled, pair.answers, pair.unlabelled, 10), 0)[0][
        "task"
    ]

    class Turned(torch.nn.Module):
        def forward(self, x):
            logits, *others = true(x)
            return logits.roll(1, 1), *others

    some = pair.unlabelled[:400], pair.held, 10, 0
    assert room.reverse_validation("right", true, *some) > 80 > 20 > room.reverse_validation("wrong", Turned(), *some)


def test_shares_of_the_gap(room):
    """Half way is 50 %; the interval covers the truth as often as it says; no gap, no share."""
    rng, covered = np.random.default_rng(0), 0
    for _ in range(60):
        hard, luck = rng.random(300), rng.normal(0, 0.02, 3)[:, None]
        low, half, high = (100.0 * (hard < level + luck) for level in (0.4, 0.65, 0.9))
        share = room.share_of_gap(half, low, high)
        covered += share["low"] < 50 < share["high"]
        assert share["low"] < share["value"] < share["high"]
    assert covered >= 53
    assert room.share_of_gap(half, low, low + 0.0) is None
    noise = rng.random((3, 300)) < 0.5
    assert room.share_of_gap(half, 100.0 * noise, 100.0 * noise[:, ::-1]) is None


def test_random_generators_disturb_anew(room, start):
    start()
    x = torch.rand(8, 3, 16, 16) * 2 - 1
    first, second = room.redrawn(x, None, None), room.redrawn(x, None, None)
    assert not torch.allclose(first, second) and first.amin() == -1 and abs(first.amax() - 1) < 1e-5


def test_one_domain_is_not_apart(room):
    torch.manual_seed(0)
    x, y, far = torch.randn(300, 8), torch.randn(300, 8), torch.randn(300, 8) + 2
    assert abs(room.apart(x, y)[0]) < 0.01 and abs(room.apart(x, y)[1]) < 0.4
    assert room.apart(x, far)[0] > 0.1 and room.apart(x, far)[1] > 1.8


@pytest.mark.parametrize(
    "overrides, message",
    [
        ("steps=0", "steps=0: at least 1"),
        ("looks=9", "looks=9: at most one in each of steps=6"),
        ("batch_size=1", "batch_size=1: at least 2"),
        ("size=18", "size=18: a multiple of 4"),
        ("size=112", "size=112: a multiple of 4, at most 96"),
        ("steps=2000000", "steps=2000000: at most 1,000,000"),
        ("seeds=(0,4294967296)", "below 2.32"),
        ("pool=4", "pool=4: at least batch_size=8"),
        ("lr=0.0", "lr=0.0: between 0 and 1"),
        ("critic_noise=-1.0", "critic_noise=-1.0: 0 or more"),
        ("semantic=0.0", "semantic=0.0: above 0"),
        ("seeds=(3,)", "two seeds at least"),
        ("dann_weights=(0.1,0.1)", "none twice"),
        ("limit=20", "limit=20: 0 .all., or 40 at least, four"),
    ],
)
def test_settings_that_cannot_work(room, helper, start, overrides, message):
    with pytest.raises(LabError, match=message):
        helper.check_settings(start(overrides).cfg)
