"""A gate that compares drivers: its engine, and the runs that it was told of.

What a run's record says of the turns it was asked for is all that the engine sees, so a gate can
be taken up again, and checked, from the records of its runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydantic import BaseModel, ConfigDict, Field

from lab.gate.compared import compared_verdict
from lab.gate.engine import Engine
from lab.gate.observation import Observation, Seen, Side, observation
from lab.gate.policy import Policy
from lab.results.record import INTERRUPTED, Driver, RunRecord, TestRecord, Turn, Verdict


class GatedRun(BaseModel):
    """A run that a gate asked for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run_id: str
    turns: tuple[Turn, ...] = Field(description="What it was asked for, in order.")
    interrupted: bool = Field(default=False, description="Whether somebody ended it early.")
    lost: str = Field(default="", description="Why it left no record; empty if it left one.")


class Session:
    """Decides a gate from the records of runs.

    Args:
        tests: node ids, in the order in which they should be run.
        policy: what is asked.
        driver: the new one.
        baseline: what it is compared with, if anything.

    Attributes:
        runs: so far.
        records: of those that left one, by id of the run.
    """

    def __init__(
        self, tests: Iterable[str], policy: Policy, *, driver: Driver, baseline: Driver | None
    ) -> None:
        self.tests = tuple(tests)
        self.policy = policy
        self.driver = driver
        self.baseline = baseline
        self.engine = Engine(self.tests, policy, compared=baseline is not None)
        self.runs: list[GatedRun] = []
        self.records: dict[str, RunRecord] = {}

    def turns(self, limit: int) -> tuple[Turn, ...]:
        """What should be run next; nothing when the gate is decided.

        Args:
            limit: the most turns, but for one pair.
        """
        made: dict[tuple[str, Side], int] = {}
        turns = []
        for step in self.engine.next(limit):
            key = step.test, step.side
            if key not in made:
                seen = self.engine.history(step.test).seen
                made[key] = sum(one.side is step.side for one in seen)
            made[key] += 1
            turns.append(Turn(test=step.test, driver=step.side.value, repeat=made[key]))
        return tuple(turns)

    def take(self, run: GatedRun, record: RunRecord | None) -> None:
        """Take in a run.

        Args:
            run: what it was asked for.
            record: what it left; None if it left nothing.

        Raises:
            KeyError: a turn is of a test that the gate does not have.
        """
        self.runs.append(run)
        tests = {test.turn: test for test in record.tests if test.turn} if record else {}
        if record is not None:
            self.records[run.run_id] = record
        if record is not None and not run.lost:
            run = run.model_copy(update={"lost": _why_nothing(record)})
        for turn in run.turns:
            if (seen := _seen(run, turn, tests.get(turn))) is not None:
                self.engine.observe(seen)

    def verdict(self, troubles: Sequence[str] = ()) -> Verdict:
        """What the gate says of the new driver.

        Args:
            troubles: what stands in the way of a PASS beside what the runs showed.
        """
        return compared_verdict(self.engine, troubles=(*troubles, *self.changes()))

    def changes(self) -> list[str]:
        """What was not the same in all runs and should have been, in lines."""
        found = []
        records = list(self.records.items())
        for run_id, record in records:
            if record.driver is not None and record.driver.sha256 != self.driver.sha256:
                found.append(f"run {run_id} tested another driver than the gate was asked about")
            old = self.baseline.sha256 if self.baseline else None
            if (record.baseline.sha256 if record.baseline else None) != old:
                found.append(f"run {run_id} had another baseline than the gate was asked about")
        places = {run_id: _place(record) for run_id, record in records if record.accelerator}
        first = next(iter(places.values()), None)
        found += [
            f"run {run_id} was not on the same host and guest as the runs before it"
            for run_id, place in places.items()
            if place != first
        ]
        return found


def _why_nothing(record: RunRecord) -> str:
    """What kept a run's tests from running, as far as its record says."""
    asked = {test.id for test in record.tests if test.turn is not None}
    return next((t.message for t in record.tests if t.id not in asked and t.outcome.bad), "")


def _place(record: RunRecord) -> tuple[object, ...]:
    accelerator = record.accelerator.name if record.accelerator else None
    images = tuple(sorted((name, image.key) for name, image in record.images.items()))
    return (accelerator, images, record.intensity)


def _seen(run: GatedRun, turn: Turn, test: TestRecord | None) -> Observation | None:
    """What a run says of a turn; None for what it was kept from by whoever interrupted it."""
    if run.interrupted and (test is None or test.message == INTERRUPTED):
        return None
    if test is not None:
        return observation(test, run=run.run_id)
    why = run.lost or "the run left no result of it"
    return Observation(turn.test, Side(turn.driver), Seen.LAB, why, run=run.run_id)
