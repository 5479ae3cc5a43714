"""DbgView logs that users send: the last lines before a crash, and what they complain of.

``lab.core.dbglog`` knows the lines. A log may have a gigabyte, so most of it is never taken
apart: the running numbers are checked block by block, telling words are searched as bytes, and
only the ends of captures are parsed.

One log can hold several captures. The number going back to its start is a new capture,
perhaps after a reboot, so every capture's end may be the moment before a crash. The number
going back to anything else is a file that DbgView was told to wrap (``/m MB /w``): its newest
line is then in the middle.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

from lab.core.dbglog import DbgLine, parse_line
from lab.core.errors import UsageError
from lab.crash.facts import CrashFact, Kind, LogLine, Source
from lab.crash.text import LINE_LIMIT, Line, blocks, decode, head_text, plain

READER = "DbgView log"

LAST_LINES = 40
"""Lines kept before the end of a capture."""

CAPTURES = 8
"""Captures kept of one log, the newest ones."""

_TAIL = 32 << 10
_NUMBER = re.compile(rb"\n(\d{8,10})\t")
_DIGITS = 8
# Of a block, until every line is looked at.
_BREAKS = 16
_LOW = [b"%04d" % number for number in range(10_000)]
_FIRST_NUMBERS = (0, 1)
_SHARE = 0.5

# What the drivers print in trouble (GPLPV, November 2007, xenpci and xenvbd), and how a
# kernel prints that it stops (KeBugCheck's and RtlAssert's text on the debugger's port).
_TROUBLE: tuple[bytes, ...] = (
    b"EXPECT BADNESS",
    b"horribly wrong",
    b"Xen Operation returned error",
    b"Unhandled Event",
    b"CANNOT ALLOCATE MEMORY",
    b"Watch not active",
    b"Queue full Path",
)
_TIMEOUT = b"Wait timed out"
_ASSERT = b"Assertion failed"
_FATAL = b"Fatal System Error"
_STOP = b"*** STOP: 0x"
_TELLING = (_FATAL, _STOP, _ASSERT, _TIMEOUT, *_TROUBLE)

_FATAL_CODE = re.compile(r"(?:Fatal System Error|STOP): 0x([0-9a-f]{1,16})", re.IGNORECASE)
_PARAMETERS = re.compile(
    r"\(\s*0x([0-9a-f]{1,16}),\s*0x([0-9a-f]{1,16}),\s*0x([0-9a-f]{1,16}),"
    r"\s*0x([0-9a-f]{1,16})\s*\)",
    re.IGNORECASE,
)
# Places in a file, as sources and notes name them.
_LINES = re.compile(r"\blines? \d+(?: to \d+)?")
_NUMBERS = re.compile(r"\d+")
# "XenVbd --> Function", "XenVbd     text", "[Tiny]: text", "xenvbd: text".
_DRIVER = re.compile(
    r"\[([A-Za-z]\w{1,30})\]:? |([A-Za-z]\w{1,30})(?:: |\s+(?:-->|<--) |\s{3,}(?=\S))"
)


@dataclass(slots=True)
class _Hit:
    """Where a telling word was seen in one capture."""

    count: int = 0
    first: Line | None = None
    last: Line | None = None


@dataclass(slots=True)
class _Capture:
    """One capture: a stretch of a log whose running number only grows."""

    first_line: int
    lines: int = 0
    missing: int = 0
    gaps: int = 0
    first_gap: str = ""
    tail: bytes = b""
    last_index: int | None = None
    hits: dict[bytes, _Hit] = field(default_factory=dict)

    def gap(self, first: int, last: int) -> None:
        """Numbers that are missing."""
        self.gaps += 1
        self.missing += last - first + 1
        self.first_gap = self.first_gap or f"{first} to {last}"


@dataclass(frozen=True, slots=True)
class _Run:
    """Numbers of one block that follow each other without a gap.

    Attributes:
        first: the first of them.
        last: the last of them.
        offset: where the first one's line begins in the block.
    """

    first: int
    last: int
    offset: int


def recognise(head: bytes, name: str) -> bool:
    """Whether a file begins as DbgView's logs do: by its lines, never by its name."""
    found = [line for line in head_text(head).split("\n")[:200] if line.strip()]
    if found and found[0].startswith("\\\\"):
        # The computer's name, which DbgView writes at the top of some logs.
        found = found[1:]
    if not found:
        return False
    fits = [_is_print(parse_line(line.rstrip("\r"))) for line in found]
    return (fits[0] and fits[:6].count(True) * 2 >= len(fits[:6])) or (
        fits.count(True) > _SHARE * len(fits)
    )


