"""Snapshots of run folders as rows of the store."""

from __future__ import annotations

import enum
import platform
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import delete, exists, func, select
from sqlalchemy.orm import Session

from lab.core.errors import UsageError
from lab.crash import facts as facts_module
from lab.crash import signature as signatures
from lab.crash.facts import CrashFact
from lab.crash.incidents import fullness
from lab.evidence.manifest import Manifest
from lab.results.record import RECORD_NAME, Driver, TestRecord
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
    # Asked within the transaction: ``prune`` puts folders away in one of its own.
    if not (snapshot.folder / RECORD_NAME).is_file():
        raise UsageError(f"{snapshot.folder}: is gone")
    place = (plain(str(snapshot.folder)), machine())
    # A folder holds one run: another one that was in it is gone.
    others = session.scalars(
        select(models.Run).where(
            models.Run.folder == place[0],
            models.Run.machine == place[1],
            models.Run.name != snapshot.record.run_id,
        )
    ).all()
    for other in others:
        session.delete(other)
    became = _put(session, snapshot, place)
    if others or became is Became.REPLACED:
        sweep(session)
    return became


def _put(session: Session, snapshot: Snapshot, place: tuple[str, str]) -> Became:
    record = snapshot.record
    old = session.scalar(select(models.Run).where(models.Run.name == record.run_id))
    if old is not None:
        here = (old.folder, old.machine) == place
        # Of a run's two folders on this machine the first one counts.
        copy = not here and old.machine == place[1] and Path(old.folder).is_dir()
        if old.digest == snapshot.digest:
            if here or copy:
                return Became.UNCHANGED
            old.folder, old.machine = place
            return Became.REPLACED
        tests = session.scalar(select(func.count()).where(models.TestOutcome.run_id == old.id))
        known = (old.ended is not None, tests or 0)
        if snapshot.progress < known or (copy and snapshot.progress == known):
            return Became.STALE
        session.delete(old)
        session.flush()
    run = _run_row(session, snapshot)
    session.add(run)
    session.flush()
    for name, image in sorted(record.images.items()):
        row = _one(session, models.Image, {"key": image.key}, {"versions": image.versions})
        session.add(models.RunImage(run_id=run.id, name=name, image_id=row.id))
    _put_tests(session, run, snapshot)
    return Became.NEW if old is None else Became.REPLACED


def sweep(session: Session) -> None:
    """Remove what no run refers to any more, once runs were removed or replaced."""
    session.flush()
    builds = models.DriverBuild.id
    for table, unreferred in (
        (models.Bucket, ~exists().where(models.Crash.bucket_id == models.Bucket.id)),
        (models.Test, ~exists().where(models.TestOutcome.test_id == models.Test.id)),
        (models.Image, ~exists().where(models.RunImage.image_id == models.Image.id)),
        (models.Host, ~exists().where(models.Run.host_id == models.Host.id)),
        (
            # An outcome's build is its run's, or that run's baseline.
            models.DriverBuild,
            ~exists().where(models.Run.driver_id == builds)
            & ~exists().where(models.Run.baseline_id == builds),
        ),
    ):
        session.execute(
            delete(table).where(unreferred), execution_options={"synchronize_session": False}
        )


def _run_row(session: Session, snapshot: Snapshot) -> models.Run:
    record = snapshot.record
    host, accelerator, driver = record.host, record.accelerator, record.driver
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
        driver_id=_build_id(session, driver),
        baseline_id=_build_id(session, record.baseline),
    )


def _build_id(session: Session, driver: Driver | None) -> int | None:
    if driver is None:
        return None
    rest = {"name": driver.name, "version": driver.version, "files": list(driver.files)}
    return _one(session, models.DriverBuild, {"sha256": driver.sha256}, rest).id


def _one(session: Session, table: type[_Row], key: dict[str, Any], rest: dict[str, Any]) -> _Row:
    """The row of a key, made if need be."""
    row = session.scalar(select(table).filter_by(**key))
    if row is None:
        row = table(**key, **rest)
        session.add(row)
        session.flush()
    return row


def _put_tests(session: Session, run: models.Run, snapshot: Snapshot) -> None:
    tests = snapshot.record.tests
    ids = _test_ids(session, (_test(test) for test in tests))
    rows = []
    for position, test in enumerate(tests):
        manifest, turn = snapshot.manifests.get(test.id), test.turn
        rows.append(
            models.TestOutcome(
                run_id=run.id,
                test_id=ids[plain(_test(test))],
                driver_id=run.baseline_id if turn and turn.driver == "baseline" else run.driver_id,
                record_id=test.id,
                side=turn.driver if turn else None,
                repeat=turn.repeat if turn else None,
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


def _test(test: TestRecord) -> str:
    """Node id of a test, whatever its turn is."""
    return test.turn.test if test.turn else test.id


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
