"""Where things are in 32-bit Windows kernel dumps: offsets, and the header they make.

Sources, all public:

* the header: DUMP_HEADER32 of the Windows SDK (win32metadata, Windows.Win32.System.Diagnostics.
  Debug), and ``_DMP_HEADER`` of volatility (plugins/overlays/windows/crash_vtypes.py), which
  agree in every offset;
* SUMMARY_DUMP32, TRIAGE_DUMP32, DUMP_UNLOADED_DRIVERS32, UNLOADED_DRIVERS32: the structures in
  the symbols of the Windows Driver Kit 10;
* CONTEXT and KTRAP_FRAME of x86: winnt.h and ntddk.h of ReactOS and the symbols of Windows
  (ntdiff/headers, x86);
* EXCEPTION_RECORD32: Microsoft Learn, winnt.h;
* KLDR_DATA_TABLE_ENTRY and the entries of a triage dump: triage dumps of Windows XP SP3 as
  measured by the vcr-kmd project (tools/triage32.py), stride 0x4C, and ReactOS, ldrtypes.h.

Integers are little-endian and 32 bits unless said otherwise; addresses are virtual.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

from lab.crash.mapped import View

PAGE = 4096
"""Bytes of a page, and of the header."""

# --- DUMP_HEADER32 -------------------------------------------------------------------------

SIGNATURE = b"PAGE"  # 0x000
VALID_32 = b"DUMP"  # 0x004: a 32-bit dump
VALID_64 = b"DU64"  # 0x004: a 64-bit dump (DUMP_HEADER64)
MAJOR_VERSION = 0x008  # 0xF free build, 0xC checked build (DbgKd version)
MINOR_VERSION = 0x00C  # build number: 2600, 3790
DIRECTORY_TABLE = 0x010  # physical address of the page tables (CR3)
MODULE_LIST = 0x018  # PsLoadedModuleList
MACHINE = 0x020  # PE machine type: 0x14C
PROCESSORS = 0x024
CODE = 0x028  # bugcheck
PARAMETERS = 0x02C  # four
VERSION_USER = 0x03C  # 32 characters
PAE_ENABLED = 0x05C  # one byte
DEBUGGER_DATA = 0x060  # KdDebuggerDataBlock
RUNS = 0x064  # PHYSICAL_MEMORY_DESCRIPTOR32: number of runs, of pages, (base, count) ...
RUNS_SIZE = 700
CONTEXT = 0x320  # CONTEXT, 1200 bytes set aside
EXCEPTION = 0x7D0  # EXCEPTION_RECORD32, 80 bytes
COMMENT = 0x820  # 128 characters
DUMP_TYPE = 0xF88
MINI_DUMP_FIELDS = 0xF8C
REQUIRED_SPACE = 0xFA0  # 64 bits: bytes of the whole dump
UP_TIME = 0xFB8  # 64 bits, 100 ns
SYSTEM_TIME = 0xFC0  # 64 bits, 100 ns since 1601, UTC

MACHINE_I386 = 0x14C
UNSET = 0x45474150
"""``PAGE``: Windows fills the header with it first, so this is a field nobody wrote."""

FULL, SUMMARY, HEADER_ONLY, TRIAGE = 1, 2, 3, 4
TYPES = {
    FULL: "full dump",
    SUMMARY: "kernel dump",
    HEADER_ONLY: "header-only dump",
    TRIAGE: "triage dump",
    5: "bitmap full dump",
    6: "bitmap kernel dump",
    7: "automatic dump",
}
MAX_RUNS = (RUNS_SIZE - 8) // 8

# --- SUMMARY_DUMP32, at 0x1000 of a kernel dump --------------------------------------------

SUMMARY_SIGNATURE = b"SDMP"  # 0x00
SUMMARY_VALID = b"DUMP"  # 0x04
SUMMARY_HEADER_SIZE = 0x0C  # offset of the first page in the file
SUMMARY_BITMAP_SIZE = 0x10  # in bits
SUMMARY_PAGES = 0x14  # bits that are set: pages in the dump
SUMMARY_RTL_SIZE = 0x18  # RTL_BITMAP: size in bits; at 0x1C a pointer of no use
SUMMARY_BITS = 0x20

# --- TRIAGE_DUMP32, at 0x1000 of a triage dump ---------------------------------------------

TRIAGE_AT = PAGE
TRIAGE_SERVICE_PACK = 0x00  # ServicePackBuild: 0x200 for Service Pack 2 (CmNtCSDVersion)
TRIAGE_SIZE = 0x04
TRIAGE_VALID = 0x08  # offset of the mark
TRIAGE_CONTEXT = 0x0C
TRIAGE_EXCEPTION = 0x10
TRIAGE_UNLOADED = 0x18
TRIAGE_PRCB = 0x1C
TRIAGE_PROCESS = 0x20
TRIAGE_THREAD = 0x24
TRIAGE_STACK = 0x28
TRIAGE_STACK_SIZE = 0x2C
TRIAGE_DRIVERS = 0x30
TRIAGE_DRIVER_COUNT = 0x34
TRIAGE_STRINGS = 0x38
TRIAGE_STRINGS_SIZE = 0x3C
TRIAGE_BROKEN = 0x40  # BrokenDriverOffset: DUMP_STRING, or 0
TRIAGE_TOP_OF_STACK = 0x48  # address of the first byte of the stack block: the stack pointer
TRIAGE_MARK = b"TRGD"
"""``DGRT`` as Microsoft's headers write it, a multi-character constant: the last four bytes."""

