"""Block devices of dom0 that a volume group does not make: of any size, and faulty on demand.

What they hold is read in dom0 with ``O_DIRECT``: the backend writes past dom0's page cache,
and a page that an earlier look left there would tell of the past.
"""

from __future__ import annotations

import hashlib
import shlex
from dataclasses import dataclass, field

from lab.core.deadline import Deadline
from lab.core.errors import LabBroken
from lab.core.journal import noun
from lab.guest.diskio import SECTOR, describe, pattern
from lab.xen.dom0 import Dom0
from lab.xen.storage import VolumeGroup

_MIB = 1 << 20
_SHOWN = 5
# Sectors fetched and compared one by one when a digest differs: 1 MiB, since dom0's
# cryptography is emulated.
_PIECE = 2048


@noun
@dataclass
class Backing:
    """A block device in dom0.

    Attributes:
        path: its device node.
        sectors: its length in sectors of 512 bytes.
        kind: how the toolstack is told of it: ``phy`` or ``file``.
    """

    path: str
    sectors: int
    kind: str = "phy"
    _dom0: Dom0 = field(kw_only=True, repr=False)

    @property
    def spec(self) -> str:
        """As ``block-attach`` takes it."""
        return f"{self.kind}:{self.path}"

    def read(self, first: int, count: int, deadline: Deadline) -> bytes:
        """Its content.

        Raises:
            LabBroken: dom0 cannot read it.
        """
        found = self._dom0.run_raw(self._dd(first, count), deadline)
        if found.exit_code or len(found.stdout) != count * SECTOR:
            raise LabBroken(f"dom0 cannot read {self.path}: {len(found.stdout)} bytes came")
        return found.stdout

    def digest(self, first: int, count: int, deadline: Deadline) -> str:
        """SHA-1 of its content, against accidents."""
        result = self._dom0.run(
            f"{self._dd(first, count)} | sha1sum | cut -c1-40", deadline, check=True
        )
        return result.stdout.strip()

    def wrong(
        self, first: int, count: int, deadline: Deadline, *, gen: int = 1, seed: int = 1
    ) -> tuple[str, ...]:
        """Sectors that do not hold the pattern of ``lab.guest.diskio``, the first few in words.

        Args:
            first: first sector.
            count: sectors.
            deadline: when to give up.
            gen: generation.
            seed: seed.

        Returns:
            Empty when all of them hold it.

        Raises:
            LabBroken: dom0 cannot read the device.
        """
        wanted = pattern(first, count, gen, seed)
        if self.digest(first, count, deadline) == _sha1(wanted):
            return ()
        found: list[str] = []
        for start in range(first, first + count, _PIECE):
            size = min(_PIECE, first + count - start)
            part = wanted[(start - first) * SECTOR : (start - first + size) * SECTOR]
            if self.digest(start, size, deadline) == _sha1(part):
                continue
            got = self.read(start, size, deadline)
            for index in range(size):
                at = slice(index * SECTOR, (index + 1) * SECTOR)
                if got[at] != part[at]:
                    found.append(f"sector {start + index}: {describe(got[at], start + index)}")
            if len(found) >= _SHOWN:
                break
        return tuple(found[:_SHOWN]) or ("the content changed while it was read",)

    def written(
        self, first: int, count: int, deadline: Deadline, *, seed: int = 1
    ) -> tuple[frozenset[int], tuple[str, ...]]:
        """Which generations of the pattern a part holds.

        Args:
            first: first sector.
            count: sectors; all of them are fetched.
            deadline: when to give up.
            seed: seed.

        Returns:
            The generations, 0 for zeroes; and the first few sectors, in words, that hold
            anything else.

        Raises:
            LabBroken: dom0 cannot read the device.
        """
        got = self.read(first, count, deadline)
        generations: set[int] = set()
        strange: list[str] = []
        for index in range(count):
            data = got[index * SECTOR : (index + 1) * SECTOR]
            sector = first + index
            gen = int.from_bytes(data[4:8], "little")
            if not any(data):
                generations.add(0)
            elif data == pattern(sector, 1, gen, seed):
                generations.add(gen)
            elif len(strange) < _SHOWN:
                strange.append(f"sector {sector}: {describe(data, sector)}")
        return frozenset(generations), tuple(strange)

    def zero(self, first: int, count: int, deadline: Deadline) -> None:
        """Overwrite a part with zeroes.

        Raises:
            LabBroken: dom0 cannot write it.
        """
        self._dom0.run(
            f"dd if=/dev/zero of={shlex.quote(self.path)} bs={_MIB} oflag=direct,seek_bytes "
            f"iflag=count_bytes,fullblock seek={first * SECTOR} count={count * SECTOR} "
            "conv=notrunc 2>/dev/null",
            deadline,
            check=True,
        )

    def write(self, first: int, data: bytes, deadline: Deadline) -> None:
        """Write bytes, whole sectors of them.

        Raises:
            LabBroken: dom0 cannot write it.
        """
        done = self._dom0.run(
            f"dd of={shlex.quote(self.path)} bs={len(data)} oflag=direct,seek_bytes "
            f"iflag=fullblock seek={first * SECTOR} conv=notrunc",
            deadline,
            stdin=data,
        )
        if not done.ok:
            raise LabBroken(f"dom0 cannot write {self.path}: {done.stderr.strip()[-80:]}")

    def _dd(self, first: int, count: int) -> str:
        return (
            f"dd if={shlex.quote(self.path)} bs={_MIB} iflag=direct,skip_bytes,count_bytes "
            f"skip={first * SECTOR} count={count * SECTOR} 2>/dev/null"
        )


