"""A night from its plan to its last item.

The store says what is to be done, what is running and what came of it; nothing else does, so
that a night goes on after a kill where it was. An item is claimed, and the name of its run
noted, before it begins. One that was running when the night was killed has either left a run
that ended, which then counts, or it runs again.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from lab.core.deadline import Deadline
from lab.core.errors import UsageError
from lab.gate.verdict import verdict
from lab.nightly.pool import Ended, Event, Pool, Started
from lab.nightly.work import Done, Order, Site, finished_run, new_run, record_of
from lab.results.record import Status
from lab.results.store import nightly as ledger
from lab.results.store.engine import Store
from lab.results.store.models import ItemState

Say = Callable[[str], None]

HEARTBEAT_SECONDS = 60.0
"""How often a night says in the store that it lives."""

LOOK_SECONDS = 5.0
"""How long a worker that has come may idle before it is seen."""

SILENT_SECONDS = 15 * 60.0
"""Silence after which a night on another machine counts as dead."""

SLACK = 0.05
"""Share of the budget by which an item may be expected to end late: a plan fills the budget, and
each item's begin takes a moment."""


@dataclass(frozen=True, slots=True)
class _Running:
    """An item under way.

    Attributes:
        claim: on it.
        machine: where it began, if somebody said so.
    """

    claim: ledger.Claim
    machine: str = ""


class Night:
    """One night.

    Args:
        store: with its plan.
        plan: the plan's key.
        pool: runs items.
        site: of this machine.
        seconds: left for the night.
        say: told in lines what happens.
    """

    def __init__(
        self, store: Store, plan: str, pool: Pool, site: Site, *, seconds: float, say: Say
    ) -> None:
        self._store = store
        self._plan = plan
        self._pool = pool
        self._site = site
        self._deadline = Deadline(seconds)
        self._slack = seconds * SLACK
        self._say = say
        self._running: dict[str, _Running] = {}
        self._beat = Deadline(HEARTBEAT_SECONDS)
        self._worker = f"{platform.node()}:{os.getpid()}"
        self._not_run: dict[str, str] = {}
        self._total = 0
        self._settled = 0

    def run(self) -> dict[str, str]:
        """Run what is pending, until nothing is, or there is no time left.

        Returns:
            Why items are still pending, by key.

        Raises:
            UsageError: another machine is at this night.
            LabBroken: the store cannot be used.
            KeyboardInterrupt: everything that ran has ended, and is pending again.
        """
        take_over(self._store, self._plan, self._site, self._say)
        items = ledger.items(self._store, self._plan)
        self._total = len(items)
        self._settled = sum(item.state.settled for item in items)
        pending = [item for item in items if item.state is ItemState.PENDING]
        longest = max((order_of(item).limit_seconds for item in pending), default=0.0)
        last = Deadline(self._deadline.remaining + longest + 2 * self._site.grace)
        try:
            while (pending := self._begin(pending)) or self._running:
                if (item := self._step()) is not None and item.state is ItemState.PENDING:
                    # In its old turn: it is as long as it was.
                    pending = sorted([*pending, item], key=lambda one: one.position)
                if last.expired:
                    # Whoever has it does not answer.
                    self._give_back("nobody said what came of it")
        except KeyboardInterrupt:
            self._give_back("interrupted")
            raise
        return self._not_run

    def _begin(self, pending: Sequence[ledger.Item]) -> list[ledger.Item]:
        """Begin what can begin.

        Returns:
            What may begin later.
        """
        if self._running and not self._pool.free():
            return list(pending)
        left: list[ledger.Item] = []
        for number, item in enumerate(pending):
            order = order_of(item)
            if (item.expected_seconds or 0.0) > self._deadline.remaining + self._slack:
                self._not_run[item.key] = "no time was left"
            elif self._pool.fits(order):
                self._start(item, order)
                if not self._pool.free():
                    return [*left, *pending[number + 1 :]]
            elif self._running or self._pool.possible(order):
                left.append(item)
            else:
                self._not_run[item.key] = f"no worker has {_needs(order)}"
        return left

    def _start(self, item: ledger.Item, order: Order) -> None:
        claim = ledger.claim(self._store, self._plan, self._worker, item=item.key)
        if claim is None:
            return
        run = new_run(order)
        ledger.note_run(self._store, claim, run)
        self._running[claim.token] = _Running(claim)
        self._pool.start(claim.token, order, run)
        self._say(f"{item.key}: begins" + (f", attempt {claim.number}" if claim.number > 1 else ""))

    def _step(self) -> ledger.Item | None:
        """Wait for something to happen, and enter it into the store.

        Returns:
            An item that came to an end.
        """
        event = self._pool.next(LOOK_SECONDS)
        try:
            if self._beat.expired:
                self._beat = Deadline(HEARTBEAT_SECONDS)
                for running in self._running.values():
                    ledger.heartbeat(self._store, running.claim)
            return self._enter(event)
        except ledger.ClaimLost as error:
            # Its run does not count: somebody else's will.
            self._say(error.message)
            return None

    def _enter(self, event: Event | None) -> ledger.Item | None:
        if isinstance(event, Started):
            return self._begun(event)
        if event is None or (running := self._running.pop(event.ticket, None)) is None:
            return None
        if event.done is not None:
            return self._settle(running.claim, event.done)
        if event.lost:
            return self._lost(running.claim, event.trouble)
        return self._lab_failed(running.claim, event.trouble)

    def _begun(self, event: Started) -> ledger.Item | None:
        """An item has begun elsewhere; if it had before, who began it was lost."""
        running = self._running.get(event.ticket)
        if running is None:
            return None
        claim = running.claim
        if running.machine:
            lost = self._lost(claim, f"{running.machine} was lost")
            again = None
            if lost.state is ItemState.PENDING:
                again = ledger.claim(self._store, self._plan, self._worker, item=lost.key)
            if again is None:
                del self._running[event.ticket]
                self._pool.drop(event.ticket)
                return lost
            claim = again
            self._say(f"{lost.key}: begins on {event.machine}, attempt {claim.number}")
        else:
            self._say(f"{claim.item.key}: on {event.machine}")
        ledger.note_run(self._store, claim, event.run)
        self._running[event.ticket] = _Running(claim, event.machine)
        return None

    def _settle(self, claim: ledger.Claim, done: Done) -> ledger.Item:
        """Enter what came of an item."""
        item = settle(self._store, claim, done, self._site)
        self._tell(item)
        return item

    def _lost(self, claim: ledger.Claim, message: str) -> ledger.Item:
        item = ledger.lost(self._store, claim, message)
        self._tell(item)
        return item

    def _lab_failed(self, claim: ledger.Claim, message: str) -> ledger.Item:
        item = ledger.lab_failed(self._store, claim, message)
        self._tell(item)
        return item

    def _tell(self, item: ledger.Item) -> None:
        self._settled += item.state.settled
        self._say(f"[{self._settled}/{self._total}] {item.key}: {in_words(item)}")

    def _give_back(self, why: str) -> None:
        """End what runs; what has no result by then is pending again."""
        self._pool.stop()
        deadline = Deadline(2 * self._site.grace)
        while self._running and not deadline.expired:
            event = self._pool.next(deadline.remaining)
            if not isinstance(event, Ended) or event.ticket not in self._running:
                continue
            claim = self._running.pop(event.ticket).claim
            if event.done is not None and event.done.run and not event.done.trouble:
                self._settle(claim, event.done)
            else:
                ledger.release(self._store, claim, why)
        for ticket, running in list(self._running.items()):
            del self._running[ticket]
            ledger.release(self._store, running.claim, why)


