"""The steps of an installation, and the lines in which the guest reports them.

A report is one line on the guest's serial port::

    @pvlab 1 STEP EVENT DETAIL

``1`` is the protocol's version, STEP a step's name, EVENT one of ``Event``, DETAIL the rest of
the line, possibly empty. Everything else on the port is noise: firmware, a debugger, a driver.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from dataclasses import dataclass

PROTOCOL = 1
MARK = f"@pvlab {PROTOCOL} "


class Event(enum.StrEnum):
    """What happened to a step."""

    BEGIN = "begin"
    OK = "ok"
    FAIL = "fail"
    NOTE = "note"
    REBOOT = "reboot"


@dataclass(frozen=True, slots=True)
class Step:
    """One step.

    Attributes:
        name: as in reports.
        title: for people.
        minutes: how long it may take with KVM, before it counts as hung.
        reboots: the guest restarts after it.
    """

    name: str
    title: str
    minutes: float
    reboots: bool = False


TEXT_MODE = Step("text-mode", "text mode: partition, format, copy files", 40, reboots=True)
GUI_MODE = Step("gui-mode", "GUI mode: devices, settings, components", 60, reboots=True)
SETUP_STEPS = (TEXT_MODE, GUI_MODE)
"""What Windows' own setup does before any script of the lab runs."""


@dataclass(frozen=True, slots=True)
class Report:
    """One report.

    Attributes:
        step: the step's name.
        event: what happened to it.
        detail: the guest's words.
    """

    step: str
    event: Event
    detail: str = ""


# A report may follow noise without a line end in between, such as what firmware prints.
_LINE = re.compile(
    rf"{re.escape(MARK)}(?P<step>[a-z0-9][a-z0-9-]{{0,31}}) (?P<event>{'|'.join(Event)})"
    r"(?: (?P<detail>[^\r\n]*))?\s*$"
)
DETAIL_LIMIT = 400


def parse(line: str) -> Report | None:
    """The report in a line of the serial port, or None when it holds none."""
    found = _LINE.search(line)
    if found is None:
        return None
    detail = "".join(char for char in found["detail"] or "" if char.isprintable())
    return Report(found["step"], Event(found["event"]), detail.strip()[:DETAIL_LIMIT])


def line(report: Report) -> str:
    """The line that reports."""
    return f"{MARK}{report.step} {report.event} {report.detail}".rstrip()


def table(steps: Iterable[Step]) -> str:
    """Steps as a file that a guest reads: name, and ``reboot`` or ``-``, a line each."""
    return "".join(f"{step.name} {'reboot' if step.reboots else '-'}\r\n" for step in steps)
