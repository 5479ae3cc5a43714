"""Writes the core of an HVM guest; run in dom0 by its python3, over Xen's own libraries.

``xl dump-core`` maps the guest's memory page by page, which takes four to fifteen milliseconds a
page where the processor is emulated, minutes for the smallest guest. This maps a thousand at once.
The file has the same form (Xen, docs/misc/dump-core-format.txt), without ``.xen_shared_info``.

    python3 - DOMID FILE

It depends on nothing of the lab's and exits 3 where it cannot work: no such libraries, or a guest
whose pages have no numbers of its own. Nothing is written then.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Iterator, Sequence
from ctypes.util import find_library
from typing import TYPE_CHECKING, Protocol

PAGE = 4096
BATCH = 1024
#: Numbers of pages, in the order in which they are looked for: memory below the devices' hole,
#: what the firmware has in it (tools/libs/light, hvmloader/config.h), memory above 4 GiB.
RANGES = ((0, 0xF0000, True), (0xF0000, 0x100000, False), (0x100000, 1 << 28, True))
PAGES_AT = 0x10000
MAGIC_HVM = 0xF00FEBEE
#: Bytes of a vcpu_guest_context of x86-64 (xen/include/public/arch-x86/xen.h).
CONTEXT = 5168
MAX_VCPUS = 128
SHT_PROGBITS, SHT_STRTAB, SHT_NOTE = 1, 3, 7
CANNOT = 3


if TYPE_CHECKING:
    Errors = ctypes.Array[ctypes.c_int]


class Memory(Protocol):
    """A guest that can be looked at."""

    def contexts(self) -> list[bytes]:
        """The registers of each processor, as they are in ``.xen_prstatus``."""

    def mapped(self, first: int) -> tuple[int, Errors] | tuple[None, None]:
        """Map a batch of pages.

        Args:
            first: number of the first.

        Returns:
            Address, and an error number a page; (None, None) when none could be mapped.
        """

    def unmap(self, at: int) -> None:
        """Let go of a batch."""


class Xen:
    """The two libraries, opened.

    Args:
        domid: the guest.

    Raises:
        OSError: one is missing, or dom0 may not look at the guest.
    """

    def __init__(self, domid: int) -> None:
        self.domid = domid
        # xen-utils has libxenctrl beside its programs' other libraries, found by its full name.
        self.foreign = ctypes.CDLL(library("xenforeignmemory"), use_errno=True)
        self.control = ctypes.CDLL(library("xenctrl"), use_errno=True)
        for function in (self.foreign.xenforeignmemory_open, self.foreign.xenforeignmemory_map):
            function.restype = ctypes.c_void_p
        self.control.xc_interface_open.restype = ctypes.c_void_p
        self.memory = opened(self.foreign.xenforeignmemory_open(None, 0))
        self.interface = opened(self.control.xc_interface_open(None, None, 0))

    def contexts(self) -> list[bytes]:
        """See ``Memory``."""
        found = []
        for vcpu in range(MAX_VCPUS):
            context = ctypes.create_string_buffer(CONTEXT * 2)
            done = self.control.xc_vcpu_getcontext(
                ctypes.c_void_p(self.interface), ctypes.c_uint32(self.domid),
                ctypes.c_uint32(vcpu), context,
            )  # fmt: skip
            if done != 0:
                break
            found.append(context.raw[:CONTEXT])
        return found

    def mapped(self, first: int) -> tuple[int, Errors] | tuple[None, None]:
        """See ``Memory``."""
        numbers = (ctypes.c_uint64 * BATCH)(*range(first, first + BATCH))
        errors = (ctypes.c_int * BATCH)()
        at = self.foreign.xenforeignmemory_map(
            ctypes.c_void_p(self.memory), ctypes.c_uint32(self.domid), ctypes.c_int(1),
            ctypes.c_size_t(BATCH), numbers, errors,
        )  # fmt: skip
        return (at, errors) if at else (None, None)

    def unmap(self, at: int) -> None:
        """See ``Memory``."""
        self.foreign.xenforeignmemory_unmap(
            ctypes.c_void_p(self.memory), ctypes.c_void_p(at), ctypes.c_size_t(BATCH)
        )


def library(name: str) -> str:
    """The file of a library of Xen's.

    Raises:
        OSError: there is none.
    """
    for folder in ("/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib"):
        for file in sorted(os.listdir(folder) if os.path.isdir(folder) else ()):
            if file.startswith(f"lib{name}.so."):
                return os.path.join(folder, file)
    found = find_library(name)
    if found is None:
        raise OSError(f"no lib{name}")
    return found


def opened(handle: int | None) -> int:
    """A handle that is one.

    Raises:
        OSError: it is not.
    """
    if not handle:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return handle


def runs(errors: Errors) -> Iterator[tuple[int, int]]:
    """First and end of each run of pages that are there, in a batch."""
    start = None
    for index in range(BATCH + 1):
        there = index < BATCH and errors[index] == 0
        if there and start is None:
            start = index
        elif not there and start is not None:
            yield start, index
            start = None


def write_all(file: int, data: bytes | ctypes.Array[ctypes.c_char]) -> None:
    """Write all of it."""
    view = memoryview(data)
    while len(view):
        view = view[os.write(file, view) :]


def dump(xen: Memory, file: int) -> int:
    """Write the core.

    Returns:
        How many pages it has; with none nothing makes sense of the file.
    """
    os.lseek(file, PAGES_AT, os.SEEK_SET)
    numbers: list[int] = []
    for first, end, ends_at_a_hole in RANGES:
        for batch in range(first, end, BATCH):
            at, errors = xen.mapped(batch)
            found = list(runs(errors)) if errors is not None else []
            for start, stop in found:
                assert at is not None  # noqa: S101 - where there are errors there is an address
                size = (stop - start) * PAGE
                write_all(file, (ctypes.c_char * size).from_address(at + start * PAGE))
                numbers.extend(range(batch + start, batch + stop))
            if at is not None:
                xen.unmap(at)
            if not found and ends_at_a_hole:
                break
    if not numbers:
        return 0
    contexts = xen.contexts()
    pages = len(numbers) * PAGE
    write_all(file, struct.pack(f"<{len(numbers)}Q", *numbers))
    os.lseek(file, 0, os.SEEK_SET)
    write_all(file, head(contexts, len(numbers), pages))
    return len(numbers)


def head(contexts: Sequence[bytes], count: int, pages: int) -> bytes:
    """ELF header, section headers, and what comes before the pages."""
    names = b"\0.shstrtab\0.note.Xen\0.xen_prstatus\0.xen_pages\0.xen_pfn\0"
    note = notes(len(contexts), count)
    status = b"".join(contexts)
    table = 64
    at = table + 6 * 64
    layout = [
        ("", 0, 0, 0, 0),
        (".shstrtab", SHT_STRTAB, at, len(names), 0),
        (".note.Xen", SHT_NOTE, at + len(names), len(note), 0),
        (".xen_prstatus", SHT_PROGBITS, at + len(names) + len(note), len(status), CONTEXT),
        (".xen_pages", SHT_PROGBITS, PAGES_AT, pages, PAGE),
        (".xen_pfn", SHT_PROGBITS, PAGES_AT + pages, 8 * count, 8),
    ]
    # ELF64, little-endian, for the operating system "none"; ET_CORE, EM_X86_64.
    elf = b"\x7fELF" + bytes((2, 1, 1, 0)) + bytes(8)
    elf += struct.pack("<HHIQQQIHHHHHH", 4, 62, 1, 0, 0, table, 0, 64, 0, 0, 64, len(layout), 1)
    sections = b"".join(
        struct.pack("<IIQQQQIIQQ", names.index(name.encode() + b"\0") if name else 0, kind, 0, 0,
                    offset, size, 0, 0, 0, entry)
        for name, kind, offset, size, entry in layout
    )  # fmt: skip
    made = elf + sections + names + note + status
    if len(made) > PAGES_AT:
        raise OSError("more processors than there is room for")
    return made.ljust(PAGES_AT, b"\0")


def notes(vcpus: int, count: int) -> bytes:
    """The notes: none, header, version of the format."""
    header = struct.pack("<QQQQ", MAGIC_HVM, vcpus, count, PAGE)
    made = b""
    for kind, content in ((0x2000000, b""), (0x2000001, header), (0x2000003, struct.pack("<Q", 1))):
        made += struct.pack("<III", 4, len(content), kind) + b"Xen\0" + content
    return made


def main(arguments: Sequence[str]) -> int:
    """Dump; the exit status."""
    domid, path = int(arguments[0]), arguments[1]
    try:
        xen = Xen(domid)
        flags = os.O_WRONLY | (0 if path.startswith("/dev/") else os.O_CREAT | os.O_TRUNC)
        file = os.open(path, flags, 0o600)
    except (OSError, AttributeError) as error:
        print(f"no core this way: {error}", file=sys.stderr)
        return CANNOT
    try:
        count = dump(xen, file)
        os.fsync(file)
    except OSError as error:
        print(f"no core this way: {error}", file=sys.stderr)
        return CANNOT
    finally:
        os.close(file)
    print(f"{count} pages")
    return 0 if count else CANNOT


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
