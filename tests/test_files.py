"""The readers that all rooms share, on the files of nasty_files.py."""

import struct

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from nasty_files import NAMES, PICTURES, PNG, SHARDS, STRAYS, TIMES, by_name, put_strays, tables, texts, weights, xmls

from nndl import files
from nndl.files import DataError


def refused(words):
    """pytest.raises for a DataError of one line."""
    return pytest.raises(DataError, match=words, check=lambda error: "\n" not in str(error))


# ---------------------------------------------------------------- pictures


@pytest.mark.parametrize("nasty", PICTURES, ids=str)
def test_pictures(nasty, tmp_path):
    path = nasty.write(tmp_path)
    grey = nasty.meets(lambda: files.decode_grey(files.read_bytes(path), path))
    colour = nasty.meets(lambda: files.decode_rgb(files.read_bytes(path), path))
    stored = nasty.meets(lambda: files.decode_grey(files.read_bytes(path), path, upright=False))
    if grey is None:
        return
    assert grey.dtype == np.float32 and colour.dtype == np.uint8 and colour.shape == (32, 32, 3)
    assert np.abs(grey - nasty.light).max() < 0.05 and np.abs(colour / 255 - nasty.light[..., None]).max() < 0.05
    assert np.abs(stored - nasty.stored).max() < 0.05


def test_sixteen_bits_are_kept():
    dark = np.arange(1200, dtype=np.uint16).reshape(30, 40)  # all black in 8 bits
    grey = files.decode_grey(b"P5 40 30 65535\n" + dark.astype(">u2").tobytes(), "here")
    assert np.array_equal(np.round(65535 * grey), dark)


def tiff(pixels, bits, white):
    """A grey TIFF of one strip that is not compressed; white: 0 or the largest value."""
    shape = pixels.shape
    if bits == 12:
        first, second = pixels[:, 0::2], pixels[:, 1::2]
        pixels = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], -1)
    data = pixels.astype("<u2" if bits == 16 else np.uint8).tobytes()
    entries = {256: shape[1], 257: shape[0], 258: bits, 259: 1, 262: int(white > 0), 273: 8, 277: 1, 278: shape[0]}
    entries[279] = len(data)
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries.items())
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(entries)) + table + bytes(4)


@pytest.mark.parametrize("bits, white", [(8, 0), (8, 255), (12, 4095), (16, 0), (16, 65535)])
def test_grey_of_tiffs(bits, white):
    pixels = np.arange(24).reshape(4, 6) * (2**bits - 1) // 23
    light = pixels / (2**bits - 1) if white else 1 - pixels / (2**bits - 1)
    assert np.allclose(files.decode_grey(tiff(pixels, bits, white), "here"), light, atol=1e-6)
    assert np.abs(files.decode_rgb(tiff(pixels, bits, white), "here")[..., 2] / 255 - light).max() < 0.004


def test_any_ending_is_listed_and_nothing_else(tmp_path):
    names = sorted({nasty.name for nasty in PICTURES})
    by_name(tmp_path, names)
    put_strays(tmp_path)
    found, skipped = files.list_pictures(tmp_path)
    assert [path.name for path in found] == names
    assert {path.name for path in skipped} == {name.split("/")[0] for name in STRAYS}
    note = files.skipped_note(skipped)
    assert note.startswith("6 files not read: ") and note.endswith(", ...") and files.skipped_note([]) == ""


def test_folders_of_pictures_are_not_passed_over(tmp_path):
    by_name(tmp_path, ["cat/a.png", "cat/masks/deep/a.PNG"])
    with refused(r"cat.masks: a folder of pictures"):
        files.list_pictures(tmp_path / "cat")
    with refused("nowhere: no such folder"):
        files.list_pictures(tmp_path / "nowhere")


def test_class_folders(tmp_path):
    by_name(tmp_path, ["dog/a.png", "cat/a.png"])
    put_strays(tmp_path)
    names, skipped = files.class_folders(tmp_path)
    assert names == ["cat", "dog"] and len(skipped) == len(STRAYS)
    by_name(tmp_path, ["b.JPG"])
    with refused(r"b\.JPG: a picture outside the class folders"):
        files.class_folders(tmp_path)


@pytest.mark.parametrize("name, there, meant", NAMES.values(), ids=NAMES)
def test_names_of_a_table_find_their_files(tmp_path, name, there, meant):
    by_name(tmp_path, there)
    if meant in there:
        assert files.match_pictures(tmp_path, [name]) == [tmp_path / meant]
    else:
        with refused(meant):
            files.match_pictures(tmp_path, [name])


