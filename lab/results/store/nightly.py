"""Nightly plans: items that are claimed, run and settled, each once.

An item is *pending*, then *running* while a worker holds a claim on it, then *done* or
*lab-failed*. A claim has a token that is drawn anew each time, and every change of a running
item begins by locking the row that has it: a worker that was given up for lost can change
nothing any more, so no item is settled twice. Attempts, whatever came of them, are kept.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from lab.core.errors import LabBroken, UsageError
from lab.results.store.engine import Store
from lab.results.store.models import AttemptEnd, ItemState, NightlyAttempt, NightlyItem, NightlyPlan
from lab.results.store.reading import Snapshot, read_snapshot
from lab.results.store.rows import put_run
from lab.results.store.types import plain


class ClaimLost(LabBroken):
    """The item was given to somebody else, or settled, in the meantime."""


@dataclass(frozen=True, slots=True)
class NewItem:
    """An item to plan.

    Attributes:
        key: its name within the plan, and across nights: the same thing has the same key.
        payload: whatever says how to run it; plain values for JSON.
        place: what it needs to itself, such as a host; any worker for ``""``.
        expected_seconds: how long it should take, in s.
    """

    key: str
    payload: Mapping[str, Any] = field(default_factory=dict)
    place: str = ""
    expected_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A night.

    Attributes:
        key: its name.
        created: UTC.
        closed: UTC, when it was closed; None as long as it is unfinished.
        budget_seconds: time it may take, in s; None without a limit.
        max_lab_failures: lab failures after which an item is lab-failed.
        max_losses: lost workers after which an item is lab-failed.
        settings: whatever the planner wants to keep.
        counts: how many items are in which state; states with none are left out.
    """

    key: str
    created: datetime
    closed: datetime | None
    budget_seconds: float | None
    max_lab_failures: int
    max_losses: int
    settings: Mapping[str, Any]
    counts: Mapping[ItemState, int]

    @property
    def settled(self) -> bool:
        """Whether no item will run any more."""
        return all(state.settled for state in self.counts)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at an item.

    Attributes:
        number: from 1.
        worker: whose.
        started: UTC.
        ended: UTC; None while it runs.
        how: it ended; None while it runs.
        run: name of its run, if it got to one.
        message: one line.
    """

    number: int
    worker: str
    started: datetime
    ended: datetime | None
    how: AttemptEnd | None
    run: str | None
    message: str


@dataclass(frozen=True, slots=True)
class Item:
    """An item of a plan.

    Attributes:
        plan: key of its plan.
        key: its own.
        position: in the plan, from 0.
        place: what it needs to itself.
        payload: how to run it.
        expected_seconds: in s.
        state: where it stands.
        attempts: how many times it was claimed.
        lab_failures: how many of them the lab failed.
        losses: how many of them were lost with their worker.
        token: of the claim on it, while it runs.
        worker: who holds the claim, or held the last one.
        claimed: UTC, when that was made.
        seen: UTC, when that worker last said that it lives.
        ended: UTC, when it was settled.
        run: name of the run that counts; while it runs, of the run under way, if noted.
        message: one line, of its last attempt.
    """

    plan: str
    key: str
    position: int
    place: str
    payload: Mapping[str, Any]
    expected_seconds: float | None
    state: ItemState
    attempts: int
    lab_failures: int
    losses: int
    token: str | None
    worker: str | None
    claimed: datetime | None
    seen: datetime | None
    ended: datetime | None
    run: str | None
    message: str


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to run an item, and to say what came of it.

    Attributes:
        plan: key of the plan.
        item: as it was when it was claimed.
        token: proves the claim.
        worker: whose it is.
        number: of the attempt, from 1.
    """

    plan: str
    item: Item
    token: str
    worker: str
    number: int


