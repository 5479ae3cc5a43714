"""format.com: make a file system on a drive letter's partition.

Texts: Server 2003's "Format". Exit codes ("Format", Server 2003 reference): 0 done,
1 bad parameters, 4 a fatal error, 5 answered No.
"""

import errno
import os

from standin.errors import win32_text
from standin.filesystems import RAW, probe

FILESYSTEMS = {"ntfs": "NTFS", "fat32": "FAT32", "fat": "FAT"}
BAD_PARAMETERS, FATAL, REFUSED = 1, 4, 5


def run(ctx):
    """``format X: [/fs:ntfs|fat32|fat] [/v:label] [/q] [/y] [/x] [/a:size]``."""
    drive = None
    fs = "ntfs"
    label = None
    quick = yes = False
    cluster = None
    for word in ctx.args:
        low = word.lower()
        if low.startswith("/fs:") and low[4:] in FILESYSTEMS:
            fs = low[4:]
        elif low.startswith("/v:"):
            label = word[3:]
        elif low.startswith("/a:") and low[3:].isdigit():
            cluster = int(low[3:])
        elif low == "/q":
            quick = True
        elif low == "/y":
            yes = True
        elif low in ("/x", "/c"):
            pass
        elif drive is None and len(word) == 2 and word[1] == ":" and word[0].isalpha():
            drive = word[0].upper()
        elif word.startswith("/"):
            ctx.err(f"Invalid parameter - {word}\n")
            return BAD_PARAMETERS
        else:
            ctx.err("Invalid drive specification.\n")
            return BAD_PARAMETERS
    if drive is None:
        ctx.err("Required parameter missing -\n")
        return BAD_PARAMETERS
    with ctx.system.disk_lock:
        return _format(ctx, drive, fs, label, quick, yes, cluster)


def _format(ctx, drive, fs, label, quick, yes, cluster):
    letters = ctx.system.letters
    item = letters.get(drive)
    if item is None:
        if drive == "C":
            ctx.err("Format cannot run because the volume is in use by another\nprocess.\n")
            return FATAL
        ctx.err("The system cannot find the drive specified.\n")
        return BAD_PARAMETERS
    try:
        before = probe(item.device)
        size = _device_size(ctx, item)
    except OSError as error:
        ctx.err(f"{win32_text(error)}\nCannot open volume for direct access.\n")
        return FATAL
    ctx.out(f"The type of the file system is {before.fs}.\n")
    if before.fs != FILESYSTEMS[fs]:
        ctx.out(f"The new file system is {FILESYSTEMS[fs]}.\n")
    if not yes:
        ctx.out(
            "\nWARNING, ALL DATA ON NON-REMOVABLE DISK\n"
            f"DRIVE {drive}: WILL BE LOST!\nProceed with Format (Y/N)? "
        )
        answer = ctx.stdin.read().strip().lower()
        ctx.out("\n")
        if not answer.startswith(b"y"):
            return REFUSED
    ctx.out(f"{'QuickFormatting' if quick else 'Verifying'} {size >> 20}M\n")
    try:
        letters.unmount(item)
        if not quick:
            _verify(ctx, item, size)
    except OSError as error:
        if error.errno == errno.EBUSY:
            ctx.err(
                "Format cannot run because the volume is in use by another\nprocess.  Format may "
                "run if this volume is dismounted first.\nALL OPENED HANDLES TO THIS VOLUME WOULD "
                "THEN BE INVALID.\n"
            )
        else:
            ctx.err(f"{win32_text(error)}\nFormat failed.\n")
        return FATAL
    ctx.out(
        "Creating file system structures.\n"
        if fs == "ntfs"
        else "Initializing the File Allocation Table (FAT)...\n"
    )
    code, output = ctx.system.host.run(
        *_command(fs, item.device, label, cluster), process=ctx.process
    )
    if code == 0:
        found = letters.mount(item)
    if code or found.fs == RAW or not item.mounted:
        # The real tool says no more; what the program said goes to the guest's own console.
        print(f"format {item.device}: status {code}: {output.decode('ascii', 'replace')}")
        if b"nput/output error" in output:
            ctx.err("The request could not be performed because of an I/O device error.\n")
        ctx.err("Format failed.\n")
        return FATAL
    ctx.out("Format complete.\n")
    _summary(ctx, fs, item, found)
    return 0


def _device_size(ctx, item):
    """The partition's size in bytes."""
    partition = item.disk.table().get(item.partition)
    if partition is None:
        raise OSError(errno.ENXIO, "no partition")
    return partition.sectors * item.disk.sector_size


def _verify(ctx, item, size):
    """Read the whole partition, as a full format does."""
    fd = os.open(item.device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        left = size
        while left:
            ctx.check()
            data = os.read(fd, min(left, 1 << 20))
            if not data:
                raise OSError(errno.EIO, "short partition")
            left -= len(data)
    finally:
        os.close(fd)


def _command(fs, device, label, cluster):
    """Program key and arguments that make the file system."""
    if fs == "ntfs":
        command = ["mkntfs", "-Q", "-F"]
        command += ["-L", label] if label else []
        command += ["-c", str(cluster)] if cluster else []
    else:
        command = ["mkfs.vfat", "-I", "-F", "32" if fs == "fat32" else "16"]
        command += ["-n", label.upper()[:11]] if label else []
    return [*command, device]


def _summary(ctx, fs, item, found):
    usage = os.statvfs(item.folder)
    total = usage.f_blocks * usage.f_frsize
    free = usage.f_bfree * usage.f_frsize
    if fs == "ntfs":
        ctx.out(f"{total >> 10:10d} KB total disk space.\n{free >> 10:10d} KB are available.\n")
        return
    cluster = found.cluster or 4096
    ctx.out(
        f"\n{total:15,d} bytes total disk space.\n{free:15,d} bytes available on disk.\n\n"
        f"{cluster:15,d} bytes in each allocation unit.\n"
        f"{free // cluster:15,d} allocation units available on disk.\n\n"
        f"{'32' if fs == 'fat32' else '16':>15} bits in each FAT entry.\n\n"
        f"Volume Serial Number is {found.serial >> 16:04X}-{found.serial & 0xFFFF:04X}\n"
    )
