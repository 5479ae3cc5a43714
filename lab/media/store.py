"""The media store: one folder for each medium, named by the hash of its bytes.

Layout of ``<root>/<sha256[:16]>/``::

    record.json   what it is, and where it came from
    content       the medium, a copy

A folder is made under a temporary name and renamed, so a medium is whole or not there.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from lab.core.errors import LabBroken, UsageError
from lab.core.paths import cache_dir
from lab.media.kinds import WANTED, Identity, MediaKind, Unusable
from lab.media.probe import identify_apart

SHORT = 16
_CHUNK = 4 << 20
_RECORD = "record.json"
_CONTENT = "content"
_PARTIAL = ".partial-"

KNOWN_HASHES = {
    # Chef's powershell cookbook (opscode-cookbooks/powershell, attributes/default.rb): the
    # checksum of WindowsServer2003-KB968930-x86-ENG.exe.
    "71b180e0affd9e005d7151a656414176e727b6dc80a9350e7b2b23bcac0cc98a": Identity(
        kind=MediaKind.KB968930,
        title="Windows Management Framework Core for Server 2003 x86, English (KB968930)",
        facts={"arch": "i386", "language": "en_US", "known_hash": "yes"},
    ),
}
"""Media that are known by their hash, from public lists."""


class Medium(BaseModel):
    """One medium in the store.

    Attributes:
        sha256: of its bytes.
        size: in bytes.
        identity: what it is.
        name: the file it was added from.
        added: when, UTC.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: str
    size: int
    identity: Identity
    name: str
    added: datetime

    @property
    def short(self) -> str:
        """The part of the hash that names its folder."""
        return self.sha256[:SHORT]


class MediaMissing(UsageError):
    """An image needs media that nobody added.

    Args:
        image: who needs them.
        kinds: which.
    """

    def __init__(self, image: str, kinds: Iterable[MediaKind]) -> None:
        self.kinds = tuple(kinds)
        titles = "; ".join(f"{WANTED[kind].title} ({kind})" for kind in self.kinds)
        super().__init__(
            f"image {image} needs media: {titles}",
            hint="pvlab media add PATH; pvlab media list says where users get them",
        )


class MediaStore:
    """The media that were added.

    Args:
        root: where they are kept; in the cache when None.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or cache_dir() / "media"

    def add(
        self,
        path: Path,
        *,
        kind: MediaKind | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[Medium, bool]:
        """Recognise a file and copy it into the store.

        Args:
            path: the file.
            kind: what it is meant to be, if the user says so.
            progress: told bytes copied and bytes in all.

        Returns:
            The medium, and whether it is new.

        Raises:
            Unusable: it is nothing the lab can use, or not of ``kind``.
            UsageError: it cannot be read.
            LabBroken: the store cannot be written.
        """
        try:
            if not path.is_file():
                raise UsageError(f"{path} is {'no file' if path.exists() else 'missing'}")
            size = path.stat().st_size
            sha256 = self._hash(path)
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror}") from None
        if (found := self._read(self.root / sha256[:SHORT])) is not None:
            _check_kind(path, found.identity, kind)
            return found, False
        identity = KNOWN_HASHES.get(sha256) or self._identify(path, kind)
        _check_kind(path, identity, kind)
        medium = Medium(
            sha256=sha256,
            size=size,
            identity=identity,
            name=path.name,
            added=datetime.now(UTC),
        )
        self._keep(path, medium, progress)
        return medium, True

    def all(self) -> list[Medium]:
        """Every medium, by kind and age. Folders that are damaged are left out."""
        if not self.root.is_dir():
            return []
        found = (self._read(folder) for folder in self.root.glob("[0-9a-f]" * SHORT))
        return sorted(filter(None, found), key=lambda one: (one.identity.kind, one.added))

    def find(self, kind: MediaKind) -> Medium | None:
        """The medium of a kind that was added last, or None."""
        return next((one for one in reversed(self.all()) if one.identity.kind is kind), None)

    def require(self, image: str, kinds: Iterable[MediaKind]) -> dict[MediaKind, Medium]:
        """The media an image is made of, by kind.

        Raises:
            MediaMissing: some are not there.
        """
        found = {kind: self.find(kind) for kind in kinds}
        if missing := [kind for kind, medium in found.items() if medium is None]:
            raise MediaMissing(image, missing)
        return {kind: medium for kind, medium in found.items() if medium is not None}

    def content(self, medium: Medium) -> Path:
        """The file with a medium's bytes."""
        return self.root / medium.short / _CONTENT

    def remove(self, prefix: str) -> Medium:
        """Remove the medium whose hash begins with ``prefix``.

        Raises:
            UsageError: there is none, or more than one.
            LabBroken: it cannot be removed.
        """
        found = [one for one in self.all() if prefix and one.sha256.startswith(prefix.lower())]
        if len(found) != 1:
            how = "no medium's hash begins" if not found else f"{len(found)} media's hashes begin"
            raise UsageError(f"{how} with {prefix!r}", hint="pvlab media list")
        grave = self.root / f"{_PARTIAL}{secrets.token_hex(8)}"
        try:
            (self.root / found[0].short).rename(grave)
            shutil.rmtree(grave)
        except OSError as error:
            raise LabBroken(f"cannot remove {grave}: {error.strerror}") from None
        return found[0]

    @staticmethod
    def _identify(path: Path, kind: MediaKind | None) -> Identity:
        try:
            return identify_apart(path)
        except Unusable as error:
            # What the user meant it to be is what is wanted.
            raise Unusable(path.name, error.what, (kind,) if kind else error.wanted) from None

    @staticmethod
    def _hash(path: Path) -> str:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def _keep(
        self, path: Path, medium: Medium, progress: Callable[[int, int], None] | None
    ) -> None:
        partial = self.root / f"{_PARTIAL}{secrets.token_hex(8)}"
        try:
            partial.mkdir(parents=True)
            digest = hashlib.sha256()
            done = 0
            with path.open("rb") as source, (partial / _CONTENT).open("xb") as target:
                while block := source.read(_CHUNK):
                    target.write(block)
                    digest.update(block)
                    done += len(block)
                    if progress is not None:
                        progress(done, medium.size)
                target.flush()
                os.fsync(target.fileno())
            if digest.hexdigest() != medium.sha256:
                raise UsageError(f"{path} changed while it was read")
            (partial / _CONTENT).chmod(0o444)
            (partial / _RECORD).write_text(medium.model_dump_json(indent=2) + "\n")
            final = self.root / medium.short
            # If it is there it is damaged, or `add` would have found it.
            shutil.rmtree(final, ignore_errors=True)
            partial.rename(final)
        except OSError as error:
            raise LabBroken(f"media store {self.root}: {error.strerror or error}") from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _read(self, folder: Path) -> Medium | None:
        try:
            medium = Medium.model_validate_json((folder / _RECORD).read_bytes())
            whole = (folder / _CONTENT).stat().st_size == medium.size
        except (OSError, ValidationError):
            return None
        return medium if whole and medium.short == folder.name else None


def _check_kind(path: Path, identity: Identity, kind: MediaKind | None) -> None:
    if kind is not None and identity.kind is not kind:
        raise Unusable(path.name, f"is {identity.title}", (kind,))