def create_plan(
    store: Store,
    key: str,
    items: Sequence[NewItem],
    *,
    budget_seconds: float | None = None,
    max_lab_failures: int = 3,
    max_losses: int = 5,
    settings: Mapping[str, Any] | None = None,
    now: datetime | None = None,
) -> Plan:
    """Keep a plan: all of it or, after a kill, nothing.

    Made again with the same items it is the plan that there is, however far it has come.

    Args:
        store: where.
        key: name of the night, such as its date.
        items: in the order in which they should run.
        budget_seconds: time for the whole plan, in s.
        max_lab_failures: lab failures after which an item is given up.
        max_losses: lost workers after which an item is given up.
        settings: whatever the planner wants to keep; plain values for JSON.
        now: when.

    Raises:
        UsageError: there is another plan of this name, or an item twice.
        LabBroken: the store cannot be used.
    """
    said = json.dumps(
        [[i.key, dict(i.payload), i.place, i.expected_seconds] for i in items], sort_keys=True
    )
    own = hashlib.sha256(said.encode()).hexdigest()
    if len({item.key for item in items}) < len(items):
        raise UsageError(f"plan {key}: an item is in it twice")
    with store.write(exclusive=True) as session:
        row = session.scalar(select(NightlyPlan).where(NightlyPlan.key == key))
        if row is not None and row.digest != own:
            raise UsageError(f"there is another plan {key} already", hint="resume or rename it")
        if row is None:
            row = NightlyPlan(
                key=key,
                digest=own,
                created=_now(now),
                budget_seconds=budget_seconds,
                max_lab_failures=max_lab_failures,
                max_losses=max_losses,
                settings=dict(settings or {}),
            )
            session.add(row)
            session.flush()
            session.add_all(
                NightlyItem(
                    plan_id=row.id,
                    key=item.key,
                    position=position,
                    place=item.place,
                    payload=dict(item.payload),
                    expected_seconds=item.expected_seconds,
                    state=ItemState.PENDING,
                    attempts=0,
                    lab_failures=0,
                    losses=0,
                    message="",
                )
                for position, item in enumerate(items)
            )
            session.flush()
        return _plan(session, row)


def get_plan(store: Store, key: str) -> Plan | None:
    """The plan of this name."""
    with store.read() as session:
        row = session.scalar(select(NightlyPlan).where(NightlyPlan.key == key))
        return None if row is None else _plan(session, row)


def plans(store: Store, *, unfinished: bool = False, limit: int | None = None) -> list[Plan]:
    """Plans, the newest first.

    Args:
        store: where.
        unfinished: only those that are not closed.
        limit: at most so many.
    """
    query = select(NightlyPlan).order_by(NightlyPlan.created.desc(), NightlyPlan.id.desc())
    if unfinished:
        query = query.where(NightlyPlan.closed.is_(None))
    with store.read() as session:
        return [_plan(session, row) for row in session.scalars(query.limit(limit))]


def items(store: Store, plan: str, *states: ItemState) -> list[Item]:
    """Items of a plan, in its order.

    Args:
        store: where.
        plan: key of the plan.
        states: only those in one of these; all if none is named.
    """
    query = select(NightlyItem).where(_of(plan)).order_by(NightlyItem.position)
    if states:
        query = query.where(NightlyItem.state.in_(states))
    with store.read() as session:
        return [_item(plan, row) for row in session.scalars(query)]


def attempts(store: Store, plan: str, item: str) -> list[Attempt]:
    """All attempts at an item, the first one first."""
    query = (
        select(NightlyAttempt)
        .join(NightlyItem, NightlyAttempt.item_id == NightlyItem.id)
        .join(NightlyPlan, NightlyItem.plan_id == NightlyPlan.id)
        .where(NightlyPlan.key == plan, NightlyItem.key == item)
        .order_by(NightlyAttempt.number)
    )
    with store.read() as session:
        return [
            Attempt(
                number=row.number,
                worker=row.worker,
                started=row.started,
                ended=row.ended,
                how=row.how,
                run=row.run_name,
                message=row.message,
            )
            for row in session.scalars(query)
        ]


