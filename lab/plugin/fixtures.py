"""The fixtures that tests of a driver use.

Scopes are deliberate. What a session shares is read-only: the profile, the warm template, the
unpacked driver package. What a test can change is made anew for it: every test gets a clone of
the template as a process of its own, so no test meets what another one left.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from lab.plugin.keys import COLLECTOR, PLACE, active_workplace, wants_installed
from lab.suite.intensity import Intensity
from lab.suite.jitter import Jitter

if TYPE_CHECKING:
    from testinfra.host import Host  # type: ignore[import-untyped]

    from lab.drivers.package import DriverPackage
    from lab.evidence.collector import Collector
    from lab.guest.dbgview import DbgView
    from lab.guest.driverstore import InstallResult
    from lab.guest.guest import Guest
    from lab.place.place import Place
    from lab.plugin.session import Lab
    from lab.plugin.workplace import Workplace
    from lab.suite.devices import BlockDevices
    from lab.xen.dom0 import Dom0
    from lab.xen.storage import VolumeGroup
    from lab.xen.toolstack import Toolstack
    from lab.xen.xenstore import Xenstore


@dataclass(frozen=True, slots=True)
class XenHost:
    """The Xen side of a test's place.

    Attributes:
        dom0: commands and files in dom0.
        toolstack: ``xl`` or ``xm``, whichever the profile has.
        xenstore: the store, for looking and for what the toolstack cannot do.
        vg: the volume group that virtual disks come from.
    """

    dom0: Dom0
    toolstack: Toolstack
    xenstore: Xenstore
    vg: VolumeGroup

    @property
    def testinfra(self) -> Host:
        """dom0 as a testinfra host, over the same connection."""
        return self.dom0.testinfra


@pytest.fixture(scope="session")
def pvlab_run(pytestconfig: pytest.Config) -> Workplace:
    """Where this process runs its tests: the run's folder, the driver, the lab.

    Session scope. Every other fixture depends on it, and a session in which no test does is
    left alone by this plugin.
    """
    return active_workplace(pytestconfig)


@pytest.fixture(scope="session")
def lab(pvlab_run: Workplace) -> Lab:
    """The lab of this session: profile, deadlines, warm template.

    Session scope: the template is baked or found once, for the first test that needs it. If
    that fails, that test errs with the cause and all later ones are skipped with it.
    """
    return pvlab_run.lab


@pytest.fixture(scope="session")
def intensity(pvlab_run: Workplace, lab: Lab) -> Intensity:
    """How much to do: ``intensity.count(standard=25, smoke=3, soak=200, tcg=8)``.

    Session scope. It knows the accelerator, so that emulation may have a count of its own; the
    marker ``cost`` takes the same ``Count``.
    """
    return Intensity(pvlab_run.settings.intensity, lab.template.accel.name)


@pytest.fixture
def jitter(request: pytest.FixtureRequest, pvlab_run: Workplace) -> Jitter:
    """Seeded waits: ``jitter.point("before attach")``; also orders and choices.

    Function scope: an attempt of a race has its own seed. In other tests the seed is 1, or
    that of ``--pvlab-seed``. Each wait is among the test's timings.
    """
    from lab.plugin.recording import seed_of

    item = request.node
    waits = itertools.count(1)

    def note(name: str, seconds: float) -> None:
        place = item.stash.get(PLACE, None)
        if place is not None:
            place.timings[f"jitter_{next(waits)} {name}"] = seconds

    return Jitter(seed_of(item), note)


@pytest.fixture
def place(request: pytest.FixtureRequest, pvlab_run: Workplace, lab: Lab) -> Iterator[Place]:
    """A clone of the template of this test's own: Xen, dom0, and a live guest.

    Function scope, always: cloning takes less than a second, and a crash stays in its test.
    For tests with ``installed_driver``, the guest has the driver in it already.
    What the test does with it is recorded, and kept with its evidence as ``scenario.yaml``.
    """
    from lab.plugin.recording import recording

    item = request.node
    clone = lab.clone(pvlab_run.package_for(item) if wants_installed(item) else None)
    try:
        pvlab_run.adopt(request.node, clone)
        with recording(request.node, installed=clone.installed is not None):
            yield clone
    finally:
        pvlab_run.release(request.node)
        lab.discard(clone)


@pytest.fixture
def xen_host(place: Place) -> XenHost:
    """dom0 and its toolstack, xenstore and volume group, in this test's clone."""
    return XenHost(place.dom0, place.toolstack, place.xenstore, place.vg)


