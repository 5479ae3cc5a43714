"""Crashes that were seen, sorted by signature: a folder with one JSON file a bucket.

Files are replaced as a whole, and one lock keeps writers apart, so a store may be shared by
several runs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab.core.atomic import atomic_write
from lab.core.deadline import Deadline
from lab.core.errors import UsageError
from lab.core.lock import locked
from lab.crash import facts as facts_module
from lab.crash import signature as signatures
from lab.crash.facts import CrashFact
from lab.crash.incidents import fullness
from lab.crash.signature import Signature

SCHEMA_VERSION = 1

LOCK = ".lock"

MAX_SEEN = 500
"""Crashes of a bucket that are remembered one by one, so that none is counted twice."""

_PATIENCE_SECONDS = 30.0
_LIMIT = 32 << 20
_NAME = re.compile(r"[0-9a-f]{12}\.json")


@dataclass(frozen=True)
class Bucket:
    """Crashes of one signature.

    Attributes:
        signature: theirs.
        first_seen: UTC, time of the earliest crash: as its account tells it, else when it was
            put in.
        last_seen: UTC, of the latest.
        count: how many crashes.
        builds: driver builds, with how many of the crashes each had.
        sample: the account that knows most.
        seen: digests of the crashes counted, the newest last.
    """

    signature: Signature
    first_seen: datetime
    last_seen: datetime
    count: int
    builds: dict[str, int]
    sample: CrashFact
    seen: tuple[str, ...] = field(default=(), repr=False)

    @property
    def key(self) -> str:
        """Of the signature."""
        return self.signature.key


@dataclass(frozen=True, slots=True)
class Near:
    """Another bucket that is much like a crash.

    Attributes:
        score: from 0 to 1.
        reasons: in words, the weightiest first.
        bucket: it.
    """

    score: float
    reasons: tuple[str, ...]
    bucket: Bucket


@dataclass(frozen=True, slots=True)
class Put:
    """What became of a crash that was put into a store.

    Attributes:
        bucket: where it is now.
        new: whether its bucket is a new one.
        counted: whether it was counted; it is not when it was there already.
        near: other buckets like it, the nearest first.
    """

    bucket: Bucket
    new: bool
    counted: bool
    near: tuple[Near, ...]


class BucketStore:
    """A folder of buckets.

    Args:
        folder: it; made when something is put in.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def buckets(self) -> list[Bucket]:
        """All buckets, the one that was seen last first.

        Raises:
            UsageError: the folder or a bucket in it cannot be read.
        """
        if not self.folder.exists():
            return []
        try:
            names = sorted(path.name for path in self.folder.iterdir())
        except OSError as error:
            raise UsageError(f"cannot read {self.folder}: {error.strerror}") from None
        found = [_load(self.folder / name) for name in names if _NAME.fullmatch(name)]
        return sorted(found, key=lambda one: one.last_seen, reverse=True)

    def put(self, fact: CrashFact, *, build: str | None = None, now: datetime | None = None) -> Put:
        """Count a crash.

        Args:
            fact: it.
            build: the driver build it happened with, in words.
            now: the moment; the present when None. A crash whose account tells its time is of
                that time, and of this moment when it tells one that is yet to come.

        Raises:
            UsageError: the store cannot be read or written.
            DeadlineExpired: another process keeps it locked.
        """
        moment = (now or datetime.now(UTC)).astimezone(UTC)
        moment = min(fact.moment or moment, moment)
        own = signatures.signature(fact)
        with self._locked():
            others = [(one, one.signature) for one in self.buckets()]
            known = next((one for one, _ in others if one.key == own.key), None)
            digest = _digest(fact)
            if known is not None and digest in known.seen:
                bucket, counted = known, False
            else:
                bucket, counted = _counted(known, own, fact, digest, build, moment), True
                self._save(bucket)
        near = signatures.rank(own, [(one, other) for one, other in others if one.key != own.key])
        return Put(
            bucket,
            known is None,
            counted,
            tuple(Near(score, reasons, one) for score, reasons, one in near[:5]),
        )

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            with locked(self.folder / LOCK, Deadline(_PATIENCE_SECONDS)):
                yield
        except OSError as error:
            raise UsageError(f"cannot write {self.folder}: {error.strerror or error}") from None

    def _save(self, bucket: Bucket) -> None:
        text = json.dumps(to_json(bucket), indent=1) + "\n"
        atomic_write(self.folder / f"{bucket.key}.json", text.encode("utf-8"))


def _counted(
    known: Bucket | None,
    own: Signature,
    fact: CrashFact,
    digest: str,
    build: str | None,
    moment: datetime,
) -> Bucket:
    builds = {build: 1} if build else {}
    if known is None:
        return Bucket(own, moment, moment, 1, builds, fact, (digest,))
    builds = known.builds | {one: known.builds.get(one, 0) + 1 for one in builds}
    return replace(
        known,
        first_seen=min(known.first_seen, moment),
        last_seen=max(known.last_seen, moment),
        count=known.count + 1,
        builds=builds,
        sample=fact if fullness(fact) > fullness(known.sample) else known.sample,
        seen=(*known.seen, digest)[-MAX_SEEN:],
    )


def _digest(fact: CrashFact) -> str:
    """Of what an account says, wherever its file lies."""
    said = facts_module.to_json(fact)
    del said["sources"]
    text = json.dumps(said, sort_keys=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:16]


def to_json(bucket: Bucket) -> dict[str, Any]:
    """A bucket as plain values for JSON."""
    return {
        "schema_version": SCHEMA_VERSION,
        "key": bucket.key,
        "signature": signatures.to_json(bucket.signature),
        "first_seen": bucket.first_seen.isoformat(),
        "last_seen": bucket.last_seen.isoformat(),
        "count": bucket.count,
        "builds": dict(sorted(bucket.builds.items())),
        "sample": facts_module.to_json(bucket.sample),
        "seen": list(bucket.seen),
    }


def _load(path: Path) -> Bucket:
    try:
        if path.stat().st_size > _LIMIT:
            raise UsageError(f"{path}: larger than a bucket can be")
        data = json.loads(path.read_bytes())
        if data["schema_version"] != SCHEMA_VERSION:
            raise UsageError(f"{path}: another version of pvlab wrote it")
        return Bucket(
            signature=signatures.from_json(data["signature"]),
            first_seen=_moment(data["first_seen"]),
            last_seen=_moment(data["last_seen"]),
            count=int(data["count"]),
            builds={str(build): int(count) for build, count in data["builds"].items()},
            sample=facts_module.from_json(data["sample"]),
            seen=tuple(str(one) for one in data["seen"]),
        )
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        raise UsageError(f"{path}: damaged bucket", hint="move it away") from None


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("no time zone")
    return moment.astimezone(UTC)
