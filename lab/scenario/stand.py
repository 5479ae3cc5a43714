"""Where scenarios are run: each in a clone of the warm state, with the driver installed."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lab.config.profile import Profile
from lab.core.errors import LabBroken, PvlabError, UsageError
from lab.core.paths import runtime_dir
from lab.core.scratch import Scratch
from lab.drivers.package import DriverPackage
from lab.place.standin import check_driver
from lab.scenario.model import Scenario
from lab.scenario.outcome import Outcome
from lab.scenario.run import outcome_of, run
from lab.suite import installation
from lab.suite.allowance import Granted

if TYPE_CHECKING:
    from lab.place.place import Place
    from lab.place.warm import Template

Say = Callable[[str], None]


@dataclass
class Stand:
    """Runs scenarios of one driver; several at the same time, if asked in several threads.

    Attributes:
        template: the warm state, with the driver in it if that could be done once for all.
        package: the driver.
        scratch: an existing folder for clones.
    """

    template: Template
    package: DriverPackage
    scratch: Path
    _count: Iterator[int] = field(default_factory=lambda: itertools.count(1), repr=False)

    def attempt(self, scenario: Scenario) -> Outcome:
        """Run a scenario once.

        Raises:
            UsageError: the scenario makes no sense.
            LabBroken: no clone of the warm state could be started.
            Ended: this is an errand that was ended; its machine is gone.
        """
        folder = self.scratch / str(next(self._count))
        folder.mkdir()
        granted = Granted(self.template.profile.deadlines.under(self.template.accel.name))
        try:
            try:
                place = self.template.clone(folder, granted.deadline("boot"))
            except UsageError:
                raise
            except PvlabError as error:
                raise LabBroken(f"no clone of the template: {error.message}") from error
            with place:
                return self._in(place, scenario, granted)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _in(self, place: Place, scenario: Scenario, granted: Granted) -> Outcome:
        guest = place.guest
        if place.installed is not None:
            return run(
                scenario, place, installed=place.installed, package=self.package, lab=granted
            )
        try:
            guest.dbgview.start(granted.deadline("command"))
            deadline = granted.deadline("boot")
            with guest.crash.guard(f"the installation of {self.package.name}", deadline):
                installed = installation.install(place, self.package, deadline)
        except UsageError:
            raise
        except Exception as error:
            return outcome_of(error, place, granted, at="the installation of the driver")
        return run(scenario, place, installed=installed, package=self.package, lab=granted)

    def described(self, scenario: Scenario, **about: str) -> Scenario:
        """The scenario, which says that it was run here."""
        return scenario.described(
            driver=f"{self.package.name} {self.package.version}".strip(),
            driver_sha256=self.package.identity,
            profile=self.template.profile.name,
            accelerator=self.template.accel.name,
            **about,
        )


@contextmanager
def open_stand(profile: Profile, driver: Path, *, accel: str | None, say: Say) -> Iterator[Stand]:
    """A stand for a driver, with everything prepared.

    Args:
        profile: what host and guest are like.
        driver: the package.
        accel: a rung of the accelerator ladder; chosen when None.
        say: told in lines what happens.

    Raises:
        UsageError: the package, the profile or the accelerator cannot be used.
        LabBroken: an image cannot be built, or host or guest did not start.
    """
    # Imported late: it brings QEMU's monitor and the image builders.
    from lab.place.warm import prepare

    try:
        runtime_dir().mkdir(mode=0o700, parents=True, exist_ok=True)
        scratch = Scratch(runtime_dir(), "scenario-")
    except OSError as error:
        raise UsageError(
            f"{runtime_dir()}: cannot be written: {error.strerror}",
            hint="PVLAB_RUNTIME names another place",
        ) from None
    try:
        package = DriverPackage.load(driver, scratch.path / "driver")
        template = prepare(profile, accel=accel, progress=say)
        check_driver(profile, package, template.accel.guest_type)
        yield Stand(template.with_driver(package, say, installation.install), package, scratch.path)
    finally:
        scratch.close()
