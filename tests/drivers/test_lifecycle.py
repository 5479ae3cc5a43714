"""The driver comes, goes, and comes back, and its disks and their data with it."""

from __future__ import annotations

import re
import shutil

import pytest

from lab.core.errors import DeadlineExpired, DriverFailure, LabBroken
from lab.guest.diskio import REQUESTS
from lab.guest.driverstore import DeviceState
from lab.suite import lifecycle
from lab.suite.intensity import Count
from lab.suite.leaks import grown, settled
from lab.xen import vbd

pytestmark = pytest.mark.area("lifecycle")

ANNOUNCED = "xen-devel, 2007-11-09: third release of GPL'd PV drivers for Windows (0.0.3)"
HISTORY = "crashes that the driver's history reports"
BOOT = "domain facts: without /gplpv only devices attached after boot are picked up"

MIB = 2048  # in sectors
REBOOTS = Count(20, smoke=1, soak=100, tcg=2)
TOGGLES = Count(20, smoke=2, tcg=6)
SAVES = Count(5, smoke=1, tcg=1)
SLOW_MS = 8000
PROCESSORS = 2


@pytest.fixture
def find_disk(lab, disk_of):
    """Looks for a device's disk again: numbers change over a restart."""

    def find(device):
        device.number = disk_of(device.sectors, lab.deadline("attach"))

    return find


@pytest.fixture
def disks_are_gone(place, lab, disk_numbers):
    """Checks that a driver that was stopped has let go of everything."""

    def check(*devices):
        left = disk_numbers() & {device.number for device in devices}
        assert not left, f"the driver is not running and disks are left: {sorted(left)}"
        for device in devices:
            now = vbd.read(
                place.xenstore, place.domain.domid, device.vbd.devid, lab.deadline("command")
            )
            state = now.frontend.state.name if now else "gone"
            assert state in ("CLOSED", "INITIALISING", "gone"), (
                f"the driver is not running, its end of {device.spec.vdev} is {state}"
            )

    return check


@pytest.mark.slow
@pytest.mark.claim("AutoEnumerate: disks are there after a boot", BOOT)
@pytest.mark.cost(attach=1, dom0=10, command=20, reboot=REBOOTS, mib=2)
def test_reboot(installed_driver, disk_on, place, guest, lab, intensity, find_disk):
    if place.drive_c_in_memory:
        pytest.skip("drive C: of this guest is in its memory: the driver is lost with a restart")
    device = disk_on("/dev/hdc", sectors=4 * MIB + 3)
    device.write(0, 512, gen=1, flush=True).require("writing before the restart")
    for gen in range(1, intensity.count(REBOOTS) + 1):
        lifecycle.reboot(place, lab.deadline("boot"))
        for hardware_id in installed_driver.devices:
            for status in guest.drivers.status(hardware_id, lab.deadline("command")):
                assert status.state is DeviceState.RUNNING, f"{status.instance}: {status.state}"
        find_disk(device)
        device.verify(0, 512, gen=gen).require(f"reading after restart {gen}")
        device.write(0, 512, gen=gen + 1, flush=True).require(f"writing after restart {gen}")
    device.check_in_dom0("it was written after a restart", 0, 512, gen=gen + 1)


@pytest.mark.slow
@pytest.mark.claim("more than one vCPU, crash", HISTORY)
@pytest.mark.cost(attach=2, dom0=14, command=20, shutdown=1, reboot=1, mib=10)
def test_several_processors(
    installed_driver, disk_on, place, guest, lab, find_disk, still_the_same_boot
):
    if place.drive_c_in_memory:
        pytest.skip("drive C: of this guest is in its memory: the driver is lost with a restart")
    lifecycle.start_with(place, {"vcpus": PROCESSORS}, lab.deadline("boot"))
    seen = guest.channel.run("echo %NUMBER_OF_PROCESSORS%", lab.deadline("command")).stdout
    if seen.strip() != str(PROCESSORS):
        raise LabBroken(f"the guest was given {PROCESSORS} processors and has {seen.strip()}")
    for hardware_id in installed_driver.devices:
        for status in guest.drivers.status(hardware_id, lab.deadline("command")):
            assert status.state is DeviceState.RUNNING, f"{status.instance}: {status.state}"
    device = disk_on("/dev/hdc", sectors=8 * MIB)
    other = disk_on("/dev/hdd", sectors=4 * MIB)
    job = other.start(0, 1024, threads=4, order="random", shift=True)
    job.wait_busy(lab.deadline("boot"))
    device.exercise(
        1, 2 * MIB - 2, gens=2, block=64, threads=8, order="random", shift=True
    ).require("writing and reading on several processors")
    ended = job.end(lab.deadline("boot")).require("using another disk meanwhile")
    other.check_in_dom0("several processors wrote", 0, 1024, gen=max(ended.generations))
    device.check_in_dom0("several processors wrote", 1, 2 * MIB - 2, gen=2)
    device.detach()
    still_the_same_boot()


