"""Several processes at one store, and processes that are killed."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import store_work
from store_samples import OOPS, a_test, contents, crashed, folder_of, record, write

from lab.core.deadline import Deadline, NotYet, wait_for
from lab.results.store import (
    ItemState,
    NewItem,
    Store,
    attempts,
    claim,
    close_plan,
    create_plan,
    finish,
    get_plan,
    import_results,
    items,
    open_store,
    reap,
    runs,
)


@contextmanager
def processes(what: str, count: int, database: str, other: str) -> Iterator[subprocess.Popen[str]]:
    words = [sys.executable, store_work.__file__, what, str(count), database, other]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def fill(results: Path, count: int) -> None:
    test = "t.py::test_a"
    for number in range(count):
        others = [a_test(f"t.py::test_{place}") for place in range(1, number)]
        run = record(number, crashed(test, evidence=folder_of(test)), *others)
        write(results, run, {test: OOPS})


def test_two_processes_open_and_import_at_once(
    database: str, results: Path, tmp_path: Path
) -> None:
    fill(results, 8)
    with processes("import", 2, database, str(results)) as process:
        assert process.wait(300) == 0
    with open_store(database) as store, open_store(tmp_path / "alone.db") as alone:
        import_results(alone, [results])
        assert contents(store) == contents(alone)


def test_two_processes_claim_at_once(store: Store, database: str) -> None:
    keys = [f"item{number:02}" for number in range(30)]
    create_plan(store, "night", [NewItem(key) for key in keys])
    with processes("claim", 2, database, "night") as process:
        said, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    settled = items(store, "night")
    assert [item.state for item in settled] == [ItemState.DONE] * 30
    assert len({item.run for item in settled}) == 30
    claimed = Counter(said.split())
    assert claimed == {key: 2 if number % 3 == 0 else 1 for number, key in enumerate(keys)}
    for item in settled:
        assert item.attempts == claimed[item.key] == len(attempts(store, "night", item.key))


def test_threads_share_a_store(store: Store) -> None:
    create_plan(store, "night", [NewItem(f"item{number:02}") for number in range(20)])

    def work(worker: str) -> list[str]:
        done = []
        while (got := claim(store, "night", worker)) is not None:
            done.append(finish(store, got, f"run of {got.item.key}").key)
        return done

    with ThreadPoolExecutor(4) as pool:
        done = [key for some in pool.map(work, "abcd") for key in some]
    assert sorted(done) == [f"item{number:02}" for number in range(20)]


def test_a_worker_that_is_killed_loses_nothing(store: Store, database: str) -> None:
    create_plan(store, "night", [NewItem(f"item{number:02}") for number in range(25)])
    with processes("claim", 1, database, "night") as process:
        assert process.stdout is not None
        for _ in range(5):
            process.stdout.readline()
        process.kill()
        process.wait(60)
    before = get_plan(store, "night")
    assert before is not None
    assert not before.settled
    assert len(reap(store, "night", workers=["worker"])) <= 1
    store_work.claim_all(database, "night", "other")
    plan = close_plan(store, "night")
    assert plan.counts == {ItemState.DONE: 25}
    assert len({item.run for item in items(store, "night")}) == 25


def test_an_import_that_is_killed(database: str, results: Path, tmp_path: Path) -> None:
    fill(results, 8)
    with open_store(database) as store, open_store(tmp_path / "alone.db") as alone:

        def some() -> None:
            if len(runs(store)) < 3:
                raise NotYet("fewer runs")

        with processes("import", 1, database, str(results)) as process:
            wait_for("three runs", some, Deadline(120), interval=0.001)
            process.kill()
            process.wait(60)
        import_results(store, [results])
        import_results(alone, [results])
        assert contents(store) == contents(alone)
