"""The gate's JSON document, for machines that act on a verdict, and for a release's records.

It says what was tested, on what, by which suite and policy, and which files prove it, all by
hash, so that ``lab.gate.verify`` can tell whether it and they are still what they were.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lab import __version__
from lab.core.atomic import atomic_write
from lab.core.errors import Blame, UsageError
from lab.evidence.manifest import MANIFEST_NAME
from lab.gate import paired
from lab.gate.judging import Effect, Figure, Finding, History, Kind
from lab.gate.observation import Observation, Seen, Side
from lab.gate.policy import Policy
from lab.gate.session import GatedRun, Session
from lab.results.record import (
    JUNIT_NAME,
    RECORD_NAME,
    REPORT_NAME,
    Accelerator,
    Driver,
    EndedHow,
    Image,
    IntensityName,
    KnownIssue,
    Moment,
    Outcome,
    RunRecord,
    Sha256,
    Verdict,
)
from lab.scenario.rate import rate
from lab.suite.sequential import Tally

SCHEMA_VERSION: Literal[1] = 1

PROOFS = 5
"""Evidence folders that a finding names."""


EffectName = Literal["none", "undecided", "fail"]

EFFECTS: dict[Effect, EffectName] = {
    Effect.NONE: "none",
    Effect.UNDECIDED: "undecided",
    Effect.FAIL: "fail",
}


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Artifact(_Part):
    """A file of the run."""

    bytes: int = Field(ge=0)
    sha256: str


class GatedTest(_Part):
    """One test in short."""

    id: str
    outcome: Outcome
    blame: Blame | None
    message: str


class Share(_Part):
    """How often a test failed on a driver."""

    failures: int = Field(ge=0)
    runs: int = Field(ge=0)
    low: float = Field(description="Lower bound of the failure rate, after Clopper and Pearson.")
    high: float = Field(description="Upper bound.")


class GatedFigure(_Part):
    """How a figure that a test measures changed, from the baseline to the new driver."""

    name: str
    pairs: int = Field(ge=0, description="Runs of both drivers, side by side.")
    change: float = Field(description="0.1: 10 % more; more is worse.")
    low: float
    high: float | None = Field(description="Null for less than two pairs.")
    confidence: float
    answer: paired.Answer = Field(description="How it compares with the policy's limit.")


class Proof(_Part):
    """Where the evidence of a failed run lies."""

    run_id: str
    evidence: str = Field(description="Folder, relative to the run's.")
    driver: Side
    message: str


class GatedFinding(_Part):
    """What the runs of a test amount to."""

    test: str
    kind: Kind
    effect: EffectName = Field(description="On the verdict.")
    reason: str
    new: Share
    baseline: Share
    figures: tuple[GatedFigure, ...] = ()
    proofs: tuple[Proof, ...] = ()


class Comparison(_Part):
    """A gate that followed a policy: with a baseline, or with repeated runs."""

    policy: Policy
    policy_sha256: Sha256
    baseline: Driver | None
    tests: tuple[str, ...] = Field(description="In the order in which they were run.")
    findings: tuple[GatedFinding, ...]
    runs: tuple[GatedRun, ...]
    troubles: tuple[str, ...] = Field(
        default=(), description="What stood in the way of a PASS beside what the runs showed."
    )


class GateDocument(_Part):
    """What was tested, on what, with which verdict, and which files prove it."""

    schema_version: Literal[1] = SCHEMA_VERSION
    verdict: Verdict
    run_id: str
    started: Moment
    ended: Moment | None
    ended_how: EndedHow
    intensity: IntensityName
    profile: str
    guest_label: str
    accelerator: Accelerator | None
    driver: Driver | None
    images: dict[str, Image]
    versions: dict[str, str]
    suite_sha256: Sha256 | None = Field(
        default=None, description="Over the suite's files; null when no suite was named."
    )
    counts: dict[Outcome, int]
    errata: tuple[KnownIssue, ...]
    tests: tuple[GatedTest, ...]
    comparison: Comparison | None = Field(
        default=None, description="Null for a gate that ran one driver once."
    )
    artifacts: dict[str, Artifact] = Field(
        description="By path relative to the run's folder, or with a comparison, to the results "
        "folder. Each evidence.json lists the hashes of the pieces beside it, so these hashes "
        "vouch for all evidence.",
    )
    sha256: str = Field(
        default="",
        description="Over this document without this field: as JSON in ASCII, keys sorted, no "
        "blanks between.",
    )

    def seal(self) -> str:
        """What ``sha256`` should be."""
        content = self.model_dump(mode="json", exclude={"sha256"})
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def sealed(self) -> GateDocument:
        """The same with its ``sha256``."""
        return self.model_copy(update={"sha256": self.seal()})


def gate_document(
    record: RunRecord, verdict: Verdict, run_folder: Path, *, suite: str | None = None
) -> GateDocument:
    """Put the document of a gate together that ran one driver once.

    Args:
        record: of the run.
        verdict: of the gate.
        run_folder: whose files are hashed; those that do not exist are left out.
        suite: SHA-256 of the suite, if it is known.

    Raises:
        UsageError: a file is there but cannot be read.
    """
    return GateDocument(
        verdict=verdict,
        run_id=record.run_id,
        started=record.started,
        ended=record.ended,
        ended_how=record.ended_how,
        intensity=record.intensity,
        profile=record.profile,
        guest_label=record.guest_label,
        accelerator=record.accelerator,
        driver=record.driver,
        images=record.images,
        versions=record.versions,
        suite_sha256=suite,
        counts=record.counts,
        errata=record.errata,
        tests=tuple(
            GatedTest(id=t.id, outcome=t.outcome, blame=t.blame, message=t.message)
            for t in record.tests
        ),
        artifacts=_artifacts(record, run_folder),
    ).sealed()


def comparison_document(
    session: Session,
    results: Path,
    *,
    gate_id: str,
    started: datetime,
    ended_how: EndedHow,
    profile: str,
    guest_label: str,
    suite: str,
    troubles: Sequence[str] = (),
) -> GateDocument:
    """Put the document of a gate together that compares drivers.

    Args:
        session: the gate so far.
        results: folder with the runs' folders.
        gate_id: name of the gate.
        started: when it began.
        ended_how: ``RUNNING`` while it goes on.
        profile: name of the profile.
        guest_label: what the guest is, for a gate whose runs left no record.
        suite: SHA-256 of the suite.
        troubles: what stands in the way of a PASS, beside what the runs showed.

    Raises:
        UsageError: a file is there but cannot be read.
    """
    records = list(session.records.values())
    # The first that got so far as to know what it ran on, if there is one.
    first = next((r for r in records if r.accelerator), records[0] if records else None)
    latest = _latest(session, records)
    outcomes = [test.outcome for test in latest]
    return GateDocument(
        verdict=session.verdict(troubles),
        run_id=gate_id,
        started=started,
        ended=None if ended_how is EndedHow.RUNNING else datetime.now(UTC),
        ended_how=ended_how,
        intensity=session.policy.suite.intensity.value,
        profile=profile,
        guest_label=first.guest_label if first else guest_label,
        accelerator=first.accelerator if first else None,
        driver=session.driver,
        images=first.images if first else {},
        versions=first.versions if first else {"pvlab": __version__},
        suite_sha256=suite,
        counts={o: outcomes.count(o) for o in Outcome if o in outcomes},
        errata=tuple(dict.fromkeys(issue for record in records for issue in record.errata)),
        tests=tuple(latest),
        comparison=Comparison(
            policy=session.policy,
            policy_sha256=session.policy.sha256,
            baseline=session.baseline,
            tests=session.tests,
            findings=gated_findings(session),
            runs=tuple(session.runs),
            troubles=tuple(troubles),
        ),
        artifacts={
            f"{record.run_id}/{name}": artifact
            for record in records
            for name, artifact in _artifacts(record, results / record.run_id).items()
        },
    ).sealed()


def gated_findings(session: Session) -> tuple[GatedFinding, ...]:
    """What a gate found, as its document has it."""
    confidence = session.policy.failures.confidence
    return tuple(
        GatedFinding(
            test=finding.test,
            kind=finding.kind,
            effect=EFFECTS[finding.effect],
            reason=" ".join(finding.reason.split()),
            new=_share(finding.new, confidence),
            baseline=_share(finding.old, confidence),
            figures=tuple(_figure(figure) for figure in finding.figures),
            proofs=_proofs(finding, session.engine.history(finding.test)),
        )
        for finding in session.engine.findings
    )


def write_document(document: GateDocument, path: Path) -> None:
    """Write the document for ``--json FILE``.

    Raises:
        UsageError: the file cannot be written.
    """
    try:
        atomic_write(path, document.model_dump_json(indent=2).encode() + b"\n")
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from None


def load_document(path: Path) -> GateDocument:
    """Read a document.

    Raises:
        UsageError: it cannot be read, or is no document of a gate.
    """
    try:
        return GateDocument.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in problem["loc"]) or "not JSON"
        said = " ".join(problem["msg"].split())
        raise UsageError(f"{path}: no document of a gate: {where}: {said}") from None


def digest_of(path: Path) -> Artifact:
    """Size and SHA-256 of a file.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            return Artifact(bytes=stream.tell(), sha256=digest)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None


