"""Text that NirSoft's BlueScreenView exports from a folder of minidumps.

Two of its formats: blocks of ``Key : value`` between lines of ``=`` (View, "Save selected
items", text file), and tables with a tab or comma between columns whose first line has the
same keys.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path

from lab.crash.draft import Draft, hexadecimal, module_name
from lab.crash.facts import CrashFact, Frame
from lab.crash.text import Line, head_text, lines

READER = "BlueScreenView export"

NEEDLES = (b"Bug Check ",)
"""Bytes without one of which a piece of a file is none of this reader's."""

MAX_CRASHES = 500

_RULE = re.compile(r"^={10,}$")
_PAIR = re.compile(r"^\s*([A-Z][A-Za-z0-9 ]{2,30}?)\s*: ?(.*)$")
_MARK = re.compile(r"^\s*Bug Check (?:Code|String)\s*:", re.MULTILINE)
_TABLE = re.compile(r"\"?Dump File\"?[\t,]\"?Crash Time\"?[\t,]\"?Bug Check String\"?[\t,]")
_PLACE = re.compile(r"^([\w.-]{1,60})(?:\+(?:0x)?([0-9A-Fa-f]{1,8}))?$")
_STACK_KEY = re.compile(r"^Stack Address (\d)$")


def recognise(head: bytes, name: str) -> bool:
    """Whether a piece of a file is of an export."""
    text = head_text(head)
    return _MARK.search(text) is not None or _TABLE.search(text) is not None


def read(path: Path) -> list[CrashFact]:
    """Read an export.

    Returns:
        One fact for each minidump it lists.

    Raises:
        UsageError: it cannot be read.
    """
    return parse(lines(path), path.name)


def parse(source: Iterable[Line], file: str) -> list[CrashFact]:
    """Read an export line by line.

    Args:
        source: the lines.
        file: name for the facts' sources.
    """
    found = (_fact(entry, file) for entry in _entries(source))
    return list(islice((fact for fact in found if fact is not None), MAX_CRASHES))


_Entry = dict[str, tuple[str, int]]


def _entries(source: Iterable[Line]) -> Iterator[_Entry]:
    entry: _Entry = {}
    columns: list[str] = []
    separator = ""
    for line in source:
        if _TABLE.match(line.text.lstrip("\ufeff")):
            separator = "\t" if "\t" in line.text else ","
            columns = _cells(line.text.lstrip("\ufeff"), separator)
            continue
        if columns:
            cells = _cells(line.text, separator)
            if len(cells) >= 4:
                yield {
                    key: (value, line.number) for key, value in zip(columns, cells, strict=False)
                }
            continue
        if _RULE.match(line.text.strip()):
            if entry:
                yield entry
            entry = {}
        elif pair := _PAIR.match(line.text):
            # An export that lost its rules: the first key tells where the next entry begins.
            if pair[1] in entry and pair[1] == "Dump File":
                yield entry
                entry = {}
            entry.setdefault(pair[1], (pair[2].strip(), line.number))
    if entry:
        yield entry


def _cells(text: str, separator: str) -> list[str]:
    with suppress(csv.Error, StopIteration):
        return [cell.strip() for cell in next(csv.reader([text], delimiter=separator))]
    return []


def _fact(entry: Mapping[str, tuple[str, int]], file: str) -> CrashFact | None:
    if "Bug Check Code" not in entry and "Bug Check String" not in entry:
        return None
    draft = Draft(READER, file, "bugcheck")

    def put(field: str, key: str) -> None:
        value, number = entry.get(key, ("", 0))
        draft.put(field, value, number)

    with suppress(ValueError):
        code, number = entry.get("Bug Check Code", ("", 0))
        draft.put("code", hexadecimal(code) & 0xFFFFFFFF, number)
    put("name", "Bug Check String")
    put("when", "Crash Time")
    parameters: list[int] = []
    with suppress(ValueError, KeyError):
        for place in range(1, 5):
            parameters.append(hexadecimal(entry[f"Parameter {place}"][0]))
    if parameters:
        draft.put("parameters", tuple(parameters), entry["Parameter 1"][1])
    driver, number = entry.get("Caused By Driver", ("", 0))
    if driver:
        draft.put("module", module_name(driver), number)
    for key in ("Crash Address", "Caused By Address", *sorted(k for k in entry if
                                                              _STACK_KEY.match(k))):  # fmt: skip
        value, number = entry.get(key, ("", 0))
        frame = _frame(value)
        if frame is not None and frame not in draft.frames:
            draft.frame(frame, number)
    if dump := entry.get("Dump File", ("", 0))[0]:
        draft.note(f"dump: {dump}")
    system, number = entry.get("Processor", ("", 0))
    build, _ = entry.get("Minor Version", ("", 0))
    if system:
        text = f"Windows build {build}, {system}" if build.isdecimal() else f"Windows, {system}"
        draft.put("system", text, number)
    return draft.fact() if draft.knows() else None


def _frame(text: str) -> Frame | None:
    place = _PLACE.match(text)
    if place is None:
        return None
    return Frame(module_name(place[1]), None, int(place[2], 16) if place[2] else None)
