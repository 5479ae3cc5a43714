"""The record of a run, ``run.json``: every fact a report or a verdict is made from."""

from __future__ import annotations

import enum
from collections import Counter
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from lab.core.errors import Blame

SCHEMA_VERSION: Literal[1] = 1
RECORD_NAME = "run.json"
REPORT_NAME = "report.html"
JUNIT_NAME = "junit.xml"

LAB_IS_BROKEN = "the lab is broken: "
"""How the message of a test begins that was skipped since nothing could be run any more."""

INTERRUPTED = "interrupted while it ran"
"""Message of a test that was running when somebody ended the run; it counts as skipped."""


def _in_utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)


def _inside_the_run(path: str) -> str:
    """Reports turn these paths into links, so none may lead out of the run's folder."""
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or not parts.parts or "\\" in path:
        raise ValueError("must be a path below the run's folder")
    return path


Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]
InsideRun = Annotated[str, AfterValidator(_inside_the_run)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Part(BaseModel):
    """A part of the record: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Outcome(enum.StrEnum):
    """How a test ended, in pytest's words."""

    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"
    SKIPPED = "skipped"
    XFAILED = "xfailed"
    XPASSED = "xpassed"

    @property
    def bad(self) -> bool:
        """Whether somebody has to be blamed for it."""
        return self in (Outcome.FAILED, Outcome.ERROR)


class EndedHow(enum.StrEnum):
    """How the run ended. A record that says ``running`` with no such process was killed."""

    RUNNING = "running"
    FINISHED = "finished"
    INTERRUPTED = "interrupted"


class Status(enum.StrEnum):
    """The verdict in one word."""

    PASS = "PASS"  # noqa: S105 - no password
    FAIL = "FAIL"
    LAB = "LAB"
    UNDECIDED = "UNDECIDED"


class Verdict(_Part):
    """What the run says about the driver."""

    status: Status
    exit_code: int = Field(ge=0, le=3, description="Of the command: 0, 1 or 3.")
    reasons: tuple[str, ...] = Field(description="One line each, the weightiest first.")


class Host(_Part):
    """The machine the lab ran on."""

    kernel: str
    cpus: int = Field(ge=1)
    memory_mib: int = Field(ge=0, description="MiB; 0 when the system does not tell.")
    os: str


class Accelerator(_Part):
    """What ran the nested Xen."""

    name: str = Field(description='"kvm", "tcg-hvm" or "tcg-pv".')
    emulator: str = Field(description="QEMU's program.")
    emulator_version: str
    why: str = Field(description="Why this one and no faster one, one line.")


class Image(_Part):
    """One image that was booted."""

    key: str = Field(description="Hash of everything the image was made from.")
    versions: dict[str, str] = Field(
        default_factory=dict, description="From its manifest: package to version."
    )


class Driver(_Part):
    """The driver package under test."""

    name: str
    version: str = Field(description="DriverVer of the INF.")
    sha256: Sha256 = Field(description="Identity of the package, over its files.")
    basename: str = Field(description="File or folder name it was loaded from.")
    files: tuple[str, ...] = Field(default=(), description="Names in the package.")


IntensityName = Literal["smoke", "standard", "soak"]
Rate = Annotated[float, Field(ge=0, le=1)]


class Campaign(_Part):
    """The attempts of a race, and what they say about its failure rate."""

    attempts: int = Field(ge=0)
    failures: int = Field(ge=0)
    failed_seeds: tuple[int, ...] = Field(description="Each repeats a failed attempt.")
    limit: Rate = Field(description="Failure rate that is asked about.")
    confidence: Rate = Field(description="Of answer and bounds.")
    least: Rate = Field(description="Lowest failure rate that is not ruled out.")
    most: Rate = Field(description="Highest failure rate that is not ruled out.")
    answer: Literal["above", "within", "open"] = Field(
        description="Where the failure rate lies in relation to the limit."
    )


class Turn(_Part):
    """Which run of a test this is, in a run that compares two drivers or repeats tests."""

    test: str = Field(min_length=1, description="pytest's node id without the turn.")
    driver: Literal["new", "baseline"] = Field(
        description='On which driver: "new" is the record\'s `driver`.'
    )
    repeat: int = Field(ge=1, description="Which run of the test on that driver, from 1.")


class TestRecord(_Part):
    """One test."""

    # Its name makes pytest think that it is a test class.
    __test__: ClassVar[bool] = False

    id: str = Field(min_length=1, description="pytest's node id.")
    area: str = Field(default="", description="What of the driver it tests.")
    outcome: Outcome
    blame: Blame | None = Field(default=None, description="Set when something went wrong.")
    phase: Literal["setup", "call", "teardown"] = "call"
    seconds: Seconds = Field(description="Setup, call and teardown together, in s.")
    message: str = Field(default="", description="One line: what went wrong, or why skipped.")
    details: str = Field(default="", description="Traceback and captured output.")
    evidence: InsideRun | None = Field(
        default=None, description="Evidence folder, relative to the run's."
    )
    expected_seconds: Seconds | None = Field(
        default=None, description="What the test says that it takes at most, in s."
    )
    campaign: Campaign | None = Field(default=None, description="Of a race: its attempts.")
    properties: dict[str, str] = Field(default_factory=dict)
    turn: Turn | None = Field(
        default=None, description="Null in a run of one driver, each test once."
    )

    @property
    def late(self) -> bool:
        """Whether it took longer than it says."""
        return self.expected_seconds is not None and self.seconds > self.expected_seconds


class KnownIssue(_Part):
    """What the errata say of a test that was chosen."""

    test: str = Field(min_length=1, description="pytest's node id.")
    why: str = Field(description="What is wrong with the driver.")
    source: str = Field(description="Who says so.")
    until: str = Field(description='Version from which it is mended, or "open".')


class RunRecord(_Part):
    """One run of the lab."""

    schema_version: Literal[1] = SCHEMA_VERSION
    run_id: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    started: Moment
    ended: Moment | None = None
    ended_how: EndedHow = EndedHow.RUNNING
    command: str = Field(default="", description="The command line, as one could repeat it.")
    profile: str
    guest_label: str = Field(min_length=1, description="What the guest is, honestly.")
    host: Host
    accelerator: Accelerator | None = Field(
        default=None, description="Null until the lab has chosen one."
    )
    images: dict[str, Image] = Field(default_factory=dict)
    driver: Driver | None = None
    baseline: Driver | None = Field(
        default=None, description="What it is compared with; tests say in `turn` which they ran on."
    )
    versions: dict[str, str] = Field(
        default_factory=dict, description="Tool to version: pvlab, python, qemu, xen, ..."
    )
    intensity: IntensityName = Field(default="standard", description="How much the tests did.")
    workers: int = Field(default=1, ge=1, description="Processes that ran tests side by side.")
    errata: tuple[KnownIssue, ...] = Field(
        default=(), description="What is known of this release and was tested."
    )
    tests: tuple[TestRecord, ...] = ()
    verdict: Verdict | None = None

    @property
    def counts(self) -> dict[Outcome, int]:
        """How many tests ended how; outcomes that did not happen are left out."""
        counted = Counter(test.outcome for test in self.tests)
        return {outcome: counted[outcome] for outcome in Outcome if counted[outcome]}

    @property
    def seconds(self) -> float | None:
        """Wall time of the run, in s; None while it has not ended."""
        return (self.ended - self.started).total_seconds() if self.ended else None
