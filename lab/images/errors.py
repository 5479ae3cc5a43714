"""What an image build that failed carries besides its one line."""

from __future__ import annotations

from pathlib import Path

from lab.core.errors import LabBroken


class BuildFailed(LabBroken):
    """A builder, or a program it started, failed.

    Args:
        message: one line: the image, what failed and how.
        tail: the last lines of the build's log, oldest first.
        log: the whole log; the store sets it once the log has its final place.
    """

    def __init__(
        self, message: str, *, tail: tuple[str, ...] = (), log: Path | None = None
    ) -> None:
        super().__init__(message, hint=f"full log: {log}" if log else "")
        self.tail = tail
        self.log = log
