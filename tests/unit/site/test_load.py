"""From run folders through the store to what the pages are made of."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import pytest
from builders import evidence
from typer.testing import CliRunner

from lab.cli.main import app
from lab.evidence.manifest import PieceName
from lab.results.record import RunRecord, Status, TestRecord
from lab.results.store import (
    NewItem,
    Store,
    claim,
    create_plan,
    finish,
    import_results,
    note_run,
    open_store,
    put_gate,
    put_mutants,
)
from lab.results.writer import encode
from lab.site.load import interval, load
from lab.site.model import Mark

START = datetime(2026, 11, 20, 22, 0, tzinfo=UTC)
TEST = "tests/drivers/test_attach.py::test_disk"
PANIC = "crashed during attaching x: Kernel panic - not syncing: made up (xen_blkfront:probe)"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    (tmp_path / "results").mkdir()
    with open_store(tmp_path / "results/results.db") as made:
        yield made


def a_run(
    results: Path, day: int, *tests: dict[str, Any], serial: int = 0, **fields: Any
) -> RunRecord:
    """Write a run's folder."""
    started = START + timedelta(days=day, minutes=serial)
    name = f"{started:%Y%m%dT%H%M%SZ}-{serial:06x}"
    base: dict[str, Any] = {
        "run_id": name,
        "started": started,
        "ended": started + timedelta(minutes=1),
        "ended_how": "finished",
        "profile": "standin",
        "guest_label": "stand-in",
        "host": {"kernel": "Linux", "cpus": 2, "memory_mib": 1, "os": "Debian"},
        "driver": {"name": "virtdemo", "version": "1", "sha256": "a" * 64, "basename": "good"},
        "versions": {"qemu": "5.2"},
        "tests": [
            TestRecord.model_validate({"id": TEST, "outcome": "passed", "seconds": 2.0} | one)
            for one in tests
        ],
        "verdict": {"status": "PASS", "exit_code": 0, "reasons": ["all passed"]},
    }
    record = RunRecord.model_validate(base | fields)
    folder = results / name
    folder.mkdir()
    for test in record.tests:
        if test.evidence:
            evidence(folder / test.evidence, {PieceName.GUEST_SERIAL: "[   12.000000] x\n"})
    (folder / "run.json").write_bytes(encode(record))
    return record


def failed(**more: Any) -> dict[str, Any]:
    return {
        "outcome": "failed",
        "blame": "driver",
        "message": PANIC,
        "details": "E   a traceback",
        "evidence": "tests/disk-1",
        "properties": {"pvlab.crash": PANIC},
        **more,
    }


def test_days_are_nights(store: Store, tmp_path: Path) -> None:
    results = tmp_path / "results"
    a_run(results, 0, {})
    a_run(results, 1, failed())
    import_results(store, [results])
    site = load(store, results)
    assert [night.name for night in site.nights] == ["2026-11-20", "2026-11-21"]
    (one,) = site.nights[1].results.values()
    assert one.mark is Mark.FAILED
    assert one.key.place == "standin, virtdemo"
    assert one.details == "E   a traceback"
    assert one.evidence == results / site.nights[1].runs[0].id / "tests/disk-1"
    assert one.evidence.is_dir()
    assert [bucket.key for bucket in site.buckets] == [one.bucket]
    run = site.nights[1].runs[0]
    assert run.versions == {"qemu": "5.2"}
    assert run.status == "PASS"
    assert run.driver is not None
    assert run.driver.sha256 == "a" * 64


def test_plans_are_nights_and_name_the_driver_by_its_role(store: Store, tmp_path: Path) -> None:
    results = tmp_path / "results"
    planned = a_run(results, 0, {})
    loose = a_run(results, 1, {}, serial=1)
    import_results(store, [results])
    payload = {"order": {"profile": "standin", "driver": "candidate"}}
    create_plan(store, "night-1", [NewItem("standin/candidate/all", payload)])
    mine = claim(store, "night-1", "worker")
    assert mine is not None
    note_run(store, mine, planned.run_id)
    finish(store, mine, planned.run_id, folder=results / planned.run_id)
    site = load(store, results)
    assert [night.name for night in site.nights] == ["night-1"]
    assert [key.place for key in site.nights[0].results] == ["standin, candidate"]
    assert [run.id for run in site.others] == [loose.run_id]


def test_a_run_whose_folder_is_gone_is_shown_without_evidence(store: Store, tmp_path: Path) -> None:
    results = tmp_path / "results"
    record = a_run(results, 0, failed())
    import_results(store, [results])
    (results / record.run_id).rename(tmp_path / "away")
    (one,) = load(store, results).nights[0].results.values()
    assert one.evidence is None
    assert one.mark is Mark.FAILED
    assert one.message == PANIC


