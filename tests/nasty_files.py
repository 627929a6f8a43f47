"""Files as users have them, kind by kind: what every loader of this course must read, or refuse with one clear line.

How the tests of a room use it (test_CA5_vit.py is an example):

    @pytest.mark.parametrize("nasty", PICTURES, ids=str)
    def test_nasty_pictures(room, nasty, tmp_path):
        write_good_folder(tmp_path)                       # the room's own small, good data set
        nasty.write(tmp_path / "train" / "cat")           # one nasty file among the good ones
        loaded = nasty.meets(lambda: room.helper.load(tmp_path))   # DataError with its words, or a result
        if loaded: ...                                     # then nasty.light is how the picture must look

- PICTURES: one file each. light: (32, 32) in [0, 1], upright, as it must look in grey; stored: without the EXIF turn.
- STRAYS: what lies beside pictures and is none; a loader leaves it out and says so in its note.
- NAMES: the name in a table, the files there, and the file that is meant.
- tables(header, rows), xmls(text), texts(text), weights(state): variants of the room's own good file.
- TIMES: columns of times, what is passed with them, and how they must be read.
- SHARDS: sets of parquet file names.

A nasty file with `words` must be refused by DataError: one line that names the file and matches the words. Without
words it must be read.
"""

import gzip
import io
import lzma
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save

from nndl.files import DataError


@dataclass
class Nasty:
    """One file: what is nasty about it, its name and bytes, and what must happen."""

    what: str
    name: str
    data: bytes
    words: str = ""  # a pattern of the message; "": it must be read
    light: np.ndarray | None = None
    stored: np.ndarray | None = None

    def __str__(self):
        return self.what

    def write(self, folder):
        """Write the file into a folder, which is made where it is missing: its path."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / self.name).write_bytes(self.data)
        return folder / self.name

    def meets(self, load):
        """load() must give a result, which is returned; or DataError naming the file: then None."""
        if not self.words:
            return load()
        with pytest.raises(DataError, match=self.words) as error:
            load()
        assert "\n" not in str(error.value) and self.name in str(error.value), error.value
        return None


WEB_PAGE = b"<!DOCTYPE html>\n<html><head><title>404</title></head><body><p>Not found</p></body></html>\n"
XHTML = b'<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><body><p>Not found</p></body></html>'
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22\nsize 12345\n"
ZIP = b"PK\x03\x04" + bytes(60)

# ---------------------------------------------------------------- pictures

LIGHT = (np.add.outer(3 * np.arange(32), 5 * np.arange(32)) % 256).astype(np.uint8)  # (32, 32), no symmetry
LIGHT = np.minimum(LIGHT, 240)


def encode(image, kind, **options):
    """A picture's bytes; image: an array or a Pillow picture."""
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


def palette(transparent):
    image = Image.fromarray(LIGHT).convert("P")
    return encode(image, "PNG", **({"transparency": 255} if transparent else {}))  # no pixel has colour 255


def turned():
    """A JPEG stored lying, with the EXIF entry that says so."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(np.rot90(LIGHT), "JPEG", quality=98, exif=exif)


def animation(kind):
    frames = [Image.fromarray(frame) for frame in (LIGHT, 255 - LIGHT)]
    return encode(
        frames[0], kind, save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "WEBP" else {})
    )


def bomb():
    """A PNG of 40 thousand times 40 thousand pixels in a few hundred bytes."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


