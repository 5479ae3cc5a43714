"""Gates and mutants: documents that others write, kept whole, with what they refer to.

They are written by layers above this one, so they are read by their keys here; their JSON Schemas
are ``lab/gate/schema/gate.schema.json`` and the models of ``lab/mutants/outcome.py``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select

from lab.core.errors import UsageError
from lab.results.record import Status
from lab.results.store import models
from lab.results.store.engine import Store
from lab.results.store.rows import machine

GATE_NAME = "gate.json"
MUTANTS_NAME = "mutants.json"

LIMIT = 64 << 20
"""Largest document that is read, in bytes."""


def put_gate(
    store: Store,
    key: str,
    document: Mapping[str, Any],
    *,
    status: Status,
    runs: Mapping[str, str],
    created: datetime,
    driver: str | None = None,
    baseline: str | None = None,
    path: Path | None = None,
) -> bool:
    """Keep a gate's document; the runs it rests on are safe from ``prune`` from now on.

    Args:
        store: where.
        key: name of the gate; a document of the same name is replaced.
        document: plain values for JSON.
        status: the gate's verdict.
        runs: name of each run to what it was: ``"driver"`` or ``"baseline"``, for example. They
            need not be in the store yet.
        created: when the gate ended.
        driver: SHA-256 identity of the package that was gated.
        baseline: SHA-256 identity of the package that it was compared with.
        path: of the document's file.

    Returns:
        Whether that changed anything.

    Raises:
        LabBroken: the store cannot be used.
    """
    whole = [dict(document), status.value, dict(runs), created.isoformat(), driver, baseline]
    own = _sha256([*whole, str(path) if path else None])
    with store.write(exclusive=True) as session:
        row = session.scalar(select(models.Gate).where(models.Gate.key == key))
        if row is not None and row.sha256 == own:
            return False
        if row is not None:
            session.delete(row)
            session.flush()
        row = models.Gate(
            key=key,
            sha256=own,
            created=created,
            status=status,
            path=str(path) if path else None,
            machine=machine(),
            driver_sha256=driver,
            baseline_sha256=baseline,
            document=dict(document),
        )
        session.add(row)
        session.flush()
        session.add_all(
            models.GateRun(gate_id=row.id, run_name=run, role=role) for run, role in runs.items()
        )
    return True


def forget_gate(store: Store, key: str) -> bool:
    """Forget a gate, so that its runs can be pruned.

    Returns:
        Whether there was one.
    """
    with store.write(exclusive=True) as session:
        row = session.scalar(select(models.Gate).where(models.Gate.key == key))
        if row is not None:
            session.delete(row)
    return row is not None


def put_mutants(store: Store, document: Mapping[str, Any], *, now: datetime | None = None) -> bool:
    """Keep a document of ``pvlab mutants``: the newest of each suite and way to run it.

    Args:
        store: where.
        document: plain values for JSON, as ``lab.mutants.outcome`` writes them.
        now: when.

    Returns:
        Whether that changed anything.
    """
    way = [document.get(name) for name in ("suite", "intensity", "guest_label", "accelerator")]
    key, own = _sha256(way), _sha256(dict(document))
    with store.write(exclusive=True) as session:
        row = session.scalar(select(models.MutantsReport).where(models.MutantsReport.key == key))
        if row is not None and row.sha256 == own:
            return False
        if row is None:
            row = models.MutantsReport(key=key)
            session.add(row)
        row.sha256, row.document = own, dict(document)
        row.recorded = now or datetime.now(UTC)
    return True


def import_document(store: Store, file: Path) -> tuple[str, bool]:
    """Import the document of a gate or of ``pvlab mutants``.

    Args:
        store: where to.
        file: the document's; what it is shows in it.

    Returns:
        Key of the gate (empty for mutants), and whether that changed anything.

    Raises:
        UsageError: it cannot be read, or is neither.
        LabBroken: the store cannot be used.
    """
    document = _read(file)
    if isinstance(document.get("mutants"), list):
        return "", put_mutants(store, document)
    try:
        comparison = document.get("comparison") or {}
        key = str(document["run_id"])
        # A gate without a comparison rests on the one run that it is named for.
        runs = [str(run["run_id"]) for run in comparison["runs"]] if comparison else [key]
        changed = put_gate(
            store,
            key,
            document,
            status=Status(document["verdict"]["status"]),
            runs=dict.fromkeys(runs, "compared" if comparison else "driver"),
            created=_moment(document.get("ended") or document["started"]),
            driver=_identity(document.get("driver")),
            baseline=_identity(comparison.get("baseline")),
            path=file.resolve(),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UsageError(f"{file}: neither a gate's document nor one of mutants") from None
    return key, changed


def forget_lost_gates(store: Store, results: Path) -> list[str]:
    """Forget gates of a results folder whose documents somebody removed.

    Args:
        store: where.
        results: the results folder.

    Returns:
        Their keys.
    """
    root = results.resolve()
    with store.write(exclusive=True) as session:
        rows = session.scalars(select(models.Gate).where(models.Gate.machine == machine()))
        lost = [
            row
            for row in rows
            if row.path and root in Path(row.path).parents and not Path(row.path).exists()
        ]
        keys = [row.key for row in lost]
        for row in lost:
            session.delete(row)
    return keys


def _read(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > LIMIT:
            raise UsageError(f"{file}: larger than {LIMIT >> 20} MiB")
        document = json.loads(file.read_bytes())
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror}") from None
    # RecursionError: arrays nested too deep for the parser.
    except (ValueError, RecursionError):
        raise UsageError(f"{file}: damaged: no JSON") from None
    if not isinstance(document, dict):
        raise UsageError(f"{file}: neither a gate's document nor one of mutants")
    return document


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("no time zone")
    return moment


def _identity(driver: Any) -> str | None:
    return None if driver is None else str(driver["sha256"])


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
