"""CA3_fast_scnn: drawn streets, CamVid in both layouts, what is refused, settings, drawing; scores, network, losses,
random crops, training, export.
"""

import hashlib
import math
import shutil
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
import torchvision
from drafts import definitions
from nasty_files import PICTURES, put_strays
from PIL import Image
from scipy.spatial.distance import cdist
from sklearn.metrics import confusion_matrix, jaccard_score
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torchmetrics.classification import MulticlassF1Score, MulticlassJaccardIndex
from torchvision.models import mobilenetv2
from torchvision.ops import SqueezeExcitation

from nndl import networks
from nndl.files import DataError
from nndl.machine import fingerprint
from nndl.notebooks import mutated
from nndl.records import LabError
from real_data import REAL, needs


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    return definitions("CA3_fast_scnn", tmp_path_factory)


@pytest.fixture(scope="module")
def helper(room):
    return room.helper


@pytest.fixture(scope="module")
def drawn(helper):
    return helper.load_embedded()


# ---------------------------------------------------------------- embedded


def test_drawn_streets_have_the_promised_shape(helper, drawn):
    assert drawn.counts() == {"train": 160, "val": 48, "test": 80} and drawn.source == "embedded"
    for part in drawn.parts().values():
        assert part.images.shape == (len(part.names), 96, 128, 3) and part.images.dtype == np.uint8
        assert part.masks.shape == part.images.shape[:3] and part.masks.dtype == np.uint8
        assert len(set(part.names)) == len(part.names)
        assert set(np.unique(part.masks)) == set(range(12)), "every class and void are in every part"
        assert set(np.unique(part.sequences, return_counts=True)[1]) == {8}


def test_no_drawn_street_is_in_two_parts(drawn):
    names = [set(part.sequences) for part in drawn.parts().values()]
    assert [len(own) for own in names] == [20, 6, 10] and len(set.union(*names)) == 36
    starts = np.concatenate([part.images[::8] for part in drawn.parts().values()]).reshape(36, -1).astype(float)
    starts = (starts - starts.mean(1, keepdims=True)) / starts.std(1, keepdims=True)
    alike = starts @ starts.T / starts.shape[1]
    assert alike[~np.eye(36, dtype=bool)].max() < 0.95, "two sequences show the same street"


def test_pictures_of_a_sequence_are_alike_and_not_the_same(drawn):
    images = drawn.train.images.reshape(20, 8, -1).astype(float)
    within = np.abs(images[:, 0] - images[:, 1]).mean()
    between = np.abs(images[:-1, 0] - images[1:, 0]).mean()
    assert 3 < within < 0.7 * between
    masks = drawn.train.masks.reshape(20, 8, -1)
    assert all((masks[:, k] != masks[:, k + 1]).any(1).all() for k in range(7)), "the camera moves"


def test_shares_of_classes_are_those_of_streets(helper, drawn):
    masks = np.concatenate([part.masks for part in drawn.parts().values()])
    shares = dict(zip([*helper.CLASSES, "void"], 100 * helper.class_shares(masks)))
    spans = dict(sky=(10, 22), building=(15, 30), pole=(0.5, 2), road=(25, 38), pavement=(3, 10), tree=(6, 15),
                 sign_symbol=(0.5, 1.8), fence=(0.5, 3), car=(4, 10), pedestrian=(0.3, 1.8), bicyclist=(0.3, 1.5),
                 void=(0.8, 3))  # fmt: skip
    assert all(low < shares[name] < high for name, (low, high) in spans.items()), shares
    present = {name: np.mean([(mask == k).any() for mask in masks]) for k, name in enumerate(helper.CLASSES)}
    assert min(present.values()) > 0.85, present


