"""What the tests of a driver share beyond the lab's own fixtures."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import pytest

from lab.core.deadline import NotYet, wait_for
from lab.core.errors import LabBroken
from lab.guest.diskio import DiskIo
from lab.suite.backing import Backing, Backings
from lab.xen import vbd
from lab.xen.blockspec import BlockSpec


@dataclass
class Attached:
    """A backing device that is a disk of the guest, with what tests ask of it.

    Attributes:
        backing: the device in dom0.
        spec: how it is attached.
        vbd: both ends when it was connected.
        number: the guest's number of the disk.
    """

    backing: Backing
    spec: BlockSpec
    vbd: vbd.Vbd
    number: int
    _io: DiskIo = field(repr=False)
    _lab: Any = field(repr=False)
    _place: Any = field(repr=False)

    @property
    def sectors(self):
        return self.backing.sectors

    def length(self):
        """The exact length that the guest's driver reports, in sectors of 512 bytes."""
        return self._io.size(self.number, self._lab.deadline("command")).sectors

    def write(self, first, count, **how):
        return self._io.write(self.number, first, count, self._lab.deadline("boot"), **how)

    def verify(self, first, count, **how):
        return self._io.verify(self.number, first, count, self._lab.deadline("boot"), **how)

    def exercise(self, first, count, **how):
        return self._io.exercise(self.number, first, count, self._lab.deadline("boot"), **how)

    def bench(self, first, count, **how):
        return self._io.bench(self.number, first, count, self._lab.deadline("boot"), **how)

    def flush(self):
        return self._io.flush(self.number, self._lab.deadline("command"))

    def start(self, first, count, **how):
        return self._io.start(self.number, first, count, self._lab.deadline("command"), **how)

    def fill(self, first, count, **how):
        """Write the pattern from dom0."""
        from lab.guest.diskio import pattern

        self.backing.write(first, pattern(first, count, **how), self._lab.deadline("command"))

    def check_in_dom0(self, what, first, count, **how):
        """The backing device holds the pattern, as dom0 reads it past every cache."""
        wrong = self.backing.wrong(first, count, self._lab.deadline("boot"), **how)
        assert not wrong, f"{what}, but the backing device of {self.spec.vdev} holds: {wrong}"

    def check_extent(self):
        """Its length is exact: the last sector is where it should be, and nothing behind it."""
        total = self.sectors
        length = self.length()
        assert length == total, (
            f"{self.spec.vdev}: the backing device has {total} sectors, the guest's disk "
            f"{self.number} has {length}: {length - total:+d}"
        )
        tail = 8
        self.write(total - tail, tail, gen=5).require(f"writing the last {tail} sectors")
        self.check_in_dom0("the last sectors were written", total - tail, tail, gen=5)
        self.verify(total - tail, tail, gen=5).require(f"reading the last {tail} sectors")
        assert self.verify(total - tail + 8, 8).errors, "a read behind the end succeeded"
        assert self.write(total - tail + 8, 8).errors, "a write behind the end succeeded"

    def detach(self, *, force=False):
        place, deadline = self._place, self._lab.deadline("attach")
        with place.guest.crash.guard(f"detaching {self.spec.vdev}", deadline):
            vbd.detach(
                place.toolstack,
                place.xenstore,
                place.domain,
                self.vbd.devid,
                deadline,
                force=force,
                while_waiting=lambda: place.guest.crash.raise_if_seen(deadline),
            )


@pytest.fixture
def diskio(guest):
    """Raw I/O in the guest."""
    return DiskIo(guest.channel)


@pytest.fixture
def backings(place):
    """Makes block devices in dom0, of any size and faulty on demand."""
    return Backings(place.dom0, place.vg)


@pytest.fixture
def attach(place, lab, diskio):
    """Attaches a backing device: ``attach(backing, "/dev/hdc", "w")``; see ``Attached``."""
    # Here, not at the top: sessions without the lab must not pay for it.
    from lab.suite.devices import BlockDevices

    def attach(backing, vdev, mode="w"):
        spec = BlockSpec.parse(backing.spec, vdev, mode)
        # A new maker each time: it looks at the guest's list of disks afresh, which detaches
        # and restarts change behind the back of an older one.
        ends, disk = BlockDevices(place, lab).attach(spec)
        return Attached(backing, spec, ends, disk.number, diskio, lab, place)

    return attach


@pytest.fixture
def disk_on(attach, backings, lab):
    """Makes a zeroed disk: ``disk_on("/dev/hdc", sectors=65536)`` of exactly that many sectors."""

    def disk_on(vdev="/dev/hdc", sectors=65536, mode="w", room=0):
        backing = backings.exact(sectors, lab.deadline("command"), room=room)
        return attach(backing, vdev, mode)

    return disk_on


@pytest.fixture
def disk_numbers(guest, lab):
    """The numbers of the guest's disks, looked at afresh."""

    def numbers():
        return {disk.number for disk in guest.disks.list(lab.deadline("command"), rescan=True)}

    return numbers


@pytest.fixture
def disk_of(lab, diskio, disk_numbers):
    """Waits for a disk of exactly so many sectors; gives its number."""

    def disk_of(sectors, deadline):
        def look():
            seen = {n: diskio.size(n, lab.deadline("command")).sectors for n in disk_numbers()}
            for number, length in seen.items():
                if length == sectors:
                    return number
            raise NotYet(f"disks and their sectors: {seen}")

        return wait_for(f"a disk of {sectors} sectors in the guest", look, deadline)

    return disk_of


@pytest.fixture
def went_down_in_order(place, guest, lab):
    """Checks that a guest that shut down did not bugcheck on its way."""

    def check():
        serial = place.guest_serial(lab.deadline("command"))
        crashed = [p for p in place.profile.crash_patterns if re.search(p, serial)]
        assert not crashed, f"the guest crashed on its way down: its serial log matches {crashed}"
        guest.crash.retire()

    return check


@pytest.fixture
def run_in_guest(guest, lab):
    """Runs a command that has to succeed if the disk works; returns its result."""

    def run(command, allowance="command"):
        result = guest.channel.run(command, lab.deadline(allowance))
        if "is not recognized as" in result.stderr:
            raise LabBroken(f"the guest does not know `{command}`")
        assert result.ok, f"`{command}` exited {result.exit_code}: {result.stdout}{result.stderr}"
        return result

    return run


@pytest.fixture
def still_the_same_boot(guest, place, lab):
    """Checks that the guest lives, in the domain that it was started in."""

    def check():
        report = guest.crash.check(lab.deadline("crash"))
        assert report is None, f"{report.kind}: {report.summary}"
        domain = place.toolstack.find(place.domain.name, lab.deadline("command"))
        assert domain is not None, "the domain is gone"
        assert domain.domid == place.domain.domid, "the domain was restarted"

    return check
