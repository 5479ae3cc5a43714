"""Xen's own words: domains it crashed, its panics, out of serial logs and ``xl dmesg``.

Forms: xen/common/domain.c (``domain_crash called from``), xen/arch/x86/traps.c and
x86_64/traps.c (``Domain N (vcpu#N) crashed on cpu#N``, registers, ``Xen call trace``),
xen/drivers/char/console.c (``Panic on CPU``), of Xen 3.1 to 4.17.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from lab.crash.draft import Draft
from lab.crash.facts import CrashFact, Frame, LogLine
from lab.crash.text import Line, head_text, lines

READER = "Xen log"

NEEDLES = (b"(XEN)",)
"""Bytes without one of which a piece of a file is none of this reader's."""

LAST_LINES = 20
MAX_CRASHES = 100
_LONGEST = 150

_PREFIX = re.compile(r"^\(XEN\)\s?(?:\[[^\]]{1,40}\]\s?)?")
_BEGIN = re.compile(
    r"domain_crash(?:_sync(?:hronous)?)? called from (?P<from>\S.{0,200})"
    r"|Domain (?P<crashed>\d{1,5}) \(vcpu#\d{1,4}\) crashed on cpu#\d{1,4}"
    r"|Domain (?P<reported>\d{1,5}) reported crashed by domain (?P<by>\d{1,5})"
    r"|d(?P<triple>\d{1,5})v\d{1,4} Triple fault.{0,100}"
    r"|Triple fault (?:detected )?on VCPU\d.{0,100}"
    r"|Panic on CPU \d{1,4}"
    r"|FATAL TRAP: vector = .{1,100}|FATAL PAGE FAULT"
    r"|Assertion '.{1,200}' failed(?:, line \d{1,9}, file| at) .{1,200}"
    r"|Xen BUG at .{1,200}"
    r"|(?:Hardware )?Dom(?:ain )?0 (?:crashed|halted): .{0,100}"
)
_MARK = re.compile(
    r"domain_crash(?:_sync(?:hronous)?)? called from|\(vcpu#\d+\) crashed on cpu#"
    r"|reported crashed by domain|Triple fault|Panic on CPU \d|FATAL TRAP: vector"
    r"|FATAL PAGE FAULT|Assertion '.{1,200}' failed|Xen BUG at |Dom(?:ain )?0 crashed: "
)
_RULE = re.compile(r"^\*{20,}")
_BANNER = re.compile(r"^----\[ (Xen-\S{1,40})\s+(\S{1,20})")
_IP = re.compile(
    r"^[ER]IP:\s+([0-9a-f]{1,4}):\[<([0-9a-f]{8,16})>\](?: ([\w.#]{1,100})\+0x([0-9a-f]{1,8}))?"
)
_CONTEXT = re.compile(r"CONTEXT: ([a-z]+(?: guest)?)(?: \((d\d+v\d+)\))?")
_REGISTERS = re.compile(r"\b([re][a-d]x|[re][sd]i|[re][sb]p|r\d{1,2}|cr[0-4]): +([0-9a-f]{8,16})\b")
_TRACE = re.compile(r"^Xen call trace:")
_CALL = re.compile(
    r"^\s*\[<([0-9a-f]{8,16})>\]\s+(?:([RSF]) )?([\w.#]{1,120})\+(?:0x)?([0-9a-f]{1,8})"
)
_PANIC_END = re.compile(r"^(?:Reboot in |Manual reset required|Rebooting )")


def recognise(head: bytes, name: str) -> bool:
    """Whether a piece of a file holds a line in which Xen stops a domain or itself."""
    text = head_text(head)
    return "(XEN)" in text and _MARK.search(text) is not None


def read(path: Path) -> list[CrashFact]:
    """Read Xen's log.

    Returns:
        One fact for each domain that Xen crashed, and for each panic of Xen's.

    Raises:
        UsageError: it cannot be read.
    """
    return parse(lines(path), path.name)


