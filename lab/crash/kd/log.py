"""The record of a line: one event a line, written as it happens.

Two forms: text for people, and JSON lines, which ``read`` turns back into facts.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TextIO

from lab.core.errors import UsageError
from lab.crash.facts import CrashFact
from lab.crash.kd.events import Event, describe, from_json, stamp, to_json
from lab.crash.kd.report import CrashTeller

_LONGEST_LINE = 1 << 20  # bytes; a print of a whole packet has 24,000 as JSON


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
    teller = CrashTeller(path.name)
    number = 0
    notes: tuple[str, ...] = ()
    try:
        with path.open("rb") as file:
            while raw := file.readline(_LONGEST_LINE):
                try:
                    values = json.loads(raw)
                    if not isinstance(values, dict):
                        raise UsageError("no event")
                    teller.hear(from_json(values))
                except (ValueError, RecursionError, UsageError):
                    # ValueError: not JSON, or not even UTF-8.
                    notes = (f"truncated: line {number + 1} cannot be read",)
                    break
                number += 1
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from None
    if not number:
        raise UsageError(f"{path} holds no events of a kernel debugger's line")
    return teller.facts(notes)
