"""make export: one assignment as a folder that needs only public packages."""

import ast
import shutil
from pathlib import Path

from nndl import rooms
from nndl.notebooks import code_cells, parse
from nndl.rooms import CourseError, one_room

PACKAGE = Path(__file__).parent
DATA_FILES = {"records": ["record.schema.json"]}  # what a module reads from beside itself


def modules_used(sources):
    """Names of the nndl modules that pieces of code import, and that those import in turn, in order."""
    found, waiting = [], list(sources)
    while waiting:
        for node in ast.walk(ast.parse(waiting.pop())):
            names = []
            if isinstance(node, ast.ImportFrom) and node.module == "nndl":
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nndl."):
                names = [node.module.split(".")[1]]
            elif isinstance(node, ast.Import):
                names = [alias.name.split(".")[1] for alias in node.names if alias.name.startswith("nndl.")]
            for name in names:
                if name not in found and (PACKAGE / f"{name}.py").exists():
                    found.append(name)
                    waiting.append((PACKAGE / f"{name}.py").read_text(encoding="utf-8"))
    return sorted(found)


def copy_package(out, sources):
    """Put what pieces of code need of this package into out/nndl/, and requirements.txt beside it."""
    (out / "nndl").mkdir()
    for name in ["__init__", *modules_used(sources)]:
        for file in [f"{name}.py", *DATA_FILES.get(name, [])]:
            shutil.copy(PACKAGE / file, out / "nndl" / file)
    text = (rooms.ROOT / "requirements.in").read_text(encoding="utf-8")
    kept = [line for line in text.splitlines() if not line.startswith("-e ")]
    (out / "requirements.txt").write_text("\n".join(kept) + "\n", encoding="utf-8")


def export(room, out):
    """Write a room to the new folder `out`, with the modules of nndl that it uses in out/nndl/, where it finds them."""
    room = one_room(room, "make export A=CA5_vit OUT=my_folder")
    source, out = rooms.ROOT / room, Path(out or room).absolute()
    if out.name != room:
        out = out / room  # the record takes the assignment's name from its folder
    if out.exists():
        raise CourseError(f"{out} is there already")
    sources = [path.read_text(encoding="utf-8") for path in source.glob("*_helper.py")]
    for path in source.glob("*.ipynb"):
        for number, cell in code_cells(path):
            parse(cell.source, path.relative_to(rooms.ROOT), number)  # a clear message, before anything is written
            sources.append(cell.source)
    shutil.copytree(source, out, ignore=shutil.ignore_patterns("runs", "__pycache__", ".ipynb_checkpoints", "main.py"))
    copy_package(out, sources)
    print(f"written: {out}; it runs with what its requirements.txt installs: jupyter lab, then code.ipynb")
