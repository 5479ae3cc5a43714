"""Run folders into the store."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from store_samples import (
    OOPS,
    a_test,
    contents,
    crashed,
    evidence,
    folder_of,
    record,
    running,
    write,
)

from lab.results.store import (
    Became,
    Store,
    buckets,
    cells,
    failures,
    import_results,
    import_run,
    run,
    runs,
)


def test_all_that_a_run_says(store: Store, results: Path) -> None:
    one, other = "t.py::test_race", "t.py::test_attach"
    campaign = {
        "attempts": 50,
        "failures": 2,
        "failed_seeds": [7, 2**70],
        "limit": 0.1,
        "confidence": 0.95,
        "least": 0.01,
        "most": 0.2,
        "answer": "open",
    }
    write(
        results,
        record(
            0,
            a_test(one, campaign=campaign, expected_seconds=9, properties={"a": "b"}),
            crashed(other, evidence=folder_of(other)),
        ),
        {other: OOPS},
    )
    (done,) = import_results(store, [results])
    assert (done.became, done.troubles) == (Became.NEW, ())
    (row,) = runs(store)
    assert row.driver is not None
    assert (row.driver.name, row.seconds, row.status) == ("xenvbd", 30, "PASS")
    assert dict(row.counts) == {"passed": 1, "failed": 1}
    race, attach = cells(store, [row.name])
    assert race.campaign is not None
    assert (race.test, race.area, race.seconds, race.expected_seconds) == (one, "attach", 1.5, 9)
    assert race.campaign.failed_seeds == (7, 2**70)
    assert race.properties == {"a": "b"}
    assert (attach.blame, attach.evidence_complete) == ("driver", True)
    (failure,) = failures(store)
    assert failure.cell == attach
    serial, core = failure.pieces
    assert serial.path == f"{folder_of(other)}/guest-serial.log"
    assert (Path(failure.folder) / serial.path).read_text() == OOPS
    assert (core.path, core.error) == (None, "the guest did not crash")
    (bucket,) = buckets(store)
    assert "blkfront_probe" in bucket.text
    assert (bucket.count, bucket.sample.run, bucket.sample.test) == (1, row.name, other)
    detail = run(store, row.name[:18])
    assert detail.row == row
    assert detail.images == {"dom0": "k0", "guest": "k1"}
    assert detail.host["os"] == "Debian 12"
    assert detail.failures == (failure,)


def test_again_changes_nothing(store: Store, results: Path) -> None:
    test = "t.py::test_a"
    write(results, record(0, crashed(test, evidence=folder_of(test))), {test: OOPS})
    write(results, record(1))
    assert [one.became for one in import_results(store, [results])] == [Became.NEW] * 2
    before = contents(store)
    assert [one.became for one in import_results(store, [results])] == [Became.UNCHANGED] * 2
    assert contents(store) == before


def test_a_run_that_went_on_is_replaced(store: Store, results: Path) -> None:
    folder = write(results, running(0, a_test("a"), crashed("gone")))
    import_run(store, folder)
    assert runs(store)[0].ended is None
    write(results, record(0, a_test("a"), a_test("b")))
    assert import_run(store, folder).became is Became.REPLACED
    (row,) = runs(store)
    assert row.seconds == 30
    assert [cell.test for cell in cells(store, [row.name])] == ["a", "b"]
    assert [test["node_id"] for test in contents(store)["tests"]] == ["a", "b"]
    assert buckets(store) == []


def test_evidence_that_changes_is_seen(store: Store, results: Path) -> None:
    folder = write(results, record(0, a_test("a", evidence="tests/a")))
    import_run(store, folder)
    evidence(folder / "tests/a", "a", "more\n", complete=False)
    assert import_run(store, folder).became is Became.REPLACED
    assert cells(store, [folder.name])[0].evidence_complete is False


def test_a_copy_is_the_same_run(store: Store, results: Path, tmp_path: Path) -> None:
    early = write(results, running(0, a_test("a")))
    copies = tmp_path / "copies"
    copies.mkdir()
    shutil.copytree(early, copies / early.name)
    late = write(results, record(0, a_test("a"), a_test("b")))
    import_run(store, late)
    assert import_run(store, copies / early.name).became is Became.STALE
    write(copies, record(0, a_test("a"), a_test("b")))
    assert import_run(store, copies / early.name).became is Became.UNCHANGED
    assert runs(store)[0].folder == str(late)


def test_a_folder_that_moved_is_followed(store: Store, results: Path, tmp_path: Path) -> None:
    folder = write(results, record(0))
    import_run(store, folder)
    results.rename(tmp_path / "elsewhere")
    assert import_run(store, tmp_path / "elsewhere" / folder.name).became is Became.REPLACED
    assert runs(store)[0].folder == str(tmp_path / "elsewhere" / folder.name)


def test_damage_is_told_and_the_rest_imported(store: Store, results: Path) -> None:
    first, second, third = (write(results, record(number)) for number in range(3))
    (first / "run.json").write_text("{")
    (second / "run.json").unlink()
    (results / "crashes").mkdir()
    (results / "latest").symlink_to(third.name)
    done = import_results(store, [results, results / "none"])
    assert [one.became for one in done] == [
        Became.DAMAGED,
        Became.DAMAGED,
        Became.NEW,
        Became.DAMAGED,
    ]
    for one in done:
        assert all("\n" not in line for line in one.troubles)
        assert bool(one.troubles) == (one.became is Became.DAMAGED)
    assert [row.name for row in runs(store)] == [third.name]


def test_a_test_that_is_in_it_twice(store: Store, results: Path) -> None:
    done = import_run(store, write(results, record(0, a_test("a"), a_test("b"), a_test("a"))))
    assert done.became is Became.DAMAGED
    assert "test a is in it twice" in done.troubles[0]


def test_damaged_evidence_loses_only_itself(store: Store, results: Path) -> None:
    folder = write(results, record(0, a_test("a", evidence="tests/a"), a_test("b")))
    (folder / "tests/a/evidence.json").write_text("[]")
    done = import_run(store, folder)
    assert done.became is Became.NEW
    assert len(done.troubles) == 1
    assert "damaged" in done.troubles[0]
    assert [cell.test for cell in cells(store, [folder.name])] == ["a", "b"]
    assert runs(store)[0].troubles == done.troubles


@pytest.mark.parametrize("text", ["a\0b", "\N{SNOWMAN}", "<script>", "x" * 2000])
def test_text_of_any_kind(store: Store, results: Path, text: str) -> None:
    test = a_test(f"t.py::test[{text}]", message=text, outcome="failed", properties={text: text})
    assert import_run(store, write(results, record(0, test))).became is Became.NEW
    (cell,) = cells(store, [record(0).run_id])
    assert cell.message == text.replace("\0", "\N{REPLACEMENT CHARACTER}")
    assert dict(cell.properties) == {text: text}
