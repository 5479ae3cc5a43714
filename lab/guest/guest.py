"""One guest, with all that the lab can do inside it."""

from __future__ import annotations

from dataclasses import dataclass, field

from lab.core.deadline import Deadline
from lab.guest.channel import Channel
from lab.guest.crash import CrashMonitor
from lab.guest.dbgview import DbgView
from lab.guest.disks import Disks
from lab.guest.driverstore import DriverStore
from lab.guest.files import Files


@dataclass
class Guest:
    """A guest domain and its nouns.

    Attributes:
        domain: the domain's name.
        channel: its command line.
        crash: says whether it crashed.
        files: its file system.
        disks: its disks and volumes.
        drivers: its drivers and devices.
        dbgview: what its drivers print.
    """

    domain: str
    channel: Channel
    crash: CrashMonitor
    files: Files = field(init=False)
    disks: Disks = field(init=False)
    drivers: DriverStore = field(init=False)
    dbgview: DbgView = field(init=False)

    def __post_init__(self) -> None:
        self.files = Files(self.channel)
        self.disks = Disks(self.channel)
        self.drivers = DriverStore(self.channel, self.files)
        self.dbgview = DbgView(self.channel, self.files)

    def close(self, deadline: Deadline | None = None) -> None:
        """End the guest's shell and connection; never raises."""
        self.channel.close(deadline)
