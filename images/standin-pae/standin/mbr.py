"""Master boot records as Windows Server 2003 writes them.

Layout: IBM PC partition table (four 16-byte entries at 0x1BE, 0x55AA at 0x1FE) with the NT
disk signature at 0x1B8 (Microsoft TechNet, "Disk Concepts and Troubleshooting", Windows
Server 2003). Partitions are aligned to cylinders of 255 heads and 63 sectors, the first one
at sector 63 (KB 300415 and "create partition primary" in the Diskpart reference). The code
area stays empty: nothing boots from these disks.
"""

HEADS = 255
TRACK = 63
CYLINDER = HEADS * TRACK

TYPE_EMPTY = 0x00
TYPE_NTFS = 0x07
TYPE_FAT32 = 0x0B
TYPES_EXTENDED = (0x05, 0x0F)
TYPE_GPT = 0xEE

#: What diskpart's clean overwrites: the MBR and the hidden sectors before the first partition.
HIDDEN_SECTORS = 63


class Partition:
    """One entry of the table.

    Attributes:
        number: its place, 1 to 4.
        kind: type byte.
        start, sectors: in sectors of the disk.
        active: whether it is marked bootable.
    """

    __slots__ = ("active", "kind", "number", "sectors", "start")

    def __init__(self, number, kind, start, sectors, active=False):
        self.number = number
        self.kind = kind
        self.start = start
        self.sectors = sectors
        self.active = active

    @property
    def end(self):
        """The first sector behind it."""
        return self.start + self.sectors


class Table:
    """A disk's partition table.

    Attributes:
        signature: the NT disk signature, 0 if there is none.
        partitions: ``Partition`` objects in order of their place.
        valid: whether the sector had the 0x55AA mark.
    """

    def __init__(self, signature=0, partitions=(), valid=True):
        self.signature = signature
        self.partitions = list(partitions)
        self.valid = valid

    def get(self, number):
        """The partition at a place, or ``None``."""
        for partition in self.partitions:
            if partition.number == number:
                return partition
        return None

    @property
    def is_gpt(self):
        """Whether this is only the protective MBR of a GPT disk."""
        return any(partition.kind == TYPE_GPT for partition in self.partitions)


def decode(sector):
    """The table in a disk's first sector."""
    if len(sector) < 512 or sector[510:512] != b"\x55\xaa":
        return Table(valid=False)
    partitions = []
    for index in range(4):
        entry = sector[0x1BE + 16 * index : 0x1CE + 16 * index]
        sectors = int.from_bytes(entry[12:16], "little")
        if entry[4] != TYPE_EMPTY and sectors:
            start = int.from_bytes(entry[8:12], "little")
            partitions.append(Partition(index + 1, entry[4], start, sectors, entry[0] == 0x80))
    return Table(int.from_bytes(sector[0x1B8:0x1BC], "little"), partitions)


def _chs(sector):
    """A sector number as the three bytes of a table entry; 1023/254/63 when out of range."""
    cylinder, rest = divmod(sector, CYLINDER)
    if cylinder > 1023:
        return b"\xfe\xff\xff"
    head, track = divmod(rest, TRACK)
    return bytes((head, (track + 1) | (cylinder >> 2) & 0xC0, cylinder & 0xFF))


def encode(table, sector=b""):
    """The first sector holding a table; what else ``sector`` held is kept."""
    data = bytearray(sector[:512].ljust(512, b"\0"))
    data[0x1B8:0x1BC] = table.signature.to_bytes(4, "little")
    data[0x1BC:0x1BE] = b"\0\0"
    data[0x1BE:0x1FE] = bytes(64)
    for partition in table.partitions:
        at = 0x1BE + 16 * (partition.number - 1)
        data[at : at + 16] = (
            (b"\x80" if partition.active else b"\0")
            + _chs(partition.start)
            + bytes((partition.kind,))
            + _chs(partition.end - 1)
            + partition.start.to_bytes(4, "little")
            + partition.sectors.to_bytes(4, "little")
        )
    data[510:512] = b"\x55\xaa"
    return bytes(data)


def usable_end(total):
    """The sector behind the last one a partition may use: the last whole cylinder's end.

    A disk of less than two cylinders is used to its end, else nothing would fit.
    """
    whole = total // CYLINDER * CYLINDER
    return whole if whole > CYLINDER else total


def free_extents(table, total):
    """Gaps that a partition may be made in, as (start, end) in sectors, in disk order."""
    gaps = []
    at = TRACK
    for partition in [*sorted(table.partitions, key=lambda item: item.start), None]:
        end = usable_end(total) if partition is None else partition.start
        if end > at:
            gaps.append((at, end))
        if partition is not None:
            at = max(at, -(-partition.end // CYLINDER) * CYLINDER)
    return gaps


def allocate(table, total, size=None):
    """Place a new NTFS-type partition as ``create partition primary`` does.

    Args:
        table: the disk's table; not changed.
        total: sectors of the disk.
        size: wanted size in sectors; ``None`` for the largest gap. It is rounded up to whole
            cylinders.

    Returns:
        The ``Partition``, or ``None`` if there is no free place or no gap large enough.
    """
    taken = {partition.number for partition in table.partitions}
    number = next((place for place in range(1, 5) if place not in taken), None)
    gaps = free_extents(table, total)
    if number is None or not gaps:
        return None
    if size is None:
        start, end = max(gaps, key=lambda gap: gap[1] - gap[0])
        return Partition(number, TYPE_NTFS, start, end - start)
    for start, end in gaps:
        wanted = -(-(start + size) // CYLINDER) * CYLINDER
        if start + size <= end:
            return Partition(number, TYPE_NTFS, start, min(wanted, end) - start)
    return None
