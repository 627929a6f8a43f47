"""make student: the assignments as a student gets them, each a folder that needs only public packages.

description, exercises.ipynb (code.ipynb without the bodies that a student writes), the helper, and how to work. With
SOLUTIONS=later the reference and its report come along in reference/, so that a student can take a part from it;
withheld leaves them out.
"""

import copy
import shutil
from pathlib import Path

import nbformat
import nbformat.v4 as v4

from nndl import rooms
from nndl.exercises import read_room, with_stubs
from nndl.export import copy_package
from nndl.nbgrader import source_notebook
from nndl.notebooks import code_cells
from nndl.rooms import CourseError, UsageError, chosen_rooms

SOLUTIONS = ("later", "withheld")
HOMEWORK = "lab.homework()  # a cell that waits for an exercise says so, and the notebook goes on"


def exercises_notebook(path, exercises):
    """code.ipynb (a path) as a student gets it: stubs, no outputs, its name and its points in the metadata."""
    notebook = copy.deepcopy(nbformat.read(path, as_version=4))
    notebook.metadata["assignment"] = path.parent.name
    cells, imports_done = [], False
    for cell in notebook.cells:
        cells.append(cell)
        if cell.cell_type != "code":
            continue
        cell.outputs, cell.execution_count = [], None
        names = set(cell.metadata.get("points", {}))
        if names:
            cell.source = with_stubs(cell.source, names)
            points = ", ".join(f"{name} {exercises[name].points:g}" for name in exercises if name in names)
            cells.insert(-1, v4.new_markdown_cell(f"> **Exercise** (points): {points}", id=f"{cell.id}-points"))
        if not imports_done and "from nndl import" in cell.source:
            cells.append(v4.new_code_cell(HOMEWORK, id="homework"))
            imports_done = True
    notebook.cells = cells
    return notebook


def readme(room, exercises, solutions):
    points = sum(exercise.points for exercise in exercises.values())
    later = "The reference solution is kept by your teacher."
    if solutions == "later":
        first = next(iter(exercises))
        later = f"""If a part will not come right, `lab.take_reference("{first}")` in a cell of its own takes it
from `reference/`. It counts no points, and everything after it works. Open `reference/` when you are done."""
    return f"""# {room}: the student's edition

{rooms.ROOMS[room]}

1. Read `description.ipynb`: background, derivations, tasks and points.
2. Work in `exercises.ipynb`. Each exercise has a signature and a docstring that says what is wanted; its body is yours.
   The cells below an exercise that are tagged `check` tell you whether it is right. Run them as often as you like.
3. You may leave an exercise out and go on: a cell that needs it says "not yet" and the notebook runs on. Your own
   helper functions and imports are welcome in the cells of the exercises.
4. Hand in `exercises.ipynb`.

{len(exercises)} exercises count {points:g} of 100 points by their checks. Each is graded by itself, with the reference
for all others, so a mistake in one costs that one alone. Changes to given definitions and to check cells do not count.
Graded are functions and classes. An exercise may not read files, start programs, or change modules and classes that
are not its own.

{later}

Set-up: Python 3.12 or 3.13, `pip install -r requirements.txt`, `jupyter lab`. Everything runs on embedded data;
`NNDL_PROFILE=tiny` makes it quick.
"""


def student(room, out, solutions, for_nbgrader=False):
    """Write the student's edition of a room, or of all, as new folders in `out`; or the source for nbgrader."""
    if solutions not in SOLUTIONS:
        raise UsageError(f"SOLUTIONS={solutions}: {' or '.join(SOLUTIONS)}")
    out = Path(out or "student").absolute()
    chosen = chosen_rooms(room)
    there = [name for name in chosen if (out / name).exists()]
    if there:
        raise CourseError(f"{out / there[0]} is there already")
    for name in chosen:
        part = out / f"{name}.part"
        shutil.rmtree(part, ignore_errors=True)
        try:
            if for_nbgrader:
                write_source(rooms.ROOT / name, part)
            else:
                write(rooms.ROOT / name, part, solutions)
            part.rename(out / name)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        print(f"written: {out / name}")


def write_source(source, out):
    """One room for nbgrader: the notebook with its solutions marked, and what it needs."""
    out.mkdir(parents=True)
    nbformat.write(source_notebook(source / "code.ipynb"), out / "exercises.ipynb")
    for helper in source.glob("*_helper.py"):
        shutil.copy(helper, out / helper.name)
    copy_package(out, [cell.source for _, cell in code_cells(out / "exercises.ipynb")]
                 + [helper.read_text(encoding="utf-8") for helper in out.glob("*_helper.py")])  # fmt: skip


def write(source, out, solutions):
    """One room."""
    path = source / "code.ipynb"
    exercises = read_room(path).exercises
    if not exercises:
        raise CourseError(f"{source.name}: no cell of code.ipynb has points")
    out.mkdir(parents=True)
    notebook = exercises_notebook(path, exercises)
    nbformat.write(notebook, out / "exercises.ipynb")
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    taken = ["description.ipynb", *(helper.name for helper in source.glob("*_helper.py"))]
    for name in taken:
        shutil.copy(source / name, out / name)
    sources += [helper.read_text(encoding="utf-8") for helper in out.glob("*_helper.py")]
    sources += [cell.source for _, cell in code_cells(out / "description.ipynb")]
    if solutions == "later":
        own = out / "reference" / source.name  # its record takes the assignment's name from its folder
        ignored = shutil.ignore_patterns(
            "runs", "figures", "__pycache__", ".*", "main.py", "README.md", "description.*"
        )
        shutil.copytree(source, own, ignore=ignored)
        sources += [cell.source for name in ("code", "report") for _, cell in code_cells(source / f"{name}.ipynb")]
        copy_package(own, sources)
    copy_package(out, sources)
    (out / "README.md").write_text(readme(source.name, exercises, solutions), encoding="utf-8", newline="\n")