def test_colour_alone_is_a_weak_cue(helper, drawn):
    """Bins of 32 grey levels a channel, each given its most frequent class in train: the mean recall on test is low."""
    bins = [part.images.reshape(-1, 3) // 32 @ np.array([64, 8, 1]) for part in (drawn.train, drawn.test)]
    truth = [part.masks.ravel() for part in (drawn.train, drawn.test)]
    table = np.bincount(bins[0].astype(int) * 12 + truth[0], minlength=512 * 12).reshape(512, 12)[:, :11].argmax(1)
    recall = [(table[bins[1][truth[1] == k]] == k).mean() for k in range(11)]
    assert recall[helper.SKY] > 0.5 and np.mean(recall) < 0.35


def test_seeds_reproduce_drawn_streets(helper):
    one, same, other = (helper.load_embedded((64, 96), (9, 2, 3), seed) for seed in (3, 3, 4))
    assert one.counts() == {"train": 9, "val": 2, "test": 3} and one.train.images.shape == (9, 64, 96, 3)
    assert fingerprint(*one.arrays()) == fingerprint(*same.arrays())
    assert not np.array_equal(one.train.masks, other.train.masks)
    few = helper.load_embedded((64, 96), (4, 2, 3), 3)
    assert np.array_equal(few.train.images, one.train.images[:4]), "fewer pictures are the first of more"
    assert hashlib.sha256(one.train.masks.tobytes()).hexdigest()[:16] == "492347644316c176"
    grey, means = one.train.images.mean(-1), [83.1, 63.4, 55.1, 54.2, 50.7, 61.2, 91.2, 40.6, 43.2, 51.1, 49.2, 58.4]
    found = [grey[one.train.masks == k].mean() for k in range(12)]
    assert np.allclose(found, means, atol=0.4), "records depend on these pictures"


def test_masks_of_drawn_streets_are_exact(helper, monkeypatch):
    """Each class in one colour, without haze, light and noise: the picture tells the mask, but where classes meet."""
    rng = np.random.default_rng(0)
    street = helper.make_street(rng)
    signal = 20.0 * np.arange(12)[:, None] + np.zeros(3)
    street["flat"]["colours"] = signal[street["flat"]["labels"]]
    street |= dict(top=signal[0], low=signal[0], shade=None)
    monkeypatch.setattr(helper.np, "exp", np.ones_like)  # no haze: 1 - exp(-distance) is 0
    picture, mask = helper.draw_faces(street, 2, (96, 128))
    monkeypatch.undo()
    index = helper.seen_faces(street, 2, (96, 128))
    labels = np.concatenate([np.zeros(len(index), int), street["flat"]["labels"]])[index]
    pure = (labels.reshape(96, 3, 128, 3) == mask[:, None, :, None]).all((1, 3))
    assert 0.6 < pure.mean() < 1 and len(np.unique(mask)) > 9
    assert np.array_equal(picture[pure], signal[mask[pure]])


def test_take_and_join(helper, drawn):
    two = helper.join(drawn.val.take([3, 1]), drawn.test.take(slice(0, 1)))
    assert two.names.tolist() == [drawn.val.names[3], drawn.val.names[1], drawn.test.names[0]]
    assert np.array_equal(two.images[1], drawn.val.images[1]) and np.array_equal(two.masks[2], drawn.test.masks[0])
    assert len(drawn.val.take(drawn.val.sequences == drawn.val.sequences[0]).names) == 8


# ---------------------------------------------------------------- SegNet's layout

HIGH, WIDE = 36, 48
SIZE = (HIGH, WIDE)
FILES = {
    "train": ["0001TP_1", "0001TP_2", "0006R0_f1", "0006R0_f2", "0016E5_1", "0016E5_2", "0016E5_3", "0016E5_4"],
    "val": ["0016E5_7", "0016E5_8"],
    "test": ["0001TP_9", "Seq05VD_f1", "Seq05VD_f2"],
}


def make_mask(seed):
    """Twelve vertical stripes of all values, turned round by a seed: (HIGH, WIDE) uint8."""
    row = (np.arange(WIDE) // 4 + seed) % 12
    return np.repeat(row[None], HIGH, axis=0).astype(np.uint8)


def make_picture(seed):
    mask = make_mask(seed)
    return np.stack([20 * mask, 255 - 20 * mask, np.full_like(mask, 7 * seed)], axis=-1)


@pytest.fixture
def segnet(tmp_path):
    seed = 0
    for part, names in FILES.items():
        for folder in (part, f"{part}annot"):
            (tmp_path / folder).mkdir()
        for name in names:
            Image.fromarray(make_picture(seed)).save(tmp_path / part / f"{name}.webp", lossless=True)
            Image.fromarray(make_mask(seed)).save(tmp_path / f"{part}annot" / f"{name}.png")
            seed += 1
    return tmp_path


def rewrite(path, values, **options):
    (values if isinstance(values, Image.Image) else Image.fromarray(values)).save(path, **options)


def refuses(load, *words):
    """load() raises DataError of one line that holds all the words."""
    with pytest.raises(DataError) as error:
        load()
    assert "\n" not in str(error.value) and all(word in str(error.value) for word in words), error.value


def test_parts_of_camvid(helper, segnet):
    streets = helper.load_camvid(segnet, SIZE)
    assert streets.counts() == {"train": 6, "val": 2, "test": 3, "extra": 2} and streets.source == "real"
    assert set(streets.val.sequences) == {"0006R0"} and "0006R0" not in streets.train.sequences
    assert streets.extra.names.tolist() == ["0016E5_7.webp", "0016E5_8.webp"]
    assert streets.test.sequences.tolist() == ["0001TP", "Seq05VD", "Seq05VD"]
    assert streets.note == "WEBP pictures; chosen on sequence 0006R0; in train and test: sequence 0001TP"
    order = {"0001TP_1": 0, "0001TP_2": 1, "0016E5_1": 4, "0016E5_4": 7}
    for name, seed in order.items():
        place = streets.train.names.tolist().index(f"{name}.webp")
        assert np.array_equal(streets.train.images[place], make_picture(seed))
        assert np.array_equal(streets.train.masks[place], make_mask(seed))
    other = helper.load_camvid(segnet, list(SIZE), held_out="0001TP")
    assert other.counts()["val"] == 2 and set(other.train.sequences) == {"0006R0", "0016E5"}
    assert fingerprint(*other.arrays()) != fingerprint(*streets.arrays())


@pytest.mark.parametrize("size", [(18, 24), (25, 31), (70, 90)], ids=str)
def test_masks_are_never_blended_and_stay_aligned(helper, segnet, size):
    name = segnet / "trainannot" / "0001TP_1.png"
    mask = np.full(SIZE, 3, np.uint8)
    mask[10:, 20:] = 8
    rewrite(name, mask)
    rewrite(segnet / "train" / "0001TP_1.webp", np.stack([(mask == 8) * np.uint8(255)] * 3, axis=-1), lossless=True)
    train = helper.load_camvid(segnet, size).train
    assert train.images.shape[1:] == (*size, 3) and train.masks.shape[1:] == size
    assert set(np.unique(train.masks[0])) == {3, 8}, "5 and 6 would be blends"
    bright = train.images[0, ..., 0] > 127
    assert (bright != (train.masks[0] == 8)).sum() <= (sum(size) if size[0] > HIGH else 0), "the edges fall together"
    up, left = np.argwhere(train.masks[0] == 8)[0]
    assert abs(up - 10 * size[0] / HIGH) <= 1 and abs(left - 20 * size[1] / WIDE) <= 1


def test_pictures_shrink_by_means(helper):
    fine = np.zeros((40, 40, 3), np.uint8)
    fine[::4] = 200
    assert (helper.resize_picture(fine, (10, 20)) == 50).all(), "subsampling gives 0 or 200, linear interpolation 0"
    two = np.repeat(np.array([0, 200], np.uint8)[None, :, None], 3, axis=2)
    assert len(np.unique(helper.resize_picture(two, (1, 8)))) > 2, "it grows linearly"
    assert np.array_equal(helper.resize_picture(fine, (40, 40)), fine)


def save_as(kind, mask):
    if kind == "palette":
        image = Image.frombytes("P", (WIDE, HIGH), mask.tobytes())
        image.putpalette(np.random.default_rng(0).integers(0, 256, 768).astype(np.uint8).tobytes())
        return image
    return Image.fromarray(mask.astype(np.uint16)) if kind == "16 bits" else Image.fromarray(mask)


@pytest.mark.parametrize("kind", ["grey", "palette", "16 bits"])
def test_masks_of_indices(helper, segnet, kind):
    path = segnet / "trainannot" / "0016E5_2.png"
    rewrite(path, save_as(kind, make_mask(5)))
    assert Image.open(path).mode == {"grey": "L", "palette": "P", "16 bits": "I;16"}[kind]
    train = helper.load_camvid(segnet, SIZE).train
    assert np.array_equal(train.masks[train.names.tolist().index("0016E5_2.webp")], make_mask(5))


MASKS = {  # what a mask may be that is none, and words of the message
    "value": (np.full(SIZE, 12, np.uint8), ["value 12", "0 to 11"]),
    "255": (np.where(np.arange(WIDE) < 9, 255, make_mask(0)).astype(np.uint8), ["value 255"]),
    "16 bits": (np.full(SIZE, 300, np.uint16), ["value 300"]),
    "colours": (np.full((*SIZE, 3), 5, np.uint8), ["colours (RGB)", "load_camvid32"]),
    "transparent": (np.full((*SIZE, 4), 5, np.uint8), ["colours (RGBA)", "load_camvid32"]),
    "palette": (save_as("palette", np.full(SIZE, 40, np.uint8)), ["value 40", "load_camvid32"]),
    "size": (make_mask(0)[:-1], ["48 x 35 pixels", "0016E5_2.webp", "48 x 36"]),
    "turned": (make_mask(0).T.copy(), ["36 x 48 pixels"]),
}


@pytest.mark.parametrize("kind", MASKS)
def test_masks_that_are_refused(helper, segnet, kind):
    image, words = MASKS[kind]
    rewrite(segnet / "trainannot" / "0016E5_2.png", image)
    refuses(lambda: helper.load_camvid(segnet, SIZE), "trainannot/0016E5_2.png", *words)


def test_a_jpeg_mask_is_refused(helper, segnet):
    rewrite(segnet / "trainannot" / "0016E5_2.png", make_mask(0), format="JPEG")
    refuses(lambda: helper.load_camvid(segnet, SIZE), "trainannot/0016E5_2.png", "a mask is a PNG", "JPEG")


@pytest.mark.parametrize("part", ["train", "trainannot", "val", "valannot", "test", "testannot"])
def test_a_missing_folder_is_named(helper, segnet, part):
    (segnet / part).rename(segnet / "elsewhere")
    refuses(lambda: helper.load_camvid(segnet, SIZE), f"{segnet / part}: no such folder")
    refuses(lambda: helper.load_camvid(segnet / "nowhere", SIZE), "nowhere/train: no such folder")


def test_pictures_and_masks_that_do_not_match(helper, segnet):
    load = lambda: helper.load_camvid(segnet, SIZE)  # noqa: E731
    mask = segnet / "testannot" / "Seq05VD_f1.png"
    mask.rename(segnet / "kept.png")
    refuses(load, "test/Seq05VD_f1.webp: no mask Seq05VD_f1.png in", "testannot")
    (segnet / "kept.png").rename(mask)
    picture = segnet / "test" / "Seq05VD_f1.webp"
    picture.rename(segnet / "kept.webp")
    refuses(load, "testannot/Seq05VD_f1.png: no picture of this name")
    (segnet / "kept.webp").rename(picture)
    rewrite(segnet / "test" / "Seq05VD_f1.png", make_picture(30))
    refuses(load, "test/Seq05VD_f1.webp: Seq05VD_f1.png lies beside it")
    (segnet / "test" / "Seq05VD_f1.png").unlink()
    rewrite(segnet / "testannot" / "Seq05VD_f1.bmp", make_mask(1))
    refuses(load, "testannot/Seq05VD_f1.png: Seq05VD_f1.bmp beside it is a mask of the same picture")
    (segnet / "testannot" / "Seq05VD_f1.bmp").unlink()
    assert load().counts()["test"] == 3


def test_an_empty_part_is_named(helper, segnet):
    for folder in ("test", "testannot"):
        for path in (segnet / folder).iterdir():
            path.unlink()
    refuses(lambda: helper.load_camvid(segnet, SIZE), f"{segnet / 'test'}: no picture")


def test_a_picture_in_two_parts_is_refused(helper, segnet):
    same = (segnet / "train" / "0016E5_3.webp").read_bytes()
    (segnet / "test" / "Seq05VD_f2.webp").write_bytes(same)
    refuses(lambda: helper.load_camvid(segnet, SIZE), "test/Seq05VD_f2.webp: the same picture", "train/0016E5_3.webp")
    for folder, ending in (("test", "webp"), ("testannot", "png")):
        old = segnet / folder / f"Seq05VD_f2.{ending}"
        old.rename(old.with_name(f"0016E5_3.{ending}"))
    refuses(lambda: helper.load_camvid(segnet, SIZE), "test/0016E5_3.webp", "train/0016E5_3.webp has the same name")


def test_a_turned_picture_or_mask_is_refused(helper, segnet):
    """EXIF may be meant for the mask too, or not: nobody can tell, so nothing is guessed."""
    exif = Image.Exif()
    exif[0x0112] = 3
    for path in (segnet / "train" / "0016E5_2.webp", segnet / "trainannot" / "0016E5_3.png"):
        before = path.read_bytes()
        with Image.open(path) as image:
            rewrite(path, image.copy(), exif=exif, lossless=True)
        refuses(lambda: helper.load_camvid(segnet, SIZE), path.name, "EXIF")
        path.write_bytes(before)
    helper.load_camvid(segnet, SIZE)


def test_held_out_sequences(helper, segnet):
    refuses(
        lambda: helper.load_camvid(segnet, SIZE, held_out="0006r0"),
        f"{segnet / 'train'}: no sequence 0006r0",
        "there are: 0001TP, 0006R0, 0016E5",
        "held_out",
    )
    for folder in ("train", "trainannot"):
        for path in (segnet / folder).iterdir():
            if not path.name.startswith("0006R0"):
                path.unlink()
    refuses(lambda: helper.load_camvid(segnet, SIZE), "only sequence 0006R0")


def test_a_class_that_is_not_in_train(helper, segnet):
    for path in (segnet / "trainannot").glob("00[01]*[TE]*.png"):
        mask = np.asarray(Image.open(path))
        rewrite(path, np.where(mask == helper.FENCE, 11, mask).astype(np.uint8))
    refuses(lambda: helper.load_camvid(segnet, SIZE), str(segnet), "no picture of the train part has the class fence")
    assert helper.load_camvid(segnet, SIZE, limit=3).note.endswith("fence not in train")


def test_a_scored_part_without_a_class_or_without_labels(helper, segnet):
    for path in (segnet / "testannot").glob("*.png"):
        rewrite(path, np.full_like(np.asarray(Image.open(path)), 11))
    refuses(lambda: helper.load_camvid(segnet, SIZE, limit=3), str(segnet), "all pixels of the test part are void")
    stripes = np.arange(SIZE[1]) % 11 * np.ones(SIZE, np.uint8)
    for path in (segnet / "testannot").glob("*.png"):
        rewrite(path, np.where(stripes == 9, 8, stripes).astype(np.uint8))
    refuses(lambda: helper.load_camvid(segnet, SIZE), "no picture of the test part has the class pedestrian")


def test_a_palette_that_makes_indices_doubtful(helper, segnet):
    """Grey shades that are other numbers than the indices, and an index that has another colour in another mask."""
    first, second = sorted((segnet / "trainannot").glob("*.png"))[:2]
    masks = [np.asarray(Image.open(path)) for path in (first, second)]
    order = np.random.default_rng(0).permutation(12)
    image = Image.fromarray(np.argsort(order)[masks[0]].astype(np.uint8), "P")
    image.putpalette(np.repeat(order[:, None], 3, axis=1).astype(np.uint8).tobytes())
    kept = first.read_bytes()
    image.save(first)
    assert np.array_equal(np.asarray(Image.open(first).convert("L")), masks[0])
    refuses(lambda: helper.load_camvid(segnet, SIZE), first.name, "other greys than its indices", "8-bit grey")
    first.write_bytes(kept)
    for k, (path, mask) in enumerate(zip((first, second), masks)):
        image = Image.fromarray(mask, "P")
        image.putpalette(np.random.default_rng(k).integers(1, 255, 768).astype(np.uint8).tobytes())
        image.save(path)
    refuses(lambda: helper.load_camvid(segnet, SIZE), second.name, first.name, "so these are no classes")


def test_the_same_picture_twice_in_a_part(helper, segnet):
    first = sorted((segnet / "train").iterdir())[0]
    again = first.with_name(f"{first.stem}b{first.suffix}")
    again.write_bytes(first.read_bytes())
    mask = next((segnet / "trainannot").glob(f"{first.stem}.png"))
    mask.with_name(f"{again.stem}.png").write_bytes(mask.read_bytes())
    refuses(lambda: helper.load_camvid(segnet, SIZE), again.name, f"the same picture as {first}")


def test_a_palette_with_black_for_void_elsewhere(helper, segnet):
    """Index 0 black and index 11 coloured: void may be 0, and all classes one too high."""
    colours = np.random.default_rng(0).integers(1, 255, (256, 3)).astype(np.uint8)
    for black, refused in ((helper.VOID, False), (0, True)):
        palette = colours.copy()
        palette[black] = 0
        for path in (segnet / "trainannot").glob("*.png"):
            image = Image.fromarray(np.array(Image.open(path)), "P")
            image.putpalette(palette.tobytes())
            image.save(path)
        if refused:
            refuses(lambda: helper.load_camvid(segnet, SIZE), "index 0 is black", "8-bit grey")
        else:
            helper.load_camvid(segnet, SIZE)


def test_masks_of_four_bits(helper, segnet):
    path = segnet / "testannot" / "Seq05VD_f1.png"
    rewrite(path, np.asarray(Image.open(path)) * np.uint8(17))
    refuses(lambda: helper.load_camvid(segnet, SIZE), path.name, "value 187", "4 bits")


def renamed(segnet, part, old, new):
    """Give a picture and its mask another name."""
    for folder in (segnet / part, segnet / f"{part}annot"):
        for path in folder.glob(f"{old}.*"):
            path.rename(path.with_name(new + path.suffix))


@pytest.mark.parametrize("part, old, new", [
    ("train", "0006R0_f2", "0006r0_f2"), ("test", "0001TP_9", "0001-TP_9"), ("test", "Seq05VD_f1", "__f1"),
], ids=str)  # fmt: skip
def test_names_of_sequences_that_are_nearly_alike(helper, segnet, part, old, new):
    """A held-out sequence whose name is written in two ways would be in training, too."""
    renamed(segnet, part, old, new)
    refuses(lambda: helper.load_camvid(segnet, SIZE), "sequence", "write the same sequence alike")


def test_frames_are_in_the_order_of_their_numbers(helper, segnet):
    renamed(segnet, "train", "0016E5_1", "0016E5_10")
    names = helper.load_camvid(segnet, SIZE).train.names.tolist()
    assert names == [
        f"{name}.webp" for name in ("0001TP_1", "0001TP_2", "0016E5_2", "0016E5_3", "0016E5_4", "0016E5_10")
    ]


def test_a_scored_sequence_of_void_alone(helper, segnet):
    path = segnet / "testannot" / "0001TP_9.png"
    rewrite(path, np.full_like(np.asarray(Image.open(path)), helper.VOID))
    refuses(lambda: helper.load_camvid(segnet, SIZE), "sequence 0001TP of the test part", "void")


def test_the_sequence_of_choices_is_named_where_the_test_part_has_it_too(helper, segnet):
    assert "in train and test: sequence 0001TP" in helper.load_camvid(segnet, SIZE, held_out="0001TP").note


def test_parts_need_two_blocks_and_sequences(helper, drawn):
    helper.check_blocks(drawn, 8)
    few = replace(drawn, val=drawn.val.take(np.arange(8)))
    with pytest.raises(LabError, match="setting block=8: the val part has 8 frames, fewer than two blocks"):
        helper.check_blocks(few, 8)
    helper.check_blocks(few, 4)
    apart = drawn.test._replace(sequences=np.array(drawn.test.names))
    with pytest.raises(LabError, match="test: each picture has a sequence of its own"):
        helper.check_blocks(replace(drawn, test=apart), 8)
    with pytest.raises(LabError, match="one picture to learn from"):
        helper.check_blocks(replace(drawn, train=drawn.train.take(slice(1))), 8)


def test_limits_keep_all_sequences(helper, segnet):
    few = helper.load_camvid(segnet, SIZE, limit=3)
    assert few.counts() == {"train": 3, "val": 2, "test": 3, "extra": 2}
    assert few.train.names.tolist() == ["0001TP_2.webp", "0016E5_2.webp", "0016E5_4.webp"]
    least = helper.load_camvid(segnet, SIZE, limit=1)
    assert least.counts() == {"train": 2, "val": 1, "test": 2, "extra": 1}, "one of each sequence in any case"
    all_of_them = helper.load_camvid(segnet, SIZE, limit=6)
    assert fingerprint(*all_of_them.arrays()) == fingerprint(*helper.load_camvid(segnet, SIZE).arrays())


def test_strays_are_left_out(helper, segnet):
    before = fingerprint(*helper.load_camvid(segnet, SIZE).arrays())
    for folder in ("train", "testannot"):
        put_strays(segnet / folder)
    streets = helper.load_camvid(segnet, SIZE)
    assert fingerprint(*streets.arrays()) == before
    assert streets.note.endswith("2 files not read: notes.txt"), "system files are not worth a word"


@pytest.mark.parametrize("nasty", PICTURES, ids=str)
def test_nasty_pictures(helper, tmp_path, nasty):
    """The reader of one picture: what comes out is right, or the file is named."""
    path = nasty.write(tmp_path)
    if "EXIF" in nasty.what:
        refuses(lambda: helper.read_picture(path), nasty.name, "EXIF")
        return
    picture = nasty.meets(lambda: helper.read_picture(path))
    if not nasty.words:
        assert picture.shape == (32, 32, 3) and picture.dtype == np.uint8
        assert np.abs(picture / 255 - nasty.light[..., None]).mean() < 0.02


@pytest.mark.parametrize("nasty", [nasty for nasty in PICTURES if nasty.words], ids=str)
def test_unreadable_masks_are_named(helper, tmp_path, nasty):
    path = nasty.write(tmp_path)
    nasty.meets(lambda: helper.read_mask(path, None))


# ---------------------------------------------------------------- the original's 32 colours


def colours_of(helper):
    """A colour of our own for each of the 32 names."""
    return {name: (8 * k, 255 - 7 * k, (91 * k) % 256) for k, name in enumerate(helper.ORIGINAL)}


@pytest.fixture
def kaggle(helper, segnet):
    """The same pictures in Kaggle's layout; every class of the eleven as the last of its names."""
    last = {index: name for name, index in helper.ORIGINAL.items()}
    colours = colours_of(helper)
    table = np.array([colours[last[index]] for index in range(12)], np.uint8)
    for part in FILES:
        (segnet / f"{part}annot").rename(segnet / f"{part}_labels")
        for number, path in enumerate(sorted((segnet / f"{part}_labels").iterdir())):
            rewrite(path, table[np.asarray(Image.open(path))])
            path.rename(path.with_name(f"{path.stem}_L.png" if number else path.name))
    lines = [f"{name},{r}, {g}, {b}" for name, (r, g, b) in colours.items()]
    (segnet / "class_dict.csv").write_text("\n".join(["name,r,g,b", *lines]), encoding="utf-8")
    return segnet


def test_the_table_of_classes(helper):
    assert len(helper.ORIGINAL) == 32 and list(helper.GROUPS) == helper.CLASSES and helper.ORIGINAL["Void"] == 11
    for name, group in dict(Archway="building", TrafficCone="pole", LaneMkgsNonDriv="road", RoadShoulder="pavement",
                            VegetationMisc="tree", TrafficLight="sign_symbol", Truck_Bus="car", Animal="pedestrian",
                            MotorcycleScooter="bicyclist").items():  # fmt: skip
        assert helper.CLASSES[helper.ORIGINAL[name]] == group


def test_both_layouts_give_the_same(helper, kaggle):
    streets = helper.load_camvid32(kaggle, SIZE)
    assert streets.counts() == {"train": 6, "val": 2, "test": 3, "extra": 2}
    place = streets.train.names.tolist().index("0016E5_2.webp")
    assert np.array_equal(streets.train.masks[place], make_mask(5))
    assert np.array_equal(streets.test.masks[0], make_mask(10)), "a mask without _L"
    small = helper.load_camvid32(kaggle, (17, 23))
    assert set(np.unique(small.train.masks)) == set(range(12))


def test_every_name_goes_into_its_group(helper, kaggle):
    colours = np.array(list(colours_of(helper).values()), np.uint8)
    stripes = np.repeat(np.resize(colours, (WIDE, 3))[None], HIGH, axis=0)
    rewrite(kaggle / "train_labels" / "0016E5_2_L.png", Image.fromarray(stripes).quantize(40))
    assert Image.open(kaggle / "train_labels" / "0016E5_2_L.png").mode == "P"
    train = helper.load_camvid32(kaggle, SIZE).train
    found = train.masks[train.names.tolist().index("0016E5_2.webp")]
    assert found[0, :32].tolist() == list(helper.ORIGINAL.values())


def test_colours_that_are_refused(helper, kaggle):
    load = lambda: helper.load_camvid32(kaggle, SIZE)  # noqa: E731
    path = kaggle / "val_labels" / "0016E5_8_L.png"
    good = np.asarray(Image.open(path)).copy()
    bad = good.copy()
    bad[3, 4] = (1, 2, 3)
    rewrite(path, bad)
    refuses(load, "val_labels/0016E5_8_L.png", "the colour (1, 2, 3) is of no class")
    rewrite(path, good)
    table = kaggle / "class_dict.csv"
    text = table.read_text(encoding="utf-8")
    for old, new, words in (("Fence", "Fense", "'Fense' is none"), ("Sky,0", "Sky,300", "is no colour"),
                            ("name,r", "name,red", "no column r"), ("Sky,0", "Sky,x", "'x' is not a whole number"),
                            ("Wall,", "Sky,", "'Sky' stands there twice"),
                            (text.splitlines()[3], text.splitlines()[2], "stands there twice")):  # fmt: skip
        assert old in text
        table.write_text(text.replace(old, new, 1), encoding="utf-8")
        refuses(load, "class_dict.csv", words)
    table.unlink()
    refuses(load, "class_dict.csv: no such file")


def test_two_masks_of_one_picture_are_refused(helper, kaggle):
    path = kaggle / "test_labels" / "Seq05VD_f1_L.png"
    (path.with_name("Seq05VD_f1.png")).write_bytes(path.read_bytes())
    refuses(lambda: helper.load_camvid32(kaggle, SIZE), "Seq05VD_f1_L.png", "Seq05VD_f1.png", "same picture")
    path.with_name("Seq05VD_f1.png").unlink()
    path.unlink()
    refuses(lambda: helper.load_camvid32(kaggle, SIZE), "test/Seq05VD_f1.webp: no mask Seq05VD_f1_L.png")
    refuses(lambda: helper.load_camvid32(kaggle / "none", SIZE), "none: no such folder")


# ---------------------------------------------------------------- the real pictures


@needs("camvid")
def test_the_published_parts(helper):
    """All masks at the size in which they are stored, against the README's table; pictures small, to be quick."""
    folder = REAL / "camvid"
    streets = helper.load_camvid(folder, (12, 16))
    assert streets.counts() == {"train": 266, "val": 101, "test": 233, "extra": 101}
    assert set(streets.train.sequences) == {"0001TP", "0016E5"} and set(streets.val.sequences) == {"0006R0"}
    assert set(streets.test.sequences) == {"0001TP", "Seq05VD"} and set(streets.extra.sequences) == {"0016E5"}
    masks = [helper.read_mask(path, None) for path in sorted((folder / "trainannot").glob("*.png"))]
    shares = 100 * helper.class_shares(np.stack(masks))
    table = [16.85, 23.26, 0.98, 31.66, 4.49, 9.72, 1.17, 1.13, 5.87, 0.64, 0.29, 3.95]
    assert len(masks) == 367 and np.abs(shares - table).max() < 0.006
    small = 100 * helper.class_shares(helper.join(streets.train, streets.val).masks)
    assert np.abs(small - table).max() < 0.4, "nearest neighbours keep the shares"


# ---------------------------------------------------------------- settings


GOOD = dict(size=(96, 128), crop=(64, 96), steps=10, cut_steps=1, distilled_steps=1, trial_steps=1, trial_seed=2,
            longer=0, batch_size=2, lr=0.1, decay=0.0, seeds=[0, 1], limit=0, counts=(2, 1, 1), block=1, threads=1,
            compiled=False, rounds=2, scales=(1.0, 1.0), width=1.0,
            weight_decay=0.0, auxiliary=0.0, powers=(0.0,))  # fmt: skip
BAD = {"size": [(32, 128), (96,), (96, 128.5)], "crop": [(97, 96), (104, 96), (64, 136), (60, 96), (0, 64)],
       "steps": [0, 400_001], "distilled_steps": [0, 400_001], "cut_steps": [0], "trial_steps": [0],
       "longer": [-1, 1, 40_001],
       "batch_size": [1], "limit": [-1],
       "lr": [0, -1, float("inf"), float("nan")], "decay": [1, -0.1, float("nan")],
       "seeds": [[], [1], [1, 1], [-1, 0], [0.5, 1], [0, 2**31]], "counts": [(1, 1), (2, 0, 1), (1, 1, 1)],
       "trial_seed": [0, 1, -1, 2**31], "block": [0],
       "threads": [0, 10_000], "scales": [(2.0, 1.0), (0, 1), (1,), (1, 11), (1, float("nan"))],
       "width": [0, 17, float("nan")],
       "rounds": [1], "weight_decay": [-1], "auxiliary": [-0.1],
       "powers": [(), (0.5,), (0, 0), (0.0, -0.0), (0, -1), (0, 3)]}  # fmt: skip


def test_settings(helper):
    helper.check_settings(SimpleNamespace(**GOOD))
    helper.check_settings(SimpleNamespace(**GOOD | dict(crop=(96, 128), decay=0.999)))


@pytest.mark.parametrize("name, value", [(name, value) for name, values in BAD.items() for value in values], ids=str)
def test_settings_that_cannot_work(helper, name, value):
    with pytest.raises(LabError) as error:
        helper.check_settings(SimpleNamespace(**GOOD | {name: value}))
    assert str(error.value).startswith(f"setting {name}={value}: ")


# ---------------------------------------------------------------- drawing


def test_colours_tell_the_classes_apart(helper):
    masks = np.arange(12, dtype=np.uint8).reshape(1, 3, 4)
    colours = helper.to_colours(masks)
    assert colours.shape == (1, 3, 4, 3) and colours.dtype == np.uint8 and not colours[0, 2, 3].any(), "void is black"
    apart = np.abs(helper.PALETTE[:, None].astype(int) - helper.PALETTE).sum(2) + 1000 * np.eye(12)
    assert apart.min() > 60


def test_scenes_are_shown_as_they_are(helper, drawn, figure):
    part = drawn.val.take([0, 9, 17])
    helper.show_scenes([part.images, helper.to_colours(part.masks)], ["picture", "truth"], "streets")
    shown = figure()
    drawings = [axis for axis in shown.axes if axis.images]
    assert len(drawings) == 6 and np.array_equal(drawings[4].images[0].get_array(), helper.PALETTE[part.masks[1]])
    assert drawings[3].get_ylabel() == "truth"
    legend = {text.get_text(): patch.get_facecolor() for text, patch in
              zip(shown.legends[0].get_texts(), shown.legends[0].get_patches())}  # fmt: skip
    assert list(legend) == [*helper.CLASSES, "void"]
    assert np.allclose(legend["car"][:3], helper.PALETTE[helper.CAR] / 255)


def test_ious_stand_in_the_row_of_their_class(helper, figure):
    values = {"one": np.arange(11) * 9.0, "two": np.full(11, 50.0)}
    helper.show_ious(values, "IoU")
    axis = figure().axes[0]
    dots = {line.get_label(): line for line in axis.lines if line.get_label() in values}
    assert np.array_equal(dots["one"].get_xdata(), values["one"])
    assert np.array_equal(np.round(dots["one"].get_ydata()), np.arange(11)) and axis.yaxis_inverted()
    assert [label.get_text() for label in axis.get_yticklabels()] == helper.CLASSES
    assert dots["one"].get_marker() != dots["two"].get_marker()
    box = axis.get_legend().get_window_extent()
    assert box.x0 >= axis.get_window_extent().x1, "the legend lies outside the data"


def test_the_frontier_has_a_colour_for_each_network_and_a_mark_for_each_size(helper, figure):
    def point(x, y, mark):
        return dict(x=x, y=y, low=y - 2, high=y + 3, mark=mark)

    lines = {"one": [point(3, 40, "full size"), point(1, 30, "1/2"), point(3, 50, "longer training")],
             "two": [point(5, 45, "full size")]}  # fmt: skip
    helper.show_frontier(lines, "frontier", "ms", "mIoU")
    axis = figure().axes[0]
    drawn = [line for line in axis.lines if len(line.get_xdata())]
    joined = {line.get_label(): line for line in drawn if line.get_label() in lines}
    assert axis.get_xscale() == "log" and list(joined["one"].get_xdata()) == [1, 3], "joined by time, longer one apart"
    assert joined["one"].get_color() != joined["two"].get_color()
    spots = {(*line.get_xdata(), *line.get_ydata()): line for line in drawn if line.get_marker() not in (None, "None")}
    assert set(spots) == {(p["x"], p["y"]) for points in lines.values() for p in points}
    assert {line.get_color() for place, line in spots.items() if place != (5, 45)} == {joined["one"].get_color()}
    assert spots[3, 40].get_marker() == spots[5, 45].get_marker() != spots[3, 50].get_marker()
    bars = sorted(tuple(line.get_ydata()) for line in drawn if len(set(line.get_xdata())) == 1 < len(line.get_xdata()))
    assert bars == sorted((p["low"], p["high"]) for points in lines.values() for p in points)
    told = [text.get_text() for text in axis.get_legend().get_texts()]
    assert told == ["one", "two", "full size", "1/2", "longer training"]


# ---------------------------------------------------------------- scores


def random_masks(seed, shape=(3, 20, 30)):
    """Truth with void and without some classes, predictions with a class that the truth has not; uint8."""
    rng = np.random.default_rng(seed)
    return (rng.choice(part, shape).astype(np.uint8) for part in ([0, 1, 2, 5, 7, 10, 11], [0, 1, 2, 5, 8, 10]))


@pytest.mark.parametrize("seed", range(3))
def test_confusion_and_iou_agree_with_libraries(room, seed):
    truth, predicted = random_masks(seed)
    known = truth != room.VOID
    matrix = room.confusion(truth, predicted)
    assert np.array_equal(matrix, confusion_matrix(truth[known], predicted[known], labels=range(11)))
    found = room.iou(matrix)
    present = np.flatnonzero(~np.isnan(found))
    assert present.tolist() == [0, 1, 2, 5, 7, 8, 10] and found[7] == found[8] == 0
    wanted = jaccard_score(truth[known], predicted[known], labels=present, average=None, zero_division=0)
    assert np.allclose(found[present], wanted)
    metric = MulticlassJaccardIndex(11, average="macro", ignore_index=room.VOID)
    tensors = [torch.from_numpy(part).long() for part in (predicted, truth)]
    assert abs(metric(*tensors).item() - np.nanmean(found)) < 1e-6


def test_a_picture_of_void_alone_has_no_pixel(room):
    void = np.full((4, 5), room.VOID, np.uint8)
    assert not room.confusion(void, np.zeros((4, 5), np.uint8)).any()
    assert np.isnan(room.iou(room.confusion(void, void * 0))).all()
    assert not room.pixels_of(void[None]).any()
    assert math.isnan(room.boundary_f(void, void * 0, 2))


def test_notices_void_that_counts(room):
    wrong = mutated(room, room.confusion, ("known = truth != VOID", "known = truth <= VOID"))
    truth, predicted = random_masks(0)
    with pytest.raises(ValueError):
        wrong.confusion(truth, predicted)  # a twelfth row


def simulated(count, seed):
    """Confusion matrices (N, 11, 11) of pictures that differ in content and difficulty; most classes miss in many."""
    rng = np.random.default_rng(seed)
    share = rng.gamma(0.7, 1, (count, 11)) * np.geomspace(1, 0.03, 11) * (rng.random((count, 11)) < 0.7)
    pixels = rng.poisson(3000 * share / share.sum(1, keepdims=True).clip(1e-9))
    right = rng.beta(6, 2, (count, 1)) * np.linspace(1, 0.6, 11)
    mix = (1 - right)[..., None] / 11 + right[..., None] * np.eye(11)
    return rng.multinomial(pixels, mix)


def test_scores_of_pictures_have_the_standard_error_of_the_pooled_score(room):
    """Against drawing pictures again and pooling them each time."""
    matrices = simulated(150, 0)
    scores, rng = room.picture_scores(matrices), np.random.default_rng(1)
    assert abs(scores.mean() - np.nanmean(room.iou(matrices.sum(0)))) < 1e-12
    counts = rng.multinomial(150, np.full(150, 1 / 150), 3000)
    drawn_again = np.nanmean(room.iou(np.tensordot(counts, matrices, 1)), axis=1)
    error = scores.std(ddof=1) / np.sqrt(150)
    assert abs(error / drawn_again.std() - 1) < 0.1
    own = np.nanmean(room.iou(matrices), axis=1)  # the pictures' own mIoU: another figure
    assert abs(own.mean() - scores.mean()) > 3 * error


def test_notices_scores_without_the_own_union(room):
    """Pictures that differ in size alone all score the pooled mIoU; by hits alone the large ones would stand out."""
    wrong = mutated(room, room.picture_scores, ("(hits - pooled * unions)", "(hits - hits.mean(0))"))
    rng = np.random.default_rng(0)
    matrices = rng.integers(1, 50, (40, 1, 1)) * (rng.integers(0, 5, (11, 11)) + 20 * np.eye(11, dtype=int))
    assert np.allclose(room.picture_scores(matrices), np.nanmean(room.iou(matrices.sum(0))), atol=1e-12)
    assert wrong.picture_scores(matrices).std() > 0.1


def test_intervals_cover_the_pooled_score(room):
    everything, rng, covered = simulated(5000, 2), np.random.default_rng(3), 0
    truth = np.nanmean(room.iou(everything.sum(0)))
    for _ in range(200):
        found = room.lab.mean_of(room.picture_scores(everything[rng.integers(0, 5000, 80)]))
        covered += found["low"] <= truth <= found["high"]
    assert 0.90 <= covered / 200 <= 0.98


def slow_boundary_f(truth, predicted, tolerance):
    """Neighbours by loops, distances of all pairs."""
    known, found = truth != 11, []

    def edge(mask, c):
        height, width = mask.shape
        for y, x in np.argwhere((mask == c) & known):
            near = [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
            near = [(v, u) for v, u in near if 0 <= v < height and 0 <= u < width and known[v, u]]
            if any(mask[place] != c for place in near):
                yield y, x

    for c in set(truth[known].tolist()):
        ours, theirs = (np.array(list(edge(mask, c))).reshape(-1, 2) for mask in (truth, predicted))
        if not len(ours):
            continue
        if not len(theirs):
            found.append(0.0)
            continue
        near = cdist(ours, theirs) <= tolerance
        recall, precision = near.any(1).mean(), near.any(0).mean()
        found.append(2 * recall * precision / (recall + precision) if recall + precision else 0.0)
    return np.mean(found) if found else math.nan


def blocks(rng, shape, side, values):
    """A mask of random blocks, so many pixels wide."""
    coarse = rng.choice(values, [-(-n // side) for n in shape])
    return np.kron(coarse, np.ones((side, side)))[: shape[0], : shape[1]].astype(np.uint8)


@pytest.mark.parametrize("tolerance", [0.5, 1.2, 2.1, 2.5, 3.0])
def test_boundary_scores_agree_with_all_pairs(room, tolerance):
    rng = np.random.default_rng(int(10 * tolerance))
    for side in (3, 5, 8):
        truth = blocks(rng, (24, 31), side, [0, 1, 4, 11])
        predicted = np.where(rng.random(truth.shape) < 0.03, 1, np.roll(truth, rng.integers(-3, 4, 2), (0, 1)))
        predicted = np.where(predicted == 11, 4, predicted).astype(np.uint8)
        found = room.boundary_f(truth, predicted, tolerance)
        assert abs(found - slow_boundary_f(truth, predicted, tolerance)) < 1e-12
        assert room.boundary_f(truth, np.where(truth == 11, 0, truth).astype(np.uint8), tolerance) == 1


def test_boundary_scores_are_symmetric_and_grow_with_the_tolerance(room):
    rng = np.random.default_rng(0)
    truth = blocks(rng, (40, 48), 8, [0, 1, 2])
    predicted = np.roll(truth, 3, 1)
    there, back = ([room.boundary_f(*pair, t) for t in (0, 1, 2, 3.5)] for pair in ((truth, predicted),
                                                                                   (predicted, truth)))  # fmt: skip
    assert np.allclose(there, back) and there == sorted(there) and there[0] < there[2] < there[3]
    one = np.zeros((9, 9), np.uint8)
    assert math.isnan(room.boundary_f(one, truth[:9, :9], 2)), "a class without an outline"


def test_notices_recall_for_precision(room):
    wrong = mutated(room, room.boundary_f, ("precision = (far[0][edges[1]]", "precision = (far[1][edges[0]]"))
    truth = np.zeros((30, 30), np.uint8)
    truth[5:15, 5:15] = 1
    specks = truth.copy()
    specks[20::3, ::3] = 1
    wanted = slow_boundary_f(truth, specks, 1.2)
    assert (
        abs(room.boundary_f(truth, specks, 1.2) - wanted) < 1e-12 < 0.1 < wrong.boundary_f(truth, specks, 1.2) - wanted
    )


# ---------------------------------------------------------------- network


def copied(theirs, ours):
    """The state of our network in a library's whose layers come in the same order."""
    values = list(ours.state_dict().values())
    names = list(theirs.state_dict())
    assert len(values) == len(names)
    theirs.load_state_dict(dict(zip(names, values)))
    return theirs


@pytest.mark.parametrize("before, after, stride", [(8, 8, 1), (8, 16, 1), (16, 16, 2), (16, 24, 2)])
def test_inverted_residual_is_torchvisions(room, before, after, stride):
    torch.manual_seed(0)
    ours = room.InvertedResidual(before, after, stride)
    theirs = copied(mobilenetv2.InvertedResidual(before, after, stride, 6), ours)
    for layer in [layer for layer in theirs.modules() if isinstance(layer, nn.Sequential)]:
        for name, child in layer.named_children():
            if isinstance(child, nn.ReLU6):
                setattr(layer, name, nn.ReLU())
    x = torch.randn(3, before, 9, 14)
    for mode in (True, False):
        ours.train(mode), theirs.train(mode)
        with torch.no_grad():
            assert torch.allclose(ours(x), theirs(x), atol=1e-5)


def test_pool_matrix_is_adaptive_pooling_of_every_size(room):
    for n in range(1, 41):
        for bins in range(1, 8):
            wanted = F.adaptive_avg_pool1d(torch.eye(n)[None], bins)[0].T
            assert torch.allclose(room.pool_matrix(n, bins), wanted, atol=1e-6), (n, bins)


def test_notices_regions_that_do_not_overlap(room):
    wrong = mutated(room, room.pool_matrix, ("-(-(j + 1) * n // bins)", "(j + 1) * n // bins"))
    assert torch.equal(wrong.pool_matrix(12, 6), room.pool_matrix(12, 6))
    assert not torch.equal(wrong.pool_matrix(7, 3), room.pool_matrix(7, 3))


def test_channel_attention_is_squeeze_and_excitation(room):
    torch.manual_seed(0)
    ours, theirs = room.ChannelAttention(16, 4), SqueezeExcitation(16, 4)
    for layer, source in ((theirs.fc1, ours.down), (theirs.fc2, ours.up)):
        layer.load_state_dict({"weight": source.weight[..., None, None], "bias": source.bias})
    x = torch.randn(2, 16, 5, 7)
    assert torch.allclose(ours(x), theirs(x), atol=1e-6)


def test_fast_scnn_has_the_papers_size(room):
    assert abs(room.parameters(room.FastSCNN(19)) / 1.11e6 - 1) < 0.02
    net = room.FastSCNN(11, width=0.5)
    assert room.parameters(net) < 0.4 * room.parameters(room.FastSCNN(11))
    auxiliary = sum(p.numel() for p in net.auxiliary.parameters())
    assert room.parameters(net) + auxiliary == sum(p.numel() for p in net.parameters()) and auxiliary > 0


@pytest.mark.parametrize("size", [(64, 96), (65, 97), (33, 40), (71, 127)])
def test_fast_scnn_takes_odd_sizes(room, size):
    torch.manual_seed(0)
    net, x = room.FastSCNN(11, width=0.5), torch.randn(2, 3, *size)
    outputs = net(x)
    wanted = [tuple(-(-side // step) for side in size) for step in (8, 8, 32)]
    assert [out.shape[2:] for out in outputs] == wanted and all(out.shape[:2] == (2, 11) for out in outputs)
    net.eval()
    with torch.no_grad():
        assert torch.equal(net(x), net(x)) and net(x).shape == (2, 11, *wanted[0])
        assert torch.allclose(net(x)[:1], net(x[:1]), atol=1e-5), "a picture's answer is its own"


def test_variants_differ_in_what_they_say(room):
    counts = {}
    variants = dict(whole={}, pyramid=dict(pyramid=False), coarse=dict(fusion="coarse"), dense=dict(dense=True))
    for name, options in (variants | dict(attention=dict(fusion="concat_attention"))).items():
        counts[name] = room.parameters(room.FastSCNN(11, width=0.5, **options))
    whole = room.FastSCNN(11, width=0.5)
    assert counts["whole"] - counts["pyramid"] == sum(p.numel() for p in whole.deep[-1].parameters())
    assert counts["whole"] - counts["coarse"] == sum(p.numel() for p in whole.fusion.fine.parameters())
    assert counts["attention"] - counts["whole"] == (2 * 128 * 16 + 128 + 16) + (128 * 64 + 2 * 64)
    pairs = ((16, 24), (24, 32), (64, 64), (64, 64), (64, 64))  # 9 C + C C' numbers become 9 C C'
    assert counts["dense"] - counts["whole"] == sum(9 * a * b - (9 * a + a * b) for a, b in pairs)
    torch.manual_seed(0)
    net = room.FastSCNN(11, fusion="coarse", width=0.5).eval()
    fine, coarse = torch.randn(1, 32, 8, 12), torch.randn(1, 64, 2, 3)
    with torch.no_grad():
        assert torch.equal(net.fusion(fine, coarse), net.fusion(-fine, coarse))


def test_the_dense_network_can_say_what_the_separable_one_says(room):
    """Its convolutions set to the products of the separable ones' two: the same logits."""
    torch.manual_seed(0)
    net, dense = room.FastSCNN(11, width=0.5), room.FastSCNN(11, dense=True, width=0.5)
    ours = dict(net.named_modules())
    for name, layer in list(dense.named_modules()):
        if isinstance(layer, nn.Sequential) and isinstance(layer[0], nn.Conv2d) and len(layer) == 3:
            same = ours[name]
            if len(same) == 4:  # depthwise, pointwise, batch norm, ReLU
                weight = room.dense_weight(same[0].weight, same[1].weight)
                layer[0].load_state_dict({"weight": weight})
                layer[1].load_state_dict(same[2].state_dict())
                ours.pop(name)
    left = {key: value for key, value in net.state_dict().items() if key in dense.state_dict()}
    fitting = {key: value for key, value in left.items() if value.shape == dense.state_dict()[key].shape}
    replaced = set(dict(net.named_modules())) - set(ours)
    fitting = {key: value for key, value in fitting.items() if not any(key.startswith(f"{part}.") for part in replaced)}
    assert len(replaced) == 4 and not dense.load_state_dict(fitting, strict=False).unexpected_keys
    x = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        assert torch.allclose(net.eval()(x), dense.eval()(x), atol=1e-4)


def test_cut_mobilenet_has_torchvisions_features(room):
    whole = networks.build("mobilenet_v2", 3).eval()
    net, x = room.CutMobileNet(whole, 11).eval(), torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        fine = net.shallow(x)
        assert torch.equal(fine, whole.features[:7](x)) and fine.shape == (2, 32, 8, 12)
        middle = net.middle(fine)
        assert torch.equal(middle, whole.features[:14](x)) and middle.shape == (2, 96, 4, 6)
        assert net(x).shape == (2, 11, 8, 12)
    outputs = net.train()(x)
    assert [out.shape for out in outputs] == [(2, 11, 8, 12)] * 2
    assert all(layer.training for layer in net.modules())


def drawn_from(room, seed, pretrained=False):
    torch.manual_seed(seed)
    return room.cut_mobilenet(pretrained).state_dict()


def test_random_weights_of_the_cut_mobilenet_follow_from_the_seed(room):
    first, again, other = (drawn_from(room, seed) for seed in (0, 0, 1))
    assert same(first, again)
    for key in ("shallow.0.0.1.weight", "middle.13.conv.2.weight", "head.3.weight", "auxiliary.0.weight"):
        assert not torch.equal(first[key], other[key]), key


def test_seeds_of_the_pretrained_network_differ(room, monkeypatch):
    """Its filters are given, the head is drawn: by the present seed."""
    stored = networks.build("mobilenet_v2", 5).state_dict()
    stored = {key: value for key, value in stored.items() if not key.endswith("num_batches_tracked")}
    monkeypatch.setattr(networks.files, "load_weights", lambda where: stored)
    monkeypatch.setattr(room, "stored", Path("weights"), raising=False)
    first, other = (drawn_from(room, seed, True) for seed in (0, 1))
    assert torch.equal(first["shallow.0.0.1.weight"], other["shallow.0.0.1.weight"])
    assert not torch.equal(first["head.3.weight"], other["head.3.weight"])


# ---------------------------------------------------------------- losses


def test_class_weights_by_loops(room):
    rng = np.random.default_rng(0)
    masks = np.stack([blocks(rng, (20, 24), 4, rng.choice(12, 5, replace=False)) for _ in range(9)])
    masks[masks == 3] = 4  # a class that is nowhere
    shares = {}
    for c in range(11):
        own = [mask for mask in masks if (mask == c).any()]
        if own:
            shares[c] = sum((mask == c).sum() for mask in own) / sum((mask != 11).sum() for mask in own)
    assert 3 not in shares and len(shares) > 7
    for power in (0.0, 0.5, 1.0):
        wanted = [(np.median(list(shares.values())) / shares[c]) ** power if c in shares else 0 for c in range(11)]
        found = room.class_weights(room.pixels_of(masks), power)
        assert found.dtype == torch.float32 and np.allclose(found, wanted, rtol=1e-5)


def scene_logits(seed, classes=5, hard=False):
    """Logits (2, C, 6, 7) in double precision and a target with void and without the last class."""
    torch.manual_seed(seed)
    logits = torch.randn(2, classes, 6, 7, dtype=torch.float64) * (80 if hard else 2)
    target = torch.randint(0, classes - 1, (2, 6, 7))
    return logits, target.masked_fill(torch.rand(2, 6, 7) < 0.2, 11)


def by_definition(kind, logits, target):
    """Dice, IoU and Lovász losses by loops: over classes, over pixels, over sets of the worst pixels."""
    p = logits.softmax(1).movedim(1, -1)[target != 11]
    t, found = target[target != 11], []
    for c in sorted(set(t.tolist())):
        own = [(p[k, c], 1.0 if t[k] == c else 0.0) for k in range(len(t))]
        if kind == "dice":
            found.append(1 - 2 * sum(a * b for a, b in own) / sum(a + b for a, b in own))
        elif kind == "iou":
            found.append(1 - sum(a * b for a, b in own) / sum(a + b - a * b for a, b in own))
        else:
            errors = [abs(b - a) for a, b in own]
            order = sorted(range(len(own)), key=lambda k: -errors[k].item())
            truth, before, total = {k for k, (_, b) in enumerate(own) if b}, 0.0, 0.0
            for i in range(1, len(order) + 1):
                wrong = set(order[:i])
                loss = len(wrong) / len(truth | wrong)  # 1 - IoU where these pixels are wrong
                total = total + errors[order[i - 1]] * (loss - before)
                before = loss
            found.append(total)
    return sum(found) / len(found)


@pytest.mark.parametrize("kind", ["dice", "iou", "lovasz"])
def test_losses_agree_with_their_definitions(room, kind):
    for seed in range(3):
        logits, target = scene_logits(seed)
        found = []
        for loss in (room.LOSSES[kind], partial(by_definition, kind)):
            leaf = logits.clone().requires_grad_()
            value = loss(leaf, target)
            found.append((value.detach(), *torch.autograd.grad(value, leaf)))
        assert all(torch.allclose(one, two, atol=1e-10) for one, two in zip(*found))
        assert not found[0][1].movedim(1, -1)[target == 11].any(), "void has a gradient"
        more = torch.cat([logits, torch.full_like(logits[:, :1], -200)], 1)
        assert torch.allclose(room.LOSSES[kind](more, target), found[0][0]), "a class that is not there counts"


@pytest.mark.parametrize("kind", ["dice", "iou", "lovasz"])
def test_losses_of_hard_answers_are_torchmetrics(room, kind):
    for seed in range(3):
        logits, target = scene_logits(seed, hard=True)
        guess = F.one_hot(logits.argmax(1), 5).movedim(-1, 1) * 200.0
        metric = MulticlassF1Score if kind == "dice" else MulticlassJaccardIndex
        scores = metric(5, average="none", ignore_index=11)(guess.argmax(1), target)
        assert abs(room.LOSSES[kind](guess.double(), target) - (1 - scores[:4]).mean()) < 1e-6


@pytest.mark.parametrize("change", [("descending=True", "descending=False"), ("(n - hits) /", "n /"),
                                    ("jaccard.diff(dim=0)", "jaccard[1:]")], ids=str)  # fmt: skip
def test_notices_a_wrong_lovasz(room, change):
    logits, target = scene_logits(0)
    wrong = mutated(room, room.lovasz_loss, change).lovasz_loss(logits, target)
    assert abs(wrong - by_definition("lovasz", logits, target)) > 1e-3


def test_notices_absent_classes_in_dice(room):
    logits, target = scene_logits(0)
    found = room.dice_loss(logits, target)
    p, t = room.known_pixels(logits, target)
    assert abs((1 - 2 * (p * t).sum(0) / (p + t).sum(0)).mean() - found) > 1e-2


def test_the_loss_is_the_sum_that_it_says(room):
    """Cross-entropy by hand with class weights and void, the extra losses, the auxiliary heads."""
    torch.manual_seed(0)
    weights = torch.linspace(0.2, 3, 11)
    outputs = [torch.randn(2, 11, *size, requires_grad=True) for size in ((12, 16), (6, 8), (3, 4))]
    masks = [torch.randint(0, 12, (2, *out.shape[2:])) for out in outputs]
    masks[0][masks[0] == 5] = 4

    def entropy(logits, mask):
        known = mask != 11
        value = -logits.log_softmax(1).gather(1, mask.clamp(max=10)[:, None])[:, 0][known]
        share = weights[mask[known]]
        return (value * share).sum() / share.sum()

    heads = [entropy(*pair) for pair in zip(outputs, masks)]
    plain = room.loss_of(outputs, masks, room.Recipe(1, (32, 32), 1.0, auxiliary=0.0), weights)
    assert torch.allclose(plain, heads[0])
    found = room.loss_of(outputs, masks, room.Recipe(1, (32, 32), 1.0, ("dice", "lovasz"), 0.3), weights)
    extra = room.dice_loss(outputs[0], masks[0]) + room.lovasz_loss(outputs[0], masks[0])
    assert torch.allclose(found, heads[0] + extra + 0.3 * (heads[1] + heads[2]), atol=1e-6)
    for gradient, mask in zip(torch.autograd.grad(found, outputs), masks):
        empty = ~gradient.movedim(1, -1).any(-1)
        assert empty[mask == 11].all() and not empty[mask != 11].any()
    larger = room.loss_of([outputs[1]], [masks[0]], room.Recipe(1, (32, 32), 0.0, auxiliary=0.0), torch.ones(11))
    assert torch.allclose(larger, F.cross_entropy(F.interpolate(outputs[1], (12, 16), mode="bilinear"), masks[0],
                                                  ignore_index=11))  # fmt: skip


def test_an_auxiliary_mask_of_void_alone_is_no_nan(room):
    """At 1/32 a view that is mostly outside of small pictures can have no known pixel."""
    outputs = [torch.zeros(1, 11, 4, 4), torch.zeros(1, 11, 1, 1)]
    masks = [torch.zeros(1, 4, 4, dtype=torch.long), torch.full((1, 1, 1), 11)]
    assert room.loss_of(outputs, masks, room.Recipe(1, (32, 32), 0.0), torch.ones(11)).isfinite()


@pytest.mark.parametrize("steps", [4, 40, 500])
def test_rate_warms_up_and_falls(room, steps):
    values = [room.rate(step, steps) for step in range(steps + 1)]
    warm = max(1, steps // 20)
    assert values[-1] == 0 and all(0 < value <= 1 for value in values[:-1])
    assert np.all(np.diff(values[:warm]) > 0) and np.all(np.diff(values[warm - 1 :]) < 0)
    assert values[warm - 1] == max(values) > 0.95 and abs(values[0] - 1 / warm) < 1e-3
    assert abs(values[steps // 2] - 0.5**0.9) < 1e-12


# ---------------------------------------------------------------- what a guess scores


def test_cells_of_place_and_colour(room):
    images = np.random.default_rng(0).integers(0, 256, (2, 24, 32, 3), dtype=np.uint8)
    place, both = room.cells_of(images, rows=6, columns=4, levels=3)
    for n, y, x in ((0, 0, 0), (1, 3, 31), (0, 23, 8), (1, 12, 15)):
        expected = y // 4 * 4 + x // 8
        red, green, blue = images[n, y, x].astype(int) * 3 // 256
        assert place[n, y, x] == expected and both[n, y, x] == 27 * expected + 9 * red + 3 * green + blue


def test_the_most_frequent_class_of_a_cell(room):
    masks = np.array([[[1, 1, 2], [room.VOID, 0, 2]]], np.uint8)
    counted = room.most_frequent(np.array([[[0, 0, 0], [0, 1, 1]]]), masks, 3)
    assert counted.shape == (3, room.K) and counted[0, :4].tolist() == [0, 2, 1, 0], "void is not counted"
    assert counted[1, :3].tolist() == [1, 0, 1] and not counted[2].any()


def test_accuracy_and_dice_agree_with_torchmetrics(room):
    rng = np.random.default_rng(0)
    truth, found = rng.integers(0, 11, (4, 30, 30)), rng.integers(0, 11, (2, 4, 30, 30))
    found = np.where(rng.random(found.shape) < 0.5, truth, found)
    matrices = np.stack([[room.confusion(*pair) for pair in zip(truth, seed)] for seed in found])
    accuracy, dice = room.other_scores(matrices)
    macro = MulticlassF1Score(11, average="macro")
    scores = [float(macro(torch.from_numpy(seed), torch.from_numpy(truth))) for seed in found]
    assert abs(dice - 100 * np.mean(scores)) < 1e-4 and abs(accuracy - 100 * (found == truth).mean()) < 1e-9


# ---------------------------------------------------------------- random crops


@pytest.fixture
def settings(room, monkeypatch):
    """settings(name=value, ...): what the definitions read of cfg, without a run."""

    def use(**values):
        known = dict(scales=(0.5, 2.0), block=4, threads=1, decay=0.9, weight_decay=0.01, lr=0.01)
        monkeypatch.setattr(room, "cfg", SimpleNamespace(**known | values), raising=False)

    use()
    return use


def draw(seed):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def coded():
    """Pictures whose colour tells the mask: 20 times the class, in all channels."""
    rng = np.random.default_rng(0)
    masks = np.stack([blocks(rng, (96, 128), 16, range(12)) for _ in range(8)])
    return torch.from_numpy(20 * masks[..., None].repeat(3, -1)), torch.from_numpy(masks)


def test_picture_and_masks_stay_together(room, settings, coded, monkeypatch):
    rand = torch.rand  # without a change of light: its numbers in the middle
    monkeypatch.setattr(torch, "rand", lambda *n, **options: rand(*n, **options) if n[0] != 7 else torch.full(n, 0.5))
    pure, mirrored = [0, 0, 0], set()
    for seed in range(12):
        theta = room.draw_boxes(8, (96, 128), (64, 96), draw(seed))
        mirrored |= set(theta[:, 0, 0].sign().tolist())
        x, masks = room.random_crops(*coded, (64, 96), draw(seed))
        assert x.shape == (8, 3, 64, 96) and [mask.shape[1:] for mask in masks] == [(32, 48), (8, 12), (2, 3)]
        code = (x[:, 0] + 1) * 127.5 / 20
        for k, (step, mask) in enumerate(zip((2, 8, 32), masks)):
            first = step // 2 - 1
            around = torch.stack([code[:, first + a :: step, first + b :: step] for a in (0, 1) for b in (0, 1)])
            clear = (around.amax(0) - around.amin(0) < 1e-3) & ((around[0] - around[0].round()).abs() < 1e-3)
            assert torch.equal(around[0].round().long()[clear], mask[clear])
            pure[k] += clear.sum().item()
            assert mask.dtype == torch.long and set(mask.unique().tolist()) <= set(range(12))
    assert mirrored == {-1, 1} and min(np.array(pure) / (12 * 8 * np.array([32 * 48, 8 * 12, 2 * 3]))) > 0.5


def test_masks_are_read_at_the_nearest_pixel(room, settings):
    masks = torch.from_numpy(np.random.default_rng(0).choice([3, 8], (8, 96, 128)).astype(np.uint8))
    seen = room.masks_of(masks, room.draw_boxes(8, (96, 128), (64, 96), draw(0)), (32, 48))
    assert set(seen.unique().tolist()) == {3, 8, 11}, "means would be other classes, outside is void"
    itself = room.masks_of(masks, torch.eye(2, 3).repeat(8, 1, 1), (96, 128))
    assert torch.equal(itself, masks.long())


def test_boxes_have_the_scales_and_places_that_they_say(room, settings):
    settings(scales=(0.7, 1.6))
    theta = room.draw_boxes(4000, (96, 128), (64, 96), draw(0))
    shares = torch.stack([theta[:, 1, 1], theta[:, 0, 0].abs()], 1)  # rows, columns
    scales = torch.tensor([64 / 96, 96 / 128]) / shares
    assert torch.allclose(scales[:, 0], scales[:, 1], rtol=1e-5), "pictures keep their proportions"
    assert 0.7 - 1e-5 <= scales.min() < 0.71 and 1.58 < scales.max() <= 1.6 + 1e-5
    assert abs(scales.log().mean() - (math.log(0.7) + math.log(1.6)) / 2) < 0.02
    assert abs((theta[:, 0, 0] < 0).float().mean() - 0.5) < 0.03
    centres, room_left = torch.stack([theta[:, 1, 2], theta[:, 0, 2]], 1), (1 - shares).abs()
    assert (centres.abs() <= room_left + 1e-6).all() and ((centres / room_left).std(0) - 3**-0.5).abs().max() < 0.03
    assert not theta[:, 0, 1].any() and not theta[:, 1, 0].any()


def test_crops_follow_from_the_generator(room, settings, coded):
    first, again, other = (room.random_crops(*coded, (64, 96), draw(seed)) for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0]) and all(map(torch.equal, first[1], again[1]))
    assert not torch.equal(first[0], other[0]) and not torch.equal(first[1][0], other[1][0])
    whole = room.scaled(coded[0])
    assert whole.min() == -1 and abs(whole.max() - (220 / 127.5 - 1)) < 1e-6 and whole.shape == (8, 3, 96, 128)


def test_halved_scenes(room, drawn):
    part = drawn.val.take(slice(0, 4))
    small = room.halved(part)
    assert small.images.shape == (4, 48, 64, 3) and small.masks.shape == (4, 48, 64)
    assert small.images.dtype == small.masks.dtype == np.uint8 and np.array_equal(small.names, part.names)
    corners = np.stack([part.masks[:, a::2, b::2] for a in (0, 1) for b in (0, 1)])
    assert (small.masks == corners).any(0).all()
    means = part.images.reshape(4, 48, 2, 64, 2, 3).mean((2, 4))
    assert np.abs(small.images - means).max() <= 1
    stripes = np.where(np.arange(8) % 2, 9, 1).astype(np.uint8)[None, None].repeat(8, 1)
    assert set(np.unique(room.halved(part._replace(masks=stripes)).masks)) <= {1, 9}


def test_stretches_are_of_one_sequence(room, settings):
    settings(block=3)
    sequences = np.array(["b"] * 4 + ["a"] * 7 + ["b"] * 3 + ["c"])
    found = room.frame_blocks(SimpleNamespace(sequences=sequences))
    for stretch in np.unique(found):
        assert len(set(sequences[found == stretch])) == 1
    assert found.tolist() == [0, 0, 0, 0, 2, 2, 2, 2, 3, 3, 3, 1, 1, 1, 4], "neighbours stay together"


@pytest.mark.parametrize(
    "pictures, sizes", [(101, [26, 25, 25, 25]), (62, [31, 31]), (1, [1]), (10, [10]), (38, [19, 19])]
)
def test_no_stretch_is_a_short_rest(room, settings, pictures, sizes):
    settings(block=25)
    found = room.frame_blocks(SimpleNamespace(sequences=np.array(["a"] * pictures)))
    assert np.bincount(found).tolist() == sizes and (np.diff(found) >= 0).all()


def test_stretches_do_not_read_what_was_in_memory(room, settings, monkeypatch):
    monkeypatch.setattr(np, "empty", lambda *shape, **_: np.full(shape[0], np.iinfo(np.int64).max))
    found = room.frame_blocks(SimpleNamespace(sequences=np.array(list("aabbcc"))))
    assert found.tolist() == [0, 0, 1, 1, 2, 2]


# ---------------------------------------------------------------- training


@pytest.fixture
def start(room, begin_run):
    """start(overrides) begins a tiny run whose results stay out of the checkout, without states of an earlier one."""

    def begin(overrides=""):
        run = begin_run(room, "tiny", f"batch_size=2,{overrides}".rstrip(","))
        shutil.rmtree(run.folder / "state", ignore_errors=True)
        return run

    return begin


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def make_small(room, hook=None):
    """A network of half the width whose forward passes call hook(network)."""
    net = room.FastSCNN(11, width=0.5)
    if hook:
        net.register_forward_pre_hook(lambda module, _: hook(module))
    return net


def test_training_follows_from_its_seed_and_scenes_alone(room, start, drawn, monkeypatch):
    scenes, recipe = drawn.train.take(slice(0, 8)), room.Recipe(2, (32, 32), 0.5, ("dice",))
    found = []
    for seed, val in ((0, drawn.val), (0, drawn.test), (1, drawn.val)):
        start()
        monkeypatch.setattr(room, "streets", SimpleNamespace(train=None, val=val, test=val), raising=False)
        net, losses = room.train("one", partial(make_small, room), scenes, recipe, seed)
        assert not net.training and len(losses) == 2 and np.isfinite(losses).all()
        found.append((net.state_dict(), losses))
    assert same(found[0][0], found[1][0]) and found[0][1] == found[1][1], "held-out pictures change the training"
    assert not same(found[0][0], found[2][0])


def test_an_interrupted_training_ends_as_an_uninterrupted_one(room, start, drawn):
    scenes, recipe, calls = (
        drawn.train.take(slice(0, 8)),
        room.Recipe(10, (32, 32), 0.0),
        [],
    )  # saved after 2, 4, 6, 8, 10

    def stops(_):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt

    start()
    whole, losses = room.train("part", partial(make_small, room), scenes, recipe, 1)
    start()
    with pytest.raises(KeyboardInterrupt):
        room.train("part", partial(make_small, room, stops), scenes, recipe, 1)
    net, again = room.train("part", partial(make_small, room, stops), scenes, recipe, 1)
    assert len(calls) == 6 + 6, "five steps were done, four were saved"
    assert again == losses and same(whole.state_dict(), net.state_dict())


def test_a_loss_that_is_not_finite_stops(room, start, drawn):
    run = start("lr=1e-3")

    def breaks(net):
        with torch.no_grad():
            net.head[-1].bias.fill_(float("nan"))

    with pytest.raises(LabError, match="broken: loss or weights are not finite after 1 steps"):
        room.train(
            "broken", partial(make_small, room, breaks), drawn.train.take([0, 1]), room.Recipe(3, (32, 32), 0.0), 0
        )
    assert not list((run.folder / "state").glob("*/epoch-*")), "a broken state is kept"


def test_training_uses_its_rate_its_weights_and_its_seed(room, start, drawn, monkeypatch):
    start()
    scenes, recipe, weights, seen = drawn.train.take(slice(0, 8)), room.Recipe(2, (32, 32), 0.5), [], []
    loss_of, crops = room.loss_of, room.random_crops
    monkeypatch.setattr(room, "loss_of", lambda *given: weights.append(given[3].cpu()) or loss_of(*given))
    monkeypatch.setattr(room, "random_crops", lambda x, *rest: seen.append(x.clone()) or crops(x, *rest))
    with monkeypatch.context() as patch:
        patch.setattr(room, "rate", lambda *_: 0.0)
        made = make_small(room)
        before = [p.detach().clone() for p in made.parameters()]
        room.train("still", lambda: made, scenes, recipe, 0)
        assert all(map(torch.equal, before, (p.detach() for p in made.parameters()))), "a rate of 0 trains nothing"
    assert torch.equal(weights[0], room.class_weights(room.pixels_of(scenes.masks), 0.5))
    for seed in (0, 1):
        room.train(f"seed {seed}", partial(make_small, room), scenes, recipe, seed)
    assert torch.equal(seen[0], seen[2]) and not torch.equal(seen[2], seen[4]), "pictures follow from the seed alone"


def test_light_changes_within_its_limits(room):
    x = torch.rand(200, 3, 4, 4, generator=draw(0)) - 0.5
    lit = room.relit(x, draw(1))
    slope = ((lit - lit.mean((2, 3), keepdim=True)) * (x - x.mean((2, 3), keepdim=True))).sum((2, 3))
    slope = slope / (x - x.mean((2, 3), keepdim=True)).square().sum((2, 3))
    shift = (lit - slope[..., None, None] * x).mean((2, 3))
    assert 0.55 <= slope.min() < 0.7 and 1.3 < slope.max() <= 1.45, "contrast by 30 %, each channel by 15 %"
    assert 0.13 < shift.abs().max() <= 0.15001
    assert torch.allclose(lit, slope[..., None, None] * x + shift[..., None, None], atol=1e-4)


def test_crops_are_relit(room, settings, coded):
    x, _ = room.random_crops(*coded, (64, 96), draw(0))
    theta = room.draw_boxes(len(coded[0]), coded[0].shape[1:3], (64, 96), draw(0))
    assert not torch.allclose(x, room.seen_through(*coded, theta, (64, 96))[0])


def test_the_running_average(room, settings):
    settings(decay=0.9)
    torch.manual_seed(0)
    net = nn.Linear(8, 8)
    average, wanted = AveragedModel(net, avg_fn=room.running), None
    for step in range(120):
        with torch.no_grad():
            net.weight.normal_()
        average.update_parameters(net)
        decay = min(0.9, (1 + step) / (10 + step)) if step else 0.0
        wanted = net.weight.detach() * (1 - decay) + (0 if wanted is None else decay * wanted)
        assert torch.allclose(average.module.weight, wanted, atol=1e-5)
    assert room.running(1.0, 0.0, torch.tensor(1000)) == 0.9 and room.running(1.0, 0.0, torch.tensor(1)) == 2 / 11


def test_training_returns_the_average_of_weights_and_of_batch_norm(room, start, drawn):
    start()
    seen, made = [], []

    def make():
        made.append(make_small(room, lambda net: seen.append({k: v.clone() for k, v in net.state_dict().items()})))
        return made[0]

    net, _ = room.train("two", make, drawn.train.take([0, 1, 2]), room.Recipe(2, (32, 32), 0.0), 0)
    last = made[0].state_dict()
    for key in ("head.3.weight", "downsample.0.1.running_mean", "deep.0.body.1.0.weight"):
        found = net.state_dict()[key]
        assert torch.allclose(found, 2 / 11 * seen[1][key] + 9 / 11 * last[key], atol=1e-6), key
        assert not torch.equal(found, last[key])


def test_biases_and_batch_norm_do_not_decay(room, start):
    start()
    net, optimizer, _ = room.prepared(make_small(room))
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    for module in net.modules():
        for p in module.parameters(recurse=False):
            is_weight = isinstance(module, nn.Conv2d) and p is module.weight
            assert decays.pop(id(p)) == (room.cfg.weight_decay if is_weight else 0)
    assert not decays and room.cfg.weight_decay > 0


def test_distillation(room):
    torch.manual_seed(0)
    teacher = nn.Conv2d(3, 5, 1)
    x = torch.randn(2, 3, 4, 6)
    logits = torch.randn(2, 5, 4, 6, requires_grad=True)
    found = room.distillation_loss(logits, x, teacher)
    ours, theirs = (
        torch.distributions.Categorical(logits=part.detach().movedim(1, -1)) for part in (logits, teacher(x))
    )
    assert torch.allclose(found, torch.distributions.kl_divergence(theirs, ours).mean())
    assert not torch.allclose(found, torch.distributions.kl_divergence(ours, theirs).mean())
    found.backward()
    assert logits.grad.abs().max() > 0 and all(p.grad is None for p in teacher.parameters())
    equal = (teacher(x).detach() + torch.randn(2, 1, 4, 6)).requires_grad_()
    zero = room.distillation_loss(equal, x, teacher)
    zero.backward()
    assert abs(zero) < 1e-6 and equal.grad.abs().max() < 1e-6


def test_a_teacher_is_learnt_and_not_changed(room, start, drawn):
    scenes, recipe = drawn.train.take(slice(0, 4)), room.Recipe(1, (32, 32), 0.0)
    torch.manual_seed(5)
    teacher = nn.Conv2d(3, 11, 8, stride=8)
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    start()
    first = [room.train("pupil", partial(make_small, room), scenes, recipe, 0, part)[1][0] for part in (None, teacher)]
    assert same(before, teacher.state_dict()) and first[1] > first[0], "a divergence is added to the loss"


# ---------------------------------------------------------------- predictions, export, eight bits


@pytest.fixture(scope="module")
def used(room):
    """A network of half the width whose batch norm has seen pictures, in evaluation mode."""
    torch.manual_seed(0)
    net = make_small(room)
    for _ in range(5):
        net(torch.randn(4, 3, 64, 96))
    return net.eval()


def test_predictions_are_the_greatest_of_resized_logits(room, used, drawn, monkeypatch):
    monkeypatch.setattr(room, "run", SimpleNamespace(device="cpu"), raising=False)
    images = drawn.val.images[:3]
    found = room.predict(used, images, batch=2)
    with torch.no_grad():
        logits = used(torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1)
        assert logits.shape[2:] == (12, 16)
        wanted = F.interpolate(logits, (96, 128), mode="bilinear").argmax(1)
    assert found.dtype == np.uint8 and (found == wanted.numpy()).mean() > 0.999
    assert room.predict(used, images, (20, 30)).shape == (3, 20, 30)
    part = drawn.val.take(slice(0, 3))
    metric = MulticlassJaccardIndex(11, ignore_index=11)
    scored = metric(torch.from_numpy(found).long(), torch.from_numpy(part.masks).long())
    assert abs(room.miou_of(used, part) - scored.item()) < 1e-6


def test_the_exported_network_gives_the_same_logits(room, used, settings):
    model = room.exported(used, (65, 97))
    graph = onnx.load_from_string(model)
    onnx.checker.check_model(graph)
    kinds = {node.op_type for node in graph.graph.node}
    assert not {kind for kind in kinds if "Pool" in kind} and "BatchNormalization" not in kinds and "Conv" in kinds
    x = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        here = room.FullSize(used, (65, 97))(x)
    there = torch.from_numpy(room.session(model).run(None, {"x": x.numpy()})[0])
    plain = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"x": x.numpy()})[0]
    assert np.abs(plain - there.numpy()).max() < 1e-5
    assert here.shape == there.shape == (1, 11, 65, 97)
    assert (here - there).abs().max() < 1e-4 * max(1, here.abs().max())


def test_full_size_takes_torchvisions_output(room):
    inner = nn.Conv2d(3, 11, 1, stride=4)
    x = torch.randn(1, 3, 16, 24)

    class Theirs(nn.Module):
        def forward(self, x):
            return {"out": inner(x), "aux": None}

    theirs, ours = room.FullSize(Theirs(), (16, 24)), room.FullSize(inner, (16, 24))
    assert torch.equal(theirs(x), ours(x)) and ours(x).shape == (1, 11, 16, 24)
    assert torch.equal(room.FullSize(inner, (4, 6))(x), inner(x)), "nothing is resized that has its size"


def test_an_answer_of_a_size_of_its_own_and_the_threads(room, used, settings):
    model = room.session(room.exported(used, (64, 96), (128, 192)))
    assert model.run(None, {"x": np.zeros((1, 3, 64, 96), np.float32)})[0].shape == (1, room.K, 128, 192)
    assert model.get_session_options().intra_op_num_threads == room.cfg.threads


def test_calls_are_timed_in_turn(room, settings):
    settings(rounds=6)
    order = []
    times = room.timed_in_turn([partial(order.append, k) for k in range(3)] + [partial(time.sleep, 0.004)])
    assert times.shape == (6, 4) and (times > 0).all() and (times[:, 3] >= 4).all() and times[:, 3].max() < 400
    assert len(order) == 3 * 5 + 6 * 9  # Timer makes two calls before those that it measures
    timed = np.array(order[15:]).reshape(6, 3, 3)[:, :, 0]
    assert all(set(row) == {0, 1, 2} for row in timed) and len({tuple(row) for row in timed}) > 1


def test_what_means_nothing_is_refused(room, monkeypatch):
    with pytest.raises(ValueError, match="prediction: values from 11 to 11; classes are 0 to 10"):
        room.confusion(np.array([0, 11]), np.array([11, 0]))
    with pytest.raises(ValueError, match="zip"):
        room.matrices_of(np.zeros((2, 4, 4), int), SimpleNamespace(masks=np.zeros((3, 4, 4), int)))
    monkeypatch.setattr(room, "run", SimpleNamespace(device=torch.device("cpu")), raising=False)
    broken = make_small(room)
    with torch.no_grad():
        broken.head[-1].bias[3] = math.nan
    with pytest.raises(LabError, match="logits are not finite"):
        room.predict(broken, np.zeros((1, 64, 64, 3), np.uint8))
    with pytest.raises(ValueError, match="the teacher's logits are"):
        room.distillation_loss(torch.zeros(1, 11, 4, 4), torch.zeros(1, 3, 8, 8), lambda x: torch.zeros(1, 11, 1, 1))


def test_other_weights_to_begin_with_are_another_training(room, start, drawn, capsys):
    """A saved state is of the weights that the network began with."""
    scenes, recipe = drawn.train.take(slice(0, 4)), room.Recipe(2, (32, 32), 0.0)
    start()
    room.train("net", partial(make_small, room), scenes, recipe, 0)
    capsys.readouterr()
    room.train("net", partial(make_small, room), scenes, recipe, 0)
    assert "goes on from epoch 2" in capsys.readouterr().out

    def moved():
        net = make_small(room)
        with torch.no_grad():
            net.head[-1].bias += 1
        return net

    room.train("net", moved, scenes, recipe, 0)
    assert "goes on" not in capsys.readouterr().out


def test_eight_bits(room, used, settings, drawn):
    model = room.exported(used, (64, 96))
    small = room.quantised(model, drawn.train.images[:2, :64, :96])
    graph = onnx.load_from_string(small).graph
    sizes = {part.name: part for part in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    kept = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    assert len(convolutions) > 40
    for node in convolutions:
        weight = kept[node.input[1]]
        assert sizes[weight.input[0]].data_type == onnx.TensorProto.INT8
        assert sizes[weight.input[1]].dims == [sizes[weight.input[0]].dims[0]], "a scale for each channel"
    assert len(small) < 0.6 * len(model)
    images = drawn.test.images[:2, :64, :96]
    here, there = (room.session(part).run(None, {"x": room.scaled(torch.from_numpy(images[:1])).numpy()})[0]
                   for part in (model, small))  # fmt: skip
    assert 0.9 < np.corrcoef(here.ravel(), there.ravel())[0, 1] < 1
    found = room.predict_with(room.session(model), images)
    assert found.shape == (2, 64, 96) and np.array_equal(found[0], here[0].argmax(0))


def test_rivals_of_torchvision_are_built_without_weights(room, monkeypatch):
    seen = {}
    monkeypatch.setattr(torchvision.models.segmentation, "lraspp_mobilenet_v3_large",
                        lambda **options: seen.update(options) or nn.Identity())  # fmt: skip
    room.rival("lraspp_mobilenet_v3_large")
    assert seen == dict(weights=None, weights_backbone=None, num_classes=11)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
def test_peak_memory_grows_with_what_a_model_holds(room):
    """Two exports that differ in one map of 40 MB, which a second convolution reads."""
    nets = [nn.Sequential(nn.Conv2d(3, channels, 1), nn.Conv2d(channels, 1, 1)) for channels in (2, 42)]
    small, large = (room.helper.peak_memory(room.exported(net, (500, 500)), (500, 500)) for net in nets)
    assert 0 < small < large and 30 < large - small < 130, (small, large)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
def test_peak_memory_of_no_model_says_why(room):
    with pytest.raises(LabError, match=r"[Pp]rotobuf|PROTOBUF"):
        room.helper.peak_memory(b"no model", (8, 16))


@pytest.mark.skipif(shutil.which("g++") is None, reason="PyTorch's compiler wants a C++ compiler")
def test_a_compiled_network_answers_alike(room):
    net = nn.Sequential(nn.Conv2d(3, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU()).eval()
    plain, compiled = (room.in_torch(net, (8, 16), torch.channels_last, compiled=flag)() for flag in (False, True))
    assert compiled.shape == plain.shape == (1, 2, 8, 16) and torch.allclose(plain, compiled, atol=1e-5)


def test_a_compiler_that_is_missed_is_noticed_first(helper, monkeypatch):
    monkeypatch.setenv("CXX", sys.executable)  # something that is there
    helper.check_settings(SimpleNamespace(**GOOD | dict(compiled=True)))
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(LabError, match=r"setting compiled=True.*compiler.*NNDL_SET"):
        helper.check_settings(SimpleNamespace(**GOOD | dict(compiled=True)))
    helper.check_settings(SimpleNamespace(**GOOD | dict(compiled=False)))


def test_a_palette_that_lacks_an_index_is_named(helper, segnet):
    path = sorted((segnet / "trainannot").glob("*.png"))[1]
    mask = Image.fromarray(np.asarray(Image.open(path)), "P")
    mask.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    mask.save(path, bits=8)
    refuses(lambda: helper.load_camvid(segnet, SIZE), path.name, "has no colour in its palette")


def test_a_picture_of_another_shape_is_named(helper, segnet):
    path = sorted((segnet / "train").iterdir())[-1]
    mask = segnet / "trainannot" / f"{path.stem}.png"
    for part in (path, mask):
        image = Image.open(part)
        image.resize((image.width, image.height // 2), Image.Resampling.NEAREST).save(part)
    refuses(lambda: helper.load_camvid(segnet, SIZE), path.name, "another shape would be squeezed")


def test_one_lossy_picture_is_enough_for_the_note(helper, segnet):
    for path in [path for part in FILES for path in (segnet / part).iterdir()]:
        Image.open(path).save(path.with_suffix(".png"))
        path.unlink()
    assert "JPEG" not in helper.load_camvid(segnet, SIZE).note
    path = sorted((segnet / "test").iterdir())[-1]
    Image.open(path).convert("RGB").save(path.with_suffix(".jpg"))
    path.unlink()
    assert "JPEG pictures" in helper.load_camvid(segnet, SIZE).note
