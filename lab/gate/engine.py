"""A gate as a game of questions: which runs next, and what the answers amount to.

Pure: it is told what runs showed and says what it wants to see, so a gate over virtual machines
and one that is simulated are decided by the same code. What each test amounts to is in
``lab.gate.judging``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from lab.gate.judging import Effect, Finding, History, judge
from lab.gate.observation import Observation, Seen, Side, Step
from lab.gate.policy import Policy

BOTH = (Side.NEW, Side.OLD)


class Engine:
    """Decides a gate.

    Args:
        tests: node ids, in the order in which they should be run.
        policy: what is asked.
        compared: whether there is a baseline.
    """

    def __init__(self, tests: Iterable[str], policy: Policy, *, compared: bool) -> None:
        self.policy = policy
        self.compared = compared
        self._histories = {test: History(test) for test in dict.fromkeys(tests)}
        self._findings: dict[str, Finding] = {}
        self._order = {test: number for number, test in enumerate(self._histories)}
        self._lost: list[Observation] = []
        self._seen: Counter[tuple[Side, Seen]] = Counter()

    def observe(self, seen: Observation) -> None:
        """Take in a run.

        Raises:
            KeyError: it is of a test that the gate does not have.
        """
        self._histories[seen.test].add(seen)
        self._findings.pop(seen.test, None)
        self._seen[seen.side, seen.seen] += 1
        if seen.seen is not Seen.LAB:
            self._lost.clear()
        else:
            self._lost.append(seen)

    def next(self, limit: int = 2) -> list[Step]:
        """The runs that are wanted next, in order; none when the gate is decided.

        Both drivers take turns, test by test, and who is first changes from pair to pair. Tests
        that failed come first: they decide most. The same runs are wanted until they are
        observed.

        Args:
            limit: the most runs to name; a pair is not torn for it.
        """
        if self.over:
            return []
        steps: list[Step] = []
        for pair in self._pairs():
            if steps and len(steps) + len(pair) > limit:
                break
            steps += pair
        return steps

    @property
    def over(self) -> bool:
        """Whether no further run could change the verdict, or the lab gave up."""
        return self.gave_up or (self.policy.running.stop_early and self.failed)

    @property
    def failed(self) -> bool:
        """Whether some test has shown that the new driver is not fit."""
        return any(finding.effect is Effect.FAIL for finding in self.findings)

    @property
    def gave_up(self) -> bool:
        """Whether the lab lost so many runs in a row that more would be a waste."""
        return len(self._lost) >= self.policy.lab.give_up

    @property
    def lost(self) -> tuple[Observation, ...]:
        """The runs that the lab lost since it last did not."""
        return tuple(self._lost)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What every test amounts to so far, in the order of the tests."""
        return tuple(self._finding(test) for test in self._histories)

    def history(self, test: str) -> History:
        """What was seen of a test."""
        return self._histories[test]

    def runs(self, side: Side) -> Counter[Seen]:
        """How many runs on a driver showed what."""
        counted: Counter[Seen] = Counter()
        for (where, seen), count in self._seen.items():
            if where is side:
                counted[seen] += count
        return counted

    def _finding(self, test: str) -> Finding:
        found = self._findings.get(test)
        if found is None:
            found = judge(self._histories[test], self.policy, compared=self.compared)
            self._findings[test] = found
        return found

    def _pairs(self) -> Iterator[list[Step]]:
        """What is wanted, pair after pair: first of the tests under suspicion, then of those
        with the fewest runs."""
        wanting = [finding for finding in self.findings if finding.wanted]
        suspect = [f for f in wanting if self._histories[f.test].suspect]
        yield from self._rounds(suspect)
        yield from self._rounds([f for f in wanting if not self._histories[f.test].suspect])

    def _rounds(self, findings: Sequence[Finding]) -> Iterator[list[Step]]:
        sides = {f.test: BOTH if f.against else BOTH[:1] for f in findings}
        runs = {
            (test, side): self._histories[test].answers(side)
            for test, which in sides.items()
            for side in which
        }

        def done(finding: Finding) -> int:
            return min(runs[finding.test, side] for side in sides[finding.test])

        while behind := [f for f in findings if done(f) < f.wanted]:
            least = min(done(f) for f in behind)
            for test in [f.test for f in behind if done(f) == least]:
                order = sides[test]
                if (self._order[test] + least) % 2:
                    order = order[::-1]
                # After a run that the lab lost, only that driver's is wanted again.
                pair = [Step(test, side) for side in order if runs[test, side] == least]
                for step in pair:
                    runs[test, step.side] += 1
                yield pair
