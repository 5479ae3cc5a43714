"""What can be asked of the store, beside what tests of the import ask."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from store_samples import (
    BAD,
    GOOD,
    NOON,
    OOPS,
    a_test,
    crashed,
    folder_of,
    name,
    record,
    write,
)

from lab.core.errors import UsageError
from lab.results.record import Status
from lab.results.store import (
    Became,
    NewItem,
    Store,
    buckets,
    cells,
    claim,
    crashes,
    create_plan,
    drivers,
    failures,
    finish,
    gate,
    gates,
    history,
    import_results,
    lab_failed,
    mutants,
    nights,
    note_run,
    prune,
    put_gate,
    put_mutants,
    run,
    runs,
)
from lab.results.store import tests as known_tests

DAY = timedelta(days=1)


def on_day(number: int, day: int, *some: Any, **fields: Any) -> Any:
    started = NOON + day * DAY + timedelta(minutes=number)
    return record(number, *some, started=started, ended=started + timedelta(seconds=5), **fields)


def test_nights_of_days(store: Store, results: Path) -> None:
    for number, day in enumerate((0, 0, 1, 3)):
        write(results, on_day(number, day))
    import_results(store, [results])
    found = nights(store)
    assert [(night.key, night.runs) for night in found] == [
        ("2026-01-05", (name(3),)),
        ("2026-01-03", (name(2),)),
        ("2026-01-02", (name(0), name(1))),
    ]
    assert not any(night.planned for night in found)
    assert nights(store, limit=1) == found[:1]
    assert nights(store, days=False) == []


def test_nights_of_plans_count_what_counts(store: Store, results: Path) -> None:
    for number in range(4):
        write(results, record(number))
    import_results(store, [results])
    create_plan(store, "night", [NewItem("b"), NewItem("a"), NewItem("c")], now=NOON + DAY)
    for key, number in (("a", 0), ("b", 1), ("b", 2)):
        got = claim(store, "night", "w", item=key)
        assert got is not None
        if number == 1:
            lab_failed(store, got, "QEMU died", run=name(1))
        else:
            finish(store, got, name(number))
    going = claim(store, "night", "w", item="c")
    assert going is not None
    note_run(store, going, name(9))
    planned, loose = nights(store)
    # In the plan's order, without the lab's failure and what has not ended.
    assert (planned.key, planned.planned, planned.runs) == ("night", True, (name(2), name(0)))
    assert (loose.key, loose.runs) == ("2026-01-02", (name(3),))
    assert run(store, name(2)).plans == ("night",)


def test_cells_are_in_the_order_asked_for(store: Store, results: Path) -> None:
    for number in range(3):
        write(results, record(number, a_test("b"), a_test("a")))
    import_results(store, [results])
    found = cells(store, [name(2), "unknown", name(0)])
    assert [(cell.run, cell.test) for cell in found] == [
        (name(2), "b"), (name(2), "a"), (name(0), "b"), (name(0), "a")
    ]  # fmt: skip


def test_a_tests_history(store: Store, results: Path) -> None:
    outcomes = ["passed", "failed", "skipped", "passed"]
    for number, outcome in enumerate(outcomes):
        area = "old" if number < 3 else "new"
        test = a_test("a", outcome=outcome, seconds=number, area=area)
        write(results, record(number, test, *([a_test("b")] if number else [])))
    import_results(store, [results])
    found = history(store, "a")
    assert [cell.outcome for _, cell in found] == outcomes[::-1]
    assert [row.name for row, _ in found] == [cell.run for _, cell in found]
    assert history(store, "a", limit=2) == found[:2]
    assert history(store, "c") == []
    one, other = known_tests(store)
    assert (one.id, one.area, one.outcomes, one.median_seconds) == ("a", "new", 4, 1)
    assert one.last_run == NOON + timedelta(minutes=3)
    assert (other.id, other.outcomes) == ("b", 3)


def test_failures_and_buckets(store: Store, results: Path) -> None:
    bad = {"name": "xenvbd", "version": "0.9", "sha256": BAD, "basename": "bad"}
    for number in range(4):
        test = "t.py::test_a" if number < 3 else "t.py::test_b"
        more = {"driver": bad} if number % 2 else {}
        failing = crashed(test, evidence=folder_of(test))
        lab = a_test("t.py::test_lab", outcome="error", blame="lab", message="QEMU died")
        write(results, record(number, failing, lab, **more), {test: OOPS})
    import_results(store, [results])
    found = failures(store)
    assert [(one.cell.run, one.cell.blame) for one in found] == [
        (name(number), blame) for number in (3, 2, 1, 0) for blame in ("driver", "lab")
    ]
    assert failures(store, limit=3) == found[:3]
    assert failures(store, [name(1), name(2)]) == found[2:6]
    (bucket,) = buckets(store)
    assert (bucket.count, dict(bucket.builds)) == (4, {GOOD: 2, BAD: 2})
    assert dict(bucket.tests) == {"t.py::test_a": 3, "t.py::test_b": 1}
    assert (bucket.first_seen, bucket.last_seen) == (NOON, NOON + timedelta(minutes=3))
    assert [one.run for one in crashes(store, bucket.key[:5])] == [name(n) for n in (3, 2, 1, 0)]
    assert crashes(store, "x") == []
    assert [one.version for one in drivers(store)] == ["0.9", "1.0"]
    assert found[0].crashes[0].signature["key"] == bucket.key


@pytest.mark.parametrize("start", ["", "2026", "%", "_" * 8])
def test_a_run_needs_its_name(store: Store, results: Path, start: str) -> None:
    write(results, record(0))
    write(results, record(1))
    import_results(store, [results])
    with pytest.raises(UsageError):
        run(store, start)


def test_runs_by_name(store: Store, results: Path) -> None:
    for number in range(3):
        write(results, record(number))
    import_results(store, [results])
    assert [row.name for row in runs(store, names=[name(0), name(2), "none"])] == [
        name(2), name(0)
    ]  # fmt: skip
    since = NOON + timedelta(minutes=1)
    assert [row.name for row in runs(store, since=since)] == [name(2), name(1)]


def a_gate(**fields: Any) -> dict[str, Any]:
    """As ``lab.gate.document`` writes it, as far as the store reads it."""
    base: dict[str, Any] = {
        "schema_version": 1,
        "verdict": {"status": "PASS", "exit_code": 0, "reasons": []},
        "run_id": name(0),
        "started": "2026-01-02T12:00:00Z",
        "ended": "2026-01-02T12:30:00Z",
        "driver": {"name": "xenvbd", "version": "1.0", "sha256": GOOD, "basename": "good"},
    }
    return base | fields


def test_gates_among_the_results(store: Store, results: Path) -> None:
    for number in range(4):
        write(results, record(number))
    compared = results / f"{name(7)}-gate"
    compared.mkdir()
    comparison = {"baseline": {"sha256": BAD}, "runs": [{"run_id": name(1)}, {"run_id": name(2)}]}
    gate_file = compared / "gate.json"
    gate_file.write_text(json.dumps(a_gate(run_id=compared.name, comparison=comparison)))
    (results / name(0) / "gate.json").write_text(json.dumps(a_gate(ended=None)))
    done = import_results(store, [results])
    assert [one.became for one in done] == [Became.NEW] * 6
    assert [one.became for one in import_results(store, [results])] == [Became.UNCHANGED] * 6
    newest, other = gates(store)
    assert (newest.key, newest.status, newest.baseline) == (compared.name, Status.PASS, BAD)
    assert dict(newest.runs) == {name(1): "compared", name(2): "compared"}
    assert newest.created == NOON + timedelta(minutes=30)
    assert (other.key, dict(other.runs), other.created) == (name(0), {name(0): "driver"}, NOON)
    assert gate(store, name(0)) == other
    assert gate(store, "none") is None
    assert run(store, name(2)).gates == (compared.name,)
    prune(store, results, keep=0, now=NOON + 30 * DAY)
    assert [row.name for row in runs(store)] == [name(2), name(1), name(0)]
    gate_file.unlink()
    prune(store, results, keep=0, now=NOON + 30 * DAY)
    assert [row.name for row in runs(store)] == [name(0)]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"verdict": 1}', '{"verdict": {"status": "GOOD"}}', "[" * 100_000]
)
def test_documents_of_neither_kind(store: Store, results: Path, text: str) -> None:
    (results / "gate.json").write_text(text)
    (done,) = import_results(store, [results])
    assert done.became is Became.DAMAGED
    assert "\n" not in done.troubles[0]
    assert gates(store) == []


def test_a_gate_kept_again_is_replaced(store: Store) -> None:
    def put(status: Status, *names: str) -> bool:
        document = {"verdict": status.value}
        runs = dict.fromkeys(names, "driver")
        return put_gate(store, "g", document, status=status, runs=runs, created=NOON)

    assert put(Status.UNDECIDED, "a", "b")
    assert put(Status.PASS, "b")
    assert not put(Status.PASS, "b")
    (one,) = gates(store)
    assert (one.status, dict(one.runs), one.path) == (Status.PASS, {"b": "driver"}, None)


def test_mutants(store: Store, results: Path) -> None:
    document = {"schema_version": 1, "suite": "s", "intensity": "smoke", "guest_label": "stand-in",
                "accelerator": "", "mutants": [{"name": "m", "fate": "killed"}]}  # fmt: skip
    (results / "mutants.json").write_text(json.dumps(document))
    assert [one.became for one in import_results(store, [results])] == [Became.NEW]
    assert [one.became for one in import_results(store, [results])] == [Became.UNCHANGED]
    put_mutants(store, document | {"mutants": []}, now=NOON)
    put_mutants(store, document | {"suite": "other"}, now=NOON + DAY)
    assert [row.document["suite"] for row in mutants(store)] == ["other", "s"]
    assert mutants(store)[1].document["mutants"] == []
