"""What is written to a disk is on the disk, there and nowhere else, and can be read again."""

from __future__ import annotations

import hashlib

import pytest

from lab.core.errors import LabBroken
from lab.suite.intensity import Count

pytestmark = pytest.mark.area("data")

HISTORY = "crashes that the driver's history reports"
SOURCES = "read from the driver's sources of 2007-11-19, unproven"
ANNOUNCED = "xen-devel, 2007-11-09: third release of GPL'd PV drivers for Windows (0.0.3)"
FLUSH = "public/io/blkif.h: BLKIF_OP_FLUSH_DISKCACHE and BLKIF_OP_WRITE_BARRIER"

LETTER = "X"
ORIGINAL = r"C:\pvlab\pattern.bin"
COPY = rf"{LETTER}:\pattern.bin"

# More would cost minutes on the way into an emulated guest; this much still needs several
# requests of every size. Raw I/O, whose data is made in the guest, moves far more.
PATTERN = hashlib.shake_256(b"pvlab").digest(192 * 1024)

MIB = 2048  # in sectors
CONCURRENT_MIB = Count(64, smoke=8, tcg=40)


@pytest.fixture
def fill(guest, lab, run_in_guest):
    """Formats a volume and puts the pattern on it.

    The pattern goes through the system disk first: were it damaged on its way into the guest,
    the lab would find out there, and not blame the driver.
    """

    def fill(letter=LETTER, file_system="ntfs"):
        guest.disks.format(letter, lab.deadline("command"), file_system=file_system)
        guest.files.put_bytes(PATTERN, ORIGINAL, lab.deadline("command"))
        run_in_guest(f'copy /y "{ORIGINAL}" "{letter}:\\pattern.bin"')

    return fill


@pytest.mark.smoke
@pytest.mark.claim("concurrent unaligned I/O, crash", HISTORY)
@pytest.mark.cost(attach=1, dom0=6, mib=10)
def test_unaligned_requests(installed_driver, disk_on, still_the_same_boot):
    device = disk_on(sectors=8 * MIB)
    # Sizes and places that are no multiple of a page, from buffers that begin inside one; the
    # sectors around them must stay as they are.
    device.write(0, 1 * MIB, gen=1).require("writing whole pages")
    device.exercise(
        3, MIB - 7, gen=2, gens=2, block=13, threads=4, order="random", shift=True
    ).require("writing and reading unaligned requests at once")
    device.check_in_dom0("unaligned requests were written", 3, MIB - 7, gen=3)
    device.check_in_dom0("unaligned requests went around them", 0, 3, gen=1)
    device.check_in_dom0("unaligned requests went around them", MIB - 4, 4, gen=1)
    device.verify(3, MIB - 7, gen=3, block=1, threads=2).require("reading sector by sector")
    still_the_same_boot()


@pytest.mark.claim("RING IS FULL - EXPECT BADNESS", "what checked builds print")
@pytest.mark.cost(attach=1, dom0=6, mib=26)
def test_requests_beyond_segments_and_ring(installed_driver, disk_on):
    device = disk_on(sectors=16 * MIB)
    # A request of the ring carries 11 pages at most: 44 KiB are 88 sectors. One of 1 MiB is
    # cut into many, and eight of them fill the 32 places of the ring.
    for gen, block in enumerate((87, 88, 89, 2048), 1):
        device.write(0, 2 * MIB, gen=gen, block=block, threads=8).require(
            f"writing {block} sectors a request, eight at once"
        )
        device.verify(0, 2 * MIB, gen=gen, block=2048, threads=8).require(
            f"reading what was written {block} sectors a request"
        )
    device.check_in_dom0("the last generation was written", 0, 2 * MIB, gen=4)