def claim(
    store: Store,
    plan: str,
    worker: str,
    *,
    item: str | None = None,
    places: Collection[str] | None = None,
    now: datetime | None = None,
) -> Claim | None:
    """Claim the first pending item, for nobody else to get.

    Args:
        store: where.
        plan: key of the plan.
        worker: who will run it; ``reap`` finds its items by this name.
        item: this one and no other.
        places: only items that need one of these.
        now: when.

    Returns:
        The claim; None when no such item is pending, or the plan is closed.
    """
    query = select(NightlyItem).where(_of(plan), NightlyItem.state == ItemState.PENDING)
    if item is not None:
        query = query.where(NightlyItem.key == item)
    if places is not None:
        query = query.where(NightlyItem.place.in_(sorted(places)))
    # PostgreSQL passes over what another worker is just claiming; SQLite has one writer anyway.
    query = query.order_by(NightlyItem.position).limit(1)
    query = query.with_for_update(skip_locked=True, of=NightlyItem)
    moment = _now(now)
    with store.write() as session:
        # Shared with other claims; ``close_plan`` waits for it, and it for ``close_plan``.
        holder = session.scalar(
            select(NightlyPlan).where(NightlyPlan.key == plan).with_for_update(read=True)
        )
        if holder is None or holder.closed is not None:
            return None
        row = session.scalar(query)
        if row is None:
            return None
        row.state = ItemState.RUNNING
        row.attempts += 1
        row.token = secrets.token_hex(16)
        row.worker, row.claimed, row.seen = worker, moment, moment
        row.run_name, row.message = None, ""
        session.add(
            NightlyAttempt(
                item_id=row.id,
                number=row.attempts,
                token=row.token,
                worker=worker,
                started=moment,
                message="",
            )
        )
        session.flush()
        return claim_of(_item(plan, row))


def claim_of(item: Item) -> Claim:
    """The claim on a running item, for who takes over from a worker that went away.

    Raises:
        ClaimLost: it is not running.
    """
    if item.token is None or item.worker is None or item.state is not ItemState.RUNNING:
        raise ClaimLost(f"item {item.key} of plan {item.plan} is not running")
    return Claim(item.plan, item, item.token, item.worker, item.attempts)


def note_run(store: Store, claim: Claim, run: str) -> None:
    """Keep the name of the run that a claim has started, before anything can kill it.

    Raises:
        ClaimLost: the item was given to somebody else.
        UsageError: the run belongs to another attempt.
    """
    with _naming(run), store.write() as session:
        row = _claimed(session, claim)
        row.run_name = run
        _attempt(session, claim).run_name = run


def heartbeat(store: Store, claim: Claim, *, now: datetime | None = None) -> None:
    """Say that the worker lives.

    Raises:
        ClaimLost: the item was given to somebody else: stop running it.
    """
    with store.write() as session:
        _claimed(session, claim).seen = _now(now)


def finish(
    store: Store,
    claim: Claim,
    run: str,
    *,
    folder: Path | None = None,
    message: str = "",
    now: datetime | None = None,
) -> Item:
    """Settle an item: done, with the run that counts for it.

    Args:
        store: where.
        claim: on the item.
        run: name of its run.
        folder: the run's; imported in the same transaction.
        message: one line.
        now: when.

    Raises:
        ClaimLost: the item was given to somebody else, or is settled; this run does not count.
        UsageError: the folder is damaged, or holds another run, or the run counts elsewhere.
    """
    snapshot = _snapshot(run, folder)
    with _naming(run), store.write(exclusive=snapshot is not None) as session:
        row = _claimed(session, claim)
        if snapshot is not None:
            put_run(session, snapshot)
        row.run_name = run
        _end(session, claim, row, AttemptEnd.DONE, run, message, now)
        _settle(row, ItemState.DONE, now)
        session.flush()
        return _item(claim.plan, row)


def lab_failed(
    store: Store,
    claim: Claim,
    message: str,
    *,
    run: str | None = None,
    folder: Path | None = None,
    retry: bool = True,
    now: datetime | None = None,
) -> Item:
    """Say that the lab failed on an item: it is pending again, or lab-failed for good.

    Args:
        store: where.
        claim: on the item.
        message: what happened, one line.
        run: name of its run, if there was one.
        folder: the run's; imported in the same transaction.
        retry: whether it may run again, as long as ``max_lab_failures`` allows it.
        now: when.

    Returns:
        The item; its state says which.

    Raises:
        ClaimLost: the item was given to somebody else, or is settled.
        UsageError: the folder is damaged, or holds another run, or the run counts elsewhere.
    """
    snapshot = _snapshot(run, folder)
    with _naming(run or ""), store.write(exclusive=snapshot is not None) as session:
        row = _claimed(session, claim)
        if snapshot is not None:
            put_run(session, snapshot)
        plan = session.get_one(NightlyPlan, row.plan_id)
        run = run or row.run_name
        row.lab_failures += 1
        _end(session, claim, row, AttemptEnd.LAB_FAILED, run, message, now)
        if retry and row.lab_failures < plan.max_lab_failures:
            _again(row)
        else:
            row.run_name = run
            _settle(row, ItemState.LAB_FAILED, now)
        session.flush()
        return _item(claim.plan, row)


