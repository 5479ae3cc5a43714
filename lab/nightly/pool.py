"""Who runs items: the places of this machine here, those of many machines in ``farm``."""

from __future__ import annotations

import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from lab.core.errors import LabBroken, PvlabError
from lab.nightly.process import Stopped
from lab.nightly.work import Done, Launcher, Order, Site, run_order


@dataclass(frozen=True, slots=True)
class Started:
    """An item began, or began again, elsewhere."""

    ticket: str
    run: str
    machine: str


@dataclass(frozen=True, slots=True)
class Ended:
    """An item came to an end.

    Attributes:
        ticket: which.
        done: what came of it, its run among this machine's results; None when it was stopped or
            lost, or the lab failed.
        trouble: why there is nothing.
        lost: whether whoever ran it went away.
    """

    ticket: str
    done: Done | None
    trouble: str = ""
    lost: bool = False


Event = Started | Ended


class Pool(Protocol):
    """Runs items, several at once."""

    def free(self) -> int:
        """How many more may begin now; 0 when none may."""

    def fits(self, order: Order) -> bool:
        """Whether the item would begin now."""

    def possible(self, order: Order) -> bool:
        """Whether it could begin once everything else has ended."""

    def start(self, ticket: str, order: Order, run: str) -> None:
        """Begin an item.

        Args:
            ticket: names it in events.
            order: what to run.
            run: name of its run, which is noted already.
        """

    def drop(self, ticket: str) -> None:
        """End an item whose result nobody wants any more; there is an event all the same."""

    def next(self, seconds: float) -> Event | None:
        """What happens next, or None when nothing does within some seconds."""

    def stop(self) -> None:
        """End everything that runs; there are events all the same."""


class LocalPool:
    """The places of this machine.

    Args:
        site: how many there are, and where results go.
        launcher: makes an item's command.
    """

    def __init__(self, site: Site, launcher: Launcher) -> None:
        self._site = site
        self._launcher = launcher
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        # Children die with the thread that started them (prctl(2), PR_SET_PDEATHSIG), so the
        # threads have to outlive them: a pool's do.
        self._threads = ThreadPoolExecutor(site.places, thread_name_prefix="place")
        self._stopped: dict[str, threading.Event] = {}

    def free(self) -> int:
        """Places without an item."""
        return self._site.places - len(self._stopped)

    def fits(self, order: Order) -> bool:
        """Whether a place is free."""
        return self.free() > 0

    def possible(self, order: Order) -> bool:
        """Always: who says ``nightly`` on one machine means this one."""
        return True

    def start(self, ticket: str, order: Order, run: str) -> None:
        """Begin an item in a thread of its own."""
        stopped = self._stopped[ticket] = threading.Event()
        self._threads.submit(self._run, ticket, order, run, stopped)

    def drop(self, ticket: str) -> None:
        """End an item."""
        if (stopped := self._stopped.get(ticket)) is not None:
            stopped.set()

    def next(self, seconds: float) -> Event | None:
        """The next event."""
        try:
            event = self._events.get(timeout=seconds)
        except queue.Empty:
            return None
        if isinstance(event, Ended):
            self._stopped.pop(event.ticket, None)
        return event

    def stop(self) -> None:
        """End everything."""
        for stopped in self._stopped.values():
            stopped.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        self._threads.shutdown()

    def _run(self, ticket: str, order: Order, run: str, stopped: threading.Event) -> None:
        try:
            done = run_order(order, self._site, self._launcher, run=run, stopped=stopped.is_set)
            event = Ended(ticket, done)
        except Stopped:
            event = Ended(ticket, None, "was stopped")
        except PvlabError as error:
            event = Ended(ticket, None, error.message)
        except Exception as error:
            # Nobody looks at this thread: whatever it is, it is the lab's trouble with the item.
            broken = LabBroken(f"unexpected {type(error).__name__}: {error}")
            event = Ended(ticket, None, " ".join(broken.message.split()))
        self._events.put(event)
