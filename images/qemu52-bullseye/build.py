"""Debian 11's QEMU 5.2 as a tree that runs through its own loader, with no chroot.

QEMU from 7.2 on sets the Accessed bit in PAE page-directory-pointer entries, where hardware
does not; Xen's guest walk then refuses the entry and the guest never leaves its first CPUID.

QEMU 5.2 has one fault of its own that matters here: it ends with "invalid tss type" when the
task register holds a TSS that is marked busy and an interrupt arrives in user code. Hardware
always marks it busy (AMD64 Architecture Programmer's Manual, volume 2, "Task Register"), and so
does Xen when it restores a saved guest. One byte of the check is changed so that both types
pass.
"""

import re
import struct
from pathlib import Path

from lab.images.context import BuildContext

EMULATOR = "usr/bin/qemu-system-x86_64"
COMPLAINT = b"invalid tss type\0"

# and $7,%reg; cmp $1,%reg; jne far: what is left of the type must be 1, an available TSS.
CHECK = re.compile(rb"\x83[\xe0-\xe7]\x07\x83[\xf8-\xff]\x01\x0f\x85", re.DOTALL)
MASK_AT = 2
# Without bit 1, the busy bit: 1 and 3 (busy) pass, all others still do not.
MASK = 5


def build(ctx: BuildContext) -> None:
    ctx.step("unpacking QEMU 5.2 and its libraries")
    ctx.mmdebstrap("bullseye", ctx.out, variant="extract", include=["qemu-system-x86"])
    if not accept_busy_tss(ctx.out / EMULATOR):
        ctx.step(
            "this build of QEMU 5.2 checks the TSS in another way: restored guests will end it"
        )


def accept_busy_tss(emulator: Path) -> bool:
    """Change the check in the program file.

    The place is known by what it does: the one check whose jump leads to loading the address
    of the complaint.

    Returns:
        False when there is not exactly one such place; nothing is changed then.
    """
    image = bytearray(emulator.read_bytes())
    places = [
        found.start() + MASK_AT
        for found in CHECK.finditer(image)
        if _leads_to_complaint(image, found.end())
    ]
    if len(places) != 1:
        return False
    image[places[0]] = MASK
    emulator.write_bytes(image)
    return True


def _leads_to_complaint(image: bytearray, at: int) -> bool:
    # `at`: the jump's 32-bit distance. File offsets and addresses differ by the same amount
    # within the code, so the jump can be followed in the file.
    target = at + 4 + struct.unpack_from("<i", image, at)[0]
    if not 0 <= target <= len(image) - 7:
        return False
    # lea distance(%rip),%reg
    if image[target : target + 2] != b"\x48\x8d" or image[target + 2] & 0xC7 != 0x05:
        return False
    code = _address(image, target)
    if code is None:
        return False
    wanted = code + 7 + struct.unpack_from("<i", image, target + 3)[0]
    text = image.find(COMPLAINT)
    return text >= 0 and _address(image, text) == wanted


def _address(image: bytearray, offset: int) -> int | None:
    """Where a byte of the file is in memory (ELF-64, program header: p_type 1 is PT_LOAD)."""
    table = struct.unpack_from("<Q", image, 32)[0]
    size, count = struct.unpack_from("<HH", image, 54)
    for number in range(count):
        kind, _, begin, address, _, length = struct.unpack_from(
            "<IIQQQQ", image, table + number * size
        )
        if kind == 1 and begin <= offset < begin + length:
            return int(address + offset - begin)
    return None
