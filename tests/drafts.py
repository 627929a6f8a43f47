"""Definitions of a room's code notebook, also of one whose notebooks still lie in its folder draft/."""

import shutil

from nndl import rooms
from nndl.notebooks import load_definitions


def definitions(name, tmp_path_factory):
    """The definitions of a room's code.ipynb, loaded beside a copy of its helper as in the finished room."""
    there, folder = rooms.ROOT / name, tmp_path_factory.mktemp("course") / name
    folder.mkdir()
    draft = there / "draft" / "code.ipynb"
    for path in (draft if draft.exists() else there / "code.ipynb", *there.glob("*_helper.py")):
        shutil.copy(path, folder)
    return load_definitions(folder / "code.ipynb")
