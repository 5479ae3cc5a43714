"""Faults from outside: a driver reports errors, and neither loses nor invents data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from lab.suite.backing import Backing
from lab.suite.intensity import Count
from lab.xen import vbd
from lab.xen.blockspec import devid

pytestmark = pytest.mark.area("faults")

HISTORY = "crashes that the driver's history reports"
SOURCES = "read from the driver's sources of 2007-11-19, unproven"
STATUS = "public/io/blkif.h: BLKIF_RSP_ERROR"
PRINTED = "what checked builds print"

MIB = 2048  # in sectors
STORMS = Count(40, smoke=4, tcg=10)
GAVE_UP = "5"  # XenbusStateClosing


@pytest.mark.smoke
@pytest.mark.claim("Xen Operation returned error in DpcThreadProc", PRINTED)
@pytest.mark.claim("a request that the backend failed is failed for the guest", STATUS)
@pytest.mark.cost(attach=1, dom0=14, command=10, mib=4)
def test_bad_sectors(installed_driver, disk_on, lab, still_the_same_boot):
    device = disk_on(sectors=4 * MIB)
    device.write(0, MIB, gen=1).require("writing a disk without a fault")
    first, count = 1000, 24
    device.backing.fail(first, count, lab.deadline("command"))

    written = device.write(0, MIB, gen=2, block=8, threads=4, shift=True)
    assert written.errors == count // 8, (
        f"{count // 8} writes hit bad sectors and failed, the guest was told of {written.words}"
    )
    outside = [e for e in written.refused if not first <= e.first < first + count]
    assert not outside, f"writes to good sectors failed: {outside}"
    read = device.verify(0, MIB, gen=2, block=8, threads=4)
    assert read.errors == count // 8, (
        f"{count // 8} reads hit bad sectors and failed, the guest was told of {read.words}"
    )
    assert not read.mismatches, f"beside bad sectors the disk returned wrong data: {read.words}"

    device.backing.heal(lab.deadline("command"))
    device.check_in_dom0("sectors before the bad ones were written", 0, first, gen=2)
    rest = first + count
    device.check_in_dom0("sectors behind the bad ones were written", rest, MIB - rest, gen=2)
    device.check_in_dom0("writes to bad sectors failed", first, count, gen=1)
    device.exercise(0, MIB, gen=3).require("using the disk after it was mended")
    still_the_same_boot()


@pytest.mark.claim("a request that the backend failed is failed for the guest", STATUS)
@pytest.mark.cost(attach=1, dom0=10, command=8, partition=1)
def test_failed_writes_are_reported(installed_driver, disk_on, guest, lab, still_the_same_boot):
    from lab.guest.errors import DiskError, DiskIoError

    device = disk_on(sectors=4 * MIB)
    device.write(0, 512, gen=1).require("writing a disk without a fault")
    device.backing.refuse_writes(lab.deadline("command"))
    for threads in (1, 4):
        result = device.write(0, 512, gen=2, block=64, threads=threads)
        assert result.errors == result.requests, (
            f"every write failed, the guest was told of {result.words}"
        )
    device.verify(0, 512, gen=1).require("reading while writes fail")
    # The system's own tools have to be told as well.
    with pytest.raises((DiskError, DiskIoError)):
        guest.disks.partition(device.number, "X", lab.deadline("command"))
    device.backing.heal(lab.deadline("command"))
    device.check_in_dom0("every write failed", 0, 512, gen=1)
    still_the_same_boot()


@pytest.mark.claim("a request that the backend failed is failed for the guest", STATUS)
@pytest.mark.cost(attach=1, dom0=10, command=6)
def test_failed_flush_is_reported(installed_driver, disk_on, lab, still_the_same_boot):
    device = disk_on(sectors=4 * MIB)
    device.write(0, 512, flush=True).require("writing a disk without a fault")
    device.backing.refuse_writes(lab.deadline("command"))
    assert device.flush().errors, "a flush that the disk refused was answered with success"
    device.backing.heal(lab.deadline("command"))
    device.write(0, 512, gen=2, flush=True).require("using the disk after it was mended")
    device.check_in_dom0("it was written after the disk was mended", 0, 512, gen=2)
    still_the_same_boot()


@pytest.mark.claim("a request that the backend failed is failed for the guest", STATUS)
@pytest.mark.cost(attach=1, dom0=10, command=30, mib=8, seconds=10)
def test_disk_that_comes_and_goes(installed_driver, disk_on, lab, still_the_same_boot):
    device = disk_on(sectors=4 * MIB)
    device.backing.flake(2, 1, lab.deadline("command"))
    refused = 0
    for gen in range(1, 5):
        result = device.write(0, MIB, gen=gen, block=32, threads=2, order="random")
        assert not result.mismatches
        refused += result.errors
    device.backing.heal(lab.deadline("command"))
    generations, strange = device.backing.written(0, MIB, lab.deadline("boot"))
    assert not strange, f"while requests failed, the disk got data that nobody wrote: {strange}"
    if not refused:
        assert generations == {4}, (
            f"no write was reported as failed, the disk holds generations {sorted(generations)}"
        )
    device.exercise(0, MIB, gen=9).require("using the disk after it was mended")
    still_the_same_boot()


@pytest.mark.claim("high load, 30 s freeze", HISTORY)
@pytest.mark.cost(attach=1, dom0=8, command=20, mib=2, seconds=15)
def test_slow_disk(installed_driver, disk_on, lab, still_the_same_boot):
    device = disk_on(sectors=4 * MIB)
    device.backing.delay(250, lab.deadline("command"))
    device.exercise(0, 1024, block=64, threads=8).require("using a disk that is slow")
    device.backing.heal(lab.deadline("command"))
    device.check_in_dom0("it was written slowly", 0, 1024)
    still_the_same_boot()


@pytest.mark.claim("Wait timed out", PRINTED)
@pytest.mark.cost(attach=1, dom0=8, command=30, mib=4)
def test_stalled_disk_goes_on(installed_driver, disk_on, guest, lab, still_the_same_boot):
    device = disk_on(sectors=4 * MIB)
    job = device.start(0, MIB, threads=4, order="random")
    job.wait_busy(lab.deadline("boot"))
    device.backing.suspend(lab.deadline("command"))
    try:
        # A guest whose disk does not answer still answers itself.
        for _ in range(10):
            assert guest.channel.run("ver", lab.deadline("command")).ok
        done = job.generations(lab.deadline("command"))
    finally:
        device.backing.resume(lab.deadline("command"))
    job.wait_busy(lab.deadline("boot"))
    ended = job.end(lab.deadline("boot")).require("requests that had to wait")
    assert max(ended.generations) > done
    device.check_in_dom0("it was written after the stall", 0, MIB, gen=max(ended.generations))
    still_the_same_boot()


@pytest.mark.claim("Closing and Closed of the backend are only logged", SOURCES)
@pytest.mark.cost(attach=2, dom0=10, command=10, detach=1)
def test_backend_gives_up(installed_driver, disk_on, place, lab, diskio, still_the_same_boot):
    device = disk_on("/dev/hdc")
    other = disk_on("/dev/hdd")
    device.write(0, 512).require("writing")
    place.xenstore.write(f"{device.vbd.backend.path}/state", GAVE_UP, lab.deadline("command"))
    # The frontend follows, or goes on: it may not crash, hang, or take others with it.
    other.exercise(0, MIB, threads=2).require("using another disk while a backend gave up")
    still_the_same_boot()
    device.detach(force=True)
    device.check_in_dom0("it was written before the backend gave up", 0, 512)
    still_the_same_boot()


@pytest.mark.claim("Watch not active!", PRINTED)
@pytest.mark.cost(attach=2, dom0=10, command=10)
def test_nodes_that_vanish(installed_driver, disk_on, place, lab, still_the_same_boot):
    device = disk_on("/dev/hdc")
    other = disk_on("/dev/hdd")
    place.xenstore.rm(device.vbd.frontend.path, lab.deadline("command"))
    other.exercise(0, MIB, threads=2).require("using another disk after nodes vanished")
    third = disk_on("/dev/sde")
    third.exercise(0, 512).require("using a disk that came after nodes vanished")
    still_the_same_boot()


@pytest.mark.claim("Watch not active!", PRINTED)
@pytest.mark.cost(attach=1, dom0=14, command=10, mib=2, seconds=10)
def test_event_storm(installed_driver, disk_on, place, lab, intensity, still_the_same_boot):
    device = disk_on(sectors=4 * MIB)
    job = device.start(0, 1024, threads=4, order="random")
    job.wait_busy(lab.deadline("boot"))
    # Each write of a node fires the frontend's watch, though nothing changes.
    again = f"{device.vbd.backend.path}/state 4 " * 50
    for _ in range(intensity.count(STORMS)):
        place.dom0.run(f"xenstore-write {again}", lab.deadline("command"), check=True)
    job.wait_busy(lab.deadline("boot"))
    ended = job.end(lab.deadline("boot")).require("requests during a storm of events")
    device.check_in_dom0("it was written in a storm", 0, 1024, gen=max(ended.generations))
    still_the_same_boot()


@dataclass
class Unserved:
    """A device whose backend no driver of dom0 serves: it says only what a test writes."""

    front: str
    back: str
    _place: Any
    _lab: Any

    def say(self, **nodes):
        words = " ".join(f"{self.back}/{name} {value}" for name, value in nodes.items())
        self._place.dom0.run(f"xenstore-write {words}", self._lab.deadline("command"), check=True)

    def remove(self):
        self._place.xenstore.rm(self.front, self._lab.deadline("command"))
        self._place.xenstore.rm(self.back, self._lab.deadline("command"))


@pytest.fixture
def unserved(place, lab):
    """Makes a device with a backend in state InitWait, and nobody behind it."""

    def unserved(name="xvdk"):
        domid, number = place.domain.domid, devid(name)
        front = vbd.frontend_path(domid, number)
        back = vbd.backend_path(domid, number, "nobody")
        # Nodes inherit from the one above who may read them, and the frontend looks as soon as
        # there is a state: then all the rest has to be there and readable.
        script = " && ".join(
            [
                f"xenstore-write {back} ''",
                f"xenstore-chmod {back} n0 r{domid}",
                f"xenstore-write {back}/frontend {front} {back}/frontend-id {domid} "
                f"{back}/online 1 {back}/mode w {back}/state 2",
                f"xenstore-write {front} ''",
                f"xenstore-chmod {front} n{domid} r0",
                f"xenstore-write {front}/backend {back} {front}/backend-id 0 "
                f"{front}/virtual-device {number} {front}/device-type disk",
                f"xenstore-write {front}/state 1",
            ]
        )
        place.dom0.run(script, lab.deadline("command"), check=True)
        return Unserved(front, back, place, lab)

    return unserved


@pytest.mark.claim("the backend never reaches Connected", PRINTED)
@pytest.mark.cost(attach=1, dom0=20, command=10)
def test_backend_that_never_connects(
    installed_driver, disk_on, unserved, place, lab, still_the_same_boot
):
    waiting = unserved()
    place.xenstore.wait(f"{waiting.front}/state", ["3"], lab.deadline("attach"))
    # The rest of the driver goes on.
    device = disk_on("/dev/hdc")
    device.exercise(0, MIB, threads=2).require("using a disk while another never connects")
    waiting.remove()
    device.verify(0, MIB).require("reading after the other is gone")
    still_the_same_boot()


@pytest.mark.claim("`sector-size` is not checked for absence", SOURCES)
@pytest.mark.parametrize(
    "nodes", [{}, {"sectors": 8192}, {"sector-size": 512}], ids=["none", "sectors", "sector-size"]
)
@pytest.mark.cost(attach=1, dom0=26, command=12)
def test_backend_that_does_not_say_how_large(
    installed_driver, disk_on, unserved, place, lab, disk_numbers, still_the_same_boot, nodes
):
    before = disk_numbers()
    vague = unserved()
    place.xenstore.wait(f"{vague.front}/state", ["3"], lab.deadline("attach"))
    vague.say(**nodes, state=4)
    # As with file: on a Xen that publishes nothing. No disk can come of it, and no crash.
    device = disk_on("/dev/hdc")
    device.exercise(0, MIB, threads=2).require("using a disk while another has no size")
    others = disk_numbers() - before - {device.number}
    assert not others, f"a device of unknown size shows as disk {sorted(others)}"
    vague.remove()
    device.verify(0, MIB).require("reading after the other is gone")
    still_the_same_boot()


@pytest.mark.claim("xenstore ring full, hang", HISTORY)
@pytest.mark.cost(attach=1, detach=1, dom0=20, command=16, mib=3, seconds=24)
def test_xenstore_that_is_slow(installed_driver, disk_on, place, lab, still_the_same_boot):
    busy = disk_on("/dev/hdd", sectors=4 * MIB)
    job = busy.start(0, 1024, threads=2, order="random")
    job.wait_busy(lab.deadline("boot"))
    # It answers a third of the time, for as long as an attach and a detach take.
    place.dom0.run(
        "(store=$(cat /run/xenstored.pid); for turn in 1 2 3 4 5 6 7 8; do kill -STOP $store; "
        "sleep 2; kill -CONT $store; sleep 1; done) >/dev/null 2>&1 </dev/null &",
        lab.deadline("command"),
    )
    device = disk_on("/dev/hdc")
    device.exercise(0, 1024, threads=2).require("using a disk that was attached slowly")
    device.detach()
    job.wait_busy(lab.deadline("boot"))
    ended = job.end(lab.deadline("boot")).require("using a disk while xenstore was slow")
    busy.check_in_dom0("xenstore was slow", 0, 1024, gen=max(ended.generations))
    still_the_same_boot()


@pytest.mark.claim("Wait timed out", PRINTED)
@pytest.mark.cost(attach=3, detach=2, dom0=10, command=24, mib=4)
def test_clock_that_jumps(installed_driver, disk_on, guest, lab, still_the_same_boot):
    device = disk_on("/dev/hdc", sectors=4 * MIB)
    job = device.start(0, 1024, threads=4, order="random")
    job.wait_busy(lab.deadline("boot"))
    # Far ahead, then behind where it was: timeouts that look at the clock expire, or never do.
    for date in ("01-15-2031", "01-15-2004"):
        guest.channel.run(f"date {date}", lab.deadline("command")).check()
        job.wait_busy(lab.deadline("boot"))
        other = disk_on("/dev/hdd")
        other.exercise(0, 512).require(f"using a disk attached on {date}")
        other.detach()
    ended = job.end(lab.deadline("boot")).require("requests while the clock jumped")
    device.check_in_dom0("the clock jumped", 0, 1024, gen=max(ended.generations))
    still_the_same_boot()


@pytest.mark.claim("page busy in the backend", HISTORY)
@pytest.mark.cost(attach=1, dom0=14, command=10, mib=8, seconds=15)
def test_dom0_short_of_memory(installed_driver, disk_on, place, lab, still_the_same_boot):
    device = disk_on(sectors=4 * MIB)
    # 96 MiB are left: enough for sshd and the toolstack, little for the backend.
    place.dom0.run(
        "mkdir -p /mnt/fill && mount -t tmpfs -o size=100% tmpfs /mnt/fill && "
        "free=$(awk '/MemAvailable/ { print int($2 / 1024) }' /proc/meminfo) && "
        "head -c $(((free - 96) * 1048576)) /dev/zero > /mnt/fill/ballast",
        lab.deadline("boot"),
        check=True,
    )
    try:
        device.exercise(0, MIB, gens=2, threads=8, block=512, order="random").require(
            "using the disk while dom0 is short of memory"
        )
    finally:
        place.dom0.run("umount /mnt/fill", lab.deadline("command"), check=True)
    device.check_in_dom0("it was written meanwhile", 0, MIB, gen=2)
    still_the_same_boot()


@pytest.mark.claim("a request that the backend failed is failed for the guest", STATUS)
@pytest.mark.cost(attach=1, dom0=10, command=8, mib=8)
def test_dom0_disk_full(installed_driver, attach, place, lab, still_the_same_boot):
    # A sparse file that promises more than there is room for.
    room_mib, size_mib = 2, 16
    result = place.dom0.run(
        f"mkdir -p /mnt/small && mount -t tmpfs -o size={room_mib}m tmpfs /mnt/small && "
        f"truncate -s {size_mib}M /mnt/small/disk && losetup -f --show /mnt/small/disk",
        lab.deadline("command"),
        check=True,
    )
    backing = Backing(result.stdout.strip(), size_mib * MIB, _dom0=place.dom0)
    device = attach(backing, "/dev/hdc")
    result = device.write(0, 8 * MIB, block=256, flush=True)
    assert result.errors, f"8 MiB were written to a disk with room for {room_mib} MiB"
    # What was answered with success is there.
    first_refused = min(error.first for error in result.refused if error.op == "write")
    device.check_in_dom0("it was written before the disk was full", 0, first_refused)
    still_the_same_boot()
