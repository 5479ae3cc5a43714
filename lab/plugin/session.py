"""What one pytest session knows of the lab: the fixture ``lab``.

First error wins. The template is prepared once; when that fails, or when two clones in a
row fail, the session is broken: the failure is reported once, by the test that met it, and
every later test is skipped with that one cause.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lab.core.deadline import Deadline
from lab.core.errors import ExitCode, LabBroken, PvlabError
from lab.suite.allowance import Allowance, Granted

if TYPE_CHECKING:
    from lab.config.profile import Deadlines, Profile
    from lab.drivers.package import DriverPackage
    from lab.place.place import Place
    from lab.place.warm import Template

CLONES_IN_A_ROW = 2
"""Clones that may fail one after the other before the template is taken to be broken."""


class Lab:
    """The profile, its warm template, and the clones made from it.

    Args:
        profile: the profile of this session.
        prepare: gives the template; called once, when it is first needed.
        scratch: an existing folder for what clones need while they run.
        say: told in lines what happens.
    """

    def __init__(
        self,
        profile: Profile,
        prepare: Callable[[], Template],
        scratch: Path,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.profile = profile
        self.scratch = scratch
        self._prepare = prepare
        self._say = say
        self._template: Template | None = None
        self._equipped: dict[str, Template] = {}
        self._broken: PvlabError | None = None
        self._preparation = 0.0
        self._pace: float | None = None
        self._misses = 0
        self._clones = 0

    def preparation(self) -> float:
        """Seconds that went into the template since this was last asked: images may have been
        built for it, which is no part of the test that happened to be the first."""
        seconds, self._preparation = self._preparation, 0.0
        return seconds

    @contextlib.contextmanager
    def _preparing(self) -> Iterator[None]:
        """What is done in here is no part of any test's time."""
        started = time.monotonic()
        try:
            yield
        finally:
            self._preparation += time.monotonic() - started

    @property
    def broken(self) -> str:
        """Why no test can run any more, in one line; empty while they can."""
        return str(self._broken) if self._broken else ""

    @property
    def exit_code(self) -> ExitCode:
        """Exit code that the broken session asks for; 0 while it is not broken."""
        return self._broken.exit_code if self._broken else ExitCode.PASS

    @property
    def prepared(self) -> Template | None:
        """The template, if it was prepared already."""
        return self._template

    @property
    def template(self) -> Template:
        """The warm template, prepared on first use.

        Raises:
            PvlabError: the session's first error, again on every later use.
        """
        if self._broken is not None:
            raise self._broken
        if self._template is None:
            try:
                with self._preparing():
                    self._template = self._prepare()
            except PvlabError as error:
                self._broken = error
                raise
            except Exception as error:
                self._broken = LabBroken(
                    f"the template could not be prepared: {type(error).__name__}: {error}"
                )
                raise self._broken from error
        return self._template

    @property
    def deadlines(self) -> Deadlines:
        """The profile's deadlines, in s, as they apply under this session's accelerator."""
        return self.profile.deadlines.under(self.template.accel.name)

    @property
    def factor(self) -> float:
        """What deadlines are multiplied by under this session's accelerator."""
        return self.deadlines.boot / self.profile.deadlines.boot

    def deadline(self, allowance: Allowance) -> Deadline:
        """A new deadline, from now.

        Args:
            allowance: which of the profile's deadlines to spend.
        """
        return Granted(self.deadlines).deadline(allowance)

    def with_driver(self, package: DriverPackage) -> Template:
        """The template with a driver installed, if that can be done once for all its tests.

        Raises:
            PvlabError: there is no template.
        """
        # Imported late: sessions without the lab must not pay for its libraries.
        from lab.suite import installation

        template = self.template
        if package.identity not in self._equipped:
            with self._preparing():
                self._equipped[package.identity] = template.with_driver(
                    package, self._say, installation.install
                )
        return self._equipped[package.identity]

    @property
    def pace(self) -> float:
        """How many times as long as on the reference machine tests take on this one; at least
        1, and 1 before there was a place to measure it in."""
        return 1.0 if self._pace is None else self._pace

    def _measure_pace(self, template: Template) -> None:
        """Once, in a place of its own that is gone before the first test's begins: anew in each
        session, since a machine is not equally busy every time."""
        self._pace = 1.0
        scratch = self.scratch / "pace"
        scratch.mkdir(parents=True)
        try:
            with self._preparing():
                self._pace = template.pace(scratch, self.deadline("boot"))
        except PvlabError as error:
            # Whatever it is, the tests will meet it and tell better.
            self._say(f"how fast this machine is could not be measured: {error}")
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        if self._pace > 1.0:
            self._say(f"tests may take {self._pace:.1f} times as long here as they say")

    def clone(self, package: DriverPackage | None = None) -> Place:
        """A place of its own for one test, with a running guest that answers.

        Args:
            package: the driver under test, which the place has installed if that could be
                done once for all tests; None for a guest without it.

        Raises:
            LabBroken: the clone failed. The next test tries a new one; after
                ``CLONES_IN_A_ROW`` misses in a row the session is broken.
        """
        template = self.template if package is None else self.with_driver(package)
        if self._pace is None:
            self._measure_pace(template)
        self._clones += 1
        scratch = self.scratch / str(self._clones)
        scratch.mkdir(parents=True)
        try:
            place = template.clone(scratch, self.deadline("boot"))
        except Exception as error:
            self._misses += 1
            cause = (
                error
                if isinstance(error, PvlabError)
                else LabBroken(f"unexpected {type(error).__name__}: {error}")
            )
            failure = LabBroken(f"no clone of the template: {cause.message}", hint=cause.hint)
            if self._misses >= CLONES_IN_A_ROW:
                self._broken = failure
            raise failure from error
        self._misses = 0
        return place

    def discard(self, place: Place) -> None:
        """Close a place and remove what it left on the disk."""
        try:
            place.close()
        finally:
            shutil.rmtree(place.scratch, ignore_errors=True)
