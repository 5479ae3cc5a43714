"""What toolstack error messages mean, and whose fault they are."""

from __future__ import annotations

import re

from lab.core.command import CommandResult
from lab.core.errors import PvlabError
from lab.xen.errors import (
    BackingMissing,
    DeviceInUse,
    HotplugFailed,
    NoSuchDevice,
    NoSuchDomain,
    OutOfMemory,
    ToolstackDown,
    ToolstackFailed,
)

# First match wins: a hotplug script's own words say more than the toolstack's summary.
# xl: tools/xl/xl_block.c, xl_utils.c, libs/light/libxl_disk.c, libxl_device.c (4.17);
# xm: tools/python/xen/xend/server/DevController.py, xen/xend/balloon.py, xen/xm/main.py (3.1);
# both: tools/hotplug/Linux/block.
_COMPLAINTS: tuple[tuple[str, type[PvlabError], str], ...] = (
    (
        r"is an invalid domain identifier|Domain '.*' does not exist|No such process"
        r"|Domain \d+ does not exist",
        NoSuchDomain,
        "it may have crashed or been destroyed; the domain list shows who is there",
    ),
    (
        r"is already connected|device already exists in xenstore",
        DeviceInUse,
        "detach it first, or take another virtual device: example configurations often give "
        "hdc to a CD-ROM",
    ),
    (
        r"is (?:loopback-)?mounted .*in (?:a guest|the privileged) domain",
        DeviceInUse,
        "the volume is attached or mounted elsewhere: detach it there first",
    ),
    (
        r"failed to stat|unsuitable as phys path not a block device|does not exist\b"
        r"|is not a block device|Backend device not found|No such file or directory: '/dev/"
        r"|device cannot be found",
        BackingMissing,
        "check the volume's path in dom0; phy: needs a block device",
    ),
    (
        r"Device .* not connected|is not connected",
        NoSuchDevice,
        "the block list shows what is attached",
    ),
    (
        r"Hotplug scripts not working|could not be connected\. Device not found"
        r"|unable to add device with path|hotplug script"
        r"|etc/xen/scripts/\S+ (?:add|online|remove)|script: ",
        HotplugFailed,
        "/var/log/xen/xen-hotplug.log in dom0 says what its script did",
    ),
    (
        r"Unable to connect to xend|Is xend running|Xend has probably crashed"
        r"|Error connecting to xend|cannot open privcmd|xenstored? .*refused",
        ToolstackDown,
        "the toolstack's daemon is not running in dom0; its log is in /var/log/xen",
    ),
    (
        r"dom0_min_mem is|Not enough (?:free )?memory|did not balloon|Cannot allocate memory"
        r"|failed to free memory for the domain",
        OutOfMemory,
        "give the guest less memory or the host more: memory.guest_mib, memory.host_mib",
    ),
)


def complaint(result: CommandResult) -> PvlabError:
    """The error that a failed toolstack command stands for.

    Args:
        result: of a command that exited other than 0.

    Returns:
        An error to raise: the telling line as its message, never a driver failure.
    """
    lines = [
        line.strip() for line in (result.stderr + "\n" + result.stdout).splitlines() if line.strip()
    ]
    # xm and the hotplug scripts break one sentence over two lines.
    joined = " ".join(lines)
    for pattern, kind, hint in _COMPLAINTS:
        found = re.search(pattern, joined, re.IGNORECASE)
        if found is None:
            continue
        telling = next((one for one in lines if re.search(pattern, one, re.IGNORECASE)), joined)
        return kind(_said(result, telling), hint=hint)
    # xm follows an error with the command's usage (main.py, _run_cmd).
    said = [one for one in lines if one.startswith("Error: ")] or lines[-1:]
    return ToolstackFailed(
        _said(result, said[0] if said else f"exit status {result.exit_code}, no message")
    )


def _said(result: CommandResult, line: str) -> str:
    # `libxl: error: libxl_disk.c:337:device_disk_add: Domain 3:device already ...`
    line = re.sub(r"^libxl: \w+: \S+?:\d+:\w+:\s*", "", line)
    line = re.sub(r"^Error: ", "", line)
    words = result.command.split()
    return f"{' '.join(words[:2])}: {line}"
