"""Small dumps ("minidumps"): what the block behind the header says.

Offsets and their sources are in ``lab.crash.dumpformat``. No real small dump was at hand when
this was written: the layout is that of the published structures, and the length of a driver's
entry is found by trying those that are known.
"""

from __future__ import annotations

from dataclasses import dataclass

from lab.crash import dumpformat as form
from lab.crash.facts import Module
from lab.crash.mapped import View
from lab.crash.winmem import IMAGE_NAME, IMAGE_NAME_SIZE, clean, plausible, process_name

MAX_DRIVERS = 1000
_MAX_NAME = 260  # UTF-16 characters: MAX_PATH
_MAX_STACK = 64 << 10


@dataclass(frozen=True, slots=True)
class Found:
    """A value and where it was read.

    Attributes:
        modules: loaded and unloaded drivers.
        modules_at: offset of the list.
        stack: contents of the stack block.
        stack_base: address of its first byte.
        stack_at: offset of the block.
        service_pack: 0x200 for Service Pack 2.
        context: bytes of the CONTEXT record.
        context_at: its offset.
        process: name of the process.
        process_at: offset of its block.
        broken: the driver that Windows itself blamed.
        notes: what was not in order.
    """

    modules: tuple[Module, ...]
    modules_at: int
    stack: bytes
    stack_base: int
    stack_at: int
    service_pack: int | None
    context: bytes
    context_at: int
    process: str | None
    process_at: int
    broken: str | None
    notes: tuple[str, ...]


def read_block(view: View, build: int | None) -> Found:
    """The triage block of a small dump.

    Args:
        view: the file.
        build: of Windows, for the places that differ by version.
    """

    def word(offset: int) -> int:
        return view.u32(form.TRIAGE_AT + offset) or 0

    notes: list[str] = []
    drivers, lost = _drivers(view, word(form.TRIAGE_DRIVERS), word(form.TRIAGE_DRIVER_COUNT))
    if lost:
        notes.append(f"truncated: {lost} entries of the driver list are missing or damaged")
    stack_at, stack_size = word(form.TRIAGE_STACK), word(form.TRIAGE_STACK_SIZE)
    stack = view.take(stack_at, min(stack_size, _MAX_STACK)) if stack_at else b""
    if len(stack) < min(stack_size, _MAX_STACK):
        notes.append(f"truncated: {len(stack)} of {stack_size} bytes of the stack are there")
    mark_at = word(form.TRIAGE_VALID)
    if view.take(mark_at, 4) != form.TRIAGE_MARK:
        notes.append("the mark at the end of the dump is missing: it may be incomplete")
    context_at = word(form.TRIAGE_CONTEXT) or form.CONTEXT
    process_at = word(form.TRIAGE_PROCESS)
    name_at = IMAGE_NAME.get(build or 0)
    broken_at = word(form.TRIAGE_BROKEN)
    return Found(
        modules=(*drivers, *_unloaded(view, word(form.TRIAGE_UNLOADED))),
        modules_at=word(form.TRIAGE_DRIVERS),
        stack=stack,
        stack_base=word(form.TRIAGE_TOP_OF_STACK),
        stack_at=stack_at,
        service_pack=word(form.TRIAGE_SERVICE_PACK) or None,
        context=view.take(context_at, form.CONTEXT_SIZE),
        context_at=context_at,
        process=process_name(view.take(process_at + name_at, IMAGE_NAME_SIZE))
        if process_at and name_at
        else None,
        process_at=process_at,
        broken=_string(view, broken_at) if broken_at else None,
        notes=tuple(notes),
    )


def _drivers(view: View, at: int, count: int) -> tuple[list[Module], int]:
    """Loaded drivers, and how many of those announced could not be read."""
    best: list[Module] = []
    wanted = min(count, MAX_DRIVERS)
    for stride in form.DRIVER_STRIDES if at else ():
        found = []
        for number in range(wanted):
            driver = _driver(view, at + number * stride)
            if driver is not None:
                found.append(driver)
        if len(found) > len(best):
            best = found
        if len(best) == wanted:
            break
    return best, (wanted - len(best)) if at else 0


def _driver(view: View, at: int) -> Module | None:
    name_at = view.u32(at)
    entry = at + form.DRIVER_ENTRY
    base, size = view.u32(entry + form.LDR_BASE), view.u32(entry + form.LDR_IMAGE_SIZE)
    if not name_at or base is None or size is None or not plausible(base, size):
        return None
    name = _string(view, name_at)
    if name is None:
        return None
    return Module(name, base, base + size, view.u32(entry + form.LDR_TIMESTAMP) or None)


def _unloaded(view: View, at: int) -> list[Module]:
    found = []
    for number in range(min(view.u32(at) or 0, form.MAX_UNLOADED)) if at else ():
        entry = at + 4 + number * form.UNLOADED_STRIDE
        length = min(view.u16(entry + form.UNLOADED_LENGTH) or 0, form.UNLOADED_NAME_SIZE)
        raw = view.take(entry + form.UNLOADED_NAME, length & ~1)
        start, end = view.u32(entry + form.UNLOADED_START), view.u32(entry + form.UNLOADED_END)
        name = clean(raw.decode("utf-16-le", "replace").partition("\0")[0])
        if name and start and end and plausible(start, end - start):
            found.append(Module(name, start, end, unloaded=True))
    return found


def _string(view: View, at: int) -> str | None:
    """A DUMP_STRING: a count of UTF-16 characters, then those."""
    length = view.u32(at)
    if length is None or not 0 < length <= _MAX_NAME:
        return None
    raw = view.take(at + 4, length * 2)
    name = clean(raw.decode("utf-16-le", "replace").partition("\0")[0])
    return name if len(raw) == length * 2 and name else None
