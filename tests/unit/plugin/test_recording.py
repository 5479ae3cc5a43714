"""Every test keeps the scenario that it ran, in sessions whose lab is made of fakes."""

from __future__ import annotations

from plugin_bench import by_name, evidence_of

from lab.scenario.text import load

pytest_plugins = ["pytester"]

TESTS = """
import pytest
from lab.core.errors import DriverFailure

def test_good(installed_driver, jitter):
    jitter.point("here", up_to=0.001)
    jitter.number("there", 1, 9)

def test_crash(installed_driver, place, jitter):
    jitter.point("before", up_to=0.001)
    place.bugcheck()
    jitter.point("after", up_to=0.001)

def test_idle(installed_driver):
    pass

def test_idle_and_bad(installed_driver):
    raise DriverFailure("no")

@pytest.mark.race(attempts=5)
def test_race(installed_driver, jitter):
    jitter.point("here", up_to=0.001)
    if jitter.seed == 2:
        raise DriverFailure("no")

def test_replay(replay):
    replay("pvlab_scenario: 1\\nsteps:\\n- detach: hdc\\n")
"""


def scenario_of(run, name):
    return load(run.folder / by_name(run)[name]["evidence"] / "scenario.yaml")


def test_scenarios_are_among_the_evidence(bench):
    run = bench(TESTS)
    good = scenario_of(run, "test_good")
    assert [step.name for step in good.steps] == ["here"]
    assert good.about.outcome == "passed"
    assert good.about.origin.endswith("::test_good")
    assert good.about.driver_sha256
    assert good.seed == 1
    crash = scenario_of(run, "test_crash")
    assert [step.name for step in crash.steps] == ["before", "after"]
    assert crash.about.outcome.startswith("DRIVER: ")
    assert crash.complete
    assert "scenario.yaml" not in evidence_of(run, "test_idle")
    # It failed, and all that it had done was to install the driver.
    assert scenario_of(run, "test_idle_and_bad").steps == ()
    # Of a race, the first attempt that failed, with its own seed.
    assert scenario_of(run, "test_race").seed == 2
    # The fixture takes scenarios in YAML.
    assert "the disk 'hdc' is not attached" in by_name(run)["test_replay"]["message"]
