"""Snapshots of run folders as rows of the store."""

from __future__ import annotations

import enum
import platform
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import delete, exists, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from lab.core.errors import UsageError
from lab.crash import facts as facts_module
from lab.crash import signature as signatures
from lab.crash.facts import CrashFact
from lab.crash.incidents import fullness
from lab.evidence.manifest import Manifest
from lab.results.record import RECORD_NAME
from lab.results.store import models
from lab.results.store.models import Base
from lab.results.store.reading import Snapshot
from lab.results.store.types import plain

_Row = TypeVar("_Row", bound=Base)

_AT_ONCE = 500
"""Values in one query: SQLite has a limit, 32766 since 3.32 (its page of limits, item 9)."""


class Became(enum.StrEnum):
    """What an import made of a folder."""

    NEW = "new"
    REPLACED = "replaced"
    UNCHANGED = "unchanged"
    STALE = "stale"
    """The store has a later state of the same run, out of another folder."""
    DAMAGED = "damaged"


def machine() -> str:
    """This machine's name: run folders are on one machine, their store may serve several."""
    return platform.node()


def put_run(session: Session, snapshot: Snapshot) -> Became:
    """Make the store say of a run what its folder says.

    Args:
        session: of an exclusive write.
        snapshot: what the folder held.

    Raises:
        UsageError: the folder was pruned since it was read.
    """
    record = snapshot.record
    # Asked within the transaction: ``prune`` puts folders away in one of its own.
    if not (snapshot.folder / RECORD_NAME).is_file():
        raise UsageError(f"{snapshot.folder}: is gone")
    old = session.scalar(select(models.Run).where(models.Run.name == record.run_id))
    became = Became.NEW
    if old is not None:
        place = (plain(str(snapshot.folder)), machine())
        here = (old.folder, old.machine) == place
        # Of a run's two folders on this machine the first one counts.
        copy = not here and old.machine == place[1] and Path(old.folder).is_dir()
        if old.digest == snapshot.digest:
            if here or copy:
                return Became.UNCHANGED
            old.folder, old.machine = place
            return Became.REPLACED
        tests = session.scalar(select(func.count()).where(models.TestOutcome.run_id == old.id))
        before = (old.ended is not None, tests or 0)
        if snapshot.progress < before or (copy and snapshot.progress == before):
            return Became.STALE
        session.delete(old)
        session.flush()
        became = Became.REPLACED
    run = _run_row(session, snapshot)
    session.add(run)
    session.flush()
    for name, image in sorted(record.images.items()):
        row = _one(session, models.Image, {"key": image.key}, {"versions": image.versions})
        session.add(models.RunImage(run_id=run.id, name=name, image_id=row.id))
    _put_tests(session, run.id, snapshot)
    if old is not None:
        sweep(session)
    return became


def sweep(session: Session) -> None:
    """Remove what no run refers to any more, once runs were removed or replaced."""
    session.flush()
    references: list[tuple[type[Base], Any, InstrumentedAttribute[Any]]] = [
        (models.Bucket, models.Bucket.id, models.Crash.bucket_id),
        (models.Test, models.Test.id, models.TestOutcome.test_id),
        (models.Image, models.Image.id, models.RunImage.image_id),
        (models.DriverBuild, models.DriverBuild.id, models.Run.driver_id),
        (models.Host, models.Host.id, models.Run.host_id),
    ]
    for table, key, reference in references:
        session.execute(
            delete(table).where(~exists().where(reference == key)),
            execution_options={"synchronize_session": False},
        )


