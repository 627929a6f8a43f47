"""CA3_fast_scnn: drawn streets, CamVid in both layouts, what is refused, settings, drawing."""

import hashlib
import importlib.util
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from nasty_files import PICTURES, put_strays
from PIL import Image

from nndl import rooms
from nndl.files import DataError
from nndl.machine import fingerprint
from nndl.records import LabError
from real_data import REAL, needs


@pytest.fixture(scope="module")
def helper():
    path = rooms.ROOT / "CA3_fast_scnn" / "fast_scnn_helper.py"
    spec = importlib.util.spec_from_file_location("fast_scnn_helper", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
    assert streets.note == "chosen on sequence 0006R0; in train and test: sequence 0001TP"
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
    fine[::2] = 200
    assert (helper.resize_picture(fine, (10, 20)) == 100).all(), "subsampling would give 0 or 200"
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
    refuses(lambda: helper.load_camvid(segnet, SIZE), str(segnet / "train"), "has the class fence")
    assert helper.load_camvid(segnet, SIZE, limit=3).note.endswith("not in train: fence")


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
        refuses(lambda: helper._read_picture(path), nasty.name, "EXIF")
        return
    picture = nasty.meets(lambda: helper._read_picture(path))
    if not nasty.words:
        assert picture.shape == (32, 32, 3) and picture.dtype == np.uint8
        assert np.abs(picture / 255 - nasty.light[..., None]).mean() < 0.02


@pytest.mark.parametrize("nasty", [nasty for nasty in PICTURES if nasty.words], ids=str)
def test_unreadable_masks_are_named(helper, tmp_path, nasty):
    path = nasty.write(tmp_path)
    nasty.meets(lambda: helper._read_mask(path, None))


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
    masks = [helper._read_mask(path, None) for path in sorted((folder / "trainannot").glob("*.png"))]
    shares = 100 * helper.class_shares(np.stack(masks))
    table = [16.85, 23.26, 0.98, 31.66, 4.49, 9.72, 1.17, 1.13, 5.87, 0.64, 0.29, 3.95]
    assert len(masks) == 367 and np.abs(shares - table).max() < 0.006
    small = 100 * helper.class_shares(helper.join(streets.train, streets.val).masks)
    assert np.abs(small - table).max() < 0.4, "nearest neighbours keep the shares"


# ---------------------------------------------------------------- settings


GOOD = dict(size=(96, 128), crop=(64, 96), steps=10, trial_steps=1, batch_size=2, lr=0.1, decay=0.0, seeds=[0, 1],
            limit=0, counts=(1, 1, 1), block=1, threads=1, scales=(1.0, 1.0), width=1.0, timed=0.1, weight_decay=0.0,
            auxiliary=0.0, powers=(0.0,))  # fmt: skip
BAD = {"size": [(32, 128), (96,), (96, 128.5)], "crop": [(97, 96), (64, 129), (0, 64)], "steps": [0],
       "trial_steps": [0], "batch_size": [1], "lr": [0, -1, float("inf"), float("nan")],
       "decay": [1, -0.1, float("nan")], "seeds": [[], [1, 1], [-1], [0.5]], "limit": [-1],
       "counts": [(1, 1), (1, 0, 1)],
       "block": [0], "threads": [0], "scales": [(2.0, 1.0), (0, 1), (1,), (1, float("nan"))], "width": [0],
       "timed": [0, float("inf")], "weight_decay": [-1], "auxiliary": [-0.1], "powers": [(), (0.5,), (0, 0), (0, -1)]}  # fmt: skip


def test_settings(helper):
    helper.check_settings(SimpleNamespace(**GOOD))
    helper.check_settings(SimpleNamespace(**GOOD | dict(crop=(96, 128), decay=0.999)))


@pytest.mark.parametrize("name, value", [(name, value) for name, values in BAD.items() for value in values], ids=str)
def test_settings_that_cannot_work(helper, name, value):
    with pytest.raises(LabError) as error:
        helper.check_settings(SimpleNamespace(**GOOD | {name: value}))
    assert str(error.value).startswith(f"setting {name}={value}: ")


# ---------------------------------------------------------------- drawing


@pytest.fixture
def figure(monkeypatch):
    """What a drawing function leaves behind when it shows its figure."""
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(plt.gcf()))
    yield lambda: shown[-1]
    plt.close("all")


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


def test_names_on_the_frontier_do_not_overlap(helper, figure):
    rng = np.random.default_rng(0)
    places = [1, 1.05, 1.1, 1.12, 2, 2.05, 5, 5.1, 9, 9.2]
    points = {f"network {k}": dict(x=x, y=50 + 2 * k, low=48 + 2 * k, high=53 + 2 * k + rng.random())
              for k, x in enumerate(places)}  # fmt: skip
    helper.show_frontier(points, "frontier", "ms", "mIoU")
    axis = figure().axes[0]
    texts = {text.get_text(): text.get_window_extent() for text in axis.texts}
    assert set(texts) == set(points) and axis.get_xscale() == "log"
    boxes = list(texts.values())
    assert not any(one.overlaps(two) for k, one in enumerate(boxes) for two in boxes[:k])
    marks = axis.transData.transform([(point["x"], point["y"]) for point in points.values()])
    assert not any(box.contains(*mark) for box in boxes for mark in marks)
    bars = sorted(tuple(line.get_ydata()) for line in axis.lines if len(line.get_ydata()) == 2)
    assert bars == sorted((point["low"], point["high"]) for point in points.values())
    helper.show_frontier({"alone": dict(x=3, y=4)}, "frontier", "ms", "mIoU")
    assert len(figure().axes[0].lines) == 1
