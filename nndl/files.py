"""The one place where rooms read files: pictures, tables, XML and text, parquet, weights; and where they fetch them.

Every function raises DataError with one line that names the file and, where it can, line, column, object and remedy.
Nothing is guessed: where two readings are possible, the line names the argument that settles it.
"""

import csv
import gzip
import io
import lzma
import re
import tempfile
import zlib
from collections import Counter, defaultdict
from contextlib import suppress
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
from PIL import Image, ImageOps, UnidentifiedImageError


class DataError(Exception):
    """Data that cannot be used; one line that names the file at fault and what to do."""


def one_line(error):
    """An exception's message without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__


def foreign(data):
    """What lies under a wrong name, in words, where the first bytes tell; "" where they don't."""
    head = data[:400].lower()
    if not data.strip(b"\xef\xbb\xbf \t\r\n"):
        return "it is empty"
    if b"<html" in head or b"<!doctype html" in head:
        return "it is a web page, as a failed download leaves it"
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer: `git lfs pull` brings the file"
    if head.startswith(b"pk\x03\x04"):
        return "it is a zip archive (.xlsx, .npz and PyTorch's .pt are zip archives too)"
    return ""


def read_bytes(path):
    """A file's bytes."""
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


def as_text(data, where):
    """Bytes as text: UTF-8, or UTF-16 behind its byte-order mark; the mark is taken off. Text loses its mark too."""
    if isinstance(data, str):
        return data.removeprefix("\ufeff")
    try:
        return data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        found = f"byte {error.start} is {data[error.start]:#x}" if error.start < len(data) else error.reason
        raise DataError(f"{where}: not UTF-8 text ({found}); save it as UTF-8") from None


# ---------------------------------------------------------------- pictures: which files

NO_PICTURES = {"BUFR", "EPS", "FITS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"}  # known to Pillow, but no pixels to read
PICTURES = frozenset(e for e, kind in Image.registered_extensions().items() if kind in set(Image.OPEN) - NO_PICTURES)
SYSTEM = {"thumbs.db", "desktop.ini", "__macosx", "@eadir"}


def is_system(path):
    """Whether a file or folder is hidden or made by a file manager: .ipynb_checkpoints, ._x.png, Thumbs.db, ..."""
    return path.name.startswith(".") or path.name.lower() in SYSTEM


def is_picture(path):
    """Whether a file's ending is one of a picture, in any case, and the file is no system file."""
    return path.suffix.lower() in PICTURES and not is_system(path)


def entries(folder):
    """What lies in a folder, sorted by name."""
    if not Path(folder).is_dir():
        raise DataError(f"{folder}: no such folder")
    return sorted(Path(folder).iterdir())


def list_pictures(folder):
    """The picture files of a folder, sorted, and the paths of all else that lies there and is not read.

    A folder of pictures inside is refused: masks, copies, another class? Only the user knows.
    """
    pictures, skipped = [], []
    for path in entries(folder):
        if path.is_dir() and not is_system(path) and any(is_picture(inside) for inside in path.rglob("*")):
            raise DataError(
                f"{path}: a folder of pictures where pictures are expected; move them up or out of {folder}"
            )
        (pictures if is_picture(path) and path.is_file() else skipped).append(path)
    return pictures, skipped


def class_folders(folder):
    """The names of a folder's class folders, sorted, and the paths of all else; a picture beside them is refused."""
    names, skipped = [], []
    for path in entries(folder):
        if is_picture(path) and path.is_file():
            raise DataError(f"{path}: a picture outside the class folders; move it into its class")
        if path.is_dir() and not is_system(path):
            names.append(path.name)
        else:
            skipped.append(path)
    return names, skipped


def skipped_note(skipped):
    """What was not read, counted and named: "3 files not read: notes.txt, Thumbs.db, x.csv", or ""."""
    names = sorted({path.name for path in skipped})
    more = ", ..." if len(names) > 5 else ""
    return f"{len(skipped)} files not read: {', '.join(names[:5])}{more}" if skipped else ""


def stem(name):
    """A name without the ending of a picture, in small letters; other dots stay: "Scan.v2.PNG" is "scan.v2"."""
    name = name.casefold()
    return name[: -len(Path(name).suffix)] if Path(name).suffix in PICTURES else name


