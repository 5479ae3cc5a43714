from __future__ import annotations

from pathlib import Path

import pytest
from xen_fakes import FakeTools, ScriptedDom0, ShellDom0

from lab.core.deadline import Deadline
from lab.core.errors import LabBroken, UsageError
from lab.xen.storage import LogicalVolume, VolumeGroup, parse_lvs

GOLDEN = Path(__file__).parent / "golden"


def soon() -> Deadline:
    return Deadline(10)


def test_list() -> None:
    volumes = parse_lvs((GOLDEN / "lvs.txt").read_text(), "vg00")
    assert [one.name for one in volumes] == ["a", "virt-virtdemo", "virt-virtdemo-1"]
    assert volumes[2].path == "/dev/vg00/virt-virtdemo-1"
    assert volumes[2].sectors == 65536
    with pytest.raises(LabBroken):
        parse_lvs("a 4.00m", "vg00")


def test_create_asks_the_kernel_for_the_size(tmp_path: Path) -> None:
    tools = FakeTools(tmp_path)
    for name in ("lvcreate", "vgmknodes", "dd"):
        tools.add(name, f'log "{name} $*"')
    tools.add("blockdev", "echo 33554432")
    volume = VolumeGroup(ShellDom0(tools.bin), "vg00").create("virt-virtdemo-1", 30, soon())
    assert volume == LogicalVolume("vg00", "virt-virtdemo-1", 33554432)
    assert tools.calls == [
        "lvcreate -y -Zn -Wn -L 30m -n virt-virtdemo-1 vg00",
        "vgmknodes vg00",
        "dd if=/dev/zero of=/dev/vg00/virt-virtdemo-1 bs=1048576 count=1 conv=notrunc",
        "dd if=/dev/zero of=/dev/vg00/virt-virtdemo-1 bs=1048576 count=1 seek=31"
        " conv=notrunc,fsync",
    ]


def test_lvm_of_2007_knows_fewer_options(tmp_path: Path) -> None:
    tools = FakeTools(tmp_path)
    for name in ("lvcreate", "vgmknodes", "dd"):
        tools.add(name, f'log "{name} $*"')
    tools.add("blockdev", "echo 33554432")
    VolumeGroup(ShellDom0(tools.bin), "vg00", old_tools=True).create("x", 32, soon())
    assert tools.calls[0] == "lvcreate -Zn -L 32m -n x vg00"
    gone = ScriptedDom0().answer(
        "lvremove", stderr="  One or more specified logical volume(s) not found.\n", exit_code=5
    )
    VolumeGroup(gone, "vg00").remove("x", soon())


@pytest.mark.parametrize(
    ("said", "kind", "message"),
    [
        (
            "  Insufficient free extents (3) in volume group vg00: 8 required",
            LabBroken,
            "no room for 32 MiB in vg00",
        ),
        (
            '  Logical Volume "x" already exists in volume group "vg00"',
            UsageError,
            "vg00/x already exists",
        ),
        (
            '  Volume group "vg00" has insufficient free space (3 extents): 8 required.',
            LabBroken,
            "no room for 32 MiB in vg00",
        ),
        ("  something else", LabBroken, "cannot create vg00/x: something else"),
    ],
)
def test_create_fails(said: str, kind: type[Exception], message: str) -> None:
    dom0 = ScriptedDom0().answer("set -e", stderr=said, exit_code=5)
    with pytest.raises(kind, match=message):
        VolumeGroup(dom0).create("x", 32, soon())


@pytest.mark.parametrize("name", ["", "-x", "a b", "..", "a/b", "$(x)"])
def test_names(name: str) -> None:
    with pytest.raises(UsageError, match="not a name LVM allows"):
        VolumeGroup(ScriptedDom0()).create(name, 32, soon())


def test_size() -> None:
    with pytest.raises(UsageError, match="0 MiB"):
        VolumeGroup(ScriptedDom0()).create("x", 0, soon())


def test_remove() -> None:
    gone = ScriptedDom0().answer(
        "lvremove -f vg00/x", stderr='Failed to find logical volume "vg00/x"', exit_code=5
    )
    VolumeGroup(gone).remove("x", soon())
    busy = ScriptedDom0().answer(
        "lvremove", stderr="  Logical volume vg00/x in use.\n", exit_code=5
    )
    with pytest.raises(LabBroken, match="cannot remove vg00/x: Logical volume vg00/x in use"):
        VolumeGroup(busy).remove(LogicalVolume("vg00", "x", 1), soon())


def test_zero() -> None:
    volume = LogicalVolume("vg00", "x", 32 * 1048576)
    dom0 = ScriptedDom0().answer("dd if=/dev/zero of=/dev/vg00/x bs=1048576 count=32")
    VolumeGroup(dom0).zero(volume, soon())
    bad = ScriptedDom0().answer("dd", "dd: error writing: Input/output error", exit_code=1)
    with pytest.raises(LabBroken, match="cannot zero /dev/vg00/x"):
        VolumeGroup(bad).zero(volume, soon())
