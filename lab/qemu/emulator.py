"""Which QEMU program to run, and how it is started."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lab.core.errors import LabBroken

PROGRAM = "qemu-system-x86_64"


@dataclass(frozen=True, slots=True)
class Emulator:
    """A QEMU that can be started.

    Attributes:
        argv: the words that start it, before any option of a machine.
        version: as it reports itself, such as ``5.2.0``.
        origin: ``"system"`` or the name of the image that holds it.
    """

    argv: tuple[str, ...]
    version: str
    origin: str

    @property
    def label(self) -> str:
        """Version and origin, for reports."""
        return f"QEMU {self.version} ({self.origin})"

    @property
    def numbers(self) -> tuple[int, ...]:
        """The version as numbers, for comparisons."""
        return tuple(int(part) for part in re.findall(r"\d+", self.version)[:3])


def _version(argv: tuple[str, ...]) -> str:
    try:
        done = subprocess.run(
            [*argv, "--version"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LabBroken(f"{argv[-1]} does not start: {error}") from None
    match = re.search(r"version (\d+(?:\.\d+)+)", done.stdout)
    if done.returncode or not match:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise LabBroken(f"{argv[0]} does not start: {last[0] if last else done.returncode}")
    return match[1]


def system_emulator() -> Emulator | None:
    """The QEMU on ``PATH``, or None when there is none."""
    path = shutil.which(PROGRAM)
    if path is None:
        return None
    return Emulator((path,), _version((path,)), "system")


def tree_emulator(tree: Path, origin: str) -> Emulator:
    """The QEMU inside an unpacked Debian tree, run through the tree's own loader.

    The loader and its library path make the tree independent of the host's libc, with no
    chroot and no root.

    Args:
        tree: the unpacked root.
        origin: the image's name.

    Raises:
        LabBroken: the tree holds no loader or no QEMU, or it does not start.
    """
    loaders = sorted(tree.glob("lib/x86_64-linux-gnu/ld-*.so*"))
    program = tree / "usr/bin" / PROGRAM
    if not loaders or not program.exists():
        raise LabBroken(f"no emulator in {tree}", hint=f"pvlab image rm {origin}; then build it")
    library_path = ":".join(
        str(tree / part)
        for part in (
            "lib/x86_64-linux-gnu",
            "usr/lib/x86_64-linux-gnu",
            "usr/lib/x86_64-linux-gnu/pulseaudio",
        )
    )
    argv = (
        str(loaders[0]), "--library-path", library_path, str(program),
        "-L", str(tree / "usr/share/qemu"), "-L", str(tree / "usr/share/seabios"),
    )  # fmt: skip
    return Emulator(argv, _version(argv), origin)
