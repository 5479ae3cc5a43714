"""Items without a lab: a shell script leaves the record that the driver tests would."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab.nightly.work import LOGS, Order
from lab.results.record import RunRecord
from lab.results.store import NewItem, Plan, Store, create_plan
from lab.results.writer import encode

NIGHT = "20260102T220000Z-abcdef"
TEST = "tests/drivers/test_attach.py::test_attach"

# Arguments: results folder, run, seconds, templates' folder, name of the template, test.
SCRIPT = """
write() {
    now=$(date -u +%Y-%m-%dT%H:%M:%S.%6NZ)
    sed -e "s/@RUN@/$2/" -e "s|@TEST@|$6|" -e "s/@NOW@/$now/" "$4/$7.json" > "$1/$2/.new" &&
    mv "$1/$2/.new" "$1/$2/run.json"
}
mkdir "$1/$2" || exit 3
write "$@" running
echo "begin $2" >> "$4/journal"
sleep "$3"
write "$@" "$5"
echo "end $2" >> "$4/journal"
"""


def record(run: str, *tests: dict[str, Any], **fields: Any) -> RunRecord:
    """Of a run that went well, unless ``fields`` say otherwise."""
    moment = fields.pop("started", datetime(2026, 1, 2, 22, 0, tzinfo=UTC))
    base = {
        "run_id": run,
        "started": moment,
        "ended": moment,
        "ended_how": "finished",
        "profile": "standin",
        "guest_label": "stand-in: no guest at all",
        "host": {"kernel": "Linux 6.1", "cpus": 2, "memory_mib": 24000, "os": "Debian 12"},
        "tests": tests or (a_test(),),
        "verdict": {"status": "PASS", "exit_code": 0, "reasons": ["1 test passed"]},
    }
    return RunRecord.model_validate(base | fields)


def a_test(**fields: Any) -> dict[str, Any]:
    return {"id": TEST, "area": "attach", "outcome": "passed", "seconds": 1.5} | fields


def write_templates(folder: Path) -> None:
    """What the script writes: a run under way, and how it may end."""
    folder.mkdir(parents=True, exist_ok=True)
    failed = a_test(outcome="failed", blame="driver", message="the guest crashed")
    broken = a_test(outcome="error", blame="lab", message="dom0 is gone")
    for name, made in {
        "running": record("X", ended=None, ended_how="running", verdict=None),
        "pass": record("X"),
        "fail": record("X", failed, verdict=None),
        "lab": record("X", broken, verdict=None),
    }.items():
        text = encode(made).replace(b'"run_id": "X"', b'"run_id": "@RUN@"')
        text = text.replace(TEST.encode(), b"@TEST@")
        text = text.replace(b'"2026-01-02T22:00:00Z"', b'"@NOW@"')
        (folder / f"{name}.json").write_bytes(text)


class FakeLauncher:
    """Makes the script's command; the order's profile says how it ends.

    ``pass``, ``fail`` or ``lab``; ``lab-once`` breaks the lab at the first attempt.
    """

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder = folder
        self.seconds = seconds

    def __call__(self, order: Order, run: str, results: Path) -> Sequence[str]:
        how = order.profile
        if how == "lab-once":
            first = order.prefix.endswith("-0-")
            how = "lab" if first else "pass"
        words = [results, run, self.seconds, self.folder, how, order.tests[0]]
        return ["sh", "-c", SCRIPT, "sh", *map(str, words)]


def ran(folder: Path) -> dict[str, list[str]]:
    """The journal of the script: ``begin`` and ``end`` to the runs that did."""
    found: dict[str, list[str]] = {"begin": [], "end": []}
    for line in (folder / "journal").read_text().splitlines():
        word, run = line.split()
        found[word].append(run)
    return found


def item(key: str, how: str = "pass", **order: Any) -> NewItem:
    return NewItem(
        key=key,
        expected_seconds=1.0,
        payload={
            "order": {
                "profile": how,
                "driver": "good",
                "package": None,
                "suite": "standard",
                "intensity": "standard",
                "accel": None,
                "tests": [TEST],
                "limit_seconds": 60.0,
                "needs": {},
            }
            | order,
            "content": {},
            "kin": "",
        },
    )


def plan(store: Store, items: Sequence[NewItem], **fields: Any) -> Plan:
    how: dict[str, Any] = {"budget_seconds": 3600.0, "max_lab_failures": 3, "max_losses": 20}
    return create_plan(store, NIGHT, items, **how | fields)


Say = Callable[[str], None]

__all__ = ["LOGS", "NIGHT", "FakeLauncher", "item", "plan", "ran", "record", "write_templates"]