def _run_row(session: Session, snapshot: Snapshot) -> models.Run:
    record = snapshot.record
    host, accelerator, driver = record.host, record.accelerator, record.driver
    build = driver and _one(
        session,
        models.DriverBuild,
        {"sha256": driver.sha256},
        {"name": driver.name, "version": driver.version, "files": list(driver.files)},
    )
    verdict = record.verdict
    return models.Run(
        name=record.run_id,
        folder=str(snapshot.folder),
        machine=machine(),
        digest=snapshot.digest,
        troubles=list(snapshot.troubles),
        started=record.started,
        ended=record.ended,
        ended_how=record.ended_how,
        command=record.command,
        profile=record.profile,
        guest_label=record.guest_label,
        intensity=record.intensity,
        workers=record.workers,
        accelerator=accelerator and accelerator.name,
        emulator=accelerator and accelerator.emulator,
        emulator_version=accelerator and accelerator.emulator_version,
        accelerator_why=accelerator and accelerator.why,
        driver_basename=driver and driver.basename,
        versions=record.versions,
        errata=[issue.model_dump(mode="json") for issue in record.errata],
        status=verdict and verdict.status,
        exit_code=verdict and verdict.exit_code,
        reasons=list(verdict.reasons) if verdict else [],
        host_id=_one(session, models.Host, host.model_dump(), {}).id,
        driver_id=build.id if build else None,
    )


def _one(session: Session, table: type[_Row], key: dict[str, Any], rest: dict[str, Any]) -> _Row:
    """The row of a key, made if need be."""
    row = session.scalar(select(table).filter_by(**key))
    if row is None:
        row = table(**key, **rest)
        session.add(row)
        session.flush()
    return row


def _put_tests(session: Session, run_id: int, snapshot: Snapshot) -> None:
    tests = snapshot.record.tests
    ids = _test_ids(session, (test.id for test in tests))
    rows = []
    for position, test in enumerate(tests):
        manifest = snapshot.manifests.get(test.id)
        rows.append(
            models.TestOutcome(
                run_id=run_id,
                test_id=ids[plain(test.id)],
                position=position,
                area=test.area,
                outcome=test.outcome,
                blame=test.blame,
                phase=test.phase,
                seconds=test.seconds,
                expected_seconds=test.expected_seconds,
                message=test.message,
                evidence=test.evidence,
                evidence_complete=manifest is not None and manifest.complete,
                properties=test.properties,
            )
        )
    session.add_all(rows)
    session.flush()
    for test, row in zip(tests, rows, strict=True):
        if test.campaign is not None:
            campaign = test.campaign.model_dump() | {
                "failed_seeds": list(test.campaign.failed_seeds)
            }
            session.add(models.Campaign(outcome_id=row.id, **campaign))
        session.add_all(_pieces(row.id, snapshot.manifests.get(test.id)))
        session.add_all(
            _crash(session, row.id, position, fact)
            for position, fact in enumerate(snapshot.crashes.get(test.id, ()))
        )
    session.flush()


def _test_ids(session: Session, names: Iterable[str]) -> dict[str, int]:
    """Of tests by node id; those that are new are added."""
    wanted = sorted({plain(name) for name in names})
    known: dict[str, int] = {}
    for first in range(0, len(wanted), _AT_ONCE):
        some = wanted[first : first + _AT_ONCE]
        found = session.execute(
            select(models.Test.node_id, models.Test.id).where(models.Test.node_id.in_(some))
        )
        known |= {name: key for name, key in found}
    new = [models.Test(node_id=name) for name in wanted if name not in known]
    session.add_all(new)
    session.flush()
    return known | {test.node_id: test.id for test in new}


def _pieces(outcome_id: int, manifest: Manifest | None) -> Iterator[models.Evidence]:
    for position, piece in enumerate(manifest.pieces if manifest is not None else ()):
        yield models.Evidence(outcome_id=outcome_id, position=position, **piece.model_dump())


def _crash(session: Session, outcome_id: int, position: int, fact: CrashFact) -> models.Crash:
    own = signatures.signature(fact)
    fields, frames, lines = fullness(fact)
    return models.Crash(
        outcome_id=outcome_id,
        bucket_id=_one(session, models.Bucket, {"key": own.key}, {}).id,
        position=position,
        fields=fields,
        frames=frames,
        lines=lines,
        text=own.text(),
        signature=signatures.to_json(own),
        fact=facts_module.to_json(fact),
    )
