"""Listening to a test: when it did what, for the timeline of its failure."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from lab.core.journal import Call, Listener
from lab.evidence.operations import Operation, Operations
from lab.scenario.record import EVIDENCE_THREADS, LOOKS
from lab.xen.blockspec import BlockSpec
from lab.xen.vbd import Vbd

MOST = 500
"""Operations that are kept, the last ones: a test that loops for hours ends with its failure."""

LENGTH = 300
"""Characters of a line."""

TOLD = frozenset({"DbgView.start"})
"""Looks that a timeline is about all the same: DbgView's clock begins with its capture."""


@dataclass
class Both:
    """Tells several listeners.

    Attributes:
        listeners: they, in order.
    """

    listeners: Iterable[Listener]

    def heard(self, call: Call) -> None:
        """Pass a call on."""
        for listener in self.listeners:
            listener.heard(call)


@dataclass
class OperationLog:
    """Notes when a test did what; a ``lab.core.journal.Listener``."""

    _zero: float = field(default_factory=time.time)
    _began: float = field(default_factory=time.monotonic)
    _kept: list[Operation] = field(default_factory=list)
    _dropped: int = 0

    def heard(self, call: Call) -> None:
        """Note a call; never raises."""
        if threading.current_thread().name.startswith(EVIDENCE_THREADS):
            return
        if call.name in LOOKS and call.name not in TOLD and call.error is None:
            return
        self._kept.append(self._operation(call))
        if len(self._kept) > MOST:
            del self._kept[0]
            self._dropped += 1

    def document(self) -> Operations:
        """What was heard so far."""
        return Operations(
            zero=self._zero,
            kept=time.time(),
            left_out=self._dropped,
            operations=tuple(self._kept),
        )

    def _operation(self, call: Call) -> Operation:
        error = f"{type(call.error).__name__}: {call.error}" if call.error is not None else ""
        # A call may have begun before the listening did.
        started = max(0.0, call.started - self._began)
        return Operation(
            name=call.name,
            words=_line(" ".join([call.name, *_words(call.arguments.values())])),
            started=started,
            ended=max(started, call.ended - self._began),
            error=_line(error),
            after=_line(_state(call.result)),
        )


def _words(values: Iterable[Any]) -> Iterable[str]:
    """The arguments that say something in a word or two."""
    for value in values:
        if isinstance(value, str | int | float | BlockSpec) and not isinstance(value, bool):
            yield str(value)


def _state(result: Any) -> str:
    """The state of the block device that a call returned, if it did."""
    found = result[0] if isinstance(result, tuple) and result else result
    return f"{found.vdev}: {found.words}" if isinstance(found, Vbd) else ""


def _line(text: str) -> str:
    plain = " ".join(text.encode("utf-8", "backslashreplace").decode().split())
    return plain if len(plain) <= LENGTH else plain[: LENGTH - 3] + "..."
