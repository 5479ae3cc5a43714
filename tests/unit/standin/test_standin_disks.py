"""diskpart, format, chkdsk, mountvol, wmic and letters on disks that are plain files."""

from __future__ import annotations

import errno

import pytest
from standin import mbr
from standin.disks import Disk
from standin.volumes import size_text
from standin_guest import Guest

NEW_PARTITION = ("select disk 1", "clean", "create partition primary", "assign letter=e")


@pytest.fixture
def disk(guest: Guest):
    return guest.disk("xvdc", 131073)


def make_volume(guest: Guest) -> None:
    assert guest.diskpart(*NEW_PARTITION)[0] == 0
    code, _, err = guest.run("format E: /fs:ntfs /q /y /v:DATA")
    assert (code, err) == (0, "")


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "    0 B"),
        (80026361856, "  75 GB"),
        (16065 * 512, "8033 KB"),
        (63 * 512, "  32 KB"),
        (64 << 20, "  64 MB"),
        (9999 << 20, "9999 MB"),
        (10 << 30, "  10 GB"),
        (3 << 40, "3072 GB"),
    ],
)
def test_size_text(size, text):
    assert size_text(size) == text


def test_session(guest: Guest, disk, golden):
    code, out = guest.diskpart(
        "rescan", "list disk", "rem a comment", "select disk 1", "detail disk", "clean",
        "create partition primary size=20", "list partition", "create partition primary",
        "assign letter=F", "detail partition", "list disk", "list volume", "exit", "nonsense",
    )  # fmt: skip
    assert code == 0
    table = mbr.decode(disk.read_bytes()[:512])
    out = out.replace(f"{table.signature:08X}", "11223344")
    volume_c = next(line for line in out.splitlines() if "Volume 0" in line)
    assert volume_c.startswith("  Volume 0     C                EXT4   Partition  ")
    out = out.replace(volume_c, "  Volume 0     C")
    assert out == golden("diskpart_session.txt")
    assert [(item.start, item.end) for item in table.partitions] == [
        (63, 3 * mbr.CYLINDER),
        (3 * mbr.CYLINDER, 8 * mbr.CYLINDER),
    ]


@pytest.mark.parametrize(
    ("lines", "code", "text"),
    [
        (["select disk 7"], 5,
         "The disk you specified is not valid.\n\nThere is no disk selected.\n"),
        (["list partition"], 5, "There is no disk selected to list partitions.\n"),
        (["clean"], 5, "There is no disk selected.\nPlease select a disk and try again.\n"),
        (["select disk x"], 2, "The arguments you specified for this command are not valid.\n"),
        (["select disk 1", "create partition primary offset=1"], 2, "The arguments you specified"),
        (["select disk 1", "create partition primary size=900"], 4,
         "DiskPart was unable to create the specified partition.\n"),
        (["select disk 1", "select partition 1"], 5, "The specified partition is not valid.\n"),
        (["select volume 9"], 5, "The volume you selected is not valid or does not exist.\n"),
        (["select disk 1", "assign letter=e"], 5, "There is no volume selected.\n"),
        ([*NEW_PARTITION[:3], "assign letter=c"], 4,
         "The specified drive letter is not free to be assigned.\n"),
        (["select disk 0", "clean"], 4, "The selected disk is the system disk"),
        (["online disk 1"], 5, "\npvlab stand-in DiskPart version 5.2.3790\n"),
        (["attributes disk"], 5, "\npvlab stand-in DiskPart version 5.2.3790\n"),
        (["remove letter=q"], 5, "There is no volume selected.\n"),
    ],
)  # fmt: skip
def test_script_errors(guest: Guest, disk, lines, code, text):
    found, out = guest.diskpart(*lines)
    assert found == code
    assert text in out


def test_noerr_goes_on(guest: Guest, disk):
    code, out = guest.diskpart("select disk 9 noerr", "sel dis 1")
    assert code == 0
    assert out.endswith("Disk 1 is now the selected disk.\n\n")


def test_missing_script(guest: Guest):
    code, out, _ = guest.run("diskpart /s nothing.txt")
    assert code == 3
    assert "DiskPart failed to open the script file." in out
    assert guest.run("diskpart /x")[0] == 2


def test_commands_from_standard_input(guest: Guest, disk):
    code, out, _ = guest.run("diskpart", b"list disk\r\nselect disk 3\r\nexit\r\n")
    assert code == 0
    assert "DISKPART> \n  Disk ###  Status" in out
    assert out.endswith("Leaving DiskPart...\n")