@pytest.mark.parametrize("nasty", tables(["image", "label"], [["a.jpg", 7], ["b.jpg", 999]], "labels.csv"), ids=str)
def test_labelled_pictures(tmp_path, nasty):
    by_name(tmp_path / "images", ["a.png", "b.png"])
    for path in (tmp_path / "images").iterdir():
        path.write_bytes(PNG)
    nasty.write(tmp_path)
    loaded = nasty.meets(lambda: files.labelled_pictures(tmp_path, 20))
    if loaded:
        assert loaded[0].shape == (2, 20, 20, 3) and loaded[1].tolist() == [7, 999] and loaded[1].dtype == np.int64


# ---------------------------------------------------------------- tables

HEADER, ROWS = ["name", "value"], [["a", 1.5], ["b", -2], ["c, d", 0.1 + 0.2]]
QUOTED = [["a", 1.5], ["b", -2], ["c", 0.1 + 0.2]]


@pytest.mark.parametrize("nasty", tables(HEADER, QUOTED), ids=str)
def test_tables(tmp_path, nasty):
    path = nasty.write(tmp_path)
    table = nasty.meets(lambda: files.read_table(path, ("name", "value")))
    if table is not None:
        assert table["name"].tolist() == ["a", "b", "c"] and table.index.tolist() == [2, 3, 4]
        assert files.numbers(table, "value").tolist() == [1.5, -2, 0.1 + 0.2]


def test_separator_can_be_told(tmp_path):
    (tmp_path / "t.csv").write_text('name;value\n"a;b";1.5\n', encoding="utf-8")
    assert files.read_table(tmp_path / "t.csv", separator=";")["name"].tolist() == ["a;b"]


def column(tmp_path, cells):
    """A table whose column "x" holds these texts."""
    (tmp_path / "t.csv").write_text("\n".join(["x,y", *(f'"{cell}",1' for cell in cells)]), encoding="utf-8")
    return files.read_table(tmp_path / "t.csv")


@pytest.mark.parametrize("guilty", ["?", "-", "1,5", "1.234,5", "1_0", "inf", "-Infinity", "0x1F", "12 EUR", "unknown"])
def test_the_guilty_value_is_named(tmp_path, guilty):
    with refused(rf"t\.csv, line 4, column 'x': .{guilty[0] if guilty != '?' else '.'}.* is not a number") as error:
        files.numbers(column(tmp_path, ["1.5", "n/a", guilty, "2"]), "x")
    assert repr(guilty) in str(error.value)
    values = files.numbers(column(tmp_path, ["1.5", "n/a", guilty, "2"]), "x", missing=(guilty,))
    assert np.array_equal(values, [1.5, np.nan, np.nan, 2], equal_nan=True)


@pytest.mark.parametrize(
    "cells, missing, lost",
    [
        (["9", "99", "-99", "1"], "-99", [2]),  # a text is one mark, not a set of its parts
        (["-9999", "-9999.0", "-9.999e3", "9999"], (-9999,), [0, 1, 2]),
        (["-9999.0", "-9999", "1"], ("-9999",), [0, 1]),
        (["-9999.0", "1"], -9999, [0]),
        (["-99.90", "-99", "1"], np.float32(-99.9), [0]),
        (["?", "-", "1"], ("?", " - "), [0, 1]),
        (["inf", "1"], "inf", [0]),
        (["1", "na"], None, [1]),
    ],
)
def test_marks_of_what_was_not_measured(tmp_path, cells, missing, lost):
    found = files.numbers(column(tmp_path, cells), "x", missing)
    assert np.flatnonzero(np.isnan(found)).tolist() == lost


def test_a_mark_that_is_no_number_means_itself_alone(tmp_path):
    with refused("line 3, column 'x': '-' is not a number"):
        files.numbers(column(tmp_path, ["?", "-"]), "x", missing="?")


def semicolons(tmp_path, cells, **told):
    """As a German spreadsheet exports a column "x"."""
    (tmp_path / "t.csv").write_text("\n".join(["x;y", *(f"{cell};1" for cell in cells)]), encoding="utf-8")
    return files.read_table(tmp_path / "t.csv", separator=";", **told)


THOUSANDS = ["987", "1.023", "1.045", "998"]


