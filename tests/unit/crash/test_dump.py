"""Dumps of a 32-bit Windows, read."""

from __future__ import annotations

import os
import struct
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from dumpmaker import GONE, HAL, KERNEL, STACK_BASE, XENPCI, XENVBD, chain, in_xenvbd

from lab.core.errors import UsageError
from lab.crash import dump
from lab.crash import dumpformat as form
from lab.crash.dumpwriter import Crash, memory_dump, triage_dump
from lab.crash.facts import CrashFact, Module, from_json, known, to_json
from lab.crash.winmem import Debugger

LINKED = [
    "ntkrnlpa.exe+0x5a2a7",
    "xenvbd+0x1a2b",
    "xenpci+0x777",
    "ntkrnlpa.exe+0x29",
]


def read(tmp_path: Path, data: bytes, name: str = "Mini111907-01.dmp") -> CrashFact:
    path = tmp_path / name
    path.write_bytes(data)
    (fact,) = dump.read(path)
    return fact


def frames(fact: CrashFact) -> list[str]:
    return [one.text() for one in fact.frames]


# -- golden: offsets by hand, not through the layout ---------------------------------------

# From the public DUMP_HEADER32 (win32metadata), decimal there: MajorVersion +8, MinorVersion
# +12, MachineImageType +32, NumberProcessors +36, BugCheckCode +40, parameters +44 to +56,
# PaeEnabled +92, ContextRecord +800, Exception +2000, DumpType +3976, SystemTime +4032.
GOLDEN = {
    0: "50414745 44554d50 0f000000 ce0e0000",
    16: "00900300 50414745 00005480 50414745",
    32: "4c010000 01000000 d1000010 10000000",
    48: "02000000 00000000 2b1a65f7 50414745",
    92: "01414745 50414745",
    800: "07000100 00000000",
    # Ebp, Eip: 0xB4 and 0xB8 into CONTEXT.
    800 + 0xB4: "002a8bf7 a7a28580",
    800 + 0xC4: "002a8bf7",
    2000: "03000080 01000000 00000000 a7a28580",
    3976: "04000000 ff000000",
    # 2007-11-19 08:30 UTC is 128399346000000000 times 100 ns after 1601 (Unix 1195461000).
    4032: "00f4b85f862ac801",
}


def test_header_is_where_the_public_structure_has_it() -> None:
    data = triage_dump(in_xenvbd())
    for at, expected in GOLDEN.items():
        wanted = bytes.fromhex(expected)
        assert data[at : at + len(wanted)].hex(" ", 4) == wanted.hex(" ", 4), at
    assert int.from_bytes(data[4032:4040], "little") == (1195461000 + 11644473600) * 10**7


def test_triage_block_is_where_the_public_structure_has_it() -> None:
    crash = in_xenvbd()
    data = triage_dump(crash)
    words = struct.unpack_from("<19I", data, 0x1000)
    (
        (service_pack, size, valid, context, exception, _mm, unloaded, _prcb, process, _thread),
        (stack, stack_size, drivers, count, strings, _strings_size, broken, _options, top),
    ) = words[:10], words[10:]
    assert (service_pack, size, context, exception) == (0x200, len(data), 0x320, 0x7D0)
    # 'TRGD' closes the dump.
    assert data[valid:] == b"TRGD"
    assert data[stack : stack + stack_size] == crash.stack
    assert (count, broken, top) == (4, 0, STACK_BASE)
    # A driver's entry: offset of its name, then the loader's entry; 0x4C bytes apart.
    entry = drivers + 3 * 0x4C
    assert struct.unpack_from("<I", data, entry + 4 + 0x18) == (0xF7650000,)
    assert struct.unpack_from("<I", data, entry + 4 + 0x20) == (0x8000,)
    assert struct.unpack_from("<I", data, entry + 4 + 0x44) == (0x473C5A12,)
    (name,) = struct.unpack_from("<I", data, entry)
    assert name >= strings
    assert data[name : name + 24] == b"\x0a\0\0\0" + "xenvbd.sys".encode("utf-16-le")
    assert struct.unpack_from("<IHH", data, unloaded) == (1, 22, 22)
    assert data[unloaded + 12 : unloaded + 34].decode("utf-16-le") == "usbehci.sys"
    assert struct.unpack_from("<II", data, unloaded + 4 + 0x20) == (0xF7700000, 0xF7710000)
    # EPROCESS.ImageFileName of 3790 with a service pack.
    assert data[process + 0x164 :][:13] == b"xenvbd_io.exe"


