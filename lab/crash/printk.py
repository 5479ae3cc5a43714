"""The kernel log of a Linux, found in its memory without symbols.

Sources: Linux, kernel/printk/printk_ringbuffer.{c,h}, from 5.10 on: a ring of blocks, each a word
that numbers its record, and the text; beside it an array of ``struct printk_info``, which has the
length and the time. Before 5.10 there is plain text, or text between binary headers
(kernel/printk/printk.c).
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
# A record's number shares its word with two bits of flags (DESC_FLAGS_SHIFT).
_FLAG_BITS = 2

# struct printk_info: seq (64 bits), ts_nsec (64), text_len (16), facility, flags and level,
# caller_id (32), and dev_info of 64 bytes.
_INFO_SIZE, _INFO_TIME, _INFO_LENGTH = 88, 8, 16
# The array has a power of two of them: CONFIG_LOG_BUF_SHIFT (12 to 25) less PRB_AVGBITS (5),
# or what log_buf_len= asks for.
_INFO_SHIFTS = range(7, 21)
_MOST_SEQUENCE = 10_000_000
_MOST_GUESSES = 20_000


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
        earlier = _backward(view, block, number, width, mask, start, MAX_LINES)
        blocks = [*earlier, *following]
        ring = _Ring(blocks, number - len(earlier) & mask, width, mask)
        return Log(blocks[0], tuple(_lines(_texts(view, ring, start, end))), whole=True)
    return None


@dataclass(frozen=True, slots=True)
class _Ring:
    """Blocks of records that follow each other.

    Attributes:
        blocks: their offsets in the file.
        first: number of the first record.
        width: bytes of a word.
        mask: of a number.
    """

    blocks: Sequence[int]
    first: int
    width: int
    mask: int


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


def _texts(view: View, ring: _Ring, start: int, end: int) -> Iterator[str]:
    infos = _infos(view, ring, start, end)
    ends = (*ring.blocks[1:], ring.blocks[-1] + MAX_RECORD)
    for at, (block, limit) in enumerate(zip(ring.blocks, ends, strict=True)):
        room = min(limit - block - ring.width, MAX_RECORD)
        stamp = ""
        if infos is not None:
            info = infos.place(ring.first + at)
            length, time = view.u16(info + _INFO_LENGTH), view.u64(info + _INFO_TIME)
            if view.u64(info) == infos.sequence(ring.first + at) and length is not None:
                room = min(room, length)
                stamp = f"[{(time or 0) // 10**9:5}.{(time or 0) // 1000 % 10**6:06}] "
        found = _TEXT.match(view.take(block + ring.width, room))
        text = found[0].decode("utf-8", "replace") if found else ""
        yield from (stamp + line for line in (text if stamp else _untrimmed(text)).split("\n"))


def _untrimmed(text: str) -> str:
    """A record's text without what its level, two characters, left behind it when it was cut off
    (printk_sprint)."""
    line, newline, _ = text.partition("\n")
    return line[:-2] if newline and line[-2:] == line[-4:-2] else text


@dataclass(frozen=True, slots=True)
class _Infos:
    """The array of printk_info.

    Attributes:
        at: offset in the file.
        shift: it has 2 to the power of this many entries.
        mask: of a record's number.
    """

    at: int
    shift: int
    mask: int

    def place(self, number: int) -> int:
        """Where the entry of a record is."""
        return self.at + (number & (1 << self.shift) - 1) * _INFO_SIZE

    def sequence(self, number: int) -> int:
        """The sequence number of a record: the first has the number DESC0_ID + 1."""
        return number + (1 << self.shift) & self.mask


def _infos(view: View, ring: _Ring, start: int, end: int) -> _Infos | None:
    """The array that belongs to a ring, found by sequence numbers at its stride."""
    number = ring.first + len(ring.blocks) // 2
    for shift in _INFO_SHIFTS:
        infos = _Infos(0, shift, ring.mask)
        sequence = infos.sequence(number)
        if not 1 < sequence < _MOST_SEQUENCE:
            continue
        at = start - 1
        for _ in range(_MOST_GUESSES):
            at = view.find(sequence.to_bytes(8, "little"), at + 1, end)
            if at < 0:
                break
            around = (view.u64(at - _INFO_SIZE), view.u64(at + _INFO_SIZE))
            if around == (sequence - 1, sequence + 1):
                return _Infos(at - infos.place(number), shift, ring.mask)
    return None


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
