"""report.html: what it says, and that no log can make it do anything."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lab.core.errors import Blame, UsageError
from lab.evidence.manifest import Manifest, Piece
from lab.results import text
from lab.results.measured import bar_property
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
from lab.results.report import render, write_report

VOID = {"meta", "br"}
CRASHED = "tests/test_vbd.py::test_attach[hdc]"
EVIDENCE = "tests/test_attach-hdc-1a2b3c4d"


class Page(HTMLParser):
    """A parsed page: text, elements, links; refuses tags that do not nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.blocks: list[str] = []
        self._open: list[str] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "pre":
            self.blocks.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            return
        self.words.append(data)
        if "pre" in self._open:
            self.blocks[-1] += data

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    def tags(self) -> set[str]:
        return {tag for tag, _ in self.elements}

    def links(self) -> list[str]:
        return [str(attrs["href"]) for tag, attrs in self.elements if tag == "a"]


def record(**fields: Any) -> RunRecord:
    base: dict[str, Any] = {
        "run_id": "20260102T030405Z-0a1b2c",
        "started": "2026-01-02T03:04:05Z",
        "ended": "2026-01-02T03:14:05Z",
        "ended_how": EndedHow.FINISHED,
        "command": "pvlab gate --driver xenvbd.zip",
        "profile": "standin",
        "guest_label": "stand-in: 32-bit PAE HVM guest with a Linux kernel",
        "host": Host(kernel="Linux 6.1 x86_64", cpus=2, memory_mib=24000, os="Debian 12"),
        "accelerator": Accelerator(
            name="tcg-hvm",
            emulator="qemu-system-x86_64",
            emulator_version="5.2.0",
            why="no svm or vmx in /proc/cpuinfo",
        ),
        "images": {"standin-pae": Image(key="ab12cd", versions={"linux": "6.1.0-50"})},
        "driver": Driver(
            name="xenvbd",
            version="0.0.3",
            sha256="c" * 64,
            basename="xenvbd.zip",
            files=("xenvbd.inf", "a&b.sys"),
        ),
        "versions": {"xen": "4.17.7"},
    }
    return RunRecord.model_validate(base | fields)


def crashed(**fields: Any) -> TestRecord:
    base: dict[str, Any] = {
        "id": CRASHED,
        "area": "attach",
        "outcome": Outcome.FAILED,
        "blame": Blame.DRIVER,
        "seconds": 12.5,
        "message": "the guest crashed during block-attach of hdc",
        "details": "Kernel panic - not syncing",
        "evidence": EVIDENCE,
    }
    return TestRecord.model_validate(base | fields)


def put_evidence(run: Path, files: dict[str, tuple[str, bytes]], *missing: Piece) -> None:
    """Write pieces, by name: (file name, content), and their manifest."""
    folder = run / EVIDENCE
    folder.mkdir(parents=True)
    pieces = []
    for name, (file, data) in files.items():
        (folder / file).write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        pieces.append(Piece(name=name, path=file, bytes=len(data), sha256=digest, seconds=1))
    manifest = Manifest(test_id=CRASHED, complete=True, pieces=(*pieces, *missing))
    (folder / "evidence.json").write_text(manifest.model_dump_json())


FAIL = Verdict(
    status=Status.FAIL, exit_code=1, reasons=(f"the driver failed: {CRASHED}: the guest crashed",)
)