RGB = np.stack([LIGHT] * 3, axis=-1)
PNG, JPEG, DEEP = encode(RGB, "PNG"), encode(RGB, "JPEG", quality=98), LIGHT.astype(np.uint16) * 257
READ = {
    "grey": ("n.png", encode(LIGHT, "PNG")),
    "upper-case ending": ("N.PNG", PNG),
    "jfif": ("n.jfif", JPEG),
    "webp": ("n.webp", encode(RGB, "WEBP", lossless=True)),
    "tiff": ("n.tiff", encode(RGB, "TIFF")),
    "gif": ("n.gif", encode(LIGHT, "GIF")),
    "dots in the name": ("n.v1.2.png", PNG),
    "brackets in the name": ("n[1] (2)*.png", PNG),
    "other alphabet in the name": ("تصویر é.png", PNG),
    "16-bit PNG": ("n.png", encode(DEEP, "PNG")),
    "16-bit TIFF": ("n.tif", encode(DEEP, "TIFF")),
    "16-bit PGM": ("n.pgm", b"P5 32 32 65535\n" + DEEP.astype(">u2").tobytes()),
    "CMYK": ("n.jpg", encode(Image.fromarray(RGB).convert("CMYK"), "JPEG", quality=98)),
    "RGBA, opaque": ("n.png", encode(np.dstack([RGB, np.full_like(LIGHT, 255)]), "PNG")),
    "grey with alpha": ("n.png", encode(Image.fromarray(LIGHT).convert("LA"), "PNG")),
    "palette": ("n.png", palette(False)),
    "palette with a transparent colour": ("n.png", palette(True)),
    "turned by EXIF": ("n.jpg", turned()),
    "animated GIF": ("n.gif", animation("GIF")),
    "animated WebP": ("n.webp", animation("WEBP")),
}
UNREADABLE = r"not a readable picture"
REFUSED = {
    "empty": ("n.png", b"", f"{UNREADABLE}.*empty"),
    "text": ("n.png", b"no picture", UNREADABLE),
    "web page": ("n.jpg", WEB_PAGE, f"{UNREADABLE}.*web page"),
    "Git LFS pointer": ("n.jpg", LFS, f"{UNREADABLE}.*git lfs pull"),
    "zip": ("n.jpg", ZIP, f"{UNREADABLE}.*zip"),
    "PDF": ("n.png", b"%PDF-1.7\n" + bytes(100), UNREADABLE),
    "truncated PNG": ("n.png", PNG[: len(PNG) // 2], UNREADABLE),
    "truncated JPEG": ("n.jpg", JPEG[: len(JPEG) // 2], UNREADABLE),
    "header alone": ("n.png", PNG[:33], UNREADABLE),
    "decompression bomb": ("n.png", bomb(), f"{UNREADABLE}.*bomb"),
    "float TIFF": ("n.tif", encode(LIGHT.astype(np.float32) / 255, "TIFF"), f"{UNREADABLE}.*floating point"),
    "32-bit TIFF": ("n.tif", encode(LIGHT.astype(np.int32) * 70_000, "TIFF"), f"{UNREADABLE}.*32-bit"),
    "LAB": ("n.tif", encode(Image.new("LAB", (32, 32)), "TIFF"), f"{UNREADABLE}.*LAB"),
}
PICTURES = [
    Nasty(what, name, data, "", LIGHT / 255, (np.rot90(LIGHT) if "EXIF" in what else LIGHT) / 255)
    for what, (name, data) in READ.items()
] + [Nasty(what, *rest) for what, rest in REFUSED.items()]

STRAYS = {
    "._a.png": b"\x00\x05\x16\x07" + bytes(40),  # what macOS writes beside a.png
    ".DS_Store": bytes(10),
    "Thumbs.db": bytes(10),
    "notes.txt": b"x",
    ".ipynb_checkpoints/a-checkpoint.png": PNG,
    "__MACOSX/._b.png": bytes(40),
}


def put_strays(folder):
    """Write STRAYS into a folder."""
    for name, data in STRAYS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


NAMES = {  # the listed name, the files there, and the file that is meant or the pattern of the message
    "as it stands": ("a.png", ["a.png", "a.jpg"], "a.png"),
    "another ending": ("a.jpg", ["a.webp", "ab.webp"], "a.webp"),
    "no ending": ("a", ["a.webp", "ab.webp"], "a.webp"),
    "dots": ("scan.v2.jpg", ["scan.v2.png", "scan.png"], "scan.v2.png"),
    "dots, no ending": ("scan.v2", ["scan.v2.png", "scan.v1.png"], "scan.v2.png"),
    "dots, not there": ("scan.v2.jpg", ["scan.png", "scan.v1.png"], "no file for scan.v2.jpg"),
    "brackets": ("a[1].jpg", ["a[1].png", "a1.png"], "a[1].png"),
    "brackets, not there": ("a[1].jpg", ["a1.png"], "no file for"),
    "star": ("a*.jpg", ["ab.png"], "no file for"),
    "another case": ("IMG_1.jpg", ["img_1.JPG"], "img_1.JPG"),
    "blanks": (" a.png ", ["a.png"], "a.png"),
    "two that could be meant": ("a.jpg", ["a.png", "a.webp"], "more than one file for a.jpg"),
    "hidden": ("a.png", ["._a.png"], "no file for"),
    "out of the folder": ("../a.png", ["b.png"], "no file for"),
}

# ---------------------------------------------------------------- tables


def tables(header, rows, name="t.csv"):
    """Variants of a good table: the first ones must give what the plain file gives."""

    def text(header=header, rows=rows, mark=",", end="\n"):
        return end.join(mark.join(map(str, row)) for row in [header, *rows]) + end

    plain, wide = text(), [[f" {cell} " for cell in row] for row in (header, *rows)]
    good = {
        "plain": plain.encode(),
        "byte-order mark": plain.encode("utf-8-sig"),
        "CRLF": text(end="\r\n").encode(),
        "UTF-16": plain.encode("utf-16"),
        "blanks": text(wide[0], wide[1:]).encode(),
        "blank lines at the end": (plain + "\n  \n").encode(),
        "quotes": text([f'"{cell}"' for cell in header], [[f'"{cell}"' for cell in row] for row in rows]).encode(),
        "gzip": gzip.compress(plain.encode()),
    }
    bad = {
        "empty": (b"", "empty"),
        "blank": (b" \n\n", "empty"),
        "header alone": (text(rows=[]).encode(), "no row"),
        "semicolons": (text(mark=";").encode(), "separator=';'"),
        "tabs": (text(mark="\t").encode(), r"separator='\\t'"),
        "a column twice": (text([header[0], *header[:-1]]).encode(), f"column '{header[0]}' is there twice"),
        "a column without name": (text(["", *header], [[1, *row] for row in rows]).encode(), "column 1 has no name"),
        "a column missing": (text([*header[:-1], "other"]).encode(), f"no column {header[-1]}"),
        "a line too long": (plain.encode() + (",".join(["1"] * (len(header) + 1)) + "\n").encode(), r"line \d+: "),
        "a line cut off": (plain.encode() + b"1\n", r"line \d+: 1 values for"),
        "Latin-1": (plain.encode() + ",".join(["café"] * len(header)).encode("latin-1"), "not UTF-8"),
        "web page": (WEB_PAGE, "web page"),
        "Excel": (ZIP, "zip"),
        "broken gzip": (gzip.compress(plain.encode())[:-9], "gzip"),
        "open quote": (plain.encode() + b'"' + b",1" * len(header), r"line \d+"),
    }
    return [Nasty(what, name, data) for what, data in good.items()] + [
        Nasty(what, name, data, words) for what, (data, words) in bad.items()
    ]


ON_2_MARCH = ["2021-03-02 00:00:00", "2021-03-02 01:00:00"]
TIMES = {  # cells, what is passed, the times that are meant or the pattern of the message
    "ISO": (ON_2_MARCH, {}, ON_2_MARCH),
    "ISO, slashes": (["2021/3/2 0:00", "2021/3/2 1:00"], {}, ON_2_MARCH),
    "named month": (["2 Mar 2021 00:00", "2 Mar 2021 01:00"], {}, ON_2_MARCH),
    "noon and midnight": (["03/15/2021 12:00 AM", "03/15/2021 12:00 PM"], {}, ["2021-03-15 00:00", "2021-03-15 12:00"]),
    "AM and PM, year first": (
        ["2021-03-15 1:00 AM", "2021-03-15 1:00 PM"],
        {},
        ["2021-03-15 01:00", "2021-03-15 13:00"],
    ),
    "day or month": (["01/02/2021", "02/02/2021"], {}, "day_first=True or day_first=False"),
    "day or month, told the first": (["01/02/2021"], {"day_first": True}, ["2021-02-01"]),
    "day or month, told the second": (["01/02/2021"], {"day_first": False}, ["2021-01-02"]),
    "day or month, with dots": (["01.02.2021 3:00"], {}, "day_first=True or day_first=False"),
    "the day shows later": (["01/02/2021", "13/02/2021"], {}, ["2021-02-01", "2021-02-13"]),
    "the month shows later": (["01/02/2021", "01/13/2021"], {}, ["2021-01-02", "2021-01-13"]),
    "told against the file": (["01/02/2021", "13/02/2021"], {"day_first": False}, "line 3: '13/02/2021' is not a time"),
    "two formats": (["2021-03-02", "03/02/2021"], {}, "line 3: '03/02/2021' is not a time"),
    "years of two digits": (["01/02/21"], {}, "time_format"),
    "months as whole numbers": (["202001", "202002"], {}, 'time_format .as "%Y%m".'),
    "months, told": (["202001", "202002"], {"time_format": "%Y%m"}, ["2020-01-01", "2020-02-01"]),
    "days as whole numbers": (["20200101"], {}, 'time_format .as "%Y%m%d".'),
    "Unix seconds": (["1577836800"], {}, 'time_unit .as "s"'),
    "Unix seconds, told": (["1577836800"], {"time_unit": "s"}, ["2020-01-01"]),
    "Unix milliseconds": (["1577836800000"], {}, 'time_unit .as "ms"'),
    "seconds read as nanoseconds": (["1577836800"], {"time_unit": "weeks"}, "cannot be used|not a time"),
    "one offset": (["2021-03-02 00:00:00+01:00", "2021-03-02 01:00:00+01:00"], {}, ON_2_MARCH),
    "mixed offsets": (["2021-03-02 00:00:00+01:00", "2021-03-02 01:00:00+02:00"], {}, "mixed UTC offsets.*utc=True"),
    "mixed offsets, told": (["2021-03-02 02:00:00+02:00", "2021-03-02 01:00:00Z"], {"utc": True}, ON_2_MARCH),
    "some with an offset": (["2021-03-02 00:00:00Z", "2021-03-02 01:00:00"], {}, "line 3: .* no UTC offset"),
    "nothing": (["2021-03-02", ""], {}, "line 3: '' is not a time"),
    "a word": (["yesterday", "2021-03-02"], {}, "line 2: 'yesterday' is not a time"),
    "no such day": (["2021-02-28", "2021-02-30"], {}, "line 3: '2021-02-30' is not a time"),
}

# ---------------------------------------------------------------- XML and text


def xmls(text, name="l.xml"):
    """Variants of a good XML text without declaration: the first ones must give what it gives."""
    root = re.match(r"<(\w+)", text)[1]
    declared = '<?xml version="1.0" encoding="{}"?>\n'
    good = {
        "plain": text.encode(),
        "declaration": (declared.format("utf-8") + text).encode(),
        "byte-order mark": text.encode("utf-8-sig"),
        "UTF-16": (declared.format("utf-16") + text).encode("utf-16"),
        "Latin-1, declared": (declared.format("ISO-8859-1") + text.replace(">", "><!-- é -->", 1)).encode("latin-1"),
        "GB2312, declared": (declared.format("GB2312") + text.replace(">", "><!-- 船 -->", 1)).encode("gb2312"),
        "blank line before the declaration": b"\n" + (declared.format("utf-8") + text).encode(),
        "CRLF": text.replace("\n", "\r\n").encode(),
        "namespace": text.replace(f"<{root}", f'<{root} xmlns="http://example.org/labels"', 1).encode(),
    }
    bad = {
        "empty": (b"", "empty"),
        "web page": (WEB_PAGE, "web page"),
        "XHTML": (XHTML, "web page"),
        "JSON": (b'{"objects": []}', "not readable XML"),
        "truncated": (text[: len(text) // 2].encode(), "not readable XML"),
        "another root": (
            text.replace(f"<{root}", "<other", 1).replace(f"</{root}", "</other").encode(),
            "root is <other>",
        ),
        "unknown encoding": ((declared.format("klingon") + text).encode(), "not readable XML"),
    }
    return [Nasty(what, name, data) for what, data in good.items()] + [
        Nasty(what, name, data, words) for what, (data, words) in bad.items()
    ]


def texts(text, name="l.txt"):
    """Variants of a good text file of labels, one object a line."""
    good = {"plain": text.encode(), "byte-order mark": text.encode("utf-8-sig"), "UTF-16": text.encode("utf-16"),
            "CRLF": text.replace("\n", "\r\n").encode(), "gaps": text.replace("\n", "\n\n").encode()}  # fmt: skip
    bad = {
        "web page": (WEB_PAGE, "line 1"),
        "JSON": (b'{"objects": []}', "line 1"),
        "bytes": (b"\x80\x81", "not UTF-8"),
    }
    return [Nasty(what, name, data) for what, data in good.items()] + [
        Nasty(what, name, data, words) for what, (data, words) in bad.items()
    ]


# ---------------------------------------------------------------- parquet and weights

SHARDS = {  # the files there, and the pattern of the message; "": all are read, in order
    "one": (["a/train-00000-of-00001.parquet"], ""),
    "two": (["a/train-00000-of-00002.parquet", "a/train-00001-of-00002.parquet"], ""),
    "one with a hash": (["a/train-00000-of-00001-9a83ea1b.parquet"], ""),
    "one with a name of its own": (["a/train-all.parquet"], ""),
    "the second is missing": (["a/train-00000-of-00002.parquet"], "train-00001-of-00002.parquet is missing"),
    "the first is missing": (["a/train-00001-of-00002.parquet"], "train-00000-of-00002.parquet is missing"),
    "the same in two folders": (
        ["a/train-00000-of-00001.parquet", "b/train-00000-of-00001.parquet"],
        "more than one folder .*a, .*b",
    ),
    "two sets": (
        ["a/train-00000-of-00001.parquet", "a/train-00000-of-00002.parquet", "a/train-00001-of-00002.parquet"],
        "more than one set",
    ),
    "a copy beside it": (["a/train-00000-of-00001.parquet", "a/train-00000-of-00001 (1).parquet"], "is not named"),
    "none": ([], r"no train-\*\.parquet"),
    "only hidden ones": ([".ipynb_checkpoints/train-00000-of-00001.parquet"], r"no train-\*\.parquet"),
}


def weights(state, name="w.safetensors"):
    """Variants of a good state dict's file."""
    data, words = save(state), "not a readable safetensors file"
    first = next(iter(state))
    eight = {f"{first}.q8": state[first].char(), f"{first}.scale": state[first].flatten()[:0]}
    return [
        Nasty("plain", name, data),
        Nasty("packed", f"{name}.xz", lzma.compress(data)),
        Nasty("empty", name, b"", f"{words}.*empty"),
        Nasty("empty and packed", f"{name}.xz", b"", words),
        Nasty("text", name, b"no weights", words),
        Nasty("web page", name, WEB_PAGE, f"{words}.*web page"),
        Nasty("Git LFS pointer", name, LFS, f"{words}.*git lfs pull"),
        Nasty("PyTorch's own format", name, ZIP, f"{words}.*zip"),
        Nasty("truncated", name, data[:-3], words),
        Nasty("packed and truncated", f"{name}.xz", lzma.compress(data)[:-20], words),
        Nasty("packed, not named so", name, lzma.compress(data), words),
        Nasty("no tensor", name, save({}), "without a tensor"),
        Nasty("8 bits without scales", name, save(eight), f"{re.escape(first)}.scale is missing"),
    ]


def by_name(folder, names):
    """Empty files of these names in a folder: their paths, in this order."""
    paths = [Path(folder) / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return paths