@pytest.mark.parametrize(
    "cells, decimal, meant",
    [
        (THOUSANDS, ",", [987, 1023, 1045, 998]),
        (THOUSANDS, ".", [987, 1.023, 1.045, 998]),
        (["0,5", "-1.234,25", "1.234.567", "1,5e3", ""], ",", [0.5, -1234.25, 1234567, 1500, np.nan]),
        (["1.023", "12.5"], None, [1.023, 12.5]),  # 12.5 settles it
        (["1.023", "0.500"], None, [1.023, 0.5]),
        (["987", "998"], None, [987, 998]),
    ],
)
def test_decimal_marks(tmp_path, cells, decimal, meant):
    assert np.array_equal(files.numbers(semicolons(tmp_path, cells), "x", decimal=decimal), meant, equal_nan=True)
    table = semicolons(tmp_path, cells, decimal=decimal)
    assert np.array_equal(files.numbers(table, "x"), meant, equal_nan=True), "told to read_table"


@pytest.mark.parametrize("cells", [THOUSANDS, ["-1.000", "2.000"], ["5.000", "na"]])
@pytest.mark.parametrize("whole", [True, False])
def test_a_point_before_three_digits_is_not_guessed(tmp_path, cells, whole):
    first = next(cell for cell in cells if "." in cell)
    both = rf"t\.csv, line \d, column 'x': '{first}' may be .* pass decimal=\"\.\" or decimal=\",\""
    with refused(both):
        files.numbers(semicolons(tmp_path, cells), "x", whole=whole)
    assert files.numbers(column(tmp_path, ["1.023"]), "x").tolist() == [1.023], "between commas it is a decimal point"


def test_a_mark_of_missing_settles_no_decimal_point(tmp_path):
    found = files.numbers(semicolons(tmp_path, ["-9.999", "1"]), "x", missing="-9.999")
    assert np.array_equal(found, [np.nan, 1], equal_nan=True)


@pytest.mark.parametrize(
    "cell, decimal, remedy",
    [
        ("0,5", None, 'pass decimal=","'),
        ("1.234,5", ".", 'pass decimal=","'),
        ("1.234.567", None, 'pass decimal=","'),
        ("1,234", None, 'pass decimal=",", or take out the commas'),
        ("1,234.5", None, "number; take out the commas"),
        ("1.23", ",", r'pass decimal="\."'),
        ("0.123", ",", r'pass decimal="\."'),
        ("1.0234", ",", r'pass decimal="\."'),
    ],
)
@pytest.mark.parametrize("whole", [True, False])
def test_a_number_with_other_marks_is_not_called_missing(tmp_path, cell, decimal, remedy, whole):
    with refused(rf"t\.csv, line 3, column 'x': '{cell}' is not a .*{remedy}") as error:
        files.numbers(semicolons(tmp_path, ["7", cell]), "x", whole=whole, decimal=decimal)
    assert "missing" not in str(error.value)


def test_a_decimal_mark_that_is_none(tmp_path):
    with refused(r"t\.csv: decimal=';' is no mark"):
        files.numbers(semicolons(tmp_path, ["7"]), "x", decimal=";")


@pytest.mark.parametrize("guilty", ["1.5", "", "n/a", "cat", "inf"])
def test_whole_numbers(tmp_path, guilty):
    assert files.numbers(column(tmp_path, ["3", " 4 ", "5.0"]), "x", whole=True).tolist() == [3, 4, 5]
    with refused(rf"line 3, column 'x': '{guilty}' is not a whole number"):
        files.numbers(column(tmp_path, ["3", guilty]), "x", whole=True)


