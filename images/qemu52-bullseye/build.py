"""Debian 11's QEMU 5.2 as a tree that runs through its own loader, with no chroot.

QEMU from 7.2 on sets the Accessed bit in PAE page-directory-pointer entries, where hardware
does not; Xen's guest walk then refuses the entry and the guest never leaves its first CPUID.
"""

from lab.images.context import BuildContext


def build(ctx: BuildContext) -> None:
    ctx.step("unpacking QEMU 5.2 and its libraries")
    ctx.mmdebstrap("bullseye", ctx.out, variant="extract", include=["qemu-system-x86"])