def release(store: Store, claim: Claim, message: str = "", *, now: datetime | None = None) -> Item:
    """Give an item back before anything came of it: it is pending again, nothing is counted.

    Raises:
        ClaimLost: the item was given to somebody else, or is settled.
    """
    with store.write() as session:
        row = _claimed(session, claim)
        _end(session, claim, row, AttemptEnd.RELEASED, row.run_name, message, now)
        _again(row)
        session.flush()
        return _item(claim.plan, row)


def lost(store: Store, claim: Claim, message: str, *, now: datetime | None = None) -> Item:
    """Take one item from a worker that is gone, as ``reap`` does with many.

    Raises:
        ClaimLost: the item was given to somebody else, or is settled.
    """
    with store.write() as session:
        row = _claimed(session, claim)
        _lose(session, claim, row, message, now)
        return _item(claim.plan, row)


def reap(
    store: Store,
    plan: str,
    *,
    workers: Collection[str] | None = None,
    unseen_for: float | None = None,
    message: str = "the worker went away",
    now: datetime | None = None,
) -> list[Item]:
    """Take items from workers that are gone: pending again, or lab-failed after too many losses.

    Args:
        store: where.
        plan: key of the plan.
        workers: those that are known to be gone; all of them if None.
        unseen_for: only workers that have not said that they live for so many s.
        message: what happened, one line.
        now: when.

    Returns:
        The items, as they are now.
    """
    moment = _now(now)
    found = []
    query = select(NightlyItem).where(_of(plan), NightlyItem.state == ItemState.RUNNING)
    if workers is not None:
        query = query.where(NightlyItem.worker.in_(sorted(workers)))
    if unseen_for is not None:
        query = query.where(NightlyItem.seen <= moment - timedelta(seconds=unseen_for))
    query = query.order_by(NightlyItem.position).with_for_update(of=NightlyItem)
    with store.write() as session:
        for row in session.scalars(query).all():
            _lose(session, claim_of(_item(plan, row)), row, message, now)
            found.append(_item(plan, row))
    return found


def close_plan(store: Store, plan: str, *, now: datetime | None = None) -> Plan:
    """End a plan: nothing of it can be claimed any more; what is pending has not run.

    Raises:
        UsageError: there is no such plan, or an item of it is running.
    """
    with store.write(exclusive=True) as session:
        row = session.scalar(select(NightlyPlan).where(NightlyPlan.key == plan).with_for_update())
        if row is None:
            raise UsageError(f"no plan {plan}")
        if session.scalar(
            select(NightlyItem).where(_of(plan), NightlyItem.state == ItemState.RUNNING).limit(1)
        ):
            raise UsageError(f"plan {plan}: an item is still running")
        row.closed = row.closed or _now(now)
        session.flush()
        return _plan(session, row)


@dataclass(frozen=True, slots=True)
class ItemHistory:
    """What is known of an item from nights before.

    Attributes:
        key: its.
        last_done: UTC, when it was done last.
        seconds: how long its attempts took that were done, in s, the newest first.
        run: name of the run that counted last.
    """

    key: str
    last_done: datetime
    seconds: tuple[float, ...]
    run: str


def item_history(store: Store, keys: Iterable[str] | None = None) -> dict[str, ItemHistory]:
    """What is known of items, by key, over all plans; items never done are left out.

    Args:
        store: where.
        keys: only these.
    """
    wanted = None if keys is None else {plain(key) for key in keys}
    query = (
        select(NightlyItem.key, NightlyAttempt.started, NightlyAttempt.ended, NightlyItem.run_name)
        .join(NightlyAttempt, NightlyAttempt.item_id == NightlyItem.id)
        .where(NightlyAttempt.how == AttemptEnd.DONE, NightlyItem.state == ItemState.DONE)
        .order_by(NightlyAttempt.ended.desc(), NightlyAttempt.id.desc())
    )
    found: dict[str, ItemHistory] = {}
    with store.read() as session:
        for key, started, ended, run in session.execute(query):
            if ended is None or (wanted is not None and key not in wanted):
                continue
            seconds = (ended - started).total_seconds()
            known = found.get(key)
            if known is None:
                found[key] = ItemHistory(key, ended, (seconds,), run or "")
            else:
                found[key] = replace(known, seconds=(*known.seconds, seconds))
    return found