def match_pictures(folder, names):
    """The path of the picture in a folder for each name of a table, in the names' order.

    A file of exactly this name is taken, else the only one that differs in case and ending alone (a table often says
    a.jpg where a.webp lies). Dots and brackets in names mean themselves.
    """
    files, _ = list_pictures(folder)
    exact, loose, found = {file.name: file for file in files}, defaultdict(list), []
    for file in files:
        loose[stem(file.name)].append(file)
    for name in (str(name).strip() for name in names):
        candidates = [exact[name]] if name in exact else loose[stem(name)]
        if len(candidates) != 1:
            several = f"more than one file for {name}: {', '.join(file.name for file in candidates)}; keep one"
            raise DataError(f"{folder}: {several if candidates else f'no file for {name}'}")
        found += candidates
    return found


# ---------------------------------------------------------------- pictures: pixels


def open_picture(data, where, upright):
    """Bytes as a Pillow picture (an animation's first), and for 16-bit grey its light (H, W) in [0, 1], else None.

    upright: turned as its EXIF entry says. 32-bit and floating point pixels are refused: nothing says what is white.
    """
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
        kind, tags = image.format, getattr(image, "tag_v2", {})
        image = ImageOps.exif_transpose(image) if upright else image
    except UnidentifiedImageError:
        reason = foreign(data) or "broken, or of no format that is known"
        raise DataError(f"{where}: not a readable picture ({reason})") from None
    except Exception as error:  # Pillow's readers raise a dozen kinds on broken files, and one on bombs
        raise DataError(f"{where}: not a readable picture ({one_line(error)})") from None
    if image.mode in ("F", "LAB") or (image.mode == "I" and kind not in ("PNG", "PPM")):
        pixels = {"F": "floating point", "LAB": "LAB"}.get(image.mode, "32-bit")
        raise DataError(f"{where}: not a readable picture ({pixels} pixels; save it as grey or RGB of 8 or 16 bits)")
    if not image.mode.startswith("I"):
        return image, None
    bits = tags.get(258, (16,))[0]  # of a TIFF: Pillow hands out 12 bits as they are, and leaves white 0 where it is 0
    light = np.asarray(image).astype(np.float32) / (2**bits - 1)
    return image, 1 - light if tags.get(262) == 0 else light


def picture_format(data):
    """The format of a picture's bytes, as "PNG"; None for other bytes, and for an array."""
    try:
        return Image.open(io.BytesIO(data)).format if isinstance(data, bytes) else None
    except Exception:  # broken: whoever decodes it will say so
        return None


def decode_grey(data, where, upright=True):
    """A picture's bytes as grey float32 (H, W) in [0, 1]; 16 bits are kept, transparent places are black."""
    image, light = open_picture(data, where, upright)
    if light is not None:
        return light
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
    return np.asarray(image.convert("L")).astype(np.float32) / 255


def decode_rgb(data, where, upright=True):
    """A picture's bytes as RGB uint8 (H, W, 3); grey is repeated, transparency is dropped."""
    image, light = open_picture(data, where, upright)
    if light is not None:
        return np.stack([(255 * light).round().astype(np.uint8)] * 3, axis=-1)
    return np.asarray(image.convert("RGB"))


def labelled_pictures(folder, size):
    """Pictures in images/ that labels.csv (image, label) lists: RGB (N, size, size, 3) uint8, labels (N,) int64.

    Each is cut to its middle; one that is smaller is refused.
    """
    folder, images = Path(folder), []
    table = read_table(folder / "labels.csv", ("image", "label"))
    for file in match_pictures(folder / "images", table["image"]):
        image = decode_rgb(read_bytes(file), file)
        top, left = (image.shape[0] - size) // 2, (image.shape[1] - size) // 2
        if min(top, left) < 0:
            raise DataError(f"{file}: {image.shape[1]}x{image.shape[0]} pixels, smaller than {size}")
        images.append(image[top : top + size, left : left + size])
    return np.stack(images), numbers(table, "label", whole=True)


# ---------------------------------------------------------------- tables


