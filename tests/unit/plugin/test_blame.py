from __future__ import annotations

from dataclasses import dataclass

import pytest

from lab.core.errors import (
    Blame,
    DeadlineExpired,
    DriverFailure,
    GuestCrashed,
    LabBroken,
    UsageError,
)
from lab.plugin.attempt import ASSERTIONS
from lab.suite.blame import decide


@dataclass(frozen=True)
class Health:
    ok: bool
    cause: str = ""


HEALTHY = Health(True)
BROKEN = Health(False, "QEMU (pid 4711) died of signal 9")
CRASH = GuestCrashed("the guest crashed while a disk was being attached")
NO_ERROR = None


@pytest.mark.parametrize(
    ("error", "health", "crash", "driver_test", "blame", "reason"),
    [
        (AssertionError("0 disks"), BROKEN, None, True, Blame.LAB, "QEMU (pid 4711) died"),
        (DriverFailure("no state 4"), BROKEN, None, True, Blame.LAB, "QEMU (pid 4711) died"),
        (CRASH, BROKEN, CRASH, True, Blame.LAB, "QEMU (pid 4711) died"),
        (LabBroken("ssh lost"), BROKEN, None, True, Blame.LAB, "QEMU (pid 4711) died"),
        (CRASH, HEALTHY, None, True, Blame.DRIVER, "crashed while a disk"),
        (AssertionError("x"), HEALTHY, CRASH, True, Blame.DRIVER, "crashed while a disk"),
        (DeadlineExpired("x", "y", 1), HEALTHY, CRASH, True, Blame.DRIVER, "crashed while"),
        (CRASH, HEALTHY, None, False, Blame.LAB, "no driver under test was in the guest"),
        (LabBroken("hotplug failed"), HEALTHY, None, True, Blame.LAB, "hotplug failed"),
        (UsageError("no such file"), HEALTHY, None, True, Blame.LAB, "no such file"),
        (DriverFailure("no state 4"), HEALTHY, None, True, Blame.DRIVER, "no state 4"),
        (DeadlineExpired("a disk", "none", 2), HEALTHY, None, True, Blame.UNDECIDED, "a disk"),
        (AssertionError("\n  0 disks\nassert 0"), HEALTHY, None, True, Blame.DRIVER, "0 disks"),
        (AssertionError(), HEALTHY, None, True, Blame.DRIVER, "does not hold"),
        (AssertionError("no vg"), HEALTHY, None, False, Blame.LAB, "no vg"),
        (pytest.fail.Exception("wrong"), HEALTHY, None, True, Blame.DRIVER, "wrong"),
        (KeyError("serial"), HEALTHY, None, True, Blame.LAB, "unexpected KeyError: 'serial'"),
        (KeyError("serial"), None, None, True, Blame.LAB, "unexpected KeyError"),
        (LabBroken("no clone"), None, None, True, Blame.LAB, "no clone"),
        (NO_ERROR, HEALTHY, None, True, Blame.UNDECIDED, "expected to fail, and passed"),
    ],
)
def test_decide(error, health, crash, driver_test, blame, reason):
    verdict = decide(
        error, health=health, crash=crash, driver_test=driver_test, assertions=ASSERTIONS
    )
    assert verdict.blame is blame
    assert reason in verdict.reason
    assert "\n" not in verdict.reason


def test_first_error_of_a_group_decides():
    group = ExceptionGroup(
        "teardown", [ExceptionGroup("inner", [DriverFailure("first")]), LabBroken("second")]
    )
    verdict = decide(group, health=HEALTHY, crash=None, driver_test=True)
    assert (verdict.blame, verdict.reason) == (Blame.DRIVER, "first")


def test_a_crash_anywhere_in_a_group_is_found():
    group = ExceptionGroup("teardown", [LabBroken("late"), CRASH])
    verdict = decide(group, health=HEALTHY, crash=None, driver_test=True)
    assert verdict.blame is Blame.DRIVER


def test_verdict_reads_as_blame_and_reason():
    verdict = decide(LabBroken("no clone"), health=None, crash=None, driver_test=True)
    assert str(verdict) == "LAB: no clone"
