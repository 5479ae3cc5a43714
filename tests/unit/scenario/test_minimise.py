"""The minimiser, against oracles that are functions."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.scenario.minimise import Seen, ddmin, folded, minimise, simpler
from lab.scenario.model import (
    Attach,
    Detach,
    Fault,
    Flush,
    Io,
    JitterStep,
    Pause,
    Reboot,
    Repeat,
    Scenario,
    StartIo,
    StopIo,
    Together,
    Unpause,
    Wait,
    walk,
)
from lab.scenario.workers import Workers
from lab.suite.sequential import Tally

ALWAYS = Tally(5, 5)
SOMETIMES = Tally(8, 40)

NOISY = Scenario(
    seed=3,
    steps=(
        Attach(disk="hdd", size=65536),
        Attach(disk="hdc", size=1 << 20, backing="sparse", sector_bytes=4096),
        Io(disk="hdd", threads=8, count=4096),
        Repeat(
            times=20,
            steps=(
                StartIo(disk="hdc", threads=8, order="random", shift=True, count=4096),
                Pause(),
                Unpause(),
                Together(
                    lanes=(
                        (Wait(seconds=3.0), Flush(disk="hdd")),
                        (JitterStep(up_to=2.0), Detach(disk="hdc"), Reboot()),
                    )
                ),
                Attach(disk="hdc"),
            ),
        ),
        Fault(disk="hdd", kind="heal"),
        Wait(seconds=10),
    ),
)


def flat(steps):
    """The steps as they would be run, one lane after the other."""
    for step in steps:
        if isinstance(step, Repeat):
            for _ in range(step.times):
                yield from flat(step.steps)
        elif isinstance(step, Together):
            for lane in step.lanes:
                yield from flat(lane)
        else:
            yield step


def detach_under_io(scenario):
    """Whether a disk is detached while at least two threads use it."""
    busy = 0
    for step in flat(scenario.steps):
        if isinstance(step, StartIo):
            busy = step.threads
        elif isinstance(step, StopIo | Reboot):
            busy = 0
        elif isinstance(step, Detach) and busy >= 2:
            return True
    return False


class Oracle:
    """Runs that cost nothing.

    Args:
        fails: whether a scenario has what the failure needs.
        rate: how often it then fails.
        seed: of the luck.
    """

    def __init__(self, fails, rate=1.0, seed=1, instead=Seen.NOTHING):
        self.fails = fails
        self.rate = rate
        self.luck = random.Random(seed)  # noqa: S311
        self.instead = instead
        self.runs = 0

    def __call__(self, scenario):
        self.runs += 1
        if self.fails(scenario) and self.luck.random() < self.rate:
            return Seen.SAME
        return self.instead


def test_what_is_needed_is_left():
    oracle = Oracle(detach_under_io)
    found = minimise(NOISY, oracle, ALWAYS)
    assert found.validated
    assert found.finished
    assert found.runs == oracle.runs
    assert found.scenario.seed == 3
    attach, start, detach = found.scenario.steps
    assert attach == Attach(disk="hdc", size=2048)
    assert start == StartIo(disk="hdc", threads=2, count=8, wait=0)
    assert detach == Detach(disk="hdc")
    # Deterministic: a handful of runs a cut.
    assert found.runs < 400


def attaches(scenario):
    return sum(isinstance(step, Attach) for step in flat(scenario.steps))


def test_a_crash_at_the_twentieth_time_becomes_a_repetition():
    steps = [Attach(disk="hdc", size=16384)]
    for cycle in range(20):
        steps += [Io(disk="hdc", count=2048, gen=cycle + 1), Detach(disk="hdc")]
        steps += [Attach(disk="hdc")]
    oracle = Oracle(lambda scenario: attaches(scenario) >= 20)
    found = minimise(Scenario(steps=steps[:-3]), oracle, ALWAYS)
    assert found.validated
    again = (Attach(disk="hdc", size=2048), Detach(disk="hdc"))
    assert found.scenario.steps == (Repeat(times=19, steps=again), Attach(disk="hdc"))
    # Cutting the list piece by piece would take hundreds.
    assert found.runs < 60


def test_repetitions_are_found():
    attach, detach = Attach(disk="hdc", size=2048), Detach(disk="hdc")
    again = Attach(disk="hdc")
    assert folded([]) == ()
    assert folded([attach, detach]) == (attach, detach)
    assert folded([attach, detach, again]) == (attach, detach, again)
    assert folded([attach, detach, again, detach]) == (Repeat(times=2, steps=(attach, detach)),)
    wait = Wait(seconds=1)
    assert folded([wait, wait, wait, attach]) == (Repeat(times=3, steps=(wait,)), attach)
    # Read only is another step, and so is another device.
    other = Attach(disk="hdc", mode="r")
    assert folded([attach, detach, other, detach]) == (attach, detach, other, detach)
    other = Attach(disk="hdc", device="hdd")
    assert folded([attach, detach, other, detach]) == (attach, detach, other, detach)


@given(st.lists(st.sampled_from([Wait(seconds=1), Pause(), Unpause()]), max_size=60))
def test_repetitions_do_the_same(steps):
    short = folded(steps)
    assert list(flat(short)) == steps
    assert len(short) <= len(steps)


def test_counts_that_matter_stay():
    def twenty_detaches(scenario):
        return sum(isinstance(step, Detach) for step in flat(scenario.steps)) >= 20

    found = minimise(NOISY, Oracle(twenty_detaches), ALWAYS)
    assert found.validated
    assert sum(isinstance(step, Detach) for step in flat(found.scenario.steps)) == 20
    assert {step.op for _, step in walk(found.scenario.steps)} == {"attach", "repeat", "detach"}


@pytest.mark.parametrize("seed", range(12))
def test_one_failure_in_five_runs_is_enough(seed):
    oracle = Oracle(detach_under_io, rate=0.2, seed=seed)
    found = minimise(NOISY, oracle, SOMETIMES)
    assert found.validated
    assert detach_under_io(found.scenario)
    # Now and then a cut is given up that could have been made: it is what 95 % means.
    assert len(list(walk(found.scenario.steps))) <= 6
    assert found.tally.failures / found.tally.attempts > 0.05


def test_a_cut_that_makes_the_failure_rare_does_not_survive():
    luck = random.Random(1)  # noqa: S311

    def trial(scenario):
        rate = 0.8 if any(isinstance(s, Pause) for s in flat(scenario.steps)) else 0.05
        return Seen.SAME if luck.random() < rate else Seen.NOTHING

    kept = 0
    for _ in range(20):
        found = minimise(Scenario(steps=(Pause(), Unpause(), Reboot())), trial, Tally(8, 10))
        kept += any(isinstance(step, Pause) for step in found.scenario.steps)
        assert found.validated
    assert kept == 20


def test_a_changed_signature_is_no_success():
    def trial(scenario):
        steps = list(flat(scenario.steps))
        if not any(isinstance(step, Detach) for step in steps):
            return Seen.NOTHING
        return Seen.SAME if any(isinstance(step, Reboot) for step in steps) else Seen.OTHER

    found = minimise(NOISY, trial, ALWAYS)
    assert {step.op for step in flat(found.scenario.steps)} == {"attach", "detach", "reboot"}


def test_what_does_not_hold_when_validated_is_rejected():
    runs: dict[Scenario, int] = {}

    def trial(scenario):
        """Any scenario fails twice, which is enough to keep it, and only the whole one always."""
        runs[scenario] = runs.get(scenario, 0) + 1
        return Seen.SAME if scenario == NOISY or runs[scenario] <= 2 else Seen.OTHER

    found = minimise(NOISY, trial, ALWAYS)
    assert found.scenario == NOISY
    assert found.tally == ALWAYS


def test_a_failure_that_needs_nothing_is_found_to():
    found = minimise(NOISY, Oracle(lambda scenario: True), ALWAYS)
    assert found.validated
    assert found.scenario.steps == ()
    assert found.runs < 20


def test_the_budget_ends_it():
    runs = iter(range(12))
    oracle = Oracle(detach_under_io)
    found = minimise(NOISY, oracle, ALWAYS, left=lambda: next(runs, None) is not None)
    assert oracle.runs == 12
    assert not found.finished
    assert detach_under_io(found.scenario)


def test_what_was_cut_in_time_is_validated():
    cuts = iter(range(40))
    oracle = Oracle(detach_under_io)
    found = minimise(NOISY, oracle, ALWAYS, cutting=lambda: next(cuts, None) is not None)
    assert found.validated
    assert not found.finished
    assert oracle.runs > 40
    assert detach_under_io(found.scenario)
    assert found.scenario != NOISY


@pytest.mark.parametrize(
    "fails",
    [
        detach_under_io,
        lambda scenario: True,
        lambda scenario: scenario == NOISY,
        lambda scenario: sum(isinstance(step, Detach) for step in flat(scenario.steps)) >= 20,
    ],
)
def test_any_number_of_workers_finds_the_same(fails):
    found = []
    for count in (1, 4):
        lines = []
        with Workers(count) as workers:
            minimal = minimise(
                NOISY, Oracle(fails), ALWAYS, say=lines.append, in_order=workers.in_order
            )
        found.append((minimal, lines))
    # The figures too: runs that nobody looked at are not among them.
    assert found[0] == found[1]


def test_workers_that_run_out_of_budget_look_at_what_they_began():
    oracle = Oracle(detach_under_io)
    begun = iter(range(50))
    with Workers(4) as workers:
        found = minimise(
            NOISY,
            oracle,
            SOMETIMES,
            left=lambda: next(begun, None) is not None,
            in_order=workers.in_order,
        )
    assert not found.finished
    assert 0 < found.runs <= oracle.runs <= 50
    assert detach_under_io(found.scenario)


def test_a_scenario_that_never_failed_cannot_be_cut_down():
    with pytest.raises(ValueError, match="never showed"):
        minimise(NOISY, Oracle(detach_under_io), Tally(0, 10))


@given(st.lists(st.integers(0, 40), max_size=40, unique=True), st.data())
@settings(max_examples=100, deadline=None)
def test_delta_debugging_finds_exactly_what_is_needed(items, data):
    needed = set(data.draw(st.lists(st.sampled_from(items), unique=True) if items else st.just([])))
    found = ddmin(items, lambda part: needed <= set(part))
    assert set(found) == needed
    assert found == [item for item in items if item in needed]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=20))
@settings(max_examples=60, deadline=None)
def test_delta_debugging_leaves_nothing_that_can_go(items):
    def odd_sum(part):
        return sum(part) % 2 == 1

    if odd_sum(items):
        found = ddmin(items, odd_sum)
        assert odd_sum(found)
        assert not any(odd_sum(found[:n] + found[n + 1 :]) for n in range(len(found)))


def test_simpler_steps_become_simple():
    for start in NOISY.steps:
        step = start
        for _ in range(200):
            options = [one[0] for one in simpler(step) if len(one) == 1]
            if not options:
                break
            step = options[-1]
        assert len(list(simpler(step))) <= 1
