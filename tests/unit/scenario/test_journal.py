from __future__ import annotations

import contextlib
import contextvars
import threading
from abc import ABC, abstractmethod

import pytest

from lab.core import journal
from lab.core.journal import listening, noun, unheard, verb


class Ear:
    def __init__(self):
        self.calls = []

    def heard(self, call):
        self.calls.append(call)

    @property
    def names(self):
        return [call.name for call in self.calls]


@noun
class Tool(ABC):
    def act(self, what, *, force=False, **how):
        """Doing it."""
        return f"did {what}"

    def act_twice(self):
        self.act(1)
        return self._quietly()

    def fail(self):
        raise ValueError("no")

    def _quietly(self):
        return self.act(2)

    @property
    def state(self):
        return "fine"

    @classmethod
    def make(cls):
        return cls()

    @contextlib.contextmanager
    def guard(self):
        yield

    @abstractmethod
    def words(self): ...


class Real(Tool):
    def words(self):
        return ()


@verb
def do_it(tool, what):
    return tool.act(what)


@pytest.fixture
def ear():
    ear = Ear()
    with listening(ear):
        yield ear


def test_calls_from_outside_are_told(ear):
    tool = Real()
    assert tool.act("this", force=True, gen=3) == "did this"
    (call,) = ear.calls
    assert call.name == "Tool.act"
    assert call.target is tool
    assert call.arguments == {"what": "this", "force": True, "gen": 3}
    assert call.result == "did this"
    assert call.error is None
    assert call.started <= call.ended


def test_what_nouns_do_through_nouns_is_not(ear):
    tool = Real()
    tool.act_twice()
    do_it(tool, 1)
    assert ear.names == ["Tool.act_twice", "test_journal.do_it"]
    assert ear.calls[1].arguments == {"tool": tool, "what": 1}
    assert ear.calls[1].target is None


def test_what_is_done_inside_a_guard_is_told(ear):
    tool = Real()
    with tool.guard():
        tool.act(1)
    assert ear.names == ["Tool.guard", "Tool.act"]


def test_errors_are_told_and_pass(ear):
    with pytest.raises(ValueError, match="no"):
        Real().fail()
    assert isinstance(ear.calls[0].error, ValueError)
    with pytest.raises(TypeError):
        Real().act()
    assert ear.names == ["Tool.fail"]


def test_looks_at_properties_and_class_methods_are_not_told(ear):
    assert Tool.act.__doc__ == "Doing it."
    assert Real.make().state == "fine"
    assert ear.calls == []
    with pytest.raises(TypeError, match="abstract"):
        Tool()


def test_nobody_listens():
    assert Real().act(1) == "did 1"
    assert journal._listener is None


def test_unheard(ear):
    with unheard():
        Real().act(1)
    assert ear.calls == []


def test_threads_that_a_noun_starts_are_inside_it(ear):
    def work():
        Real().act("something")

    def in_thread(target, *args):
        thread = threading.Thread(target=target, args=args)
        thread.start()
        thread.join()

    in_thread(work)
    assert ear.names == ["Tool.act"]
    with unheard():
        in_thread(contextvars.copy_context().run, work)
    assert ear.names == ["Tool.act"]
