"""Nightly plans: each item is settled once, whatever happens to workers."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from store_samples import NOON, name, record, write

from lab.core.errors import UsageError
from lab.results.store import (
    Became,
    Claim,
    ClaimLost,
    ItemState,
    NewItem,
    Store,
    attempts,
    claim,
    claim_of,
    close_plan,
    create_plan,
    finish,
    get_plan,
    heartbeat,
    import_run,
    item_history,
    items,
    lab_failed,
    lost,
    nights,
    note_run,
    plans,
    reap,
    release,
    runs,
)

PLAN = "2026-01-02"
THREE = [
    NewItem("a", {"suite": "smoke"}, "kvm", 30.0),
    NewItem("b", {"suite": "full"}, "pv"),
    NewItem("c"),
]


@pytest.fixture(autouse=True)
def plan(store: Store) -> None:
    create_plan(store, PLAN, THREE, budget_seconds=3600, settings={"matrix": "m"}, now=NOON)


def states(store: Store) -> dict[str, str]:
    return {item.key: item.state.value for item in items(store, PLAN)}


def take(store: Store, item: str | None = None, worker: str = "w") -> Claim:
    got = claim(store, PLAN, worker, item=item)
    assert got is not None
    return got


def test_from_pending_to_done(store: Store, results: Path) -> None:
    got = claim(store, PLAN, "w", now=NOON)
    assert got is not None
    assert (got.item.key, got.item.payload, got.number) == ("a", {"suite": "smoke"}, 1)
    note_run(store, got, name(0))
    assert items(store, PLAN, ItemState.RUNNING)[0].run == name(0)
    folder = write(results, record(0))
    done = finish(store, got, name(0), folder=folder, now=NOON + timedelta(seconds=20))
    assert (done.state, done.run, done.token) == (ItemState.DONE, name(0), None)
    assert [row.name for row in runs(store)] == [name(0)]
    assert import_run(store, folder).became is Became.UNCHANGED
    assert states(store) == {"a": "done", "b": "pending", "c": "pending"}
    (attempt,) = attempts(store, PLAN, "a")
    assert (attempt.how, attempt.run, attempt.worker) == ("done", name(0), "w")
    history = item_history(store)["a"]
    assert (history.seconds, history.run) == ((20.0,), name(0))
    assert nights(store)[0].runs == (name(0),)


def test_claims_are_in_order_and_end(store: Store) -> None:
    assert [take(store).item.key for _ in THREE] == ["a", "b", "c"]
    assert claim(store, PLAN, "w") is None
    assert claim(store, "no such plan", "w") is None


def test_claims_of_a_place_or_an_item(store: Store) -> None:
    assert claim(store, PLAN, "w", places=["gpu"]) is None
    got = claim(store, PLAN, "w", places=["pv", "gpu"])
    assert got is not None
    assert got.item.key == "b"
    assert take(store, "c").item.key == "c"
    assert claim(store, PLAN, "w", item="c") is None


def test_lab_failures_are_bounded(store: Store) -> None:
    for number in range(3):
        got = take(store, "a")
        item = lab_failed(store, got, f"QEMU died, {number}", run=name(number))
        assert (item.state is ItemState.PENDING) == (number < 2)
    assert (item.state, item.lab_failures, item.run) == (ItemState.LAB_FAILED, 3, name(2))
    assert claim(store, PLAN, "w", item="a") is None
    assert [one.how for one in attempts(store, PLAN, "a")] == ["lab-failed"] * 3
    assert lab_failed(store, take(store, "b"), "no", retry=False).state is ItemState.LAB_FAILED


def test_losses_are_bounded(store: Store) -> None:
    for number in range(5):
        take(store, "a", worker="gone")
        assert reap(store, PLAN, workers=["other"]) == []
        (item,) = reap(store, PLAN, workers=["gone"])
        assert (item.state is ItemState.PENDING) == (number < 4)
    assert (item.state, item.losses, item.attempts) == (ItemState.LAB_FAILED, 5, 5)


def test_a_reaped_claim_is_worth_nothing(store: Store) -> None:
    old = take(store, "a", worker="slow")
    reap(store, PLAN)
    new = take(store, "a", worker="quick")
    for use in (
        lambda: finish(store, old, name(0)),
        lambda: lab_failed(store, old, "no"),
        lambda: release(store, old),
        lambda: heartbeat(store, old),
        lambda: note_run(store, old, name(0)),
    ):
        with pytest.raises(ClaimLost, match="no longer slow's"):
            use()
    assert finish(store, new, name(1)).run == name(1)
    with pytest.raises(ClaimLost):
        finish(store, new, name(1))
    assert [one.how for one in attempts(store, PLAN, "a")] == ["lost", "done"]


def test_a_dead_workers_run_can_be_taken_over(store: Store, results: Path) -> None:
    note_run(store, take(store, "a", worker="dead"), name(0))
    (item,) = items(store, PLAN, ItemState.RUNNING)
    assert item.run is not None
    folder = write(results, record(0))
    assert finish(store, claim_of(item), item.run, folder=folder).state is ItemState.DONE
    assert len(attempts(store, PLAN, "a")) == 1


def test_the_run_of_a_lost_attempt_may_be_found_by_a_later_one(store: Store, results: Path) -> None:
    first = claim(store, PLAN, "w", item="a", run=name(0))
    assert first is not None
    assert first.item.run == name(0)
    assert lost(store, first, "its machine is gone").state is ItemState.PENDING
    second = claim(store, PLAN, "w", item="a", run=name(1))
    assert second is not None
    done = finish(store, second, name(0), folder=write(results, record(0)))
    assert (done.run, done.losses) == (name(0), 1)
    said = [(one.how, one.run, one.message) for one in attempts(store, PLAN, "a")]
    assert said == [("lost", None, "its machine is gone"), ("done", name(0), "")]
    with pytest.raises(ClaimLost):
        lost(store, first, "once more")


def test_a_run_is_of_one_item(store: Store) -> None:
    claim(store, PLAN, "w", item="a", run=name(0))
    with pytest.raises(UsageError, match="belongs to another"):
        claim(store, PLAN, "w", item="b", run=name(0))
    assert states(store) == {"a": "running", "b": "pending", "c": "pending"}


def test_silent_workers(store: Store) -> None:
    claim(store, PLAN, "a", now=NOON)
    got = claim(store, PLAN, "b", now=NOON)
    assert got is not None
    heartbeat(store, got, now=NOON + timedelta(seconds=50))
    late = NOON + timedelta(seconds=60)
    assert [one.worker for one in reap(store, PLAN, unseen_for=30, now=late)] == ["a"]


def test_released_items_count_nothing(store: Store) -> None:
    item = release(store, take(store, "a"))
    assert (item.state, item.lab_failures, item.losses) == (ItemState.PENDING, 0, 0)
    assert take(store).item.key == "a"


def test_a_run_counts_once(store: Store) -> None:
    finish(store, take(store, "a"), name(0))
    other = take(store, "b")
    for use in (
        lambda: note_run(store, other, name(0)),
        lambda: finish(store, other, name(0)),
        lambda: lab_failed(store, other, "no", run=name(0)),
    ):
        with pytest.raises(UsageError, match="belongs to another"):
            use()
    assert states(store)["b"] == "running"
    finish(store, other, name(1))


def test_a_folder_of_another_run_changes_nothing(store: Store, results: Path) -> None:
    got = take(store)
    with pytest.raises(UsageError, match="holds the run"):
        finish(store, got, name(1), folder=write(results, record(0)))
    assert states(store)["a"] == "running"
    assert runs(store) == []


def test_made_again_it_is_the_same_plan(store: Store) -> None:
    take(store)
    again = create_plan(store, PLAN, THREE, now=NOON + timedelta(hours=1))
    assert (again.created, again.counts) == (NOON, {"pending": 2, "running": 1})
    assert get_plan(store, PLAN) == again
    assert not again.settled
    with pytest.raises(UsageError, match="another plan"):
        create_plan(store, PLAN, THREE[:2])
    with pytest.raises(UsageError, match="twice"):
        create_plan(store, "other", [THREE[0], THREE[0]])
    assert get_plan(store, "other") is None


def test_closing(store: Store) -> None:
    got = take(store)
    with pytest.raises(UsageError, match="still running"):
        close_plan(store, PLAN)
    finish(store, got, name(0))
    assert [one.key for one in plans(store, unfinished=True)] == [PLAN]
    closed = close_plan(store, PLAN, now=NOON)
    assert close_plan(store, PLAN) == closed
    assert closed.closed == NOON
    assert claim(store, PLAN, "w") is None
    assert plans(store, unfinished=True) == []
    assert plans(store) == [closed]
    with pytest.raises(UsageError, match="no plan"):
        close_plan(store, "other")
