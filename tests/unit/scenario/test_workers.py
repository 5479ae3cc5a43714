"""Several attempts at the same time, which are functions here; no test waits for time to pass."""

from __future__ import annotations

import itertools
import os
import queue
import signal
import threading
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.core.deadline import Deadline, NotYet, wait_for
from lab.core.errand import Ended
from lab.core.errors import LabBroken
from lab.scenario import workers as module
from lab.scenario.workers import Workers, one_by_one

PATIENCE = 60.0
"""Far more than anything here takes, far less than a hung test may."""

LONG = 3600.0


@pytest.fixture(autouse=True)
def _no_thread_left():
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def under_way():
    """The threads of attempts."""
    return [thread for thread in threading.enumerate() if thread.name == "attempt"]


class Attempts:
    """Attempts that go on until somebody lets them, and note what becomes of them.

    Args:
        free: items whose attempts are done at once.
    """

    def __init__(self, *free):
        self.free = free
        self.begun = queue.SimpleQueue()
        self.items = []
        self.ended = []
        self.gates = {}
        self.lock = threading.Lock()

    def __call__(self, item):
        with self.lock:
            gate = self.gates.setdefault(item, threading.Event())
            self.items.append(item)
        self.begun.put(item)
        if item not in self.free:
            try:
                wait_for(f"attempt {item}", lambda: self.look(gate), Deadline(LONG), interval=0.001)
            except Ended:
                with self.lock:
                    self.ended.append(item)
                raise
        return item

    def look(self, gate):
        if not gate.is_set():
            raise NotYet("it goes on")

    def next(self):
        """The next item whose attempt has begun."""
        return self.begun.get(timeout=PATIENCE)

    def let_when_begun(self, item, count):
        """Let one go on when so many have begun."""
        for _ in range(count):
            self.next()
        self.let(item)

    def let(self, item):
        with self.lock:
            gate = self.gates.setdefault(item, threading.Event())
        gate.set()


def in_background(function):
    """Do something beside the test; what it raised is raised by what is returned."""
    errors = []

    def work():
        try:
            function()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()

    def joined():
        thread.join(PATIENCE)
        assert not thread.is_alive()
        assert not errors, errors

    return joined


@given(st.integers(2, 5), st.lists(st.integers(0, 4), max_size=12))
@settings(max_examples=40, deadline=None)
def test_results_come_in_order_whichever_ends_first(count, choices):
    attempts = Attempts()
    most = []

    def some_order():
        """Whenever as many run as may, one of them ends."""
        running, left = [], len(choices)
        for choice in choices:
            while len(running) < min(count, left):
                running.append(attempts.next())
            most.append(len(running))
            attempts.let(running.pop(choice % len(running)))
            left -= 1

    joined = in_background(some_order)
    with Workers(count) as workers:
        found = list(workers.in_order(attempts, range(len(choices))))
    joined()
    assert found == list(range(len(choices)))
    # Each began in its turn, once, and there was never an idle worker while something was left.
    assert sorted(attempts.items) == found
    assert most == [min(count, len(choices) - done) for done in range(len(choices))]


def test_they_really_run_at_the_same_time():
    barrier = threading.Barrier(4)
    with Workers(4) as workers:
        for _ in workers.in_order(lambda _: barrier.wait(PATIENCE), range(8)):
            pass


def test_no_more_than_asked_for():
    running, most, lock = 0, 0, threading.Lock()

    def attempt(item):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        with lock:
            running -= 1

    with Workers(3) as workers:
        list(workers.in_order(attempt, range(200)))
    assert most <= 3


def test_one_worker_works_here_and_only_when_asked():
    threads = []
    with Workers(1) as workers:
        results = workers.in_order(
            lambda item: threads.append(threading.current_thread()) or item, itertools.count()
        )
        assert [next(results), next(results)] == [0, 1]
        assert threads == [threading.current_thread()] * 2
        results.close()
    assert list(one_by_one(str, [1, 2])) == ["1", "2"]


def test_items_are_taken_when_there_is_a_worker_for_them():
    taken = []

    def items():
        for item in range(100):
            taken.append(item)
            yield item

    attempts = Attempts()
    joined = in_background(lambda: attempts.let_when_begun(0, 3))
    with Workers(3) as workers, closing(workers.in_order(attempts, items())) as results:
        assert next(results) == 0
        # The worker that became free may have taken another one, but nobody did after that.
        assert taken in ([0, 1, 2], [0, 1, 2, 3])
    joined()
    assert set(attempts.items) <= set(taken)


def test_what_nobody_looks_at_is_ended():
    attempts = Attempts()
    joined = in_background(lambda: attempts.let_when_begun(0, 4))
    with Workers(4) as workers:
        with closing(workers.in_order(attempts, itertools.count())) as results:
            assert next(results) == 0
            assert len(under_way()) in (3, 4)
        assert not under_way()
    joined()
    assert len(attempts.ended) in (3, 4)
    assert set(attempts.ended) == set(attempts.items) - {0}


def test_what_was_done_and_not_looked_at_is_dropped():
    """It may have failed, or been a hit: the decision fell without it."""

    def attempt(item):
        if item:
            raise AssertionError("nobody looks at this")
        return item

    with Workers(4) as workers, closing(workers.in_order(attempt, range(4))) as results:
        assert next(results) == 0


