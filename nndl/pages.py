"""make run: the notebooks of the assignments, executed and written as pages under _build/."""

import ast
import html
import importlib.util
import sys
from types import SimpleNamespace

from nbconvert import HTMLExporter
from traitlets.config import Config

from nndl import rooms
from nndl.execution import environment, run_notebook
from nndl.machine import data_root, missing_data
from nndl.notebooks import code_cells, parse
from nndl.records import PROFILES, LabError, read_record
from nndl.rooms import NOTEBOOKS, ROOMS, CourseError, UsageError, chosen_rooms, existing_rooms
from nndl.settings import choose
from nndl.tables import COLUMNS, assigned, result_rows, rows_of


def run(room, profile):
    """Execute the rooms' notebooks and write them as pages. What can be known to be wrong is told before any of it."""
    if profile not in PROFILES:
        raise UsageError(f"{profile}: no such profile; there are: {', '.join(PROFILES)}")
    chosen = chosen_rooms(room)
    for room in chosen:
        check_before(room, profile)
    build = rooms.ROOT / "_build"
    build.mkdir(exist_ok=True)
    # cells tagged hide-input show only what comes out: a report begins with its answers
    hide = {"TagRemovePreprocessor": {"enabled": True, "remove_input_tags": {"hide-input"}}}
    exporter, done = HTMLExporter(config=Config(hide)), []
    with environment(profile):
        for room in chosen:
            for name in [name for name in NOTEBOOKS if (rooms.ROOT / room / f"{name}.ipynb").exists()]:
                notebook = run_notebook(rooms.ROOT / room / f"{name}.ipynb")
                page, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": f"{room}: {name}"}})
                (build / room).mkdir(exist_ok=True)
                (build / room / f"{name}.html").write_text(page, encoding="utf-8")
                done += [room] * (name == "code")
                (build / "index.html").write_text(index_page(done, profile), encoding="utf-8")
    print(f"pages: {build / 'index.html'}")


# ---------------------------------------------------------------- before anything runs


def code_trees(room):
    """The syntax trees of a room's code cells."""
    path = rooms.ROOT / room / "code.ipynb"
    return [parse(cell.source, path.relative_to(rooms.ROOT), number) for number, cell in code_cells(path)]


def settings_of(trees):
    """The table SETTINGS of a code notebook, from its cell alone, or None."""
    for tree in trees:
        if any(isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "SETTINGS" for node in tree.body):
            found = {}
            exec(compile(tree, "SETTINGS", "exec"), found)
            return found["SETTINGS"]
    return None


def check_before(room, profile):
    """CourseError for settings, or a data folder, with which this room's code notebook would stop later."""
    folder = rooms.ROOT / room
    if not (folder / "code.ipynb").exists():
        return
    trees = code_trees(room)
    settings = settings_of(trees)
    if settings is None:
        return
    try:
        _, _, cfg, _ = choose(settings, profile)
        root = data_root(folder)
        for helper in folder.glob("*_helper.py"):
            check_settings(helper, cfg)
    except LabError as error:
        raise CourseError(f"{room}: {error}") from None
    except ImportError as error:
        raise CourseError(f"{room}: {helper.name} cannot be imported: {error}") from None
    if profile == "full":
        for name, options in needed_data(trees, cfg):
            if not (root / name).is_dir() and not options.get("optional"):
                download = options.get("can_download", False)
                raise CourseError(f"{room}: {missing_data(root / name, download)}")


def check_settings(helper, cfg):
    """Call the room's own check of its settings, where its helper has one; LabError says what is wrong."""
    spec = importlib.util.spec_from_file_location(helper.stem, helper)
    module = importlib.util.module_from_spec(spec)
    sys.modules[helper.stem] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    if hasattr(module, "check_settings"):
        module.check_settings(SimpleNamespace(**cfg))


def literal(node):
    """The value of a literal; True for an expression, which only the notebook itself can decide."""
    try:
        return ast.literal_eval(node)
    except ValueError:
        return True


def needed_data(trees, cfg):
    """(name, keyword arguments) of each run.find_data("name"), or run.find_data(cfg.setting), in a code notebook."""
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "run.find_data":
                options = {k.arg: literal(k.value) for k in node.keywords}
                name = literal(node.args[0]) if node.args else options.get("name")
                if node.args and isinstance(node.args[0], ast.Attribute) and ast.unparse(node.args[0].value) == "cfg":
                    name = cfg.get(node.args[0].attr)
                if isinstance(name, str) and name:
                    yield name, options


# ---------------------------------------------------------------- the list of pages


def results_table(rows):
    """Result rows as HTML, a line each."""
    head = "".join(f"<th>{name}</th>" for name in COLUMNS)
    lines = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows)
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def index_page(done, profile):
    """The list of what has been built: the figures of rooms whose code has just run, then the kept ones."""
    build, built = rooms.ROOT / "_build", []
    for room, topic in ROOMS.items():
        pages = [name for name in NOTEBOOKS if (build / room / f"{name}.html").exists()]
        if pages:
            links = " ".join(f'<a href="{room}/{name}.html">{name}</a>' for name in pages)
            built.append(f"<tr><td>{room}</td><td>{html.escape(topic)}</td><td>{links}</td></tr>")
    own, kept = [], []
    for room in done:
        record = read_record(rooms.ROOT / room / "runs" / profile)
        own += result_rows(room, record, assigned(record))
    for room in existing_rooms():
        kept += rows_of(room)
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Neural networks and deep learning</title>
<style>body{{font:16px/1.5 sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}}
table{{border-collapse:collapse}}td,th{{border-bottom:1px solid #ccc;padding:.4rem .8rem;text-align:left}}</style>
<h1>Neural networks and deep learning</h1>
<table>{"".join(built)}</table>
<h2>Your run ({profile})</h2>
{results_table(own) if own else "<p>Nothing finished yet.</p>"}
<h2>Kept runs, of all assignments</h2>
{results_table(kept)}
</html>
"""