def read_table(path, columns=(), separator=",", decimal=None):
    """A CSV file, also gzipped, as a DataFrame of text without outer blanks; its index is the line in the file.

    decimal: the mark in its numbers, "." or ","; `numbers` says what None means.
    Refused: a file without rows, another separator, a column without name or twice, lines of another length, and a
    table without one of `columns`.
    """
    data = read_bytes(path)
    try:
        data = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: not a CSV that can be read (broken gzip: {one_line(error)})") from None
    if reason := foreign(data):
        raise DataError(f"{path}: not a CSV that can be read ({reason})")
    lines, rows = csv.reader(io.StringIO(as_text(data, path), newline=""), delimiter=separator, strict=True), {}
    try:
        for row in lines:
            if len(row) > 1 or "".join(row).strip():
                rows[lines.line_num] = [cell.strip() for cell in row]
    except csv.Error as error:
        raise DataError(f"{path}, line {lines.line_num}: not a CSV that can be read ({one_line(error)})") from None
    if not rows:
        raise DataError(f"{path}: not a CSV that can be read (it is empty)")
    header = rows.pop(min(rows))
    others = [mark for mark in ";\t|," if mark in header[0]]
    if len(header) == 1 and others:
        raise DataError(f"{path}: its columns are not separated by {separator!r}; pass separator={others[0]!r}")
    if "" in header:
        raise DataError(f"{path}: column {header.index('') + 1} has no name (a saved index?); name it or take it out")
    if twice := [name for name, count in Counter(header).items() if count > 1]:
        raise DataError(f"{path}: column {twice[0]!r} is there twice; keep one")
    if missing := set(columns) - set(header):
        raise DataError(f"{path}: no column {', '.join(sorted(missing))}; there are: {', '.join(header)}")
    if not rows:
        raise DataError(f"{path}: a header, but no row below it")
    for line, row in rows.items():
        if len(row) != len(header):
            raise DataError(f"{path}, line {line}: {len(row)} values for {len(header)} columns: {','.join(row)[:60]!r}")
    table = pd.DataFrame(list(rows.values()), columns=header, index=list(rows), dtype=object)
    table.attrs.update(path=str(path), separator=separator, decimal=decimal)
    return table


NOT_MEASURED = {"", "nan", "na", "n/a", "null", "none", "<na>"}


THOUSANDS = r"[+-]?[1-9]\d{0,2}(\.\d{3})+(,\d*)?"  # 1.234.567,8
EITHER = r"[+-]?[1-9]\d{0,2}\.\d{3}"  # 1.234: a good number with a decimal point, and with one for thousands


def numbers(table, column, missing=(), whole=False, decimal=None):
    """A column of `read_table` as float64 (rows,), NaN for NOT_MEASURED and the marks of `missing`.

    missing: a text or number, or several; a mark that is a number means all its spellings: -99 is "-99.0" too.
    whole: as int64, and nothing may be missing. decimal: "." or ","; with "," points may part thousands. None: as told
    to `read_table`, else "."; but where ";" separates the columns, numbers such as 1.234 alone are refused until it is
    told. Anything else, infinity too, is refused with its line.
    """
    told, cells = decimal or table.attrs.get("decimal"), table[column]

    def refuse(guilty, words):
        where = f"{table.attrs['path']}, line {guilty.index[0]}, column {column!r}"
        raise DataError(f"{where}: {guilty.iloc[0]!r} {words(guilty.iloc[0])}")

    if told not in (None, ".", ","):
        raise DataError(f'{table.attrs["path"]}: decimal={told!r} is no mark; pass decimal="." or decimal=","')
    values = np.array([number(cell, told) for cell in cells], dtype=np.float64)
    lost = np.zeros(len(cells), bool) if whole else not_measured(cells, values, missing, told)
    marked = cells[~lost & cells.str.contains("[.,]").to_numpy(bool)]
    if told is None and table.attrs.get("separator") == ";" and len(marked) and marked.str.fullmatch(EITHER).all():
        both = 'may be {} or {}, as all with a point in this column; pass decimal="." or decimal=","'
        refuse(marked, lambda cell: both.format(cell, cell.replace(".", "")))
    wrong = ~lost & (~np.isfinite(values) | (whole & (values != np.trunc(values))))
    if wrong.any():
        refuse(cells[wrong], lambda cell: not_a_number(cell, told or ".", whole))
    return values.astype(np.int64) if whole else np.where(lost, np.nan, values)


def number(cell, decimal):
    """One cell as a float, NaN where it is no number; decimal: "," or another, which means "."."""
    if decimal == ",":
        if "." in cell and not re.fullmatch(THOUSANDS, cell):
            return np.nan
        cell = cell.replace(".", "").replace(",", ".")
    try:
        return float(cell.replace("_", "?"))  # Python alone would read 1_0 as 10
    except ValueError:
        return np.nan


def not_measured(cells, values, missing, decimal):
    """Where (rows,) a cell, or the value that was read from it, is NOT_MEASURED or a mark of `missing`."""
    marks = [missing] if np.isscalar(missing) else [] if missing is None else list(missing)
    texts = {str(mark).strip() for mark in marks}
    meant = [number(str(mark).strip(), decimal if isinstance(mark, str) else ".") for mark in marks]
    return (cells.isin(texts) | cells.str.lower().isin(NOT_MEASURED)).to_numpy() | np.isin(values, meant)


