"""What many machines make of a night (``lab.nightly``): no machine is needed.

What handing out an item costs is measured, with a real store and, where it is installed, with
Dask and workers in this process. The night of many items on many places is then played on
paper, with recorded durations.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lab.bench.figure import Figure
from lab.nightly.night import Night
from lab.nightly.pool import Ended, Event
from lab.nightly.simulate import Durations, Paper, draw, recorded, simulate
from lab.nightly.work import Done, Order, Site
from lab.results.record import (
    RECORD_NAME,
    EndedHow,
    Host,
    Outcome,
    RunRecord,
    Status,
    TestRecord,
    Verdict,
)
from lab.results.store import NewItem, create_plan, open_store
from lab.results.writer import encode

PLACES = 200
ITEMS = 20_000
SEEDS = 5
LOSS = 0.01
"""Chance that a place goes away while an item runs, in the figure that says so."""

HANDED = 200
"""Items that are handed out for real, one after the other."""

TARGET = 1.05
"""Makespan over the lower bound that planning should not exceed."""

_NIGHT = "20260101T220000Z-000000"
_BEGAN = datetime(2026, 1, 1, 22, tzinfo=UTC)


def figures(scratch: Path, *, say: Callable[[str], None]) -> list[Figure]:
    """Measure what an item costs, and play nights with it.

    Args:
        scratch: folder with room for the runs of ``HANDED`` items.
        say: told in lines what happens.

    Raises:
        LabBroken: the store cannot be used, or the recorded durations are damaged.
    """
    say(f"handing out {HANDED} items that take no time")
    entered = entering(scratch)
    costs = [
        Figure(
            name="item claimed, settled, imported",
            unit="s",
            samples=entered,
            note="of the process that hands items out, with SQLite",
        )
    ]
    serial = costs[0].median
    if find_spec("distributed") is not None:
        say(f"sending {HANDED} tasks through Dask")
        costs.append(
            Figure(
                name="task through Dask and back",
                unit="s",
                samples=through_dask(),
                note="scheduler and worker in this process",
            )
        )
        serial += costs[1].median
    durations = recorded()
    say(f"{SEEDS} nights of {ITEMS} items on {PLACES} places, on paper")
    return [*costs, *nights(durations, serial)]


def nights(durations: Durations, serial: float) -> list[Figure]:
    """Nights on paper.

    Args:
        durations: that items are drawn from.
        serial: seconds that handing out an item takes.
    """
    drawn: list[list[Paper]] = [draw(durations, ITEMS, seed) for seed in range(SEEDS)]
    free = [simulate(items, PLACES) for items in drawn]
    smooth = [simulate(items, PLACES, serial=serial) for items in drawn]
    rough = [
        simulate(items, PLACES, serial=serial, loss=LOSS, seed=seed)
        for seed, items in enumerate(drawn)
    ]
    note = f"{ITEMS} items on {PLACES} places, simulated; {durations.source}"
    bound = "the longest item, or all items shared out evenly"
    return [
        Figure(name="lower bound", unit="s", samples=tuple(b.bound for b in smooth), note=bound),
        Figure(name="makespan", unit="s", samples=tuple(one.makespan for one in smooth), note=note),
        Figure(
            name="makespan over lower bound",
            unit="x",
            samples=tuple(one.ratio for one in smooth),
            note=f"{serial:.3g} s to hand out an item, one at a time, as measured here and now",
        ),
        Figure(
            name=f"the same, {LOSS:.0%} of items lose their place",
            unit="x",
            samples=tuple(one.ratio for one in rough),
            note=f"{sum(one.lost for one in rough)} items ran again in {SEEDS} nights",
        ),
        Figure(
            name="the same, handing out costs nothing",
            unit="x",
            samples=tuple(one.ratio for one in free),
            target=TARGET,
            note="what the order of the items alone loses",
        ),
    ]


class _AtOnce:
    """A pool whose items leave their records as soon as they begin.

    Args:
        results: the results folder.
    """

    def __init__(self, results: Path) -> None:
        self._results = results
        self._ended: list[Event] = []
        self.times: list[float] = []

    def free(self) -> int:
        return 0 if self._ended else 1

    def fits(self, order: Order) -> bool:
        return True

    def possible(self, order: Order) -> bool:
        return True

    def start(self, ticket: str, order: Order, run: str) -> None:
        self.times.append(time.monotonic())
        folder = self._results / run
        folder.mkdir()
        (folder / RECORD_NAME).write_bytes(encode(_record(run)))
        self._ended.append(Ended(ticket, Done(run, "here")))

    def drop(self, ticket: str) -> None:
        pass

    def next(self, seconds: float) -> Event | None:
        return self._ended.pop()

    def stop(self) -> None:
        pass


def entering(scratch: Path) -> tuple[float, ...]:
    """Seconds from one item's begin to the next one's, when items take no time."""
    results = scratch / "results"
    results.mkdir()
    payload = {
        "order": {
            "profile": "standin",
            "driver": "good",
            "package": None,
            "suite": "standard",
            "intensity": "standard",
            "accel": None,
            "tests": ["tests/drivers/test_attach.py::test_attach"],
            "limit_seconds": 60.0,
        }
    }
    pool = _AtOnce(results)
    with open_store(scratch / "farm.db") as store:
        items = [NewItem(f"item-{n}", payload, expected_seconds=1.0) for n in range(HANDED)]
        create_plan(store, _NIGHT, items)
        Night(store, _NIGHT, pool, Site(results, 1), seconds=1e6, say=lambda line: None).run()
    return tuple(b - a for a, b in zip(pool.times, pool.times[1:], strict=False))


def through_dask() -> tuple[float, ...]:
    """Seconds that a task takes which does nothing, from here to a worker and back."""
    import distributed

    # What it has is typed in part only.
    dask: Any = distributed
    samples = []
    with (
        dask.LocalCluster(n_workers=1, processes=False, dashboard_address="127.0.0.1:0") as cluster,
        dask.Client(cluster, set_as_default=False) as client,
    ):
        for number in range(HANDED):
            began = time.monotonic()
            client.submit(_nothing, number, pure=False).result()
            samples.append(time.monotonic() - began)
    return tuple(samples)


def _nothing(number: int) -> int:
    return number


def _record(run: str) -> RunRecord:
    return RunRecord(
        run_id=run,
        started=_BEGAN,
        ended=_BEGAN,
        ended_how=EndedHow.FINISHED,
        profile="standin",
        guest_label="stand-in: no guest at all",
        host=Host(kernel="none", cpus=1, memory_mib=0, os="none"),
        tests=tuple(
            TestRecord(id=f"t.py::{number}", outcome=Outcome.PASSED, seconds=1.0)
            for number in range(10)
        ),
        verdict=Verdict(status=Status.PASS, exit_code=0, reasons=()),
    )
