"""The record, its file and its folder."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lab.core.errors import Blame, LabBroken, UsageError
from lab.results import facts
from lab.results.folder import create_run_folder, new_run_id, point_latest
from lab.results.junit import suite_properties
from lab.results.record import (
    Accelerator,
    Driver,
    EndedHow,
    Host,
    Image,
    Outcome,
    RunRecord,
    Status,
    TestRecord,
    Verdict,
)
from lab.results.writer import RunWriter, encode, load_run

NOON = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)
PASS = Verdict(status=Status.PASS, exit_code=0, reasons=("1 test passed",))


def record(run_id: str = "run", **fields: Any) -> RunRecord:
    base: dict[str, Any] = {
        "run_id": run_id,
        "started": NOON,
        "profile": "standin",
        "guest_label": "stand-in",
        "host": Host(kernel="Linux 6.1", cpus=2, memory_mib=24000, os="Debian 12"),
    }
    return RunRecord.model_validate(base | fields)


def a_test(test_id: str = "t", **fields: Any) -> TestRecord:
    return TestRecord.model_validate({"id": test_id, "outcome": "passed", "seconds": 1} | fields)


class TestModel:
    def test_moments_are_utc(self) -> None:
        cet = datetime(2026, 1, 2, 13, 0, 0, tzinfo=timezone(timedelta(hours=1)))
        assert record(started=cet).started == NOON
        assert b'"started": "2026-01-02T12:00:00Z"' in encode(record(started=cet))

    def test_naive_moments_are_refused(self) -> None:
        with pytest.raises(ValidationError):
            record(started=datetime(2026, 1, 2))

    @pytest.mark.parametrize("path", ["/etc", "../x", "a/../../x", "", "..\\x"])
    def test_evidence_stays_inside_the_run(self, path: str) -> None:
        with pytest.raises(ValidationError, match="below the run's folder"):
            a_test(evidence=path)

    @pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
    def test_seconds(self, seconds: float) -> None:
        with pytest.raises(ValidationError):
            a_test(seconds=seconds)

    def test_counts_and_seconds(self) -> None:
        run = record(
            tests=(a_test("a"), a_test("b", outcome="failed"), a_test("c")),
            ended=NOON + timedelta(seconds=90),
        )
        assert run.counts == {Outcome.PASSED: 2, Outcome.FAILED: 1}
        assert run.seconds == 90
        assert record().seconds is None


TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
TESTS = st.builds(
    TestRecord,
    id=TEXT.filter(bool),
    area=TEXT,
    outcome=st.sampled_from(Outcome),
    blame=st.none() | st.sampled_from(Blame),
    phase=st.sampled_from(["setup", "call", "teardown"]),
    seconds=st.floats(0, 1e6),
    message=TEXT,
    details=TEXT,
    evidence=st.none() | st.just("tests/a-1"),
    properties=st.dictionaries(TEXT, TEXT, max_size=2),
)


class TestFile:
    @given(st.lists(TESTS, max_size=4), st.sampled_from(EndedHow))
    def test_reads_back(
        self,
        tmp_path_factory: pytest.TempPathFactory,
        tests: list[TestRecord],
        ended_how: EndedHow,
    ) -> None:
        path = tmp_path_factory.mktemp("run") / "run.json"
        run = record(tests=tuple(tests), ended_how=ended_how, verdict=PASS)
        path.write_bytes(encode(run))
        assert load_run(path) == run

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"", r"damaged: not a record: Invalid JSON"),
            (b"\xff", r"damaged: not a record: Invalid JSON"),
            (b"[]", r"damaged: not a record"),
            (b'{"schema_version": 2}', r"its schema_version is not 1 \(another version"),
            (b'{"schema_version": 1}', r"damaged: run_id: Field required"),
        ],
    )
    def test_damage(self, tmp_path: Path, content: bytes, reason: str) -> None:
        (tmp_path / "run.json").write_bytes(content)
        with pytest.raises(UsageError, match=reason) as caught:
            load_run(tmp_path)
        assert "\n" not in str(caught.value)

    def test_half_a_record(self, tmp_path: Path) -> None:
        (tmp_path / "run.json").write_bytes(encode(record())[:-20])
        with pytest.raises(UsageError, match="damaged"):
            load_run(tmp_path)

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="cannot be read"):
            load_run(tmp_path / "gone")


class TestWriter:
    def test_record_is_on_disk_after_each_step(self, tmp_path: Path) -> None:
        folder = create_run_folder(tmp_path)
        writer = RunWriter(folder, record(folder.name))
        assert load_run(tmp_path / "latest") == writer.record
        accelerator = Accelerator(name="kvm", emulator="q", emulator_version="1", why="fast")
        writer.update(accelerator=accelerator)
        writer.put(a_test("a"))
        writer.put(a_test("b"))
        found = load_run(folder)
        assert found == writer.record
        assert found.accelerator == accelerator
        assert [t.id for t in found.tests] == ["a", "b"]
        assert (found.ended_how, found.ended, found.verdict) == (EndedHow.RUNNING, None, None)
        writer.finish(PASS, now=NOON + timedelta(seconds=5))
        found = load_run(folder)
        assert (found.ended_how, found.seconds, found.verdict) == (EndedHow.FINISHED, 5, PASS)
        assert os.listdir(folder) == ["run.json"]

    def test_put_again_replaces(self, tmp_path: Path) -> None:
        writer = RunWriter(create_run_folder(tmp_path), record())
        writer.put(a_test("a"))
        writer.put(a_test("b"))
        writer.put(a_test("a", outcome="error", phase="teardown"))
        assert [(t.id, t.outcome) for t in writer.record.tests] == [
            ("a", "error"),
            ("b", "passed"),
        ]

    def test_interrupted(self, tmp_path: Path) -> None:
        writer = RunWriter(create_run_folder(tmp_path), record())
        writer.finish(PASS, EndedHow.INTERRUPTED)
        assert load_run(writer.folder).ended_how is EndedHow.INTERRUPTED

    def test_wrong_fields_change_nothing(self, tmp_path: Path) -> None:
        writer = RunWriter(create_run_folder(tmp_path), record())
        with pytest.raises(ValidationError):
            writer.update(acelerator=None)
        with pytest.raises(ValidationError):
            writer.update(images=3)
        assert load_run(writer.folder) == writer.record == record()

    def test_lost_folder(self, tmp_path: Path) -> None:
        writer = RunWriter(create_run_folder(tmp_path), record())
        (writer.folder / "run.json").unlink()
        writer.folder.rmdir()
        with pytest.raises(LabBroken, match="cannot be written"):
            writer.put(a_test())


KILLED_BETWEEN_TESTS = """
import os, signal, sys
from pathlib import Path
from lab.results.record import Outcome, TestRecord
from lab.results.writer import RunWriter, load_run
writer = RunWriter(Path(sys.argv[1]), load_run(Path(sys.argv[1])))
print("ready", flush=True)
for number in range(10**6):
    writer.put(TestRecord(id=f"t{number % 50}", outcome=Outcome.PASSED, seconds=number))
    if number == 20:
        print("going", flush=True)