UTC, DAY = {"utc": True}, {"day_first": True}
WINTER, TOLD = ["2024-03-29 23:00", "2024-03-31 22:00"], {"time_format": "%d.%m.%Y %H:%M %z"}
POINTS = ["30.03.2024 00:00 +0100", "01.04.2024 00:00 +0200"]
OFFSETS = {  # as TIMES, of which none may have the same name
    "format": (POINTS, TOLD | UTC, WINTER),
    "format, not told": (POINTS, TOLD, r"line 3: mixed UTC offsets: '01\.04\.2024 00:00 \+0200'; pass utc=True$"),
    "format, one offset": (POINTS[:1], TOLD, ["2024-03-30"]),
    "format, one offset, as UTC": (POINTS[:1], TOLD | UTC, WINTER[:1]),
    "format, a word": ([*POINTS, "soon"], TOLD | UTC, "line 4: 'soon' is not a time of the format"),
    "points": (POINTS, UTC, WINTER),
    "points, not told": (POINTS, {}, r"line 3: mixed UTC offsets: '01\.04\.2024 00:00 \+0200'; pass utc=True$"),
    "day first": (
        ["05/03/2024 00:00+01:00", "05/04/2024 00:00+02:00"],
        DAY | UTC,
        ["2024-03-04 23:00", "2024-04-04 22:00"],
    ),
    "month first": (
        ["05/03/2024 00:00+01:00", "05/04/2024 00:00Z"],
        UTC | {"day_first": False},
        ["2024-05-02 23:00", "2024-05-04"],
    ),
    "day or month, with offsets": (
        ["05/03/2024 00:00+01:00", "05/04/2024 00:00+02:00"],
        UTC,
        "day_first=True or day_first=False",
    ),
    "hours alone": (["2024-03-30T00+0100", "2024-04-01T00+0200"], UTC, WINTER),
    "hours alone, not told": (["2024-03-30T00+0100", "2024-04-01T00+0200"], {}, "line 3: mixed UTC offsets.*utc=True$"),
    "hours behind a blank": (["2024-03-30 00+01", "2024-04-01 00+02"], UTC, WINTER),
    "compact": (["20240330T0000+0100", "20240401T0000+0200"], UTC, WINTER),
    "AM and PM": (
        ["03/30/2024 12:00 AM +01:00", "03/30/2024 12:00 PM -03:30"],
        UTC,
        ["2024-03-29 23:00", "2024-03-30 15:30"],
    ),
    "spelt in two ways": (
        ["2024-03-30 00:00+01:00", "2024-03-30 01:00+0100"],
        {},
        ["2024-03-30 00:00", "2024-03-30 01:00"],
    ),
    "one offset, as UTC": (["2024-03-30 00:00+01:00"], UTC, WINTER[:1]),
    "no offset, as UTC": (["2024-03-30 00:00"], UTC, ["2024-03-30"]),
    "dates alone": (["2021-03-02", "2021-03-05"], {}, ["2021-03-02", "2021-03-05"]),
    "no such day, with offsets": (
        ["30.03.2024 00:00 +0100", "31.04.2024 00:00 +0200"],
        UTC,
        r"line 3: '31\.04\.2024 00:00 \+0200' is not .* time_format",
    ),
    "told against the file, with offsets": (
        ["05/13/2024 00:00Z"],
        DAY,
        "line 2: '05/13/2024 00:00Z' is not a time with day_first=True; .* time_format",
    ),
}


@pytest.mark.parametrize("cells, passed, meant", (TIMES | OFFSETS).values(), ids=TIMES | OFFSETS)
def test_times(tmp_path, cells, passed, meant):
    table = column(tmp_path, cells)
    if isinstance(meant, list):
        found = files.times(table, "x", **passed)
        assert found.tolist() == pd.DatetimeIndex(meant).tolist() and found.tz is None
    else:
        with refused(meant) as error:
            files.times(table, "x", **passed)
        assert "t.csv" in str(error.value) and "'x'" in str(error.value)


# ---------------------------------------------------------------- XML, text, flags


@pytest.mark.parametrize("nasty", xmls("<labels>\n<thing>1</thing>\n</labels>"), ids=str)
def test_xml(nasty):
    root = nasty.meets(lambda: files.parse_xml(nasty.data, nasty.name, "labels"))
    if root is not None:
        assert root.tag == "labels" and [thing.text for thing in root.iter("thing")] == ["1"]


def test_xml_as_text():
    assert files.parse_xml('\ufeff<?xml version="1.0" encoding="utf-16"?><labels/>', "l.xml", "labels").tag == "labels"


@pytest.mark.parametrize("nasty", texts("1 2\n3 4\n"), ids=str)
def test_text(nasty):
    if nasty.what in ("web page", "JSON"):
        return  # text all the same: what it says is judged by the reader of the labels
    text = nasty.meets(lambda: files.as_text(nasty.data, nasty.name))
    if text is not None:
        assert text.split() == ["1", "2", "3", "4"]


@pytest.mark.parametrize(
    "text, expected",
    [("0", 0), ("1", 1), (" 1 ", 1), ("2", 1), ("True", 1), ("false\n", 0), ("yes", 1), ("", 0), (None, 0)],
)
def test_flags(text, expected):
    assert files.flag(text, "here") is bool(expected)


@pytest.mark.parametrize("text", ["vehicle", "0.5", "-", "1 0"])
def test_what_is_no_flag(text):
    with refused("here: .* is not a flag"):
        files.flag(text, "here")


