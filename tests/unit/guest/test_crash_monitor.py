from __future__ import annotations

from collections.abc import Mapping

import pytest
from wsman import WsmanServer

from lab.core.deadline import Deadline
from lab.core.errors import DeadlineExpired, DriverFailure, GuestCrashed, LabBroken
from lab.guest.channel import Channel
from lab.guest.crash import CrashKind, CrashMonitor
from lab.guest.errors import GuestSilent
from lab.guest.guest import Guest
from lab.xen.domain import Domain

PATTERNS = (r"Kernel panic - not syncing", r"\*\*\* Fatal System Error")
PANIC = (
    "[   12.0] xen-blkfront: probing\r\n"
    "\x1b[1m[   12.3] Kernel panic - not syncing: pvlab seeded defect\x1b[0m\r\n"
    "[   12.3] Call Trace:\r\n[   12.3]  dump_stack+0x1\r\n"
)


class Toolstack:
    def __init__(self) -> None:
        self.domain: Domain | None = Domain("virtdemo", 3, 192, 1, "-b----", 1.0)
        self.asked = 0

    def find(self, domain: str, deadline: Deadline) -> Domain | None:
        assert domain == "virtdemo"
        self.asked += 1
        assert not deadline.expired
        return self.domain

    def becomes(self, state: str, domid: int = 3) -> None:
        self.domain = Domain("virtdemo", domid, 192, 1, state, 1.0)


class Serial:
    text = "booting\r\nKernel panic - not syncing: of an earlier test\r\n"

    def __call__(self, deadline: Deadline) -> str:
        return self.text


@pytest.fixture
def toolstack() -> Toolstack:
    return Toolstack()


@pytest.fixture
def serial() -> Serial:
    return Serial()


@pytest.fixture
def monitor(
    toolstack: Toolstack, serial: Serial, channel: Channel, deadline: Deadline
) -> CrashMonitor:
    def vbds(deadline: Deadline) -> Mapping[str, str]:
        return {"hdc": "frontend Initialising, backend InitWait"}

    monitor = CrashMonitor(
        toolstack, "virtdemo", channel, serial, PATTERNS,
        vbd_states=vbds, silence_s=0.3, grace_s=2.0,
    )  # fmt: skip
    channel.wait_ready(deadline)
    monitor.mark(deadline)
    toolstack.asked = 0
    return monitor


def silence(server: WsmanServer) -> None:
    server.break_on, server.breakage = "Command", "drop"


def test_a_healthy_guest_costs_no_listing(
    monitor: CrashMonitor, toolstack: Toolstack, deadline: Deadline
) -> None:
    assert monitor.check(deadline) is None
    assert toolstack.asked == 0


def test_a_panic_on_the_serial_port(
    monitor: CrashMonitor, serial: Serial, server: WsmanServer, deadline: Deadline
) -> None:
    requests = len(server.actions)
    serial.text += PANIC
    report = monitor.check(deadline)
    assert report is not None
    assert report.kind is CrashKind.SERIAL
    assert report.summary == "[   12.3] Kernel panic - not syncing: pvlab seeded defect"
    assert report.evidence[0] == "[   12.0] xen-blkfront: probing"
    assert report.evidence[-1] == "[   12.3]  dump_stack+0x1"
    assert len(server.actions) == requests


def test_a_log_started_anew_is_all_new(
    monitor: CrashMonitor, serial: Serial, deadline: Deadline
) -> None:
    serial.text = "*** Fatal System Error: 0x000000d1\r\n"
    report = monitor.check(deadline)
    assert report is not None
    assert "0x000000d1" in report.summary


def test_a_new_domain_s_log_is_all_new_though_it_is_longer(
    monitor: CrashMonitor, serial: Serial, deadline: Deadline
) -> None:
    before = len(serial.text)
    serial.text = PANIC + "more\n" * before
    monitor.log_anew()
    report = monitor.check(deadline)
    assert report is not None
    assert "Kernel panic" in report.summary


def test_dom0_is_asked_though_the_silence_took_all_the_time(
    monitor: CrashMonitor, toolstack: Toolstack, server: WsmanServer
) -> None:
    silence(server)
    toolstack.becomes("-b----")
    report = monitor.check(Deadline(0.1))
    assert report is not None
    assert report.kind is CrashKind.SILENT


@pytest.mark.parametrize(
    ("state", "domid", "kind"),
    [
        ("---sr-", 3, CrashKind.STOPPED),
        ("----c-", 3, CrashKind.STOPPED),
        ("-----d", 3, CrashKind.STOPPED),
        ("-b----", 4, CrashKind.REBOOTED),
        ("-b----", 3, CrashKind.SILENT),
        ("r-----", 3, CrashKind.SILENT),
    ],
)
def test_domain_states(
    monitor: CrashMonitor,
    toolstack: Toolstack,
    server: WsmanServer,
    deadline: Deadline,
    state: str,
    domid: int,
    kind: CrashKind,
) -> None:
    silence(server)
    toolstack.becomes(state, domid)
    report = monitor.check(deadline)
    assert report is not None
    assert report.kind is kind
    if kind is CrashKind.SILENT:
        assert "vbd hdc: frontend Initialising, backend InitWait" in report.evidence