# DUMP_DRIVER_ENTRY32: offset of the name, then the loader's entry. Its length differs by
# version of Windows; 0x4C is XP and 2003.
DRIVER_STRIDES = (0x4C, 0x50, 0x54, 0x58, 0x5C, 0x60)
DRIVER_ENTRY = 0x04

# UNLOADED_DRIVERS in a triage dump: a count, then DUMP_UNLOADED_DRIVERS32 of 0x28 bytes.
UNLOADED_STRIDE = 0x28
UNLOADED_LENGTH = 0x00  # 16 bits: bytes of the name
UNLOADED_NAME = 0x08  # 12 UTF-16 characters
UNLOADED_NAME_SIZE = 24
UNLOADED_START = 0x20
UNLOADED_END = 0x24
MAX_UNLOADED = 50
"""The kernel remembers no more (MI_UNLOADED_DRIVERS)."""

# --- KLDR_DATA_TABLE_ENTRY -----------------------------------------------------------------

LDR_BASE = 0x18
LDR_IMAGE_SIZE = 0x20
LDR_NAME = 0x2C  # BaseDllName: UNICODE_STRING32 (length, maximum length, address)
LDR_TIMESTAMP = 0x44  # in a triage dump; elsewhere the PE header has it
LDR_ENTRY_SIZE = 0x48

# --- CONTEXT -------------------------------------------------------------------------------

CONTEXT_I386 = 0x10000
"""In ContextFlags (offset 0) of every valid record."""

CONTEXT_REGISTERS: Mapping[str, int] = MappingProxyType(
    {
        "gs": 0x8C,
        "fs": 0x90,
        "es": 0x94,
        "ds": 0x98,
        "edi": 0x9C,
        "esi": 0xA0,
        "ebx": 0xA4,
        "edx": 0xA8,
        "ecx": 0xAC,
        "eax": 0xB0,
        "ebp": 0xB4,
        "eip": 0xB8,
        "cs": 0xBC,
        "eflags": 0xC0,
        "esp": 0xC4,
        "ss": 0xC8,
    }
)
CONTEXT_SIZE = 0xCC
"""Up to SegSs; what follows is of no use here."""

# --- KTRAP_FRAME ---------------------------------------------------------------------------

TRAP_REGISTERS: Mapping[str, int] = MappingProxyType(
    {
        "edx": 0x3C,
        "ecx": 0x40,
        "eax": 0x44,
        "edi": 0x54,
        "esi": 0x58,
        "ebx": 0x5C,
        "ebp": 0x60,
        "eip": 0x68,
        "eflags": 0x70,
    }
)
TRAP_STACK = 0x74
"""HardwareEsp. For a trap out of the kernel the processor pushes none: the stack begins here."""

TRAP_SIZE = 0x78

# --- what versions of Windows call themselves ----------------------------------------------

WINDOWS = {
    1381: "Windows NT 4.0",
    2195: "Windows 2000",
    2600: "Windows XP",
    3790: "Windows Server 2003",
    6000: "Windows Vista",
    6001: "Windows Server 2008",
    6002: "Windows Server 2008",
    6003: "Windows Server 2008",
    7600: "Windows 7",
    7601: "Windows 7",
}
CHECKED_BUILD = 0x0C

_EPOCH = datetime(1601, 1, 1, tzinfo=UTC)
# 1993 (the first NT) to 2400, in units of 100 ns since 1601.
_FIRST_TIME, _LAST_TIME = 123_700_000_000_000_000, 252_000_000_000_000_000


