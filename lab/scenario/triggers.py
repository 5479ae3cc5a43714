"""What is known to trigger crashes of such drivers, and by what words a report points at it.

The table comes from what the driver's history reports ("block-detach, blue screen", "concurrent
unaligned I/O, crash", "NTFS format fails", "save/restore, races and deadlocks", "shutdown, 0x9F",
"unload or disable, crash", "high load, 30 s freeze"), from what checked builds print ("RING IS
FULL", "Watch not active!", "Wait timed out", "Closing"), and from the fields of the block
interface that a driver can get wrong (public/io/blkif.h). Each entry builds a scenario out of
chance, so that it can be tried again with other numbers.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lab.crash.facts import CrashFact
from lab.scenario.model import (
    MIB,
    AnyStep,
    Attach,
    Check,
    Detach,
    DisableDriver,
    EnableDriver,
    Expect,
    Fault,
    Flush,
    Format,
    InGuest,
    Io,
    JitterStep,
    Partition,
    Pause,
    PutFile,
    Reboot,
    Repeat,
    Restore,
    Save,
    StartIo,
    StopIo,
    Together,
    Unpause,
    Wait,
)

Steps = tuple[AnyStep, ...]
Build = Callable[[random.Random], Steps]

NAMES = ("hdd", "sdb", "xvdf", "sde", "xvdg", "xvdh", "sdi", "sdj")
"""Virtual devices beside hdc; no two with one letter: a Linux guest calls hdc and sdc xvdc."""

SIGN = 4.0
"""What one sign adds to a prior: more than all priors, so that what a report says comes first."""

ORIGINAL = r"C:\pvlab\pattern.bin"


@dataclass(frozen=True, slots=True)
class Trigger:
    """Something that such drivers crash of.

    Attributes:
        name: in a word or two.
        words: regular expressions, each one a sign of it in a report.
        codes: bugcheck codes that are a sign of it.
        prior: how likely it is when a report says nothing, against the others.
        build: makes a scenario of it.
    """

    name: str
    words: tuple[str, ...]
    codes: tuple[int, ...]
    prior: float
    build: Build


@dataclass(frozen=True, slots=True)
class Suspicion:
    """A trigger, and how much of a report points at it.

    Attributes:
        trigger: which.
        score: the higher the more; never 0.
        signs: what of the report is a sign of it, in words.
    """

    trigger: Trigger
    score: float
    signs: tuple[str, ...]


def suspect(text: str, facts: Sequence[CrashFact] = ()) -> list[Suspicion]:
    """Every trigger, the likeliest first.

    Args:
        text: what a report says, in words.
        facts: what is known of the crash.
    """
    said = "\n".join([text, *(line for fact in facts for line in fact_words(fact))])
    codes = {fact.plain for fact in facts if fact.plain is not None}
    found = []
    for trigger in TRIGGERS:
        signs = []
        score = trigger.prior
        for pattern in trigger.words:
            if match := re.search(pattern, said, re.IGNORECASE):
                score += SIGN
                signs.append(f'"{" ".join(match[0].split())[:60]}"')
        for code in sorted(codes & set(trigger.codes)):
            score += SIGN
            signs.append(f"stop code 0x{code:X}")
        found.append(Suspicion(trigger, score, tuple(signs)))
    return sorted(found, key=lambda one: -one.score)


def fact_words(fact: CrashFact) -> list[str]:
    """All that a fact says in words."""
    words = [one for one in (fact.name, fact.message) if one]
    words += [line.text for line in fact.log]
    words += [frame.symbol for frame in fact.frames if frame.symbol]
    return words + list(fact.notes)


def _detach_under_io(chance: random.Random) -> Steps:
    threads = chance.choice((1, 2, 4, 8))
    return (
        Attach(disk="hdc", size=8 * MIB),
        StartIo(disk="hdc", threads=threads, order=chance.choice(("seq", "random")), count=4096),
        JitterStep(up_to=0.5, name="before the detach"),
        Detach(disk="hdc", force=chance.random() < 0.25),
        StopIo(job="hdc", tell=False, expect="any"),
        Attach(disk="hdc"),
        Io(disk="hdc", gen=7),
    )


def _churn(chance: random.Random) -> Steps:
    inside: list[AnyStep] = [JitterStep(up_to=1.0, name="before the detach"), Detach(disk="hdc")]
    if chance.random() < 0.5:
        inside.insert(0, Io(disk="hdc", threads=2, order="random", count=512))
    return (
        Attach(disk="hdc", size=4 * MIB),
        Repeat(
            times=chance.choice((4, 10, 24)),
            steps=(*inside, JitterStep(up_to=0.5, name="before the attach"), Attach(disk="hdc")),
        ),
    )


def _concurrent(chance: random.Random) -> Steps:
    names = list(NAMES)
    chance.shuffle(names)
    names = names[: chance.randint(2, 5)]
    sizes = {name: 4096 + 8 * n for n, name in enumerate(names)}
    return (
        Attach(disk="hdc", size=4 * MIB),
        StartIo(disk="hdc", threads=2, order="random", shift=True),
        Together(
            lanes=tuple(
                (JitterStep(up_to=2.0, name=f"attach {name}"), Attach(disk=name, size=sizes[name]))
                for name in names
            )
        ),
        Together(
            lanes=tuple(
                (JitterStep(up_to=2.0, name=f"detach {name}"), Detach(disk=name)) for name in names
            )
        ),
        StopIo(job="hdc"),
        Check(disk="hdc", gen=None),
    )


def _unaligned(chance: random.Random) -> Steps:
    return (
        Attach(disk="hdc", size=8 * MIB),
        Io(
            disk="hdc",
            first=chance.randint(1, 7),
            count=2048 - chance.randint(9, 31),
            gens=chance.randint(2, 4),
            block=chance.choice((1, 7, 13, 87, 89)),
            threads=chance.choice((4, 8)),
            order="random",
            shift=True,
        ),
    )


def _full_ring(chance: random.Random) -> Steps:
    # A request of the ring carries 11 pages, 88 sectors; the ring has 32 places.
    return (
        Attach(disk="hdc", size=16 * MIB),
        *(
            Io(disk="hdc", count=2 * MIB, gen=gen, block=block, threads=chance.choice((8, 16, 32)))
            for gen, block in enumerate((87, 89, 2048), 1)
        ),
    )


def _load(chance: random.Random) -> Steps:
    return (
        Attach(disk="hdc", size=8 * MIB),
        Attach(disk="hdd", size=8 * MIB + 8),
        StartIo(disk="hdc", threads=8, order="random", shift=True, count=2 * MIB, wait=0),
        StartIo(disk="hdd", threads=8, order="random", block=2048, count=2 * MIB, wait=0),
        Wait(seconds=chance.choice((5, 20))),
        StopIo(job="hdc"),
        StopIo(job="hdd"),
    )


def _format(chance: random.Random) -> Steps:
    return (
        Attach(disk="hdc", size=chance.choice((48, 64, 128)) * MIB),
        Partition(disk="hdc"),
        Format(file_system=chance.choice(("ntfs", "ntfs", "fat32"))),
        PutFile(path=ORIGINAL, size_bytes=64 * 1024),
        InGuest(command=rf'copy /y "{ORIGINAL}" "X:\pattern.bin"'),
        InGuest(command=rf'fc /b "{ORIGINAL}" "X:\pattern.bin"'),
    )


def _copy_and_detach(chance: random.Random) -> Steps:
    return (
        Attach(disk="hdc", size=48 * MIB),
        Partition(disk="hdc"),
        Format(),
        PutFile(path=ORIGINAL, size_bytes=128 * 1024),
        Together(
            lanes=(
                (
                    InGuest(command=rf'copy /y "{ORIGINAL}" "X:\1.bin"', may_fail=True),
                    InGuest(command=rf'copy /y "{ORIGINAL}" "X:\2.bin"', may_fail=True),
                ),
                (JitterStep(up_to=3.0, name="before the detach"), Detach(disk="hdc")),
            )
        ),
    )


def _restart(chance: random.Random) -> Steps:
    return (
        Attach(disk="hdc", size=8 * MIB),
        StartIo(disk="hdc", threads=chance.choice((2, 8)), order="random"),
        Reboot(),
        Io(disk="hdc"),
        Detach(disk="hdc"),
    )


def _disable(chance: random.Random) -> Steps:
    busy: Steps = (StartIo(disk="hdc", threads=2),) if chance.random() < 0.5 else ()
    ended: Steps = (StopIo(job="hdc", tell=False, expect="any"),) if busy else ()
    return (
        Attach(disk="hdc", size=8 * MIB),
        *busy,
        DisableDriver(),
        *ended,
        JitterStep(up_to=0.5),
        EnableDriver(),
        Io(disk="hdc"),
    )


def _save(chance: random.Random) -> Steps:
    return (
        Attach(disk="hdc", size=8 * MIB),
        StartIo(disk="hdc", threads=chance.choice((1, 4)), order="random", block=64, shift=True),
        Save(),
        Restore(),
        Io(disk="hdc", first=4 * MIB),
        StopIo(job="hdc"),
        Check(disk="hdc", gen=None),
    )


def _pause(chance: random.Random) -> Steps:
    return (
        Attach(disk="hdc", size=8 * MIB),
        StartIo(disk="hdc", threads=4, order="random"),
        Repeat(
            times=chance.choice((3, 10)),
            steps=(Pause(), JitterStep(up_to=1.0, name="paused"), Unpause(), JitterStep(up_to=0.5)),
        ),
        StopIo(job="hdc"),
    )


def _errors(chance: random.Random) -> Steps:
    fault = chance.choice(
        (
            Fault(disk="hdc", kind="error", first=1000, count=24),
            Fault(disk="hdc", kind="refuse_writes"),
            Fault(disk="hdc", kind="flakey"),
        )
    )
    expect: Expect = "any" if fault.kind == "flakey" else "errors"
    return (
        Attach(disk="hdc", size=8 * MIB),
        Io(disk="hdc", action="write", count=2048),
        fault,
        Io(disk="hdc", action="write", count=2048, gen=2, block=8, threads=4, expect=expect),
        Fault(disk="hdc", kind="heal"),
        Io(disk="hdc", count=2048, gen=3),
    )


def _slow(chance: random.Random) -> Steps:
    fault: Steps = (Fault(disk="hdc", kind="delay", ms=250), Wait(seconds=3))
    if chance.random() < 0.5:
        stalled = chance.choice((5, 30))
        fault = (
            Fault(disk="hdc", kind="stall"),
            Wait(seconds=stalled),
            Fault(disk="hdc", kind="go_on"),
        )
    return (
        Attach(disk="hdc", size=8 * MIB),
        StartIo(disk="hdc", threads=8, order="random", block=64),
        *fault,
        StopIo(job="hdc"),
    )


def _backend(chance: random.Random) -> Steps:
    fault = Fault(disk="hdc", kind="backend_state", state=chance.choice((5, 6)))
    if chance.random() < 0.5:
        fault = Fault(disk="hdc", kind="remove_nodes")
    return (
        Attach(disk="hdc", size=8 * MIB),
        Attach(disk="hdd", size=8 * MIB + 8),
        fault,
        Io(disk="hdd", count=2048, threads=2),
        Attach(disk="sde", size=4096),
        Io(disk="sde", count=512),
    )


def _size(chance: random.Random) -> Steps:
    disk = chance.choice(
        (
            Attach(disk="hdc", size=3 * 255 * 63 + 2),
            Attach(disk="hdc", size=40961),
            Attach(disk="hdc", size=(1 << 32) + 4104, backing="sparse"),
        )
    )
    tail = (disk.size or 0) - 8
    return (
        disk,
        Io(disk="hdc", action="write", first=tail, count=8, gen=5),
        Check(disk="hdc", first=tail, count=8, gen=5),
        Io(disk="hdc", action="verify", first=tail + 8, count=8, expect="errors"),
        Io(disk="hdc", action="write", first=0, count=8, gen=6),
        Io(disk="hdc", action="verify", first=tail, count=8, gen=5),
    )


def _read_only(chance: random.Random) -> Steps:
    return (
        Attach(disk="hdc", size=4 * MIB, mode="r"),
        Io(disk="hdc", action="write", count=64, flush=True, expect="errors"),
        Detach(disk="hdc"),
    )


def _flush(chance: random.Random) -> Steps:
    return (
        Attach(disk="hdc", size=4 * MIB),
        Repeat(
            times=8,
            steps=(
                Io(
                    disk="hdc", action="write", count=512, threads=chance.choice((1, 4)), flush=True
                ),
                Flush(disk="hdc"),
            ),
        ),
        Check(disk="hdc", count=512),
    )


def _many(chance: random.Random) -> Steps:
    names = NAMES[: chance.choice((3, 6))]
    return (
        *(Attach(disk=name, size=8192 + 4096 * n) for n, name in enumerate(names)),
        *(Io(disk=name, seed=n) for n, name in enumerate(names, 1)),
        *(Detach(disk=name) for name in names),
    )


TRIGGERS: tuple[Trigger, ...] = (
    Trigger(
        "detach under I/O",
        (
            r"(?:block-?|dis)?(?:detach|unplug|disconnect)\w*(?:.{0,60})(?:while|during|under|I/O)",
            r"(?:while|during|when|under)(?:.{0,60})(?:detach|unplug|remov)\w*",
            r"block-detach|detach",
            r"surprise remov|\bClosing\b|SRB.{0,20}after",
        ),
        (0xC5, 0xCE, 0xD1, 0x50),
        3.0,
        _detach_under_io,
    ),
    Trigger(
        "detach while files are copied",
        (
            r"(?:detach|unplug|remov)\w*.{0,60}(?:cop(?:y|ying|ied)|file|writ)",
            r"cop(?:y|ying).{0,60}(?:detach|unplug|remov)",
        ),
        (0x7A, 0x77, 0x24),
        1.5,
        _copy_and_detach,
    ),
    Trigger(
        "attach and detach again and again",
        (
            r"attach|add(?:ed|ing)? (?:a |the )?(?:disk|device)",
            r"again and again|repeatedly|in a loop|after (?:a few|several|many|\d+) times",
            r"\bleak|out of (?:grants?|memory)|no free",
        ),
        (0xC2, 0x19, 0xC4, 0x4E),
        2.5,
        _churn,
    ),
    Trigger(
        "attaches and detaches at once",
        (r"\brace|concurrent|at the same time|simultaneous|several (?:disk|device)", r"deadlock"),
        (0x0A, 0xD1, 0x101),
        2.0,
        _concurrent,
    ),
    Trigger(
        "several disks",
        (r"second (?:disk|device)|several|multiple|two disks|many disks",),
        (),
        0.6,
        _many,
    ),
    Trigger(
        "unaligned requests at once",
        (
            r"un-?aligned|alignment|double.?buffer",
            r"corrupt|wrong data|damaged",
            r"concurrent.{0,30}(?:I/?O|request)",
        ),
        (0x1E, 0x8E, 0xD1),
        2.0,
        _unaligned,
    ),
    Trigger(
        "a full ring",
        (r"ring (?:is |was )?full|expect badness|queue full", r"large (?:file|request|transfer)"),
        (0xD1,),
        1.5,
        _full_ring,
    ),
    Trigger(
        "high load",
        (r"high load|heavy (?:load|I/?O)|iometer|stress|bench", r"freez|\bstall"),
        (0x101, 0xEA),
        1.5,
        _load,
    ),
    Trigger(
        "formatting",
        (r"\bformat|NTFS|FAT32|chkdsk|partition|diskpart", r"\bcop(?:y|ying|ied)"),
        (0x24, 0x7A),
        1.0,
        _format,
    ),
    Trigger(
        "restart",
        (r"re-?boot|restart|shut(?:ting)? ?down|power", r"0x9F|DRIVER_POWER_STATE"),
        (0x9F, 0x7B, 0x74),
        0.8,
        _restart,
    ),
    Trigger(
        "disabling the driver",
        (r"disabl|unload|uninstall|remove the driver|driver upgrade|devcon",),
        (0xCE, 0xD5, 0xC9),
        1.0,
        _disable,
    ),
    Trigger(
        "save and restore",
        (r"\bsav(?:e|ed|ing)\b|\brestor|suspend|\bresum|migrat|hibernat", r"stacked watch"),
        (0x10D, 0x9F),
        1.0,
        _save,
    ),
    Trigger("pause", (r"\b(?:un)?paus(?:e|ed|ing)\b",), (), 0.4, _pause),
    Trigger(
        "requests that fail",
        (r"bad sector|I/?O error|read error|write error|medium error|returned error", r"disk full"),
        (0x77, 0x7A, 0xF4),
        0.8,
        _errors,
    ),
    Trigger(
        "a slow disk",
        (r"timed? ?out|time-?out|wait timed", r"slow (?:disk|storage|san)|iscsi|nfs|network stor"),
        (0xF4, 0x101),
        0.8,
        _slow,
    ),
    Trigger(
        "a backend that gives up",
        (r"backend|xenstore|watch not active|Wait timed out|dom0.{0,30}(?:crash|restart)",),
        (),
        0.6,
        _backend,
    ),
    Trigger(
        "sizes",
        (r"\b(?:wrong |disk )size|\d ?TB\b|\bTiB|\b2 ?T\b|large disk|capacity|last sector",),
        (),
        0.5,
        _size,
    ),
    Trigger("read-only", (r"read-?only|write.?protect|CD-?ROM",), (), 0.4, _read_only),
    Trigger("flushes", (r"flush|barrier|power cut|cache", r"lost data|data loss"), (), 0.4, _flush),
)