def test_gates_of_one_run_and_of_a_comparison(store: Store, tmp_path: Path) -> None:
    results = tmp_path / "results"
    record = a_run(results, 0, failed())
    import_results(store, [results])
    driver = {"name": "virtdemo", "version": "1", "sha256": "a" * 64}
    verdict = {"status": "FAIL", "exit_code": 1, "reasons": ["it failed"]}
    whole = {"verdict": verdict, "run_id": record.run_id, "driver": driver, "guest_label": "s"}
    tests = [{"id": TEST, "outcome": "failed", "blame": "driver", "message": PANIC}]
    put_gate(store, "gate-1", {**whole, "tests": tests}, status=Status.FAIL,
             runs={record.run_id: "driver"}, created=START)  # fmt: skip
    finding = {"test": TEST, "kind": "regression", "reason": "3 of 3", "effect": "fail",
               "proofs": [{"run_id": record.run_id}]}  # fmt: skip
    same = {"test": "other", "kind": "same", "reason": "", "proofs": []}
    comparison = {"findings": [finding, same], "policy_sha256": "b" * 64,
                  "baseline": {"name": "virtdemo", "version": "0", "sha256": "c" * 64}}  # fmt: skip
    put_gate(store, "gate-2", {**whole, "tests": tests, "comparison": comparison},
             status=Status.FAIL, runs={record.run_id: "driver"},
             created=START + timedelta(days=1))  # fmt: skip
    second, first = load(store, results).gates
    assert [(one.kind, one.test, one.run) for one in first.findings] == [
        ("failure", TEST, record.run_id)
    ]
    assert first.baseline == ""
    assert [(one.kind, one.text) for one in second.findings] == [("regression", "3 of 3")]
    assert second.baseline == "virtdemo 0 cccccccccccc"
    assert second.hashes == {"driver": "a" * 64, "baseline": "c" * 64, "policy": "b" * 64}


def test_mutants(store: Store, tmp_path: Path) -> None:
    one = {"name": "lost-flush", "title": "t", "fate": "killed", "killed_by": None,
           "blamed": None, "seconds": 3.0}  # fmt: skip
    put_mutants(store, {"suite": "s", "intensity": "smoke", "mutants": [one]})
    mutants = load(store, tmp_path / "results").mutants
    assert mutants is not None
    assert [(m.name, m.fate, m.killed_by) for m in mutants.mutants] == [
        ("lost-flush", "killed", "")
    ]


def test_figures_of_tests_are_trends(store: Store, tmp_path: Path) -> None:
    results = tmp_path / "results"
    for day in range(3):
        for serial in range(6):
            figures = {"pvlab.figure.read, ms": str(10 * day + serial), "pvlab.figure.bad": "x"}
            a_run(results, day, {"properties": figures}, serial=serial)
    import_results(store, [results])
    (trend,) = load(store, results).trends
    assert trend.name == "read, ms (standin, virtdemo)"
    assert trend.unit == "ms"
    assert [(one.value, one.low, one.high, one.samples) for one in trend.points] == [
        (2.5, 0.0, 5.0, 6),
        (12.5, 10.0, 15.0, 6),
        (22.5, 20.0, 25.0, 6),
    ]
    assert {one.interval for one in trend.points} == {"95 % interval of the median"}


def test_an_empty_store_makes_an_empty_site(store: Store, tmp_path: Path) -> None:
    site = load(store, tmp_path / "results")
    assert site.nights == ()
    assert site.mutants is None


@pytest.mark.parametrize("count", range(1, 26))
def test_interval_of_a_median_holds_it_as_often_as_it_says(count: int) -> None:
    low, high, words = interval([float(n) for n in range(count)])
    rank = int(low)
    assert high == count - 1 - rank
    # Missed when at most ``rank`` of the values lie below the median, or above it.
    missed = 2 * sum(math.comb(count, k) for k in range(rank + 1)) / 2**count
    assert (missed <= 0.05) == (words != "least and most")
    if words != "least and most":
        wider = 2 * sum(math.comb(count, k) for k in range(rank + 2)) / 2**count
        assert wider > 0.05
    else:
        assert (low, high) == (0.0, count - 1)


def test_interval_takes_values_in_any_order() -> None:
    for values in combinations_with_replacement((1.0, 2.0, 3.0), 6):
        low, high, _ = interval(values[::-1])
        assert (low, high) == (min(values), max(values))


def test_command_imports_and_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = tmp_path / "results"
    results.mkdir()
    monkeypatch.setenv("PVLAB_RESULTS", str(results))
    a_run(results, 0, {})
    a_run(results, 1, failed())
    done = CliRunner().invoke(app, ["report", "site", "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["index"] == str(results / "site/index.html")
    assert "1 regression" in (results / "site/index.html").read_text()
    # Once more: nothing is counted twice.
    assert CliRunner().invoke(app, ["report", "site", "--json"]).exit_code == 0
    assert (results / "site/index.html").read_text().count('class="go"') == 1


def test_command_refuses_made_up_data_among_results(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["report", "site", "--made-up"])
    assert getattr(done.exception, "exit_code", None) == 2