def not_a_number(cell, decimal, whole):
    """What is wrong with a cell and what to do: a number with other marks must not be called missing."""
    wrong, ways = "is not a whole number" if whole else "is not a number", []
    if decimal == "." and np.isfinite(number(cell, ",")) and not np.isfinite(number(cell, ".")):
        ways.append('pass decimal=","')
    if decimal == "," and "." in cell and np.isfinite(number(cell, ".")):
        ways.append('pass decimal="."')
        wrong += ' with decimal=",", where points stand in front of three digits alone'
    if re.fullmatch(r"[+-]?\d{1,3}(,\d{3})+(\.\d*)?", cell):
        ways.append("take out the commas, if they part thousands")
    if ways or whole:
        return "; ".join(filter(None, (wrong, ", or ".join(ways))))
    return f"{wrong} (missing=({cell!r},): was not measured)"


# behind hours, so that the end of 2021-03-02 is none: 00:00:00.5+01:00, 3:00 PM Z, 2021-03-02T00+0100, 20210302T0000Z
OFFSET = r"(?:(?::\d\d|\dT\d\d(?:\d\d){0,2}|-\d\d \d\d)(?:[.,]\d+)?|[AP]M)\s*(Z|[+-][01]\d(?::?[0-5]\d)?)$"


def times(table, column, day_first=None, time_format=None, time_unit=None, utc=False):
    """A column of `read_table` as times without zone, a DatetimeIndex: one format for all rows, never guessed.

    day_first: True for 31/1/2021, False for 1/31/2021, needed where both could be meant. time_format: as strptime's.
    time_unit: "s", "ms", ... of numbers that count from 1970. utc: True for all rows as UTC, needed where UTC offsets
    differ, as between winter and summer; else the offset that all rows have is taken off.
    """
    cells, where = table[column], f"{table.attrs['path']}, column {column!r}"

    def parse(form, **options):
        try:
            return pd.to_datetime(cells, format=form, errors="coerce", utc=utc, **options)
        except (ValueError, TypeError) as error:  # a format or unit that is none, or offsets that differ
            if not utc and "utc=True" in str(error):
                zones = cells.map(lambda cell: pd.to_datetime(cell, format=form, errors="coerce").tzinfo)
                refuse_offsets(zones.dropna())
            raise DataError(f"{where}: {form!r} cannot be used ({one_line(error)})") from None

    def refuse_offsets(offsets):
        """One line for UTC offsets (rows,) that differ, at the first one that is not as the first row's."""
        line = offsets.index[offsets != offsets.iloc[0]][0]
        raise DataError(f"{where}, line {line}: mixed UTC offsets: {table[column][line]!r}; pass utc=True")

    def whole_column(stamps, remedy="; mend it, or pass time_format"):
        if stamps.isna().any():
            line = stamps.index[stamps.isna()][0]
            raise DataError(f"{where}, line {line}: {table[column][line]!r} is not a time{remedy}")
        return pd.DatetimeIndex(stamps, name=None).tz_localize(None)

    if time_unit is not None:
        cells = pd.Series(numbers(table, column), cells.index)
        return whole_column(parse(None, unit=time_unit), f" counted in {time_unit!r}")
    if time_format is not None:
        return whole_column(parse(time_format), f" of the format {time_format!r}")
    counts = cells[cells.str.fullmatch(r"[+-]?\d+(\.\d*)?")]
    if len(counts):
        count, digits = counts.iloc[0], len(counts.iloc[0])
        form, unit = {4: "%Y", 6: "%Y%m", 8: "%Y%m%d"}.get(digits, "%Y%m%d%H"), "s" if digits < 12 else "ms"
        ways = f'time_format (as "{form}") or time_unit (as "{unit}", since 1970)'
        raise DataError(f"{where}, line {counts.index[0]}: {count!r} may be a date or a count; pass {ways}")
    offsets = cells.str.extract(OFFSET, flags=re.IGNORECASE, expand=False)
    if offsets.notna().any() and offsets.isna().any():
        line = offsets.index[offsets.isna()][0]
        raise DataError(f"{where}, line {line}: {cells[line]!r} has no UTC offset, others have one")
    if offsets.isna().all():
        return whole_column(*one_format(parse, cells, where, day_first))
    # read without them, as all other times are: pandas knows offsets in few formats
    ahead = offsets.map(time_ahead)
    if ahead.nunique() > 1 and not utc:
        refuse_offsets(ahead)
    cells = pd.Series([cell[: -len(zone)].strip() for cell, zone in zip(cells, offsets)], cells.index)
    stamps, remedy = one_format(parse, cells, where, day_first)
    return whole_column(stamps - ahead if utc else stamps, remedy)


