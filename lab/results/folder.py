"""The results folder: one folder a run, and ``latest``."""

from __future__ import annotations

import contextlib
import os
import secrets
from datetime import UTC, datetime
from pathlib import Path

from lab.core.errors import UsageError

LATEST = "latest"


def new_run_id(now: datetime | None = None) -> str:
    """A run's name: the UTC second, so that names sort by time, and 24 random bits."""
    moment = (now or datetime.now(UTC)).astimezone(UTC)
    return f"{moment:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def create_run_folder(results: Path, now: datetime | None = None) -> Path:
    """Make a folder for a new run; its name is the run's id.

    Several runs may start at once: creating a folder succeeds for one of them only (mkdir(2)),
    and who loses takes another name.

    Args:
        results: the results folder; it is created if need be.
        now: when the run started.

    Raises:
        UsageError: the results folder cannot be written.
    """
    try:
        results.mkdir(parents=True, exist_ok=True)
        while True:
            folder = results / new_run_id(now)
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                return folder
    except OSError as error:
        raise UsageError(
            f"{results}: cannot make a results folder: {error.strerror}",
            hint="PVLAB_RESULTS names another place",
        ) from None


def point_latest(folder: Path) -> None:
    """Make ``latest``, beside the run's folder, point at it; of several runs, the last wins.

    Args:
        folder: the run's.

    Raises:
        UsageError: something that is no symbolic link is called ``latest``, or the folder cannot
            be written.
    """
    latest = folder.parent / LATEST
    temporary = latest.with_name(f".{LATEST}.{secrets.token_hex(4)}.tmp")
    if latest.exists() and not latest.is_symlink():
        raise UsageError(f"{latest}: in the way, not a symbolic link", hint="move it away")
    try:
        # rename(2) replaces the link in one step; removing it first would leave a gap.
        temporary.symlink_to(folder.name, target_is_directory=True)
        os.replace(temporary, latest)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UsageError(f"{latest}: cannot be written: {error.strerror}") from None
