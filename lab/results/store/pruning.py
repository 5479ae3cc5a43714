"""Retention: old runs are removed, folder and rows, unless something refers to them.

A folder is first renamed out of sight, in the transaction that removes its rows, and then
deleted. A kill between those steps leaves a hidden folder, which the next prune or import
deals with: ``tidy``.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from lab.core.errors import UsageError
from lab.results.folder import LATEST
from lab.results.record import RECORD_NAME
from lab.results.store import models
from lab.results.store.documents import forget_lost_gates
from lab.results.store.engine import Store
from lab.results.store.queries import best_first
from lab.results.store.rows import machine, sweep
from lab.results.store.types import plain

HIDDEN = ".pruned-"

MAY_RUN = timedelta(days=1)
"""A run without an end is left alone as long as its record changed within this time: its tests
are minutes long, and the record is written after each."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """What became of one run.

    Attributes:
        run: its name.
        folder: it.
        started: UTC.
        removed: whether it was removed, or would be, where nothing is to be changed.
        bytes: what its folder takes on disk; 0 for a run that stays.
        why: it stays though it is old enough to go; or could not be removed.
        failed: whether removing it failed.
    """

    run: str
    folder: Path
    started: datetime
    removed: bool
    bytes: int = 0
    why: str = ""
    failed: bool = False


def prune(
    store: Store,
    results: Path,
    *,
    keep: int | None = None,
    younger_than: timedelta | None = None,
    dry_run: bool = False,
    now: datetime | None = None,
    progress: Callable[[Pruned], None] | None = None,
) -> list[Pruned]:
    """Remove runs of a results folder that are neither new enough nor referred to.

    A run stays that holds the best sample of a bucket, that a gate rests on, that belongs to an
    unfinished nightly plan, that ``latest`` points at, or that may still be going on. Runs whose
    folders are elsewhere, or on another machine, are left alone. A gate is forgotten, so that its
    runs can go, once somebody has removed its document from the results folder.

    Args:
        store: where.
        results: the results folder; what is new in it should be imported already.
        keep: the newest so many stay.
        younger_than: those that started within this time stay.
        dry_run: change nothing, only tell.
        now: the moment from which age is counted.
        progress: told after each run that is old enough to go.

    Returns:
        The runs that are old enough to go, the oldest first, and what became of each.

    Raises:
        UsageError: neither ``keep`` nor ``younger_than`` is given, or a number is negative.
        LabBroken: the store cannot be used.
    """
    if keep is None and younger_than is None:
        raise UsageError("what should stay?", hint="--keep N, --days D or both")
    if (keep or 0) < 0 or (younger_than or timedelta()) < timedelta():
        raise UsageError("less than nothing cannot be kept")
    moment = now or datetime.now(UTC)
    if not dry_run:
        tidy(store, results)
        forget_lost_gates(store, results)
    root = results.resolve()
    with store.read() as session:
        rows = session.execute(
            select(models.Run.name, models.Run.folder, models.Run.started)
            .where(models.Run.machine == machine())
            .order_by(models.Run.started.desc(), models.Run.name.desc())
        ).all()
    ours = [row for row in rows if Path(row.folder).parent == root]
    old = [
        (name, Path(folder), started)
        for _, (name, folder, started) in list(enumerate(ours))[keep or 0 :]
        if younger_than is None or started <= moment - younger_than
    ]
    done = []
    for name, folder, started in reversed(old):
        if dry_run:
            with store.read() as session:
                why = why_kept(session, name, folder, moment)
            size = 0 if why else _size(folder)
            done.append(Pruned(name, folder, started, not why, size, why))
        else:
            done.append(_remove(store, name, folder, started, moment))
        if progress is not None:
            progress(done[-1])
    return done


def why_kept(session: Session, name: str, folder: Path, now: datetime) -> str:
    """Why a run must stay, in words; nothing when it may go.

    Args:
        session: on the store.
        name: of the run.
        folder: the run's.
        now: the moment from which age is counted.
    """
    if gate := session.scalar(
        select(models.Gate.key)
        .join(models.GateRun, models.GateRun.gate_id == models.Gate.id)
        .where(models.GateRun.run_name == name)
        .order_by(models.Gate.key)
        .limit(1)
    ):
        return f"the gate {gate} rests on it"
    if plan := session.scalar(
        select(models.NightlyPlan.key)
        .join(models.NightlyItem, models.NightlyItem.plan_id == models.NightlyPlan.id)
        .join(models.NightlyAttempt, models.NightlyAttempt.item_id == models.NightlyItem.id)
        .where(
            models.NightlyPlan.closed.is_(None),
            or_(models.NightlyItem.run_name == name, models.NightlyAttempt.run_name == name),
        )
        .limit(1)
    ):
        return f"it belongs to the unfinished plan {plan}"
    if bucket := _sample_of(session, name):
        return f"it holds the best sample of bucket {bucket}"
    latest = folder.parent / LATEST
    if latest.is_symlink() and latest.resolve() == folder:
        return "it is the latest run"
    unfinished = session.scalar(
        select(models.Run.id).where(models.Run.name == name, models.Run.ended.is_(None))
    )
    if unfinished is not None:
        with contextlib.suppress(OSError):
            changed = datetime.fromtimestamp((folder / RECORD_NAME).stat().st_mtime, UTC)
            if changed > now - MAY_RUN:
                return "it has not ended and may still be going on"
    return ""


def tidy(store: Store, results: Path) -> None:
    """Finish what a killed ``prune`` began: remove runs that it had put away, or put them back.

    Args:
        store: where.
        results: the results folder.

    Raises:
        LabBroken: the store cannot be used.
    """
    try:
        with os.scandir(results) as entries:
            names = sorted(one.name for one in entries if one.name.startswith(HIDDEN))
    except OSError:
        return
    for name in names:
        hidden = results.resolve() / name
        folder = hidden.with_name(name.removeprefix(HIDDEN))
        with store.write(exclusive=True) as session:
            row = session.scalar(
                select(models.Run).where(
                    models.Run.folder == plain(str(folder)), models.Run.machine == machine()
                )
            )
            if row is not None and not folder.exists():
                # The rows of a run and its gates may have changed since.
                if why_kept(session, row.name, folder, datetime.now(UTC)):
                    with contextlib.suppress(OSError):
                        hidden.rename(folder)
                    continue
                session.delete(row)
                sweep(session)
        shutil.rmtree(hidden, ignore_errors=True)


def _remove(store: Store, name: str, folder: Path, started: datetime, now: datetime) -> Pruned:
    size = _size(folder)
    hidden = folder.with_name(HIDDEN + folder.name)
    renamed = False
    try:
        with store.write(exclusive=True) as session:
            row = session.scalar(
                select(models.Run).where(
                    models.Run.name == name, models.Run.folder == plain(str(folder))
                )
            )
            if row is None:
                return Pruned(name, folder, started, False, why="somebody else removed it")
            if why := why_kept(session, name, folder, now):
                return Pruned(name, folder, started, False, why=why)
            with contextlib.suppress(FileNotFoundError):
                folder.rename(hidden)
                renamed = True
            session.delete(row)
            sweep(session)
    except OSError as error:
        why = f"{folder}: cannot be removed: {error.strerror}"
        return Pruned(name, folder, started, False, why=why, failed=True)
    except BaseException:
        if renamed:
            hidden.rename(folder)
        raise
    shutil.rmtree(hidden, ignore_errors=True)
    if hidden.exists():
        why = f"{hidden}: not all of it could be removed"
        return Pruned(name, folder, started, True, size, why, failed=True)
    return Pruned(name, folder, started, True, size)


def _sample_of(session: Session, name: str) -> str | None:
    """Key of a bucket whose best sample is in a run."""
    buckets = session.execute(
        select(models.Bucket.id, models.Bucket.key)
        .join(models.Crash, models.Crash.bucket_id == models.Bucket.id)
        .join(models.TestOutcome, models.TestOutcome.id == models.Crash.outcome_id)
        .join(models.Run, models.Run.id == models.TestOutcome.run_id)
        .where(models.Run.name == name)
        .order_by(models.Bucket.key)
        .distinct()
    ).all()
    for bucket, key in buckets:
        best = session.scalar(
            select(models.Run.name)
            .join(models.TestOutcome, models.TestOutcome.run_id == models.Run.id)
            .join(models.Crash, models.Crash.outcome_id == models.TestOutcome.id)
            .where(models.Crash.bucket_id == bucket)
            .order_by(*best_first())
            .limit(1)
        )
        if best == name:
            return key
    return None


def _size(folder: Path) -> int:
    """What a folder takes on disk, in bytes: cores have holes."""
    size = 0
    for path, _, files in os.walk(folder):
        for file in files:
            with contextlib.suppress(OSError):
                # Blocks of 512 bytes (stat(2)).
                size += os.lstat(os.path.join(path, file)).st_blocks * 512
    return size
