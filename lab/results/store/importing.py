"""Run folders into the store, as often as one likes: the folders are the source of truth."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from lab.core.errors import UsageError
from lab.results.record import RECORD_NAME
from lab.results.store import models
from lab.results.store.documents import GATE_NAME, MUTANTS_NAME, import_document
from lab.results.store.engine import Store, reason
from lab.results.store.pruning import tidy
from lab.results.store.reading import read_snapshot
from lab.results.store.rows import Became, machine, put_run
from lab.results.store.types import plain

RUN_NAME = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{6}(?:-.*)?")
"""Names that ``lab.results.folder.new_run_id`` gives, with or without a word for people."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of one folder, or of the document of a gate or of mutants.

    Attributes:
        folder: it.
        run: name of the run or gate; empty when it is damaged, or of mutants.
        became: what.
        troubles: why it is damaged, or which evidence is; one line each.
    """

    folder: Path
    run: str
    became: Became
    troubles: tuple[str, ...] = ()


def run_folders(folder: Path) -> list[Path]:
    """The run folders that a path means: itself, or those in it, the oldest first.

    A folder named like a run counts even where it has no record, so that its loss is seen;
    unless it is a gate's.

    Raises:
        UsageError: it is no folder, or cannot be read.
    """
    if (folder / RECORD_NAME).is_file() or RUN_NAME.fullmatch(folder.resolve().name):
        return [folder.resolve()]
    try:
        with os.scandir(folder) as entries:
            names = sorted(one.name for one in entries if one.is_dir(follow_symlinks=False))
    except OSError as error:
        raise UsageError(f"{folder}: cannot be read: {error.strerror}") from None
    return [
        folder.resolve() / name
        for name in names
        if (folder / name / RECORD_NAME).is_file()
        or (RUN_NAME.fullmatch(name) and not (folder / name / GATE_NAME).is_file())
    ]


def import_results(
    store: Store, folders: Iterable[Path], *, progress: Callable[[Imported], None] | None = None
) -> list[Imported]:
    """Import folders of results, or of runs, or documents; what has not changed stays as it is.

    Each run is a transaction of its own, so a kill loses the run it was at, until the next time.

    Args:
        store: where to.
        folders: results folders, runs' own, and documents of gates or mutants.
        progress: told after each run.

    Raises:
        LabBroken: the store cannot be used.
    """
    done = []
    for given in folders:
        for one in _import(store, given):
            done.append(one)
            if progress is not None:
                progress(one)
    return done


def _import(store: Store, given: Path) -> Iterator[Imported]:
    if given.is_file() and given.name != RECORD_NAME:
        yield _import_document(store, given)
        return
    tidy(store, given)
    try:
        folders = run_folders(given.parent if given.is_file() else given)
    except UsageError as error:
        yield Imported(given, "", Became.DAMAGED, (error.message,))
        return
    for folder in folders:
        yield import_run(store, folder)
    for file in (given / MUTANTS_NAME, given / GATE_NAME, *sorted(given.glob(f"*/{GATE_NAME}"))):
        if file.is_file():
            yield _import_document(store, file)


def _import_document(store: Store, file: Path) -> Imported:
    try:
        key, changed = import_document(store, file)
    except UsageError as error:
        return Imported(file, "", Became.DAMAGED, (error.message,))
    return Imported(file, key, Became.NEW if changed else Became.UNCHANGED)


def import_run(store: Store, folder: Path) -> Imported:
    """Import one run.

    Args:
        store: where to.
        folder: the run's.

    Returns:
        What became of it; damage is told there and raises nothing.

    Raises:
        LabBroken: the store cannot be used.
    """
    try:
        with store.read() as session:
            known = session.execute(
                select(models.Run.name, models.Run.digest).where(
                    models.Run.folder == plain(str(folder.resolve())),
                    models.Run.machine == machine(),
                )
            ).one_or_none()
        snapshot = read_snapshot(folder, known=known.digest if known else None)
        if snapshot is None:
            assert known is not None  # noqa: S101 - nothing else equals what it was read against
            return Imported(folder, known.name, Became.UNCHANGED)
        with store.write(exclusive=True) as session:
            became = put_run(session, snapshot)
        return Imported(folder, snapshot.record.run_id, became, snapshot.troubles)
    except UsageError as error:
        return Imported(folder, "", Became.DAMAGED, (error.message,))
    except DBAPIError as error:
        return Imported(
            folder, "", Became.DAMAGED, (f"{folder}: cannot be stored: {reason(error)}",)
        )
