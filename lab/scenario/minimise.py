"""What of a scenario is needed for its crash: pure functions over a list and an oracle.

Lists of steps are cut down by delta debugging (Zeller and Hildebrandt, "Simplifying and
Isolating Failure-Inducing Input", IEEE TSE 28(2), 2002), from the outermost list to the lists
in groups; then each step is made simpler. In long lists all steps of one kind are left out
first, and what is done again and again becomes a repetition: a crash at the twentieth attach
needs all twenty, and no smaller list. The steps that depend on one that was taken out go with
it, so every scenario that is tried makes sense.

An oracle may be flaky. A cut is given up when the sequential test of ``lab.suite`` says, at the
stated confidence, that its failure rate is below ``WORSE`` of the whole scenario's. It is kept at
the second time that it shows the crash: a wrong step here is found at the end, when what is left
has to show in runs of its own, at the same confidence, a rate above ``KEPT`` of the whole
scenario's. If it does not, what was kept before it is tried in its place.
"""

from __future__ import annotations

import enum
import itertools
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TypeVar

from lab.scenario.model import (
    MIB,
    AnyStep,
    Attach,
    Detach,
    Io,
    JitterStep,
    PutFile,
    Repeat,
    Scenario,
    StartIo,
    Together,
    Wait,
)
from lab.scenario.sense import explained, repaired, unexplained
from lab.scenario.workers import InOrder, one_by_one
from lab.suite.sequential import CONFIDENCE, Answer, Tally, answer

T = TypeVar("T")

WORSE = 2 / 3
"""A cut whose rate is below this share of the whole scenario's has lost the crash."""

KEPT = 1 / 4
"""What is left has to fail at more than this share of the whole scenario's rate."""

HITS = 2
"""Failures after which a cut is kept: one may be the luck of a rate that is near nothing."""

CUT_SHARE = 3 / 4
"""Share of the time for all of it that may go to cuts: the rest is for what validates them."""

ATTEMPTS = 200
"""Most attempts for one decision."""

LONG = 12
"""Steps from which a list is made shorter by kinds and repetitions before it is cut."""

BLOCK = 32
"""Most steps of a list that is looked for again."""

FALLBACKS = 5
"""How often the search goes back when what is left does not hold."""


class Seen(enum.Enum):
    """What one run of a scenario showed."""

    SAME = "the same crash"
    OTHER = "another failure"
    NOTHING = "nothing"


Trial = Callable[[Scenario], Seen]
"""Runs a scenario once; called in several threads when several runs may be under way."""


class OutOfBudget(Exception):
    """There is no time for another run."""


@dataclass(frozen=True, slots=True)
class Minimal:
    """What is left of a scenario.

    Attributes:
        scenario: it; the whole one when nothing smaller holds.
        tally: the runs that say how often it fails; those before the search for the whole one.
        validated: whether they show, at the stated confidence, that it fails as the whole did.
            What is not showed the crash twice at least, and the budget ended the rest.
        finished: whether every cut was tried before the time for them was over.
        runs: all that were looked at.
        tried: different scenarios among them.
    """

    scenario: Scenario
    tally: Tally
    validated: bool
    finished: bool
    runs: int
    tried: int


