"""The lab's exceptions: each one knows whom it blames and how a command exits.

An error is shown to people as one line, ``message``, optionally followed by ``hint``: what
to do about it. Blame decides the verdict: a driver failure and a lab failure are never the
same type.
"""

from __future__ import annotations

import enum


class Blame(enum.StrEnum):
    """Who is answerable for a failure."""

    DRIVER = "driver"
    LAB = "lab"
    UNDECIDED = "undecided"


class ExitCode(enum.IntEnum):
    """Exit codes of every ``pvlab`` command."""

    PASS = 0
    DRIVER_FAILED = 1
    USAGE = 2
    LAB_BROKEN = 3


class PvlabError(Exception):
    """Base of every error raised on purpose.

    Args:
        message: one line, saying what happened.
        hint: one line, saying what to do about it; empty when there is nothing to do.
    """

    blame: Blame = Blame.LAB
    exit_code: ExitCode = ExitCode.LAB_BROKEN

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UsageError(PvlabError):
    """Bad input from the user: a path, a profile, a package, an option. Exit code 2."""

    exit_code = ExitCode.USAGE


class LabBroken(PvlabError):
    """The lab itself failed: QEMU died, dom0 unreachable, an image damaged. Exit code 3."""


class DriverFailure(PvlabError):
    """The driver under test did something wrong, and the lab has evidence of it.

    Args:
        message: one line, saying what happened.
        hint: one line, saying what to do about it; empty when there is nothing to do.
        stuck: of a driver that hangs, what never came to an end and where it stands, in words
            that are the same each time: ``detach: backend Closing, frontend Connected``. Empty
            when nothing hangs.
    """

    blame = Blame.DRIVER
    exit_code = ExitCode.DRIVER_FAILED

    def __init__(self, message: str, *, hint: str = "", stuck: str = "") -> None:
        super().__init__(message, hint=hint)
        self.stuck = stuck


class GuestCrashed(DriverFailure):
    """The guest bugchecked, rebooted by itself or stopped answering after a driver operation.

    Args:
        message: one line: what was seen and during which operation.
        evidence: lines that prove it (serial log, domain state), oldest first.
    """

    def __init__(self, message: str, *, evidence: tuple[str, ...] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.evidence = evidence


class DeadlineExpired(PvlabError):
    """A wait ran out of time.

    By itself this blames nobody: the caller that knows which side was late re-raises it as
    a ``LabBroken`` or a ``DriverFailure``.

    Args:
        waited_for: what should have happened.
        last_seen: the last state observed, in words.
        seconds: how long the wait lasted.
    """

    blame = Blame.UNDECIDED

    def __init__(self, waited_for: str, last_seen: str, seconds: float) -> None:
        super().__init__(
            f"waited {seconds:.1f} s for {waited_for}; last seen: {last_seen or 'nothing'}"
        )
        self.waited_for = waited_for
        self.last_seen = last_seen
        self.seconds = seconds
