"""A session with a plan: tests on two drivers by turns."""

from __future__ import annotations

import json

import plugin_fakes
import pytest
from plugin_bench import by_name, evidence_of

from lab.plugin.turns import turned_id, write_plan
from lab.results.record import Turn

pytest_plugins = ["pytester"]

SUITE = """
import os
import pytest

def note(name, package):
    with open("order", "a") as file:
        file.write(f"{name} {package.source.name}\\n")

def test_a(installed_driver, driver_package):
    note("a", driver_package)
    assert driver_package.source.name != "package", "the new one is broken"

@pytest.mark.parametrize("mode", ["r", "w"])
def test_b(installed_driver, driver_package, mode):
    note(f"b {mode}", driver_package)

@pytest.mark.race(attempts=3, limit=0.5)
def test_race(installed_driver, driver_package, jitter):
    note(f"race {jitter.seed}", driver_package)
    assert driver_package.source.name != "old" or jitter.seed < 3, "late"

def test_unplanned(installed_driver): raise AssertionError("not in the plan")
"""


def turns(*words: str) -> list[Turn]:
    """``"test_a new 1"``."""
    made = []
    for word in words:
        name, driver, repeat = word.split()
        made.append(Turn(test=name, driver=driver, repeat=int(repeat)))
    return made


@pytest.fixture
def planned(bench, request):
    """A run of a plan; tests are named by function."""
    old = plugin_fakes.write_package(bench.path / "old")
    file = f"{request.node.originalname}.py"

    def run(*words, args=(), baseline=True, test=SUITE, **others):
        plan = [turn.model_copy(update={"test": f"{file}::{turn.test}"}) for turn in turns(*words)]
        write_plan(plan, bench.path / "plan.json")
        named = [f"--pvlab-baseline={old}"] if baseline else []
        return bench(test, *named, "--pvlab-plan=plan.json", *args, **others)

    return run


def order(bench):
    return (bench.path / "order").read_text().splitlines()


@pytest.mark.parametrize(
    ("test", "found"),
    [("a.py::test_x", "a.py::test_x[new2]"), ("a.py::test_x[r-1]", "a.py::test_x[r-1-new2]")],
)
def test_names(test: str, found: str):
    assert turned_id(Turn(test=test, driver="new", repeat=2)) == found


def test_drivers_take_turns_in_the_plan_s_order(planned, bench):
    words = ("test_a new 1", "test_a baseline 1", "test_b[w] baseline 1", "test_b[w] new 1")
    run = planned(*words, "test_a new 2")
    assert order(bench) == ["a package", "a old", "b w old", "b w package", "a package"]
    tests = by_name(run)
    assert list(tests) == [
        "test_a[new1]",
        "test_a[baseline1]",
        "test_b[w-baseline1]",
        "test_b[w-new1]",
        "test_a[new2]",
    ]
    assert tests["test_a[new1]"]["outcome"] == "failed"
    assert tests["test_a[baseline1]"]["outcome"] == "passed"
    turn = tests["test_b[w-baseline1]"]["turn"]
    assert turn["test"].endswith("::test_b[w]")
    assert (turn["driver"], turn["repeat"]) == ("baseline", 1)
    assert run.record["driver"]["basename"] == "package"
    assert run.record["baseline"]["basename"] == "old"
    assert "dbgview" in evidence_of(run, "test_a[new1]")
    folders = {test["evidence"] for test in run.record["tests"]}
    assert len(folders) == 5
    assert run.record["verdict"]["status"] == "FAIL"


def test_races_take_turns_too(planned, bench):
    run = planned("test_race baseline 1", "test_race new 1")
    assert order(bench) == [f"race {n} {d}" for d in ("old", "package") for n in (1, 2, 3)]
    old, new = run.record["tests"]
    assert (old["campaign"]["failures"], new["campaign"]["failures"]) == (1, 0)
    assert old["turn"]["driver"] == "baseline"
    # To be repeated by hand, without a plan.
    assert "[baseline1]" not in run.text.partition("pvlab run ")[2].partition("\n")[0]


def test_failures_of_the_baseline_are_not_the_driver_s(planned):
    run = planned("test_race baseline 1", "test_b[r] new 1", "test_race new 1")
    assert run.record["verdict"]["status"] == "PASS"


def test_each_driver_has_its_own_errata(planned, bench):
    folder = bench.path / "errata"
    folder.mkdir()
    old = (bench.path / "old" / "xenvbd.inf").read_text()
    (bench.path / "old" / "xenvbd.inf").write_text(old.replace("0.0.3.0", "0.0.2.0"))
    (folder / "known.toml").write_text(
        'driver = "xenvbd"\nprovider = "pvlab tests"\nversion = "0.0.3.*"\n[[known]]\n'
        'test = "test_each_driver_has_its_own_errata.py::test_a"\nwhy = "known"\n'
        'source = "us"\nuntil = "open"\n'
    )
    run = planned("test_a new 1", "test_a baseline 1", args=[f"--pvlab-errata={folder}"])
    outcomes = {name: test["outcome"] for name, test in by_name(run).items()}
    assert outcomes == {"test_a[new1]": "xfailed", "test_a[baseline1]": "passed"}
    (issue,) = run.record["errata"]
    assert issue["test"].endswith("::test_a")


def test_workers_keep_pairs_together(planned, bench):
    words = [f"test_b[{m}] {d} {n}" for n in (1, 2) for m in "rw" for d in ("new", "baseline")]
    xdist = ["-p", "xdist", "-n", "2", "--dist=load", "--maxschedchunk=1"]
    run = planned(*words, args=xdist, process=True)
    assert run.code == 0
    assert len(order(bench)) == 8
    assert len([line for line in order(bench) if line.endswith("old")]) == 4
    assert {test["turn"]["repeat"] for test in run.record["tests"]} == {1, 2}
    assert run.record["workers"] == 2


def test_smoke_runs_what_the_plan_names(planned, bench):
    planned("test_b[r] new 1", args=["--pvlab-intensity=smoke"])
    assert order(bench) == ["b r package"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["test_nothing new 1"], "the plan names a test that is not there"),
        (["test_a new 1", "test_a new 1"], "a turn is there twice"),
        ([], "no turn"),
    ],
)
def test_unusable_plans_are_refused(planned, words: list[str], said: str):
    run = planned(*words)
    assert run.code == pytest.ExitCode.USAGE_ERROR
    assert said in run.text + run.pytest.stderr.str()
    assert run.record is None


def test_a_turn_on_no_baseline_is_refused(planned):
    run = planned("test_a baseline 1", baseline=False)
    assert run.code == pytest.ExitCode.USAGE_ERROR
    assert "there is none" in run.text + run.pytest.stderr.str()


def test_an_unusable_baseline_is_refused(planned, bench):
    (bench.path / "old" / "xenvbd.inf").unlink()
    run = planned("test_b[r] new 1")
    assert run.code == pytest.ExitCode.USAGE_ERROR
    assert "no INF file" in run.text + run.pytest.stderr.str()
    assert not (bench.path / "results" / "run").exists()


def test_what_is_no_plan_is_refused(bench):
    (bench.path / "plan.json").write_text(json.dumps([{"test": "x"}]))
    run = bench("def test_a(place): pass", "--pvlab-plan=plan.json")
    assert "no plan" in run.text + run.pytest.stderr.str()
