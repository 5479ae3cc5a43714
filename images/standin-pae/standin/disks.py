"""The guest's disks: numbering, sizes and partition tables of real block devices.

Sizes come from ``/sys/block/NAME/size`` (512-byte units whatever the sector size;
Documentation/ABI/stable/sysfs-block), so they are exact. Disk 0 is the configured system
disk; PV disks get the lowest free number in order of appearance, as Windows numbers
PhysicalDrives, and keep it until they go.
"""

import contextlib
import errno
import os
import threading

from standin import mbr


def _read(path, default=""):
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return default


class Disk:
    """One disk.

    Attributes:
        name: kernel name such as ``xvdc``.
        number: Windows' number.
        is_system: whether it is Disk 0, the emulated one.
        identity: changes when another disk comes under the same name.
    """

    def __init__(self, config, name, number, is_system):
        self._sys = os.path.join(config.sys_root, "block", name)
        self._dev = config.dev_root
        self.name = name
        self.number = number
        self.is_system = is_system
        self.identity = disk_identity(self._sys)

    @property
    def device(self):
        """Path of its device node."""
        return os.path.join(self._dev, self.name)

    @property
    def present(self):
        """Whether the same disk is still there."""
        return os.path.isdir(self._sys) and disk_identity(self._sys) == self.identity

    @property
    def size(self):
        """Exact size in bytes."""
        return int(_read(os.path.join(self._sys, "size"), "0")) * 512

    @property
    def sector_size(self):
        """Logical sector size in bytes."""
        return int(_read(os.path.join(self._sys, "queue/logical_block_size"), "512"))

    @property
    def total_sectors(self):
        """Exact size in logical sectors."""
        return self.size // self.sector_size

    @property
    def model(self):
        """Model text as Windows shows it."""
        if not self.is_system:
            return "XEN PV VBD SCSI Disk Device"
        model = _read(os.path.join(self._sys, "device/model")) or "pvlab system disk"
        return f"{model} ATA Device"

    @property
    def interface(self):
        """``IDE`` for the emulated disk, ``SCSI`` for PV ones."""
        return "IDE" if self.is_system else "SCSI"

    def partition_device(self, number):
        """Path of a partition's device node."""
        joint = "p" if self.name[-1].isdigit() else ""
        return f"{self.device}{joint}{number}"

    def keep_requests_apart(self):
        """Have each request reach the driver as it was made.

        Linux joins neighbours that are made at the same time, and when one of them fails, so
        do all; Windows' class driver does not. Documentation/block/queue-sysfs.rst, nomerges.
        """
        with (
            contextlib.suppress(OSError),
            open(os.path.join(self._sys, "queue/nomerges"), "w", encoding="ascii") as file,
        ):
            file.write("2")

    def read(self, offset, length):
        """Bytes of the disk, past the kernel's cache.

        Raises:
            OSError: as the driver reports it; ENXIO if the disk is gone.
        """
        return read_device(self.device, offset, length)

    def write(self, offset, data):
        """Write bytes and wait until they are on the disk.

        Raises:
            OSError: as the driver reports it.
        """
        fd = os.open(self.device, os.O_WRONLY | os.O_CLOEXEC)
        try:
            while data:
                written = os.pwrite(fd, data, offset)
                data = data[written:]
                offset += written
            os.fsync(fd)
        finally:
            os.close(fd)

    def table(self):
        """Its partition table.

        Raises:
            OSError: the first sector cannot be read.
        """
        return mbr.decode(self.read(0, self.sector_size))

    def write_table(self, table, host):
        """Write a partition table and have the kernel read it.

        Args:
            table: a ``mbr.Table``.
            host: the ``standin.host.Host``.

        Raises:
            OSError: the disk refused, or a partition is in use.
        """
        size = self.sector_size
        first = self.read(0, size)
        self.write(0, mbr.encode(table, first).ljust(size, b"\0"))
        host.reread_partitions(self.device)


def disk_identity(folder):
    """What tells a disk from a later one of the same name: its sequence number.

    ``diskseq`` is there from Linux 5.15 (Documentation/ABI/stable/sysfs-block).
    """
    return _read(os.path.join(folder, "diskseq"))


def read_device(path, offset, length):
    """Bytes of a device, past the kernel's cache where it can be dropped.

    Raises:
        OSError: as the driver reports it; ENXIO if the device is gone.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise OSError(errno.ENXIO, "the device is gone", path) from error
    try:
        os.posix_fadvise(fd, offset, length, os.POSIX_FADV_DONTNEED)
        return os.pread(fd, length, offset)
    finally:
        os.close(fd)


class Disks:
    """All disks of the guest.

    Args:
        config: a ``standin.config.Config``.
    """

    def __init__(self, config):
        self._config = config
        self._lock = threading.Lock()
        self._disks = {}
        self._listeners = []

    def on_change(self, callback):
        """Call ``callback(arrived, gone)`` with lists of disks after each scan that differs."""
        self._listeners.append(callback)

    def scan(self):
        """Look at the kernel's list again; only sysfs is read, so a sick disk cannot block it.

        Returns:
            All disks, by number.
        """
        config = self._config
        folder = os.path.join(config.sys_root, "block")
        try:
            names = os.listdir(folder)
        except OSError:
            names = []
        with self._lock:
            gone = [disk for disk in self._disks.values() if not disk.present]
            for disk in gone:
                del self._disks[disk.name]
            new = [
                name
                for name in names
                if name not in self._disks
                and (
                    name == config.system_disk
                    or any(name.startswith(prefix) for prefix in config.pv_disk_prefixes)
                )
            ]
            arrived = []
            for name in sorted(new, key=lambda name: (len(name), name)):
                is_system = name == config.system_disk
                disk = Disk(config, name, 0 if is_system else self._free_number(), is_system)
                self._disks[name] = disk
                arrived.append(disk)
            disks = sorted(self._disks.values(), key=lambda disk: disk.number)
        if arrived or gone:
            for callback in self._listeners:
                callback(arrived, gone)
        return disks

    def _free_number(self):
        taken = {disk.number for disk in self._disks.values()}
        number = 0 if self._config.system_disk is None else 1
        while number in taken:
            number += 1
        return number

    def get(self, number):
        """The disk of a number after a fresh scan, or ``None``."""
        for disk in self.scan():
            if disk.number == number:
                return disk
        return None
