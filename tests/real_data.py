"""Real data, which not everybody has: where it lies, and the mark of tests that need it."""

import os
from pathlib import Path

import pytest

REAL = Path(os.environ.get("NNDL_DATA", "/nowhere"))


def needs(folder):
    """Mark of a test that is skipped where NNDL_DATA has no such folder."""
    return pytest.mark.skipif(not (REAL / folder).is_dir(), reason=f"no real data: NNDL_DATA has no {folder}")
