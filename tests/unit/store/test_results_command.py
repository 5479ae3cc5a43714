"""``pvlab results``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import column, table, update
from store_samples import BAD, OOPS, a_test, crashed, folder_of, name, record, write

from lab.cli.main import main
from lab.results.store import open_store
from lab.results.store.upgrade import VERSION_TABLE

TEST = "t.py::test_a"


@pytest.fixture(autouse=True)
def here(database: str, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PVLAB_DB", database)
    monkeypatch.setenv("PVLAB_RESULTS", str(results))
    monkeypatch.setenv("COLUMNS", "200")
    driver = {"name": "xenvbd", "version": "0.9", "sha256": BAD, "basename": "bad"}
    verdict = {"status": "FAIL", "exit_code": 1, "reasons": ["the driver failed"]}
    write(results, record(0, a_test("t.py::test_b[x]")))
    bad = crashed(TEST, evidence=folder_of(TEST))
    write(results, record(1, bad, driver=driver, verdict=verdict), {TEST: OOPS})


@pytest.fixture
def pvlab(capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command; gives its exit code, and its words or its document."""

    def command(*words: str, code: int = 0) -> Any:
        assert main(["results", *words]) == code
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        if code:
            assert said.err.count("\n") == 1
            assert said.err.startswith("pvlab: ")
            if "--json" not in words:
                return said.err
        return json.loads(said.out) if "--json" in words else said.out

    return command


def test_from_import_to_prune(pvlab: Any, results: Path) -> None:
    assert pvlab("import").startswith("2 new: ")
    assert pvlab("import", "--json")["counts"]["unchanged"] == 2
    first, second = pvlab("list").splitlines()[1:]
    assert first.split()[:4] == [name(1), "FAIL", "1", "failed"]
    assert second.split()[:4] == [name(0), "PASS", "1", "passed"]
    assert [run["name"] for run in pvlab("list", "--json")["runs"]] == [name(1), name(0)]
    shown = pvlab("show")
    assert f"failed (driver) {TEST}: guest crashed during" in shown
    assert f"evidence: {results / name(1) / folder_of(TEST)}" in shown
    assert "bucket 68584452b0cf: oops in xen_blkfront" in shown
    document = pvlab("show", name(1)[:16], "--json")["run"]
    assert document["failures"][0]["pieces"][0]["name"] == "guest-serial"
    assert document["driver"]["sha256"] == BAD
    assert "best sample: " + name(1) in pvlab("buckets")
    assert pvlab("buckets", "6858", "--json")["crashes"][0]["run"] == name(1)
    assert f"{name(0)}: would be removed" in pvlab("prune", "--keep", "1", "--dry-run")
    assert pvlab("prune", "--keep", "0", "--json")["removed"] == 1
    assert [run["name"] for run in pvlab("list", "--json")["runs"]] == [name(1)]
    assert not (results / name(0)).exists()


def test_filters(pvlab: Any) -> None:
    pvlab("import")
    for words, wanted in (
        (["--driver", "0.9"], [name(1)]),
        (["--driver", "aaaa"], [name(0)]),
        (["--driver", "xenvbd"], [name(1), name(0)]),
        (["--limit", "1"], [name(1)]),
        (["--days", "1"], []),
    ):
        assert [run["name"] for run in pvlab("list", "--json", *words)["runs"]] == wanted


def test_damage(pvlab: Any, results: Path) -> None:
    (results / name(0) / "run.json").write_text("{")
    assert "damaged" in pvlab("import", code=2)
    document = pvlab("import", "--json", code=2)
    assert document["counts"] == {
        "new": 0, "replaced": 0, "unchanged": 1, "stale": 0, "damaged": 1
    }  # fmt: skip
    assert "cannot be read" in pvlab("import", str(results / "none"), code=2)


def test_nothing_there(pvlab: Any, results: Path) -> None:
    assert pvlab("list") == "no runs; pvlab results import brings them in\n"
    assert pvlab("buckets") == "no crashes\n"
    assert "no runs" in pvlab("show", code=2)
    assert "no run 2026" in pvlab("show", "2026", code=2)
    assert "no bucket 1" in pvlab("buckets", "1", code=2)
    pvlab("import")
    assert "several runs begin with 2026" in pvlab("show", "2026", code=2)


@pytest.mark.parametrize(
    "words",
    [["prune"], ["prune", "--days", "1e300"], ["list", "--db", "nonsense://"], ["list", "-n", "0"]],
)
def test_bad_usage(pvlab: Any, words: list[str]) -> None:
    pvlab(*words, code=2)


def test_a_newer_schema(pvlab: Any, database: str) -> None:
    with open_store(database) as store, store.write() as session:
        version = table(VERSION_TABLE, column("version_num"))
        session.execute(update(version).values(version_num="r9"))
    assert "newer than this pvlab's" in pvlab("list", code=2)


def test_text_of_guests_does_not_steer_the_terminal(pvlab: Any, results: Path) -> None:
    nasty = "[red]\x1b[2J\u202e[/]"
    write(results, record(2, a_test(nasty, outcome="failed", message=nasty), guest_label=nasty))
    pvlab("import")
    for words in (["list"], ["show"]):
        shown = pvlab(*words)
        assert "\x1b" not in shown
        assert "\u202e" not in shown
        assert "[red]" in shown
