"""An image's manifest: what it holds, what it was made from, when and where."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from lab.core.errors import LabBroken
from lab.images.key import file_sha256

MANIFEST_FILE = "manifest.json"


class Entry(BaseModel):
    """One file of an image.

    Attributes:
        path: relative to the image's files, with forward slashes.
        size: bytes; 0 for a symbolic link.
        sha256: of the bytes, in hex; empty for a symbolic link.
        link: a symbolic link's target; empty for a file.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    size: int
    sha256: str = ""
    link: str = ""


class Manifest(BaseModel):
    """What ``manifest.json`` holds.

    Attributes:
        name: the image.
        kind: as in its recipe.
        key: the full key, 64 hex digits.
        depends: keys of the images it was built from, by name.
        versions: what the builder recorded, for instance package versions.
        notes: lines for people, for instance that a suite could not be used.
        built_at: UTC, ISO 8601.
        seconds: how long the build took.
        host: facts of the machine that built it.
        files: every file and symbolic link, sorted by path.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    kind: str
    key: str
    depends: dict[str, str]
    versions: dict[str, str]
    notes: tuple[str, ...]
    built_at: str
    seconds: float
    host: dict[str, str]
    files: tuple[Entry, ...]

    @property
    def size(self) -> int:
        """Bytes of all files together (as they read, holes included)."""
        return sum(entry.size for entry in self.files)

    def write(self, folder: Path) -> None:
        """Write ``manifest.json`` into ``folder``, on stable storage when this returns."""
        with (folder / MANIFEST_FILE).open("w", encoding="utf-8") as file:
            file.write(self.model_dump_json(indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest in ``folder``.

        Raises:
            LabBroken: it is missing or unreadable.
        """
        path = folder / MANIFEST_FILE
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            detail = str(error).splitlines()[0]
            raise LabBroken(f"image manifest {path} is unusable: {detail}") from error

    def quick_problem(self, files: Path) -> str:
        """The first file under ``files`` that is missing or has another size, in words.

        Reads no file's contents; empty when all is well.
        """
        for entry in self.files:
            path = files / entry.path
            try:
                stat = path.lstat()
            except OSError:
                return f"{entry.path} is missing"
            if not entry.link and stat.st_size != entry.size:
                return f"{entry.path} has {stat.st_size} bytes instead of {entry.size}"
        return ""

    def problems(self, files: Path) -> list[str]:
        """Everything under ``files`` that is not as it was built, one line each."""
        found = {entry.path: entry for entry in scan(files, sync=False)}
        listed = {entry.path: entry for entry in self.files}
        lines = []
        for path in sorted(found.keys() | listed.keys()):
            if path not in found:
                lines.append(f"{path} is missing")
            elif path not in listed:
                lines.append(f"{path} does not belong to the image")
            elif found[path].size != listed[path].size:
                lines.append(f"{path} has {found[path].size} bytes instead of {listed[path].size}")
            elif found[path] != listed[path]:
                lines.append(f"{path} has other contents than when it was built")
        return lines


def scan(folder: Path, *, sync: bool) -> tuple[Entry, ...]:
    """Every regular file and symbolic link under ``folder``, sorted by path.

    Args:
        folder: where to look.
        sync: also bring every file and folder to stable storage.

    Raises:
        LabBroken: something cannot be read, or is neither file, folder nor link.
    """
    entries = []

    def refuse(error: OSError) -> None:
        raise error

    try:
        for base, folders, names in os.walk(folder, onerror=refuse):
            for name in [*names, *folders]:
                path = Path(base, name)
                relative = path.relative_to(folder).as_posix()
                if path.is_symlink():
                    entries.append(Entry(path=relative, size=0, link=str(path.readlink())))
                elif path.is_dir():
                    continue
                elif path.is_file():
                    if sync:
                        _fsync(path)
                    entries.append(
                        Entry(path=relative, size=path.stat().st_size, sha256=file_sha256(path))
                    )
                else:
                    raise LabBroken(f"image file {path} is neither a file, a folder nor a link")
            if sync:
                _fsync(Path(base))
    except OSError as error:
        raise LabBroken(f"image file {error.filename}: {error.strerror}") from error
    return tuple(sorted(entries, key=lambda entry: entry.path))


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
