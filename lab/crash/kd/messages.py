"""What the data of kernel debugger packets says.

Layouts: ReactOS, sdk/include/reactos/windbgkd.h (DBGKD_DEBUG_IO, DBGKD_ANY_WAIT_STATE_CHANGE,
DBGKD_MANIPULATE_STATE64, DBGKD_FILE_IO) with the padding of a 64-bit structure, checked
against the packed ones of Xen, tools/debugger/kdd/kdd.h. All fields are little-endian. The
64-bit forms are what NT 5.1 and later send, 32-bit ones among them, whose addresses are
sign-extended.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

PRINT_STRING = 0x3230
GET_STRING = 0x3231
EXCEPTION = 0x3030
LOAD_SYMBOLS = 0x3031
READ_VIRTUAL_MEMORY = 0x3130
GET_CONTEXT = 0x3132
SET_CONTEXT = 0x3133
CONTINUE2 = 0x313C
GET_VERSION = 0x3146

STATUS_BREAKPOINT = 0x80000003
STATUS_SINGLE_STEP = 0x80000004
STATUS_UNSUCCESSFUL = 0xC0000001
DBG_CONTINUE = 0x00010002
DBG_EXCEPTION_NOT_HANDLED = 0x80010001
"""NTSTATUS values. Source: MS-ERREF, 2.3.1."""

MACHINE_I386 = 0x014C
MACHINE_AMD64 = 0x8664
"""Source: Microsoft PE/COFF specification, "Machine Types"."""

INT3 = 0xCC
"""The one-byte breakpoint instruction. Source: Intel SDM volume 2, INT3."""

MAX_READ = 1024
"""Bytes asked for at once: far below ``packets.MAX_DATA``, and less to repeat when one is lost."""

_MANIPULATE_SIZE = 56
_FILE_IO_SIZE = 64
_ALL_MODULES = (0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF)


class BadMessage(ValueError):
    """The data is too short or says something impossible."""


@dataclass(frozen=True, slots=True)
class DebugIo:
    """Text that the guest prints, or a question that waits for an answer.

    Attributes:
        text: as printed, with its line ends; bytes that are not ASCII are kept as Latin-1.
        processor: number of the processor that printed.
        wanted: most characters that the answer may have; None when nothing was asked.
    """

    text: str
    processor: int
    wanted: int | None = None


@dataclass(frozen=True, slots=True)
class ExceptionChange:
    """The guest stopped at an exception and waits to be continued.

    Attributes:
        code: NTSTATUS of the exception.
        flags: 1 when it cannot be continued.
        address: where it happened.
        parameters: of the exception, up to 15.
        first_chance: whether the guest's own handlers were not asked yet.
        pc: program counter.
        thread: address of the kernel's thread object.
        processor: which one stopped.
        processors: how many there are.
        dr7: debug control register.
        instructions: bytes at the program counter, up to 16.
    """

    code: int
    flags: int
    address: int
    parameters: tuple[int, ...]
    first_chance: bool
    pc: int
    thread: int
    processor: int
    processors: int
    dr7: int
    instructions: bytes

    @property
    def wide(self) -> bool:
        """Whether the guest is a 64-bit one, judged by its kernel addresses."""
        return is_wide(self.thread or self.pc)


@dataclass(frozen=True, slots=True)
class SymbolsChange:
    """A module was loaded or unloaded; the guest waits to be continued.

    Attributes:
        path: as the guest names it; empty when it did not.
        base: address.
        size: bytes.
        checksum: of the image's header.
        process: number of the process; -1 for the kernel.
        unload: whether it goes away.
        pc: program counter.
        thread: address of the kernel's thread object.
    """

    path: str
    base: int
    size: int
    checksum: int
    process: int
    unload: bool
    pc: int
    thread: int

    @property
    def everything(self) -> bool:
        """Whether the guest says that it is going down: all modules are void."""
        return self.unload and self.base in _ALL_MODULES

    @property
    def wide(self) -> bool:
        """Whether the guest is a 64-bit one, judged by its kernel addresses."""
        return is_wide(self.thread or self.base)


StateChange = ExceptionChange | SymbolsChange


@dataclass(frozen=True, slots=True)
class Reply:
    """A guest's answer to a request.

    Attributes:
        api: what was asked.
        status: NTSTATUS; negative as a signed number means failure.
        fields: the 40 bytes of the request's own structure.
        data: what follows: memory, a context.
    """

    api: int
    status: int
    fields: bytes
    data: bytes

    @property
    def good(self) -> bool:
        """NT_SUCCESS of the status."""
        return self.status < 0x80000000


@dataclass(frozen=True, slots=True)
class Version:
    """Who the guest is (DBGKD_GET_VERSION64).

    Attributes:
        build: 3790 for Server 2003.
        machine: PE machine type.
        kernel: base address of the kernel.
        modules: address of PsLoadedModuleList.
        debugger_data: address of the list that holds the debugger data block.
    """

    build: int
    machine: int
    kernel: int
    modules: int
    debugger_data: int


def is_wide(address: int) -> bool:
    """Whether a kernel address is a 64-bit one and not a sign-extended 32-bit one."""
    return address >> 32 not in (0, 0xFFFFFFFF)


def debug_io(data: bytes) -> DebugIo:
    """Decode a DEBUG_IO packet.

    Raises:
        BadMessage: too short or of an unknown kind.
    """
    api, processor, length, wanted = _unpack("<I2xHII", data, 0)
    text = data[16 : 16 + length].decode("latin-1")
    if api == PRINT_STRING:
        return DebugIo(text, processor)
    if api == GET_STRING:
        return DebugIo(text.rstrip("\0"), processor, wanted)
    raise BadMessage(f"debug I/O of kind 0x{api:x}")


def answer_string(question: bytes, answer: str) -> bytes:
    """The DEBUG_IO data that answers a question.

    Args:
        question: the data of the packet that asked.
        answer: cut to what the guest has room for.
    """
    *head, prompt, wanted = struct.unpack_from("<IHHII", question)
    text = answer.encode("latin-1", "replace")[:wanted]
    return struct.pack("<IHHII", *head, prompt, len(text)) + text


def file_io_refused(request: bytes) -> bytes:
    """The FILE_IO data that says no to a guest which asks for a driver's replacement.

    Server 2003 asks at every driver load whether the debugger has a newer file, and waits for
    the answer.

    Raises:
        BadMessage: too short.
    """
    (api,) = _unpack("<I", request, 0)
    body = request[8:_FILE_IO_SIZE].ljust(_FILE_IO_SIZE - 8, b"\0")
    return struct.pack("<II", api, STATUS_UNSUCCESSFUL) + body


def state_change(data: bytes) -> StateChange:
    """Decode a STATE_CHANGE64 packet.

    Raises:
        BadMessage: too short or of an unknown kind.
    """
    kind, processor, processors, thread, pc = _unpack("<I2xHI4xQQ", data, 0)
    if kind == EXCEPTION:
        code, flags, address, count = _unpack("<II8xQI4x", data, 32)
        parameters = _unpack("<15Q", data, 64)[: min(count, 15)]
        (first,) = _unpack("<I", data, 184)
        # The control report follows; it differs between the two widths.
        wide = is_wide(thread or pc)
        report = struct.Struct("<8xQ4xH2x16s" if wide else "<4xIH2x16s")
        dr7, stream_length, stream = (
            report.unpack_from(data, 192) if len(data) >= 192 + report.size else (0, 0, b"")
        )
        return ExceptionChange(
            code, flags, address, parameters, first != 0, pc, thread, processor, processors,
            dr7, stream[:stream_length],
        )  # fmt: skip
    if kind == LOAD_SYMBOLS:
        length, base, process, summed, size, unload = _unpack("<I4xQqIIB", data, 32)
        # The path is the last thing in the packet: the structure's size before it has
        # changed between versions of Windows.
        path = data[-length:] if 0 < length <= len(data) - 65 else b""
        name = path.split(b"\0", 1)[0].decode("latin-1")
        return SymbolsChange(name, base, size, summed, process, unload != 0, pc, thread)
    raise BadMessage(f"state change of kind 0x{kind:x}")


def reply(data: bytes) -> Reply:
    """Decode a STATE_MANIPULATE packet from the guest.

    Raises:
        BadMessage: too short.
    """
    api, status = _unpack("<I4xI", data, 0)
    if len(data) < _MANIPULATE_SIZE:
        raise BadMessage(f"an answer of {len(data)} bytes")
    return Reply(api, status, data[16:_MANIPULATE_SIZE], data[_MANIPULATE_SIZE:])


def request(api: int, processor: int, fields: bytes = b"", data: bytes = b"") -> bytes:
    """The STATE_MANIPULATE data that asks for something."""
    head = struct.pack("<IHHI4x", api, 0, processor, 0)
    return (head + fields).ljust(_MANIPULATE_SIZE, b"\0") + data


def read_memory(processor: int, address: int, count: int) -> bytes:
    """Ask for up to ``MAX_READ`` bytes of virtual memory."""
    return request(READ_VIRTUAL_MEMORY, processor, struct.pack("<QII", address, count, 0))


def memory_read(answer: Reply) -> tuple[int, bytes]:
    """The address and the bytes that an answer to ``read_memory`` holds."""
    address, _, actual = struct.unpack_from("<QII", answer.fields)
    return address, answer.data[:actual] if answer.good else b""


def continue2(processor: int, status: int, change: StateChange) -> bytes:
    """Let the guest run on from a state change (DbgKdContinueApi2).

    The debug control register is given back as it was and the guest's symbol window is left
    alone (1 means: no change. ReactOS, ntoskrnl/kd64/i386/kdx86.c, KdpGetStateChange).
    """
    dr7 = change.dr7 if isinstance(change, ExceptionChange) else 0
    control = struct.pack("<IQQQ" if change.wide else "<IIII", 0, dr7, 1, 1)
    return request(CONTINUE2, processor, struct.pack("<I", status) + control)


def set_context(processor: int, context: bytes, wide: bool) -> bytes:
    """Replace the stopped processor's context."""
    flags = _FLAGS64 if wide else _FLAGS32
    return request(SET_CONTEXT, processor, context[flags : flags + 4], context)


