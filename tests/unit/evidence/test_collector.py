"""The collector, with sources that work, fail, hang and talk nonsense."""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

from lab.core.deadline import Deadline
from lab.core.errors import LabBroken, UsageError
from lab.evidence.collector import LIMITS, Collector, Limit
from lab.evidence.manifest import (
    CRASH,
    FULL,
    LIGHT,
    Manifest,
    Piece,
    PieceName,
    load_manifest,
)

TEST_ID = "tests/test_vbd.py::test_attach[hdc]"
SHORT = {name: Limit(0.05, limit.bytes) for name, limit in LIMITS.items()}


class Outcome(BaseException):
    """Stands for pytest's outcomes, which are no Exceptions."""


class GoodSources:
    """A place where everything can be had."""

    def __init__(self, serial: Path) -> None:
        self.serial = serial
        serial.write_bytes(b"(XEN) Xen version 4.17\n")

    def dbgview(self, deadline: Deadline) -> str | bytes:
        return "00000001\t0.00000000\tXenVbd --> AddDevice\t\r\n"

    def guest_serial(self, deadline: Deadline) -> str | bytes:
        return b"Kernel panic \xff\n"

    def xen_serial(self) -> Path:
        return self.serial

    def xl_dmesg(self, deadline: Deadline) -> str | bytes:
        return "(XEN) dmesg\n"

    def xenstore_vbd(self, deadline: Deadline) -> str | bytes:
        return '/local/domain/1/device/vbd/5632/state = "1"\n'

    def toolstack_logs(self, deadline: Deadline) -> Mapping[str, str | bytes]:
        return {"xl-guest.log": "xl\n", "xen-hotplug.log": b"hotplug\n"}

    def dump_core(self, deadline: Deadline) -> Iterable[bytes]:
        yield b"\x7fELF"
        yield b"\0" * 10_000

    def timings(self) -> Mapping[str, float]:
        return {"attach": 1.25}


@pytest.fixture(autouse=True)
def _gzip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "compression.zstd", None)
    monkeypatch.setitem(sys.modules, "zstandard", None)


@pytest.fixture
def sources(tmp_path: Path) -> GoodSources:
    return GoodSources(tmp_path / "serial")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


def piece(manifest: Manifest, name: str) -> Piece:
    found = manifest.find(name)
    assert found is not None
    return found


