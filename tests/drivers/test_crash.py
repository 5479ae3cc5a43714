"""The guest lives through what once crashed it; and a crash, when there is one, is seen.

The second half crashes guests on purpose: what is tested there is that nothing of a real crash
would be missed, neither the crash nor its evidence.
"""

from __future__ import annotations

import pytest

from lab.core.deadline import NotYet, wait_for
from lab.core.errors import LabBroken
from lab.evidence.manifest import CRASH, PieceName
from lab.guest.crash import CrashKind
from lab.plugin.keys import SOURCES
from lab.suite import lifecycle
from lab.xen.blockspec import BlockSpec

pytestmark = [pytest.mark.area("crash"), pytest.mark.destructive]

HISTORY = "crashes that the driver's history reports"
OUTSIDE = "one guest bugcheck hung the whole machine, dom0 included"

MIB = 2048  # in sectors


@pytest.mark.smoke
@pytest.mark.claim("the races that hung the guest on an attach are fixed", HISTORY)
@pytest.mark.claim("block-detach, blue screen", HISTORY)
@pytest.mark.cost(attach=1, detach=1, dom0=3, command=3)
def test_guest_survives_attach_and_detach(installed_driver, block_device, still_the_same_boot):
    device = block_device(32, "/dev/hdc", "w")
    still_the_same_boot()
    device.detach()
    still_the_same_boot()


@pytest.fixture
def crash_guest(request, place, guest, lab, evidence):
    """Crashes the guest from outside and checks that it is noticed and its evidence kept."""

    def crash(pieces=CRASH):
        # Overwrites the instruction pointer: a crash that needs no help from the guest, which
        # drivers of 2007 do not give (`xm sysrq DOM B` came later).
        place.dom0.run(
            f"/usr/lib/xen-*/bin/xen-hvmcrash {place.domain.domid}",
            lab.deadline("command"),
            check=True,
        )

        def noticed():
            report = guest.crash.check(lab.deadline("crash"))
            if report is None:
                raise NotYet("the monitor sees no crash")
            return report

        report = wait_for("the crash to be noticed", noticed, lab.deadline("boot"), interval=1.0)
        request.node.stash[SOURCES].guest_lost = True
        # As after any crash: a processor that spins in a dead guest slows who collects.
        place.toolstack.pause(place.domain, lab.deadline("command"))
        evidence.collect(lab.deadline("evidence"), pieces)
        guest.crash.retire()
        return report

    return crash


NO_CORE = CRASH - {PieceName.CORE}
"""The dump of a core takes minutes where the processor is emulated; one test of it is enough."""


def is_complete(pieces, report, evidence, place, lab):
    """The crash was noticed, what shows it was kept, and dom0 lives on."""
    if not report.evidence:
        raise LabBroken("the crash was noticed without any evidence")
    kept = {piece.name.split("/")[0]: piece for piece in evidence.manifest.pieces}
    missing = [name for name in pieces if name not in kept or not kept[name].bytes]
    if missing:
        raise LabBroken(f"after a crash these were not kept: {', '.join(missing)}")
    # The host lives on: another's crash is none of its business.
    place.check(lab.deadline("command"))


@pytest.mark.slow
@pytest.mark.claim("a crash is noticed, and its evidence is complete", OUTSIDE)
@pytest.mark.cost(attach=1, dom0=10, command=8, crash=1, dump=1, mib=2)
def test_crash_under_io_is_seen(
    installed_driver, disk_on, place, guest, lab, evidence, crash_guest
):
    device = disk_on(sectors=4 * MIB)
    job = device.start(0, 1024, threads=2, order="random")
    job.wait_busy(lab.deadline("boot"))
    known = job.generations(lab.deadline("command"))
    report = crash_guest()
    assert report.kind in (CrashKind.SERIAL, CrashKind.STOPPED, CrashKind.SILENT)
    is_complete(CRASH, report, evidence, place, lab)
    generations, strange = device.backing.written(0, 1024, lab.deadline("boot"))
    assert not strange, f"after a crash there are sectors that nobody wrote: {strange}"
    assert min(generations) >= known


@pytest.mark.slow
@pytest.mark.claim("a crash is noticed, and its evidence is complete", OUTSIDE)
@pytest.mark.cost(attach=1, dom0=16, crash=1)
def test_crash_during_attach_is_seen(
    installed_driver, backings, place, lab, evidence, crash_guest
):  # fmt: skip
    spec = BlockSpec.parse(backings.exact(8192, lab.deadline("command")).spec, "/dev/hdc")
    attach = place.toolstack.command(*place.toolstack.block_attach_words(place.domain, spec))
    place.dom0.run(f"{attach} >/tmp/attach.log 2>&1 </dev/null &", lab.deadline("command"))
    is_complete(NO_CORE, crash_guest(NO_CORE), evidence, place, lab)


@pytest.mark.slow
@pytest.mark.claim("a crash is noticed, and its evidence is complete", OUTSIDE)
@pytest.mark.claim("save/restore, races and deadlocks", HISTORY)
@pytest.mark.cost(attach=1, dom0=16, command=6, save=1, restore=1, crash=1)
def test_crash_after_resume_is_seen(
    installed_driver, disk_on, place, lab, evidence, crash_guest
):  # fmt: skip
    device = disk_on(sectors=4 * MIB)
    device.write(0, 512, flush=True).require("writing")
    lifecycle.save(place, lab.deadline("boot"))
    lifecycle.restore(place, lab.deadline("boot"))
    is_complete(NO_CORE, crash_guest(NO_CORE), evidence, place, lab)
    device.check_in_dom0("it was written before the guest was saved", 0, 512)
