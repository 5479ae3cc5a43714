"""Which of the stand-ins runs on which rung: its image, its drivers, and what it is called.

Nested HVM runs the 32-bit PAE stand-in. Where there is no nested HVM, a 64-bit PV one takes
its place: the same userland, another kernel, so other driver binaries.
"""

from __future__ import annotations

from typing import Literal

from lab.config.profile import Profile
from lab.core.errors import UsageError
from lab.drivers.package import DriverPackage
from lab.images.progress import Progress
from lab.images.store import Store
from lab.qemu.accel import ACCELERATORS, Ladder, guest_type_of

GuestType = Literal["hvm", "pv"]

GUEST_PV = "standin-pv"
#: Images of the stand-ins' driver packages, a folder each; ``good`` is the one that works.
DRIVERS: dict[GuestType, str] = {"hvm": "standin-drivers", "pv": "standin-drivers-pv"}
LABEL_PV = "stand-in: 64-bit PV guest with a Linux kernel (this accelerator has no HVM)"
_PROCESSORS: dict[GuestType, str] = {"hvm": "x86", "pv": "amd64"}


def guest_image(profile: Profile, guest_type: GuestType, accel: str) -> str:
    """The guest image that a profile uses on a rung.

    Args:
        profile: the profile.
        guest_type: what the rung runs.
        accel: the rung's name, for the message.

    Raises:
        UsageError: the rung runs PV guests only and the profile's guest is not the stand-in.
    """
    if guest_type == "hvm":
        return profile.guest_image
    if not profile.pv_twin:
        raise UsageError(
            f"profile {profile.name} needs an HVM guest, which {accel} cannot run",
            hint="use a machine with KVM and nested virtualisation, or --accel tcg-hvm",
        )
    return GUEST_PV


def guest_label(profile: Profile, guest_type: GuestType) -> str:
    """What reports call the guest: on a rung without HVM, another stand-in runs."""
    if guest_type == "pv" and profile.pv_twin:
        return LABEL_PV
    return profile.guest_label


def asked_for(accel: str | None) -> GuestType | None:
    """The type of guest that a rung asked for by name will run; None when none was asked for."""
    return guest_type_of(accel) if accel in ACCELERATORS else None


def drivers_image(accel: str | None, progress: Progress | None = None) -> str:
    """The image with the driver packages of the stand-in that will run.

    Args:
        accel: the rung asked for; None to look which one will be used.
        progress: told of a build that looking may need.

    Raises:
        UsageError, LabBroken: as ``Ladder.choose``.
    """
    guest_type = asked_for(accel) or Ladder(Store(), progress).choose(accel).guest_type
    return DRIVERS[guest_type]


def check_driver(profile: Profile, package: DriverPackage, guest_type: GuestType) -> None:
    """See that a driver package is for the guest that runs.

    Raises:
        UsageError: it is for the other stand-in.
    """
    wanted = _PROCESSORS[guest_type]
    if package.processor not in (None, wanted):
        hint = ""
        if profile.own_drivers:
            hint = f"its own packages: pvlab image build {DRIVERS[guest_type]}"
        raise UsageError(
            f"{package.source}: the driver is for {package.processor}, the guest that this "
            f"accelerator runs is {wanted}",
            hint=hint,
        )