def version(answer: Reply) -> Version:
    """Decode the answer to GET_VERSION."""
    build, machine, kernel, modules, data = struct.unpack_from("<2xH4xH6xQQQ", answer.fields)
    return Version(build, machine, kernel, modules, data)


_FLAGS32 = 0x00
_FLAGS64 = 0x30
"""Offset of ContextFlags in the two kinds of CONTEXT. Source: winnt.h."""

_REGISTERS32 = {
    "edi": 0x9C, "esi": 0xA0, "ebx": 0xA4, "edx": 0xA8, "ecx": 0xAC, "eax": 0xB0, "ebp": 0xB4,
    "eip": 0xB8, "cs": 0xBC, "eflags": 0xC0, "esp": 0xC4, "ss": 0xC8,
}  # fmt: skip
"""Offsets in the 32-bit CONTEXT. Source: winnt.h as in Xen, kdd.h, kdd_regs_x86_32."""

_REGISTERS64 = {
    "rax": 0x78, "rcx": 0x80, "rdx": 0x88, "rbx": 0x90, "rsp": 0x98, "rbp": 0xA0, "rsi": 0xA8,
    "rdi": 0xB0, "r8": 0xB8, "r9": 0xC0, "r10": 0xC8, "r11": 0xD0, "r12": 0xD8, "r13": 0xE0,
    "r14": 0xE8, "r15": 0xF0, "rip": 0xF8,
}  # fmt: skip
"""Offsets in the 64-bit CONTEXT. Source: winnt.h as in Xen, kdd.h, kdd_regs_x86_64."""


def registers(context: bytes, wide: bool) -> dict[str, int]:
    """The general registers out of a CONTEXT; empty when it is too short."""
    table, form, width = (_REGISTERS64, "<Q", 8) if wide else (_REGISTERS32, "<I", 4)
    if len(context) < max(table.values()) + width:
        return {}
    return {name: struct.unpack_from(form, context, at)[0] for name, at in table.items()}


def behind_breakpoint(context: bytes, wide: bool) -> bytes:
    """The context with its program counter one byte further: behind an INT3."""
    at, form = (_REGISTERS64["rip"], "<Q") if wide else (_REGISTERS32["eip"], "<I")
    changed = bytearray(context)
    (pc,) = struct.unpack_from(form, context, at)
    struct.pack_into(form, changed, at, pc + 1 & (0xFFFFFFFFFFFFFFFF if wide else 0xFFFFFFFF))
    return bytes(changed)


def _unpack(form: str, data: bytes, at: int) -> tuple[int, ...]:
    try:
        return struct.unpack_from(form, data, at)
    except struct.error:
        raise BadMessage(f"a message of only {len(data)} bytes") from None
