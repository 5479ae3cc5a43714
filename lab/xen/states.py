"""Xenbus states."""

from __future__ import annotations

import enum


class XenbusState(enum.IntEnum):
    """State of one end of a paravirtual device (Xen: public/io/xenbus.h)."""

    UNKNOWN = 0
    INITIALISING = 1
    INIT_WAIT = 2
    INITIALISED = 3
    CONNECTED = 4
    CLOSING = 5
    CLOSED = 6
    RECONFIGURING = 7
    RECONFIGURED = 8

    @classmethod
    def parse(cls, text: str | None) -> XenbusState:
        """The state a node's value means; UNKNOWN when absent or no state."""
        try:
            return cls(int(text or ""))
        except ValueError:
            return cls.UNKNOWN

    @property
    def words(self) -> str:
        """For messages: ``InitWait (2)``."""
        return f"{self.word} ({self.value})"

    @property
    def word(self) -> str:
        """As Xen's headers spell it: ``InitWait``."""
        return "".join(part.capitalize() for part in self.name.split("_"))
