"""From a report to a scenario, with drivers that are functions."""

from __future__ import annotations

import ast
import itertools
import json
import random
import shutil
import threading
import zipfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from lab.core.deadline import Deadline, NotYet, wait_for
from lab.core.errand import Ended
from lab.core.errors import Blame, LabBroken, UsageError
from lab.crash.facts import CrashFact, Frame
from lab.scenario.bundle import write_bundle
from lab.scenario.minimise import Seen
from lab.scenario.model import (
    Attach,
    Detach,
    Io,
    Repeat,
    Scenario,
    StartIo,
    Together,
    Wait,
    walk,
)
from lab.scenario.outcome import End, Outcome
from lab.scenario.pytest_file import attempts_for, cost, write_test
from lab.scenario.rate import rate
from lab.scenario.repro import Bench, Wanted, candidates, read_report, search
from lab.scenario.text import dumps
from lab.scenario.workers import Workers
from lab.suite.sequential import Tally

MAIL = """\
From: someone@example.org
Subject: blue screen on detach

Hi, the guest crashes with a blue screen whenever I detach the disk while copying:

STOP: 0x000000D1 (0x00000004, 0x00000002, 0x00000000, 0xF8A1B2C3) xenvbd.sys
"""

PANIC = CrashFact(
    "panic", module="xenvbd", frames=(Frame("xenvbd", "put_disk", 0x10), Frame(None, "work", 2))
)
OTHER = CrashFact("panic", module="xenvbd", frames=(Frame("xenvbd", "get_disk", 0x99),))


def crash(fact=PANIC, at="step 3, detach hdc"):
    return Outcome(End.CRASH, Blame.DRIVER, "the guest crashed", at, (fact,))


PASSED = Outcome(End.PASSED)
LAB = Outcome(End.LAB, Blame.LAB, "QEMU died")


def ops(scenario):
    return [step.op for _, step in walk(scenario.steps)]


def budget(runs):
    left = iter(range(runs))
    return lambda: next(left, None) is not None


@pytest.fixture
def report(tmp_path):
    def report(text=MAIL, name="mail.txt"):
        file = tmp_path / name
        file.write_text(text)
        return read_report(file, tmp_path)

    return report


def test_a_mail_says_what_to_look_for(report):
    found = report()
    assert found.facts[0].plain == 0xD1
    assert found.suspicions[0].trigger.name == "detach under I/O"
    assert Wanted.of_report(found).signatures[0].module == "xenvbd"
    assert any("likely: detach under I/O" in line for line in found.words)
    first = next(candidates(found))
    assert first.name == "trigger: detach under I/O"
    assert ops(first.scenario)[:4] == ["attach", "start_io", "jitter", "detach"]


def test_a_hang_without_a_signature_is_looked_for_as_a_hang(report):
    found = report("Hello, my guest hangs for ever when I detach a disk. I use GPLPV.\n")
    wanted = Wanted.of_report(found)
    assert not wanted.signatures
    assert wanted.compare(Outcome(End.HANG, Blame.DRIVER)).seen is Seen.SAME
    assert wanted.compare(crash()).seen is Seen.OTHER


def test_a_hang_is_known_by_what_does_not_end(report, tmp_path):
    held = CrashFact("hang", message="x", stuck="detach: backend Closing, frontend Connected")
    other = CrashFact("hang", message="x", stuck="requests")
    found = replace(report(), facts=(replace(held, module="xenvbd", message="of another day"),))
    wanted = Wanted.of_report(found)
    assert wanted.words == "hang of detach: backend Closing, frontend Connected, in xenvbd"
    for fact, seen in ((held, Seen.SAME), (other, Seen.OTHER), (PANIC, Seen.OTHER)):
        assert wanted.compare(Outcome(End.HANG, Blame.DRIVER, facts=(fact,))).seen is seen


