"""One clock for all of a failure's sources: which source's time is which of this machine's.

Nothing is invented. A source's clock is known within bounds that follow from readings
(``clocks.json``), from lines that two logs share, or from causality: a line was not printed
before its log was opened, nor after it was read. A source with no bounds has no place on the
common clock, and is shown apart.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lab.core.dbglog import parse_line
from lab.evidence.manifest import PieceName
from lab.evidence.operations import DOM0_KERNEL, DOM0_UPTIME, GUEST_KERNEL, Operations, Reading
from lab.site.evidence import Evidence, Log

# Linux's CONFIG_PRINTK_TIME: "[", seconds since boot padded to 5, six decimals, "]"
# (kernel/printk/printk.c, print_time).
_KERNEL = re.compile(r"^(?:<\d{1,3}>)?\[ *(\d{1,9}\.\d{6})\](?:\[[^\]]{1,12}\])? ?")

WIDEST_S = 300.0
"""Bounds further apart than this say nothing useful."""


@dataclass(frozen=True, slots=True)
class Offset:
    """What to add to a source's time to have this machine's.

    Attributes:
        low: at least, in s.
        high: at most, in s.
        why: how it is known, in words.
    """

    low: float
    high: float
    why: str

    @property
    def middle(self) -> float:
        """The value used."""
        return (self.low + self.high) / 2

    @property
    def slack(self) -> float:
        """How wrong it may be, in s."""
        return (self.high - self.low) / 2

    def shifted(self, seconds: float, slack: float, why: str) -> Offset:
        """Of a clock that shows ``seconds`` less, give or take ``slack``."""
        return Offset(self.low + seconds - slack, self.high + seconds + slack, why)


def kernel_time(line: str) -> float | None:
    """The time that a kernel put before its line, in s since its boot; None without one."""
    found = _KERNEL.match(line)
    return float(found[1]) if found else None


def kernel_text(line: str) -> str:
    """A kernel's line without its time."""
    return _KERNEL.sub("", line).strip()


def offsets(evidence: Evidence) -> dict[str, Offset]:
    """The clocks of a test's sources, by piece: those that are known.

    Returns:
        Offsets to this machine's clock, in s since 1970; ``DOM0_UPTIME`` is among them under
        its own name.
    """
    found: dict[str, Offset] = {}
    readings = evidence.clocks.readings if evidence.clocks else ()
    if known := _of(readings, DOM0_KERNEL, "a mark was written into dom0's log"):
        found[PieceName.XEN_SERIAL] = known
    if known := _of(readings, DOM0_UPTIME, "dom0's uptime was read"):
        found[DOM0_UPTIME] = known
    why = "dom0 says when the guest's last line was written"
    if known := _of(readings, GUEST_KERNEL, why):
        found[PieceName.GUEST_SERIAL] = known
    dbgview = evidence.log(PieceName.DBGVIEW)
    serial = evidence.log(PieceName.GUEST_SERIAL)
    if dbgview is not None:
        guest = found.get(PieceName.GUEST_SERIAL)
        shared = _shared(dbgview, serial) if serial is not None and guest is not None else None
        if shared is not None and guest is not None:
            shift, slack, count = shared
            said = f"{count} of its lines are also on the guest's serial port"
            found[PieceName.DBGVIEW] = guest.shifted(shift, slack, said)
        elif evidence.operations is not None and (
            bounds := _capture(dbgview, evidence.operations, _collected(evidence))
        ):
            found[PieceName.DBGVIEW] = bounds
    return found


def _of(readings: Iterable[Reading], clock: str, why: str) -> Offset | None:
    """The offset that all readings of a clock allow; None without one, or if they disagree."""
    mine = [reading for reading in readings if reading.clock == clock]
    if not mine:
        return None
    low = max(one.earliest - one.shows for one in mine)
    high = min(one.latest - one.shows for one in mine)
    return Offset(low, high, why) if low <= high else None


def _shared(dbgview: Log, serial: Log) -> tuple[float, float, int] | None:
    """How far DbgView's times are behind the kernel's, by lines that stand in both logs.

    Returns:
        Shift, how far single lines differ from it, and how many there are.
    """
    seen: dict[str, list[float]] = {}
    for line in serial.lines:
        if (at := kernel_time(line)) is not None:
            seen.setdefault(kernel_text(line), []).append(at)
    printed: dict[str, list[float]] = {}
    for line in dbgview.lines:
        one = parse_line(line)
        if one.seconds is not None and not one.clock:
            printed.setdefault(one.text.strip(), []).append(one.seconds)
    shifts = [
        seen[text][0] - times[0]
        for text, times in printed.items()
        # A text that was printed more than once may be paired wrongly.
        if len(times) == 1 and len(seen.get(text, ())) == 1
    ]
    if not shifts:
        return None
    middle = statistics.median(shifts)
    return middle, max(abs(shift - middle) for shift in shifts), len(shifts)


def _collected(evidence: Evidence) -> float | None:
    """When the evidence had been collected at the latest, in s since 1970."""
    if evidence.operations is None or evidence.manifest is None:
        return None
    return evidence.operations.kept + sum(piece.seconds for piece in evidence.manifest.pieces)


def _capture(dbgview: Log, operations: Operations, collected: float | None) -> Offset | None:
    """Bounds for DbgView's zero: its first line came after the capture began, its last line
    before the log was read."""
    starts = [one for one in operations.operations if one.name == "DbgView.start"]
    times = _elapsed(dbgview.lines)
    if not starts or not times or collected is None or dbgview.cut:
        return None
    low = operations.zero + starts[-1].started - times[0]
    high = collected - max(times)
    if not 0 <= high - low <= WIDEST_S:
        return None
    return Offset(low, high, "printed after the capture began and before the log was read")


def _elapsed(lines: Sequence[str]) -> list[float]:
    parsed = (parse_line(line) for line in lines)
    return [one.seconds for one in parsed if one.seconds is not None and not one.clock]
