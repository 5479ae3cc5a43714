"""The clocks of a place: one command of dom0's shell, and what follows from its answer."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from plugin_bench import by_name, evidence_of

from lab.core.deadline import Deadline
from lab.evidence.operations import (
    CLOCKS_NAME,
    DOM0_KERNEL,
    GUEST_KERNEL,
    OPERATIONS_NAME,
    load_clocks,
    load_operations,
)
from lab.plugin.clocks import LINE_SECONDS, parse, read_clocks

pytest_plugins = ["pytester"]

SAID = """now 1000.500000000
mark [  431.900000] pvlab: clock mark abc
written 990.250000000
last [  123.456789] Rebooting in 1 seconds..
"""


def test_readings_follow_from_what_dom0_says() -> None:
    clocks = parse(SAID, 5000.0, 5001.0)
    assert clocks.problems == ()
    shown = {one.clock: (one.shows, one.earliest, one.latest) for one in clocks.readings}
    # The guest's line was written 10.25 s before dom0 was asked.
    assert shown == {
        DOM0_KERNEL: (431.9, 5000.0, 5001.0),
        GUEST_KERNEL: (123.456789, 5000.0 - 10.25 - LINE_SECONDS, 5001.0 - 10.25),
    }


@pytest.mark.parametrize(
    ("line", "clock"),
    [
        ("mark [  431.900000] pvlab: clock mark abc", DOM0_KERNEL),
        ("now 1000.500000000", GUEST_KERNEL),
        ("written 990.250000000", GUEST_KERNEL),
        ("last [  123.456789] Rebooting in 1 seconds..", GUEST_KERNEL),
    ],
)
def test_what_is_missing_is_said(line: str, clock: str) -> None:
    clocks = parse(SAID.replace(line, ""), 5000.0, 5001.0)
    assert clocks.problems == (f"{clock}: not to be had",)
    assert len(clocks.readings) == 1


@pytest.mark.parametrize("last", ["pvlab: winrm ready", "STOP: 0x0000007B", "", "[x] y"])
def test_a_guest_that_prints_no_times_gives_no_reading(last: str) -> None:
    said = SAID.replace("[  123.456789] Rebooting in 1 seconds..", last)
    assert GUEST_KERNEL in parse(said, 5000.0, 5001.0).problems[0]


def test_a_clock_that_went_back_gives_no_reading() -> None:
    assert parse(SAID, 5001.0, 5000.0).readings == ()


class Shell:
    """dom0's shell is this machine's, with a kernel log and a serial log of the test's."""

    def __init__(self, folder: Path, serial: str) -> None:
        self.serial = folder / "guest serial.log"
        self.serial.write_bytes(serial.encode())
        os.utime(self.serial, (time.time() - 30, time.time() - 30))
        self.kmsg = folder / "kmsg"
        self._programs = folder / "programs"
        self._programs.mkdir()
        dmesg = self._programs / "dmesg"
        dmesg.write_text(f"#!/bin/sh\nsed 's/^<7>/[  431.900000] /' '{self.kmsg}'\n")
        dmesg.chmod(0o755)

    def run(self, command: str, deadline: Deadline) -> Any:
        path = f"{self._programs}:{os.environ['PATH']}"
        done = subprocess.run(
            ["sh", "-c", command.replace("/dev/kmsg", str(self.kmsg))],
            env={"PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stderr == ""
        return SimpleNamespace(stdout=done.stdout)


def test_the_script_does_what_it_should_in_a_shell(tmp_path: Path) -> None:
    shell = Shell(tmp_path, "[   12.000000] one\r\n[   13.500000] a $(false) 'line'\r\n\r\n")
    place: Any = SimpleNamespace(dom0=shell, access=SimpleNamespace(serial_log=str(shell.serial)))
    before = time.time()
    clocks = read_clocks(place, Deadline(60))
    after = time.time()
    assert clocks.problems == ()
    shown = {one.clock: one for one in clocks.readings}
    assert shown[DOM0_KERNEL].shows == 431.9
    assert before <= shown[DOM0_KERNEL].earliest <= shown[DOM0_KERNEL].latest <= after
    guest = shown[GUEST_KERNEL]
    assert guest.shows == 13.5
    assert guest.latest == pytest.approx(before - 30, abs=after - before + 1)
    assert "clock mark" in shell.kmsg.read_text()


def test_a_missing_serial_log_costs_its_own_reading_alone(tmp_path: Path) -> None:
    shell = Shell(tmp_path, "")
    place: Any = SimpleNamespace(dom0=shell, access=SimpleNamespace(serial_log=str(shell.serial)))
    assert read_clocks(place, Deadline(60)).problems == (f"{GUEST_KERNEL}: not to be had",)


TESTS = """
from lab.core.errors import DriverFailure

def test_good(installed_driver, jitter):
    jitter.number("there", 1, 9)

def test_bad(installed_driver, jitter):
    jitter.point("here", up_to=0.001)
    raise DriverFailure("no")
"""


def test_a_failure_keeps_its_times(bench: Any) -> None:
    run = bench(TESTS)
    folder = run.folder / by_name(run)["test_bad"]["evidence"]
    operations = load_operations(folder / OPERATIONS_NAME)
    (one,) = [one for one in operations.operations if one.name == "Jitter.point"]
    assert one.words == "Jitter.point here 0.001"
    assert 0.0 <= one.started <= one.ended
    assert operations.zero <= operations.kept
    # The bench's dom0 says nothing of use, and that is kept.
    assert len(load_clocks(folder / CLOCKS_NAME).problems) == 2
    assert OPERATIONS_NAME not in evidence_of(run, "test_good")
