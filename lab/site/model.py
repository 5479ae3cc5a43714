"""What the site is made of: nights, their runs and results, and what was learned from them.

Plain values: the pages are rendered from these alone, and ``lab.site.load`` makes them of the
results that are kept.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from lab.core.errors import Blame
from lab.crash.facts import CrashFact
from lab.results.record import Outcome


class Mark(enum.StrEnum):
    """How a test ended, with whom it blames: what one cell of the matrix says."""

    FAILED = "failed"
    UNDECIDED = "undecided"
    XPASSED = "xpassed"
    KNOWN = "known"
    PASSED = "passed"
    LAB = "lab"
    SKIPPED = "skipped"

    @property
    def bad(self) -> bool:
        """Whether somebody has to look at it."""
        return self in (Mark.FAILED, Mark.UNDECIDED, Mark.LAB)

    @property
    def of_driver(self) -> bool:
        """Whether it says that the driver does, or does not do, what it should."""
        return self in (Mark.FAILED, Mark.PASSED, Mark.XPASSED, Mark.KNOWN)


def mark(outcome: Outcome, blame: Blame | None) -> Mark:
    """The mark of a test's record.

    Args:
        outcome: how it ended.
        blame: whom the lab blames; a failure that blames nobody is undecided.
    """
    if outcome.bad:
        return {Blame.DRIVER: Mark.FAILED, Blame.LAB: Mark.LAB}.get(
            blame or Blame.UNDECIDED, Mark.UNDECIDED
        )
    return {
        Outcome.PASSED: Mark.PASSED,
        Outcome.SKIPPED: Mark.SKIPPED,
        Outcome.XFAILED: Mark.KNOWN,
        Outcome.XPASSED: Mark.XPASSED,
    }[outcome]


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """What is compared from night to night: one test in one place.

    Attributes:
        test: pytest's node id.
        place: where it ran, in words: profile and driver.
    """

    test: str
    place: str


@dataclass(frozen=True, slots=True)
class Attempts:
    """The attempts of a race.

    Attributes:
        attempts: how many.
        failures: how many of them failed.
        seeds: of those that failed.
        least: lowest failure rate that is not ruled out, in [0, 1].
        most: highest one.
        confidence: of both.
    """

    attempts: int
    failures: int
    seeds: tuple[int, ...]
    least: float
    most: float
    confidence: float


@dataclass(frozen=True, slots=True)
class Result:
    """One test in one run.

    Attributes:
        key: which test, where.
        run: the run's id.
        mark: how it ended.
        seconds: how long it took, in s.
        area: what of the driver it tests.
        phase: of the test, in which it ended.
        message: one line: what went wrong, or why it was skipped.
        details: traceback and captured output.
        expected_seconds: what it says that it takes at most, in s.
        evidence: its evidence folder, absolute; None when it has none.
        bucket: key of the crash bucket that it is in; empty when it is in none.
        attempts: of a race.
    """

    key: Key
    run: str
    mark: Mark
    seconds: float
    area: str = ""
    phase: str = "call"
    message: str = ""
    details: str = ""
    expected_seconds: float | None = None
    evidence: Path | None = None
    bucket: str = ""
    attempts: Attempts | None = None


@dataclass(frozen=True, slots=True)
class Build:
    """A driver package.

    Attributes:
        name: of the driver.
        version: DriverVer of the INF.
        sha256: over its files, in hex.
    """

    name: str
    version: str
    sha256: str

    @property
    def words(self) -> str:
        """Name, version and the start of the hash."""
        return " ".join(word for word in (self.name, self.version, self.sha256[:12]) if word)


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the lab.

    Attributes:
        id: its name.
        started: when.
        seconds: wall time, in s; None while it has not ended.
        ended_how: ``finished``, ``interrupted`` or ``running``.
        profile: of ``lab.toml``.
        guest: what the guest was, honestly.
        accelerator: what ran the nested Xen, and why no faster one.
        host: the machine, in words.
        driver: under test; None when the lab tested itself.
        status: the verdict in one word; empty without one.
        reasons: of the verdict, the weightiest first.
        intensity: how much the tests did.
        command: the command line.
        folder: of the run, absolute; None when it is gone.
        versions: tool to version.
        results: one a test.
    """

    id: str
    started: datetime
    seconds: float | None
    ended_how: str
    profile: str
    guest: str
    accelerator: str = ""
    host: str = ""
    driver: Build | None = None
    status: str = ""
    reasons: tuple[str, ...] = ()
    intensity: str = ""
    command: str = ""
    folder: Path | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    results: tuple[Result, ...] = ()


@dataclass(frozen=True)
class Night:
    """The runs that belong together.

    Attributes:
        name: unique, and sorts by time: ``2026-11-24``.
        runs: in the order they started.
    """

    name: str
    runs: tuple[Run, ...]

    @cached_property
    def results(self) -> Mapping[Key, Result]:
        """One result a test and place.

        Of several the one that says most about the driver: a test that the lab broke counts as
        what its second try showed, a failure is not undone by a second try that passed.
        """
        rank = {mark: place for place, mark in enumerate(Mark)}
        best: dict[Key, Result] = {}
        for run in self.runs:
            for result in run.results:
                known = best.get(result.key)
                if known is None or rank[result.mark] < rank[known.mark]:
                    best[result.key] = result
        return best

    @cached_property
    def started(self) -> datetime:
        """When the first run did."""
        return min((run.started for run in self.runs), default=datetime.min.replace(tzinfo=UTC))


