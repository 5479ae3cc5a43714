"""A disk that a PC BIOS starts: MBR, a FAT partition with SYSLINUX, and a root partition.

Booting from a disk costs an emulated HVM guest a fraction of what direct kernel boot does:
the disk is read by DMA, while QEMU's boot ROM reads the kernel byte by byte through a port.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

from lab.images.context import BuildContext

SECTOR = 512
MIB = 1 << 20
_BOOT_MIB = 48
# Partition types (the "System ID" byte): FAT16 and Linux.
_FAT16 = 0x06
_LINUX = 0x83
#: Installed by Debian's syslinux-common.
MBR_CODE = Path("/usr/lib/syslinux/mbr/mbr.bin")


def _entry(active: bool, kind: int, first: int, count: int) -> bytes:
    """A partition table entry with "see LBA" cylinder fields (0xfe, 0xff, 0xff)."""
    limit = b"\xfe\xff\xff"
    return struct.pack("<B3sB3sII", 0x80 if active else 0, limit, kind, limit, first, count)


def make_bootdisk(
    ctx: BuildContext, target: Path, *, boot_files: Mapping[str, Path], root: Path
) -> None:
    """Write a raw disk image.

    Args:
        ctx: the build.
        target: the image, sparse.
        boot_files: files of the FAT partition by name, ``syslinux.cfg`` among them.
        root: raw filesystem image that becomes the second partition.
    """
    fat = ctx.scratch / f"{target.name}.fat"
    with fat.open("wb") as file:
        file.truncate(_BOOT_MIB * MIB)
    ctx.run(["mkfs.fat", "-F", "16", "-n", "BOOT", fat])
    ctx.run(["syslinux", fat])
    for name, source in boot_files.items():
        ctx.run(["mcopy", "-i", fat, source, f"::{name}"])
    first = MIB // SECTOR
    boot_sectors = _BOOT_MIB * MIB // SECTOR
    root_sectors = root.stat().st_size // SECTOR
    table = _entry(True, _FAT16, first, boot_sectors)
    table += _entry(False, _LINUX, first + boot_sectors, root_sectors)
    with target.open("wb") as disk:
        disk.truncate((first + boot_sectors + root_sectors) * SECTOR)
        disk.write(MBR_CODE.read_bytes()[:440].ljust(446, b"\0") + table + bytes(32) + b"\x55\xaa")
    for part, offset in ((fat, 1), (root, 1 + _BOOT_MIB)):
        ctx.run(["dd", f"if={part}", f"of={target}", "bs=1M", f"seek={offset}",
                 "conv=notrunc,sparse", "status=none"])  # fmt: skip
    fat.unlink()
