"""Baking: from images to a frozen host and guest.

There are two stages, and each is kept: a host with dom0 ready, then the same host with its
guest answering over WinRM. A bake that was interrupted goes on from the last whole stage.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jinja2

from lab import __version__
from lab.config.profile import EnvPassword, Profile
from lab.core.deadline import Deadline
from lab.core.errors import LabBroken, PvlabError, UsageError
from lab.core.lock import locked
from lab.images.boot import read_guest, read_host
from lab.images.store import BuiltImage
from lab.place.hardware import (
    GUEST_DISK,
    ROOT_DISK,
    VG_DISK,
    VG_SIZE_MIB,
    guest_disk,
    machine_spec,
)
from lab.place.place import Access, config_in_dom0
from lab.place.stage import Stage, StageStore, copy_stage, freeze
from lab.qemu.accel import AccelChoice
from lab.qemu.disk import create_blank, create_overlay
from lab.qemu.machine import Machine, MachineSpec
from lab.xen.config import DomainConfig
from lab.xen.dom0 import Dom0
from lab.xen.domain import Domain
from lab.xen.toolstack import Toolstack
from lab.xen.xl import XlToolstack
from lab.xen.xm import XM_OVER_XL, XmToolstack, install_shim, shim

#: Part of every key: raise it when a bake does something else than before.
BAKE_VERSION = 6
DOMAIN_NAME = "virtdemo"
_CONFIG_IN_DOM0 = config_in_dom0(DOMAIN_NAME)
_FILES_IN_DOM0 = "/var/lib/pvlab"
#: Where dom0 keeps what a guest writes to its console, by the type of the guest: an HVM one's
#: serial port is a file of its configuration, a PV one's console is logged by xenconsoled,
#: which appends to the same file when the guest restarts (tools/console/daemon/io.c).
_SERIAL_IN_DOM0 = {
    "hvm": f"/var/log/pvlab/{DOMAIN_NAME}-serial.log",
    "pv": f"/var/log/xen/console/guest-{DOMAIN_NAME}.log",
}

# What tests run in dom0, read once so that no clone waits for an emulated disk.
_WARM_UP = (
    "cat /usr/sbin/xl /usr/lib/xen-4*/bin/* /usr/bin/xenstore* /usr/sbin/lv* /usr/sbin/vg* "
    "/bin/bash /usr/bin/stat /usr/bin/timeout /usr/sbin/losetup /etc/xen/scripts/* "
    "/usr/lib/x86_64-linux-gnu/libxen* > /dev/null 2>&1; xl list > /dev/null; "
    "lvs > /dev/null 2>&1; xl dmesg > /dev/null; true"
)


# Server 2003: ver, systeminfo and the WMI class Win32_OperatingSystem (PAEEnabled).
_WHO_ARE_YOU = "ver & systeminfo & wmic os get Caption,Version,PAEEnabled /value < nul"


class Baker:
    """Makes the two stages for one pair of images.

    Args:
        profile: sizes, toolstack and credentials.
        accel: the rung to run on.
        host: the host image.
        guest: the guest image.
        say: told in lines what happens.
        stages: where stages are kept; the cache's when None.
    """

    def __init__(
        self,
        profile: Profile,
        accel: AccelChoice,
        host: BuiltImage,
        guest: BuiltImage,
        say: Callable[[str], None],
        *,
        stages: StageStore | None = None,
    ) -> None:
        self._profile = profile
        self._accel = accel
        self._host_image = host
        self._guest_image = guest
        self._host = read_host(host.path)
        self._guest = read_guest(guest.path)
        self._say = say
        self._stages = stages or StageStore()
        self._deadlines = profile.deadlines.under(accel.name)
        self._shim = profile.toolstack == "xm" and "xm" not in self._host.toolstacks
        if profile.toolstack not in self._host.toolstacks and not (
            self._shim and "xl" in self._host.toolstacks
        ):
            raise UsageError(
                f"profile {profile.name}: {host.name} has no {profile.toolstack}",
                hint=f"it has {', '.join(self._host.toolstacks)}",
            )

    @property
    def toolstack(self) -> str:
        """What dom0's toolstack is, honestly: ``xl``, ``xm``, or a shim."""
        return XM_OVER_XL if self._shim else self._profile.toolstack

    def stage(self) -> Stage:
        """The stage with the guest running; baked now unless it is there.

        Raises:
            LabBroken: host or guest did not start; the message has the console's last line.
        """
        host_key, guest_key = self._keys()
        while not (self._stages.find(guest_key) and self._stages.hold(guest_key)):
            self._bake(host_key, guest_key)
        found = self._stages.find(guest_key)
        assert found is not None  # noqa: S101 - held, so nobody removes it
        return found

    def cold_boot(self, folder: Path) -> dict[str, float]:
        """Boot host and guest from power-on, without a stage in between.

        Args:
            folder: an empty folder for the machine's files.

        Returns:
            Seconds from power-on: ``dom0_ssh`` to a connection, ``guest_winrm`` to the
            guest's first answer.
        """
        boot = Deadline(3 * self._deadlines.boot)
        self._make_disks(folder, guest=True)
        started = time.monotonic()
        with Machine(self.spec(folder), folder) as machine:
            machine.start(boot)
            with self._dom0(machine, boot) as dom0:
                ssh = time.monotonic() - started
                self._create_guest(dom0, boot)
                self._wait_for_guest(dom0, machine, boot)
                return {"dom0_ssh": ssh, "guest_winrm": time.monotonic() - started}

    def spec(self, folder: Path) -> MachineSpec:
        """The machine whose RAM file and disks are in ``folder``."""
        return machine_spec(
            "template", self._profile, self._accel, self._host, self._host_image.path, folder
        )

    def access(self) -> Access:
        """How to get in.

        Raises:
            UsageError: nobody says what the guest's password is.
        """
        credentials = self._profile.winrm.credentials
        if isinstance(credentials, EnvPassword):
            username, password = self._profile.winrm.username, credentials.read()
        elif self._guest.password_file is not None:
            secret = self._guest_image.path / self._guest.password_file
            username, password = self._guest.username, secret.read_text().strip()
        else:
            raise UsageError(
                f"image {self._guest_image.name} has no password of its own",
                hint='set winrm.credentials = { env = "NAME" } in the profile',
            )
        return Access(
            host=self._host,
            host_folder=self._host_image.path,
            guest=self._guest,
            username=username,
            password=password,
            domain=DOMAIN_NAME,
            serial_log=self._serial_log,
        )

    @property
    def _serial_log(self) -> str:
        return _SERIAL_IN_DOM0[self._guest.guest_type]

    @staticmethod
    def recorded(stage: Stage, what: str) -> dict[str, Any]:
        """What the bake remembered: ``"versions"`` or ``"seconds"`` (of each part of it)."""
        found = stage.facts[what]
        assert isinstance(found, dict)  # noqa: S101 - written by this class
        return found

    # -- keys ---------------------------------------------------------------------------

    def _keys(self) -> tuple[str, str]:
        """Keys of the host stage and the guest stage."""
        memory = self._profile.memory
        host_key = _hash(
            {
                "bake": BAKE_VERSION,
                "lab": __version__,
                "accel": [self._accel.name, self._accel.cpu, self._accel.emulator],
                "image": [self._host_image.key, self._host_image.manifest.built_at],
                "guest_disk_mib": self._guest_disk_mib(),
                "memory": [memory.host_mib, memory.dom0_mib],
            }
        )
        guest: dict[str, object] = {
            "host": host_key,
            "image": [self._guest_image.key, self._guest_image.manifest.built_at],
            "memory": memory.guest_mib,
            "toolstack": self._profile.toolstack,
        }
        if self._shim:
            guest["shim"] = hashlib.sha256(shim()).hexdigest()
        return host_key, _hash(guest)

    def _kind(self, stage: str) -> str:
        return f"{stage} {self._profile.name} {self._accel.name}"

    def _waits(self, holder: str) -> None:
        self._say(f"bake: waiting for {holder}, which bakes the same")

    def _guest_disk_mib(self) -> int:
        if not self._guest.disk:
            return 1  # An empty disk keeps its place, so that dom0's names do not depend on it.
        size = (self._guest_image.path / self._guest.disk).stat().st_size
        return -(-size // (1 << 20))

    # -- stages -------------------------------------------------------------------------

    def _bake(self, host_key: str, guest_key: str) -> None:
        """Both stages, unless they are there; one process bakes, others wait for it."""
        # Waiting for someone else's bake takes as long as a bake.
        patience = Deadline(8 * self._deadlines.boot)
        with (
            locked(self._stages.lock_path(host_key), patience, on_wait=self._waits),
            locked(self._stages.lock_path(guest_key), patience, on_wait=self._waits),
        ):
            if self._stages.find(guest_key):
                return
            host_stage = self._stages.find(host_key) or self._bake_host(host_key)
            self._bake_guest(host_stage, guest_key)
            self._stages.prune(self._kind("host"), {host_key})
            self._stages.prune(self._kind("guest"), {guest_key})

    def _bake_host(self, key: str) -> Stage:
        boot = Deadline(self._deadlines.boot)
        with self._stages.making(key) as folder:
            self._say("bake 1/2: starting Xen and dom0")
            # dom0 learns only the size of the guest's disk; its content comes with the guest.
            self._make_disks(folder, guest=False)
            started = time.monotonic()
            with Machine(self.spec(folder), folder) as machine:
                machine.start(boot)
                with self._dom0(machine, boot) as dom0:
                    ssh = time.monotonic() - started
                    self._say(f"bake 1/2: dom0 answers after {ssh:.1f} s")
                    # The stage is the same for a shim, which is not there yet.
                    own = XlToolstack(dom0) if self._shim else self._toolstack(dom0)
                    info = own.info(boot)
                    dom0.run(_WARM_UP, boot)
                    dom0.run("sync", boot, check=True)
                freeze(machine, folder, boot)
            versions = {
                name: str(info[field])
                for name, field in (("xen", "xen_version"), ("dom0", "release"))
                if field in info
            }
            facts: dict[str, object] = {"seconds": {"dom0_ssh": ssh}, "versions": versions}
            return self._stages.finish(key, folder, self._kind("host"), facts)

    def _bake_guest(self, host_stage: Stage, key: str) -> Stage:
        boot = Deadline(2 * self._deadlines.boot)
        with self._stages.making(key) as folder:
            self._say("bake 2/2: starting the guest")
            copy_stage(host_stage, folder)
            (folder / GUEST_DISK).unlink()
            self._make_guest_disk(folder)
            started = time.monotonic()
            with Machine(self.spec(folder), folder) as machine:
                machine.start_from(folder / "state", boot)
                with self._dom0(machine, boot) as dom0:
                    domain = self._create_guest(dom0, boot)
                    said = self._wait_for_guest(dom0, machine, boot)
                    configuration = self._toolstack(dom0).config(domain, boot)
                    serial = dom0.run(f"stat -c %s {self._serial_log}; sync", boot, check=True)
                seconds = time.monotonic() - started
                self._say(f"bake 2/2: the guest answers after {seconds:.1f} s")
                (folder / "state").unlink()
                freeze(machine, folder, boot)
            facts: dict[str, object] = {
                "seconds": {**self.recorded(host_stage, "seconds"), "guest_winrm": seconds},
                "versions": self.recorded(host_stage, "versions"),
                "domain": asdict(domain),
                "serial_bytes": int(serial.stdout),
                "identity": {"domain": configuration, "guest": said},
            }
            return self._stages.finish(key, folder, self._kind("guest"), facts)

    def _make_disks(self, folder: Path, *, guest: bool) -> None:
        create_overlay(folder / ROOT_DISK, self._host_image.path / self._host.root, "raw")
        create_blank(folder / VG_DISK, VG_SIZE_MIB)
        if guest:
            self._make_guest_disk(folder)
        else:
            create_blank(folder / GUEST_DISK, self._guest_disk_mib())

    def _make_guest_disk(self, folder: Path) -> None:
        if self._guest.disk:
            create_overlay(folder / GUEST_DISK, self._guest_image.path / self._guest.disk, "raw")
        else:
            create_blank(folder / GUEST_DISK, self._guest_disk_mib())

    @contextlib.contextmanager
    def _dom0(self, machine: Machine, deadline: Deadline) -> Iterator[Dom0]:
        """A connection to dom0; what fails meanwhile is told with the console's last line."""
        access = self.access()
        dom0: Dom0 | None = None
        try:
            dom0 = access.connect(machine, deadline)
            yield dom0
        except PvlabError as error:
            last = _last_line(machine.serial_log)
            raise LabBroken(
                f"bake: {error.message}; last line of the console: {last}", hint=error.hint
            ) from error
        finally:
            if dom0 is not None:
                dom0.close()

    def _create_guest(self, dom0: Dom0, deadline: Deadline) -> Domain:
        if self._shim:
            install_shim(dom0, deadline)
        files = {}
        for name, file in self._guest.files.items():
            files[name] = f"{_FILES_IN_DOM0}/{file}"
            dom0.put(self._guest_image.path / file, files[name], deadline)
        template = (self._guest_image.path / self._guest.domain_config).read_text()
        environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)  # noqa: S701 - a domain configuration, not markup
        disk = guest_disk(self._host)
        rendered = environment.from_string(template).render(
            name=DOMAIN_NAME,
            memory_mib=self._profile.memory.guest_mib,
            system_disk=disk,
            serial_log=self._serial_log,
            **files,
        )
        config = DomainConfig.read(rendered).with_keys(self._host.domain_keys)
        toolstack = self._toolstack(dom0)
        dom0.run(
            f"cat > {shlex.quote(_CONFIG_IN_DOM0)} && blockdev --flushbufs {disk}",
            deadline,
            stdin=toolstack.configuration(config).encode(),
            check=True,
        )
        return toolstack.create(_CONFIG_IN_DOM0, deadline)

    def _toolstack(self, dom0: Dom0) -> Toolstack:
        return XmToolstack(dom0) if self._profile.toolstack == "xm" else XlToolstack(dom0)

    def _wait_for_guest(self, dom0: Dom0, machine: Machine, deadline: Deadline) -> str:
        """Until the guest answers a command: the one that asks what it is.

        Returns:
            The guest's own word, for the evidence. Asking also leaves its server's code warm.
        """
        with self.access().channel(machine) as channel:
            try:
                channel.wait_ready(deadline, while_waiting=machine.check_alive)
                return channel.run(_WHO_ARE_YOU, deadline).stdout
            except PvlabError as error:
                machine.check_alive()
                tail = dom0.run(f"tail -n 3 {self._serial_log}", Deadline(10.0)).stdout
                said = " | ".join(line.strip() for line in tail.splitlines() if line.strip())
                raise LabBroken(
                    f"the guest did not come up: {error.message}; its serial port: {said or '-'}"
                ) from error


def baked_domain(stage: Stage) -> Domain:
    """The guest's domain at the moment the stage was frozen."""
    facts = stage.facts["domain"]
    assert isinstance(facts, dict)  # noqa: S101 - written by Baker
    return Domain(**facts)


def _last_line(log: Path) -> str:
    with contextlib.suppress(OSError):
        lines = log.read_text(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "nothing")
    return "nothing"


def _hash(parts: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