def _is_print(line: DbgLine) -> bool:
    return line.seconds is not None


def read(path: Path) -> list[CrashFact]:
    """Read a log, in constant memory.

    Args:
        path: of any size; UTF-16, UTF-8 or code page 1252.

    Returns:
        One fact for each capture, the newest last; at most ``CAPTURES``.

    Raises:
        UsageError: it cannot be read, or holds no line of DbgView's.
    """
    scan = _Scan()
    for block in blocks(path):
        scan.feed(block)
    return scan.facts(path.name)


def parse(lines: list[Line], file: str) -> list[CrashFact]:
    """Read lines that are in memory: a log quoted in a mail.

    Args:
        lines: of the log, quoting removed.
        file: name for the facts' sources.

    Returns:
        As ``read``; line numbers are those of ``lines``. Nothing when they hold no log.
    """
    fits = [line for line in lines if _is_print(parse_line(line.text))]
    if len(fits) < 2:
        return []
    scan = _Scan()
    scan.feed("".join(f"{line.text}\n" for line in fits).encode("utf-8", "replace"))
    try:
        found = scan.facts(file)
    except UsageError:
        return []
    return [_renumbered(fact, [line.number for line in fits]) for fact in found]


def _renumbered(fact: CrashFact, numbers: list[int]) -> CrashFact:
    def moved(text: str) -> str:
        return _LINES.sub(lambda found: _NUMBERS.sub(number, found[0]), text)

    def number(found: re.Match[str]) -> str:
        return str(numbers[int(found[0]) - 1])

    return replace(
        fact,
        sources={name: replace(one, at=moved(one.at)) for name, one in fact.sources.items()},
        notes=tuple(map(moved, fact.notes)),
    )


class _Scan:
    """Goes over a log block by block."""

    def __init__(self) -> None:
        self._captures: deque[_Capture] = deque([_Capture(first_line=1)], maxlen=CAPTURES)
        self._lines = 0
        self._last: int | None = None
        self._first: int | None = None
        self._restarts = 0
        self._jumps_back = 0

    def feed(self, block: bytes) -> None:
        """Take whole lines."""
        start = 0
        for run in _runs(block):
            if self._last is None:
                self._first = run.first
            elif run.first <= self._last:
                self._extend(block[start : run.offset])
                start = run.offset
                self._captures.append(_Capture(first_line=self._lines + 1))
                self._restarts += 1
                self._jumps_back += run.first not in _FIRST_NUMBERS
            elif run.first > self._last + 1:
                self._captures[-1].gap(self._last + 1, run.first - 1)
            self._captures[-1].last_index = self._last = run.last
        self._extend(block[start:])

    def _extend(self, piece: bytes) -> None:
        """More lines of the newest capture."""
        capture = self._captures[-1]
        for word in _TELLING:
            if (at := piece.find(word)) >= 0:
                self._hit(capture, word, piece, at)
        count = piece.count(b"\n") + (bool(piece) and not piece.endswith(b"\n"))
        self._lines += count
        capture.lines += count
        capture.tail = (capture.tail + piece[-_TAIL:])[-_TAIL:]

    def _hit(self, capture: _Capture, word: bytes, piece: bytes, at: int) -> None:
        hit = capture.hits.setdefault(word, _Hit())
        hit.count += piece.count(word)
        if hit.first is None:
            hit.first = self._line(piece, at)
        hit.last = self._line(piece, piece.rfind(word))

    def _line(self, piece: bytes, at: int) -> Line:
        """The line around an offset, and for a bugcheck the one with its parameters."""
        start = piece.rfind(b"\n", 0, at) + 1
        start = max(start, at - LINE_LIMIT)
        end = piece.find(b"\n", at)
        text = decode(piece[start : min(end if end >= 0 else len(piece), at + LINE_LIMIT)])
        if end >= 0 and (_FATAL.decode() in text or _STOP.decode() in text):
            text += "\n" + decode(piece[end + 1 : end + 400])
        return Line(self._lines + piece.count(b"\n", 0, start) + 1, text)

    def facts(self, file: str) -> list[CrashFact]:
        """What was found.

        Raises:
            UsageError: no line was one of DbgView's.
        """
        captures = [one for one in self._captures if one.lines]
        wrapped = (
            self._restarts == 1
            and self._jumps_back == 1
            and len(captures) == 2
            and captures[1].last_index is not None
            and captures[1].last_index < (self._first or 0)
        )
        if wrapped:
            _drop_cut_line(captures[0])
            captures[0].hits = _older_first(captures[1].hits, captures[0].hits)
            captures.pop()
        found = [self._fact(one, number, captures, file, wrapped) for number, one in
                 enumerate(captures, 1)]  # fmt: skip
        known = [one for one in found if one is not None]
        if not known:
            raise UsageError(f"{file}: no line of DbgView in it")
        return known

    def _fact(
        self,
        capture: _Capture,
        number: int,
        captures: list[_Capture],
        file: str,
        wrapped: bool,
    ) -> CrashFact | None:
        log, first = _last_lines(capture)
        if not log:
            return None
        end = capture.first_line + capture.lines - 1
        sources = {"log": Source(READER, file, f"lines {first} to {end}" if first < end else
                                 f"line {end}")}  # fmt: skip
        notes: list[str] = []
        if len(captures) > 1:
            notes.append(
                f"capture {number} of {len(captures)} that were kept: "
                f"lines {capture.first_line} to {end}"
            )
        if self._restarts >= CAPTURES:
            notes.append(f"{self._restarts} restarts of the numbering in the log")
        if wrapped:
            notes.append(f"the file was wrapped: its newest line is line {end}")
        if capture.gaps:
            gaps = "1 gap" if capture.gaps == 1 else f"{capture.gaps} gaps"
            notes.append(
                f"{gaps} in the log, {capture.missing} lines missing, first: {capture.first_gap}"
            )
        kind, code, parameters, message, where = _verdict(capture, first)
        if where is not None:
            source = Source(READER, file, f"line {where}")
            for name, value in (("code", code), ("parameters", parameters), ("message", message)):
                if value not in (None, ()):
                    sources[name] = source
        for word, hit in capture.hits.items():
            if hit.first is not None and hit.last is not None:
                last = f", last in line {hit.last.number}" if hit.count > 1 else ""
                notes.append(
                    f"{word.decode()!r} {hit.count} times, first in line {hit.first.number}{last}"
                    if hit.count > 1
                    else f"{word.decode()!r} in line {hit.first.number}"
                )
        when = log[-1].time
        if when:
            sources["when"] = Source(READER, file, f"line {end}")
        return CrashFact(
            kind=kind,
            code=code,
            parameters=parameters,
            message=message,
            log=log,
            when=when or None,
            sources=sources,
            notes=tuple(notes),
        )


