from __future__ import annotations

import json
from datetime import UTC, datetime
from itertools import count

import pytest

from lab.core.errors import Blame, LabBroken, UsageError
from lab.gate.verdict import verdict
from lab.mutants.campaign import run_campaign, soonest_first
from lab.mutants.catalogue import Mutant
from lab.mutants.outcome import Fate, MutantsDocument, judge_mutant, read_document
from lab.results.record import Driver, EndedHow, Host, Outcome, RunRecord, TestRecord
from lab.suite.catalogue import Entry
from lab.suite.digest import suite_digest
from lab.suite.intensity import Level

NOW = datetime(2007, 11, 22, tzinfo=UTC)
PACKAGE = "a" * 64


def mutant(name):
    return Mutant(name=name, build=1, title=f"title of {name}", defect="d", shows="s")


def ended(name, outcome=Outcome.PASSED, blame=None, message=""):
    return TestRecord(
        id=f"tests/drivers/test_x.py::{name}",
        outcome=outcome,
        blame=blame,
        seconds=1,
        message=message,
    )


def record(*tests, ended_how=EndedHow.FINISHED):
    return RunRecord(
        run_id="run",
        started=NOW,
        ended=NOW,
        ended_how=ended_how,
        profile="standin",
        guest_label="stand-in",
        host=Host(kernel="6", cpus=2, memory_mib=1, os="Debian"),
        driver=Driver(name="xenvbd", version="0.0.3.1", sha256=PACKAGE, basename="m"),
        tests=tests,
    )


def judged(name, *tests, **more):
    run = record(*tests, **more)
    return judge_mutant(mutant(name), run, verdict(run), seconds=12.34, run="r-1")


KILLED = ended("b", Outcome.FAILED, Blame.DRIVER, "one sector\ntoo few")


def test_killed_by_the_first_test_that_blames_the_driver():
    outcome = judged(
        "m", ended("a"), KILLED, ended("c", Outcome.FAILED, Blame.DRIVER, "the next one")
    )
    assert outcome.fate is Fate.KILLED
    assert outcome.killed_by == "tests/drivers/test_x.py::b"
    assert outcome.blamed is Blame.DRIVER
    assert outcome.message == "one sector too few"
    assert (outcome.seconds, outcome.tests, outcome.run, outcome.package) == (
        12.3,
        3,
        "r-1",
        PACKAGE,
    )


def test_passing_suite_lets_it_survive():
    outcome = judged("m", ended("a"))
    assert (outcome.fate, outcome.killed_by, outcome.blamed) == (Fate.SURVIVED, None, None)
    assert outcome.message == ""


def test_failure_of_the_lab_kills_nothing():
    outcome = judged("m", ended("a", Outcome.ERROR, Blame.LAB, "dom0 is gone"))
    assert (outcome.fate, outcome.blamed) == (Fate.LAB, Blame.LAB)
    assert outcome.message == "dom0 is gone"


def test_failure_that_nobody_is_blamed_for_kills_nothing():
    outcome = judged("m", ended("a", Outcome.FAILED, Blame.UNDECIDED, "silence"))
    assert (outcome.fate, outcome.blamed) == (Fate.UNDECIDED, Blame.UNDECIDED)
    assert outcome.killed_by == "tests/drivers/test_x.py::a"


def test_run_that_did_not_end_kills_nothing():
    outcome = judged("m", ended("a"), ended_how=EndedHow.INTERRUPTED)
    assert (outcome.fate, outcome.killed_by) == (Fate.UNDECIDED, None)
    assert "interrupted" in outcome.message


def test_quick_tests_come_first_and_equals_keep_their_order():
    def entry(name, seconds):
        return Entry(id=name, area="", claim="", source="", expected_seconds=seconds, markers=())

    tests = [entry("slow", 90), entry("b", 10), entry("a", 10), entry("quick", 2)]
    assert soonest_first(tests) == ["quick", "b", "a", "slow"]


def test_tests_that_killed_others_come_sooner():
    def entry(name, seconds):
        where = f"tests/drivers/test_x.py::{name}"
        return Entry(id=where, area="", claim="", source="", expected_seconds=seconds, markers=())

    tests = [entry("a", 20), entry("b", 25), entry("long", 400)]
    order = [test.rpartition(":")[2] for test in soonest_first(tests, [judged("m", KILLED)])]
    assert order == ["b", "a", "long"]
    survived = judged("m", ended("b"))
    assert soonest_first(tests, [survived]) == soonest_first(tests)
    long = ended("long", Outcome.FAILED, Blame.DRIVER)
    kills = [judged(name, long) for name in "mno"]
    order = [test.rpartition(":")[2] for test in soonest_first(tests, kills)]
    assert order == ["a", "b", "long"], "three kills in 400 s are worth less than none in 20 s"


