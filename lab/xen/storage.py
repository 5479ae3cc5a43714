"""Logical volumes in dom0, the backing devices of virtual disks."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from lab.core.deadline import Deadline
from lab.core.errors import LabBroken, UsageError
from lab.core.journal import noun
from lab.xen.dom0 import Dom0

SECTOR_BYTES = 512

# lvm(8), "VALID NAMES".
_NAME = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9+_.][A-Za-z0-9+_.-]*")


@dataclass(frozen=True, slots=True)
class LogicalVolume:
    """A logical volume.

    Attributes:
        group: name of its volume group.
        name: its own name.
        size_bytes: exact size, as the kernel gives it.
    """

    group: str
    name: str
    size_bytes: int

    @property
    def path(self) -> str:
        """Its device node: ``/dev/vg00/NAME``."""
        return f"/dev/{self.group}/{self.name}"

    @property
    def sectors(self) -> int:
        """Size in sectors of 512 bytes, the unit of the backend's ``sectors`` node."""
        return self.size_bytes // SECTOR_BYTES


@noun
class VolumeGroup:
    """A volume group in dom0.

    Args:
        dom0: the connection.
        name: its name.
        old_tools: dom0's LVM is of 2007 and knows neither ``-y`` nor ``-W`` of lvcreate.
    """

    def __init__(self, dom0: Dom0, name: str = "vg00", *, old_tools: bool = False) -> None:
        self.dom0 = dom0
        self.name = _checked(name)
        self._options = "-Zn" if old_tools else "-y -Zn -Wn"

    def create(self, name: str, size_mib: int, deadline: Deadline) -> LogicalVolume:
        """Create a volume without what an earlier one left in its first and last MiB.

        That is where partition tables and file system headers are; the rest keeps stale
        bytes, as a real volume does.

        Args:
            name: of the new volume.
            size_mib: rounded up to whole extents by LVM; see ``sectors`` for the outcome.
            deadline: when to give up.

        Raises:
            UsageError: a bad name or size, or the volume exists.
            LabBroken: there is no room, or LVM failed.
        """
        if size_mib < 1:
            raise UsageError(f"a volume of {size_mib} MiB makes no sense")
        path = shlex.quote(f"/dev/{self.name}/{_checked(name)}")
        group = shlex.quote(self.name)
        # -Zn -Wn: LVM's own wiping waits for device nodes that udev would make; dom0 runs no
        # udev, so the node is made by vgmknodes where libdevmapper has not.
        script = (
            "set -e\n"
            f"lvcreate {self._options} -L {size_mib}m -n {shlex.quote(name)} {group} >&2\n"
            f"[ -b {path} ] || vgmknodes {group} >&2\n"
            f"bytes=$(blockdev --getsize64 {path})\n"
            f"dd if=/dev/zero of={path} bs=1048576 count=1 conv=notrunc 2>/dev/null\n"
            f"dd if=/dev/zero of={path} bs=1048576 count=1 seek=$((bytes / 1048576 - 1))"
            " conv=notrunc,fsync 2>/dev/null\n"
            'echo "$bytes"'
        )
        result = self.dom0.run(script, deadline)
        if result.ok and result.stdout.strip().isdecimal():
            return LogicalVolume(self.name, name, int(result.stdout))
        said = _last_line(result.stderr)
        if "already exists" in said:
            raise UsageError(f"the volume {self.name}/{name} already exists")
        if "insufficient free " in said.lower():
            raise LabBroken(
                f"no room for {size_mib} MiB in {self.name}: {said}",
                hint="remove volumes that are no longer needed",
            )
        raise LabBroken(f"cannot create {self.name}/{name}: {said or 'no message'}")

    def zero(self, volume: LogicalVolume, deadline: Deadline) -> None:
        """Overwrite a whole volume with zeroes.

        Raises:
            LabBroken: dom0 cannot write it.
        """
        mib = -(-volume.size_bytes // 1048576)
        command = (
            f"dd if=/dev/zero of={shlex.quote(volume.path)} bs=1048576 count={mib} "
            "conv=notrunc,fsync 2>&1"
        )
        result = self.dom0.run(command, deadline)
        # A size that is no whole number of MiB ends in "No space left on device".
        if not result.ok and "No space left on device" not in result.stdout:
            raise LabBroken(f"cannot zero {volume.path}: {_last_line(result.stdout)}")

    def remove(self, volume: LogicalVolume | str, deadline: Deadline) -> None:
        """Remove a volume; fine when it is not there.

        Raises:
            LabBroken: it is in use, or LVM failed.
        """
        name = volume.name if isinstance(volume, LogicalVolume) else _checked(volume)
        full = f"{self.name}/{name}"
        result = self.dom0.run(f"lvremove -f {shlex.quote(full)}", deadline)
        missing = ("Failed to find logical volume", "logical volume(s) not found")
        if result.ok or any(words in result.stderr for words in missing):
            return
        said = _last_line(result.stderr)
        hint = "detach it from the guest first" if "in use" in said or "open" in said else ""
        raise LabBroken(f"cannot remove {full}: {said or 'no message'}", hint=hint)

    def list(self, deadline: Deadline) -> list[LogicalVolume]:
        """The group's volumes, by name.

        Raises:
            LabBroken: there is no such group, or LVM failed.
        """
        command = f"lvs --noheadings --nosuffix --units b -o lv_name,lv_size {self.name}"
        return parse_lvs(self.dom0.run(command, deadline, check=True).stdout, self.name)


def parse_lvs(text: str, group: str) -> list[LogicalVolume]:
    """Parse ``lvs --noheadings --nosuffix --units b -o lv_name,lv_size``.

    Raises:
        LabBroken: a line is not understood.
    """
    volumes: list[LogicalVolume] = []
    for line in text.splitlines():
        words = line.split()
        if not words:
            continue
        if len(words) != 2 or not words[1].isdecimal():
            raise LabBroken(f"cannot read this line of lvs: {line.strip()}")
        volumes.append(LogicalVolume(group, words[0], int(words[1])))
    return sorted(volumes, key=lambda one: one.name)


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise UsageError(f"`{name}` is not a name LVM allows")
    return name


def _last_line(text: str) -> str:
    # LVM precedes errors with warnings about leaked descriptors and the like.
    lines = [line.strip() for line in text.splitlines() if "WARNING" not in line and line.strip()]
    return lines[-1] if lines else ""
