"""What makes two crashes the same: a signature that ignores what differs by chance.

Addresses, times, numbers, device names and domain ids change from crash to crash and are
replaced by placeholders. Two facts with the same key are the same crash as far as they tell;
others are compared piece by piece, and the score comes with its reasons in words.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, TypeVar

from lab.core.errors import UsageError
from lab.crash import bugchecks
from lab.crash.facts import KINDS, CrashFact, Frame, Kind, plain_code
from lab.crash.oops import REPORTING

TOP_FRAMES = 5
"""Frames that a signature keeps."""

KEY_FRAMES = 3
"""Frames that two crashes must share to be the same, where none is the blamed driver's."""

LAST_LINES = 5
"""Last lines that a signature keeps."""

NEAR = 0.5
"""Score from which another crash is worth being shown as a near match."""

# Windows' kernel has four builds and one module name in debuggers; hal has six.
_KERNEL = re.compile(r"^(?:ntoskrnl|ntkrnlpa|ntkrnlmp|ntkrpamp|nt)(?:\.exe)?$")
_HAL = re.compile(r"^hal\w*(?:\.dll)?$")
# Functions of nt that stop the machine: the crash is in what called them.
_WINDOWS_REPORTING = frozenset(
    (
        "KeBugCheck",
        "KeBugCheckEx",
        "KeBugCheck2",
        "KiTrap0E",
        "KiTrap0D",
        "KiTrap03",
        "KiBugCheckDispatch",
        "KiPageFault",
        "RtlAssert",
        "DbgBreakPoint",
        "RtlpBreakWithStatusInstruction",
    )
)
# What compilers append to the name of a function that they split or cloned.
_CLONE = re.compile(r"(?:\.(?:cold|isra|part|constprop|lto_priv)(?:\.\d+)?)+$")

_SCRUB: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\bCPU:? ?#?\d+(?:\[\d+\])?", re.IGNORECASE), "CPU <n>"),
    (re.compile(r"\{[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\}", re.IGNORECASE), "<guid>"),
    (re.compile(r"/dev/[\w/.-]+"), "<dev>"),
    (re.compile(r"\\Device\\[\w\\.-]+|PhysicalDrive\d+|Harddisk\d+", re.IGNORECASE), "<dev>"),
    (re.compile(r"\b(?:xvd[a-z]{1,2}|[hsv]d[a-z])\d{0,3}\b"), "<dev>"),
    (re.compile(r"\b(?:vbd|vif)[-/ ]\d+(?:[-/]\d+)?\b"), "<dev>"),
    (re.compile(r"\b(?:domain|dom|domid)[ #:=-]*\d+\b", re.IGNORECASE), "<domain>"),
    (re.compile(r"\bd\d+v\d+\b"), "<domain>"),
    (re.compile(r"/local/domain/\d+"), "/local/domain/<n>"),
    (
        re.compile(r"\b\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4} \d{1,2}:\d\d(?::\d\d)?(?:[.,]\d+)?\b"),
        "<time>",
    ),
    (re.compile(r"\b\d{1,2}:\d\d:\d\d(?:[.,]\d+)?(?: ?[AP]M)?\b", re.IGNORECASE), "<time>"),
    (re.compile(r"\b0x[0-9a-f`]+\b", re.IGNORECASE), "<n>"),
    (re.compile(r"\b(?=[0-9a-f]*\d)[0-9a-f]{6,16}\b", re.IGNORECASE), "<n>"),
    (re.compile(r"\b\d+(?:[.,]\d+)*"), "<n>"),
)
# Stop code, driver and frames: with these two accounts of one crash are compared in full.
_ENOUGH = 8.0
_WORDS = re.compile(r"<?\w+>?")

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Signature:
    """What of a crash does not change by chance.

    Attributes:
        kind: what kind of end it was.
        code: bugcheck code without the flag of minidumps.
        module: the driver it is blamed on, in one spelling.
        frames: up to ``TOP_FRAMES``, innermost first: ``xenvbd!Put``, ``xenvbd+0x1a2b``.
        message: its message, scrubbed.
        lines: up to ``LAST_LINES`` last lines, scrubbed, oldest first.
        stuck: of a hang, what never came to an end.
    """

    kind: Kind
    code: int | None = None
    module: str | None = None
    frames: tuple[str, ...] = ()
    message: str | None = None
    lines: tuple[str, ...] = ()
    stuck: str | None = None

    @property
    def key(self) -> str:
        """12 hex digits; crashes with the same one are the same crash.

        Of the pieces that are known the strongest make the key, so that the last lines of a
        log, which differ by timing, matter only where nothing better is known. Of a hang that
        is what never came to an end: which driver it is blamed on depends on who tells it.
        """
        strong: list[Any] = [self.kind, self.code, self.module, list(self.key_frames)]
        if not self.frames and self.code is None and self.stuck is not None:
            strong = [self.kind, self.stuck]
        elif not self.frames and self.code is None:
            strong.append(self.message)
            if self.message is None:
                strong.append(list(self.lines))
        text = json.dumps(strong, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode("ascii")).hexdigest()[:12]

    @property
    def key_frames(self) -> tuple[str, ...]:
        """The frames that are part of the key.

        The innermost one in the blamed driver, if there is one: what the kernel did above it
        on its way to stop, and how far the stack was walked below, depends on who looked.
        """
        for frame in self.frames:
            if self.module is not None and _module_of(frame) == self.module:
                return (frame,)
        return self.frames[:KEY_FRAMES]

    def text(self) -> str:
        """In one line, for people."""
        parts: list[str] = [self.kind]
        if self.code is not None:
            name = bugchecks.name(self.code)
            parts.append(f"0x{self.code:X}" + (f" {name}" if name else ""))
        if self.stuck is not None:
            parts.append(f"of {self.stuck}")
        if self.module is not None:
            parts.append(f"in {self.module}")
        if self.frames:
            parts.append("at " + " < ".join(self.key_frames))
        elif self.code is None and self.stuck is None and self.message is not None:
            parts.append(f"saying {self.message[:120]!r}")
        elif self.code is None and self.stuck is None and self.lines:
            parts.append(f"after {self.lines[-1][:120]!r}")
        return ", ".join([" ".join(parts[:2]), *parts[2:]]) if len(parts) > 1 else parts[0]


