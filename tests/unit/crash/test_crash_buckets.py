from __future__ import annotations

import json
import multiprocessing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lab.core.errors import UsageError
from lab.crash.buckets import BucketStore
from lab.crash.facts import CrashFact, Frame, LogLine, Source
from lab.crash.incidents import incidents
from lab.crash.reader import read
from lab.crash.signature import (
    NEAR,
    Signature,
    from_json,
    rank,
    scrub,
    signature,
    similarity,
    to_json,
)

GOLDEN = Path(__file__).parent / "golden"
D1 = Signature("bugcheck", 0xD1, "xenvbd", ("xenvbd!Put", "nt!KiDispatchInterrupt"))


@pytest.mark.parametrize(
    ("text", "scrubbed"),
    [
        ("XenVbd     TotalSectors = 2097152", "XenVbd TotalSectors = <n>"),
        ("BUG: unable to handle page fault for address: c0ffee12",
         "BUG: unable to handle page fault for address: <n>"),
        ("Domain 12 (vcpu#0) crashed on cpu#1", "<domain> (vcpu#<n>) crashed on CPU <n>"),
        ("d12v0 Triple fault", "<domain> Triple fault"),
        ("blkfront: xvdb1: barriers at /dev/mapper/vg-x", "blkfront: <dev>: barriers at <dev>"),
        ("at 12:34:56.789 PM 0xF78D3A2B", "at <time> <n>"),
        ("KiTrap0E in ntkrnlpa", "KiTrap0E in ntkrnlpa"),
        ("dead beef cafe", "dead beef cafe"),
    ],
)  # fmt: skip
def test_scrub(text: str, scrubbed: str):
    assert scrub(text) == scrubbed
    assert scrub(scrubbed) == scrubbed


def test_the_key_ignores_what_differs_by_chance():
    base = CrashFact("oops", message="BUG: address: 00000014", frames=(
        Frame("xen_blkfront", "blkfront_probe.cold", 0x12, 0xC1000000),))  # fmt: skip
    other = replace(
        base,
        message="BUG: address: 00000018",
        frames=(Frame("xen-blkfront", "blkfront_probe", 0x20),),
        log=(LogLine(1, "1.0", "x"),),
        when="now",
    )
    assert signature(base).key == signature(other).key
    flagged = CrashFact("bugcheck", code=0x100000D1, module="xenvbd")
    assert signature(flagged).key == signature(replace(flagged, code=0xD1)).key


def test_hangs_are_told_apart_by_what_does_not_end():
    detach = CrashFact("hang", stuck="detach: backend Closing, frontend Connected", message="a")
    told = signature(replace(detach, module="xenvbd", message="b"))
    assert told.key == signature(detach).key
    assert from_json(to_json(told)) == told
    for stuck in ("requests", "attach: backend InitWait, frontend Initialising", None):
        other = signature(replace(detach, stuck=stuck))
        assert told.key != other.key
        assert similarity(told, other)[0] < NEAR
    # A store of before hangs were told apart.
    old = {name: value for name, value in to_json(D1).items() if name != "stuck"}
    assert from_json(old) == D1


def test_a_log_of_no_crash_takes_nothing_s_place():
    told = CrashFact(
        "hang", stuck="requests", message="requests hang", sources={"stuck": Source("a", "x", "")}
    )
    log = tuple(LogLine(n, None, f"line {n}") for n in range(9))
    quiet = CrashFact(
        "unknown", module="xenvbd", message="Wait timed out", process="p", system="s", when="w",
        log=log, sources={"log": Source("b", "y", "")},
    )  # fmt: skip
    [both] = incidents([told, quiet])
    assert (both.kind, both.message, both.stuck) == ("hang", "requests hang", "requests")
    assert both.log == log


def test_of_the_frames_the_blamed_driver_s_counts():
    short = Signature("bugcheck", 0xD1, "xenvbd", ("xenvbd!Put",))
    long = replace(short, frames=("nt+0x5a2a7", "xenvbd!Put", "xenvbd!Start", "nt!Io"))
    assert short.key == long.key
    assert short.key != replace(short, frames=("nt!memcpy", "xenvbd!Get")).key


def test_functions_that_only_report_are_left_out():
    (fact,) = read(GOLDEN / "windbg_kd.txt")
    assert signature(fact).frames[-2:] == (
        "xenvbd!XenVbd_PutIrpOnRing",
        "xenvbd!XenVbd_HwScsiStartIo",
    )
    assert "nt!KeBugCheckEx" not in signature(fact).frames


def test_similarity_has_its_reasons():
    assert similarity(D1, D1) == (1.0, ("the same signature",))
    score, reasons = similarity(D1, replace(D1, frames=("xenvbd+0x12", "nt!KiDispatchInterrupt")))
    assert NEAR < score < 1
    assert "the same stop code 0xD1" in reasons
    assert "both in xenvbd" in reasons
    score, reasons = similarity(D1, replace(D1, code=0xA))
    assert score <= NEAR
    assert "different stop codes 0xD1 and 0xA" in reasons
    # Little that is known proves little.
    assert similarity(D1, Signature("bugcheck", 0xD1))[0] <= NEAR
    assert similarity(D1, Signature("panic", message="x"))[0] < 0.1


