"""Disks attached from dom0 appear in the guest as what they are, and go without a trace."""

from __future__ import annotations

import re

import pytest

from lab.core.deadline import NotYet, wait_for
from lab.core.errors import DeadlineExpired
from lab.guest.prints import check_attach, rules_for, troubles
from lab.suite import lifecycle
from lab.suite.at_once import Move, at_once
from lab.suite.intensity import Count
from lab.suite.leaks import grown, settled
from lab.xen import vbd
from lab.xen.blockspec import BlockSpec
from lab.xen.errors import DeviceInUse

pytestmark = pytest.mark.area("attach")

ANNOUNCED = "xen-devel, 2007-11-09: third release of GPL'd PV drivers for Windows (0.0.3)"
HISTORY = "crashes that the driver's history reports"
PRINTS = "what the driver family's builds print, drivers/rules"
SOURCES = "read from the driver's sources of 2007-11-19, unproven"

MIB = 2048  # in sectors
CYLINDER = 255 * 63
TIB = 1 << 31  # in sectors

# Every family of names, and no two with one letter: a Linux guest calls hdc and sdc xvdc.
NAMES = ("hdc", "sdb", "xvdf", "hdd", "sde", "xvdg", "xvdh", "sdi")

DISKS = Count(8, smoke=3)
CYCLES = Count(25, smoke=4, tcg=22)
CONCURRENT = Count(6, smoke=3, tcg=4)


def drives_by_number(guest, lab):
    return {drive.index: drive for drive in guest.disks.drives(lab.deadline("command"))}


@pytest.mark.smoke
@pytest.mark.claim("the size of a block device is detected correctly", ANNOUNCED)
@pytest.mark.cost(attach=1, dom0=6, command=8)
def test_disk_appears_with_its_size(installed_driver, disk_on, guest, dbgview, lab):
    # Odd, and one sector over a cylinder: nothing that rounds gets it right.
    device = disk_on(sectors=3 * CYLINDER + 2)
    drive = drives_by_number(guest, lab).get(device.number)
    assert drive is not None, f"diskpart lists disk {device.number}, WMI does not"
    assert drive.sector_bytes == 512
    assert drive.fits(device.sectors), (
        f"the disk has {device.sectors} sectors, the guest shows {drive.total_sectors} "
        f"and {drive.size_bytes} bytes"
    )
    # A checked build prints the exact number, which Windows' own tools round down.
    printed = "\n".join(line.text for line in dbgview.lines(lab.deadline("command")))
    for total in re.findall(r"TotalSectors = (\d+)", printed):
        assert int(total) == device.sectors
    device.check_extent()


@pytest.mark.claim("an attach goes through its steps in the documented order", PRINTS)
@pytest.mark.cost(attach=1, dom0=6, command=6)
def test_attach_prints_its_steps_in_order(
    installed_driver, driver_package, disk_on, guest, dbgview, lab
):
    rules = rules_for(driver_package)
    if rules is None:
        pytest.skip("no file in drivers/rules says what drivers of this family print")
    before = len(dbgview.lines(lab.deadline("command")))
    disk_on(sectors=65536)

    def printed():
        # The last steps are printed when both ends have long been connected.
        order = check_attach(rules, dbgview.lines(lab.deadline("command"))[before:])
        if order.missing:
            raise NotYet(order.problem or "nothing at all")
        return order

    try:
        wait_for("the prints of an attach", printed, lab.deadline("attach"), interval=1.0)
    except DeadlineExpired:
        lines = dbgview.lines(lab.deadline("command"))
        order = check_attach(rules, lines[before:])
        if not any(re.search(rules.attach.speaks, line.text) for line in lines):
            pytest.skip(f"this build of {rules.family} prints nothing: a free build")
        assert order.spoke, "the driver printed nothing while the disk was attached"
        assert not order.problem, order.problem
    found = troubles(rules, dbgview.lines(lab.deadline("command"))[before:])
    assert not found, f"trouble while attaching: {found[0]}"


