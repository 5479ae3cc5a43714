from __future__ import annotations

from pathlib import Path

import pytest

from lab.core.errors import LabBroken
from lab.qemu.emulator import PROGRAM, Emulator, system_emulator, tree_emulator


def program(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def test_system_s_emulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = program(
        tmp_path / PROGRAM, "echo 'QEMU emulator version 7.2.13 (Debian 1:7.2+dfsg-7+deb12u7)'"
    )
    monkeypatch.setenv("PATH", str(tmp_path))
    assert system_emulator() == Emulator((str(path),), "7.2.13", "system")


def test_system_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert system_emulator() is None


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("echo 'error while loading libfdt.so.1' >&2; exit 127", "libfdt.so.1"),
        ("echo no version here", "no version here"),
        ("exit 4", "4"),
    ],
)
def test_one_that_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, words: str
):
    program(tmp_path / PROGRAM, body)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(LabBroken, match=f"{PROGRAM} does not start: .*{words}"):
        system_emulator()


def test_one_that_is_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / PROGRAM).write_bytes(b"junk")
    (tmp_path / PROGRAM).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LabBroken, match=f"{PROGRAM} does not start"):
        system_emulator()


def test_label_and_numbers():
    emulator = Emulator(("qemu",), "5.2.0", "qemu52-bullseye")
    assert emulator.label == "QEMU 5.2.0 (qemu52-bullseye)"
    assert emulator.numbers == (5, 2, 0)
    assert emulator.numbers < Emulator(("qemu",), "10.0.2", "system").numbers


def test_tree_s_emulator_runs_through_the_tree_s_own_loader(tmp_path: Path):
    loader = program(
        tmp_path / "lib/x86_64-linux-gnu/ld-2.31.so",
        'test "$1" = --library-path && echo "QEMU emulator version 5.2.0"',
    )
    qemu = program(tmp_path / "usr/bin" / PROGRAM, "exit 1")
    found = tree_emulator(tmp_path, "qemu52-bullseye")
    assert (found.version, found.origin) == ("5.2.0", "qemu52-bullseye")
    assert found.argv[0] == str(loader)
    assert found.argv[3] == str(qemu)
    # Firmware comes from the tree too.
    assert str(tmp_path / "usr/share/seabios") in found.argv


def test_tree_without_an_emulator(tmp_path: Path):
    with pytest.raises(LabBroken, match="no emulator in ") as caught:
        tree_emulator(tmp_path, "qemu52-bullseye")
    assert "pvlab image rm qemu52-bullseye" in caught.value.hint
