"""Made-up nights: to try the pages with, to measure them, and for the pictures in the docs.

Nothing in here was measured, and the pages say so at their foot. The same seed makes the same
data.
"""

from __future__ import annotations

import hashlib
import io
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from PIL import Image, ImageDraw

from lab.core.errors import Blame
from lab.crash.facts import CrashFact, Frame
from lab.evidence.collector import FILES
from lab.evidence.manifest import MANIFEST_NAME, Manifest, Piece, PieceName
from lab.evidence.operations import (
    CLOCKS_NAME,
    DOM0_KERNEL,
    DOM0_UPTIME,
    GUEST_KERNEL,
    OPERATIONS_NAME,
    Clocks,
    Operation,
    Operations,
    Reading,
    State,
)
from lab.evidence.slug import slug
from lab.site.model import (
    Attempts,
    Bucket,
    Build,
    Finding,
    Gate,
    Key,
    Mark,
    Mutant,
    Mutants,
    Night,
    Point,
    Result,
    Run,
    Site,
    Trend,
)

NOTICE = "Made-up data: nothing on these pages was measured."
LAST_NIGHT = datetime(2026, 11, 24, 22, 0, tzinfo=UTC)
GUEST = "made up, as of a stand-in: 32-bit PAE HVM guest with a Linux kernel"
PLACES = ("standin-xl, virtdemo", "standin-xm, virtdemo")
PANIC = "Kernel panic - not syncing: made up: request queue used after it was freed"
SCRIPT = "<script>alert('from the guest')</script><img src=x onerror=alert(1)>"
"""A line that a hostile guest may print."""

_AREAS = {
    "attach": ("appears_with_its_size", "is_refused_when_in_use", "survives_a_slow_backend"),
    "detach": ("lets_go", "waits_for_requests", "under_io_is_refused"),
    "io": ("reads_what_was_written", "is_exact_at_the_end", "keeps_order_of_flushes"),
    "lifecycle": ("comes_back_after_reboot", "is_restored_with_its_disks", "powers_off_clean"),
    "install": ("replaces_an_older_one", "is_removed_clean", "keeps_settings"),
    "faults": ("backend_error_is_told", "stalled_backend_goes_on", "short_disk_is_noticed"),
    "race": ("attach_against_detach", "io_against_detach", "reboot_against_attach"),
}


@dataclass(frozen=True, slots=True)
class _Test:
    key: Key
    area: str
    typical: float
    flake: float
    race: bool


def make(
    folder: Path, *, nights: int = 100, tests: int = 300, seed: int = 7, evidence_nights: int = 3
) -> Site:
    """Make a site.

    Args:
        folder: where evidence is written.
        nights: how many.
        tests: in each night, over all places.
        seed: of everything.
        evidence_nights: the last nights whose failures have evidence; that of earlier ones
            counts as thrown away.
    """
    chance = random.Random(seed)  # noqa: S311 - nothing secret
    chosen = _tests(chance, tests)
    builds = _builds(nights)
    broken_since = {one.key: nights - 9 for one in chosen[5:6]}
    regressed = {one.key for one in chosen[2:4]}
    made: list[Night] = []
    for number in range(nights):
        started = LAST_NIGHT - timedelta(days=nights - 1 - number)
        runs = []
        lab_trouble = chance.random() < 0.06 and number != nights - 1
        for place in PLACES:
            run_id = f"{started:%Y%m%dT%H%M%SZ}-{chance.randrange(1 << 24):06x}"
            results = []
            for one in (one for one in chosen if one.key.place == place):
                if number < nights // 3 and one.key.test.endswith("[7]"):
                    continue
                mark = _mark(chance, one, number, nights, broken_since, regressed, lab_trouble)
                results.append(_result(chance, one, mark, run_id, number))
            if number >= nights - evidence_nights:
                results = [
                    replace(one, evidence=_evidence(folder / run_id, one, started, seed))
                    if one.mark.bad
                    else one
                    for one in results
                ]
            runs.append(_run(run_id, started, place, builds[number], results))
            started += timedelta(hours=3)
        made.append(Night(f"{LAST_NIGHT - timedelta(days=nights - 1 - number):%Y-%m-%d}",
                          tuple(runs)))  # fmt: skip
    return Site(
        nights=tuple(made),
        buckets=tuple(_buckets(made)),
        gates=tuple(_gates(made)),
        trends=tuple(_trends(chance, made)),
        mutants=_mutants(made),
        results_folder=folder,
        notice=NOTICE,
    )


