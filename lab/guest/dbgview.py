"""DbgView in the guest: what the drivers print, caught into a log file.

DbgView is freeware that may not be redistributed: the user puts it into the guest image.
Its log format is described by its help file (4.81) and, where that is silent, by logs seen:
``00000001<TAB>0.00000000<TAB>text<TAB>`` and CR LF.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.core.deadline import Deadline
from lab.core.errors import LabBroken, UsageError
from lab.guest.channel import CODE_PAGE, Channel
from lab.guest.errors import GuestFileMissing
from lab.guest.files import Files
from lab.guest.names import WORK_DIR

LOG = rf"{WORK_DIR}\dbgview.log"
"""Where the guest's DbgView writes."""

_UNKNOWN_COMMAND = "is not recognized as an internal or external command"

_LINE = re.compile(r"(\d{8})\t([^\t]*)\t(.*)", re.DOTALL)
_ELAPSED = re.compile(r"\d+[.,]\d+")
_CLOCK = re.compile(r"(\d{1,2}):(\d{2}):(\d{2})(?:[.,](\d{1,3}))?(?: ([AP])M)?")
# Win32 prints start with the process id; a kernel print may start with a bracketed word.
_PID = re.compile(r"\[(\d+)\] ")


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
    """

    index: int | None
    seconds: float | None
    clock: bool
    text: str
    pid: int | None = None
    missing: int = 0
    restarted: bool = False


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
        match = _LINE.fullmatch(line)
        if match is None:
            yield DbgLine(None, None, False, line.removesuffix("\t"))
            continue
        index = int(match[1])
        seconds, clock = _time(match[2])
        # Exactly one TAB is DbgView's own; any other belongs to the print.
        text = match[3].removesuffix("\t")
        win32 = _PID.match(text)
        yield DbgLine(
            index=index,
            seconds=seconds,
            clock=clock,
            text=text[win32.end() :] if win32 else text,
            pid=int(win32[1]) if win32 else None,
            missing=index - last - 1 if last is not None and index > last else 0,
            restarted=last is not None and index <= last,
        )
        last = index


def parse_file(path: Path) -> Iterator[DbgLine]:
    """Parse a log on this machine, as ``DbgView.read`` leaves it.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        with path.open(encoding=CODE_PAGE, newline="") as log:
            yield from parse(_split(log))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error


class DbgView:
    """DbgView in one guest.

    Args:
        channel: the guest's command line.
        files: its file system.
    """

    def __init__(self, channel: Channel, files: Files) -> None:
        self._channel = channel
        self._files = files

    def start(self, deadline: Deadline) -> None:
        """Start capturing kernel prints into ``LOG``, from an empty file.

        Raises:
            LabBroken: the guest has no DbgView.
            GuestSilent, DeadlineExpired: as ``Channel.run``.
        """
        result = self._channel.run(
            f"md {WORK_DIR} 2>nul & del /f /q {LOG} 2>nul & "
            f'start "" dbgview /accepteula /t /f /k /l {LOG}',
            deadline,
        )
        if not result.ok or _UNKNOWN_COMMAND in result.stderr:
            raise LabBroken(
                f"{result.where}: DbgView does not start: {result.stderr.strip()[:120]}",
                hint="put dbgview.exe into the guest image's PATH; its licence forbids "
                "shipping it with the lab",
            )

    def stop(self, deadline: Deadline) -> None:
        """End the capture; not an error when none runs. Raises like ``Channel.run``."""
        self._channel.run("taskkill /im dbgview.exe /f >nul 2>&1", deadline)

    def read(self, local: Path, deadline: Deadline) -> Path:
        """Copy the log as it is now to a file on this machine, capture running or not.

        Returns:
            ``local``, for ``parse_file``.

        Raises:
            GuestFileMissing: nothing was captured.
            UsageError: ``local`` cannot be written.
            LabBroken, GuestSilent, DeadlineExpired: as ``Files.read_text``.
        """
        text = self._files.read_text(LOG, deadline)
        try:
            local.write_bytes(text.encode(CODE_PAGE))
        except OSError as error:
            raise UsageError(f"cannot write {local}: {error.strerror}") from error
        return local

    def lines(self, deadline: Deadline) -> tuple[DbgLine, ...]:
        """What was captured so far; nothing when there is no log yet.

        Raises:
            LabBroken, GuestSilent, DeadlineExpired: as ``Files.read_text``.
        """
        try:
            text = self._files.read_text(LOG, deadline)
        except GuestFileMissing:
            return ()
        return tuple(parse(text.split("\n")))


def _split(log: Iterable[str]) -> Iterator[str]:
    """Lines ended by LF or CR LF; a lone CR belongs to the print."""
    rest = ""
    for piece in log:
        rest += piece
        if piece.endswith("\n"):
            yield rest
            rest = ""
    if rest:
        yield rest


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
        hours = hours % 12 + (12 if clock[5] == "P" else 0)
    millis = int(clock[4].ljust(3, "0")) if clock[4] else 0
    return hours * 3600 + minutes * 60 + seconds + millis / 1000, True
