from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lab.cli.options import split_tests
from lab.cli.suite import SuiteRequest, SuiteResult, driver_suite, run_suite
from lab.core.deadline import Deadline, NotYet, wait_for
from lab.core.errors import LabBroken, UsageError
from lab.core.paths import repo_root


@pytest.mark.parametrize(
    ("words", "tests", "extra"),
    [
        ([], [], []),
        (["tests/a.py"], ["tests/a.py"], []),
        (["a.py", "--pdb", "-p", "no:x"], ["a.py"], ["--pdb", "-p", "no:x"]),
        (["-x"], [], ["-x"]),
    ],
)
def test_split_tests(words, tests, extra):
    assert split_tests(words) == (tests, extra)


def test_default_is_the_driver_suite():
    command = SuiteRequest().command("r1")
    assert command[-1] == str(driver_suite())
    assert driver_suite().is_dir()
    assert "--pvlab-run-id=r1" in command
    assert not [word for word in command if "driver=" in word or "maxfail" in word]


def test_everything_asked_for_reaches_pytest(tmp_path):
    command = SuiteRequest(
        driver=tmp_path / "d.zip",
        profile="p",
        config=tmp_path / "lab.toml",
        accel="tcg-pv",
        tests=["a.py::test_b"],
        keyword="attach and not slow",
        stop_at_first=True,
        extra=["-x"],
        results=tmp_path,
    ).command("r1")
    for word in (
        f"--pvlab-driver={tmp_path}/d.zip",
        "--pvlab-profile=p",
        f"--pvlab-config={tmp_path}/lab.toml",
        "--pvlab-accel=tcg-pv",
        f"--pvlab-results={tmp_path}",
        "--maxfail=1",
    ):
        assert word in command
    assert command[command.index("-k") + 1] == "attach and not slow"
    assert command[-2:] == ["-x", "a.py::test_b"]


class Child(SuiteRequest):
    """A request whose child is a line of Python."""

    source = ""

    def command(self, run_id):
        return [sys.executable, "-c", self.source, str(self.results / run_id)]


def child(tmp_path, source):
    request = Child(results=tmp_path)
    object.__setattr__(request, "source", source)
    return request


WRITE = (
    "import pathlib,sys; f=pathlib.Path(sys.argv[1]); f.mkdir(); (f/'run.json').write_text('{}');"
)


def test_result_names_the_run_s_files(tmp_path):
    result = run_suite(child(tmp_path, WRITE + "sys.exit(1)"), label="good")
    assert isinstance(result, SuiteResult)
    assert result.exit_code == 1
    assert result.folder.parent == tmp_path
    assert result.folder.name.endswith("-good")
    assert result.report == result.folder / "report.html"


@pytest.mark.parametrize("code", [4, 5])
def test_pytest_refusing_its_arguments_is_bad_input(tmp_path, code):
    with pytest.raises(UsageError):
        run_suite(child(tmp_path, f"raise SystemExit({code})"))


def test_no_record_is_the_lab_s_fault(tmp_path):
    with pytest.raises(LabBroken, match="left no record"):
        run_suite(child(tmp_path, "raise SystemExit(3)"))


@pytest.mark.parametrize(
    ("signum", "ignored"),
    [
        (signal.SIGINT, None),
        (signal.SIGTERM, None),
        (signal.SIGHUP, None),
        # In the background of a shell.
        (signal.SIGTERM, signal.SIGINT),
    ],
)
def test_signals_interrupt_the_child_and_wait_for_it(tmp_path, signum, ignored):
    ready, done = tmp_path / "ready", tmp_path / "done"
    source = f"""
import pathlib, signal
try:
    pathlib.Path({str(ready)!r}).touch()
    signal.pause()
except KeyboardInterrupt:
    pathlib.Path({str(done)!r}).touch()
    raise SystemExit(2)
"""
    parent = f"""
import signal, sys
# These tests may themselves run behind a nohup, or in the background.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
if {ignored is not None}:
    signal.signal({int(ignored or 0)}, signal.SIG_IGN)
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_suite_request import child
from pathlib import Path
from lab.cli.errors import run_guarded
from lab.cli.suite import run_suite
sys.exit(run_guarded(lambda: run_suite(child(Path({str(tmp_path)!r}), {source!r}))))
"""

    def started():
        if not ready.exists():
            raise NotYet("not started")

    environment = {**os.environ, "PYTHONPATH": str(repo_root())}
    with subprocess.Popen([sys.executable, "-c", parent], env=environment) as process:
        try:
            wait_for("the child", started, Deadline(60))
            process.send_signal(signum)
            assert process.wait(60) == 130
        finally:
            process.kill()
    assert done.exists()
