"""Linux kernels that stop: oopses and panics out of serial logs and ``dmesg``.

Forms: arch/x86/kernel/dumpstack.c, arch/x86/mm/fault.c, kernel/panic.c, lib/bug.c and
kernel/watchdog.c of Linux 2.6.18 (the dom0 of Xen 3.1) to 6.1 (the stand-in guest).
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from lab.crash.draft import Draft, hexadecimal
from lab.crash.facts import CrashFact, Frame, Kind, LogLine, Module
from lab.crash.text import Line, head_text, lines

READER = "Linux serial log"

NEEDLES = (
    b"BUG: ",
    b"Unable to handle kernel",
    b"kernel BUG at",
    b"Kernel panic",
    b"LOCKUP",
    b"Oops: ",
    b"general protection fault",
    b"INFO: task ",
)
"""Bytes without one of which a piece of a file is none of this reader's."""

LAST_LINES = 20
"""Lines kept before the first line of an oops."""

MAX_CRASHES = 100

# Of one crash; a call trace is about forty, a panic's backtrace comes after the oops's.
_LONGEST = 400

_BEGIN: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    ("oops", re.compile(r"BUG: unable to handle (?:kernel )?.{0,200}")),
    ("oops", re.compile(r"Unable to handle kernel .{0,200}")),
    ("oops", re.compile(r"BUG: kernel NULL pointer dereference.{0,200}")),
    ("oops", re.compile(r"kernel BUG at .{1,200}")),
    ("oops", re.compile(r"(?<!traps: )general protection fault.{0,200}")),
    ("oops", re.compile(r"(?:divide error|invalid opcode|stack segment|double fault): .{0,200}")),
    ("panic", re.compile(r"Kernel panic - not syncing.{0,200}")),
    ("panic", re.compile(r"Kernel panic: .{0,200}")),
    ("hang", re.compile(r"(?:watchdog: )?BUG: soft lockup.{0,200}")),
    ("hang", re.compile(r"NMI watchdog: Watchdog detected hard LOCKUP.{0,200}")),
    ("hang", re.compile(r"INFO: task \S{1,40} blocked for more than .{0,200}")),
    ("oops", re.compile(r"Oops: [0-9a-f]{4} .{0,100}")),
)
_QUICK = re.compile(
    r"BUG|Unable to handle|general protection|divide error|invalid opcode|stack segment"
    r"|double fault|Kernel panic|LOCKUP|INFO: task|Oops: "
)
_MARK = re.compile(
    r"BUG: unable to handle |Unable to handle kernel |kernel BUG at |Kernel panic"
    r"|BUG: kernel NULL pointer|BUG: soft lockup|detected hard LOCKUP|Oops: [0-9a-f]{4} "
    r"|general protection fault|INFO: task \S{1,40} blocked for more than"
)
_END = re.compile(
    r"---\[ end trace|---\[ end Kernel panic|Rebooting in \d+ seconds|<0>Rebooting"
    r"|Linux version \d|SeaBIOS \(version"
)
_STAMP = re.compile(r"^\s*(?:<\d>)?\[\s*(\d{1,10}\.\d{1,9})\](?:\[\s*[TC]\d+\])? ?")
_DATE = re.compile(
    r"^(?:\[?\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d\S*|[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \S+)\s"
    r"(?:kernel: )?"
)
_OOPS = re.compile(r"^(?:Oops|invalid opcode|general protection fault\S*): ([0-9a-f]{4})\b")
_CPU = re.compile(
    r"^CPU: \d+ (?:UID: \d+ )?PID: (\d+) Comm: (.{1,30}?) "
    r"(?:Tainted: [A-Z ]{1,40}?|Not tainted)\s+(\d\S*)"
)
_OLD_PID = re.compile(r"^Process (.{1,30}?) \(pid: \d+")
_HARDWARE = re.compile(r"^Hardware name: (.{1,100})")
_IP = re.compile(r"^(?:[ER]IP: |[ER]IP is at |IP: |pc : )(.{1,300})$")
_TRACE = re.compile(r"^Call Trace:|^ <(?:TASK|IRQ)>")
_FUNCTION = re.compile(
    r"^(?:[0-9a-f]{2,4}:)?\s*(?:\[<([0-9a-f]{8,16})>\])?\s*(\?)?\s*"
    r"([A-Za-z_.][\w.$]{0,120})\+0x([0-9a-f]{1,8})(?:/0x[0-9a-f]{1,8})?"
    r"(?: \[([\w-]{1,60})[^\]]*\])?"
)
_RAW_IP = re.compile(r"^(?:[0-9a-f]{2,4}:)?\s*(?:\[<([0-9a-f]{8,16})>\]|0x([0-9a-f]{1,16}))")
_REGISTERS = re.compile(r"\b([ER][A-DSI][XIP]|[ER][SB]P|EAX|R\d\d|CR[0-4]): ([0-9a-f]{8,16})\b")
_LINKED = re.compile(r"^Modules linked in:(.*)")
_LINKED_ONE = re.compile(r"([A-Za-z][\w-]{0,60})(?:\([A-Z+-]{1,6}\))?(?=\s|$)")
_UNLOADED = re.compile(r"\[last unloaded: ([\w-]{1,60})")
# "panic(DEFECT " (%s)", probe->symbol_name)": the seeded defects name module:function.
_NAMED = re.compile(r"\(([a-z][\w-]{0,60}):([A-Za-z_]\w{0,120})\)")

