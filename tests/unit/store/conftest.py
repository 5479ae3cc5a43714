"""The database that tests of the store use.

``tests/integration/store`` runs the same tests with another ``database``.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.results.store import Store, open_store


@pytest.fixture
def database(tmp_path: Path) -> str:
    """URL of a database of this test's own, with nothing in it."""
    return f"sqlite:///{tmp_path}/results.db"


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with nothing in it: copying one is quicker than making it."""
    file = tmp_path_factory.mktemp("empty") / "results.db"
    open_store(file).close()
    return file


@pytest.fixture
def store(database: str, empty: Path, tmp_path: Path) -> Iterator[Store]:
    """A store with nothing in it."""
    shutil.copy(empty, tmp_path / "results.db")
    with open_store(database) as opened:
        yield opened


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A results folder."""
    folder = tmp_path / "results"
    folder.mkdir()
    return folder
