"""A guest's core, written by the lab's own dumper where dom0 has what it needs."""

from __future__ import annotations

import shlex
from pathlib import Path

from lab.core.deadline import Deadline
from lab.xen.dom0 import Dom0


def dump_quickly(dom0: Dom0, domid: int, path: str, deadline: Deadline) -> bool:
    """Write the core of an HVM guest to a file or device of dom0.

    Args:
        dom0: where the guest runs.
        domid: the guest.
        path: in dom0.
        deadline: for all of it.

    Returns:
        Whether that was done; where it was not, the toolstack can do it, slowly.

    Raises:
        LabBroken: dom0 is gone.
        DeadlineExpired: it took too long.
    """
    script = (Path(__file__).parent / "dumper.py").read_bytes()
    return dom0.run(f"python3 -S -E - {domid} {shlex.quote(path)}", deadline, stdin=script).ok
