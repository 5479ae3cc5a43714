"""The dumper that runs in dom0, over memory that is made up; its cores are read by the reader."""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path
from typing import Any

import pytest

from lab.core.command import CommandResult
from lab.crash.elfcore import Core
from lab.crash.mapped import opened
from lab.place.core import core_size
from lab.xen import dumper
from lab.xen.quick_core import dump_quickly


class Guest:
    """Pages by number; each is full of its number."""

    def __init__(self, *present: int) -> None:
        self.present = set(present)
        self.alive: dict[int, Any] = {}
        self.asked: list[int] = []

    def contexts(self) -> list[bytes]:
        return [bytes([vcpu + 1]) * dumper.CONTEXT for vcpu in range(2)]

    def mapped(self, first: int) -> tuple[int | None, Any]:
        self.asked.append(first)
        numbers = range(first, first + dumper.BATCH)
        errors = (ctypes.c_int * dumper.BATCH)(
            *(0 if number in self.present else -22 for number in numbers)
        )
        if all(errors):
            return None, None
        pages = b"".join(
            struct.pack("<Q", number) * 512 if number in self.present else bytes(dumper.PAGE)
            for number in numbers
        )
        buffer = ctypes.create_string_buffer(pages, len(pages))
        self.alive[ctypes.addressof(buffer)] = buffer
        return ctypes.addressof(buffer), errors

    def unmap(self, at: int) -> None:
        del self.alive[at]


def dumped(guest: Guest, path: Path) -> int:
    file = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        return dumper.dump(guest, file)
    finally:
        os.close(file)


RAM = [*range(0xA0), *range(0xC0, 1500), 0xFC000, 0xFEFFF]


def test_core_is_read_by_the_reader(tmp_path: Path) -> None:
    guest = Guest(*RAM)
    path = tmp_path / "core"
    assert dumped(guest, path) == len(RAM)
    assert not guest.alive, "every batch is let go of"
    with path.open("rb") as file:
        assert core_size(file) == path.stat().st_size
    with opened(path) as view:
        core = Core(view, "core")
        assert core.notes == []
        assert list(core.numbers()) == RAM
        for number in (0, 0x9F, 0xC0, 1499, 0xFC000, 0xFEFFF):
            at = core.page(number)
            assert at is not None
            assert view.u64(at) == number
            assert view.u64(at + dumper.PAGE - 8) == number
        assert core.page(0xA0) is None
        assert core.page(1500) is None


def test_memory_above_4_gib_and_no_longer_than_need_be(tmp_path: Path) -> None:
    guest = Guest(0, 1, 0x100000, 0x100001)
    assert dumped(guest, tmp_path / "core") == 4
    low = [first for first in guest.asked if first < 0xF0000]
    high = [first for first in guest.asked if first >= 0x100000]
    assert low == [0, dumper.BATCH]
    assert high == [0x100000, 0x100000 + dumper.BATCH]


def test_guest_without_memory_is_no_core(tmp_path: Path) -> None:
    assert dumped(Guest(), tmp_path / "core") == 0


def test_without_xen_it_says_so_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(name: str) -> str:
        raise OSError(f"no lib{name}")

    monkeypatch.setattr(dumper, "library", missing)
    assert dumper.main(["3", str(tmp_path / "core")]) == dumper.CANNOT
    assert "no libxenforeignmemory" in capsys.readouterr().err
    assert not (tmp_path / "core").exists()


@pytest.mark.parametrize(("status", "done"), [(0, True), (3, False), (127, False)])
def test_it_is_sent_to_dom0_and_may_not_work_there(status: int, done: bool) -> None:
    sent: list[tuple[str, bytes]] = []

    class Dom0:
        def run(self, command: str, deadline: object, *, stdin: bytes) -> CommandResult:
            sent.append((command, stdin))
            return CommandResult(command, status, "", "", 0.1, "dom0")

    dom0: Any = Dom0()
    deadline: Any = None
    assert dump_quickly(dom0, 7, "/dev/vdd", deadline) is done
    ((command, script),) = sent
    assert command == "python3 -S -E - 7 /dev/vdd"
    compile(script, "dumper", "exec")
