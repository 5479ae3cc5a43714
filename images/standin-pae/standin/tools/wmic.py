"""wmic.exe: os, diskdrive, logicaldisk, partition, ``get`` with /format:csv, /value or a table.

Source: the Win32 classes' reference pages (Win32_DiskDrive, Win32_LogicalDisk,
Win32_DiskPartition, Win32_OperatingSystem) and wmic's formats on Server 2003: csv starts with
an empty line and puts ``Node`` first; properties come in alphabetical order in all formats,
and lines end in CR CR LF, as they do whenever the output is no console.

Sizes of a disk: real Windows computes Win32_DiskDrive.Size and TotalSectors from whole
cylinders of 255 heads and 63 sectors (documented at the class: TotalCylinders x
TracksPerCylinder x SectorsPerTrack x BytesPerSector), and no tool of Server 2003 shows the
exact number. Here Size and the geometry follow Windows, but **TotalSectors is the exact size
of the device**: that one difference lets the lab find a disk that is off by a sector. On a
real guest, compare it with whole cylinders, or read the driver's own "TotalSectors = N" line
in DbgView's log.
"""

import os

from standin import PRODUCT, VERSION, mbr
from standin.console import CODE_PAGE
from standin.tools.systeminfo import memory_mib
from standin.volumes import table_of, volumes

ALIASES = {
    "os": "Win32_OperatingSystem",
    "diskdrive": "Win32_DiskDrive",
    "logicaldisk": "Win32_LogicalDisk",
    "partition": "Win32_DiskPartition",
}


def _operating_systems(system):
    return [
        {
            "BuildNumber": VERSION.split(".")[-1],
            "Caption": PRODUCT,
            "CSName": system.config.computer_name,
            "Manufacturer": "pvlab",
            "OSArchitecture": os.uname().machine,
            # The processor runs 32-bit code with PAE page tables: the kernel says so itself.
            "PAEEnabled": "TRUE" if os.uname().release.endswith("-pae") else "FALSE",
            "FreePhysicalMemory": memory_mib("MemAvailable") * 1024,
            "TotalVisibleMemorySize": memory_mib("MemTotal") * 1024,
            "ServicePackMajorVersion": 2,
            "SystemDirectory": "C:\\WINDOWS\\system32",
            "Version": VERSION,
            "WindowsDirectory": "C:\\WINDOWS",
        }
    ]


def _disk_drives(system):
    rows = []
    for disk in system.disks.scan():
        total = disk.total_sectors
        cylinders = total // mbr.CYLINDER
        table = table_of(disk)
        rows.append(
            {
                "BytesPerSector": disk.sector_size,
                "Caption": disk.model,
                "DeviceID": f"\\\\.\\PHYSICALDRIVE{disk.number}",
                "Index": disk.number,
                "InterfaceType": disk.interface,
                "MediaType": "Fixed hard disk media",
                "Model": disk.model,
                "Name": f"\\\\.\\PHYSICALDRIVE{disk.number}",
                "Partitions": len(table.partitions),
                "SectorsPerTrack": mbr.TRACK,
                "Signature": table.signature,
                # A disk of less than a cylinder has no geometry worth rounding to.
                "Size": (cylinders * mbr.CYLINDER or total) * disk.sector_size,
                "Status": "OK",
                "TotalCylinders": cylinders,
                "TotalHeads": mbr.HEADS,
                "TotalSectors": total,
                "TotalTracks": cylinders * mbr.HEADS,
                "TracksPerCylinder": mbr.HEADS,
            }
        )
    return rows


def _logical_disks(system):
    rows = []
    for volume in volumes(system):
        if not volume.letter:
            continue
        item = system.letters.get(volume.letter)
        folder = system.config.c_root if item is None else item.folder if item.mounted else None
        usage = os.statvfs(folder) if folder else None
        serial = system.letters.label_and_serial(volume.letter)[1] if volume.fs else 0
        rows.append(
            {
                "Caption": f"{volume.letter}:",
                "Description": "Local Fixed Disk",
                "DeviceID": f"{volume.letter}:",
                "DriveType": 3,
                "FileSystem": volume.fs,
                "FreeSpace": usage.f_bavail * usage.f_frsize if usage else "",
                "Name": f"{volume.letter}:",
                "Size": usage.f_blocks * usage.f_frsize if usage else "",
                "VolumeName": volume.label,
                "VolumeSerialNumber": f"{serial:08X}" if serial else "",
            }
        )
    return rows


