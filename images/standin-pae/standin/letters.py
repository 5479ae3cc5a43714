"""Drive letters: which partition has which, and where it is mounted.

Windows remembers letters in ``HKLM\\SYSTEM\\MountedDevices`` as disk signature plus
partition offset ("Volume Management", Windows Server 2003 Technical Reference); so does the
stand-in, and nothing else survives a restart. A disk that goes takes its letters along: the
mount is detached lazily, since nobody can flush it any more.
"""

import errno
import os
import threading
from contextlib import suppress

from standin.filesystems import RAW, Probe, probe

MOUNTED_DEVICES = "HKLM\\SYSTEM\\MountedDevices"

#: A and B belong to floppy drives, C is the system's own folder.
FREE_LETTERS = "DEFGHIJKLMNOPQRSTUVWXYZ"

_MOUNT_PROGRAMS = {"NTFS": "mount.ntfs", "FAT32": "mount.vfat", "FAT": "mount.vfat"}


class Letter:
    """A letter that is given to a partition.

    Attributes:
        letter: ``"E"``.
        disk: the ``standin.disks.Disk``.
        partition: the partition's number.
        key: disk signature and byte offset, as the registry keeps them.
        folder: where it is mounted.
        mounted: whether a file system is mounted there.
    """

    def __init__(self, letter, disk, partition, key, folder):
        self.letter = letter
        self.disk = disk
        self.partition = partition
        self.key = key
        self.folder = folder
        self.mounted = False

    @property
    def device(self):
        """The partition's device node."""
        return self.disk.partition_device(self.partition)


def volume_name(key):
    """The ``\\\\?\\Volume{GUID}\\`` name made from a registry key of 12 bytes."""
    signature = int.from_bytes(key[:4], "little")
    offset = int.from_bytes(key[4:12], "little")
    return f"\\\\?\\Volume{{{signature:08x}-0000-0000-0000-{offset & (1 << 48) - 1:012x}}}\\"


class Letters:
    """All letters of the guest.

    Args:
        config: a ``standin.config.Config``.
        host: a ``standin.host.Host``.
        disks: the ``standin.disks.Disks``.
        hive: the ``standin.hive.Hive`` that remembers them.
    """

    def __init__(self, config, host, disks, hive):
        self._config = config
        self._host = host
        self._disks = disks
        self._hive = hive
        self._lock = threading.RLock()
        self._letters = {}
        disks.on_change(self._changed)

    def _changed(self, arrived, gone):
        with self._lock:
            lost = [item for item in self._letters.values() if item.disk in gone]
            for item in lost:
                del self._letters[item.letter]
        for item in lost:
            self._detach(item, lazy=True)
        known = self._hive.values(MOUNTED_DEVICES)
        if known:
            for disk in arrived:
                if not disk.is_system:
                    self._restore(disk, known)

    def _restore(self, disk, known):
        """Give a disk's partitions the letters they had before."""
        try:
            table = disk.table()
        except OSError:
            return
        for partition in table.partitions:
            key = self._key(disk, table, partition)
            for name, (_kind, data) in known.items():
                letter = name[-2:-1].upper()
                if data == key.hex() and letter not in self._letters:
                    self._attach(letter, disk, partition.number, key)

    @staticmethod
    def _key(disk, table, partition):
        offset = partition.start * disk.sector_size
        return table.signature.to_bytes(4, "little") + offset.to_bytes(8, "little")

    def all(self):
        """All letters but C, sorted, after a fresh scan of the disks."""
        self._disks.scan()
        with self._lock:
            return [self._letters[letter] for letter in sorted(self._letters)]

    def get(self, letter):
        """A letter's entry after a fresh scan of the disks, or ``None``."""
        self._disks.scan()
        with self._lock:
            return self._letters.get(letter.upper())

    def of(self, disk, partition):
        """The entry of a partition, or ``None``."""
        with self._lock:
            for item in self._letters.values():
                if item.disk is disk and item.partition == partition:
                    return item
        return None

    def folder(self, letter):
        """The real folder of a drive, ``None`` if there is no such drive.

        Raises:
            OSError: EMEDIUMTYPE: the volume has no file system.
        """
        item = self.get(letter)
        if item is None:
            return None
        if not item.mounted:
            raise OSError(errno.EMEDIUMTYPE, "no file system", letter)
        return item.folder

    def free(self):
        """The first letter that is not taken."""
        with self._lock:
            return next(letter for letter in FREE_LETTERS if letter not in self._letters)

    def assign(self, letter, disk, table, partition):
        """Give a partition a letter, mount it and remember that.

        Args:
            letter: a free one.
            disk: the disk.
            table: its partition table.
            partition: the ``mbr.Partition``.

        Raises:
            FileExistsError: the letter is taken.
        """
        letter = letter.upper()
        key = self._key(disk, table, partition)
        with self._lock:
            if letter not in FREE_LETTERS or letter in self._letters:
                raise FileExistsError(errno.EEXIST, "taken", letter)
            old = self.of(disk, partition.number)
        if old is not None:
            self.remove(old)
        self._hive.set(MOUNTED_DEVICES, f"\\DosDevices\\{letter}:", "REG_BINARY", key.hex())
        self._attach(letter, disk, partition.number, key)

    def _attach(self, letter, disk, number, key):
        folder = os.path.join(self._config.mount_root, letter)
        item = Letter(letter, disk, number, key, folder)
        with self._lock:
            self._letters[letter] = item
        self.mount(item)

    def mount(self, item):
        """Mount what is on a letter's partition; a RAW one stays without.

        Returns:
            The ``Probe`` of the partition.
        """
        try:
            found = probe(item.device)
        except OSError:
            found = Probe(RAW)
        program = _MOUNT_PROGRAMS.get(found.fs)
        if program is not None:
            os.makedirs(item.folder, exist_ok=True)
            code, _ = self._host.run(program, item.device, item.folder)
            item.mounted = code == 0
        return found

    def unmount(self, item):
        """Take the file system off a letter; the letter stays.

        Raises:
            OSError: EBUSY: something has a file open there.
        """
        if item.mounted:
            self._detach(item, lazy=False)

    def _detach(self, item, lazy):
        if not item.mounted:
            return
        arguments = ("-l", item.folder) if lazy else (item.folder,)
        code, output = self._host.run("umount", *arguments)
        if code and not lazy and self._host.is_mounted(item.folder):
            raise OSError(errno.EBUSY, output.decode("ascii", "replace").strip(), item.folder)
        item.mounted = False
        with suppress(OSError):  # only tidiness
            os.rmdir(item.folder)

    def remove(self, item):
        """Take a letter away and forget it.

        Raises:
            OSError: EBUSY: something has a file open there.
        """
        self.unmount(item)
        with self._lock:
            self._letters.pop(item.letter, None)
        self._hive.delete_value(MOUNTED_DEVICES, f"\\DosDevices\\{item.letter}:")

    def unmount_all(self):
        """For shutdown: unmount everything that can be; letters stay remembered."""
        with self._lock:
            items = list(self._letters.values())
        for item in items:
            try:
                self.unmount(item)
            except OSError:
                self._detach(item, lazy=True)

    def label_and_serial(self, letter):
        """Label and serial number of a drive, C included.

        Raises:
            OSError: the partition cannot be read.
        """
        item = self.get(letter)
        if item is None:
            import zlib

            return "", zlib.crc32(self._config.computer_name.encode())
        found = probe(item.device)
        return found.label, found.serial