@pytest.mark.claim("the size of a block device is detected correctly", ANNOUNCED)
@pytest.mark.cost(attach=5, dom0=30, command=30)
def test_sizes_are_exact(installed_driver, disk_on):
    sizes = {
        "hdc": CYLINDER + 1,
        "hdd": 40961,
        "sdb": 65536,
        "sde": 65535,
        "xvdf": 2 * 1024 * 2048,  # 2 GiB
    }
    for vdev, sectors in sizes.items():
        disk_on(f"/dev/{vdev}", sectors=sectors).check_extent()


@pytest.mark.smoke
@pytest.mark.claim("`sectors` goes through a 32-bit conversion", SOURCES)
@pytest.mark.cost(attach=1, dom0=8, command=10)
def test_disk_of_more_than_2_tib(installed_driver, attach, backings, lab):
    # 2^32 sectors are 2 TiB: cut to 32 bits this one would have 4096 and a few.
    backing = backings.sparse(2 * TIB + 4104, lab.deadline("command"))
    device = attach(backing, "/dev/hdc")
    device.check_extent()
    # What belongs beyond 2 TiB must not land at the same place modulo 2^32.
    device.write(2 * TIB + 64, 64, gen=3).require("writing beyond 2 TiB")
    assert device.backing.read(64, 64, lab.deadline("command")) == bytes(64 * 512), (
        "a write beyond 2 TiB changed the first sectors"
    )
    device.check_in_dom0("sectors beyond 2 TiB were written", 2 * TIB + 64, 64, gen=3)


@pytest.mark.claim("the size of a block device is detected correctly", ANNOUNCED)
@pytest.mark.cost(attach=1, dom0=6, command=8)
def test_sectors_of_4096_bytes(installed_driver, attach, backings, diskio, lab):
    backing = backings.sparse(65536 + 8, lab.deadline("command"), sector_bytes=4096)
    device = attach(backing, "/dev/hdc")
    length = diskio.size(device.number, lab.deadline("command"))
    assert length.sector_bytes == 4096, f"the guest sees sectors of {length.sector_bytes} bytes"
    device.check_extent()
    device.exercise(0, 4096, block=64).require("writing and reading sectors of 4096 bytes")
    device.check_in_dom0("it was written", 0, 4096)


@pytest.mark.smoke
@pytest.mark.claim("a disk attached read-only cannot be written", "xen-vbd-interface(7)")
@pytest.mark.cost(attach=1, dom0=6, command=6)
def test_read_only_disk(installed_driver, attach, backings, guest, lab):
    from lab.guest.diskio import WRITE_PROTECTED, pattern
    from lab.guest.errors import DiskError

    backing = backings.exact(8192, lab.deadline("command"))
    backing.write(0, pattern(0, 2048, gen=1), lab.deadline("command"))
    device = attach(backing, "/dev/hdc", "r")
    device.verify(0, 2048).require("reading a read-only disk")
    refused = device.write(0, 64, gen=2, flush=True)
    assert refused.errors, "a write to a read-only disk was answered with success"
    # An I/O error instead would mean that the guest takes the disk for writable: its caches
    # would accept data and lose it.
    codes = {error.code for error in refused.refused}
    assert codes <= WRITE_PROTECTED, (
        f"the guest does not know that the disk is read-only: {refused.words}"
    )
    with pytest.raises(DiskError):
        guest.disks.clean(device.number, lab.deadline("command"))
    device.check_in_dom0("nothing could be written", 0, 2048)


