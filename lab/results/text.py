"""Log text made safe and honest for people: what cannot be seen is shown."""

from __future__ import annotations

import os
import unicodedata
from dataclasses import dataclass
from pathlib import Path

# Bytes read for one tail: far more than the lines shown, unless they are absurdly long.
TAIL_BYTES = 64 * 1024
TAIL_LINES = 40
LINE_LENGTH = 400

# Unicode block "Control Pictures": U+2400 + code for C0, U+2421 for DEL.
CONTROL_PICTURES = 0x2400
DELETE_PICTURE = "\u2421"


@dataclass(frozen=True, slots=True)
class LogTail:
    """The end of a log file.

    Attributes:
        lines: oldest first, control characters made visible.
        cut: whether the file has more before them.
    """

    lines: tuple[str, ...]
    cut: bool

    @property
    def text(self) -> str:
        """The lines as one text."""
        return "\n".join(self.lines)


def visible(text: str) -> str:
    """Text with control characters shown as pictures or code points; newlines and tabs stay.

    Carriage returns at line ends go. Characters that reorder or hide text (Unicode categories Cf,
    Co, Cs, Zl, Zp) are shown by number: a log must not read differently from what it says.
    """
    return "".join(_shown(c) for c in text.replace("\r\n", "\n"))


def _shown(character: str) -> str:
    if character in "\n\t":
        return character
    code = ord(character)
    if code < 0x20:
        return chr(CONTROL_PICTURES + code)
    if code == 0x7F:
        return DELETE_PICTURE
    if unicodedata.category(character) in ("Cc", "Cf", "Co", "Cs", "Zl", "Zp"):
        return f"<U+{code:04X}>"
    return character


def tail(path: Path, lines: int = TAIL_LINES) -> LogTail:
    """The last lines of a log.

    Args:
        path: the file; bytes that are not UTF-8 are shown as ``\\xNN``.
        lines: how many at most.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        start = max(0, size - TAIL_BYTES)
        stream.seek(start)
        data = stream.read(TAIL_BYTES)
    if start:
        # The first line is likely cut in two; without it no character is cut either.
        data = data[data.find(b"\n") + 1 :]
    found = visible(data.decode("utf-8", "backslashreplace")).rstrip("\n").split("\n")
    kept = tuple(_shortened(line) for line in found[-lines:])
    return LogTail(lines=kept if kept != ("",) else (), cut=bool(start) or len(found) > lines)


def _shortened(line: str) -> str:
    more = len(line) - LINE_LENGTH
    return line if more <= 0 else f"{line[:LINE_LENGTH]} ... {more} more characters"


def size(number: int) -> str:
    """A file size for people, in binary units."""
    value = float(number)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def duration(seconds: float) -> str:
    """A time span for people."""
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
