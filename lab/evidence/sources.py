"""Where evidence comes from, as the collector sees it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from lab.core.deadline import Deadline

Content = str | bytes


class Sources(Protocol):
    """One place's evidence.

    Every call may raise whatever it likes and may overrun its deadline: the collector records
    the reason and goes on. Calls come one after another, each on a thread of its own.
    """

    def dbgview(self, deadline: Deadline) -> Content:
        """DbgView's log; of a dead guest, the last copy that was read from it."""

    def guest_serial(self, deadline: Deadline) -> Content:
        """What the guest wrote to its serial port since it was created."""

    def xen_serial(self) -> Path:
        """The file, on this machine, with the serial console of Xen and dom0."""

    def xl_dmesg(self, deadline: Deadline) -> Content:
        """The hypervisor's message buffer (``xl dmesg``, ``xm dmesg``)."""

    def xenstore_vbd(self, deadline: Deadline) -> Content:
        """The guest's vbd subtrees, backend and frontend (``xenstore-ls -f``)."""

    def toolstack_logs(self, deadline: Deadline) -> Mapping[str, Content]:
        """Toolstack, device-model and hotplug logs by file name."""

    def dump_core(self, deadline: Deadline) -> Iterable[bytes]:
        """The domain's core dump, uncompressed, in chunks as they arrive."""

    def timings(self) -> Mapping[str, float]:
        """How long each step of the test took, in seconds."""