@dataclass(frozen=True, slots=True)
class Header:
    """What a dump's first page says. A field that was not written, or is cut off, is None.

    Attributes:
        major: 0xF free, 0xC checked build.
        build: of Windows.
        table: physical address of the page tables.
        module_list: address of the list of loaded modules.
        machine: PE machine type.
        processors: how many.
        code: of the bugcheck, as written.
        parameters: of the bugcheck; () if any is cut off.
        pae: whether page table entries have 64 bits.
        debugger_data: address of the debugger's data block.
        dump_type: see ``TYPES``.
        required_space: bytes that the whole dump has.
        when: time of the crash, ISO 8601, UTC.
    """

    major: int | None
    build: int | None
    table: int | None
    module_list: int | None
    machine: int | None
    processors: int | None
    code: int | None
    parameters: tuple[int, ...]
    pae: bool
    debugger_data: int | None
    dump_type: int | None
    required_space: int | None
    when: str | None


def read_header(view: View, at: int = 0) -> Header:
    """A dump's header.

    Args:
        view: the file.
        at: offset of the header in it.
    """

    def word(offset: int) -> int | None:
        value = view.u32(at + offset)
        return None if value == UNSET else value

    parameters = [view.u32(at + PARAMETERS + 4 * number) for number in range(4)]
    space = view.u64(at + REQUIRED_SPACE)
    return Header(
        major=word(MAJOR_VERSION),
        build=word(MINOR_VERSION),
        table=word(DIRECTORY_TABLE),
        module_list=word(MODULE_LIST),
        machine=word(MACHINE),
        processors=word(PROCESSORS),
        code=word(CODE),
        parameters=()
        if None in parameters
        else tuple(one for one in parameters if one is not None),
        pae=view.take(at + PAE_ENABLED, 1) == b"\x01",
        debugger_data=word(DEBUGGER_DATA),
        dump_type=word(DUMP_TYPE),
        required_space=None if space == UNSET << 32 | UNSET else space,
        when=file_time(view.u64(at + SYSTEM_TIME)),
    )


def file_time(value: int | None) -> str | None:
    """A Windows time in words, or None for none or one that cannot be.

    Args:
        value: 100 ns since 1601-01-01 UTC (Microsoft Learn, FILETIME).
    """
    if value is None or not _FIRST_TIME <= value <= _LAST_TIME:
        return None
    when = _EPOCH + timedelta(microseconds=value // 10)
    return when.strftime("%Y-%m-%d %H:%M:%S UTC")


def system_name(
    build: int | None,
    *,
    service_pack: int | None = None,
    major: int | None = None,
    pae: bool = False,
) -> str | None:
    """A version of Windows in words: ``Windows Server 2003 3790 SP2, 32-bit PAE``.

    Args:
        build: number, or None if unknown.
        service_pack: as the kernel keeps it: 0x200 for Service Pack 2.
        major: of the dump's header.
        pae: whether it runs with PAE.
    """
    if build is None:
        return None
    name = f"{WINDOWS.get(build, 'Windows')} {build}"
    # The number is in the second byte; the first has the candidate, zero when released.
    if service_pack and 1 <= service_pack >> 8 <= 9:
        name += f" SP{service_pack >> 8}"
    if major == CHECKED_BUILD:
        name += " checked build"
    return f"{name}, 32-bit" + (" PAE" if pae else "")


def context_registers(record: bytes) -> dict[str, int]:
    """Registers of a CONTEXT record; none if it is cut off or not valid.

    Args:
        record: its bytes, from ContextFlags on.
    """
    flags = int.from_bytes(record[:4], "little")
    if len(record) < CONTEXT_SIZE or not flags & CONTEXT_I386 or flags == UNSET:
        return {}
    return _registers(record, CONTEXT_REGISTERS)


def trap_registers(frame: bytes, address: int) -> dict[str, int]:
    """Registers of a KTRAP_FRAME that a trap out of the kernel made; none if it is cut off.

    Args:
        frame: its bytes.
        address: where it was in memory.
    """
    if len(frame) < TRAP_SIZE:
        return {}
    return _registers(frame, TRAP_REGISTERS) | {"esp": address + TRAP_STACK}


def _registers(record: bytes, offsets: Mapping[str, int]) -> dict[str, int]:
    return {
        name: int.from_bytes(record[offset : offset + 4], "little")
        for name, offset in offsets.items()
    }
