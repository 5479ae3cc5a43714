"""A plain PC in QEMU, as something to install on."""

from __future__ import annotations

import contextlib
from pathlib import Path

from lab.core.atomic import atomic_file
from lab.core.deadline import Deadline
from lab.crash.screen import open_picture
from lab.qemu.machine import Console, Machine

_RAW = "screen.ppm"


class PcBench:
    """A started PC.

    Args:
        machine: started from a ``PcSpec`` with ``paused``.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def console(self) -> contextlib.AbstractContextManager[Console]:
        """The second serial port."""
        return self.machine.console()

    def picture(self, target: Path, deadline: Deadline) -> None:
        """Write a picture of the screen, a PNG file.

        Raises:
            LabBroken: QEMU refused or died.
            UsageError: QEMU wrote something that is no picture.
        """
        raw = self.machine.screen(self.machine.scratch / _RAW, deadline)
        with atomic_file(target) as file:
            open_picture(raw).save(file, format="PNG")

    def reset(self, deadline: Deadline) -> None:
        """Press the reset button.

        Raises:
            LabBroken: QEMU refused or died.
        """
        self.machine.reset(deadline)

    def resume(self, deadline: Deadline) -> None:
        """Let the processor run.

        Raises:
            LabBroken: QEMU refused or died.
        """
        self.machine.resume(deadline)

    def restarts(self, deadline: Deadline) -> int:
        """How often the guest restarted the PC so far.

        Raises:
            LabBroken: QEMU refused or died.
        """
        # Any answer brings the events that came before it.
        self.machine.monitor.execute("query-status", deadline=deadline)
        return self.machine.monitor.guest_resets

    def why_dead(self) -> str:
        """One line about the end of the process; empty while it runs."""
        return self.machine.why_dead()
