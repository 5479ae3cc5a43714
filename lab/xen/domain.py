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


# `xl`: tools/xl/xl_info.c list_domains; `xm` 3.1: tools/python/xen/xm/main.py xm_brief_list.
_ROW = re.compile(
    r"(?P<name>\S.*?)\s+(?P<domid>\d+)\s+(?P<mem>\d+)\s+(?P<vcpus>\d+)"
    r"\s+(?P<state>[-rbpscdwS?]{6})\s+(?P<time>\d+(?:\.\d+)?)\s*"
)
_NOT_RUNNING = re.compile(r"\S.*?\s+\d+\s+\d+\s+(?:[-rbpscdwS?]{6}\s+)?\d+(?:\.\d+)?\s*")


def parse_list(text: str) -> list[Domain]:
    """Parse the table of ``xl list`` or ``xm list``.

    Both heads are known: ``Name ID Mem VCPUs State Time(s)`` and ``Mem(MiB)``. A name may
    hold spaces. Domains that xm manages but that do not run have no id and are left out.

    Raises:
        LabBroken: a row is not understood.
    """
    domains: list[Domain] = []
    for line in map(str.strip, text.splitlines()):
        if not line or line.split()[:2] == ["Name", "ID"]:
            continue
        row = _ROW.fullmatch(line)
        if row is None:
            if _NOT_RUNNING.fullmatch(line):
                continue
            raise LabBroken(f"cannot read this line of the domain list: {line}")
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
