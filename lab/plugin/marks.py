"""The markers of driver tests, and what is read from them at collection."""

from __future__ import annotations

from typing import Any

import pytest

from lab.core.errors import UsageError
from lab.plugin.keys import FRESH_INSTALL, fixture_names
from lab.suite.campaign import ATTEMPTS, Plan
from lab.suite.catalogue import Entry
from lab.suite.costs import check_steps, expected_seconds
from lab.suite.intensity import Count, Intensity
from lab.suite.sequential import CONFIDENCE, LIMIT

MARKERS = (
    "area(name): what of the driver a test tests, as reports group it",
    "claim(text, source): the driver's claim, or the report of a defect, that a test guards",
    "cost(**steps): how often a test does what takes time, cost(attach=3, reboot=1); a number, "
    "or a lab.suite.intensity.Count; the steps are those of lab.suite.costs",
    "fresh_install: the driver is installed in the test's own clone, rather than once for all",
    "destructive: the test leaves its guest unusable, which costs nothing here",
    "race(attempts, limit=0.02, confidence=0.95, first_seed=1): the test is run as a campaign "
    "of attempts, each with a seed and a clone of its own, until it is known whether it fails "
    "more often than the limit",
    "slow: the test takes minutes under emulation",
    "smoke: a smoke run, as continuous integration does it, includes the test",
)

SUITE_MARKER = "area"
"""A test that has it belongs to a suite of driver tests; others are nobody's to deselect."""

FIXTURE_STEPS = {"place": "place", "block_device": "attach"}
"""What using a fixture costs, unless the marker ``cost`` says so itself. The driver is installed
before the tests, but for those that are marked as ``FRESH_INSTALL``."""

RACE = frozenset({"attempts", "limit", "confidence", "first_seed"})


def likely_accelerator(asked: str | None) -> str:
    """The accelerator that a run will have, as far as can be told without starting anything.

    Args:
        asked: what the user asked for.
    """
    from lab.qemu.accel import Ladder
    from lab.qemu.kvm import kvm_facts

    if asked is not None:
        return asked
    known = Ladder().remembered()
    if known is not None:
        return known.name
    return "tcg-hvm" if kvm_facts().why_not else "kvm"


def area_of(item: pytest.Item) -> str:
    """What of the driver a test tests, from its ``area`` marker; empty without one."""
    return _argument(item.get_closest_marker(SUITE_MARKER), 0, "name")


def plan_of(item: pytest.Item, intensity: Intensity, seed: int | None = None) -> Plan | None:
    """The campaign that a test is run as; None for tests that are no races.

    Args:
        item: the test.
        intensity: of the run.
        seed: of the one attempt to make, when an attempt is to be repeated.

    Raises:
        UsageError: the marker is malformed.
    """
    marker = item.get_closest_marker("race")
    if marker is None:
        return None
    if marker.args or not RACE.issuperset(marker.kwargs):
        raise UsageError(f"{item.nodeid}: race takes only {', '.join(sorted(RACE))}, by name")
    attempts = marker.kwargs.get("attempts", ATTEMPTS)
    limit = marker.kwargs.get("limit", LIMIT)
    confidence = marker.kwargs.get("confidence", CONFIDENCE)
    if not (0.0 < limit < 1.0 and 0.0 < confidence < 1.0):
        raise UsageError(f"{item.nodeid}: race: limit and confidence are between 0 and 1")
    if not isinstance(attempts, int | Count):
        raise UsageError(f"{item.nodeid}: race: attempts is a number or a Count")
    if seed is not None:
        return Plan(attempts=1, limit=limit, confidence=confidence, first_seed=seed)
    return Plan(
        attempts=max(1, intensity.count(attempts) if isinstance(attempts, Count) else attempts),
        limit=limit,
        confidence=confidence,
        first_seed=int(marker.kwargs.get("first_seed", 1)),
    )


def expected(item: pytest.Item, intensity: Intensity) -> float:
    """What a test takes at most, in s; of a race, all its attempts.

    Raises:
        UsageError: its markers are malformed.
    """
    steps: dict[str, Any] = {}
    for marker in reversed(list(item.iter_markers("cost"))):
        if marker.args:
            raise UsageError(f"{item.nodeid}: cost takes steps by name: cost(attach=3)")
        steps |= marker.kwargs
    try:
        check_steps(steps)
    except UsageError as error:
        raise UsageError(f"{item.nodeid}: {error.message}", hint=error.hint) from None
    names = fixture_names(item)
    for fixture, step in FIXTURE_STEPS.items():
        if fixture in names:
            steps.setdefault(step, 1)
    if item.get_closest_marker(FRESH_INSTALL) is not None:
        steps.setdefault("install", 1)
    plan = plan_of(item, intensity)
    return expected_seconds(steps, intensity) * (plan.attempts if plan is not None else 1)


def entry(item: pytest.Item, intensity: Intensity) -> Entry:
    """A test as the catalogue has it.

    Raises:
        UsageError: its markers are malformed.
    """
    claim = item.get_closest_marker("claim")
    plan = plan_of(item, intensity)
    return Entry(
        id=item.nodeid,
        area=area_of(item),
        claim=_argument(claim, 0, "text"),
        source=_argument(claim, 1, "source"),
        expected_seconds=round(expected(item, intensity), 1),
        markers=tuple(sorted({marker.name for marker in item.iter_markers()})),
        attempts=plan.attempts if plan is not None else None,
    )


def in_smoke(item: pytest.Item) -> bool:
    """Whether a smoke run includes a test: unless it belongs to a suite and is not marked."""
    return (
        item.get_closest_marker(SUITE_MARKER) is None
        or item.get_closest_marker("smoke") is not None
    )


def _argument(marker: pytest.Mark | None, position: int, name: str) -> str:
    if marker is None:
        return ""
    if len(marker.args) > position:
        return str(marker.args[position])
    return str(marker.kwargs.get(name, ""))
