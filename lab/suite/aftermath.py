"""What a failure has left behind: whether the place still works, and what became of the guest.

Trouble in looking must not replace what is being looked into.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.core.errors import GuestCrashed, LabBroken, PvlabError

if TYPE_CHECKING:
    from lab.core.deadline import Deadline
    from lab.place.place import Place


@dataclass(frozen=True, slots=True)
class Seen:
    """The state of a place after a failure.

    Attributes:
        ok: whether QEMU is alive and dom0 answers.
        cause: what is wrong otherwise.
    """

    ok: bool
    cause: str


def examine(place: Place, deadline: Deadline) -> Seen:
    """Ask a place how it is; one that cannot even be asked is broken."""
    try:
        health = place.health(deadline)
    except Exception as error:
        return Seen(False, f"its health could not be told: {error or type(error).__name__}")
    return Seen(health.ok, health.cause)


def freeze(place: Place, deadline: Deadline) -> None:
    """Pause a guest that crashed or hangs: its memory stays as it is, and a processor that
    spins in it no longer slows what collects the evidence."""
    with contextlib.suppress(PvlabError):
        place.toolstack.pause(place.domain, deadline)


def find_crash(
    place: Place, deadline: Deadline, known: GuestCrashed | None = None
) -> GuestCrashed | None:
    """What the crash monitor has to say about the guest now.

    Args:
        place: whose guest.
        deadline: for looking.
        known: the crash that the test met already; it is told in more detail then.

    Raises:
        LabBroken: nothing is known of a crash, and the guest is silent for another reason.
    """
    try:
        found = place.guest.crash.check(deadline)
    except LabBroken:
        if known is None:
            raise
        return known
    except Exception:
        # Whether the place can be asked at all is what `examine` tells.
        return known
    if found is None or (known is not None and found.summary in known.message):
        return known
    if known is None:
        return GuestCrashed(f"the guest crashed: {found.summary}", evidence=found.evidence)
    return GuestCrashed(
        f"{known.message}; {found.summary}", evidence=(*known.evidence, *found.evidence)
    )