@pytest.fixture
def guest(place: Place) -> Guest:
    """The live guest in this test's clone, with no driver under test in it yet."""
    return place.guest


@pytest.fixture
def driver_package(request: pytest.FixtureRequest, pvlab_run: Workplace) -> DriverPackage:
    """The driver package under test, unpacked and checked.

    Function scope, as a session may run a test on two drivers by turns. It is read-only, and was
    refused before the first test if it is unusable.
    """
    return pvlab_run.package_for(request.node)


@pytest.fixture
def dbgview(place: Place, guest: Guest, lab: Lab) -> DbgView:
    """DbgView, logging what drivers print in the guest.

    Function scope. Drivers are installed after it is running, so that their first words are
    kept. Its log goes into the evidence by itself.
    """
    if place.installed is None:
        guest.dbgview.start(lab.deadline("command"))
    return guest.dbgview


@pytest.fixture
def installed_driver(
    place: Place, guest: Guest, dbgview: DbgView, driver_package: DriverPackage, lab: Lab
) -> InstallResult:
    """The driver under test, installed in this test's clone.

    Function scope. It was installed once, in the state that the clone was made from; with the
    marker ``fresh_install``, or where that state could not be made, it is installed in the clone
    itself. A package that does not install, or crashes the guest while it does, is the driver's
    failure.
    """
    if place.installed is not None:
        return place.installed
    deadline = lab.deadline("boot")
    with guest.crash.guard(f"the installation of {driver_package.name}", deadline):
        result = guest.drivers.install(driver_package, deadline)
    place.timings["install"] = deadline.elapsed
    return result


@pytest.fixture
def block_device(place: Place, lab: Lab) -> BlockDevices:
    """Makes disks: ``block_device(size_mib)`` creates a volume and attaches it to the guest.

    Function scope; nothing is detached afterwards, for the clone is thrown away whole.
    """
    # Imported late: sessions without the lab must not pay for its libraries.
    from lab.suite.devices import BlockDevices

    return BlockDevices(place, lab)


@pytest.fixture
def replay(
    place: Place, lab: Lab, installed_driver: InstallResult, driver_package: DriverPackage
) -> Callable[[str], None]:
    """Runs a scenario's YAML: ``replay(text)``; it fails as the scenario does.

    Function scope. Tests that ``pvlab repro`` makes use it.
    """
    # Imported late, as for ``block_device``.
    from lab.scenario.run import Runner
    from lab.scenario.text import loads

    def replay(text: str) -> None:
        scenario = loads(text)
        Runner(
            place,
            installed=installed_driver,
            package=driver_package,
            seed=scenario.seed,
            lab=lab,
        ).run(scenario)

    return replay


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str, float], None]:
    """Notes what a test measured: ``figure("sequential reads, ms", 37)``.

    Function scope. Less is better, and 0 or less is no figure: a gate that compares drivers
    compares figures of one name. They are among the test's properties.
    """

    # Imported late, as for ``block_device``.
    from lab.gate.observation import FIGURE

    def note(name: str, value: float) -> None:
        request.node.user_properties.append((f"{FIGURE}{name}", f"{value:.6g}"))

    return note


@pytest.fixture
def bar(request: pytest.FixtureRequest) -> Callable[[str, str, float], None]:
    """Puts a bar into the report's plots: ``bar("random reads, ms", "emulated disk", 37)``.

    Function scope. Bars of one name are drawn together, whatever test they are from.
    """
    # Imported late, as for ``block_device``.
    from lab.results.measured import bar_property

    def draw(group: str, label: str, value: float) -> None:
        request.node.user_properties.append(bar_property(group, label, value))

    return draw


@pytest.fixture
def evidence(request: pytest.FixtureRequest, place: Place) -> Collector:
    """The collector of this test's evidence; ``evidence.add(name, content)`` adds a piece.

    Function scope. What the lab knows to collect is collected without it: a little after a
    test that passed, everything after a failure, a core dump after a crash.
    """
    collector: Collector = request.node.stash[COLLECTOR]
    return collector
