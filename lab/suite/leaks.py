"""What a guest and its host hold, counted from outside, so that a leak shows as a difference."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass

from lab.core.deadline import Deadline, NotYet, wait_for
from lab.core.errors import DeadlineExpired, LabBroken
from lab.core.journal import verb
from lab.place.place import Place

# The guest's own grant table, through Xen: every entry that allows somebody something, mapped
# or not. (`xl debug-keys g` shows the mapped ones only; a leaked one is not.) Structures:
# public/grant_table.h (grant_entry_v1, gnttab_query_size), xenctrl.h, xenforeignmemory.h.
_GRANTS = r"""
import ctypes, sys
domid = int(sys.argv[1])
ctrl = ctypes.CDLL("libxenctrl.so.4.17")
ctrl.xc_interface_open.restype = ctypes.c_void_p
ctrl.xc_interface_open.argtypes = [ctypes.c_void_p] * 2 + [ctypes.c_uint]
class Query(ctypes.Structure):
    _fields_ = [("dom", ctypes.c_uint16), ("frames", ctypes.c_uint32),
                ("most", ctypes.c_uint32), ("status", ctypes.c_int16)]
ctrl.xc_gnttab_query_size.argtypes = [ctypes.c_void_p, ctypes.POINTER(Query)]
query = Query(dom=domid)
if ctrl.xc_gnttab_query_size(ctrl.xc_interface_open(None, None, 0), ctypes.byref(query)):
    sys.exit("no grant table")
memory = ctypes.CDLL("libxenforeignmemory.so.1")
memory.xenforeignmemory_open.restype = ctypes.c_void_p
memory.xenforeignmemory_open.argtypes = [ctypes.c_void_p, ctypes.c_uint]
take = memory.xenforeignmemory_map_resource
take.restype = ctypes.c_void_p
take.argtypes = [ctypes.c_void_p, ctypes.c_uint16, ctypes.c_uint, ctypes.c_uint,
                 ctypes.c_ulong, ctypes.c_ulong, ctypes.POINTER(ctypes.c_void_p),
                 ctypes.c_int, ctypes.c_int]
address = ctypes.c_void_p()
if not take(memory.xenforeignmemory_open(None, 0), domid, 1, 0, 0, query.frames,
            ctypes.byref(address), 1, 0):
    sys.exit("cannot map it")
table = ctypes.string_at(address.value, query.frames * 4096)
print(sum(1 for at in range(0, len(table), 8) if table[at] & 3), query.frames)
"""

_SCRIPT = r"""
domid=$1
python3 - "$domid" <<'END' || exit 3
@GRANTS@
END
/usr/lib/xen-*/bin/lsevtchn "$domid" | wc -l
xenstore-ls "/local/domain/$domid" | wc -l
xenstore-ls "/local/domain/0/backend/vbd/$domid" 2>/dev/null | wc -l
xl list "$domid" | awk 'NR == 2 { print $3 }'
""".replace("@GRANTS@", _GRANTS)


#: Seconds between two counts.
INTERVAL = 1.0


@dataclass(frozen=True, slots=True)
class Holdings:
    """What is held for a guest at one moment.

    Attributes:
        grants: entries in use in the guest's grant table.
        grant_frames: pages that the table has.
        event_channels: the guest's, in any state but free.
        frontend_nodes: lines of the guest's directory in xenstore.
        backend_nodes: lines of dom0's block backends for the guest.
        memory_mib: memory of the domain.
    """

    grants: int
    grant_frames: int
    event_channels: int
    frontend_nodes: int
    backend_nodes: int
    memory_mib: int

    def more_than(self, before: Holdings) -> dict[str, int]:
        """What there is more of than before, by name; empty when nothing leaked."""
        old = asdict(before)
        return {name: now - old[name] for name, now in asdict(self).items() if now > old[name]}


@verb
def holdings(place: Place, deadline: Deadline) -> Holdings:
    """Count what is held for a place's guest now.

    Raises:
        LabBroken: dom0 cannot tell.
    """
    result = place.dom0.run(f"sh -s {place.domain.domid}", deadline, stdin=_SCRIPT.encode())
    numbers = [int(word) for word in result.stdout.split() if word.isdecimal()]
    if not result.ok or len(numbers) != len(Holdings.__dataclass_fields__):
        said = (result.stderr or result.stdout).strip().splitlines()
        raise LabBroken(f"dom0 cannot count what the guest holds: {said[-1] if said else '?'}")
    return Holdings(*numbers)


def settled(place: Place, deadline: Deadline) -> Holdings:
    """Count once nothing is let go of any more: two counts in a row agree.

    Raises:
        DeadlineExpired: they did not.
        LabBroken: dom0 cannot tell.
    """
    last: Holdings | None = None

    def probe() -> Holdings:
        nonlocal last
        now, last = holdings(place, deadline), last
        if now != last:
            last = now
            raise NotYet(str(now))
        return now

    return wait_for("what the guest holds to stay the same", probe, deadline, interval=INTERVAL)


def grown(
    place: Place,
    before: Holdings,
    deadline: Deadline,
    *,
    by: int = 1,
    of: Collection[str] = tuple(Holdings.__dataclass_fields__),
) -> dict[str, int]:
    """What there is more of than before and stays so: the backend ends its mappings when it
    sees the frontend gone, and the guest its grants after that.

    Args:
        place: the guest's.
        before: what it held.
        deadline: until when it may let go.
        by: how many more count.
        of: names of what counts.

    Returns:
        How many more, by name; empty when nothing leaked.

    Raises:
        DeadlineExpired: it could not be counted in time.
        LabBroken: dom0 cannot tell.
    """
    more: dict[str, int] | None = None

    def probe() -> None:
        nonlocal more
        now = holdings(place, deadline).more_than(before)
        more = {name: count for name, count in now.items() if count >= by and name in of}
        if more:
            raise NotYet(str(more))

    try:
        wait_for("what the guest holds to be let go of", probe, deadline, interval=INTERVAL)
    except DeadlineExpired:
        if more is None:
            raise
        return more
    return {}
