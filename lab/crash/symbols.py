"""Names of functions, from the map files that Microsoft's linker writes (``link /MAP``).

Format: Microsoft Learn, "/MAP (Generate mapfile)", and maps of the Windows Driver Kit's linkers:
the module's name, ``Timestamp is``, ``Preferred load address is``, then a line for each symbol
with section and offset, name, and address at the preferred load address.

Program databases (.pdb) are not read: no Python library for them that is kept up was found.
Without a map, frames stay module and offset.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lab.core.errors import UsageError
from lab.crash.draft import module_name
from lab.crash.facts import CrashFact, Frame, Module
from lab.crash.text import lines

MAX_MAP = 64 << 20
"""Largest map that is read, in bytes: that of a kernel has a few megabytes."""

MAX_SYMBOLS = 500_000
_MAX_NAME = 500

_STAMP = re.compile(r"^ Timestamp is ([0-9a-fA-F]{8})\b")
_BASE = re.compile(r"^ Preferred load address is ([0-9a-fA-F]{8,16})\b")
_SYMBOL = re.compile(r"^ ([0-9a-fA-F]{4}):[0-9a-fA-F]{8} {2,}(\S{1,4000}) +([0-9a-fA-F]{8,16})\b")
# "_Name@12" is Name with 12 bytes of arguments (stdcall), "@Name@8" fastcall, "_Name" cdecl.
_DECORATED = re.compile(r"^[_@]([A-Za-z_$][\w$]*)(?:@\d{1,5})?$")


@dataclass(frozen=True, slots=True)
class Map:
    """The symbols of one module.

    Attributes:
        module: as facts name it: lower-case, without ``.sys``.
        timestamp: of the link, seconds since 1970; None if the map does not say.
        offsets: of the symbols from the module's start, ascending.
        names: of the symbols, in the same order.
    """

    module: str
    timestamp: int | None
    offsets: Sequence[int]
    names: Sequence[str]

    def find(self, offset: int) -> tuple[str, int] | None:
        """The symbol that holds an offset, and the bytes from its start; None before the first.

        Args:
            offset: from the module's start.
        """
        at = bisect_right(self.offsets, offset) - 1
        return (self.names[at], offset - self.offsets[at]) if at >= 0 else None


def read_map(path: Path) -> Map:
    """Read a map file.

    Raises:
        UsageError: it cannot be read, is too large, or is no map of Microsoft's linker.
    """
    try:
        size = path.stat().st_size
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path}: {error}") from None
    if size > MAX_MAP:
        raise UsageError(f"{path.name} is larger than {MAX_MAP >> 20} MiB: no map file")
    module, base = "", None
    stamp: int | None = None
    found: dict[int, str] = {}
    for line in lines(path):
        if not module:
            module = module_name(line.text.strip())
        elif symbol := _SYMBOL.match(line.text):
            # Section 0 holds constants, not addresses.
            offset = int(symbol[3], 16) - (base or 0)
            if base is not None and symbol[1] != "0000" and 0 <= offset < 1 << 32:
                found.setdefault(offset, _plain(symbol[2]))
            if len(found) > MAX_SYMBOLS:
                raise UsageError(f"{path.name} has more than {MAX_SYMBOLS} symbols")
        elif match := _STAMP.match(line.text):
            stamp = int(match[1], 16)
        elif match := _BASE.match(line.text):
            base = int(match[1], 16)
    if base is None or not found:
        raise UsageError(f"{path.name} is no map file of Microsoft's linker")
    offsets = sorted(found)
    # Maps of unattended builds have no link time: zero or all ones.
    known = None if stamp in (None, 0, 0xFFFFFFFF) else stamp
    return Map(module, known, offsets, [found[one] for one in offsets])


def named(fact: CrashFact, maps: Iterable[Map]) -> CrashFact:
    """A fact with names in its frames where a map has them.

    A map of another build of the module is not used, and a note says so.

    Args:
        fact: whose frames have modules and offsets.
        maps: of some of those modules; the first that fits a module is taken.
    """
    notes: list[str] = []
    chosen: dict[str, Map] = {}
    for one in maps:
        linked = _linked(fact.modules, one.module)
        if None not in (linked, one.timestamp) and linked != one.timestamp:
            notes.append(
                f"the map of {one.module} was not used: it is of a build linked "
                f"{one.timestamp:08x}, the crash is of one linked {linked:08x}"
            )
        elif one.module not in chosen and any(one.module == at.module for at in fact.frames):
            chosen[one.module] = one
            if None in (linked, one.timestamp):
                notes.append(f"whether the map of {one.module} is of the same build is not known")
    frames = tuple(_name(frame, chosen) for frame in fact.frames)
    return replace(fact, frames=frames, notes=(*fact.notes, *notes))


def _name(frame: Frame, maps: dict[str, Map]) -> Frame:
    if frame.module is None or frame.symbol is not None or frame.offset is None:
        return frame
    found = maps[frame.module].find(frame.offset) if frame.module in maps else None
    return frame if found is None else replace(frame, symbol=found[0], offset=found[1])


def _linked(modules: Iterable[Module], name: str) -> int | None:
    return next(
        (
            one.timestamp
            for one in modules
            if not one.unloaded and one.timestamp and module_name(one.name) == name
        ),
        None,
    )


def _plain(symbol: str) -> str:
    """A C function's name without its decoration; those of C++ stay as they are."""
    match = _DECORATED.match(symbol)
    return (match[1] if match else symbol)[:_MAX_NAME]