def signature(fact: CrashFact) -> Signature:
    """The signature of a crash."""
    frames = [text for one in fact.frames if (text := _frame(one)) is not None]
    lines = [scrub(line.text) for line in fact.log[-LAST_LINES:]]
    return Signature(
        kind=fact.kind,
        code=None if fact.code is None else plain_code(fact.code),
        module=None if fact.module is None else module_name(fact.module),
        frames=tuple(frames[:TOP_FRAMES]),
        message=None if fact.message is None else scrub(fact.message),
        lines=tuple(line for line in lines if line),
        stuck=fact.stuck,
    )


def module_name(name: str) -> str:
    """A module's name in one spelling: ``ntkrnlpa.exe`` is ``nt``, dashes are underscores."""
    name = name.lower().removesuffix(".sys").replace("-", "_")
    if _KERNEL.match(name):
        return "nt"
    if _HAL.match(name):
        return "hal"
    return name


def scrub(text: str) -> str:
    """A line with placeholders for all that changes from crash to crash."""
    for pattern, placeholder in _SCRUB:
        text = pattern.sub(placeholder, text)
    return " ".join(text.split())[:300]


def similarity(a: Signature, b: Signature) -> tuple[float, tuple[str, ...]]:
    """How alike two crashes are.

    Only what both of them know is compared; the less that is, the lower the score can get.

    Returns:
        From 0 to 1, and the reasons, the weightiest first. Equal keys give 1.
    """
    if a.key == b.key:
        return 1.0, ("the same signature",)
    found: list[tuple[float, float, str]] = []
    if a.code is not None and b.code is not None:
        same = a.code == b.code
        found.append(
            (3.0, float(same), f"the same stop code 0x{a.code:X}" if same else
             f"different stop codes 0x{a.code:X} and 0x{b.code:X}")
        )  # fmt: skip
    if a.module is not None and b.module is not None:
        same = a.module == b.module
        found.append(
            (2.0, float(same), f"both in {a.module}" if same else
             f"different drivers {a.module} and {b.module}")
        )  # fmt: skip
    if a.frames and b.frames:
        found.append((3.0, *_compare_frames(a.frames, b.frames)))
    if a.message is not None and b.message is not None:
        found.append((2.0, *_compare_text(a.message, b.message)))
    if a.stuck is not None and b.stuck is not None:
        found.append((3.0, *_compare_text(a.stuck, b.stuck)))
    if a.lines and b.lines:
        found.append((1.5, *_compare_lines(a.lines, b.lines)))
    found.append((1.0, *_compare_kinds(a.kind, b.kind)))
    weight = sum(one for one, _, _ in found)
    score = sum(one * alike for one, alike, _ in found) / weight
    # Little that can be compared proves little: below this weight the score shrinks.
    score *= min(1.0, weight / _ENOUGH)
    if a.code is not None and b.code is not None and a.code != b.code:
        # Another stop code may be the same defect, but is never nearly the same crash.
        score = min(score, NEAR)
    ordered = sorted(found, key=lambda one: one[0] * abs(one[1] - 0.5), reverse=True)
    return round(min(score, 0.99), 3), tuple(reason for _, _, reason in ordered if reason)


