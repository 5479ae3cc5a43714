"""How often a scenario shows a failure, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass

from lab.suite.sequential import CONFIDENCE, Tally


@dataclass(frozen=True, slots=True)
class Rate:
    """A failure rate with its confidence interval.

    Attributes:
        failures: runs that failed.
        attempts: all of them.
        low: lower bound of the rate.
        high: upper bound.
        confidence: of the bounds.
    """

    failures: int
    attempts: int
    low: float
    high: float
    confidence: float

    @property
    def words(self) -> str:
        """``5 of 20 (25 %, 8.7 to 49.1 % at 95 %)``, ``0 of 214, below 1.4 % at 95 %``."""
        many = f"{self.failures} of {self.attempts}"
        sure = f"at {self.confidence:.0%}".replace("%", " %")
        if not self.attempts:
            return "no attempt"
        if not self.failures:
            return f"{many}, below {_percent(self.high)} % {sure}"
        share = _percent(self.failures / self.attempts)
        if self.failures == self.attempts:
            return f"{many} ({share} %, above {_percent(self.low)} % {sure})"
        return f"{many} ({share} %, {_percent(self.low)} to {_percent(self.high)} % {sure})"


def rate(tally: Tally, confidence: float = CONFIDENCE) -> Rate:
    """The rate that attempts show, with the exact interval.

    Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of the
    binomial", Biometrika 26(4), 1934; one-sided where all attempts were alike. It holds for a
    number of attempts that what they showed had no say in.

    Args:
        tally: the attempts.
        confidence: of the interval, in (0, 1).
    """
    k, n = tally.failures, tally.attempts
    if not n:
        return Rate(0, 0, 0.0, 1.0, confidence)
    # Imported late: most of what uses this module never asks.
    from scipy.special import betaincinv  # type: ignore[import-untyped]

    spare = 1.0 - confidence
    if 0 < k < n:
        spare /= 2
    low = float(betaincinv(k, n - k + 1, spare)) if k else 0.0
    high = float(betaincinv(k + 1, n - k, 1.0 - spare)) if k < n else 1.0
    return Rate(k, n, low, high, confidence)


def _percent(share: float) -> str:
    text = f"{share * 100:.1f}"
    return text.removesuffix(".0")
