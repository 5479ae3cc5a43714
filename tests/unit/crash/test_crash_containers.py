from __future__ import annotations

import gzip
import json
import os
import shutil
import zipfile
from dataclasses import replace
from email.message import EmailMessage
from pathlib import Path

import pytest
from dumpmaker import in_xenvbd, xen_core

from lab.core.errors import UsageError
from lab.crash import labrun, reader
from lab.crash.dumpwriter import memory_image, triage_dump
from lab.crash.incidents import incidents
from lab.crash.reader import examine, read
from lab.drivers import archive
from lab.evidence.manifest import Manifest
from lab.evidence.operations import OPERATIONS_NAME, Operation, Operations
from lab.scenario.model import About, Attach, Scenario
from lab.scenario.text import dumps

GOLDEN = Path(__file__).parent / "golden"
PANIC = GOLDEN / "panic_seeded.log"
CRASH = (
    "virtdemo crashed during attaching phy:/dev/mapper/x /dev/hdc w: Kernel panic - not "
    "syncing: pvlab seeded defect: crash on attach (xen_blkfront:blkfront_probe)"
)


#: The lab tells of the crash in its own documents too.
DID = Operations(
    zero=0.0,
    kept=9.0,
    operations=(
        Operation(name="vbd.attach", words="vbd.attach", started=1.0, ended=2.0, error=CRASH),
    ),
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder as the lab leaves it: one test that failed, one that passed."""
    folder = tmp_path / "20261123T000000Z-abcdef"
    for name in ("test_a-1", "test_b-2"):
        evidence = folder / "tests" / name
        evidence.mkdir(parents=True)
        (evidence / "evidence.json").write_text(Manifest(test_id="t").model_dump_json(indent=2))
        (evidence / OPERATIONS_NAME).write_text(DID.model_dump_json(indent=2))
        (evidence / "scenario.yaml").write_text(
            dumps(Scenario(about=About(outcome=CRASH), steps=(Attach(disk="hdc", size=1 << 20),)))
        )
        (evidence / "timings.json").write_text('{"crash": 1}')
        shutil.copy(PANIC, evidence / "guest-serial.log")
        shutil.copy(GOLDEN / "dbgview_clock.log", evidence / "dbgview.log")
    tests = [
        {
            "id": "tests/drivers/test_attach.py::test_a",
            "outcome": "failed",
            "evidence": "tests/test_a-1",
            "properties": {"pvlab.crash": CRASH},
        },
        {"id": "t::test_b", "outcome": "passed", "evidence": "tests/test_b-2", "properties": {}},
        {"id": "t::test_c", "outcome": "failed", "evidence": "../../etc", "properties": {}},
    ]
    record = {
        "schema_version": 1,
        "run_id": folder.name,
        "started": "2026-11-23T00:00:00Z",
        "guest_label": "stand-in: 32-bit PAE HVM guest",
        "driver": {"name": "xenvbd", "version": "0.0.3", "sha256": "ab" * 32},
        "tests": tests,
    }
    (folder / "run.json").write_text(json.dumps(record, indent=2))
    return folder


def test_a_test_that_the_driver_hung_in(run: Path):
    record = json.loads((run / "run.json").read_text())
    record["tests"] = [
        {
            "id": "t::test_detach",
            "outcome": "failed",
            "message": "detaching hdc: backend Closing (5), frontend Connected (4)",
            "properties": {"pvlab.stuck": "detach: backend Closing, frontend Connected"},
        }
    ]
    (run / "run.json").write_text(json.dumps(record))
    [fact] = read(run / "run.json")
    assert (fact.kind, fact.stuck) == ("hang", "detach: backend Closing, frontend Connected")
    assert fact.message == "detaching hdc: backend Closing (5), frontend Connected (4)"
    assert fact.sources["stuck"].at == "test t::test_detach"


def test_a_run_of_the_lab(run: Path):
    facts = read(run)
    assert [fact.kind for fact in facts] == ["panic", "unknown", "panic", "panic"]
    told = facts[0]
    assert told.module == "xen_blkfront"
    assert told.notes == (
        "test: tests/drivers/test_attach.py::test_a",
        "during attaching phy:/dev/mapper/x /dev/hdc w",
        f"driver: xenvbd 0.0.3 {'ab' * 6}",
    )
    assert told.sources["message"].text() == (
        "lab run run.json, test tests/drivers/test_attach.py::test_a"
    )
    assert facts[2].sources["message"].file == "tests/test_a-1/guest-serial.log"


def test_each_failed_test_is_a_report_of_its_own(run: Path):
    (report,) = examine(run).reports
    assert report.of_test
    # The record and the serial log tell of one crash. Which of the two crashes DbgView's log
    # belongs to, nothing says.
    told, rebooted, printed = incidents(report.facts)
    assert printed.kind == "unknown"
    assert told.notes[1] == "during attaching phy:/dev/mapper/x /dev/hdc w"
    assert [one.symbol for one in told.frames] == ["crash_now", "aggr_pre_handler"]
    assert told.sources["frames"].file == "tests/test_a-1/guest-serial.log"
    assert rebooted.message == (
        "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)"
    )


def test_one_test_s_evidence(run: Path):
    facts = read(run / "tests/test_a-1")
    assert [fact.kind for fact in facts] == ["panic", "unknown", "panic", "panic"]
    assert [fact.kind for fact in read(run / "run.json")] == ["panic"]
    # Without its run it is read all the same.
    (run / "run.json").unlink()
    assert [fact.kind for fact in read(run / "tests/test_a-1")] == ["unknown", "panic", "panic"]


def test_what_the_lab_tells_of_itself_is_no_second_crash(run: Path, tmp_path: Path):
    evidence = run / "tests/test_a-1"
    mailed = tmp_path / "mailed.zip"
    with zipfile.ZipFile(mailed, "w") as packed:
        for file in evidence.iterdir():
            packed.write(file, file.name)
    assert [fact.kind for fact in read(mailed)] == ["unknown", "panic", "panic"]
    for name in ("evidence.json", OPERATIONS_NAME, "scenario.yaml"):
        with pytest.raises(UsageError, match=f"{name}.*what the lab tells of its own doings"):
            read(evidence / name)


def test_a_baseline_s_crash_is_the_baseline_s(run: Path):
    record = json.loads((run / "run.json").read_text())
    record["baseline"] = {"name": "xenvbd", "version": "0.0.2", "sha256": "cd" * 32}
    record["tests"][0]["turn"] = {"test": "t::test_a", "driver": "baseline"}
    record["tests"][2]["turn"] = {"test": "t::test_c", "driver": "new"}
    (run / "run.json").write_text(json.dumps(record))
    old, new = f"xenvbd 0.0.2 {'cd' * 6}", f"xenvbd 0.0.3 {'ab' * 6}"
    assert [test.build for test in labrun.failed(run)] == [old, new]
    assert read(run)[0].notes[-1] == f"driver: {old}"
    assert [report.build for report in examine(run).reports] == [old]
    assert [report.build for report in examine(run / "tests/test_a-1").reports] == [old]


def test_a_record_may_not_lead_out_of_its_run(run: Path):
    assert [test.evidence for test in labrun.failed(run)] == [run / "tests/test_a-1", None]


@pytest.mark.parametrize("text", ["{", "[]", '{"tests": 1}', "[" * 100_000, '{"tests": [1, {}]}'])
def test_damaged_records(text: str, run: Path):
    (run / "run.json").write_text(text)
    with pytest.raises(UsageError):
        read(run)


def test_a_folder_names_what_it_could_not_read(tmp_path: Path):
    shutil.copy(PANIC, tmp_path / "b.log")
    (tmp_path / "a.bin").write_bytes(bytes(range(256)))
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/mini.dmp").write_bytes(triage_dump(in_xenvbd()))
    os.symlink("/etc/passwd", tmp_path / "link")
    os.mkfifo(tmp_path / "pipe")
    found = examine(tmp_path)
    assert [fact.kind for fact in found.facts] == ["panic", "panic", "bugcheck"]
    assert found.facts[2].sources["code"].file == "deep/mini.dmp"
    assert found.skipped == ["a.bin: not a kind of file that anybody here reads"]
    with pytest.raises(UsageError, match="neither a file nor a folder"):
        read(tmp_path / "pipe")


def test_zip(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "report.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("logs/serial.log", PANIC.read_bytes())
        file.writestr("Mini112007-01.dmp", triage_dump(in_xenvbd()))
        file.writestr("readme.bin", bytes(1000))
    found = examine(tmp_path / "report.zip")
    assert {fact.sources["when" if fact.code is None else "code"].file for fact in found.facts} == {
        "report.zip: logs/serial.log",
        "report.zip: Mini112007-01.dmp",
    }
    assert len(found.skipped) == 1


def test_zip_of_a_dump_as_large_as_a_guest(tmp_path: Path):
    dump = triage_dump(in_xenvbd())
    with zipfile.ZipFile(tmp_path / "report.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("MEMORY.DMP", dump + bytes((96 << 20) - len(dump)))
    assert read(tmp_path / "report.zip")[0].plain == 0xD1


def test_hostile_zips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(archive, "REPORT", replace(archive.REPORT, total=5 << 20))
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.log", bytes(6 << 20))
    with pytest.raises(UsageError, match="larger than 5 MiB"):
        read(path)
    (tmp_path / "many").mkdir()
    for number in range(3):
        with zipfile.ZipFile(tmp_path / f"many/{number}.zip", "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("a.log", PANIC.read_bytes() + b"\n" * (2 << 20))
    found = examine(tmp_path / "many")
    assert found.skipped[-1].endswith("2.zip: larger than 0 MiB when unpacked")
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("../../etc/x", "kernel BUG at x.c:1!")
    with pytest.raises(UsageError, match="climbs out"):
        read(path)
    inner = PANIC.read_bytes()
    for _ in range(12):
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("a.zip", inner)
        inner = path.read_bytes()
    with pytest.raises(UsageError, match="too many archives inside each other"):
        read(path)


def test_compressed_and_cut_off(tmp_path: Path):
    path = tmp_path / "serial.log.gz"
    # Incompressible lines before the crash, so that a cut leaves some of the text.
    noise = "".join(f"{os.urandom(30).hex()}\n" for _ in range(2000)).encode()
    packed = gzip.compress(PANIC.read_bytes() + noise)
    path.write_bytes(packed)
    assert [fact.kind for fact in read(path)] == ["panic", "panic"]
    path.write_bytes(packed[: len(packed) // 2])
    facts = read(path)
    assert facts[0].notes[-1].startswith("truncated: the compressed file is damaged")
    assert facts[0].sources["message"].file == "serial.log.gz"
    path.write_bytes(packed[:15])
    with pytest.raises(UsageError, match="damaged or empty"):
        read(path)


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (3 << 20) + 5])
def test_gzip_members(size: int, tmp_path: Path):
    """Members one after the other, with room between them, larger than what is read at once."""
    path = tmp_path / "serial.log.gz"
    filler = (b" " * 99 + b"\n") * (size // 100) + b" " * (size % 100)
    packed = [gzip.compress(part) for part in (filler, b"\n", PANIC.read_bytes(), filler)]
    path.write_bytes(b"".join(packed[:2]) + bytes(512) + b"".join(packed[2:]) + bytes(700))
    facts = read(path)
    assert [fact.kind for fact in facts] == ["panic", "panic"]
    assert not [note for note in facts[0].notes if "truncated" in note]
    assert facts[0].sources["message"].at == f"line {size // 100 + 3}"


def test_what_unpacks_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "core.gz"
    monkeypatch.setattr(reader, "MAX_STORED", 1 << 20)
    path.write_bytes(gzip.compress(b"a" * (4 << 20)))
    with pytest.raises(UsageError, match="unpacks to more than"):
        read(path)
    monkeypatch.setattr(reader, "MAX_UNPACKED", 1 << 20)
    path.write_bytes(gzip.compress(bytes(4 << 20)))
    with pytest.raises(UsageError, match="unpacks to more than"):
        read(path)


def test_zstd_needs_its_package(tmp_path: Path):
    path = tmp_path / "core.zst"
    path.write_bytes(b"\x28\xb5\x2f\xfd" + bytes(100))
    with pytest.raises(UsageError):
        read(path)


def test_a_mail_with_attachments(tmp_path: Path):
    message = EmailMessage()
    message["From"] = "somebody@example.org"
    message["Subject"] = "BSOD with xenvbd"
    message["Date"] = "Tue, 20 Nov 2007 10:11:12 +1100"
    message.set_content("Hi,\n\nit crashes when I detach the disk. Dump attached.\n")
    message.add_attachment(
        triage_dump(in_xenvbd()), maintype="application", subtype="x", filename="../ev il.dmp"
    )
    path = tmp_path / "mail.eml"
    path.write_bytes(message.as_bytes())
    said, dumped = read(path)
    assert said.message == "it crashes when I detach the disk."
    assert "subject: BSOD with xenvbd" in said.notes
    assert said.sources["message"].file == "mail.eml"
    assert dumped.plain == 0xD1
    assert dumped.sources["code"].file == "mail.eml: _ev_il.dmp"
    html = EmailMessage()
    html["Subject"] = "hang"
    html["From"] = "somebody@example.org"
    html.set_content("<p>My guest <b>hangs</b> when I copy<br>files</p>", subtype="html")
    path.write_bytes(html.as_bytes())
    (fact,) = read(path)
    assert (fact.kind, fact.message) == ("hang", "My guest hangs when I copy files")


def test_a_core_as_the_lab_keeps_it(tmp_path: Path):
    crash = in_xenvbd(code=0xD1)
    (tmp_path / "core.gz").write_bytes(gzip.compress(xen_core(memory_image(crash)), 1))
    (fact,) = read(tmp_path)
    assert (fact.plain, fact.parameters) == (0xD1, crash.parameters)
    assert fact.sources["code"].file == "core.gz"
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF" + bytes(1000))
    with pytest.raises(UsageError):
        read(program)
