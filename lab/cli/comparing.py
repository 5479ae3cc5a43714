"""A gate that follows a policy: run after run, until its engine has seen enough.

Every run is a pytest session like any other, with a plan of turns; between two of them the
engine decides. What is known is written after each, so a gate that was ended can be taken up
again where it was.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from lab.cli.suite import SuiteRequest, driver_suite, run_suite
from lab.cli.tests import collect
from lab.config.load import load_profile
from lab.core.errors import LabBroken, UsageError
from lab.drivers.package import DriverPackage
from lab.gate.document import (
    GateDocument,
    comparison_document,
    load_document,
    write_document,
)
from lab.gate.judging import Kind
from lab.gate.observation import Side
from lab.gate.page import PAGE_NAME, write_page
from lab.gate.policy import Policy
from lab.gate.session import GatedRun, Session
from lab.gate.verify import replay
from lab.mutants.campaign import soonest_first
from lab.plugin.turns import write_plan
from lab.results import facts
from lab.results.folder import new_run_id
from lab.results.record import Driver, EndedHow, RunRecord, Turn
from lab.results.writer import load_run
from lab.suite.digest import suite_digest

DOCUMENT_NAME = "gate.json"
GOING_ON = "the gate has not ended"
STOPPED = "the gate was interrupted: not everything was run that it asks for"
CHANGED = "the suite's files were changed while the gate ran"

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Compared:
    """A gate that ended.

    Attributes:
        document: what it says.
        folder: where document and page are.
    """

    document: GateDocument
    folder: Path

    @property
    def file(self) -> Path:
        """The document."""
        return self.folder / DOCUMENT_NAME

    @property
    def page(self) -> Path:
        """The page for people."""
        return self.folder / PAGE_NAME


def compare(
    request: SuiteRequest, policy: Policy, *, resume: Path | None = None, say: Say
) -> Compared:
    """Run a gate.

    Args:
        request: the drivers, and where and how tests are run; what is run is the policy's.
        policy: what is asked.
        resume: folder of a gate that was ended early, to go on with.
        say: told in lines what happens.

    Raises:
        UsageError: a driver, the suite or the results folder cannot be used, or the gate to be
            resumed asked something else.
        LabBroken: the tests could not be collected.
        KeyboardInterrupt: what is known is written.
    """
    assert request.driver is not None  # noqa: S101 - the command asks for it
    driver = driver_of(request.driver)
    baseline = driver_of(request.baseline) if request.baseline else None
    suite = suite_identity(policy.suite.tests)
    if resume is None:
        gate_id, started = f"{new_run_id()}-gate", datetime.now(UTC)
        session = Session(_tests(request, policy, say), policy, driver=driver, baseline=baseline)
    else:
        earlier = _earlier(resume, policy, driver, baseline, suite)
        gate_id, started = earlier.run_id, earlier.started
        session = replay(earlier, request.results)
        say(f"{gate_id}: going on after {len(session.runs)} sessions")
    gate = _Gate(request, session, gate_id, started, suite)
    gate.run(say)
    return Compared(gate.document, gate.folder)


def driver_of(path: Path) -> Driver:
    """A package, checked before anything is built or booted for it.

    Raises:
        UsageError: in one line, why it cannot be used.
    """
    with tempfile.TemporaryDirectory(prefix="pvlab-") as folder:
        return facts.driver(DriverPackage.load(path, Path(folder)))


def suite_identity(tests: Sequence[str]) -> str:
    """SHA-256 over the suite that tests belong to.

    Args:
        tests: files, folders or node ids; the driver suite when empty.

    Raises:
        UsageError: a file is not there.
    """
    if not tests:
        return suite_digest(driver_suite())
    folders = set()
    for test in tests:
        path = Path(test.partition("::")[0])
        if not path.exists():
            raise UsageError(f"{path}: no such tests")
        folders.add(path.resolve() if path.is_dir() else path.resolve().parent)
    return suite_digest(*sorted(folders))


class _Gate:
    """A gate while it runs."""

    def __init__(
        self,
        request: SuiteRequest,
        session: Session,
        gate_id: str,
        started: datetime,
        suite: str,
    ) -> None:
        self.request = request
        self.session = session
        self.gate_id = gate_id
        self.started = started
        self.suite = suite
        self.folder = request.results / gate_id
        self.profile = load_profile(request.profile, request.config)
        try:
            (self.folder / "plans").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{self.folder}: cannot be made: {error.strerror}") from None
        self.document = self._save(EndedHow.RUNNING, [GOING_ON])

    def run(self, say: Say) -> None:
        """Make runs until the gate is decided."""
        policy = self.session.policy
        # Every worker needs something to do, and both drivers of a pair.
        limit = max(policy.running.batch, 2 * self.request.workers)
        try:
            while turns := self.session.turns(limit):
                self._one(turns)
                self.document = self._save(EndedHow.RUNNING, [GOING_ON])
                say(self._progress())
        except KeyboardInterrupt:
            self.document = self._save(EndedHow.INTERRUPTED, [STOPPED])
            say(f"what is known: {self.folder / DOCUMENT_NAME}")
            say(f"to go on: the same command with --resume {self.folder}")
            raise
        changed = suite_identity(policy.suite.tests) != self.suite
        self.document = self._save(EndedHow.FINISHED, [CHANGED] if changed else [])

    def _one(self, turns: Sequence[Turn]) -> None:
        run_id = f"{new_run_id()}-{len(self.session.runs) + 1}"
        run = GatedRun(run_id=run_id, turns=tuple(turns))
        try:
            run_suite(self._request(run), run_id=run_id)
        except LabBroken as error:
            run = run.model_copy(update={"lost": error.message})
        except KeyboardInterrupt:
            self.session.take(run.model_copy(update={"interrupted": True}), self._record(run_id))
            raise
        self.session.take(run, self._record(run_id))

    def _request(self, run: GatedRun) -> SuiteRequest:
        plan = self.folder / "plans" / f"{run.run_id}.json"
        try:
            write_plan(run.turns, plan)
        except OSError as error:
            raise UsageError(f"{plan}: cannot be written: {error.strerror}") from None
        suite = self.session.policy.suite
        history = self.session.engine.history
        return replace(
            self.request,
            plan=plan,
            tests=suite.tests,
            intensity=suite.intensity,
            # The memory of the first guest that crashed tells as much as that of the next ones.
            core=any(not history(turn.test).suspect for turn in run.turns),
        )

    def _record(self, run_id: str) -> RunRecord | None:
        try:
            return load_run(self.request.results / run_id)
        except UsageError:
            return None

    def _save(self, how: EndedHow, troubles: list[str]) -> GateDocument:
        document = comparison_document(
            self.session,
            self.request.results,
            gate_id=self.gate_id,
            started=self.started,
            ended_how=how,
            profile=self.profile.name,
            guest_label=self.profile.guest_label,
            suite=self.suite,
            troubles=troubles,
        )
        write_document(document, self.folder / DOCUMENT_NAME)
        write_page(document, self.folder)
        return document

    def _progress(self) -> str:
        engine = self.session.engine
        findings = engine.findings
        settled = sum(not finding.wanted for finding in findings)
        runs = sum(sum(engine.runs(side).values()) for side in Side)
        odd = [f for f in findings if f.kind not in (Kind.SAME, Kind.NOT_RUN) and f.new.failures]
        said = [f"; {f.test.rpartition('::')[2]}: {f.kind}" for f in odd]
        return f"{runs} runs, {settled} of {len(findings)} tests settled" + "".join(said)


def _tests(request: SuiteRequest, policy: Policy, say: Say) -> list[str]:
    asked = policy.suite
    extra = ["-k", asked.keyword] if asked.keyword else []
    found = collect(list(asked.tests), extra, accel=request.accel, intensity=asked.intensity)
    sides = 2 if request.baseline else 1
    minutes = sides * found.expected_seconds / request.workers / 60
    say(f"{len(found.tests)} tests on {sides} drivers: a round takes at most {minutes:.0f} min")
    return soonest_first(found.tests)


def _earlier(
    folder: Path, policy: Policy, driver: Driver, baseline: Driver | None, suite: str
) -> GateDocument:
    """The document of a gate to go on with.

    Raises:
        UsageError: it is no such gate, has ended, or asked something else.
    """
    document = load_document(folder / DOCUMENT_NAME if folder.is_dir() else folder)
    comparison = document.comparison
    if comparison is None or document.driver is None:
        raise UsageError(f"{folder}: that gate cannot be gone on with: it compared nothing")
    if document.sha256 != document.seal():
        raise UsageError(f"{folder}: that gate's document was changed")
    if document.ended_how is EndedHow.FINISHED:
        raise UsageError(f"{folder}: that gate has ended: {document.verdict.status.value}")
    then = comparison.baseline.sha256 if comparison.baseline else None
    asked = {
        "the driver": document.driver.sha256 == driver.sha256,
        "the baseline": then == (baseline.sha256 if baseline else None),
        "the policy": comparison.policy_sha256 == policy.sha256,
        "the suite": document.suite_sha256 == suite,
    }
    if other := [what for what, same in asked.items() if not same]:
        raise UsageError(
            f"{folder}: that gate was about something else: another {other[0].split()[-1]}",
            hint="start a new one: leave out --resume",
        )
    return document