def _verdict(
    capture: _Capture, tail_from: int
) -> tuple[Kind, int | None, tuple[int, ...], str | None, int | None]:
    """Kind, code, parameters, message, and the line that says so."""
    for word in (_FATAL, _STOP):
        hit = capture.hits.get(word)
        if hit is None or hit.last is None:
            continue
        code = _FATAL_CODE.search(hit.last.text)
        if code is not None:
            # The line behind it may lie in the next block, and then in the last lines.
            given = _PARAMETERS.search(hit.last.text) or _PARAMETERS.search(
                decode(capture.tail[max(capture.tail.rfind(word), 0) :][:LINE_LIMIT])
            )
            parameters = tuple(int(one, 16) for one in given.groups()) if given else ()
            return "bugcheck", int(code[1], 16), parameters, None, hit.last.number
    hit = capture.hits.get(_ASSERT)
    if hit is not None and hit.last is not None:
        return "assert", None, (), _printed(hit.last.text), hit.last.number
    hit = capture.hits.get(_TIMEOUT)
    # A wait that timed out is a hang only if the log has no more to tell than that.
    if hit is not None and hit.last is not None and hit.last.number >= tail_from:
        return "hang", None, (), _printed(hit.last.text), hit.last.number
    trouble = [
        one.last for word in _TROUBLE if (one := capture.hits.get(word)) and one.last is not None
    ]
    if trouble:
        last = max(trouble, key=lambda line: line.number)
        return "unknown", None, (), _printed(last.text), last.number
    return "unknown", None, (), None, None


def _printed(text: str) -> str:
    return plain(parse_line(text.split("\n")[0].rstrip("\r")).text).strip()


def _drop_cut_line(capture: _Capture) -> None:
    """Forget what wrapping left of the line that it overwrote last."""
    before, _, last = capture.tail.rstrip(b"\n").rpartition(b"\n")
    if before and not _is_print(parse_line(decode(last).rstrip("\r"))):
        capture.tail = before + b"\n"
        capture.lines -= 1


