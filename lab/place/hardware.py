"""From images and a profile to the machine that runs them."""

from __future__ import annotations

from pathlib import Path

from lab.config.profile import Profile
from lab.images.boot import HostBoot, Processor
from lab.qemu.accel import AccelChoice
from lab.qemu.kvm import kvm_facts
from lab.qemu.machine import DiskSpec, MachineSpec, escaped

#: Disks of the machine, in the order in which dom0 names them.
ROOT_DISK, VG_DISK, GUEST_DISK = "root.qcow2", "vg.qcow2", "guest.qcow2"
_GUEST, _EXCHANGE = 2, 3
#: Size in MiB of the disk through which core dumps leave dom0. The file takes only what is
#: written to it.
EXCHANGE_MIB = 16 * 1024
#: Room in vg00, in MiB; the file grows with what is written.
VG_SIZE_MIB = 64 * 1024


def guest_disk(host: HostBoot) -> str:
    """dom0's name of the guest's system disk."""
    return host.hardware.disk_in_dom0(_GUEST)


def exchange_disk(host: HostBoot) -> str:
    """dom0's name of the disk through which core dumps leave it."""
    return host.hardware.disk_in_dom0(_EXCHANGE)


def executes(accel: AccelChoice) -> Processor:
    """What executes the machine on a rung: emulation, or which vendor's processor."""
    if accel.name != "kvm":
        return "tcg"
    return "kvm-amd" if kvm_facts().flag == "svm" else "kvm-intel"


def machine_spec(
    name: str, profile: Profile, accel: AccelChoice, host: HostBoot, files: Path, folder: Path
) -> MachineSpec:
    """The machine for a host image.

    Args:
        name: for messages.
        profile: says how much memory.
        accel: the rung to run on.
        host: the host image's description.
        files: the host image's files.
        folder: where the RAM file and the disks' overlays are.
    """
    modules = ",".join(
        escaped(f"{files / file} {arguments}".rstrip()) for file, arguments in host.modules
    )
    return MachineSpec(
        name=name,
        emulator=accel.qemu,
        accel=accel.qemu_accel,
        cpu=host.hardware.cpus.get(executes(accel), accel.cpu),
        memory_mib=profile.memory.host_mib,
        kernel=None if host.kernel is None else files / host.kernel,
        append=host.append.format(dom0_mib=profile.memory.dom0_mib),
        initrd=modules,
        disks=tuple(DiskSpec(folder / disk) for disk in (ROOT_DISK, VG_DISK, GUEST_DISK)),
        forwards={"ssh": host.ssh_port, "winrm": host.winrm_port},
        ram_file=folder / "ram",
        ram_shared=True,
        exchange_mib=EXCHANGE_MIB,
        hardware=host.hardware,
    )
