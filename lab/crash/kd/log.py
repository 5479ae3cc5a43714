"""The record of a line: one event a line, written as it happens.

Two forms: text for people, and JSON lines, which ``read`` turns back into facts.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TextIO

from lab.core.errors import UsageError
from lab.crash import text
from lab.crash.facts import CrashFact
from lab.crash.kd.events import Event, describe, from_json, stamp, to_json
from lab.crash.kd.report import crash_facts

_MOST_EVENTS = 1_000_000


class TextLog:
    """Writes lines such as ``2007-11-20T12:00:00.123456Z  XenVbd --> ...``.

    Args:
        file: open for writing text; it stays the caller's.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def __call__(self, event: Event) -> None:
        """Write one event."""
        self._file.write(f"{stamp(event.at)}  {describe(event)}\n")
        self._file.flush()


class JsonLog:
    """Writes one JSON object a line.

    Args:
        file: open for writing text; it stays the caller's.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def __call__(self, event: Event) -> None:
        """Write one event."""
        self._file.write(json.dumps(to_json(event)) + "\n")
        self._file.flush()


def recognise(head: bytes, name: str) -> bool:
    """Whether a file's beginning is a record of JSON lines as ``JsonLog`` writes them."""
    return head.startswith(b'{"event": "')


def read(path: Path) -> list[CrashFact]:
    """The crashes in a record of JSON lines.

    A last line that is cut is left out.

    Raises:
        UsageError: it cannot be read, or is something else.
    """
    events: list[Event] = []
    broken: int | None = None
    for line in text.lines(path):
        if broken is not None or len(events) >= _MOST_EVENTS:
            break
        if not line.text:
            continue
        try:
            values = json.loads(line.text)
            if not isinstance(values, dict):
                raise ValueError(line.text[:40])
            events.append(from_json(values))
        except (ValueError, RecursionError, UsageError):
            broken = line.number
    if not events:
        raise UsageError(f"{path} holds no events of a kernel debugger's line")
    notes = () if broken is None else (f"truncated: line {broken} cannot be read",)
    return crash_facts(events, path.name, notes=notes)
