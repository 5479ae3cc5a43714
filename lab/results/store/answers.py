"""What the store answers: plain values, good after it is closed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lab.core.errors import Blame
from lab.results.record import EndedHow, Outcome, Status


@dataclass(frozen=True, slots=True)
class DriverRow:
    """A driver build.

    Attributes:
        sha256: identity of the package.
        name: of the driver.
        version: DriverVer of the INF.
    """

    sha256: str
    name: str
    version: str


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run in short.

    Attributes:
        name: its id.
        folder: where its files are, on ``machine``.
        machine: whose file system that is.
        started: UTC.
        ended: UTC; None when it was killed, or still goes on.
        ended_how: in a word.
        status: of the verdict; None when there is none.
        reasons: of the verdict, one line each.
        profile: of ``lab.toml``.
        guest_label: what the guest is, honestly.
        intensity: how much the tests did.
        accelerator: what ran the nested Xen, if that was chosen yet.
        command: the command line.
        driver: under test.
        counts: how many tests ended how; outcomes that did not happen are left out.
        troubles: evidence that could not be read, one line each.
    """

    name: str
    folder: str
    machine: str
    started: datetime
    ended: datetime | None
    ended_how: EndedHow
    status: Status | None
    reasons: tuple[str, ...]
    profile: str
    guest_label: str
    intensity: str
    accelerator: str | None
    command: str
    driver: DriverRow | None
    counts: Mapping[Outcome, int]
    troubles: tuple[str, ...]

    @property
    def seconds(self) -> float | None:
        """Wall time, in s; None while it has not ended."""
        return (self.ended - self.started).total_seconds() if self.ended else None


@dataclass(frozen=True, slots=True)
class CampaignRow:
    """The attempts of a race; see ``lab.results.record.Campaign``."""

    attempts: int
    failures: int
    failed_seeds: tuple[int, ...]
    limit: float
    confidence: float
    least: float
    most: float
    answer: str


@dataclass(frozen=True, slots=True)
class Cell:
    """How one test ended in one run.

    Attributes:
        run: name of the run.
        test: pytest's node id.
        area: what of the driver it tests.
        outcome: how it ended.
        blame: who is answerable.
        phase: in which it ended so.
        seconds: setup, call and teardown, in s.
        expected_seconds: what the test says that it takes at most, in s.
        message: one line.
        evidence: its folder, relative to the run's.
        evidence_complete: whether collecting it ended.
        campaign: of a race, its attempts.
        properties: of the test.
    """

    run: str
    test: str
    area: str
    outcome: Outcome
    blame: Blame | None
    phase: str
    seconds: float
    expected_seconds: float | None
    message: str
    evidence: str | None
    evidence_complete: bool
    campaign: CampaignRow | None
    properties: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of evidence; see ``lab.evidence.manifest.Piece``.

    Attributes:
        path: relative to the run's folder; None when the piece is missing.
    """

    name: str
    path: str | None
    bytes: int
    sha256: str | None
    error: str | None
    truncated: bool


@dataclass(frozen=True, slots=True)
class CrashRow:
    """A crash of the guest.

    Attributes:
        bucket: key of its bucket.
        run: name of the run.
        test: pytest's node id.
        started: UTC, when the run began.
        driver: under test.
        text: its signature in one line.
        signature: as ``lab.crash.signature.to_json`` writes it.
        fact: as ``lab.crash.facts.to_json`` writes it.
    """

    bucket: str
    run: str
    test: str
    started: datetime
    driver: DriverRow | None
    text: str
    signature: Mapping[str, Any]
    fact: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Failure:
    """A test that failed, and the proof.

    Attributes:
        cell: how it ended.
        started: UTC, when the run began.
        folder: the run's.
        pieces: of evidence, in the order they were collected.
        crashes: of the guest.
    """

    cell: Cell
    started: datetime
    folder: str
    pieces: tuple[Piece, ...]
    crashes: tuple[CrashRow, ...]


@dataclass(frozen=True, slots=True)
class BucketRow:
    """Crashes of one signature.

    Attributes:
        key: of the signature.
        text: it, in one line.
        count: how many crashes.
        first_seen: UTC, start of the first run that had one.
        last_seen: UTC, start of the last.
        builds: SHA-256 of driver builds, with how many of the crashes each had.
        tests: node ids, with how many of the crashes each had.
        sample: the crash whose account knows most; of several, the first.
    """

    key: str
    text: str
    count: int
    first_seen: datetime
    last_seen: datetime
    builds: Mapping[str, int]
    tests: Mapping[str, int]
    sample: CrashRow


@dataclass(frozen=True, slots=True)
class GateRow:
    """A gate.

    Attributes:
        key: its name.
        created: UTC.
        status: its verdict.
        driver: SHA-256 identity of the package that was gated.
        baseline: SHA-256 identity of the package that it was compared with.
        runs: name of each run to what it was to the gate.
        path: of the document's file.
        document: it.
    """

    key: str
    created: datetime
    status: Status
    driver: str | None
    baseline: str | None
    runs: Mapping[str, str]
    path: str | None
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class MutantsRow:
    """A document of ``pvlab mutants``, and when it was kept (UTC)."""

    recorded: datetime
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Night:
    """Runs that belong together: of a nightly plan, or of a day.

    Attributes:
        key: name of the plan, or the date in UTC.
        planned: whether it is a plan.
        started: UTC: the plan's making, or the first run's start.
        closed: UTC, when the plan was closed; None for an unfinished one, and for days.
        runs: names; of a plan, those that count for its items, in its order.
    """

    key: str
    planned: bool
    started: datetime
    closed: datetime | None
    runs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunDetail:
    """All that is known of a run.

    Attributes:
        row: it in short.
        host: kernel, os, cpus and memory_mib of the machine.
        images: name to key.
        versions: tool to version.
        errata: as in the record.
        tests: in the order of the run.
        failures: those of them that failed, with their evidence.
        gates: keys of the gates that rest on it.
        plans: keys of the nightly plans that it counts for.
    """

    row: RunRow
    host: Mapping[str, Any]
    images: Mapping[str, str]
    versions: Mapping[str, str]
    errata: tuple[Mapping[str, str], ...]
    tests: tuple[Cell, ...]
    failures: tuple[Failure, ...]
    gates: tuple[str, ...]
    plans: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TestRow:
    """A test.

    Attributes:
        id: pytest's node id.
        area: of its newest outcome.
        outcomes: how many there are.
        last_run: UTC, start of the newest run that had it.
        median_seconds: how long it took where it was not skipped, in s; None if it always was.
    """

    __test__ = False

    id: str
    area: str
    outcomes: int
    last_run: datetime
    median_seconds: float | None