@pytest.mark.destructive
@pytest.mark.claim("shutdown, 0x9F", HISTORY)
@pytest.mark.cost(attach=1, dom0=8, command=12, shutdown=1, mib=2)
def test_shutdown_under_io(installed_driver, disk_on, place, lab, went_down_in_order):
    device = disk_on("/dev/hdc", sectors=4 * MIB)
    device.write(0, MIB, gen=1, flush=True).require("writing")
    job = device.start(0, MIB, gen=2, threads=2, order="random")
    job.wait_busy(lab.deadline("boot"))
    known = job.generations(lab.deadline("command")) + 1
    lifecycle.power_off(place, lab.deadline("boot"))
    # A guest that bugchecks while it goes down has not shut down.
    went_down_in_order()
    generations, strange = device.backing.written(0, MIB, lab.deadline("boot"))
    assert not strange, f"after the shutdown there are sectors that nobody wrote: {strange}"
    assert min(generations) >= known, f"generation {known} was flushed, found {generations}"


@pytest.mark.claim("save/restore, races and deadlocks", HISTORY)
@pytest.mark.cost(attach=2, dom0=14, command=20, save=SAVES, restore=SAVES, mib=2)
def test_save_and_restore(installed_driver, disk_on, place, lab, intensity, disk_numbers):
    device = disk_on("/dev/hdc", sectors=4 * MIB)
    device.write(0, 1024, gen=1).require("writing")
    before = disk_numbers()
    for gen in range(1, intensity.count(SAVES) + 1):
        lifecycle.save(place, lab.deadline("boot"))
        device.check_in_dom0("it was written before the guest was saved", 0, 1024, gen=gen)
        lifecycle.restore(place, lab.deadline("boot"))
        assert disk_numbers() == before, "after the restore the guest has other disks"
        device.verify(0, 1024, gen=gen).require("reading after the restore")
        device.write(0, 1024, gen=gen + 1).require("writing after the restore")
    device.check_in_dom0("it was written after the restore", 0, 1024, gen=gen + 1)
    other = disk_on("/dev/hdd")
    other.exercise(0, 512).require("using a disk attached after the restore")


@pytest.mark.slow
@pytest.mark.claim("save/restore, races and deadlocks", HISTORY)
@pytest.mark.cost(attach=1, dom0=10, command=30, save=SAVES, restore=SAVES, mib=8)
def test_save_and_restore_under_io(installed_driver, disk_on, place, lab, intensity):
    device = disk_on("/dev/hdc", sectors=4 * MIB)
    job = device.start(0, MIB, threads=8, order="random", block=64, shift=True)
    for _ in range(intensity.count(SAVES)):
        job.wait_busy(lab.deadline("boot"))
        lifecycle.save(place, lab.deadline("boot"))
        lifecycle.restore(place, lab.deadline("boot"))
        # Requests that were under way are answered, once: the writer checks all it wrote.
        job.wait_busy(lab.deadline("boot"))
    ended = job.end(lab.deadline("boot")).require("writing and reading across save and restore")
    device.check_in_dom0(
        "it was written across save and restore", 0, MIB, gen=max(ended.generations)
    )


