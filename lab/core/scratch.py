"""Folders that a process needs only while it runs."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

from lab.core.deadline import Deadline
from lab.core.lock import locked

#: Making a folder and looking over those of others takes milliseconds.
_PATIENCE_SECONDS = 30.0


class Scratch:
    """A folder of this process's own.

    The folder is locked (flock(2)) for as long as the process lives, so that a later process
    can tell those that a killed one left, and removes them.

    Args:
        parent: an existing folder.
        prefix: how the names of such folders begin; no other file's name there may.

    Attributes:
        path: the folder, empty at first.

    Raises:
        OSError: it cannot be made.
        DeadlineExpired: another process keeps ``parent`` locked.
    """

    def __init__(self, parent: Path, prefix: str) -> None:
        # Between being made and being locked, a folder looks like one that was left.
        with locked(parent / ".locks" / prefix.strip("-"), Deadline(_PATIENCE_SECONDS)):
            for left in parent.glob(f"{prefix}*"):
                _remove_unless_used(left)
            self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
            self._lock = _lock(self.path)

    def close(self) -> None:
        """Remove the folder; fine to call twice."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _lock(folder: Path) -> int:
    """Lock a folder.

    Returns:
        The descriptor that holds the lock.

    Raises:
        BlockingIOError: another process holds it.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _remove_unless_used(folder: Path) -> None:
    try:
        descriptor = _lock(folder)
    except OSError:
        return
    try:
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)
