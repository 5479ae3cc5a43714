"""An HVM domain of the nested host, as something to install on.

The disc and the guest's disk reach dom0 as disks of the machine, the floppy as a file. The
disk is the one that the finished image keeps, so nothing is moved afterwards.
"""

from __future__ import annotations

import contextlib
import shlex
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from lab.config.profile import Profile
from lab.core.atomic import atomic_file
from lab.core.deadline import Deadline
from lab.core.errors import DeadlineExpired, LabBroken
from lab.images.boot import GuestBoot, Hardware, read_host
from lab.images.store import BuiltImage
from lab.place.hardware import GUEST_DISK, ROOT_DISK, VG_DISK, machine_spec
from lab.place.place import Access
from lab.qemu.accel import AccelChoice
from lab.qemu.disk import create_blank, create_overlay
from lab.qemu.machine import Console, DiskSpec, Machine, MachineSpec
from lab.xen.dom0 import Dom0
from lab.xen.screen import screen_of
from lab.xen.toolstack import Toolstack
from lab.xen.xl import XlToolstack
from lab.xen.xm import XmToolstack

DOMAIN = "install"
CD_DISK = "cd.qcow2"
#: dom0's names of the guest's disk and of the one after it.
GUEST_DISK_IN_DOM0, CD_IN_DOM0 = (Hardware().disk_in_dom0(index) for index in (2, 3))
_CONFIG = f"/etc/xen/{DOMAIN}.cfg"
_FLOPPY = "/var/lib/pvlab/floppy.img"
_SERIAL = f"/var/log/pvlab/{DOMAIN}-serial.log"


@dataclass(frozen=True, slots=True)
class NestedHost:
    """Where a domain is installed.

    Attributes:
        profile: memory sizes and toolstack.
        accel: the rung to run on.
        image: the host image.
    """

    profile: Profile
    accel: AccelChoice
    image: BuiltImage

    def spec(self, folder: Path) -> MachineSpec:
        """The machine whose disks are in ``folder``."""
        host = read_host(self.image.path)
        whole = machine_spec(
            f"host of {DOMAIN}", self.profile, self.accel, host, self.image.path, folder
        )
        disks = (*whole.disks, DiskSpec(folder / CD_DISK))
        return replace(whole, disks=disks, ram_file=None, ram_shared=False, exchange_mib=0)

    def make_disks(self, folder: Path, disc: Path, disk_gib: int) -> None:
        """Make the machine's disks.

        Args:
            folder: where.
            disc: the ISO in the guest's drive.
            disk_gib: size of the guest's disk, ``GUEST_DISK``.

        Raises:
            LabBroken: qemu-img refused.
        """
        host = read_host(self.image.path)
        create_overlay(folder / ROOT_DISK, self.image.path / host.root, "raw")
        create_blank(folder / VG_DISK, 64)
        create_blank(folder / GUEST_DISK, disk_gib << 10)
        create_overlay(folder / CD_DISK, disc, "raw")

    def access(self, username: str, password: str) -> Access:
        """How to get into dom0, and into the guest when it answers."""
        guest = GuestBoot(
            guest_type="hvm",
            bits="",
            disk="",
            domain_config="",
            username=username,
            password_file=None,
            c_partition=1,
            c_folder="",
        )
        return Access(
            host=read_host(self.image.path),
            host_folder=self.image.path,
            guest=guest,
            username=username,
            password=password,
            domain=DOMAIN,
            serial_log=_SERIAL,
        )

    def toolstack(self, dom0: Dom0) -> Toolstack:
        """The host's toolstack."""
        return XmToolstack(dom0) if self.profile.toolstack == "xm" else XlToolstack(dom0)


def domain_config(memory_mib: int) -> str:
    """The configuration of the domain, for xl and xm.

    xm knows ``fda`` (xmexample.hvm) and ignores ``device_model_args_hvm``; xl the reverse.
    """
    floppy = f"if=floppy,index=0,file={_FLOPPY},format=raw,readonly=on"
    return "\n".join(
        (
            f'name = "{DOMAIN}"',
            'type = "hvm"',
            f"memory = {memory_mib}",
            "vcpus = 1",
            "pae = 1",
            "acpi = 1",
            "apic = 1",
            f'disk = [ "phy:{GUEST_DISK_IN_DOM0},hda,w", "phy:{CD_IN_DOM0},hdc:cdrom,r" ]',
            'vif = [ "mac=00:16:3e:00:00:10,bridge=xenbr0,type=ioemu,model=rtl8139" ]',
            # A blank disk does not start, and then the CD does.
            'boot = "cd"',
            f'fda = "{_FLOPPY}"',
            f'device_model_args_hvm = [ "-drive", "{floppy}" ]',
            f'serial = "file:{_SERIAL}"',
            "vnc = 1",
            "sdl = 0",
            'vga = "cirrus"',
            'on_poweroff = "preserve"',
            'on_reboot = "restart"',
            'on_crash = "preserve"',
            "",
        )
    )