def test_similarity_is_symmetric_and_bounded():
    known = [signature(fact) for path in GOLDEN.iterdir() if path.suffix != ".json"
             for fact in read(path)]  # fmt: skip
    for one in known:
        assert from_json(json.loads(json.dumps(to_json(one)))) == one
        for other in known:
            score = similarity(one, other)[0]
            assert 0 <= score <= 1
            assert score == pytest.approx(similarity(other, one)[0], abs=0.15)
            assert (score == 1.0) == (one.key == other.key)


def test_rank():
    near = replace(D1, frames=("xenvbd!Put", "nt!Other"), module="xenpci")
    far = Signature("panic", message="VFS")
    assert [item for _, _, item in rank(D1, [("far", far), ("near", near), ("same", D1)])] == [
        "same",
        "near",
    ]


def test_accounts_of_one_crash_are_one_incident():
    (told,) = incidents(read(GOLDEN / "mail_detach.txt"))
    assert (told.kind, told.plain, told.module) == ("bugcheck", 0xD1, "xenvbd")
    assert [one.text() for one in told.frames] == ["xenvbd+0x1a2b"]
    assert told.log[-1].text == "XenVbd     RING IS FULL - EXPECT BADNESS"
    assert told.sources["log"].reader == "mail, quoted DbgView log"
    assert any(note.startswith("said: ") for note in told.notes)
    # Two dumps in one text are two crashes, even of the same code.
    assert len(incidents(read(GOLDEN / "windbg_two.txt"))) == 2
    one = CrashFact("bugcheck", code=0xD1, sources={"code": Source("triage dump", "a", "")})
    assert len(incidents([one, one])) == 2


def test_buckets(tmp_path: Path):
    store = BucketStore(tmp_path / "store")
    assert store.buckets() == []
    (fact,) = read(GOLDEN / "windbg_d1.txt")
    first = store.put(fact, build="0.0.3", now=datetime(2026, 1, 1, tzinfo=UTC))
    assert (first.new, first.counted, first.near) == (True, True, ())
    # The same account once more is the same crash.
    again = store.put(fact, now=datetime(2026, 1, 3, tzinfo=UTC))
    assert (again.new, again.counted, again.bucket.count) == (False, False, 1)
    less = replace(fact, registers={}, modules=(), when="another day", process=None)
    second = store.put(less, build="0.0.4", now=datetime(2026, 1, 2, tzinfo=UTC))
    assert (second.new, second.counted, second.bucket.count) == (False, True, 2)
    (bucket,) = store.buckets()
    assert bucket == second.bucket
    assert bucket.builds == {"0.0.3": 1, "0.0.4": 1}
    assert (bucket.first_seen.day, bucket.last_seen.day) == (1, 2)
    assert bucket.sample == fact
    near = store.put(replace(fact, frames=(Frame("xenvbd", None, 0x1A30),))).near
    assert [one.bucket.key for one in near] == [bucket.key]


@pytest.mark.parametrize(
    ("when", "day"),
    [
        ("2026-01-02T12:00:00.5Z", 2),
        ("2026-01-03 00:30:00 UTC", 3),
        ("2026-01-03T00:30:00+01:00", 2),
        # The crash cannot have been later than it was put in.
        ("2027-01-01T00:00:00Z", 9),
        # Whose clock?
        ("2026-01-02 12:00:00", 9),
        ("0001-01-01T00:00:00+14:00", 9),
        ("mail of Thu, 1 Jan", 9),
        (None, 9),
    ],
)
def test_a_crash_is_of_the_time_its_account_tells(tmp_path: Path, when: str | None, day: int):
    put = BucketStore(tmp_path).put(
        CrashFact("bugcheck", code=0xD1, when=when), now=datetime(2026, 1, 9, tzinfo=UTC)
    )
    assert put.bucket.first_seen.day == put.bucket.last_seen.day == day


def test_a_fuller_account_becomes_the_sample(tmp_path: Path):
    store = BucketStore(tmp_path)
    (fact,) = read(GOLDEN / "windbg_d1.txt")
    store.put(replace(fact, registers={}, modules=()))
    assert store.put(fact).bucket.sample == fact


def _put(folder: str, number: int) -> None:
    fact = CrashFact("bugcheck", code=0xD1, module="xenvbd", when=str(number))
    BucketStore(Path(folder)).put(fact, build="0.0.3")


def test_writers_do_not_lose_each_other_s_crashes(tmp_path: Path):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_put, args=(str(tmp_path), n)) for n in range(8)]
    for one in writers:
        one.start()
    for one in writers:
        one.join(30)
    (bucket,) = BucketStore(tmp_path).buckets()
    assert (bucket.count, bucket.builds) == (8, {"0.0.3": 8})
    assert {path.name for path in tmp_path.iterdir()} == {".lock", f"{bucket.key}.json"}


@pytest.mark.parametrize("text", ["", "{}", "[]", "[" * 100_000, '{"schema_version": 2}'])
def test_damaged_buckets(text: str, tmp_path: Path):
    (tmp_path / f"{D1.key}.json").write_text(text)
    (tmp_path / "notes.txt").write_text("not ours")
    with pytest.raises(UsageError, match=D1.key):
        BucketStore(tmp_path).buckets()
