from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsman import FakeCmd

from lab.core.deadline import Deadline
from lab.core.errors import Blame, DeadlineExpired, LabBroken, UsageError
from lab.core.paths import repo_root
from lab.guest import disks, tables
from lab.guest.channel import Channel
from lab.guest.disks import Disks, DriveSize
from lab.guest.errors import DiskError, DiskIoError

GOLDEN = Path(__file__).parent / "golden"
MIB = 1 << 20


def golden(name: str) -> str:
    return (GOLDEN / name).read_bytes().decode("cp437")


def diskpart(cmd: FakeCmd, output: str, code: int = 0) -> list[str]:
    """Make diskpart print that; returns the scripts it is given."""
    scripts: list[str] = []

    def run(line: str) -> tuple[str, str, int]:
        scripts.append(cmd.files[line.split()[-1]].decode())
        return output, "", code

    cmd.programs["diskpart"] = run
    return scripts


def test_disks_of_server_2003() -> None:
    first, second, third = disks.parse_disks(golden("list_disk_2003.txt"))
    assert (first.number, first.status, first.size_text) == (0, "Online", "8189 MB")
    assert first.size_bytes == 8189 * MIB
    assert (second.number, second.free_bytes) == (1, 1024 * MIB)
    assert (third.status, third.dynamic, third.gpt) == ("Foreign", True, True)


def test_column_widths_come_from_the_ruler() -> None:
    found = disks.parse_disks(golden("list_disk_wide.txt"))
    assert [(d.number, d.status, d.size_bytes) for d in found] == [
        (0, "Online", 60 << 30),
        (12, "No Media", 0),
    ]


def test_detail() -> None:
    detail = disks.parse_detail(golden("detail_disk.txt"))
    assert detail.model == "XEN PV DISK SCSI Disk Device"
    assert detail.properties["Disk ID"] == "3E423E41"
    assert detail.properties["Type"] == "SCSI"
    first, second = detail.volumes
    assert (first.letter, first.label, first.file_system) == ("E", "pvlab", "NTFS")
    assert (second.letter, second.info, second.size_bytes) == ("", "System", 5 * MIB)


def test_partitions() -> None:
    first, second = disks.parse_partitions(golden("list_partition.txt"))
    assert (first.number, first.kind, first.offset_bytes) == (1, "Primary", 32 * 1024)
    assert (second.kind, second.size_bytes) == ("Extended", 5 * MIB)


def test_a_session_of_an_older_diskpart() -> None:
    sample = repo_root().parent / "shared/samples/diskpart_xp_v1.0_session.txt"
    if not sample.exists():
        pytest.skip("the collection of real output is not here")
    text = sample.read_text()
    assert [d.size_text for d in disks.parse_disks(text)] == ["75 GB", "75 GB"]
    assert [v.letter for v in disks.parse_volumes(text)] == ["C", "F"]


def test_drives() -> None:
    first, second, third = disks.parse_drives(golden("wmic_diskdrive.csv"))
    assert (first.index, first.interface) == (0, "IDE")
    assert (second.model, second.size_bytes) == ("XEN, PV DISK", 1069286400)
    assert second.cylinder_sectors == 255 * 63
    assert (third.size_bytes, third.fits(0)) == (None, False)
    with pytest.raises(LabBroken, match="no table: Invalid GET Expression"):
        disks.parse_drives("Invalid GET Expression.\r\n")


@pytest.mark.parametrize(
    ("sectors", "fits"),
    [(2088449, False), (2088450, True), (2097152, True), (2104514, True), (2104515, False)],
)
def test_a_size_from_geometry_is_known_to_a_cylinder(sectors: int, fits: bool) -> None:
    drive = disks.parse_drives(golden("wmic_diskdrive.csv"))[1]
    assert drive.fits(sectors) is fits


def test_an_exact_size_is_exact() -> None:
    drive = DriveSize(1, "", "SCSI", 1069286400, 2097152, 512, 255 * 63)
    assert drive.exact_bytes == 1 << 30
    assert drive.fits(2097152)
    assert not drive.fits(2097151)


def test_a_listing_is_one_command(channel: Channel, cmd: FakeCmd, deadline: Deadline) -> None:
    scripts = diskpart(cmd, golden("list_disk_2003.txt"))
    assert len(Disks(channel).list(deadline, rescan=True)) == 3
    assert scripts == ["rescan\r\nlist disk\r\n"]
    assert len(cmd.lines) == 1


