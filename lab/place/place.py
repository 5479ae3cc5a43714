"""A running host and guest, with the nouns to act on them."""

from __future__ import annotations

import base64
import contextlib
import shlex
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import paramiko

from lab.config.profile import Deadlines, Profile
from lab.core.deadline import Deadline
from lab.core.errors import DeadlineExpired, LabBroken, PvlabError
from lab.core.journal import noun
from lab.guest.channel import Channel
from lab.guest.crash import CrashMonitor
from lab.guest.driverstore import InstallResult
from lab.guest.guest import Guest
from lab.images.boot import GuestBoot, HostBoot
from lab.place import health
from lab.place.core import core_size
from lab.place.hardware import exchange_disk, guest_disk
from lab.place.health import Health
from lab.qemu.machine import Machine
from lab.xen.dom0 import Dom0
from lab.xen.domain import Domain
from lab.xen.quick_core import dump_quickly
from lab.xen.states import XenbusState
from lab.xen.storage import VolumeGroup
from lab.xen.toolstack import Toolstack
from lab.xen.xenstore import Xenstore
from lab.xen.xl import XlToolstack
from lab.xen.xm import XmToolstack

#: The volume group that people's attach commands name.
VOLUME_GROUP = "vg00"


def config_in_dom0(domain: str) -> str:
    """Path in dom0 of a domain's configuration."""
    return f"/etc/xen/{domain}.cfg"


@dataclass(frozen=True, slots=True)
class Access:
    """How to get into a place.

    Attributes:
        host: the host image's description.
        host_folder: the folder it describes.
        guest: the guest image's description.
        username: WinRM user.
        password: WinRM password.
        domain: name of the guest's domain.
        serial_log: path in dom0 of the guest's serial log.
    """

    host: HostBoot
    host_folder: Path
    guest: GuestBoot
    username: str
    password: str
    domain: str
    serial_log: str

    def __repr__(self) -> str:
        return f"Access(domain={self.domain!r})"

    def connect(self, machine: Machine, deadline: Deadline) -> Dom0:
        """A new connection to dom0 of a machine.

        Raises:
            LabBroken: dom0 does not answer; when QEMU is dead, that is the cause named.
        """
        if dead := machine.why_dead():
            raise LabBroken(f"{machine.spec.name}: {dead}")
        kind, blob = self.host.host_key.split()[:2]
        dom0 = Dom0(
            "127.0.0.1",
            machine.ports["ssh"],
            "root",
            self.host_folder / self.host.private_key,
            host_key=paramiko.PKey.from_type_string(kind, base64.b64decode(blob)),
            old_server=self.host.ssh == "sha1",
        )
        try:
            dom0.connect(deadline, while_waiting=machine.check_alive)
        except PvlabError as error:
            dom0.close()
            raise LabBroken(f"{machine.spec.name}: {machine.why_dead() or error}") from error
        return dom0

    def channel(self, machine: Machine) -> Channel:
        """A command line of the guest; it connects when it is first used."""
        return Channel(
            "127.0.0.1", machine.ports["winrm"], self.username, self.password, name=self.domain
        )


