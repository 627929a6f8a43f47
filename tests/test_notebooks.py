"""After a room's code notebook has run here under tiny: what it left behind.

The notebooks themselves are run by nbmake (`make test` passes --nbmake); conftest.py sees to it that these tests come
after the notebooks of their room, on the same process.
"""

import pytest

from nndl import rooms
from nndl.records import read_record


@pytest.mark.parametrize("room", rooms.existing_rooms())
def test_code_left_a_fresh_record(room, request, session_start):
    path = rooms.ROOT / room / "code.ipynb"
    if not any(item.path == path for item in request.session.items):
        pytest.skip(f"{room}/code.ipynb was not run in this session")
    file = path.parent / "runs" / "tiny" / "record.json"
    assert file.exists(), f"{room}/code.ipynb ran and left no runs/tiny/record.json"
    assert file.stat().st_mtime > session_start, f"{file} is from an earlier run"
    record = read_record(file.parent)
    assert (record["assignment"], record["profile"], record["schema"]) == (room, "tiny", 2)


@pytest.mark.parametrize("room", rooms.existing_rooms())
def test_code_comes_before_report_and_this(room, request):
    """The order on this process, on which the tests above and the report depend."""
    names = [item.path.name for item in request.session.items if room in (item.path.parent.name, item.path.name)]
    if not {"code.ipynb", "report.ipynb"} <= set(names):
        pytest.skip(f"{room}'s code and report were not both run in this session")
    here = request.session.items.index(request.node)
    code = next(i for i, item in enumerate(request.session.items) if item.path == rooms.ROOT / room / "code.ipynb")
    assert names.index("code.ipynb") < names.index("report.ipynb")
    assert code < here
