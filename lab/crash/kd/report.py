"""From the events of a line to facts about crashes."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from lab.crash import bugchecks
from lab.crash.facts import CrashFact, LogLine, Module, Source, known
from lab.crash.kd.events import (
    Bugcheck,
    DebugPrint,
    Event,
    GoingDown,
    Lost,
    ModuleLoad,
    Resumed,
    Stack,
    Stop,
    System,
    stamp,
)
from lab.crash.kd.messages import STATUS_BREAKPOINT, STATUS_SINGLE_STEP
from lab.crash.stack import ModuleMap, blame, walk

READER = "kernel debugger line"

MAX_CRASHES = 500
"""Most facts out of one record."""

MAX_MODULES = 1000
"""Most modules that are kept; a Windows loads fewer than 200 drivers."""

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
    stack: tuple[int, int, bytes] | None = None  # number of the event, address, contents

    def source(self, number: int) -> Source:
        return Source(READER, self.file, f"event {number}")

    def tell_system(self, number: int, event: System) -> None:
        self.system = f"Windows build {event.build}, {'64' if event.wide else '32'}-bit"
        self.system_source = self.source(number)

    def sorted_modules(self) -> tuple[Module, ...]:
        return tuple(sorted(self.modules.values(), key=lambda one: one.start))

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
            modules=self.sorted_modules(),
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


class CrashTeller:
    """Turns events into facts, one event at a time.

    A fact for each bugcheck, each exception that nobody handled and that led to no bugcheck,
    and each failed assertion; ``MAX_CRASHES`` at most.

    Args:
        file: what to call the record in the facts' sources.
    """

    def __init__(self, file: str) -> None:
        self._story = _Story(file)
        self._facts: list[CrashFact | None] = []
        self._heard = 0
        self._lost = 0
        self._ran_on = False  # whether the guest was resumed after its bugcheck
        self._open: int | None = None  # the bugcheck that later events tell more of
        self._unhandled: int | None = None  # the exception that a bugcheck may follow

    def hear(self, event: Event) -> None:
        """Take the next event.

        Raises:
            ValueError: it is a stack that is not hexadecimal.
        """
        self._heard += 1
        number, story = self._heard, self._story
        match event:
            case DebugPrint():
                story.lines.append((number, event.at, event.text))
                self._assertion(number, event)
                if blame := _BLAME.search(event.text):
                    driver = (blame[1] or blame[2]).lower().removesuffix(".sys")
                    self._more("module", driver, story.source(number))
            case ModuleLoad(unloaded=False):
                if self._ran_on:
                    # No module is loaded between a bugcheck and the reboot.
                    self._new_run()
                known_modules = self._story.modules
                end = event.base + event.size
                known_modules[event.base] = Module(event.name, event.base, end)
                while len(known_modules) > MAX_MODULES:
                    del known_modules[next(iter(known_modules))]
            case ModuleLoad():
                story.modules.pop(event.base, None)
            case System():
                story.tell_system(number, event)
                self._more("system", story.system, story.source(number))
            case Stack():
                story.stack = number, event.base, bytes.fromhex(event.data)
            case Resumed():
                self._ran_on = self._open is not None
            case GoingDown():
                self._new_run()
            case Lost():
                self._lost += 1
            case Bugcheck() if not self._full:
                self._bugcheck(number, event)
            case Stop():
                if event.registers:
                    self._more("registers", event.registers, story.source(number))
                if not (event.first_chance or event.code in _BREAKS or self._full):
                    self._unhandled = self._put(_exception(story, number, event))

    def facts(self, notes: tuple[str, ...] = ()) -> list[CrashFact]:
        """What was told up to now.

        Args:
            notes: to be added to every fact.
        """
        if self._lost:
            notes = (*notes, f"{self._lost} times something was lost on the line")
        if self._full:
            notes = (*notes, f"only the first {MAX_CRASHES} crashes of the record")
        return [
            replace(one, notes=(*one.notes, *notes)) for one in self._settled() if one is not None
        ]

    def _new_run(self) -> None:
        """The guest starts anew: nothing that was seen belongs to what comes."""
        self._facts = self._settled()
        self._story = _Story(self._story.file)
        self._open = self._unhandled = None
        self._ran_on = False

    def _settled(self) -> list[CrashFact | None]:
        """The facts, the last bugcheck with what only all of its events together say."""
        fact = self._facts[self._open] if self._open is not None else None
        if fact is None or self._open is None:
            return self._facts
        story = self._story
        modules = ModuleMap(story.modules.values())
        if story.modules:
            source = Source(READER, story.file, f"events up to {self._heard}")
            fact = _with(fact, "modules", story.sorted_modules(), source)
        if story.stack is not None:
            number, base, stack = story.stack
            found = walk(fact.registers, stack, base, modules)
            if any(one.module for one in found.frames) and "frames" not in fact.sources:
                fact = _with(fact, "frames", found.frames, story.source(number))
                fact = replace(fact, notes=tuple(filter(None, (found.note(),))))
        guess = blame(fact.code, fact.parameters, modules, fact.frames)
        if guess is not None and fact.module is None:
            fact = _with(fact, "module", guess.module, Source(READER, story.file, guess.why))
        settled = self._facts.copy()
        settled[self._open] = fact
        return settled

    @property
    def _full(self) -> bool:
        return len(self._facts) >= MAX_CRASHES

    def _put(self, fact: CrashFact) -> int:
        self._facts.append(fact)
        return len(self._facts) - 1

    def _more(self, name: str, value: Any, source: Source) -> None:
        """Add to the last bugcheck what it does not know yet."""
        fact = self._facts[self._open] if self._open is not None else None
        if fact is not None and self._open is not None and name not in fact.sources:
            self._facts[self._open] = _with(fact, name, value, source)

    def _assertion(self, number: int, event: DebugPrint) -> None:
        failed = _ASSERTION.search(event.text)
        if failed is not None and not self._full:
            where = f" ({failed[2].strip()})" if failed[2] else ""
            draft = CrashFact("assert", message=failed[1].strip() + where)
            self._put(self._story.complete(draft, number, event.at))

    def _bugcheck(self, number: int, event: Bugcheck) -> None:
        self._facts = self._settled()
        self._story.stack = None
        self._ran_on = False
        name = bugchecks.name(event.code)
        draft = CrashFact("bugcheck", code=event.code, name=name, parameters=event.parameters)
        places: dict[str, Source] = {}
        cause = self._facts[self._unhandled] if self._unhandled is not None else None
        if cause is not None and self._unhandled is not None:
            # It is the same crash: the exception told where.
            draft = replace(draft, frames=cause.frames)
            places["frames"] = cause.sources["frames"]
            self._facts[self._unhandled] = None
        self._unhandled = None
        self._open = self._put(self._story.complete(draft, number, event.at, places))


def _with(fact: CrashFact, name: str, value: Any, source: Source) -> CrashFact:
    return replace(fact, **{name: value}, sources=dict(fact.sources) | {name: source})


def crash_facts(events: Iterable[Event], file: str) -> list[CrashFact]:
    """The crashes that a line's events tell of; see ``CrashTeller``.

    Args:
        events: in their order.
        file: what to call the record in the facts' sources.
    """
    teller = CrashTeller(file)
    for event in events:
        teller.hear(event)
    return teller.facts()


_BREAKS = (STATUS_BREAKPOINT, STATUS_SINGLE_STEP)


def _exception(story: _Story, number: int, event: Stop) -> CrashFact:
    frame = ModuleMap(story.modules.values()).frame(event.address)
    draft = CrashFact(
        "unknown",
        message=f"exception 0x{event.code:08x} at {frame.text()} that nobody handled",
        frames=(frame,),
        module=frame.module,
        registers=event.registers,
    )
    return story.complete(draft, number, event.at)
