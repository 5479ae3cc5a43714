from __future__ import annotations

import pytest

from lab.core.errors import UsageError
from lab.suite.costs import EMULATED, KVM_SPEEDUP, check_steps, expected_seconds, step_seconds
from lab.suite.intensity import Count, Intensity, Level

CYCLES = Count(standard=25, smoke=3, soak=200, tcg=8)


@pytest.mark.parametrize(
    ("level", "accelerator", "count"),
    [
        ("smoke", "kvm", 3),
        ("smoke", "tcg-hvm", 3),
        ("standard", "kvm", 25),
        ("standard", "tcg-hvm", 8),
        ("standard", "tcg-pv", 8),
        ("soak", "kvm", 200),
        ("soak", "tcg-hvm", 200),
    ],
)
def test_count_by_level_and_accelerator(level, accelerator, count):
    intensity = Intensity(Level(level), accelerator)
    assert intensity.count(CYCLES) == count
    assert intensity.count(standard=25, smoke=3, soak=200, tcg=8) == count


@pytest.mark.parametrize(("level", "count"), [("smoke", 2), ("standard", 20), ("soak", 160)])
def test_counts_that_are_left_out(level, count):
    assert Intensity(Level(level), "tcg-hvm").count(20) == count


def test_smoke_does_everything_at_least_once():
    assert Intensity(Level.SMOKE, "kvm").count(3) == 1


def test_unknown_level_is_refused_in_one_line():
    with pytest.raises(UsageError, match="unknown intensity loud"):
        Level.of("loud")


def test_expected_time_is_the_sum_of_steps():
    tcg, kvm = Intensity(Level.STANDARD, "tcg-hvm"), Intensity(Level.STANDARD, "kvm")
    steps = {"attach": CYCLES, "reboot": 2, "seconds": 5}
    emulated = 8 * EMULATED["attach"] + 2 * EMULATED["reboot"] + 5
    assert expected_seconds(steps, tcg) == pytest.approx(emulated)
    on_kvm = (25 * EMULATED["attach"] + 2 * EMULATED["reboot"]) / KVM_SPEEDUP + 5
    assert expected_seconds(steps, kvm) == pytest.approx(on_kvm)


def test_waits_take_as_long_everywhere():
    assert step_seconds("seconds", "kvm") == step_seconds("seconds", "tcg-hvm") == 1.0


@pytest.mark.parametrize("steps", [{"dance": 1}, {"attach": "3"}, {"attach": True}])
def test_steps_that_mean_nothing_are_refused(steps):
    with pytest.raises(UsageError):
        check_steps(steps)