"""


def test_kill_at_any_moment_leaves_a_readable_record(tmp_path: Path) -> None:
    folder = create_run_folder(tmp_path)
    (folder / "run.json").write_bytes(encode(record()))
    with subprocess.Popen(
        [sys.executable, "-c", KILLED_BETWEEN_TESTS, str(folder)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert process.stdout.readline() == b"going\n"
        process.kill()
        assert process.wait(60) == -signal.SIGKILL
    found = load_run(tmp_path / "latest")
    assert found.ended_how is EndedHow.RUNNING
    assert len(found.tests) >= 20


class TestFolder:
    def test_run_id_sorts_by_time(self) -> None:
        assert re.fullmatch(r"20260102T120000Z-[0-9a-f]{6}", new_run_id(NOON))
        assert new_run_id(NOON) < new_run_id(NOON + timedelta(seconds=1))

    def test_concurrent_runs_have_folders_of_their_own(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        draws = iter([*["same"] * 20, *(f"other{n}" for n in range(20))])
        monkeypatch.setattr("lab.results.folder.secrets.token_hex", lambda _: next(draws))
        with ThreadPoolExecutor(8) as pool:
            folders = list(pool.map(lambda _: create_run_folder(tmp_path, NOON), range(20)))
        assert len(set(folders)) == 20

    def test_unwritable(self, tmp_path: Path) -> None:
        (tmp_path / "results").write_text("a file")
        with pytest.raises(UsageError, match="PVLAB_RESULTS"):
            create_run_folder(tmp_path / "results")

    def test_latest_moves_and_is_relative(self, tmp_path: Path) -> None:
        one, other = create_run_folder(tmp_path), create_run_folder(tmp_path)
        for folder in (one, other):
            point_latest(folder)
            assert os.readlink(tmp_path / "latest") == folder.name
        assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
            ["latest", one.name, other.name]
        )

    def test_dangling_latest_is_replaced(self, tmp_path: Path) -> None:
        (tmp_path / "latest").symlink_to("gone")
        folder = create_run_folder(tmp_path)
        point_latest(folder)
        assert (tmp_path / "latest").resolve() == folder

    def test_something_of_the_users_is_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "latest").mkdir()
        with pytest.raises(UsageError, match="not a symbolic link"):
            point_latest(create_run_folder(tmp_path))
        assert (tmp_path / "latest").is_dir()

    def test_latest_under_concurrency_always_points_at_a_run(self, tmp_path: Path) -> None:
        folders = [create_run_folder(tmp_path) for _ in range(8)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(point_latest, folders * 5))
        assert (tmp_path / "latest").resolve() in folders
        assert len(list(tmp_path.iterdir())) == len(folders) + 1


class TestFacts:
    def test_host(self, tmp_path: Path) -> None:
        meminfo = tmp_path / "meminfo"
        meminfo.write_text("MemTotal:       24616352 kB\nMemFree: 1 kB\n")
        found = facts.host(meminfo, cpus=3, os_name="Debian")
        assert (found.memory_mib, found.cpus, found.os) == (24039, 3, "Debian")
        assert facts.host(tmp_path / "gone").memory_mib == 0
        assert facts.host().cpus >= 1

    def test_versions(self) -> None:
        found = facts.versions(["pytest", "no-such-distribution"])
        assert set(found) == {"pvlab", "python", "pytest", "no-such-distribution"}
        assert found["no-such-distribution"] == "not installed"


def test_suite_properties() -> None:
    run = record(
        accelerator=Accelerator(
            name="tcg-hvm", emulator="qemu", emulator_version="5.2.0", why="no nested KVM"
        ),
        images={"dom0": Image(key="k0"), "guest": Image(key="k1")},
        driver=Driver(name="xenvbd", version="0.0.3", sha256="a" * 64, basename="x.zip"),
        versions={"xen": "4.17", "qemu": "5.2.0"},
        verdict=PASS,
    )
    assert suite_properties(run) == {
        "pvlab.run_id": "run",
        "pvlab.profile": "standin",
        "pvlab.guest": "stand-in",
        "pvlab.host.kernel": "Linux 6.1",
        "pvlab.host.os": "Debian 12",
        "pvlab.accelerator": "tcg-hvm",
        "pvlab.accelerator.emulator": "qemu 5.2.0",
        "pvlab.accelerator.why": "no nested KVM",
        "pvlab.driver": "xenvbd",
        "pvlab.driver.version": "0.0.3",
        "pvlab.driver.sha256": "a" * 64,
        "pvlab.image.dom0": "k0",
        "pvlab.image.guest": "k1",
        "pvlab.version.qemu": "5.2.0",
        "pvlab.version.xen": "4.17",
        "pvlab.verdict": "PASS",
    }
    assert "pvlab.driver" not in suite_properties(record())
