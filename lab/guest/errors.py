"""What can go wrong between the lab and a guest.

Whom to blame is the point of these types: a guest that does not answer may have been
crashed by the driver or lost by the lab, and only ``lab.guest.crash`` can tell which.
"""

from __future__ import annotations

from lab.core.errors import Blame, DriverFailure, LabBroken, PvlabError


class GuestSilent(PvlabError):
    """The guest did not answer, or answered as a freshly booted one would.

    Blames nobody by itself; ``CrashMonitor.guard`` turns it into ``GuestCrashed`` when the
    guest is seen to have crashed.

    Args:
        guest: the guest's name.
        awaited: what should have come back.
        last_seen: what was seen instead, in words.
    """

    blame = Blame.UNDECIDED

    def __init__(self, guest: str, awaited: str, last_seen: str, *, hint: str = "") -> None:
        super().__init__(f"{guest}: no answer, awaited {awaited}; {last_seen}", hint=hint)
        self.guest = guest
        self.awaited = awaited
        self.last_seen = last_seen


class GuestFileMissing(LabBroken):
    """A file asked for is not in the guest."""


class DiskError(PvlabError):
    """A disk tool refused or failed for a reason that points at nobody yet.

    A disk number that does not exist, a letter in use, a syntax the tool does not know: the
    caller knows whether the driver should have provided that disk.
    """

    blame = Blame.UNDECIDED


class DiskIoError(DriverFailure):
    """A disk tool met an I/O error on a disk it was told to use.

    The lab runs these tools on the disks that the driver under test serves, and the backing
    volume is checked by the Xen layer, so an I/O error seen by the guest is the driver's.
    """


class DeviceError(PvlabError):
    """A device that something was to be done with is not there."""

    blame = Blame.UNDECIDED
