"""Seeded disturbances of a test's timing, so that races show and can be shown again."""

from __future__ import annotations

import hashlib
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

from lab.core.deadline import Deadline, NotYet, wait_for
from lab.core.journal import noun

T = TypeVar("T")

SHORTEST = 0.001
"""Shortest wait that is not none, in s: below, the link to the guest is the noise."""

STILL = 0.25
"""Share of the points that do not wait: some races need two things at once."""

GRACE = 60.0
"""How much later than asked for a wait may end before something is wrong, in s."""


def rest(what: str, seconds: float) -> None:
    """Do nothing for a while.

    Args:
        what: what the wait is called, should it not end.
        seconds: how long; nothing is waited for when it is not positive.
    """
    if seconds <= 0.0:
        return
    pause = Deadline(seconds)

    def over() -> None:
        if not pause.expired:
            raise NotYet(f"{pause.remaining:.3f} s left")

    wait_for(what, over, Deadline(seconds + GRACE), interval=seconds)


@noun
class Jitter:
    """Waits and orders that a seed decides.

    What a point does depends on the seed, its name and how often it was reached, and on
    nothing else: a point that is added to a test leaves the others as they were.

    Args:
        seed: of the attempt.
        note: told of every wait: the point's name and the seconds.
    """

    def __init__(self, seed: int, note: Callable[[str, float], None] | None = None) -> None:
        self.seed = seed
        self._note = note
        self._reached: Counter[str] = Counter()

    def point(self, name: str, up_to: float = 1.0) -> float:
        """Wait for a time that the seed chooses.

        A quarter of the waits are none; the others are spread evenly over the orders of
        magnitude between 1 ms and ``up_to``, as nobody knows how wide a race's window is.

        Args:
            name: of the point, in words: ``"before attach"``.
            up_to: longest wait, in s.

        Returns:
            The seconds.
        """
        seconds = self.delay(name, up_to)
        rest(f"the jitter {name}", seconds)
        if self._note is not None:
            self._note(name, seconds)
        return seconds

    def delay(self, name: str, up_to: float = 1.0) -> float:
        """What ``point`` would wait, in s, for work that happens elsewhere: in the guest, in
        dom0. Counts as having reached the point."""
        chance = self._chance(name)
        if up_to <= SHORTEST or chance.random() < STILL:
            return 0.0
        return math.exp(chance.uniform(math.log(SHORTEST), math.log(up_to)))

    def order(self, name: str, things: Sequence[T]) -> list[T]:
        """The things in an order that the seed chooses."""
        shuffled = list(things)
        self._chance(name).shuffle(shuffled)
        return shuffled

    def choose(self, name: str, things: Sequence[T]) -> T:
        """One of the things."""
        return self._chance(name).choice(things)

    def number(self, name: str, low: int, high: int) -> int:
        """A whole number, both ends included."""
        return self._chance(name).randint(low, high)

    def _chance(self, name: str) -> random.Random:
        self._reached[name] += 1
        origin = f"{self.seed}\0{name}\0{self._reached[name]}"
        digest = hashlib.sha256(origin.encode()).digest()
        return random.Random(int.from_bytes(digest))  # noqa: S311 - to be repeated, not secret
