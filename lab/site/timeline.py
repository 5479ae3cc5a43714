"""A failure's timeline: operations, log lines and vbd states on one clock."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from lab.core.dbglog import parse_line
from lab.evidence.manifest import PieceName
from lab.evidence.operations import DOM0_UPTIME, Operations
from lab.site.clocks import Offset, kernel_text, kernel_time, offsets
from lab.site.evidence import Evidence, Log

MOST_OF_A_SOURCE = 120
"""Lines of one log on a timeline, its last; the log's own page has the others."""

BEFORE_S = 5.0
"""Lines are shown from so long before the first operation on: a place has booted long before."""


class Source(enum.StrEnum):
    """Where an entry comes from."""

    OPERATION = "operation"
    VBD = "vbd"
    DBGVIEW = "DbgView"
    GUEST = "guest serial"
    XEN = "Xen and dom0"


SOURCES = {
    PieceName.DBGVIEW: Source.DBGVIEW,
    PieceName.GUEST_SERIAL: Source.GUEST,
    PieceName.XEN_SERIAL: Source.XEN,
}


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that happened.

    Attributes:
        at: in s since the timeline's zero.
        source: who says so.
        text: what.
        slack: how wrong ``at`` may be, in s.
        after: whether it is only known that it was not before ``at``: a line without a time of
            its own, behind one with a time.
        log: the piece it is a line of; empty when of none.
        line: number of that line.
        bad: whether it is an operation that failed.
        ended: of an operation, in s since the timeline's zero.
    """

    at: float
    source: Source
    text: str
    slack: float = 0.0
    after: bool = False
    log: str = ""
    line: int = 0
    bad: bool = False
    ended: float | None = None


@dataclass(frozen=True, slots=True)
class Clock:
    """What is said of a source's clock.

    Attributes:
        source: which.
        known: whether its lines are on the timeline.
        words: how it is known and how exactly, or why it is not.
        log: its piece.
        left_out: lines that are on the log's own page only: older ones, and doubles.
    """

    source: Source
    known: bool
    words: str
    log: str
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Timeline:
    """Everything on one clock.

    Attributes:
        zero: what its seconds count from; None when nothing has a common clock.
        entries: in order of time.
        clocks: one a source.
    """

    zero: datetime | None
    entries: tuple[Entry, ...]
    clocks: tuple[Clock, ...]


def timeline(evidence: Evidence) -> Timeline:
    """Put what a test left on one clock.

    Args:
        evidence: of the test.
    """
    known = offsets(evidence)
    operations = evidence.operations
    if operations is None:
        why = "the times of the test's operations were not recorded"
        return Timeline(
            None, (), tuple(Clock(source, False, why, log.name) for source, log in _logs(evidence))
        )
    entries = list(_operations(operations, known.get(DOM0_UPTIME)))
    clocks: list[Clock] = []
    # What DbgView caught may stand on the guest's serial port as well: once is enough.
    printed = _prints(evidence) if PieceName.DBGVIEW in known else frozenset()
    for source, log in _logs(evidence):
        offset = known.get(log.name)
        if offset is None:
            words = "nothing ties its times to this machine's" if _has_times(log) else "no times"
            clocks.append(Clock(source, False, words, log.name))
            continue
        lines = [
            one
            for one in _lines(source, log, offset, operations.zero)
            if one.at > -BEFORE_S and not (source is Source.GUEST and one.text in printed)
        ]
        shown = lines[-MOST_OF_A_SOURCE:]
        entries += shown
        words = f"{offset.why}: exact to {_exact(offset.slack)}"
        clocks.append(Clock(source, True, words, log.name, log.cut + len(log.lines) - len(shown)))
    # Python's sort is stable: lines of one log stay in its order.
    entries.sort(key=lambda entry: entry.at)
    return Timeline(datetime.fromtimestamp(operations.zero, UTC), tuple(entries), tuple(clocks))


def _logs(evidence: Evidence) -> Iterator[tuple[Source, Log]]:
    for name, source in SOURCES.items():
        if (log := evidence.log(name)) is not None and log.lines:
            yield source, log


def _prints(evidence: Evidence) -> frozenset[str]:
    log = evidence.log(PieceName.DBGVIEW)
    return frozenset(parse_line(line).text for line in log.lines) if log else frozenset()


def _operations(operations: Operations, dom0: Offset | None) -> Iterator[Entry]:
    for one in operations.operations:
        said = f"{one.words}: {one.error}" if one.error else one.words
        yield Entry(one.started, Source.OPERATION, said, bad=bool(one.error), ended=one.ended)
        if dom0 is not None and one.states:
            for state in one.states:
                at = state.at + dom0.middle - operations.zero
                yield Entry(at, Source.VBD, f"{state.device}: {state.words}", slack=dom0.slack)
        elif one.after:
            yield Entry(one.ended, Source.VBD, one.after)


def _lines(source: Source, log: Log, offset: Offset, zero: float) -> Iterator[Entry]:
    last: float | None = None
    for number, line in enumerate(log.lines, log.first):
        if not line.strip():
            continue
        seconds, text = _time(source, line)
        after = seconds is None
        if seconds is None:
            if last is None:
                continue
            at = last
        else:
            # A log is in the order in which it was written, whatever its times say.
            at = max(seconds + offset.middle - zero, -math.inf if last is None else last)
        last = at
        yield Entry(at, source, text, slack=offset.slack, after=after, log=log.name, line=number)


def _time(source: Source, line: str) -> tuple[float | None, str]:
    if source is Source.DBGVIEW:
        one = parse_line(line)
        return (None if one.clock else one.seconds), one.text
    seconds = kernel_time(line)
    return seconds, line if seconds is None else kernel_text(line)


def _has_times(log: Log) -> bool:
    source = SOURCES[PieceName(log.name)]
    return any(_time(source, line)[0] is not None for line in log.lines)


def _exact(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