@pytest.mark.smoke
@pytest.mark.claim("several block devices can be added", ANNOUNCED)
@pytest.mark.cost(attach=DISKS, dom0=24, command=32)
def test_several_disks(installed_driver, disk_on, guest, lab, intensity):
    count = intensity.count(DISKS)
    devices = [
        disk_on(f"/dev/{vdev}", sectors=8192 + 4096 * index)
        for index, vdev in enumerate(NAMES[:count])
    ]
    numbers = [device.number for device in devices]
    assert len(set(numbers)) == count, f"disks share a number: {numbers}"
    present = {disk.number for disk in guest.disks.list(lab.deadline("command"), rescan=True)}
    for seed, device in enumerate(devices, 1):
        assert device.number in present, f"the disk on {device.spec.vdev} went away again"
        assert device.length() == device.sectors, f"{device.spec.vdev} has another's size"
        device.write(0, 1024, seed=seed).require(f"writing to {device.spec.vdev}")
    # Only now: what one disk was given must not have gone to another.
    for seed, device in enumerate(devices, 1):
        device.check_in_dom0("each disk was given data of its own", 0, 1024, seed=seed)
        device.verify(0, 1024, seed=seed).require(f"reading {device.spec.vdev}")


@pytest.mark.slow
@pytest.mark.claim("the races that hung the guest on an attach are fixed", ANNOUNCED)
@pytest.mark.claim("block-detach, blue screen", HISTORY)
@pytest.mark.cost(attach=CYCLES, detach=CYCLES, command=CYCLES, dom0=20)
def test_cycles_leak_nothing(installed_driver, disk_on, attach, place, lab, intensity):
    device = disk_on(sectors=16384)
    backing = device.backing

    def use_and_detach(device, gen):
        device.exercise(0, 2048, gen=gen, threads=2, order="random").require(
            f"attach {gen}: writing and reading"
        )
        device.detach()

    # The first two may allocate for good, and the disk takes the place of none.
    use_and_detach(device, 1)
    use_and_detach(attach(backing, "/dev/hdc"), 2)
    before = settled(place, lab.deadline("attach"))
    cycles = intensity.count(CYCLES)
    for cycle in range(cycles):
        use_and_detach(attach(backing, "/dev/hdc"), 3 + cycle)
    # A guest's other devices come and go by one or two; a leak grows with every cycle.
    leaked = grown(place, before, lab.deadline("attach"), by=max(2, cycles // 2))
    assert not leaked, f"after {cycles} attaches and detaches there is more of: {leaked}"


@pytest.mark.claim("the races that hung the guest on an attach are fixed", ANNOUNCED)
@pytest.mark.cost(attach=CONCURRENT, dom0=20, command=20)
def test_concurrent_attaches(
    installed_driver, backings, place, guest, diskio, lab, intensity, still_the_same_boot
):
    count = intensity.count(CONCURRENT)
    made = [backings.exact(4096 + 512 * n, lab.deadline("command")) for n in range(count)]
    specs = [
        BlockSpec.parse(backing.spec, f"/dev/{vdev}")
        for backing, vdev in zip(made, NAMES, strict=False)
    ]
    before = {disk.number for disk in guest.disks.list(lab.deadline("command"))}
    deadline = lab.deadline("boot")
    with guest.crash.guard("concurrent attaches", deadline):
        at_once(place, [Move("attach", spec) for spec in specs], lab)
        guest.disks.wait_for_disks(len(before) + count, deadline)
        disks = [d.number for d in guest.disks.list(deadline) if d.number not in before]
    sizes = sorted(diskio.size(number, lab.deadline("command")).sectors for number in disks)
    assert sizes == sorted(backing.sectors for backing in made)
    still_the_same_boot()


@pytest.mark.claim("Device /dev/hdc (5632, vbd) is already connected", ANNOUNCED)
@pytest.mark.cost(attach=2, dom0=6, command=4)
def test_a_name_that_is_taken_is_refused(installed_driver, disk_on, backings, place, lab):
    device = disk_on("/dev/hdc")
    device.write(0, 256).require("writing")
    other = backings.exact(4096, lab.deadline("command"))
    with pytest.raises(DeviceInUse):
        place.toolstack.block_attach(
            place.domain, BlockSpec.parse(other.spec, "/dev/hdc"), lab.deadline("attach")
        )
    assert device.length() == device.sectors
    device.verify(0, 256).require("reading after another attach was refused")


@pytest.mark.claim("an attach to a paused guest completes when it runs again", HISTORY)
@pytest.mark.cost(attach=2, dom0=8, command=4)
def test_attach_while_paused(installed_driver, backings, place, guest, diskio, lab):
    backing = backings.exact(12345, lab.deadline("command"))
    before = {disk.number for disk in guest.disks.list(lab.deadline("command"))}
    deadline = lab.deadline("attach")
    place.toolstack.pause(place.domain, deadline)
    spec = BlockSpec.parse(backing.spec, "/dev/hdc")
    command = place.toolstack.command(*place.toolstack.block_attach_words(place.domain, spec))
    try:
        place.dom0.run(f"{command} >/tmp/attach.log 2>&1", deadline)
    finally:
        place.toolstack.unpause(place.domain, deadline)
    with guest.crash.guard("an attach while it was paused", deadline):
        path = f"{vbd.frontend_path(place.domain.domid, spec.devid)}/state"
        place.xenstore.wait(path, ["4"], deadline)
        disks = guest.disks.wait_for_disks(len(before) + 1, deadline)
    number = next(disk.number for disk in disks if disk.number not in before)
    assert diskio.size(number, lab.deadline("command")).sectors == backing.sectors


@pytest.mark.slow
@pytest.mark.claim("an attach to a guest that boots completes when the driver is there", HISTORY)
@pytest.mark.cost(attach=1, dom0=20, command=10, reboot=1, mib=1)
def test_attach_while_booting(
    installed_driver, backings, place, guest, diskio, disk_of, lab, evidence
):  # fmt: skip
    if place.drive_c_in_memory:
        pytest.skip("drive C: of this guest is in its memory: the driver is lost with a restart")
    backing = backings.exact(12345, lab.deadline("command"))
    spec = BlockSpec.parse(backing.spec, "/dev/hdc")
    toolstack, name = place.toolstack, place.domain.name
    number = toolstack.command("domid", name)
    attach = toolstack.command(*toolstack.block_attach_words(name, spec))
    place.dom0.run(
        f"(while now=$({number} 2>/dev/null); "
        f'[ -z "$now" ] || [ "$now" = {place.domain.domid} ]; do sleep 1; done; '
        # A domain that is still being made takes no devices.
        f"for attempt in $(seq 30); do {attach} && break; sleep 1; done) "
        ">/tmp/attach.log 2>&1 </dev/null &",
        lab.deadline("command"),
    )
    lifecycle.reboot(place, lab.deadline("boot"))
    deadline = lab.deadline("attach")
    with guest.crash.guard("an attach while it booted", deadline):
        state = f"{vbd.frontend_path(place.domain.domid, spec.devid)}/state"
        try:
            place.xenstore.wait(state, ["4"], deadline)
        finally:
            said = place.dom0.run("cat /tmp/attach.log", lab.deadline("command")).stdout
            evidence.add("attach.log", said)
        disk = disk_of(backing.sectors, deadline)
    diskio.exercise(disk, 0, 512, lab.deadline("boot")).require("using the disk")


@pytest.mark.destructive
@pytest.mark.claim("shutdown, 0x9F", HISTORY)
@pytest.mark.cost(attach=2, dom0=14, command=8, shutdown=1, mib=1)
def test_attach_while_shutting_down(
    installed_driver, disk_on, backings, place, lab, went_down_in_order
):  # fmt: skip
    device = disk_on("/dev/hdc", sectors=4 * MIB)
    device.write(0, 512, flush=True).require("writing")
    other = backings.exact(8192, lab.deadline("command"))
    words = place.toolstack.block_attach_words(
        place.domain, BlockSpec.parse(other.spec, "/dev/hdd")
    )
    place.dom0.run(
        f"(sleep 1; {place.toolstack.command(*words)}) >/tmp/attach.log 2>&1 </dev/null &",
        lab.deadline("command"),
    )
    lifecycle.power_off(place, lab.deadline("boot"))
    # Whether the attach comes through is the toolstack's affair; the guest goes down in order.
    went_down_in_order()
    device.check_in_dom0("it was written before the guest went down", 0, 512)


@pytest.mark.claim("the size of a block device is detected correctly", ANNOUNCED)
@pytest.mark.cost(attach=2, detach=1, dom0=10, command=10)
def test_resize_while_attached(installed_driver, disk_on, attach, lab):
    small, large = 32768, 49153
    device = disk_on(sectors=small, room=large - small)
    device.write(0, 4096).require("writing before the disk grew")
    device.backing.grow(large, lab.deadline("command"))
    # The backend tells of a new size when the next request comes.
    device.verify(0, 4096).require("reading after the disk grew")
    assert device.length() in (small, large), "the size is neither the old nor the new one"
    device.write(small - 64, 64, gen=2).require("writing the old end after the disk grew")
    device.check_in_dom0("the old end was written", small - 64, 64, gen=2)
    device.detach()
    again = attach(device.backing, "/dev/hdc")
    again.check_extent()
    again.verify(0, 4096).require("reading what was written before the disk grew")


@pytest.mark.claim("Closing and Closed of the backend are only logged", SOURCES)
@pytest.mark.claim("block-detach, blue screen", HISTORY)
@pytest.mark.smoke
@pytest.mark.cost(attach=2, detach=1, dom0=8, command=10)
def test_detached_disk_is_gone(installed_driver, disk_on, attach, guest, lab):
    device = disk_on("/dev/hdc", sectors=16384)
    device.write(0, 1024).require("writing")
    device.detach()

    def gone():
        disks = {disk.number for disk in guest.disks.list(lab.deadline("command"), rescan=True)}
        if device.number in disks:
            raise NotYet(f"disk {device.number} is still listed")

    wait_for("a detached disk to leave the guest's list", gone, lab.deadline("attach"))
    device.check_in_dom0("it was written before the detach", 0, 1024)
    again = attach(device.backing, "/dev/hdc")
    again.verify(0, 1024).require("reading what was written before the detach")


@pytest.mark.claim("block-detach, blue screen", HISTORY)
@pytest.mark.cost(attach=2, detach=1, dom0=8, command=20)
def test_detach_under_io(installed_driver, disk_on, attach, lab, still_the_same_boot):
    device = disk_on("/dev/hdc", sectors=16384)
    job = device.start(0, 4096, threads=2, order="random")
    job.wait_busy(lab.deadline("boot"))
    device.detach()
    # Whatever was under way is answered, with an error if need be: nothing hangs for ever.
    ended = job.result(lab.deadline("boot"))
    assert not ended.mismatches, f"before it went, the disk returned wrong data: {ended.words}"
    assert ended.errors, "requests to a disk that is gone were answered with success"
    still_the_same_boot()
    again = attach(device.backing, "/dev/hdc")
    again.exercise(0, 4096, gen=7).require("using the disk after it came back")
    again.check_in_dom0("it was written after it came back", 0, 4096, gen=7)


@pytest.mark.claim("file: does what phy: does", ANNOUNCED)
@pytest.mark.cost(attach=1, dom0=12, command=12, mib=4)
def test_file_instead_of_volume(installed_driver, attach, backings, lab):
    backing = backings.file(16387, lab.deadline("command"))
    device = attach(backing, "/dev/hdc")
    assert device.length() == backing.sectors
    device.exercise(0, 4096, threads=2, order="random", block=200).require("using a file")
    device.flush().require("flushing")
    device.check_in_dom0("it was written and flushed", 0, 4096)
