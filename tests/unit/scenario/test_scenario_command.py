"""``pvlab scenario``, with a stand that runs nothing."""

from __future__ import annotations

import contextlib
import json
from types import SimpleNamespace

import pytest

import lab.scenario.stand
from lab.cli.errors import run_guarded
from lab.cli.scenario import app
from lab.core.errors import Blame
from lab.crash.facts import CrashFact
from lab.scenario.model import OPERATIONS, Attach, Detach, Opaque, Scenario
from lab.scenario.outcome import End, Moment, Outcome
from lab.scenario.text import dumps

PASSED = Outcome(End.PASSED, moments=(Moment(("steps", 0), "attach hdc", 0.0, 1.5),), seconds=2.0)
CRASHED = Outcome(
    End.CRASH, Blame.DRIVER, "it crashed", "step 2, detach hdc", (CrashFact("panic"),), (), 3.0
)
BROKEN = Outcome(End.LAB, Blame.LAB, "dom0 is gone")
UNDECIDED = Outcome(End.FAILED, Blame.UNDECIDED, "nobody knows")


def pvlab(*words):
    return run_guarded(
        lambda: app(args=list(map(str, words)), prog_name="pvlab scenario", standalone_mode=False)
    )


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(
        dumps(Scenario(seed=4, steps=(Attach(disk="hdc", size=2048), Detach(disk="hdc"))))
    )
    return path


@pytest.fixture
def stand(monkeypatch):
    """Gives out the outcomes that it is told."""
    made = SimpleNamespace(outcomes=[], ran=[], package=SimpleNamespace(identity="ab" * 32))

    def attempt(scenario):
        made.ran.append(scenario)
        return made.outcomes.pop(0)

    made.attempt = attempt

    @contextlib.contextmanager
    def open_stand(profile, driver, *, accel, say):
        made.driver = driver
        yield made

    monkeypatch.setattr(lab.scenario.stand, "open_stand", open_stand)
    return made


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ([PASSED], 0),
        ([PASSED, PASSED, CRASHED], 1),
        ([CRASHED, BROKEN], 1),
        ([BROKEN], 3),
        ([UNDECIDED, PASSED], 3),
    ],
)
def test_exit_codes(stand, file, outcomes, code, capsys):
    stand.outcomes = list(outcomes)
    assert pvlab("run", file, "--driver", "d.zip", "-n", len(outcomes)) == code
    shown = capsys.readouterr().out
    assert outcomes[0].line in shown
    if len(outcomes) > 2:
        assert "failed 1 of 3 (33.3 %, 0.8 to 90.6 % at 95 %)" in shown


def test_a_run_shows_its_steps(stand, file, capsys):
    stand.outcomes = [PASSED]
    assert pvlab("run", file, "--driver", "d.zip", "--seed", 9) == 0
    assert "0.00 s     1.50 s   attach hdc" in capsys.readouterr().out
    assert stand.ran[0].seed == 9


def test_json_for_programs(stand, file, capsys):
    stand.outcomes = [CRASHED]
    assert pvlab("run", file, "--driver", "d.zip", "--json", "-") == 1
    document = json.loads(capsys.readouterr().out)
    assert document["attempts"][0]["end"] == "crash"
    assert document["attempts"][0]["facts"][0]["kind"] == "panic"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "empty"),
        (
            "pvlab_scenario: 1\nsteps:\n- detach: hdc\n",
            ":3: step 1: the disk 'hdc' is not attached",
        ),
        ("pvlab_scenario: 1\nsteps: []\nstep: []\n", "unknown key 'step' (did you mean 'steps'?)"),
    ],
)
def test_bad_input_is_a_line_and_exit_2(tmp_path, content, said, capsys):
    bad = tmp_path / "bad.yaml"
    bad.write_text(content)
    for words in (("run", bad, "--driver", "d.zip"), ("show", bad)):
        assert pvlab(*words) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1


def test_without_a_driver_nothing_is_run(file, capsys):
    assert pvlab("run", file) == 2
    assert "no driver package" in capsys.readouterr().err


def test_show_in_words_json_and_yaml(file, capsys):
    assert pvlab("show", file) == 0
    assert "attach hdc size=1 MiB" in capsys.readouterr().out
    assert pvlab("show", file, "--json") == 0
    assert json.loads(capsys.readouterr().out)["steps"][1] == {"detach": "hdc"}
    assert pvlab("show", file, "--yaml") == 0
    assert capsys.readouterr().out == file.read_text()


def test_every_step_is_listed(capsys):
    assert pvlab("steps") == 0
    shown = capsys.readouterr().out.splitlines()
    for name, kind in OPERATIONS.items():
        assert name in shown
        for field in kind.model_fields:
            if field not in ("op", "may_fail"):
                assert any(line.startswith(f"    {field}") for line in shown), (name, field)
    assert not any(line.endswith(": ") for line in shown)


def test_incomplete_scenarios_say_so(tmp_path, stand, capsys):
    path = tmp_path / "s.yaml"
    path.write_text(dumps(Scenario(steps=(Opaque(what="pulled the plug"),))))
    assert pvlab("show", path) == 0
    assert "not complete" in capsys.readouterr().out
    stand.outcomes = [PASSED]
    assert pvlab("run", path, "--driver", "d.zip") == 0
    assert "not complete" in capsys.readouterr().err


@pytest.fixture
def suite(monkeypatch, tmp_path):
    """A run of the suite whose tests left what they are told."""
    made = SimpleNamespace(tests=[], asked=None)

    def run_suite(request, *, label):
        made.asked = request
        return SimpleNamespace(folder=tmp_path / "run", report=tmp_path / "run" / "report.html")

    def leaves(name, text):
        folder = tmp_path / "run" / "tests" / name
        folder.mkdir(parents=True)
        if text:
            (folder / "scenario.yaml").write_text(text)
        made.tests.append(SimpleNamespace(evidence=f"tests/{name}"))

    made.leaves = leaves
    monkeypatch.setattr("lab.cli.suite.run_suite", run_suite)
    monkeypatch.setattr("lab.results.writer.load_run", lambda _: made)
    return made


def test_recording_is_a_run_of_the_suite(suite, tmp_path, capsys):
    suite.leaves("test-one", "pvlab_scenario: 1\n")
    suite.leaves("test-idle", "")
    suite.tests.append(SimpleNamespace(evidence=None))
    assert pvlab("record", "tests/drivers/a.py::test_one", "--seed", 3, "--", "-x") == 0
    assert capsys.readouterr().out.splitlines() == [
        str(tmp_path / "run" / "tests" / "test-one" / "scenario.yaml")
    ]
    assert (suite.asked.tests, suite.asked.extra) == (["tests/drivers/a.py::test_one"], ["-x"])
    assert suite.asked.seed == 3
    out = tmp_path / "out"
    assert pvlab("record", "tests/drivers/a.py::test_one", "-o", out) == 0
    assert (out / "test-one.yaml").read_text() == "pvlab_scenario: 1\n"


def test_nothing_recorded_is_the_lab_s(suite, capsys):
    suite.leaves("test-idle", "")
    assert pvlab("record", "tests/drivers/a.py") == 3
    assert "recorded" in capsys.readouterr().err
