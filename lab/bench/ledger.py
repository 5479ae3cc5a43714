"""How long the results store takes (``lab.results.store``): no machine is needed.

The folders of some nights are made up, imported into a new SQLite file, and asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from lab.bench.figure import Figure
from lab.core.errors import Blame
from lab.evidence.manifest import MANIFEST_NAME, Manifest, Piece
from lab.results.record import (
    RECORD_NAME,
    Driver,
    EndedHow,
    Host,
    Outcome,
    RunRecord,
    Status,
    TestRecord,
    Verdict,
)
from lab.results.store import (
    NewItem,
    Store,
    cells,
    claim,
    create_plan,
    failures,
    finish,
    history,
    import_results,
    nights,
    open_store,
    runs,
)
from lab.results.writer import encode

NIGHTS = 100
TESTS = 300
"""Of a night: what the pages of the results are made for."""

ITEMS = 200
"""Of a nightly plan, claimed and finished one after the other."""

_FAILS = 100  # one test in so many
_BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def figures(scratch: Path, *, nights_made: int, say: Callable[[str], None]) -> list[Figure]:
    """Fill a store and ask it, and tell what it took.

    Args:
        scratch: folder with room for the runs.
        nights_made: how many, of one run each.
        say: told in lines what happens.

    Raises:
        LabBroken: the store cannot be used.
    """
    results = scratch / "results"
    results.mkdir()
    say(f"making up {nights_made} nights of {TESTS} tests")
    for night in range(nights_made):
        write_run(results, night)
    with open_store(scratch / "results.db") as store:
        say("importing them")
        return list(_measure(store, results))


def write_run(results: Path, night: int) -> None:
    """Make up a run's folder: some tests fail, and all have a serial log as evidence.

    Args:
        results: the folder to make it in.
        night: which one; runs are a day apart.
    """
    started = _BEGAN + timedelta(days=night)
    folder = results / f"{started:%Y%m%dT%H%M%SZ}-{night:06x}"
    tests = []
    for number in range(TESTS):
        test = f"tests/drivers/test_made_up.py::test_{number:03}"
        fails = (number * 7 + night) % _FAILS == 0
        tests.append(
            TestRecord(
                id=test,
                area="made up",
                outcome=Outcome.FAILED if fails else Outcome.PASSED,
                blame=Blame.DRIVER if fails else None,
                seconds=10.0 + number,
                message="waited 60.0 s for state 4" if fails else "",
                evidence=f"tests/test_{number:03}",
            )
        )
        evidence = folder / f"tests/test_{number:03}"
        evidence.mkdir(parents=True)
        log = b"booted\n"
        (evidence / "guest-serial.log").write_bytes(log)
        piece = Piece(name="guest-serial", path="guest-serial.log", bytes=len(log), seconds=0.1)
        manifest = Manifest(test_id=test, complete=True, pieces=(piece,))
        (evidence / MANIFEST_NAME).write_text(manifest.model_dump_json(), encoding="utf-8")
    record = RunRecord(
        run_id=folder.name,
        started=started,
        ended=started + timedelta(hours=1),
        ended_how=EndedHow.FINISHED,
        profile="made-up",
        guest_label="made up",
        host=Host(kernel="Linux", cpus=1, memory_mib=0, os="made up"),
        driver=Driver(name="made-up", version="1", sha256=f"{night:064x}", basename="made-up"),
        tests=tuple(tests),
        verdict=Verdict(status=Status.FAIL, exit_code=1, reasons=("made up",)),
    )
    (folder / RECORD_NAME).write_bytes(encode(record))


def _measure(store: Store, results: Path) -> Iterator[Figure]:
    each: list[float] = []
    last = time.monotonic()

    def imported(_: object) -> None:
        nonlocal last
        now = time.monotonic()
        each.append(now - last)
        last = now

    import_results(store, [results], progress=imported)
    note = f"a run of {TESTS} tests with evidence"
    yield Figure(name="run imported", unit="s", samples=tuple(each), note=note)
    many = f"{len(each)} runs of {TESTS} tests"
    yield _timed("import of unchanged runs", lambda: import_results(store, [results]), many)
    names = [name for night in nights(store) for name in night.runs]
    yield _timed("all outcomes read", lambda: cells(store, names), many)
    yield _timed("all failures read", lambda: failures(store), many)
    yield _timed("list of runs", lambda: runs(store, limit=20), "the newest 20")
    one = cells(store, names[:1])[0].test
    yield _timed("history of a test", lambda: history(store, one), many)
    yield _timed("items claimed and done", lambda: _plan(store), f"{ITEMS} items")


def _plan(store: Store) -> None:
    key = f"made up {time.monotonic_ns()}"
    create_plan(store, key, [NewItem(f"item {number}") for number in range(ITEMS)])
    while (got := claim(store, key, "bench")) is not None:
        finish(store, got, f"{key} {got.item.key}")


def _timed(name: str, action: Callable[[], object], note: str) -> Figure:
    samples = []
    for _ in range(3):
        began = time.monotonic()
        action()
        samples.append(time.monotonic() - began)
    return Figure(name=name, unit="s", samples=tuple(samples), note=note)
