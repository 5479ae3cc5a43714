"""A place as a source of evidence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lab.core.deadline import Deadline
from lab.guest.dbgview import LOG
from lab.xen import logs
from lab.xen.xend import read_log

if TYPE_CHECKING:
    from lab.place.place import Place


class PlaceSources:
    """Reads a place's logs; see ``lab.evidence.sources.Sources`` for each method.

    Args:
        place: the place, with its guest alive or not.

    Attributes:
        guest_lost: set when the guest crashed or hangs, so that nobody waits for its answer.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self.guest_lost = False

    def dbgview(self, deadline: Deadline) -> bytes:
        """DbgView's log; of a dead guest, what had reached its disk."""
        if self.guest_lost:
            return self._place.read_offline(LOG, deadline)
        copy = self._place.scratch / "dbgview.log"
        self._place.guest.dbgview.read(copy, deadline)
        return copy.read_bytes()

    def guest_serial(self, deadline: Deadline) -> str:
        """What the guest wrote to its serial port since it was created."""
        return self._place.guest_serial(deadline)

    def xen_serial(self) -> Path:
        """The serial console of Xen and dom0, a file on this machine."""
        return self._place.machine.serial_log

    def xl_dmesg(self, deadline: Deadline) -> str:
        """The hypervisor's message buffer."""
        return self._place.toolstack.dmesg(deadline)

    def xenstore_vbd(self, deadline: Deadline) -> str:
        """The guest's vbd subtrees, backend and frontend."""
        domid = self._place.domain.domid
        subtrees = (f"/local/domain/0/backend/vbd/{domid}", f"/local/domain/{domid}/device/vbd")
        # Xen 3.x lists a tree only, without whole paths.
        whole = "-f " if self._place.toolstack.has_watches else ""
        command = "; ".join(f"echo {path}; xenstore-ls {whole}{path} 2>&1" for path in subtrees)
        return self._place.dom0.run(command, deadline).stdout

    def toolstack_logs(self, deadline: Deadline) -> Mapping[str, bytes]:
        """Toolstack, device-model and hotplug logs by file name."""
        folder = self._place.scratch / "logs"
        folder.mkdir(exist_ok=True)
        found = logs.collect(self._place.toolstack, folder, deadline)
        # Xen's messages are a piece of evidence of their own, see xl_dmesg.
        files = {path.name: path.read_bytes() for path in found if path.name != "xl-dmesg.txt"}
        # Out of a log of many files that rotate, and of a folder that nobody looks into.
        trouble = [line for line in read_log(folder / "xen") if line.trouble]
        if trouble:
            files["xend-trouble.txt"] = "".join(f"{line}\n" for line in trouble).encode()
        if cores := self._place.toolstack.automatic_cores(deadline):
            files["xend-cores.txt"] = "".join(f"{core.file}\n" for core in cores).encode()
        return files

    def dump_core(self, deadline: Deadline) -> Iterable[bytes]:
        """The domain's memory."""
        return self._place.dump_core(deadline)

    def timings(self) -> Mapping[str, float]:
        """How long each step took, in s."""
        return dict(self._place.timings)
