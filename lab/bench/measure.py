"""The measurements, each on real machines, in pairs where two things are compared."""

from __future__ import annotations

import itertools
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import winrm

from lab.bench.figure import Figure, ratio
from lab.core.deadline import Deadline
from lab.drivers.package import DriverPackage
from lab.place.place import Place
from lab.place.stage import StageStore
from lab.place.warm import Kitchen, Template
from lab.xen import vbd
from lab.xen.blockspec import BlockSpec

#: What is run in the guest and in dom0 where only the way there is measured.
GUEST_COMMAND = "ver"
DOM0_COMMAND = "true"
VDEV = "/dev/hdc"

Say = Callable[[str], None]


class Bench:
    """One run of all measurements.

    Args:
        kitchen: images and accelerator.
        driver: package folder of a driver whose disks are attached.
        scratch: folder for machines' files.
        rounds: how often each quick step is measured.
        say: told in lines what happens.
    """

    def __init__(
        self, kitchen: Kitchen, driver: Path, scratch: Path, *, rounds: int, say: Say
    ) -> None:
        self._kitchen = kitchen
        self._driver = driver
        self._scratch = scratch
        self._rounds = rounds
        self._say = say
        self._count = itertools.count(1)
        self._deadlines = kitchen.profile.deadlines.under(kitchen.accel.name)

    def run(self) -> Iterator[Figure]:
        """Measure everything; figures come as they are known."""
        self._say("cold boot of host and guest")
        cold = self._kitchen.baker().cold_boot(self._folder())
        yield Figure(
            name="cold boot to dom0 SSH", unit="s", samples=(cold["dom0_ssh"],), target=30.0
        )
        cold_guest = cold["guest_winrm"]
        yield Figure(name="cold boot to guest WinRM", unit="s", samples=(cold_guest,))

        self._say("baking a template from nothing")
        started = time.monotonic()
        template = self._kitchen.template(StageStore(self._folder()))
        yield Figure(name="bake", unit="s", samples=(time.monotonic() - started,))

        self._say(f"{self._rounds} clones, to the first WinRM answer")
        running, answers, added = self._clone_to_winrm(template)
        yield Figure(name="clone to guest running", unit="s", samples=running, target=0.5)
        yield Figure(name="clone to first WinRM answer", unit="s", samples=answers, target=2.0)
        yield ratio(
            "cold boot to WinRM over clone to WinRM",
            (cold_guest,),
            answers,
            target=50.0,
            at_least=True,
        )
        yield Figure(
            name="memory a clone adds",
            unit="MiB",
            samples=added,
            note="private pages of its process after the first WinRM answer",
        )

        self._say(f"{self._rounds} clones, to the first dom0 command")
        yield Figure(
            name="clone to first dom0 command",
            unit="s",
            samples=self._clone_to_dom0(template),
            target=3.0,
        )

        with self._place(template) as place:
            self._say("WinRM commands, in pairs")
            channel, session = self._commands(place)
            yield Figure(name="WinRM command, lab channel", unit="s", samples=channel)
            yield Figure(name="WinRM command, pywinrm Session", unit="s", samples=session)
            yield ratio("Session over channel", session, channel, target=2.0, at_least=True)
            self._say("attaches, in pairs")
            raw, lab = self._attaches(place)
            yield Figure(
                name="attach, raw xl",
                unit="s",
                samples=raw,
                note="until the toolstack returns, over the same connection",
            )
            yield Figure(
                name="attach, lab", unit="s", samples=lab, note="until both ends are Connected"
            )
            yield ratio("lab attach over raw", lab, raw, target=1.1)

    # -- steps --------------------------------------------------------------------------

    def _clone_to_winrm(
        self, template: Template
    ) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
        running, answers, added = [], [], []
        for _ in range(self._rounds):
            started = time.monotonic()
            with self._place(template) as place:
                running.append(time.monotonic() - started)
                place.guest.channel.run(GUEST_COMMAND, Deadline(self._deadlines.command))
                answers.append(time.monotonic() - started)
                added.append(private_mib(place.machine.pid))
        return tuple(running), tuple(answers), tuple(added)

    def _clone_to_dom0(self, template: Template) -> tuple[float, ...]:
        samples = []
        for _ in range(self._rounds):
            started = time.monotonic()
            with self._place(template) as place:
                place.dom0.run(DOM0_COMMAND, Deadline(self._deadlines.command), check=True)
                samples.append(time.monotonic() - started)
        return tuple(samples)

    def _commands(self, place: Place) -> tuple[tuple[float, ...], tuple[float, ...]]:
        channel = place.guest.channel
        access = place.access
        session = winrm.Session(
            f"http://127.0.0.1:{place.machine.ports['winrm']}/wsman",
            auth=(access.username, access.password),
            transport="basic",
        )
        # One of each first: both keep their connection from then on.
        channel.run(GUEST_COMMAND, Deadline(self._deadlines.command))
        session.run_cmd(GUEST_COMMAND)
        own, theirs = [], []
        for _ in range(4 * self._rounds):
            own.append(
                _timed(lambda: channel.run(GUEST_COMMAND, Deadline(self._deadlines.command)))
            )
            theirs.append(_timed(lambda: session.run_cmd(GUEST_COMMAND)))
        return tuple(own), tuple(theirs)

    def _attaches(self, place: Place) -> tuple[tuple[float, ...], tuple[float, ...]]:
        package = DriverPackage.load(self._driver, self._folder())
        place.guest.drivers.install(package, Deadline(4 * self._deadlines.command))
        volume = place.vg.create("bench", 32, Deadline(self._deadlines.command))
        spec = BlockSpec.parse(f"phy:{volume.path}", VDEV, "w")
        raw, lab = [], []
        for _ in range(self._rounds):
            raw.append(_timed(lambda: self._attach_raw(place, spec)))
            self._detach(place, spec)
            lab.append(_timed(lambda: self._attach_lab(place, spec)))
            self._detach(place, spec)
        return tuple(raw), tuple(lab)

    def _attach_raw(self, place: Place, spec: BlockSpec) -> None:
        words = place.toolstack.block_attach_words(place.domain, spec)
        deadline = Deadline(self._deadlines.attach)
        place.dom0.run(place.toolstack.command(*words), deadline, check=True)

    def _attach_lab(self, place: Place, spec: BlockSpec) -> None:
        deadline = Deadline(self._deadlines.attach)
        vbd.attach(place.toolstack, place.xenstore, place.domain, spec, deadline)

    def _detach(self, place: Place, spec: BlockSpec) -> None:
        deadline = Deadline(self._deadlines.attach)
        vbd.detach(place.toolstack, place.xenstore, place.domain, spec.devid, deadline)

    # -- places -------------------------------------------------------------------------

    @contextmanager
    def _place(self, template: Template) -> Iterator[Place]:
        with template.clone(self._folder(), Deadline(self._deadlines.boot)) as place:
            yield place

    def _folder(self) -> Path:
        folder = self._scratch / str(next(self._count))
        folder.mkdir()
        return folder


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """A folder that goes with the run."""
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=parent) as folder:
        yield Path(folder)


def private_mib(pid: int) -> float:
    """Memory that belongs to one process alone, in MiB (proc(5), ``smaps_rollup``)."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(kb) for kb in re.findall(r"^Private_\w+:\s+(\d+) kB", text, re.M)) / 1024


def _timed(action: Callable[[], object]) -> float:
    started = time.monotonic()
    action()
    return time.monotonic() - started
