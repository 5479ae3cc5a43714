"""From the events of a line to facts about crashes."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from lab.crash.facts import CrashFact, Frame, LogLine, Module, Source, known
from lab.crash.kd.events import (
    Bugcheck,
    DebugPrint,
    Event,
    GoingDown,
    Lost,
    ModuleLoad,
    Stop,
    System,
    stamp,
)
from lab.crash.kd.messages import STATUS_BREAKPOINT, STATUS_SINGLE_STEP

READER = "kernel debugger line"

_LOG_LINES = 40
_FATAL = re.compile(
    r"\*\*\* Fatal System Error: 0x([0-9a-fA-F]{1,8})"
    r"(?:\s*\(((?:0x)?[0-9a-fA-F]{1,16}(?:,(?:0x)?[0-9a-fA-F]{1,16}){3})\))?"
)
"""Printed by KeBugCheck to a debugger. Source: ReactOS, ntoskrnl/ke/bug.c,
KeBugCheckWithTf; the code comes in a print of its own or together with the parameters."""

_BLAME = re.compile(r"^(?:Driver at fault: (\S+?)\.?|The (\S+) driver may be at fault\.)\s*$", re.M)
"""Source: as for ``_FATAL``; the second form is that of Windows 2000."""

_ASSERTION = re.compile(r"\*\*\* Assertion failed: *([^\r\n]*)(?:\r?\n\*+ *([^\r\n]*))?")
"""Printed by RtlAssert. Source: ReactOS, sdk/lib/rtl/assert.c."""


def fatal_error(text: str) -> tuple[int, tuple[int, ...]] | None:
    """The bugcheck that a piece of printed text announces.

    Args:
        text: printed by the guest, any number of lines.

    Returns:
        Code and parameters (none when they are not there yet); None without a bugcheck.
    """
    found = _FATAL.search(text)
    if found is None:
        return None
    parameters = tuple(int(one, 16) for one in found[2].split(",")) if found[2] else ()
    return int(found[1], 16), parameters


@dataclass
class _Story:
    """What has been seen up to now of one run of the guest."""

    file: str
    modules: dict[int, Module] = field(default_factory=dict)
    lines: deque[tuple[int, float, str]] = field(default_factory=lambda: deque(maxlen=_LOG_LINES))
    system: str | None = None
    system_source: Source | None = None
    unhandled: CrashFact | None = None
    lost: int = 0

    def source(self, number: int) -> Source:
        return Source(READER, self.file, f"event {number}")

    def tell_system(self, number: int, event: System) -> None:
        self.system = f"Windows build {event.build}, {'64' if event.wide else '32'}-bit"
        self.system_source = self.source(number)

    def frame(self, address: int) -> Frame:
        for module in self.modules.values():
            if module.holds(address):
                stem = re.sub(r"\.(sys|exe|dll)$", "", module.name.lower())
                return Frame(module=stem, offset=address - module.start, address=address)
        return Frame(address=address)

    def complete(
        self, draft: CrashFact, number: int, at: float, places: Mapping[str, Source] | None = None
    ) -> CrashFact:
        """Add what the story knows, and the sources.

        Args:
            draft: what the event at ``number`` says.
            number: of the event.
            at: its time.
            places: sources of fields that come from other events.
        """
        full = replace(
            draft,
            when=stamp(at),
            modules=tuple(sorted(self.modules.values(), key=lambda one: one.start)),
            log=tuple(
                LogLine(place, stamp(when), line, _driver(line))
                for place, when, text in self.lines
                for line in text.splitlines()
                if line.strip()
            )[-_LOG_LINES:],
            system=self.system,
        )
        sources = dict.fromkeys(known(full), self.source(number))
        for name in ("modules", "log"):
            if name in sources:
                sources[name] = Source(READER, self.file, f"events up to {number}")
        if self.system_source is not None:
            sources["system"] = self.system_source
        return replace(full, sources=sources | dict(places or {}))


def _driver(line: str) -> str | None:
    """The driver under test that a line begins with (domain: XenVbd, XenPCI, XenHide ...)."""
    found = re.match(r"\s*(xen[a-z]+)\b", line, re.IGNORECASE)
    return found[1].lower() if found else None


def crash_facts(
    events: Sequence[Event], file: str, *, notes: tuple[str, ...] = ()
) -> list[CrashFact]:
    """The crashes that a line's events tell of.

    A fact for each bugcheck, each exception that nobody handled and that led to no bugcheck,
    and each failed assertion.

    Args:
        events: in their order.
        file: what to call the record in the facts' sources.
        notes: to be added to every fact.
    """
    story = _Story(file)
    facts: list[CrashFact] = []
    for number, event in enumerate(events, 1):
        match event:
            case DebugPrint():
                story.lines.append((number, event.at, event.text))
                facts += _assertion(story, number, event)
            case ModuleLoad(unloaded=False):
                end = event.base + event.size
                story.modules[event.base] = Module(event.name, event.base, end)
            case ModuleLoad():
                story.modules.pop(event.base, None)
            case System():
                story.tell_system(number, event)
            case GoingDown():
                story.modules.clear()
                story.lines.clear()
                story.unhandled = None
            case Bugcheck():
                if story.unhandled is not None:
                    facts.remove(story.unhandled)
                facts.append(_bugcheck(story, number, event, events[number:]))
                story.unhandled = None
            case Stop(first_chance=False) if event.code not in _BREAKS:
                story.unhandled = _exception(story, number, event)
                facts.append(story.unhandled)
            case Lost():
                story.lost += 1
    if story.lost:
        notes = (*notes, f"{story.lost} times something was lost on the line")
    return [replace(fact, notes=(*fact.notes, *notes)) for fact in facts]


_BREAKS = (STATUS_BREAKPOINT, STATUS_SINGLE_STEP)


def _assertion(story: _Story, number: int, event: DebugPrint) -> list[CrashFact]:
    failed = _ASSERTION.search(event.text)
    if failed is None:
        return []
    where = f" ({failed[2].strip()})" if failed[2] else ""
    draft = CrashFact("assert", message=failed[1].strip() + where)
    return [story.complete(draft, number, event.at)]


def _bugcheck(story: _Story, number: int, event: Bugcheck, following: Sequence[Event]) -> CrashFact:
    """The fact of a bugcheck; the guest tells part of it only afterwards."""
    draft = CrashFact("bugcheck", code=event.code, parameters=event.parameters)
    places: dict[str, Source] = {}
    if story.unhandled is not None:
        draft = replace(draft, frames=story.unhandled.frames)
        places["frames"] = story.unhandled.sources["frames"]
    for later, other in enumerate(following, number + 1):
        if isinstance(other, Bugcheck | GoingDown):
            break
        if isinstance(other, DebugPrint) and (blame := _BLAME.search(other.text)):
            driver = (blame[1] or blame[2]).lower().removesuffix(".sys")
            draft = replace(draft, module=driver)
            places["module"] = story.source(later)
        elif isinstance(other, System):
            story.tell_system(later, other)
        elif isinstance(other, Stop) and other.registers and not draft.registers:
            draft = replace(draft, registers=other.registers)
            places["registers"] = story.source(later)
    return story.complete(draft, number, event.at, places)


def _exception(story: _Story, number: int, event: Stop) -> CrashFact:
    frame = story.frame(event.address)
    draft = CrashFact(
        "unknown",
        message=f"exception 0x{event.code:08x} at {frame.text()} that nobody handled",
        frames=(frame,),
        module=frame.module,
        registers=event.registers,
    )
    return story.complete(draft, number, event.at)
