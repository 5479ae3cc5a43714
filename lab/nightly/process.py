"""One command of an item, from its start to its end, however that comes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from lab.core.deadline import Deadline, NotYet, wait_for
from lab.core.errors import DeadlineExpired, LabBroken

GRACE_SECONDS = 60.0
"""What an interrupted run gets to end its machines and write its record."""

LAST_SECONDS = 15.0
"""What it gets after that, before it is killed."""

_BEFORE = (
    # It dies with this process, however that does.
    *("setpriv", "--pdeathsig", "KILL", "--"),
    # It can be interrupted, even where cron or a shell's background told this process to ignore it.
    *("env", "--default-signal=INT"),
)


class Stopped(Exception):
    """The command was ended because nobody wants its result any more."""


def run_command(
    words: Sequence[str],
    *,
    log: Path,
    keep: int,
    deadline: Deadline,
    stopped: Callable[[], bool],
    grace: float = GRACE_SECONDS,
) -> int:
    """Run a command and wait for it.

    It dies with the process that calls this, and holds the place's lock itself, so that nobody
    uses the place until it has.

    Args:
        words: the command line.
        log: where its output goes.
        keep: descriptor that it inherits.
        deadline: when it has to be done.
        stopped: asked now and then whether to end it.
        grace: seconds that it gets to end by itself when it is interrupted.

    Returns:
        Its exit status.

    Raises:
        LabBroken: it cannot be started.
        DeadlineExpired: it was not done in time; it has ended.
        Stopped: it was to stop; it has ended.
    """
    try:
        with log.open("ab") as output:
            child = subprocess.Popen(
                [*_BEFORE, *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(keep,),
                # So that an interrupt from a terminal comes once, from here.
                process_group=0,
            )
    except OSError as error:
        raise LabBroken(f"{words[0]}: cannot be started: {error.strerror}") from None

    try:
        wait_for("the run of an item", lambda: _ended(child, stopped), deadline)
    finally:
        _end(child, grace)
    return child.returncode


def _end(child: subprocess.Popen[bytes], grace: float) -> None:
    """End a child, asked first and then killed, and whatever is left of its group."""
    for number, seconds in ((signal.SIGINT, grace), (signal.SIGTERM, min(grace, LAST_SECONDS))):
        if _runs(child):
            child.send_signal(number)
            with contextlib.suppress(DeadlineExpired):
                wait_for("the end of an item", lambda: _ended(child), Deadline(seconds))
    # Its number, which is the group's, is taken as long as nobody has waited for it.
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _ended(child: subprocess.Popen[bytes], stopped: Callable[[], bool] = lambda: False) -> None:
    if _runs(child):
        if stopped():
            raise Stopped
        raise NotYet("it runs")


def _runs(child: subprocess.Popen[bytes]) -> bool:
    """Whether it has not ended; one that has stays a zombie (waitid(2), WNOWAIT)."""
    return os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
