"""Errands: work that is done in one thread and may be ended from another.

A thread cannot be killed. It is ended by what it does: it waits, in ``wait_for``, or it talks to
a process that it started. An errand that is ended wakes its waits, which raise ``Ended``, and
calls whatever was left with it for that moment, which kills its processes: whoever talks to one
fails at once. Nobody is told who is on no errand, as most of what this lab does.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import TypeVar

R = TypeVar("R")


class Ended(BaseException):
    """The errand was ended: nobody wants any more what comes of it.

    Nobody is to blame, and nothing is to be tried again or looked into: it passes by whoever
    deals with errors.
    """


class Errand:
    """Something that is done by one thread, and those that it starts with its context."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._at_end: list[Callable[[], None]] = []

    def run(self, work: Callable[[], R]) -> R:
        """Do it, in this thread.

        Args:
            work: what is to be done; what it raises passes through.

        Raises:
            Ended: it was ended, and the work did not fail of that in a way of its own.
        """
        token = _errand.set(self)
        try:
            check()
            return work()
        finally:
            _errand.reset(token)

    def end(self) -> None:
        """End it, from any thread; does not wait, and may be called twice."""
        with self._lock:
            self._over.set()
            while self._at_end:
                self._at_end.pop()()

    @property
    def over(self) -> bool:
        """Whether it was ended."""
        return self._over.is_set()

    def _wait(self, seconds: float) -> None:
        if self._over.wait(seconds):
            raise Ended

    def _add(self, end: Callable[[], None]) -> None:
        with self._lock:
            if self.over:
                end()
            else:
                self._at_end.append(end)

    def _take_back(self, end: Callable[[], None]) -> None:
        with self._lock:
            if end in self._at_end:
                self._at_end.remove(end)


# Per thread, and handed on with its context, as the journal's.
_errand: ContextVar[Errand | None] = ContextVar("errand", default=None)


def check() -> None:
    """Go on only if somebody wants what comes of it.

    Raises:
        Ended: this thread's errand was ended.
    """
    errand = _errand.get()
    if errand is not None and errand.over:
        raise Ended


def sleep(seconds: float) -> None:
    """Do nothing for a while; for ``wait_for``, which is how the lab waits.

    Raises:
        Ended: this thread's errand was ended.
    """
    errand = _errand.get()
    if errand is None:
        time.sleep(seconds)
    else:
        errand._wait(seconds)


def at_end(end: Callable[[], None]) -> Callable[[], None]:
    """Have something done when this thread's errand is ended, if it is on one.

    Args:
        end: called once, from any thread, and now if the errand was ended already. It may
            neither wait nor raise.

    Returns:
        Takes it back: once that has returned, it is not called any more.
    """
    errand = _errand.get()
    if errand is None:
        return lambda: None
    errand._add(end)
    return lambda: errand._take_back(end)
