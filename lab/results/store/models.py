"""The tables of the store.

Runs, and all that hangs on them, are a copy of the run folders, which stay the source of truth.
Gates refer to runs by name, since a run may be imported after its gate. Nightly plans live in
the store only.
"""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, MetaData, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from lab.core.errors import Blame
from lab.results.record import EndedHow, Outcome, Status
from lab.results.store.types import Plain, Utc, words


class ItemState(enum.StrEnum):
    """Where an item of a nightly plan stands."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    LAB_FAILED = "lab-failed"

    @property
    def settled(self) -> bool:
        """Whether the item will not run again."""
        return self in (ItemState.DONE, ItemState.LAB_FAILED)


class AttemptEnd(enum.StrEnum):
    """How one attempt at an item ended."""

    DONE = "done"
    LAB_FAILED = "lab-failed"
    LOST = "lost"
    """Its worker went away: killed, or its machine restarted."""
    RELEASED = "released"
    """Given back before anything came of it."""


class Base(DeclarativeBase):
    """Base of all tables; constraints have names, so that migrations can change them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        str: Plain,
        datetime: Utc,
        dict[str, Any]: JSON,
        dict[str, str]: JSON,
        list[str]: JSON,
        list[int]: JSON,
        list[Any]: JSON,
        Blame: words(Blame),
        EndedHow: words(EndedHow),
        Outcome: words(Outcome),
        Status: words(Status),
        ItemState: words(ItemState),
        AttemptEnd: words(AttemptEnd),
    }


class DriverBuild(Base):
    """A driver package, by the hash over its files."""

    __tablename__ = "driver_builds"

    id: Mapped[int] = mapped_column(primary_key=True)
    sha256: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    version: Mapped[str]
    files: Mapped[list[str]]


class Image(Base):
    """An image, by the hash of what it was made from."""

    __tablename__ = "images"

    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(unique=True)
    versions: Mapped[dict[str, str]]


class Host(Base):
    """A machine that the lab ran on, as far as records tell machines apart."""

    __tablename__ = "hosts"
    __table_args__ = (UniqueConstraint("kernel", "os", "cpus", "memory_mib"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    kernel: Mapped[str]
    os: Mapped[str]
    cpus: Mapped[int]
    memory_mib: Mapped[int] = mapped_column(BigInteger)


class Test(Base):
    """A test, by pytest's node id; its area is that of its newest outcome."""

    __test__ = False
    __tablename__ = "tests"

    id: Mapped[int] = mapped_column(primary_key=True)
    node_id: Mapped[str] = mapped_column(unique=True)


class Run(Base):
    """A run of the lab: one folder."""

    __tablename__ = "runs"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    folder: Mapped[str]
    machine: Mapped[str]
    digest: Mapped[str]
    troubles: Mapped[list[str]]
    started: Mapped[datetime] = mapped_column(index=True)
    ended: Mapped[datetime | None]
    ended_how: Mapped[EndedHow]
    command: Mapped[str]
    profile: Mapped[str]
    guest_label: Mapped[str]
    intensity: Mapped[str]
    workers: Mapped[int]
    accelerator: Mapped[str | None]
    emulator: Mapped[str | None]
    emulator_version: Mapped[str | None]
    accelerator_why: Mapped[str | None]
    driver_basename: Mapped[str | None]
    versions: Mapped[dict[str, str]]
    errata: Mapped[list[Any]]
    status: Mapped[Status | None]
    exit_code: Mapped[int | None]
    reasons: Mapped[list[str]]
    host_id: Mapped[int] = mapped_column(ForeignKey("hosts.id"), index=True)
    driver_id: Mapped[int | None] = mapped_column(ForeignKey("driver_builds.id"), index=True)

    host: Mapped[Host] = relationship(lazy="raise")
    driver: Mapped[DriverBuild | None] = relationship(lazy="raise")


class RunImage(Base):
    """An image that a run booted, under the name that the record gives it."""

    __tablename__ = "run_images"

    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), index=True)


