"""Dumps of a 32-bit Windows, written from a description of a crash.

For tests of the readers, and for a stand-in that is no Windows and must leave what one leaves.
What is written has every field that this project reads; a debugger may want more.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from lab.crash import dumpformat as form
from lab.crash import winmem
from lab.crash.facts import Module

_EPOCH = datetime(1601, 1, 1, tzinfo=UTC)
_FREE_BUILD = 0x0F
# CONTEXT_FULL of x86: control, integer and segment registers (winnt.h).
_CONTEXT_FULL = form.CONTEXT_I386 | 7
_TRIAGE_SIZE = 0x68
_TRIAGE_BASIC = 0xFF  # MiniDumpFields: every basic part is there
_PRESENT_WRITABLE = 3
# Where this writer puts what Windows has in its image, pool and stacks.
_DATA = 0x80540000
_POOL = 0x81000000
_PAGE_TABLES = 0x100
_FIRST_PAGE = 0x10
_PRINT_BUFFER = 0x400


@dataclass(frozen=True, slots=True)
class Crash:
    """What a dump tells.

    Attributes:
        code: of the bugcheck, as it will be shown.
        parameters: four.
        drivers: loaded and unloaded ones; the kernel comes first among the loaded. Starts are
            multiples of 4096.
        registers: at the crash; names as in ``dumpformat.CONTEXT_REGISTERS``.
        stack: contents, innermost first.
        stack_base: address of its first byte, in kernel memory.
        build: of Windows; one of ``winmem.IMAGE_NAME``.
        service_pack: as the kernel keeps it.
        processors: how many.
        pae: whether page table entries have 64 bits.
        checked: whether it is a checked build.
        process: that ran; at most 15 characters.
        when: time of the crash.
        printed: what drivers printed; up to 1024 bytes with ``printed_before``.
        printed_before: what they printed before that, if it wrapped round the kernel's buffer.
    """

    code: int
    parameters: tuple[int, int, int, int]
    drivers: tuple[Module, ...] = ()
    registers: Mapping[str, int] = field(default_factory=dict)
    stack: bytes = b""
    stack_base: int = 0xF78B2A00
    build: int = 3790
    service_pack: int = 0x200
    processors: int = 1
    pae: bool = True
    checked: bool = False
    process: str = "System"
    when: datetime = datetime(2007, 11, 19, 8, 30, tzinfo=UTC)
    printed: bytes = b""
    printed_before: bytes = b""


def triage_dump(crash: Crash) -> bytes:
    """A small dump, as a file."""
    data = bytearray(_header(crash, form.TRIAGE))
    data += bytes(_TRIAGE_SIZE)

    def append(piece: bytes) -> int:
        data.extend(bytes(-len(data) % 8))
        at = len(data)
        data.extend(piece)
        return at

    def put(offset: int, value: int) -> None:
        struct.pack_into("<I", data, form.TRIAGE_AT + offset, value)

    loaded = [one for one in crash.drivers if not one.unloaded]
    unloaded = [one for one in crash.drivers if one.unloaded][: form.MAX_UNLOADED]
    put(form.TRIAGE_SERVICE_PACK, crash.service_pack)
    put(form.TRIAGE_CONTEXT, form.CONTEXT)
    put(form.TRIAGE_EXCEPTION, form.EXCEPTION)
    put(
        form.TRIAGE_UNLOADED,
        append(struct.pack("<I", len(unloaded)) + b"".join(map(_dump_unloaded, unloaded))),
    )
    put(form.TRIAGE_PROCESS, append(_process(crash)))
    put(form.TRIAGE_STACK, append(crash.stack))
    put(form.TRIAGE_STACK_SIZE, len(crash.stack))
    put(form.TRIAGE_TOP_OF_STACK, crash.stack_base)
    stride = form.DRIVER_STRIDES[0]
    table = append(bytes(stride * len(loaded)))
    put(form.TRIAGE_DRIVERS, table)
    put(form.TRIAGE_DRIVER_COUNT, len(loaded))
    strings = len(data)
    for number, driver in enumerate(loaded):
        text = driver.name.encode("utf-16-le")
        name = append(struct.pack("<I", len(text) // 2) + text + b"\0\0")
        struct.pack_into("<I", data, table + number * stride, name)
        entry = table + number * stride + form.DRIVER_ENTRY
        struct.pack_into("<I", data, entry + form.LDR_BASE, driver.start)
        struct.pack_into("<I", data, entry + form.LDR_IMAGE_SIZE, driver.end - driver.start)
        struct.pack_into("<I", data, entry + form.LDR_TIMESTAMP, driver.timestamp or 0)
    put(form.TRIAGE_STRINGS, strings)
    put(form.TRIAGE_STRINGS_SIZE, len(data) - strings)
    put(form.TRIAGE_VALID, append(form.TRIAGE_MARK))
    put(form.TRIAGE_SIZE, len(data))
    struct.pack_into("<Q", data, form.REQUIRED_SPACE, len(data))
    return bytes(data)


def memory_dump(crash: Crash, kind: Literal["full", "kernel"] = "full") -> bytes:
    """A dump with memory, as a file.

    Args:
        crash: what it tells.
        kind: ``full`` for every page, ``kernel`` for a bitmap and the pages it names.
    """
    image = memory_image(crash)
    numbers = sorted(image.pages)
    pages = b"".join(bytes(image.pages[number]) for number in numbers)
    data = bytearray(_header(crash, form.FULL if kind == "full" else form.SUMMARY))
    struct.pack_into("<I", data, form.DIRECTORY_TABLE, image.table)
    struct.pack_into("<I", data, form.MODULE_LIST, image.module_list)
    struct.pack_into("<I", data, form.DEBUGGER_DATA, image.debugger_data)
    runs = _runs(numbers)
    struct.pack_into("<II", data, form.RUNS, len(runs), len(numbers))
    for number, (base, count) in enumerate(runs):
        struct.pack_into("<II", data, form.RUNS + 8 + 8 * number, base, count)
    if kind == "kernel":
        data += _summary(numbers)
    struct.pack_into("<Q", data, form.REQUIRED_SPACE, len(data) + len(pages))
    return bytes(data) + pages


@dataclass
class Image:
    """Physical memory of a Windows that stopped.

    Attributes:
        pages: contents by number of the page frame.
        table: physical address of the page tables.
        module_list: virtual address of PsLoadedModuleList.
        debugger_data: virtual address of KDDEBUGGER_DATA64.
    """

    pages: dict[int, bytearray] = field(default_factory=dict)
    table: int = 0
    module_list: int = 0
    debugger_data: int = 0


def memory_image(crash: Crash) -> Image:
    """The memory that a crash leaves: page tables, modules, the kernel's account, the stack."""
    memory = _Memory(crash.pae)
    for driver in crash.drivers:
        if not driver.unloaded:
            memory.map(driver.start, _image_head(driver.timestamp or 0))
    base = crash.stack_base & ~0xFFF
    memory.map(base, bytes(crash.stack_base - base) + crash.stack)
    kernel = _KernelData(crash)
    memory.map(_DATA, kernel.data)
    memory.map(_POOL, kernel.pool)
    image = memory.image
    image.module_list = kernel.module_list
    image.debugger_data = kernel.debugger_data
    return image


