"""Disks and volumes as the guest sees them, through diskpart, format and wmic.

Every call is one command line, so two round trips: the diskpart script is written with
``echo`` by the same line that runs it.

Blame: an I/O error while a tool works on a disk the caller named is the driver's
(``DiskIoError``); any other refusal points at nobody yet (``DiskError``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lab.core.command import CommandResult
from lab.core.deadline import Deadline, NotYet, wait_for
from lab.core.errors import DeadlineExpired, LabBroken, UsageError
from lab.core.journal import noun
from lab.guest import tables
from lab.guest.channel import Channel
from lab.guest.errors import DiskError, DiskIoError
from lab.guest.names import WORK_DIR

# What diskpart says when it refuses (diskpart 5.1 and 5.2; the VDS lines from 5.2 on). The
# text after the colon, or the next non-empty line, carries the system's reason.
_REFUSALS = re.compile(
    r"DiskPart has encountered an error:\s*(?P<reason>[^\r\n]+)"
    r"|Virtual Disk Service error:\s*(?P<vds>[^\r\n]+)"
    r"|(?P<plain>The (?:specified )?(?:disk|volume|partition)(?: you specified)? is not valid"
    r"|There is no (?:disk|volume|partition)(?: currently)? selected"
    r"|DiskPart (?:could not|was unable to|failed to)[^\r\n]*"
    r"|The arguments you specified for this command are not valid)",
)

# FormatMessage texts of ERROR_IO_DEVICE, ERROR_CRC, ERROR_NOT_READY, ERROR_GEN_FAILURE,
# ERROR_SEM_TIMEOUT, ERROR_BAD_COMMAND, ERROR_DEVICE_HARDWARE_ERROR (Microsoft, "System
# Error Codes"): the disk did not do what it was asked.
_IO_ERRORS = re.compile(
    r"I/O (?:device )?error|cyclic redundancy|device is not ready|not functioning"
    r"|semaphore timeout|does not recognize the command|hardware error",
    re.IGNORECASE,
)

_UNKNOWN_COMMAND = "is not recognized as an internal or external command"


@dataclass(frozen=True, slots=True)
class DiskInfo:
    """A line of ``list disk``.

    Attributes:
        number: disk number.
        status: ``Online``, ``Foreign``, ...
        size_text: size as printed, rounded by diskpart.
        size_bytes: the same in bytes, no more exact; None when it cannot be read.
        free_text: unpartitioned space as printed.
        free_bytes: the same in bytes.
        dynamic: whether it is a dynamic disk.
        gpt: whether it has a GUID partition table.
    """

    number: int
    status: str
    size_text: str
    size_bytes: int | None
    free_text: str
    free_bytes: int | None
    dynamic: bool
    gpt: bool


@dataclass(frozen=True, slots=True)
class VolumeInfo:
    """A line of ``list volume``.

    Attributes:
        number: volume number.
        letter: drive letter without colon, or empty.
        label: volume label, or empty.
        file_system: ``NTFS``, ``FAT32``, ``CDFS``, ``RAW``, or empty.
        kind: ``Partition``, ``CD-ROM``, ...
        size_text: size as printed.
        size_bytes: the same in bytes; None when it cannot be read.
        status: ``Healthy``, ...
        info: ``System``, ``Boot``, or empty.
    """

    number: int
    letter: str
    label: str
    file_system: str
    kind: str
    size_text: str
    size_bytes: int | None
    status: str
    info: str


@dataclass(frozen=True, slots=True)
class PartitionInfo:
    """A line of ``list partition``.

    Attributes:
        number: partition number on its disk, from 1.
        kind: ``Primary``, ``Extended``, ``Logical``, ...
        size_text: size as printed.
        size_bytes: the same in bytes; None when it cannot be read.
        offset_text: start on the disk as printed.
        offset_bytes: the same in bytes.
    """

    number: int
    kind: str
    size_text: str
    size_bytes: int | None
    offset_text: str
    offset_bytes: int | None


@dataclass(frozen=True, slots=True)
class DiskDetail:
    """What ``detail disk`` says.

    Attributes:
        model: first line: vendor and product.
        properties: the ``Key : value`` lines, such as ``Disk ID``, ``Type``, ``Bus``.
        volumes: the volumes on it.
    """

    model: str
    properties: dict[str, str]
    volumes: tuple[VolumeInfo, ...]


@dataclass(frozen=True, slots=True)
class DriveSize:
    """A disk's size as WMI has it, and how exact that is.

    Windows Server 2003 derives ``Win32_DiskDrive.Size`` and ``TotalSectors`` from the disk's
    geometry ("calculated by multiplying the total number of cylinders, tracks in each
    cylinder, sectors in each track, and bytes in each sector"), so up to one cylinder at the
    disk's end is missing. No tool that comes with it prints the exact length
    (IOCTL_DISK_GET_LENGTH_INFO); the driver's own ``TotalSectors =`` print does, on a checked
    build. The stand-in guest gives the exact number as ``TotalSectors``.

    Attributes:
        index: disk number.
        model: vendor and product.
        interface: ``IDE``, ``SCSI``, ...
        size_bytes: ``Size``; None when WMI has none, as for a disk it cannot open.
        total_sectors: ``TotalSectors``.
        sector_bytes: ``BytesPerSector``.
        cylinder_sectors: sectors in one cylinder; None when WMI has no geometry.
    """

    index: int
    model: str
    interface: str
    size_bytes: int | None
    total_sectors: int | None
    sector_bytes: int | None
    cylinder_sectors: int | None

    @property
    def exact_bytes(self) -> int | None:
        """The disk's exact length, where ``TotalSectors`` says more than ``Size`` does."""
        if not self.total_sectors or not self.sector_bytes:
            return None
        total = self.total_sectors * self.sector_bytes
        return total if total != self.size_bytes else None

    def fits(self, sectors: int) -> bool:
        """Whether a disk of exactly that many 512-byte sectors would show this size.

        Args:
            sectors: length of the backing device in units of 512 bytes, as in xenstore.
        """
        if self.size_bytes is None or not self.sector_bytes:
            return False
        if self.exact_bytes is not None:
            return sectors * 512 == self.exact_bytes
        missing = sectors * 512 - self.size_bytes
        # Without a geometry the size must be exact.
        return 0 <= missing < max((self.cylinder_sectors or 0) * self.sector_bytes, 1)


@noun
class Disks:
    """The guest's disks.

    Args:
        channel: the guest's command line.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._scripts = 0

    def list(self, deadline: Deadline, *, rescan: bool = False) -> tuple[DiskInfo, ...]:
        """All disks, by number.

        Args:
            deadline: when to give up.
            rescan: look for new disks first.

        Raises:
            DiskError: diskpart refused.
            LabBroken: diskpart is missing.
            GuestSilent, DeadlineExpired: as ``Channel.run``.
        """
        script = ["rescan"] if rescan else []
        return parse_disks(self.script([*script, "list disk"], deadline).stdout)

    def rescan(self, deadline: Deadline) -> None:
        """Make the guest look for new disks. Raises like ``list``."""
        self.script(["rescan"], deadline)

    def volumes(self, deadline: Deadline) -> tuple[VolumeInfo, ...]:
        """All volumes. Raises like ``list``."""
        return parse_volumes(self.script(["list volume"], deadline).stdout)

    def partitions(self, disk: int, deadline: Deadline) -> tuple[PartitionInfo, ...]:
        """The partitions of one disk.

        Raises:
            DiskIoError: the disk has I/O errors.
            DiskError: diskpart refused, for instance because there is no such disk.
            LabBroken, GuestSilent, DeadlineExpired: as ``list``.
        """
        script = [f"select disk {disk}", "list partition"]
        return parse_partitions(self.script(script, deadline, disk=disk).stdout)

    def detail(self, disk: int, deadline: Deadline) -> DiskDetail:
        """Model, bus and volumes of one disk. Raises like ``partitions``."""
        script = [f"select disk {disk}", "detail disk"]
        return parse_detail(self.script(script, deadline, disk=disk).stdout)

    def drives(self, deadline: Deadline) -> tuple[DriveSize, ...]:
        """Every disk's size from WMI, by number; see ``DriveSize`` for how exact.

        Raises:
            LabBroken: wmic is missing or prints something else.
            GuestSilent, DeadlineExpired: as ``Channel.run``.
        """
        # wmic reads its standard input when that is no console, and would wait for it.
        result = self._channel.run(
            "wmic diskdrive get BytesPerSector,Index,InterfaceType,Model,SectorsPerTrack,"
            "Size,TotalSectors,TracksPerCylinder /format:csv <nul",
            deadline,
        )
        if not result.ok:
            raise LabBroken(f"{result.where}: wmic diskdrive failed: {_last_line(result)}")
        return parse_drives(result.stdout)

    def wait_for_disks(
        self,
        wanted: int | Callable[[tuple[DiskInfo, ...]], bool],
        deadline: Deadline,
    ) -> tuple[DiskInfo, ...]:
        """Rescan until the guest has the disks wanted.

        Args:
            wanted: that many disks at least, or a predicate over the list.
            deadline: when to give up.

        Raises:
            DeadlineExpired: saying which disks there were; the caller knows whom to blame.
            DiskError, LabBroken, GuestSilent: as ``list``.
        """

        seen = ""

        def probe() -> tuple[DiskInfo, ...]:
            nonlocal seen
            try:
                disks = self.list(deadline, rescan=True)
            except DeadlineExpired:
                # The last look has no time left; what the one before saw is the answer.
                if not seen:
                    raise
                raise NotYet(seen) from None
            if len(disks) >= wanted if isinstance(wanted, int) else wanted(disks):
                return disks
            shown = ", ".join(f"disk {d.number} {d.size_text} {d.status}" for d in disks)
            seen = shown or "no disk"
            raise NotYet(seen)

        count = f"{wanted} disks" if isinstance(wanted, int) else "the wanted disks"
        return wait_for(f"{count} in {self._channel.name}", probe, deadline, interval=0.3)

    def partition(
        self, disk: int, letter: str, deadline: Deadline, *, size_mib: int | None = None
    ) -> None:
        """Wipe a disk's partition table, make one primary partition and give it a letter.

        Args:
            disk: disk number.
            letter: drive letter without colon.
            deadline: when to give up.
            size_mib: the partition's size in MiB; the whole disk when absent.

        Raises:
            As ``partitions``; UsageError for a letter that is none.
        """
        size = f" size={size_mib}" if size_mib is not None else ""
        self.script(
            [
                f"select disk {disk}",
                "clean",
                f"create partition primary{size}",
                f"assign letter={_letter(letter)}",
            ],
            deadline,
            disk=disk,
        )

    def clean(self, disk: int, deadline: Deadline) -> None:
        """Remove every partition of a disk. Raises like ``partitions``."""
        self.script([f"select disk {disk}", "clean"], deadline, disk=disk)

    def format(
        self, letter: str, deadline: Deadline, *, file_system: str = "ntfs", label: str = "pvlab"
    ) -> None:
        """Quick-format a volume.

        Args:
            letter: drive letter without colon.
            deadline: when to give up.
            file_system: ``ntfs`` or ``fat32``.
            label: volume label, up to 11 letters, digits, ``-`` or ``_``.

        Raises:
            DiskIoError: the disk has I/O errors.
            DiskError: format failed for another reason.
            UsageError: a letter, file system or label that format cannot take.
            LabBroken, GuestSilent, DeadlineExpired: as ``list``.
        """
        if file_system not in ("ntfs", "fat32") or not re.fullmatch(r"[\w-]{1,11}", label):
            raise UsageError(f"cannot format as {file_system!r} with the label {label!r}")
        drive = f"{_letter(letter)}:"
        result = self._channel.run(f"format {drive} /fs:{file_system} /q /y /v:{label}", deadline)
        self._judge(result, f"format {drive}", named=True)
        if not result.ok:
            raise DiskError(f"{result.where}: format {drive} failed: {_last_line(result)}")

    def script(
        self, lines: Sequence[str], deadline: Deadline, *, disk: int | None = None
    ) -> CommandResult:
        """Run a diskpart script.

        Args:
            lines: diskpart commands.
            deadline: when to give up.
            disk: the disk they work on; its I/O errors are then the driver's.

        Raises:
            As ``partitions``.
        """
        for line in lines:
            if not re.fullmatch(r"[\w =:.-]+", line):
                raise UsageError(f"not a diskpart line the lab would send: {line!r}")
        self._scripts += 1
        path = rf"{WORK_DIR}\dp-{self._scripts}.txt"
        # The blank before ``>`` matters: in ``select disk 1>`` the 1 would name a handle.
        echoes = " & ".join(
            f"echo {line} {'>' if i == 0 else '>>'} {path}" for i, line in enumerate(lines)
        )
        make = f"md {WORK_DIR} 2>nul & " if self._scripts == 1 else ""
        result = self._channel.run(f"{make}{echoes} & diskpart /s {path}", deadline)
        what = "diskpart" if disk is None else f"diskpart on disk {disk}"
        self._judge(result, what, named=disk is not None)
        if not result.ok:
            raise DiskError(
                f"{result.where}: {what} exited {result.exit_code}: {_last_line(result)}"
            )
        return result

    def _judge(self, result: CommandResult, what: str, *, named: bool) -> None:
        """Raise what the tool's words say; ``named``: the caller told it which disk to use."""
        said = f"{result.stdout}\n{result.stderr}"
        if _UNKNOWN_COMMAND in said:
            raise LabBroken(f"{result.where}: {what.split()[0]} is not installed in the guest")
        refusal = _REFUSALS.search(said)
        reason = ""
        if refusal:
            reason = next(filter(None, refusal.groupdict().values()), "").strip().rstrip(".")
        if named and (hit := _IO_ERRORS.search(reason or ("" if result.ok else said))):
            line = next((x.strip() for x in said.splitlines() if hit[0] in x), reason)
            raise DiskIoError(f"{result.where}: {what}: {line}")
        if refusal:
            raise DiskError(f"{result.where}: {what}: {reason}")


def parse_disks(text: str) -> tuple[DiskInfo, ...]:
    """The disks in the output of ``list disk``."""
    return tuple(
        DiskInfo(
            number=number,
            status=row["Status"],
            size_text=row["Size"],
            size_bytes=tables.size_bytes(row["Size"]),
            free_text=row["Free"],
            free_bytes=tables.size_bytes(row["Free"]),
            dynamic=row["Dyn"] == "*",
            gpt=row["Gpt"] == "*",
        )
        for row in tables.rows(text)
        if (number := tables.number(row["Disk ###"])) is not None
    )


def parse_volumes(text: str) -> tuple[VolumeInfo, ...]:
    """The volumes in the output of ``list volume`` or ``detail disk``."""
    return tuple(
        VolumeInfo(
            number=number,
            letter=row["Ltr"],
            label=row["Label"],
            file_system=row["Fs"],
            kind=row["Type"],
            size_text=row["Size"],
            size_bytes=tables.size_bytes(row["Size"]),
            status=row["Status"],
            info=row["Info"],
        )
        for row in tables.rows(text)
        if (number := tables.number(row["Volume ###"])) is not None
    )


def parse_partitions(text: str) -> tuple[PartitionInfo, ...]:
    """The partitions in the output of ``list partition``."""
    return tuple(
        PartitionInfo(
            number=number,
            kind=row["Type"],
            size_text=row["Size"],
            size_bytes=tables.size_bytes(row["Size"]),
            offset_text=row["Offset"],
            offset_bytes=tables.size_bytes(row["Offset"]),
        )
        for row in tables.rows(text)
        if (number := tables.number(row["Partition ###"])) is not None
    )


def parse_detail(text: str) -> DiskDetail:
    """The output of ``select disk N`` and ``detail disk``."""
    properties: dict[str, str] = {}
    model = ""
    before = ""
    for line in text.splitlines():
        match = re.fullmatch(r"(\w[\w ]*?)\s*:\s(.*)", line.rstrip())
        if match and match[1] != "On computer":
            if not properties:
                model = before.strip()
            properties[match[1]] = match[2].strip()
        before = line
    return DiskDetail(model, properties, parse_volumes(text))


def parse_drives(text: str) -> tuple[DriveSize, ...]:
    """The output of ``wmic diskdrive get ... /format:csv``.

    wmic ends lines with CR CR LF, sorts the columns by name, puts ``Node`` first and quotes
    nothing; ``Model`` is the only column that may hold a comma.

    Raises:
        LabBroken: there is no such table in it.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    start = next((i for i, line in enumerate(lines) if line.startswith("Node,")), None)
    if start is None:
        raise LabBroken(f"wmic printed no table: {lines[0][:80] if lines else 'nothing'}")
    titles = lines[start].split(",")
    found = []
    for line in lines[start + 1 :]:
        cells = line.split(",")
        extra = len(cells) - len(titles)
        if extra > 0 and "Model" in titles:
            at = titles.index("Model")
            cells[at : at + extra + 1] = [",".join(cells[at : at + extra + 1])]
        row = dict(zip(titles, cells, strict=False))

        def whole(key: str, row: dict[str, str] = row) -> int | None:
            text = row.get(key, "")
            return int(text) if text.isdecimal() else None

        index, heads, track = whole("Index"), whole("TracksPerCylinder"), whole("SectorsPerTrack")
        if index is None:
            raise LabBroken(f"wmic printed a disk without a number: {line[:80]}")
        found.append(
            DriveSize(
                index=index,
                model=row.get("Model", ""),
                interface=row.get("InterfaceType", ""),
                size_bytes=whole("Size"),
                total_sectors=whole("TotalSectors"),
                sector_bytes=whole("BytesPerSector"),
                cylinder_sectors=heads * track if heads and track else None,
            )
        )
    return tuple(sorted(found, key=lambda drive: drive.index))


def _letter(letter: str) -> str:
    if not re.fullmatch(r"[A-Za-z]", letter):
        raise UsageError(f"not a drive letter: {letter!r}")
    return letter.upper()


def _last_line(result: CommandResult) -> str:
    lines = [x.strip() for x in (result.stdout + result.stderr).splitlines() if x.strip()]
    return lines[-1] if lines else "it printed nothing"
