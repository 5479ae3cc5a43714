"""Floppy images of 1.44 MB, as Setup reads its answer file from.

An own writer: pyfatfs chooses a layout of its own, and Windows' floppy driver takes a disk's
geometry from the very numbers of the standard one; mtools would need the secret in a file of
its own. It writes a flat root folder and no more.

Source of the layout: Microsoft, "FAT: General Overview of On-Disk Format" 1.03: boot sector and
BPB, FAT12 entries, directory entries. The numbers are those of 3.5-inch disks with 1440 KiB.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping

SECTOR = 512
SECTORS = 2880
SIZE = SECTOR * SECTORS
_RESERVED, _FATS, _ROOT_ENTRIES, _FAT_SECTORS, _MEDIA = 1, 2, 224, 9, 0xF0
_TRACK, _HEADS = 18, 2
_ROOT = _RESERVED + _FATS * _FAT_SECTORS
_DATA = _ROOT + _ROOT_ENTRIES * 32 // SECTOR
CLUSTERS = SECTORS - _DATA
"""Clusters of one sector each that hold data."""

_LAST = 0xFFF
_NAME = re.compile(r"[A-Z0-9$_~-]{1,8}(\.[A-Z0-9$_~-]{1,3})?")
_ARCHIVE, _VOLUME = 0x20, 0x08
# 2003-03-28, 00:00: day, month and year since 1980 in 5, 4 and 7 bits.
_DATE = 28 | 3 << 5 | 23 << 9

# What the BIOS runs when the machine is started from it: nothing, and on to the next device
# (int 18h).
_BOOT_CODE = b"\xcd\x18\xeb\xfe"


def make_floppy(
    files: Mapping[str, bytes], *, label: str = "PVLAB", serial: int = 0x20030502
) -> bytes:
    """The image of a floppy.

    Args:
        files: by name, 8.3 and in upper case, all in the root folder.
        label: volume label.
        serial: volume serial number.

    Returns:
        1474560 bytes.

    Raises:
        ValueError: a name does not fit 8.3, or the files do not fit the disk.
    """
    fat = [_MEDIA | 0xF00, _LAST]
    folder = struct.pack("<11sB10xHHHI", label.encode("ascii").ljust(11), _VOLUME, 0, _DATE, 0, 0)
    data = bytearray()
    if len(files) >= _ROOT_ENTRIES:
        raise ValueError(f"{len(files)} files do not fit a floppy's root folder")
    for name, content in files.items():
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name} is no 8.3 name in upper case")
        first = len(fat) if content else 0
        clusters = -(-len(content) // SECTOR)
        if len(fat) + clusters > CLUSTERS + 2:
            raise ValueError(f"the files do not fit a floppy: {name} is too large")
        fat += [len(fat) + number + 1 for number in range(clusters - 1)]
        if content:
            fat.append(_LAST)
        data += content.ljust(clusters * SECTOR, b"\0")
        stem, _, extension = name.partition(".")
        folder += struct.pack(
            "<11sB10xHHHI",
            f"{stem:8}{extension:3}".encode("ascii"),
            _ARCHIVE,
            0,
            _DATE,
            first,
            len(content),
        )
    table = _packed(fat).ljust(_FAT_SECTORS * SECTOR, b"\0")
    parts = _boot_sector(label, serial) + table * _FATS
    parts += folder.ljust(_ROOT_ENTRIES * 32, b"\0") + bytes(data)
    return parts.ljust(SIZE, b"\0")


def _boot_sector(label: str, serial: int) -> bytes:
    bpb = struct.pack(
        "<HBHBHHBHHHII",
        SECTOR, 1, _RESERVED, _FATS, _ROOT_ENTRIES, SECTORS, _MEDIA, _FAT_SECTORS,
        _TRACK, _HEADS, 0, 0,
    )  # fmt: skip
    extended = struct.pack(
        "<BBBI11s8s", 0, 0, 0x29, serial, label.encode("ascii").ljust(11), b"FAT12   "
    )
    head = b"\xeb\x3c\x90MSDOS5.0" + bpb + extended
    return (head + _BOOT_CODE).ljust(SECTOR - 2, b"\0") + b"\x55\xaa"


def _packed(entries: list[int]) -> bytes:
    """FAT12 entries, two in three bytes."""
    if len(entries) % 2:
        entries = [*entries, 0]
    packed = bytearray()
    for low, high in zip(entries[::2], entries[1::2], strict=True):
        packed += (low | high << 12).to_bytes(3, "little")
    return bytes(packed)
