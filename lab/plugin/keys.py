"""Where the plugin keeps its state in pytest's stashes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from lab.evidence.collector import Collector
    from lab.place.place import Place
    from lab.plugin.operations import OperationLog
    from lab.plugin.run import Run
    from lab.plugin.sources import PlaceSources
    from lab.plugin.workplace import Workplace
    from lab.results.record import Turn
    from lab.scenario.record import Recorder
    from lab.suite.errata import Erratum

RUN: pytest.StashKey[Run] = pytest.StashKey()
"""In the session's config: the run, in sessions that have one and record it."""

WORKPLACE: pytest.StashKey[Workplace] = pytest.StashKey()
"""In the session's config: where tests run that use the lab. The same as the run, but in the
workers of a distributed session, which has its run in the controller."""

ERROR: pytest.StashKey[BaseException] = pytest.StashKey()
"""In an item: what its test raised, or the crash that was found afterwards."""

ERRATUM: pytest.StashKey[Erratum] = pytest.StashKey()
"""In an item: what is known to be wrong with the driver that its test shows."""

EXPECTED: pytest.StashKey[float] = pytest.StashKey()
"""In an item: what it takes at most, in s."""

PLACE: pytest.StashKey[Place] = pytest.StashKey()
"""In an item: the clone that its test has."""

COLLECTOR: pytest.StashKey[Collector] = pytest.StashKey()
"""In an item: the collector of its evidence."""

SOURCES: pytest.StashKey[PlaceSources] = pytest.StashKey()
"""In an item: where that evidence comes from."""

RECORDER: pytest.StashKey[Recorder] = pytest.StashKey()
"""In an item: what listens to its test, for the scenario that it runs."""

TURN: pytest.StashKey[Turn] = pytest.StashKey()
"""In an item: which run of its test it is, in a session that has a plan of them."""

OPERATIONS: pytest.StashKey[OperationLog] = pytest.StashKey()
"""In an item: what listens to its test, for the timeline of its failure."""

RUN_FIXTURE = "pvlab_run"
"""A test that has this fixture, directly or not, uses the lab."""

STANDIN_DRIVERS = "standin-drivers"
"""Image with the stand-in's driver packages, a folder each; ``good`` is the one that works."""

DRIVER_FIXTURE = "driver_package"
"""A test that has this fixture, directly or not, is a test of the driver."""

INSTALLED_FIXTURE = "installed_driver"
"""A test that has this fixture, directly or not, has the driver in its guest."""

FRESH_INSTALL = "fresh_install"
"""Marker of tests in which the driver is installed anew."""


def fixture_names(item: pytest.Item) -> tuple[str, ...]:
    """The fixtures of a test, indirect ones too; none for items that are no functions."""
    names: list[str] = getattr(item, "fixturenames", [])
    return tuple(names)


def uses_lab(item: pytest.Item) -> bool:
    """Whether a test uses the lab."""
    return RUN_FIXTURE in fixture_names(item)


def tests_driver(item: pytest.Item) -> bool:
    """Whether a test tests the driver, rather than the lab."""
    return DRIVER_FIXTURE in fixture_names(item)


def wants_installed(item: pytest.Item) -> bool:
    """Whether a test begins behind the driver's installation, rather than before it."""
    return INSTALLED_FIXTURE in fixture_names(item) and not item.get_closest_marker(FRESH_INSTALL)


def active_workplace(config: pytest.Config) -> Workplace:
    """Where tests run, in a session in which a collected one uses the lab.

    Raises:
        UsageError: there is none, because a test asked for its fixture while it ran only.
    """
    workplace = config.stash.get(WORKPLACE, None)
    if workplace is None:
        raise pytest.UsageError(
            "pvlab: fixtures of the lab must be parameters of the test, or of its fixtures"
        )
    return workplace
