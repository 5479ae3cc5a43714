"""The gate's JSON document, for machines that act on a verdict."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from lab.core.atomic import atomic_write
from lab.core.errors import Blame, UsageError
from lab.evidence.manifest import MANIFEST_NAME
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
    Verdict,
)

SCHEMA_VERSION: Literal[1] = 1


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
    counts: dict[Outcome, int]
    errata: tuple[KnownIssue, ...]
    tests: tuple[GatedTest, ...]
    artifacts: dict[str, Artifact] = Field(
        description="By path relative to the run's folder. Each evidence.json lists the hashes "
        "of the pieces beside it, so these hashes vouch for all evidence.",
    )


def gate_document(record: RunRecord, verdict: Verdict, run_folder: Path) -> GateDocument:
    """Put the document together.

    Args:
        record: of the run.
        verdict: of the gate.
        run_folder: whose files are hashed; those that do not exist are left out.

    Raises:
        UsageError: a file is there but cannot be read.
    """
    manifests = [f"{test.evidence}/{MANIFEST_NAME}" for test in record.tests if test.evidence]
    names = [RECORD_NAME, REPORT_NAME, JUNIT_NAME, *manifests]
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
        counts=record.counts,
        errata=record.errata,
        tests=tuple(
            GatedTest(id=t.id, outcome=t.outcome, blame=t.blame, message=t.message)
            for t in record.tests
        ),
        artifacts={
            name: _artifact(run_folder / name) for name in names if (run_folder / name).is_file()
        },
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


def _artifact(path: Path) -> Artifact:
    try:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            return Artifact(bytes=stream.tell(), sha256=digest)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
