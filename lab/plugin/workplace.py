"""Where a process runs tests that use the lab: its profile, its driver, its places.

A session without workers has one, which is its run; of a distributed session, every worker
has one of its own, and the run is the controller's.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab.config.load import load_profile
from lab.core.errors import LabBroken, UsageError
from lab.core.paths import runtime_dir
from lab.core.scratch import Scratch
from lab.drivers.package import DriverPackage
from lab.evidence.collector import Collector
from lab.images.store import Store
from lab.place.standin import check_driver, drivers_image
from lab.plugin.keys import COLLECTOR, PLACE, SOURCES
from lab.plugin.options import Settings, settings
from lab.plugin.session import Lab
from lab.plugin.sources import PlaceSources
from lab.plugin.telling import say_past_capture
from lab.plugin.turns import on_baseline
from lab.suite.errata import Errata, errata_of

if TYPE_CHECKING:
    from lab.config.profile import Profile
    from lab.place.place import Place
    from lab.place.warm import Template


class Workplace:
    """The lab as one process has it.

    Args:
        config: of the session.
        folder: gives the run's folder, for evidence; called when the profile is known to be
            usable.

    Raises:
        UsageError: the profile is unusable, or the folder is.
    """

    def __init__(self, config: pytest.Config, folder: Callable[[Settings], Path]) -> None:
        self.config = config
        self.settings = settings(config)
        self.profile: Profile = load_profile(self.settings.profile, self.settings.config)
        self.folder = folder(self.settings)
        self._scratch = _scratch()
        self._driver: DriverPackage | None = None
        self._baseline: DriverPackage | None = None
        self._errata: dict[str, Errata] = {}
        self.lab = Lab(self.profile, self._prepare, self._scratch.path, self.progress)

    @property
    def driver_package(self) -> DriverPackage:
        """The package under test.

        Raises:
            UsageError: there is none, or it is unusable.
            LabBroken: the stand-in's own driver is needed and cannot be built.
        """
        if self._driver is None:
            self._driver = self._load_driver()
            self.loaded(self._driver)
        return self._driver

    @property
    def baseline(self) -> DriverPackage | None:
        """The package that it is compared with, if there is one.

        Raises:
            UsageError: it is unusable.
        """
        if self._baseline is None and self.settings.baseline is not None:
            scratch = self._scratch.path / "baseline"
            self._baseline = DriverPackage.load(self.settings.baseline, scratch)
        return self._baseline

    def package_for(self, item: pytest.Item) -> DriverPackage:
        """The package that a test is to run on.

        Raises:
            PvlabError: as ``driver_package`` and ``baseline``.
        """
        baseline = self.baseline if on_baseline(item) else None
        return baseline or self.driver_package

    @property
    def errata(self) -> Errata:
        """What is known about the driver under test.

        Raises:
            PvlabError: an errata file is malformed, or as ``driver_package``.
        """
        return self._errata_of(self.driver_package)

    def errata_for(self, item: pytest.Item) -> Errata:
        """What is known about the driver that a test is to run on.

        Raises:
            PvlabError: an errata file is malformed, or as ``package_for``.
        """
        return self._errata_of(self.package_for(item))

    def adopt(self, item: pytest.Item, place: Place) -> None:
        """Make a place known as a test's, so that its evidence can be had."""
        item.stash[PLACE] = place
        item.stash[SOURCES] = sources = PlaceSources(place)
        item.stash[COLLECTOR] = Collector(
            sources,
            self.folder,
            item.nodeid,
            factor=self.lab.factor,
        )

    def release(self, item: pytest.Item) -> None:
        """Forget a test's place, which is about to be closed."""
        if PLACE in item.stash:
            del item.stash[PLACE]
        if COLLECTOR in item.stash:
            del item.stash[COLLECTOR]

    def close(self) -> None:
        """Remove what was needed only while tests ran."""
        self._scratch.close()

    def progress(self, line: str) -> None:
        """Show one line to whoever waits, past pytest's capture."""
        say_past_capture(self.config, f"pvlab: {line}")

    def loaded(self, driver: DriverPackage) -> None:
        """The driver package is there."""

    def prepared(self, template: Template) -> None:
        """The template is there."""

    def _prepare(self) -> Template:
        template: Template | None = self.config.hook.pytest_pvlab_prepare(
            profile=self.profile, accel=self.settings.accel, progress=self.progress
        )
        if template is None:
            raise LabBroken("nothing prepared a template")
        for package in (self._driver, self._baseline):
            if package is not None:
                check_driver(self.profile, package, template.accel.guest_type)
        self.prepared(template)
        return template

    def _errata_of(self, package: DriverPackage) -> Errata:
        if package.identity not in self._errata:
            self._errata[package.identity] = errata_of(package, self.settings.errata)
        return self._errata[package.identity]

    def _load_driver(self) -> DriverPackage:
        path = self.settings.driver or self.profile.driver
        if path is None and self.profile.own_drivers:
            # The stand-in comes with drivers, so that a checkout can be tried as it is.
            image = drivers_image(self.settings.accel)
            self.progress(f"no driver was named: the stand-in's own, {image}/good")
            path = Store().ensure(image).path / "good"
        if path is None:
            raise UsageError(
                "no driver package to test", hint="name one: --pvlab-driver PATH, or PVLAB_DRIVER"
            )
        return DriverPackage.load(path, self._scratch.path / "driver")


def _scratch() -> Scratch:
    """A folder that ends with the session.

    Sockets go into it, so its path is short: unix(7) allows them 107 bytes.
    """
    try:
        runtime_dir().mkdir(mode=0o700, parents=True, exist_ok=True)
        return Scratch(runtime_dir(), "run-")
    except OSError as error:
        raise UsageError(
            f"{runtime_dir()}: cannot be written: {error.strerror}",
            hint="PVLAB_RUNTIME names another place",
        ) from None