def test_kernel_dump_is_where_the_public_structure_has_it() -> None:
    data = memory_dump(in_xenvbd(), "kernel")
    assert data[0x1000:0x1008] == b"SDMPDUMP"
    options, first, bits, pages, size, _buffer = struct.unpack_from("<6I", data, 0x1008)
    assert (options, bits) == (0, size)
    assert first % 4096 == 0
    assert first + pages * 4096 == len(data)
    bitmap = int.from_bytes(data[0x1020 : 0x1020 + size // 8], "little")
    assert bitmap.bit_count() == pages


# -- what is read --------------------------------------------------------------------------


def test_small_dump(tmp_path: Path) -> None:
    fact = read(tmp_path, triage_dump(in_xenvbd()))
    assert fact.kind == "bugcheck"
    assert (fact.code, fact.plain) == (0x100000D1, 0xD1)
    assert fact.name == "DRIVER_IRQL_NOT_LESS_OR_EQUAL"
    assert fact.parameters == (0x10, 2, 0, 0xF7651A2B)
    assert fact.module == "xenvbd"
    assert fact.modules == (KERNEL, HAL, XENPCI, XENVBD, GONE)
    assert frames(fact) == [*LINKED, "hal.dll+0x44"]
    assert fact.registers["eip"] == 0x8085A2A7
    assert fact.process == "xenvbd_io.exe"
    assert fact.system == "Windows Server 2003 3790 SP2, 32-bit PAE"
    assert fact.when == "2007-11-19 08:30:00 UTC"
    assert fact.notes == (
        "1 of 5 frames are stack words that lie in modules: "
        "some may be left over from earlier calls",
    )


@pytest.mark.parametrize("kind", ["full", "kernel"])
@pytest.mark.parametrize("pae", [True, False], ids=["pae", "no-pae"])
def test_dumps_with_memory(tmp_path: Path, kind: str, pae: bool) -> None:
    crash = replace(in_xenvbd(), pae=pae)
    fact = read(tmp_path, memory_dump(crash, "full" if kind == "full" else "kernel"))
    assert fact.code == 0x100000D1
    assert fact.module == "xenvbd"
    assert fact.modules == (KERNEL, HAL, XENPCI, XENVBD, GONE)
    # The word in the HAL follows no call instruction: the code is there to be looked at.
    assert frames(fact) == LINKED
    assert [(line.driver, line.text) for line in fact.log] == [
        ("xenvbd", "XenVbd --> Attach"),
        (None, "     BytesPerSector = 512"),
        ("xenpci", "XenPCI <-- Bus"),
    ]
    assert fact.process == "xenvbd_io.exe"
    assert fact.system == "Windows Server 2003 3790 SP2, 32-bit" + (" PAE" if pae else "")
    assert not fact.notes


@pytest.mark.parametrize("write", [triage_dump, memory_dump])
def test_every_known_field_has_a_source(tmp_path: Path, write: object) -> None:
    fact = read(tmp_path, write(in_xenvbd()))  # type: ignore[operator]
    assert set(fact.sources) == set(known(fact))
    assert fact.sources["code"].at == "offset 0x28"
    assert {one.file for one in fact.sources.values()} == {"Mini111907-01.dmp"}
    assert from_json(to_json(fact)) == fact


def test_checked_build_without_service_pack(tmp_path: Path) -> None:
    crash = replace(in_xenvbd(), checked=True, service_pack=0, build=2600)
    fact = read(tmp_path, triage_dump(crash))
    assert fact.system == "Windows XP 2600 checked build, 32-bit PAE"
    # EPROCESS.ImageFileName is elsewhere in XP.
    assert fact.process == "xenvbd_io.exe"


def test_ring_of_printed_lines_that_went_round(tmp_path: Path) -> None:
    crash = replace(
        in_xenvbd(), printed=b"second half\nXenVbd new\n", printed_before=b"half lost\nfirst "
    )
    fact = read(tmp_path, memory_dump(crash))
    assert [line.text for line in fact.log] == [
        "half lost",
        "first second half",
        "XenVbd new",
    ]


def test_buffer_of_an_older_kernel_is_found_by_its_ends(tmp_path: Path) -> None:
    # Windows XP's block ends before the pointer that later ones have.
    data = memory_dump(in_xenvbd())
    block = data.index(b"KDBG")
    older = data[: block + 4] + struct.pack("<I", 0x290) + data[block + 8 :]
    assert read(tmp_path, older).log == read(tmp_path, data).log


# -- the stack -----------------------------------------------------------------------------


def test_exception_in_a_thread_is_read_from_its_context_record(tmp_path: Path) -> None:
    record = bytearray(0xCC)
    at = STACK_BASE + 64
    for offset, value in (
        (0, 0x10007),
        (0xB4, STACK_BASE + 0x200),
        (0xB8, XENVBD.start + 0x55),
        (0xC4, STACK_BASE + 0x200),
    ):
        struct.pack_into("<I", record, offset, value)
    stack = (bytes(64) + bytes(record)).ljust(0x200, b"\0")
    stack += chain((1, XENPCI.start + 0x66), base=STACK_BASE + 0x200)
    crash = replace(
        in_xenvbd(),
        code=0x1000007E,
        parameters=(0xC0000005, XENVBD.start + 0x55, STACK_BASE, at),
        stack=stack,
    )
    for data in (triage_dump(crash), memory_dump(crash)):
        fact = read(tmp_path, data)
        assert frames(fact) == ["xenvbd+0x55", "xenpci+0x66"]
        assert fact.module == "xenvbd"
        assert fact.registers["eip"] == XENVBD.start + 0x55
        assert fact.sources["registers"].at == f"record at address 0x{at:08x}"


def test_exception_in_the_kernel_is_read_from_its_trap_frame(tmp_path: Path) -> None:
    # The processor pushes no stack pointer for a trap out of the kernel: what follows is the
    # stack of the code that trapped.
    frame = bytearray(0x74)
    struct.pack_into("<I", frame, 0x68, XENVBD.start + 0x99)
    struct.pack_into("<I", frame, 0x60, STACK_BASE + 0x74 + 4)
    stack = bytes(frame) + bytes(4)
    stack += chain((0, KERNEL.start + 0x123), base=STACK_BASE + 0x78)
    crash = replace(
        in_xenvbd(),
        code=0x8E,
        parameters=(0xC0000005, XENVBD.start + 0x99, STACK_BASE, 0),
        stack=stack,
    )
    fact = read(tmp_path, triage_dump(crash))
    assert frames(fact) == ["xenvbd+0x99", "ntkrnlpa.exe+0x123"]


def test_blame_skips_the_kernel(tmp_path: Path) -> None:
    # As in minidumps of 0xA: the kernel touched memory that a driver gave it.
    crash = replace(in_xenvbd(0xA), parameters=(0, 2, 1, KERNEL.start + 0x1000))
    fact = read(tmp_path, triage_dump(crash))
    assert fact.module == "xenvbd"
    assert fact.sources["module"].at == "the innermost driver on the stack is xenvbd+0x1a2b"
    alone = replace(crash, stack=b"", registers={})
    fact = read(tmp_path, triage_dump(alone))
    assert fact.module == "ntkrnlpa.exe"
    assert fact.sources["module"].at == "parameter 4 lies in ntkrnlpa.exe+0x1000"


def test_blame_of_a_driver_that_is_gone(tmp_path: Path) -> None:
    crash = replace(in_xenvbd(0xCE), parameters=(GONE.start + 8, 8, GONE.start + 8, 0), stack=b"")
    fact = read(tmp_path, triage_dump(crash))
    assert fact.module == "usbehci"
    assert fact.sources["module"].at.endswith("which was unloaded")


# -- what is not in order ------------------------------------------------------------------


def test_64_bit_dump_is_named(tmp_path: Path) -> None:
    path = tmp_path / "MEMORY.DMP"
    path.write_bytes(b"PAGEDU64" + bytes(0x2000))
    assert dump.recognise(path.read_bytes()[:100], path.name)
    with pytest.raises(UsageError, match="64-bit") as caught:
        dump.read(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"MDMP", b"PAGEDUMP", b"PAGEDUMP" + bytes(0x20)])
def test_what_is_no_dump_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.dmp"
    path.write_bytes(data)
    with pytest.raises(UsageError):
        dump.read(path)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "absent", Path("nul\0byte")):
        with pytest.raises(UsageError):
            dump.read(path)


