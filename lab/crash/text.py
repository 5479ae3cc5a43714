"""Text of unknown origin, read in pieces: encodings, line ends, lines without end.

Nothing here holds a whole file, and no line is longer than ``LINE_LIMIT``.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.core.errors import UsageError

HEAD = 64 << 10
"""How much of a file is looked at to recognise it, in bytes."""

BLOCK = 1 << 20
"""How much is read at once, in bytes."""

LINE_LIMIT = 16 << 10
"""The longest line that is kept, in bytes: no log is known to write one; the rest is dropped."""

# Terminal escapes of serial consoles (ECMA-48, 5.4), and what remains of the control set.
_ESCAPE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[()][A-Z0-9]|\x1b.")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

# UTF-16 without a mark: western text has a zero in every second byte.
_UTF16_SHARE = 0.3


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a file.

    Attributes:
        number: counted from 1.
        text: without its end.
    """

    number: int
    text: str


def encoding_of(head: bytes) -> str | None:
    """The encoding a file begins with: ``utf-16-le``, ``utf-16-be``, or None for bytes that
    are ASCII, UTF-8 or a Windows code page, which ``decode`` tells apart line by line."""
    if head.startswith(codecs.BOM_UTF16_LE):
        return "utf-16-le"
    if head.startswith(codecs.BOM_UTF16_BE):
        return "utf-16-be"
    sample = head[:4096]
    half = len(sample) // 2
    if half >= 4:
        even, odd = sample[0::2].count(0), sample[1::2].count(0)
        if odd > half * _UTF16_SHARE and even < odd / 4:
            return "utf-16-le"
        if even > half * _UTF16_SHARE and odd < even / 4:
            return "utf-16-be"
    return None


def is_text(head: bytes) -> bool:
    """Whether a file's beginning looks like text: few control characters, no run of zeros."""
    if encoding_of(head) is not None:
        return True
    if not head:
        return False
    odd = sum(map(head.count, _ODD_BYTES))
    return odd <= max(8, len(head) // 50)


# Serial logs hold escapes, form feeds and, after a reset, some noise.
_ODD_BYTES = [bytes([one]) for one in range(32) if one not in (7, 8, 9, 10, 12, 13, 27)]


def decode(data: bytes) -> str:
    """Text of one line or piece: UTF-8, or else Windows code page 1252. Never fails."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def head_text(head: bytes) -> str:
    """The beginning of a file as text, whatever its encoding. Never fails."""
    encoding = encoding_of(head)
    if encoding is not None:
        return head.decode(encoding, "replace").removeprefix("\ufeff")
    return decode(head.removeprefix(codecs.BOM_UTF8))


def blocks(path: Path, size: int = BLOCK) -> Iterator[bytes]:
    """A file in pieces that end with a line's end, in UTF-8 or as it is.

    Args:
        path: the file.
        size: bytes to read at once.

    Yields:
        Whole lines; of a line that is longer than ``LINE_LIMIT`` and spans pieces its
        beginning, ended by a line feed of our own. The last piece may lack its line feed.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            yield from _whole_lines(_utf8(file.read, size))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from None


def lines(path: Path) -> Iterator[Line]:
    """The lines of a text file, without terminal escapes and control characters.

    Raises:
        UsageError: it cannot be read.
    """
    number = 0
    for block in blocks(path):
        found = block.split(b"\n")
        if not found[-1]:
            found.pop()
        for raw in found:
            number += 1
            # A line of a serial console may begin with the carriage return that ended the
            # one before, so line feeds alone end lines.
            yield Line(number, plain(decode(raw[:LINE_LIMIT])))


def split_text(text: str) -> Iterator[Line]:
    """The lines of text that is already in memory, cleaned like those of a file."""
    for number, line in enumerate(text.split("\n"), 1):
        yield Line(number, plain(line[:LINE_LIMIT]))


def plain(line: str) -> str:
    """A line without terminal escapes, control characters and trailing blanks."""
    if "\x1b" in line:
        line = _ESCAPE.sub("", line)
    return _CONTROL.sub("", line).rstrip()


def _utf8(read: Callable[[int], bytes], size: int) -> Iterator[bytes]:
    first = read(size)
    encoding = encoding_of(first[:HEAD])
    if encoding is None:
        piece = first.removeprefix(codecs.BOM_UTF8)
        while piece:
            yield piece
            piece = read(size)
        return
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    piece = first
    mark = True
    while piece:
        text = decoder.decode(piece)
        if mark:
            text, mark = text.removeprefix("\ufeff"), False
        # Lone surrogates cannot be written as UTF-8.
        yield text.encode("utf-8", "replace")
        piece = read(size)


def _whole_lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    skipping = False
    for fresh in pieces:
        piece = fresh
        if skipping:
            cut = piece.find(b"\n")
            if cut < 0:
                continue
            piece, skipping = piece[cut + 1 :], False
        end = piece.rfind(b"\n") + 1
        if end:
            yield rest + piece[:end] if rest else piece[:end]
            rest = piece[end:]
        else:
            rest += piece
        if len(rest) > LINE_LIMIT:
            yield rest[:LINE_LIMIT] + b"\n"
            rest, skipping = b"", True
    if rest:
        yield rest
