"""Crash dumps of 32-bit Windows: full, kernel and small ones.

Offsets and their sources are in ``lab.crash.dumpformat``. 64-bit dumps are recognised and
refused in one line.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.core.errors import UsageError
from lab.crash import bugchecks, triage
from lab.crash import dumpformat as form
from lab.crash.facts import CrashFact, Source, plain_code
from lab.crash.mapped import View, opened
from lab.crash.stack import MAX_STACK, ModuleMap, blame, walk
from lab.crash.winmem import Kernel, Physical, Tables, Virtual, debugger_block

_HEAD = form.SIGNATURE + form.VALID_32
_HEAD_64 = form.SIGNATURE + form.VALID_64

# A PAE system has at most 64 GiB: 16 Mi pages.
_MAX_PAGES = 1 << 24
_BREAKPOINT = 0x80000003

#: Bugchecks whose parameter holds the address of a record of the processor's state: number of
#: the parameter, and whether the record is a CONTEXT or a KTRAP_FRAME.
_STATE_AT = {0x7E: (4, "context"), 0x24: (3, "context"), 0x23: (3, "context"), 0x8E: (3, "trap")}


def recognise(head: bytes, name: str) -> bool:
    """Whether a file begins like a kernel dump of Windows, of 32 or 64 bits."""
    return head.startswith((_HEAD, _HEAD_64))


def read(path: Path) -> list[CrashFact]:
    """Read a dump.

    Returns:
        One fact. A truncated dump gives what is there, with a note.

    Raises:
        UsageError: it is no dump, a 64-bit one, or cut off before the bugcheck.
    """
    with opened(path) as view:
        head = view.take(0, 8)
        if head == _HEAD_64:
            raise UsageError(
                f"{path.name} is a dump of a 64-bit Windows; only 32-bit dumps are read",
                hint="open it in WinDbg and give the text of !analyze -v",
            )
        if head != _HEAD:
            raise UsageError(f"{path.name} is no kernel dump of Windows")
        return [_Reading(view, path.name).fact()]


@dataclass
class Account:
    """A crash fact in the making, from a binary file: every field with its place.

    Attributes:
        reader: kind of file in words.
        file: its name.
        values: fields of the fact.
        sources: where each was read.
        notes: what a reader has to know.
    """

    reader: str
    file: str
    values: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, Source] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def put(self, name: str, value: Any, at: int | str) -> None:
        """Set a field unless there is nothing to set.

        Args:
            name: of a field of ``CrashFact``.
            value: for it.
            at: offset in the file, or a place in words.
        """
        if value is None or value in ("", (), {}):
            return
        self.values[name] = value
        place = f"offset 0x{at:x}" if isinstance(at, int) else at
        self.sources[name] = Source(self.reader, self.file, place)

    def note(self, *texts: str | None) -> None:
        """Add notes; None adds nothing."""
        self.notes += [one for one in texts if one]

    def bugcheck(self, code: int, parameters: tuple[int, ...], at: int) -> None:
        """Set code, name and parameters.

        Args:
            code: as written.
            parameters: four, or none if they are cut off.
            at: offset of the code; the parameters follow it.
        """
        self.put("code", code, at)
        self.put("name", bugchecks.name(code), at)
        self.put("parameters", parameters, at + 4)

    def stack(
        self,
        registers: Mapping[str, int],
        stack: bytes,
        base: int,
        at: int,
        memory: Virtual | None = None,
    ) -> None:
        """Set frames and the driver to look at; the modules and the bugcheck come before.

        Args:
            registers: at the crash.
            stack: contents.
            base: address of the first byte.
            at: offset of the stack in the file.
            memory: where code can be looked at.
        """
        modules = ModuleMap(self.values.get("modules", ()))
        found = walk(registers, stack, base, modules, memory.before if memory else None)
        if any(one.module for one in found.frames):
            self.put("frames", found.frames, at)
            self.note(found.note())
        frames = self.values.get("frames", ())
        code, parameters = self.values.get("code"), self.values.get("parameters", ())
        # Of a system that was not asked to stop, the stack is that of whatever ran.
        guess = blame(code, parameters, modules, frames) if code is not None else None
        if guess and "module" not in self.values:
            self.put("module", guess.module, guess.why)

    def fact(self) -> CrashFact:
        """What was collected."""
        kind = "bugcheck" if "code" in self.values else "unknown"
        return CrashFact(
            **({"kind": kind} | self.values), sources=self.sources, notes=tuple(self.notes)
        )


class _Reading:
    """One dump."""

    def __init__(self, view: View, file: str) -> None:
        self._view = view
        self._header = form.read_header(view)
        header = self._header
        if view.size < form.PARAMETERS:
            raise UsageError(f"{file} is cut off before the bugcheck code")
        # Older and half-written dumps have no type.
        kind = form.TYPES.get(header.dump_type or 0)
        self._account = Account(kind or "dump", file)
        if view.size < form.PAGE:
            self._account.note(f"truncated: only {view.size} bytes of the header are there")
        elif kind is None:
            self._account.note("the header has no valid dump type: read as a full dump")
        if header.machine != form.MACHINE_I386:
            shown = "none" if header.machine is None else f"0x{header.machine:x}"
            self._account.note(f"machine type is {shown}, not 0x14c (x86)")
        wanted = header.required_space
        if wanted and form.PAGE < wanted < 1 << 40 and view.size < wanted:
            self._account.note(f"truncated: {view.size} of {wanted} bytes are there")

    def fact(self) -> CrashFact:
        header, account = self._header, self._account
        if header.code is None:
            account.note("no bugcheck code: the dump was not written by a crash")
        else:
            account.bugcheck(header.code, header.parameters, form.CODE)
        account.put("when", header.when, form.SYSTEM_TIME)
        account.put("message", self._exception(), form.EXCEPTION)
        if header.processors and 1 < header.processors <= 64:
            account.note(f"{header.processors} processors")
        if header.dump_type == form.TRIAGE:
            self._triage()
        elif self._view.size > form.PAGE and header.dump_type != form.HEADER_ONLY:
            self._memory()
        else:
            self._system(None)
            self._registers(self._view.take(form.CONTEXT, form.CONTEXT_SIZE), form.CONTEXT)
        return account.fact()

    def _system(self, service_pack: int | None, build: int | None = None) -> None:
        header = self._header
        name = form.system_name(
            header.build or build,
            service_pack=service_pack,
            major=header.major,
            pae=header.pae,
        )
        self._account.put("system", name, form.MINOR_VERSION)

    def _exception(self) -> str | None:
        """The exception record in words; every other bugcheck leaves a breakpoint in it."""
        code, address = self._view.u32(form.EXCEPTION), self._view.u32(form.EXCEPTION + 0x0C)
        if not code or code in (form.UNSET, _BREAKPOINT) or address is None:
            return None
        return f"exception 0x{code:08x} at 0x{address:08x}"

    def _registers(self, record: bytes, at: int) -> dict[str, int]:
        found = form.context_registers(record)
        if not found:
            self._account.note("no valid context record")
        self._account.put("registers", found, at)
        return found

    # -- small dumps ----------------------------------------------------------------------

    def _triage(self) -> None:
        account = self._account
        block = triage.read_block(self._view, self._header.build)
        account.note(*block.notes)
        self._system(block.service_pack)
        account.put("modules", block.modules, block.modules_at)
        account.put("process", block.process, block.process_at)
        registers = self._registers(block.context, block.context_at)
        if block.broken:
            account.note(f"Windows itself blamed {block.broken}")

        def memory(address: int, count: int) -> bytes:
            at = address - block.stack_base
            return block.stack[at : at + count] if at >= 0 else b""

        registers = self._state(memory) or registers
        account.stack(registers, block.stack, block.stack_base, block.stack_at)

    def _state(self, memory: Callable[[int, int], bytes]) -> dict[str, int]:
        """Registers at an exception, out of the record that a parameter points to."""
        code = self._header.code
        number, kind = _STATE_AT.get(plain_code(code) if code is not None else 0, (0, ""))
        if not number or len(self._header.parameters) < number:
            return {}
        address = self._header.parameters[number - 1]
        if kind == "trap":
            found = form.trap_registers(memory(address, form.TRAP_SIZE), address)
        else:
            found = form.context_registers(memory(address, form.CONTEXT_SIZE))
        if not found.get("eip"):
            return {}
        self._account.put("registers", found, f"record at address 0x{address:08x}")
        return found

    # -- dumps with memory ----------------------------------------------------------------

    def _memory(self) -> None:
        header, account = self._header, self._account
        physical = self._pages()
        registers = self._registers(self._view.take(form.CONTEXT, form.CONTEXT_SIZE), form.CONTEXT)
        if physical is None or header.table is None:
            account.note("no page tables: modules and stack cannot be read")
            self._system(None)
            return
        memory = Virtual(self._view, physical, Tables(header.table, header.pae))
        debugger = None
        if header.debugger_data:
            debugger = debugger_block(memory.read(header.debugger_data, 0x1000))
        kernel = Kernel(memory, debugger)
        build = kernel.build()
        self._system(kernel.service_pack(), build[0] if build else None)
        add_kernel(account, kernel, header.module_list)
        if header.processors == 1:
            number = header.build or (build[0] if build else None)
            account.put("process", kernel.process(number), "memory of the current thread")
        registers = self._state(memory.read) or registers
        add_stack(account, memory, registers)

    def _pages(self) -> Physical | None:
        if self._header.dump_type == form.SUMMARY:
            return _summary(self._view, self._account)
        return _runs(self._view, self._account)


def add_kernel(account: Account, kernel: Kernel, module_list: int | None = None) -> None:
    """Add what the kernel's memory says: modules and what was printed last.

    Args:
        account: of the crash.
        kernel: whose memory it is.
        module_list: address of the list of modules, if something else than the debugger's data
            block says it.
    """
    loaded = kernel.modules(module_list)
    at = kernel.memory.locate(loaded[0].start) if loaded else None
    account.put(
        "modules", (*loaded, *kernel.unloaded()), at if at is not None else "PsLoadedModuleList"
    )
    if not loaded:
        account.note("the list of loaded modules is not in the file or damaged")
    account.put("log", tuple(kernel.printed()), "KdPrintCircularBuffer")


def add_stack(account: Account, memory: Virtual, registers: Mapping[str, int]) -> None:
    """Add the frames of the stack that a stack pointer points to.

    Args:
        account: of the crash.
        memory: as the kernel addressed it.
        registers: of the processor.
    """
    base = registers.get("esp", 0) & ~3
    # A kernel stack ends at a page that is not there.
    stack = memory.read(base, MAX_STACK) if base >= 0x80000000 else b""
    at = memory.locate(base) if stack else None
    account.stack(registers, stack, base, at or 0, memory)


class _Runs:
    """Pages of a full dump: runs of them, one behind the other."""

    def __init__(self, runs: list[tuple[int, int]]) -> None:
        self._runs: list[tuple[int, int, int]] = []
        at = form.PAGE
        for base, count in runs:
            self._runs.append((base, count, at))
            at += count * form.PAGE
        self.end = at
        self._runs.sort()
        self._starts = [one[0] for one in self._runs]

    def page(self, number: int) -> int | None:
        at = bisect_right(self._starts, number) - 1
        if at < 0:
            return None
        base, count, offset = self._runs[at]
        return offset + (number - base) * form.PAGE if number < base + count else None


def _runs(view: View, account: Account) -> _Runs | None:
    count = view.u32(form.RUNS)
    if count is None or not 0 < count <= form.MAX_RUNS:
        return None
    runs = []
    for number in range(count):
        base, pages = view.u32(form.RUNS + 8 + 8 * number), view.u32(form.RUNS + 12 + 8 * number)
        if base is None or pages is None or base + pages > _MAX_PAGES:
            break
        runs.append((base, pages))
    found = _Runs(runs)
    if view.size < found.end:
        account.note(f"truncated: {view.size} of {found.end} bytes of memory are there")
    return found


class _Bits:
    """Pages of a kernel dump: those whose bit is set, one behind the other."""

    _STEP = 512

    def __init__(self, bits: bytes, first: int) -> None:
        self._bits = bits
        self._first = first
        self._before = [0]
        for at in range(0, len(bits), self._STEP):
            piece = int.from_bytes(bits[at : at + self._STEP], "little")
            self._before.append(self._before[-1] + piece.bit_count())

    @property
    def end(self) -> int:
        return self._first + self._before[-1] * form.PAGE

    def page(self, number: int) -> int | None:
        byte, bit = divmod(number, 8)
        if not 0 <= byte < len(self._bits) or not self._bits[byte] >> bit & 1:
            return None
        step = byte // self._STEP
        piece = int.from_bytes(self._bits[step * self._STEP : byte], "little").bit_count()
        rest = (self._bits[byte] & (1 << bit) - 1).bit_count()
        return self._first + (self._before[step] + piece + rest) * form.PAGE


def _summary(view: View, account: Account) -> _Bits | None:
    start = form.PAGE
    if view.take(start, 8) != form.SUMMARY_SIGNATURE + form.SUMMARY_VALID:
        account.note("no mark of a kernel dump behind the header")
        return None
    first = view.u32(start + form.SUMMARY_HEADER_SIZE) or 0
    size = (
        view.u32(start + form.SUMMARY_RTL_SIZE) or view.u32(start + form.SUMMARY_BITMAP_SIZE) or 0
    )
    if not start + form.SUMMARY_BITS < first <= start + form.SUMMARY_BITS + _MAX_PAGES // 8 + 8192:
        account.note("the header of the kernel dump is damaged")
        return None
    length = min(size // 8 + 1, first - start - form.SUMMARY_BITS, _MAX_PAGES // 8)
    found = _Bits(view.take(start + form.SUMMARY_BITS, length), first)
    if view.size < found.end:
        account.note(f"truncated: {view.size} of {found.end} bytes of memory are there")
    return found