@dataclass(frozen=True, slots=True)
class Bucket:
    """Crashes that are the same.

    Attributes:
        key: of the signature.
        title: what they have in common, in words.
        kind: what kind of end.
        count: how many there were.
        first_seen: when.
        last_seen: when.
        builds: driver builds, in words, with how many crashes each had.
        sample: the account that knows most.
    """

    key: str
    title: str
    kind: str
    count: int
    first_seen: datetime
    last_seen: datetime
    builds: Mapping[str, int] = field(default_factory=dict)
    sample: CrashFact | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a gate's comparison.

    Attributes:
        kind: of the difference: ``regression``, ``fixed``, ``known`` ...
        test: pytest's node id, or the name of a figure.
        text: in words.
        run: run in which it was seen; empty when in none.
    """

    kind: str
    test: str
    text: str
    run: str = ""


@dataclass(frozen=True, slots=True)
class Gate:
    """A gate's verdict.

    Attributes:
        id: unique.
        when: it was given.
        driver: the build that was asked about, in words.
        baseline: what it was compared with, in words; empty when with nothing.
        status: ``PASS``, ``FAIL``, ``LAB`` or ``UNDECIDED``.
        exit_code: of the command.
        reasons: the weightiest first.
        findings: differences, the weightiest first.
        hashes: SHA-256 of driver, images, policy and suite by name.
        guest: what the guest was, honestly.
        runs: ids of the runs that it rests on.
    """

    id: str
    when: datetime
    driver: str
    baseline: str
    status: str
    exit_code: int
    reasons: tuple[str, ...]
    findings: tuple[Finding, ...] = ()
    hashes: Mapping[str, str] = field(default_factory=dict)
    guest: str = ""
    runs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Point:
    """A figure on one night.

    Attributes:
        night: its name.
        value: the median.
        low: lower end of the interval.
        high: upper end.
        samples: how many measurements.
        interval: what the interval is, in words.
    """

    night: str
    value: float
    low: float
    high: float
    samples: int
    interval: str


@dataclass(frozen=True, slots=True)
class Trend:
    """A figure over nights.

    Attributes:
        name: what was measured.
        unit: of its values.
        points: oldest first.
        target: the value it should not exceed, or should reach when ``at_least``.
        at_least: whether the target is a lower bound.
        note: how it was measured.
    """

    name: str
    unit: str
    points: tuple[Point, ...]
    target: float | None = None
    at_least: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class Mutant:
    """A driver with one known defect, and what the suite made of it.

    Attributes:
        name: of the mutant.
        title: the defect.
        fate: ``killed``, ``survived``, ``lab`` or ``undecided``.
        killed_by: pytest's node id of the test that ended the run; empty when none did.
        blamed: by that test; empty when nobody was.
        seconds: wall time, in s.
        message: what that test said.
        run: the run's id; empty when there is none.
    """

    name: str
    title: str
    fate: str
    killed_by: str
    blamed: str
    seconds: float
    message: str = ""
    run: str = ""


@dataclass(frozen=True, slots=True)
class Mutants:
    """The last run of the suite against the mutants.

    Attributes:
        guest: what the guest was, honestly.
        accelerator: it ran with.
        intensity: how much the tests did.
        mutants: each of them.
    """

    guest: str
    accelerator: str
    intensity: str
    mutants: tuple[Mutant, ...]


@dataclass(frozen=True)
class Site:
    """Everything that the site shows.

    Attributes:
        nights: oldest first.
        others: runs that belong to no night.
        buckets: the one seen last first.
        gates: the newest first.
        trends: performance.
        mutants: None when they never ran.
        results_folder: what evidence is named relative to, for people; None when there is none.
        notice: said at the foot of every page: that data are made up, for example.
    """

    nights: tuple[Night, ...]
    others: tuple[Run, ...] = ()
    buckets: tuple[Bucket, ...] = ()
    gates: tuple[Gate, ...] = ()
    trends: tuple[Trend, ...] = ()
    mutants: Mutants | None = None
    results_folder: Path | None = None
    notice: str = ""

    @cached_property
    def keys(self) -> tuple[Key, ...]:
        """Every test and place that any night had, by area's order of appearance, then name."""
        return tuple(sorted({key for night in self.nights for key in night.results}))

    @cached_property
    def runs(self) -> Mapping[str, Run]:
        """All runs by id."""
        of_nights = (run for night in self.nights for run in night.runs)
        return {run.id: run for run in (*self.others, *of_nights)}

    @cached_property
    def night_of(self) -> Mapping[str, str]:
        """A run's night by the run's id."""
        return {run.id: night.name for night in self.nights for run in night.runs}

    def history(self, key: Key) -> Iterator[tuple[Night, Result]]:
        """The nights that a test ran in, oldest first."""
        for night in self.nights:
            if (result := night.results.get(key)) is not None:
                yield night, result
