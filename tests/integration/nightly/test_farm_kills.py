"""Nights on two workers, processes of their own; workers and nights are killed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from farm_cluster import cluster
from kills import ITEMS, NightProcess, check
from night_fakes import NIGHT, item, plan, ran, write_templates

from lab.core.deadline import Deadline, NotYet, wait_for
from lab.results.store import AttemptEnd, ItemState, Store, attempts, items

pytest.importorskip("distributed")


def made(store: Store, folder: Path) -> None:
    (folder / "results").mkdir()
    write_templates(folder)
    hows = ["pass", "fail", "lab-once"]
    plan(store, [item(f"item-{n:02d}", hows[n % len(hows)]) for n in range(ITEMS)])


def test_a_worker_is_killed_while_it_runs_an_item(
    database: str, store: Store, tmp_path: Path
) -> None:
    made(store, tmp_path)
    with cluster(tmp_path / "farm") as farm:
        workers = {farm.add(name, results=tmp_path / name).pid: name for name in ("a", "b")}
        night = NightProcess(database, tmp_path, 2, 1.0, farm.address)
        # The second item that begins on the first worker that is heard of, so that its
        # scheduler knows it well.
        begun: list[tuple[str, int]] = []
        while len(begun) < 4 or begun[-1][1] != begun[0][1]:
            found = re.fullmatch(r"(.+): on \S+:(\d+)", night.line())
            if found is not None:
                begun.append((found[1], int(found[2])))
        victim, pid = begun[-1]

        def midway() -> None:
            [there] = [one for one in items(store, NIGHT) if one.key == victim]
            if there.run not in ran(tmp_path)["begin"]:
                raise NotYet("its script has not begun")

        wait_for("the item's script", midway, Deadline(60))
        farm.workers[workers[pid]].kill()
        assert night.close() == 0
    check(store, tmp_path)
    hows = [one.how for one in attempts(store, NIGHT, victim)]
    assert AttemptEnd.LOST in hows
    [there] = [one for one in items(store, NIGHT) if one.key == victim]
    assert there.losses == 1
    # It began on both workers, and came to its end on the other one alone.
    runs = [one.run for one in attempts(store, NIGHT, victim) if one.how is AttemptEnd.LOST]
    assert set(runs) <= set(ran(tmp_path)["begin"])
    assert not set(runs) & set(ran(tmp_path)["end"])


def test_a_night_is_killed_and_gone_on_with_while_its_workers_live(
    database: str, store: Store, tmp_path: Path
) -> None:
    made(store, tmp_path)
    with cluster(tmp_path / "farm") as farm:
        for name in ("a", "b"):
            farm.add(name, results=tmp_path / name)
        for lines in (5, 9):
            night = NightProcess(database, tmp_path, 2, 0.3, farm.address)
            assert night.kill_after(lines, 0.1)
        assert NightProcess(database, tmp_path, 2, 0.3, farm.address).close() == 0
    # A run may end on its worker before that hears that nobody wants it any more. The other
    # worker does not see its folder; the store counts one of them.
    check(store, tmp_path, most_ends=3)


def test_both_workers_are_killed_and_another_comes(
    database: str, store: Store, tmp_path: Path
) -> None:
    made(store, tmp_path)
    with cluster(tmp_path / "farm") as farm:
        for name in ("a", "b"):
            farm.add(name, results=tmp_path / name)
        night = NightProcess(database, tmp_path, 2, 0.3, farm.address)
        while ": on " not in night.line():
            pass
        for worker in list(farm.workers.values()):
            worker.kill()
            worker.wait()

        def running() -> None:
            if not items(store, NIGHT, ItemState.RUNNING):
                raise NotYet("nothing waits for a worker")

        wait_for("an item that waits", running, Deadline(60))
        farm.add("c", results=tmp_path / "c")
        assert night.close() == 0
    # A result goes with its worker, if that dies before it was fetched: the item runs again.
    check(store, tmp_path, most_ends=2)
