"""What runs in Server 2003 after its own setup: ``cmdlines.txt``, and a script of steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network
from pathlib import Path

import jinja2

from lab.guest.dbgview import LOG
from lab.guest.names import WORK_DIR
from lab.install.bootini import boot_ini
from lab.install.settings import DumpKind, InstallSettings
from lab.install.steps import MARK, Step, table
from lab.media.kinds import MediaKind

SETUP_DIR = rf"{WORK_DIR}\setup"
"""Where the scripts and programs are in the guest."""

FIRST_STEPS = (
    Step("settings", "no sleep, no updates, crash dumps", 5),
    Step("network", "a fixed address, whatever network card it has", 5),
    Step("dotnet", ".NET Framework 2.0, which WinRM 2.0's package asks for", 20),
    Step("winrm", "WinRM 2.0 (KB968930)", 15, reboots=True),
    Step("winrm-config", "listener, Basic on the private network, firewall", 10),
    Step("dbgview", "DbgView at logon, kernel capture to a file", 5),
    Step("devcon", "devcon", 5),
    Step("boot-ini", "boot.ini with PAE, debugger and /gplpv", 5, reboots=True),
    Step("ready", "everything there after the restart", 10),
)

PROGRAMS = {
    MediaKind.DOTNET20: "DOTNET20.EXE",
    MediaKind.KB968930: "WINRM20.EXE",
    MediaKind.DBGVIEW: "DBGVIEW.EXE",
    MediaKind.DEVCON: "DEVCON.EXE",
}
"""Programs that the steps start, by the media they come from."""

# CrashControl, CrashDumpEnabled (Microsoft, KB254649); [Unattended] CrashDumpSetting alike.
DUMP_NUMBERS: dict[DumpKind, int] = {"none": 0, "complete": 1, "kernel": 2, "small": 3}

_TEMPLATES = Path(__file__).parent / "templates"


def scripts(settings: InstallSettings, port: str) -> dict[str, bytes]:
    """The files of the setup folder that are made here, by name.

    Args:
        settings: of the installation.
        port: the guest's name of the port that reports go to, ``COM1`` or ``COM2``.
    """
    values = {
        "here": SETUP_DIR,
        "port": port,
        "mark": MARK,
        "dump_number": DUMP_NUMBERS[settings.dump],
        "max_timeout_ms": settings.max_timeout_ms,
        "address": settings.address.ip,
        "mask": settings.address.netmask,
        "winrm_filter": winrm_range(settings.address.network),
        "firewall_scope": _with_mask(settings.address.network),
        "dbgview_log": LOG,
    }
    return {
        "OEM.CMD": render("oem.cmd.j2", values),
        "NET.CMD": render("net.cmd.j2", values),
        "FIRST.CMD": render("first.cmd.j2", values),
        "STEPS.TXT": table(FIRST_STEPS).encode("ascii"),
        "BOOT.INI": boot_ini(debug=settings.debug).encode("ascii"),
    }


def cmdlines() -> bytes:
    """``$OEM$\\cmdlines.txt``: what setup runs at the end of GUI mode."""
    return f'[Commands]\r\n"cmd /c {SETUP_DIR}\\OEM.CMD"\r\n'.encode("ascii")


def render(name: str, values: Mapping[str, object]) -> bytes:
    """A batch file from a template, with the line ends that ``cmd`` reads."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 - a batch file, not markup
        keep_trailing_newline=True,
    )
    text = environment.get_template(name).render(values)
    return text.replace("\n", "\r\n").encode("ascii")


def winrm_range(network: IPv4Network) -> str:
    """As WinRM's IPv4Filter wants it."""
    return f"{network.network_address}-{network.broadcast_address}"


def _with_mask(network: IPv4Network) -> str:
    """As ``netsh firewall`` wants it."""
    return f"{network.network_address}/{network.netmask}"


def total_minutes(steps: Iterable[Step]) -> float:
    """How long steps may take together, with KVM."""
    return sum(step.minutes for step in steps)
