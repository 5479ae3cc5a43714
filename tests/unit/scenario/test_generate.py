"""What a report points at, and the scenarios that are made of it."""

from __future__ import annotations

import random

import pytest

from lab.crash.facts import CrashFact, LogLine
from lab.scenario.generate import generate
from lab.scenario.model import Check, Detach, Io, Scenario, StartIo, disks, walk
from lab.scenario.sense import problems
from lab.scenario.text import dumps, loads
from lab.scenario.triggers import TRIGGERS, suspect


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("The guest blue-screens when I detach the disk under I/O", "detach under I/O"),
        ("xm block-detach crashes the guest", "detach under I/O"),
        ("it dies if I detach the disk while copying", "detach under I/O"),
        ("BSOD after attaching a disk several times, again and again", "attach and detach again"),
        ("unaligned writes are corrupt, concurrent I/O", "unaligned requests"),
        ("RING IS FULL - EXPECT BADNESS", "a full ring"),
        ("formatting with NTFS fails", "formatting"),
        ("after xm save and xm restore the disk hangs", "save and restore"),
        ("bugcheck on shutdown, 0x9F DRIVER_POWER_STATE_FAILURE", "restart"),
        ("when I disable the driver in the device manager", "disabling the driver"),
        ("Wait timed out, slow disk on a SAN", "a slow disk"),
        ("the disk is write protected, read-only", "read-only"),
    ],
)
def test_words_point_at_triggers(text, first):
    found = suspect(text)
    assert found[0].trigger.name.startswith(first), [(s.trigger.name, s.score) for s in found[:4]]
    assert found[0].signs


def test_codes_and_logs_point_at_triggers():
    fact = CrashFact("bugcheck", code=0x1000009F, log=(LogLine(1, None, "Shutting down", None),))
    found = suspect("", (fact,))
    assert found[0].trigger.name == "restart"
    assert "stop code 0x9F" in found[0].signs


def test_without_a_sign_the_likeliest_come_first():
    found = suspect("")
    assert not any(one.signs for one in found)
    assert found[0].trigger.name == "detach under I/O"
    assert len(found) == len(TRIGGERS)


def test_every_trigger_makes_scenarios_that_can_be_done():
    for trigger in TRIGGERS:
        for seed in range(8):
            steps = trigger.build(random.Random(seed))  # noqa: S311
            scenario = Scenario(steps=steps)
            assert not list(problems(steps)), trigger.name
            assert loads(dumps(scenario)) == scenario
            for _, step in walk(steps):
                if isinstance(step, Io | StartIo) and getattr(step, "expect", "ok") == "ok":
                    size = disks(steps)[step.disk].size
                    assert step.first + step.count <= size, trigger.name


def test_chance_makes_different_scenarios_that_can_be_done():
    suspicions = suspect("detach")
    made = [generate(suspicions, seed) for seed in range(200)]
    assert len({scenario.steps for scenario in made}) > 150
    for scenario in made:
        assert not list(problems(scenario.steps))
        assert scenario.steps
        sizes = {label: one.size for label, one in disks(scenario.steps).items()}
        for _, step in walk(scenario.steps):
            assert not isinstance(step, Check)
            if isinstance(step, Io | StartIo):
                assert step.first + step.count <= sizes[step.disk]


def test_a_seed_makes_one_scenario():
    assert generate(suspect("x"), 7) == generate(suspect("x"), 7)


def test_what_is_suspected_is_made_more_often():
    def detaches(text):
        made = [generate(suspect(text), seed) for seed in range(150)]
        return sum(any(isinstance(s, Detach) for _, s in walk(one.steps)) for one in made)

    assert detaches("block-detach while writing, detach during I/O") > detaches(
        "read-only write protect NTFS chkdsk flush cache data loss"
    )
