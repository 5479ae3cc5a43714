"""Nights on paper: how long a plan takes on many places, against what is possible at all.

No machine runs. Durations are drawn from recorded ones; the plan knows only what the tests say
that they take at most, as it does before anything was recorded, so that it errs as real plans do.

``python -m lab.nightly.simulate FOLDER...`` prints the durations of the tests that passed in
the runs of some results folders, as ``durations.json`` has them.
"""

from __future__ import annotations

import heapq
import random
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


class Kind(BaseModel):
    """A test that was recorded.

    Attributes:
        expected: what it says that it takes at most, in s.
        seconds: what it took, each time.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    expected: float = Field(ge=0)
    seconds: tuple[float, ...] = Field(min_length=1)


class Durations(BaseModel):
    """Recorded durations.

    Attributes:
        source: what was recorded, where and how, in words.
        kinds: by profile, intensity, accelerator and test.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str = Field(min_length=1)
    kinds: dict[str, Kind] = Field(min_length=1)


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
    kinds = list(durations.kinds.values())
    items = []
    for _ in range(count):
        kind = chance.choice(kinds)
        items.append(Paper(kind.expected, chance.choice(kind.seconds)))
    return items


def simulate(
    items: Sequence[Paper], places: int, *, seed: int = 0, loss: float = 0.0, serial: float = 0.0
) -> Simulated:
    """Run a night on paper: the longest first, each in the place that is free first.

    Args:
        items: what runs.
        places: how many at once.
        seed: of what gets lost.
        loss: chance that the place goes away while an item runs; the item is then in its old
            turn again, and another machine takes the place.
        serial: seconds that whoever hands items out spends on each, on one at a time.
    """
    chance = random.Random(seed)  # noqa: S311 - no secret
    free = [0.0] * places
    turns = [(-item.expected, number) for number, item in enumerate(items)]
    heapq.heapify(turns)
    back: list[tuple[float, tuple[float, int]]] = []
    handed = end = 0.0
    lost = 0
    while turns or back:
        now = free[0]
        if not turns:
            now = max(now, back[0][0])
        while back and back[0][0] <= now:
            heapq.heappush(turns, heapq.heappop(back)[1])
        turn = heapq.heappop(turns)
        handed = max(now, handed) + serial
        seconds = items[turn[1]].actual
        if chance.random() < loss:
            lost += 1
            seconds *= chance.random()
            heapq.heappush(back, (handed + seconds, turn))
        end = max(end, handed + seconds)
        heapq.heapreplace(free, handed + seconds)
    total = sum(item.actual for item in items)
    bound = max(total / places, max((item.actual for item in items), default=0.0))
    return Simulated(end, bound, lost)


def kinds_of(folders: Iterable[Path]) -> dict[str, Kind]:
    """Durations of tests that passed, by profile, intensity, accelerator and test.

    Args:
        folders: results folders.
    """
    found: dict[str, list[float]] = {}
    expected: dict[str, float] = {}
    for folder in folders:
        for record in filter(None, map(record_of, sorted(folder.glob("*Z-*")))):
            if record.accelerator is None:
                continue
            words = (record.profile, record.intensity, record.accelerator.name)
            for test in record.tests:
                if test.outcome is Outcome.PASSED and test.expected_seconds is not None:
                    key = "/".join((*words, test.id.rpartition("/")[2]))
                    found.setdefault(key, []).append(round(test.seconds, 2))
                    expected[key] = round(test.expected_seconds, 2)
    return {
        key: Kind(expected=expected[key], seconds=tuple(seconds))
        for key, seconds in sorted(found.items())
    }


if __name__ == "__main__":
    print(
        Durations(
            source=f"pvlab's runs in {', '.join(sys.argv[1:])}",
            kinds=kinds_of(map(Path, sys.argv[1:])),
        ).model_dump_json(indent=1)
    )
