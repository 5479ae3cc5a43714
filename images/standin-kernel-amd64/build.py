"""The PV stand-in's kernel and the means to build modules for exactly this kernel.

64-bit, since Debian's Xen is built without 32-bit PV guests. Otherwise as standin-kernel.
"""

from lab.images.context import BuildContext
from lab.images.rootfs import install, kernel_version

PACKAGES = ["linux-image-amd64", "linux-headers-amd64", "make"]


def build(ctx: BuildContext) -> None:
    tree = ctx.scratch / "tree"
    ctx.step("installing the kernel, its headers and a compiler (amd64)")
    archive = install(ctx, tree, suite="bookworm", packages=PACKAGES, architecture="amd64")
    version = kernel_version(tree)
    ctx.record_version("kernel", version)
    (ctx.out / "version").write_text(version + "\n")
    (tree / "boot" / f"vmlinuz-{version}").rename(ctx.out / "vmlinuz")
    ctx.step("packing modules and build tree")
    ctx.run(["tar", "-cf", ctx.out / "modules.tar", "-C", tree / "usr/lib/modules", version])
    archive.unlink()
    needless = [f"--exclude=./{part}" for part in ("boot", "var/cache", "var/lib/apt")]
    ctx.run(["tar", "-cf", ctx.out / "toolchain.tar", *needless, "-C", tree, "."])
