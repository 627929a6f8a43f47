"""What the Makefile calls: run the assignments, execute the committed notebooks, write the tables, copy lab.py.

python course.py run [room] --profile demo     execute the notebooks; pages in _build/, the notebooks stay as they are
python course.py execute room                  execute the committed notebooks in place (demo) and clean their bytes
python course.py readme [--check]              write (or only compare) the tables of the READMEs
python course.py sync                          copy lab.py from CA5_vit to the other rooms
"""

import argparse
import base64
import html
import io
import json
import math
import os
import re
import shutil
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbconvert import HTMLExporter
from PIL import Image
from traitlets.config import Config

ROOT = Path(__file__).resolve().parent
BUILD = ROOT / "_build"
PROFILES = ("tiny", "demo", "full")
NOTEBOOKS = ("description", "code", "report")  # in the order in which they run: the report reads what the code wrote
LAB_SOURCE = "CA5_vit"
MAX_NOTEBOOK = 800_000  # bytes
MAX_PNG = 30_000  # bytes; larger pictures in outputs get a palette
MACHINE_PATH = re.compile(rf"(?<![\w.])(?:{re.escape(str(ROOT))}\b|/(?:work|root|home|tmp)/)[^\s'\"]*")
WARNING = re.compile(r"\b[A-Z]\w*Warning:")

# The twelve rooms, each with its question in one line.
ROOMS = {
    "CA2_covid_cnn": "COVID-19 on chest X-rays with a CNN: disease, or the hospital that made the picture?",
    "CA2_vehicle_cnn": "Vehicle classes: a CNN end to end against a support vector machine on its features",
    "CA3_fast_scnn": "Fast-SCNN: real-time segmentation of street scenes",
    "CA3_oriented_rcnn": "Oriented R-CNN: rotated boxes in aerial pictures",
    "CA4_captioning": "Image captions with LSTM and GRU, with and without Bahdanau attention",
    "CA4_timeseries": "Recurrent forecasting of a time series that says how sure it is",
    "CA5_vit": "A vision transformer from scratch",
    "CA5_clip_attack": "CLIP: adversarial attacks, and defences by LoRA, TeCoA and visual prompts",
    "CA6_cyclegan_uda": "CycleGAN: from MNIST to MNIST-M without labels in the target domain",
    "CA6_vae": "Variational autoencoders that find anomalies",
    "CAe_cnn_vit_attack": "CNN against vision transformer under adversarial attack",
    "CAe_persian_captioning": "Persian image captions with a transformer",
}


class CourseError(Exception):
    """Something that cannot be done; the message is all that is shown."""


class UsageError(CourseError):
    """A name that does not exist; the same, with exit status 2."""


def existing_rooms():
    """The rooms that have notebooks, in the course's order."""
    return [room for room in ROOMS if any((ROOT / room).glob("*.ipynb"))]


def chosen_rooms(room):
    """One room by its name, or all that exist."""
    rooms = existing_rooms()
    if room and room not in rooms:
        why = "not there yet" if room in ROOMS else "no such assignment"
        raise UsageError(f"{room}: {why}; there are: {', '.join(rooms) or 'none'}")
    return [room] if room else rooms


# ---------------------------------------------------------------- executing a notebook


def clock(seconds):
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


class Progress:
    """`CA5_vit/code.ipynb  cell 12/40  0:35`: one living line on a terminal, elsewhere a line every ten seconds."""

    def __init__(self, name, total):
        self.name, self.total, self.cell = name, total, 0
        self.begin, self.over = time.monotonic(), threading.Event()
        self.thread = threading.Thread(target=self.tick, daemon=True)
        self.thread.start()

    def line(self):
        return f"{self.name}  cell {self.cell}/{self.total}  {clock(time.monotonic() - self.begin)}"

    def tick(self):
        live = sys.stdout.isatty()
        while not self.over.wait(1 if live else 10):
            print(f"\r{self.line()}" if live else self.line(), end="" if live else "\n", flush=True)

    def close(self, word):
        self.over.set()
        self.thread.join()
        start = "\r" if sys.stdout.isatty() else ""
        print(f"{start}{self.line()}  {word}", flush=True)


