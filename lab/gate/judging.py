"""What the runs of one test amount to: a class of difference, and whether more runs are wanted.

In the order in which they are asked:

1. The new driver is shown to fail more often than the baseline (``lab.gate.worse``), or, where
   the baseline has no result, more often than the policy allows: *regression*, *new failure*.
2. A figure is shown to have become worse by more than the limit: the gate fails for it, whatever
   else the test says.
3. The lab lost more runs in a row than the policy puts up with: *lab broken*.
4. The test failed as the errata say, or was skipped: *known*, *not run*.
5. It never failed on the new driver: *same*, or *fixed* if it always failed on the baseline.
6. It failed, and is shown to fail less often than the policy's rate: *flaky*.
7. It fails on the baseline as well: *failing as before*.
8. Nothing of this is shown: more runs are wanted, until there were as many as the policy allows;
   then it is *undecided*.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from functools import lru_cache

from lab.gate import paired
from lab.gate.observation import Observation, Seen, Side
from lab.gate.paired import Change, change
from lab.gate.policy import Failures, Lenience, Policy
from lab.gate.worse import is_worse
from lab.scenario.rate import rate
from lab.suite import sequential
from lab.suite.sequential import Tally

ASKED_FOR_FIGURES = 2
"""How many times as many runs as the last look has pairs are made, for a figure that some of
the runs did not measure."""


class Kind(enum.StrEnum):
    """Classes of difference."""

    REGRESSION = "regression"
    NEW_FAILURE = "new failure"
    SLOWER = "performance change"
    EXISTING = "failing as before"
    UNDECIDED = "undecided"
    LAB = "lab broken"
    NOT_RUN = "not run"
    FLAKY = "flaky"
    KNOWN = "known"
    FIXED = "fixed"
    SAME = "same"


class Effect(enum.IntEnum):
    """What a finding does to the verdict."""

    NONE = 0
    UNDECIDED = 1
    FAIL = 2

    @classmethod
    def of(cls, lenience: Lenience) -> Effect:
        """The effect that a policy gives something."""
        return {"pass": cls.NONE, "undecided": cls.UNDECIDED, "fail": cls.FAIL}[lenience]


@dataclass
class History:
    """What was seen of a test.

    Attributes:
        test: node id.
        seen: every run, in order.
    """

    test: str
    seen: list[Observation] = field(default_factory=list)
    _failed: dict[Side, list[bool]] = field(default_factory=lambda: {s: [] for s in Side})
    _figures: dict[Side, list[Observation]] = field(default_factory=lambda: {s: [] for s in Side})
    _last: dict[Side, Observation] = field(default_factory=dict)
    _trouble: dict[Side, list[Observation]] = field(default_factory=lambda: {s: [] for s in Side})

    def add(self, one: Observation) -> None:
        """One more run."""
        self.seen.append(one)
        self._last[one.side] = one
        if not one.seen.answer and one.seen is not Seen.SKIPPED:
            self._trouble[one.side].append(one)
            return
        self._trouble[one.side].clear()
        if one.seen is Seen.SKIPPED:
            return
        failed = one.seen is Seen.FAILED or (one.side is Side.OLD and one.seen is Seen.KNOWN)
        self._failed[one.side].append(failed)
        self._figures[one.side].append(one)

    def answers(self, side: Side) -> int:
        """Runs that said something about a driver."""
        return len(self._failed[side])

    def tally(self, side: Side, first: int | None = None) -> Tally:
        """Those runs, or the first of them, and how many failed."""
        counted = self._failed[side][:first]
        return Tally(sum(counted), len(counted))

    def trouble(self, side: Side) -> list[Observation]:
        """Runs without an answer since the last one with an answer."""
        return self._trouble[side]

    def last(self, side: Side) -> Observation | None:
        """The latest run on a driver."""
        return self._last.get(side)

    def last_was(self, side: Side, seen: Seen) -> bool:
        """Whether the latest run on a driver showed this."""
        return side in self._last and self._last[side].seen is seen

    @property
    def suspect(self) -> bool:
        """Whether the new driver failed it."""
        return any(self._failed[Side.NEW])

    def first_failure(self, side: Side) -> Observation | None:
        """The first run in which a driver failed."""
        wanted = (Seen.FAILED, Seen.KNOWN) if side is Side.OLD else (Seen.FAILED,)
        return next((o for o in self.seen if o.side is side and o.seen in wanted), None)

    @property
    def measured(self) -> tuple[str, ...]:
        """Names of the figures that both drivers have."""
        new, old = ({n for o in self._figures[s] for n in o.figures} for s in Side)
        return tuple(sorted(new & old))

    def pairs(self, figure: str) -> list[tuple[float, float]]:
        """A figure on the new driver and on the baseline, pair by pair."""
        return [
            (new.figures[figure], old.figures[figure])
            for new, old in zip(self._figures[Side.NEW], self._figures[Side.OLD], strict=False)
            if figure in new.figures and figure in old.figures
        ]


@dataclass(frozen=True, slots=True)
class Figure:
    """How a figure changed.

    Attributes:
        name: what was measured.
        change: with its interval.
        answer: how it compares with the limit, so far.
        wanted: pairs that are wanted to tell; 0 when no more are.
    """

    name: str
    change: Change
    answer: paired.Answer
    wanted: int = 0


@dataclass(frozen=True, slots=True)
class Finding:
    """What the runs of a test amount to.

    Attributes:
        test: node id.
        kind: class of difference.
        effect: on the verdict.
        reason: one line.
        new: runs of the new driver.
        old: runs of the baseline.
        figures: what it measured.
        wanted: runs of it that are wanted in all, on each driver; 0 when it is settled.
        against: whether it is compared with the baseline.
    """

    test: str
    kind: Kind
    effect: Effect
    reason: str
    new: Tally
    old: Tally
    figures: tuple[Figure, ...] = ()
    wanted: int = 0
    against: bool = True


def judge(history: History, policy: Policy, *, compared: bool) -> Finding:
    """What the runs of a test amount to; see this module.

    Args:
        history: of the test.
        policy: what is asked.
        compared: whether there is a baseline.
    """
    against = compared and not history.last_was(Side.OLD, Seen.SKIPPED)
    figures = slowed(history, policy) if against else ()
    kind, effect, reason, wanted = _classify(history, policy, against=against)
    worse = [figure for figure in figures if figure.answer is paired.Answer.WORSE]
    if worse and effect is not Effect.FAIL:
        # A test that fails on both drivers, or on none, has found a slower driver all the same.
        limit = f"limit {policy.performance.limit:.0%}".replace("%", " %")
        said = ", ".join(f"{figure.name} {figure.change.words}" for figure in worse)
        kind, effect, reason, wanted = Kind.SLOWER, Effect.FAIL, f"slower: {said}; {limit}", 0
    elif kind not in (Kind.LAB, Kind.NOT_RUN, Kind.KNOWN) and effect is not Effect.FAIL:
        wanted = max([wanted, *(figure.wanted for figure in figures)])
        open_ = [f for f in figures if f.answer is paired.Answer.OPEN and not f.wanted]
        unclear = Effect.of(policy.performance.inconclusive)
        if open_ and unclear > effect:
            said = ", ".join(f"{figure.name} {figure.change.words}" for figure in open_)
            kind, effect = Kind.SLOWER, unclear
            reason = f"not known to be within the limit: {said}"
    return Finding(
        test=history.test,
        kind=kind,
        effect=effect,
        reason=reason,
        new=history.tally(Side.NEW),
        old=history.tally(Side.OLD),
        figures=figures,
        wanted=wanted,
        against=against,
    )


def slowed(history: History, policy: Policy) -> tuple[Figure, ...]:
    """How the figures of a test changed.

    Args:
        history: of the test.
        policy: at how many pairs to look, and the limit.
    """
    asked = policy.performance
    found = []
    for name in history.measured:
        pairs = history.pairs(name)
        reached = [look for look in asked.looks if look <= len(pairs)]
        told = change(pairs, confidence=asked.confidence, looks=len(asked.looks))
        answer, wanted = paired.Answer.OPEN, 0
        for look in reached:
            # A look's answer stands, whatever pairs were made for another reason afterwards.
            at = change(pairs[:look], confidence=asked.confidence, looks=len(asked.looks))
            answer = at.against(asked.limit)
            if answer is not paired.Answer.OPEN:
                told = at
                break
        if answer is paired.Answer.OPEN and len(reached) < len(asked.looks):
            missing = asked.looks[len(reached)] - len(pairs)
            wanted = history.answers(Side.NEW) + missing
            if wanted > ASKED_FOR_FIGURES * asked.looks[-1]:
                wanted = 0
        found.append(Figure(name, told, answer, wanted))
    return tuple(found)


Classified = tuple[Kind, Effect, str, int]


def _classify(history: History, policy: Policy, *, against: bool) -> Classified:
    asked = policy.failures
    new, old = history.tally(Side.NEW), history.tally(Side.OLD)
    failure = history.first_failure(Side.NEW)
    said = failure.message if failure else ""
    pairs = min(new.attempts, old.attempts)
    both = history.tally(Side.NEW, pairs), history.tally(Side.OLD, pairs)

    if failure is not None:
        if against and is_worse(*both, asked.false_alarm):
            was = "no failure" if not old.failures else "fewer failures"
            return _fail(
                Kind.REGRESSION, f"{_rate(new)}; {was} on the baseline: {_rate(old)}: {said}"
            )
        if not against and _answer(new, asked.rate, 1 - asked.false_alarm) is _Answer.ABOVE:
            return _fail(Kind.NEW_FAILURE, f"{_rate(new)}: {said}")
    if (trouble := _trouble(history, policy)) is not None:
        return trouble
    if history.last_was(Side.NEW, Seen.SKIPPED):
        last = history.last(Side.NEW)
        why = f"skipped: {last.message}" if last else ""
        ran = against and old.attempts > 0
        effect = Effect.UNDECIDED if ran or failure is not None else Effect.NONE
        return Kind.NOT_RUN, effect, why + (", but it ran on the baseline" if ran else ""), 0
    if (known := _known(history)) is not None:
        return known
    if failure is None:
        wanted = _enough(asked)
        if new.attempts < wanted or (against and old.attempts < wanted):
            kind = Kind.UNDECIDED if new.attempts else Kind.NOT_RUN
            return kind, Effect.UNDECIDED, f"not run often enough: {_rate(new)}", wanted
        if against and old.failures == old.attempts:
            return Kind.FIXED, Effect.NONE, f"{_rate(new)}; the baseline: {_rate(old)}", 0
        if old.failures:
            return Kind.FLAKY, Effect.NONE, f"on the baseline, {_rate(old)}; now {_rate(new)}", 0
        return Kind.SAME, Effect.NONE, _rate(new), 0
    return _failed_sometimes(asked, new, old, both, said, against=against)


def _failed_sometimes(
    asked: Failures, new: Tally, old: Tally, both: tuple[Tally, Tally], said: str, *, against: bool
) -> Classified:
    """What to make of a test that failed on the new driver, and may or may not be its fault."""
    rates = _rate(new) + (f"; the baseline: {_rate(old)}" if against else "")
    if _answer(new, asked.rate, asked.confidence) is _Answer.WITHIN:
        limit = f"{asked.rate:.0%}".replace("%", " %")
        return Kind.FLAKY, Effect.NONE, f"less often than {limit}: {rates}: {said}", 0
    before = against and _answer(old, asked.rate, asked.confidence) is _Answer.ABOVE
    done = new.attempts if not against else both[0].attempts
    if before and (both[0].failures <= both[1].failures or done >= asked.most):
        return Kind.EXISTING, Effect.of(asked.existing), f"{rates}: {said}", 0
    if done >= asked.most:
        what = "a regression and a flake" if against else "a failure and a flake"
        return (
            Kind.UNDECIDED,
            Effect.UNDECIDED,
            f"{what} could not be told apart in {done} runs: {rates}: {said}",
            0,
        )
    wanted = done + _soonest(asked, new, *both, against=against)
    return Kind.UNDECIDED, Effect.UNDECIDED, f"not run often enough: {rates}: {said}", wanted


def _soonest(asked: Failures, new: Tally, first: Tally, old: Tally, *, against: bool) -> int:
    """The fewest further runs, on each driver, that can settle a test that failed.

    Args:
        asked: what settles it.
        new: all runs of the new driver.
        first: those of them that have a run of the baseline beside them.
        old: these runs of the baseline.
        against: whether there is a baseline.
    """
    if not against:
        old, first = Tally(), new
    for more in range(1, max(2, asked.most - first.attempts)):
        worst, best = _more(first, more, failed=True), _more(new, more, failed=False)
        if _answer(best, asked.rate, asked.confidence) is _Answer.WITHIN:
            return more
        if not against:
            if _answer(worst, asked.rate, 1 - asked.false_alarm) is _Answer.ABOVE:
                return more
        elif is_worse(worst, _more(old, more, failed=False), asked.false_alarm) or (
            _answer(_more(old, more, failed=True), asked.rate, asked.confidence) is _Answer.ABOVE
        ):
            return more
    return max(1, asked.most - first.attempts)


def _more(tally: Tally, runs: int, *, failed: bool) -> Tally:
    return Tally(tally.failures + runs * failed, tally.attempts + runs)


def _trouble(history: History, policy: Policy) -> Classified | None:
    for side in Side:
        lost = history.trouble(side)
        if len(lost) <= policy.lab.retries:
            continue
        on = "" if side is Side.NEW else " on the baseline"
        runs = f"{len(lost)} runs in a row" if len(lost) > 1 else "1 run"
        if any(one.seen is Seen.LAB for one in lost):
            return Kind.LAB, Effect.UNDECIDED, f"{runs} lost{on}: {lost[-1].message}", 0
        reason = f"nobody could be blamed for {runs}{on}: {lost[-1].message}"
        return Kind.UNDECIDED, Effect.UNDECIDED, reason, 0
    return None


def _known(history: History) -> Classified | None:
    last = history.last(Side.NEW)
    if last is not None and last.seen is Seen.KNOWN:
        return Kind.KNOWN, Effect.NONE, last.message, 0
    if last is not None and last.seen is Seen.NEWS:
        return Kind.KNOWN, Effect.UNDECIDED, last.message, 0
    return None


def _enough(asked: Failures) -> int:
    """Runs of a test that does not fail."""
    if asked.repeats == "rate":
        return runs_to_rule_out(asked.rate, asked.confidence)
    return asked.repeats


_Answer = sequential.Answer


@lru_cache(maxsize=1 << 16)
def _answer(tally: Tally, limit: float, confidence: float) -> sequential.Answer:
    return sequential.answer(tally, limit, confidence)


@lru_cache(maxsize=64)
def runs_to_rule_out(limit: float, confidence: float) -> int:
    """The least number of runs without a failure that rule out a failure rate.

    Args:
        limit: the rate, in (0, 1).
        confidence: that it is ruled out with.
    """
    runs = 1
    while sequential.answer(Tally(0, runs), limit, confidence) is not sequential.Answer.WITHIN:
        runs += 1
    return runs


@lru_cache(maxsize=1 << 12)
def _rate(tally: Tally) -> str:
    return f"failed {rate(tally).words}" if tally.attempts else "no run"


def _fail(kind: Kind, reason: str) -> Classified:
    return kind, Effect.FAIL, reason, 0