def _older_first(older: dict[bytes, _Hit], newer: dict[bytes, _Hit]) -> dict[bytes, _Hit]:
    """The telling words of a wrapped file, whose second part is the older one."""
    both = dict(older)
    for word, hit in newer.items():
        old = both.get(word)
        both[word] = hit if old is None else _Hit(old.count + hit.count, old.first, hit.last)
    return both


def _runs(block: bytes) -> list[_Run]:
    """The running numbers of a block of whole lines."""
    lines = block.split(b"\n")
    if not lines[-1]:
        lines.pop()
    heads = b"".join([line[:_DIGITS] for line in lines])
    if len(heads) == _DIGITS * len(lines):
        quick = _quick_runs(heads, lines)
        if quick is not None:
            return quick
    found = list(map(int, _NUMBER.findall(b"\n" + block)))
    breaks = {0} | {at for at, (a, b) in enumerate(pairwise(found), 1) if b != a + 1}
    offsets = [one.start() for at, one in enumerate(_NUMBER.finditer(b"\n" + block))
               if at in breaks]  # fmt: skip
    ends = [*sorted(breaks), len(found)]
    return [
        _Run(found[start], found[end - 1], offset)
        for (start, end), offset in zip(pairwise(ends), offsets, strict=False)
    ]


def _quick_runs(heads: bytes, lines: list[bytes]) -> list[_Run] | None:
    """The running numbers of a block in which they mostly follow each other.

    Whole stretches are compared with the numbers that should be there, which is several times
    faster than looking at every line.

    Args:
        heads: the first 8 bytes of every line.
        lines: of the block.

    Returns:
        None where the numbers break off too often, or have more than 8 digits.
    """
    runs: list[_Run] = []
    at = 0
    for _ in range(_BREAKS):
        if at == len(lines):
            return runs
        head = heads[at * _DIGITS : (at + 1) * _DIGITS]
        if not head.isdigit() or lines[at][_DIGITS : _DIGITS + 1] != b"\t":
            if lines[at][_DIGITS : _DIGITS + 1].isdigit():
                return None
            at += 1
            continue
        first = int(head)
        wanted = _numbers(first, len(lines) - at)
        if not wanted:
            return None
        same = _common(heads[at * _DIGITS :], wanted) // _DIGITS
        offset = sum(map(len, lines[:at])) + at
        if runs and runs[-1].last + 1 == first:
            first, offset = runs[-1].first, runs[-1].offset
            runs.pop()
        runs.append(_Run(first, int(head) + same - 1, offset))
        at += same
    return None


def _numbers(first: int, count: int) -> bytes:
    """Running numbers of 8 digits one behind the other; nothing where they have more."""
    end = first + count
    if end > 10**_DIGITS:
        return b""
    pieces = []
    while first < end:
        high, low = divmod(first, len(_LOW))
        until = min(end - high * len(_LOW), len(_LOW))
        digits = b"%04d" % high
        pieces += [digits, digits.join(_LOW[low:until])]
        first = high * len(_LOW) + until
    return b"".join(pieces)


def _common(a: bytes, b: bytes) -> int:
    """How many bytes two strings of one length have in common at their beginning."""
    if a == b:
        return len(a)
    low, high = 0, len(a)
    while high - low > 1:
        middle = (low + high) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low


def _last_lines(capture: _Capture) -> tuple[tuple[LogLine, ...], int]:
    """The last lines of a capture, and the number of the first of them in the file."""
    raw = capture.tail.split(b"\n")
    if raw and not raw[-1]:
        raw.pop()
    if len(raw) < capture.lines and len(raw) > 1:
        raw = raw[1:]
    raw = raw[-LAST_LINES:]
    first = capture.first_line + capture.lines - len(raw)
    parsed = [parse_line(decode(one[:LINE_LIMIT]).rstrip("\r")) for one in raw]
    if not any(map(_is_print, parsed)):
        return (), first
    return tuple(_log_line(one) for one in parsed if one.text.strip()), first


def _log_line(line: DbgLine) -> LogLine:
    text = plain(line.text)
    return LogLine(line.index, line.time, text, driver_of(text))


def driver_of(text: str) -> str | None:
    """The driver that a printed line names at its beginning, in lower case, if it names one."""
    match = _DRIVER.match(text)
    return (match[1] or match[2]).lower() if match else None
