"""Lists of steps that make no sense, or would blame a driver for what they do themselves."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from scenario_strategies import step_lists

from lab.core.errors import UsageError
from lab.scenario.generate import generate
from lab.scenario.minimise import Seen, minimise
from lab.scenario.model import Detach, Io, Scenario, walk
from lab.scenario.sense import explained, problems, repaired, unexplained
from lab.scenario.text import loads, plain
from lab.scenario.triggers import TRIGGERS, suspect
from lab.suite.sequential import Tally

HEAD = "pvlab_scenario: 1\nsteps:\n- attach: {disk: hdc, size: 8 MiB}\n"
WRITE = "io: {disk: hdc, action: write, count: 64, gen: 2}"
VERIFY = "io: {disk: hdc, action: verify, count: 64, gen: 2}"
START = "start_io: {disk: hdc, count: 64}"


def text(*steps):
    return HEAD + "".join(f"- {step}\n" for step in steps)


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (["pause", WRITE], "paused: unpause it first"),
        (["pause", "attach: {disk: hdd, size: 8}"], "paused: unpause it first"),
        (["pause", "pause"], "paused: unpause it first"),
        (["unpause"], "not paused"),
        (["pause", "unpause", "unpause"], "not paused"),
        (["save", WRITE], "saved: restore it first"),
        (["restore"], "not saved"),
        (["disable_driver", WRITE], "off after disable_driver"),
        (["remove_driver", "detach: hdc"], "off after remove_driver"),
        (["power_off", "wait: 1"], "gone after power_off"),
        (["fault: {disk: hdc, kind: stall}", WRITE], "stalled: let it go on first"),
        ([START, "fault: {disk: hdc, kind: stall}", "stop_io: hdc"], "stalled"),
        (["fault: {disk: hdc, kind: stall}", "reboot"], "stalled"),
        (["fault: {disk: hdd, kind: heal}"], "no disk 'hdd'"),
        (["detach: hdc", "fault: {disk: hdc, kind: remove_nodes}"], "not attached"),
        ([START, "reboot", "stop_io: hdc"], "no job 'hdc' runs"),
        ([START, START], "runs already"),
    ],
)
def test_what_cannot_be_done_is_refused(steps, said):
    with pytest.raises(UsageError) as caught:
        loads(text(*steps), "f")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "steps",
    [
        ["pause", "wait: 1", "unpause", WRITE],
        ["save", "wait: 1", "restore", WRITE],
        ["disable_driver", "enable_driver", WRITE],
        ["fault: {disk: hdc, kind: stall}", "fault: {disk: hdc, kind: go_on}", WRITE],
        ["fault: {disk: hdc, kind: stall}", "fault: {disk: hdc, kind: heal}", WRITE],
        [START, "pause", "unpause", "stop_io: hdc"],
    ],
)
def test_what_can_be_done(steps):
    loads(text(*steps))


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([VERIFY], "nobody wrote"),
        ([WRITE, "io: {disk: hdc, action: verify, count: 65, gen: 2}"], "nobody wrote"),
        ([WRITE, "io: {disk: hdc, action: write, first: 8, count: 1}", VERIFY], "something else"),
        (["io: {disk: hdc, action: write, count: 64, gen: 2, expect: any}", VERIFY], "something"),
        ([START, WRITE], "a running job writes"),
        ([START, "check: {disk: hdc, count: 8}"], "a running job writes"),
        ([START, "partition: hdc"], "a running job writes"),
        (["fault: {disk: hdc, kind: refuse_writes}", "io: hdc"], "refuses requests"),
        ([START, "fault: {disk: hdc, kind: flakey}"], "its own writes refused"),
        ([WRITE, START, "stop_io: hdc", VERIFY], "something else"),
        ([WRITE, "partition: hdc", VERIFY], "something else"),
        (["together: [[{io: hdc}], [{io: {disk: hdc, gen: 4}}]]"], "another list"),
        (["io: {disk: hdc, count: 9 MiB}"], "beyond the end"),
        (["start_io: {disk: hdc, first: 8 MiB, count: 1}"], "beyond the end"),
        (["io: {disk: hdc, expect: errors}"], "nothing makes these requests fail"),
        (["flush: {disk: hdc, expect: errors}"], "nothing makes these requests fail"),
        (["fault: {disk: hdc, kind: refuse_writes}", "flush: hdc"], "refuses requests"),
        (["fault: {disk: hdc, kind: remove_nodes}", "detach: hdc"], "may not let go"),
        (["fault: {disk: hdc, kind: backend_state}", "flush: hdc"], "refuses requests"),
        (["attach: {disk: hdd, size: 9999, mode: r}", "io: hdd"], "read-only"),
        ([WRITE, "check: {disk: hdc, count: 64, gen: 2, seed: 9}"], "something else"),
    ],
)
def test_what_would_blame_the_driver_for_its_own_doing(steps, said):
    scenario = loads(text(*steps))
    found = [words for _, words in unexplained(scenario.steps)]
    assert len(found) == 1
    assert said in found[0]
    assert not list(unexplained(explained(scenario.steps)))


@pytest.mark.parametrize(
    "steps",
    [
        [WRITE, VERIFY],
        [WRITE, "detach: hdc", "attach: hdc", VERIFY],
        [WRITE, "io: {disk: hdc, first: 64, count: 64}", VERIFY, "reboot", VERIFY],
        ["io: {disk: hdc, count: 64, gens: 3}", "check: {disk: hdc, count: 64, gen: 3}"],
        [START, "io: {disk: hdc, first: 64}", "stop_io: hdc"],
        [START, "stop_io: hdc", "check: {disk: hdc, count: 64, gen: null}"],
        ["check: {disk: hdc, gen: null}"],
        [START, "detach: hdc", "stop_io: {job: hdc, expect: any}", "attach: hdc", "io: hdc"],
        ["fault: {disk: hdc, kind: error}", "fault: {disk: hdc, kind: heal}", "io: hdc"],
        ["fault: {disk: hdc, kind: delay}", "io: hdc"],
        ["fault: {disk: hdc, kind: grow, count: 8}", "io: {disk: hdc, first: 8 MiB, count: 8}"],
        ["fault: {disk: hdc, kind: remove_nodes}", "detach: {disk: hdc, force: true}"],
        ["fault: {disk: hdc, kind: refuse_writes}", "flush: {disk: hdc, expect: any}"],
        ["attach: {disk: hdd, size: 99, mode: r}", "io: {disk: hdd, count: 9, expect: errors}"],
        ["opaque: filled from dom0", VERIFY],
        ["io: {disk: hdc, action: verify, first: 16384, count: 8, expect: errors}"],
        ["repeat: {times: 3, steps: [" + "{" + WRITE + "}, {" + VERIFY + "}]}"],
        ["together: [[{io: hdc}], [{io: {disk: hdc, first: 2048}}]]"],
    ],
)
def test_what_proves_something(steps):
    scenario = loads(text(*steps))
    assert not list(unexplained(scenario.steps))
    assert explained(scenario.steps) == scenario.steps


def test_a_second_round_that_meets_the_first_is_seen():
    rounds = "repeat: {times: 2, steps: [{%s}, {io: {disk: hdc, action: write, count: 8, gen: 3}}]}"
    scenario = loads(text(WRITE, rounds % VERIFY))
    assert [words for _, words in unexplained(scenario.steps)] == [
        "something else was written there"
    ]


def test_triggers_and_chance_prove_something():
    import random

    for trigger in TRIGGERS:
        for seed in range(8):
            steps = trigger.build(random.Random(seed))  # noqa: S311
            assert not list(unexplained(steps)), (trigger.name, list(unexplained(steps)))
    for seed in range(150):
        steps = generate(suspect("detach slow disk bad sector"), seed).steps
        assert not list(unexplained(steps))
        assert not list(problems(steps))


@settings(max_examples=60, deadline=None)
@given(step_lists)
def test_explained_steps_can_be_done_and_prove_something(steps):
    kept = explained(steps)
    assert not list(problems(kept))
    assert not list(unexplained(kept))
    assert sum(1 for _ in walk(kept)) <= sum(1 for _ in walk(repaired(steps)))


def test_a_minimisation_does_not_take_away_what_a_read_needs():
    """Wrong data after a detach; without the write there would be wrong data as well."""
    scenario = loads(text(WRITE, "wait: 3", "detach: hdc", "attach: hdc", "wait: 2", VERIFY))

    def trial(candidate):
        steps = [step for _, step in walk(candidate.steps)]
        reads = [step for step in steps if isinstance(step, Io) and step.action == "verify"]
        written = any(isinstance(step, Io) and step.action == "write" for step in steps)
        gone = any(isinstance(step, Detach) for step in steps)
        return Seen.SAME if reads and (gone or not written) else Seen.NOTHING

    found = minimise(scenario, trial, Tally(5, 5))
    assert [next(iter(plain(step))) for step in found.scenario.steps] == [
        "attach",
        "io",
        "detach",
        "attach",
        "io",
    ]
    assert isinstance(found.scenario, Scenario)