def test_digest_follows_names_and_contents(tmp_path):
    (tmp_path / "test_a.py").write_text("1")
    first = suite_digest(tmp_path)
    assert first == suite_digest(tmp_path)
    (tmp_path / "notes.md").write_text("no part of it")
    assert first == suite_digest(tmp_path)
    (tmp_path / "test_a.py").rename(tmp_path / "test_b.py")
    assert first != suite_digest(tmp_path)


class Runner:
    """A suite that does what it is told to."""

    def __init__(self, **fates):
        self.fates = fates
        self.ran = []

    def __call__(self, which, order):
        assert order == [test.id for test in SUITE]
        self.ran.append(which.name)
        told = self.fates.get(which.name, KILLED)
        if isinstance(told, BaseException):
            raise told
        return judged(which.name, told)


SUITE = [Entry(id="t::b", area="", claim="", source="", expected_seconds=9, markers=())]
EMPTY = MutantsDocument(suite="s1", intensity=Level.SMOKE, guest_label="stand-in")


def campaign(runner, names, tmp_path, **more):
    ticks = count()
    lines = []
    options = {"packages": [(name, PACKAGE) for name in names], **more}
    document = run_campaign(
        [mutant(name) for name in names],
        SUITE,
        runner,
        options.pop("document", EMPTY),
        tmp_path / "results" / "mutants.json",
        say=lines.append,
        clock=lambda: float(next(ticks)),
        **options,
    )
    return document, lines


def test_all_killed(tmp_path):
    document, lines = campaign(Runner(), ["a", "b"], tmp_path)
    assert document.exit_code == 0
    assert lines[0] == "[1/2] a: title of a"
    assert lines[-1] == "[2/2] b: killed by b after 12 s: one sector too few"
    written = json.loads((tmp_path / "results" / "mutants.json").read_text())
    assert [entry["name"] for entry in written["mutants"]] == ["a", "b"]
    assert written["mutants"][0]["killed_by"] == "tests/drivers/test_x.py::b"
    assert written["mutants"][0]["blamed"] == "driver"


@pytest.mark.parametrize(
    ("fates", "code"),
    [
        ({"a": ended("x")}, 1),
        ({"a": LabBroken("no disk")}, 3),
        ({"a": ended("x", Outcome.FAILED, Blame.LAB)}, 3),
        ({"a": ended("x", Outcome.FAILED, Blame.UNDECIDED)}, 3),
        ({"a": LabBroken("no disk"), "b": ended("x")}, 1),
    ],
)
def test_exit_codes(tmp_path, fates, code):
    runner = Runner(**fates)
    document, _ = campaign(runner, ["a", "b", "c"], tmp_path)
    assert document.exit_code == code
    assert runner.ran == ["a", "b", "c"]


def test_nothing_asked_is_no_success():
    assert EMPTY.exit_code == 3


def test_bad_input_ends_the_campaign(tmp_path):
    runner = Runner(a=UsageError("no test was run"))
    with pytest.raises(UsageError):
        campaign(runner, ["a", "b"], tmp_path)
    assert runner.ran == ["a"]


def test_resume_keeps_what_is_settled(tmp_path):
    first = Runner(b=LabBroken("no disk"), c=ended("x"), d=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        campaign(first, ["a", "b", "c", "d"], tmp_path)
    file = tmp_path / "results" / "mutants.json"
    second = Runner()
    document, lines = campaign(second, ["a", "b", "c", "d"], tmp_path, earlier=read_document(file))
    assert second.ran == ["b", "d"]
    assert lines[0].startswith("[1/4] a: known: killed")
    assert [entry.name for entry in document.mutants] == ["a", "b", "c", "d"]
    assert document.exit_code == 1


def test_kill_during_a_resumed_run_loses_nothing(tmp_path):
    campaign(Runner(), ["a", "b", "c"], tmp_path)
    file = tmp_path / "results" / "mutants.json"
    campaign(
        Runner(),
        ["b"],
        tmp_path,
        earlier=read_document(file),
        packages=[(name, PACKAGE) for name in "abc"],
    )
    assert {entry.name for entry in read_document(file).mutants} == {"a", "b", "c"}


@pytest.mark.parametrize(
    "change",
    [
        {"document": EMPTY.model_copy(update={"suite": "s2"})},
        {"document": EMPTY.model_copy(update={"intensity": Level.SOAK})},
        {"packages": [("a", "b" * 64)]},
    ],
    ids=["suite", "intensity", "package"],
)
def test_resume_does_not_trust_other_runs(tmp_path, change):
    campaign(Runner(), ["a"], tmp_path)
    earlier = read_document(tmp_path / "results" / "mutants.json")
    runner = Runner()
    campaign(runner, ["a"], tmp_path, earlier=earlier, **change)
    assert runner.ran == ["a"]


def test_unreadable_document_is_no_document(tmp_path):
    assert read_document(tmp_path / "none.json") is None
    (tmp_path / "torn.json").write_text('{"schema')
    assert read_document(tmp_path / "torn.json") is None
