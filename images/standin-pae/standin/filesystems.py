"""Recognising NTFS and FAT on a partition: kind, label and serial number.

Boot sectors follow the Windows Server 2003 Technical Reference ("How NTFS Works": boot
sector and $MFT) and Microsoft's FAT specification 1.03. The NTFS label is the $VOLUME_NAME
attribute (type 0x60) of MFT record 3.
"""

from standin.disks import read_device

RAW = "RAW"


class Probe:
    """What is on a partition.

    Attributes:
        fs: ``NTFS``, ``FAT32``, ``FAT`` or ``RAW``.
        label: volume label, empty for none.
        serial: 32-bit volume serial number.
        cluster: bytes of an allocation unit, 0 for RAW.
    """

    def __init__(self, fs, label="", serial=0, cluster=0):
        self.fs = fs
        self.label = label
        self.serial = serial
        self.cluster = cluster


def probe(device):
    """Look at a partition.

    Args:
        device: path of its device node.

    Raises:
        OSError: it cannot be read.
    """
    boot = read_device(device, 0, 4096)
    if len(boot) < 512 or boot[510:512] != b"\x55\xaa":
        return Probe(RAW)
    cluster = int.from_bytes(boot[11:13], "little") * boot[13]
    if boot[3:11] == b"NTFS    ":
        serial = int.from_bytes(boot[0x48:0x4C], "little")
        return Probe("NTFS", _ntfs_label(device, boot, cluster), serial, cluster)
    for fs, at in (("FAT32", 82), ("FAT", 54)):
        if boot[at : at + 3] == b"FAT":
            serial = int.from_bytes(boot[at - 15 : at - 11], "little")
            label = boot[at - 11 : at].decode("cp437").rstrip()
            return Probe(fs, "" if label == "NO NAME" else label, serial, cluster)
    return Probe(RAW)


def _ntfs_label(device, boot, cluster):
    """The label in MFT record 3 ($Volume); empty if the record makes no sense."""
    sector = int.from_bytes(boot[11:13], "little")
    mft = int.from_bytes(boot[0x30:0x38], "little") * cluster
    raw = boot[0x40]
    size = raw * cluster if raw < 0x80 else 1 << (256 - raw)
    if not sector or not 512 <= size <= 65536:
        return ""
    record = bytearray(read_device(device, mft + 3 * size, size))
    if len(record) < size or record[:4] != b"FILE":
        return ""
    # Undo the update sequence: the last two bytes of each sector are kept elsewhere.
    at = int.from_bytes(record[4:6], "little")
    for index in range(1, int.from_bytes(record[6:8], "little")):
        record[index * sector - 2 : index * sector] = record[at + 2 * index : at + 2 * index + 2]
    at = int.from_bytes(record[0x14:0x16], "little")
    while at + 24 <= size:
        kind = int.from_bytes(record[at : at + 4], "little")
        length = int.from_bytes(record[at + 4 : at + 8], "little")
        if kind == 0xFFFFFFFF or length < 24:
            break
        if kind == 0x60:
            count = int.from_bytes(record[at + 16 : at + 20], "little")
            start = at + int.from_bytes(record[at + 20 : at + 22], "little")
            return bytes(record[start : start + count]).decode("utf-16-le", "replace")
        at += length
    return ""
