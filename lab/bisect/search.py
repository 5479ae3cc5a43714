"""A binary search that tests may lie to: a defect that fails a test one time in five passes most
of the runs of a bad build.

What is kept is a probability for each build that it is the first bad one, given all runs so far.
Neither the rate at which bad builds fail the test nor the one at which good builds do is known;
both are inferred, as sums over a grid of rates. The build that is run next is the one whose
outcome tells most about the culprit: the highest mutual information (Burnashev and Zigangirov,
"An interval estimation problem for controlled observations", Problems of Information
Transmission 10, 1974, for one known rate; MacKay, "Information-Based Objective Functions for
Active Data Selection", Neural Computation 4, 1992, for the choice by information).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lab.suite.sequential import Tally

Array = NDArray[np.float64]

BAD_RATES = np.array(
    [0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.55, 0.75, 0.95, 0.999]
)
"""Rates at which bad builds may fail the test."""

BAD_WEIGHTS = (1.0 / BAD_RATES) / (1.0 / BAD_RATES).sum()
"""How likely these are beforehand: rare failures more than frequent ones. With equal weights, the
search would take runs that pass for a better sign of a good build than they are, and would name a
build too early where failures are rare."""

GOOD_RATES = np.array([0.0005, 0.005, 0.02, 0.05])
"""Rates at which good builds may fail it: hardly ever, or as a flaky test does."""

GOOD_WEIGHTS = np.array([0.75, 0.13, 0.08, 0.04])
"""How likely these are beforehand."""

DOUBT = 0.02
"""Chance, for either end, that it is not what the user says it is."""


class Found(enum.StrEnum):
    """What the search has come to."""

    CULPRIT = "culprit"
    GOOD_FAILS = "the good build fails too"
    BAD_PASSES = "the bad build does not fail"
    OPEN = "not known"


@dataclass(frozen=True, slots=True)
class Answer:
    """What is known.

    Attributes:
        found: which case it is.
        first: index of the first build that may be the first bad one.
        last: index of the last one; the same unless builds between cannot be tested.
        probability: that this is so.
    """

    found: Found
    first: int
    last: int
    probability: float


class Search:
    """Looks for the first bad one of an ordered row of builds.

    Args:
        builds: how many, from the good one, which is the first, to the bad one, the last.
        confidence: in (0, 1), of the answer.

    Raises:
        ValueError: there is nothing between which to look.
    """

    def __init__(self, builds: int, *, confidence: float = 0.95) -> None:
        if builds < 2:
            raise ValueError("a search needs a good build and a bad one")
        if not 0.0 < confidence < 1.0:
            raise ValueError("a confidence is between 0 and 1")
        self.confidence = confidence
        self._failures = np.zeros(builds)
        self._runs = np.zeros(builds)
        self._untestable: set[int] = set()
        self._known: Array | None = None
        # Hypothesis h: the first bad build has index h. With 0 the good one is bad, with
        # `builds` the bad one is good.
        self._prior = np.full(builds + 1, (1.0 - 2 * DOUBT) / (builds - 1))
        self._prior[[0, -1]] = DOUBT

    def observe(self, build: int, *, failed: bool) -> None:
        """Take in a run of a build."""
        self._known = None
        self._runs[build] += 1
        self._failures[build] += failed

    def rule_out(self, build: int) -> None:
        """A build cannot be tested: it does not build, or cannot be installed."""
        self._untestable.add(build)

    def tally(self, build: int) -> Tally:
        """The runs of a build."""
        return Tally(int(self._failures[build]), int(self._runs[build]))

    @property
    def posterior(self) -> Array:
        """For each build the chance that it is the first bad one; the last entry is the chance
        that none is."""
        found: Array = self._weights().sum(axis=(1, 2))
        return found

    @property
    def answer(self) -> Answer:
        """What is known, and how surely."""
        best = max(self._groups(), key=lambda group: group.probability)
        if best.probability >= self.confidence:
            return best
        return Answer(Found.OPEN, best.first, best.last, best.probability)

    @property
    def bad_rate(self) -> float:
        """The rate at which bad builds fail the test, as far as it is known: its mean."""
        weights = self._weights().sum(axis=(0, 2))
        return float(weights @ BAD_RATES)

    def next(self) -> int | None:
        """The build whose run tells most; None when the search is over, or no build that can
        be tested tells anything."""
        if self.answer.found is not Found.OPEN:
            return None
        gain = self._information()
        gain[list(self._untestable)] = -1.0
        build = int(np.argmax(gain))
        return build if gain[build] > 0.0 else None

    def _groups(self) -> Iterable[Answer]:
        """Hypotheses that no build that can be tested tells apart, as one."""
        below: list[float] = np.append(0.0, np.cumsum(self.posterior)).tolist()
        builds = len(self._runs)
        first = 0
        for build in range(builds + 1):
            if build in self._untestable:
                continue
            found = Found.CULPRIT
            if first == 0 and build == 0:
                found = Found.GOOD_FAILS
            elif first == builds:
                found = Found.BAD_PASSES
            chance = below[build + 1] - below[first]
            yield Answer(found, first, min(build, builds - 1), chance)
            first = build + 1

    def _weights(self) -> Array:
        """Chance of each hypothesis with each rate of bad and of good builds."""
        if self._known is None:
            self._known = self._infer()
        return self._known

    def _infer(self) -> Array:
        bad_runs, bad_failures = _from(self._runs), _from(self._failures)
        good_runs = self._runs.sum() - bad_runs
        good_failures = self._failures.sum() - bad_failures
        bad = _log_likelihood(bad_failures, bad_runs, BAD_RATES)[:, :, None]
        good = _log_likelihood(good_failures, good_runs, GOOD_RATES)[:, None, :]
        prior = (
            np.log(self._prior)[:, None, None]
            + np.log(BAD_WEIGHTS)[None, :, None]
            + np.log(GOOD_WEIGHTS)[None, None, :]
        )
        # A build is not called bad for failing less often than a good one.
        possible = BAD_RATES[:, None] > GOOD_RATES[None, :]
        total = np.where(possible[None, :, :], bad + good + prior, -np.inf)
        weights: Array = np.exp(total - total.max())
        whole: Array = weights / weights.sum()
        return whole

    def _information(self) -> Array:
        """What a run of each build tells of the culprit, in nats."""
        weights = self._weights()
        chance = weights.sum(axis=(1, 2))
        safe = np.maximum(chance, 1e-300)
        bad = weights.sum(axis=2) @ BAD_RATES / safe
        good = weights.sum(axis=1) @ GOOD_RATES / safe
        # Of build i, hypotheses up to i say that it is bad, the others that it is good.
        fails = _split(chance * bad, chance * good)
        given = _split(chance * _entropy(bad), chance * _entropy(good))
        told: Array = _entropy(fails) - given
        return told


def _from(values: Array) -> Array:
    """For each hypothesis the sum over its bad builds."""
    sums: Array = np.append(np.cumsum(values[::-1])[::-1], 0.0)
    return sums


def _split(bad: Array, good: Array) -> Array:
    """For each build the sum over the hypotheses that call it bad, and of those that do not."""
    sums: Array = np.cumsum(bad)[:-1] + good.sum() - np.cumsum(good)[:-1]
    return sums


def _log_likelihood(failures: Array, runs: Array, rates: Array) -> Array:
    likelihood: Array = np.outer(failures, np.log(rates)) + np.outer(
        runs - failures, np.log1p(-rates)
    )
    return likelihood


def _entropy(chance: Array) -> Array:
    inside = np.clip(chance, 1e-12, 1.0 - 1e-12)
    entropy: Array = -inside * np.log(inside) - (1.0 - inside) * np.log1p(-inside)
    return entropy
