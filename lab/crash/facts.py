"""What is known of a crash: the vocabulary that every reader of reports speaks.

A ``CrashFact`` is one account of one crash, out of one file. Every field may be unknown, and
every field that is known has a ``Source``: the reader, the file and the place in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Literal, get_args

from lab.core.errors import UsageError

Kind = Literal["bugcheck", "oops", "panic", "xen", "hang", "assert", "unknown"]
"""What kind of end it was: a Windows bugcheck, a Linux oops or panic, a domain or hypervisor
that Xen stopped, a hang, an assertion that a driver printed."""

KINDS: tuple[Kind, ...] = get_args(Kind)

MINIDUMP_FLAG = 0x10000000
"""Set in the codes that minidumps and the event log carry: 0x1000000A is 0xA.

Source: the codes of published Windows XP minidumps, as WinDbg, BlueScreenView and the event
log show them.
"""


def plain_code(code: int) -> int:
    """A bugcheck code without the flag that minidumps add.

    Args:
        code: as shown, 32 bits.
    """
    return code & ~MINIDUMP_FLAG & 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Source:
    """Where something was read.

    Attributes:
        reader: the kind of file in words: ``triage dump``, ``DbgView log``.
        file: its name, and for a member of an archive both names: ``mail.zip: a/mini.dmp``.
        at: the place in it: ``line 12``, ``offset 0x80``.
    """

    reader: str
    file: str
    at: str

    def text(self) -> str:
        """In words, for people."""
        return f"{self.reader} {self.file}" + (f", {self.at}" if self.at else "")


@dataclass(frozen=True, slots=True)
class Frame:
    """One place in code.

    Attributes:
        module: lower-case, without ``.sys``; None when the address is in no known module.
        symbol: the function, when names were known.
        offset: bytes from the symbol, or from the module's start without a symbol.
        address: where it was in memory.
    """

    module: str | None = None
    symbol: str | None = None
    offset: int | None = None
    address: int | None = None

    def text(self) -> str:
        """As debuggers write it: ``xenvbd!Put+0x12``, ``xenvbd+0x1a2b`` or ``0x80515669``."""
        if self.module is None and self.symbol is None:
            return "?" if self.address is None else f"0x{self.address:08x}"
        name = "!".join(part for part in (self.module, self.symbol) if part is not None)
        return f"{name}+0x{self.offset:x}" if self.offset is not None else name


@dataclass(frozen=True, slots=True)
class Module:
    """A loaded (or just unloaded) driver or program.

    Attributes:
        name: file name as found, ``xenvbd.sys``.
        start: first address.
        end: first address behind it; equal to ``start`` when the size is unknown.
        timestamp: of its link, in seconds since 1970 (PE header, TimeDateStamp).
        unloaded: whether it was gone at the time of the crash.
        version: as found, ``5.1.2600.6419``.
    """

    name: str
    start: int
    end: int
    timestamp: int | None = None
    unloaded: bool = False
    version: str | None = None

    def holds(self, address: int) -> bool:
        """Whether an address lies in it."""
        return self.start <= address < self.end


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line that was printed before the crash.

    Attributes:
        seq: running number of the log, if it has one.
        time: the time column as written.
        text: what was printed.
        driver: the driver it names at its beginning, lower-case: ``xenvbd``.
    """

    seq: int | None
    time: str | None
    text: str
    driver: str | None = None


def _nothing() -> Mapping[str, Any]:
    return MappingProxyType({})


@dataclass(frozen=True)
class CrashFact:
    """One account of one crash, out of one file.

    Attributes:
        kind: what kind of end it was.
        code: bugcheck code as shown (0x100000D1 keeps its flag; see ``plain_code``).
        name: of the code, ``DRIVER_IRQL_NOT_LESS_OR_EQUAL``.
        parameters: of the bugcheck, up to 4.
        module: the driver the account blames, lower-case, without ``.sys``.
        message: panic text, first line of an oops, a failed assertion.
        stuck: of a hang, what never came to an end and where it stands, in words that are the
            same each time: ``detach: backend Closing, frontend Connected``.
        frames: innermost first.
        modules: loaded and unloaded ones.
        registers: by lower-case name; read-only.
        log: the last lines before the crash, oldest first.
        process: in whose context it happened.
        system: in words, ``Windows Server 2003 3790, 32-bit PAE``.
        when: time of the crash as written in the account.
        sources: where each known field was read, by field name; read-only.
        notes: what a reader has to know: ``truncated: ...``, ``2 gaps in the log``.
    """

    kind: Kind
    code: int | None = None
    name: str | None = None
    parameters: tuple[int, ...] = ()
    module: str | None = None
    message: str | None = None
    stuck: str | None = None
    frames: tuple[Frame, ...] = ()
    modules: tuple[Module, ...] = ()
    registers: Mapping[str, int] = field(default_factory=_nothing)
    log: tuple[LogLine, ...] = ()
    process: str | None = None
    system: str | None = None
    when: str | None = None
    sources: Mapping[str, Source] = field(default_factory=_nothing)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "registers", MappingProxyType(dict(self.registers)))
        object.__setattr__(self, "sources", MappingProxyType(dict(self.sources)))

    def __hash__(self) -> int:
        return hash((self.kind, self.code, self.parameters, self.module, self.message))

    def __reduce__(self) -> tuple[Any, ...]:
        # A read-only mapping cannot be pickled, and the readers' tests use other processes.
        return from_json, (to_json(self),)

    @property
    def plain(self) -> int | None:
        """The code without the flag of minidumps."""
        return None if self.code is None else plain_code(self.code)

    @property
    def moment(self) -> datetime | None:
        """Time of the crash, UTC; None when the account tells none, or one without its zone.

        Runs of the lab tell it as ISO 8601, dumps with ``UTC`` behind it.
        """
        try:
            moment = datetime.fromisoformat((self.when or "").replace(" UTC", "+00:00"))
            return moment.astimezone(UTC) if moment.tzinfo else None
        except (ValueError, OverflowError):
            return None


