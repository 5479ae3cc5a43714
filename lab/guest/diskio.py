r"""Raw reads and writes of the guest's disks, with a pattern that says where a sector belongs.

Nothing that comes with Windows reads or writes a disk past its caches and file systems, so
this is the one tool that the lab needs in a guest beyond the system's own: ``diskio.exe``, in
the search path. The stand-in has it (``standin/tools/diskio.py``); for Windows it is a console
program of a few system calls: ``CreateFile`` on ``\\.\PhysicalDriveN`` with
``FILE_FLAG_NO_BUFFERING``, ``ReadFile``, ``WriteFile``, ``FlushFileBuffers`` and
``IOCTL_DISK_GET_LENGTH_INFO``.

Command line, sectors always of 512 bytes whatever the disk's own::

    diskio size DISK
    diskio flush DISK
    diskio write|verify DISK /first:N /count:N [/gen:N] ...
    diskio run DISK /first:N /count:N /gen:N /gens:N [/until:FILE] ...
    diskio bench DISK /first:N /count:N /ops:N /op:read|write ...
    with [/seed:N] [/block:N] [/threads:N] [/order:seq|random] [/shift] [/overlapped]
    [/flush] [/log:FILE]

``write`` writes the pattern of generation ``gen``, ``verify`` reads and compares it, ``run``
writes, flushes and verifies ``gens`` generations one after the other, or fewer once the file
``until`` exists. ``block`` is the request size; with ``order:random`` requests have every
size up to it, in random order, but still cover the range once. ``shift`` lets buffers start
anywhere in a page on 512 bytes. ``overlapped`` leaves requests under way with no thread in the
driver for them, as ReadFile and WriteFile with an OVERLAPPED do. ``bench`` times ``ops`` requests.

Output: ``bytes=N sector=N`` of ``size``; else any number of lines ``error op=OP first=N count=N
code=WIN32``, ``mismatch sector=N gen=N found=WHAT`` and ``generation=N``, then ``done errors=N
mismatches=N requests=N ms=N``. Exit code: 0 all is well, 1 the disk refused something, 2 wrong
data, 3 usage.

The pattern of a sector (little-endian): u32 seed, u32 generation, u64 sector number, then 496
bytes of a table of 4608 from position ``(sector * 31 + generation * 17 + seed * 7) mod 4096``
on. The table is the top byte of each state of xorshift32 (13, 17, 5; Marsaglia, "Xorshift
RNGs", 2003), started at 0x9E3779B9.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

from lab.core.command import CommandResult
from lab.core.deadline import Deadline, NotYet, wait_for
from lab.core.errors import DriverFailure, LabBroken
from lab.core.journal import noun
from lab.guest.channel import Channel
from lab.guest.names import WORK_DIR

SECTOR = 512
WRITE_PROTECTED = frozenset({5, 19})
"""ERROR_ACCESS_DENIED and ERROR_WRITE_PROTECT (MS-ERREF 2.2)."""

REQUESTS = "requests"
"""What a driver left that answers none: ``DriverFailure.stuck``."""

_MASK = 4095
_UNKNOWN = "is not recognized as an internal or external command"
_DONE = re.compile(r"^done errors=(\d+) mismatches=(\d+) requests=(\d+) ms=(\d+)", re.M)


@dataclass(frozen=True, slots=True)
class IoError:
    """A request that the disk refused.

    Attributes:
        op: ``read``, ``write``, ``flush`` or ``open``.
        first: its first sector.
        count: its sectors.
        code: the Win32 error code.
    """

    op: str
    first: int
    count: int
    code: int

    def __str__(self) -> str:
        return f"{self.op} of {self.count} sectors at {self.first}: error {self.code}"


@dataclass(frozen=True, slots=True)
class IoResult:
    """What came of one invocation.

    Attributes:
        errors: how many requests were refused.
        mismatches: how many sectors held something else.
        requests: how many requests were made.
        ms: how long it took, in milliseconds of the guest's clock.
        refused: the first refused requests.
        wrong: the first wrong sectors, each as the tool described it.
        generations: those that ``run`` finished.
    """

    errors: int
    mismatches: int
    requests: int
    ms: int
    refused: tuple[IoError, ...]
    wrong: tuple[str, ...]
    generations: tuple[int, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing was refused and nothing wrong."""
        return not self.errors and not self.mismatches

    @property
    def words(self) -> str:
        """One line: how many requests went wrong, and how the first ones did."""
        said = [str(one) for one in self.refused[:3]] + list(self.wrong[:3])
        return (
            f"{self.errors} of {self.requests} requests refused, {self.mismatches} sectors wrong"
            + (": " + "; ".join(said) if said else "")
        )

    def require(self, what: str) -> IoResult:
        """Itself, if all is well.

        Raises:
            DriverFailure: it is not; ``what`` says what was done.
        """
        if not self.ok:
            raise DriverFailure(f"{what}: {self.words}")
        return self


