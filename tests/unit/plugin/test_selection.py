from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from plugin_bench import by_name

import lab.plugin.session
from lab.config.profile import Profile

pytest_plugins = ["pytester"]

SUITE = """
import pytest
from lab.suite.intensity import Count

TIMES = Count(standard=40, smoke=2, tcg=10)

@pytest.mark.smoke
@pytest.mark.area("attach")
@pytest.mark.claim("size detected correctly", source="announcement 0.0.3")
@pytest.mark.cost(attach=TIMES)
def test_quick(installed_driver, block_device, intensity):
    assert intensity.count(TIMES) == {count}

@pytest.mark.area("attach")
@pytest.mark.cost(reboot=2)
def test_thorough(installed_driver, intensity): pass

def test_of_nobody_s_suite(place): pass

def test_without_lab(): pass
"""


def test_smoke_leaves_out_what_is_not_marked(bench):
    run = bench(SUITE.format(count=2), "--pvlab-intensity=smoke")
    assert run.code == 0
    assert set(by_name(run)) == {"test_quick", "test_of_nobody_s_suite"}
    run.pytest.assert_outcomes(passed=3, deselected=1)
    assert run.record["intensity"] == "smoke"
    run.pytest.stdout.fnmatch_lines(["pvlab: intensity: smoke, *"])


def test_smoke_keeps_what_is_named(bench):
    bench.pytester.makepyfile(SUITE.format(count=2))
    name = "test_smoke_keeps_what_is_named.py"
    run = bench(SUITE.format(count=2), "--pvlab-intensity=smoke", f"{name}::test_thorough")
    assert set(by_name(run)) == {"test_thorough"}


def test_standard_runs_everything(bench):
    run = bench(SUITE.format(count=10))
    assert run.code == 0
    assert len(run.record["tests"]) == 3
    assert run.record["intensity"] == "standard"


def test_intensity_comes_from_the_environment_too(bench, monkeypatch):
    monkeypatch.setenv("PVLAB_INTENSITY", "soak")
    run = bench(SUITE.format(count=320))
    assert run.code == 0
    assert run.record["intensity"] == "soak"


@pytest.mark.parametrize(
    ("option", "message"),
    [("--pvlab-intensity=loud", "unknown intensity"), ("--pvlab-seed=x", "no seed")],
)
def test_unusable_options_are_one_line(bench, option, message):
    run = bench(SUITE.format(count=1), option)
    assert run.code == pytest.ExitCode.USAGE_ERROR
    errors = [line for line in run.pytest.stderr.lines if line.strip()]
    assert len(errors) == 1
    assert message in errors[0]


def test_sessions_without_the_lab_do_not_care(bench):
    run = bench("def test_it(): pass", "--pvlab-intensity=loud")
    assert run.code == 0


def test_catalogue_says_what_there_is_and_runs_nothing(bench):
    run = bench(
        SUITE.format(count=1),
        "--collect-only",
        "--pvlab-accel=tcg-hvm",
        "--pvlab-catalogue=tests.json",
        driver=False,
    )
    assert run.code == 0
    assert (run.record, run.journal) == (None, [])
    found = json.loads((bench.path / "tests.json").read_text())
    tests = {test["id"].rpartition("::")[2]: test for test in found["tests"]}
    assert set(tests) == {"test_quick", "test_thorough", "test_of_nobody_s_suite"}
    quick = tests["test_quick"]
    assert quick["area"] == "attach"
    assert quick["claim"] == "size detected correctly"
    assert quick["source"] == "announcement 0.0.3"
    assert quick["markers"] == ["area", "claim", "cost", "smoke"]
    assert found["expected_seconds"] == pytest.approx(
        sum(test["expected_seconds"] for test in found["tests"]), abs=0.2
    )
    assert found["accelerator"] == "tcg-hvm"


def test_record_knows_what_a_test_may_take(bench):
    run = bench(SUITE.format(count=10))
    assert by_name(run)["test_thorough"]["expected_seconds"] > 80  # two reboots, emulated


def test_tests_that_take_longer_than_they_say_are_named(bench):
    run = bench(
        """
        import pytest
        @pytest.mark.cost(place=0, install=0)
        def test_it(installed_driver): pass
        """
    )
    run.pytest.stdout.fnmatch_lines(["slow: *test_it took 0 s, expected at most 0 s"])


@pytest.mark.parametrize("marker", ["", "@pytest.mark.race(attempts=2)"])
def test_preparing_is_no_part_of_the_test_that_comes_first(bench, monkeypatch, marker):
    # More than every phase takes, so that nothing is left of any.
    monkeypatch.setattr(lab.plugin.session.Lab, "preparation", lambda self: 900.0)
    run = bench(f"import pytest\n{marker}\ndef test_it(installed_driver): pass")
    assert run.code == 0
    assert by_name(run)["test_it"]["seconds"] == 0.0


def test_preparation_is_told_once(monkeypatch, tmp_path):
    clock = iter([10.0, 25.0])
    monkeypatch.setattr(lab.plugin.session, "time", SimpleNamespace(monotonic=clock.__next__))
    made = lab.plugin.session.Lab(Profile(), lambda: "template", tmp_path)
    assert made.preparation() == 0.0
    assert [made.template, made.template] == ["template", "template"]
    assert made.preparation() == 15.0
    assert made.preparation() == 0.0
