"""The memory of a 32-bit Windows: page tables, and the kernel's own account of its state.

Works on any store of physical pages: a full or kernel dump, or a Xen core.

Sources: page tables, Intel SDM volume 3A, sections 4.3 and 4.4; entries of pages in transition,
volatility (plugins/addrspaces/intel.py, ``entry_present`` for Windows); KDDEBUGGER_DATA64,
wdbgexts.h of ReactOS (sdk/include/psdk) and the DEBUG_DATA_* constants of dbgeng.h, which are
offsets into it; EPROCESS, the kernels' public symbols as debuggers print them (``dt``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from lab.crash import dumpformat as form
from lab.crash.dbgview_log import driver_of
from lab.crash.facts import LogLine, Module
from lab.crash.mapped import View

MAX_MODULES = 1000
MAX_LOG_LINES = 200
MAX_NAME = 520
"""Longest name of a module that is read, in bytes: MAX_PATH characters."""

_MAX_READ = 1 << 20
_PRESENT, _LARGE, _PROTOTYPE, _TRANSITION = 1, 1 << 7, 1 << 10, 1 << 11
_FRAME_32 = 0xFFFFF000
# Bits 12 to 51 of a 64-bit entry.
_FRAME_64 = 0x000FFFFFFFFFF000

# KDDEBUGGER_DATA64: every pointer has 64 bits, on 32-bit systems too.
KDBG_TAG = b"KDBG"
_TAG, _SIZE = 0x10, 0x14
_KERNEL_BASE = 0x18
_MODULE_LIST = 0x48
_BUGCHECK = 0x88  # KiBugcheckData: the code and its four parameters
_PRINT_BUFFER, _PRINT_END, _PRINT_AT, _PRINT_ROLLED = 0x1E0, 0x1E8, 0x1F0, 0x1F8
_BUILD_LAB = 0x208
_PROCESSOR_BLOCK = 0x218
_UNLOADED, _LAST_UNLOADED = 0x220, 0x228
_SERVICE_PACK = 0x268  # CmNtCSDVersion
# From Server 2003 on: offsets of fields in other structures (16 bits each), then more pointers.
_THREAD_PROCESS = 0x2A0  # OffsetKThreadApcProcess
_PRCB_THREAD = 0x2B4  # OffsetPrcbCurrentThread
_PRINT_POINTER, _PRINT_SIZE = 0x2C8, 0x2D0
_SMALLEST, _LARGEST = 0x208, 0x1000

# UNLOADED_DRIVERS: name, start, end, time.
_UNLOADED_STRIDE = 0x18

#: EPROCESS.ImageFileName by build: 15 bytes and a zero. 3790 is that of Service Pack 1 and 2.
IMAGE_NAME = {2600: 0x174, 3790: 0x164, 7600: 0x16C, 7601: 0x16C}
IMAGE_NAME_SIZE = 16

_BUILD_IN_LAB = re.compile(rb"^(\d{4,5})\.[\x20-\x7e]{1,100}")
_PROCESS_NAME = re.compile(rb"^[\x20-\x7e]{1,15}\x00")


class Physical(Protocol):
    """Where the pages of physical memory are in a file."""

    def page(self, number: int) -> int | None:
        """The offset in the file of a page, or None if the file does not have it.

        Args:
            number: of the page frame: address divided by 4096.
        """


@dataclass(frozen=True, slots=True)
class Tables:
    """Page tables.

    Attributes:
        at: physical address of the directory, or with PAE of the pointers to the directories;
            None if only the directories are known.
        directories: with PAE, their physical addresses where ``at`` is None.
        pae: whether entries have 64 bits.
    """

    at: int | None
    pae: bool
    directories: tuple[int, ...] = ()


class Virtual:
    """Memory as the kernel addressed it.

    Args:
        view: the file.
        physical: where its pages are.
        tables: the page tables.
    """

    def __init__(self, view: View, physical: Physical, tables: Tables) -> None:
        self._view = view
        self._physical = physical
        self._tables = tables
        self._known: dict[int, int | None] = {}

    def read(self, address: int, count: int) -> bytes:
        """Up to ``count`` bytes from an address; fewer where a page is missing.

        Args:
            address: virtual; any number.
            count: at most 1 MiB.
        """
        pieces: list[bytes] = []
        left = min(count, _MAX_READ)
        while left > 0 and 0 <= address < 1 << 32:
            within = address & (form.PAGE - 1)
            at = self.locate(address)
            if at is None:
                break
            piece = self._view.take(at, min(form.PAGE - within, left))
            pieces.append(piece)
            if len(piece) < min(form.PAGE - within, left):
                break
            left -= len(piece)
            address += len(piece)
        return b"".join(pieces)

    def before(self, address: int) -> bytes:
        """The 7 bytes before an address, the longest call instruction; none if any is missing."""
        data = self.read(address - 7, 7)
        return data if len(data) == 7 else b""

    def u32(self, address: int) -> int | None:
        """A 32-bit number, or None where memory is missing."""
        data = self.read(address, 4)
        return int.from_bytes(data, "little") if len(data) == 4 else None

    def text(self, at: int) -> str | None:
        """The string that a UNICODE_STRING32 describes, or None."""
        head = self.read(at, 8)
        length = int.from_bytes(head[:2], "little")
        if len(head) < 8 or not 0 < length <= MAX_NAME or length % 2:
            return None
        data = self.read(int.from_bytes(head[4:8], "little"), length)
        return data.decode("utf-16-le", "replace") if len(data) == length else None

    def locate(self, address: int) -> int | None:
        """The offset in the file of an address, or None where memory is missing."""
        number = address >> 12
        if number not in self._known:
            # Bounded: hostile lists may wander through all of memory.
            if len(self._known) > 1 << 16:
                self._known.clear()
            self._known[number] = self._translate(number << 12)
        page = self._known[number]
        return None if page is None else page + (address & (form.PAGE - 1))

    def _translate(self, address: int) -> int | None:
        physical = self._walk_64(address) if self._tables.pae else self._walk_32(address)
        return None if physical is None else self._physical.page(physical >> 12)

    def _walk_32(self, address: int) -> int | None:
        directory = self._entry_32(((self._tables.at or 0) & _FRAME_32) + (address >> 22) * 4)
        if directory is None or not directory & _PRESENT:
            return None
        if directory & _LARGE:
            # Bits 13 to 20 hold address bits 32 to 39 (PSE-36).
            high = (directory >> 13 & 0xFF) << 32
            return high | directory & 0xFFC00000 | address & 0x3FF000
        entry = self._entry_32((directory & _FRAME_32) + (address >> 12 & 0x3FF) * 4)
        return None if entry is None or not _resident(entry) else entry & _FRAME_32

    def _walk_64(self, address: int) -> int | None:
        first = self._directory(address >> 30)
        if first is None:
            return None
        directory = self._entry_64(first + (address >> 21 & 0x1FF) * 8)
        if directory is None or not directory & _PRESENT:
            return None
        if directory & _LARGE:
            return directory & _FRAME_64 & ~0x1FFFFF | address & 0x1FF000
        entry = self._entry_64((directory & _FRAME_64) + (address >> 12 & 0x1FF) * 8)
        return None if entry is None or not _resident(entry) else entry & _FRAME_64

    def _directory(self, number: int) -> int | None:
        if self._tables.at is None:
            return self._tables.directories[number]
        pointer = self._entry_64((self._tables.at & 0xFFFFFFE0) + number * 8)
        return None if pointer is None or not pointer & _PRESENT else pointer & _FRAME_64

    def _entry_32(self, physical: int) -> int | None:
        page = self._physical.page(physical >> 12)
        return None if page is None else self._view.u32(page + (physical & 0xFFF))

    def _entry_64(self, physical: int) -> int | None:
        page = self._physical.page(physical >> 12)
        return None if page is None else self._view.u64(page + (physical & 0xFFF))


def _resident(entry: int) -> bool:
    # A page in transition has left the tables but not yet memory.
    return bool(entry & _PRESENT) or bool(entry & _TRANSITION and not entry & _PROTOTYPE)


@dataclass(frozen=True, slots=True)
class Debugger:
    """KDDEBUGGER_DATA64: where the kernel says that its things are.

    Attributes:
        data: its bytes.
    """

    data: bytes

    def pointer(self, offset: int) -> int | None:
        """A field's low 32 bits; None if this kernel's block ends before it, or it is null.

        Args:
            offset: of the field.
        """
        if offset + 8 > len(self.data):
            return None
        # Some fields are sign-extended, others are not.
        return int.from_bytes(self.data[offset : offset + 4], "little") or None

    def small(self, offset: int) -> int | None:
        """A 16-bit field, or None if this kernel's block ends before it, or it is zero."""
        if offset + 2 > len(self.data):
            return None
        return int.from_bytes(self.data[offset : offset + 2], "little") or None

    @property
    def kernel_base(self) -> int | None:
        """Address of the kernel's image."""
        return self.pointer(_KERNEL_BASE)

    @property
    def is_64_bit(self) -> bool:
        """Whether the kernel lies above what 32 bits can address."""
        high = int.from_bytes(self.data[_KERNEL_BASE + 4 : _KERNEL_BASE + 8], "little")
        return high not in (0, 0xFFFFFFFF)


