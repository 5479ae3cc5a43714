"""Installing a driver as its instructions say: in order, with the restarts that it asks for.

A driver may have to be told on the system's command line that it is to look for devices when
the system starts. If the system does not start with that, it is put back, as "last known good"
would: the failure is the driver's, and the guest is usable again.
"""

from __future__ import annotations

from lab.core.deadline import Deadline
from lab.core.errors import DeadlineExpired, DriverFailure, GuestCrashed, PvlabError
from lab.drivers.package import DriverPackage
from lab.guest.bootini import BOOT_INI, BootMenu
from lab.guest.driverstore import InstallResult
from lab.guest.errors import GuestSilent
from lab.guest.prints import rules_for
from lab.place.place import Place
from lab.suite import lifecycle


def install(place: Place, package: DriverPackage, deadline: Deadline) -> InstallResult:
    """Install a package, restart the guest where that is asked for, and switch the drivers on.

    Args:
        place: the guest's place.
        package: the driver package.
        deadline: for all of it.

    Raises:
        DriverFailure: it does not install, or the guest does not start with it.
        LabBroken: the lab failed.
    """
    guest = place.guest
    result = guest.drivers.install(
        package, deadline, restart=lambda: lifecycle.reboot(place, deadline)
    )
    rules = rules_for(package)
    if rules is not None and rules.boot is not None and place.access.guest.boot_ini:
        switch_on(place, rules.boot.option, deadline)
    return result


def switch_on(place: Place, option: str, deadline: Deadline) -> None:
    """Start the guest with an option of ``boot.ini``; put that back when it does not start.

    Raises:
        DriverFailure: the guest does not start with it; it was started without it again.
        LabBroken: it could not be put back.
    """
    menu = BootMenu(place.guest.channel, place.guest.files)
    if menu.read(deadline).started.has(option):
        return
    before = menu.start_with(option, deadline)
    # Part of the time is kept back for the way back.
    first = deadline.at_most(deadline.remaining / 2)
    try:
        lifecycle.reboot(place, first)
    except (DriverFailure, GuestCrashed, GuestSilent, DeadlineExpired) as error:
        seen = getattr(error, "evidence", ())
        try:
            start_as_before(place, before, deadline)
        except PvlabError as worse:
            raise DriverFailure(
                f"the guest does not start with {option}: {error.message}; it could not be put "
                f"back: {worse.message}"
            ) from error
        raise GuestCrashed(
            f"the guest does not start with {option}: {error.message}; {BOOT_INI} was put back, "
            "and it starts without",
            evidence=tuple(seen),
        ) from error


def start_as_before(place: Place, before: bytes, deadline: Deadline) -> None:
    """End a guest that does not start, put its ``boot.ini`` back from dom0, and start it.

    Raises:
        DriverFailure: it does not start as it was, either.
        LabBroken: dom0 cannot write to its disk.
    """
    place.end_guest(deadline)
    place.write_offline(BOOT_INI, before, deadline)
    lifecycle.start(place, deadline)
