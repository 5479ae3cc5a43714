from __future__ import annotations

import pytest
from plugin_bench import by_name, evidence_of

pytest_plugins = ["pytester"]

RACE = """
import pytest
from lab.core.errors import *
from lab.suite.intensity import Count

SEEDS = []

@pytest.fixture(scope="module")
def module_wide():
    yield object()
    print("module torn down")

@pytest.mark.area("attach")
@pytest.mark.race(attempts={attempts})
def test_race(installed_driver, place, jitter, module_wide):
    seed = jitter.seed
    SEEDS.append((seed, id(module_wide)))
    {body}

def test_seeds():
    assert [seed for seed, _ in SEEDS] == {seeds}
    assert len(set(module for _, module in SEEDS)) == 1
"""


def race(body, seeds, attempts=5):
    return RACE.format(body=body, seeds=seeds, attempts=attempts)


def test_every_attempt_has_a_clone_and_a_seed_and_the_campaign_is_one_test(bench):
    run = bench(race("pass", [1, 2, 3], attempts=3))
    assert run.code == 0
    assert [line for line in run.journal if "clone" in line] == ["clone 1", "clone 2", "clone 3"]
    assert [line for line in run.journal if "closed" in line] == [f"closed {n}" for n in (1, 2, 3)]
    assert set(by_name(run)) == {"test_race"}
    test = by_name(run)["test_race"]
    assert test["outcome"] == "passed"
    assert test["area"] == "attach"
    assert test["campaign"]["attempts"] == 3
    assert test["campaign"]["answer"] == "open"
    assert "0 of 3 attempts failed" in test["properties"]["pvlab.campaign"]
    run.pytest.stdout.fnmatch_lines(["race: *test_race: 0 of 3 attempts failed*"])


def test_failing_seed_is_told_with_the_command_that_repeats_it(bench):
    run = bench(race("assert seed != 3, 'disk missing'", [1, 2, 3]))
    assert run.code == 1
    test = by_name(run)["test_race"]
    assert (test["outcome"], test["blame"], test["phase"]) == ("failed", "driver", "call")
    assert test["message"].startswith("disk missing")
    assert "seed 3; 1 of 3 attempts failed" in test["message"]
    assert test["campaign"]["failed_seeds"] == [3]
    run.pytest.stdout.fnmatch_lines(
        [
            "*blamed on DRIVER: disk missing*",
            "*to repeat it: pvlab run *.py::test_race --seed 3 --driver */package",
            "*assert seed != 3*",
        ]
    )
    assert {"dbgview", "xl-dmesg", "guest-serial"} <= evidence_of(run, "test_race")


def test_seed_option_repeats_one_attempt(bench):
    run = bench(race("assert seed != 3, 'disk missing'", [3]), "--pvlab-seed=3")
    assert run.code == 1
    assert by_name(run)["test_race"]["campaign"]["attempts"] == 1
    assert bench.path.joinpath("results").is_dir()


def test_seed_that_does_not_fail_passes_alone(bench):
    run = bench(race("assert seed != 3", [2]), "--pvlab-seed=2")
    assert run.code == 0


def test_crash_in_an_attempt_is_a_crash_of_the_campaign(bench):
    run = bench(race("(seed == 2 and place.bugcheck())", [1, 2]))
    test = by_name(run)["test_race"]
    assert test["blame"] == "driver"
    assert "Kernel panic" in test["message"]
    assert "Kernel panic" in test["properties"]["pvlab.crash"]
    assert "core" in evidence_of(run, "test_race")


def test_attempt_that_the_lab_broke_ends_the_campaign_and_is_the_lab_s(bench):
    body = """
    if seed == 2:
        place.broken = "QEMU (pid 4711) died of signal 9"
        assert 0, "disk missing"
"""
    run = bench(race(body, [1, 2]))
    assert run.code == 3
    test = by_name(run)["test_race"]
    assert test["blame"] == "lab"
    assert "seed 2" in test["message"]
    assert "died of signal 9" in test["message"]


def test_attempt_nobody_can_be_blamed_for_stays_so(bench):
    body = """
    from lab.guest.errors import GuestSilent
    raise GuestSilent("virtdemo", "an echo", "nothing")
"""
    run = bench(race(body, [1]))
    assert run.code == 3
    assert by_name(run)["test_race"]["blame"] == "undecided"


def test_attempt_that_skips_skips_the_campaign(bench):
    run = bench(race("pytest.skip('not here')", [1]))
    test = by_name(run)["test_race"]
    assert (test["outcome"], test["message"]) == ("skipped", "not here")


def test_failed_installation_is_a_failed_attempt(bench):
    run = bench(
        race("pass", []),
        template="install=DriverFailure('xenvbd.inf could not be installed')",
    )
    test = by_name(run)["test_race"]
    assert (test["outcome"], test["blame"]) == ("failed", "driver")
    assert "could not be installed" in test["message"]


def test_expected_failure_of_a_race_is_the_campaign_s(bench):
    run = bench(
        """
        import pytest
        @pytest.mark.xfail(reason="known", strict=True)
        @pytest.mark.race(attempts=3)
        def test_race(installed_driver, jitter):
            assert jitter.seed < 3
        """
    )
    test = by_name(run)["test_race"]
    assert test["outcome"] == "xfailed"
    assert test["campaign"]["failed_seeds"] == [3]


def test_parameters_and_classes_may_race(bench):
    run = bench(
        """
        import pytest
        class TestAttach:
            @pytest.mark.race(attempts=2)
            @pytest.mark.parametrize("vdev", ["hdc", "sdb"])
            def test_race(self, installed_driver, jitter, vdev):
                assert (vdev, jitter.seed) != ("sdb", 2)
        """
    )
    tests = by_name(run)
    assert tests["test_race[hdc]"]["outcome"] == "passed"
    assert tests["test_race[sdb]"]["outcome"] == "failed"
    assert "TestAttach::test_race[sdb]' --seed 2" in run.text


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        ("race(3)", "race takes only"),
        ("race(tries=3)", "race takes only"),
        ("race(limit=2)", "between 0 and 1"),
        ("race(attempts='many')", "attempts is a number"),
        ("cost(3)", "by name"),
        ("cost(dance=3)", "no step"),
    ],
)
def test_malformed_markers_are_refused_in_one_line(bench, marker, message):
    run = bench(
        f"import pytest\n@pytest.mark.{marker}\ndef test_it(installed_driver): pass",
    )
    assert run.code == pytest.ExitCode.USAGE_ERROR
    errors = [line for line in run.pytest.stderr.lines if line.strip()]
    assert len(errors) == 1
    assert message in errors[0]
    assert run.record is None
