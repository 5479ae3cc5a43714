"""Several attempts at the same time, with results that come in the order of their beginning.

Whoever looks at results one after the other and stops when they suffice, as the sequential tests
of ``lab.suite`` do, is told the same by one worker and by many: a result is looked at in its turn,
however early it was there. What was begun and not looked at when the decision falls is ended and
dropped unseen, so it cannot tilt the decision.
"""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from types import FrameType, TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from lab.core.deadline import Deadline
from lab.core.errand import Errand
from lab.core.errors import LabBroken

T = TypeVar("T")
R = TypeVar("R")

END_SECONDS = 60.0
"""What attempts that are ended get to let go of what they have: most need less than one."""

LOOK_SECONDS = 1.0
"""How often a signal is looked for that came in the moment before a wait."""

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What asks this process to end."""


class InOrder(Protocol):
    """Does something with each of some items, as ``map`` does."""

    def __call__(self, work: Callable[[T], R], items: Iterable[T], /) -> Generator[R, None, None]:
        """What the work returns for each item, in the items' order.

        An item is taken when its work begins, which may be long before its result is asked for.
        Closing the generator ends the work that is under way and drops what comes of it.

        Args:
            work: called with an item; what it raises comes in its item's turn.
            items: taken one by one, in this thread.
        """


def one_by_one(work: Callable[[T], R], items: Iterable[T], /) -> Generator[R, None, None]:
    """As ``InOrder``: in this thread, and nothing begins before it is asked for."""
    for item in items:
        yield work(item)


class Workers:
    """Threads that work at the same time; a context manager.

    While it is open, a signal that asks this process to end is told where results are waited for,
    and nowhere else: no thread is forgotten because its start was interrupted, and nothing that
    tidies up is cut short. One worker is none at all: it works in the caller's thread.

    Args:
        count: how many there are, at least 1.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._news: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}
        self._signals: deque[int] = deque()

    def __enter__(self) -> Self:
        # Handlers belong to the main thread; in no other one is anybody interrupted.
        if self.count > 1 and threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if callable(handler := signal.getsignal(number)):
                    self._handlers[number] = handler
                    signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if error is None:
            self._tell_signals()

    def in_order(self, work: Callable[[T], R], items: Iterable[T], /) -> Generator[R, None, None]:
        """See ``InOrder``: as many items are worked on as there are workers.

        When the generator ends, however it does, no thread of its is left.

        Raises:
            LabBroken: work that was ended went on.
        """
        if self.count == 1:
            yield from one_by_one(work, items)
            return
        jobs: deque[_Job[R]] = deque()
        source = iter(items)
        try:
            while True:
                self._tell_signals()
                if jobs and jobs[0].done:
                    yield jobs.popleft().result()
                elif not self._begin(jobs, work, source):
                    if not jobs:
                        return
                    self._wait()
        finally:
            _end(jobs)

    def _begin(self, jobs: deque[_Job[R]], work: Callable[[T], R], source: Iterator[T]) -> bool:
        """Begin with the next item, if a worker is free and there is one; whether it did."""
        # What comes after an error is never looked at.
        if sum(not job.done for job in jobs) >= self.count or any(job.failed for job in jobs):
            return False
        job = next((_Job(work, item, self._tell) for item in source), None)
        if job is not None:
            jobs.append(job)
        return job is not None

    def _wait(self) -> None:
        """Wait for news, or for a signal that came just before and woke nobody."""
        with contextlib.suppress(queue.Empty):
            self._news.get(timeout=LOOK_SECONDS)

    def _tell(self) -> None:
        self._news.put(None)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._signals.append(number)
        # Fine in a handler: `put` of this queue may interrupt itself.
        self._tell()

    def _tell_signals(self) -> None:
        """Do what would have been done when the signals came."""
        while self._signals:
            number = self._signals.popleft()
            self._handlers[number](number, None)


class _Job(Generic[R]):
    """Work on one item, in a thread of its own.

    QEMU dies with the thread that started it (prctl(2), PR_SET_PDEATHSIG). This one lasts as long
    as the attempt, which ends its machine before it returns.

    Args:
        work: called with the item.
        item: it.
        told: called when it is done, in its thread.
    """

    def __init__(self, work: Callable[[T], R], item: T, told: Callable[[], None]) -> None:
        self._errand = Errand()
        self._future: Future[R] = Future()
        self._future.add_done_callback(lambda _: told())
        # A daemon, so that one that is stuck does not keep this process from its end.
        self._thread = threading.Thread(
            target=self._run, args=(lambda: work(item),), name="attempt", daemon=True
        )
        self._thread.start()

    @property
    def done(self) -> bool:
        """Whether there is a result, or an error."""
        return self._future.done()

    @property
    def failed(self) -> bool:
        """Whether there is an error."""
        return self.done and self._future.exception() is not None

    def result(self) -> R:
        """What came of it; for one that is done. Raises what the work raised."""
        self.join(Deadline(END_SECONDS))
        return self._future.result()

    def end(self) -> None:
        """End it; does not wait."""
        self._errand.end()

    def join(self, deadline: Deadline) -> bool:
        """Wait for its thread to end; whether it did."""
        self._thread.join(deadline.remaining)
        return not self._thread.is_alive()

    def _run(self, work: Callable[[], R]) -> None:
        try:
            result = self._errand.run(work)
        except BaseException as error:
            self._future.set_exception(error)
        else:
            self._future.set_result(result)


def _end(jobs: Sequence[_Job[Any]]) -> None:
    """End jobs and wait until their threads have ended.

    Raises:
        LabBroken: they have not.
    """
    for job in jobs:
        job.end()
    deadline = Deadline(END_SECONDS)
    stuck = sum(not job.join(deadline) for job in jobs)
    if stuck:
        raise LabBroken(
            f"{stuck} of {len(jobs)} attempts that were ended are not over after {END_SECONDS:g} s"
        )
