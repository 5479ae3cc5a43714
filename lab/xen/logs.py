"""What dom0 can tell after the fact: toolstack, device model, hotplug, kernel, hypervisor."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path, PurePosixPath

from lab.core.deadline import Deadline
from lab.core.errors import LabBroken
from lab.xen.toolstack import Toolstack

# One command: dom0's own files and two message buffers, as a tar stream. Nothing is
# compressed, since dom0's CPU is emulated and the loopback is not. Xen 3.0 has its logs in
# /var/log itself.
_COLLECT = r"""
folder=$(mktemp -d) || exit
trap 'rm -rf "$folder"' EXIT
@DMESG@ >"$folder/xl-dmesg.txt" 2>&1
dmesg 2>&1 | tail -n 1000 >"$folder/dom0-dmesg.txt"
logs=$(cd /var/log && ls -d xen xend*.log* xen-hotplug.log 2>/dev/null)
tar -cf - -C "$folder" xl-dmesg.txt dom0-dmesg.txt -C /var/log $logs 2>/dev/null
"""


def collect(toolstack: Toolstack, into: Path, deadline: Deadline) -> list[Path]:
    """Copy dom0's logs.

    Args:
        toolstack: whose ``dmesg`` shows the hypervisor's messages.
        into: an existing folder. Gets ``xl-dmesg.txt``, ``dom0-dmesg.txt`` and, in ``xen/``,
            what ``/var/log/xen`` held.
        deadline: when to give up.

    Returns:
        The files written, sorted.

    Raises:
        LabBroken: dom0 sent nothing that can be read.
        DeadlineExpired: it took too long.
    """
    script = _COLLECT.replace("@DMESG@", toolstack.command("dmesg"))
    raw = toolstack.dom0.run_raw(script, deadline)
    try:
        return sorted(_unpack(raw.stdout, into))
    except tarfile.TarError as error:
        said = raw.stderr.decode(errors="replace").strip().splitlines()
        raise LabBroken(f"dom0's logs did not arrive: {said[-1] if said else error}") from error


def _unpack(data: bytes, into: Path) -> list[Path]:
    written: list[Path] = []
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        for member in archive:
            name = PurePosixPath(member.name)
            # Logs are plain files below the folder; anything else is not for this machine.
            if not member.isfile() or name.is_absolute() or ".." in name.parts:
                continue
            stream = archive.extractfile(member)
            if stream is None:
                continue
            target = into.joinpath(*name.parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(stream.read())
            written.append(target)
    return written