def test_a_domain_that_is_gone(
    monitor: CrashMonitor, toolstack: Toolstack, server: WsmanServer, deadline: Deadline
) -> None:
    silence(server)
    toolstack.domain = None
    report = monitor.check(deadline)
    assert report is not None
    assert report.kind is CrashKind.GONE


@pytest.mark.parametrize(
    ("state", "blames"), [("-b----", True), ("r-----", True), ("--p---", False), ("---sr-", False)]
)
def test_a_way_that_is_cut_is_not_the_guest_s_silence(
    toolstack: Toolstack,
    serial: Serial,
    channel: Channel,
    server: WsmanServer,
    deadline: Deadline,
    state: str,
    blames: bool,
) -> None:
    monitor = CrashMonitor(
        toolstack, "virtdemo", channel, serial, PATTERNS,
        cut_off=lambda deadline: "the way is cut", silence_s=0.3, grace_s=2.0,
    )  # fmt: skip
    channel.wait_ready(deadline)
    monitor.mark(deadline)
    silence(server)
    toolstack.becomes(state)
    if not blames:
        monitor.check(deadline)
        return
    with pytest.raises(LabBroken, match="the way is cut"):
        monitor.check(deadline)
    # The guard passes it on in place of the silence.
    silent = GuestSilent("virtdemo", "an answer", "nothing")
    with pytest.raises(LabBroken, match="the way is cut"), monitor.guard("attach", deadline):
        raise silent


def test_a_paused_guest_is_no_crash(
    monitor: CrashMonitor, toolstack: Toolstack, server: WsmanServer, deadline: Deadline
) -> None:
    silence(server)
    toolstack.becomes("--p---")
    assert monitor.check(deadline) is None


def test_a_quick_reboot_is_seen_through_the_lost_shell(
    monitor: CrashMonitor, toolstack: Toolstack, server: WsmanServer, deadline: Deadline
) -> None:
    server.reboot()
    toolstack.becomes("-b----", 4)
    report = monitor.check(deadline)
    assert report is not None
    assert report.kind is CrashKind.REBOOTED


def test_a_shell_that_timed_out_is_no_crash(
    monitor: CrashMonitor, server: WsmanServer, deadline: Deadline
) -> None:
    server.reboot()
    assert monitor.check(deadline) is None


@pytest.mark.parametrize(
    "failure",
    [
        GuestSilent("virtdemo", "an answer", "nothing"),
        DriverFailure("frontend stayed Initialising"),
        DeadlineExpired("both ends to connect", "state 1", 5.0),
    ],
)
def test_guard_names_the_crash(
    monitor: CrashMonitor, serial: Serial, deadline: Deadline, failure: Exception
) -> None:
    def attach() -> None:
        serial.text += PANIC
        raise failure

    with (
        pytest.raises(GuestCrashed, match=r"virtdemo crashed during block-attach: .*panic") as e,
        monitor.guard("block-attach", deadline),
    ):
        attach()
    assert e.value.__cause__ is failure
    assert e.value.evidence[-1] == f"seen first: {failure}"


@pytest.mark.parametrize("failure", [DriverFailure("wrong data"), LabBroken("dom0 is gone")])
def test_guard_leaves_other_failures_alone(
    monitor: CrashMonitor, deadline: Deadline, failure: Exception
) -> None:
    with pytest.raises(type(failure)) as caught, monitor.guard("reading", deadline):
        raise failure
    assert caught.value is failure


def test_guard_after_the_deadline_still_looks(monitor: CrashMonitor, serial: Serial) -> None:
    expired = Deadline(0)
    serial.text += PANIC
    with pytest.raises(GuestCrashed), monitor.guard("block-attach", expired):
        raise expired.expire("both ends to connect", "state 1")


def test_guard_waits_for_the_end_of_the_trace(
    monitor: CrashMonitor, serial: Serial, deadline: Deadline, monkeypatch: pytest.MonkeyPatch
) -> None:
    serial.text += PANIC
    rest = iter([" frame_1\r\n", " frame_2\r\n", " ---[ end ]---\r\n"])

    def growing(deadline: Deadline) -> str:
        serial.text += next(rest, "")
        return serial.text

    monkeypatch.setattr(monitor, "_serial_log", growing)
    with pytest.raises(GuestCrashed) as caught, monitor.guard("attach", deadline):
        raise DriverFailure("no disk")
    assert "---[ end ]---" in caught.value.evidence


def test_guard_without_a_failure_does_nothing(
    monitor: CrashMonitor, toolstack: Toolstack, server: WsmanServer, deadline: Deadline
) -> None:
    before = len(server.actions)
    with monitor.guard("nothing", deadline):
        pass
    assert (toolstack.asked, len(server.actions)) == (0, before)


def test_a_guest_has_all_its_nouns(
    monitor: CrashMonitor, channel: Channel, deadline: Deadline
) -> None:
    guest = Guest("virtdemo", channel, monitor)
    guest.files.put_bytes(b"x", r"C:\pvlab\x", deadline)
    assert guest.files.read_text(r"C:\pvlab\x", deadline) == "x"
    guest.close()
