"""What one run of one test on one driver told the gate."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from lab.core.errors import Blame
from lab.results.record import INTERRUPTED, LAB_IS_BROKEN, Outcome, TestRecord

FIGURE = "pvlab.figure."
"""How properties of tests begin that are figures: what was measured, of which less is better."""


class Side(enum.StrEnum):
    """Which of a gate's drivers."""

    NEW = "new"
    OLD = "baseline"


class Seen(enum.StrEnum):
    """What a run of a test showed."""

    PASSED = "passed"
    FAILED = "failed"
    KNOWN = "known"
    NEWS = "news"
    SKIPPED = "skipped"
    LAB = "lab"
    UNDECIDED = "undecided"

    @property
    def answer(self) -> bool:
        """Whether it says something about the driver."""
        return self not in (Seen.LAB, Seen.UNDECIDED, Seen.SKIPPED)


@dataclass(frozen=True, slots=True)
class Step:
    """A run that a gate asks for.

    Attributes:
        test: node id.
        side: on which driver.
    """

    test: str
    side: Side


@dataclass(frozen=True, slots=True)
class Observation:
    """A run that was made.

    Attributes:
        test: node id.
        side: on which driver.
        seen: what it showed.
        message: one line: what went wrong, or why it was skipped.
        figures: what was measured, by name; positive, less is better.
        run: id of the run it was part of.
        evidence: folder of its evidence, relative to the run's.
    """

    test: str
    side: Side
    seen: Seen
    message: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)
    run: str = ""
    evidence: str | None = None


def seen(test: TestRecord) -> Seen:
    """What a test's record shows."""
    match test.outcome:
        case Outcome.PASSED:
            return Seen.PASSED
        case Outcome.SKIPPED:
            # Not its own choice: nothing was run.
            lost = test.message.startswith((LAB_IS_BROKEN, INTERRUPTED))
            return Seen.LAB if lost else Seen.SKIPPED
        case Outcome.XPASSED:
            # Without anybody to blame it is a test's own `xfail`, which is not the errata's.
            return Seen.PASSED if test.blame is None else Seen.NEWS
        case Outcome.XFAILED:
            return Seen.LAB if test.blame is Blame.LAB else Seen.KNOWN
        case Outcome.FAILED | Outcome.ERROR:
            found = {Blame.DRIVER: Seen.FAILED, Blame.LAB: Seen.LAB}
            return found.get(test.blame, Seen.UNDECIDED) if test.blame else Seen.UNDECIDED


def figures(properties: Mapping[str, str]) -> dict[str, float]:
    """The figures among a test's properties; what is no positive number is none."""
    found: dict[str, float] = {}
    for name, text in properties.items():
        if not name.startswith(FIGURE):
            continue
        try:
            value = float(text)
        except ValueError:
            continue
        if math.isfinite(value) and value > 0:
            found[name.removeprefix(FIGURE)] = value
    return found


def observation(test: TestRecord, *, run: str) -> Observation:
    """A test's record as a gate takes it.

    Args:
        test: of a run that the gate asked for; without a turn, it ran on the new driver.
        run: the run's id.
    """
    turn = test.turn
    return Observation(
        test=turn.test if turn else test.id,
        side=Side(turn.driver) if turn else Side.NEW,
        seen=seen(test),
        message=" ".join(test.message.split()),
        figures=figures(test.properties),
        run=run,
        evidence=test.evidence,
    )
