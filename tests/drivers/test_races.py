"""What only fails now and then: the same moves in orders and at moments that a seed decides."""

from __future__ import annotations

import pytest

from lab.suite.intensity import Count
from lab.xen import vbd
from lab.xen.blockspec import BlockSpec

pytestmark = pytest.mark.area("attach")

ANNOUNCED = "xen-devel, 2007-11-09: third release of GPL'd PV drivers for Windows (0.0.3)"
HISTORY = "crashes that the driver's history reports"

MIB = 2048  # in sectors
NAMES = ("hdd", "sdb", "xvdf", "sde", "xvdg", "xvdh", "sdi")
ATTEMPTS = Count(60, smoke=1, soak=400, tcg=6)


@pytest.mark.slow
@pytest.mark.race(attempts=ATTEMPTS)
@pytest.mark.claim("the races that hung the guest on an attach are fixed", ANNOUNCED)
@pytest.mark.claim("xenvbd race, blue screen", HISTORY)
@pytest.mark.cost(attach=8, detach=7, dom0=24, command=20, mib=2)
def test_attach_and_detach_at_any_moment(
    installed_driver, disk_on, backings, place, guest, lab, jitter, still_the_same_boot
):
    busy = disk_on("/dev/hdc", sectors=4 * MIB)
    names = jitter.order("names", NAMES)
    specs = [
        BlockSpec.parse(backings.exact(4096 + 8 * n, lab.deadline("command")).spec, f"/dev/{name}")
        for n, name in enumerate(names)
    ]
    job = busy.start(0, 1024, threads=2, order="random", shift=True)
    job.wait_busy(lab.deadline("boot"))
    toolstack, domain = place.toolstack, place.domain

    def all_at_once(what, commands):
        lines = [
            f"(sleep {jitter.delay(f'{what} {index}', 2.0):.2f}; {command}) &"
            for index, command in enumerate(commands)
        ]
        place.dom0.run("\n".join([*lines, "wait"]), lab.deadline("boot"))

    def states(wanted):
        for spec in specs:
            path = f"{vbd.frontend_path(domain.domid, spec.devid)}/state"
            place.xenstore.wait(path, [wanted], lab.deadline("attach"))

    with guest.crash.guard("attaches at once", lab.deadline("boot")):
        all_at_once(
            "attach",
            [toolstack.command(*toolstack.block_attach_words(domain, spec)) for spec in specs],
        )
        states("4")
        present = guest.disks.wait_for_disks(len(specs) + 2, lab.deadline("attach"))
        jitter.point("between")
        order = jitter.order("detaches", specs)
        all_at_once(
            "detach",
            [
                toolstack.command(*toolstack.block_detach_words(domain, spec.vdev, force=False))
                for spec in order
            ],
        )
        for spec in specs:
            backend = vbd.backend_path(domain.domid, spec.devid)
            left = place.xenstore.ls(backend, lab.deadline("command"))
            assert not left, f"{spec.vdev} was detached and {backend} is left"
    assert len({disk.number for disk in present}) == len(present)
    job.wait_busy(lab.deadline("boot"))
    ended = job.end(lab.deadline("boot")).require("using a disk while others came and went")
    busy.check_in_dom0("others came and went", 0, 1024, gen=max(ended.generations))
    still_the_same_boot()
