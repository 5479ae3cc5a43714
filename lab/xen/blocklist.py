"""Rows of ``block-list``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lab.core.errors import LabBroken
from lab.xen.blockspec import vdev_name
from lab.xen.states import XenbusState

# Vdev BE handle state evt-ch ring-ref BE-path; `xl` and `xm` differ in widths only. A value
# the frontend has not published is -1, a path that is missing is `??`.
_ROW = re.compile(r"(\d+)\s+(-?\d+)\s+(-?\d+)\s+(-?\d+)\s+(-?\d+)\s+(-?\d+)\s+(\S+)\s*")


@dataclass(frozen=True, slots=True)
class BlockListEntry:
    """A virtual block device as the toolstack lists it.

    Attributes:
        devid: virtual device number.
        backend_domid: domain its backend runs in.
        handle: frontend's domain id on xl, device handle on xm.
        state: the frontend's state.
        event_channel: None when the frontend has published none.
        ring_ref: grant reference of the ring; None when the frontend has published none.
        backend_path: the backend's xenstore path.
    """

    devid: int
    backend_domid: int
    handle: int
    state: XenbusState
    event_channel: int | None
    ring_ref: int | None
    backend_path: str

    @property
    def vdev(self) -> str:
        """Name of the virtual device, such as ``hdc``."""
        return vdev_name(self.devid)


BlockList = list[BlockListEntry]


def parse_block_list(text: str) -> BlockList:
    """Parse the table of ``xl block-list`` or ``xm block-list``.

    Raises:
        LabBroken: a row is not understood.
    """
    entries: BlockList = []
    for line in text.splitlines():
        if not line.strip() or line.startswith("Vdev"):
            continue
        row = _ROW.fullmatch(line.strip())
        if row is None:
            raise LabBroken(f"cannot read this line of the block list: {line.strip()}")
        devid, backend_domid, handle, _, event_channel, ring_ref = map(int, row.groups()[:6])
        entries.append(
            BlockListEntry(
                devid=devid,
                backend_domid=backend_domid,
                handle=handle,
                state=XenbusState.parse(row[4]),
                event_channel=event_channel if event_channel >= 0 else None,
                ring_ref=ring_ref if ring_ref >= 0 else None,
                backend_path=row[7],
            )
        )
    return entries