@dataclass
class _Search:
    """A minimisation that is under way.

    Attributes:
        best: the smallest scenario that showed the crash.
        kept: all that did, the largest first; the whole one is not among them.
        left: whether there is time for another run.
        cutting: whether there is for one of a cut.
        known: whether the scenario of these steps showed the crash.
        tallies: the runs that say so.
        sense: takes out what makes no sense after a cut.
    """

    trial: Trial
    rate: float
    confidence: float
    left: Callable[[], bool]
    cutting: Callable[[], bool]
    say: Callable[[str], None]
    in_order: InOrder
    best: Scenario
    kept: list[Scenario] = field(default_factory=list)
    known: dict[tuple[AnyStep, ...], bool] = field(default_factory=dict)
    tallies: dict[tuple[AnyStep, ...], Tally] = field(default_factory=dict)
    runs: int = 0
    sense: Callable[[Sequence[AnyStep]], tuple[AnyStep, ...]] = repaired

    def shows(self, steps: Sequence[AnyStep]) -> bool:
        """Whether these steps, less what they cannot do, still show the crash."""
        fixed = self.sense(steps)
        if fixed == self.best.steps:
            return False
        if fixed not in self.known:
            self.known[fixed] = self._decide(self.best.with_steps(fixed))
            if self.known[fixed]:
                self.best = self.best.with_steps(fixed)
                self.kept.append(self.best)
                self.say(f"{len(self.known)} tried, {self.runs} runs: {_size(fixed)} steps left")
        return self.known[fixed]

    def runs_of(self, scenario: Scenario, left: Callable[[], bool]) -> Generator[Seen, None, None]:
        """What runs of a scenario show, one after the other: as many as a decision may take.

        Args:
            scenario: it.
            left: whether there is time for another run.

        Raises:
            OutOfBudget: there is no time for another one; all that were begun have been seen.
        """
        again = itertools.repeat(scenario, ATTEMPTS)
        begun = itertools.takewhile(lambda _: left(), again)
        before = self.runs
        with closing(self.in_order(self.trial, begun)) as shown:
            for seen in shown:
                self.runs += 1
                yield seen
        if self.runs - before < ATTEMPTS:
            raise OutOfBudget

    def fails_above(
        self, limit: float, scenario: Scenario, left: Callable[[], bool], hits: int = ATTEMPTS
    ) -> Tally | None:
        """The runs that show that a scenario's failure rate is above a limit; None when they
        show that it is not, or nothing.

        Args:
            limit: the rate.
            scenario: it.
            left: whether there is time for another run.
            hits: failures that suffice.

        Raises:
            OutOfBudget: the time was over before.
        """
        tally = Tally()
        with closing(self.runs_of(scenario, left)) as runs:
            for seen in runs:
                tally = tally.plus(seen is Seen.SAME)
                said = answer(tally, limit, self.confidence)
                if said is Answer.WITHIN:
                    return None
                if said is Answer.ABOVE or tally.failures >= hits:
                    return tally
        return None

    def _decide(self, scenario: Scenario) -> bool:
        tally = self.fails_above(self.rate * WORSE, scenario, self.cutting, HITS)
        if tally is None:
            return False
        self.tallies[scenario.steps] = tally
        return True

    def reject(self, whole: Scenario) -> None:
        """Go back to what was kept before the smallest."""
        self.known[self.kept.pop().steps] = False
        self.best = self.kept[-1] if self.kept else whole


def minimise(
    scenario: Scenario,
    trial: Trial,
    baseline: Tally,
    *,
    confidence: float = CONFIDENCE,
    left: Callable[[], bool] = lambda: True,
    cutting: Callable[[], bool] | None = None,
    say: Callable[[str], None] = lambda _: None,
    in_order: InOrder = one_by_one,
) -> Minimal:
    """Cut a scenario down to what its crash needs.

    Args:
        scenario: shows the crash.
        trial: runs one once and says what it showed; what it raises passes through.
        baseline: runs of the whole scenario so far, with at least one failure.
        confidence: of each cut that is given up, and of the result.
        left: whether there is time for another run.
        cutting: whether there is for one of a cut, which leaves the rest for the runs that
            validate; as ``left`` when None.
        say: told in lines how far it is.
        in_order: how runs of one scenario follow each other; several may be under way.

    Raises:
        ValueError: the baseline has no failure.
    """
    if not baseline.failures:
        raise ValueError("the scenario never showed the crash")
    rate = baseline.failures / baseline.attempts
    search = _Search(trial, rate, confidence, left, cutting or left, say, in_order, best=scenario)
    if not any(unexplained(scenario.steps)):
        # Then no cut may blame the driver for data that the cut took away.
        search.sense = explained
    tally: Tally | None = None
    finished = True
    try:
        for _ in range(FALLBACKS):
            finished = _reduced(search) and finished
            if (tally := _validated(search)) or not search.kept:
                break
            search.reject(scenario)
        while search.kept and tally is None:
            if (tally := _validated(search)) is None:
                search.reject(scenario)
    except OutOfBudget:
        finished = False
    validated = tally is not None or not search.kept
    if tally is None:
        tally = search.tallies.get(search.best.steps, baseline) if search.kept else baseline
    return Minimal(search.best, tally, validated, finished, search.runs, len(search.known))


def _validated(search: _Search) -> Tally | None:
    """The runs in which what is left held; None when it did not, or is the whole."""
    if not search.kept:
        return None
    search.say(f"validating {_size(search.best.steps)} steps")
    return search.fails_above(search.rate * KEPT, search.best, search.left)


