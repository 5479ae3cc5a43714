"""Is a failure rate above a limit? Asked after every attempt, answered as soon as it can be.

Looking after every attempt and stopping when the answer suits would spoil a fixed-size test.
This one may be looked at as often as one likes: for each answer a likelihood ratio is kept
that is a supermartingale as long as that answer is wrong, so it reaches 1/alpha with
probability at most alpha, ever (Ville's inequality; Robbins, "Statistical methods related to
the law of the iterated logarithm", Ann. Math. Statist. 41, 1970). It is the sequential
probability ratio test with the alternative averaged over all rates on the other side of the
limit, so that nobody has to choose one.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

LIMIT = 0.02
CONFIDENCE = 0.95
BISECTIONS = 40
"""Halvings of [0, 1] for a bound: to 1e-12."""


class Answer(enum.StrEnum):
    """Whether the failure rate is above the limit."""

    ABOVE = "above"
    WITHIN = "within"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Tally:
    """Attempts so far.

    Attributes:
        failures: attempts that failed.
        attempts: all of them.
    """

    failures: int = 0
    attempts: int = 0

    def plus(self, failed: bool) -> Tally:
        """One more attempt."""
        return Tally(self.failures + failed, self.attempts + 1)


def answer(tally: Tally, limit: float = LIMIT, confidence: float = CONFIDENCE) -> Answer:
    """Answer the question, if these attempts suffice.

    Args:
        tally: attempts so far.
        limit: failure rate in (0, 1).
        confidence: each answer is wrong with at most the probability that is missing to 1,
            however often the question is asked.
    """
    needed = -math.log(1.0 - confidence)
    if evidence_above(tally, limit) >= needed:
        return Answer.ABOVE
    if evidence_within(tally, limit) >= needed:
        return Answer.WITHIN
    return Answer.OPEN


def evidence_above(tally: Tally, limit: float) -> float:
    """Logarithm of the likelihood ratio: rates above the limit, evenly, to the limit itself."""
    k, n = tally.failures, tally.attempts
    tail = _binomial_at_most(k, n + 1, limit)
    if tail <= 0.0:
        return -math.inf
    # The integral of p^k (1-p)^(n-k) from the limit to 1 is a regularised incomplete beta
    # function, which for whole numbers is a sum over binomial probabilities (DLMF 8.17.5).
    area = _log_beta(k, n) + math.log(tail) - math.log1p(-limit)
    return area - _log_likelihood(k, n, limit)


def evidence_within(tally: Tally, limit: float) -> float:
    """Logarithm of the likelihood ratio: rates below the limit to the limit itself.

    Half of the weight lies on a driver that never fails, since that is the usual case; the
    other half evenly on what is between.
    """
    k, n = tally.failures, tally.attempts
    tail = 1.0 - _binomial_at_most(k, n + 1, limit)
    never = -n * math.log1p(-limit) if k == 0 else -math.inf
    if tail <= 0.0:
        return never + math.log(0.5)
    area = _log_beta(k, n) + math.log(tail) - math.log(limit)
    return math.log(0.5) + _log_sum(never, area - _log_likelihood(k, n, limit))


def most(tally: Tally, confidence: float = CONFIDENCE) -> float:
    """The highest failure rate that these attempts do not rule out; 1 for no attempts."""
    needed = -math.log(1.0 - confidence)
    low, high = _rate(tally), 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if 0.0 < middle < 1.0 and evidence_within(tally, middle) >= needed:
            high = middle
        else:
            low = middle
    return high


def least(tally: Tally, confidence: float = CONFIDENCE) -> float:
    """The lowest failure rate that these attempts do not rule out; 0 for no failures."""
    needed = -math.log(1.0 - confidence)
    low, high = 0.0, _rate(tally)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if 0.0 < middle < 1.0 and evidence_above(tally, middle) >= needed:
            low = middle
        else:
            high = middle
    return low


def may_be_within(tally: Tally, left: int, limit: float, confidence: float = CONFIDENCE) -> bool:
    """Whether the answer could still be ``WITHIN`` if all attempts that are left succeed.

    Args:
        tally: attempts so far.
        left: how many more there may be.
        limit: as for ``answer``.
        confidence: as for ``answer``.
    """
    best = Tally(tally.failures, tally.attempts + left)
    return answer(best, limit, confidence) is Answer.WITHIN


def _rate(tally: Tally) -> float:
    return tally.failures / tally.attempts if tally.attempts else 0.0


def _log_likelihood(k: int, n: int, p: float) -> float:
    return k * math.log(p) + (n - k) * math.log1p(-p)


def _log_beta(k: int, n: int) -> float:
    """Logarithm of B(k+1, n-k+1)."""
    return math.lgamma(k + 1) + math.lgamma(n - k + 1) - math.lgamma(n + 2)


def _binomial_at_most(k: int, n: int, p: float) -> float:
    """P(X <= k) for n trials of probability p."""
    return min(1.0, math.fsum(_binomial(i, n, p) for i in range(k + 1)))


def _binomial(i: int, n: int, p: float) -> float:
    log_choices = math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1)
    return math.exp(log_choices + _log_likelihood(i, n, p))


def _log_sum(a: float, b: float) -> float:
    """log(exp(a) + exp(b)) without overflow."""
    high, low = max(a, b), min(a, b)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))
