"""Attaches and detaches at the same time, as near to each other as dom0's shell gets them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lab.core.deadline import NotYet, wait_for
from lab.core.errors import DeadlineExpired, DriverFailure
from lab.core.journal import verb
from lab.xen import vbd
from lab.xen.blockspec import BlockSpec

if TYPE_CHECKING:
    from lab.core.deadline import Deadline
    from lab.place.place import Place
    from lab.suite.allowance import Allowances

CONNECTED = "4"  # XenbusStateConnected, xen/include/public/io/xenbus.h


@dataclass(frozen=True, slots=True)
class Move:
    """One attach or detach.

    Attributes:
        kind: which.
        spec: the device.
        delay: seconds to wait before it, in dom0.
        force: of a detach: do not wait for the guest to let go.
    """

    kind: Literal["attach", "detach"]
    spec: BlockSpec
    delay: float = 0.0
    force: bool = False


@verb
def at_once(place: Place, moves: Sequence[Move], lab: Allowances) -> None:
    """Make all moves from one script in dom0, each in a process of its own, and wait for them.

    What the toolstack answers says little of either end, so both are looked at.

    Raises:
        DriverFailure: a frontend did not connect, or a backend stayed because of its frontend.
        LabBroken: dom0 failed.
    """
    domain, toolstack = place.domain, place.toolstack
    lines: list[str] = []
    for move in moves:
        words = (
            toolstack.block_attach_words(domain, move.spec)
            if move.kind == "attach"
            else toolstack.block_detach_words(domain, move.spec.vdev, force=move.force)
        )
        lines.append(f"(sleep {move.delay:.3f}; {toolstack.command(*words)}) 2>&1 &")
    said = place.dom0.run("\n".join([*lines, "wait"]), lab.deadline("boot")).stdout
    for move in moves:
        try:
            _settled(place, move, lab.deadline("attach"))
        except DeadlineExpired as late:
            now = vbd.read(place.xenstore, domain.domid, move.spec.devid, lab.deadline("command"))
            ends = now.words if now else "no frontend"
            last = (said.strip().splitlines() or ["nothing"])[-1]
            raise DriverFailure(
                f"{move.kind} of {move.spec.vdev}, one of {len(moves)} at once: {ends}; "
                f"dom0 said last: {last}",
                stuck=now.stuck(move.kind) if now else "",
            ) from late


def _settled(place: Place, move: Move, deadline: Deadline) -> None:
    domid, devid = place.domain.domid, move.spec.devid
    if move.kind == "attach":
        place.xenstore.wait(f"{vbd.frontend_path(domid, devid)}/state", [CONNECTED], deadline)
        return
    backend = vbd.backend_path(domid, devid, "vbd" if move.spec.kind == "phy" else "qdisk")

    def gone() -> None:
        if left := place.xenstore.ls(backend, deadline):
            raise NotYet(f"{backend} has {len(left)} nodes")

    wait_for(f"{backend} to go", gone, deadline, interval=0.3)
