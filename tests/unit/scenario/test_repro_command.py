"""``pvlab repro``, with a driver that is a function."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer

import lab.scenario.stand
from lab.cli import repro as module
from lab.cli.errors import run_guarded
from lab.cli.repro import duration, repro
from lab.core.deadline import Deadline, NotYet, wait_for
from lab.core.errand import Ended
from lab.core.errors import Blame, UsageError
from lab.crash.facts import CrashFact, Frame
from lab.scenario.bundle import load_any, write_bundle
from lab.scenario.model import Attach, Detach, Io, Reboot, Repeat, Scenario, walk
from lab.scenario.outcome import End, Outcome
from lab.scenario.text import dumps

PANIC = CrashFact("panic", module="xenvbd", frames=(Frame("xenvbd", "put_disk", 0x10),))
PASSED = Outcome(End.PASSED)

SCENARIO = Scenario(
    steps=(
        Attach(disk="hdc", size=8192),
        Repeat(times=5, steps=(Io(disk="hdc", threads=8), Detach(disk="hdc"), Attach(disk="hdc"))),
        Reboot(),
    )
)

app = typer.Typer()
app.command()(repro)


def pvlab(*words):
    return run_guarded(
        lambda: app(args=list(map(str, words)), prog_name="pvlab repro", standalone_mode=False)
    )


@pytest.fixture
def driver(monkeypatch, tmp_path):
    """A driver that crashes of what it is told to."""
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "xenvbd.inf").write_text("inf")
    made = SimpleNamespace(
        crashes=lambda scenario: any(isinstance(s, Detach) for _, s in walk(scenario.steps)),
        fact=PANIC,
        package=SimpleNamespace(
            folder=folder,
            files=[(folder / "xenvbd.inf").relative_to(folder)],
            name="xenvbd",
            version="0.0.3",
            identity="ab" * 32,
        ),
    )

    def attempt(scenario):
        if not made.crashes(scenario):
            return PASSED
        at = f"step {len(scenario.steps)}, detach hdc"
        return Outcome(End.CRASH, Blame.DRIVER, "it crashed", at, (made.fact,))

    made.attempt = attempt
    made.described = lambda scenario, **about: scenario.described(driver_sha256="ab" * 32, **about)

    @contextlib.contextmanager
    def open_stand(profile, driver, *, accel, say):
        made.opened = driver
        yield made

    monkeypatch.setattr(lab.scenario.stand, "open_stand", open_stand)
    return made


@pytest.fixture
def report(tmp_path):
    file = tmp_path / "report.zip"
    write_bundle(file, SCENARIO, facts=(PANIC,))
    return file


def test_reproduced_and_cut_down(driver, report, tmp_path, capsys):
    out = tmp_path / "out"
    assert pvlab(report, "--driver", "d", "-o", out, "--json", tmp_path / "r.json") == 0
    shown = capsys.readouterr().out
    assert "reproduced after 1 attempt, then in 10 of 10" in shown
    assert "100% like the report" in shown
    assert "validated" in shown
    loaded = load_any(out / "bundle.zip", tmp_path)
    assert [step.op for step in loaded.scenario.steps] == ["attach", "detach"]
    assert loaded.facts == (PANIC,)
    assert loaded.driver is not None
    assert loaded.scenario.about.origin.startswith("report.zip, recorded: ")
    # Of the scenario that is told of, not of the one that it was cut from.
    assert loaded.scenario.about.outcome == "crash at step 2, detach hdc: it crashed"
    assert load_any(out, tmp_path).scenario == loaded.scenario
    assert "def test_crash_at_detach_hdc(replay)" in (out / "test_repro.py").read_text()
    document = json.loads((tmp_path / "r.json").read_text())
    assert document["reproduced"]
    assert document["minimal"]["validated"]
    assert document["minimal"]["steps"][1] == {"detach": "hdc"}


def test_not_reproduced_is_exit_1(driver, report, tmp_path, capsys):
    driver.crashes = lambda scenario: False
    assert pvlab(report, "--driver", "d", "--budget", "0.05s", "--json", "-") == 1
    document = json.loads(capsys.readouterr().out)
    assert not document["reproduced"]
    assert document["attempts"] >= 1
    assert document["rate"]["failures"] == 0
    assert document["folder"] is None


def test_a_different_crash_is_shown_and_not_taken(driver, report, tmp_path, capsys):
    driver.fact = CrashFact("panic", module="xenhide", frames=(Frame("xenhide", "other", 1),))
    assert pvlab(report, "--driver", "d", "--budget", "0.05s") == 1
    shown = capsys.readouterr().out
    assert "not reproduced" in shown
    assert "times: panic in xenhide, at xenhide!other" in shown


def test_without_minimising(driver, report, tmp_path, capsys):
    out = tmp_path / "out"
    assert pvlab(report, "--driver", "d", "-o", out, "--no-minimise") == 0
    assert load_any(out, tmp_path).scenario.steps == SCENARIO.steps


def test_bad_input_is_exit_2(driver, report, tmp_path, capsys):
    empty = tmp_path / "empty"
    empty.write_text("")
    assert pvlab(empty, "--driver", "d") == 2
    assert pvlab(tmp_path / "none", "--driver", "d") == 2
    assert pvlab(report, "--driver", "d", "--budget", "soon") == 2
    plain = tmp_path / "plain.zip"
    write_bundle(plain, SCENARIO, facts=(PANIC,))
    assert pvlab(plain) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 4
    assert "no driver package" in error


def test_the_driver_that_the_run_kept_is_tried(driver, tmp_path):
    run = tmp_path / "run"
    test = {"id": "t", "outcome": "failed", "evidence": "tests/t", "properties": {}}
    test["properties"] = {"pvlab.crash": "crashed during detach: Kernel panic (xenvbd:put_disk)"}
    (run / "tests" / "t").mkdir(parents=True)
    record = {"schema_version": 1, "run_id": "run", "tests": [test]}
    (run / "run.json").write_text(json.dumps(record))
    failed = SCENARIO.described(outcome="crash: it crashed")
    (run / "tests" / "t" / "scenario.yaml").write_text(dumps(failed))
    assert pvlab(run) == 2
    (run / "driver").mkdir()
    driver.fact = CrashFact("panic", module="xenvbd", message="Kernel panic (xenvbd:put_disk)")
    assert pvlab(run, "-o", tmp_path / "out") == 0
    assert driver.opened == run / "driver"
    assert pvlab(run, "--driver", "d", "-o", tmp_path / "out") == 0
    assert driver.opened == Path("d")


def test_a_broken_lab_is_exit_3(driver, report, capsys):
    driver.attempt = lambda scenario: Outcome(End.LAB, Blame.LAB, "QEMU died")
    assert pvlab(report, "--driver", "d") == 3
    assert "3 times in a row" in capsys.readouterr().err


@pytest.mark.parametrize("count", [1, 3])
def test_workers(driver, report, tmp_path, count):
    attempt, threads = driver.attempt, set()

    def noted(scenario):
        threads.add(threading.current_thread())
        return attempt(scenario)

    driver.attempt = noted
    result = tmp_path / "r.json"
    assert pvlab(report, "--driver", "d", "-o", tmp_path / "o", "-n", count, "--json", result) == 0
    document = json.loads(result.read_text())
    assert document["workers"] == count
    assert (document["attempts"], document["rate"]["attempts"]) == (1, 10)
    assert [list(step) for step in document["minimal"]["steps"]] == [["attach"], ["detach"]]
    # One works as if there were none.
    assert (threads == {threading.main_thread()}) is (count == 1)


def test_as_many_workers_as_fit(driver, report, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "available_mib", lambda: 2000)
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda pid: set(range(8)))
    driver.crashes = lambda scenario: False
    assert pvlab(report, "--driver", "d", "--budget", "0.05s", "--json", "-") == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["workers"] == 3
    assert "attempts at the same time: 3" in captured.err
    assert pvlab(report, "--driver", "d", "-n", 4) == 2
    assert pvlab(report, "--driver", "d", "-n", 0) == 2
    assert "-n 3 fits" in capsys.readouterr().err


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_all_attempts(driver, report, capsys, count, number):
    begun, ended = threading.Semaphore(0), []
    lock = threading.Lock()

    def attempt(scenario):
        begun.release()
        try:
            wait_for("what never comes", never, Deadline(3600), interval=0.01)
        except BaseException as error:
            with lock:
                ended.append(type(error))
            raise

    def kill():
        for _ in range(count):
            assert begun.acquire(timeout=60)
        os.kill(os.getpid(), number)

    driver.attempt = attempt
    # As in a program that nobody told to ignore them.
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.SIGHUP: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    }
    killer = threading.Thread(target=kill)
    killer.start()
    try:
        assert pvlab(report, "--driver", "d", "-n", count) == 130
    finally:
        killer.join(60)
        for one, handler in before.items():
            signal.signal(one, handler)
    assert ended == ([KeyboardInterrupt] if count == 1 else [Ended] * count)
    assert not [one for one in threading.enumerate() if one.name == "attempt"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert "interrupted" in capsys.readouterr().err


def never():
    raise NotYet("nothing")


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("1.5h", 5400), ("1h30m", 5400)]
)
def test_lengths_of_time(text, seconds):
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "30", "30 m", "-3m", "0s", "9999999h", "1x"])
def test_what_is_no_length_of_time(text):
    with pytest.raises(UsageError):
        duration(text)
