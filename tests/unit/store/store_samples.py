"""Run folders as the lab leaves them, and all that a store holds in plain values."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import select

from lab.evidence.manifest import MANIFEST_NAME, Manifest, Piece
from lab.evidence.slug import slug
from lab.results.record import RunRecord, TestRecord
from lab.results.store import Store
from lab.results.store.models import Base
from lab.results.writer import encode

NOON = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)
GOOD, BAD = "a" * 64, "b" * 64
PANIC = (
    "guest crashed during attaching phy:/dev/mapper/pvlab-map-2 /dev/hdc w: Kernel panic - not "
    "syncing: pvlab seeded defect: crash on attach (xen_blkfront:blkfront_probe)"
)
OOPS = """\
[   12.000000] BUG: kernel NULL pointer dereference, address: 00000004
[   12.000001] #PF: supervisor read access in kernel mode
[   12.000002] Oops: 0000 [#1] SMP
[   12.000003] CPU: 0 PID: 77 Comm: xenwatch Tainted: G           O      5.10.0-1-686-pae #1
[   12.000004] EIP: blkfront_probe+0x12/0x100 [xen_blkfront]
[   12.000005] Call Trace:
[   12.000006]  xenbus_dev_probe+0x80/0x100
[   12.000007]  really_probe+0x20/0x30
[   12.000008] ---[ end trace 0000000000000000 ]---
"""


def name(number: int, *, after: timedelta = timedelta()) -> str:
    """Of a run: they are a minute apart."""
    return f"{NOON + timedelta(minutes=number) + after:%Y%m%dT%H%M%SZ}-{number:06x}"


def a_test(test_id: str = "tests/drivers/test_a.py::test_a", **fields: Any) -> TestRecord:
    base = {"id": test_id, "area": "attach", "outcome": "passed", "seconds": 1.5}
    return TestRecord.model_validate(base | fields)


def crashed(test_id: str = "tests/drivers/test_a.py::test_a", **fields: Any) -> TestRecord:
    base: dict[str, Any] = {
        "outcome": "failed",
        "blame": "driver",
        "message": PANIC,
        "properties": {"pvlab.blame": "driver", "pvlab.crash": PANIC},
    }
    return a_test(test_id, **base | fields)


def record(number: int = 0, *tests: TestRecord, **fields: Any) -> RunRecord:
    base: dict[str, Any] = {
        "run_id": name(number),
        "started": NOON + timedelta(minutes=number),
        "ended": NOON + timedelta(minutes=number, seconds=30),
        "ended_how": "finished",
        "profile": "standin",
        "guest_label": "stand-in",
        "host": {"kernel": "Linux 6.1", "cpus": 2, "memory_mib": 24000, "os": "Debian 12"},
        "accelerator": {"name": "kvm", "emulator": "qemu", "emulator_version": "7.2", "why": "."},
        "images": {"dom0": {"key": "k0", "versions": {"xen": "4.17"}}, "guest": {"key": "k1"}},
        "driver": {"name": "xenvbd", "version": "1.0", "sha256": GOOD, "basename": "good"},
        "versions": {"pvlab": "1"},
        "tests": tests or (a_test(),),
        "verdict": {"status": "PASS", "exit_code": 0, "reasons": ["1 test passed"]},
    }
    return RunRecord.model_validate(base | fields)


def running(number: int = 0, *tests: TestRecord, **fields: Any) -> RunRecord:
    """The same before it ends."""
    unfinished = {"ended": None, "ended_how": "running", "verdict": None}
    return record(number, *tests, **unfinished | fields)


def write(results: Path, run: RunRecord, logs: dict[str, str] | None = None) -> Path:
    """Write a run's folder, as the lab would.

    Args:
        results: the results folder.
        run: its record; tests with the evidence ``*`` get a folder of it.
        logs: what such a folder's serial log says, by test id.
    """
    folder = results / run.run_id
    folder.mkdir(exist_ok=True)
    for test in run.tests:
        if test.evidence is not None:
            evidence(folder / test.evidence, test.id, (logs or {}).get(test.id, "booted\n"))
    (folder / "run.json").write_bytes(encode(run))
    return folder


def evidence(folder: Path, test_id: str, log: str, *, complete: bool = True) -> None:
    """Write a test's evidence: a serial log, and a piece that is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "guest-serial.log").write_text(log)
    pieces = (
        Piece(name="guest-serial", path="guest-serial.log", bytes=len(log), seconds=0.1),
        Piece(name="core", seconds=0.2, error="the guest did not crash"),
    )
    manifest = Manifest(test_id=test_id, complete=complete, pieces=pieces)
    (folder / MANIFEST_NAME).write_text(manifest.model_dump_json())


def folder_of(test_id: str) -> str:
    """Evidence folder of a test, relative to its run's."""
    return f"tests/{slug(test_id)}"


def contents(store: Store) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table, with what keys refer to in place of the keys."""
    with store.read() as session:
        tables = {
            table.name: [row._asdict() for row in session.execute(select(table))]
            for table in Base.metadata.sorted_tables
        }
    by_key = {
        (table, row["id"]): row for table, rows in tables.items() for row in rows if "id" in row
    }

    def plain(table: str, row: dict[str, Any]) -> dict[str, Any]:
        said = {}
        for column in Base.metadata.tables[table].columns:
            value = row[column.name]
            for reference in column.foreign_keys:
                other = reference.column.table.name
                value = None if value is None else plain(other, by_key[other, value])
            if column.name != "id":
                said[column.name] = value
        return said

    return {
        table: sorted((plain(table, row) for row in rows), key=repr)
        for table, rows in tables.items()
    }
