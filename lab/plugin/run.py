"""One run of the lab inside a pytest session: its folder, its record, its verdict.

Exists only in a session in which some test uses the lab; see ``start``.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from _pytest.outcomes import Exit

from lab.core.atomic import atomic_write
from lab.core.errors import ExitCode, LabBroken, PvlabError, UsageError
from lab.gate.verdict import verdict
from lab.place.standin import asked_for, guest_label
from lab.plugin import recorder
from lab.plugin.options import Settings
from lab.plugin.turns import by_id, read_plan
from lab.plugin.workplace import Workplace
from lab.results import facts
from lab.results.folder import create_run_folder
from lab.results.junit import suite_properties
from lab.results.record import (
    JUNIT_NAME,
    REPORT_NAME,
    Accelerator,
    Image,
    KnownIssue,
    Outcome,
    RunRecord,
    TestRecord,
)
from lab.results.report import write_report
from lab.results.writer import RunWriter

if TYPE_CHECKING:
    from lab.drivers.package import DriverPackage
    from lab.place.warm import Template
    from lab.suite.errata import Erratum


class Run(Workplace):
    """A session's run, which keeps the record; registered as a plugin of the session.

    Args:
        config: of the session.
        driver_wanted: whether a collected test uses the driver under test.
        tests: the tests that use the lab, by id.
        workers: processes that run them.

    Attributes:
        interrupted: whether somebody did, whatever became of pytest's own note of it.

    Raises:
        UsageError: the profile, the driver package or its errata are unusable, or the results
            folder cannot be written.
        LabBroken: the stand-in's own driver is needed and cannot be built.
    """

    def __init__(
        self,
        config: pytest.Config,
        *,
        driver_wanted: bool,
        tests: Sequence[str] = (),
        workers: int = 1,
    ) -> None:
        super().__init__(config, _folder)
        self._writer: RunWriter | None = None
        self._turns = by_id(read_plan(config))
        known: tuple[tuple[str, Erratum], ...] = ()
        if driver_wanted:
            turns = [self._turns[test] for test in tests if test in self._turns]
            mine = [turn.test for turn in turns if turn.driver == "new"] if turns else tests
            try:
                known = self.errata.naming(dict.fromkeys(mine))
                self.baseline  # noqa: B018 - refused before anything runs, if it is unusable
            except PvlabError:
                # Nothing ran, so nothing stays: neither a folder nor a record.
                self.folder.rmdir()
                self.close()
                raise
        self._writer = self.writer = RunWriter(
            self.folder,
            self._first_record().model_copy(
                update={"errata": _errata(known), "workers": workers},
            ),
        )
        if self._driver is not None:
            self.writer.keep(self._driver)
        self.interrupted = False
        self._seconds: dict[str, float] = {}
        self._running: set[str] = set()
        self._tests = frozenset(tests)

    @property
    def report(self) -> Path:
        """The run's report for people."""
        return self.folder / REPORT_NAME

    @property
    def junit(self) -> Path:
        """The run's JUnit file, unless the user named another."""
        return self.folder / JUNIT_NAME

    @property
    def record(self) -> RunRecord:
        """The run's record so far."""
        return self.writer.record

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Note which tests are running, for the case that they never end."""
        if nodeid in self._tests:
            self._running.add(nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Record one phase of a test that uses the lab."""
        if recorder.worker_died(report):
            self._put(recorder.orphan(report, self._seconds.get(report.nodeid, 0.0)))
        if not (found := recorder.findings(report)):
            return
        nodeid = report.nodeid
        seconds = max(0.0, report.duration - found.get("preparation", 0.0))
        self._seconds[nodeid] = self._seconds.get(nodeid, 0.0) + seconds
        if report.when == "teardown":
            self._running.discard(nodeid)
        old = next((test for test in self.record.tests if test.id == nodeid), None)
        if old is None and report.when == "setup" and report.passed:
            return
        self._put(recorder.merge(old, report, self._seconds[nodeid]))

    @pytest.hookimpl(tryfirst=True)
    def pytest_keyboard_interrupt(
        self, excinfo: pytest.ExceptionInfo[KeyboardInterrupt | Exit]
    ) -> None:
        """Note an interrupt before others say where it came."""
        self.interrupted = isinstance(excinfo.value, KeyboardInterrupt)

    def finish(self, exit_status: int) -> None:
        """End the record and write the report.

        Args:
            exit_status: pytest's.
        """
        known = {test.id for test in self.record.tests}
        for nodeid in sorted(self._running - known):
            self._put(recorder.interrupted(nodeid, self._seconds.get(nodeid, 0.0)))
        ended_how = recorder.ended(exit_status)
        final = self.record.model_copy(update={"ended_how": ended_how})
        self.writer.finish(verdict(final), ended_how)
        write_report(self.record, self.folder)

    def exit_code(self, exit_status: int) -> int:
        """The session's exit status, given the one that pytest would have.

        An interrupt or an internal error stays what it is. A lab that could not judge the
        driver is told apart from a driver that failed.
        """
        if exit_status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            return exit_status
        if self.lab.exit_code is ExitCode.USAGE:
            return pytest.ExitCode.USAGE_ERROR
        judged = self.record.verdict.exit_code if self.record.verdict else ExitCode.LAB_BROKEN
        return max(int(exit_status), int(judged))

    def suite_properties(self) -> dict[str, str]:
        """What the JUnit file says of the run."""
        return suite_properties(self.record)

    def loaded(self, driver: DriverPackage) -> None:
        """Record and keep what is tested, if the record was begun without it."""
        if self._writer is not None:
            self._writer.update(driver=facts.driver(driver))
            self._writer.keep(driver)

    def prepared(self, template: Template) -> None:
        """Record what the tests run on."""
        accel = template.accel
        self.writer.update(
            accelerator=Accelerator(
                name=accel.name,
                emulator=str(accel.emulator),
                emulator_version=accel.emulator_version,
                why=accel.why,
            ),
            images={
                name: Image(key=image.key, versions=image.manifest.versions)
                for name, image in template.images.items()
            },
            versions={**self.record.versions, **template.versions},
            guest_label=guest_label(self.profile, accel.guest_type),
        )
        self._keep_identity(template)

    def unprepared(self, error: PvlabError) -> None:
        """Record that there was nothing to run tests on."""
        self._put(
            TestRecord(
                id="template",
                outcome=Outcome.ERROR,
                blame=error.blame,
                phase="setup",
                seconds=0.0,
                message=error.message,
            )
        )

    def _put(self, test: TestRecord) -> None:
        turn = self._turns.get(test.id)
        try:
            self.writer.put(test.model_copy(update={"turn": turn}) if turn else test)
        except LabBroken as error:
            # Without a record there is no verdict: going on would waste everybody's time.
            pytest.exit(f"pvlab: {error}", returncode=int(ExitCode.LAB_BROKEN))

    def _keep_identity(self, template: Template) -> None:
        """What the toolstack and the guest itself say the guest is, for whoever doubts it."""
        identity = template.identity
        (self.folder / "guest").mkdir(exist_ok=True)
        atomic_write(
            self.folder / "guest" / "domain.json",
            json.dumps(identity["domain"], indent=2).encode() + b"\n",
        )
        atomic_write(self.folder / "guest" / "systeminfo.txt", str(identity["guest"]).encode())

    def _first_record(self) -> RunRecord:
        return RunRecord(
            run_id=self.folder.name,
            started=datetime.now(UTC),
            command=shlex.join(["pytest", *map(str, self.config.invocation_params.args)]),
            profile=self.profile.name,
            guest_label=guest_label(self.profile, asked_for(self.settings.accel) or "hvm"),
            host=facts.host(),
            intensity=self.settings.intensity.value,
            driver=facts.driver(self._driver) if self._driver else None,
            baseline=facts.driver(self._baseline) if self._baseline else None,
            versions=facts.versions(),
        )


def _folder(settings: Settings) -> Path:
    if settings.run_id is None:
        return create_run_folder(settings.results)
    folder = settings.results / settings.run_id
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise UsageError(f"{folder}: a run of that name is there already") from None
    except OSError as error:
        raise UsageError(f"{folder}: cannot be made: {error.strerror}") from None
    return folder


def _errata(known: Iterable[tuple[str, Erratum]]) -> tuple[KnownIssue, ...]:
    return tuple(
        KnownIssue(test=test, why=erratum.why, source=erratum.source, until=erratum.until)
        for test, erratum in known
    )