@pytest.mark.slow
@pytest.mark.claim("concurrent unaligned I/O, crash", HISTORY)
@pytest.mark.claim("xenvbd race, blue screen", HISTORY)
@pytest.mark.cost(attach=1, dom0=10, mib=CONCURRENT_MIB)
def test_concurrent_requests(installed_driver, disk_on, intensity, still_the_same_boot):
    mib = intensity.count(CONCURRENT_MIB)
    device = disk_on(sectors=8 * MIB)
    gens = max(1, mib // 4)
    device.exercise(
        1, 4 * MIB - 2, gens=gens, block=64, threads=8, order="random", shift=True
    ).require(f"writing and reading {gens} times, eight requests at once")
    device.check_in_dom0("it was written by many at once", 1, 4 * MIB - 2, gen=gens)
    still_the_same_boot()


@pytest.mark.claim("several block devices can be added", ANNOUNCED)
@pytest.mark.cost(attach=2, dom0=8, mib=8, command=20)
def test_two_disks_at_once(installed_driver, disk_on, lab):
    devices = [disk_on("/dev/hdc", sectors=4 * MIB), disk_on("/dev/hdd", sectors=4 * MIB)]
    jobs = [
        device.start(0, MIB, gens=3, seed=seed, threads=2, order="random", shift=True)
        for seed, device in enumerate(devices, 1)
    ]
    for job, device in zip(jobs, devices, strict=True):
        job.result(lab.deadline("boot")).require(f"using {device.spec.vdev} with the other")
    for seed, device in enumerate(devices, 1):
        device.check_in_dom0("both disks were written at once", 0, MIB, gen=3, seed=seed)


@pytest.mark.smoke
@pytest.mark.claim("a flush makes durable what was written before it", FLUSH)
@pytest.mark.cost(attach=1, dom0=8, command=6)
def test_flush_reaches_the_medium(installed_driver, attach, backings, lab):
    cached = backings.cached(2 * MIB, lab.deadline("command"))
    device = attach(cached.disk, "/dev/hdc")
    device.write(0, 512, gen=1).require("writing without a flush")
    if not cached.medium.wrong(0, 512, lab.deadline("command"), gen=1):
        raise LabBroken("the disk's write cache wrote back by itself: a flush shows nothing")
    device.flush().require("flushing")
    lost = cached.medium.wrong(0, 512, lab.deadline("command"), gen=1)
    assert not lost, f"a flush was answered with success, a power cut would leave: {lost}"
    device.write(512, 512, gen=2, flush=True).require("writing and flushing")
    lost = cached.medium.wrong(512, 512, lab.deadline("command"), gen=2)
    assert not lost, f"a second flush was answered with success, a power cut would leave: {lost}"


@pytest.mark.destructive
@pytest.mark.claim("a flush makes durable what was written before it", FLUSH)
@pytest.mark.cost(attach=1, dom0=8, command=20, mib=4)
def test_power_cut_of_the_guest(installed_driver, disk_on, place, guest, lab):
    device = disk_on(sectors=4 * MIB)
    device.write(0, MIB, gen=1, flush=True).require("writing")
    job = device.start(0, MIB, gen=2, threads=2, order="random")
    job.wait_busy(lab.deadline("boot"))
    known = job.generations(lab.deadline("command")) + 1
    guest.crash.retire()
    place.toolstack.destroy(place.domain, lab.deadline("command"))
    generations, strange = device.backing.written(0, MIB, lab.deadline("boot"))
    assert not strange, f"after a power cut there are sectors that nobody wrote: {strange}"
    # Each generation was flushed before its number was told.
    assert min(generations) >= known, (
        f"generation {known} was flushed before the power cut, there is {sorted(generations)}"
    )


@pytest.mark.smoke
@pytest.mark.claim("NTFS format fails", HISTORY)
@pytest.mark.cost(attach=1, partition=1, format=1, transfer=3, command=4)
def test_file_reads_back_as_written(installed_driver, block_device, guest, lab, fill, run_in_guest):
    device = block_device(64, "/dev/hdc", "w")
    guest.disks.partition(device.disk.number, LETTER, lab.deadline("command"))
    fill()
    run_in_guest(f'fc /b "{ORIGINAL}" "{COPY}"')
    volume = next(v for v in guest.disks.volumes(lab.deadline("command")) if v.letter == LETTER)
    assert volume.file_system == "NTFS"


@pytest.mark.slow
@pytest.mark.claim("NTFS format fails", HISTORY)
@pytest.mark.cost(attach=1, partition=3, format=2, transfer=4, command=10, dom0=4)
def test_two_partitions_and_file_systems(
    installed_driver, disk_on, guest, place, lab, fill, run_in_guest
):
    device = disk_on(sectors=160 * MIB)
    guest.disks.script(
        [
            f"select disk {device.number}",
            "clean",
            "create partition primary size=48",
            "assign letter=X",
            "create partition primary size=64",
            "assign letter=Y",
        ],
        lab.deadline("command"),
        disk=device.number,
    )
    parts = guest.disks.partitions(device.number, lab.deadline("command"))
    assert len(parts) == 2, f"two partitions were made, there are {len(parts)}"
    fill("X", "ntfs")
    fill("Y", "fat32")
    for letter in "XY":
        run_in_guest(f'fc /b "{ORIGINAL}" "{letter}:\\pattern.bin"')
        run_in_guest(f"mountvol {letter}: /p")
    # dom0 stands in for another guest: its own drivers for partitions and file systems find
    # the same files.
    want = hashlib.sha1(PATTERN, usedforsecurity=False).hexdigest()
    for number, mount in ((1, "mount -t ntfs-3g -o ro"), (2, "mount -t vfat -o ro")):
        result = place.dom0.run(
            f"modprobe -a fuse vfat nls_cp437 nls_ascii 2>/dev/null; set -- "
            f"$(partx -g -o START,SECTORS -n {number} {device.backing.path}); "
            f"loop=$(losetup -f --show -r -o $(($1 * 512)) --sizelimit $(($2 * 512)) "
            f"{device.backing.path}) && {mount} $loop /mnt && sha1sum /mnt/pattern.bin; "
            "umount /mnt; losetup -d $loop",
            lab.deadline("command"),
        )
        assert result.stdout.startswith(want), (
            f"partition {number} holds another file for dom0: {result.stdout}{result.stderr}"
        )


@pytest.mark.claim("NTFS format fails", HISTORY)
@pytest.mark.cost(attach=1, partition=3, format=1, transfer=3, command=10)
def test_partitions_come_go_and_grow(installed_driver, disk_on, guest, lab, fill, run_in_guest):
    device = disk_on(sectors=96 * MIB)

    def script(*lines):
        guest.disks.script(
            [f"select disk {device.number}", *lines], lab.deadline("command"), disk=device.number
        )

    def sizes():
        found = guest.disks.partitions(device.number, lab.deadline("command"))
        return [part.size_bytes >> 20 for part in found]

    script("clean", "create partition primary size=16", "create partition primary size=24")
    assert len(sizes()) == 2
    script("select partition 2", "delete partition")
    assert len(sizes()) == 1
    script("select partition 1", "assign letter=X", "extend size=32")
    (size,) = sizes()
    # Partitions end at cylinders, of about 8 MiB.
    assert 47 <= size <= 64, f"a partition of 16 MiB was extended by 32 MiB and has {size} MiB"
    fill()
    run_in_guest(f'fc /b "{ORIGINAL}" "{COPY}"')


@pytest.mark.slow
@pytest.mark.claim("Closing and Closed of the backend are only logged", SOURCES)
@pytest.mark.cost(attach=2, detach=1, partition=1, format=1, transfer=3, command=10)
def test_files_survive_detach_and_attach(
    installed_driver, block_device, guest, lab, fill, run_in_guest
):
    device = block_device(64, "/dev/hdc", "w")
    guest.disks.partition(device.disk.number, LETTER, lab.deadline("command"))
    fill()
    # Dismounting writes out what is cached; a disk pulled without it may lose data rightly.
    run_in_guest(f"mountvol {LETTER}: /p")
    device.detach()

    device.attach_again()
    number = device.disk.number
    detail = guest.disks.detail(number, lab.deadline("command"))
    if LETTER not in [volume.letter for volume in detail.volumes]:
        guest.disks.script(
            [f"select disk {number}", "select partition 1", f"assign letter={LETTER}"],
            lab.deadline("command"),
            disk=number,
        )
    # Reads everything from the disk: nothing of it can be cached since the disk was away.
    run_in_guest(f'fc /b "{ORIGINAL}" "{COPY}"')
    run_in_guest(f"chkdsk {LETTER}:")
