"""What a listener on the kernel debugger's line saw, each with the host's time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from lab.core.errors import UsageError


@dataclass(frozen=True, slots=True)
class DebugPrint:
    """Text that the guest printed (DbgPrint).

    Attributes:
        at: seconds since 1970, of this host's clock, when the packet was complete.
        text: as printed, with its line ends.
        processor: number of the printing processor.
    """

    at: float
    text: str
    processor: int


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question the guest asked and waited at (DbgPrompt), such as after a failed assertion.

    Attributes:
        at: seconds since 1970.
        text: the question.
        answer: what it was told.
    """

    at: float
    text: str
    answer: str


@dataclass(frozen=True, slots=True)
class ModuleLoad:
    """A module that came or went.

    Attributes:
        at: seconds since 1970.
        path: as the guest names it.
        base: address.
        size: bytes.
        checksum: of the image's header.
        unloaded: whether it went.
    """

    at: float
    path: str
    base: int
    size: int
    checksum: int
    unloaded: bool

    @property
    def name(self) -> str:
        """The path's last part."""
        return self.path.replace("/", "\\").rpartition("\\")[2]


@dataclass(frozen=True, slots=True)
class Stop:
    """The guest stopped at an exception and waits.

    Attributes:
        at: seconds since 1970.
        code: NTSTATUS of the exception; 0x80000003 for a breakpoint.
        address: where it happened.
        parameters: of the exception.
        first_chance: whether the guest's own handlers were not asked yet.
        pc: program counter.
        processor: which one.
        wide: whether the guest is a 64-bit one.
        registers: general registers, where the guest told them.
    """

    at: float
    code: int
    address: int
    parameters: tuple[int, ...]
    first_chance: bool
    pc: int
    processor: int
    wide: bool
    registers: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Bugcheck:
    """The guest crashed: it printed its stop code, or holds it in memory.

    Attributes:
        at: seconds since 1970.
        code: of the bugcheck.
        parameters: four, or none when only the code was seen.
        heard: ``print`` or ``memory``: how it was known.
    """

    at: float
    code: int
    parameters: tuple[int, ...]
    heard: str


@dataclass(frozen=True, slots=True)
class Resumed:
    """The guest was told to run on.

    Attributes:
        at: seconds since 1970.
        handled: whether it was told that the exception is dealt with.
    """

    at: float
    handled: bool


@dataclass(frozen=True, slots=True)
class Left:
    """The guest waits and is not told to run on.

    Attributes:
        at: seconds since 1970.
        reason: in words.
    """

    at: float
    reason: str


@dataclass(frozen=True, slots=True)
class GoingDown:
    """The guest is about to reboot or to power off: it said that all its modules are void.

    Attributes:
        at: seconds since 1970.
    """

    at: float


@dataclass(frozen=True, slots=True)
class System:
    """Who the guest is.

    Attributes:
        at: seconds since 1970.
        build: 3790 for Server 2003.
        wide: whether it is a 64-bit one.
    """

    at: float
    build: int
    wide: bool


@dataclass(frozen=True, slots=True)
class Stack:
    """The stack of a guest that stopped at its bugcheck, from the stack pointer upwards.

    Attributes:
        at: seconds since 1970.
        base: address of the first byte.
        data: in hexadecimal.
    """

    at: float
    base: int
    data: str


@dataclass(frozen=True, slots=True)
class Stray:
    """Bytes outside of packets, such as a boot loader's messages on the same port.

    Attributes:
        at: seconds since 1970.
        text: what of them can be read.
        size: how many bytes there were.
    """

    at: float
    text: str
    size: int


@dataclass(frozen=True, slots=True)
class Lost:
    """Something on the line went wrong; what was lost may have been sent again.

    Attributes:
        at: seconds since 1970.
        reason: in words.
    """

    at: float
    reason: str


@dataclass(frozen=True, slots=True)
class Closed:
    """The line's other end is gone.

    Attributes:
        at: seconds since 1970.
    """

    at: float