def test_failed_gate(tmp_path: Path) -> None:
    put_evidence(
        tmp_path,
        {
            "dbgview": (
                "dbgview.log",
                b"00000041\t9.5\tXenVbd      Set Frontend state to Initialised\t\r\n"
                b"00000042\t9.6\tXenVbd  --> PutIrpOnRing\t\r\n",
            ),
            "guest-serial": ("guest-serial.log", b"[   61.2] Kernel panic - not syncing\n"),
            "core": ("core.zst", b"\x7fELF"),
            "timings": ("timings.json", json.dumps({"attach": 8.25, "odd": None}).encode()),
            "toolstack-logs/xl guest.log": ("xl-guest.log", b"x"),
        },
        Piece(name="xl-dmesg", seconds=5, error="waited 5.0 s for xl-dmesg"),
    )
    tests = (
        TestRecord(id="tests/test_vbd.py::test_ok", outcome=Outcome.PASSED, seconds=3),
        crashed(),
        TestRecord(
            id="tests/test_vbd.py::test_later",
            outcome=Outcome.SKIPPED,
            seconds=0,
            message="not on xl",
        ),
    )
    (tmp_path / "run.json").write_text("{}")
    page = Page(render(record(tests=tests, verdict=FAIL), tmp_path))
    for expected in (
        "FAIL: The driver failed.",
        FAIL.reasons[0],
        "xenvbd 0.0.3, from xenvbd.zip, SHA-256 " + "c" * 64,
        "stand-in: 32-bit PAE HVM guest with a Linux kernel (profile standin)",
        "tcg-hvm: no svm or vmx in /proc/cpuinfo",
        "1 passed, 1 failed, 1 skipped, in 10 min 00 s",
        "2026-01-02 03:04:05 UTC, finished: pvlab gate --driver xenvbd.zip",
        "failed in call, to blame: the driver, after 12.5 s, area attach",
        "the guest crashed during block-attach of hdc",
        f"Core dump of the guest: {EVIDENCE}/core.zst, 4 B, SHA-256 ",
        "attach8.25 s",
        "missing: xl-dmesg: waited 5.0 s for xl-dmesg",
        "not on xl",
        "Debian 12, Linux 6.1 x86_64, 2 processors, 24000 MiB",
        "ab12cd: linux 6.1.0-50",
        "xenvbd.inf, a&b.sys",
        "xen 4.17.7",
    ):
        assert expected in page.text
    assert "Windows" not in page.text
    # The driver's own prints come first after the test's details, without their line ends.
    assert page.blocks == [
        "Kernel panic - not syncing",
        "00000041\t9.5\tXenVbd      Set Frontend state to Initialised\t\n"
        "00000042\t9.6\tXenVbd  --> PutIrpOnRing\t",
        "[   61.2] Kernel panic - not syncing",
    ]
    local = [link for link in page.links() if not link.startswith("#")]
    assert f"./{EVIDENCE}/core.zst" in local
    assert f"./{EVIDENCE}/xl-guest.log" in local
    assert "./run.json" in local
    assert "./junit.xml" not in local
    assert all((tmp_path / link).exists() for link in local)
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert [link for link in page.links() if link.startswith("#")] == [f"#{i}" for i in ids]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (Status.PASS, "PASS: The driver passed."),
        (Status.LAB, "LAB: The lab failed: this run says nothing about the driver."),
        (Status.UNDECIDED, "UNDECIDED: Undecided"),
    ],
)
def test_every_verdict_has_words(tmp_path: Path, status: Status, words: str) -> None:
    verdict = Verdict(status=status, exit_code=0, reasons=())
    assert words in Page(render(record(verdict=verdict), tmp_path)).text


def test_killed_run(tmp_path: Path) -> None:
    run = record(
        ended=None,
        ended_how=EndedHow.RUNNING,
        driver=None,
        accelerator=None,
        tests=(crashed(blame=None, evidence=None),),
    )
    page = Page(render(run, tmp_path))
    assert "No verdict: the run is still going on or was killed" in page.text
    assert "none was chosen" in page.text
    assert "to blame: nobody can say" in page.text
    assert "No evidence was collected." in page.text


def test_empty_run(tmp_path: Path) -> None:
    assert "No test ran." in Page(render(record(), tmp_path)).text


def test_what_was_measured_is_drawn(tmp_path: Path) -> None:
    measured = dict(
        (
            bar_property("reads, MiB/s", "emulated disk", 2.5),
            bar_property("reads, MiB/s", "<b>PV</b> disk", 10),
        )
    )
    test = TestRecord(id="t::reads", outcome=Outcome.PASSED, seconds=1, properties=measured)
    html = render(record(tests=(test,)), tmp_path)
    assert '<meter min="0" max="10.0" value="2.5" aria-label="emulated disk: 2.5">' in html
    assert "<b>PV" not in html
    assert "reads, MiB/s" in Page(html).text
    assert "Measured" not in Page(render(record(), tmp_path)).text


