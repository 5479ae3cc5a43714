"""What came of running a scenario."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from lab.core.errors import Blame, DriverFailure, ExitCode
from lab.crash.facts import CrashFact
from lab.scenario.model import Path


class WrongData(DriverFailure):
    """A disk returned, or was given, other data than it should."""


class End(enum.StrEnum):
    """How a scenario ended."""

    PASSED = "passed"
    CRASH = "crash"
    HANG = "hang"
    WRONG_DATA = "wrong data"
    FAILED = "failed"
    LAB = "lab"


@dataclass(frozen=True, slots=True)
class Moment:
    """One step as it was run.

    Attributes:
        path: its place in the scenario.
        words: the step in a line.
        start: seconds from the scenario's start.
        end: likewise; both on one monotonic clock of the machine that runs the lab.
        error: why it failed, in a line; empty when it did not.
    """

    path: Path
    words: str
    start: float
    end: float
    error: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a scenario.

    Attributes:
        end: how it ended.
        blame: who is answerable; None when it passed.
        reason: one line that says why; empty when it passed.
        at: the step it ended at, in words; empty when that is none.
        facts: of the crash or the hang.
        moments: the steps, in the order in which they ended.
        seconds: how long it took.
    """

    end: End
    blame: Blame | None = None
    reason: str = ""
    at: str = ""
    facts: tuple[CrashFact, ...] = ()
    moments: tuple[Moment, ...] = field(default=(), repr=False)
    seconds: float = 0.0

    @property
    def exit_code(self) -> ExitCode:
        """0 passed, 1 the driver failed, 3 the lab did, or nobody can say."""
        if self.end is End.PASSED:
            return ExitCode.PASS
        return ExitCode.DRIVER_FAILED if self.blame is Blame.DRIVER else ExitCode.LAB_BROKEN

    @property
    def line(self) -> str:
        """In a line, for people."""
        if self.end is End.PASSED:
            return "passed"
        where = f" at {self.at}" if self.at else ""
        return f"{self.end.value}{where}: {self.reason}"