def test_an_error_comes_in_its_turn_and_ends_the_others():
    attempts = Attempts(0, 1)

    def attempt(item):
        if attempts(item) == 1:
            raise LabBroken("QEMU does not start")
        return item

    with Workers(4) as workers:
        results = workers.in_order(attempt, range(9))
        assert next(results) == 0
        with pytest.raises(LabBroken, match="does not start"):
            next(results)
        assert not under_way()
        assert list(results) == []
    assert set(attempts.ended) == set(attempts.items) - {0, 1}


def test_an_error_behind_others_waits_for_its_turn():
    attempts = Attempts(2)

    def attempt(item):
        if attempts(item) == 2:
            raise LabBroken("no")
        return item

    def order():
        for _ in range(3):
            attempts.next()
        attempts.let(1)
        attempts.let(0)

    joined = in_background(order)
    with Workers(3) as workers:
        results = workers.in_order(attempt, range(3))
        assert [next(results), next(results)] == [0, 1]
        with pytest.raises(LabBroken):
            next(results)
    joined()


def test_nothing_begins_behind_an_error():
    """As when no clone starts any more: there would be no end of it while the first one runs."""
    attempts = Attempts()
    failed = threading.Event()

    def attempt(item):
        if item == 1:
            failed.set()
            raise LabBroken("no")
        return attempts(item)

    def order():
        assert failed.wait(PATIENCE)
        attempts.let(0)

    joined = in_background(order)
    with Workers(3) as workers:
        results = workers.in_order(attempt, itertools.count())
        assert next(results) == 0
        with pytest.raises(LabBroken):
            next(results)
    joined()
    assert set(attempts.items) <= {0, 2, 3}


def test_an_error_of_the_items_ends_what_runs():
    attempts = Attempts()

    def items():
        yield 0
        yield 1
        raise ValueError("no more of them")

    with Workers(4) as workers, pytest.raises(ValueError, match="no more"):
        list(workers.in_order(attempts, items()))
    assert set(attempts.ended) == set(attempts.items)


def test_an_error_of_whoever_looks_ends_what_runs():
    attempts = Attempts(0)

    def look(results):
        with closing(results):
            next(results)
            raise ValueError("cannot be shown")

    with Workers(4) as workers, pytest.raises(ValueError, match="shown"):
        look(workers.in_order(attempts, itertools.count()))
    assert set(attempts.ended) == set(attempts.items) - {0}


@pytest.fixture
def interrupts_of_python():
    """As in a program, whatever pytest or a shell did with them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts_of_python")
def test_an_interrupt_ends_all():
    attempts = Attempts()

    def interrupt():
        for _ in range(3):
            attempts.next()
        os.kill(os.getpid(), signal.SIGINT)

    joined = in_background(interrupt)
    with pytest.raises(KeyboardInterrupt), Workers(3) as workers:
        list(workers.in_order(attempts, itertools.count()))
    joined()
    assert sorted(attempts.ended) == [0, 1, 2]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("interrupts_of_python")
def test_an_interrupt_at_a_bad_moment_waits_for_a_good_one(monkeypatch):
    """While a thread starts, and again while all are ended."""
    attempts = Attempts()
    start, join = threading.Thread.start, threading.Thread.join

    def interrupted(real):
        def call(*args):
            if args[0].name == "attempt":
                os.kill(os.getpid(), signal.SIGINT)
            return real(*args)

        return call

    monkeypatch.setattr(threading.Thread, "start", interrupted(start))
    monkeypatch.setattr(threading.Thread, "join", interrupted(join))
    with pytest.raises(KeyboardInterrupt), Workers(3) as workers:
        list(workers.in_order(attempts, itertools.count()))
    assert set(attempts.ended) == set(attempts.items)


@pytest.mark.usefixtures("interrupts_of_python")
def test_an_interrupt_after_the_last_result_is_told_at_the_end():
    seen = []

    def look(results):
        for item in results:
            if item == 2:
                os.kill(os.getpid(), signal.SIGINT)
            seen.append(item)

    with pytest.raises(KeyboardInterrupt), Workers(2) as workers:
        look(workers.in_order(lambda item: item, range(3)))
    assert seen == [0, 1, 2]


def test_a_signal_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Workers(2) as workers:
            os.kill(os.getpid(), signal.SIGHUP)
            assert list(workers.in_order(lambda item: item, range(3))) == [0, 1, 2]
    finally:
        signal.signal(signal.SIGHUP, before)


def test_in_another_thread_no_signal_is_touched():
    def work():
        with Workers(2) as workers:
            assert list(workers.in_order(lambda item: item, range(3))) == [0, 1, 2]

    in_background(work)()


def test_one_that_goes_on_is_told_of(monkeypatch):
    monkeypatch.setattr(module, "END_SECONDS", 0.05)
    stubborn, free = threading.Event(), threading.Event()

    def attempt(item):
        if item:
            stubborn.set()
            free.wait(PATIENCE)
        else:
            stubborn.wait(PATIENCE)
        return item

    try:
        with Workers(2) as workers:
            results = workers.in_order(attempt, range(2))
            next(results)
            with pytest.raises(LabBroken, match="1 of 1 attempts that were ended are not over"):
                results.close()
    finally:
        free.set()
        for thread in under_way():
            thread.join(PATIENCE)