def ddmin(items: Sequence[T], shows: Callable[[Sequence[T]], bool]) -> list[T]:
    """The smallest part of a list that it finds to show the failure; no item can be left out.

    Args:
        items: show the failure, all together.
        shows: whether some of them, in their order, do.
    """
    current = list(items)
    if current and shows([]):
        return []
    parts = 2
    while len(current) >= 2:
        bounds = [len(current) * n // parts for n in range(parts + 1)]
        for low, high in itertools.pairwise(bounds):
            rest = current[:low] + current[high:]
            if shows(rest):
                current = rest
                parts = max(parts - 1, 2)
                break
        else:
            if parts >= len(current):
                break
            parts = min(parts * 2, len(current))
    return current


def _reduced(search: _Search) -> bool:
    """Cut down what there is; whether every cut was tried before the time for cuts was over."""
    try:
        _reduce(search)
    except OutOfBudget:
        return False
    return True


def _reduce(search: _Search) -> None:
    """Everything, again and again until nothing more goes."""
    while True:
        before = search.best
        _thin(search)
        _fold(search)
        _cut(search)
        _simplify(search)
        if search.best == before:
            return


def _thin(search: _Search) -> None:
    """Leave out all steps of one kind, those that other steps need last."""
    if len(search.best.steps) < LONG:
        return
    counts = Counter(type(step) for step in search.best.steps)
    for kind in sorted(counts, key=lambda one: (one in (Attach, Detach), -counts[one])):
        search.shows([step for step in search.best.steps if not isinstance(step, kind)])


def _fold(search: _Search) -> None:
    """Repetitions instead of what is done again and again, if that makes it much shorter."""
    steps = search.best.steps
    if len(steps) >= LONG and 2 * len(short := folded(steps)) <= len(steps):
        search.shows(short)


def folded(steps: Sequence[AnyStep]) -> tuple[AnyStep, ...]:
    """The same steps with repetitions in place of lists that follow themselves.

    Args:
        steps: of one list; those in groups stay as they are.
    """
    said = _in_full(steps)
    made: list[AnyStep] = []
    at = 0
    while at < len(said):
        length, times = 1, 1
        for size in range(1, min(BLOCK, (len(said) - at) // 2) + 1):
            count = _times(said, at, size)
            if count > 1 and count * size > length * times:
                length, times = size, count
        if times * length >= 2 + length:
            made.append(Repeat(times=times, steps=said[at : at + length]))
        else:
            made += steps[at : at + length * times]
        at += length * times
    return tuple(made)


def _times(steps: Sequence[AnyStep], at: int, size: int) -> int:
    """How often the steps from one place on follow themselves."""
    block = steps[at : at + size]
    count = 1
    while steps[at + count * size : at + (count + 1) * size] == block:
        count += 1
    return count


def _in_full(steps: Sequence[AnyStep]) -> tuple[AnyStep, ...]:
    """Each attach of a known disk with what its first attach says, which means the same."""
    first: dict[str, Attach] = {}
    made: list[AnyStep] = []
    for step in steps:
        if isinstance(step, Attach):
            known = first.setdefault(step.disk, step)
            if step.size is None and step.device in ("", known.device):
                step = known.model_copy(
                    update={"mode": step.mode, "find": step.find, "may_fail": step.may_fail}
                )
        made.append(step)
    return tuple(made)


def _cut(search: _Search) -> None:
    """Delta debugging on each list, outermost first."""
    done: set[tuple[int, ...]] = set()
    while True:
        open_ones = [spot for spot in lists(search.best.steps) if spot not in done]
        if not open_ones:
            return
        spot = min(open_ones, key=lambda one: (len(one), one))
        done.add(spot)
        whole = search.best.steps
        ddmin(
            steps_at(whole, spot),
            lambda part, spot=spot, whole=whole: search.shows(  # type: ignore[misc]
                replaced(whole, spot, part)
            ),
        )


def _simplify(search: _Search) -> None:
    """Make each step simpler, as far as the crash stays."""
    index = 0
    while index < len(places(search.best.steps)):
        spot = places(search.best.steps)[index]
        step = step_at(search.best.steps, spot)
        for instead in simpler(step):
            if search.shows(exchanged(search.best.steps, spot, instead)):
                break
        else:
            index += 1


def simpler(step: AnyStep) -> Iterator[tuple[AnyStep, ...]]:
    """What might do in a step's place, the boldest first; each is smaller in some number."""
    for change in _changes(step):
        yield (step.model_copy(update=change),)
    if isinstance(step, Repeat):
        yield step.steps
        for times in _smaller(step.times, 2):
            yield (step.model_copy(update={"times": times}),)
    elif isinstance(step, Together):
        yield tuple(one for lane in step.lanes for one in lane)
        for number in range(len(step.lanes)):
            if len(step.lanes) > 1:
                lanes = step.lanes[:number] + step.lanes[number + 1 :]
                yield (step.model_copy(update={"lanes": lanes}),)
    if step.may_fail:
        yield (step.model_copy(update={"may_fail": False}),)


def _changes(step: AnyStep) -> Iterator[dict[str, object]]:
    numbers: dict[str, int] = {}
    if isinstance(step, Io | StartIo):
        numbers = {"threads": 1, "gens": 1, "count": 8, "first": 0}
        for name in ("order", "shift", "flush", "block", "gen", "seed"):
            plain = type(step).model_fields[name].default
            if getattr(step, name) != plain:
                yield {name: plain}
    if isinstance(step, StartIo) and step.wait:
        yield {"wait": 0}
    if isinstance(step, Attach):
        numbers = {"room": 0}
        if step.sector_bytes != 512:
            yield {"sector_bytes": 512}
        if step.backing != "mapped":
            yield {"backing": "mapped", "sector_bytes": 512}
        if step.size is not None:
            numbers["size"] = MIB
    if isinstance(step, PutFile):
        numbers = {"size_bytes": 1}
    if isinstance(step, Wait) and step.seconds > 0.01:
        yield {"seconds": round(step.seconds / 2, 3)}
    if isinstance(step, JitterStep) and step.up_to > 0.01:
        yield {"up_to": step.up_to / 2}
    for name, least in numbers.items():
        for value in _smaller(getattr(step, name), least):
            yield {name: value}


def _smaller(value: int, least: int) -> Iterator[int]:
    """The least value, and half of what there is."""
    if value > least:
        yield least
        if value // 2 > least:
            yield value // 2


# -- places in a scenario ------------------------------------------------------------------
#
# A list is called by the indices that lead to it: () is the outermost, (3,) the steps of the
# repetition at 3, (3, 1) the second lane of the group at 3.

Spot = tuple[int, ...]


def lists(steps: Sequence[AnyStep], at: Spot = ()) -> list[Spot]:
    """Every list of steps in it."""
    found: list[Spot] = [at]
    for index, step in enumerate(steps):
        if isinstance(step, Repeat):
            found += lists(step.steps, (*at, index, 0))
        elif isinstance(step, Together):
            for number, lane in enumerate(step.lanes):
                found += lists(lane, (*at, index, number))
    return found


def places(steps: Sequence[AnyStep]) -> list[Spot]:
    """Every step in it: its list, and its index there."""
    return [(*spot, index) for spot in lists(steps) for index in range(len(steps_at(steps, spot)))]


def steps_at(steps: Sequence[AnyStep], spot: Spot) -> tuple[AnyStep, ...]:
    """The steps of one list."""
    if not spot:
        return tuple(steps)
    group = steps[spot[0]]
    inner = group.steps if isinstance(group, Repeat) else _lanes(group)[spot[1]]
    return steps_at(inner, spot[2:])


def step_at(steps: Sequence[AnyStep], spot: Spot) -> AnyStep:
    """One step."""
    return steps_at(steps, spot[:-1])[spot[-1]]


def replaced(
    steps: Sequence[AnyStep], spot: Spot, instead: Sequence[AnyStep]
) -> tuple[AnyStep, ...]:
    """The scenario's steps with another list in one's place."""
    if not spot:
        return tuple(instead)
    index = spot[0]
    group = steps[index]
    if isinstance(group, Repeat):
        update: dict[str, object] = {"steps": replaced(group.steps, spot[2:], instead)}
    else:
        lanes = list(_lanes(group))
        lanes[spot[1]] = replaced(lanes[spot[1]], spot[2:], instead)
        update = {"lanes": tuple(lanes)}
    return (*steps[:index], group.model_copy(update=update), *steps[index + 1 :])


def exchanged(
    steps: Sequence[AnyStep], spot: Spot, instead: Sequence[AnyStep]
) -> tuple[AnyStep, ...]:
    """The scenario's steps with others in one's place."""
    around = steps_at(steps, spot[:-1])
    index = spot[-1]
    return replaced(steps, spot[:-1], (*around[:index], *instead, *around[index + 1 :]))


def _lanes(group: AnyStep) -> tuple[tuple[AnyStep, ...], ...]:
    assert isinstance(group, Together)  # noqa: S101 - a spot leads through groups only
    return group.lanes


def _size(steps: Sequence[AnyStep]) -> int:
    return len(places(steps))
