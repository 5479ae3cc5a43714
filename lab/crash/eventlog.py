"""Entries of the Windows event log that tell of a bugcheck.

Source "Save Dump", ID 1001, and, where error reporting is on, "System Error", ID 1003, as
Windows XP and Server 2003 write them; pasted from the event's window, or in a table as the
event viewer and ``eventquery.vbs`` export it.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from lab.crash.draft import Draft
from lab.crash.facts import CrashFact
from lab.crash.text import Line, head_text, lines

READER = "event log"

NEEDLES = (
    b"bugcheck",
    b"BugCheck",
    b"parameter1",
)
"""Bytes without one of which a piece of a file is none of this reader's."""

MAX_CRASHES = 500

_MARK = re.compile(
    r"rebooted from a bugcheck|The bugcheck was:|Error code [0-9a-f]{8}, parameter1", re.IGNORECASE
)
# Long sentences are broken over lines where somebody pasted them into a mail.
_SAVED = re.compile(
    r"The bugcheck was:\s*0x([0-9a-f]{1,8})\s*\(0x([0-9a-f]{1,16}),\s*0x([0-9a-f]{1,16}),"
    r"\s*0x([0-9a-f]{1,16}),\s*0x([0-9a-f]{1,16})\)",
    re.IGNORECASE,
)
_ERROR = re.compile(
    r"Error code ([0-9a-f]{8}),\s*parameter1 ([0-9a-f]{8,16}),\s*parameter2 ([0-9a-f]{8,16}),"
    r"\s*parameter3 ([0-9a-f]{8,16}),\s*parameter4 ([0-9a-f]{8,16})",
    re.IGNORECASE,
)
_DUMP = re.compile(r"A (?:full |memory )?dump was (saved in:\s*[^\s,\"]{1,200}|not saved)")
_KEY = re.compile(r"^\s*(Date|Time|Computer|Date/Time|Date and Time)\s*:\s*(\S.*)$")
_ROW_DATE = re.compile(
    r"(\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4})[\t, ]+(\d{1,2}:\d{2}:\d{2}(?: ?[AP]M)?)", re.IGNORECASE
)
_JOINED = 6
_KEYS_BEFORE = 12
_DUMP_WITHIN = 3


def recognise(head: bytes, name: str) -> bool:
    """Whether a piece of a file holds an entry about a bugcheck."""
    return _MARK.search(head_text(head)) is not None


def read(path: Path) -> list[CrashFact]:
    """Read exported or pasted entries.

    Returns:
        One fact for each entry about a bugcheck.

    Raises:
        UsageError: it cannot be read.
    """
    return parse(lines(path), path.name)


def parse(source: Iterable[Line], file: str) -> list[CrashFact]:
    """Read entries line by line.

    Args:
        source: the lines.
        file: name for the facts' sources.
    """
    done: list[CrashFact] = []
    keys: deque[tuple[int, str, str]] = deque(maxlen=8)
    window: deque[Line] = deque(maxlen=_JOINED)
    pending: Draft | None = None
    behind = ""
    left = 0
    for line in source:
        if key := _KEY.match(line.text):
            keys.append((line.number, key[1], key[2].strip()))
        window.append(line)
        joined = " ".join(one.text.strip() for one in window)
        found = _SAVED.search(joined) or _ERROR.search(joined)
        if pending is not None:
            # Where the dump is follows in the same paragraph, perhaps on the next line.
            behind += " " + (line.text.strip() if found is None else "")
            left -= 1
            if _note_dump(pending, behind) or left <= 0 or found is not None:
                done.append(pending.fact())
                pending = None
        if len(done) >= MAX_CRASHES:
            return done
        if found is None:
            continue
        pending, left = Draft(READER, file, "bugcheck"), _DUMP_WITHIN
        values = [int(one, 16) for one in found.groups()]
        pending.put("code", values[0], line.number)
        pending.put("parameters", tuple(values[1:]), line.number)
        saved = found.re is _SAVED
        pending.note("event 1001 of Save Dump" if saved else "event 1003 of System Error")
        _when(pending, keys, line)
        behind = joined[found.end() :]
        window.clear()
        if not saved or _note_dump(pending, behind):
            done.append(pending.fact())
            pending = None
    if pending is not None:
        done.append(pending.fact())
    return done


def _note_dump(draft: Draft, text: str) -> bool:
    dump = _DUMP.search(text)
    if dump is None:
        return False
    draft.note("dump: " + dump[1].removeprefix("saved in:").strip().rstrip("."))
    return True


def _when(draft: Draft, keys: Iterable[tuple[int, str, str]], line: Line) -> None:
    row = _ROW_DATE.search(line.text)
    if row is not None:
        draft.put("when", f"{row[1]} {row[2]}", line.number)
        return
    latest = {name: (value, number) for number, name, value in keys
              if line.number - number <= _KEYS_BEFORE}  # fmt: skip
    parts = [latest[name] for name in ("Date", "Time") if name in latest] or [
        latest[name] for name in ("Date/Time", "Date and Time") if name in latest
    ]
    if parts:
        draft.put("when", " ".join(value for value, _ in parts), parts[0][1])
    if "Computer" in latest:
        draft.note(f"computer: {latest['Computer'][0]}")
