"""Several processes at one store, and processes that are killed."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

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

IMPORT = """
import sys
from pathlib import Path
from lab.results.store import Became, import_results, open_store
sys.stdin.readline()
with open_store(sys.argv[1]) as store:
    for one in import_results(store, [Path(sys.argv[2])]):
        assert one.became is not Became.DAMAGED, one
"""

WORK = """
import sys
from lab.results.store import claim, finish, lab_failed, note_run, open_store
plan, worker = sys.argv[2:]
sys.stdin.readline()
number = 0
with open_store(sys.argv[1]) as store:
    while (got := claim(store, plan, worker)) is not None:
        run = f"{got.item.key}.{got.number}.{worker}.{number}"
        number += 1
        note_run(store, got, run)
        if got.number == 1 and got.item.position % 3 == 0:
            lab_failed(store, got, "QEMU died", run=run)
        else:
            finish(store, got, run)
        print(got.item.key, flush=True)
"""


@contextmanager
def processes(
    script: str, arguments: Sequence[Sequence[str]]
) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that begin at the same moment."""
    with ExitStack() as stack:
        started = []
        for some in arguments:
            process = subprocess.Popen(
                [sys.executable, "-c", script, *some],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            started.append(process)
        for process in started:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        yield started


def ended_well(started: Sequence[subprocess.Popen[str]]) -> list[str]:
    """What processes printed, once all of them ended."""
    said = []
    for process in started:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        said.append(out)
    return said


def fill(results: Path, count: int = 12) -> None:
    test = "t.py::test_a"
    for number in range(count):
        some = [a_test(f"t.py::test_{place}") for place in range(number)]
        run = record(number, crashed(test, evidence=folder_of(test)), *some[1:])
        write(results, run, {test: OOPS})


def test_two_processes_open_and_import_at_once(
    database: str, results: Path, tmp_path: Path
) -> None:
    fill(results)
    with processes(IMPORT, [[database, str(results)]] * 2) as started:
        ended_well(started)
    with open_store(database) as store, open_store(tmp_path / "alone.db") as alone:
        import_results(alone, [results])
        assert contents(store) == contents(alone)


def test_two_processes_claim_at_once(store: Store, database: str) -> None:
    keys = [f"item{number:02}" for number in range(30)]
    create_plan(store, "night", [NewItem(key) for key in keys])
    with processes(WORK, [[database, "night", worker] for worker in "ab"]) as started:
        said = ended_well(started)
    settled = items(store, "night")
    assert [item.state for item in settled] == [ItemState.DONE] * 30
    assert len({item.run for item in settled}) == 30
    claimed = Counter("".join(said).split())
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
    with processes(WORK, [[database, "night", "killed"]]) as (process,):
        assert process.stdout is not None
        for _ in range(5):
            process.stdout.readline()
        process.kill()
        process.wait(60)
    before = get_plan(store, "night")
    assert before is not None
    assert not before.settled
    assert len(reap(store, "night", workers=["killed"])) <= 1
    with processes(WORK, [[database, "night", "other"]]) as started:
        ended_well(started)
    plan = close_plan(store, "night")
    assert plan.counts == {ItemState.DONE: 25}
    assert len({item.run for item in items(store, "night")}) == 25


def test_an_import_that_is_killed(database: str, results: Path, tmp_path: Path) -> None:
    fill(results, 8)
    with open_store(database) as store, open_store(tmp_path / "alone.db") as alone:

        def some() -> None:
            if len(runs(store)) < 3:
                raise NotYet("fewer runs")

        with processes(IMPORT, [[database, str(results)]]) as (process,):
            wait_for("three runs", some, Deadline(120), interval=0.001)
            process.kill()
            process.wait(60)
        import_results(store, [results])
        import_results(alone, [results])
        assert contents(store) == contents(alone)