class TestOutcome(Base):
    """How a test ended in a run."""

    __test__ = False
    __tablename__ = "outcomes"
    __table_args__ = (
        UniqueConstraint("run_id", "test_id"),
        Index("ix_outcomes_run_id_outcome", "run_id", "outcome"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"))
    test_id: Mapped[int] = mapped_column(ForeignKey("tests.id"), index=True)
    position: Mapped[int]
    area: Mapped[str]
    outcome: Mapped[Outcome]
    blame: Mapped[Blame | None]
    phase: Mapped[str]
    seconds: Mapped[float]
    expected_seconds: Mapped[float | None]
    message: Mapped[str]
    evidence: Mapped[str | None]
    evidence_complete: Mapped[bool]
    properties: Mapped[dict[str, str]]


class Campaign(Base):
    """The attempts of a race."""

    __tablename__ = "campaigns"

    outcome_id: Mapped[int] = mapped_column(
        ForeignKey("outcomes.id", ondelete="CASCADE"), primary_key=True
    )
    attempts: Mapped[int]
    failures: Mapped[int]
    failed_seeds: Mapped[list[int]]
    limit: Mapped[float]
    confidence: Mapped[float]
    least: Mapped[float]
    most: Mapped[float]
    answer: Mapped[str]


class Evidence(Base):
    """A piece of a test's evidence; its path is relative to the run's folder."""

    __tablename__ = "evidence"
    __table_args__ = (UniqueConstraint("outcome_id", "position"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    outcome_id: Mapped[int] = mapped_column(ForeignKey("outcomes.id", ondelete="CASCADE"))
    position: Mapped[int]
    name: Mapped[str]
    path: Mapped[str | None]
    bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str | None]
    seconds: Mapped[float]
    error: Mapped[str | None]
    truncated: Mapped[bool]


class Bucket(Base):
    """Crashes of one signature; what changes with its crashes is asked of them."""

    __tablename__ = "buckets"

    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(unique=True)


class Crash(Base):
    """A crash of the guest in a test; ``fullness`` is how much its account knows."""

    __tablename__ = "crashes"
    __table_args__ = (UniqueConstraint("outcome_id", "position"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    outcome_id: Mapped[int] = mapped_column(ForeignKey("outcomes.id", ondelete="CASCADE"))
    bucket_id: Mapped[int] = mapped_column(ForeignKey("buckets.id"), index=True)
    position: Mapped[int]
    fields: Mapped[int]
    frames: Mapped[int]
    lines: Mapped[int]
    text: Mapped[str]
    signature: Mapped[dict[str, Any]]
    fact: Mapped[dict[str, Any]]


class Gate(Base):
    """A gate's document, as it was written."""

    __tablename__ = "gates"

    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(unique=True)
    sha256: Mapped[str]
    created: Mapped[datetime] = mapped_column(index=True)
    status: Mapped[Status]
    path: Mapped[str | None]
    machine: Mapped[str]
    driver_sha256: Mapped[str | None]
    baseline_sha256: Mapped[str | None]
    document: Mapped[dict[str, Any]]


class GateRun(Base):
    """A run that a gate rests on, by name, and what it was to the gate."""

    __tablename__ = "gate_runs"

    gate_id: Mapped[int] = mapped_column(
        ForeignKey("gates.id", ondelete="CASCADE"), primary_key=True
    )
    run_name: Mapped[str] = mapped_column(primary_key=True, index=True)
    role: Mapped[str]


class MutantsReport(Base):
    """A document of ``pvlab mutants``; one a suite, intensity, guest and accelerator."""

    __tablename__ = "mutants_reports"

    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(unique=True)
    sha256: Mapped[str]
    recorded: Mapped[datetime]
    document: Mapped[dict[str, Any]]


class NightlyPlan(Base):
    """A night: items to run, and how often an item may fail for the lab's sake."""

    __tablename__ = "nightly_plans"

    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(unique=True)
    digest: Mapped[str]
    created: Mapped[datetime] = mapped_column(index=True)
    closed: Mapped[datetime | None]
    budget_seconds: Mapped[float | None]
    max_lab_failures: Mapped[int]
    max_losses: Mapped[int]
    settings: Mapped[dict[str, Any]]


class NightlyItem(Base):
    """One thing to run in a night.

    ``run_name`` is the one run that counts for it; that it is unique keeps a run from counting
    for two items.
    """

    __tablename__ = "nightly_items"
    __table_args__ = (
        UniqueConstraint("plan_id", "key"),
        Index("ix_nightly_items_plan_id_state_position", "plan_id", "state", "position"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    plan_id: Mapped[int] = mapped_column(ForeignKey("nightly_plans.id", ondelete="CASCADE"))
    key: Mapped[str] = mapped_column(index=True)
    position: Mapped[int]
    place: Mapped[str]
    payload: Mapped[dict[str, Any]]
    expected_seconds: Mapped[float | None]
    state: Mapped[ItemState]
    attempts: Mapped[int]
    lab_failures: Mapped[int]
    losses: Mapped[int]
    token: Mapped[str | None] = mapped_column(unique=True)
    worker: Mapped[str | None]
    claimed: Mapped[datetime | None]
    seen: Mapped[datetime | None]
    ended: Mapped[datetime | None]
    run_name: Mapped[str | None] = mapped_column(unique=True)
    message: Mapped[str]


class NightlyAttempt(Base):
    """One attempt at an item, kept for good."""

    __tablename__ = "nightly_attempts"
    __table_args__ = (UniqueConstraint("item_id", "number"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    item_id: Mapped[int] = mapped_column(ForeignKey("nightly_items.id", ondelete="CASCADE"))
    number: Mapped[int]
    token: Mapped[str] = mapped_column(unique=True)
    worker: Mapped[str]
    started: Mapped[datetime]
    ended: Mapped[datetime | None]
    how: Mapped[AttemptEnd | None]
    run_name: Mapped[str | None] = mapped_column(unique=True)
    message: Mapped[str]