def _tests(chance: random.Random, count: int) -> list[_Test]:
    made: list[_Test] = []
    number = 0
    while len(made) < count:
        for area, names in _AREAS.items():
            for name in names:
                for place in PLACES:
                    if len(made) < count:
                        test = f"tests/drivers/test_{area}.py::test_disk_{name}[{number}]"
                        made.append(
                            _Test(
                                key=Key(test, place),
                                area=area,
                                typical=math.exp(chance.gauss(2.2, 0.7)),
                                flake=0.02 if chance.random() < 0.03 else 0.0,
                                race=area == "race",
                            )
                        )
        number += 1
    return made


def _builds(nights: int) -> list[Build]:
    # A new one each few nights, and on the last one.
    numbers = [number // 6 for number in range(nights - 1)] + [nights // 6 + 1]
    return [
        Build("virtdemo", f"11/01/2026,1.0.{40 + number}.0",
              hashlib.sha256(f"build {number}".encode()).hexdigest())
        for number in numbers
    ]  # fmt: skip


def _mark(
    chance: random.Random,
    one: _Test,
    number: int,
    nights: int,
    broken_since: dict[Key, int],
    regressed: set[Key],
    lab_trouble: bool,
) -> Mark:
    last = number == nights - 1
    if last and one.key in regressed:
        return Mark.FAILED
    if number >= broken_since.get(one.key, nights):
        return Mark.FAILED
    if one.area == "faults" and one.key.test.endswith("short_disk_is_noticed[0]"):
        return Mark.KNOWN
    if lab_trouble and chance.random() < 0.03:
        return Mark.LAB
    if chance.random() < one.flake:
        return Mark.FAILED
    if last and one.key.test.endswith("reboot_against_attach[1]"):
        return Mark.UNDECIDED
    if last and one.key.test.endswith("is_removed_clean[2]"):
        return Mark.LAB
    return Mark.PASSED


def _result(chance: random.Random, one: _Test, mark: Mark, run: str, number: int) -> Result:
    seconds = one.typical * math.exp(chance.gauss(0, 0.08)) * (1.0 + 0.002 * number)
    messages = {
        Mark.FAILED: f"virtdemo crashed during attaching phy:/dev/made-up /dev/hdc w: {PANIC}",
        Mark.LAB: "no clone of the template: dom0 did not answer within 30 s",
        Mark.UNDECIDED: "the guest stopped answering, and dom0 cannot say why",
        Mark.KNOWN: "a disk that shrinks is not noticed (made-up errata)",
    }
    return Result(
        key=one.key,
        run=run,
        mark=mark,
        seconds=seconds,
        area=one.area,
        phase="setup" if mark is Mark.LAB else "call",
        message=messages.get(mark, ""),
        details="E   made up" if mark.bad else "",
        expected_seconds=round(one.typical * 1.6),
        bucket=_bucket_key() if mark is Mark.FAILED else "",
        attempts=Attempts(40, 3, (3, 17, 29), 0.016, 0.204, 0.95)
        if one.race and mark is Mark.FAILED
        else None,
    )


def _run(run_id: str, started: datetime, place: str, build: Build, results: list[Result]) -> Run:
    marks = {one.mark for one in results}
    status = "FAIL" if Mark.FAILED in marks else "UNDECIDED" if Mark.UNDECIDED in marks else "PASS"
    failed = [one for one in results if one.mark is Mark.FAILED]
    return Run(
        id=run_id,
        started=started,
        seconds=sum(one.seconds for one in results),
        ended_how="finished",
        profile=place.partition(",")[0],
        guest=GUEST,
        accelerator="made up",
        host="made up",
        driver=build,
        status=status,
        reasons=tuple(f"the driver failed: {one.key.test}: {one.message}" for one in failed[:3])
        or ("no test failed",),
        intensity="standard",
        command="pvlab nightly",
        versions={"pvlab": "made up"},
        results=tuple(results),
    )


def _bucket_key() -> str:
    return hashlib.sha256(PANIC.encode()).hexdigest()[:12]


def _buckets(nights: list[Night]) -> Iterator[Bucket]:
    builds: dict[str, int] = {}
    seen: list[datetime] = []
    for night in nights:
        for run in night.runs:
            hits = sum(one.bucket == _bucket_key() for one in run.results)
            if hits and run.driver is not None:
                builds[run.driver.words] = builds.get(run.driver.words, 0) + hits
                seen.append(run.started)
    if seen:
        yield Bucket(
            key=_bucket_key(),
            title=PANIC,
            kind="panic",
            count=sum(builds.values()),
            first_seen=min(seen),
            last_seen=max(seen),
            builds=builds,
            sample=CrashFact(
                "panic",
                message=PANIC,
                module="virtdemo",
                frames=(Frame("virtdemo", "queue_done", 0x41), Frame(None, "panic", 0xF3)),
            ),
        )


def _gates(nights: list[Night]) -> Iterator[Gate]:
    for night in reversed(nights[-12:]):
        run = night.runs[0]
        failed = [one for one in run.results if one.mark is Mark.FAILED]
        known = [one for one in run.results if one.mark is Mark.KNOWN]
        build = run.driver
        if build is None:
            continue
        yield Gate(
            id=run.id,
            when=run.started + timedelta(seconds=run.seconds or 0),
            driver=build.words,
            baseline="virtdemo 10/01/2026,1.0.30.0",
            status=run.status,
            exit_code={"PASS": 0, "FAIL": 1}.get(run.status, 3),
            reasons=run.reasons,
            findings=(
                *(Finding("regression", one.key.test, one.message, run.id) for one in failed),
                *(Finding("known", one.key.test, one.message, run.id) for one in known),
            ),
            hashes={"driver": build.sha256, "suite": hashlib.sha256(b"suite").hexdigest()},
            guest=run.guest,
            runs=(run.id,),
        )


def _trends(chance: random.Random, nights: list[Night]) -> Iterator[Trend]:
    for name, unit, base, target in (
        ("clone of a place until its guest answers", "s", 0.4, 0.5),
        ("attach until both ends are Connected", "s", 0.31, None),
        ("sequential read, 64 KiB requests", "MB/s", 88.0, None),
    ):
        points = []
        for place, night in enumerate(nights):
            value = base * (1 + 0.0008 * place) * math.exp(chance.gauss(0, 0.03))
            half = abs(chance.gauss(0.04, 0.01)) * value
            points.append(Point(night.name, value, value - half, value + half, 20, "made up"))
        yield Trend(name, unit, tuple(points), target)


def _mutants(nights: list[Night]) -> Mutants:
    run = nights[-1].runs[0].id
    rows = (
        ("crash-on-attach", "crashes when a disk is attached", "killed"),
        ("lost-flush", "completes a flush without one", "killed"),
        ("short-last-sector", "the last sector cannot be read", "killed"),
        ("slow-detach", "lets go of a disk after a minute", "survived"),
        ("leak-per-attach", "a grant is lost with each attach", "lab"),
    )
    return Mutants(
        guest=GUEST,
        accelerator="made up",
        intensity="standard",
        mutants=tuple(
            Mutant(name, f"made up: {title}", fate,
                   f"tests/drivers/test_attach.py::test_{name}" if fate == "killed" else "",
                   Blame.DRIVER.value if fate == "killed" else "", 30.0 + 7 * place,
                   "made up", run)
            for place, (name, title, fate) in enumerate(rows)
        ),
    )  # fmt: skip


# -- evidence ---------------------------------------------------------------------------------


def _evidence(run: Path, result: Result, started: datetime, seed: int) -> Path:
    """Write the evidence of a failure, with three clocks that differ from this machine's."""
    chance = random.Random(f"{seed} {result.key} {result.run}")  # noqa: S311 - nothing secret
    folder = run / "tests" / slug(result.key.test)
    folder.mkdir(parents=True)
    zero = started.timestamp() + 600
    boot_dom0, boot_guest = zero - 341.2, zero - 118.7
    crash = 9.4

    def guest(at: float) -> str:
        return f"[{zero + at - boot_guest:12.6f}]"

    def dom0(at: float) -> str:
        return f"[{zero + at - boot_dom0:12.6f}]"

    prints = [
        (2.1, "virtdemo: driver entry, made up"),
        (2.2, "virtdemo: bus 0: looking for devices"),
        (3.4, f"virtdemo: name of the disk: {SCRIPT}"),
        *((3.5 + 0.02 * n, f"virtdemo: request {n}: {chance.randrange(1 << 20):#x}")
          for n in range(30)),
        (8.9, "virtdemo: vbd/5632: backend state 2 -> 4"),
        (9.1, "virtdemo: vbd/5632: queue freed"),
        (9.3, "virtdemo: vbd/5632: completion after the queue was freed"),
    ]  # fmt: skip
    first = prints[0][0]
    dbgview = "".join(
        f"{n:08d}\t{at - first:.8f}\t{text}\t\r\n" for n, (at, text) in enumerate(prints, 1)
    )
    serial = "".join(f"{guest(-118.7 + 0.3 * n)} made-up boot line {n}\n" for n in range(60))
    serial += "".join(f"{guest(at)} {text}\n" for at, text in prints)
    serial += "".join(
        f"{guest(crash + 0.001 * n)} {text}\n"
        for n, text in enumerate(
            (PANIC, "CPU: 0 PID: 29 Comm: xenwatch Tainted: G O 6.1.0 #1", "Call Trace:",
             " panic+0xf3/0x2b5", " queue_done+0x41/0x90 [virtdemo]", " kthread+0xd2/0x100")
        )
    )  # fmt: skip
    xen = "(XEN) made-up hypervisor\n"
    xen += "".join(f"{dom0(-330 + 2.0 * n)} made-up dom0 line {n}\n" for n in range(30))
    xen += (
        f"{dom0(8.7)} xen-blkback: backend/vbd/3/5632: prepare for reconnect\n"
        "(XEN) d3v0: made-up grant table warning\n"
        f"{dom0(8.95)} xen-blkback: backend/vbd/3/5632: using 1 queues, protocol 1 (x86_32-abi)\n"
        "(XEN) Domain 3 (vcpu#0) crashed: made up\n"
        f"{dom0(crash + 1.1)} xenbus: made-up line after the crash\n"
    )
    vbd = (
        '/local/domain/0/backend/vbd/3/5632/state = "4"\n'
        '/local/domain/3/device/vbd/5632/state = "4"\n'
    )
    operations = Operations(
        zero=zero,
        kept=zero + 11.0,
        operations=(
            Operation(name="DbgView.start", words="DbgView.start", started=0.1, ended=0.6),
            Operation(name="DriverStore.install", words="DriverStore.install virtdemo.inf",
                      started=0.7, ended=3.3),
            Operation(name="VolumeGroup.create", words="VolumeGroup.create made-up 8 MiB",
                      started=3.6, ended=4.1),
            Operation(
                name="vbd.attach",
                words="vbd.attach phy:/dev/made-up /dev/hdc w",
                started=8.5,
                ended=10.4,
                error=f"GuestCrashed: the guest crashed: {PANIC}",
                states=tuple(
                    State(at=zero + at - boot_dom0, device="hdc", words=words)
                    for at, words in (
                        (8.72, "backend InitWait (2), frontend Initialising (1)"),
                        (8.91, "backend Connected (4), frontend Initialised (3)"),
                        (8.99, "backend Connected (4), frontend Connected (4)"),
                    )
                ),
            ),
        ),
    )  # fmt: skip
    clocks = Clocks(
        readings=(
            Reading(clock=DOM0_KERNEL, shows=zero + 11.2 - boot_dom0,
                    earliest=zero + 11.18, latest=zero + 11.23),
            Reading(clock=DOM0_UPTIME, shows=zero + 11.2 - boot_dom0,
                    earliest=zero + 11.18, latest=zero + 11.23),
            Reading(clock=GUEST_KERNEL, shows=zero + crash + 0.005 - boot_guest,
                    earliest=zero + crash - 0.02, latest=zero + crash + 0.03),
        )
    )  # fmt: skip
    pieces = []
    files: list[tuple[str, str, bytes]] = [
        (PieceName.GUEST_SERIAL, FILES[PieceName.GUEST_SERIAL], serial.encode()),
        (PieceName.XEN_SERIAL, FILES[PieceName.XEN_SERIAL], xen.encode()),
        (PieceName.XENSTORE_VBD, FILES[PieceName.XENSTORE_VBD], vbd.encode()),
        (PieceName.DBGVIEW, FILES[PieceName.DBGVIEW], dbgview.encode("cp437")),
        (OPERATIONS_NAME, OPERATIONS_NAME, operations.model_dump_json(indent=2).encode()),
        (CLOCKS_NAME, CLOCKS_NAME, clocks.model_dump_json(indent=2).encode()),
        ("screen.png", "screen.png", _screen(PANIC)),
    ]
    for name, file, data in files:
        (folder / file).write_bytes(data)
        pieces.append(
            Piece(name=name, path=file, bytes=len(data), seconds=0.1,
                  sha256=hashlib.sha256(data).hexdigest())
        )  # fmt: skip
    pieces.append(Piece(name=PieceName.CORE, seconds=60.0, error="made up: no core dump"))
    manifest = Manifest(test_id=result.key.test, complete=True, pieces=tuple(pieces))
    (folder / MANIFEST_NAME).write_text(manifest.model_dump_json(indent=2), encoding="utf-8")
    return folder


def _screen(text: str) -> bytes:
    picture = Image.new("1", (640, 160), 0)
    draw = ImageDraw.Draw(picture)
    for number, line in enumerate(("Made-up screen of a guest", "", text[:70], "  panic+0xf3")):
        draw.text((8, 8 + 16 * number), line, fill=1)
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()
