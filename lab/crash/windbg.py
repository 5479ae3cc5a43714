"""What WinDbg and the blue screen say: ``!analyze``, stacks, module lists, ``*** STOP``.

The forms are those of the Debugging Tools for Windows 6.x as shown in public reports: the
banner when a dump is loaded, ``BugCheck CODE, {p1, p2, p3, p4}``, ``Probably caused by``,
``ArgN:``, ``STACK_TEXT:``, ``ModLoad:``, ``lm`` lists, and the text that the kernel prints on
the debugger's port (``*** Fatal System Error``, ``*** Assertion failed``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from lab.crash.draft import Draft, hexadecimal, module_name
from lab.crash.facts import CrashFact, Frame, Module, plain_code
from lab.crash.text import Line, head_text, lines

READER = "WinDbg text"

NEEDLES = (
    b"BugCheck ",
    b"Windows Debugger",
    b"Probably caused by",
    b"Fatal System Error",
    b"*** STOP",
    b"STACK_TEXT",
    b"BUGCHECK_STR",
    b"ModLoad: ",
    b"Assertion failed",
    b"FAULTING_IP",
    b"Bugcheck Analysis",
)
"""Bytes without one of which a piece of a file is none of this reader's."""

MAX_CRASHES = 100

_MARK = re.compile(
    r"^\s*BugCheck [0-9A-Fa-f]{1,8}, \{|Microsoft \(R\) Windows Debugger|Probably caused by ?:"
    r"|^\s*\*\*\* Fatal System Error: 0x|\*\*\* STOP: ?0x|^\s*STACK_TEXT:|^\s*BUGCHECK_STR:"
    r"|^\s*\.?ModLoad: [0-9a-f`]{8}|\*\*\* Assertion failed:|^\s*FAULTING_IP:"
    r"|Bugcheck Analysis",
    re.MULTILINE,
)
_H = r"(?:0x)?([0-9A-Fa-f]{1,8}(?:`?[0-9A-Fa-f]{8})?)"

_DUMP = re.compile(r"Loading Dump File \[(.{1,300})\]")
_BUGCHECK = re.compile(r"^\s*BugCheck ([0-9A-Fa-f]{1,8}), \{([^}]{0,120})\}?")
_FATAL = re.compile(r"\*\*\* Fatal System Error: 0x([0-9A-Fa-f]{1,8})")
_STOP = re.compile(r"\*\*\* STOP: ?0x([0-9A-Fa-f]{1,8})(.*)")
_FOUR = re.compile(rf"\(\s*{_H}\s*,\s*{_H}\s*,\s*{_H}\s*,\s*{_H}\s*\)?")
_TITLE = re.compile(r"^\s*([A-Z][A-Z0-9_]{5,60}) \(([0-9a-fA-F]{1,8})\)\s*$")
_NAME_LINE = re.compile(r"^\s*([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)\s*$")
_ARG = re.compile(rf"^\s*Arg([1-4]): {_H}")
_CAUSE = re.compile(r"Probably caused by ?: ([^\s(]{1,100})(?:\s*\(\s*([^\s)]{1,200})\s*\))?")
_KEY = re.compile(r"^\s*(IMAGE_NAME|MODULE_NAME|PROCESS_NAME|DEBUG_FLR_IMAGE_TIMESTAMP):\s+(\S.*)")
_BLAMED = re.compile(
    rf"^\s*\*\*\*\s+([\w.-]{{1,60}}\.(?:sys|exe|dll)) - Address {_H} base at {_H},"
    rf"\s*Date[Ss]tamp\s+{_H}",
    re.IGNORECASE,
)
_SYSTEM = re.compile(r"^\s*(Windows .{1,60}? Kernel Version \d.*)")
_SESSION = re.compile(r"^\s*Debug session time: (.{5,80})")
_MODLOAD = re.compile(rf"^\s*\.?ModLoad: {_H} {_H}\s+(\S.*)")
_LM = re.compile(rf"^\s*{_H}\s{{1,3}}{_H}\s{{2,}}([\w.-]{{1,60}})(?:\s+(.*))?$")
_LM_TIME = re.compile(r"\(([0-9A-Fa-f]{8})\)\s*$")
_FILE = re.compile(r"[\w.-]{1,60}\.(?:sys|exe|dll)", re.IGNORECASE)
_UNLOADED = re.compile(r"^\s*Unloaded modules:")
# "f78dac4c 8054b9ac 00000000 00000000 00000000 nt!KiTrap0E+0x233", with or without a frame
# number before it, and with its 64-bit and "kv" forms.
_STACK = re.compile(
    r"^\s*(?:[0-9a-f]{2} )?[0-9a-f]{8}(?:`?[0-9a-f]{8})? [0-9a-f]{8}(?:`?[0-9a-f]{8})?"
    r"(?: :)?(?: [0-9a-f]{8}(?:`?[0-9a-f]{8})?){0,4}(?: :)? (.{1,300})$",
    re.IGNORECASE,
)
_PLACE = re.compile(
    r"^([A-Za-z_][\w.-]{0,60})(?:!([^\s+\[(]{1,200}))?(?:\+0x([0-9a-fA-F]{1,8}))?(?:\s|$)"
)
_PLACE_PLAIN = re.compile(
    r"^([A-Za-z_][\w.-]{0,60})(?:!([^\s+\[(]{1,200}))?(?:\+(?:0x)?([0-9a-fA-F]{1,8}))?$"
)
_REGISTERS = re.compile(
    r"\b(e[abcd]x|e[sd]i|e[bs]p|eip|r[abcd]x|r[sd]i|r[bs]p|rip|r\d{1,2}|cr[0-4])"
    r"=([0-9a-f]{8,16})\b"
)
_ASSERT = re.compile(r"^\s*\*\*\* Assertion failed: (.{1,400})")
_ASSERT_AT = re.compile(r"^\s*\*\*\*\s+Source File: (.{1,200}), line (\d{1,9})")
_TRUNCATED = re.compile(
    r"dump file (?:is|has been) truncated|Could not read (?:full|partial) ", re.I
)