def _partitions(system):
    return [
        {
            "BootPartition": "TRUE" if partition.active else "FALSE",
            "DeviceID": f"Disk #{disk.number}, Partition #{index}",
            "DiskIndex": disk.number,
            "Index": index,
            "Name": f"Disk #{disk.number}, Partition #{index}",
            "NumberOfBlocks": partition.sectors,
            "BlockSize": disk.sector_size,
            "Size": partition.sectors * disk.sector_size,
            "StartingOffset": partition.start * disk.sector_size,
            "Type": "Installable File System" if partition.kind == 7 else "Unknown",
        }
        for disk in system.disks.scan()
        for index, partition in enumerate(table_of(disk).partitions)
    ]


CLASSES = {
    "Win32_OperatingSystem": _operating_systems,
    "Win32_DiskDrive": _disk_drives,
    "Win32_LogicalDisk": _logical_disks,
    "Win32_DiskPartition": _partitions,
}


def run(ctx):
    """``wmic ALIAS|path CLASS [where ...] get [properties] [/format:csv|/value]``."""
    words = [word for word in ctx.args if not word.lower().startswith(("/locale", "/node"))]
    if words and words[0].lower() == "path":
        words = words[1:]
        name = next((key for key in CLASSES if words and key.lower() == words[0].lower()), None)
    else:
        name = ALIASES.get(words[0].lower()) if words else None
    if name is None:
        shown = words[0] if words else ""
        ctx.err(f"{shown} - Alias not found.\n")
        return 44135
    words = words[1:]
    where = None
    if words and words[0].lower() == "where" and len(words) > 1:
        where, words = words[1], words[2:]
    style = "table"
    rest = []
    for word in words:
        low = word.lower()
        if low == "/value" or low.startswith("/format:"):
            style = low.lstrip("/").removeprefix("format:").strip('"').split(".")[0]
        else:
            rest.append(word)
    if style not in ("table", "csv", "value", "list") or (rest and rest[0].lower() != "get"):
        ctx.err(
            "Invalid Verb Switch.\n" if not rest or rest[0].lower() == "get" else "Invalid Verb.\n"
        )
        return 44125
    rows = CLASSES[name](ctx.system)
    try:
        rows = [row for row in rows if where is None or _matches(row, where)]
        names = _properties(CLASSES[name], rows, ",".join(rest[1:]))
    except ValueError:
        ctx.err(
            "Node - " + ctx.system.config.computer_name + "\nERROR:\nCode = 0x80041017\n"
            "Description = Invalid query\nFacility = WMI\n"
        )
        return 0x80041017 - (1 << 32)
    _print(ctx, style, rows, names)
    return 0


def _properties(_class, rows, text):
    """The asked-for properties as the class spells them, sorted; all if none or ``*``."""
    known = {key.lower(): key for row in rows[:1] for key in row}
    asked = [name.strip().lower() for name in text.split(",") if name.strip()]
    if not rows:
        return []
    if not asked or asked == ["*"]:
        return sorted(known.values(), key=str.lower)
    if any(name not in known for name in asked):
        raise ValueError(text)
    return sorted({known[name] for name in asked}, key=str.lower)


def _matches(row, where):
    """A condition such as ``index=1`` or ``DeviceID='E:'``."""
    name, equals, value = where.strip("()").partition("=")
    known = {key.lower(): key for key in row}
    if not equals or name.strip().lower() not in known:
        raise ValueError(where)
    value = value.strip().strip("'\"").replace("\\\\", "\\").lower()
    return str(row[known[name.strip().lower()]]).lower() == value


def _print(ctx, style, rows, names):
    if not rows:
        ctx.err("No Instance(s) Available.\n")
        return
    if style == "csv":
        node = ctx.system.config.computer_name
        lines = ["", ",".join(["Node", *names])]
        lines += [",".join([node, *(str(row[name]) for name in names)]) for row in rows]
    elif style in ("value", "list"):
        lines = []
        for row in rows:
            lines += ["", "", *(f"{name}={row[name]}" for name in names)]
        lines += ["", ""]
    else:
        widths = [max(len(name), *(len(str(row[name])) for row in rows)) + 2 for name in names]
        table = [names, *([str(row[name]) for name in names] for row in rows)]
        lines = [
            "".join(f"{cell:{width}}" for cell, width in zip(cells, widths, strict=True))
            for cells in table
        ]
    ctx.check()
    ctx.stdout.write(b"".join(line.encode(CODE_PAGE, "replace") + b"\r\r\n" for line in lines))
