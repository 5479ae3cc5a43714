"""Runs one program so that nothing of it outlives whoever asked for it.

Started as a script, on its own, by ``lab.images.process``. A parent-death signal alone does
not reach the programs that the program starts (prctl(2): the setting is cleared in the child
of a fork), and package tools start many. So this process adopts every orphan below it and
kills all of them when the parent dies, when it is told to end, or when the program ends.

Usage: ``python minder.py PARENT_PID PROGRAM [ARGUMENT...]``. The exit status is the program's,
128 + N if signal N ended it, 127 if it could not be started.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path

# linux/prctl.h
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

ENDING = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


def descendants(root: int) -> list[int]:
    """Process ids below ``root``, by the parent field of /proc/PID/stat (proc(5))."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            # The command's name is in parentheses and may hold anything, even parentheses.
            after_name = (entry / "stat").read_text(errors="replace").rpartition(")")[2]
            children.setdefault(int(after_name.split()[1]), []).append(int(entry.name))
    found: list[int] = []
    level = [root]
    while level:
        level = [child for parent in level for child in children.get(parent, [])]
        found += level
    return found


def kill_all() -> None:
    """Kill and reap everything below this process.

    A process forked between the look and the kill has a parent that was seen; reaping that
    parent leads to the next look, so none escapes.
    """
    while True:
        for pid in descendants(os.getpid()):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def main(arguments: list[str]) -> int:
    """Run the program; returns the exit status of this process."""
    parent, *argv = arguments
    old_mask = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING | {signal.SIGCHLD})
    libc = ctypes.CDLL(None, use_errno=True)
    for option, value in ((PR_SET_CHILD_SUBREAPER, 1), (PR_SET_PDEATHSIG, signal.SIGTERM)):
        if libc.prctl(option, value, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), f"prctl option {option}")
    if os.getppid() != int(parent):
        return 128 + signal.SIGTERM
    try:
        program = subprocess.Popen(
            argv, preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, old_mask)
        )
    except OSError as error:
        print(f"{argv[0]}: {error.strerror}", file=sys.stderr)
        return 127
    while True:
        if signal.sigwait(ENDING | {signal.SIGCHLD}) != signal.SIGCHLD:
            kill_all()
            return 128 + signal.SIGTERM
        # One SIGCHLD may stand for several children, adopted ones among them.
        with contextlib.suppress(ChildProcessError):
            while (reaped := os.waitpid(-1, os.WNOHANG))[0] != 0:
                pid, status = reaped
                if pid == program.pid:
                    kill_all()
                    code = os.waitstatus_to_exitcode(status)
                    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    # Not sys.exit: the Popen object would complain that it never saw its child's end.
    result = main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(result)
