"""What can be asked of the store; answers are plain values, good after it is closed."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session

from lab.core.errors import UsageError
from lab.results.record import Outcome
from lab.results.store import models
from lab.results.store.answers import (
    BucketRow,
    CampaignRow,
    Cell,
    CrashRow,
    DriverRow,
    Failure,
    GateRow,
    MutantsRow,
    Night,
    Piece,
    RunDetail,
    RunRow,
    TestRow,
)
from lab.results.store.engine import Store
from lab.results.store.models import ItemState
from lab.results.store.types import plain

_AT_ONCE = 500

_AS_IT_RAN = (models.TestOutcome.position.asc(), models.Crash.position.asc())


def runs(
    store: Store,
    *,
    limit: int | None = None,
    driver: str | None = None,
    since: datetime | None = None,
    names: Collection[str] | None = None,
) -> list[RunRow]:
    """Runs, the newest first.

    Args:
        store: where.
        limit: at most so many.
        driver: only of this build: the start of its SHA-256, its name, or its version.
        since: only those that started then or later.
        names: only these.
    """
    where: list[ColumnElement[bool]] = []
    if driver is not None:
        builds = models.DriverBuild
        where.append(
            or_(
                builds.sha256.startswith(driver, autoescape=True),
                builds.name == driver,
                builds.version == driver,
            )
        )
    if since is not None:
        where.append(models.Run.started >= since)
    with store.read() as session:
        if names is None:
            return _run_rows(session, *where, limit=limit)
        found: list[RunRow] = []
        for some in _portions(names):
            found += _run_rows(session, *where, models.Run.name.in_(some))
        found.sort(key=lambda row: (row.started, row.name), reverse=True)
        return found[:limit]


def run(store: Store, name: str) -> RunDetail:
    """All that is known of a run.

    Args:
        store: where.
        name: the run's, or the start of it where that is enough.

    Raises:
        UsageError: there is none, or several.
    """
    with store.read() as session:
        query = select(models.Run).where(models.Run.name.startswith(plain(name), autoescape=True))
        found = session.scalars(query.order_by(models.Run.name).limit(3)).all()
        exact = [one for one in found if one.name == name]
        if len(exact or found) != 1:
            some = f"such as {found[0].name} and {found[1].name}" if found else ""
            raise UsageError(
                f"several runs begin with {name}, {some}" if found else f"no run {name}",
                hint="" if found else "pvlab results list shows them",
            )
        row = (exact or found)[0]
        host = session.get_one(models.Host, row.host_id)
        images = session.execute(
            select(models.RunImage.name, models.Image.key)
            .join(models.Image, models.Image.id == models.RunImage.image_id)
            .where(models.RunImage.run_id == row.id)
            .order_by(models.RunImage.name)
        )
        gates = session.scalars(
            select(models.Gate.key)
            .join(models.GateRun, models.GateRun.gate_id == models.Gate.id)
            .where(models.GateRun.run_name == row.name)
            .order_by(models.Gate.created)
        )
        plans = session.scalars(
            select(models.NightlyPlan.key)
            .join(models.NightlyItem, models.NightlyItem.plan_id == models.NightlyPlan.id)
            .where(models.NightlyItem.run_name == row.name)
        )
        return RunDetail(
            row=_run_rows(session, models.Run.id == row.id)[0],
            host={
                "kernel": host.kernel,
                "os": host.os,
                "cpus": host.cpus,
                "memory_mib": host.memory_mib,
            },
            images={name: key for name, key in images},
            versions=row.versions,
            errata=tuple(row.errata),
            tests=tuple(_cells(session, models.TestOutcome.run_id == row.id)),
            failures=tuple(_failures(session, models.TestOutcome.run_id == row.id, *_failed())),
            gates=tuple(gates),
            plans=tuple(plans),
        )


def cells(store: Store, names: Iterable[str]) -> list[Cell]:
    """How every test ended in some runs: by run as they are named, then as it ran.

    Args:
        store: where.
        names: of the runs; those that are not in the store give nothing.
    """
    order = {name: place for place, name in enumerate(names)}
    with store.read() as session:
        found = [
            cell for some in _portions(order) for cell in _cells(session, models.Run.name.in_(some))
        ]
    return sorted(found, key=lambda cell: order[cell.run])


def history(store: Store, test: str, *, limit: int | None = None) -> list[tuple[RunRow, Cell]]:
    """All outcomes of a test, the newest first.

    Args:
        store: where.
        test: pytest's node id.
        limit: at most so many.
    """
    with store.read() as session:
        found = _cells(session, models.Test.node_id == test, newest_first=True, limit=limit)
        rows = {
            row.name: row
            for some in _portions(cell.run for cell in found)
            for row in _run_rows(session, models.Run.name.in_(some))
        }
    return [(rows[cell.run], cell) for cell in found]


def failures(
    store: Store, names: Iterable[str] | None = None, *, limit: int | None = None
) -> list[Failure]:
    """Tests that failed, with evidence and crashes, the newest runs first.

    Args:
        store: where.
        names: of runs; all of them if None.
        limit: at most so many.
    """
    with store.read() as session:
        if names is None:
            return _failures(session, *_failed(), limit=limit)
        found = [
            failure
            for some in _portions(names)
            for failure in _failures(session, models.Run.name.in_(some), *_failed())
        ]
    # Stable: within a run the order stays that of the run.
    found.sort(key=lambda one: (one.started, one.cell.run), reverse=True)
    return found[:limit]


def nights(store: Store, *, limit: int | None = None, days: bool = True) -> list[Night]:
    """Nights, the newest first.

    Args:
        store: where.
        limit: at most so many.
        days: runs that belong to no plan make nights too, one for each date in UTC.
    """
    with store.read() as session:
        found = []
        by_plan: dict[int, list[str]] = defaultdict(list)
        counted = session.execute(
            select(models.NightlyItem.plan_id, models.NightlyItem.run_name)
            .where(
                models.NightlyItem.run_name.is_not(None),
                models.NightlyItem.state.in_((ItemState.DONE, ItemState.LAB_FAILED)),
            )
            .order_by(models.NightlyItem.position)
        )
        for plan, name in counted:
            by_plan[plan].append(name or "")
        for row in session.scalars(select(models.NightlyPlan)):
            names = tuple(by_plan[row.id])
            found.append(Night(row.key, True, row.created, row.closed, names))
        if days:
            planned = select(models.NightlyAttempt.run_name).where(
                models.NightlyAttempt.run_name.is_not(None)
            )
            loose = session.execute(
                select(models.Run.name, models.Run.started)
                .where(models.Run.name.not_in(planned))
                .order_by(models.Run.started, models.Run.name)
            )
            by_day: dict[str, list[tuple[str, datetime]]] = defaultdict(list)
            for name, started in loose:
                by_day[f"{started:%Y-%m-%d}"].append((name, started))
            for day, some in by_day.items():
                names = tuple(name for name, _ in some)
                found.append(Night(day, False, some[0][1], None, names))
    found.sort(key=lambda night: (night.started, night.key), reverse=True)
    return found[:limit]


def buckets(store: Store) -> list[BucketRow]:
    """Buckets of crashes, the one that was seen last first."""
    by_key: dict[str, list[CrashRow]] = defaultdict(list)
    with store.read() as session:
        for _, row in _crashes(session, order=best_first()):
            by_key[row.bucket].append(row)
    found = [
        BucketRow(
            key=key,
            text=rows[0].text,
            count=len(rows),
            first_seen=min(row.started for row in rows),
            last_seen=max(row.started for row in rows),
            builds=_counted(row.driver.sha256 for row in rows if row.driver),
            tests=_counted(row.test for row in rows),
            sample=rows[0],
        )
        for key, rows in by_key.items()
    ]
    return sorted(found, key=lambda one: (one.last_seen, one.key), reverse=True)


def crashes(store: Store, bucket: str | None = None) -> list[CrashRow]:
    """Crashes, the newest first.

    Args:
        store: where.
        bucket: only of this one: its key, or the start of it.
    """
    where: list[ColumnElement[bool]] = []
    if bucket is not None:
        where.append(models.Bucket.key.startswith(bucket, autoescape=True))
    order = (models.Run.started.desc(), models.Run.name.desc(), *_AS_IT_RAN)
    with store.read() as session:
        return [row for _, row in _crashes(session, *where, order=order)]


def gates(store: Store, *, limit: int | None = None) -> list[GateRow]:
    """Gates, the newest first."""
    with store.read() as session:
        return _gates(session, limit=limit)


def gate(store: Store, key: str) -> GateRow | None:
    """The gate of this name."""
    with store.read() as session:
        return next(iter(_gates(session, models.Gate.key == key)), None)


def mutants(store: Store) -> list[MutantsRow]:
    """Documents of ``pvlab mutants``, the newest first."""
    query = select(models.MutantsReport).order_by(models.MutantsReport.recorded.desc())
    with store.read() as session:
        return [MutantsRow(row.recorded, row.document) for row in session.scalars(query)]


def tests(store: Store) -> list[TestRow]:
    """All tests that ever ran, by node id."""
    query = (
        select(
            models.Test.node_id,
            models.TestOutcome.area,
            models.TestOutcome.outcome,
            models.TestOutcome.seconds,
            models.Run.started,
        )
        .join(models.TestOutcome, models.TestOutcome.test_id == models.Test.id)
        .join(models.Run, models.Run.id == models.TestOutcome.run_id)
        .order_by(models.Run.started, models.Run.name)
    )
    seconds: dict[str, list[float]] = defaultdict(list)
    counted: dict[str, int] = defaultdict(int)
    newest: dict[str, tuple[str, datetime]] = {}
    with store.read() as session:
        for node_id, area, outcome, took, started in session.execute(query):
            counted[node_id] += 1
            newest[node_id] = (area, started)
            if outcome is not Outcome.SKIPPED:
                seconds[node_id].append(took)
    return [
        TestRow(
            id=node_id,
            area=newest[node_id][0],
            outcomes=counted[node_id],
            last_run=newest[node_id][1],
            median_seconds=statistics.median(seconds[node_id]) if seconds[node_id] else None,
        )
        for node_id in sorted(counted)
    ]


def drivers(store: Store) -> list[DriverRow]:
    """All driver builds that were tested, by name, version and hash."""
    builds = models.DriverBuild
    query = select(builds).order_by(builds.name, builds.version, builds.sha256)
    with store.read() as session:
        return [_driver(row) for row in session.scalars(query)]


def best_first() -> tuple[ColumnElement[Any], ...]:
    """Sorts the best sample of a bucket first: the fullest account, and of those the oldest."""
    crash = models.Crash
    return (
        crash.fields.desc(),
        crash.frames.desc(),
        crash.lines.desc(),
        models.Run.started.asc(),
        models.Run.name.asc(),
        models.TestOutcome.position.asc(),
        crash.position.asc(),
    )


def _failed() -> tuple[ColumnElement[bool], ...]:
    return (models.TestOutcome.outcome.in_((Outcome.FAILED, Outcome.ERROR)),)


def _portions(names: Iterable[str]) -> Iterator[Sequence[str]]:
    whole = list(dict.fromkeys(names))
    for first in range(0, len(whole), _AT_ONCE):
        yield whole[first : first + _AT_ONCE]


def _counted(names: Iterable[str]) -> dict[str, int]:
    counted: dict[str, int] = defaultdict(int)
    for name in names:
        counted[name] += 1
    return dict(sorted(counted.items(), key=lambda one: (-one[1], one[0])))


def _driver(row: models.DriverBuild) -> DriverRow:
    return DriverRow(row.sha256, row.name, row.version)


def _run_rows(
    session: Session, *where: ColumnElement[bool], limit: int | None = None
) -> list[RunRow]:
    query = (
        select(models.Run, models.DriverBuild)
        .outerjoin(models.DriverBuild, models.DriverBuild.id == models.Run.driver_id)
        .where(*where)
        .order_by(models.Run.started.desc(), models.Run.name.desc())
        .limit(limit)
    )
    found = session.execute(query).all()
    counts: dict[int, dict[Outcome, int]] = defaultdict(dict)
    keys = [row.id for row, _ in found]
    outcomes = models.TestOutcome
    for first in range(0, len(keys), _AT_ONCE):
        counted = session.execute(
            select(outcomes.run_id, outcomes.outcome, func.count())
            .where(outcomes.run_id.in_(keys[first : first + _AT_ONCE]))
            .group_by(outcomes.run_id, outcomes.outcome)
        )
        for key, outcome, count in counted:
            counts[key][outcome] = count
    return [
        RunRow(
            name=row.name,
            folder=row.folder,
            machine=row.machine,
            started=row.started,
            ended=row.ended,
            ended_how=row.ended_how,
            status=row.status,
            reasons=tuple(row.reasons),
            profile=row.profile,
            guest_label=row.guest_label,
            intensity=row.intensity,
            accelerator=row.accelerator,
            command=row.command,
            driver=_driver(driver) if driver is not None else None,
            counts={one: counts[row.id][one] for one in Outcome if one in counts[row.id]},
            troubles=tuple(row.troubles),
        )
        for row, driver in found
    ]


def _cells(
    session: Session,
    *where: ColumnElement[bool],
    newest_first: bool = False,
    limit: int | None = None,
) -> list[Cell]:
    return [cell for _, cell in _outcomes(session, *where, newest_first=newest_first, limit=limit)]


# Columns rather than rows of the models: hundreds of thousands are read at once.
_CELL = (
    models.Run.name,
    models.Test.node_id,
    models.TestOutcome.area,
    models.TestOutcome.outcome,
    models.TestOutcome.blame,
    models.TestOutcome.phase,
    models.TestOutcome.seconds,
    models.TestOutcome.expected_seconds,
    models.TestOutcome.message,
    models.TestOutcome.evidence,
    models.TestOutcome.evidence_complete,
    models.TestOutcome.properties,
    models.Campaign,
)


def _outcomes(
    session: Session, *where: ColumnElement[bool], newest_first: bool, limit: int | None
) -> list[tuple[tuple[int, datetime, str], Cell]]:
    """Outcomes, each with its row's id, and its run's start and folder."""
    started = models.Run.started.desc() if newest_first else models.Run.started
    query = (
        select(models.TestOutcome.id, models.Run.started, models.Run.folder, *_CELL)
        .join(models.Test, models.Test.id == models.TestOutcome.test_id)
        .join(models.Run, models.Run.id == models.TestOutcome.run_id)
        .outerjoin(models.Campaign, models.Campaign.outcome_id == models.TestOutcome.id)
        .where(*where)
        .order_by(started, models.Run.name, models.TestOutcome.position)
        .limit(limit)
    )
    return [
        (
            (key, began, folder),
            Cell(
                run=name,
                test=node_id,
                area=area,
                outcome=outcome,
                blame=blame,
                phase=phase,
                seconds=seconds,
                expected_seconds=expected,
                message=message,
                evidence=evidence,
                evidence_complete=complete,
                campaign=_campaign(campaign),
                properties=properties,
            ),
        )
        for (
            key, began, folder, name, node_id, area, outcome, blame, phase, seconds, expected,
            message, evidence, complete, properties, campaign,
        ) in session.execute(query)
    ]  # fmt: skip


def _campaign(row: models.Campaign | None) -> CampaignRow | None:
    if row is None:
        return None
    return CampaignRow(
        attempts=row.attempts,
        failures=row.failures,
        failed_seeds=tuple(row.failed_seeds),
        limit=row.limit,
        confidence=row.confidence,
        least=row.least,
        most=row.most,
        answer=row.answer,
    )


def _failures(
    session: Session, *where: ColumnElement[bool], limit: int | None = None
) -> list[Failure]:
    found = _outcomes(session, *where, newest_first=True, limit=limit)
    keys = [key for (key, _, _), _ in found]
    pieces: dict[int, list[models.Evidence]] = defaultdict(list)
    crashed: dict[int, list[CrashRow]] = defaultdict(list)
    for first in range(0, len(keys), _AT_ONCE):
        some = keys[first : first + _AT_ONCE]
        for piece in session.scalars(
            select(models.Evidence)
            .where(models.Evidence.outcome_id.in_(some))
            .order_by(models.Evidence.position)
        ):
            pieces[piece.outcome_id].append(piece)
        for crash, row in _crashes(session, models.Crash.outcome_id.in_(some), order=_AS_IT_RAN):
            crashed[crash.outcome_id].append(row)
    return [
        Failure(
            cell=cell,
            started=started,
            folder=folder,
            pieces=tuple(_piece(one, cell.evidence or "") for one in pieces[key]),
            crashes=tuple(crashed[key]),
        )
        for (key, started, folder), cell in found
    ]


def _piece(row: models.Evidence, folder: str) -> Piece:
    return Piece(
        name=row.name,
        path=f"{folder}/{row.path}" if row.path is not None else None,
        bytes=row.bytes,
        sha256=row.sha256,
        error=row.error,
        truncated=row.truncated,
    )


def _crashes(
    session: Session, *where: ColumnElement[bool], order: Sequence[ColumnElement[Any]]
) -> list[tuple[models.Crash, CrashRow]]:
    query = (
        select(
            models.Crash,
            models.Bucket.key,
            models.Run.name,
            models.Run.started,
            models.Test.node_id,
            models.DriverBuild,
        )
        .join(models.Bucket, models.Bucket.id == models.Crash.bucket_id)
        .join(models.TestOutcome, models.TestOutcome.id == models.Crash.outcome_id)
        .join(models.Test, models.Test.id == models.TestOutcome.test_id)
        .join(models.Run, models.Run.id == models.TestOutcome.run_id)
        .outerjoin(models.DriverBuild, models.DriverBuild.id == models.Run.driver_id)
        .where(*where)
        .order_by(*order)
    )
    return [
        (
            crash,
            CrashRow(
                bucket=key,
                run=name,
                test=node_id,
                started=started,
                driver=_driver(driver) if driver is not None else None,
                text=crash.text,
                signature=crash.signature,
                fact=crash.fact,
            ),
        )
        for crash, key, name, started, node_id, driver in session.execute(query)
    ]


def _gates(
    session: Session, *where: ColumnElement[bool], limit: int | None = None
) -> list[GateRow]:
    query = select(models.Gate).where(*where)
    query = query.order_by(models.Gate.created.desc(), models.Gate.key).limit(limit)
    rows = session.scalars(query).all()
    named: dict[int, dict[str, str]] = defaultdict(dict)
    query_runs = select(models.GateRun).join(models.Gate, models.Gate.id == models.GateRun.gate_id)
    for one in session.scalars(query_runs.where(*where).order_by(models.GateRun.run_name)):
        named[one.gate_id][one.run_name] = one.role
    return [
        GateRow(
            key=row.key,
            created=row.created,
            status=row.status,
            driver=row.driver_sha256,
            baseline=row.baseline_sha256,
            runs=named[row.id],
            path=row.path,
            document=row.document,
        )
        for row in rows
    ]
