"""The lines of DbgView's log files.

Read live from a guest and out of files that users send, so it belongs to neither. The format
is described by DbgView's help file (4.81) and, where that is silent, by logs seen:
``00000001<TAB>0.00000000<TAB>text<TAB>`` and CR LF.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

# Either the running number and any time column, or a time column alone: DbgView can be told
# to leave the number out, and then only a real time tells a line from free text.
_INDEXED = re.compile(r"(\d{8,10})\t([^\t]*)\t(.*)", re.DOTALL)
_UNINDEXED = re.compile(r"([^\t]{4,40})\t(.*)", re.DOTALL)
_ELAPSED = re.compile(r"\d{1,9}[.,]\d{1,9}")
_CLOCK = re.compile(
    r"(?:\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4} )?"
    r"(\d{1,2}):(\d{2}):(\d{2})(?:[.,](\d{1,3}))?(?: ?([AP])M)?",
    re.IGNORECASE,
)
# Win32 prints start with the process id; a kernel print may start with a bracketed word.
_PID = re.compile(r"\[(\d{1,10})\][ \t]")


@dataclass(frozen=True, slots=True)
class DbgLine:
    """One print.

    Attributes:
        index: DbgView's running number; None for a line without one (the computer's name at
            the top, or the rest of a print with a line break in it).
        seconds: since capture began, or since midnight when ``clock``; None when unreadable.
        clock: whether the time column is a time of day.
        text: what was printed, without the trailing TAB DbgView adds.
        pid: process id of a Win32 print, else None.
        missing: how many indexes are missing right before this line.
        restarted: whether the index went back here: a new capture began in the same file.
        time: the time column as written; None for a line without one.
    """

    index: int | None
    seconds: float | None
    clock: bool
    text: str
    pid: int | None = None
    missing: int = 0
    restarted: bool = False
    time: str | None = None


def parse(lines: Iterable[str]) -> Iterator[DbgLine]:
    """Parse a DbgView log line by line; the log is never held as a whole.

    Args:
        lines: lines with or without their ends. A log may begin anywhere, so indexes
            missing before the first line are not counted.
    """
    last: int | None = None
    for raw in lines:
        line = raw.rstrip("\r\n")
        if not line:
            continue
        one = parse_line(line)
        index = one.index
        if index is None:
            yield one
            continue
        yield DbgLine(
            index=index,
            seconds=one.seconds,
            clock=one.clock,
            text=one.text,
            pid=one.pid,
            missing=index - last - 1 if last is not None and index > last else 0,
            restarted=last is not None and index <= last,
            time=one.time,
        )
        last = index


def parse_line(line: str) -> DbgLine:
    """Parse one line on its own; ``missing`` and ``restarted`` are left at their defaults.

    Args:
        line: without its end.
    """
    indexed = _INDEXED.fullmatch(line)
    if indexed is not None:
        return _print(int(indexed[1]), indexed[2], indexed[3])
    unindexed = _UNINDEXED.fullmatch(line)
    if unindexed is not None and _time(unindexed[1])[0] is not None:
        return _print(None, unindexed[1], unindexed[2])
    return DbgLine(None, None, False, line.removesuffix("\t"))


def split_lines(log: Iterable[str]) -> Iterator[str]:
    """Lines ended by LF or CR LF; a lone CR belongs to the print."""
    rest = ""
    for piece in log:
        rest += piece
        if piece.endswith("\n"):
            yield rest
            rest = ""
    if rest:
        yield rest


def _print(index: int | None, time: str, text: str) -> DbgLine:
    seconds, clock = _time(time)
    # Exactly one TAB is DbgView's own; any other belongs to the print.
    text = text.removesuffix("\t")
    win32 = _PID.match(text)
    return DbgLine(
        index=index,
        seconds=seconds,
        clock=clock,
        text=text[win32.end() :] if win32 else text,
        pid=int(win32[1]) if win32 else None,
        time=time.strip(),
    )


def _time(text: str) -> tuple[float | None, bool]:
    """Seconds, and whether they count from midnight."""
    text = text.strip()
    if _ELAPSED.fullmatch(text):
        return float(text.replace(",", ".")), False
    clock = _CLOCK.fullmatch(text)
    if clock is None:
        return None, False
    hours, minutes, seconds = int(clock[1]), int(clock[2]), int(clock[3])
    if clock[5]:
        hours = hours % 12 + (12 if clock[5] in "Pp" else 0)
    millis = int(clock[4].ljust(3, "0")) if clock[4] else 0
    return hours * 3600 + minutes * 60 + seconds + millis / 1000, True