def test_io_error_is_reported(guest: Guest, disk, monkeypatch):
    def write(self, offset, data):
        raise OSError(errno.EIO, "the disk said no")

    monkeypatch.setattr(Disk, "write", write)
    code, out = guest.diskpart("select disk 1", "clean")
    assert code == 4
    assert out.endswith(
        "DiskPart has encountered an error: The request could not be performed because of an I/O "
        "device error.\nSee the System Event Log for more information.\n\n"
    )


def test_format_and_use(guest: Guest, disk):
    assert guest.diskpart(*NEW_PARTITION)[0] == 0
    code, out, err = guest.run("format E: /fs:ntfs /q /y /v:DATA")
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert lines[:5] == [
        "The type of the file system is RAW.",
        "The new file system is NTFS.",
        "QuickFormatting 62M",
        "Creating file system structures.",
        "Format complete.",
    ]
    assert lines[5].endswith(" KB total disk space.")
    device = str(guest.root / "dev/xvdc1")
    folder = str(guest.root / "letters/E")
    assert ("mkntfs", "-Q", "-F", "-L", "DATA", device) in guest.host.calls
    assert guest.host.calls[-1] == ("mount.ntfs", device, folder)
    assert guest.run("echo x> E:\\a.txt & type e:\\A.TXT & E: & cd")[1] == "x \nE:\\\n"
    assert "Volume in drive E is DATA\n Volume Serial Number is 1234-ABCD" in guest.run("vol e:")[1]
    assert "NTFS   Partition     63 MB  Healthy" in guest.diskpart("list volume")[1]


@pytest.mark.parametrize(
    ("line", "code", "text"),
    [
        ("format", 1, "Required parameter missing -\n"),
        ("format E: /z", 1, "Invalid parameter - /z\n"),
        ("format EE", 1, "Invalid drive specification.\n"),
        ("format Q: /y", 1, "The system cannot find the drive specified.\n"),
        ("format C: /y", 4,
         "Format cannot run because the volume is in use by another\nprocess.\n"),
    ],
)  # fmt: skip
def test_format_errors(guest: Guest, line, code, text):
    assert guest.run(line) == (code, "", text)


def test_format_asks(guest: Guest, disk):
    guest.diskpart(*NEW_PARTITION)
    code, out, _ = guest.run("format E: /q", b"n\r\n")
    assert code == 5
    assert "DRIVE E: WILL BE LOST!\nProceed with Format (Y/N)? \n" in out


def test_format_reports_what_failed(guest: Guest, disk):
    guest.diskpart(*NEW_PARTITION)
    guest.host.results["mkntfs"] = (1, b"Error writing: Input/output error\n")
    code, _, err = guest.run("format E: /q /y")
    assert code == 4
    assert err == (
        "The request could not be performed because of an I/O device error.\nFormat failed.\n"
    )


def test_raw_letter_cannot_be_used(guest: Guest, disk):
    guest.diskpart(*NEW_PARTITION)
    code, _, err = guest.run("type E:\\x")
    assert code == 1
    assert err.startswith("The volume does not contain a recognized file system.")


def test_detached_disk_takes_its_letter(guest: Guest, disk):
    make_volume(guest)
    guest.unplug("xvdc")
    assert guest.run("type E:\\x")[2] == "The system cannot find the drive specified.\n"
    assert ("umount", "-l", str(guest.root / "letters/E")) in guest.host.calls
    assert guest.diskpart("list disk")[1].count("  Disk ") == 2  # the header and disk 0


def test_letter_comes_back_with_its_disk(guest: Guest, disk):
    make_volume(guest)
    contents = disk.read_bytes()
    volume = (guest.root / "dev/xvdc1").read_bytes()
    guest.unplug("xvdc")
    guest.diskpart("rescan")
    guest.disk("xvdd", 131073).write_bytes(contents)
    (guest.root / "dev/xvdd1").write_bytes(volume)
    guest.diskpart("rescan")
    assert guest.host.calls[-1][0] == "mount.ntfs"
    assert guest.run("vol E:")[0] == 0


def test_numbers_are_kept_and_reused(guest: Guest):
    guest.disk("xvdc", 4096)
    guest.disk("xvdd", 8192)
    disks = guest.system.disks
    assert [(disk.name, disk.number) for disk in disks.scan()] == [
        ("sda", 0), ("xvdc", 1), ("xvdd", 2)
    ]  # fmt: skip
    guest.unplug("xvdc")
    assert [disk.number for disk in disks.scan()] == [0, 2]
    guest.disk("xvde", 4096)
    assert [(disk.name, disk.number) for disk in disks.scan()] == [
        ("sda", 0), ("xvde", 1), ("xvdd", 2)
    ]  # fmt: skip