@pytest.mark.slow
@pytest.mark.claim("save/restore, races and deadlocks", HISTORY)
@pytest.mark.cost(attach=1, dom0=16, command=30, save=1, restore=1, mib=2, seconds=25)
def test_requests_under_way_survive_a_save(installed_driver, disk_on, place, lab):
    # So slow a disk that the guest is saved before its requests are answered.
    device = disk_on("/dev/hdc", sectors=4 * MIB)
    job = device.start(0, 512, threads=8, order="random", block=64, overlapped=True)
    job.wait_busy(lab.deadline("boot"))
    device.backing.delay(SLOW_MS, lab.deadline("command"))
    lifecycle.save(place, lab.deadline("boot"))
    device.backing.heal(lab.deadline("command"))
    lifecycle.restore(place, lab.deadline("boot"))
    try:
        job.wait_busy(lab.deadline("attach"))
    except DeadlineExpired as late:
        raise DriverFailure(
            f"requests that were under way in the saved guest never end: {late.message}",
            stuck=REQUESTS,
        ) from late
    ended = job.end(lab.deadline("boot")).require("requests under way across save and restore")
    device.check_in_dom0("it was under way in a save", 0, 512, gen=max(ended.generations))


@pytest.mark.slow
@pytest.mark.claim("no migration or suspend/resume", ANNOUNCED)
@pytest.mark.cost(attach=1, dom0=10, command=20, save=1, restore=1, mib=6)
def test_migration_under_io(installed_driver, disk_on, place, lab):
    device = disk_on("/dev/hdc", sectors=4 * MIB)
    job = device.start(0, 1024, threads=4, order="random", block=64, shift=True)
    job.wait_busy(lab.deadline("boot"))
    lifecycle.migrate(place, lab.deadline("boot"))
    job.wait_busy(lab.deadline("boot"))
    ended = job.end(lab.deadline("boot")).require("writing and reading across a migration")
    device.check_in_dom0("it was written across a migration", 0, 1024, gen=max(ended.generations))


@pytest.mark.claim("a paused guest goes on where it was", HISTORY)
@pytest.mark.cost(attach=1, dom0=14, command=20, mib=4)
def test_pause_under_io(installed_driver, disk_on, place, lab, still_the_same_boot):
    device = disk_on("/dev/hdc", sectors=4 * MIB)
    job = device.start(0, 1024, threads=4, order="random")
    for _ in range(3):
        job.wait_busy(lab.deadline("boot"))
        place.toolstack.pause(place.domain, lab.deadline("command"))
        # dom0 answers what the guest has asked for meanwhile.
        device.backing.digest(0, 1024, lab.deadline("command"))
        place.toolstack.unpause(place.domain, lab.deadline("command"))
    job.wait_busy(lab.deadline("boot"))
    ended = job.end(lab.deadline("boot")).require("writing and reading across pauses")
    device.check_in_dom0("it was written across pauses", 0, 1024, gen=max(ended.generations))
    still_the_same_boot()


