"""How much slower is the new driver? Measured in pairs, one run on each driver, side by side.

The logarithm of a pair's ratio is what is averaged: twice as slow and twice as fast then weigh
the same, and whatever slows the machine for both leaves it as it is. The interval is Student's;
where a figure is looked at several times, each look has its share of the error (Bonferroni).
"""

from __future__ import annotations

import enum
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


class Answer(enum.StrEnum):
    """How a figure compares with the limit."""

    WORSE = "worse"
    WITHIN = "within"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Change:
    """The change of a figure of which less is better, from the baseline to the new driver.

    Attributes:
        pairs: that it was measured in.
        change: its estimate: 0.1 is 10 % more.
        low: lower bound.
        high: upper bound; infinite for less than two pairs.
        confidence: of the bounds, at every look together.
    """

    pairs: int
    change: float
    low: float
    high: float
    confidence: float

    def against(self, limit: float) -> Answer:
        """Whether it is above the limit, below, or not known."""
        if self.low > limit:
            return Answer.WORSE
        return Answer.WITHIN if self.high <= limit else Answer.OPEN

    @property
    def words(self) -> str:
        """``+2.0 % (-3.1 to +7.4 % at 95 %, 8 pairs)``."""
        pairs = "1 pair" if self.pairs == 1 else f"{self.pairs} pairs"
        if math.isinf(self.high):
            return f"{_percent(self.change)} % (no bounds, {pairs})"
        bounds = f"{_percent(self.low)} to {_percent(self.high)} %"
        sure = f"{self.confidence:.1%}".replace(".0%", "%").replace("%", " %")
        return f"{_percent(self.change)} % ({bounds} at {sure}, {pairs})"


def change(
    pairs: Sequence[tuple[float, float]], *, confidence: float = 0.95, looks: int = 1
) -> Change:
    """The change that pairs show.

    Args:
        pairs: the figure on the new driver and on the baseline; both positive.
        confidence: of the interval, in (0, 1).
        looks: how often the figure is looked at before the last word.
    """
    ratios = [math.log(new / old) for new, old in pairs]
    count = len(ratios)
    middle = statistics.fmean(ratios) if ratios else 0.0
    if count < 2:
        return Change(count, math.expm1(middle), -1.0, math.inf, confidence)
    # Imported late: most of what uses this module never asks.
    from scipy.special import stdtrit  # type: ignore[import-untyped]

    spare = (1.0 - confidence) / looks
    reach = float(stdtrit(count - 1, 1.0 - spare / 2))
    half = reach * statistics.stdev(ratios) / math.sqrt(count)
    return Change(
        count, math.expm1(middle), math.expm1(middle - half), _expm1(middle + half), confidence
    )


def _expm1(exponent: float) -> float:
    try:
        return math.expm1(exponent)
    except OverflowError:
        return math.inf


def _percent(share: float) -> str:
    return f"{share * 100:+.1f}" if abs(share) < 10 else f"{share * 100:+.0f}"
