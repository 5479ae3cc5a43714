from __future__ import annotations

from types import SimpleNamespace

import pytest
from plugin_fakes import Crash

from lab.core.deadline import Deadline
from lab.core.errors import DeadlineExpired, DriverFailure, GuestCrashed, UsageError
from lab.guest.crash import CrashKind, CrashReport
from lab.suite import devices
from lab.suite.devices import BlockDevices


def disk(number):
    return SimpleNamespace(number=number)


class Guest:
    """A guest that lists a new disk for each attach, unless it is told not to."""

    def __init__(self):
        self.numbers = [0]
        self.crash = Crash()
        self.disks = self
        self.shows = True
        self.lists = 0

    def list(self, deadline, *, rescan):
        self.lists += 1
        return tuple(disk(number) for number in self.numbers)

    def wait_for_disks(self, wanted, deadline):
        if self.shows:
            self.numbers.append(max(self.numbers) + 1)
        now = tuple(disk(number) for number in self.numbers)
        if not wanted(now):
            raise DeadlineExpired("the wanted disks", "disk 0", 1.0)
        return now


class Volumes:
    def create(self, name, size_mib, deadline):
        return SimpleNamespace(path=f"/dev/vg00/{name}", sectors=size_mib * 2048)


@pytest.fixture
def place():
    return SimpleNamespace(
        guest=Guest(),
        vg=Volumes(),
        domain=SimpleNamespace(name="virtdemo"),
        toolstack=None,
        xenstore=None,
        timings={},
    )


@pytest.fixture
def calls(monkeypatch):
    done = []

    def attach(toolstack, xenstore, domain, spec, deadline, *, while_waiting):
        while_waiting()
        done.append(f"attach {spec}")
        return SimpleNamespace(devid=spec.devid)

    def detach(toolstack, xenstore, domain, devid, deadline, *, while_waiting):
        while_waiting()
        done.append(f"detach {devid}")

    monkeypatch.setattr(devices, "vbd", SimpleNamespace(attach=attach, detach=detach))
    return done


@pytest.fixture
def block_device(place, calls):
    return BlockDevices(place, SimpleNamespace(deadline=lambda allowance: Deadline(60)))


def test_volume_is_attached_as_users_type_it(block_device, calls, place):
    device = block_device(64, "/dev/hdc", "w")
    assert calls == ["attach phy:/dev/vg00/virt-virtdemo-1 /dev/hdc w"]
    assert device.disk.number == 1
    assert device.sectors == 131072
    assert set(place.timings) == {"attach_1", "attach_1_disk"}


def test_disks_are_told_apart_with_one_look_before(block_device, place):
    found = [block_device(32, vdev).disk.number for vdev in ("/dev/hdc", "/dev/hdd", "/dev/sda")]
    assert found == [1, 2, 3]
    assert place.guest.lists == 1


def test_detach_and_attach_again(block_device, calls, place):
    device = block_device(32, "/dev/hdc")
    device.detach()
    place.guest.numbers.remove(1)
    device.attach_again()
    device.detach()
    place.guest.numbers.remove(1)
    device.attach_again("/dev/hdd")
    volume = "phy:/dev/vg00/virt-virtdemo-1"
    assert calls == [
        f"attach {volume} /dev/hdc w",
        "detach 5632",
        f"attach {volume} /dev/hdc w",
        "detach 5632",
        f"attach {volume} /dev/hdd w",
    ]
    assert device.disk.number == 1


def test_no_new_disk_is_the_driver_s_failure(block_device, place):
    place.guest.shows = False
    with pytest.raises(DriverFailure, match=r"guest lists no new disk; last seen: disk 0"):
        block_device(32, "/dev/hdc")


def test_crash_while_attaching_is_a_crash(block_device, place):
    place.guest.shows = False
    place.guest.crash.found = CrashReport(CrashKind.SERIAL, "Kernel panic", ("trace",))
    with pytest.raises(GuestCrashed, match=r"attaching phy:.*Kernel panic") as caught:
        block_device(32, "/dev/hdc")
    assert caught.value.evidence == ("trace",)


def test_impossible_device_is_refused(block_device):
    with pytest.raises(UsageError):
        block_device(32, "/dev/nonsense")