#: Fields that say what is known; the others say how.
KNOWLEDGE = tuple(
    one.name for one in fields(CrashFact) if one.name not in ("kind", "sources", "notes")
)


def known(fact: CrashFact) -> tuple[str, ...]:
    """The names of the fields that a fact knows, in their order."""
    return tuple(
        name
        for name in KNOWLEDGE
        if getattr(fact, name) not in (None, ()) and (name != "registers" or fact.registers)
    )


def to_json(fact: CrashFact) -> dict[str, Any]:
    """A fact as plain values for JSON, always with the same keys in the same order.

    Numbers stay numbers: addresses are integers.
    """
    return {
        "kind": fact.kind,
        "code": fact.code,
        "name": fact.name,
        "parameters": list(fact.parameters),
        "module": fact.module,
        "message": fact.message,
        "stuck": fact.stuck,
        "frames": [_plain(one) for one in fact.frames],
        "modules": [_plain(one) for one in fact.modules],
        "registers": dict(sorted(fact.registers.items())),
        "log": [_plain(one) for one in fact.log],
        "process": fact.process,
        "system": fact.system,
        "when": fact.when,
        "sources": {name: _plain(fact.sources[name]) for name in KNOWLEDGE if name in fact.sources},
        "notes": list(fact.notes),
    }


def from_json(data: Mapping[str, Any]) -> CrashFact:
    """The fact that ``to_json`` wrote.

    Raises:
        UsageError: it is not what ``to_json`` writes.
    """
    try:
        return _from_json(data)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UsageError(f"not a crash fact: {type(error).__name__}: {error}") from None


def _from_json(data: Mapping[str, Any]) -> CrashFact:
    kind = data["kind"]
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r}")
    return CrashFact(
        kind=kind,
        code=_integer(data["code"]),
        name=_string(data["name"]),
        parameters=tuple(_whole(one) for one in data["parameters"]),
        module=_string(data["module"]),
        message=_string(data["message"]),
        # What was kept before hangs were told apart has none.
        stuck=_string(data.get("stuck")),
        frames=tuple(
            Frame(
                _string(one["module"]),
                _string(one["symbol"]),
                _integer(one["offset"]),
                _integer(one["address"]),
            )
            for one in data["frames"]
        ),
        modules=tuple(
            Module(
                _text(one["name"]),
                _whole(one["start"]),
                _whole(one["end"]),
                _integer(one["timestamp"]),
                bool(one["unloaded"]),
                _string(one["version"]),
            )
            for one in data["modules"]
        ),
        registers={_text(name): _whole(value) for name, value in data["registers"].items()},
        log=tuple(
            LogLine(
                _integer(one["seq"]),
                _string(one["time"]),
                _text(one["text"]),
                _string(one["driver"]),
            )
            for one in data["log"]
        ),
        process=_string(data["process"]),
        system=_string(data["system"]),
        when=_string(data["when"]),
        sources={
            _text(name): Source(_text(one["reader"]), _text(one["file"]), _text(one["at"]))
            for name, one in data["sources"].items()
        },
        notes=tuple(_text(one) for one in data["notes"]),
    )


def _plain(one: Source | Frame | Module | LogLine) -> dict[str, Any]:
    return {part.name: getattr(one, part.name) for part in fields(one)}


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def _string(value: object) -> str | None:
    return None if value is None else _text(value)


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is not a whole number")
    return value


def _integer(value: object) -> int | None:
    return None if value is None else _whole(value)
