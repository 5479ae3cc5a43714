"""Builds a host of Enterprise Linux 5: the builder of ``images/xen3*``."""

from __future__ import annotations

from pathlib import Path

import pycdlib
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from pycdlib.pycdlibexception import PyCdlibException

from lab.core.errors import LabBroken
from lab.el5.kickstart import Kickstart
from lab.el5.model import GUEST_ADDRESS, WINRM_PORT, Variant
from lab.el5.setup import SetupMachine, run_setup
from lab.images.boot import HostBoot, write_host
from lab.images.context import BuildContext
from lab.images.kernel import Initramfs
from lab.qemu.emulator import system_emulator
from lab.qemu.kvm import kvm_facts

_DISK_MIB = 4096
_MEMORY_MIB = 1024
#: The installer needs no virtualisation of its own, so any KVM will do; without, this slower.
_TCG_PATIENCE = 8.0
#: A processor that anaconda's kernel knows, whoever executes it.
_SETUP_CPU = "qemu64"
#: Room that OpenSSH 4.3 and paramiko both accept.
_KEY_BITS = 2048


def build(ctx: BuildContext) -> None:
    """Install the host from its media, and describe it."""
    variant = Variant.load(ctx.recipe_dir)
    emulator = system_emulator()
    if emulator is None:
        raise LabBroken(f"image {ctx.name}: no QEMU on this system", hint="pvlab doctor")
    ctx.record_version("qemu", emulator.version)
    medium = ctx.medium(variant.medium)
    other = variant.hypervisor_medium
    discs = [medium, *([ctx.medium(other)] if other is not None else [])]

    ctx.step("taking the installer off the medium")
    public = new_rsa_key(ctx.out / "id_rsa")
    kernel, initrd = ctx.scratch / "vmlinuz", ctx.scratch / "initrd"
    take_installer(medium, kernel, initrd, Kickstart(variant, public).text())

    disk = ctx.out / "root.img"
    with disk.open("wb") as file:
        file.truncate(_DISK_MIB << 20)
    kvm = kvm_facts().device == "usable"
    machine = SetupMachine(
        emulator=emulator,
        accel="kvm" if kvm else "tcg",
        cpu=_SETUP_CPU,
        memory_mib=_MEMORY_MIB,
        nic=variant.nic,
        disk=disk,
        discs=discs,
        kernel=kernel,
        initrd=initrd,
    )
    host_key = run_setup(
        machine.argv,
        ctx.deadline,
        patience=1.0 if kvm else _TCG_PATIENCE,
        say=ctx.step,
        heard=ctx.heard,
    )
    write_host(ctx.out, describe(variant, host_key))


def describe(variant: Variant, host_key: str) -> HostBoot:
    """What the layers above need to know of a host.

    Args:
        variant: the host.
        host_key: public line of its SSH key.
    """
    return HostBoot(
        kernel=None,
        root="root.img",
        private_key="id_rsa",
        host_key=host_key,
        ssh_port=22,
        winrm_port=WINRM_PORT,
        guest_address=GUEST_ADDRESS,
        toolstacks=("xm",),
        hardware=variant.hardware,
        ssh="sha1",
        domain_keys=variant.domain_keys,
    )


def take_installer(medium: Path, kernel: Path, initrd: Path, kickstart: str) -> None:
    """Copy the installer's kernel off a medium, and its initramfs with a kickstart in it.

    The kernel unpacks archives that follow one another (Linux,
    Documentation/early-userspace/buffer-format.txt), so the medium's own is not changed.

    Raises:
        LabBroken: the medium has no installer.
    """
    disc = pycdlib.PyCdlib()
    try:
        disc.open(str(medium))
        try:
            disc.get_file_from_iso(str(kernel), iso_path="/ISOLINUX/VMLINUZ.;1")
            disc.get_file_from_iso(str(initrd), iso_path="/ISOLINUX/INITRD.IMG;1")
        finally:
            disc.close()
    except (PyCdlibException, OSError) as error:
        raise LabBroken(f"{medium.name}: no installer on this medium: {error}") from error
    extra = Initramfs()
    extra.file("ks.cfg", kickstart.encode(), 0o600)
    more = initrd.with_name("kickstart.cpio")
    extra.write(more)
    with initrd.open("ab") as file:
        # The archive before it ends where it ends; the next begins on four bytes.
        file.write(b"\0" * (-initrd.stat().st_size % 4) + more.read_bytes())


def new_rsa_key(private: Path) -> str:
    """Make an RSA key, write its private half (mode 0600) and give its public line.

    OpenSSH 4.3 knows neither Ed25519 nor elliptic curves.
    """
    key = rsa.generate_private_key(public_exponent=65537, key_size=_KEY_BITS)
    private.touch(0o600)
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    return f"{public.decode()} pvlab\n"
