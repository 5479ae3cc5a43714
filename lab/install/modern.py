"""What is special to a Windows of today on a Xen 4.x host: answers, scripts, steps.

Drivers go in with ``pnputil``, WinRM is part of Windows, and nothing has to be brought but the
installation disc. Nobody has installed one with this yet: what tests prove is that the files
are well-formed, that script and steps agree, and that the steps are walked by play-setup.
"""

from __future__ import annotations

from pathlib import PureWindowsPath

from pydantic import SecretStr

from lab.install.bootini import BAUD
from lab.install.firstboot import DUMP_NUMBERS, SETUP_DIR, render, winrm_range
from lab.install.settings import InstallSettings
from lab.install.steps import MARK, Step, table
from lab.install.unattend import ANSWER_FILE, Unattend

MODERN_STEPS = (
    Step("settings", "no sleep, no updates, crash dumps", 5),
    Step("network", "a fixed address on a private network", 5),
    Step("winrm-config", "listener, Basic on the private network, firewall", 10),
    Step("drivers-allowed", "test signing, kernel debugger", 5, reboots=True),
    Step("ready", "everything there after the restart", 10),
)

_COPY = "cmd /c for %d in (A D E F G) do if exist %d:\\FIRST.CMD xcopy /y /i %d:\\*.* {target}"


def answers(settings: InstallSettings, password: SecretStr, key: SecretStr | None) -> Unattend:
    """The answer file of an installation."""
    return Unattend(
        product_key=key,
        admin_password=password,
        computer_name=settings.computer_name,
        full_name=settings.full_name,
        organisation=settings.organisation,
        first_logon=(
            # The answer file lies beside the scripts, and holds the password.
            _COPY.format(target=SETUP_DIR),
            f"cmd /c del /f /q {PureWindowsPath(SETUP_DIR, ANSWER_FILE)}",
            f"cmd /c {PureWindowsPath(SETUP_DIR, 'FIRST.CMD')}",
        ),
    )


def scripts(settings: InstallSettings, port: str) -> dict[str, bytes]:
    """The files beside the answer file, by name.

    Args:
        settings: of the installation.
        port: the guest's name of the port that reports go to.
    """
    network = settings.address.network
    values = {
        "here": SETUP_DIR,
        "port": port,
        "mark": MARK,
        "dump_number": DUMP_NUMBERS[settings.dump],
        "max_timeout_ms": settings.max_timeout_ms,
        "address": settings.address.ip,
        "prefix": network.prefixlen,
        "network": network,
        "winrm_filter": winrm_range(network),
        "debug": settings.debug,
        "baud": BAUD,
    }
    return {
        "FIRST.CMD": render("modern.cmd.j2", values),
        "STEPS.TXT": table(MODERN_STEPS).encode("ascii"),
    }
