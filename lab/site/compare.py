"""One night against the one before: what is new, the worst first."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lab.scenario.rate import Rate, rate
from lab.site.model import Key, Mark, Night, Result, Site
from lab.suite.sequential import Tally

WINDOW = 50
"""Results that a flake rate is counted over, at most: the driver changes, and so does the lab."""


class Change(enum.StrEnum):
    """What became of a test since it last said something, in the order they are shown."""

    REGRESSION = "regression"
    NEW_FAILURE = "new failure"
    UNDECIDED = "undecided"
    LAB = "lab broken"
    XPASSED = "passes unexpectedly"
    STILL = "still failing"
    FIXED = "fixed"
    NOT_RUN = "not run"
    KNOWN = "known"
    SAME = "as before"


@dataclass(frozen=True, slots=True)
class Difference:
    """One test, tonight against before.

    Attributes:
        key: which test, where.
        change: what became of it.
        now: tonight's result; None when it did not run.
        before: the last one that said something of the driver; None when there is none.
        before_night: that one's night.
        since: of a failure that was there before: the first night of the unbroken series.
        stats: how often it failed, tonight included.
    """

    key: Key
    change: Change
    now: Result | None
    before: Result | None
    before_night: str
    since: str
    stats: Stats


@dataclass(frozen=True, slots=True)
class Stats:
    """How often a test failed.

    Attributes:
        rate: failures among the results that say something of the driver, the last
            ``WINDOW`` of them, with its interval.
        flaky: whether it passed and failed with one and the same driver build.
        lab: how often the lab broke it, in the same nights.
        ran: results in the same nights, whatever they say.
    """

    rate: Rate
    flaky: bool
    lab: int
    ran: int


def stats(site: Site, history: Sequence[tuple[Night, Result]]) -> Stats:
    """Count a test's history.

    Args:
        site: for the builds.
        history: of one test, oldest first.
    """
    recent = history[-WINDOW:]
    telling = [result for _, result in recent if result.mark.of_driver]
    failures = sum(result.mark is Mark.FAILED for result in telling)
    seen: dict[str, set[bool]] = {}
    for result in telling:
        run = site.runs.get(result.run)
        build = run.driver.sha256 if run is not None and run.driver is not None else ""
        seen.setdefault(build, set()).add(result.mark is Mark.FAILED)
    return Stats(
        rate=rate(Tally(failures, len(telling))),
        flaky=any(len(both) == 2 for both in seen.values()),
        lab=sum(result.mark is Mark.LAB for _, result in recent),
        ran=len(recent),
    )


def compare(site: Site, night: Night | None = None) -> tuple[Difference, ...]:
    """Compare a night with what was known before it.

    A test is held against its last earlier result that says something of the driver, whichever
    night that was: a night that the lab broke must not hide a regression.

    Args:
        site: all nights.
        night: which; the last when None.

    Returns:
        One difference a test that ran tonight or in the night before, the worst first.
    """
    if not site.nights:
        return ()
    chosen = night or site.nights[-1]
    place = site.nights.index(chosen)
    until = site.nights[: place + 1]
    keys = set(chosen.results)
    if place:
        keys |= set(site.nights[place - 1].results)
    found = [_difference(site, until, key) for key in keys]
    order = {change: number for number, change in enumerate(Change)}
    return tuple(sorted(found, key=lambda one: (order[one.change], one.key)))


def _difference(site: Site, until: Sequence[Night], key: Key) -> Difference:
    history = [(night, night.results[key]) for night in until if key in night.results]
    now = until[-1].results.get(key)
    earlier = history[:-1] if now is not None else history
    before_night, before = next(
        ((night.name, one) for night, one in reversed(earlier) if one.mark.of_driver), ("", None)
    )
    change = _change(now, before)
    since = _since(earlier) if change is Change.STILL else ""
    return Difference(key, change, now, before, before_night, since, stats(site, history))


def _change(now: Result | None, before: Result | None) -> Change:
    if now is None:
        return Change.NOT_RUN
    plain = {
        Mark.UNDECIDED: Change.UNDECIDED,
        Mark.LAB: Change.LAB,
        Mark.XPASSED: Change.XPASSED,
        Mark.KNOWN: Change.KNOWN,
    }
    if (found := plain.get(now.mark)) is not None:
        return found
    failed_before = before is not None and before.mark is Mark.FAILED
    if now.mark is Mark.FAILED:
        if before is None:
            return Change.NEW_FAILURE
        return Change.STILL if failed_before else Change.REGRESSION
    return Change.FIXED if failed_before and now.mark is Mark.PASSED else Change.SAME


def _since(earlier: Iterable[tuple[Night, Result]]) -> str:
    """The first night of the unbroken series of failures that ends the history."""
    since = ""
    for night, result in reversed(list(earlier)):
        if result.mark is Mark.FAILED:
            since = night.name
        elif result.mark.of_driver:
            break
    return since
