"""Gates over drivers that are only numbers: how often the gate's decisions are wrong.

Outcomes come from streams that are drawn before a gate starts, one for every test and driver,
so that a gate can be repeated to the last run; the decisions are ``lab.gate.engine``'s own.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from lab.gate.compared import compared_verdict
from lab.gate.engine import Engine
from lab.gate.judging import Finding
from lab.gate.observation import Observation, Seen, Side, Step
from lab.gate.policy import Policy
from lab.results.record import Status, Verdict

STEPS = 1_000_000
"""Runs after which a gate that has not ended never will."""


@dataclass(frozen=True, slots=True)
class Act:
    """How a test behaves on both drivers.

    Attributes:
        test: node id.
        new: failure rate on the new driver.
        old: failure rate on the baseline.
        slower: how much slower the new driver is, 0.1 for 10 %; None for a test that measures
            nothing.
        noise: standard deviation of the logarithm of one measurement.
    """

    test: str
    new: float = 0.0
    old: float = 0.0
    slower: float | None = None
    noise: float = 0.05


@dataclass(frozen=True, slots=True)
class World:
    """What a simulated gate meets.

    Attributes:
        acts: its tests.
        lab_noise: share of the runs that the lab loses.
    """

    acts: tuple[Act, ...]
    lab_noise: float = 0.03

    def stream(self, act: Act, side: Side, seed: int) -> Iterator[Observation]:
        """The recorded outcomes of a test on a driver, one after the other; without an end."""
        chance = random.Random(f"{seed} {act.test} {side}")  # noqa: S311 - to be repeated
        rate = act.new if side is Side.NEW else act.old
        while True:
            lost, failed = chance.random() < self.lab_noise, chance.random() < rate
            measured = self._measure(act, side, chance)
            if lost:
                yield Observation(act.test, side, Seen.LAB, "QEMU died")
            else:
                how = Seen.FAILED if failed else Seen.PASSED
                said = "the disk is not there" if failed else ""
                yield Observation(act.test, side, how, said, measured)

    def _measure(self, act: Act, side: Side, chance: random.Random) -> dict[str, float]:
        if act.slower is None:
            return {}
        times = 1.0 + act.slower if side is Side.NEW else 1.0
        return {"time": times * math.exp(chance.gauss(0.0, act.noise))}


@dataclass(frozen=True, slots=True)
class Played:
    """A simulated gate that ended.

    Attributes:
        verdict: of it.
        findings: of every test.
        runs: that it made.
    """

    verdict: Verdict
    findings: tuple[Finding, ...]
    runs: int


def play(world: World, policy: Policy, seed: int) -> Played:
    """Simulate one gate.

    Args:
        world: what it meets.
        policy: what it asks.
        seed: of its streams.
    """
    engine = Engine([act.test for act in world.acts], policy, compared=True)
    streams = {
        Step(act.test, side): world.stream(act, side, seed) for act in world.acts for side in Side
    }
    runs = 0
    while (steps := engine.next(policy.running.batch)) and runs < STEPS:
        for step in steps:
            engine.observe(next(streams[step]))
        runs += len(steps)
    return Played(compared_verdict(engine), engine.findings, runs)


@dataclass
class Tries:
    """How many simulated gates of one world ended how.

    Attributes:
        statuses: by verdict.
        runs: of each gate.
    """

    statuses: dict[Status, int] = field(default_factory=lambda: dict.fromkeys(Status, 0))
    runs: list[int] = field(default_factory=list)

    def share(self, status: Status) -> float:
        """The share of the gates that ended so."""
        return self.statuses[status] / max(1, sum(self.statuses.values()))


def tries(world: World, policy: Policy, seeds: Sequence[int]) -> Tries:
    """Simulate a gate for each of some seeds."""
    found = Tries()
    for seed in seeds:
        played = play(world, policy, seed)
        found.statuses[played.verdict.status] += 1
        found.runs.append(played.runs)
    return found


def suite(*special: Act, tests: int = 10) -> tuple[Act, ...]:
    """A suite of tests that never fail, but for these."""
    return (*special, *(Act(f"steady {number}") for number in range(tests - len(special))))


FLAKY = Act("flaky", new=0.01, old=0.01)
"""A test that fails one time in a hundred, on every driver."""

REGRESSED = Act("regressed", new=0.10)
"""A test that fails one time in ten on the new driver, and never on the baseline."""

WORLDS = {
    "no worse": World(suite(FLAKY)),
    "one test fails 10 %": World(suite(FLAKY, REGRESSED)),
    "one test always fails": World(suite(FLAKY, Act("broken", new=1.0))),
    "2 % slower": World(suite(FLAKY, Act("measured", slower=0.02))),
    "10 times slower": World(suite(FLAKY, Act("measured", slower=9.0))),
    "the lab is killed everywhere": World(suite(FLAKY), lab_noise=1.0),
}
"""What gates are simulated in; each has 3 % lab noise and a test that fails 1 % of the time."""