#: Functions that only report: the crash is in what called them.
REPORTING = frozenset(
    [
        "panic",
        "dump_stack",
        "dump_stack_lvl",
        "show_stack",
        "show_trace",
        "show_trace_log_lvl",
        "show_stack_log_lvl",
        "die",
        "__die",
        "die_addr",
        "oops_end",
        "oops_begin",
        "no_context",
        "page_fault_oops",
        "__bad_area_nosemaphore",
        "bad_area_nosemaphore",
        "kernelmode_fixup_or_oops",
        "do_user_addr_fault",
        "do_kern_addr_fault",
        "exc_page_fault",
        "handle_exception",
        "do_page_fault",
        "__do_page_fault",
        "error_code",
        "common_exception",
        "asm_exc_page_fault",
        "do_trap",
        "do_error_trap",
        "exc_invalid_op",
        "asm_exc_invalid_op",
        "do_invalid_op",
        "handle_bug",
        "__warn",
        "report_bug",
        "exc_general_protection",
        "asm_exc_general_protection",
        "check_panic_on_warn",
        "nmi_panic",
        "watchdog_timer_fn",
        "crash_kexec",
        "invalid_op",
    ]
)


def recognise(head: bytes, name: str) -> bool:
    """Whether a piece of a file holds the first line of an oops or a panic."""
    return _MARK.search(head_text(head)) is not None


def read(path: Path) -> list[CrashFact]:
    """Read a serial log.

    Returns:
        One fact for each crash, in their order; an oops and the panic it leads to are one.

    Raises:
        UsageError: it cannot be read.
    """
    return parse(lines(path), path.name)


def parse(source: Iterable[Line], file: str, reader: str = READER) -> list[CrashFact]:
    """Read a serial log line by line.

    Args:
        source: the lines.
        file: name for the facts' sources.
        reader: what kind of file it is.
    """
    done: list[CrashFact] = []
    before: deque[Line] = deque(maxlen=LAST_LINES)
    crash: _Crash | None = None
    for line in source:
        stamp = _STAMP.match(line.text)
        text = line.text[stamp.end() :] if stamp else _DATE.sub("", line.text, count=1)
        stamp = stamp or _STAMP.match(text)
        if stamp and text.startswith(stamp[0]):
            text = text[stamp.end() :]
        telling = _QUICK.search(text) is not None and not text.startswith("---[ end")
        began = _begin(text) if telling else None
        if began is not None and (crash is None or not crash.takes(*began)):
            if crash is not None:
                done.append(crash.fact())
                if len(done) >= MAX_CRASHES:
                    return done
            crash = _Crash(reader, file, *began, line.number, stamp[1] if stamp else None)
            crash.draft.log(
                [_log_line(one) for one in before],
                before[0].number if before else 0,
                before[-1].number if before else 0,
            )
            before.clear()
        elif crash is not None:
            crash.feed(text, line.number)
            if crash.over:
                done.append(crash.fact())
                crash = None
                if len(done) >= MAX_CRASHES:
                    return done
        if crash is None and line.text.strip():
            before.append(line)
    if crash is not None:
        done.append(crash.fact())
    return done


def _begin(text: str) -> tuple[Kind, str] | None:
    for kind, pattern in _BEGIN:
        if found := pattern.search(text):
            return kind, found[0].strip()
    return None


def _log_line(line: Line) -> LogLine:
    stamp = _STAMP.match(line.text)
    if stamp is None:
        return LogLine(None, None, line.text)
    text = line.text[stamp.end() :]
    driver = re.match(r"([a-z][\w-]{1,30})(?: [\w.-]{1,20})?: ", text)
    return LogLine(None, stamp[1], text, driver[1] if driver else None)