def test_truncated_small_dump_gives_what_is_there(tmp_path: Path) -> None:
    data = triage_dump(in_xenvbd())
    fact = read(tmp_path, data[:0x1068])
    assert fact.code == 0x100000D1
    assert fact.when is not None
    assert any(note.startswith("truncated: ") for note in fact.notes)
    assert not fact.modules
    fact = read(tmp_path, data[:0x3C])
    assert fact.parameters == (0x10, 2, 0, 0xF7651A2B)
    assert "truncated: only 60 bytes of the header are there" in fact.notes


def test_truncated_memory_is_noted(tmp_path: Path) -> None:
    data = memory_dump(in_xenvbd())
    fact = read(tmp_path, data[: len(data) // 2])
    assert fact.code == 0x100000D1
    assert f"truncated: {len(data) // 2} of {len(data)} bytes are there" in fact.notes


def test_header_alone(tmp_path: Path) -> None:
    data = bytearray(memory_dump(in_xenvbd())[:4096])
    data[form.DUMP_TYPE] = form.HEADER_ONLY
    fact = read(tmp_path, bytes(data))
    assert fact.code == 0x100000D1
    assert fact.registers["esp"] == STACK_BASE
    assert fact.sources["code"].reader == "header-only dump"


def test_fields_that_nobody_wrote_are_absent(tmp_path: Path) -> None:
    fact = read(tmp_path, b"PAGEDUMP" + b"PAGE" * 1022)
    assert fact.kind == "unknown"
    assert (fact.code, fact.when, fact.system, fact.registers) == (None, None, None, {})
    assert "no bugcheck code: the dump was not written by a crash" in fact.notes


def test_module_list_that_runs_in_circles(tmp_path: Path) -> None:
    data = bytearray(memory_dump(in_xenvbd()))
    # The third entry points back to the second.
    at = data.index(struct.pack("<III", 0x80540000, 0x810000A0, 0)[:8])
    struct.pack_into("<I", data, at, 0x81000050)
    fact = read(tmp_path, bytes(data))
    assert len(fact.modules) <= 10


def test_other_strides_of_driver_entries(tmp_path: Path) -> None:
    data = bytearray(triage_dump(in_xenvbd()))
    (table,) = struct.unpack_from("<I", data, 0x1030)
    entries = [bytes(data[table + 0x4C * one :][:0x4C]) for one in range(4)]
    moved = len(data)
    data += b"".join(one.ljust(0x54, b"\0") for one in entries)
    struct.pack_into("<I", data, 0x1030, moved)
    fact = read(tmp_path, bytes(data))
    assert fact.modules == (KERNEL, HAL, XENPCI, XENVBD, GONE)


def test_times_that_cannot_be() -> None:
    assert form.file_time(0) is None
    assert form.file_time(1 << 63) is None
    assert form.file_time((1 << 62) - 1) is None
    assert form.file_time(None) is None


def test_pointers_of_the_debugger_block_outside_it() -> None:
    assert Debugger(bytes(0x20)).pointer(0x20) is None
    assert Debugger(b"").small(0) is None


def test_crash_without_anything(tmp_path: Path) -> None:
    fact = read(
        tmp_path, triage_dump(Crash(0xE2, (0, 0, 0, 0), when=datetime(2008, 1, 1, tzinfo=UTC)))
    )
    assert fact.name == "MANUALLY_INITIATED_CRASH"
    assert (fact.module, fact.frames, fact.modules) == (None, (), ())


def test_names_of_modules_are_made_safe(tmp_path: Path) -> None:
    odd = Module("\\SystemRoot\\System32\\evil\x1b[2J.sys", 0xF7650000, 0xF7658000)
    fact = read(tmp_path, triage_dump(replace(in_xenvbd(), drivers=(odd,))))
    assert fact.modules[0].name == "evil?[2J.sys"
