"""The faults, as data: what breaks, in which test, at what moment."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass

from lab.core.errors import UsageError


@dataclass(frozen=True, slots=True)
class LabFault:
    """One way for the lab to break under a driver test.

    Attributes:
        name: short, for the command line.
        title: what happens, in a few words.
        area: of the test that it happens to.
        test: that test, below the driver suite's folder.
        moment: regular expression; the fault comes with the first command, in the guest or in
            dom0, in which it is found.
        dom0: shell script run in dom0 before that command is sent. What has to hit the command
            itself waits in the background. ``@DOMID@`` and ``@DESTROY@`` (the toolstack's
            command that destroys the guest) are replaced.
        signal: sent to QEMU while the command runs.
        fill_scratch: fill the file system of the place's scratch folder up before the command
            is sent.
        scratch_mib: give the run a file system of its own for its scratch folders, of this
            size in MiB; 0 for none.
        hvm_only: whether a PV guest does not have what breaks.
        quick: whether the lab's own integration tests make it.
    """

    name: str
    title: str
    area: str
    test: str
    moment: str
    dom0: str = ""
    signal: signal.Signals | None = None
    fill_scratch: bool = False
    scratch_mib: int = 0
    hvm_only: bool = False
    quick: bool = False


_SIZE = "test_attach.py::test_disk_appears_with_its_size"
_SEVERAL = "test_attach.py::test_several_disks"
_UNALIGNED = "test_data.py::test_unaligned_requests"
_FILE = "test_data.py::test_file_reads_back_as_written"
_REBOOT = "test_lifecycle.py::test_reboot"
_DISABLE = "test_lifecycle.py::test_disable_and_enable"
_BAD = "test_faults.py::test_bad_sectors"
_SURVIVES = "test_crash.py::test_guest_survives_attach_and_detach"
_CRASH = "test_crash.py::test_crash_under_io_is_seen"
_INSTALL = "test_install.py::test_devices_run"

FAULTS: tuple[LabFault, ...] = (
    LabFault(
        "qemu-killed",
        "QEMU gets SIGKILL while a disk is attached",
        "attach",
        _SIZE,
        r"block-attach",
        signal=signal.SIGKILL,
        quick=True,
    ),
    LabFault(
        "volume-group-full",
        "somebody takes all that is free in dom0's volume group",
        "attach",
        _SEVERAL,
        r"lvcreate",
        dom0="lvcreate -q -y -Zn -Wn -l 100%FREE -n somebody-else vg00 >&2",
    ),
    LabFault(
        "dom0-disk-full",
        "dom0's root filesystem fills up before a disk is attached",
        "attach",
        _SIZE,
        r"block-attach",
        dom0="dd if=/dev/zero of=/var/log/flood bs=4096k 2>/dev/null; sync; df / | grep -q 100%",
    ),
    LabFault(
        "qemu-hangs",
        "QEMU gets SIGSTOP while the guest writes",
        "data",
        _UNALIGNED,
        r"^diskio run",
        signal=signal.SIGSTOP,
    ),
    LabFault(
        "scratch-full",
        "the file system of the lab's scratch folder fills up while the guest writes",
        "data",
        _UNALIGNED,
        r"^diskio run",
        fill_scratch=True,
        scratch_mib=192,
    ),
    LabFault(
        "bridge-down",
        "the guest's bridge in dom0 is taken down while a file is copied",
        "data",
        _FILE,
        r"^copy ",
        dom0="ip link set xenbr0 down",
    ),
    LabFault(
        "ssh-cut",
        "dom0's SSH server is killed while a disk is attached",
        "faults",
        _BAD,
        r"block-attach",
        dom0="(sleep 1; kill -9 $(pidof sshd)) </dev/null >/dev/null 2>&1 &",
        quick=True,
    ),
    LabFault(
        "domain-destroyed",
        "somebody destroys the guest's domain while the guest writes",
        "faults",
        _BAD,
        r"^diskio write",
        dom0="(sleep 1; @DESTROY@) </dev/null >/dev/null 2>&1 &",
        quick=True,
    ),
    LabFault(
        "winrm-cut",
        "a firewall in dom0 drops what goes to the guest while its driver is installed",
        "install",
        _INSTALL,
        r"^devcon update",
        dom0="nft 'add table ip firewall; add chain ip firewall guests "
        "{ type filter hook forward priority 0; policy drop; }'",
    ),
    LabFault(
        "xenstored-killed",
        "xenstored is killed in dom0 while a disk is detached",
        "crash",
        _SURVIVES,
        r"block-detach",
        dom0="(sleep 1; kill -9 $(pidof xenstored)) </dev/null >/dev/null 2>&1 &",
    ),
    LabFault(
        "exchange-gone",
        "the disk through which core dumps leave dom0 is unplugged before a crash",
        "crash",
        _CRASH,
        r"xen-hvmcrash",
        dom0='echo 1 > "$(dirname "$(readlink -f /sys/block/vdd/device)")/remove"',
        hvm_only=True,
    ),
    LabFault(
        "dom0-panics",
        "dom0's kernel panics while the driver is disabled",
        "lifecycle",
        _DISABLE,
        r"^devcon disable",
        dom0="(sleep 1; echo c > /proc/sysrq-trigger) </dev/null >/dev/null 2>&1 &",
    ),
    LabFault(
        "device-model-killed",
        "the guest's device model (qemu-dm) is killed while the guest restarts",
        "lifecycle",
        _REBOOT,
        r"^shutdown /r",
        dom0="kill -9 $(ps -e -o pid= -o args= | awk '/ -xen-domid @DOMID@ /{print $1}' | head -1)",
        hvm_only=True,
    ),
    LabFault(
        "xl-killed",
        "the process of xl that restarts the guest is killed while the guest restarts",
        "lifecycle",
        _REBOOT,
        r"^shutdown /r",
        dom0="kill -9 $(pidof xl)",
        hvm_only=True,
    ),
)


def choose(faults: Sequence[LabFault], names: Sequence[str], area: str = "") -> list[LabFault]:
    """Those with the given names and area, in the catalogue's order; all when none is given.

    Raises:
        UsageError: there is none of a name, or none is left.
    """
    if unknown := sorted(set(names) - {fault.name for fault in faults}):
        raise UsageError(
            f"no fault of the lab is called {unknown[0]!r}",
            hint=f"there are: {', '.join(fault.name for fault in faults)}",
        )
    chosen = [
        fault
        for fault in faults
        if (not names or fault.name in names) and (not area or fault.area == area)
    ]
    if not chosen:
        raise UsageError(
            f"no such fault in the area {area!r}",
            hint=f"areas: {', '.join(dict.fromkeys(fault.area for fault in faults))}",
        )
    return chosen
