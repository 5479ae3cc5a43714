"""Work in a thread that another thread ends."""

from __future__ import annotations

import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from lab.core import errand
from lab.core.deadline import Deadline, NotYet, wait_for
from lab.core.errand import Ended, Errand
from lab.core.errors import DeadlineExpired

LONG = 3600.0
"""Longer than any test may take."""


@pytest.fixture
def thread():
    """A thread that works on errands."""
    with ThreadPoolExecutor(1) as pool:
        yield pool


class Waiting:
    """Work that waits for what never comes, and says so when it has begun."""

    def __init__(self):
        self.begun = threading.Event()

    def __call__(self):
        wait_for("what never comes", self.probe, Deadline(LONG), interval=LONG)

    def probe(self):
        self.begun.set()
        raise NotYet("nothing")


def test_what_waits_is_woken(thread):
    errand_, work = Errand(), Waiting()
    running = thread.submit(errand_.run, work)
    assert work.begun.wait(30)
    errand_.end()
    errand_.end()
    with pytest.raises(Ended):
        running.result(30)
    assert errand_.over


def test_one_that_is_over_does_not_begin():
    errand_, begun = Errand(), []
    errand_.end()
    with pytest.raises(Ended):
        errand_.run(lambda: begun.append(1))
    assert not begun


def test_what_it_does_comes_back():
    errand_ = Errand()
    assert errand_.run(lambda: 5) == 5
    with pytest.raises(ValueError, match="no"):
        errand_.run(lambda: int("no"))
    with pytest.raises(DeadlineExpired):
        errand_.run(lambda: wait_for("it", Waiting().probe, Deadline(0.01), interval=0.001))


def test_who_is_on_no_errand_is_not_concerned(thread):
    other = Errand()

    def ended_here():
        other.end()
        with pytest.raises(Ended):
            errand.check()
        with pytest.raises(Ended):
            errand.sleep(LONG)
        thread.submit(errand.check).result(30)

    other.run(ended_here)
    # It is left with the work.
    errand.check()
    errand.sleep(0.0)
    errand.at_end(lambda: pytest.fail("nobody ends this"))()


def test_threads_that_get_its_context_are_part_of_it(thread):
    errand_, work = Errand(), Waiting()

    def in_a_lane():
        with ThreadPoolExecutor(1) as lanes:
            return lanes.submit(contextvars.copy_context().run, work).result(30)

    running = thread.submit(errand_.run, in_a_lane)
    assert work.begun.wait(30)
    errand_.end()
    with pytest.raises(Ended):
        running.result(30)


def test_what_was_left_for_its_end_is_done_then():
    errand_, done = Errand(), []
    taken_back = errand_.run(lambda: errand.at_end(lambda: done.append("taken back")))
    errand_.run(lambda: errand.at_end(lambda: done.append("first")))
    taken_back()
    taken_back()
    assert done == []
    errand_.end()
    errand_.end()
    assert done == ["first"]


def test_what_is_left_with_one_that_is_over_is_done_now():
    errand_, done = Errand(), []

    def work():
        errand_.end()
        return errand.at_end(lambda: done.append("late"))

    taken_back = errand_.run(work)
    assert done == ["late"]
    taken_back()