def time_ahead(offset):
    """How far a UTC offset such as Z, +01, -0330 or +05:30 is ahead of UTC."""
    digits = re.sub(r"\D", "", offset).ljust(4, "0")
    ahead = pd.Timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return -ahead if offset.startswith("-") else ahead


def one_format(parse, cells, where, day_first):
    """Times (rows,) of cells without UTC offset, NaT where one is not of the only format, and what remedies that."""
    first = cells.iloc[0]
    if re.match(r"\d{4}\D", first) and parse("ISO8601").notna().all():
        return parse("ISO8601"), ""
    if numeric := re.match(r"\d{1,2}([/.\- ])\d{1,2}\1(\d{4}|\d{2})(?!\d)", first):
        told = "" if day_first is None else f" with day_first={day_first}"
        return day_or_month_first(parse, numeric, first, where, day_first), f"{told}; mend it, or pass time_format"
    form = time_format_of(first)
    if form is None:
        raise DataError(f"{where}, line {cells.index[0]}: {first!r} is not a time that is known; pass time_format")
    return parse(form), f" of the format {form!r}, as the first row is; pass time_format"


def time_format_of(cell, dayfirst=False):
    """The strptime format of one time in text, or None; pandas' own guess knows no AM and PM."""
    half = re.search(r"\s*[AP]M$", cell, re.IGNORECASE)
    form = pd.tseries.api.guess_datetime_format(cell[: half.start()] if half else cell, dayfirst=dayfirst)
    return form.replace("%H", "%I") + half[0][:-2] + "%p" if form and half else form


def day_or_month_first(parse, numeric, first, where, day_first):
    """Times of a column such as 1/2/2021 3:00, by the only reading that fits all rows, or by `day_first`."""
    mark, year = numeric.groups()
    if len(year) == 2:
        raise DataError(f'{where}: {first!r} has a year of two digits; pass time_format, as "%d{mark}%m{mark}%y"')
    sample = f"31{mark}12{mark}2000{first[numeric.end() :]}"  # no doubt here: shows the format of the hours
    form = time_format_of(sample, dayfirst=True) or f"%d{mark}%m{mark}%Y"
    swapped = re.sub("%[dm]", lambda found: {"%d": "%m", "%m": "%d"}[found[0]], form)
    readings = {True: parse(form), False: parse(swapped)}
    if day_first is not None:
        return readings[day_first]
    fits = [stamps for stamps in readings.values() if stamps.notna().all()]
    if len(fits) == 2 and not fits[0].equals(fits[1]):
        raise DataError(
            f"{where}: {first!r} may begin with the day or the month; pass day_first=True or day_first=False"
        )
    return fits[0] if fits else max(readings.values(), key=lambda stamps: stamps.notna().sum())


# ---------------------------------------------------------------- XML and flags


def parse_xml(data, where, root):
    """The root element of XML (bytes or text), tags without namespaces; refused where the root is not called `root`."""
    try:
        data = data.lstrip(b" \t\r\n" if isinstance(data, bytes) else "\ufeff \t\r\n")
        if isinstance(data, bytes) and (named := re.match(rb"""<\?xml[^>]*encoding=["']([\w.-]+)""", data)):
            data = data.decode(named[1].decode())  # expat knows few encodings
        tree = ElementTree.fromstring(data)
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        reason = foreign(data.encode() if isinstance(data, str) else data) or one_line(error)
        raise DataError(f"{where}: not readable XML ({reason})") from None
    for element in tree.iter():
        if isinstance(element.tag, str):
            element.tag = element.tag.rpartition("}")[2]
    if tree.tag != root:
        kind = "a web page" if tree.tag == "html" else f"XML of another kind: its root is <{tree.tag}>"
        raise DataError(f"{where}: {kind}, <{root}> is expected")
    return tree


def flag(text, where):
    """Whether a flag is set: a whole number other than 0, true or yes; 0, false, no and nothing are not."""
    word = (text or "").strip().lower()
    if word.isdecimal():
        return int(word) != 0
    if word not in ("", "false", "no", "true", "yes"):
        raise DataError(f"{where}: {word!r} is not a flag; 0 or 1 is expected")
    return word in ("true", "yes")