def debugger_block(data: bytes) -> Debugger | None:
    """The block that begins with some bytes, or None if none does.

    Args:
        data: from its first field, a list entry, on; at least ``_SMALLEST`` bytes of it.
    """
    size = int.from_bytes(data[_SIZE : _SIZE + 4], "little")
    if data[_TAG : _TAG + 4] != KDBG_TAG or not _SMALLEST <= size <= _LARGEST:
        return None
    block = Debugger(data[:size])
    base = block.kernel_base
    if len(block.data) < _SMALLEST or base is None or base % form.PAGE:
        return None
    return block if base >= 0x80000000 or block.is_64_bit else None


def blocks(view: View, most: int = 64) -> Iterator[tuple[int, Debugger]]:
    """Debugger blocks found by their tag, wherever they are in a file.

    Args:
        view: the file.
        most: how many are tried; code that looks for the tag holds it, too.

    Yields:
        Offset in the file, and the block. A block across pages may be cut there.
    """
    at = -1
    for _ in range(most * 1000):
        at = view.find(KDBG_TAG, at + 1)
        if at < 0 or most <= 0:
            return
        block = debugger_block(view.take(at - _TAG, _LARGEST))
        if block is not None:
            most -= 1
            yield at - _TAG, block


class Kernel:
    """What a 32-bit Windows kernel's memory says of its state.

    Args:
        memory: as the kernel addressed it.
        debugger: its data block, if it was found.
    """

    def __init__(self, memory: Virtual, debugger: Debugger | None) -> None:
        self.memory = memory
        self.debugger = debugger

    def bugcheck(self) -> tuple[int, tuple[int, ...]] | None:
        """Code and parameters, or None if none is recorded."""
        at = self._pointer(_BUGCHECK)
        data = self.memory.read(at, 20) if at else b""
        words = [int.from_bytes(data[one : one + 4], "little") for one in range(0, len(data), 4)]
        return (words[0], tuple(words[1:])) if len(words) == 5 and words[0] else None

    def bugcheck_at(self) -> int | None:
        """Where in the file the code is recorded, or None if it is not there."""
        at = self._pointer(_BUGCHECK)
        return self.memory.locate(at) if at else None

    def build(self) -> tuple[int, str] | None:
        """Build number and the string it is in (``3790.srv03_sp2_gdr.070304-2240``)."""
        at = self._pointer(_BUILD_LAB)
        found = _BUILD_IN_LAB.match(self.memory.read(at, 128)) if at else None
        return (int(found[1]), found[0].decode("ascii")) if found else None

    def service_pack(self) -> int | None:
        """As the kernel keeps it: 0x200 for Service Pack 2; None if unknown."""
        at = self._pointer(_SERVICE_PACK)
        return self.memory.u32(at) if at else None

    def modules(self, head: int | None = None) -> list[Module]:
        """Loaded modules, in the order of loading.

        Args:
            head: address of the list's head, if something else than the block says it.
        """
        start = head or self._pointer(_MODULE_LIST)
        found: list[Module] = []
        if not start:
            return found
        at = self.memory.u32(start)
        seen = {start}
        while at and at not in seen and len(found) < MAX_MODULES:
            seen.add(at)
            entry = self.memory.read(at, form.LDR_ENTRY_SIZE)
            base = int.from_bytes(entry[form.LDR_BASE :][:4], "little")
            size = int.from_bytes(entry[form.LDR_IMAGE_SIZE :][:4], "little")
            if len(entry) < form.LDR_NAME + 8:
                break
            name = self.memory.text(at + form.LDR_NAME)
            if plausible(base, size) and name:
                found.append(Module(clean(name), base, base + size, self._timestamp(base)))
            at = int.from_bytes(entry[:4], "little")
        return found

    def unloaded(self) -> list[Module]:
        """Modules that are gone, the last one first."""
        array_at, last_at = self._pointer(_UNLOADED), self._pointer(_LAST_UNLOADED)
        array = self.memory.u32(array_at) if array_at else None
        last = (self.memory.u32(last_at) if last_at else None) or 0
        ring = self.memory.read(array, form.MAX_UNLOADED * _UNLOADED_STRIDE) if array else b""
        found: list[Module] = []
        for number in range(form.MAX_UNLOADED):
            # A ring: the index is that of the next one to be written.
            at = (last - 1 - number) % form.MAX_UNLOADED * _UNLOADED_STRIDE
            start, end = (
                int.from_bytes(ring[at + one : at + one + 4], "little") for one in (8, 12)
            )
            if plausible(start, end - start) and (name := self.memory.text((array or 0) + at)):
                found.append(Module(clean(name), start, end, unloaded=True))
        return found

    def printed(self) -> list[LogLine]:
        """The last lines that drivers and the kernel printed (DbgPrint), oldest first.

        The kernel keeps them whether a debugger is there or not.
        """
        buffer, size = self._pointer(_PRINT_BUFFER), 0
        pointer, size_at = self._pointer(_PRINT_POINTER), self._pointer(_PRINT_SIZE)
        if pointer and size_at:
            # Server 2003 and later: the buffer can be replaced by a larger one.
            buffer = self.memory.u32(pointer) or buffer
            size = self.memory.u32(size_at) or 0
        elif buffer and (end := self._pointer(_PRINT_END)):
            size = end - buffer
        at_at, rolled_at = self._pointer(_PRINT_AT), self._pointer(_PRINT_ROLLED)
        at = self.memory.u32(at_at) if at_at else None
        rolled = self.memory.u32(rolled_at) if rolled_at else None
        if not buffer or not 0 < size <= _MAX_READ or at is None:
            return []
        written = at - buffer
        if not 0 <= written <= size:
            return []
        newest = self.memory.read(buffer, written)
        oldest = self.memory.read(at, size - written) if rolled else b""
        return log_lines(oldest + newest)

    def process(self, build: int | None) -> str | None:
        """Name of the process that the only processor ran; None if unknown.

        Args:
            build: of Windows.
        """
        block = self._pointer(_PROCESSOR_BLOCK)
        offsets = [
            self.debugger.small(one) if self.debugger else None
            for one in (_PRCB_THREAD, _THREAD_PROCESS)
        ]
        at = self.memory.u32(block) if block else None
        for offset in offsets:
            at = self.memory.u32(at + offset) if at and offset else None
        offset = IMAGE_NAME.get(build or 0)
        return (
            process_name(self.memory.read(at + offset, IMAGE_NAME_SIZE)) if at and offset else None
        )

    def _timestamp(self, base: int) -> int | None:
        # PE format: e_lfanew at 0x3C, TimeDateStamp 8 bytes into the header.
        header = self.memory.u32(base + 0x3C)
        if header is None or not 0x40 <= header < 0x1000:
            return None
        head = self.memory.read(base + header, 12)
        return int.from_bytes(head[8:], "little") if head[:4] == b"PE\0\0" else None

    def _pointer(self, offset: int) -> int | None:
        return self.debugger.pointer(offset) if self.debugger else None