def test_replaced_disk_is_noticed(guest: Guest):
    guest.disk("xvdc", 4096)
    sequence = guest.root / "sys/block/xvdc/diskseq"
    sequence.write_text("5\n")
    first = guest.system.disks.get(1)
    sequence.write_text("6\n")
    assert guest.system.disks.get(1) is not first


def test_remove_delete_and_extend(guest: Guest, disk):
    code, out = guest.diskpart(
        "select disk 1", "clean", "create partition primary size=10", "extend size=10",
        "assign letter=E", "remove letter=E", "delete partition", "list partition",
    )  # fmt: skip
    assert code == 0
    assert "DiskPart successfully extended the volume." in out
    assert "DiskPart successfully removed the drive letter or mount point." in out
    assert "DiskPart successfully deleted the selected partition." in out
    assert out.endswith("There are no partitions on this disk to show.\n\n")


def test_mounted_volume_is_not_extended(guest: Guest, disk):
    guest.diskpart("select disk 1", "create partition primary size=10", "assign letter=e")
    guest.run("format E: /q /y /v:X")
    code, out = guest.diskpart("select volume e", "extend")
    assert code == 4
    assert "The volume you have selected may not be extended." in out


def test_chkdsk(guest: Guest, disk):
    make_volume(guest)
    guest.run("echo x> E:\\a.txt")
    code, out, _ = guest.run("chkdsk E:")
    assert code == 0
    assert out.startswith("The type of the file system is NTFS.\nVolume label is DATA.\n")
    assert "CHKDSK is verifying indexes (stage 2 of 3)...\nIndex verification completed.\n" in out
    assert ("ntfsfix", "-n", str(guest.root / "dev/xvdc1")) in guest.host.calls
    guest.host.results["ntfsfix"] = (1, b"")
    code, out, _ = guest.run("chkdsk E: /f")
    assert code == 3
    assert out.endswith("Windows found problems that could not be fixed.\n")
    assert guest.run("chkdsk Q:")[0] == 3
    assert guest.run("chkdsk /q")[0] == 3


def test_mountvol(guest: Guest, disk):
    make_volume(guest)
    code, out, _ = guest.run("mountvol E: /l")
    assert code == 0
    assert out.startswith("    \\\\?\\Volume{")
    assert out.strip() in guest.run("mountvol")[1]
    assert guest.run("mountvol E: /p") == (0, "", "")
    assert guest.run("mountvol E: /l")[0] == 1
    assert guest.host.calls[-1][0] == "umount"


def test_busy_volume_keeps_its_letter(guest: Guest, disk):
    make_volume(guest)
    guest.host.results["umount"] = (32, b"target is busy")
    assert guest.run("mountvol E: /p") == (1, "Access is denied.\n", "")
    assert guest.run("mountvol E: /l")[0] == 0
    assert guest.run("format E: /q /y")[0] == 4


def test_wmic_gives_exact_sectors(guest: Guest, disk):
    code, out, _ = guest.run(
        "wmic diskdrive get Index,Size,TotalSectors,BytesPerSector,InterfaceType,Model /format:csv"
    )
    assert code == 0
    assert out.count("\r\n") == 4  # CR CR LF, of which the helper has made CR LF
    assert out.replace("\r", "") == (
        "\nNode,BytesPerSector,Index,InterfaceType,Model,Size,TotalSectors\n"
        "STANDIN,512,0,IDE,pvlab system disk ATA Device,2097152,4096\n"
        "STANDIN,512,1,SCSI,XEN PV VBD SCSI Disk Device,65802240,131073\n"
    )
    assert "TotalSectors=131073" in guest.run("wmic diskdrive where index=1 get /value")[1]


def test_wmic_other_classes(guest: Guest, disk):
    make_volume(guest)
    out = guest.run("wmic partition get DiskIndex,StartingOffset,Size /format:csv")[1]
    assert "STANDIN,1,65769984,32256" in out
    out = guest.run("wmic logicaldisk where \"DeviceID='E:'\" get FileSystem,VolumeName")[1]
    assert "NTFS        DATA" in out
    assert "pvlab stand-in" in guest.run("wmic os get Caption /value")[1]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("wmic", 44135),
        ("wmic nothing get x", 44135),
        ("wmic os delete", 44125),
        ("wmic os get Caption /format:xyz", 44125),
        ("wmic os get Nope", 0x80041017 - (1 << 32)),
    ],
)
def test_wmic_errors(guest: Guest, line, code):
    assert guest.run(line)[0] == code


def test_wmic_without_instances(guest: Guest):
    out = guest.run("wmic diskdrive where index=9 get index /format:csv")
    assert out == (0, "", "No Instance(s) Available.\n")