# ---------------------------------------------------------------- parquet and weights


def shards(folder, part):
    """The files <part>-00000-of-0000N.parquet below a folder, sorted: all of them, and each once."""
    files = sorted(
        path
        for path in Path(folder).rglob(f"{part}-*.parquet")
        if not any(is_system(p) for p in path.relative_to(folder).parents)
    )
    if not files:
        raise DataError(f"{folder}: no {part}-*.parquet")
    if len({file.parent for file in files}) > 1:
        places = ", ".join(sorted({str(file.parent) for file in files}))
        raise DataError(f"{folder}: {part}-*.parquet lies in more than one folder ({places}); keep one")
    named = [re.fullmatch(rf"{part}-(\d+)-of-(\d+)(-\w+)?\.parquet", file.name) for file in files]
    if not all(named):
        if len(files) > 1:
            other = files[named.index(None)]
            raise DataError(f"{other}: lies beside {len(files) - 1} other files and is not named {part}-00000-of-0000N")
        return files
    there, total = [int(name[1]) for name in named], {int(name[2]) for name in named}
    if len(total) > 1 or len(set(there)) < len(there):
        raise DataError(f"{files[0].parent}: {part}-*.parquet of more than one set of shards; keep one")
    if missing := sorted(set(range(max(total))) - set(there)):
        raise DataError(f"{files[0].parent}: {part}-{missing[0]:05d}-of-{max(total):05d}.parquet is missing")
    return files


def read_parquet(path, columns):
    """A parquet file as a pyarrow table; refused without one of `columns`."""
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (OSError, ValueError) as error:  # pyarrow's ArrowInvalid is a ValueError
        raise DataError(
            f"{path}: not a readable parquet file ({foreign(read_bytes(path)) or one_line(error)})"
        ) from None
    if missing := set(columns) - set(table.column_names):
        raise DataError(f"{path}: no column {', '.join(sorted(missing))}; there are: {', '.join(table.column_names)}")
    return table


def load_weights(path):
    """The state dict of a .safetensors file, also packed as .xz; nothing is unpickled.

    Weights stored as name.q8 (int8) and name.scale (one for each output channel) become name, their product (float32).
    """
    from safetensors.torch import load

    path, data = Path(path), read_bytes(path)
    try:
        raw = load(lzma.decompress(data) if path.suffix == ".xz" else data)
    except Exception as error:  # safetensors, lzma and torch each have their own
        raise DataError(f"{path}: not a readable safetensors file ({foreign(data) or one_line(error)})") from None
    if not raw:
        raise DataError(f"{path}: a safetensors file without a tensor")
    state = {name: tensor for name, tensor in raw.items() if not name.endswith((".q8", ".scale"))}
    for name in (name.removesuffix(".q8") for name in raw if name.endswith(".q8")):
        whole, scale = raw[f"{name}.q8"].float(), raw.get(f"{name}.scale")
        if scale is None or scale.numel() != len(whole):
            raise DataError(f"{path}: {name}.scale is missing, or not one number for each of {len(whole)} channels")
        state[name] = whole * scale.float().view(-1, *[1] * (whole.ndim - 1))
    return state


def fit_weights(net, state, where):
    """Load a state dict into a network; DataError names `where` and the first tensor that does not fit."""
    own = net.state_dict()
    for name in sorted(own.keys() | state.keys()):
        ours, theirs = (tuple(part[name].shape) if name in part else None for part in (own, state))
        if ours != theirs:
            raise DataError(f"{where}: {name} does not fit: the network has {ours}, the file {theirs}")
    net.load_state_dict(state)
    return net


# ---------------------------------------------------------------- downloads


def download(target, fetch, by_hand):
    """Bring a file or folder that is not there: whole or not at all, however it ends.

    fetch(folder) fills an empty folder beside the target and returns the path in it that is to become the target.
    by_hand: what a person can do instead, the end of the message.
    """
    target = Path(target)
    made = [parent for parent in target.parents if not parent.exists()]  # the deepest first
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as folder:
            fetch(Path(folder)).rename(target)
    except Exception as error:
        raise DataError(f"{target}: the download failed ({one_line(error)}); {by_hand}") from None
    finally:
        for parent in made:
            with suppress(OSError):  # not empty: there is the target
                parent.rmdir()
    return target