def test_partitioning(channel: Channel, cmd: FakeCmd, deadline: Deadline) -> None:
    scripts = diskpart(cmd, "DiskPart successfully assigned the drive letter.\r\n")
    Disks(channel).partition(1, "e", deadline, size_mib=100)
    assert scripts[0].split("\r\n") == [
        "select disk 1", "clean", "create partition primary size=100", "assign letter=E", "",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("The disk you specified is not valid.\r\n\r\nThere is no disk selected.\r\n",
         "The disk you specified is not valid"),
        ("There is no disk selected.\r\n", "There is no disk selected"),
        ("DiskPart has encountered an error: Access is denied.\r\n", "Access is denied"),
        ("Virtual Disk Service error:\r\nThe disk is full.\r\n", "The disk is full"),
    ],
)  # fmt: skip
def test_refusals_blame_nobody(
    channel: Channel, cmd: FakeCmd, deadline: Deadline, said: str, message: str
) -> None:
    diskpart(cmd, said, 5)
    with pytest.raises(DiskError, match=message) as caught:
        Disks(channel).partition(1, "E", deadline)
    assert caught.value.blame is Blame.UNDECIDED


IO_ERROR = (
    "DiskPart has encountered an error: The request could not be performed because of an I/O "
    "device error.\r\nSee the System Event Log for more information.\r\n"
)


def test_an_io_error_on_a_named_disk_is_the_drivers(
    channel: Channel, cmd: FakeCmd, deadline: Deadline
) -> None:
    diskpart(cmd, IO_ERROR, 4)
    with pytest.raises(DiskIoError, match=r"disk 1: .*I/O device error") as caught:
        Disks(channel).clean(1, deadline)
    assert caught.value.blame is Blame.DRIVER
    # Listing names no disk: it may have been any.
    with pytest.raises(DiskError, match="I/O device error"):
        Disks(channel).list(deadline)


def test_exit_codes_count_too(channel: Channel, cmd: FakeCmd, deadline: Deadline) -> None:
    diskpart(cmd, "\r\nADD         - Add a mirror to a simple volume.\r\n", 5)
    with pytest.raises(DiskError, match="exited 5"):
        Disks(channel).rescan(deadline)


def test_missing_tools_are_the_labs(channel: Channel, deadline: Deadline) -> None:
    with pytest.raises(LabBroken, match="diskpart is not installed"):
        Disks(channel).list(deadline)
    with pytest.raises(LabBroken, match="format is not installed"):
        Disks(channel).format("E", deadline)


def test_format(channel: Channel, cmd: FakeCmd, deadline: Deadline) -> None:
    cmd.programs["format"] = lambda line: ("Format complete.\r\n", "", 0)
    Disks(channel).format("e", deadline, label="data")
    assert cmd.lines == ["format E: /fs:ntfs /q /y /v:data"]
    cmd.programs["format"] = lambda line: ("", "The device is not ready.\r\n", 4)
    with pytest.raises(DiskIoError, match="The device is not ready"):
        Disks(channel).format("e", deadline)
    cmd.programs["format"] = lambda line: ("", "Cannot lock the drive.\r\n", 4)
    with pytest.raises(DiskError, match="Cannot lock the drive"):
        Disks(channel).format("e", deadline)


def test_bad_arguments_are_never_sent(channel: Channel, cmd: FakeCmd, deadline: Deadline) -> None:
    nouns = Disks(channel)
    with pytest.raises(UsageError):
        nouns.format("E & del", deadline)
    with pytest.raises(UsageError):
        nouns.format("E", deadline, label="a&b")
    with pytest.raises(UsageError):
        nouns.script(["list disk & shutdown"], deadline)
    with pytest.raises(UsageError):
        nouns.partition(1, "", deadline)
    assert cmd.lines == []


def test_waiting_for_disks(channel: Channel, cmd: FakeCmd, deadline: Deadline) -> None:
    diskpart(cmd, golden("list_disk_2003.txt"))
    nouns = Disks(channel)
    assert len(nouns.wait_for_disks(3, deadline)) == 3
    assert nouns.wait_for_disks(lambda found: found[-1].status == "Foreign", deadline)
    with pytest.raises(DeadlineExpired, match=r"4 disks in virtdemo; .*disk 1 1024 MB Online"):
        nouns.wait_for_disks(4, Deadline(0.3))


@given(st.text(alphabet="-* \nDisk#0123456789GB\t\r", max_size=300))
def test_any_text_gives_a_table_or_none(text: str) -> None:
    disks.parse_disks(text)
    disks.parse_volumes(text)
    disks.parse_detail(text)
    for row in tables.rows(text):
        assert row["no such column"] == ""
