"""Cores of Xen guests, as ``xl dump-core`` and ``xm dump-core`` write them.

Sources: Xen, docs/misc/dump-core-format.txt (sections, notes); System V ABI, chapter 4 (ELF);
xen/include/public/arch-x86 (vcpu_guest_context, cpu_user_regs).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lab.core.errors import UsageError
from lab.crash import dumpformat as form
from lab.crash import oops
from lab.crash.dump import Account, add_kernel, add_stack
from lab.crash.facts import CrashFact, Frame, LogLine
from lab.crash.mapped import View, opened
from lab.crash.printk import Log, find_log
from lab.crash.stack import KERNEL
from lab.crash.winmem import Debugger, Kernel, Tables, Virtual, blocks, debugger_block, find_tables

READER = "Xen core"

_ELF = b"\x7fELF"
_CORE = 4  # e_type: ET_CORE
_MAX_SECTIONS = 64
_MAX_NAMES = 4096
_MAX_PAGES = 1 << 24
# Xen writes the pages in order. Where it does not, the numbers are kept: those of 4 GiB.
_MAX_UNSORTED = 1 << 20
_MAX_VCPUS = 64
_NOTE_HEADER = 0x2000001  # XEN_ELFNOTE_DUMPCORE_HEADER
_MAGIC, _PROCESSORS, _PAGE_SIZE = 0, 1, 3  # fields of it, 64 bits each
_MAGIC_HVM = 0xF00FEBEE

# e_shoff, e_shentsize, e_shnum and e_shstrndx in the ELF header, then sh_offset, sh_size and
# sh_entsize in a section header: for 32 and 64 bits.
_CLASSES = {1: ("<I", 0x20, 0x2E, 0x10, 0x14, 0x24), 2: ("<Q", 0x28, 0x3A, 0x18, 0x20, 0x38)}
_NOTE = 7  # sh_type: SHT_NOTE

# An HVM guest has no memory where the graphics card's is: numbers 0xA0 to 0xBF.
_HOLE, _HOLE_SIZE = 0xA0, 0x20

# vcpu_guest_context by its size: offsets of ebp, eip, esp and cr3, and the width of a word.
_CONTEXTS = {
    5168: (520 + 8 * 4, 520 + 8 * 16, 520 + 8 * 19, 4984 + 8 * 3, 8),
    2800: (516 + 4 * 5, 516 + 4 * 8, 516 + 4 * 11, 2716 + 4 * 3, 4),
}

_KERNEL_REACH = 8 << 20
"""Bytes of a kernel's image that are searched for its debugger block: images have less."""


def recognise(head: bytes, name: str) -> bool:
    """Whether a file begins like an ELF core without program headers, as Xen writes them."""
    if len(head) < 64 or head[:4] != _ELF or head[4] not in _CLASSES or head[5] != 1:
        return False
    programs = struct.unpack_from("<H", head, 0x2C if head[4] == 1 else 0x38)[0]
    return bool(struct.unpack_from("<H", head, 0x10)[0] == _CORE and programs == 0)


def read(path: Path) -> list[CrashFact]:
    """Read a core.

    Returns:
        What its guest's memory tells: for a Windows one fact, for a Linux one for each crash in
        its kernel log. A guest that did not crash is a fact, too, of an unknown kind.

    Raises:
        UsageError: it is no core of a Xen guest.
    """
    with opened(path) as view:
        if not recognise(view.take(0, 64), path.name):
            raise UsageError(f"{path.name} is no core of a Xen guest")
        core = Core(view, path.name)
        return _windows(core) or _linux(core)


@dataclass(frozen=True, slots=True)
class _Section:
    at: int
    size: int


