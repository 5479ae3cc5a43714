"""Gates and mutants: documents that others write, kept whole, with what they refer to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select

from lab.results.record import Status
from lab.results.store import models
from lab.results.store.engine import Store


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


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
