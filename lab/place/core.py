"""The size of an ELF core that was written to a disk, which has no end of file."""

from __future__ import annotations

import struct
from typing import BinaryIO

from lab.core.errors import LabBroken

# ELF header (System V ABI, chapter 4; Xen docs/misc/dump-core-format.txt: ELF64 for the guests
# of a 64-bit hypervisor, ELF32 before): offsets of e_shoff, e_shentsize and e_shnum, and of
# sh_offset and sh_size in a section header, with their formats.
_CLASSES = {
    1: ("<I", 0x20, 0x2E, 0x10, 0x14),
    2: ("<Q", 0x28, 0x3A, 0x18, 0x20),
}


def core_size(file: BinaryIO) -> int:
    """Bytes from the start of the file to the end of its last section.

    Args:
        file: positioned anywhere; seekable.

    Raises:
        LabBroken: it does not start with an ELF header, or that makes no sense.
    """
    file.seek(0)
    header = file.read(64)
    if header[:4] != b"\x7fELF" or header[4] not in _CLASSES or len(header) < 64:
        raise LabBroken("the toolstack wrote no ELF core")
    word, table_at, counts_at, offset_at, size_at = _CLASSES[header[4]]
    (table,) = struct.unpack_from(word, header, table_at)
    entry_size, count = struct.unpack_from("<HH", header, counts_at)
    end: int = table + entry_size * count
    for index in range(count):
        file.seek(table + index * entry_size)
        section = file.read(entry_size)
        if len(section) < size_at + struct.calcsize(word):
            raise LabBroken("the core's section table is cut off")
        (offset,) = struct.unpack_from(word, section, offset_at)
        (size,) = struct.unpack_from(word, section, size_at)
        end = max(end, offset + size)
    return end