def rank(
    one: Signature, others: Iterable[tuple[_Item, Signature]], *, least: float = NEAR
) -> list[tuple[float, tuple[str, ...], _Item]]:
    """Near matches, the nearest first.

    Args:
        one: the crash in question.
        others: things and their signatures.
        least: lowest score that is kept.
    """
    scored = [(*similarity(one, other), item) for item, other in others]
    near = [found for found in scored if found[0] >= least]
    return sorted(near, key=lambda found: -found[0])


def to_json(one: Signature) -> dict[str, Any]:
    """A signature as plain values for JSON, its key first."""
    return {
        "key": one.key,
        "kind": one.kind,
        "code": one.code,
        "module": one.module,
        "frames": list(one.frames),
        "message": one.message,
        "lines": list(one.lines),
        "stuck": one.stuck,
    }


def from_json(data: Mapping[str, Any]) -> Signature:
    """The signature that ``to_json`` wrote.

    Raises:
        UsageError: it is not what ``to_json`` writes.
    """
    try:
        kind, code = data["kind"], data["code"]
        frames, lines = data["frames"], data["lines"]
        # What was kept before hangs were told apart has none.
        stuck = data.get("stuck")
        texts = [one for one in (data["module"], data["message"], stuck) if one is not None]
        if (
            kind not in KINDS
            or not (code is None or isinstance(code, int))
            or not all(isinstance(one, str) for one in [*texts, *frames, *lines])
        ):
            raise TypeError("a value of the wrong type")
        return Signature(
            kind, code, data["module"], tuple(frames), data["message"], tuple(lines), stuck
        )
    except (KeyError, TypeError) as error:
        raise UsageError(f"not a signature: {error}") from None


def _frame(frame: Frame) -> str | None:
    if frame.symbol is not None:
        symbol = _CLONE.sub("", frame.symbol)
        if symbol in REPORTING or symbol in _WINDOWS_REPORTING:
            return None
        return symbol if frame.module is None else f"{module_name(frame.module)}!{symbol}"
    if frame.module is None:
        # A bare address means nothing in another boot.
        return None
    name = module_name(frame.module)
    return name if frame.offset is None else f"{name}+0x{frame.offset:x}"


def _compare_frames(a: Sequence[str], b: Sequence[str]) -> tuple[float, str]:
    if a[0] == b[0]:
        inner = f"the innermost frame is the same: {a[0]}"
        alike = 0.6 + 0.4 * SequenceMatcher(None, a, b, autojunk=False).ratio()
    elif _module_of(a[0]) == _module_of(b[0]):
        inner = f"the innermost frames are both in {_module_of(a[0])}, at {a[0]} and {b[0]}"
        alike = 0.4 + 0.4 * SequenceMatcher(None, a, b, autojunk=False).ratio()
    else:
        inner = f"different innermost frames {a[0]} and {b[0]}"
        alike = 0.6 * SequenceMatcher(None, a, b, autojunk=False).ratio()
    shared = len(set(a) & set(b))
    return alike, f"{inner}; {shared} of {max(len(a), len(b))} frames shared"


def _module_of(frame: str) -> str:
    return re.split(r"[!+]", frame, maxsplit=1)[0] if re.search(r"[!+]", frame) else ""


def _compare_text(a: str, b: str) -> tuple[float, str]:
    if a == b:
        return 1.0, f"the same message {a[:80]!r}"
    first, second = set(_WORDS.findall(a.lower())), set(_WORDS.findall(b.lower()))
    alike = len(first & second) / len(first | second) if first | second else 0.0
    return alike, f"messages {'alike' if alike >= NEAR else 'differ'} ({alike:.0%} of the words)"


def _compare_lines(a: Sequence[str], b: Sequence[str]) -> tuple[float, str]:
    alike = SequenceMatcher(None, a, b, autojunk=False).ratio()
    words = "the same last lines" if alike == 1.0 else f"last lines {alike:.0%} alike"
    return alike, words


def _compare_kinds(a: Kind, b: Kind) -> tuple[float, str]:
    if a == b:
        return 1.0, "" if a == "unknown" else f"both a {a}"
    if {a, b} == {"oops", "panic"}:
        # An oops becomes a panic where the kernel is told to stop at it.
        return 0.8, "an oops and a panic"
    if "unknown" in (a, b):
        return 0.5, ""
    return 0.0, f"different ends: {a} and {b}"
