"""A campaign: one question asked of many attempts, each with a seed of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from lab.suite.intensity import Count
from lab.suite.sequential import (
    CONFIDENCE,
    LIMIT,
    Answer,
    Tally,
    answer,
    least,
    may_be_within,
    most,
)

ATTEMPTS = Count(standard=200, smoke=3, soak=1000, tcg=12)
"""171 attempts without a failure answer the default question."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a campaign asks.

    Attributes:
        attempts: the most attempts.
        limit: failure rate that is asked about.
        confidence: of the answer.
        first_seed: seed of the first attempt; each later one has the next.
    """

    attempts: int
    limit: float = LIMIT
    confidence: float = CONFIDENCE
    first_seed: int = 1


@dataclass
class Campaign:
    """How far a campaign has got.

    Attributes:
        plan: what it asks.
        tally: attempts so far.
        failed_seeds: of the attempts that failed, in order.
    """

    plan: Plan
    tally: Tally = field(default_factory=Tally)
    failed_seeds: list[int] = field(default_factory=list)

    def seeds(self) -> Iterator[int]:
        """The seed of each attempt; ends when another attempt could not change the result."""
        while not self.over:
            yield self.plan.first_seed + self.tally.attempts

    def record(self, seed: int, *, failed: bool) -> None:
        """Count an attempt that ended."""
        self.tally = self.tally.plus(failed)
        if failed:
            self.failed_seeds.append(seed)

    @property
    def answer(self) -> Answer:
        """What the attempts say so far."""
        return answer(self.tally, self.plan.limit, self.plan.confidence)

    @property
    def over(self) -> bool:
        """Whether the question is answered, the attempts are used up, or a failure has made
        it impossible to clear the driver in those that are left."""
        left = self.plan.attempts - self.tally.attempts
        if left <= 0 or self.answer is not Answer.OPEN:
            return True
        plan = self.plan
        return bool(self.failed_seeds) and not may_be_within(
            self.tally, left, plan.limit, plan.confidence
        )

    @property
    def failed(self) -> bool:
        """Whether the driver failed: it did in some attempt, and the rate of that was not
        shown to be within the limit."""
        return bool(self.failed_seeds) and self.answer is not Answer.WITHIN

    @property
    def summary(self) -> str:
        """One line: k of n, and between which bounds the failure rate lies."""
        plan, tally = self.plan, self.tally
        attempts = "1 attempt" if tally.attempts == 1 else f"{tally.attempts} attempts"
        low, high = least(tally, plan.confidence), most(tally, plan.confidence)
        bounds = f"{low:.1%} to {high:.1%}" if self.failed_seeds else f"at most {high:.1%}"
        verdicts = {
            Answer.ABOVE: f"above the limit of {plan.limit:g}",
            Answer.WITHIN: f"within the limit of {plan.limit:g}",
            Answer.OPEN: f"too few to compare with the limit of {plan.limit:g}",
        }
        return (
            f"{tally.failures} of {attempts} failed, a rate of {bounds} "
            f"at {plan.confidence:.0%} confidence: {verdicts[self.answer]}"
        )