@pytest.mark.parametrize("content", ["", "nothing in here\n", "\x00\x01\x02" * 99])
def test_what_says_nothing_is_refused(tmp_path, content):
    file = tmp_path / "report"
    file.write_text(content)
    with pytest.raises(UsageError) as caught:
        read_report(file, tmp_path)
    assert "nothing in it says what to reproduce" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_report_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        read_report(tmp_path / "none", tmp_path)


def test_scenarios_in_results_come_first(tmp_path):
    recorded = Scenario(steps=(Attach(disk="hdc", size=8), Detach(disk="hdc")))
    for name, outcome in (("passed", "passed"), ("failed", "crash: it crashed"), ("other", "")):
        folder = tmp_path / "run" / "tests" / name
        folder.mkdir(parents=True)
        (folder / "scenario.yaml").write_text(
            dumps(recorded.described(title=name, outcome=outcome))
        )
    found = read_report(tmp_path / "run", tmp_path)
    assert [one.scenario.about.title for one in found.recorded] == ["failed"]
    tried = list(itertools.islice(candidates(found), 40))
    assert tried[0].scenario.steps == recorded.steps
    again = [one for one in tried if one.name.startswith("recorded")]
    # As it was, twice, and then with other seeds.
    assert [one.scenario.seed for one in again][:3] == [1, 1, 3]


@pytest.fixture
def run_folder(tmp_path):
    """A run in which one of many tests failed, with the driver that it tested."""
    run = tmp_path / "results" / "run"
    failed = Scenario(steps=(Attach(disk="hdc", size=8), Detach(disk="hdc")))
    for number in range(300):
        folder = run / "tests" / f"t{number:03}"
        folder.mkdir(parents=True)
        outcome = "crash: it crashed" if number == 299 else "passed"
        described = failed.described(title=folder.name, outcome=outcome)
        (folder / "scenario.yaml").write_text(dumps(described))
        (folder / "evidence.json").write_text("{}")
    test = {
        "id": "tests/drivers/test_x.py::test_x",
        "outcome": "failed",
        "evidence": "tests/t299",
        "properties": {"pvlab.crash": "crashed during a write: panic (xenvbd:put_disk)"},
    }
    record = {"schema_version": 1, "run_id": "run", "tests": [test]}
    (run / "run.json").write_text(json.dumps(record))
    (run / "driver").mkdir()
    (run / "driver" / "xenvbd.inf").write_text("inf")
    (run / "driver" / "readme.txt").write_text("Detach the disk while copying and it hangs.")
    return run


def test_a_run_brings_its_scenario_and_its_driver(run_folder, tmp_path):
    for path in (run_folder, run_folder / "tests" / "t299", run_folder.parent):
        found = read_report(path, tmp_path)
        assert [one.scenario.about.title for one in found.recorded] == ["t299"]
        assert found.recorded[0].source == str(
            (run_folder / "tests/t299/scenario.yaml").relative_to(path)
        )
        assert found.driver is not None
        assert found.driver.resolve() == run_folder / "driver"
        # What the package says of itself is no account of what happened.
        signs = [sign for one in found.suspicions for sign in one.signs]
        assert not any("detach" in sign.lower() for sign in signs)


def test_a_folder_that_is_only_called_driver_is_read(tmp_path):
    (tmp_path / "sent" / "driver").mkdir(parents=True)
    (tmp_path / "sent" / "driver" / "note.txt").write_text(MAIL)
    found = read_report(tmp_path / "sent", tmp_path)
    assert found.driver is None
    assert found.suspicions[0].signs


def test_a_run_can_be_sent_as_an_archive(run_folder, tmp_path):
    file = Path(shutil.make_archive(str(tmp_path / "sent"), "zip", run_folder.parent))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    found = read_report(file, scratch)
    assert found.source == str(file)
    assert [one.scenario.about.title for one in found.recorded] == ["t299"]
    assert found.facts == read_report(run_folder.parent, scratch).facts
    assert found.driver is not None
    assert (found.driver / "xenvbd.inf").is_file()


