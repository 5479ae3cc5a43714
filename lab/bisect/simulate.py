"""Searches over builds that are only numbers: how often they find the right one, how soon."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from lab.bisect.search import Found, Search

MOST = 5000
"""Runs after which a search that has not ended never will."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of builds.

    Attributes:
        builds: how many.
        rate: at which bad builds fail the test.
        flake: at which good builds do.
        lab_noise: share of the runs that the lab loses.
    """

    builds: int = 64
    rate: float = 0.2
    flake: float = 0.0
    lab_noise: float = 0.03


@dataclass(frozen=True, slots=True)
class Searched:
    """What a simulated search came to.

    Attributes:
        right: whether it named the culprit.
        decided: whether it named any.
        runs: that it made, those included that the lab lost.
    """

    right: bool
    decided: bool
    runs: int


def search(row: Row, seed: int, *, confidence: float = 0.95) -> Searched:
    """Simulate one search; the culprit is drawn by the seed."""
    chance = random.Random(seed)  # noqa: S311 - to be repeated, not secret
    culprit = chance.randrange(1, row.builds)
    looking = Search(row.builds, confidence=confidence)
    runs = 0
    while (build := looking.next()) is not None and runs < MOST:
        runs += 1
        if chance.random() < row.lab_noise:
            continue
        rate = row.rate if build >= culprit else row.flake
        looking.observe(build, failed=chance.random() < rate)
    answer = looking.answer
    decided = answer.found is not Found.OPEN
    right = answer.found is Found.CULPRIT and answer.first == culprit
    return Searched(right, decided, runs)


@dataclass(frozen=True, slots=True)
class Summary:
    """Many simulated searches.

    Attributes:
        right: share that named the culprit.
        runs: of each, in order.
    """

    right: float
    runs: tuple[int, ...]

    @property
    def mean_runs(self) -> float:
        """Runs that a search makes on average."""
        return statistics.fmean(self.runs)


def searches(row: Row, seeds: Sequence[int], *, confidence: float = 0.95) -> Summary:
    """Simulate a search for each of some seeds."""
    found = [search(row, seed, confidence=confidence) for seed in seeds]
    right = sum(one.right for one in found) / len(found)
    return Summary(right, tuple(one.runs for one in found))