def take_over(store: Store, plan: str, site: Site, say: Say) -> None:
    """Settle or free what was running when an earlier process of a night ended.

    The caller holds the night's lock, so that no such process is left on this machine.

    Raises:
        UsageError: another machine is at it.
    """
    left = ledger.items(store, plan, ItemState.RUNNING)
    here = f"{platform.node()}:"
    for item in left:
        seen = item.seen or datetime.now(UTC)
        silent = (datetime.now(UTC) - seen).total_seconds()
        if not (item.worker or "").startswith(here) and silent < SILENT_SECONDS:
            raise UsageError(
                f"{plan} runs on {item.worker}",
                hint=f"it counts as dead after {SILENT_SECONDS / 60:.0f} min of silence",
            )
    for item in left:
        claim = ledger.claim_of(item)
        if run := finished_run(site.results, order_of(item).prefix):
            now = settle(store, claim, Done(run, platform.node(), recognised=True), site)
            say(f"{item.key}: had ended: {in_words(now)}")
        else:
            now = ledger.lost(store, claim, "the night was killed")
            say(f"{item.key}: {in_words(now)}")


def settle(store: Store, claim: ledger.Claim, done: Done, site: Site) -> ledger.Item:
    """Enter what came of an item: what it says of the driver, or that the lab failed.

    Args:
        store: where the claim is.
        claim: on the item.
        done: what came of it.
        site: where its run is.
    """
    folder = site.results / done.run if done.run else None
    record = record_of(folder) if folder else None
    message = done.trouble
    if record is None:
        folder = None
        message = message or "left no record"
    elif not message:
        said = verdict(record)
        reason = said.reasons[0] if said.reasons else ""
        if said.status is not Status.LAB:
            words = f"{said.status.value}{f': {reason}' if reason else ''}"
            try:
                return ledger.finish(store, claim, done.run, folder=folder, message=words)
            except UsageError as error:
                folder, message = None, error.message
        else:
            message = reason
    return ledger.lab_failed(
        store,
        claim,
        message,
        run=folder.name if folder else None,
        folder=folder,
        retry=done.retry,
    )


def in_words(item: ledger.Item) -> str:
    """Where an item stands, after something happened to it."""
    if item.state is ItemState.DONE:
        return item.message
    again = "runs again" if item.state is ItemState.PENDING else "given up"
    return f"the lab failed, {again}: {item.message}"


def order_of(item: ledger.Item) -> Order:
    """What to run for an item.

    Raises:
        UsageError: another version of the lab planned it.
    """
    try:
        said = dict(item.payload["order"])
        package = said.pop("package")
        return Order(
            night=item.plan,
            key=item.key,
            prefix=f"{item.plan}-{item.position:05d}-{item.lab_failures}-",
            package=Path(package) if package else None,
            tests=tuple(said.pop("tests")),
            **said,
        )
    except (KeyError, TypeError) as error:
        raise UsageError(
            f"{item.plan}: {item.key} cannot be read: {error}",
            hint="another version of pvlab planned it",
        ) from None


def _needs(order: Order) -> str:
    return ", ".join(f"{name} {amount:g}" for name, amount in order.needs.items()) or "a place"