@noun
class Mapped(Backing):
    """A device-mapper device over a volume, whose table can be changed under the guest."""

    _name = ""
    _below = ""

    @classmethod
    def over(cls, dom0: Dom0, below: str, name: str, sectors: int, deadline: Deadline) -> Mapped:
        """Map the first ``sectors`` of a device.

        Raises:
            LabBroken: device-mapper refused.
        """
        made = cls(f"/dev/mapper/{name}", sectors, _dom0=dom0)
        made._name = name
        made._below = below
        made._table("create", made._linear(0, sectors), deadline)
        return made

    @property
    def below(self) -> Backing:
        """The device under it, which has every sector whatever the table says."""
        return Backing(self._below, self.sectors, _dom0=self._dom0)

    def heal(self, deadline: Deadline) -> None:
        """Make it work again."""
        self._swap(self._linear(0, self.sectors), deadline)

    def fail(self, first: int, count: int, deadline: Deadline) -> None:
        """Have every request to a part of it fail (dm ``error``)."""
        rest = first + count
        lines = [
            self._linear(0, first),
            f"{first} {count} error",
            self._linear(rest, self.sectors - rest),
        ]
        self._swap("\n".join(line for line in lines if line), deadline)

    def delay(self, ms: int, deadline: Deadline) -> None:
        """Have every request take ``ms`` milliseconds more (dm ``delay``)."""
        self._modprobe("dm-delay", deadline)
        self._swap(f"0 {self.sectors} delay {self._below} 0 {ms}", deadline)

    def flake(self, up_s: int, down_s: int, deadline: Deadline) -> None:
        """Have it work for ``up_s`` seconds and fail for ``down_s``, in turn (dm ``flakey``)."""
        self._modprobe("dm-flakey", deadline)
        self._swap(f"0 {self.sectors} flakey {self._below} 0 {up_s} {down_s}", deadline)

    def refuse_writes(self, deadline: Deadline) -> None:
        """Have writes fail and reads work (dm ``flakey``, always down, ``error_writes``)."""
        self._modprobe("dm-flakey", deadline)
        table = f"0 {self.sectors} flakey {self._below} 0 0 3600 1 error_writes"
        self._swap(table, deadline)

    def grow(self, sectors: int, deadline: Deadline) -> None:
        """Make it longer, as far as the device under it goes."""
        self.sectors = sectors
        self._swap(self._linear(0, sectors), deadline)

    def suspend(self, deadline: Deadline) -> None:
        """Have requests wait until ``resume``."""
        self._dom0.run(f"dmsetup suspend --noflush {self._name}", deadline, check=True)

    def resume(self, deadline: Deadline) -> None:
        """Let requests go on."""
        self._dom0.run(f"dmsetup resume {self._name}", deadline, check=True)

    def _linear(self, first: int, count: int) -> str:
        return f"{first} {count} linear {self._below} {first}" if count > 0 else ""

    def _swap(self, table: str, deadline: Deadline) -> None:
        self._table("reload", table, deadline)
        # Without --noflush a suspend waits for requests that a stalled target keeps.
        self._dom0.run(
            f"dmsetup suspend --noflush {self._name} && dmsetup resume {self._name}",
            deadline,
            check=True,
        )

    def _table(self, verb: str, table: str, deadline: Deadline) -> None:
        # dom0 runs no udev, so nobody would answer its cookies.
        self._dom0.run(
            f"dmsetup {verb} --noudevsync {self._name} <<'END'\n{table}\nEND\n"
            f"dmsetup mknodes {self._name}",
            deadline,
            check=True,
        )

    def _modprobe(self, module: str, deadline: Deadline) -> None:
        self._dom0.run(f"modprobe {module}", deadline, check=True)