def test_script_in_a_dbgview_line_stays_text(tmp_path: Path) -> None:
    line = "XenVbd <script>alert(1)</script><img src=x onerror=alert(1)>"
    put_evidence(tmp_path, {"dbgview": ("dbgview.log", line.encode() + b"\r\n")})
    html = render(record(tests=(crashed(),), verdict=FAIL), tmp_path)
    assert "<script" not in html
    assert "<img" not in html
    assert Page(html).blocks[-1] == line


HOSTILE = "<b>\"'><script>x</script>&amp;{{ 7*7 }}\x1b[31m\u202e"


def test_no_field_is_markup(tmp_path: Path) -> None:
    piece = Piece(name=HOSTILE, seconds=0, error=HOSTILE)
    put_evidence(tmp_path, {"dbgview": ("dbgview.log", HOSTILE.encode())}, piece)
    run = record(
        command=HOSTILE,
        profile=HOSTILE,
        guest_label=HOSTILE,
        host=Host(kernel=HOSTILE, cpus=1, memory_mib=1, os=HOSTILE),
        accelerator=Accelerator(
            name=HOSTILE, emulator=HOSTILE, emulator_version=HOSTILE, why=HOSTILE
        ),
        images={HOSTILE: Image(key=HOSTILE, versions={HOSTILE: HOSTILE})},
        driver=Driver(
            name=HOSTILE,
            version=HOSTILE,
            sha256="a" * 64,
            basename=HOSTILE,
            files=(HOSTILE, HOSTILE),
        ),
        versions={HOSTILE: HOSTILE},
        tests=(crashed(id=HOSTILE, area=HOSTILE, message=HOSTILE, details=HOSTILE),),
        verdict=Verdict(status=Status.FAIL, exit_code=1, reasons=(HOSTILE,)),
    )
    html = render(run, tmp_path)
    page = Page(html)
    assert page.tags().isdisjoint({"b", "script", "img"})
    assert "\x1b" not in html
    assert "\u202e" not in html
    assert "&amp;amp;amp;" not in html, "escaped twice"
    # Once for each place a field is shown; the title is one of them.
    assert page.text.count("&amp;{{ 7*7 }}\u241b[31m<U+202E>") >= 25


