"""Crashes to write dumps of, and the containers that only tests need."""

from __future__ import annotations

import struct

from lab.crash.dumpwriter import Crash, Image
from lab.crash.facts import Module

KERNEL = Module("ntkrnlpa.exe", 0x80800000, 0x80A51000, 0x45EC0A19)
HAL = Module("hal.dll", 0x80A51000, 0x80A7C000, 0x45D69710)
XENPCI = Module("xenpci.sys", 0xF7550000, 0xF7560000, 0x473C5A11)
XENVBD = Module("xenvbd.sys", 0xF7650000, 0xF7658000, 0x473C5A12)
GONE = Module("usbehci.sys", 0xF7700000, 0xF7710000, unloaded=True)

STACK_BASE = 0xF78B2A00


def chain(*frames: tuple[int, int], base: int = STACK_BASE, end: int = 0) -> bytes:
    """A stack whose frame pointers link.

    Args:
        frames: pairs of the words between this frame and the next, and the return address.
        base: address of its first byte.
        end: the last saved frame pointer.
    """
    data = b""
    for number, (between, returns) in enumerate(frames):
        following = base + len(data) + 8 + 4 * between
        saved = end if number == len(frames) - 1 else following
        data += struct.pack("<II", saved, returns) + bytes(4 * between)
    return data


def in_xenvbd(code: int = 0x100000D1) -> Crash:
    """xenvbd touches paged memory in its deferred call, and xenpci called it."""
    stack = chain((3, XENVBD.start + 0x1A2B), (2, XENPCI.start + 0x777), (1, KERNEL.start + 0x29))
    return Crash(
        code=code,
        parameters=(0x10, 2, 0, XENVBD.start + 0x1A2B),
        drivers=(KERNEL, HAL, XENPCI, XENVBD, GONE),
        registers={"eip": KERNEL.start + 0x5A2A7, "esp": STACK_BASE, "ebp": STACK_BASE},
        stack=stack + struct.pack("<III", 0x12345678, HAL.start + 0x44, 0),
        stack_base=STACK_BASE,
        process="xenvbd_io.exe",
        printed=b"XenVbd --> Attach\n     BytesPerSector = 512\r\n\nXenPCI <-- Bus\n",
    )


def xen_core(
    image: Image, *, table: int | None = None, registers: dict[str, int] | None = None
) -> bytes:
    """An ELF core as `xl dump-core` writes it of an HVM guest with one processor.

    Layout: a core that Xen 4.17 wrote; Xen, docs/misc/dump-core-format.txt; vcpu_guest_context
    of x86_64, xen/include/public/arch-x86/xen.h.

    Args:
        image: the guest's memory.
        table: in CR3; that of the image by default.
        registers: of the processor: eip, esp, ebp.
    """
    context = bytearray(5168)
    known = registers or {}
    for name, at in (("ebp", 4), ("eip", 16), ("esp", 19)):
        struct.pack_into("<Q", context, 520 + 8 * at, known.get(name, 0))
    struct.pack_into("<Q", context, 4984 + 8 * 3, image.table if table is None else table)
    numbers = sorted(image.pages)
    header = struct.pack("<4Q", 0xF00FEBEE, 1, len(numbers), 4096)
    notes = struct.pack("<III4s", 4, 0, 0x2000000, b"Xen\0")
    notes += struct.pack("<III4s", 4, len(header), 0x2000001, b"Xen\0") + header
    names = b"\0.shstrtab\0.note.Xen\0.xen_prstatus\0.xen_shared_info\0.xen_pages\0.xen_pfn\0"
    # Name, type, contents, alignment, bytes of an entry; in the order of their contents.
    contents = [
        (b".note.Xen", 7, notes, 1, 0),
        (b".xen_prstatus", 1, bytes(context), 8, len(context)),
        (b".xen_shared_info", 1, bytes(4096), 8, 4096),
        (b".xen_pages", 1, b"".join(bytes(image.pages[one]) for one in numbers), 4096, 4096),
        (b".xen_pfn", 1, b"".join(struct.pack("<Q", one) for one in numbers), 8, 8),
        (b".shstrtab", 3, names, 1, 0),
    ]
    body = b""
    sections = []
    at = 64 + 64 * (len(contents) + 1)
    for name, kind, data, align, each in contents:
        body += bytes(-(at + len(body)) % align)
        place = at + len(body)
        sections.append(
            struct.pack(
                "<IIQQQQIIQQ",
                *(names.index(name), kind, 0, 0, place, len(data), 0, 0, align, each),
            )
        )
        body += data
    # The names' section comes first in the table.
    table = bytes(64) + sections.pop() + b"".join(sections)
    elf = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01".ljust(16, b"\0"),
        4,
        62,
        1,
        0,
        0,
        64,
        0,
        64,
        0,
        0,
        64,
        len(contents) + 1,
        1,
    )
    return elf + table + body


# Words of a real oops, and what a stand-in prints around it.
LINUX_LINES = (
    "Linux version 6.1.0-50-686-pae (debian-kernel@lists.debian.org) #1 SMP",
    "xen_netfront: Initialising Xen virtual ethernet driver",
    "vbd vbd-5632: blkfront:blkback_changed to state 4.",
    " xvdc: xvdc1 xvdc2",
    "BUG: kernel NULL pointer dereference, address: 00000004",
    "#PF: supervisor write access in kernel mode",
    "Oops: 0002 [#1] PREEMPT SMP",
    "CPU: 0 PID: 45 Comm: xenwatch Tainted: G           OE      6.1.0-50-686-pae #1",
    "EIP: blkfront_probe+0x1f/0x3a0 [xen_blkfront]",
    "EAX: 00000000 EBX: c2a5d000 ECX: 00000000 EDX: c1a2b3c4",
    "Call Trace:",
    " xenbus_dev_probe+0x93/0x140",
    " really_probe+0xc1/0x320",
    "Kernel panic - not syncing: Fatal exception",
)


def printk_ring(
    lines: tuple[str, ...] = LINUX_LINES,
    *,
    width: int = 4,
    shift: int = 8,
    first: int = 0,
    infos: bool = True,
) -> bytes:
    """Memory with a kernel log in it: the ring of texts, and the array of printk_info.

    Layout: Linux 6.1, kernel/printk/printk_ringbuffer.h. As there, what a level before the
    text leaves behind it stays in the block.

    Args:
        lines: one a record, a third of a second apart.
        width: bytes of a word.
        shift: the array has two to the power of this many entries.
        first: sequence number of the first record.
        infos: whether the array is there.
    """
    mask = (1 << 8 * width - 2) - 1
    ring = b""
    array = bytearray(88 << shift)
    for at, line in enumerate(lines):
        text = line.encode()
        raw = text + text[-2:] + b"\n\0"
        number = first + at - (1 << shift) & mask
        ring += number.to_bytes(width, "little") + raw + bytes(-len(raw) % width)
        nanoseconds = at * 333_333_333
        struct.pack_into(
            "<QQHBBI", array, (number & (1 << shift) - 1) * 88, first + at, nanoseconds, len(text),
            0, 6, 0,
        )  # fmt: skip
    # The format string that every kernel has; it is no log.
    rodata = b"\x010Kernel panic - not syncing: %s\n\0".ljust(4096, b"\0")
    return rodata + ring.ljust(8192, b"\0") + (bytes(array) if infos else b"")


def image_of(memory: bytes) -> Image:
    """Physical memory that holds some bytes from its second page on."""
    pages = {
        1 + at // 4096: bytearray(memory[at : at + 4096].ljust(4096, b"\0"))
        for at in range(0, len(memory), 4096)
    }
    return Image(pages=pages)
