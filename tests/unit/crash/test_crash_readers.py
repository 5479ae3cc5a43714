from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.core.errors import UsageError
from lab.core.paths import repo_root
from lab.crash import dbgview_log, mail
from lab.crash.facts import KNOWLEDGE, CrashFact, from_json, known, to_json
from lab.crash.reader import read

GOLDEN = Path(__file__).parent / "golden"
SAMPLES = repo_root().parent / "shared/samples"


def golden() -> list[Path]:
    return sorted(path for path in GOLDEN.iterdir() if path.suffix != ".json")


def shown(fact: CrashFact) -> dict[str, Any]:
    """A fact in the words of the expectations: numbers in hex, frames as text."""
    return {
        "kind": fact.kind,
        "code": None if fact.code is None else hex(fact.code),
        "name": fact.name,
        "parameters": [hex(one) for one in fact.parameters],
        "module": fact.module,
        "message": fact.message,
        "frames": [one.text() for one in fact.frames],
        "modules": [one.name for one in fact.modules],
        "log": [one.text for one in fact.log],
        "process": fact.process,
        "system": fact.system,
        "when": fact.when,
    }


@pytest.mark.parametrize("path", golden(), ids=lambda path: path.name)
def test_golden(path: Path):
    expected = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    facts = read(path)
    assert [fact.kind for fact in facts] == [one["kind"] for one in expected]
    for fact, want in zip(facts, expected, strict=True):
        seen = shown(fact)
        plain = {k: v for k, v in want.items() if k not in ("at", "notes", "registers")}
        assert {key: seen[key] for key in plain} == plain
        for note in want.get("notes", []):
            assert note in fact.notes
        for name, value in want.get("registers", {}).items():
            assert hex(fact.registers[name]) == value
        for name, at in want.get("at", {}).items():
            assert fact.sources[name].at == at


@pytest.mark.parametrize("path", golden(), ids=lambda path: path.name)
def test_every_known_field_has_its_source(path: Path):
    for fact in read(path):
        assert set(fact.sources) == set(known(fact))
        assert {source.file for source in fact.sources.values()} <= {path.name}
        again = from_json(json.loads(json.dumps(to_json(fact))))
        assert again == fact
        assert list(to_json(fact)) == ["kind", *KNOWLEDGE, "sources", "notes"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig", "cp1252"])
def test_encodings_of_dbgview(encoding: str, tmp_path: Path):
    text = (GOLDEN / "dbgview_clock.log").read_bytes().decode("cp1252")
    log = tmp_path / "log"
    log.write_bytes(text.encode(encoding))
    (fact,) = read(log)
    assert [one.text for one in fact.log][-1] == "XenNet --> XenNet_Init äöü"
    assert (fact.log[0].seq, fact.log[0].time) == (0, "11:59:59.123 PM")
    assert fact.log[1].driver == "tiny"


def test_a_log_of_many_captures_keeps_the_newest(tmp_path: Path):
    log = tmp_path / "log"
    with log.open("w", newline="") as file:
        for capture in range(50):
            for number in range(1, 40):
                file.write(f"{number:08d}\t{number}.00000000\tXenVbd     of {capture}\t\r\n")
    facts = read(log)
    assert len(facts) == dbgview_log.CAPTURES
    assert facts[-1].log[-1].text == "XenVbd     of 49"
    assert facts[-1].sources["log"].at == f"lines {49 * 39 + 1} to {50 * 39}"
    assert "49 restarts of the numbering in the log" in facts[0].notes


def test_blocks_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A log gives the same facts however it is cut into blocks."""
    lines = [f"{n:08d}\t{n}.00000000\tXenVbd     request {n}\t\r\n" for n in range(1, 400)]
    del lines[100:117]
    lines[200:200] = ["no print\r\n", "00000001\t0.00000000\tXenPCI --> DriverEntry\t\r\n"]
    lines.append("00000400\t1.0\t*** Fatal System Error: 0x0000009f\t\r\n")
    lines.append("00000401\t1.0\t (0x00000003,0x00000001,0x00000002,0x00000000)\t\r\n")
    log = tmp_path / "log"
    log.write_text("".join(lines), newline="")
    whole = read(log)
    assert whole[-1].parameters == (3, 1, 2, 0)
    for size, breaks in ((64, 16), (97, 0), (1000, 2), (4096, 0), (1 << 20, 0)):
        monkeypatch.setattr(dbgview_log, "_BREAKS", breaks)
        monkeypatch.setattr(dbgview_log, "blocks", lambda path, size=size: _blocks(path, size))
        assert dbgview_log.read(log) == whole


@given(st.lists(st.sampled_from([1, 1, 1, 1, 1, 2, 9, 0, -1, -50, None]), max_size=60))
def test_numbers_are_checked_as_if_one_by_one(steps: list[int | None]):
    """The quick look at whole stretches finds the gaps and restarts of the plain one."""
    number, text = 99, ""
    last, gaps, restarts = None, [], 0
    for step in steps:
        if step is None:
            text += "the rest of a print\n"
            continue
        number = max(number + step, 0)
        text += f"{number:08d}\t0.1\tx\t\r\n"
        if last is not None and number <= last:
            restarts += 1
        elif last is not None and number > last + 1:
            gaps.append((last + 1, number - 1))
        last = number
    runs = dbgview_log._runs(text.encode())
    found = list(pairwise(runs))
    assert [(a.last + 1, b.first - 1) for a, b in found if b.first > a.last + 1] == gaps
    assert sum(b.first <= a.last for a, b in found) == restarts
    for run in runs:
        assert text.encode()[run.offset :].startswith(b"%08d\t" % run.first)


def _blocks(path: Path, size: int) -> Any:
    from lab.crash.text import blocks

    return blocks(path, size)


def test_a_line_without_end_is_cut(tmp_path: Path):
    log = tmp_path / "log"
    log.write_bytes(
        b"00000001\t0.0\tXenVbd     a" + b"a" * (3 << 20) + b"\r\n00000002\t0.1\tb\t\r\n"
    )
    (fact,) = read(log)
    assert fact.log[-1].text == "b"
    assert fact.sources["log"].at == "lines 1 to 2"


def test_sentences_of_a_person():
    fact = read(GOLDEN / "mail_detach.txt")[0]
    assert mail.said(fact) == (
        "It works fine at first, but when I detach the disk while copying a large file to it, "
        "the machine blue screens.",
        "It only happens with more than one vcpu.",
    )


def test_real_output():
    if not SAMPLES.exists():
        pytest.skip("the collection of real output is not here")
    (saved,) = read(SAMPLES / "eventlog_savedump_1001_xp.txt")
    assert (saved.code, saved.parameters) == (0x100000D1, (0, 2, 1, 0xBA940DC2))
    exported = read(SAMPLES / "bluescreenview_export_xp_minidumps_excerpt.txt")
    assert [fact.plain for fact in exported] == [0xA, 0xD1]
    (banner,) = read(SAMPLES / "windbg_xp_sp3_minidump_load_excerpt.txt")
    assert [one.name for one in banner.modules][:2] == ["ntkrnlpa.exe", "hal.dll"]
    assert "Service Pack 3" in str(banner.system)
    (log,) = read(SAMPLES / "dbgview_kernel_xpsp3_driver.log")
    assert "1 gap in the log, 11 lines missing, first: 10 to 20" in log.notes


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 100, b"nothing to see here\n", bytes(range(256)) * 10, b"\xff\xfe"]
)
def test_what_nobody_reads(content: bytes, tmp_path: Path):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read(path)
    assert "\n" not in str(caught.value)
