"""The stand-in's main program: ``python3 -I -S /opt/standin/boot.py [settings file]``.

Started by the guest's init (or as init itself), it makes C:\\, loads the installed drivers,
and serves WinRM until the guest stops. Once it listens it writes one line to the console:
``pvlab: winrm ready``. The settings file is /etc/standin.json unless named.
"""

import gc
import os
import sys
import threading

if not __package__:
    # Started by path: the package's own folder must not be searched, since its modules bear
    # names of the standard library; the folder above it must.
    _here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [os.path.dirname(_here), *(path for path in sys.path if path != _here)]

from standin import config, tools, uevents, winrm
from standin.system import System

SETTINGS = "/etc/standin.json"

#: What the lab waits for on the guest's serial console.
READY = "pvlab: winrm ready"


def start(settings):
    """Start everything.

    Args:
        settings: a ``standin.config.Config``.

    Returns:
        (system, server), both running.
    """
    # A thread of this server needs little stack; the default of 8 MB is address space that a
    # 32-bit process runs out of.
    threading.stack_size(512 * 1024)
    if settings.preload:
        tools.preload()
    system = System(settings)
    system.disks.scan()
    system.devices.load_at_boot()
    if settings.uevents:
        uevents.watch(system)
    server = winrm.start(system)
    # What is loaded by now stays: keep the collector from walking it again and again.
    gc.collect()
    gc.freeze()
    return system, server


def main(arguments):
    """Serve for ever."""
    settings = config.load(arguments[0] if arguments else SETTINGS)
    start(settings)
    winrm.announce(settings.console, READY)
    threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1:])
