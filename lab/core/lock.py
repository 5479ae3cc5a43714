"""Locks on images, held by the kernel, so that they end with their holder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.core.deadline import Deadline, NotYet, wait_for


@contextmanager
def locked(
    path: Path,
    deadline: Deadline,
    *,
    shared: bool = False,
    on_wait: Callable[[str], None] | None = None,
) -> Iterator[int]:
    """Hold the lock ``path`` for the length of a ``with`` block.

    The lock is an flock(2) on a file that is never removed: removing it would let two
    holders lock two different files of one name. The block gets its descriptor: a process that
    inherits it holds the lock too, until it ends.

    Args:
        path: the lock file, made when it is missing.
        deadline: how long to wait for other holders.
        shared: whether other shared holders may hold it too.
        on_wait: called once, with the holder in words, when there is need to wait.

    Raises:
        DeadlineExpired: the other holder kept it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    told = False

    def take() -> None:
        nonlocal told
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            holder = f"process {pid}" if pid else "another process"
            if on_wait is not None and not told:
                told = True
                on_wait(holder)
            raise NotYet(f"held by {holder}") from None

    try:
        wait_for(f"the lock {path.name}", take, deadline)
        if not shared:
            # Only for the message of those who wait; the lock itself is the kernel's.
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)
