"""Debian 12's Xen with a dom0 that starts only what the lab uses."""

from pathlib import Path

from lab.images.boot import HostBoot, write_host
from lab.images.context import BuildContext
from lab.images.kernel import extract_vmlinux, unpack_gzip
from lab.images.rootfs import install, kernel_version, make_ext4, make_initramfs, new_ssh_key

SUITE = "bookworm"
PACKAGES = [
    "xen-hypervisor-4.17-amd64", "xen-utils-4.17", "xenstore-utils", "qemu-system-xen", "seabios",
    "linux-image-amd64", "sysvinit-core", "busybox-static", "kmod", "procps", "iproute2",
    "nftables", "openssh-server", "lvm2", "dmsetup", "ntfs-3g", "zstd",
]  # fmt: skip

# loglvl: what Xen says of guests is evidence. noreboot: a dying hypervisor must be seen.
# cpuidle=0, spec-ctrl, xpti: without them Xen is unstable or slow under emulation. eager-fpu:
# spec-ctrl=no alone would switch floating-point and SSE registers lazily, by traps that the
# emulator has to get right between two worlds. No boot
# scrub: it would write to every page, and each clone would pay for the memory.
XEN_ARGS = (
    "console=com1 com1=115200,8n1 dom0_mem={dom0_mib}M,max:{dom0_mib}M noreboot "
    "spec-ctrl=no,eager-fpu=yes xpti=no cpuidle=0 bootscrub=0 loglvl=warning guest_loglvl=all"
)
DOM0_ARGS = "root=/dev/vda rw console=hvc0 mitigations=off quiet"


def build(ctx: BuildContext) -> None:
    tree = ctx.scratch / "tree"
    ctx.step("installing Xen and dom0's packages")
    archive = install(ctx, tree, suite=SUITE, packages=PACKAGES, architecture="amd64")

    ctx.step("unpacking the kernels")
    kernel = kernel_version(tree)
    unpack_gzip(next((tree / "boot").glob("xen-*.gz")), ctx.out / "xen")
    extract_vmlinux(tree / "boot" / f"vmlinuz-{kernel}", ctx.out / "vmlinux")
    make_initramfs(
        ctx.out / "initrd",
        tree=tree,
        init=ctx.recipe_dir / "initramfs-init",
        modules=["crc32c_generic", "virtio_pci", "virtio_blk", "ext4"],
        busybox=tree / "bin/busybox",
    )

    ctx.step("making dom0's root disk")
    keys = ctx.scratch / "keys"
    keys.mkdir()
    user_key = new_ssh_key(ctx.out / "id_ed25519", "pvlab")
    (keys / "authorized_keys").write_text(user_key)
    host_key = new_ssh_key(keys / "ssh_host_ed25519_key", "dom0")
    make_ext4(
        ctx,
        ctx.out / "root.img",
        archive=archive,
        size_mib=1536,
        overlays=[ctx.recipe_dir / "root"],
        copies={
            "/root/.ssh/authorized_keys": keys / "authorized_keys",
            "/etc/ssh/ssh_host_ed25519_key": keys / "ssh_host_ed25519_key",
        },
        modes={
            "/root": 0o700,
            "/root/.ssh": 0o700,
            "/root/.ssh/authorized_keys": 0o600,
            "/etc/ssh/ssh_host_ed25519_key": 0o600,
        },
        script="rm -rf boot/* var/lib/apt var/cache/apt etc/ssh/ssh_host_[er][cs]*\n"
        # Xen's own script stays beside the one for what is usual, which says why.
        "cd etc/xen/scripts; mv block block.xen; mv block-usual block; cd ../../..\n"
        # Each command of the lab's starts this shell; bash takes half as long again.
        "sed -i '/^root:/ s|/bin/bash$|/bin/sh|' etc/passwd",
    )
    _no_leftovers(archive, keys)
    write_host(
        ctx.out,
        HostBoot(
            kernel="xen",
            append=XEN_ARGS,
            modules=(("vmlinux", DOM0_ARGS), ("initrd", "")),
            root="root.img",
            private_key="id_ed25519",
            host_key=host_key,
            ssh_port=22,
            winrm_port=5985,
            guest_address="192.168.53.10",
            toolstacks=("xl",),
        ),
    )


def _no_leftovers(archive: Path, keys: Path) -> None:
    archive.unlink()
    for key in keys.iterdir():
        key.unlink()