def test_everything(sources: GoodSources, run: Path) -> None:
    collector = Collector(sources, run, TEST_ID)
    manifest = collector.collect(Deadline(60), CRASH)
    assert load_manifest(collector.folder) == manifest
    assert manifest.complete
    assert [(p.name, p.path, p.error) for p in manifest.pieces] == [
        ("guest-serial", "guest-serial.log", None),
        ("xen-serial", "xen-serial.log", None),
        ("timings", "timings.json", None),
        ("xenstore-vbd", "xenstore-vbd.txt", None),
        ("xl-dmesg", "xl-dmesg.txt", None),
        ("toolstack-logs/xl-guest.log", "xl-guest.log", None),
        ("toolstack-logs/xen-hotplug.log", "xen-hotplug.log", None),
        ("dbgview", "dbgview.log", None),
        ("core", "core.gz", None),
    ]
    for found in manifest.pieces:
        assert found.path is not None
        data = (collector.folder / found.path).read_bytes()
        assert (found.bytes, found.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert (collector.folder / "guest-serial.log").read_bytes() == b"Kernel panic \xff\n"
    assert (collector.folder / "dbgview.log").read_bytes().endswith(b"\t\r\n")
    assert json.loads((collector.folder / "timings.json").read_text()) == {"attach": 1.25}
    assert gzip.decompress((collector.folder / "core.gz").read_bytes())[:4] == b"\x7fELF"
    assert collector.folder == run / collector.relative
    listed = {p.path for p in manifest.pieces} | {"evidence.json"}
    assert {f.name for f in collector.folder.iterdir()} == listed


def test_sets_of_pieces() -> None:
    assert LIGHT < FULL < CRASH == set(PieceName)
    assert PieceName.CORE not in FULL


def test_light_asks_nothing_of_dom0(sources: GoodSources, run: Path) -> None:
    manifest = Collector(sources, run, TEST_ID).collect(Deadline(60), LIGHT)
    assert [p.name for p in manifest.pieces] == ["guest-serial", "xen-serial", "timings"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (LabBroken("dom0 is gone"), "dom0 is gone"),
        (ValueError("two\nlines"), "ValueError: two lines"),
        (EOFError(), "EOFError"),
        (Outcome("skipped"), "Outcome: skipped"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (SystemExit(3), "SystemExit: 3"),
        (ValueError("\udc80"), "ValueError: \\udc80"),
        (ValueError("x" * 1000), "ValueError: " + "x" * 285 + "..."),
    ],
)
def test_errors_become_reasons(
    sources: GoodSources,
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    reason: str,
) -> None:
    def fails(*_: object) -> str:
        raise error

    for name in ("dbgview", "xen_serial", "toolstack_logs", "dump_core", "timings"):
        monkeypatch.setattr(sources, name, fails)
    manifest = Collector(sources, run, TEST_ID).collect(Deadline(60), CRASH)
    for name in ("dbgview", "xen-serial", "toolstack-logs", "core", "timings"):
        assert piece(manifest, name).error == reason
        assert piece(manifest, name).path is None
    assert piece(manifest, "xl-dmesg").error is None


def test_missing_file(sources: GoodSources, run: Path) -> None:
    sources.serial.unlink()
    manifest = Collector(sources, run, TEST_ID).collect(Deadline(60), LIGHT)
    assert str(piece(manifest, "xen-serial").error).startswith("FileNotFoundError: ")


def test_hung_source_costs_its_own_time_only(
    sources: GoodSources, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()

    def hangs(_: Deadline) -> str:
        released.wait(60)
        return "too late"

    monkeypatch.setattr(sources, "xl_dmesg", hangs)
    limits = {**LIMITS, PieceName.XL_DMESG: Limit(0.05, 100)}
    manifest = Collector(sources, run, TEST_ID, limits=limits).collect(Deadline(60))
    released.set()
    assert "s for xl-dmesg; last seen: 0 bytes" in str(piece(manifest, "xl-dmesg").error)
    assert piece(manifest, "dbgview").error is None


def test_endless_core_is_cut_off_and_kept(
    sources: GoodSources, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = threading.Event()

    def endless(_: Deadline) -> Iterator[bytes]:
        try:
            while True:
                yield b"page"
        finally:
            stopped.set()

    monkeypatch.setattr(sources, "dump_core", endless)
    collector = Collector(sources, run, TEST_ID, limits=SHORT)
    core = piece(collector.collect(Deadline(60), {PieceName.CORE}), "core")
    assert "for the end of core" in str(core.error)
    assert core.path == "core.gz"
    assert gzip.decompress((collector.folder / "core.gz").read_bytes()).startswith(b"page")
    assert stopped.wait(60), "the source must be told that nobody listens"


def test_nothing_is_started_when_no_time_is_left(sources: GoodSources, run: Path) -> None:
    manifest = Collector(sources, run, TEST_ID).collect(Deadline(0), CRASH)
    local = {"xen-serial", "timings"}
    for found in manifest.pieces:
        reason = None if found.name in local else "no time was left to collect it"
        assert found.error == reason


def test_factor_stretches_the_deadlines(
    sources: GoodSources, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []

    def asks(deadline: Deadline) -> str:
        seen.append(deadline.remaining)
        return ""

    monkeypatch.setattr(sources, "xl_dmesg", asks)
    limits = {**LIMITS, PieceName.XL_DMESG: Limit(1000.0, 100)}
    for factor in (1.0, 6.0):
        collector = Collector(sources, run, TEST_ID, factor=factor, limits=limits)
        collector.collect(Deadline(100_000), {PieceName.XL_DMESG})
    Collector(sources, run, TEST_ID, limits=limits).collect(Deadline(50), {PieceName.XL_DMESG})
    assert seen[0] <= 1000 < seen[1] <= 6000
    assert seen[2] <= 50


def test_truncated_log(sources: GoodSources, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "dbgview", lambda _: "old\n" * 100 + "last\n")
    limits = {**LIMITS, PieceName.DBGVIEW: Limit(5.0, 20)}
    collector = Collector(sources, run, TEST_ID, limits=limits)
    found = piece(collector.collect(Deadline(60)), "dbgview")
    assert found.truncated
    assert (collector.folder / "dbgview.log").read_text() == "old\nold\nold\nlast\n"


def test_log_names_from_dom0_stay_in_the_folder(
    sources: GoodSources, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["../../etc/passwd", "a/b", "a b", "A-B", "evidence.json", "..", "\udc80", "core.gz"]
    monkeypatch.setattr(
        sources, "toolstack_logs", lambda _: {n: n.encode("utf-8", "replace") for n in names}
    )
    collector = Collector(sources, run, TEST_ID)
    manifest = collector.collect(Deadline(60), CRASH)
    logs = [p for p in manifest.pieces if p.name.startswith("toolstack-logs/")]
    paths = [str(p.path) for p in manifest.pieces] + ["evidence.json"]
    assert len(logs) == len(names)
    assert len({p.lower() for p in paths}) == len(paths)
    for path in paths:
        assert (collector.folder / path).parent == collector.folder
        assert (collector.folder / path).is_file()
    assert load_manifest(collector.folder) == manifest


def test_manifest_is_current_after_each_piece(
    sources: GoodSources, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector = Collector(sources, run, TEST_ID)
    seen: list[Manifest] = []

    def looks(_: Deadline) -> str:
        seen.append(load_manifest(collector.folder))
        return ""

    monkeypatch.setattr(sources, "dbgview", looks)
    collector.collect(Deadline(60))
    (manifest,) = seen
    assert not manifest.complete
    assert manifest.find("xl-dmesg") is not None
    assert manifest.find("dbgview") is None


def test_unwritable_folder(sources: GoodSources, run: Path) -> None:
    run.write_text("a file where the folder should be")
    manifest = Collector(sources, run, TEST_ID).collect(Deadline(60), CRASH)
    assert manifest.complete
    assert all("NotADirectoryError" in str(p.error) for p in manifest.pieces)
    assert all(p.path is None for p in manifest.pieces)


def test_second_collection_replaces_or_keeps(
    sources: GoodSources, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector = Collector(sources, run, TEST_ID)
    collector.collect(Deadline(60), {PieceName.DBGVIEW, PieceName.XL_DMESG})

    def gone(_: Deadline) -> str:
        raise LabBroken("the guest is silent")

    monkeypatch.setattr(sources, "dbgview", gone)
    monkeypatch.setattr(sources, "xl_dmesg", lambda _: "newer\n")
    manifest = collector.collect(Deadline(60), {PieceName.DBGVIEW, PieceName.XL_DMESG})
    assert len(manifest.pieces) == 2
    assert (collector.folder / "xl-dmesg.txt").read_text() == "newer\n"
    dbgview = piece(manifest, "dbgview")
    assert dbgview.path == "dbgview.log"
    assert dbgview.error == "from an earlier collection; the next one failed: the guest is silent"


def test_own_pieces(sources: GoodSources, run: Path) -> None:
    collector = Collector(sources, run, TEST_ID)
    text = collector.add("trace/back.txt", "line \udc80\n" + "x" * 100_000)
    empty = collector.add("empty", b"")
    assert (text.path, text.error, text.truncated) == ("trace-back.txt", None, False)
    assert (collector.folder / "trace-back.txt").read_bytes().startswith(b"line \\udc80\n")
    assert (empty.path, empty.bytes) == ("empty", 0)
    assert load_manifest(collector.folder).pieces == (text, empty)


def test_damaged_manifest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        load_manifest(tmp_path)
    (tmp_path / "evidence.json").write_text('{"test_id": ')
    with pytest.raises(UsageError, match="damaged"):
        load_manifest(tmp_path)
