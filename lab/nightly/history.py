"""What the store knows of earlier nights, and of one that is over."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from lab.core.errors import UsageError
from lab.nightly import digest as morning
from lab.nightly.digest import NotRun, Seen, Subject, Trouble
from lab.nightly.plan import Past
from lab.results.store import nightly as ledger
from lab.results.store.engine import Store
from lab.results.store.models import (
    ItemState,
    NightlyItem,
    NightlyPlan,
    Run,
    Test,
    TestOutcome,
)

MEMORY = timedelta(days=90)
"""Nights before that say nothing about tonight."""

DURATIONS = 5
"""How many of an item's durations are remembered: machines and suites change."""

LEFT_OUT = "left_out"
"""In a plan's settings: what the budget had no room for, as key, seconds and reason."""


def past(store: Store, *, now: datetime) -> dict[str, Past]:
    """Earlier nights of each item, by key.

    Raises:
        LabBroken: the store cannot be used.
    """
    query = (
        select(NightlyItem.key, NightlyItem.payload, Run.started, Run.ended)
        .join(Run, Run.name == NightlyItem.run_name)
        .where(NightlyItem.state == ItemState.DONE, Run.started > now - MEMORY)
        .order_by(Run.started.desc())
    )
    last: dict[str, tuple[datetime, Mapping[str, Any]]] = {}
    seconds: dict[str, list[float]] = {}
    with store.read() as session:
        for key, payload, started, ended in session.execute(query):
            last.setdefault(key, (started, payload))
            known = seconds.setdefault(key, [])
            if ended is not None and len(known) < DURATIONS:
                known.append((ended - started).total_seconds())
    return {
        key: Past(
            kin=str(payload.get("kin", "")),
            last=started,
            content=dict(payload.get("content", {})),
            seconds=tuple(seconds[key]),
        )
        for key, (started, payload) in last.items()
    }


def digest_of(store: Store, plan: str, *, not_run: Mapping[str, str]) -> morning.Digest:
    """A night that is over, against those before it.

    Args:
        store: with the night.
        plan: its name.
        not_run: why items are still pending, by key.

    Raises:
        UsageError: there is no such night.
        LabBroken: the store cannot be used.
    """
    night = ledger.get_plan(store, plan)
    if night is None:
        raise UsageError(f"no night {plan}")
    items = ledger.items(store, plan)
    with store.read() as session:
        tonight = list(_seen(session, NightlyPlan.key == plan))
        earlier = (
            NightlyPlan.created < night.created,
            NightlyPlan.created > night.created - MEMORY,
            NightlyItem.state == ItemState.DONE,
        )
        before = morning.latest(_seen(session, *earlier))
        guests = _guests(session, plan)
    ended = [item.ended for item in items if item.ended is not None]
    end = night.closed or max(ended, default=None) or datetime.now(UTC)
    pending = [
        NotRun(item.key, item.expected_seconds or 0.0, not_run.get(item.key, "no time was left"))
        for item in items
        if not item.state.settled
    ]
    left_out = [NotRun(*one) for one in night.settings.get(LEFT_OUT, ())]
    return morning.digest(
        morning.Night(
            name=plan,
            began=night.created,
            seconds=(end - night.created).total_seconds(),
            guests=guests,
            items=len(items),
            done=sum(item.state is ItemState.DONE for item in items),
            troubles=tuple(_troubles(items)),
            not_run=(*pending, *left_out),
        ),
        tonight,
        before,
    )


def _troubles(items: Collection[ledger.Item]) -> Iterator[Trouble]:
    """What the lab did not get done first."""
    for state in (ItemState.LAB_FAILED, ItemState.DONE):
        for item in items:
            if item.state is state and item.lab_failures + item.losses:
                done = state is ItemState.DONE
                message = "" if done else item.message
                yield Trouble(item.key, message, item.attempts, done)


def _seen(session: Session, *where: ColumnElement[bool]) -> Iterator[Seen]:
    """How tests ended in the runs that count for items."""
    query = (
        select(
            NightlyItem.payload,
            Test.node_id,
            TestOutcome.outcome,
            TestOutcome.blame,
            TestOutcome.message,
            Run.name,
            Run.started,
        )
        .join(NightlyPlan, NightlyPlan.id == NightlyItem.plan_id)
        .join(Run, Run.name == NightlyItem.run_name)
        .join(TestOutcome, TestOutcome.run_id == Run.id)
        .join(Test, Test.id == TestOutcome.test_id)
        .where(NightlyItem.state.in_((ItemState.DONE, ItemState.LAB_FAILED)), *where)
        .order_by(Run.started, TestOutcome.position)
    )
    for payload, test, outcome, blame, message, run, started in session.execute(query):
        order = payload.get("order", {})
        profile, driver, suite = (str(order.get(w, "")) for w in ("profile", "driver", "suite"))
        subject = Subject(profile, driver, suite, test)
        yield Seen(subject, outcome, blame, message, run, started)


def _guests(session: Session, plan: str) -> tuple[str, ...]:
    query = (
        select(Run.guest_label)
        .distinct()
        .join(NightlyItem, NightlyItem.run_name == Run.name)
        .join(NightlyPlan, NightlyPlan.id == NightlyItem.plan_id)
        .where(NightlyPlan.key == plan)
        .order_by(Run.guest_label)
    )
    return tuple(session.scalars(query))
