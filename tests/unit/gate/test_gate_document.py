"""The document for --json."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from lab.core.errors import Blame, UsageError
from lab.gate.document import GateDocument, gate_document, write_document
from lab.gate.verdict import verdict
from lab.results.record import (
    Accelerator,
    Driver,
    EndedHow,
    Host,
    Image,
    Outcome,
    RunRecord,
    TestRecord,
)
from lab.results.writer import encode

GOLDEN = Path(__file__).parent / "golden" / "gate.json"


def example() -> RunRecord:
    return RunRecord(
        run_id="20260102T030405Z-0a1b2c",
        started="2026-01-02T04:04:05+01:00",
        ended="2026-01-02T03:14:05Z",
        ended_how=EndedHow.FINISHED,
        command="pvlab gate --driver xenvbd.zip",
        profile="standin",
        guest_label="stand-in: 32-bit PAE HVM guest with a Linux kernel",
        host=Host(kernel="Linux 6.1", cpus=2, memory_mib=24000, os="Debian 12"),
        accelerator=Accelerator(
            name="tcg-hvm", emulator="qemu-system-x86_64", emulator_version="5.2.0", why="no svm"
        ),
        images={"standin-pae": Image(key="ab12", versions={"linux": "6.1"})},
        driver=Driver(
            name="xenvbd", version="0.0.3", sha256="c" * 64, basename="xenvbd.zip", files=("a.inf",)
        ),
        versions={"pvlab": "0.1.0"},
        tests=(
            TestRecord(id="a.py::test_a", outcome=Outcome.PASSED, seconds=1.5),
            TestRecord(
                id="a.py::test_b",
                outcome=Outcome.FAILED,
                blame=Blame.DRIVER,
                seconds=9.25,
                message="the guest crashed",
                evidence="tests/test_b-1",
            ),
        ),
    )


def test_golden(tmp_path: Path) -> None:
    record = example()
    (tmp_path / "run.json").write_bytes(encode(record))
    (tmp_path / "tests/test_b-1").mkdir(parents=True)
    (tmp_path / "tests/test_b-1/evidence.json").write_text("{}\n")
    out = tmp_path / "gate.json"
    write_document(gate_document(record, verdict(record), tmp_path), out)
    assert out.read_text() == GOLDEN.read_text()


def test_hashes_are_of_the_files(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_bytes(b"x" * 100_000)
    document = gate_document(example(), verdict(example()), tmp_path)
    assert list(document.artifacts) == ["report.html"]
    assert document.artifacts["report.html"].bytes == 100_000
    assert document.artifacts["report.html"].sha256 == hashlib.sha256(b"x" * 100_000).hexdigest()


def test_reads_back(tmp_path: Path) -> None:
    document = gate_document(example(), verdict(example()), tmp_path)
    assert GateDocument.model_validate_json(document.model_dump_json()) == document


def test_unwritable(tmp_path: Path) -> None:
    document = gate_document(example(), verdict(example()), tmp_path)
    with pytest.raises(UsageError, match="cannot be written"):
        write_document(document, tmp_path / "no" / "gate.json")