# ---------------------------------------------------------------- parquet and weights


@pytest.mark.parametrize("there, words", SHARDS.values(), ids=SHARDS)
def test_shards(tmp_path, there, words):
    paths = by_name(tmp_path, there)
    if words:
        with refused(words):
            files.shards(tmp_path, "train")
    else:
        assert files.shards(tmp_path, "train") == paths


def test_shards_below_a_hidden_folder(tmp_path):
    paths = by_name(tmp_path / ".cache", ["train-00000-of-00001.parquet"])
    assert files.shards(tmp_path / ".cache", "train") == paths


@pytest.mark.parametrize("data", [b"", b"PAR1", b"<html>", b"x" * 100], ids=["empty", "cut", "web page", "text"])
def test_unreadable_parquet(tmp_path, data):
    (tmp_path / "p.parquet").write_bytes(data)
    with refused(r"p\.parquet: not a readable parquet file"):
        files.read_parquet(tmp_path / "p.parquet", ["a"])
    pq.write_table(pa.table({"b": [1]}), tmp_path / "p.parquet")
    with refused(r"p\.parquet: no column a; there are: b"):
        files.read_parquet(tmp_path / "p.parquet", ["a"])


STATE = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.ones(2).half(), "n": torch.tensor(3)}


@pytest.mark.parametrize("nasty", weights(STATE), ids=str)
def test_weights(tmp_path, nasty):
    path = nasty.write(tmp_path)
    state = nasty.meets(lambda: files.load_weights(path))
    if state is not None:
        assert state.keys() == STATE.keys()
        assert all(torch.equal(state[name], STATE[name]) and state[name].dtype == STATE[name].dtype for name in STATE)


def test_eight_bits_times_scale(tmp_path):
    from safetensors.torch import save_file

    raw = {
        "a.q8": torch.tensor([[2, -4], [1, 3]], dtype=torch.int8),
        "a.scale": torch.tensor([0.5, 2.0]).half(),
        "b": torch.ones(1),
    }
    save_file(raw, tmp_path / "w.safetensors")
    state = files.load_weights(tmp_path / "w.safetensors")
    assert state["a"].tolist() == [[1.0, -2.0], [2.0, 6.0]] and state.keys() == {"a", "b"}, "int8 times scale, by row"


@pytest.mark.parametrize(
    "change",
    [{"weight": torch.zeros(3, 2)}, {"weight": None}, {"more": torch.zeros(1)}],
    ids=["shape", "missing", "extra"],
)
def test_weights_that_do_not_fit(change):
    net = torch.nn.Linear(3, 2)
    before = net.weight.clone()
    state = {name: value for name, value in (dict(net.state_dict()) | change).items() if value is not None}
    with refused(rf"some\.safetensors: {next(iter(change))} does not fit: the network has"):
        files.fit_weights(net, {name: value + 1 for name, value in state.items()}, "some.safetensors")
    assert torch.equal(net.weight, before), "nothing may be half loaded"


# ---------------------------------------------------------------- downloads


def brought(folder):
    (folder / "thing").mkdir()
    (folder / "thing" / "x").write_text("whole", encoding="utf-8")
    (folder / "archive.tar").write_text("no longer needed", encoding="utf-8")
    return folder / "thing"


def test_download(tmp_path):
    target = files.download(tmp_path / "data" / "set" / "batches", brought, "do it by hand")
    assert target.is_dir() and (target / "x").read_text(encoding="utf-8") == "whole"
    assert list(target.parent.iterdir()) == [target], "something else was left behind"


@pytest.mark.parametrize("error", [OSError("no route\nto host"), RuntimeError("hash"), KeyboardInterrupt()], ids=repr)
def test_failed_download_leaves_nothing(tmp_path, error):
    def fetch(folder):
        brought(folder)
        raise error

    expected = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else DataError
    with pytest.raises(expected) as caught:
        files.download(tmp_path / "data" / "set" / "batches", fetch, "do it by hand")
    assert list(tmp_path.iterdir()) == []
    if expected is DataError:
        assert "batches: the download failed" in str(caught.value) and "do it by hand" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_failed_download_leaves_what_was_there(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine").write_text("x", encoding="utf-8")

    def fetch(folder):
        raise OSError("no route to host")

    with refused("the download failed"):
        files.download(tmp_path / "set" / "batches", fetch, "do it by hand")
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["mine"]
