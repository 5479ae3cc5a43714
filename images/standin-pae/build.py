"""The stand-in guest's system disk."""

import compileall
import json
import py_compile
import secrets
import shutil

from lab.images.boot import GuestBoot, write_guest
from lab.images.bootdisk import make_bootdisk
from lab.images.context import BuildContext
from lab.images.rootfs import install, make_ext4, make_initramfs

PACKAGES = [
    "python3-minimal", "libpython3-stdlib", "busybox-static", "kmod", "iproute2", "mount",
    "ntfs-3g", "dosfstools", "e2fsprogs",
]  # fmt: skip
USERNAME = "Administrator"


def build(ctx: BuildContext) -> None:
    tree = ctx.scratch / "tree"
    kernel = ctx.dep("standin-kernel")
    version = (kernel / "version").read_text().strip()
    ctx.step("installing the guest's packages (i386)")
    archive = install(ctx, tree, suite="bookworm", packages=PACKAGES, architecture="i386")
    modules = tree / "usr/lib/modules"
    modules.mkdir(exist_ok=True)
    ctx.run(["tar", "-x", "-C", modules, "-f", kernel / "modules.tar"])
    ctx.record_version("kernel", version)

    ctx.step("making the initramfs")
    initrd = ctx.scratch / "initrd"
    make_initramfs(
        initrd,
        tree=tree,
        init=ctx.recipe_dir / "initramfs-init",
        modules=["crc32c_generic", "ahci", "sd_mod", "ext4"],
        busybox=tree / "bin/busybox",
    )

    ctx.step("making the guest's disk")
    standin = ctx.scratch / "standin"
    shutil.copytree(
        ctx.recipe_dir / "standin", standin, ignore=shutil.ignore_patterns("__pycache__")
    )
    # Compiled here, not at each start on an emulated processor. A guest with another Python
    # version does not look at these files.
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_dir(standin, quiet=1, invalidation_mode=unchecked, ddir="/opt/standin")
    password = secrets.token_urlsafe(15)
    settings = ctx.scratch / "standin.json"
    settings.write_text(json.dumps({"user": USERNAME, "password": password}))
    hostname = ctx.scratch / "hostname"
    hostname.write_text("standin\n")
    # Without the module files the PV block driver cannot be loaded by anything but a package.
    root = ctx.scratch / "root.img"
    make_ext4(
        ctx,
        root,
        archive=archive,
        size_mib=900,
        copies={
            "/opt/standin": standin,
            "/sbin/pvlab-init": ctx.recipe_dir / "guest-init",
            "/etc/standin.json": settings,
            "/etc/hostname": hostname,
            "/usr/lib/modules": modules,
        },
        modes={"/sbin/pvlab-init": 0o755, "/etc/standin.json": 0o600},
        script="rm -rf boot/* var/lib/apt var/cache/apt; "
        "find usr/lib/modules -name 'xen-blkfront.ko*' -delete",
    )
    make_bootdisk(
        ctx,
        ctx.out / "guest.img",
        boot_files={
            "syslinux.cfg": ctx.recipe_dir / "syslinux.cfg",
            "vmlinuz": kernel / "vmlinuz",
            "initrd": initrd,
        },
        root=root,
    )
    (ctx.out / "domain.cfg.j2").write_bytes((ctx.recipe_dir / "domain.cfg.j2").read_bytes())
    secret = ctx.out / "password"
    secret.touch(0o600)
    secret.write_text(password)
    write_guest(
        ctx.out,
        GuestBoot(
            guest_type="hvm",
            bits="32-bit PAE",
            disk="guest.img",
            domain_config="domain.cfg.j2",
            username=USERNAME,
            password_file="password",
            c_partition=2,
            c_folder="c",
        ),
    )