def plausible(base: int, size: int) -> bool:
    """Whether a module of the kernel can lie there.

    Args:
        base: first address.
        size: in bytes.
    """
    # /3GB moves the border to 0xC0000000; session drivers and the kernel stay above 0x80000000.
    return 0x80000000 <= base < 1 << 32 and 0 < size <= 64 << 20 and base + size <= 1 << 32


def clean(name: str) -> str:
    """A module's name without its folder and without what no name has."""
    last = name.replace("/", "\\").rpartition("\\")[2]
    return "".join(one if one.isprintable() else "?" for one in last)[:MAX_NAME]


def process_name(field: bytes) -> str | None:
    """The name in EPROCESS.ImageFileName, or None if that is none."""
    return field.partition(b"\0")[0].decode("ascii") if _PROCESS_NAME.match(field) else None


def log_lines(data: bytes) -> list[LogLine]:
    """Printed text as lines, the last ``MAX_LOG_LINES`` that are not empty, oldest first."""
    text = data.replace(b"\0", b"").decode("cp1252", "replace")
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", text)]
    return [LogLine(None, None, line[:1000], driver_of(line)) for line in lines if line][
        -MAX_LOG_LINES:
    ]


def find_tables(view: View, physical: Physical, pages: Iterable[int]) -> Iterator[Tables]:
    """Page tables found by how Windows maps them into themselves.

    Without PAE the directory is its own entry 0x300; with PAE the fourth directory begins with
    entries for the four directories, itself included. So they are at 0xC0000000 and the
    addresses behind it (ReactOS, ntoskrnl/include/internal/i386/mm.h: PTE_BASE, PDE_BASE).

    Args:
        view: the file.
        physical: where its pages are.
        pages: numbers of the page frames to try.
    """
    for number in pages:
        at = physical.page(number)
        if at is None:
            continue
        own = view.u32(at + 0x300 * 4)
        if own is not None and own & _PRESENT and own >> 12 == number and not own & _LARGE:
            yield Tables(number << 12, pae=False)
        last = view.u64(at + 24)
        if last is None or not last & _PRESENT or (last & _FRAME_64) >> 12 != number:
            continue
        four = [view.u64(at + 8 * one) or 0 for one in range(4)]
        if all(one & _PRESENT for one in four) and len(set(four)) == 4:
            yield Tables(None, True, tuple(one & _FRAME_64 for one in four))
