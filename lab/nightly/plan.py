"""What a night does with its time: which items, and in which order.

What is most urgent is chosen until the budget is full. An item is the more urgent the longer
it has not run; a change of what it tests counts as a week, so that whatever changes every night
cannot keep the rest from ever having its turn. What was chosen runs longest first, which keeps
several places busy to the end (Graham, "Bounds on Multiprocessing Timing Anomalies", 1969: at
most 4/3 of the best possible).
"""

from __future__ import annotations

import heapq
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from lab.nightly.matrix import Cell, Split
from lab.suite.catalogue import Entry

CHANGE_WORTH_DAYS = 7.0

_DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """Something that could run.

    Attributes:
        cell: profile, driver build and suite.
        part: area or node id that it is a part for; empty for the whole suite.
        tests: node ids, in the suite's order.
        catalogue_seconds: what the tests say that they take at most.
        content: what it tests, by word: ``driver``, ``suite``, ``profile`` to a hash of each.
    """

    cell: Cell
    part: str
    tests: tuple[str, ...]
    catalogue_seconds: float
    content: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Its name, the same every night."""
        words = (self.cell.profile, self.cell.driver.name, self.cell.suite.name, self.part)
        return "/".join(word for word in words if word)

    @property
    def kin(self) -> str:
        """The name without the driver: builds of one driver take about as long."""
        return "/".join((self.cell.profile, self.cell.suite.name, self.part))


@dataclass(frozen=True, slots=True)
class Past:
    """What is known of earlier nights of an item.

    Attributes:
        kin: ``Candidate.kin``.
        last: when it last ran to its end.
        content: what was tested then.
        seconds: how long it took, latest first.
    """

    kin: str
    last: datetime
    content: Mapping[str, str]
    seconds: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Planned:
    """A candidate with its time and its reason.

    Attributes:
        candidate: what.
        seconds: expected.
        why: in words: ``never ran``, ``driver changed``, ``last ran 3 days ago``.
        urgency: the greater, the sooner; in days.
    """

    candidate: Candidate
    seconds: float
    why: str
    urgency: float


@dataclass(frozen=True, slots=True)
class Plan:
    """A night.

    Attributes:
        chosen: in the order in which they begin.
        left_out: what does not fit the budget, most urgent first.
        seconds: from the first item's begin to the last one's end, as expected.
    """

    chosen: tuple[Planned, ...]
    left_out: tuple[Planned, ...]
    seconds: float


def split(cell: Cell, entries: Sequence[Entry], content: Mapping[str, str]) -> list[Candidate]:
    """A combination's items.

    Args:
        cell: of the matrix.
        entries: its tests, from the catalogue.
        content: see ``Candidate``.
    """
    parts: dict[str, list[Entry]] = {}
    for entry in entries:
        part = {Split.WHOLE: "", Split.AREA: entry.area or "other", Split.TEST: entry.id}
        parts.setdefault(part[cell.suite.split], []).append(entry)
    return [
        Candidate(
            cell=cell,
            part=part,
            tests=tuple(entry.id for entry in members),
            catalogue_seconds=sum(entry.expected_seconds for entry in members),
            content=content,
        )
        for part, members in parts.items()
    ]


def make_plan(
    candidates: Sequence[Candidate],
    past: Mapping[str, Past],
    *,
    budget: float,
    places: int,
    now: datetime,
) -> Plan:
    """Choose what runs tonight.

    Args:
        candidates: everything that could.
        past: earlier nights, by ``Candidate.key``.
        budget: seconds from begin to end.
        places: items that run side by side.
        now: the moment.
    """
    by_kin: dict[str, list[float]] = {}
    for known in past.values():
        by_kin.setdefault(known.kin, []).extend(known.seconds)
    planned = [_planned(one, past.get(one.key), by_kin.get(one.kin, ()), now) for one in candidates]
    planned.sort(key=lambda one: (-one.urgency, -one.seconds, one.candidate.key))
    chosen: list[Planned] = []
    filled = 0.0
    for one in planned:
        if one.seconds <= budget and filled + one.seconds <= budget * places:
            chosen.append(one)
            filled += one.seconds
    # Items cannot be cut to fill the places evenly, so that the sum may fit and they may not.
    most = len(chosen)
    least = 0
    while least < most:
        middle = (least + most + 1) // 2
        fits = makespan((one.seconds for one in _longest_first(chosen[:middle])), places) <= budget
        least, most = (middle, most) if fits else (least, middle - 1)
    kept = _longest_first(chosen[:least])
    keys = {one.candidate.key for one in kept}
    return Plan(
        chosen=tuple(kept),
        left_out=tuple(one for one in planned if one.candidate.key not in keys),
        seconds=makespan((one.seconds for one in kept), places),
    )


def makespan(seconds: Iterable[float], places: int) -> float:
    """When the last of some items ends, of which each begins in the place that is free first."""
    free = [0.0] * places
    for length in seconds:
        heapq.heapreplace(free, free[0] + length)
    return max(free)


def _longest_first(planned: Iterable[Planned]) -> list[Planned]:
    return sorted(planned, key=lambda one: (-one.seconds, one.candidate.key))


def _planned(
    candidate: Candidate, past: Past | None, kin: Sequence[float], now: datetime
) -> Planned:
    known = past.seconds if past and past.seconds else kin
    seconds = statistics.median(known) if known else candidate.catalogue_seconds
    if past is None:
        return Planned(candidate, seconds, "never ran", float("inf"))
    days = max(0.0, (now - past.last).total_seconds() / _DAY)
    words = {*candidate.content, *past.content}
    changed = sorted(w for w in words if candidate.content.get(w) != past.content.get(w))
    if changed:
        return Planned(
            candidate, seconds, f"{' and '.join(changed)} changed", days + CHANGE_WORTH_DAYS
        )
    return Planned(candidate, seconds, f"last ran {_ago(days)}", days)


def _ago(days: float) -> str:
    whole = int(days)
    if whole:
        return f"{whole} day{'' if whole == 1 else 's'} ago"
    return f"{int(days * 24)} h ago"
