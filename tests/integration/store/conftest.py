"""Databases on a PostgreSQL server that the tests start."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres_server import Server, server, server_programs

from lab.results.store import Store, open_store

# The tests themselves: the same as on SQLite.
sys.path.append(str(Path(__file__).parents[2] / "unit" / "store"))


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """The server."""
    programs = server_programs()
    if programs is None:
        pytest.skip("no PostgreSQL server here: apt-get install postgresql")
    with server(programs) as running:
        yield running


@pytest.fixture
def database(postgres: Server) -> str:
    """URL of a database of this test's own, with nothing in it."""
    return postgres.new_database()


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    """A store with nothing in it."""
    with open_store(database) as opened:
        yield opened


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A results folder."""
    folder = tmp_path / "results"
    folder.mkdir()
    return folder