def parse(source: Iterable[Line], file: str) -> list[CrashFact]:
    """Read Xen's log line by line.

    Args:
        source: the lines; those without Xen's prefix are left out.
        file: name for the facts' sources.
    """
    done: list[CrashFact] = []
    before: deque[Line] = deque(maxlen=LAST_LINES)
    crash: _Crash | None = None
    for raw in source:
        prefix = _PREFIX.match(raw.text)
        if prefix is None:
            # A guest's console may be in the same file; its lines are another reader's.
            continue
        line = Line(raw.number, raw.text[prefix.end() :])
        began = _BEGIN.search(line.text)
        if began is not None and (crash is None or not crash.takes(began, line)):
            if crash is not None:
                done.append(crash.draft.fact())
                if len(done) >= MAX_CRASHES:
                    return done
            crash = _Crash(file, began, line, before)
            before.clear()
        elif crash is not None and began is None:
            crash.feed(line)
            if crash.over:
                done.append(crash.draft.fact())
                crash = None
        if crash is None and line.text.strip():
            before.append(line)
    if crash is not None:
        done.append(crash.draft.fact())
    return done[:MAX_CRASHES]


class _Crash:
    """One stop while its lines arrive."""

    def __init__(self, file: str, began: re.Match[str], line: Line, before: Iterable[Line]) -> None:
        self.draft = Draft(READER, file, "xen")
        self.over = False
        self._left = _LONGEST
        self._in_trace = False
        self._xen = not self._domain(began, line)
        self._wait_reason = False
        last = list(before)
        self.draft.log(
            [LogLine(None, None, one.text) for one in last],
            last[0].number if last else 0,
            last[-1].number if last else 0,
        )
        self._message(began, line)

    def takes(self, began: re.Match[str], line: Line) -> bool:
        """Whether another telling line still belongs to this crash."""
        if self._xen:
            self._message(began, line)
            return True
        if began["crashed"] and not self.draft.has("process"):
            # "domain_crash called from" comes right before it, or registers do.
            return self._domain(began, line)
        if began["crashed"] and self.draft.get("process") == f"domain {began['crashed']}":
            return not self.draft.has("registers")
        return False

    def feed(self, line: Line) -> None:
        """Take one more line, without Xen's prefix."""
        self._left -= 1
        text, draft = line.text, self.draft
        if self._left <= 0 or _PANIC_END.match(text.strip()):
            self.over = True
            return
        if self._wait_reason and text.strip() and not _RULE.match(text.strip()):
            draft.put("message", f"Panic: {text.strip()}", line.number, again=True)
            self._wait_reason = False
            return
        if self._in_trace:
            call = _CALL.match(text)
            if call is not None:
                if call[2] != "S":
                    draft.frame(_frame(call[3], call[4], call[1]), line.number)
                return
            self._in_trace = False
        if _TRACE.match(text.strip()):
            self._in_trace = True
        elif banner := _BANNER.match(text.strip()):
            draft.put("system", f"{banner[1]} {banner[2]}", line.number)
        elif place := _IP.match(text.strip()):
            draft.register("ip", int(place[2], 16), line.number)
            if place[3] is None:
                draft.frame(Frame(address=int(place[2], 16)), line.number)
            else:
                # The call trace begins with the same place.
                draft.note(f"stopped at {place[3]}+0x{place[4]}")
        elif context := _CONTEXT.search(text):
            draft.note(f"context: {context[1]}" + (f" {context[2]}" if context[2] else ""))
            if context[2]:
                draft.put("process", f"domain {context[2][1:].partition('v')[0]}", line.number)
        for name, value in _REGISTERS.findall(text):
            draft.register(name, int(value, 16), line.number)

    def _domain(self, began: re.Match[str], line: Line) -> bool:
        number = began["crashed"] or began["reported"] or began["triple"]
        if number:
            self.draft.put("process", f"domain {number}", line.number)
        return bool(number) or began["from"] is not None or "on VCPU" in began[0]

    def _message(self, began: re.Match[str], line: Line) -> None:
        if began[0].startswith("Panic on CPU"):
            self._wait_reason = True
        weak = self.draft.has("message")
        if not weak or began["from"]:
            self.draft.put("message", began[0].strip(), line.number, again=True)
        elif not began["crashed"]:
            self.draft.note(began[0].strip())


def _frame(symbol: str, offset: str, address: str) -> Frame:
    return Frame("xen", symbol.rpartition("#")[2], int(offset, 16), int(address, 16))
