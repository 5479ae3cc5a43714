"""How long things may take, by what they are: the deadlines of a profile, asked for by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from lab.core.deadline import Deadline

if TYPE_CHECKING:
    from lab.config.profile import Deadlines

Allowance = Literal["boot", "attach", "command", "crash", "evidence"]


class Allowances(Protocol):
    """Gives out deadlines."""

    def deadline(self, allowance: Allowance) -> Deadline:
        """A new deadline, from now.

        Args:
            allowance: which of the profile's deadlines to spend.
        """


@dataclass(frozen=True, slots=True)
class Granted:
    """The deadlines of a place.

    Attributes:
        seconds: by allowance, as they apply under the place's accelerator.
    """

    seconds: Deadlines

    def deadline(self, allowance: Allowance) -> Deadline:
        """A new deadline, from now."""
        granted: float = getattr(self.seconds, allowance)
        return Deadline(granted)