@noun
class Backings:
    """Makes block devices in dom0.

    Args:
        dom0: the connection.
        vg: where volumes come from.
    """

    def __init__(self, dom0: Dom0, vg: VolumeGroup) -> None:
        self._dom0 = dom0
        self._vg = vg
        self._made = 0

    def volume(self, sectors: int, deadline: Deadline) -> Backing:
        """A plain volume of at least that size, zeroed at both ends."""
        mib = max(1, -(-sectors * SECTOR // _MIB))
        made = self._vg.create(self._name("vol"), mib, deadline)
        return Backing(made.path, made.sectors, _dom0=self._dom0)

    def exact(self, sectors: int, deadline: Deadline, *, room: int = 0) -> Mapped:
        """A device of exactly that many sectors, over a volume; volumes have whole extents.

        Args:
            sectors: its length.
            deadline: when to give up.
            room: sectors more that the volume under it has, for ``grow``.
        """
        below = self.volume(sectors + room, deadline)
        return Mapped.over(self._dom0, below.path, self._name("map"), sectors, deadline)

    def sparse(self, sectors: int, deadline: Deadline, *, sector_bytes: int = SECTOR) -> Backing:
        """A loop device over a file with no content, of any length.

        The file is in memory and takes none but for what is written.

        Args:
            sectors: its length in sectors of 512 bytes.
            deadline: when to give up.
            sector_bytes: logical sector size of the loop device.
        """
        file = f"/tmp/{self._name('sparse')}"  # noqa: S108 - dom0's, of one test
        result = self._dom0.run(
            f"truncate -s {sectors * SECTOR} {file} && losetup -f --show -b {sector_bytes} {file}",
            deadline,
            check=True,
        )
        return Backing(result.stdout.strip(), sectors, _dom0=self._dom0)

    def file(self, sectors: int, deadline: Deadline) -> Backing:
        """A plain file on dom0's disk, to be attached with ``file:``."""
        path = f"/var/lib/pvlab/{self._name('file')}"
        command = f"mkdir -p /var/lib/pvlab && truncate -s {sectors * SECTOR} {path} && sync {path}"
        self._dom0.run(command, deadline, check=True)
        return Backing(path, sectors, "file", _dom0=self._dom0)

    def cached(self, sectors: int, deadline: Deadline) -> Cached:
        """A disk with a write cache that a power cut would lose, and what is behind it.

        A loop device over a volume has dom0's page cache for its write cache: what the guest
        writes reaches the volume when the guest flushes, as dom0 is told not to write back by
        itself. What the volume has is seen through a second device over the same blocks.
        """
        below = self.volume(sectors, deadline)
        medium = Mapped.over(self._dom0, below.path, self._name("medium"), sectors, deadline)
        result = self._dom0.run(
            "echo 0 > /proc/sys/vm/dirty_writeback_centisecs; "
            "echo 360000 > /proc/sys/vm/dirty_expire_centisecs; "
            "echo 90 > /proc/sys/vm/dirty_ratio; echo 80 > /proc/sys/vm/dirty_background_ratio; "
            f"dmsetup table {medium.path.rpartition('/')[2]} >/dev/null && "
            f"losetup -f --show {below.path}",
            deadline,
            check=True,
        )
        disk = Backing(result.stdout.strip(), below.sectors, _dom0=self._dom0)
        return Cached(disk, medium)

    def _name(self, kind: str) -> str:
        self._made += 1
        return f"pvlab-{kind}-{self._made}"


@dataclass(frozen=True, slots=True)
class Cached:
    """A disk with a volatile write cache.

    Attributes:
        disk: what the guest gets.
        medium: what would be left after a power cut.
    """

    disk: Backing
    medium: Backing


def _sha1(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()
