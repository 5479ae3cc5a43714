"""Two hundred gates of each kind, decided by the engine that decides real ones."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lab.gate.policy import Policy, load_policy
from lab.gate.simulate import FLAKY, REGRESSED, WORLDS, World, play, suite, tries
from lab.results.record import Status

GATES = 200
SMALL = 4
"""Tests of a simulated suite: more of those that never fail only take longer."""


@pytest.fixture(scope="module")
def release() -> Policy:
    return load_policy("release")


def test_false_alarms_of_a_flaky_test(release: Policy):
    found = tries(World(suite(FLAKY, tests=SMALL)), release, range(GATES))
    assert found.share(Status.FAIL) <= 0.01
    assert found.share(Status.PASS) >= 0.99


def test_a_failure_rate_of_ten_percent_is_not_missed(release: Policy):
    found = tries(World(suite(FLAKY, REGRESSED, tests=SMALL)), release, range(GATES))
    assert found.share(Status.FAIL) >= 0.95


def test_the_standard_policy_raises_no_false_alarms_either():
    found = tries(WORLDS["no worse"], load_policy(), range(GATES))
    assert found.share(Status.FAIL) <= 0.01
    assert found.share(Status.PASS) >= 0.99


@pytest.mark.parametrize(
    ("world", "status"),
    [
        ("one test always fails", Status.FAIL),
        ("10 times slower", Status.FAIL),
        ("the lab is killed everywhere", Status.UNDECIDED),
    ],
)
def test_what_is_certain_is_always_found(world: str, status: Status):
    assert tries(WORLDS[world], load_policy(), range(GATES)).share(status) == 1.0


def test_two_percent_slower_does_not_fail():
    assert tries(WORLDS["2 % slower"], load_policy(), range(GATES)).share(Status.FAIL) == 0.0


def test_a_simulated_gate_names_the_right_test():
    played = play(WORLDS["one test always fails"], load_policy(), 1)
    assert played.verdict.reasons[0].startswith("regression: broken: ")


def test_a_gate_can_be_repeated_to_the_last_run():
    world = replace(WORLDS["no worse"], lab_noise=0.2)
    assert play(world, load_policy(), 7) == play(world, load_policy(), 7)
