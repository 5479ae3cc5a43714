from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lab.images import bootdisk
from lab.images.bootdisk import MBR_CODE, make_bootdisk

MIB = 1 << 20
TOOLS = ("mkfs.fat", "syslinux", "mcopy", "mtype")


class Context:
    """A build that runs its programs here, except those it is to pretend."""

    def __init__(self, scratch: Path, pretend: Sequence[str] = ()) -> None:
        self.scratch = scratch
        self.pretend = pretend
        self.ran: list[list[str]] = []

    def run(self, argv: Sequence[str | Path]) -> None:
        words = [str(word) for word in argv]
        self.ran.append(words)
        if words[0] == "mcopy" and words[0] in self.pretend:
            with Path(words[2]).open("r+b") as fat:
                fat.write(Path(words[3]).read_bytes())
        if words[0] not in self.pretend:
            subprocess.run(words, check=True, capture_output=True)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root filesystem of which only the ends are not zero."""
    path = tmp_path / "root.img"
    with path.open("wb") as file:
        file.write(b"first of root")
        file.truncate(3 * MIB)
        file.seek(3 * MIB - 12)
        file.write(b"last of root")
    return path


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config"
    path.write_text("DEFAULT linux\n")
    return path


def make(context: Context, target: Path, files: dict[str, Path], root: Path) -> None:
    ctx: Any = context
    make_bootdisk(ctx, target, boot_files=files, root=root)


def partitions(disk: Path) -> list[tuple[int, int, int, int]]:
    """(active, type, first sector, sectors) of each entry of the MBR that is used."""
    with disk.open("rb") as file:
        mbr = file.read(512)
    assert mbr[510:] == b"\x55\xaa"
    found = []
    for at in range(446, 510, 16):
        active, kind = mbr[at], mbr[at + 4]
        first, count = struct.unpack_from("<II", mbr, at + 8)
        if kind:
            found.append((active, kind, first, count))
    return found


def read(disk: Path, at: int, size: int) -> bytes:
    with disk.open("rb") as file:
        file.seek(at)
        return file.read(size)


@pytest.fixture
def pretending(scratch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    (tmp_path / "mbr.bin").write_bytes(b"\xeb" * 440 + b"beyond the code")
    monkeypatch.setattr(bootdisk, "MBR_CODE", tmp_path / "mbr.bin")
    return Context(scratch, pretend=("mkfs.fat", "syslinux", "mcopy"))


def test_layout(pretending: Context, tmp_path: Path, root: Path, config: Path):
    disk = tmp_path / "disk.img"
    make(pretending, disk, {"syslinux.cfg": config}, root)
    boot, linux = partitions(disk)
    # The BIOS starts the active one, a FAT16; both are aligned to MiBs.
    assert boot == (0x80, 0x06, 2048, 48 * 2048)
    assert linux == (0x00, 0x83, 49 * 2048, 3 * 2048)
    assert disk.stat().st_size == 52 * MIB
    assert read(disk, MIB, 14) == b"DEFAULT linux\n"
    assert read(disk, 49 * MIB, 13) == b"first of root"
    assert read(disk, 52 * MIB - 12, 12) == b"last of root"


def test_boot_code_stops_before_the_table(
    pretending: Context, tmp_path: Path, root: Path, config: Path
):
    disk = tmp_path / "disk.img"
    make(pretending, disk, {"syslinux.cfg": config}, root)
    assert read(disk, 0, 446) == b"\xeb" * 440 + bytes(6)


def test_steps(pretending: Context, tmp_path: Path, root: Path, config: Path):
    make(pretending, tmp_path / "disk.img", {"a": config, "b": config}, root)
    steps = [words[0] for words in pretending.ran]
    assert steps == ["mkfs.fat", "syslinux", "mcopy", "mcopy", "dd", "dd"]
    assert [words[-1] for words in pretending.ran[2:4]] == ["::a", "::b"]
    # What is in the disk is not left beside it.
    assert list(pretending.scratch.iterdir()) == []


def test_disk_is_sparse(pretending: Context, tmp_path: Path, root: Path, config: Path):
    disk = tmp_path / "disk.img"
    make(pretending, disk, {"syslinux.cfg": config}, root)
    assert disk.stat().st_blocks * 512 < 8 * MIB


@pytest.mark.skipif(
    not MBR_CODE.exists() or not all(map(shutil.which, TOOLS)),
    reason="syslinux, dosfstools or mtools are not installed",
)
def test_real_tools(scratch: Path, tmp_path: Path, root: Path, config: Path):
    disk = tmp_path / "disk.img"
    make(Context(scratch), disk, {"syslinux.cfg": config}, root)
    assert len(partitions(disk)) == 2
    assert read(disk, 0, 440) == MBR_CODE.read_bytes()[:440].ljust(440, b"\0")
    boot_sector = read(disk, MIB, 512)
    assert boot_sector[3:11] == b"SYSLINUX"
    assert boot_sector[54:62] == b"FAT16   "
    # mtools reads a partition inside a file at "@@offset".
    done = subprocess.run(
        ["mtype", "-i", f"{disk}@@1M", "::syslinux.cfg"], capture_output=True, check=True
    )
    assert done.stdout == b"DEFAULT linux\n"
