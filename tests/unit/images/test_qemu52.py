"""The one byte that is changed in QEMU 5.2: only where it belongs, or not at all."""

from __future__ import annotations

import importlib.util
import struct
from pathlib import Path
from types import ModuleType

import pytest

from lab.core.paths import repo_root

HEADERS = 64 + 56
BASE = 0x400000
JUMP = b"\x83\xe0\x07\x83\xf8\x01\x0f\x85"
LEA = b"\x48\x8d\x35"
TEXT = b"invalid tss type\0"


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    file = repo_root() / "images" / "qemu52-bullseye" / "build.py"
    spec = importlib.util.spec_from_file_location("qemu52_build", file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def program(*, checks: int, decoys: int = 0) -> bytes:
    """An ELF-64 file of one segment: so many checks that lead to the complaint, and others."""
    code = bytearray()
    jump_size, lea_size = len(JUMP) + 4, len(LEA) + 4
    body = (checks + decoys) * jump_size
    size = HEADERS + body + 2 * lea_size + len(TEXT)
    for number in range(checks + decoys):
        target = body + (0 if number < checks else lea_size)
        code += JUMP + struct.pack("<i", target - (len(code) + jump_size))
    text = body + 2 * lea_size
    code += LEA + struct.pack("<i", text - (body + lea_size))
    code += LEA + struct.pack("<i", 4 - len(code) - lea_size)
    code += TEXT
    head = bytearray(64)
    struct.pack_into("<Q", head, 32, 64)
    struct.pack_into("<HH", head, 54, 56, 1)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, BASE, BASE, size, size, 0x1000)
    return bytes(head) + segment + bytes(code)


def test_one_byte_is_changed(recipe: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "qemu"
    before = program(checks=1, decoys=3)
    file.write_bytes(before)
    assert recipe.accept_busy_tss(file)
    changed = [
        (at, old, new)
        for at, (old, new) in enumerate(zip(before, file.read_bytes(), strict=True))
        if old != new
    ]
    assert changed == [(HEADERS + 2, 7, 5)]


@pytest.mark.parametrize("checks", [0, 2])
def test_any_other_program_is_left_alone(recipe: ModuleType, tmp_path: Path, checks: int) -> None:
    file = tmp_path / "qemu"
    file.write_bytes(program(checks=checks, decoys=2))
    assert not recipe.accept_busy_tss(file)
    assert file.read_bytes() == program(checks=checks, decoys=2)
