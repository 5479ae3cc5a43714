"""The warm state: host and guest are booted once; every test gets a clone of that moment."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lab import __version__
from lab.config.profile import Profile
from lab.core.deadline import Deadline
from lab.drivers.package import DriverPackage
from lab.guest.driverstore import InstallResult
from lab.images.progress import Silent
from lab.images.store import BuiltImage, Store
from lab.place import pace
from lab.place.bake import Baker, baked_domain
from lab.place.equip import Install, equipped_or_not
from lab.place.place import Access, Place
from lab.place.stage import Stage, StageStore
from lab.place.standin import guest_image
from lab.qemu.accel import AccelChoice, Ladder
from lab.qemu.machine import Machine, MachineSpec

Say = Callable[[str], None]


class _ImageLines(Silent):
    """Image builds as plain progress lines."""

    def __init__(self, say: Say) -> None:
        self._say = say

    def started(self, image: str, minutes: float) -> None:
        self._say(f"image {image}: building, about {minutes:g} min")

    def waiting(self, image: str, reason: str) -> None:
        self._say(f"image {image}: waiting: {reason}")

    def step(self, image: str, text: str) -> None:
        self._say(f"image {image}: {text}")

    def finished(self, image: str, seconds: float) -> None:
        self._say(f"image {image}: built in {seconds:.0f} s")


@dataclass(frozen=True)
class Template:
    """A warm state, ready to be cloned.

    Attributes:
        key: hash of images, accelerator, QEMU, lab and sizes.
        profile: the profile it was made for.
        accel: the rung it runs on.
        images: host and guest image by name.
        versions: QEMU's and Xen's versions, and the lab's; which toolstack dom0 has.
        stage: the frozen state.
        spec: the machine that made it.
        access: how to get into a clone.
        bake_seconds: how long each part of making it took when it was made.
        spec_in: the machine of ``spec`` with its files in another folder.
        installed: what the installation of a driver said that is part of the state.
    """

    key: str
    profile: Profile
    accel: AccelChoice
    images: Mapping[str, BuiltImage]
    versions: Mapping[str, str]
    stage: Stage
    spec: MachineSpec
    access: Access
    bake_seconds: Mapping[str, float]
    spec_in: Callable[[Path], MachineSpec]
    installed: InstallResult | None = None

    @property
    def identity(self) -> Mapping[str, object]:
        """What host and guest say of the guest: ``domain``, the toolstack's configuration of
        it, and ``guest``, the guest's own word."""
        found = self.stage.facts["identity"]
        assert isinstance(found, dict)  # noqa: S101 - written by Baker
        return found

    @property
    def folder(self) -> Path:
        """Where the frozen state is."""
        return self.stage.folder

    def clone(
        self, scratch: Path, deadline: Deadline, *, name: str = "", detached: bool = False
    ) -> Place:
        """Start a new process from the warm state.

        Args:
            scratch: an existing, empty folder for the place.
            deadline: for the machine to run.
            name: for messages; the scratch folder's name when empty.
            detached: the machine is to outlive this process.

        Raises:
            LabBroken: QEMU did not start or refused the state.
            DeadlineExpired: it was not running in time.
        """
        name = name or f"clone {scratch.name}"
        started = time.monotonic()
        machine = Machine(self.spec.cloned(name, self.stage.ram), scratch, detached=detached)
        # A clone's console goes on where the template's was.
        shutil.copy(self.stage.console, machine.serial_log)
        machine.start_from(self.stage.state, deadline)
        timings = {"clone_running": time.monotonic() - started}
        return Place(
            name,
            self.profile,
            self.profile.deadlines.under(self.accel.name),
            machine,
            self.access,
            baked_domain(self.stage),
            int(str(self.stage.facts["serial_bytes"])),
            timings,
            installed=self.installed,
            owned=not detached,
        )

    def pace(self, scratch: Path, deadline: Deadline) -> float:
        """How many times as long as on the reference machine things take on this one; at
        least 1. It is measured, in a clone that is gone when this returns.

        Args:
            scratch: an existing, empty folder for the clone.
            deadline: for all of it.

        Raises:
            PvlabError: no clone, or its dom0 failed.
        """
        with self.clone(scratch, deadline) as place:
            place.connect(deadline)
            return pace.pace(pace.measure(place.dom0, deadline), self.accel.name)

    def with_driver(
        self, package: DriverPackage, say: Say, install: Install | None = None
    ) -> Template:
        """The same with a driver installed, or as it is: see ``equipped_or_not``."""
        return equipped_or_not(self, package, say, install=install)


def prepare(profile: Profile, *, accel: str | None = None, progress: Say) -> Template:
    """Everything up to a state that can be cloned: images, accelerator, bake.

    Args:
        profile: what to prepare.
        accel: a rung of the accelerator ladder; probed when None.
        progress: told in lines what happens.

    Raises:
        UsageError: the profile or the accelerator cannot be used.
        LabBroken: an image cannot be built, or host or guest did not start.
    """
    return Kitchen.open(profile, accel=accel, progress=progress).template()


@dataclass(frozen=True)
class Kitchen:
    """Images and accelerator chosen: all that baking needs.

    Attributes:
        profile: what is prepared.
        accel: the rung.
        host: the host image.
        guest: the guest image.
        progress: told in lines what happens.
    """

    profile: Profile
    accel: AccelChoice
    host: BuiltImage
    guest: BuiltImage
    progress: Say

    @classmethod
    def open(cls, profile: Profile, *, accel: str | None, progress: Say) -> Kitchen:
        """Choose the rung and build the images; arguments and errors are ``prepare``'s."""
        store = Store()
        lines = _ImageLines(progress)
        chosen = Ladder(store, lines).choose(accel)
        progress(f"accelerator: {chosen.line}")
        host = store.ensure(profile.host_image, lines)
        guest = store.ensure(guest_image(profile, chosen.guest_type, chosen.name), lines)
        return cls(profile, chosen, host, guest, progress)

    def baker(self, stages: StageStore | None = None) -> Baker:
        """A baker for these images; into the cache when ``stages`` is None."""
        return Baker(self.profile, self.accel, self.host, self.guest, self.progress, stages=stages)

    def template(self, stages: StageStore | None = None) -> Template:
        """The template; baked now unless it is there."""
        baker = self.baker(stages)
        stage = baker.stage()
        return Template(
            key=stage.key,
            profile=self.profile,
            accel=self.accel,
            images={image.name: image for image in (self.host, self.guest)},
            versions={
                "pvlab": __version__,
                "qemu": self.accel.emulator_version,
                "toolstack": baker.toolstack,
                **baker.recorded(stage, "versions"),
            },
            stage=stage,
            spec=baker.spec(stage.folder),
            access=baker.access(),
            bake_seconds={k: float(v) for k, v in baker.recorded(stage, "seconds").items()},
            spec_in=baker.spec,
        )
