"""A domain as the toolstack lists it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lab.core.errors import LabBroken


@dataclass(frozen=True, slots=True)
class Domain:
    """One row of ``xl list`` or ``xm list``.

    Attributes:
        name: its name.
        domid: its id; a new one after every start.
        mem_mib: memory in MiB.
        vcpus: virtual CPUs online.
        state: the six flags: running, blocked, paused, shutdown, crashed (on xl the letter
            of the shutdown reason: r reboot, s suspend, c crash, w watchdog), dying.
        time_s: CPU time used, in seconds.
    """

    name: str
    domid: int
    mem_mib: int
    vcpus: int
    state: str
    time_s: float

    @property
    def shut_down(self) -> bool:
        """Whether it has stopped running and was kept or is about to be removed."""
        return "s" in self.state[3:4]

    @property
    def crashed(self) -> bool:
        """Whether the hypervisor was told of a crash.

        False proves nothing: a panicking Linux guest reports a reboot, a Windows bugcheck
        reports nothing at all.
        """
        return self.state[4:5] == "c"

    @property
    def dying(self) -> bool:
        """Whether it is being torn down."""
        return self.state[5:6] == "d"


# `xl`: tools/xl/xl_info.c list_domains; `xm` 3.1: tools/python/xen/xm/main.py xm_brief_list,
# 3.0 the same, with ` s:LABEL/p:LABEL` at the end where there is a security policy.
_ROW = re.compile(
    r"(?P<name>\S.*?)\s+(?P<domid>\d+)\s+(?P<mem>\d+)\s+(?P<vcpus>\d+)"
    r"\s+(?P<state>[-rbpscdwS?]{6})\s+(?P<time>\d+(?:\.\d+)?)\s*(?:s:[0-9a-f]+/p:[0-9a-f]+)?"
)
_NOT_RUNNING = re.compile(r"\S.*?\s+\d+\s+\d+\s+(?:[-rbpscdwS?]{6}\s+)?\d+(?:\.\d+)?\s*")
_ID_WIDTH = 3


def parse_list(text: str) -> list[Domain]:
    """Parse the table of ``xl list`` or ``xm list``.

    Both heads are known: ``Name ID Mem VCPUs State Time(s)`` and ``Mem(MiB)``. A name may
    hold spaces and be longer than its column. Domains that xm manages but that do not run
    have no id and are left out.

    Raises:
        LabBroken: a row is not understood.
    """
    domains: list[Domain] = []
    id_end = 0
    for line in text.splitlines():
        if not line.strip():
            continue
        if line.split()[:2] == ["Name", "ID"]:
            id_end = line.index("ID") + len("ID")
            continue
        row = _ROW.fullmatch(line.strip())
        # A name that ends in a number must not be taken for an id: the id's column says.
        no_id = id_end > 0 and not line[id_end - _ID_WIDTH : id_end].strip()
        if row is None or no_id:
            if _NOT_RUNNING.fullmatch(line.strip()):
                continue
            raise LabBroken(f"cannot read this line of the domain list: {line.strip()}")
        domains.append(
            Domain(
                name=row["name"],
                domid=int(row["domid"]),
                mem_mib=int(row["mem"]),
                vcpus=int(row["vcpus"]),
                state=row["state"],
                time_s=float(row["time"]),
            )
        )
    return domains
