"""Databases on a PostgreSQL server that the tests start."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

# The tests themselves: the same as on SQLite.
sys.path.append(str(Path(__file__).parents[2] / "unit" / "store"))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A results folder."""
    folder = tmp_path / "results"
    folder.mkdir()
    return folder
