"""Settings of one stand-in guest, read from a small JSON file.

The file is written by the image build, which also makes up the password: the repository
holds none. Every key is optional but ``password``; unknown keys are refused, so that a
misspelt one does not pass silently.
"""

import json

DEFAULTS = {
    # Who may log in over WinRM (Basic authentication).
    "user": "Administrator",
    "password": None,
    "computer_name": "STANDIN",
    # WinRM listener: address, TCP port, and the limits of WinRM 2.0's winrm/config.
    "listen": "0.0.0.0",
    "port": 5985,
    "max_envelope_size": 153600,
    "max_timeout_s": 600.0,
    "idle_timeout_s": 7200.0,
    "max_shells": 64,
    # How long Receive waits for more once output is there but the command still runs, seconds.
    "coalesce_s": 0.15,
    # Folder that is C:\, and the folder under which other drive letters are mounted.
    "c_root": "/c",
    "mount_root": "/mnt/letters",
    # Where devices and the kernel's view of them are; tests point these at fake trees.
    "sys_root": "/sys",
    "dev_root": "/dev",
    "proc_root": "/proc",
    "console": "/dev/console",
    "kmsg": "/dev/kmsg",
    # Disk 0: the emulated disk. null when the guest has none; PV disks then start at 0.
    "system_disk": "sda",
    "pv_disk_prefixes": ["xvd"],
    # Real programs; a value is the argument list that the operation's own arguments follow.
    "programs": {
        "mkntfs": ["mkntfs"],
        "mkfs.vfat": ["mkfs.vfat"],
        "ntfsfix": ["ntfsfix"],
        "fsck.vfat": ["fsck.vfat"],
        "mount.ntfs": ["ntfs-3g", "-o", "noatime"],
        "mount.vfat": ["mount", "-t", "vfat", "-o", "noatime"],
        "umount": ["umount"],
        "insmod": ["insmod"],
        "rmmod": ["rmmod"],
        "ping": ["ping"],
    },
    # Options handed to insmod for every driver, unless the service's Parameters key has its own.
    "module_options": "dyndbg=+p",
    # Kernel modules a driver's module needs first, by service name: paths or /sys/module names.
    "module_dependencies": {},
    # Regular expression a kernel line must match for dbgview to show it; installed services'
    # names are added to it.
    "kernel_filter": r"blkfront|vbd|xenbus|xen|BUG|Oops|panic|I/O error",
    # What shutdown runs at the end; {action} becomes "reboot" or "poweroff". Nothing is left
    # to stop by then: the letters are unmounted and everything is synced.
    "power": ["busybox", "{action}", "-f"],
    # Listen for the kernel's block uevents, so that letters of a removed disk vanish at once.
    "uevents": True,
    # Import all tools before the server listens.
    "preload": True,
}


class Config:
    """The settings as attributes.

    Args:
        values: what the file says; see ``DEFAULTS`` for the keys.

    Raises:
        ValueError: an unknown key, or no password.
    """

    def __init__(self, values):
        unknown = sorted(set(values) - set(DEFAULTS))
        if unknown:
            raise ValueError("unknown setting: " + ", ".join(unknown))
        for key, value in DEFAULTS.items():
            setattr(self, key, values.get(key, value))
        # A file may replace single programs without repeating the others.
        self.programs = {**DEFAULTS["programs"], **values.get("programs", {})}
        if not self.password:
            raise ValueError("the setting 'password' is missing")


def load(path):
    """Read a settings file (JSON).

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not JSON or has bad settings.
    """
    with open(path, encoding="utf-8") as file:
        return Config(json.load(file))