Event = (
    DebugPrint | Prompt | ModuleLoad | Stop | Bugcheck | Resumed | Left | GoingDown | System
    | Stack | Stray | Lost | Closed
)  # fmt: skip

_KINDS: dict[str, type[Any]] = {
    "print": DebugPrint,
    "prompt": Prompt,
    "module": ModuleLoad,
    "stop": Stop,
    "bugcheck": Bugcheck,
    "resumed": Resumed,
    "left": Left,
    "going down": GoingDown,
    "system": System,
    "stack": Stack,
    "stray": Stray,
    "lost": Lost,
    "closed": Closed,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}


def to_json(event: Event) -> dict[str, Any]:
    """An event as plain values, with its kind under ``event``."""
    return {"event": _NAMES[type(event)], **asdict(event)}


def from_json(data: Mapping[str, Any]) -> Event:
    """The event that ``to_json`` wrote.

    Raises:
        UsageError: it is not what ``to_json`` writes.
    """
    try:
        values = dict(data)
        kind = _KINDS[values.pop("event")]
        for name, wanted in kind.__annotations__.items():
            values[name] = _checked(values[name], wanted)
        event: Event = kind(**values)
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"not an event of a kernel debugger's line: {error}") from None
    return event


def _checked(value: object, wanted: str) -> object:
    """A value out of JSON as a field of that annotation.

    Raises:
        TypeError: it is something else.
    """
    if wanted == "tuple[int, ...]" and isinstance(value, list):
        return tuple(_checked(one, "int") for one in value)
    if wanted == "Mapping[str, int]" and isinstance(value, dict):
        return {name: _checked(one, "int") for name, one in value.items()}
    if wanted == "float" and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if type(value).__name__ != wanted:
        raise TypeError(f"{value!r} is no {wanted}")
    return value


def stamp(at: float) -> str:
    """A time as ``2007-11-20T12:00:00.123456Z``.

    Raises:
        UsageError: no calendar has it.
    """
    try:
        moment = datetime.fromtimestamp(at, UTC)
    except (OverflowError, ValueError, OSError):
        raise UsageError(f"not a time: {at}") from None
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def describe(event: Event) -> str:
    """An event in one line, without its time; empty lines are dropped from what is printed."""
    match event:
        case DebugPrint():
            return _quoted(event.text)
        case Prompt():
            return f"asked: {_quoted(event.text)} -- answered: {event.answer}"
        case ModuleLoad():
            verb = "unloaded" if event.unloaded else "loaded"
            end = event.base + event.size
            return f"{verb} {event.path or '?'} at 0x{event.base:x} to 0x{end:x}"
        case Stop():
            chance = "first" if event.first_chance else "second"
            return f"stopped: exception 0x{event.code:08x} at 0x{event.address:x}, {chance} chance"
        case Bugcheck():
            values = ", ".join(f"0x{one:08x}" for one in event.parameters)
            return f"BUGCHECK 0x{event.code:08x} ({values}), from its {event.heard}"
        case Resumed():
            return "resumed" if event.handled else "resumed, exception not handled"
        case Left():
            return f"left halted: {event.reason}"
        case GoingDown():
            return "the guest goes down: its modules are void"
        case System():
            return f"Windows build {event.build}, {'64' if event.wide else '32'}-bit"
        case Stack():
            return f"stack: {len(event.data) // 2} bytes from 0x{event.base:x}"
        case Stray():
            return f"{event.size} bytes outside of packets: {_quoted(event.text)}"
        case Lost():
            return f"lost: {event.reason}"
        case Closed():
            return "the line was closed"


def _quoted(text: str) -> str:
    """Text in one line: inner line ends as ``\\n``, others that do not print as ``\\x``."""
    shown = text.rstrip("\r\n\0").replace("\r\n", "\n")
    return "".join(
        char if char.isprintable() or char == "\t" else ascii(char)[1:-1] for char in shown
    )
