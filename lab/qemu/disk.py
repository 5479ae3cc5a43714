"""qcow2 overlays: what a machine writes never reaches the image below it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from lab.core.errors import LabBroken


def _qemu_img(*args: str) -> str:
    try:
        done = subprocess.run(["qemu-img", *args], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise LabBroken("qemu-img is missing", hint="pvlab setup") from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise LabBroken(f"qemu-img {args[0]}: {said[-1]}")
    return done.stdout


def create_overlay(overlay: Path, base: Path, base_format: str) -> Path:
    """Create a qcow2 file whose unwritten blocks are those of ``base``.

    Args:
        overlay: the new file.
        base: the image below; must stay where it is and as it is.
        base_format: ``"raw"`` or ``"qcow2"``.

    Raises:
        LabBroken: qemu-img refused.
    """
    _qemu_img("create", "-q", "-f", "qcow2", "-b", str(base), "-F", base_format, str(overlay))
    return overlay


def create_blank(path: Path, size_mib: int) -> Path:
    """Create an empty qcow2 disk of ``size_mib`` MiB."""
    _qemu_img("create", "-q", "-f", "qcow2", str(path), f"{size_mib}M")
    return path


def backing_chain(path: Path) -> list[Path]:
    """The image and everything below it, top first."""
    chain = json.loads(_qemu_img("info", "-U", "--backing-chain", "--output=json", str(path)))
    return [Path(entry["filename"]) for entry in chain]