def test_policy_allows_the_style_sheet_and_nothing_else(tmp_path: Path) -> None:
    html = render(record(), tmp_path)
    page = Page(html)
    style = html.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = next(
        str(attrs["content"])
        for tag, attrs in page.elements
        if attrs.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.split("; ") == [
        "default-src 'none'",
        f"style-src 'sha256-{digest}'",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    assert page.tags().isdisjoint({"script", "link", "img", "iframe", "object", "form"})
    assert not any(a in attrs for _, attrs in page.elements for a in ("style", "src", "onload"))
    assert "url(" not in style
    assert "@import" not in style


def test_long_logs_show_their_end(tmp_path: Path) -> None:
    data = b"".join(b"line %d\n" % n for n in range(100_000)) + b"y" * 1000 + b"\n"
    put_evidence(tmp_path, {"xen-serial": ("xen-serial.log", data)})
    page = Page(render(record(tests=(crashed(details=""),), verdict=FAIL), tmp_path))
    (block,) = page.blocks
    lines = block.splitlines()
    assert len(lines) == text.TAIL_LINES
    assert lines[-2] == "line 99999"
    assert lines[-1] == "y" * 400 + " ... 600 more characters"
    assert "the last 40 lines, of 1.0 MiB" in page.text


def test_evidence_outside_the_run_is_not_shown(tmp_path: Path) -> None:
    run = tmp_path / "run"
    secret = tmp_path / "secret"
    secret.write_text("hunter2")
    piece = Piece(name="dbgview", path="../../../secret", bytes=7, seconds=0)
    link = Piece(name="guest-serial", path="link", bytes=7, seconds=0)
    put_evidence(run, {}, piece, link)
    (run / EVIDENCE / "link").symlink_to(secret)
    html = render(record(tests=(crashed(),), verdict=FAIL), run)
    assert "hunter2" not in html
    assert "missing: dbgview: its file is not there" in Page(html).text


@pytest.mark.parametrize("content", [None, b"{", b"\xff"])
def test_damaged_evidence_is_said_so(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / EVIDENCE).mkdir(parents=True)
        (tmp_path / EVIDENCE / "evidence.json").write_bytes(content)
    page = Page(render(record(tests=(crashed(),), verdict=FAIL), tmp_path))
    assert re.search(r"evidence\.json(:| is) (damaged|missing)", page.text)


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff", b'{"a": "b"}'])
def test_odd_timings_are_left_out(tmp_path: Path, content: bytes) -> None:
    put_evidence(tmp_path, {"timings": ("timings.json", content)})
    page = Page(render(record(tests=(crashed(),), verdict=FAIL), tmp_path))
    assert page.text.count("Timings") == 0


def test_core_that_could_not_be_had(tmp_path: Path) -> None:
    put_evidence(tmp_path, {}, Piece(name="core", seconds=60, error="no such domain"))
    page = Page(render(record(tests=(crashed(),), verdict=FAIL), tmp_path))
    assert "No core dump: no such domain" in page.text


def test_lab_failure_hidden_by_xfail_gets_a_section(tmp_path: Path) -> None:
    run = record(tests=(crashed(outcome=Outcome.XFAILED, blame=Blame.LAB, evidence=None),))
    assert "xfailed in call, to blame: the lab" in Page(render(run, tmp_path)).text


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.text(), st.text(min_size=1), st.binary())
def test_any_text_nests_and_encodes(
    tmp_path_factory: pytest.TempPathFactory, message: str, test_id: str, log: bytes
) -> None:
    run = tmp_path_factory.mktemp("any")
    put_evidence(run, {"dbgview": ("dbgview.log", log)})
    path = write_report(record(tests=(crashed(id=test_id, message=message),)), run)
    Page(path.read_text(encoding="utf-8"))


def test_unwritable(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written"):
        write_report(record(), tmp_path / "gone")


class TestText:
    @pytest.mark.parametrize(
        ("raw", "shown"),
        [
            ("a\r\nb\n", "a\nb\n"),
            ("50%\r60%", "50%\u240d60%"),
            ("\x00\x1b[0m\x7f", "\u2400\u241b[0m\u2421"),
            ("\x9b", "<U+009B>"),
            ("\u202eabc\u200b", "<U+202E>abc<U+200B>"),
            ("\u2028\ud800", "<U+2028><U+D800>"),
            ("tab\there, \N{SNOWMAN} \xe4", "tab\there, \N{SNOWMAN} \xe4"),
        ],
    )
    def test_visible(self, raw: str, shown: str) -> None:
        assert text.visible(raw) == shown

    def test_tail(self, tmp_path: Path) -> None:
        log = tmp_path / "log"
        log.write_bytes(b"")
        assert text.tail(log) == text.LogTail((), False)
        log.write_bytes(b"a\nb\xff\nc")
        assert text.tail(log) == text.LogTail(("a", "b\\xff", "c"), False)
        assert text.tail(log, 2) == text.LogTail(("b\\xff", "c"), True)

    def test_tail_of_one_huge_line(self, tmp_path: Path) -> None:
        log = tmp_path / "log"
        log.write_bytes(b"x" * (text.TAIL_BYTES * 2))
        found = text.tail(log)
        assert found.cut
        assert found.lines[0].startswith("x" * 400 + " ... ")

    @pytest.mark.parametrize(
        ("number", "shown"),
        [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (5 << 20, "5.0 MiB"),
            (3 << 30, "3.0 GiB"),
        ],
    )
    def test_size(self, number: int, shown: str) -> None:
        assert text.size(number) == shown

    @pytest.mark.parametrize(
        ("seconds", "shown"),
        [
            (0, "0.00 s"),
            (9.876, "9.88 s"),
            (59.94, "59.9 s"),
            (61, "1 min 01 s"),
            (3700, "1 h 01 min"),
        ],
    )
    def test_duration(self, seconds: float, shown: str) -> None:
        assert text.duration(seconds) == shown
