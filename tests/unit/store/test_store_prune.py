"""Retention: what goes, what stays, and what a kill leaves."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from store_samples import NOON, OOPS, contents, crashed, folder_of, name, record, running, write

from lab.core.errors import UsageError
from lab.results.folder import point_latest
from lab.results.record import Status
from lab.results.store import (
    Became,
    NewItem,
    Store,
    buckets,
    claim,
    close_plan,
    create_plan,
    finish,
    forget_gate,
    import_results,
    import_run,
    lab_failed,
    prune,
    pruning,
    put_gate,
    runs,
)
from lab.results.store.reading import read_snapshot
from lab.results.store.rows import put_run

LATER = NOON + timedelta(days=30)


@pytest.fixture
def six(store: Store, results: Path) -> list[Path]:
    """Runs, the oldest first, imported."""
    folders = [write(results, record(number)) for number in range(6)]
    import_results(store, [results])
    return folders


def left(store: Store, results: Path) -> set[str]:
    """Runs that are in the store, which are those that have folders, and nothing is hidden."""
    stored = {row.name for row in runs(store)}
    assert stored == {path.name for path in results.iterdir() if not path.is_symlink()}
    return stored


def names(*numbers: int) -> set[str]:
    return {name(number) for number in numbers}


def test_the_newest_stay(store: Store, results: Path, six: list[Path]) -> None:
    done = prune(store, results, keep=4, now=LATER)
    assert [(one.run, one.removed) for one in done] == [(name(0), True), (name(1), True)]
    assert all(one.bytes > 0 for one in done)
    assert left(store, results) == names(2, 3, 4, 5)
    assert prune(store, results, keep=4, now=LATER) == []


def test_the_young_stay(store: Store, results: Path, six: list[Path]) -> None:
    now = NOON + timedelta(minutes=5)
    prune(store, results, younger_than=timedelta(minutes=3), now=now)
    assert left(store, results) == names(3, 4, 5)


def test_either_is_enough_to_stay(store: Store, results: Path, six: list[Path]) -> None:
    now = NOON + timedelta(minutes=5)
    prune(store, results, keep=1, younger_than=timedelta(minutes=3), now=now)
    assert left(store, results) == names(3, 4, 5)
    prune(store, results, keep=2, younger_than=timedelta(0), now=now)
    assert left(store, results) == names(4, 5)
    prune(store, results, keep=0, now=now)
    assert left(store, results) == set()
    assert all(not rows for rows in contents(store).values())


def test_something_must_be_said(store: Store, results: Path) -> None:
    for arguments in ({}, {"keep": -1}, {"younger_than": timedelta(-1)}):
        with pytest.raises(UsageError):
            prune(store, results, **arguments)


def test_a_dry_run_changes_nothing(store: Store, results: Path, six: list[Path]) -> None:
    before = contents(store)
    done = prune(store, results, keep=2, dry_run=True, now=LATER)
    assert [one.run for one in done if one.removed] == sorted(names(0, 1, 2, 3))
    assert contents(store) == before
    assert left(store, results) == names(0, 1, 2, 3, 4, 5)


def test_gates_keep_their_runs(store: Store, results: Path, six: list[Path]) -> None:
    put_gate(
        store,
        "release",
        {"verdict": "PASS"},
        status=Status.PASS,
        runs={name(0): "driver", name(2): "baseline"},
        created=NOON,
    )
    done = prune(store, results, keep=1, now=LATER)
    assert {one.why for one in done if not one.removed} == {"the gate release rests on it"}
    assert left(store, results) == names(0, 2, 5)
    assert forget_gate(store, "release")
    prune(store, results, keep=1, now=LATER)
    assert left(store, results) == names(5)


def test_unfinished_plans_keep_their_runs(store: Store, results: Path, six: list[Path]) -> None:
    create_plan(store, "night", [NewItem("a"), NewItem("b"), NewItem("c")])
    for number in (0, 1):
        got = claim(store, "night", "w", item="a")
        assert got is not None
        if number == 0:
            lab_failed(store, got, "QEMU died", run=name(0))
        else:
            finish(store, got, name(1))
    done = prune(store, results, keep=1, now=LATER)
    stay = {one.why for one in done if not one.removed}
    assert stay == {"it belongs to the unfinished plan night"}
    assert left(store, results) == names(0, 1, 5)
    close_plan(store, "night")
    prune(store, results, keep=1, now=LATER)
    assert left(store, results) == names(5)


def test_buckets_keep_their_best_sample(store: Store, results: Path) -> None:
    test = "t.py::test_a"
    for number in range(5):
        # The third account knows most.
        log = OOPS + ("[   13.000000] Code: 90 90\n" if number == 2 else "")
        write(results, record(number, crashed(test, evidence=folder_of(test))), {test: log})
    import_results(store, [results])
    (before,) = buckets(store)
    done = prune(store, results, keep=1, now=LATER)
    (stays,) = [one for one in done if not one.removed]
    assert stays.run == before.sample.run
    assert stays.why == f"it holds the best sample of bucket {before.key}"
    (after,) = buckets(store)
    assert (after.key, after.sample, after.count) == (before.key, before.sample, 2)


def test_the_latest_run_stays(store: Store, results: Path, six: list[Path]) -> None:
    point_latest(six[3])
    prune(store, results, keep=0, now=LATER)
    assert left(store, results) == names(3)


def test_a_run_that_may_go_on_stays(store: Store, results: Path) -> None:
    going, killed = (write(results, running(number)) for number in range(2))
    import_results(store, [results])
    now = datetime.now(UTC)
    os.utime(going / "run.json", (now.timestamp() - 3600,) * 2)
    os.utime(killed / "run.json", (now.timestamp() - 48 * 3600,) * 2)
    prune(store, results, keep=0, now=now)
    assert left(store, results) == {going.name}


def test_other_folders_are_left_alone(store: Store, results: Path, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    write(archive, record(0))
    (results / name(1)).mkdir()
    (results / "mine").mkdir()
    import_results(store, [archive, results])
    assert prune(store, results, keep=0, now=LATER) == []
    assert (archive / name(0)).is_dir()
    assert (results / name(1)).is_dir()
    assert (results / "mine").is_dir()


def test_rows_of_a_folder_that_is_gone(store: Store, results: Path, six: list[Path]) -> None:
    (six[0] / "run.json").unlink()
    six[0].rmdir()
    assert prune(store, results, keep=5, now=LATER)[0].removed
    assert left(store, results) == names(1, 2, 3, 4, 5)


class Killed(BaseException):
    """Stands for the end of the process: nothing handles it."""


def test_a_kill_before_the_rows_are_gone(
    store: Store, results: Path, six: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(pruning, "sweep", _kill)
        # The process would not come to putting the folder back.
        patch.setattr(Path, "rename", _rename_once(Path.rename))
        with pytest.raises(Killed):
            prune(store, results, keep=5, now=LATER)
    assert not six[0].exists()
    assert len(runs(store)) == 6
    assert [one.became for one in import_results(store, [results])] == [Became.UNCHANGED] * 5
    assert left(store, results) == names(1, 2, 3, 4, 5)


def test_a_kill_before_the_folder_is_gone(
    store: Store, results: Path, six: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(pruning.shutil, "rmtree", _kill)
        with pytest.raises(Killed):
            prune(store, results, keep=5, now=LATER)
    assert len(runs(store)) == 5
    assert not six[0].exists()
    prune(store, results, keep=5, now=LATER)
    assert left(store, results) == names(1, 2, 3, 4, 5)


def test_what_was_put_away_comes_back_when_it_is_referred_to(
    store: Store, results: Path, six: list[Path]
) -> None:
    six[0].rename(six[0].with_name(f".pruned-{six[0].name}"))
    put_gate(store, "g", {}, status=Status.PASS, runs={name(0): "driver"}, created=NOON)
    import_results(store, [results])
    assert left(store, results) == names(0, 1, 2, 3, 4, 5)


def test_a_transaction_that_fails_puts_the_folder_back(
    store: Store, results: Path, six: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(pruning, "sweep", _kill)
        with pytest.raises(Killed):
            prune(store, results, keep=5, now=LATER)
    assert left(store, results) == names(0, 1, 2, 3, 4, 5)


def test_an_import_of_what_is_being_pruned(store: Store, results: Path, six: list[Path]) -> None:
    (six[0] / "run.json").write_bytes((six[0] / "run.json").read_bytes() + b"\n")
    snapshot = read_snapshot(six[0])
    assert snapshot is not None
    prune(store, results, keep=5, now=LATER)
    with pytest.raises(UsageError, match="is gone"), store.write(exclusive=True) as session:
        put_run(session, snapshot)
    assert import_run(store, six[0]).became is Became.DAMAGED
    assert left(store, results) == names(1, 2, 3, 4, 5)


def _kill(*_: object, **__: object) -> None:
    raise Killed


def _rename_once(rename):
    done = []

    def once(path: Path, target: Path) -> Path:
        if done:
            raise Killed
        done.append(target)
        return rename(path, target)

    return once
