"""Fixtures for tests of the lab itself, on a real nested host.

They use the lab's layers below its pytest plugin, so nothing here makes a run of its own: a
session of these tests beside the driver tests writes results for the driver tests only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from gate_process import Gate
from postgres_server import Server, server, server_programs

from lab.config.load import load_profile
from lab.core.deadline import Deadline
from lab.images.store import Store
from lab.place.place import Place
from lab.place.warm import Template, prepare
from lab.results.store import Store as ResultsStore
from lab.results.store import open_store


@pytest.fixture(scope="session")
def template() -> Template:
    """The warm state, read-only; baked now unless it is there."""
    return prepare(load_profile(None, None), progress=print)


@pytest.fixture(scope="session")
def start(template: Template, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Place]:
    """Starts clones; whoever calls it closes what it gets."""

    def one() -> Place:
        scratch = tmp_path_factory.mktemp("clone")
        boot = template.profile.deadlines.under(template.accel.name).boot
        return template.clone(scratch, Deadline(boot))

    return one


@pytest.fixture
def place(start: Callable[[], Place]) -> Iterator[Place]:
    """A clone of this test's own, for tests that change something."""
    with start() as clone:
        yield clone


@pytest.fixture(scope="module")
def still(start: Callable[[], Place]) -> Iterator[Place]:
    """One clone for all tests of a module, which only look at it."""
    with start() as clone:
        yield clone


@pytest.fixture
def soon(template: Template) -> Deadline:
    """Time for a handful of commands."""
    return Deadline(3 * template.profile.deadlines.under(template.accel.name).command)


@pytest.fixture
def late(template: Template) -> Deadline:
    """Time for what takes as long as a boot, or a run of tests."""
    return Deadline(2 * template.profile.deadlines.under(template.accel.name).boot)


@pytest.fixture(scope="session")
def good_driver() -> Path:
    """The stand-in's driver package that works."""
    return Store().ensure("standin-drivers").path / "good"


@pytest.fixture
def gate(template: Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """``pvlab`` as a process of its own, with its own runtime and results folders."""
    lab = Gate(tmp_path)
    monkeypatch.setenv("PVLAB_RUNTIME", str(lab.runtime))
    yield lab
    lab.end()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server that the tests start."""
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
def store(database: str) -> Iterator[ResultsStore]:
    """A store on PostgreSQL with nothing in it."""
    with open_store(database) as opened:
        yield opened
