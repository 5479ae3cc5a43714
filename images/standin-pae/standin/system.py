"""One stand-in guest: its disks, letters, registry, devices and processes in one place."""

import os
import threading

from standin import PRODUCT
from standin.cmdparse import expand
from standin.disks import Disks
from standin.hive import Hive
from standin.host import Host
from standin.letters import Letters
from standin.paths import Files, lookup
from standin.pnp import Devices
from standin.processes import ProcessTable
from standin.quirks import Quirks

FOLDERS = (
    "WINDOWS/inf",
    "WINDOWS/system32/config",
    "WINDOWS/system32/drivers",
    "WINDOWS/Minidump",
    "Documents and Settings/Administrator",
    "Program Files",
)

BOOT_INI = (
    "[boot loader]\r\ntimeout=30\r\ndefault=multi(0)disk(0)rdisk(0)partition(1)\\WINDOWS\r\n"
    "[operating systems]\r\nmulti(0)disk(0)rdisk(0)partition(1)\\WINDOWS="
    f'"{PRODUCT}" /noexecute=optout /fastdetect\r\n'
)


class System:
    """Everything a command can reach.

    Args:
        config: a ``standin.config.Config``.
        host: a ``standin.host.Host``; made from the settings if not given.
    """

    profile_folder = "C:\\Documents and Settings\\Administrator"

    def __init__(self, config, host=None):
        self.config = config
        self.host = host or Host(config)
        self.make_tree()
        self.hive = Hive(os.path.join(config.c_root, "WINDOWS/system32/config/hive.json"))
        self.quirks = Quirks(self.hive)
        self.processes = ProcessTable()
        self.disks = Disks(config)
        self.letters = Letters(config, self.host, self.disks, self.hive)
        self.files = Files(config.c_root, self.letters)
        self.devices = Devices(self)
        # One program at a time may change disks, as the real tools lock the disk service.
        self.disk_lock = threading.RLock()

    def make_tree(self):
        """Make the folders and files of C:\\ that are not there yet."""
        root = self.config.c_root
        for folder in FOLDERS:
            os.makedirs(lookup(root, folder.split("/")), exist_ok=True)
        boot_ini = lookup(root, ["boot.ini"])
        if not os.path.exists(boot_ini):
            with open(boot_ini, "w", encoding="ascii", newline="") as file:
                file.write(BOOT_INI)

    def environment(self):
        """The variables a new shell starts with."""
        name = self.config.computer_name
        return {
            "ALLUSERSPROFILE": "C:\\Documents and Settings\\All Users",
            "COMPUTERNAME": name,
            "ComSpec": "C:\\WINDOWS\\system32\\cmd.exe",
            "NUMBER_OF_PROCESSORS": str(os.cpu_count() or 1),
            "OS": "Windows_NT",
            "Path": "C:\\WINDOWS\\system32;C:\\WINDOWS;C:\\WINDOWS\\System32\\Wbem",
            "PATHEXT": ".COM;.EXE;.BAT;.CMD",
            "PROCESSOR_ARCHITECTURE": "x86",
            "PROMPT": "$P$G",
            "SystemDrive": "C:",
            "SystemRoot": "C:\\WINDOWS",
            "TEMP": "C:\\WINDOWS\\Temp",
            "TMP": "C:\\WINDOWS\\Temp",
            "USERDOMAIN": name,
            "USERNAME": self.config.user,
            "USERPROFILE": self.profile_folder,
            "windir": "C:\\WINDOWS",
        }

    def expand(self, text):
        """Text with the system's variables filled in."""
        env = {key.upper(): value for key, value in self.environment().items()}
        return expand(text, lambda name: env.get(name.upper()))

    def windows_file(self, *parts):
        """The real path of a file under C:\\WINDOWS."""
        return lookup(self.config.c_root, ["WINDOWS", *parts])

    def shut_down(self, action, delay_s, process):
        """Restart or stop the guest.

        Args:
            action: ``"reboot"`` or ``"poweroff"``.
            delay_s: seconds until then.
            process: entry of the process table whose end calls it off.
        """

        def before():
            os.sync()
            self.letters.unmount_all()

        self.host.power(action, delay_s, process, before)
