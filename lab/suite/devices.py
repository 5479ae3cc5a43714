"""Block devices that a test or a scenario attaches: the fixture ``block_device``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lab.core.errors import DeadlineExpired, DriverFailure
from lab.core.journal import noun
from lab.xen import vbd
from lab.xen.blockspec import BlockSpec

if TYPE_CHECKING:
    from lab.guest.disks import DiskInfo
    from lab.place.place import Place
    from lab.suite.allowance import Allowances
    from lab.xen.storage import LogicalVolume
    from lab.xen.vbd import Vbd

NO_DISK = "attach: no disk in the guest"
"""What a driver left that connects and shows no disk: ``DriverFailure.stuck``."""


@dataclass
class BlockDevice:
    """A volume of dom0 that is, or was, a disk of the guest.

    Attributes:
        volume: the logical volume in dom0.
        spec: how it is attached.
        vbd: both ends of the connection as they were when it came up.
        disk: the guest's view right after the attach; its number is diskpart's.
    """

    volume: LogicalVolume
    spec: BlockSpec
    vbd: Vbd
    disk: DiskInfo
    _maker: BlockDevices = field(repr=False)

    @property
    def sectors(self) -> int:
        """Size in sectors of 512 bytes."""
        return self.volume.sectors

    def detach(self) -> None:
        """Detach it; returns when dom0's end is gone.

        Raises:
            GuestCrashed: the guest crashed meanwhile.
            DriverFailure: the driver did not let go of it.
            LabBroken: dom0 failed.
        """
        self._maker.detach(self)

    def attach_again(self, vdev: str | None = None) -> None:
        """Attach it once more after ``detach``, as the same device or another.

        Args:
            vdev: ``/dev/hdd`` for another one.

        Raises:
            As ``BlockDevices.__call__``.
        """
        self.spec = BlockSpec.parse(self.spec.backend, vdev or self.spec.vdev, self.spec.mode)
        self.vbd, self.disk = self._maker.attach(self.spec)


@noun
class BlockDevices:
    """Makes block devices in one place.

    Args:
        place: the place.
        lab: for its deadlines.
    """

    def __init__(self, place: Place, lab: Allowances) -> None:
        self._place = place
        self._lab = lab
        self._made = 0
        self._attached = 0
        self._disks: frozenset[int] | None = None

    def __call__(self, size_mib: int, vdev: str, mode: str = "w") -> BlockDevice:
        """Create a volume, attach it, and find it in the guest.

        Args:
            size_mib: its size, in MiB; LVM rounds it up to whole extents.
            vdev: virtual device as users type it, ``/dev/hdc``.
            mode: ``r`` or ``w``.

        Returns:
            The device; both its ends are connected and the guest lists the disk.

        Raises:
            GuestCrashed: the guest crashed while it was attached.
            DriverFailure: dom0 did its part, and the driver did not connect or the guest
                shows no new disk.
            LabBroken: dom0 failed.
            UsageError: no such virtual device, or it is taken.
        """
        place = self._place
        self._made += 1
        volume = place.vg.create(
            f"virt-{place.domain.name}-{self._made}", size_mib, self._lab.deadline("command")
        )
        spec = BlockSpec.parse(f"phy:{volume.path}", vdev, mode)
        ends, disk = self.attach(spec)
        return BlockDevice(volume, spec, ends, disk, self)

    def attach(self, spec: BlockSpec) -> tuple[Vbd, DiskInfo]:
        """Attach something and find it in the guest; errors are those of ``__call__``."""
        place, guest = self._place, self._place.guest
        before = self._numbers()
        deadline = self._lab.deadline("attach")
        self._attached += 1
        with guest.crash.guard(f"attaching {spec}", deadline):
            ends = vbd.attach(
                place.toolstack,
                place.xenstore,
                place.domain,
                spec,
                deadline,
                while_waiting=lambda: guest.crash.raise_if_seen(deadline),
            )
            place.timings[f"attach_{self._attached}"] = deadline.elapsed
            try:
                disks = guest.disks.wait_for_disks(
                    lambda now: any(disk.number not in before for disk in now), deadline
                )
            except DeadlineExpired as error:
                raise DriverFailure(
                    f"{spec}: both ends are connected, but the guest lists no new disk; "
                    f"last seen: {error.last_seen}",
                    stuck=NO_DISK,
                ) from error
            place.timings[f"attach_{self._attached}_disk"] = deadline.elapsed
        self._disks = frozenset(disk.number for disk in disks)
        return ends, next(disk for disk in disks if disk.number not in before)

    def detach(self, device: BlockDevice) -> None:
        """Detach a device; see ``BlockDevice.detach``."""
        place = self._place
        deadline = self._lab.deadline("attach")
        with place.guest.crash.guard(f"detaching {device.spec.vdev}", deadline):
            vbd.detach(
                place.toolstack,
                place.xenstore,
                place.domain,
                device.vbd.devid,
                deadline,
                while_waiting=lambda: place.guest.crash.raise_if_seen(deadline),
            )
            place.timings[f"detach_{self._attached}"] = deadline.elapsed
        # Whether the disk goes from the guest's list is the driver's business, and a
        # renumbering of those left is the guest's: look again before the next attach.
        self._disks = None

    def _numbers(self) -> frozenset[int]:
        """The disks that the guest has now."""
        if self._disks is None:
            found = self._place.guest.disks.list(self._lab.deadline("command"), rescan=True)
            self._disks = frozenset(disk.number for disk in found)
        return self._disks