class Core:
    """An ELF core of a Xen guest.

    Args:
        view: the file.
        file: its name.

    Attributes:
        view: the file.
        file: its name.
        start: offset of the guest's pages.
        end: offset behind the last of them that is there.
        notes: what is not in order.

    Raises:
        UsageError: it holds no memory.
    """

    def __init__(self, view: View, file: str) -> None:
        self.view = view
        self.file = file
        self.notes: list[str] = []
        self._sections = dict(_sections(view))
        pages = self._sections.get(".xen_pages")
        if pages is None or pages.at >= view.size:
            raise UsageError(f"{file} holds no guest memory: it is cut off, or no core of Xen's")
        self.start = pages.at
        self.end = min(pages.at + pages.size, view.size)
        if pages.at + pages.size > view.size:
            self.notes.append(
                f"truncated: {view.size - pages.at} of {pages.size} bytes of memory are there"
            )
        size = self._header(_PAGE_SIZE)
        if size not in (None, form.PAGE):
            raise UsageError(f"{file} has pages of {size} bytes, which no x86 guest has")
        self._count = min((self.end - self.start) // form.PAGE, _MAX_PAGES)
        self._hole = _HOLE_SIZE if self._header(_MAGIC) == _MAGIC_HVM else 0
        self._numbers, self._entry = self._index()
        # None while page numbers are in order and can be searched.
        self._known: dict[int, int] | None = None
        if self._numbers is not None and not self._is_sorted():
            if self._count > _MAX_UNSORTED:
                self.notes.append(f"only the first {_MAX_UNSORTED} pages are looked at")
                self._count = _MAX_UNSORTED
            self._known = {number: at for at, number in enumerate(self.numbers())}

    def _index(self) -> tuple[int | None, int]:
        """Where the numbers of the pages are, and the width of an entry."""
        # .xen_pfn: numbers of pages; .xen_p2m, for PV guests: those and the machine's.
        for name, entry in ((".xen_pfn", 8), (".xen_p2m", 16)):
            section = self._sections.get(name)
            if section is None or section.at + section.size > self.view.size:
                continue
            self._count = min(self._count, section.size // entry)
            # Of a core that was still being written, the end is zeros.
            if any(self.view.u64(section.at + entry * one) for one in (1, self._count - 1)):
                return section.at, entry
        # The list comes behind the pages, so a core that is cut off has none.
        self.notes.append("no list of page numbers: they are guessed from the order of the pages")
        return None, 8

    def numbers(self) -> Iterator[int]:
        """Numbers of the guest's pages, in the order of the file."""
        if self._numbers is None:
            yield from range(min(self._count, _HOLE))
            yield from range(_HOLE + self._hole, self._count + self._hole)
            return
        step = 8192
        for first in range(0, self._count, step):
            count = min(step, self._count - first)
            piece = self.view.take(self._numbers + first * self._entry, count * self._entry)
            for entry in struct.iter_unpack("<Q" if self._entry == 8 else "<QQ", piece):
                yield entry[0]

    def page(self, number: int) -> int | None:
        """The offset in the file of a guest's page, or None."""
        at = self._search(number) if self._known is None else self._known.get(number)
        return None if at is None else self.start + at * form.PAGE

    def _search(self, number: int) -> int | None:
        if self._numbers is None:
            at = number if number < _HOLE else max(number - self._hole, 0)
            return at if at < self._count else None
        low, high = 0, self._count
        while low < high:
            middle = (low + high) // 2
            found = self.view.u64(self._numbers + middle * self._entry)
            if found == number:
                return middle
            if found is None or found > number:
                high = middle
            else:
                low = middle + 1
        return None

    def _is_sorted(self) -> bool:
        before = -1
        for number in self.numbers():
            if number <= before:
                return False
            before = number
        return True

    def _header(self, field: int) -> int | None:
        """A field of the header note: magic, ``_PROCESSORS``, pages, ``_PAGE_SIZE``."""
        section = self._sections.get(".note.Xen")
        at = section.at if section else self.view.size
        for _ in range(16):
            name, size, kind = (self.view.u32(at + one) for one in (0, 4, 8))
            if name is None or size is None or max(name, size) > 0x10000:
                return None
            if kind == _NOTE_HEADER:
                return self.view.u64(at + 12 + (name + 3 & ~3) + 8 * field)
            at += 12 + (name + 3 & ~3) + (size + 3 & ~3)
        return None

    def processors(self) -> list[dict[str, int]]:
        """Registers of each virtual processor: ``ebp``, ``eip``, ``esp`` and ``cr3``."""
        section = self._sections.get(".xen_prstatus")
        count = self._header(_PROCESSORS)
        if section is None or not count or count > _MAX_VCPUS:
            return []
        size = section.size // count
        if size not in _CONTEXTS:
            self.notes.append(f"processors of {size} bytes each are not known: no registers")
            return []
        *places, width = _CONTEXTS[size]
        found = []
        for number in range(count):
            base = section.at + number * size
            words = [
                self.view.u64(base + at) if width == 8 else self.view.u32(base + at)
                for at in places
            ]
            if None not in words:
                found.append(
                    {
                        name: (word or 0) & 0xFFFFFFFF
                        for name, word in zip(("ebp", "eip", "esp", "cr3"), words, strict=True)
                    }
                )
        return found


def _sections(view: View) -> Iterator[tuple[str, _Section]]:
    word, table_at, counts_at, offset_at, size_at, each_at = _CLASSES[view.take(4, 1)[0]]
    width = struct.calcsize(word)

    def number(at: int) -> int:
        return (view.u32(at) if width == 4 else view.u64(at)) or 0

    table = number(table_at)
    entry, count, names_in = (view.u16(counts_at + 2 * one) or 0 for one in range(3))
    if entry < each_at + width:
        return
    names_at = number(table + names_in * entry + offset_at)
    for index in range(min(count, _MAX_SECTIONS)):
        at = table + index * entry
        offset, kind = view.u32(at), view.u32(at + 4)
        if offset is None or kind is None:
            return
        raw = view.take(names_at + min(offset, _MAX_NAMES), 32).partition(b"\0")[0]
        # Names come last in the file: a core that is cut off has none.
        name = raw.decode("ascii", "replace") or _name(kind, number(at + each_at))
        yield name, _Section(number(at + offset_at), number(at + size_at))


def _name(kind: int, each: int) -> str:
    """A section's name, by its type and the size of its entries; empty if that tells nothing."""
    if kind == _NOTE:
        return ".note.Xen"
    if each in _CONTEXTS:
        return ".xen_prstatus"
    # The page that the guest shares with Xen is an entry of that size, too, and comes before.
    return {form.PAGE: ".xen_pages", 8: ".xen_pfn", 16: ".xen_p2m"}.get(each, "")


# -- Windows ------------------------------------------------------------------------------------


def _windows(core: Core) -> list[CrashFact]:
    """What the memory of a 32-bit Windows tells; [] if there is none."""
    view = core.view
    found: tuple[int, Debugger] | None = None
    for at, block in blocks(view):
        if not core.start <= at < core.end:
            continue
        if block.is_64_bit:
            core.notes.append("a 64-bit Windows, which is not read here")
            continue
        found = (at, block)
        break
    header_at = _dump_header(core)
    if found is None and header_at is None:
        return []
    account = Account(READER, core.file)
    header = form.read_header(view, header_at) if header_at is not None else None
    processors = core.processors()
    kernel, tables = _kernel(core, processors, found, header)
    bugcheck = kernel.bugcheck() if kernel else None
    at = header_at if header_at is not None else found[0] if found else 0
    if bugcheck and bugcheck[0] != form.UNSET:
        place = kernel.bugcheck_at() if kernel else None
        account.bugcheck(*bugcheck, place or at)
    elif header is not None and header.code is not None:
        # The page that Windows prepares when it writes a dump.
        account.bugcheck(header.code, header.parameters, at + form.CODE)
    else:
        account.note("no bugcheck is recorded in memory: the guest ran or hung")
    if header is not None:
        account.put("when", header.when, at + form.SYSTEM_TIME)
    build = kernel.build() if kernel else None
    number = build[0] if build else header.build if header else None
    pae = tables.pae if tables else header.pae if header else False
    pack = kernel.service_pack() if kernel else None
    account.put("system", form.system_name(number, service_pack=pack, pae=pae), at)
    if kernel is None:
        account.note("no page tables were found: modules and stack cannot be read")
    else:
        add_kernel(account, kernel, header.module_list if header else None)
        if len(processors) == 1:
            account.put("process", kernel.process(number), "memory of the current thread")
        chosen = _registers(account, kernel.memory, processors)
        account.put("registers", chosen, ".xen_prstatus")
        add_stack(account, kernel.memory, chosen)
    account.note(*core.notes)
    return [account.fact()]


def _registers(
    account: Account, memory: Virtual, processors: Sequence[dict[str, int]]
) -> dict[str, int]:
    """The processor to look at: one with a driver on its stack, else the first."""
    if len(processors) > 1:
        account.note(f"{len(processors)} processors")
        for one in processors:
            trial = replace(account, values=dict(account.values), sources={}, notes=[])
            add_stack(trial, memory, one)
            frames: tuple[Frame, ...] = trial.values.get("frames", ())
            if any(frame.module and frame.module not in KERNEL for frame in frames):
                return one
    return processors[0] if processors else {}


def _dump_header(core: Core) -> int | None:
    """The header that Windows prepares in memory when it writes a dump, or None."""
    at = core.start - 1
    for _ in range(100):
        at = core.view.find(form.SIGNATURE + form.VALID_32, at + 1, core.end)
        if at < 0:
            return None
        header = form.read_header(core.view, at)
        aligned = (at - core.start) % form.PAGE == 0
        if aligned and header.machine == form.MACHINE_I386 and header.code is not None:
            return at
    return None


def _kernel(
    core: Core,
    processors: Sequence[dict[str, int]],
    found: tuple[int, Debugger] | None,
    header: form.Header | None,
) -> tuple[Kernel | None, Tables | None]:
    """The kernel's memory, through page tables that show its image where it says it is."""
    base = found[1].kernel_base if found else None
    for tables in _candidates(core, processors, header):
        memory = Virtual(core.view, core, tables)
        if base is not None:
            if memory.read(base, 2) == b"MZ":
                return Kernel(memory, _whole(memory, base, found)), tables
        elif header is not None and header.debugger_data:
            block = debugger_block(memory.read(header.debugger_data, 0x1000))
            if block is not None or memory.u32(header.module_list or 0):
                return Kernel(memory, block), tables
    return None, None


def _candidates(
    core: Core, processors: Sequence[dict[str, int]], header: form.Header | None
) -> Iterator[Tables]:
    if header is not None and header.table:
        yield Tables(header.table, header.pae)
    for one in processors:
        yield Tables(one["cr3"], pae=True)
        yield Tables(one["cr3"], pae=False)
    yield from find_tables(core.view, core, core.numbers())


def _whole(memory: Virtual, base: int, found: tuple[int, Debugger] | None) -> Debugger | None:
    """The debugger block read through the page tables: in the file it may be cut at a page."""
    if found is None:
        return None
    at, block = found
    for address in range(base, min(base + _KERNEL_REACH, 1 << 32), form.PAGE):
        page = memory.locate(address)
        if page is not None and page <= at < page + form.PAGE:
            return debugger_block(memory.read(address + at - page, 0x1000)) or block
    return block


# -- Linux --------------------------------------------------------------------------------------


def _linux(core: Core) -> list[CrashFact]:
    """What the kernel log in a guest's memory tells."""
    log = find_log(core.view, core.start, core.end)
    if log is None:
        core.notes.append("neither a 32-bit Windows nor a kernel log was found in memory")
        return [CrashFact("unknown", notes=tuple(core.notes))]
    notes = (_where(log), *core.notes)
    facts = oops.parse(log.lines, core.file, READER)
    if facts:
        return [replace(one, notes=(*one.notes, *notes)) for one in facts]
    account = Account(READER, core.file)
    lines = [line.text for line in log.lines if line.text.strip()]
    last = tuple(LogLine(None, None, text) for text in lines[-oops.LAST_LINES :])
    account.put("log", last, f"offset 0x{log.at:x}")
    account.note("no crash in the kernel log: the guest ran or hung", *notes)
    return [account.fact()]


def _where(log: Log) -> str:
    if log.whole:
        return f"lines are those of the kernel log in memory, from offset 0x{log.at:x}"
    return (
        f"lines are text in memory around offset 0x{log.at:x}; "
        "older ones may stand behind newer ones"
    )
