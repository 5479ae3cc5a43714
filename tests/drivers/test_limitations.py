"""What a driver ought to do, and the announcement says that it does not."""

from __future__ import annotations

import itertools

import pytest

pytestmark = pytest.mark.area("limitations")

ANNOUNCED = "xen-devel, 2007-11-09: third release of GPL'd PV drivers for Windows (0.0.3)"

CYLINDER = 255 * 63
"""Sectors of the largest cylinder that CHS geometry knows."""


@pytest.mark.smoke
@pytest.mark.claim("the emulated disk is hidden, so that no disk shows twice", ANNOUNCED)
@pytest.mark.cost(command=4)
def test_system_disk_shows_once(installed_driver, guest, lab):
    guest.disks.list(lab.deadline("command"), rescan=True)
    drives = guest.disks.drives(lab.deadline("command"))
    assert drives, "the guest lists no disk"
    for one, other in itertools.combinations(drives, 2):
        # Nothing was attached, so two disks of one size are the same one. WMI counts whole
        # cylinders, whose size may differ between two drivers.
        assert abs(one.total_sectors - other.total_sectors) > CYLINDER, (
            f"the system disk shows twice: disk {one.index} has {one.total_sectors} sectors, "
            f"disk {other.index} has {other.total_sectors}"
        )
