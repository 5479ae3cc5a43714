from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from lab.core.errors import LabBroken
from lab.qemu.disk import backing_chain, create_blank, create_overlay

needs_qemu_img = pytest.mark.skipif(
    shutil.which("qemu-img") is None, reason="qemu-img is not installed"
)


def info(path: Path) -> dict[str, object]:
    done = subprocess.run(
        ["qemu-img", "info", "--output=json", str(path)], capture_output=True, check=True
    )
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


@needs_qemu_img
def test_blank_disk_has_its_size_and_takes_no_room(tmp_path: Path):
    path = create_blank(tmp_path / "vg.qcow2", 64 * 1024)
    assert info(path)["virtual-size"] == 64 << 30
    assert path.stat().st_size < 1 << 20


@needs_qemu_img
def test_overlay_reads_through_to_its_base(tmp_path: Path):
    base = tmp_path / "root, it's.img"
    base.write_bytes(b"PVLAB" + bytes((1 << 20) - 5))
    overlay = create_overlay(tmp_path / "overlay.qcow2", base, "raw")
    assert info(overlay)["virtual-size"] == 1 << 20
    raw = tmp_path / "raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", str(overlay), str(raw)], check=True)
    assert raw.read_bytes() == base.read_bytes()


@needs_qemu_img
def test_chain_from_the_top(tmp_path: Path):
    base = create_blank(tmp_path / "base", 1)
    middle = create_overlay(tmp_path / "middle", base, "qcow2")
    top = create_overlay(tmp_path / "top", middle, "qcow2")
    assert backing_chain(top) == [top, middle, base]
    assert backing_chain(base) == [base]


@needs_qemu_img
def test_refusal_is_told_in_one_line(tmp_path: Path):
    with pytest.raises(LabBroken) as caught:
        create_overlay(tmp_path / "overlay", tmp_path / "gone", "raw")
    assert caught.value.message.startswith("qemu-img create: ")
    assert "\n" not in caught.value.message
    with pytest.raises(LabBroken, match=r"qemu-img info: .*gone"):
        backing_chain(tmp_path / "gone")


def test_one_that_fails_without_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    program = tmp_path / "qemu-img"
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LabBroken, match="qemu-img create: exit status 3"):
        create_blank(tmp_path / "disk", 1)


def test_one_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LabBroken, match="qemu-img is missing") as caught:
        create_blank(tmp_path / "disk", 1)
    assert caught.value.hint == "pvlab setup"