def _now(now: datetime | None) -> datetime:
    return (now or datetime.now(UTC)).astimezone(UTC)


def _of(plan: str) -> ColumnElement[bool]:
    key = select(NightlyPlan.id).where(NightlyPlan.key == plan).scalar_subquery()
    return NightlyItem.plan_id == key


def _claimed(session: Session, claim: Claim) -> NightlyItem:
    row = session.scalar(
        select(NightlyItem)
        .where(NightlyItem.token == claim.token, NightlyItem.state == ItemState.RUNNING)
        .with_for_update()
    )
    if row is None:
        raise ClaimLost(
            f"item {claim.item.key} of plan {claim.plan} is no longer {claim.worker}'s",
            hint="it was given up for lost, or settled",
        )
    return row


def _attempt(session: Session, claim: Claim) -> NightlyAttempt:
    return session.scalars(select(NightlyAttempt).where(NightlyAttempt.token == claim.token)).one()


def _end(
    session: Session,
    claim: Claim,
    row: NightlyItem,
    how: AttemptEnd,
    run: str | None,
    message: str,
    now: datetime | None,
) -> None:
    attempt = _attempt(session, claim)
    if run is not None:
        # A run may outlive the attempt that began it, and be found by a later one.
        session.execute(
            update(NightlyAttempt)
            .where(
                NightlyAttempt.item_id == row.id,
                NightlyAttempt.id != attempt.id,
                NightlyAttempt.run_name == run,
            )
            .values(run_name=None)
        )
    attempt.how, attempt.ended, attempt.run_name, attempt.message = how, _now(now), run, message
    row.message = message


def _lose(
    session: Session, claim: Claim, row: NightlyItem, message: str, now: datetime | None
) -> None:
    holder = session.get_one(NightlyPlan, row.plan_id)
    row.losses += 1
    _end(session, claim, row, AttemptEnd.LOST, row.run_name, message, now)
    if row.losses < holder.max_losses:
        _again(row)
    else:
        _settle(row, ItemState.LAB_FAILED, now)
    session.flush()


def _again(row: NightlyItem) -> None:
    row.state, row.token, row.run_name = ItemState.PENDING, None, None


def _settle(row: NightlyItem, state: ItemState, now: datetime | None) -> None:
    row.state, row.token, row.ended = state, None, _now(now)


def _snapshot(run: str | None, folder: Path | None) -> Snapshot | None:
    if folder is None:
        return None
    snapshot = read_snapshot(folder)
    assert snapshot is not None  # noqa: S101 - None only against a known digest
    if snapshot.record.run_id != run:
        raise UsageError(f"{folder}: holds the run {snapshot.record.run_id}, not {run}")
    return snapshot


@contextmanager
def _naming(run: str) -> Iterator[None]:
    """Tell of a run's name that is taken; nothing else of an item can clash."""
    try:
        yield
    except IntegrityError:
        raise UsageError(f"the run {run} belongs to another item or attempt") from None


def _plan(session: Session, row: NightlyPlan) -> Plan:
    counted = session.execute(
        select(NightlyItem.state, func.count())
        .where(NightlyItem.plan_id == row.id)
        .group_by(NightlyItem.state)
    )
    return Plan(
        key=row.key,
        created=row.created,
        closed=row.closed,
        budget_seconds=row.budget_seconds,
        max_lab_failures=row.max_lab_failures,
        max_losses=row.max_losses,
        settings=row.settings,
        counts={state: count for state, count in counted},
    )


def _item(plan: str, row: NightlyItem) -> Item:
    return Item(
        plan=plan,
        key=row.key,
        position=row.position,
        place=row.place,
        payload=row.payload,
        expected_seconds=row.expected_seconds,
        state=row.state,
        attempts=row.attempts,
        lab_failures=row.lab_failures,
        losses=row.losses,
        token=row.token,
        worker=row.worker,
        claimed=row.claimed,
        seen=row.seen,
        ended=row.ended,
        run=row.run_name,
        message=row.message,
    )
