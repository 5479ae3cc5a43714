"""``pvlab bisect`` over runs that are made up."""

from __future__ import annotations

import json
import random
import shutil
import sys
from pathlib import Path

import pytest

from lab.cli import bisect as command
from lab.cli import main as cli
from lab.core.errors import Blame
from lab.core.paths import repo_root
from lab.results.record import Outcome

sys.path.insert(0, str(repo_root() / "tests" / "unit" / "plugin"))

import plugin_fakes
from fake_suite import FakeSuite, failed, lost

BUILDS = 8
CULPRIT = 5


def number(package: str) -> int:
    return int(package.rpartition("-")[2])


def always(test, package, n):
    return failed() if number(package) >= CULPRIT else {}


@pytest.fixture
def runs(tmp_path, monkeypatch) -> FakeSuite:
    fake = FakeSuite(behaviour=always)
    monkeypatch.setattr(command, "run_suite", fake.run_suite)
    monkeypatch.setenv("PVLAB_RESULTS", str(tmp_path / "results"))
    monkeypatch.delenv("PVLAB_INTENSITY", raising=False)
    monkeypatch.chdir(tmp_path)
    for build in range(BUILDS):
        binary = plugin_fakes.I386 + b"%d" % build
        plugin_fakes.write_package(tmp_path / "builds" / f"b-{build}", binary)
    return fake


WORDS = ("--good", "b-0", "--bad", "b-7", "--builds", "builds", "--test", "test_it.py::test_a")


def bisect(*more: str, words=WORDS) -> int:
    return cli.main(["bisect", *words, *more])


def state() -> dict:
    return json.loads(Path("results/bisect.json").read_text())


def test_the_culprit_is_found_and_the_log_is_told(runs, capfd):
    assert bisect() == 0
    out = capfd.readouterr().out
    assert "8 builds, from b-0 to b-7" in out
    assert "first bad build: b-5 (" in out
    assert "] b-5: failed: no disk; most likely b-" in out
    assert "  b-4: failed 0 of " in out
    assert state()["conclusion"]["first"] == "b-5"
    request = runs.requests[0]
    assert request.tests == ("test_it.py::test_a",)
    assert not request.core
    assert request.errata is not None


def test_a_rare_defect_and_a_lab_that_loses_runs(runs):
    chance = random.Random(4)  # noqa: S311 - to be repeated

    def rarely(test, package, n):
        if chance.random() < 0.1:
            return lost()
        return failed() if number(package) >= CULPRIT and chance.random() < 0.3 else {}

    runs.behaviour = rarely
    assert bisect("--json") == 0
    found = state()
    assert found["conclusion"]["first"] == "b-5"
    assert {run["seen"] for run in found["runs"]} == {"passed", "failed", "lost"}


def test_json_stands_alone(runs, capfd):
    assert bisect("--json") == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["conclusion"]["found"] == "culprit"
    assert "first bad build: b-5" in err


def test_an_interrupted_search_goes_on_where_it_was(runs, capfd):
    def interrupt(count):
        if count == 4:
            raise KeyboardInterrupt

    runs.before = interrupt
    assert bisect() == 130
    known = state()["runs"]
    assert len(known) == 3
    runs.before = lambda count: None
    assert bisect() == 0
    assert "going on after 3 runs" in capfd.readouterr().out
    assert state()["runs"][:3] == known
    before = len(runs.requests)
    assert bisect() == 0
    assert len(runs.requests) == before


def test_another_question_does_not_overwrite_a_state(runs, capfd):
    assert bisect() == 0
    other = [*WORDS[:-1], "test_it.py::test_b"]
    assert bisect(words=other) == 2
    assert "the state of another bisection" in capfd.readouterr().err
    assert bisect("--restart", words=other) == 0
    assert bisect("--state", "mine.json") == 0
    assert Path("mine.json").is_file()


def test_a_package_that_changed_is_noticed(runs, capfd):
    assert bisect("--most", "3") == 3
    for build in range(BUILDS):
        (Path("builds") / f"b-{build}" / "xenvbd.sys").write_bytes(plugin_fakes.I386 + b"x")
    assert bisect() == 2
    assert "not the package that was run before" in capfd.readouterr().err