class _Crash:
    """One oops or panic while its lines arrive."""

    def __init__(
        self, reader: str, file: str, kind: Kind, message: str, number: int, when: str | None
    ) -> None:
        self.draft = Draft(reader, file, kind)
        self.draft.put("message", message, number)
        self.draft.put("when", f"{when} s after boot" if when else None, number)
        self.over = False
        self._left = _LONGEST
        self._panicked = kind == "panic"
        self._trace_lines = 0
        self._in_trace = False
        self._traced = False
        self._place: Frame | None = None
        self._place_line = number
        self._release = ""
        self._hardware = ""
        self._named(message, number)

    def takes(self, kind: Kind, message: str) -> bool:
        """Whether another first line still belongs to this crash."""
        if kind == "panic" and not self._panicked:
            self._panicked = True
            self._in_trace = False
            self._left = min(self._left, 80)
            self.draft.note(f"then: {message}")
            return True
        # "invalid opcode: 0000 [#1]" follows "kernel BUG at".
        first = str(self.draft.get("message"))
        return (
            kind == "oops"
            and self.draft.kind == "oops"
            and not self._traced
            and message != first
            and bool(_OOPS.match(message))
        )

    def feed(self, text: str, number: int) -> None:
        """Take one more line."""
        self._left -= 1
        if self._left <= 0:
            self.over = True
        if _END.search(text):
            # An oops may still be followed by its panic, a panic by nothing.
            self._in_trace = False
            if self._panicked or not text.startswith("---[ end trace"):
                self.over = True
            else:
                self._left = min(self._left, 20)
            return
        if self._in_trace and self._function(text, number):
            return
        with suppress(ValueError):
            self._facts(text, number)

    def fact(self) -> CrashFact:
        """The crash."""
        draft = self.draft
        frames = list(draft.frames)
        if self._place is not None and (not frames or frames[0] != self._place):
            rest = draft.frames
            draft.clear_frames()
            draft.frame(self._place, self._place_line)
            for one in rest:
                draft.frame(one, self._place_line)
        blamed = next((one.module for one in draft.frames if one.module is not None), None)
        if blamed is not None:
            draft.put("module", blamed, self._place_line)
        if self._release:
            system = f"Linux {self._release}" + (f", {self._hardware}" if self._hardware else "")
            draft.put("system", system, self._place_line)
        return draft.fact()

    def _named(self, message: str, number: int) -> None:
        if named := _NAMED.search(message):
            self.draft.put("module", named[1], number)

    def _function(self, text: str, number: int) -> bool:
        bare = text.strip()
        if bare.startswith("<") and bare.endswith(">"):
            return True
        frame, unsure = _function(bare)
        if frame is None:
            # Old kernels end a trace with an "=====" line, all others with what comes next.
            self._in_trace = False
            return False
        self._trace_lines += 1
        if not unsure and frame.symbol not in REPORTING:
            self.draft.frame(frame, number)
        return True

    def _facts(self, text: str, number: int) -> None:
        draft = self.draft
        bare = text.strip()
        if _TRACE.match(text):
            # The first trace is the crash's; a panic after an oops prints its own as well.
            self._in_trace = not self._traced
            self._traced = True
        elif cpu := _CPU.match(bare):
            draft.put("process", cpu[2], number)
            self._release = self._release or cpu[3]
            if self._place is None:
                self._place_line = number
        elif hardware := _HARDWARE.match(bare):
            self._hardware = self._hardware or _domain(hardware[1])
        elif process := _OLD_PID.match(bare):
            draft.put("process", process[1], number)
        elif linked := _LINKED.match(bare):
            self._modules(linked[1], number)
        elif (place := _IP.match(bare)) and self._place is None:
            frame, _ = _function(place[1])
            if frame is None and (raw := _RAW_IP.match(place[1])) and (
                digits := raw[1] or raw[2]
            ):  # fmt: skip
                draft.register("ip", hexadecimal(digits), number)
            elif frame is not None:
                self._place, self._place_line = frame, number
        if not self._panicked or not draft.has("registers"):
            for name, value in _REGISTERS.findall(bare):
                draft.register(name, int(value, 16), number)

    def _modules(self, text: str, number: int) -> None:
        unloaded = _UNLOADED.search(text)
        listed = text.partition("[")[0]
        for name in _LINKED_ONE.findall(listed):
            self.draft.module(Module(name, 0, 0), number)
        if unloaded is not None:
            self.draft.module(Module(unloaded[1], 0, 0, unloaded=True), number)


def _domain(hardware: str) -> str:
    """``Xen HVM domU, BIOS 4.17.5 06/01/2024`` without the BIOS."""
    return hardware.partition(",")[0].strip()


def _function(text: str) -> tuple[Frame | None, bool]:
    """A place in the form ``name+0x12/0x340 [module]``, and whether the kernel doubts it."""
    found = _FUNCTION.match(text)
    if found is None:
        return None, False
    address = int(found[1], 16) if found[1] else None
    symbol = found[3]
    return Frame(found[5], symbol, int(found[4], 16), address), found[2] is not None