@pytest.mark.smoke
@pytest.mark.claim("unload or disable, crash", HISTORY)
@pytest.mark.cost(attach=1, dom0=20, command=40, driver=TOGGLES)
def test_disable_and_enable(
    installed_driver, disk_on, place, guest, lab, intensity, find_disk, disks_are_gone,
    still_the_same_boot,
):  # fmt: skip
    device = disk_on("/dev/hdc", sectors=4 * MIB + 5)
    hardware_id = installed_driver.devices[-1]
    device.write(0, 512, gen=1, flush=True).require("writing")
    before = None
    cycles = intensity.count(TOGGLES)
    for gen in range(1, cycles + 1):
        off = guest.drivers.disable(hardware_id, lab.deadline("attach"))
        assert not off.reboot_needed, f"disable {gen}: the driver does not stop without a reboot"
        disks_are_gone(device)
        # Counted with the driver off: its front end keeps as many pages granted as it once had
        # requests under way.
        if gen == 1:
            before = settled(place, lab.deadline("attach"))
        elif gen == cycles:
            leaked = grown(place, before, lab.deadline("attach"), by=max(2, cycles // 2))
            assert not leaked, f"after {cycles} times off and on there is more of: {leaked}"
        on = guest.drivers.enable(hardware_id, lab.deadline("attach"))
        assert not on.reboot_needed, f"enable {gen} asks for a reboot"
        find_disk(device)
        device.verify(0, 512, gen=gen).require(f"reading after enable {gen}")
        device.write(0, 512, gen=gen + 1, flush=True).require(f"writing after enable {gen}")
    still_the_same_boot()


@pytest.mark.claim("does not unload", ANNOUNCED)
@pytest.mark.claim("unload or disable, crash", HISTORY)
@pytest.mark.cost(attach=2, dom0=20, command=30, driver=2, install=1)
def test_remove_and_install_again(
    installed_driver, disk_on, driver_package, place, guest, lab, disks_are_gone, find_disk,
    still_the_same_boot,
):  # fmt: skip
    device = disk_on("/dev/hdc", sectors=4 * MIB + 7)
    device.exercise(0, 512).require("using the disk")
    removed = guest.drivers.remove(installed_driver.devices[-1], lab.deadline("attach"))
    assert not removed.reboot_needed, "the driver does not unload without a reboot"
    disks_are_gone(device)
    device.check_in_dom0("it was written before the driver went", 0, 512)
    guest.drivers.rescan(lab.deadline("command"))
    again = guest.drivers.install(driver_package, lab.deadline("boot"))
    assert not again.reboot_needed, "a second installation asks for a reboot"
    find_disk(device)
    device.verify(0, 512).require("reading after the driver came back")
    other = disk_on("/dev/hdd")
    other.exercise(0, 512).require("using a disk attached after the driver came back")
    still_the_same_boot()


@pytest.mark.claim("uninstall leaves nothing", ANNOUNCED)
@pytest.mark.cost(attach=1, dom0=20, command=10, driver=1)
def test_removed_driver_holds_nothing(place, guest, lab, driver_package, disk_on):
    before = settled(place, lab.deadline("attach"))
    with guest.crash.guard("the installation", lab.deadline("boot")):
        installed = guest.drivers.install(driver_package, lab.deadline("boot"))
    device = disk_on("/dev/hdc", sectors=4 * MIB)
    device.exercise(0, 2048, threads=4).require("using the disk")
    device.detach()
    removed = guest.drivers.remove(installed.devices[-1], lab.deadline("attach"))
    assert not removed.reboot_needed, "the driver does not unload without a reboot"

    leaked = grown(place, before, lab.deadline("attach"), of=("grants", "event_channels"))
    assert not leaked, f"the driver is gone and left {leaked}"


@pytest.mark.slow
@pytest.mark.claim("an upgrade and the way back keep disks and data", "the package itself")
@pytest.mark.cost(attach=1, dom0=10, command=30, driver=2, install=2)
def test_upgrade_and_back(
    installed_driver, disk_on, driver_package, guest, lab, find_disk, tmp_path,
    still_the_same_boot,
):  # fmt: skip
    from lab.drivers.package import DriverPackage

    newer = tmp_path / "newer"
    shutil.copytree(driver_package.folder, newer)
    inf = driver_package.infs[-1]
    path = newer / inf.path
    text = path.read_bytes().decode("latin-1")
    bumped, found = re.subn(r"(?m)^(DriverVer\s*=\s*[\d/]+\s*,\s*)([\d.]+)", r"\g<1>99.1.2.3", text)
    if not found:
        raise LabBroken(f"{inf.path} has no DriverVer to be raised")
    path.write_bytes(bumped.encode("latin-1"))
    device = disk_on("/dev/hdc", sectors=4 * MIB + 9)
    device.write(0, 512, flush=True).require("writing before the upgrade")
    hardware_id = installed_driver.devices[-1]
    for package, version in (
        (DriverPackage.load(newer, tmp_path / "copies"), "99.1.2.3"),
        (driver_package, inf.version),
    ):
        done = guest.drivers.install(package, lab.deadline("boot"))
        if done.reboot_needed:
            pytest.fail(f"the installation of {version} over another asks for a reboot")
        assert guest.drivers.version(hardware_id, lab.deadline("command")) == version
        find_disk(device)
        device.verify(0, 512).require(f"reading with {version}")
    device.exercise(0, 512, gen=2).require("using the disk after the way back")
    still_the_same_boot()