@dataclass(frozen=True, slots=True)
class DiskLength:
    """A disk's exact length as its driver reports it.

    Attributes:
        length: in bytes.
        sector_bytes: logical sector size.
    """

    length: int
    sector_bytes: int

    @property
    def sectors(self) -> int:
        """In sectors of 512 bytes."""
        return self.length // SECTOR


@noun
class DiskIo:
    """The tool, in one guest.

    Every method raises LabBroken when the guest has no ``diskio`` or it was used wrongly, and
    GuestSilent or DeadlineExpired as ``Channel.run`` does.

    Args:
        channel: the guest's command line.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._jobs = 0

    def size(self, disk: int, deadline: Deadline) -> DiskLength:
        """A disk's exact length.

        Raises:
            DriverFailure: the disk cannot be opened.
        """
        result = self._run(f"size {disk}", deadline)
        found = re.search(r"bytes=(\d+) sector=(\d+)", result.stdout)
        if found is None:
            said = (result.stderr or result.stdout).strip().splitlines()
            raise DriverFailure(f"disk {disk} cannot be asked for its size: {said[:1]}")
        return DiskLength(int(found[1]), int(found[2]))

    def write(
        self, disk: int, first: int, count: int, deadline: Deadline, **how: object
    ) -> IoResult:
        """Write the pattern.

        Args:
            disk: its number.
            first: first sector.
            count: sectors.
            deadline: when to give up.
            how: options of the command line, such as ``gen=2, threads=4, shift=True``.
        """
        return self._io("write", disk, deadline, first=first, count=count, **how)

    def verify(
        self, disk: int, first: int, count: int, deadline: Deadline, **how: object
    ) -> IoResult:
        """Read, and compare with the pattern; arguments as for ``write``."""
        return self._io("verify", disk, deadline, first=first, count=count, **how)

    def exercise(
        self, disk: int, first: int, count: int, deadline: Deadline, **how: object
    ) -> IoResult:
        """Write and verify generations; arguments as for ``write``, and ``gens``."""
        return self._io("run", disk, deadline, first=first, count=count, **how)

    def bench(
        self, disk: int, first: int, count: int, deadline: Deadline, **how: object
    ) -> IoResult:
        """Time requests; arguments as for ``write``, and ``ops`` and ``op``."""
        return self._io("bench", disk, deadline, first=first, count=count, **how)

    def flush(self, disk: int, deadline: Deadline) -> IoResult:
        """Have the disk make durable what it answered for."""
        return self._io("flush", disk, deadline)

    def start(self, disk: int, first: int, count: int, deadline: Deadline, **how: object) -> Job:
        """``exercise`` in the background, until told to stop.

        The job outlives the command that started it and a lost connection.
        """
        self._jobs += 1
        log = rf"{WORK_DIR}\diskio-{self._jobs}.log"
        stop = rf"{WORK_DIR}\diskio-{self._jobs}.stop"
        options = {"gens": 1_000_000, **how, "first": first, "count": count}
        line = _options({**options, "log": log, "until": stop})
        self._channel.run(
            f'md {WORK_DIR} 2>nul & del /q {log} {stop} 2>nul & start "" diskio run {disk} {line}',
            deadline,
        )
        return Job(self._channel, log, stop)

    def _io(self, verb: str, disk: int, deadline: Deadline, **how: object) -> IoResult:
        result = self._run(f"{verb} {disk} {_options(how)}".rstrip(), deadline)
        return parse(result.stdout, f"{verb} of disk {disk}: {result.stderr.strip()}")

    def _run(self, arguments: str, deadline: Deadline) -> CommandResult:
        result = self._channel.run(f"diskio {arguments}", deadline)
        if _UNKNOWN in result.stderr:
            raise LabBroken(
                f"{result.where} has no diskio",
                hint="put diskio.exe into the guest's search path; see lab/guest/diskio.py",
            )
        if result.exit_code == 3:
            raise LabBroken(f"{result.where}: diskio {arguments}: {result.stderr.strip()}")
        return result


@noun
class Job:
    """A ``diskio run`` in the background.

    Args:
        channel: the guest's command line.
        log: where it writes.
        stop: the file that ends it.
    """

    def __init__(self, channel: Channel, log: str, stop: str) -> None:
        self._channel = channel
        self._log = log
        self._stop = stop

    def text(self, deadline: Deadline) -> str:
        """What it has written so far."""
        return self._channel.run(f"type {self._log}", deadline).stdout

    def generations(self, deadline: Deadline) -> int:
        """How many generations it has finished."""
        return len(re.findall(r"^generation=", self.text(deadline), re.M))

    def wait_until(self, what: str, ready: Callable[[str], bool], deadline: Deadline) -> str:
        """Wait until its log satisfies ``ready``; returns the log.

        Raises:
            DeadlineExpired: it does not; the last line seen is in the message.
        """

        def look() -> str:
            text = self.text(deadline)
            if ready(text):
                return text
            raise NotYet((text.strip().splitlines() or ["nothing"])[-1])

        return wait_for(what, look, deadline, interval=0.2)

    def wait_busy(self, deadline: Deadline, *, more: int = 1) -> None:
        """Wait until it has finished ``more`` further generations, or has ended."""
        goal = self.generations(deadline) + more
        self.wait_until(
            f"generation {goal} of the running writes",
            lambda text: len(re.findall(r"^generation=", text, re.M)) >= goal or "done " in text,
            deadline,
        )

    def end(self, deadline: Deadline) -> IoResult:
        """Tell it to stop after the generation it is at, and wait for that.

        Raises:
            DeadlineExpired: it does not end: requests hang.
        """
        self._channel.run(f"echo stop > {self._stop}", deadline)
        return self.result(deadline)

    def result(self, deadline: Deadline) -> IoResult:
        """Wait until it has ended by itself."""
        text = self.wait_until(
            "the running writes to end", lambda text: _DONE.search(text) is not None, deadline
        )
        return parse(text, "diskio run")


def parse(text: str, what: str) -> IoResult:
    """The output of an invocation.

    Args:
        text: its output.
        what: the invocation, for messages.

    Raises:
        DriverFailure: it ended without a summary, as when the disk is gone.
    """
    done = _DONE.search(text)
    if done is None:
        raise DriverFailure(f"{what.strip(' :')}: no result, {text.strip()[-200:] or 'no output'}")
    refused = re.findall(r"^error op=(\w+) first=(\d+) count=(\d+) code=(\d+)", text, re.M)
    return IoResult(
        errors=int(done[1]),
        mismatches=int(done[2]),
        requests=int(done[3]),
        ms=int(done[4]),
        refused=tuple(IoError(op, int(a), int(b), int(c)) for op, a, b, c in refused),
        wrong=tuple(one.strip() for one in re.findall(r"^mismatch (.*)$", text, re.M)),
        generations=tuple(int(one) for one in re.findall(r"^generation=(\d+)", text, re.M)),
    )


def pattern(first: int, count: int, gen: int = 1, seed: int = 1) -> bytes:
    """The pattern of ``count`` sectors from ``first`` on, as the tool writes it."""
    pack = struct.Struct("<IIQ").pack
    base = gen * 17 + seed * 7
    parts: list[bytes] = []
    for lba in range(first, first + count):
        at = (lba * 31 + base) & _MASK
        parts.append(pack(seed, gen, lba))
        parts.append(_TABLE[at : at + SECTOR - 16])
    return b"".join(parts)


def describe(data: bytes, sector: int) -> str:
    """What a sector holds that does not hold what it should, in words.

    Args:
        data: its 512 bytes.
        sector: its number.
    """
    if not any(data):
        return "zeroes"
    seed, gen, found = struct.unpack_from("<IIQ", data)
    if data == pattern(found, 1, gen, seed):
        return f"what was written to sector {found} in generation {gen} with seed {seed}"
    return "damaged data" if found == sector else f"foreign data, {data[:16].hex()}"


def _make_table() -> bytes:
    value = 0x9E3779B9
    found = bytearray()
    for _ in range(_MASK + 1 + SECTOR):
        value ^= (value << 13) & 0xFFFFFFFF
        value ^= value >> 17
        value ^= (value << 5) & 0xFFFFFFFF
        found.append(value >> 24)
    return bytes(found)


_TABLE = _make_table()


def _options(how: dict[str, object]) -> str:
    words = []
    for name, value in how.items():
        if value is True:
            words.append(f"/{name}")
        elif value is not False and value is not None:
            words.append(f"/{name}:{value}")
    return " ".join(words)
