"""Nights on paper: how long a plan takes on many places, against what is possible at all.

No machine runs. Durations are drawn from recorded ones; the plan knows only what it would know
in a real night, the median of each kind of item, so that it errs as real plans do.

``python -m lab.nightly.simulate FOLDER...`` prints the durations of the tests that passed in
the runs of some results folders, as ``durations.json`` has them.
"""

from __future__ import annotations

import heapq
import random
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lab.core.errors import LabBroken
from lab.nightly.work import record_of
from lab.results.record import Outcome

DURATIONS = "durations.json"


class Durations(BaseModel):
    """Recorded durations.

    Attributes:
        source: what was recorded, where and how, in words.
        seconds: of each kind of item, every time it ran, in s.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str = Field(min_length=1)
    seconds: dict[str, tuple[float, ...]] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Paper:
    """An item on paper.

    Attributes:
        expected: what the plan thinks that it takes, in s.
        actual: what it takes, in s.
    """

    expected: float
    actual: float


@dataclass(frozen=True, slots=True)
class Simulated:
    """How a night on paper went.

    Attributes:
        makespan: from the first item's begin to the last one's end, in s.
        bound: no schedule can end sooner: the longest item, or all of them shared out evenly.
        lost: how often an item ran again because its place went away.
    """

    makespan: float
    bound: float
    lost: int

    @property
    def ratio(self) -> float:
        """Makespan over bound, at least 1."""
        return self.makespan / self.bound


def recorded() -> Durations:
    """The recorded durations that come with the lab.

    Raises:
        LabBroken: the file is damaged.
    """
    file = resources.files("lab.nightly").joinpath(DURATIONS)
    try:
        return Durations.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        raise LabBroken(f"{DURATIONS}: {type(error).__name__}") from None


def draw(durations: Durations, count: int, seed: int) -> list[Paper]:
    """Items, each of a kind that is drawn, with one of that kind's recorded durations."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    kinds = [(statistics.median(known), known) for known in durations.seconds.values()]
    items = []
    for _ in range(count):
        expected, known = chance.choice(kinds)
        items.append(Paper(expected, chance.choice(known)))
    return items


def simulate(
    items: Sequence[Paper], places: int, *, seed: int = 0, loss: float = 0.0, dispatch: float = 0.0
) -> Simulated:
    """Run a night on paper: the longest first, each in the place that is free first.

    Args:
        items: what runs.
        places: how many at once.
        seed: of what gets lost.
        loss: chance that the place goes away while an item runs; the item is then in its old
            turn again, and another machine takes the place.
        dispatch: seconds from an item's end to the next one's begin.
    """
    chance = random.Random(seed)  # noqa: S311 - no secret
    free = [0.0] * places
    turns = [(-item.expected, number) for number, item in enumerate(items)]
    heapq.heapify(turns)
    back: list[tuple[float, tuple[float, int]]] = []
    end = 0.0
    lost = 0
    while turns or back:
        now = free[0]
        if not turns:
            now = max(now, back[0][0])
        while back and back[0][0] <= now:
            heapq.heappush(turns, heapq.heappop(back)[1])
        turn = heapq.heappop(turns)
        seconds = items[turn[1]].actual
        if chance.random() < loss:
            lost += 1
            seconds *= chance.random()
            heapq.heappush(back, (now + dispatch + seconds, turn))
        done = now + dispatch + seconds
        end = max(end, done)
        heapq.heapreplace(free, done)
    total = sum(item.actual for item in items)
    bound = max(total / places, max((item.actual for item in items), default=0.0))
    return Simulated(end, bound, lost)


def durations_of(folders: Iterable[Path]) -> dict[str, tuple[float, ...]]:
    """Durations of tests that passed, by profile, intensity, accelerator and test.

    Args:
        folders: results folders.
    """
    found: dict[str, list[float]] = {}
    for folder in folders:
        for record in filter(None, map(record_of, sorted(folder.glob("*Z-*")))):
            if record.accelerator is None:
                continue
            words = (record.profile, record.intensity, record.accelerator.name)
            for test in record.tests:
                if test.outcome is Outcome.PASSED:
                    key = "/".join((*words, test.id.rpartition("/")[2]))
                    found.setdefault(key, []).append(round(test.seconds, 2))
    return {key: tuple(seconds) for key, seconds in sorted(found.items())}


if __name__ == "__main__":
    made = Durations(
        source=f"recorded by pvlab in {', '.join(sys.argv[1:])}",
        seconds=durations_of(map(Path, sys.argv[1:])),
    )
    print(made.model_dump_json(indent=1))
