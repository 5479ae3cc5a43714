"""``boot.ini`` of a guest under test.

Switches: Microsoft, "Boot options in a Boot.ini file" (/pae, /debug, /debugport, /baudrate,
/fastdetect). ``/gplpv`` is read by the drivers themselves, from SystemStartOptions.
"""

from __future__ import annotations

BAUD = 115200
_WHERE = r"multi(0)disk(0)rdisk(0)partition(1)\WINDOWS"
_TITLE = "Windows Server 2003, PAE"
GPLPV = "/gplpv"


def boot_ini(*, debug: bool, timeout: int = 5) -> str:
    """Two entries: without the PV drivers, which is started by itself, and with them.

    Args:
        debug: the kernel debugger on COM1.
        timeout: how long the menu waits, in s.
    """
    switches = "/fastdetect /pae"
    if debug:
        # COM1 is the debugger's from then on: whatever else is said goes to another port.
        switches += f" /debug /debugport=com1 /baudrate={BAUD}"
    return "\r\n".join(
        (
            "[boot loader]",
            f"timeout={timeout}",
            # The loader takes the first entry with this path.
            f"default={_WHERE}",
            "[operating systems]",
            f'{_WHERE}="{_TITLE}" {switches}',
            f'{_WHERE}="{_TITLE}, PV drivers" {switches} {GPLPV}',
            "",
        )
    )
