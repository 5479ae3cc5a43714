"""From a Debian tree to a bootable root: what dom0 and guests have in common.

Needs no root: file owners are kept by fakeroot(1) between unpacking and mke2fs(8).
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lab.core.errors import LabBroken
from lab.images.context import BuildContext
from lab.images.kernel import Initramfs, module_closure

#: What no machine of the lab reads.
DPKG_OPTIONS = tuple(
    f"path-exclude=/usr/share/{part}/*" for part in ("doc", "man", "locale", "info", "lintian")
)
#: Kernel drivers for hardware that no virtual machine has, most of a kernel package's bulk.
NEEDLESS_MODULES = (
    "sound", "drivers/gpu", "drivers/media", "drivers/infiniband", "drivers/usb", "drivers/hid",
    "drivers/iio", "drivers/staging", "drivers/video", "drivers/input", "drivers/mmc",
    "drivers/isdn", "drivers/hwmon", "drivers/nvme", "net/wireless", "net/mac80211",
    "net/bluetooth",
)  # fmt: skip


def install(
    ctx: BuildContext, tree: Path, *, suite: str, packages: Sequence[str], architecture: str
) -> Path:
    """Install packages and unpack the result where the build can read it.

    Args:
        ctx: the build.
        tree: the folder to unpack into.
        suite: Debian suite.
        packages: what to install.
        architecture: Debian architecture of the root.

    Returns:
        The archive, which still has the true owners; see ``make_ext4``.
    """
    archive = ctx.scratch / f"{tree.name}.tar"
    versions = ctx.mmdebstrap(
        suite,
        archive,
        variant="minbase",
        include=packages,
        architectures=[architecture],
        dpkgopts=DPKG_OPTIONS,
        hooks=[
            "--customize-hook=for part in "
            + " ".join(NEEDLESS_MODULES)
            + '; do rm -rf "$1"/usr/lib/modules/*/kernel/$part; done',
            '--customize-hook=rm -rf "$1"/boot/initrd* "$1"/boot/System.map*',
        ],
    )
    for name, version in versions.items():
        if name.startswith("linux-image-") and name.count("-") > 3:
            ctx.record_version(name, version)
    tree.mkdir()
    ctx.run(["tar", "-x", "--no-same-owner", "--exclude=./dev/*", "-C", tree, "-f", archive])
    return archive


def kernel_version(tree: Path) -> str:
    """The one kernel in ``tree``.

    Raises:
        LabBroken: there is none, or more than one.
    """
    found = sorted(path.name for path in (tree / "usr/lib/modules").glob("*"))
    if len(found) != 1:
        raise LabBroken(f"expected one kernel in the root, found {found}")
    return found[0]


def make_initramfs(
    target: Path, *, tree: Path, init: Path, modules: Sequence[str], busybox: Path
) -> None:
    """An initramfs with busybox, an init script and the named modules, uncompressed.

    Args:
        target: the archive to write.
        tree: a root with one kernel under ``/usr/lib/modules``.
        init: the script that becomes ``/init``; it finds the modules' file names in loading
            order in ``/modules.order`` and the files in ``/modules``.
        modules: module names; what they need is added.
        busybox: a static busybox.
    """
    modules_dir = tree / "usr/lib/modules" / kernel_version(tree)
    archive = Initramfs()
    for folder in ("bin", "dev", "root", "modules"):
        archive.directory(folder)
    archive.device("dev/console", 5, 1)
    archive.file("bin/busybox", busybox.read_bytes(), 0o755)
    archive.file("init", init.read_bytes(), 0o755)
    names = []
    for path in module_closure(modules_dir, list(modules)):
        names.append(Path(path).name)
        archive.file(f"modules/{names[-1]}", (modules_dir / path).read_bytes())
    archive.file("modules.order", "\n".join([*names, ""]).encode())
    archive.write(target)


def make_ext4(
    ctx: BuildContext,
    target: Path,
    *,
    archive: Path,
    size_mib: int,
    overlays: Sequence[Path] = (),
    copies: Mapping[str, Path] | None = None,
    modes: Mapping[str, int] | None = None,
    script: str = "",
) -> None:
    """Turn an archive into a raw ext4 image, with files laid over it.

    Args:
        ctx: the build.
        target: the image; sparse.
        archive: a tar with true owners.
        size_mib: size of the filesystem in MiB.
        overlays: folders copied over the root, owned by root.
        copies: single files by their absolute path inside.
        modes: permissions by absolute path inside, set last.
        script: shell lines run inside the new root's folder before it is packed.
    """
    root = ctx.scratch / f"{target.name}.root"
    lines = ["set -e", f"mkdir {_q(root)}", f"cd {_q(root)}"]
    lines.append(f"tar -x --exclude='./dev/*' -f {_q(archive)}")
    lines += [f"cp -r --no-preserve=ownership {_q(overlay)}/. ." for overlay in overlays]
    for inside, source in (copies or {}).items():
        lines.append(f"mkdir -p .{_q(str(Path(inside).parent))}")
        lines.append(f"cp -rT --no-preserve=ownership {_q(source)} .{_q(inside)}")
    if script:
        lines.append(script)
    lines.append("chown -R 0:0 root etc opt sbin/. usr/local")
    lines += [f"chmod {mode:o} .{_q(inside)}" for inside, mode in (modes or {}).items()]
    # No journal: an image that was not shut down is thrown away, never repaired.
    lines.append(
        f"mke2fs -q -F -t ext4 -O ^has_journal,^metadata_csum -E root_owner=0:0,lazy_itable_init=1 "
        f"-d . {_q(target)} {size_mib}M"
    )
    lines.append(f"rm -rf {_q(root)}")
    ctx.run(["fakeroot", "--", "sh", "-c", "\n".join(lines)])


def new_ssh_key(private: Path, comment: str) -> str:
    """Make an Ed25519 key, write its private half (mode 0600) and give its public line."""
    key = Ed25519PrivateKey.generate()
    private.touch(0o600)
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        )
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    return f"{public.decode()} {comment}\n"


def _q(path: Path | str) -> str:
    return shlex.quote(str(path))
