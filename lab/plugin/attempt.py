"""Looking after a test that ended: whom to blame, and what evidence to keep.

Runs between the test and its teardown, while the place still lives. Nothing in here raises:
trouble in recording a test must not replace the test's own outcome.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

import pytest

from lab.core.errors import Blame, DriverFailure, GuestCrashed, LabBroken, PvlabError
from lab.core.journal import unheard
from lab.evidence.manifest import CRASH, FULL, LIGHT, PieceName
from lab.evidence.operations import CLOCKS_NAME
from lab.guest.errors import GuestSilent
from lab.plugin.campaigns import Attempt, CampaignItem, describe
from lab.plugin.clocks import read_clocks
from lab.plugin.keys import (
    COLLECTOR,
    ERROR,
    EXPECTED,
    PLACE,
    SOURCES,
    fixture_names,
    tests_driver,
)
from lab.plugin.known import compare
from lab.plugin.marks import area_of, expected
from lab.plugin.options import settings
from lab.plugin.recorder import attach
from lab.plugin.recording import keep, keep_times
from lab.plugin.telling import tell
from lab.suite.aftermath import Seen, examine, find_crash, freeze
from lab.suite.blame import Verdict, decide, leaves
from lab.suite.intensity import Intensity
from lab.xen.screen import screen_of

if TYPE_CHECKING:
    from lab.core.deadline import Deadline
    from lab.place.place import Place
    from lab.plugin.session import Lab
    from lab.suite.allowance import Allowance

PASSED = LIGHT | {PieceName.DBGVIEW}
"""What is kept of a test that passed."""

NO_DOM0 = frozenset({PieceName.TIMINGS, PieceName.XEN_SERIAL})
"""What can still be had of a place whose dom0 is gone."""

BROKEN = FULL - {PieceName.DBGVIEW}
"""What dom0 can tell of a place that broke: why it did, most of all."""

ASSERTIONS = (AssertionError, pytest.fail.Exception)
"""What a test raises when something is not as it should be."""

CHOSEN = (pytest.skip.Exception, pytest.xfail.Exception)
"""What a test raises by its own choice, and nobody is to blame for."""


def check_guest(place: Place, deadline: Deadline) -> None:
    """See that a guest has lived through a test that passed.

    Raises:
        GuestCrashed: it has not.
        LabBroken: dom0 cannot be asked.
    """
    found = place.guest.crash.check(deadline)
    if found is not None:
        raise GuestCrashed(
            f"the guest crashed in a test that passed otherwise: {found.summary}",
            evidence=found.evidence,
        )


def look_after(
    item: pytest.Item, call: pytest.CallInfo[Any], report: pytest.TestReport, lab: Lab
) -> None:
    """Blame and collect for one phase of a test that uses the lab.

    Args:
        item: the test.
        call: its phase.
        report: what pytest makes of the phase; the findings are attached to it.
        lab: of the session.
    """
    attach(report, area=area_of(item), expected=_expected(item, lab))
    # What looking does to the place is not the test's doing.
    with unheard():
        _look(item, call, report, lab)


def _look(
    item: pytest.Item, call: pytest.CallInfo[Any], report: pytest.TestReport, lab: Lab
) -> None:
    if preparation := lab.preparation():
        attach(report, preparation=preparation)
    if isinstance(item, CampaignItem) and report.when == "call":
        describe(item, report)
    error = call.excinfo.value if call.excinfo is not None else None
    if error is not None:
        item.stash[ERROR] = error
    if report.failed or (error is not None and not isinstance(error, CHOSEN)):
        _after_failure(item, error, report, lab)
    elif report.when == "call" and report.passed and not isinstance(item, Attempt):
        _collect(item, report, lab, PASSED)
        _keep(item, lab, None)


def _expected(item: pytest.Item, lab: Lab) -> float | None:
    """What a test takes at most, in s: on the accelerator and the machine that it ran on, if
    they are known."""
    if lab.prepared is None or EXPECTED not in item.stash:
        return item.stash.get(EXPECTED, None)
    asked = settings(item.config)
    return lab.pace * expected(item, Intensity(asked.intensity, lab.prepared.accel.name))


def _after_failure(
    item: pytest.Item, error: BaseException | None, report: pytest.TestReport, lab: Lab
) -> None:
    place = item.stash.get(PLACE, None)
    health = examine(place, lab.deadline("command")) if place is not None else None
    errors = list(leaves(error)) if error is not None else []
    crash = next((e for e in errors if isinstance(e, GuestCrashed)), None)
    if place is not None and health is not None and health.ok:
        try:
            crash = find_crash(place, lab.deadline("crash"), crash)
        except LabBroken as broken:
            health = Seen(False, broken.message)
    verdict = decide(
        error,
        health=health,
        crash=crash,
        driver_test=tests_driver(item),
        assertions=ASSERTIONS,
    )
    if crash is not None:
        item.stash[ERROR] = crash
    verdict = compare(item, report, verdict, crash)

    attach(report, blame=verdict.blame.value, reason=verdict.reason)
    found = [("pvlab.blame", verdict.blame.value)]
    if crash is not None:
        found.append(("pvlab.crash", crash.message))
    elif verdict.blame is Blame.DRIVER and (stuck := _stuck(errors)):
        found.append(("pvlab.stuck", stuck))
    for properties in (item.user_properties, report.user_properties):
        properties.extend(found)
    if health is not None:
        lost = crash is not None or any(isinstance(e, GuestSilent) for e in errors)
        item.stash[SOURCES].guest_lost = lost
        pieces = CRASH if lost else FULL
        if not settings(item.config).core:
            pieces = pieces - {PieceName.CORE}
        if isinstance(item, Attempt) and item.known:
            # The first failure's evidence is kept; this one is only counted.
            pieces = frozenset()
        if lost and place is not None and health.ok:
            freeze(place, lab.deadline("command"))
        if not health.ok:
            pieces = BROKEN if place is not None and _reaches_dom0(place) else NO_DOM0
        if pieces:
            # First, as it costs nothing and says what the rest is about.
            _keep(item, lab, verdict)
            _keep_times(item, lab, place if health.ok else None)
            if lost and place is not None and health.ok and lab.profile.has_screen:
                _keep_screen(item, lab, place)
        _collect(item, report, lab, pieces, "evidence" if health.ok else "command")
    tell(item, report, error, crash, verdict)


def _stuck(errors: Iterable[BaseException]) -> str:
    """What the driver never brought to an end; empty when that is not what went wrong."""
    return next((one.stuck for one in errors if isinstance(one, DriverFailure) and one.stuck), "")


def _keep(item: pytest.Item, lab: Lab, verdict: Verdict | None) -> None:
    try:
        keep(item, lab, verdict)
    except Exception as error:
        item.warn(pytest.PytestWarning(f"pvlab: no scenario was recorded: {error}"))


def _keep_times(item: pytest.Item, lab: Lab, place: Place | None) -> None:
    """Keep what puts a failure on one clock.

    Args:
        item: the test.
        lab: of the session.
        place: whose clocks are read; None for one that does not answer.
    """
    collector = item.stash.get(COLLECTOR, None)
    if collector is None:
        return
    try:
        keep_times(item)
        if place is not None:
            clocks = read_clocks(place, lab.deadline("command"))
            collector.add(CLOCKS_NAME, clocks.model_dump_json(indent=2) + "\n")
    except PvlabError as error:
        # The logs are evidence without it; that it is missing is listed with them.
        collector.add("clocks.txt", f"no clocks: {error}\n")
    except Exception as error:
        item.warn(pytest.PytestWarning(f"pvlab: no clocks were read: {error}"))


def _keep_screen(item: pytest.Item, lab: Lab, place: Place) -> None:
    """Keep what a guest that is lost shows on its screen: of Windows, the stop error."""
    collector = item.stash.get(COLLECTOR, None)
    if collector is None:
        return
    try:
        watches = place.toolstack.has_watches
        picture = screen_of(
            place.dom0, place.domain.domid, lab.deadline("command"), watches=watches
        )
    except PvlabError as error:
        collector.add("screen.txt", f"no picture: {error}\n")
    except Exception as error:
        item.warn(pytest.PytestWarning(f"pvlab: no picture of the screen: {error}"))
    else:
        file = io.BytesIO()
        picture.save(file, "PNG")
        collector.add("screen.png", file.getvalue())


def _reaches_dom0(place: Place) -> bool:
    try:
        return place.dom0.connected
    except PvlabError:
        return False


def _collect(
    item: pytest.Item,
    report: pytest.TestReport,
    lab: Lab,
    pieces: Collection[PieceName],
    allowance: Allowance = "evidence",
) -> None:
    collector = item.stash.get(COLLECTOR, None)
    if collector is None or not pieces:
        return
    if "dbgview" not in fixture_names(item):
        pieces = [piece for piece in pieces if piece is not PieceName.DBGVIEW]
    try:
        collector.collect(lab.deadline(allowance), pieces)
    except Exception as error:
        item.warn(pytest.PytestWarning(f"pvlab: no evidence was collected: {error}"))
        return
    attach(report, evidence=collector.relative)
