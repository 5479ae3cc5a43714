"""Does the new driver fail a test more often than the baseline? May be asked after every pair.

For each pair of runs, one on each driver, and failure rates p (new) and q (baseline), take a
bet on two rates a > b with m = (a + b) / 2: the likelihood of the pair under (a, b), divided by
that under (m, m). While p <= q, its expectation is at most 1: with d = (a - b) / 2 and
c = d / (m (1 - m)) it is (1 + c (p - m)) (1 - c (q - m)), which grows with p, and for p = q is
1 - c^2 (p - m)^2. So the product over all pairs is a supermartingale and reaches 1/alpha with
probability at most alpha, ever (Ville's inequality), and so does a mixture of bets. The bet is
that of Turner, Ly and Gruenwald, "Generic e-variables for exact sequential k-sample tests that
allow for optional stopping", J. Stat. Plan. Inference 230, 2024.
"""

from __future__ import annotations

import math
from functools import cache

from lab.suite.sequential import Tally

BETS: tuple[tuple[float, float, float], ...] = (
    # A driver that fails always where the baseline never does, and the one in ten that a gate
    # is usually asked about, have half of the weight; the rest is spread over what is between.
    (0.25, 0.98, 0.02),
    (0.25, 0.10, 0.002),
    (0.10, 0.50, 0.02),
    (0.10, 0.25, 0.01),
    (0.10, 0.05, 0.002),
    (0.10, 0.70, 0.20),
    (0.10, 0.30, 0.08),
)
"""Weight, rate of the new driver, rate of the baseline; the weights' sum is 1."""


@cache
def evidence_worse(new_failures: int, old_failures: int, pairs: int) -> float:
    """Logarithm of the evidence that the new driver fails more often than the baseline.

    Args:
        new_failures: of the new driver, in these pairs.
        old_failures: of the baseline.
        pairs: runs of each.
    """
    bets = [
        math.log(weight)
        + _bet(new_failures, pairs, new, (new + old) / 2)
        + _bet(old_failures, pairs, old, (new + old) / 2)
        for weight, new, old in BETS
    ]
    high = max(bets)
    return high + math.log(math.fsum(math.exp(bet - high) for bet in bets))


def is_worse(new: Tally, old: Tally, false_alarm: float) -> bool:
    """Whether the new driver is shown to fail more often.

    Args:
        new: its runs.
        old: as many runs of the baseline.
        false_alarm: chance that this is ever said of a driver that is no worse.
    """
    assert new.attempts == old.attempts  # noqa: S101 - pairs
    return evidence_worse(new.failures, old.failures, new.attempts) >= -math.log(false_alarm)


def _bet(failures: int, runs: int, rate: float, middle: float) -> float:
    passed = runs - failures
    return failures * math.log(rate / middle) + passed * math.log((1 - rate) / (1 - middle))
