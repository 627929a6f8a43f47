"""Executing notebooks, and what of their outputs may be committed."""

import asyncio
import base64
import io
import json
import os
import re
import signal
import sys
import threading
import time
from contextlib import contextmanager, suppress

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from PIL import Image

from nndl import rooms
from nndl.rooms import NOTEBOOKS, CourseError, one_room

MAX_NOTEBOOK = 800_000  # bytes
MAX_PNG = 30_000  # bytes; larger pictures in outputs get a palette
MACHINE_PATH = re.compile(rf"(?<![\w.])(?:{re.escape(str(rooms.ROOT))}\b|/(?:work|root|home|tmp|Users)/)[^\s'\"]*")
WARNING = re.compile(r"\b[A-Z]\w*Warning:")


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
    name = path.relative_to(rooms.ROOT)
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
        # silent: it warns at every start that it talks over local TCP, and tells of each interrupt
        extra_arguments=["--IPKernelApp.log_level=CRITICAL"],
        on_cell_start=count,
        on_notebook_start=give_back_interrupt,
        shutdown_kernel="immediate",
    )
    word = "FAILED"
    try:
        client.execute()
        word = "ok"
    except KeyboardInterrupt:
        word = "stopped"
        raise
    except CellExecutionError as error:
        last = (error.evalue or "").strip().splitlines() or [""]
        raise CourseError(f"{name}, cell {progress.cell}: {error.ename}: {last[-1]}") from None
    except DeadKernelError:
        raise CourseError(f"{name}, cell {progress.cell}: the kernel died (out of memory?)") from None
    finally:
        progress.close(word)
    return without_widgets(notebook)


def give_back_interrupt(**_):
    """nbclient takes Ctrl-C and the terminate signal for itself, and then dies of its own clean-up: give them back."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError, RuntimeError):  # Windows
            loop.remove_signal_handler(number)
        signal.signal(number, signal.default_int_handler)  # both end the run as KeyboardInterrupt


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


# ---------------------------------------------------------------- execute


def execute(room):
    """Execute a room's committed notebooks in place under demo. One that would not be fit to commit stays as it was.

    The report shows the kept run; the demo run that the code notebook makes lies in runs/demo, see keep.py.
    """
    room = one_room(room, "make execute A=CA5_vit")
    with environment("demo"):
        os.environ["NNDL_RUN"] = "kept"
        for name in ("NNDL_SET", "NNDL_TRACK", "NNDL_DOWNLOAD"):  # committed outputs come from the settings as they are
            os.environ.pop(name, None)
        for name in NOTEBOOKS:
            path = rooms.ROOT / room / f"{name}.ipynb"
            notebook = clean(run_notebook(path))
            text = nbformat.writes(notebook) + "\n"
            problems = unfit(notebook)
            if len(text.encode()) > MAX_NOTEBOOK:
                problems.append(f"{len(text.encode()) / 1e6:.2f} MB, more than {MAX_NOTEBOOK / 1e6} MB")
            if problems:
                listed = "\n  ".join(problems)
                raise CourseError(f"{path.relative_to(rooms.ROOT)} is left as it was:\n  {listed}")
            part = path.with_name(path.name + ".part")
            part.write_text(text, encoding="utf-8", newline="\n")
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


# What importing torch.utils.benchmark writes to stderr on a machine with a CUDA compiler and without a GPU.
COMPILER = re.compile(r"W\S+ \S+ \d+ torch/utils/cpp_extension.py:\d+\] No CUDA runtime is found.*\n?")


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
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if not COMPILER.fullmatch(output.get("text", ""))]
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