def _artifacts(record: RunRecord, folder: Path) -> dict[str, Artifact]:
    """The files of a run that are there."""
    manifests = [f"{test.evidence}/{MANIFEST_NAME}" for test in record.tests if test.evidence]
    names = [RECORD_NAME, REPORT_NAME, JUNIT_NAME, *manifests]
    return {name: digest_of(folder / name) for name in names if (folder / name).is_file()}


def _latest(session: Session, records: Iterable[RunRecord]) -> list[GatedTest]:
    """How each test last ended on the new driver, in the order of the tests."""
    found = {}
    for record in records:
        for test in record.tests:
            if test.turn is not None and test.turn.driver == Side.NEW.value:
                found[test.turn.test] = GatedTest(
                    id=test.turn.test, outcome=test.outcome, blame=test.blame, message=test.message
                )
    return [found[test] for test in session.tests if test in found]


def _share(tally: Tally, confidence: float) -> Share:
    told = rate(tally, confidence)
    return Share(failures=told.failures, runs=told.attempts, low=told.low, high=told.high)


def _figure(figure: Figure) -> GatedFigure:
    change = figure.change
    return GatedFigure(
        name=figure.name,
        pairs=change.pairs,
        change=change.change,
        low=change.low,
        high=None if math.isinf(change.high) else change.high,
        confidence=change.confidence,
        answer=figure.answer,
    )


def _proofs(finding: Finding, history: History) -> tuple[Proof, ...]:
    """Where the first failures' evidence lies, those of the new driver first."""
    bad = [one for one in history.seen if one.evidence and one.seen is not Seen.PASSED]
    bad.sort(key=lambda one: (one.seen is not Seen.FAILED, one.side is not Side.NEW))
    return tuple(_proof(one) for one in bad[:PROOFS])


def _proof(one: Observation) -> Proof:
    return Proof(run_id=one.run, evidence=one.evidence or "", driver=one.side, message=one.message)
