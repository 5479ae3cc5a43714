"""How built images say what to boot: small JSON files beside the disks.

An image describes itself, so that the layers above need not know one from another.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from lab.core.errors import LabBroken


class _Description(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


D = TypeVar("D", bound=_Description)


Processor = Literal["kvm-amd", "kvm-intel", "tcg"]


class Hardware(_Description):
    """The machine that a host's kernels know.

    Attributes:
        machine: QEMU's machine type.
        disk_bus: ``virtio``, or ``ide``, which takes four disks.
        nic: QEMU's network device.
        cpus: QEMU's ``-cpu`` argument by what executes it; the accelerator's own where there
            is none.
    """

    machine: Literal["q35", "pc"] = "q35"
    disk_bus: Literal["virtio", "ide"] = "virtio"
    nic: Literal["virtio-net-pci", "e1000", "rtl8139"] = "virtio-net-pci"
    cpus: dict[Processor, str] = {}

    def disk_in_dom0(self, index: int) -> str:
        """dom0's device node of a disk, counted from 0."""
        return f"/dev/{'hd' if self.disk_bus == 'ide' else 'vd'}{'abcd'[index]}"


class HostBoot(_Description):
    """``host.json``: a machine that runs Xen.

    Attributes:
        kernel: file loaded by QEMU's multiboot loader (the hypervisor); None for a machine
            that starts from its root disk.
        append: its command line; ``{dom0_mib}`` is replaced.
        modules: multiboot modules as (file, command line), dom0's kernel first.
        root: raw image of dom0's root disk, the first disk.
        private_key: SSH key of dom0's root.
        host_key: public key line of dom0's SSH server.
        ssh_port: TCP port of SSH in dom0.
        winrm_port: TCP port in dom0 that leads to the first guest's WinRM.
        guest_address: IPv4 address of the first guest on its bridge.
        toolstacks: dialects that dom0 has.
        hardware: the machine it runs on.
        ssh: ``sha1`` for a server that knows nothing newer; see ``lab.xen.old_ssh``.
        domain_keys: what this host adds to every domain's configuration.
    """

    kernel: str | None
    append: str = ""
    modules: tuple[tuple[str, str], ...] = ()
    root: str
    private_key: str
    host_key: str
    ssh_port: int
    winrm_port: int
    guest_address: str
    toolstacks: tuple[Literal["xl", "xm"], ...]
    hardware: Hardware = Hardware()
    ssh: Literal["today", "sha1"] = "today"
    domain_keys: dict[str, str | int] = {}


class GuestBoot(_Description):
    """``guest.json``: a guest.

    Attributes:
        guest_type: ``hvm`` or ``pv``.
        bits: of its processor mode, in words for reports, such as ``32-bit PAE``.
        disk: raw image of its system disk.
        domain_config: Jinja2 template of its domain configuration.
        files: further files dom0 needs to start it (a PV guest's kernel), by template name.
        username: who may log in over WinRM.
        password_file: file with the password; None when the profile names it.
        c_partition: partition of the system disk that holds drive C:, from 1.
        c_folder: folder of that partition that is drive C:, empty for its root.
    """

    guest_type: Literal["hvm", "pv"]
    bits: str
    disk: str
    domain_config: str
    files: dict[str, str] = {}
    username: str
    password_file: str | None
    c_partition: int
    c_folder: str


HOST_FILE = "host.json"
GUEST_FILE = "guest.json"


def _write(path: Path, description: BaseModel) -> None:
    path.write_text(description.model_dump_json(indent=2) + "\n")


def write_host(folder: Path, boot: HostBoot) -> None:
    """Put ``host.json`` into an image."""
    _write(folder / HOST_FILE, boot)


def write_guest(folder: Path, boot: GuestBoot) -> None:
    """Put ``guest.json`` into an image."""
    _write(folder / GUEST_FILE, boot)


def read_host(folder: Path) -> HostBoot:
    """The description of a host image.

    Raises:
        LabBroken: the image has none, or it is damaged.
    """
    return _read(folder / HOST_FILE, HostBoot)


def read_guest(folder: Path) -> GuestBoot:
    """The description of a guest image.

    Raises:
        LabBroken: the image has none, or it is damaged.
    """
    return _read(folder / GUEST_FILE, GuestBoot)


def _read(path: Path, kind: type[D]) -> D:
    try:
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        problem = error.strerror or str(error)
    except ValidationError as error:
        first = error.errors()[0]
        problem = ": ".join([*map(str, first["loc"]), first["msg"]])
    raise LabBroken(
        f"{path.parent.name}: no usable {path.name}: {problem}", hint="pvlab image verify"
    )