def run_notebook(path):
    """Execute a notebook from a clean kernel in its own folder; returns it with outputs. CourseError on a failing cell.

    Cells are counted as Jupyter counts them: code cells only, from 1.
    """
    name = path.relative_to(ROOT)
    notebook = nbformat.read(path, as_version=4)
    code = [i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code" and cell.source.strip()]
    progress = Progress(name, len(code))

    def count(cell, cell_index, **_):
        if cell_index in code:
            progress.cell = code.index(cell_index) + 1

    client = NotebookClient(
        notebook,
        timeout=None,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        extra_arguments=["--IPKernelApp.log_level=ERROR"],  # it warns at every start that it talks over local TCP
        on_cell_start=count,
    )
    word = "FAILED"
    try:
        client.execute()
        word = "ok"
    except CellExecutionError as error:
        last = (error.evalue or "").strip().splitlines() or [""]
        raise CourseError(f"{name}, cell {progress.cell}: {error.ename}: {last[-1]}") from None
    except DeadKernelError:
        raise CourseError(f"{name}, cell {progress.cell}: the kernel died (out of memory?)") from None
    finally:
        progress.close(word)
    return without_widgets(notebook)


WIDGET = "application/vnd.jupyter.widget-view+json"


def without_widgets(notebook):
    """Take out progress bars: outside a live notebook a widget is one dead line for each bar."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]
    return notebook


@contextmanager
def environment(profile):
    """What the kernels see: the profile, and no progress bars, because nobody watches those cells."""
    before = dict(os.environ)
    os.environ |= {"NNDL_PROFILE": profile, "TQDM_DISABLE": "1"}
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as in the Makefile
    try:
        yield
    finally:
        os.environ.clear()
        os.environ |= before


# ---------------------------------------------------------------- run


def run(room, profile):
    """Execute the rooms' notebooks and write them as pages under _build/."""
    if profile not in PROFILES:
        raise UsageError(f"{profile}: no such profile; there are: {', '.join(PROFILES)}")
    rooms = chosen_rooms(room)
    BUILD.mkdir(exist_ok=True)
    # cells tagged hide-input show only what comes out: a report begins with its answers
    hide = {"TagRemovePreprocessor": {"enabled": True, "remove_input_tags": {"hide-input"}}}
    exporter = HTMLExporter(config=Config(hide))
    with environment(profile):
        for room in rooms:
            for name in [name for name in NOTEBOOKS if (ROOT / room / f"{name}.ipynb").exists()]:
                notebook = run_notebook(ROOT / room / f"{name}.ipynb")
                page, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": f"{room}: {name}"}})
                (BUILD / room).mkdir(exist_ok=True)
                (BUILD / room / f"{name}.html").write_text(page)
                (BUILD / "index.html").write_text(index_page(profile))
    print(f"pages: {BUILD / 'index.html'}")


def index_page(profile):
    """The list of what has been built, with the headline results of the records."""
    built = []
    for room, topic in ROOMS.items():
        pages = [name for name in NOTEBOOKS if (BUILD / room / f"{name}.html").exists()]
        if pages:
            links = " ".join(f'<a href="{room}/{name}.html">{name}</a>' for name in pages)
            built.append(f"<tr><td>{room}</td><td>{html.escape(topic)}</td><td>{links}</td></tr>")
    profiles = ("tiny",) if profile == "tiny" else ("full", "demo")
    rows = [row for room in existing_rooms() for row in result_rows(room, True, profiles)]
    results = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    head = "".join(f"<th>{name}</th>" for name in COLUMNS)
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Neural networks and deep learning</title>
<style>body{{font:16px/1.5 sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}}
table{{border-collapse:collapse}}td,th{{border-bottom:1px solid #ccc;padding:.4rem .8rem;text-align:left}}</style>
<h1>Neural networks and deep learning</h1>
<table>{"".join(built)}</table>
<h2>Results</h2>
<table><tr>{head}</tr>{results}</table>
</html>
"""


# ---------------------------------------------------------------- execute


def execute(room):
    """Execute a room's committed notebooks in place under demo. One that would not be fit to commit stays as it was."""
    if not room:
        raise UsageError("which assignment? e.g. make execute A=CA5_vit")
    chosen_rooms(room)
    with environment("demo"):
        for name in ("NNDL_SET", "NNDL_TRACK", "NNDL_DOWNLOAD"):  # committed outputs come from the settings as they are
            os.environ.pop(name, None)
        for name in NOTEBOOKS:
            path = ROOT / room / f"{name}.ipynb"
            notebook = clean(run_notebook(path))
            text = nbformat.writes(notebook) + "\n"
            problems = unfit(notebook)
            if len(text.encode()) > MAX_NOTEBOOK:
                problems.append(f"{len(text.encode()) / 1e6:.2f} MB, more than {MAX_NOTEBOOK / 1e6} MB")
            if problems:
                listed = "\n  ".join(problems)
                raise CourseError(f"{path.relative_to(ROOT)} is left as it was:\n  {listed}")
            part = path.with_name(path.name + ".part")
            part.write_text(text)
            os.replace(part, path)
            if name == "report":
                save_first_figure(notebook, path.parent / "figures" / "report.png")


def save_first_figure(notebook, path):
    """Write the first picture of a notebook's outputs to a file, for the README of its room."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    if pictures:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(base64.b64decode(pictures[0]))


def clean(notebook):
    """Take out what differs from run to run and from machine to machine; cell ids, tags and counts stay."""
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            # without the ending, nbconvert --to script writes .txt
            "language_info": {"name": "python", "file_extension": ".py", "pygments_lexer": "ipython3"},
        }
    )
    for cell in notebook.cells:
        for key in ("execution", "papermill", "ExecuteTime", "lines_to_next_cell"):
            cell.metadata.pop(key, None)
        for output in cell.get("outputs", []):
            output.get("metadata", {}).pop("papermill", None)
            data = output.get("data", {})
            if "image/png" in data:
                data["image/png"] = smaller_png(data["image/png"])
    return notebook


def smaller_png(text):
    """A PNG (base64) over 30 KB with a palette of 256 colours, if that makes it smaller; its size in pixels stays."""
    raw = base64.b64decode(text)
    if len(raw) <= MAX_PNG:
        return text
    picture = Image.open(io.BytesIO(raw)).convert("RGBA")
    paper = Image.new("RGBA", picture.size, "white")
    out = io.BytesIO()
    Image.alpha_composite(paper, picture).convert("RGB").quantize(256).save(out, "png", optimize=True)
    return base64.b64encode(out.getvalue()).decode() if len(out.getvalue()) < len(raw) else text


def output_texts(output):
    """All text in one output of a cell; pictures are left out."""
    if output.output_type == "stream":
        yield output.text
    elif output.output_type == "error":
        yield "\n".join(output.traceback)
    else:
        for kind, value in output.data.items():
            if not kind.startswith("image/") or kind == "image/svg+xml":
                yield value if isinstance(value, str) else json.dumps(value)


def unfit(notebook):
    """What in a notebook's outputs must not be committed, one line each, with the cell's number."""
    problems = []
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    for number, cell in enumerate(code, 1):
        for output in cell.outputs:
            if output.output_type == "error":
                problems.append(f"cell {number}: error {output.ename}")
            if output.output_type == "stream" and output.name == "stderr":
                last = output.text.strip().splitlines() or [""]
                problems.append(f"cell {number}: output on stderr: {last[-1][:100]}")
            if WIDGET in output.get("data", {}):
                problems.append(f"cell {number}: a widget (a progress bar?)")
            for text in output_texts(output):
                if found := WARNING.search(text):
                    problems.append(f"cell {number}: a warning: {found[0]}")
                if found := MACHINE_PATH.search(text):
                    problems.append(f"cell {number}: a path of this machine: {found[0]}")
    return problems


# ---------------------------------------------------------------- the tables of the READMEs

COLUMNS = ("Assignment", "Result", "Target", "Measured", "Data", "Run")
BEGIN, END = "<!-- {}:begin -->", "<!-- {}:end -->"


def load_result(room, profiles=("full", "demo")):
    """The first record that a room has, or None."""
    for profile in profiles:
        path = ROOT / room / "results" / profile / "record.json"
        if path.exists():
            return json.loads(path.read_text())
    return None


def number(value, digits):
    """A figure with so many decimals, without a minus before zero."""
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text


def measured(metric):
    """`94.1 % [93.6, 94.6]` and what the interval is over; decimals such that its width has two digits."""
    width = metric["high"] - metric["low"] or abs(metric["value"]) / 10
    digits = min(6, max(0, 1 - math.floor(math.log10(width)))) if width else 1
    value, low, high = (number(metric[key], digits) for key in ("value", "low", "high"))
    unit = f" {metric['unit']}" if metric["unit"] else ""
    return f"{value}{unit} [{low}, {high}] ({metric['interval']}, n = {metric['n']})"


def target(metric):
    """The target and where it is from, or a dash."""
    if "target" not in metric:
        return "–"
    unit = f" {metric['unit']}" if metric["unit"] else ""
    return f"{metric['target']['value']:g}{unit} ({metric['target']['source']})"


def run_words(record):
    """`full, reduced, epochs=3; cpu, AMD EPYC`: the profile, what was changed, the machine."""
    words = [record["profile"]] + ["reduced"] * record["reduced"]
    words += [f"{name}={value}" for name, value in record["overrides"].items()]
    machine = record["machine"]
    many = f"{machine['processes']} x " if machine["processes"] > 1 else ""
    return f"{', '.join(words)}; {many}{machine['device']}, {machine['name']}"


def result_rows(room, headline, profiles=("full", "demo")):
    """Rows of a results table: the headline metrics of the room, or (headline) of these the ones with a target."""
    record = load_result(room, profiles)
    if record is None:
        return []
    metrics = [metric for metric in record["metrics"].values() if metric.get("headline")]
    if headline:
        metrics = [metric for metric in metrics if "target" in metric] or metrics[:1]
    rows = []
    for metric in metrics:
        data = f"{metric['data']} ({record['data'][metric['data']]['source']})"
        rows.append((room, metric["label"], target(metric), measured(metric), data, run_words(record)))
    return rows


def table(columns, rows):
    """A Markdown table."""
    cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    lines = [columns, ["---"] * len(columns), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def root_results():
    rows = [row for room in existing_rooms() for row in result_rows(room, headline=True)]
    rows = [(f"[{room}]({room}/README.md)", *rest) for room, *rest in rows]
    return table(COLUMNS, rows) if rows else "No results yet."


def room_results(room):
    rows = [row[1:] for row in result_rows(room, headline=False)]
    return table(COLUMNS[1:], rows) if rows else "No results yet."


def room_list():
    """The table of the twelve assignments, with those that are not there yet."""
    there = existing_rooms()
    rows = []
    for room, topic in ROOMS.items():
        links = ", ".join(f"[{name}]({room}/{name}.ipynb)" for name in NOTEBOOKS)
        name = f"[{room}]({room}/README.md)" if room in there else room
        rows.append((name, topic, links if room in there else "not there yet"))
    return table(("Assignment", "Topic", "Read"), rows)


def between(text, name, content, file):
    """`text` with `content` between the markers of this name."""
    begin, end = BEGIN.format(name), END.format(name)
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise CourseError(f"{file}: needs {begin} and, after it, {end}, once each")
    return text[: text.index(begin) + len(begin)] + f"\n{content}\n" + text[text.index(end) :]


def readme_texts():
    """{file: its text as it should be} of the root README and of the README of each room."""
    root = ROOT / "README.md"
    text = between(root.read_text(), "results", root_results(), root.name)
    texts = {root: between(text, "rooms", room_list(), root.name)}
    for room in existing_rooms():
        file = ROOT / room / "README.md"
        if not file.exists():
            raise CourseError(f"{room}/README.md: missing")
        texts[file] = between(file.read_text(), "results", room_results(room), f"{room}/README.md")
    return texts


def readme(check):
    """Write the tables; with check, only compare, and CourseError names the files that are out of date."""
    stale = {file: text for file, text in readme_texts().items() if file.read_text() != text}
    names = ", ".join(str(file.relative_to(ROOT)) for file in stale)
    if check and stale:
        raise CourseError(f"out of date: {names}; run make readme")
    for file, text in stale.items():
        file.write_text(text)
    print(f"written: {names}" if stale else "tables are up to date")


# ---------------------------------------------------------------- sync, and the command line


def sync():
    """Copy lab.py to every other room's folder."""
    source = ROOT / LAB_SOURCE / "lab.py"
    for room in ROOMS:
        copy = ROOT / room / "lab.py"
        if copy != source and copy.parent.is_dir() and not (copy.exists() and copy.read_bytes() == source.read_bytes()):
            shutil.copyfile(source, copy)
            print(f"copied: {copy.relative_to(ROOT)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    part = commands.add_parser("run")
    part.add_argument("room", nargs="?")
    part.add_argument("--profile", default="demo")
    part = commands.add_parser("execute")
    part.add_argument("room", nargs="?")
    part = commands.add_parser("readme")
    part.add_argument("--check", action="store_true")
    commands.add_parser("sync")
    options = vars(parser.parse_args())
    command = globals()[options.pop("command")]
    try:
        command(**options)
    except CourseError as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
