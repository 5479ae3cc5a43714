from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.results.store import Store, open_store

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def database(tmp_path: Path) -> str:
    """URL of a store with nothing in it."""
    return f"sqlite:///{tmp_path}/results.db"


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    with open_store(database) as opened:
        yield opened