def test_a_build_that_cannot_be_installed_stays_suspect(runs, capfd):
    (Path("builds") / "b-4" / "xenvbd.inf").write_text("nothing\n")
    assert bisect() == 0
    out = capfd.readouterr().out
    assert "] b-4: untestable: " in out
    assert "first bad build: one of b-4 to b-5" in out


def test_good_builds_that_fail_too(runs, capfd):
    runs.behaviour = lambda test, package, n: failed()
    assert bisect() == 1
    assert "the good build fails too: b-0" in capfd.readouterr().out


def test_a_lab_that_loses_everything_gives_up(runs, capfd):
    runs.behaviour = lambda test, package, n: lost()
    assert bisect("--retries", "2") == 3
    out = capfd.readouterr().out
    assert "given up: 3 runs in a row said nothing" in out
    assert "not found in 3 runs, 3 of them lost" in out
    assert "QEMU died" in out


def test_other_failures_are_no_observation(runs):
    def behave(test, package, n):
        if number(package) == 6 and n % 2:
            return failed("quite another thing")
        return always(test, package, n)

    runs.behaviour = behave
    assert bisect("--says", "no d.sk") == 0
    assert state()["conclusion"]["first"] == "b-5"
    seen = {run["message"]: run["seen"] for run in state()["runs"]}
    assert seen.get("another failure: quite another thing", "lost") == "lost"


@pytest.mark.parametrize(
    "fields",
    [
        {"outcome": Outcome.SKIPPED},
        {"outcome": Outcome.FAILED, "blame": Blame.UNDECIDED},
        {"outcome": Outcome.XFAILED, "blame": Blame.DRIVER},
    ],
)
def test_what_says_nothing_is_lost(runs, fields):
    runs.behaviour = lambda test, package, n: fields
    assert bisect("--retries", "0") == 3
    assert [run["seen"] for run in state()["runs"]] == ["lost"]


def test_a_command_makes_the_builds(runs, tmp_path, capfd):
    shutil.move("builds", "made")
    (tmp_path / "revisions").write_text("".join(f"r-{n}\n" for n in range(BUILDS)))
    (tmp_path / "make.sh").write_text('[ "$1" != r-3 ] || exit 1\ncp made/b-"${1#r-}"/* "$2"\n')
    seen = []

    def behave(test, package, n):
        sys_file = (runs.requests[-1].driver / "xenvbd.sys").read_bytes()
        seen.append(int(sys_file.removeprefix(plugin_fakes.I386)))
        return failed() if seen[-1] >= CULPRIT else {}

    runs.behaviour = behave
    words = ["--good", "r-0", "--bad", "r-7", "--builds", "revisions", "--test", "x.py::test_a"]
    assert bisect("--build-command", "sh make.sh {build} {out}", words=words) == 0
    assert "first bad build: r-5" in capfd.readouterr().out
    assert 3 not in seen


def test_a_scenario_is_run_as_a_test(runs, tmp_path):
    scenario = (
        "pvlab_scenario: 1\nseed: 1\nabout: {title: Attach and detach}\nsteps: [pause, unpause]\n"
    )
    (tmp_path / "scenario.yaml").write_text(scenario)
    sources = []
    runs.before = lambda count: sources.append(
        Path(runs.requests[-1].tests[0].partition("::")[0]).read_text()
    )
    assert bisect(words=[*WORDS[:-1], "scenario.yaml"]) == 0
    assert runs.requests[0].tests[0].endswith("test_scenario.py::test_attach_and_detach")
    assert "def test_attach_and_detach(replay):" in sources[0]
    (tmp_path / "scenario.yaml").write_text(scenario.replace("seed: 1", "seed: 2"))
    assert bisect(words=[*WORDS[:-1], "scenario.yaml"]) == 2


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--good", "b-7", "--bad", "b-0"), "does not come before"),
        (("--good", "b-77"), "no such build"),
        (("--says", "("), "not a regular expression"),
        (("--order", "age"), "name or version"),
        (("--builds", "nowhere"), "cannot be read"),
        (("--test", "nowhere.yaml"), "nowhere.yaml"),
        (("--build-command", "make"), "--build-command does not say {build}"),
        (("--confidence", "2"), "confidence"),
    ],
)
def test_bad_input_is_one_line(runs, capfd, more, said):
    assert bisect(*more) == 2
    err = capfd.readouterr().err
    assert said in err
    assert len(err.strip().splitlines()) == 1
    assert not runs.requests