def recognise(head: bytes, name: str) -> bool:
    """Whether a piece of a file holds what WinDbg or a blue screen prints."""
    return _MARK.search(head_text(head)) is not None


def read(path: Path) -> list[CrashFact]:
    """Read a debugger's text.

    Returns:
        One fact for each dump loaded or bugcheck printed, in their order; none when nothing
        in it tells of a crash.

    Raises:
        UsageError: it cannot be read.
    """
    return parse(lines(path), path.name)


def parse(source: Iterable[Line], file: str) -> list[CrashFact]:
    """Read a debugger's text line by line.

    Args:
        source: the lines.
        file: name for the facts' sources.
    """
    session = _Session(file)
    for line in source:
        session.feed(line)
        if session.full:
            break
    return session.end()


class _Session:
    """The crashes of one text; a new one begins at a banner or another bugcheck."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._done: list[CrashFact] = []
        self._draft = Draft(READER, file)
        self._mode = ""
        self._wait_parameters = False

    @property
    def full(self) -> bool:
        return len(self._done) >= MAX_CRASHES

    def end(self) -> list[CrashFact]:
        self._finish()
        return self._done

    def _finish(self) -> None:
        # A module list alone says nothing about a crash, but it is what some dumps yield.
        if self._draft.knows():
            self._done.append(self._draft.fact())
        self._draft = Draft(READER, self._file)
        self._mode = ""
        self._wait_parameters = False

    def feed(self, line: Line) -> None:
        text = line.text
        if not text.strip():
            if self._mode in ("stack", "unloaded") and self._draft.frames:
                self._mode = ""
            return
        for step in (self._begin, self._codes, self._blame, self._places, self._modules):
            with suppress(ValueError):
                if step(line, text):
                    return

    def _begin(self, line: Line, text: str) -> bool:
        if dump := _DUMP.search(text):
            if self._draft.has("code") or self._draft.has("modules"):
                self._finish()
            self._draft.note(f"dump: {dump[1]}")
            return True
        if _TRUNCATED.search(text):
            self._draft.note(f"truncated: {text.strip()}")
            return True
        return False

    def _code(self, code: int, line: Line) -> None:
        """A bugcheck's code; a different one is another crash."""
        known = self._draft.get("code")
        if known is not None and plain_code(known) != plain_code(code):
            self._finish()
        self._draft.kind = "bugcheck"
        self._draft.put("code", code, line.number)

    def _codes(self, line: Line, text: str) -> bool:
        draft = self._draft
        if found := _BUGCHECK.match(text):
            self._code(int(found[1], 16), line)
            given = [hexadecimal(one) for one in found[2].split(",")[:4] if one.strip()]
            self._draft.put("parameters", tuple(given), line.number)
            return True
        if found := _FATAL.search(text) or _STOP.search(text):
            self._code(int(found[1], 16), line)
            self._wait_parameters = True
        if self._wait_parameters:
            if given4 := _FOUR.search(text):
                values = tuple(hexadecimal(one) for one in given4.groups())
                self._draft.put("parameters", values, line.number)
                self._wait_parameters = False
                return True
            if found:
                return True
            self._wait_parameters = False
        if title := _TITLE.match(text):
            self._code(int(title[2], 16), line)
            self._draft.put("name", title[1], line.number)
            return True
        if draft.has("code") and (named := _NAME_LINE.match(text)):
            draft.put("name", named[1], line.number)
            return True
        if argument := _ARG.match(text):
            self._argument(int(argument[1]), hexadecimal(argument[2]), line)
            return True
        if failed := _ASSERT.match(text):
            if draft.kind == "unknown":
                draft.kind = "assert"
            draft.put("message", f"Assertion failed: {failed[1].strip()}", line.number)
            return True
        if where := _ASSERT_AT.match(text):
            draft.note(f"assertion at {where[1]}, line {where[2]}")
            return True
        return False

    def _argument(self, number: int, value: int, line: Line) -> None:
        given = list(self._draft.get("parameters") or ())
        if len(given) >= 4:
            return
        if number == len(given) + 1:
            self._draft.put("parameters", (*given, value), line.number, again=True)

    def _blame(self, line: Line, text: str) -> bool:
        draft = self._draft
        if cause := _CAUSE.search(text):
            name = module_name(cause[1])
            if "unknown" not in name.lower():
                draft.put("module", name, line.number, again=True)
            if cause[2] and not draft.frames and (place := _frame(cause[2], _PLACE_PLAIN)):
                draft.frame(place, line.number)
            return True
        if key := _KEY.match(text):
            name, value = key[1], key[2].strip()
            if name == "PROCESS_NAME":
                draft.put("process", value, line.number)
            elif name in ("IMAGE_NAME", "MODULE_NAME") and "unknown" not in value.lower():
                draft.put("module", module_name(value), line.number)
            return True
        if blamed := _BLAMED.match(text):
            address, base = hexadecimal(blamed[2]), hexadecimal(blamed[3])
            name = module_name(blamed[1])
            draft.put("module", name, line.number)
            draft.module(Module(blamed[1], base, base, hexadecimal(blamed[4])), line.number)
            if not draft.frames and address >= base:
                draft.frame(Frame(name, None, address - base, address), line.number)
            return True
        if system := _SYSTEM.match(text):
            draft.put("system", system[1].strip(), line.number)
            return True
        if session := _SESSION.match(text):
            draft.put("when", session[1].strip(), line.number)
            return True
        if registers := _REGISTERS.findall(text):
            for name, value in registers:
                draft.register(name, int(value, 16), line.number)
            return True
        return False

    def _places(self, line: Line, text: str) -> bool:
        draft = self._draft
        bare = text.strip()
        if bare.startswith("STACK_TEXT:"):
            # The blamed place and the faulting instruction are part of the stack as well.
            draft.clear_frames()
            self._mode = "stack"
            return True
        if bare.startswith("FAULTING_IP:"):
            self._mode = "faulting"
            return True
        if bare.startswith(("ChildEBP RetAddr", "# ChildEBP", "Child-SP", "# Child-SP")):
            if not draft.frames:
                self._mode = "stack"
            return True
        if bare.startswith("WARNING: Stack unwind information not available"):
            draft.note("the debugger's stack may be wrong: no unwind information")
            return True
        if self._mode == "faulting":
            self._mode = ""
            if not draft.frames and (place := _frame(bare, _PLACE_PLAIN)):
                draft.frame(place, line.number)
            return True
        if self._mode == "stack":
            stack = _STACK.match(text)
            if stack is None:
                self._mode = ""
                return False
            place = _frame(stack[1].strip(), _PLACE)
            draft.frame(place or _address(stack[1]), line.number)
            return True
        return False

    def _modules(self, line: Line, text: str) -> bool:
        draft = self._draft
        if _UNLOADED.match(text):
            self._mode = "unloaded"
            return True
        if loaded := _MODLOAD.match(text):
            start, end = hexadecimal(loaded[1]), hexadecimal(loaded[2])
            name = loaded[3].strip().rpartition("\\")[2]
            draft.module(Module(name[:80], start, end), line.number)
            return True
        if listed := _LM.match(text):
            start, end = hexadecimal(listed[1]), hexadecimal(listed[2])
            if end <= start or end - start > 1 << 32:
                return False
            rest = listed[4] or ""
            stamp = _LM_TIME.search(rest)
            file = _FILE.search(rest)
            name = file[0] if file else listed[3]
            draft.module(
                Module(name, start, end, int(stamp[1], 16) if stamp else None,
                       unloaded=self._mode == "unloaded"),
                line.number,
            )  # fmt: skip
            return True
        return False


def _frame(text: str, pattern: re.Pattern[str]) -> Frame | None:
    place = pattern.match(text)
    if place is None:
        return None
    module = module_name(place[1])
    offset = int(place[3], 16) if place[3] else None
    if place[2] is None and offset is None and "!" not in text:
        return Frame(module)
    return Frame(module, place[2], offset)


def _address(text: str) -> Frame:
    """The frame of a place that no module holds."""
    with suppress(ValueError):
        return Frame(address=hexadecimal(text.split()[0]))
    return Frame()
