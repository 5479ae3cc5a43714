"""The kernel log of a Linux, found in its memory without symbols.

Sources: Linux, kernel/printk/printk_ringbuffer.c ("printk_ringbuffer overview", from 5.10 on: a
ring of blocks, each a word that numbers its record, and the text) and, before that, plain text
or text between binary headers (kernel/printk/printk.c).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lab.crash.mapped import View
from lab.crash.text import Line

MAX_LINES = 20_000
MAX_RECORD = 2048
"""Longest record that is looked for, in bytes; Linux's LOG_LINE_MAX is 1024 less the prefix."""

#: What every log that is worth reading holds, the most telling first.
NEEDLES = (
    b"Kernel panic - not syncing",
    b"Oops: ",
    b"BUG: unable to handle",
    b"BUG: soft lockup",
    b"Linux version ",
)
_MOST_HITS = 100
_FEW = 5
_WINDOW = 64 << 10
_TEXT = re.compile(rb"[\t\n\x20-\x7e\x80-\xff]*")
_PRINTABLE = re.compile(rb"[\t\x20-\x7e]{4,4096}")
# The record numbers of the state are shorter than a word by two bits of flags.
_FLAG_BITS = 2


@dataclass(frozen=True, slots=True)
class Log:
    """Lines of a kernel log.

    Attributes:
        at: offset in the file of the first of them.
        lines: oldest first.
        whole: whether the records were followed one by one; else they are what lies around a
            telling line, and older ones may be behind newer ones.
    """

    at: int
    lines: tuple[Line, ...]
    whole: bool


def find_log(view: View, start: int, end: int) -> Log | None:
    """The kernel log in a piece of memory, or None.

    Args:
        view: the file.
        start: offset of the memory in it.
        end: offset behind it.
    """
    around: Log | None = None
    for needle in NEEDLES:
        best: Log | None = None
        for hit in _hits(view, needle, start, end):
            for width in (4, 8):
                log = _records(view, hit, width, start, end)
                if log and len(log.lines) >= max(_FEW, len(best.lines) + 1 if best else 0):
                    best = log
            if best is None and needle != NEEDLES[-1]:
                near = _around(view, hit, start, end)
                if around is None or len(near.lines) > len(around.lines):
                    around = near
        if best is not None:
            return best
    return around


def _hits(view: View, needle: bytes, start: int, end: int) -> Iterator[int]:
    at = start - 1
    for _ in range(_MOST_HITS):
        at = view.find(needle, at + 1, end)
        if at < 0:
            return
        # The kernel's own format strings hold the same words.
        if b"%" not in view.take(at, len(needle) + 8):
            yield at


def _records(view: View, hit: int, width: int, start: int, end: int) -> Log | None:
    """The records around one of them, by their numbers, which follow each other."""
    mask = (1 << 8 * width - _FLAG_BITS) - 1
    for text_at in _starts(view, hit, width):
        block = text_at - width
        number = _word(view, block, width)
        if number is None or number > mask:
            continue
        following = _forward(view, block, number, width, mask, end)
        if len(following) < 2 and not _backward(view, block, number, width, mask, start, 1):
            continue
        blocks = [*_backward(view, block, number, width, mask, start, MAX_LINES), *following]
        return Log(blocks[0], tuple(_lines(_texts(view, blocks, width))), whole=True)
    return None


def _starts(view: View, hit: int, width: int) -> Iterator[int]:
    """Where the record that holds a place may begin: at its line, or a prefix before it."""
    before = view.take(hit - 256, min(256, hit))
    for back in range(len(before) + 1):
        if (hit - back) % width == 0:
            yield hit - back
        if back < len(before) and not 32 <= before[-1 - back] < 127:
            return


def _word(view: View, at: int, width: int) -> int | None:
    return view.u32(at) if width == 4 else view.u64(at)


def _forward(view: View, block: int, number: int, width: int, mask: int, end: int) -> list[int]:
    blocks = [block]
    while len(blocks) < MAX_LINES:
        wanted = (number + len(blocks) & mask).to_bytes(width, "little")
        after = blocks[-1] + 2 * width
        piece = view.take(after, min(MAX_RECORD, end - after))
        at = _aligned_find(piece, wanted, width)
        if at is None:
            break
        blocks.append(after + at)
    return blocks


def _backward(
    view: View, block: int, number: int, width: int, mask: int, start: int, most: int
) -> list[int]:
    blocks: list[int] = []
    at = block
    while len(blocks) < most:
        wanted = (number - len(blocks) - 1 & mask).to_bytes(width, "little")
        low = max(start, at - MAX_RECORD)
        low += (at - low) % width
        piece = view.take(low, at - width - low)
        found = _aligned_find(piece, wanted, width, last=True)
        if found is None:
            break
        at = low + found
        blocks.append(at)
    return blocks[::-1]


def _aligned_find(piece: bytes, wanted: bytes, width: int, *, last: bool = False) -> int | None:
    at = piece.rfind(wanted) if last else piece.find(wanted)
    while at >= 0:
        if at % width == 0:
            return at
        at = piece.rfind(wanted, 0, at + width - 1) if last else piece.find(wanted, at + 1)
    return None


def _texts(view: View, blocks: Sequence[int], width: int) -> Iterator[str]:
    ends = (*blocks[1:], blocks[-1] + MAX_RECORD)
    for block, end in zip(blocks, ends, strict=True):
        found = _TEXT.match(view.take(block + width, min(end - block - width, MAX_RECORD)))
        yield from found[0].decode("utf-8", "replace").split("\n") if found else ()


def _around(view: View, hit: int, start: int, end: int) -> Log:
    """Printable text around a place, as far as no large gap is between."""
    low = max(start, hit - _WINDOW)
    piece = view.take(low, min(2 * _WINDOW, end - low))
    runs = list(_PRINTABLE.finditer(piece))
    middle = next((n for n, run in enumerate(runs) if run.end() > hit - low), 0)
    first = last = middle
    # A record's header and its padding are shorter than this.
    while first > 0 and runs[first].start() - runs[first - 1].end() <= 64:
        first -= 1
    while last + 1 < len(runs) and runs[last + 1].start() - runs[last].end() <= 64:
        last += 1
    texts = [run[0].decode("ascii") for run in runs[first : last + 1]]
    at = low + runs[first].start() if runs else hit
    return Log(at, tuple(_lines(iter(texts))), whole=False)


def _lines(texts: Iterator[str]) -> Iterator[Line]:
    for number, text in enumerate(texts, 1):
        if number > MAX_LINES:
            return
        # Plain logs of old kernels have the level before the text.
        yield Line(number, re.sub(r"^<\d>", "", text))
