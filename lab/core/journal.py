"""What is being done to a guest and its host, told to whoever listens.

The lab's nouns (a toolstack, a guest's disks, a block device) are marked with ``noun``, its
functions that act on a place with ``verb``. While somebody listens, each call from outside the
nouns is told once, when it ended: what one noun does through others is its own business. When
nobody listens, as in most processes, a call costs one look at a variable.
"""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call:
    """One call that has ended.

    Attributes:
        name: of class and method, ``Toolstack.pause``, or of module and function,
            ``lifecycle.reboot``.
        target: whose method it was; None for a function.
        arguments: by parameter's name, those that were given.
        result: what it returned; None when it raised.
        error: what it raised; None when it returned.
        started: on ``time.monotonic``.
        ended: likewise.
    """

    name: str
    target: object
    arguments: Mapping[str, Any]
    result: Any
    error: BaseException | None
    started: float
    ended: float


class Listener(Protocol):
    """Is told what is done."""

    def heard(self, call: Call) -> None:
        """A call has ended. What this raises ends the call's caller."""


_listener: Listener | None = None
# Per thread, and handed on with its context: a thread that a noun started is inside it.
_inside: ContextVar[bool] = ContextVar("inside", default=False)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Tell a listener what is done until the block ends; one listener at a time."""
    global _listener
    before, _listener = _listener, listener
    try:
        yield
    finally:
        _listener = before


@contextmanager
def unheard() -> Iterator[None]:
    """Whatever this thread does in the block is told to nobody."""
    token = _inside.set(True)
    try:
        yield
    finally:
        _inside.reset(token)


def noun(kind: type[T]) -> type[T]:
    """Have the public methods of a class told; properties and class methods are left alone."""
    for name, attribute in list(vars(kind).items()):
        if not name.startswith("_") and inspect.isfunction(attribute):
            setattr(kind, name, _told(attribute, f"{kind.__name__}.{name}", method=True))
    return kind


def verb(function: Callable[P, R]) -> Callable[P, R]:
    """Have a function told."""
    module = function.__module__.rpartition(".")[2]
    return _told(function, f"{module}.{function.__name__}", method=False)


def _told(function: Callable[P, R], name: str, *, method: bool) -> Callable[P, R]:
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        listener = _listener
        if listener is None or _inside.get():
            return function(*args, **kwargs)
        started = time.monotonic()
        token = _inside.set(True)
        result: Any = None
        error: BaseException | None = None
        try:
            result = function(*args, **kwargs)
            return result  # type: ignore[no-any-return]
        except BaseException as failure:
            error = failure
            raise
        finally:
            ended = time.monotonic()
            try:
                given = dict(signature.bind(*args, **kwargs).arguments)
                given.update(given.pop("how", {}))
                target = given.pop("self", None) if method else None
                listener.heard(Call(name, target, given, result, error, started, ended))
            finally:
                _inside.reset(token)

    return call
