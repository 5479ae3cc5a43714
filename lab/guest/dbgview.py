"""DbgView in the guest: what the drivers print, caught into a log file.

DbgView is freeware that may not be redistributed: the user puts it into the guest image.
``lab.core.dbglog`` knows the lines of its log.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lab.core.dbglog import DbgLine, parse, split_lines
from lab.core.deadline import Deadline
from lab.core.errors import LabBroken, UsageError
from lab.core.journal import noun
from lab.guest.channel import CODE_PAGE, Channel
from lab.guest.errors import GuestFileMissing
from lab.guest.files import Files
from lab.guest.names import WORK_DIR

LOG = rf"{WORK_DIR}\dbgview.log"
"""Where the guest's DbgView writes."""

_UNKNOWN_COMMAND = "is not recognized as an internal or external command"


def parse_file(path: Path) -> Iterator[DbgLine]:
    """Parse a log on this machine, as ``DbgView.read`` leaves it.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        with path.open(encoding=CODE_PAGE, newline="") as log:
            yield from parse(split_lines(log))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error


@noun
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