@noun
class Place:
    """One host and its guest; a context manager.

    The connection to dom0 is made when it is first needed: a test that only talks to the
    guest does not pay for it.

    Args:
        name: for messages.
        profile: the profile the place was made for.
        deadlines: the profile's, as they apply under the machine's accelerator.
        machine: the running machine; closed with the place.
        access: how to get in.
        domain: the guest's domain as it was when the place started.
        serial_bytes: length of the guest's serial log at that moment.
        timings: steps so far, in s by name; more are added.
        installed: what the installation of a driver said that was there when the place started,
            with DbgView running; None when there was none.
        owned: whether ``close`` ends the machine.
    """

    def __init__(
        self,
        name: str,
        profile: Profile,
        deadlines: Deadlines,
        machine: Machine,
        access: Access,
        domain: Domain,
        serial_bytes: int,
        timings: Mapping[str, float],
        *,
        installed: InstallResult | None = None,
        owned: bool = True,
    ) -> None:
        self.name = name
        self.profile = profile
        self.deadlines = deadlines
        self.machine = machine
        self.access = access
        self.domain = domain
        self.timings = dict(timings)
        self.installed = installed
        self._serial_bytes = serial_bytes
        self._owned = owned
        self._dom0: Dom0 | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def scratch(self) -> Path:
        """Folder of the place's logs, sockets and throwaway disks."""
        return self.machine.scratch

    @property
    def dom0(self) -> Dom0:
        """The connection to dom0, made now if need be.

        Raises:
            LabBroken: dom0 does not answer.
        """
        if self._dom0 is None:
            self.connect(Deadline(self.deadlines.command))
        assert self._dom0 is not None  # noqa: S101 - connect sets it or raises
        return self._dom0

    def connect(self, deadline: Deadline) -> None:
        """Connect to dom0, unless that was done.

        Raises:
            LabBroken: dom0 does not answer; when QEMU is dead, that is the cause named.
        """
        if self._dom0 is not None:
            return
        started = time.monotonic()
        self._dom0 = self.access.connect(self.machine, deadline)
        self.timings["dom0_connect"] = time.monotonic() - started

    @cached_property
    def toolstack(self) -> Toolstack:
        """dom0's toolstack in the profile's dialect."""
        dialect = XmToolstack if self.profile.toolstack == "xm" else XlToolstack
        return dialect(self.dom0)

    @cached_property
    def xenstore(self) -> Xenstore:
        """dom0's view of xenstore."""
        return Xenstore(self.dom0, watches=self.toolstack.has_watches)

    @cached_property
    def vg(self) -> VolumeGroup:
        """The volume group for disks under test."""
        return VolumeGroup(self.dom0, VOLUME_GROUP)

    @cached_property
    def guest(self) -> Guest:
        """The guest."""
        channel = self.access.channel(self.machine)
        crash = CrashMonitor(
            _LazyFinder(self),
            self.access.domain,
            channel,
            self.guest_serial,
            self.profile.crash_patterns,
            vbd_states=self._vbd_states,
            cut_off=self._cut_off,
            silence_s=self.deadlines.crash,
            grace_s=self.deadlines.crash,
            known=(self.domain.domid, self._serial_bytes),
        )
        return Guest(self.access.domain, channel, crash)

    @property
    def drive_c_in_memory(self) -> bool:
        """Whether the guest's drive C: is in its memory: nothing on it survives a restart.

        So it is with the PV stand-in, whose image has no system disk.
        """
        return not self.access.guest.disk

    def refresh_domain(self, deadline: Deadline) -> Domain | None:
        """Ask for the guest's domain again: its id changes when it reboots.

        Returns:
            The domain, or None when there is none of that name.
        """
        found = self.toolstack.find(self.access.domain, deadline)
        if found is not None:
            self.domain = found
        return found

    def guest_serial(self, deadline: Deadline) -> str:
        """The guest's serial log so far; the device model writes it in dom0.

        Raises:
            LabBroken: dom0 is gone.
        """
        return self.dom0.read_text(self.access.serial_log, deadline)

    def read_offline(self, path: str, deadline: Deadline) -> bytes:
        """Read a file of drive C: from the system disk, past a guest that is dead.

        The disk is mounted read-only in dom0, so only what the guest had flushed is seen.

        Args:
            path: as in the guest, ``C:\\folder\\file``; upper and lower case are one.
            deadline: for all of it.

        Raises:
            LabBroken: there is no such file, the disk cannot be mounted, or the guest has its
                drive C: in memory.
        """
        drive, _, inside = path.partition(":")
        if drive.upper() != "C":
            raise LabBroken(f"{path} is not on drive C:")
        if self.drive_c_in_memory:
            raise LabBroken(
                f"{path} was in the guest's memory and is lost with it: this guest has no "
                "system disk, so that its block driver is not needed to start it",
                hint="what it held may be in the core dump",
            )
        boot = self.access.guest
        parts = [part for part in (boot.c_folder, *inside.split("\\")) if part]
        pattern = "/".join(["/mnt", *parts])
        disk = guest_disk(self.access.host)
        device = f"{disk}{boot.c_partition}"
        script = (
            f"partx -u {disk} 2> /dev/null; mount -o ro,noload {device} /mnt || "
            f"mount -o ro {device} /mnt || exit 32; "
            f"find /mnt -xdev -ipath {shlex.quote(pattern)} -type f -exec cat {{}} +; umount /mnt"
        )
        found = self.dom0.run_raw(script, deadline)
        if found.exit_code or not found.stdout:
            said = found.stderr.decode(errors="replace").strip().splitlines()
            raise LabBroken(f"no {path} on the guest's disk{': ' + said[-1] if said else ''}")
        return found.stdout

    def dump_core(self, deadline: Deadline) -> Iterator[bytes]:
        """The guest's memory as an ELF core, as the toolstack writes it.

        It leaves dom0 through the exchange disk: over SSH, emulated cryptography would make
        minutes of it.

        Raises:
            LabBroken: the toolstack could not dump it, or dumped no core.
        """
        exchange = exchange_disk(self.access.host)
        # Numbers of a PV guest's pages mean something else.
        hvm = self.access.guest.guest_type == "hvm"
        if not (hvm and dump_quickly(self.dom0, self.domain.domid, exchange, deadline)):
            self.toolstack.dump_core(self.domain, exchange, deadline)
        self.dom0.run(f"blockdev --flushbufs {exchange}", deadline, check=True)
        with self.machine.exchange.open("rb") as file:
            left = core_size(file)
            file.seek(0)
            while left and (chunk := file.read(min(left, 1 << 20))):
                left -= len(chunk)
                yield chunk

    def health(self, deadline: Deadline) -> Health:
        """Whether the lab's parts work; see ``lab.place.health``.

        The guest may be dead, but its domain may not have been ended by anybody but itself and
        a test that said so (``CrashMonitor.retire``).
        """
        cause = health.of_machine(self.machine)
        if not cause:
            try:
                self.connect(deadline)
                cause = health.of_dom0(
                    self.dom0,
                    domain=self.access.domain,
                    listing=self.toolstack.command("list", self.access.domain),
                    disks=(guest_disk(self.access.host), exchange_disk(self.access.host)),
                    guest_type=self.access.guest.guest_type,
                    ended_on_purpose="guest" in self.__dict__ and self.guest.crash.retired,
                    deadline=deadline,
                )
            except DeadlineExpired as error:
                # What silenced dom0 may show only now.
                cause = health.of_machine(self.machine) or f"dom0 does not answer: {error.message}"
            except PvlabError as error:
                cause = health.of_machine(self.machine) or error.message
        return Health(not cause, cause)

    def check(self, deadline: Deadline) -> None:
        """For those who wait for something inside: nothing comes of a broken place.

        Raises:
            LabBroken: it is broken, and how.
        """
        if cause := self.health(deadline).cause:
            raise LabBroken(f"the place broke: {cause}")

    def _cut_off(self, deadline: Deadline) -> str:
        """Why a silent guest may be alive: how the way to it is cut, or empty."""
        host = self.access.host
        return health.of_way(
            self.dom0,
            self.machine.ports["winrm"],
            (host.guest_address, self.profile.winrm.port),
            deadline,
        )

    def disconnect(self, deadline: Deadline) -> None:
        """Leave the guest and dom0, in order; never raises."""
        if "guest" in self.__dict__:
            with contextlib.suppress(PvlabError):
                self.guest.close(deadline)
        if self._dom0 is not None:
            self._dom0.close()
            self._dom0 = None

    def close(self) -> None:
        """Let go of everything; may be called twice, never raises."""
        # The shell dies with the machine; a place that lives on gets its shell closed.
        alive = not self._owned and self.machine.alive
        self.disconnect(Deadline(5.0 if alive else 0.0))
        if self._owned:
            self.machine.stop(grace=0.5)
        else:
            self.machine.release()

    def _vbd_states(self, deadline: Deadline) -> dict[str, str]:
        """Both ends' states of every vbd, in words."""
        domid = self.domain.domid
        ends = {
            "backend": f"/local/domain/0/backend/vbd/{domid}",
            "frontend": f"/local/domain/{domid}/device/vbd",
        }
        states: dict[str, str] = {}
        for end, path in ends.items():
            for node, value in self.xenstore.ls(path, deadline).items():
                if node.endswith("/state"):
                    device = node.split("/")[-2]
                    states[f"vbd {device} {end}"] = XenbusState.parse(value).words
        return states


class _LazyFinder:
    """Finds the domain through a toolstack that is only connected when it is asked."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def find(self, domain: str, deadline: Deadline) -> Domain | None:
        return self._place.toolstack.find(domain, deadline)