def test_a_bundle_brings_its_crash_and_its_driver(tmp_path):
    file = tmp_path / "bundle.zip"
    write_bundle(file, Scenario(steps=(Attach(disk="hdc", size=8),)), facts=(PANIC,))
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("driver/xenvbd.inf", "inf")
    found = read_report(file, tmp_path)
    assert found.facts == (PANIC,)
    assert found.driver is not None
    assert Wanted.of_report(found).compare(crash()).seen is Seen.SAME
    assert Wanted.of_report(found).compare(crash(OTHER)).seen is Seen.OTHER


def test_zips_of_reports_are_looked_through(tmp_path):
    file = tmp_path / "sent.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("note.txt", MAIL)
    found = read_report(file, tmp_path)
    assert found.facts[0].plain == 0xD1
    assert found.suspicions[0].signs
    hostile = tmp_path / "hostile.zip"
    with zipfile.ZipFile(hostile, "w") as archive:
        archive.writestr("../note.txt", MAIL)
    with pytest.raises(UsageError):
        read_report(hostile, tmp_path)


@pytest.mark.parametrize("kind", ["bundle.zip", "mail.txt", "scenario.yaml"])
def test_damaged_reports_are_read_or_refused_in_a_line(tmp_path, kind):
    whole = tmp_path / kind
    if kind == "bundle.zip":
        write_bundle(whole, BUSY, facts=(PANIC,))
    else:
        whole.write_text(MAIL if kind == "mail.txt" else dumps(BUSY))
    data = whole.read_bytes()
    chance = random.Random(1)  # noqa: S311
    for number in range(120):
        damaged = bytearray(data)
        if number % 3:
            for _ in range(chance.choice((1, 3, 20))):
                damaged[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        else:
            del damaged[chance.randrange(len(data)) :]
        whole.write_bytes(damaged)
        try:
            read = read_report(whole, tmp_path)
        except UsageError as error:
            said = str(error)
        else:
            said = " ".join(read.words)
            assert next(candidates(read)).scenario.steps or read.recorded
        assert "\n" not in said


def dies_of_detach(scenario):
    return crash() if "detach" in ops(scenario) and "start_io" in ops(scenario) else PASSED


FACT_REPORT = "Hi, my guest crashes: xenvbd, when I detach the disk under I/O, blue screen\n"


@pytest.fixture
def panic_report(tmp_path):
    file = tmp_path / "bundle.zip"
    write_bundle(file, Scenario(steps=(Attach(disk="hdc", size=8),)), facts=(PANIC,))
    return read_report(file, tmp_path)


def test_what_is_found_is_run_again_for_its_rate(panic_report):
    lines = []
    found = search(panic_report, Bench(dies_of_detach), left=lambda: True, say=lines.append)
    assert found.found is not None
    assert found.tally == Tally(10, 10)
    assert found.words.startswith("reproduced after ")
    assert "10 of 10 (100 %, above 74.1 % at 95 %)" in found.words
    assert any("again 10 of 10" in line for line in lines)


@pytest.mark.parametrize(("enough", "made"), [(0, 3), (4, 7)])
def test_confirming_leaves_time_to_cut_down(panic_report, enough, made):
    lines = []

    def share(_part):
        # The clock of the share starts when the crash was found.
        assert lines
        return budget(enough)

    found = search(
        panic_report, Bench(dies_of_detach), left=lambda: True, say=lines.append, share=share
    )
    assert found.tally == Tally(made, made)


def test_a_flaky_driver_is_found(panic_report):
    luck = random.Random(3)  # noqa: S311

    def attempt(scenario):
        return dies_of_detach(scenario) if luck.random() < 0.2 else PASSED

    found = search(panic_report, Bench(attempt), left=lambda: True, confirm=60)
    assert found.found is not None
    assert found.rate().low < 0.2 < found.rate().high
    assert found.baseline.failures


def test_nothing_within_the_budget(panic_report):
    found = search(panic_report, Bench(lambda _: PASSED), left=budget(213))
    assert found.found is None
    assert found.words == "not reproduced: 0 of 214, below 1.4 % at 95 %"


def test_another_crash_is_not_the_one(panic_report):
    def attempt(scenario):
        return crash(OTHER) if "detach" in ops(scenario) else PASSED

    found = search(panic_report, Bench(attempt), left=budget(20))
    assert found.found is None
    assert found.different
    assert 0 < found.different[0].match.score < 0.8
    assert "different failures of the driver" in found.words
    scores = [one.match.score for one in found.different]
    assert scores == sorted(scores, reverse=True)


def test_the_lab_s_failures_do_not_count(panic_report):
    outcomes = itertools.cycle([LAB, LAB, PASSED])
    found = search(panic_report, Bench(lambda _: next(outcomes)), left=budget(9))
    assert found.attempts == 10
    with pytest.raises(LabBroken, match="3 times in a row: QEMU died"):
        search(panic_report, Bench(lambda _: LAB), left=lambda: True)


def by_steps(scenario):
    """What a driver does that is the same each time: it crashes, in one way or another."""
    if "reboot" in ops(scenario):
        return crash(OTHER)
    return dies_of_detach(scenario) if len(ops(scenario)) > 6 else PASSED


@pytest.mark.parametrize(
    ("driver", "enough"), [(by_steps, None), (dies_of_detach, None), (lambda _: PASSED, 30)]
)
def test_any_number_of_workers_finds_the_same(panic_report, driver, enough):
    found = []
    for count in (1, 4):
        lines, left = [], budget(enough) if enough else lambda: True
        with Workers(count) as workers:
            bench = Bench(driver, in_order=workers.in_order)
            result = search(panic_report, bench, left=left, say=lines.append)
        found.append((lines, result))
    assert found[0] == found[1]


def test_what_was_not_looked_at_counts_nowhere(panic_report):
    """Far more is run than is needed, and a later hit is there long before the first."""
    later = threading.Event()
    lock = threading.Lock()
    begun = itertools.count(1)

    def attempt(scenario):
        with lock:
            number = next(begun)
        if number == 1:
            assert later.wait(60)
        elif number == 4:
            later.set()
        return crash()

    with Workers(4) as workers:
        bench = Bench(attempt, in_order=workers.in_order)
        found = search(panic_report, bench, left=lambda: True, confirm=5)
    assert found.attempts == 1
    assert found.found == next(candidates(panic_report))
    assert found.tally == Tally(5, 5)


@pytest.mark.parametrize("count", [1, 4])
def test_the_budget_is_asked_before_each_attempt(panic_report, count):
    asked, made = [], []

    def left():
        asked.append(len(made))
        return len(asked) <= 20

    with Workers(count) as workers:
        bench = Bench(lambda one: made.append(one) or PASSED, in_order=workers.in_order)
        found = search(panic_report, bench, left=left)
    # The first is made in any case, and all that were begun were looked at.
    assert len(made) == 21
    assert len(asked) == 21
    assert found.attempts == 21


@pytest.mark.parametrize("count", [1, 4])
def test_an_attempt_that_the_lab_failed_in_is_made_again_in_its_place(panic_report, count):
    """Each scenario twice in vain, whatever runs beside it."""
    tries: dict[Scenario, int] = {}
    lock = threading.Lock()

    def attempt(scenario):
        with lock:
            tries[scenario] = tries.get(scenario, 0) + 1
            return LAB if tries[scenario] % 3 else dies_of_detach(scenario)

    lines = []
    with Workers(count) as workers:
        bench = Bench(attempt, lines.append, workers.in_order)
        scenarios = [one.scenario for one in itertools.islice(candidates(panic_report), 12)]
        scenarios = list(dict.fromkeys(scenarios))
        assert list(bench.outcomes(scenarios)) == [dies_of_detach(one) for one in scenarios]
    assert lines == ["the lab failed: QEMU died"] * 2 * len(scenarios)


@pytest.mark.parametrize("count", [2, 4])
def test_a_lab_that_fails_again_and_again_is_told_in_its_turn(panic_report, count):
    bad = list(itertools.islice(candidates(panic_report), 40))[-1].scenario

    def attempt(scenario):
        return LAB if scenario == bad else PASSED

    with Workers(count) as workers:
        bench = Bench(attempt, in_order=workers.in_order)
        outcomes = bench.outcomes([BUSY, BUSY, bad, BUSY])
        assert [next(outcomes), next(outcomes)] == [PASSED, PASSED]
        with pytest.raises(LabBroken, match="3 times in a row: QEMU died"):
            next(outcomes)


def test_an_attempt_that_was_ended_is_no_failure_of_the_lab():
    """Its machine was killed, and the lab would be blamed for that."""
    lines, going = [], threading.Barrier(3)

    def attempt(scenario):
        if scenario == BUSY:
            going.wait(60)
            return PASSED
        going.wait(60)
        try:
            wait_for("what never comes", never, Deadline(3600), interval=3600)
        except Ended:
            return LAB

    never_ends = BUSY.with_seed(9)
    with Workers(3) as workers:
        bench = Bench(attempt, lines.append, workers.in_order)
        with closing(bench.outcomes([BUSY, never_ends, never_ends])) as outcomes:
            assert next(outcomes) == PASSED
    assert lines == []


def never():
    raise NotYet("nothing")


def test_failures_without_a_crash_are_told_apart_by_their_end_and_step():
    wrong = Outcome(End.WRONG_DATA, Blame.DRIVER, "sector 5", "step 3, io hdc gen=2")
    wanted = Wanted.of_outcome(wrong)
    again = Outcome(End.WRONG_DATA, Blame.DRIVER, "sector 9", "step 7, io hdd")
    assert wanted.compare(again).seen is Seen.SAME
    elsewhere = Outcome(End.WRONG_DATA, Blame.DRIVER, "sector 9", "step 7, check hdd")
    assert wanted.compare(elsewhere).seen is Seen.OTHER
    assert wanted.compare(PASSED).seen is Seen.NOTHING
    assert Wanted().compare(wrong).seen is Seen.SAME
    undecided = Outcome(End.FAILED, Blame.UNDECIDED, "it took too long")
    assert Wanted().compare(undecided).seen is Seen.NOTHING


def test_what_follows_a_crash_is_no_sign_of_it():
    after = CrashFact("panic", message="Kernel panic - not syncing: VFS: no root")
    both = Outcome(End.CRASH, Blame.DRIVER, "crash", "", (PANIC, after))
    wanted = Wanted.of_outcome(both)
    assert len(wanted.signatures) == 1
    other = Outcome(End.CRASH, Blame.DRIVER, "crash", "", (OTHER, after))
    assert wanted.compare(other).seen is Seen.OTHER
    assert wanted.compare(both).seen is Seen.SAME


BUSY = Scenario(
    steps=(
        Attach(disk="hdc", size=8192),
        Repeat(times=3, steps=(Io(disk="hdc", count=2048), Wait(seconds=1.5))),
        Together(lanes=((Detach(disk="hdc"),), (Wait(seconds=1),))),
    )
).described(title='a "quoted" crash\\', origin="mail.txt")


def test_the_test_that_is_made_is_one(tmp_path):
    for shown in (rate(Tally(10, 10)), rate(Tally(40, 40)), rate(Tally(3, 20)), rate(Tally())):
        source = write_test(BUSY, shown)
        tree = ast.parse(source)
        assert any(isinstance(node, ast.FunctionDef) for node in tree.body)
        assert "def test_a_quoted_crash(replay):" in source
        flaky = bool(shown.attempts) and shown.low < 0.9
        assert ("pytest.mark.race" in source) is flaky
        scope = {}
        exec(compile(source, "test_repro.py", "exec"), scope)  # noqa: S102
        assert scope["SCENARIO"] == dumps(BUSY)


def test_what_a_scenario_costs():
    assert cost(BUSY) == {"attach": 1, "mib": 3, "command": 3, "seconds": 5.5, "detach": 1}
    assert attempts_for(0.2) == 14
    assert attempts_for(0.0) == 400
    assert attempts_for(1.0) == 2
    assert StartIo(disk="hdc").name == "hdc"
