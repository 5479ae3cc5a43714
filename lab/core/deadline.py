"""Deadlines that are passed down, and the one polling loop of the lab.

A function that may wait takes a ``Deadline`` from its caller, so that the time a user
granted is spent once however deep the calls nest.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from lab.core import errand
from lab.core.errors import DeadlineExpired

T = TypeVar("T")


class NotYet(Exception):
    """Raised by a probe when the awaited condition does not hold yet.

    Args:
        seen: what the probe saw instead, in words; it ends up in ``DeadlineExpired``.
    """

    def __init__(self, seen: str) -> None:
        super().__init__(seen)
        self.seen = seen


class Deadline:
    """A moment on the monotonic clock.

    Args:
        seconds: from now.
    """

    def __init__(self, seconds: float) -> None:
        self._start = time.monotonic()
        self._end = self._start + seconds

    @property
    def remaining(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self._end - time.monotonic())

    @property
    def elapsed(self) -> float:
        """Seconds since this deadline was set."""
        return time.monotonic() - self._start

    @property
    def expired(self) -> bool:
        """Whether no time is left."""
        return self.remaining <= 0.0

    def at_most(self, seconds: float) -> Deadline:
        """A deadline ``seconds`` from now, or this one's end if that comes first."""
        return Deadline(min(seconds, self.remaining))

    def expire(self, waited_for: str, last_seen: str) -> DeadlineExpired:
        """The error to raise when this deadline ran out."""
        return DeadlineExpired(waited_for, last_seen, self.elapsed)


def wait_for(what: str, probe: Callable[[], T], deadline: Deadline, *, interval: float = 0.05) -> T:
    """Call ``probe`` until it returns instead of raising ``NotYet``.

    The probe is called at least once, even on an expired deadline.

    Args:
        what: the awaited condition, for the error message.
        probe: returns the awaited value or raises ``NotYet``; other errors pass through.
        deadline: when to give up.
        interval: seconds between two calls; each miss lengthens it by half, up to 1 s.

    Returns:
        What the probe returned.

    Raises:
        DeadlineExpired: saying what was awaited and what was last seen.
        Ended: this is part of an errand that was ended (``lab.core.errand``).
    """
    started = Deadline(deadline.remaining)
    pause = interval
    while True:
        try:
            return probe()
        except NotYet as miss:
            seen = miss.seen
        if deadline.expired:
            raise DeadlineExpired(what, seen, started.elapsed)
        errand.sleep(min(pause, deadline.remaining))
        pause = min(pause * 1.5, 1.0)
