"""How fast a machine is, so that what a test may take can be said of this one."""

from __future__ import annotations

from lab.core.deadline import Deadline
from lab.xen.dom0 import Dom0

#: What is timed: processes that do nothing, since starting them is most of what dom0 does when
#: disks come and go, and what emulation makes dearest.
PROCESSES = 10

#: How often. The fastest time counts: whatever else runs can only make one longer.
ROUNDS = 5

#: Seconds that it takes on the machine that the figures in ``lab.suite.costs`` are of, by
#: accelerator; KVM's are estimates, so there is nothing to compare with.
REFERENCE_SECONDS = {"tcg-hvm": 0.65, "tcg-pv": 0.65}


def measure(dom0: Dom0, deadline: Deadline) -> float:
    """Seconds that dom0 takes for the processes, at best.

    Raises:
        LabBroken: dom0 failed.
        DeadlineExpired: in time.
    """
    script = f"i=0; while [ $i -lt {PROCESSES} ]; do i=$((i + 1)); /bin/true; done"
    return min(dom0.run(script, deadline, check=True).seconds for _ in range(ROUNDS))


def pace(seconds: float, accelerator: str) -> float:
    """How many times as long as on the reference machine things take here; never below 1.

    Args:
        seconds: what ``measure`` gave.
        accelerator: name of the rung.
    """
    reference = REFERENCE_SECONDS.get(accelerator)
    return max(1.0, seconds / reference) if reference else 1.0
