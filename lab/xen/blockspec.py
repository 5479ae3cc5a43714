"""What to attach and as which virtual device, in the words users type."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lab.core.errors import UsageError

# xen-vbd-interface(7), "Configuration file syntax": a whole disk or a partition.
_NAME = re.compile(r"(?P<family>xvd|hd|sd)(?P<disk>[a-z]{1,3})(?P<partition>\d{1,6})?")
_MAJOR_HD = (3, 22)
_MAJOR_SD = 8
_MAJOR_XVD = 202
_EXTENDED = 1 << 28

_MODES = {"r": "r", "ro": "r", "w": "w", "rw": "w", "w!": "w!"}
_KINDS = ("phy", "file", "tap:aio", "tap2:aio")


@dataclass(frozen=True, slots=True)
class BlockSpec:
    """One block device to attach.

    Attributes:
        kind: ``phy`` (a block device of dom0), ``file``, ``tap:aio`` or ``tap2:aio``.
        path: absolute path in dom0.
        vdev: virtual device name without ``/dev/``, such as ``hdc``.
        mode: ``r``, ``w``, or ``w!`` (writable and shared).
    """

    kind: str
    path: str
    vdev: str
    mode: str

    @classmethod
    def parse(cls, backend: str, vdev: str, mode: str = "w") -> BlockSpec:
        """Read the three words of ``block-attach``.

        Args:
            backend: such as ``phy:/dev/vg00/virt-virtdemo-1``; a ``phy:`` path may leave out
                ``/dev/``. The prefix is needed: without it the backend does not publish the
                sector size and count.
            vdev: ``/dev/hdc`` or ``hdc``.
            mode: ``r``, ``ro``, ``w``, ``rw`` or ``w!``.

        Raises:
            UsageError: one of them makes no sense.
        """
        kind = next((one for one in _KINDS if backend.startswith(one + ":")), None)
        if kind is None:
            raise UsageError(
                f"`{backend}` does not say what kind of backend it is",
                hint="write phy:/dev/VG/VOLUME for a volume, file:/PATH for a file",
            )
        path = backend[len(kind) + 1 :]
        if kind == "phy" and path and not path.startswith("/"):
            path = f"/dev/{path}"
        # The toolstacks separate their own fields with commas and lines.
        if not re.fullmatch(r"/[^,\s]+", path):
            raise UsageError(f"`{path}` is not an absolute path a block device can have")
        if mode not in _MODES:
            raise UsageError(
                f"`{mode}` is not a mode of a block device", hint=f"one of {', '.join(_MODES)}"
            )
        name = vdev.removeprefix("/dev/")
        devid(name)
        return cls(kind, path, name, _MODES[mode])

    @property
    def backend(self) -> str:
        """The backend as it is typed: ``phy:/dev/vg00/virt-virtdemo-1``."""
        return f"{self.kind}:{self.path}"

    @property
    def devid(self) -> int:
        """The virtual device's number."""
        return devid(self.vdev)

    def __str__(self) -> str:
        return f"{self.backend} /dev/{self.vdev} {self.mode}"


def devid(vdev: str) -> int:
    """The number of a virtual block device.

    Args:
        vdev: ``hdc``, ``/dev/hdc``, ``sda1``, ``xvdb``, or the number itself in decimal.

    Returns:
        The device number of xen-vbd-interface(7), "Concrete encoding in the VBD interface":
        hda 768, hdc 5632, sda 2048, xvda 51712.

    Raises:
        UsageError: no such device can exist.
    """
    name = vdev.removeprefix("/dev/")
    if name.isdecimal():
        return int(name)
    match = _NAME.fullmatch(name)
    if match is None:
        raise UsageError(f"`{vdev}` is not a virtual block device", hint="such as /dev/hdc")
    disk = 0
    for letter in match["disk"]:
        disk = disk * 26 + ord(letter) - ord("a") + 1
    disk -= 1
    partition = int(match["partition"] or 0)
    family = match["family"]
    if family == "hd" and disk < 4 and partition < 64:
        return _MAJOR_HD[disk // 2] << 8 | (disk % 2) << 6 | partition
    if family == "sd" and disk < 16 and partition < 16:
        return _MAJOR_SD << 8 | disk << 4 | partition
    if family == "xvd" and disk < 16 and partition < 16:
        return _MAJOR_XVD << 8 | disk << 4 | partition
    if family == "xvd" and disk < 1 << 20 and partition < 1 << 8:
        return _EXTENDED | disk << 8 | partition
    raise UsageError(f"`{vdev}` is beyond what its kind of device can number")


def vdev_name(number: int) -> str:
    """The name of a virtual block device number; the number itself when it has none."""
    major, minor = number >> 8, number & 0xFF
    if number & _EXTENDED:
        family, disk, partition = "xvd", (number & ~_EXTENDED) >> 8, minor
    elif major == _MAJOR_XVD:
        family, disk, partition = "xvd", minor >> 4, minor & 15
    elif major == _MAJOR_SD:
        family, disk, partition = "sd", minor >> 4, minor & 15
    elif major in _MAJOR_HD:
        family, disk, partition = "hd", _MAJOR_HD.index(major) * 2 + (minor >> 6), minor & 63
    else:
        return str(number)
    letters = ""
    disk += 1
    while disk:
        disk, letter = divmod(disk - 1, 26)
        letters = chr(ord("a") + letter) + letters
    return f"{family}{letters}{partition or ''}"
