"""A run's folder, read for the store: its record, its evidence, its crashes."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.core.errors import UsageError
from lab.crash import labrun
from lab.crash.facts import CrashFact
from lab.crash.incidents import incidents, silent
from lab.crash.reader import examine
from lab.evidence.manifest import MANIFEST_NAME, Manifest, load_manifest
from lab.results.record import RECORD_NAME, RunRecord
from lab.results.writer import load_run

READING = 1
"""Part of every digest: raised when what is read of a folder changes, so that a new import
brings old runs up to date."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a run's folder held when it was read.

    Attributes:
        folder: it, absolute.
        record: of the run.
        digest: SHA-256 over the record and all manifests.
        manifests: by test id; tests without evidence have none.
        crashes: by test id.
        troubles: evidence that could not be read, one line each.
    """

    folder: Path
    record: RunRecord
    digest: str
    manifests: Mapping[str, Manifest]
    crashes: Mapping[str, tuple[CrashFact, ...]]
    troubles: tuple[str, ...] = ()

    @property
    def progress(self) -> tuple[bool, int]:
        """How far the run had come; of two snapshots of a run the one with more is newer."""
        return self.record.ended is not None, len(self.record.tests)


def read_snapshot(folder: Path, *, known: str | None = None) -> Snapshot | None:
    """Read a run's folder.

    Args:
        folder: the run's.
        known: digest of what the store has of this run.

    Returns:
        What it holds; None when that is what the store has already.

    Raises:
        UsageError: there is no record, it is damaged, or another version of the lab wrote it.
    """
    folder = folder.resolve()
    # The run may be writing at this moment. What is digested before it is read can only be older
    # than what was read, and then the next import reads it again.
    whole = hashlib.sha256(f"{READING}\n".encode())
    whole.update(_sha256(folder / RECORD_NAME))
    record = load_run(folder)
    _check(folder, record)
    with_evidence = {test.id: folder / test.evidence for test in record.tests if test.evidence}
    for evidence in with_evidence.values():
        whole.update(_sha256(evidence / MANIFEST_NAME))
    found = whole.hexdigest()
    if found == known:
        return None
    manifests: dict[str, Manifest] = {}
    troubles: list[str] = []
    for test, evidence in with_evidence.items():
        try:
            manifests[test] = load_manifest(evidence)
        except UsageError as error:
            troubles.append(error.message)
    crashes: dict[str, tuple[CrashFact, ...]] = {}
    for failed in labrun.failed(folder):
        if facts := tuple(_crashes(failed)):
            crashes[failed.id] = facts
    return Snapshot(folder, record, found, manifests, crashes, tuple(troubles))


def _check(folder: Path, record: RunRecord) -> None:
    seen = set()
    for test in record.tests:
        if test.id in seen:
            raise UsageError(f"{folder / RECORD_NAME}: damaged: test {test.id} is in it twice")
        seen.add(test.id)


def _sha256(file: Path) -> bytes:
    """Of a file; that there is none is told when it is read."""
    try:
        return hashlib.sha256(file.read_bytes()).digest()
    except OSError:
        return b""


def _crashes(failed: labrun.Failed) -> Iterator[CrashFact]:
    """Crashes of a test, as ``pvlab crash bucket`` counts them."""
    facts: list[CrashFact] = []
    if failed.evidence is not None and failed.evidence.is_dir():
        # Evidence that tells of no crash is an error to ``examine``, and the usual case here.
        with contextlib.suppress(UsageError):
            facts = examine(failed.evidence).facts
    told = {source.reader for fact in facts for source in fact.sources.values()}
    if failed.fact is not None and labrun.READER not in told:
        facts.insert(0, failed.fact)
    return (fact for fact in incidents(facts) if not silent(fact))
