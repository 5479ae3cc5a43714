"""The kernel's announcements of block devices that come and go.

A netlink socket of family KOBJECT_UEVENT (Linux: include/uapi/linux/netlink.h, lib/
kobject_uevent.c) gives one datagram an event: ``action@path`` and NUL-separated variables.
With it, a detached disk's letters vanish at once instead of at the next command, so the
kernel can let go of the disk.
"""

import socket
import threading

NETLINK_KOBJECT_UEVENT = 15
KERNEL_GROUP = 1


def is_disk_event(message):
    """Whether a datagram is about a whole disk that came or went."""
    fields = message.split(b"\0")
    return (
        b"SUBSYSTEM=block" in fields
        and b"DEVTYPE=disk" in fields
        and any(field in fields for field in (b"ACTION=add", b"ACTION=remove"))
    )


def watch(system):
    """Scan the disks at each such event, in a thread; without netlink, do nothing."""
    try:
        events = socket.socket(
            socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT
        )
        events.bind((0, KERNEL_GROUP))
    except OSError:
        return

    def listen():
        while True:
            try:
                message = events.recv(16384)
            except OSError:
                continue  # ENOBUFS: events were lost, the next scan makes up for it
            if is_disk_event(message):
                system.disks.scan()

    threading.Thread(target=listen, name="uevents", daemon=True).start()
