from __future__ import annotations

import pytest

from lab.core.errors import UsageError
from lab.xen.blockspec import BlockSpec, devid, vdev_name


@pytest.mark.parametrize(
    ("vdev", "number"),
    [
        ("hda", 768),
        ("/dev/hda1", 769),
        ("hdb", 832),
        ("/dev/hdc", 5632),
        ("hdd", 5696),
        ("sda", 2048),
        ("sdb3", 2067),
        ("sdp15", 2303),
        ("xvda", 51712),
        ("xvdb1", 51729),
        ("xvdp", 51952),
        ("xvdq", 268439552),
        ("xvda16", 268435472),
        ("xvdaa", 268442112),
    ],
)
def test_devid_and_back(vdev: str, number: int) -> None:
    assert devid(vdev) == number
    assert vdev_name(number) == vdev.removeprefix("/dev/")


def test_number_as_device() -> None:
    assert devid("5632") == 5632
    assert vdev_name(9999) == "9999"


@pytest.mark.parametrize("vdev", ["hde", "hda64", "sdq", "sda16", "fd0", "", "/dev/", "xvda256"])
def test_no_such_device(vdev: str) -> None:
    with pytest.raises(UsageError):
        devid(vdev)


def test_parse() -> None:
    spec = BlockSpec.parse("phy:/dev/vg00/virt-virtdemo-1", "/dev/hdc", "w")
    assert (spec.kind, spec.path, spec.vdev, spec.mode, spec.devid) == (
        "phy",
        "/dev/vg00/virt-virtdemo-1",
        "hdc",
        "w",
        5632,
    )
    assert str(spec) == "phy:/dev/vg00/virt-virtdemo-1 /dev/hdc w"
    assert BlockSpec.parse("phy:vg00/x", "hdc", "ro").backend == "phy:/dev/vg00/x"
    assert BlockSpec.parse("tap:aio:/srv/x.img", "xvdb", "rw").path == "/srv/x.img"


@pytest.mark.parametrize(
    ("backend", "vdev", "mode", "says"),
    [
        ("/dev/vg00/x", "hdc", "w", "what kind of backend"),
        ("phy:", "hdc", "w", "not an absolute path"),
        ("file:x.img", "hdc", "w", "not an absolute path"),
        ("phy:/dev/vg00/x,y", "hdc", "w", "not an absolute path"),
        ("phy:/dev/vg00/x", "hdz", "w", "beyond"),
        ("phy:/dev/vg00/x", "hdc", "x", "not a mode"),
    ],
)
def test_refusals(backend: str, vdev: str, mode: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        BlockSpec.parse(backend, vdev, mode)
