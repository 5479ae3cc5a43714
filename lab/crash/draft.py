"""A crash fact in the making: every field is set together with where it was read."""

from __future__ import annotations

from typing import Any

from lab.crash.facts import KNOWLEDGE, CrashFact, Frame, Kind, LogLine, Module, Source

MAX_FRAMES = 200
MAX_MODULES = 1000
MAX_NOTES = 40
MAX_TEXT = 1000
"""Longest message that is kept, in characters."""


class Draft:
    """Collects what one reader finds of one crash.

    Args:
        reader: the kind of file in words, for the sources.
        file: its name.
        kind: what kind of end it is, as far as is known.
    """

    def __init__(self, reader: str, file: str, kind: Kind = "unknown") -> None:
        self._reader = reader
        self._file = file
        self.kind: Kind = kind
        self._fields: dict[str, Any] = {}
        self._sources: dict[str, Source] = {}
        self._frames: list[Frame] = []
        self._modules: dict[tuple[str, int, bool], Module] = {}
        self._registers: dict[str, int] = {}
        self._notes: list[str] = []

    def put(self, name: str, value: Any, line: int, *, again: bool = False) -> None:
        """Set a field, unless it is set already or there is nothing to set.

        Args:
            name: of a field of ``CrashFact`` that is one value.
            value: for it.
            line: where it was read; 0 for a file that is not read by lines.
            again: whether a later value replaces an earlier one.
        """
        if value in (None, "", ()) or (name in self._fields and not again):
            return
        self._fields[name] = value[:MAX_TEXT] if isinstance(value, str) else value
        self._sources[name] = self._at(line)

    def has(self, name: str) -> bool:
        """Whether a field is known already."""
        return name in self._sources

    def get(self, name: str) -> Any:
        """The value of a field that ``put`` set; None without one."""
        return self._fields.get(name)

    def frame(self, frame: Frame, line: int) -> None:
        """Add a frame; ``MAX_FRAMES`` are kept."""
        if len(self._frames) < MAX_FRAMES:
            self._frames.append(frame)
            self._sources.setdefault("frames", self._at(line))

    def clear_frames(self) -> None:
        """Forget the frames: a better stack begins."""
        self._frames.clear()
        self._sources.pop("frames", None)

    @property
    def frames(self) -> tuple[Frame, ...]:
        """The frames so far."""
        return tuple(self._frames)

    def module(self, module: Module, line: int) -> None:
        """Add a module, once; ``MAX_MODULES`` are kept. One that knows more replaces."""
        key = (module.name.lower(), module.start, module.unloaded)
        known = self._modules.get(key)
        if known is None and len(self._modules) >= MAX_MODULES:
            return
        if known is None or (known.timestamp is None and module.timestamp is not None):
            self._modules[key] = module
            self._sources.setdefault("modules", self._at(line))

    def register(self, name: str, value: int, line: int) -> None:
        """Add a register; the first value of each name is kept."""
        if len(self._registers) < 64:
            self._registers.setdefault(name.lower(), value)
            self._sources.setdefault("registers", self._at(line))

    def log(self, lines: list[LogLine], first: int, last: int) -> None:
        """Set the lines before the crash, unless there are none.

        Args:
            lines: oldest first.
            first: number of the first of them in the file.
            last: number of the last.
        """
        if lines:
            self._fields["log"] = tuple(lines)
            at = f"lines {first} to {last}" if last > first else f"line {first}"
            self._sources["log"] = Source(self._reader, self._file, at)

    def note(self, text: str) -> None:
        """Add a note, once."""
        if text not in self._notes and len(self._notes) < MAX_NOTES:
            self._notes.append(text[:MAX_TEXT])

    def knows(self) -> bool:
        """Whether any field is known."""
        return bool(self._sources)

    def fact(self) -> CrashFact:
        """What was collected."""
        return CrashFact(
            kind=self.kind,
            frames=tuple(self._frames),
            modules=tuple(self._modules.values()),
            registers=self._registers,
            sources={name: self._sources[name] for name in KNOWLEDGE if name in self._sources},
            notes=tuple(self._notes),
            **self._fields,
        )

    def _at(self, line: int) -> Source:
        return Source(self._reader, self._file, f"line {line}" if line else "")


def module_name(file: str) -> str:
    """A driver's name as facts have it: no folder, lower case, no ``.sys``."""
    name = file.replace("/", "\\").rpartition("\\")[2].strip().lower()
    return name.removesuffix(".sys")


def hexadecimal(text: str) -> int:
    """A number as debuggers print it: hex digits, perhaps ``0x`` before them and a grave
    accent in the middle of 64 bits.

    Raises:
        ValueError: it is none, or has more than 64 bits.
    """
    digits = text.strip().lower().replace("`", "").removeprefix("0x")
    if len(digits) > 16:
        raise ValueError(f"{text!r} has more than 64 bits")
    return int(digits, 16)
