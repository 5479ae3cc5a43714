"""Cores of Xen guests, read: a Windows, a Linux, and what is cut off."""

from __future__ import annotations

import contextlib
import random
import struct
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest
from dumpmaker import (
    GONE,
    HAL,
    KERNEL,
    LINUX_LINES,
    XENPCI,
    XENVBD,
    image_of,
    in_xenvbd,
    printk_ring,
    xen_core,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lab.core.errors import UsageError
from lab.crash import elfcore, printk
from lab.crash.dumpwriter import memory_dump, memory_image
from lab.crash.facts import CrashFact, from_json, known, to_json
from lab.crash.mapped import View

CRASH = in_xenvbd()
REGISTERS = {name: CRASH.registers[name] for name in ("eip", "esp", "ebp")}
LINKED = ["ntkrnlpa.exe+0x5a2a7", "xenvbd+0x1a2b", "xenpci+0x777", "ntkrnlpa.exe+0x29"]
WINDOWS_CORE = xen_core(memory_image(CRASH), registers=REGISTERS)
LINUX_CORE = xen_core(image_of(printk_ring()))


def read(tmp_path: Path, data: bytes) -> list[CrashFact]:
    path = tmp_path / "guest.core"
    path.write_bytes(data)
    return elfcore.read(path)


# -- Windows -------------------------------------------------------------------------------


@pytest.mark.parametrize("pae", [True, False], ids=["pae", "no-pae"])
@pytest.mark.parametrize("table", [None, 0], ids=["cr3", "no-cr3"])
def test_windows_is_found_in_memory(tmp_path: Path, pae: bool, table: int | None) -> None:
    crash = replace(CRASH, pae=pae)
    data = xen_core(memory_image(crash), table=table, registers=REGISTERS)
    (fact,) = read(tmp_path, data)
    assert fact.kind == "bugcheck"
    assert fact.name == "DRIVER_IRQL_NOT_LESS_OR_EQUAL"
    assert fact.parameters == CRASH.parameters
    assert fact.module == "xenvbd"
    assert fact.modules == (KERNEL, HAL, XENPCI, XENVBD, GONE)
    assert [one.text() for one in fact.frames] == LINKED
    assert fact.log[0].text == "XenVbd --> Attach"
    assert fact.process == "xenvbd_io.exe"
    assert fact.system == "Windows Server 2003 3790 SP2, 32-bit" + (" PAE" if pae else "")
    assert set(fact.sources) == set(known(fact))
    assert fact.notes == ()


def test_windows_that_did_not_stop_blames_nobody(tmp_path: Path) -> None:
    data = xen_core(memory_image(replace(CRASH, code=0)), registers=REGISTERS)
    (fact,) = read(tmp_path, data)
    assert fact.kind == "unknown"
    assert (fact.code, fact.module) == (None, None)
    assert fact.log
    assert [one.text() for one in fact.frames] == LINKED
    assert "no bugcheck is recorded in memory: the guest ran or hung" in fact.notes


def test_header_that_windows_prepared_is_enough(tmp_path: Path) -> None:
    # No debugger block, no page tables: the page that was to be written to the dump.
    header = memory_dump(CRASH)[:4096]
    (fact,) = read(tmp_path, xen_core(image_of(bytes(8192) + header)))
    assert (fact.code, fact.parameters) == (CRASH.code, CRASH.parameters)
    assert fact.when == "2007-11-19 08:30:00 UTC"
    assert "no page tables were found: modules and stack cannot be read" in fact.notes


# -- Linux ---------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [4, 8])
@pytest.mark.parametrize("first", [0, 70, 100_000])
def test_kernel_log_is_read_record_by_record(width: int, first: int) -> None:
    view = View(printk_ring(width=width, first=first))
    log = printk.find_log(view, 0, view.size)
    assert log is not None
    assert log.whole
    assert [line.text.partition("] ")[2] for line in log.lines] == list(LINUX_LINES)
    assert log.lines[3].text.startswith("[    0.999999] ")
    assert [line.number for line in log.lines] == list(range(1, len(LINUX_LINES) + 1))


def test_kernel_log_without_its_array_loses_only_the_times() -> None:
    view = View(printk_ring(infos=False))
    log = printk.find_log(view, 0, view.size)
    assert log is not None
    assert [line.text for line in log.lines] == list(LINUX_LINES)


def test_plain_kernel_log_of_an_old_kernel() -> None:
    # Before 3.5 the log is text: "<level>" and lines.
    text = "".join(f"<6>{line}\n" for line in LINUX_LINES).encode()
    view = View(bytes(5000) + text + bytes(5000))
    log = printk.find_log(view, 0, view.size)
    assert log is not None
    assert not log.whole
    assert [line.text for line in log.lines] == list(LINUX_LINES)


def test_no_kernel_log_in_other_memory() -> None:
    view = View(b"\x010Kernel panic - not syncing: %s\n" + bytes(10_000))
    assert printk.find_log(view, 0, view.size) is None


def test_linux_guest(tmp_path: Path) -> None:
    (fact,) = read(tmp_path, LINUX_CORE)
    assert fact.kind == "oops"
    assert fact.message == "BUG: kernel NULL pointer dereference, address: 00000004"
    assert fact.module == "xen_blkfront"
    assert fact.frames[0].text() == "xen_blkfront!blkfront_probe+0x1f"
    assert fact.when == "1.333333 s after boot"
    assert {one.reader for one in fact.sources.values()} == {"Xen core"}
    assert any(
        note.startswith("lines are those of the kernel log in memory") for note in fact.notes
    )


def test_linux_guest_that_did_not_crash(tmp_path: Path) -> None:
    lines = tuple(f"xen_netfront: message {number}" for number in range(30))
    core = xen_core(image_of(printk_ring((LINUX_LINES[0], *lines))))
    (fact,) = read(tmp_path, core)
    assert fact.kind == "unknown"
    assert len(fact.log) == 20
    assert fact.log[-1].text.endswith("message 29")
    assert "no crash in the kernel log: the guest ran or hung" in fact.notes


def test_guest_without_anything_known(tmp_path: Path) -> None:
    (fact,) = read(tmp_path, xen_core(image_of(bytes(4096))))
    assert fact.kind == "unknown"
    assert fact.notes == ("neither a 32-bit Windows nor a kernel log was found in memory",)


# -- what is not in order ------------------------------------------------------------------


def test_sections_are_known_without_their_names(tmp_path: Path) -> None:
    # Names come last in a real core.
    names = WINDOWS_CORE.rindex(b"\0.shstrtab\0")
    (fact,) = read(tmp_path, WINDOWS_CORE[:names])
    assert [one.text() for one in fact.frames] == LINKED


def test_core_that_is_cut_off_in_its_memory(tmp_path: Path) -> None:
    (fact,) = read(tmp_path, LINUX_CORE[: len(LINUX_CORE) * 3 // 4])
    assert fact.message == "BUG: kernel NULL pointer dereference, address: 00000004"
    assert any(note.startswith("truncated: ") for note in fact.notes)


def test_page_numbers_that_are_missing_are_guessed(tmp_path: Path) -> None:
    # The numbers come behind the pages in a real core: when that is cut off, there are none.
    image = image_of(printk_ring())
    core = bytearray(xen_core(image))
    at = core.index(struct.pack("<QQQ", 1, 2, 3))
    core[at : at + 8 * len(image.pages)] = bytes(8 * len(image.pages))
    (fact,) = read(tmp_path, bytes(core))
    assert fact.message == "BUG: kernel NULL pointer dereference, address: 00000004"
    assert any("guessed" in note for note in fact.notes)


def test_unsorted_page_numbers(tmp_path: Path) -> None:
    image = memory_image(CRASH)
    numbers = sorted(image.pages)
    core = bytearray(xen_core(image, registers=REGISTERS))
    at = core.index(struct.pack("<QQ", *numbers[:2]))
    pages = core.index(bytes(image.pages[numbers[0]]))
    # Swap the first two pages and their numbers.
    first, second = (bytes(core[pages + 4096 * one :][:4096]) for one in (0, 1))
    core[pages : pages + 8192] = second + first
    struct.pack_into("<QQ", core, at, numbers[1], numbers[0])
    (fact,) = read(tmp_path, bytes(core))
    assert [one.text() for one in fact.frames] == LINKED


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"\x7fELF\x02\x01\x01" + bytes(100)])
def test_what_is_no_core_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(UsageError):
        read(tmp_path, data)
    assert not elfcore.recognise(data, "guest.core")


def test_core_with_program_headers_is_not_taken() -> None:
    # As QEMU's dump-guest-memory and kdump write them.
    head = bytearray(WINDOWS_CORE[:64])
    assert elfcore.recognise(bytes(head), "x")
    struct.pack_into("<H", head, 0x38, 2)
    assert not elfcore.recognise(bytes(head), "x")


@pytest.mark.parametrize("data", [WINDOWS_CORE, LINUX_CORE], ids=["windows", "linux"])
def test_truncated_and_damaged_cores(tmp_path: Path, data: bytes) -> None:
    rng = random.Random(3)  # noqa: S311
    tracemalloc.start()
    try:
        for number in range(40):
            damaged = bytearray(data)
            if number % 2:
                del damaged[rng.randrange(len(data)) :]
            else:
                for _ in range(rng.choice((1, 4, 64))):
                    damaged[rng.randrange(rng.choice((0x400, len(data))))] ^= 1 << rng.randrange(8)
            with contextlib.suppress(UsageError):
                for fact in read(tmp_path, bytes(damaged)):
                    assert from_json(to_json(fact)) == fact
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([WINDOWS_CORE, LINUX_CORE]),
    st.lists(
        st.tuples(st.integers(0x10, 0x280).map(lambda at: at & ~3), st.integers(0, 0xFFFFFFFF)),
        min_size=1,
        max_size=4,
    ),
)
def test_headers_may_say_anything(
    tmp_path: Path, core: bytes, words: list[tuple[int, int]]
) -> None:
    damaged = bytearray(core)
    for at, value in words:
        struct.pack_into("<I", damaged, at, value)
    with contextlib.suppress(UsageError):
        read(tmp_path, bytes(damaged))
