"""CA6_cyclegan_uda: the pairs of domains, drawn over photographs or read."""

import hashlib
import importlib.util
import sys
from dataclasses import replace

import numpy as np
import pytest
from nasty_files import PICTURES, STRAYS, put_strays
from PIL import Image
from test_mnist import write_mnist

from nndl import rooms
from nndl.files import DataError
from real_data import REAL, needs


@pytest.fixture(scope="module")
def helper():
    path = rooms.ROOT / "CA6_cyclegan_uda" / "uda_helper.py"
    spec = importlib.util.spec_from_file_location("uda_helper", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["uda_helper"] = module
    spec.loader.exec_module(module)
    return module


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
    few = helper.load_mnist_pair(real / "mnist", real / "bsds500", limit=7)
    assert set(few.counts().values()) == {7, 5} and np.array_equal(few.unlabelled, pair.unlabelled[:7])


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
    pair = helper.load_mnist_pair(REAL / "mnist", REAL / "bsds500", limit=500)
    assert pair.note.endswith("with 200 and 200 photographs")
    assert checksum([pair.unlabelled, pair.target_test.images]) == "d30a4edec52d5d8b"


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