class _Memory:
    """Physical pages, and page tables that map kernel addresses to them."""

    def __init__(self, pae: bool) -> None:
        self._pae = pae
        self._next = _FIRST_PAGE
        self._next_table = _PAGE_TABLES
        self._tables: dict[int, int] = {}
        self.image = Image()
        if pae:
            pointers = self._table_page()
            self._directories = [self._table_page() for _ in range(4)]
            for number, page in enumerate(self._directories):
                self._put(pointers, number, page << 12 | 1)
                self._put(self._directories[3], number, page << 12 | _PRESENT_WRITABLE)
            self.image.table = pointers << 12
        else:
            self._directories = [self._table_page()]
            self._put(self._directories[0], 0x300, self._directories[0] << 12 | _PRESENT_WRITABLE)
            self.image.table = self._directories[0] << 12

    def map(self, address: int, data: bytes) -> None:
        for offset in range(0, len(data), form.PAGE):
            page = self._next
            self._next += 1
            self.image.pages[page] = bytearray(
                data[offset : offset + form.PAGE].ljust(form.PAGE, b"\0")
            )
            self._enter(address + offset, page)

    def _enter(self, address: int, page: int) -> None:
        bits = 9 if self._pae else 10
        number = address >> 12 >> bits
        if number not in self._tables:
            table = self._tables[number] = self._table_page()
            per = 512 if self._pae else 1024
            self._put(self._directories[number // per], number % per, table << 12 | 3)
        self._put(self._tables[number], address >> 12 & (1 << bits) - 1, page << 12 | 3)

    def _put(self, page: int, number: int, entry: int) -> None:
        form_of, width = ("<Q", 8) if self._pae else ("<I", 4)
        struct.pack_into(form_of, self.image.pages[page], number * width, entry)

    def _table_page(self) -> int:
        page = self._next_table
        self._next_table += 1
        self.image.pages[page] = bytearray(form.PAGE)
        return page


class _KernelData:
    """The kernel's variables, and the pool they point to."""

    def __init__(self, crash: Crash) -> None:
        self._pool = bytearray()
        loaded = [one for one in crash.drivers if not one.unloaded]
        unloaded = [one for one in crash.drivers if one.unloaded][: form.MAX_UNLOADED]
        self._data = bytearray()
        self.module_list = self._variable(bytes(8))
        entries = [self._allocate(bytes(0x50)) for _ in loaded]
        ring = [self.module_list, *entries, self.module_list]
        for at, entry in enumerate(ring[:-1]):
            self._write(entry, struct.pack("<II", ring[at + 1], ring[at - 1]))
        for entry, driver in zip(entries, loaded, strict=True):
            self._write(entry + form.LDR_BASE, struct.pack("<I", driver.start))
            size = driver.end - driver.start
            self._write(entry + form.LDR_IMAGE_SIZE, struct.pack("<I", size))
            self._write(entry + form.LDR_NAME, self._string(driver.name))
        gone = b"".join(
            self._string(one.name) + struct.pack("<IIQ", one.start, one.end, _ticks(crash.when))
            for one in unloaded
        )
        process = self._allocate(_process(crash))
        thread = self._allocate(bytes(0x38) + struct.pack("<I", process) + bytes(0x40))
        prcb = self._allocate(bytes(4) + struct.pack("<I", thread))
        room = _PRINT_BUFFER - len(crash.printed)
        buffer = self._variable(crash.printed + crash.printed_before.rjust(room, b"\0"))
        block = bytearray(0x318)
        struct.pack_into("<QQ4sI", block, 0, 0, 0, winmem.KDBG_TAG, len(block))
        pointers = {
            0x18: loaded[0].start if loaded else 0x80800000,
            0x48: self.module_list,
            0x88: self._variable(struct.pack("<5I", crash.code, *crash.parameters)),
            0x1E0: buffer,
            0x1E8: buffer + _PRINT_BUFFER,
            0x1F0: self._variable(struct.pack("<I", buffer + len(crash.printed))),
            0x1F8: self._variable(struct.pack("<I", bool(crash.printed_before))),
            0x208: self._variable(b"%d.srv03_sp2_gdr.070304-2240\0" % crash.build),
            0x218: self._variable(struct.pack("<I", prcb)),
            0x220: self._variable(struct.pack("<I", self._allocate(gone.ljust(50 * 0x18, b"\0")))),
            0x228: self._variable(struct.pack("<I", len(unloaded))),
            0x268: self._variable(struct.pack("<I", crash.service_pack)),
            0x2C8: self._variable(struct.pack("<I", buffer)),
            0x2D0: self._variable(struct.pack("<I", _PRINT_BUFFER)),
        }
        for offset, value in pointers.items():
            # Sign-extended, as a 32-bit kernel does with most of them.
            struct.pack_into("<Q", block, offset, value | 0xFFFFFFFF00000000)
        struct.pack_into("<H", block, 0x2A0, 0x38)
        struct.pack_into("<H", block, 0x2B4, 4)
        self.debugger_data = self._variable(bytes(block))
        self.data, self.pool = bytes(self._data), bytes(self._pool)

    def _variable(self, data: bytes) -> int:
        return _grow(self._data, data, _DATA)

    def _allocate(self, data: bytes) -> int:
        return _grow(self._pool, data, _POOL)

    def _string(self, text: str) -> bytes:
        data = text.encode("utf-16-le")
        return struct.pack("<HHI", len(data), len(data), self._allocate(data))

    def _write(self, address: int, data: bytes) -> None:
        area, base = (self._pool, _POOL) if address >= _POOL else (self._data, _DATA)
        area[address - base : address - base + len(data)] = data


def _grow(area: bytearray, data: bytes, base: int) -> int:
    at = len(area)
    area += data + bytes(-len(data) % 8)
    return base + at


def _image_head(timestamp: int) -> bytes:
    """The first bytes of an image: where its PE header is, and when it was linked."""
    head = bytearray(0x100)
    head[:2] = b"MZ"
    struct.pack_into("<I", head, 0x3C, 0x80)
    struct.pack_into("<4sHHI", head, 0x80, b"PE\0\0", form.MACHINE_I386, 1, timestamp)
    return bytes(head)


def _header(crash: Crash, kind: int) -> bytes:
    data = bytearray(form.SIGNATURE * (form.PAGE // 4))
    data[4:8] = form.VALID_32
    for offset, value in (
        (form.MAJOR_VERSION, form.CHECKED_BUILD if crash.checked else _FREE_BUILD),
        (form.MINOR_VERSION, crash.build),
        (form.DIRECTORY_TABLE, 0x39000),
        (form.MODULE_LIST, _DATA),
        (form.MACHINE, form.MACHINE_I386),
        (form.PROCESSORS, crash.processors),
        (form.CODE, crash.code),
        (form.DUMP_TYPE, kind),
        (form.MINI_DUMP_FIELDS, _TRIAGE_BASIC if kind == form.TRIAGE else 0),
    ):
        struct.pack_into("<I", data, offset, value)
    struct.pack_into("<4I", data, form.PARAMETERS, *crash.parameters)
    data[form.PAE_ENABLED] = crash.pae
    context = bytearray(1200)
    struct.pack_into("<I", context, 0, _CONTEXT_FULL)
    for name, value in crash.registers.items():
        struct.pack_into("<I", context, form.CONTEXT_REGISTERS[name], value)
    data[form.CONTEXT : form.CONTEXT + len(context)] = context
    # Every bugcheck that is no exception leaves a breakpoint, at the address of the stop.
    record = struct.pack("<4I", 0x80000003, 1, 0, crash.registers.get("eip", 0)).ljust(80, b"\0")
    data[form.EXCEPTION : form.EXCEPTION + len(record)] = record
    struct.pack_into("<Q", data, form.SYSTEM_TIME, _ticks(crash.when))
    return bytes(data)


def _ticks(when: datetime) -> int:
    return round((when - _EPOCH).total_seconds() * 10_000_000)


def _process(crash: Crash) -> bytes:
    """An EPROCESS with nothing but its name."""
    at = winmem.IMAGE_NAME[crash.build]
    return bytes(at) + crash.process.encode("ascii")[:15].ljust(winmem.IMAGE_NAME_SIZE, b"\0")


def _dump_unloaded(driver: Module) -> bytes:
    name = driver.name.encode("utf-16-le")[: form.UNLOADED_NAME_SIZE]
    return struct.pack(
        "<HHI24sII", len(name), len(name), 0, name.ljust(24, b"\0"), driver.start, driver.end
    )


def _runs(numbers: Iterable[int]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and sum(runs[-1]) == number:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((number, 1))
    return runs


def _summary(numbers: list[int]) -> bytes:
    size = (numbers[-1] + 32) // 32 * 32
    bits = bytearray(size // 8)
    for number in numbers:
        bits[number // 8] |= 1 << number % 8
    length = form.SUMMARY_BITS + len(bits)
    pad = -length % form.PAGE
    head = struct.pack(
        "<4s4sIIIIII",
        form.SUMMARY_SIGNATURE,
        form.SUMMARY_VALID,
        0,
        form.PAGE + length + pad,
        size,
        len(numbers),
        size,
        0,
    )
    return head + bytes(bits) + bytes(pad)
