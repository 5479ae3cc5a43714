"""Volumes as the disk tools list them: C: and every partition of every disk."""

import os

from standin import mbr
from standin.filesystems import RAW, Probe, probe

#: Units of diskpart's size column.
_UNITS = ("B ", "KB", "MB", "GB", "TB")


def size_text(size):
    """A size in diskpart's seven columns, such as ``  75 GB``.

    The number is rounded to the nearest and kept below 10000, as a real session of that
    version shows (80026361856 bytes are ``75 GB``, 8225280 bytes ``8033 KB``).
    """
    unit = 0
    value = size
    while round(value) >= 10000 and unit < len(_UNITS) - 1:
        value /= 1024
        unit += 1
    if unit == 0 and value:
        value, unit = value / 1024, 1
    number = int(value + 0.5)
    text = f"{number} {_UNITS[unit]}".rstrip() if unit == 0 else f"{number} {_UNITS[unit]}"
    return f"{text:>7}"


class Volume:
    """One volume.

    Attributes:
        number: diskpart's number.
        letter: drive letter or empty.
        label, fs: texts; ``fs`` is empty for RAW.
        size: bytes.
        info: ``System`` or empty.
        disk, partition: the ``Disk`` and ``mbr.Partition``; ``None`` for C.
        healthy: whether it could be read.
    """

    def __init__(self, number, letter, found, size, info, disk, partition, healthy=True):
        self.number = number
        self.letter = letter
        self.label = found.label
        self.fs = "" if found.fs == RAW else found.fs
        self.size = size
        self.info = info
        self.disk = disk
        self.partition = partition
        self.healthy = healthy


def table_of(disk):
    """A disk's partition table; an unreadable disk has an invalid, empty one."""
    try:
        return disk.table()
    except OSError:
        return mbr.Table(valid=False)


def volumes(system):
    """All volumes, in diskpart's order."""
    usage = os.statvfs(system.config.c_root)
    found = [
        Volume(
            0,
            "C",
            Probe(system_fs(system)),
            usage.f_blocks * usage.f_frsize,
            "System",
            None,
            None,
        )
    ]
    for disk in system.disks.scan():
        if disk.is_system:
            continue  # it is behind C:, whose folder is what counts
        for partition in table_of(disk).partitions:
            if partition.kind in mbr.TYPES_EXTENDED:
                continue
            letter = system.letters.of(disk, partition.number)
            healthy = True
            try:
                content = probe(disk.partition_device(partition.number))
            except OSError:
                content, healthy = Probe(RAW), False
            found.append(
                Volume(
                    len(found),
                    letter.letter if letter else "",
                    content,
                    partition.sectors * disk.sector_size,
                    "",
                    disk,
                    partition,
                    healthy,
                )
            )
    return found


def system_fs(system):
    """The real file system under C:\\, in upper case: the stand-in's is not NTFS."""
    best, kind = "", "rootfs"
    root = os.path.realpath(system.config.c_root)
    try:
        with open(os.path.join(system.config.proc_root, "self/mounts"), encoding="utf-8") as file:
            for line in file:
                words = line.split()
                folder = words[1].rstrip("/")
                if (root + "/").startswith(folder + "/") and len(folder) >= len(best):
                    best, kind = folder, words[2]
    except OSError:
        pass
    return kind.upper()[:5]
