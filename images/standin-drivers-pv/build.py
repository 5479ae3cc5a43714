"""As standin-drivers, for the PV stand-in's 64-bit kernel; the seeded defect is the same."""

import shutil
import tarfile

from lab.images.context import BuildContext

# The module that is the PV block driver, and what its file is called in a package.
DRIVER = "kernel/drivers/block/xen-blkfront.ko"
BINARIES = "x86_64"


def build(ctx: BuildContext) -> None:
    kernel = ctx.dep("standin-kernel-amd64")
    version = (kernel / "version").read_text().strip()
    ctx.record_version("kernel", version)
    ctx.step("building modules")
    built = _build_modules(ctx, version)
    with tarfile.open(kernel / "modules.tar") as archive:
        member = archive.extractfile(f"{version}/{DRIVER}")
        assert member is not None
        blkfront = member.read()
    ctx.step("making the packages")
    for name in ("good", "broken-attach"):
        package = ctx.out / name
        shutil.copytree(ctx.recipe_dir / name, package)
        (package / BINARIES).mkdir()
        (package / BINARIES / "xenvbd.sys").write_bytes(blkfront)
    shutil.copy(built / "crash_on_attach.ko", ctx.out / "broken-attach" / BINARIES / "xenvbdx.sys")


def _build_modules(ctx: BuildContext, version: str):
    """Build the sources in the kernel's own tree, in a user namespace when not root."""
    root = ctx.scratch / "toolchain"
    root.mkdir()
    archive = ctx.dep("standin-kernel-amd64") / "toolchain.tar"
    ctx.run(["tar", "-x", "--no-same-owner", "-C", root, "-f", archive])
    source = root / "src"
    shutil.copytree(ctx.shared("standin-drivers/src"), source)
    (root / "dev").mkdir(exist_ok=True)
    (root / "dev/null").touch()
    script = (
        'mount --bind /dev/null "$0/dev/null" && exec chroot "$0" /usr/bin/env -i '
        f"PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C "
        f"make -C /usr/src/linux-headers-{version} M=/src ARCH=x86_64 modules"
    )
    ctx.run(["unshare", "--map-root-user", "--mount", "sh", "-ec", script, root])
    return source