class DomainBench:
    """The domain.

    Args:
        machine: the host's machine.
        dom0: a connection to its dom0.
        toolstack: of that dom0.
        watches: whether dom0's xenstore tools can wait; as for ``Xenstore``.
    """

    def __init__(
        self, machine: Machine, dom0: Dom0, toolstack: Toolstack, *, watches: bool = True
    ) -> None:
        self._machine = machine
        self._dom0 = dom0
        self._toolstack = toolstack
        self._watches = watches
        self._domid = -1
        self._restarts = 0

    def prepare(self, floppy: Path, memory_mib: int, deadline: Deadline) -> None:
        """Put floppy and configuration into dom0.

        Raises:
            LabBroken, DeadlineExpired: as ``Dom0.run``.
        """
        folders = f"mkdir -p {shlex.quote(str(Path(_FLOPPY).parent))} {Path(_SERIAL).parent}"
        self._dom0.run(f"{folders} && umask 077 && : > {_FLOPPY}", deadline, check=True)
        self._dom0.put(floppy, _FLOPPY, deadline)
        config = domain_config(memory_mib).encode()
        self._dom0.run(f"cat > {_CONFIG}", deadline, stdin=config, check=True)

    @contextlib.contextmanager
    def console(self) -> Iterator[Console]:
        """The domain's serial port, from its first line on.

        The device model begins its file anew at each start of the domain; the domain needs
        seconds from there to its first word, and ``tail -F`` notices at once.

        Raises:
            LabBroken: dom0 does not give a session.
        """
        channel = self._dom0.transport.open_session(timeout=30)
        try:
            channel.exec_command(f"exec tail -n +1 -F {shlex.quote(_SERIAL)} 2>/dev/null")
            # paramiko's channels have what pexpect asks of a socket.
            yield Console(cast(socket.socket, channel))
        finally:
            channel.close()

    def picture(self, target: Path, deadline: Deadline) -> None:
        """Write a picture of the screen, a PNG file.

        Raises:
            LabBroken: the domain is not there, as while it restarts, or has no screen.
            DeadlineExpired: it did not come in time.
        """
        domain = self._toolstack.find(DOMAIN, deadline)
        if domain is None:
            raise LabBroken(f"domain {DOMAIN} is not there")
        picture = screen_of(self._dom0, domain.domid, deadline, watches=self._watches)
        with atomic_file(target) as file:
            picture.save(file, format="PNG")

    def reset(self, deadline: Deadline) -> None:
        """Start the domain anew.

        Raises:
            LabBroken: it did not start.
        """
        if self._toolstack.find(DOMAIN, deadline) is not None:
            self._toolstack.destroy(DOMAIN, deadline)
        self._domid = self._toolstack.create(_CONFIG, deadline).domid

    def resume(self, deadline: Deadline) -> None:
        """Start the domain.

        Raises:
            LabBroken: it did not start.
        """
        self._domid = self._toolstack.create(_CONFIG, deadline).domid

    def restarts(self, deadline: Deadline) -> int:
        """How often the domain was started anew by itself so far, as far as anyone looked.

        Raises:
            LabBroken, DeadlineExpired: dom0 does not answer.
        """
        domain = self._toolstack.find(DOMAIN, deadline)
        # A domain has another id after every start.
        if domain is not None and domain.domid != self._domid:
            self._domid = domain.domid
            self._restarts += 1
        return self._restarts

    def why_dead(self) -> str:
        """Why the host's machine does not run; empty while it does. A domain that is missing
        may be restarting."""
        return self._machine.why_dead()

    def what_it_is(self, deadline: Deadline) -> str:
        """What the domain is doing, for those who wait for its end; empty when it is off."""
        domain = self._toolstack.find(DOMAIN, deadline)
        if domain is None or domain.shut_down:
            return ""
        return f"domain {DOMAIN} is still {domain.state}"

    def flush(self, deadline: Deadline) -> None:
        """End the domain, and have its disk written out.

        Raises:
            LabBroken, DeadlineExpired: as ``Dom0.run``.
        """
        if self._toolstack.find(DOMAIN, deadline) is not None:
            self._toolstack.destroy(DOMAIN, deadline)
        self._dom0.run(f"sync; blockdev --flushbufs {GUEST_DISK_IN_DOM0}", deadline, check=True)

    def forget_floppy(self, deadline: Deadline) -> None:
        """Remove the floppy, which holds secrets, from dom0; its disk is thrown away besides."""
        with contextlib.suppress(LabBroken, DeadlineExpired):
            self._dom0.run(f"rm -f {_FLOPPY}", deadline)
