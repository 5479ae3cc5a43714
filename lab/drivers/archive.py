"""Taking in the user's package: a folder or a zip archive, neither of them trusted.

What comes out is a plain folder of regular files with names that Windows and the guest's
``cmd`` can take. Every refusal is one line.
"""

from __future__ import annotations

import lzma
import os
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from lab.core.errors import UsageError

MAX_FILES = 1000
"""Most files and folders in a package."""

_MAX_DEPTH = 12
_RATIO_FROM_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may be taken in.

    Attributes:
        what: what is taken in, for messages.
        total: most bytes of all files together.
        files: most files and folders.
        ratio: most times its packed size that a file of an archive may have.
    """

    what: str
    total: int
    files: int
    ratio: int


# A checked build with its symbols has some megabytes. Deflate cannot exceed 1032 to 1 (zlib,
# "Maximum Compression Factor"); real drivers stay below 20, sparse symbol files below 100.
PACKAGE = Limits("driver package", 64 << 20, MAX_FILES, 200)
"""Of a driver package, or a scenario's bundle."""

REPORT = Limits("crash report", 2 << 30, 20_000, 1032)
"""Of an archive of dumps and logs: dumps are as large as a guest's memory, and mostly zeros."""

_SAFE_NAME = re.compile(r"[A-Za-z0-9_ .\-$~{}()+,=@#']{1,100}")
# Microsoft, "Naming Files, Paths, and Namespaces": devices, with or without an extension.
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)


def take_in(source: Path, target: Path, limits: Limits = PACKAGE) -> tuple[PurePosixPath, ...]:
    """Copy or unpack a package.

    Args:
        source: folder or zip archive.
        target: an empty folder for its files.
        limits: how much it may be.

    Returns:
        The files, relative to ``target``, sorted.

    Raises:
        UsageError: it is neither, cannot be read, or holds what a driver package should not.
    """
    try:
        mode = source.stat().st_mode
    except (OSError, ValueError) as error:
        raise UsageError(f"no {limits.what} at {source}") from error
    try:
        if stat.S_ISDIR(mode):
            files = _copy_folder(source, target, limits)
        elif stat.S_ISREG(mode) and zipfile.is_zipfile(source):
            files = _unpack(source, target, limits)
        else:
            raise UsageError(f"neither a folder nor a zip archive: {source}")
    except OSError as error:
        raise UsageError(
            f"cannot read the {limits.what} {source}: {error.strerror or error}"
        ) from error
    return tuple(sorted(files))


def _copy_folder(source: Path, target: Path, limits: Limits) -> list[PurePosixPath]:
    found: list[PurePosixPath] = []
    folders = [PurePosixPath()]
    budget = _Budget(str(source), limits)
    names = _Names(str(source))
    while folders:
        folder = folders.pop()
        with os.scandir(source / folder) as entries:
            for entry in sorted(entries, key=lambda one: one.name):
                path = names.check(folder / entry.name)
                budget.entry()
                if entry.is_dir(follow_symlinks=False):
                    (target / path).mkdir()
                    folders.append(path)
                elif entry.is_file(follow_symlinks=False):
                    with open(entry.path, "rb") as data:
                        budget.copy(data, target / path)
                    found.append(path)
                else:
                    kind = "a symbolic link" if entry.is_symlink() else "a special file"
                    raise UsageError(f"{source}: {path} is {kind}")
    return found


def _unpack(source: Path, target: Path, limits: Limits) -> list[PurePosixPath]:
    found: list[PurePosixPath] = []
    budget = _Budget(str(source), limits)
    names = _Names(str(source))
    try:
        with zipfile.ZipFile(source) as archive:
            members = archive.infolist()
            if len(members) > limits.files:
                raise UsageError(f"{source}: more than {limits.files} members")
            for member in members:
                path = names.check(_member_path(member, source), folder=member.is_dir())
                budget.entry()
                if member.is_dir():
                    (target / path).mkdir(parents=True, exist_ok=True)
                    continue
                (target / path).parent.mkdir(parents=True, exist_ok=True)
                budget.allow(member.file_size)
                with archive.open(member) as data:
                    budget.copy(data, target / path, packed=member.compress_size)
                found.append(path)
    except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        raise UsageError(f"{source}: a name is both a file and a folder") from error
    except (
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        EOFError,
        NotImplementedError,  # a compression method or feature that zipfile lacks
        RuntimeError,
        UnicodeError,
        ValueError,
    ) as error:
        raise UsageError(f"{source}: damaged archive: {error}") from error
    return found


def _member_path(member: zipfile.ZipInfo, source: Path) -> PurePosixPath:
    # ``filename`` is cut at a NUL, ``orig_filename`` is what the archive really says.
    name = member.orig_filename
    shown = f"{source}: member {name[:60]!r}"
    if "\\" in name:
        raise UsageError(f"{shown} has a backslash in its name")
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        raise UsageError(f"{shown} has an absolute path")
    if ".." in name.split("/"):
        raise UsageError(f"{shown} climbs out of the archive")
    if member.flag_bits & 0x1:
        raise UsageError(f"{shown} is encrypted")
    # High half of the external attributes: the Unix mode, where a Unix made the archive.
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind == stat.S_IFLNK:
        raise UsageError(f"{shown} is a symbolic link")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise UsageError(f"{shown} is a special file")
    return PurePosixPath(name)


class _Budget:
    """Counts what a package costs, by what really arrives and not by what it claims."""

    def __init__(self, source: str, limits: Limits) -> None:
        self._source = source
        self._limits = limits
        self._bytes = 0
        self._entries = 0

    def entry(self) -> None:
        self._entries += 1
        if self._entries > self._limits.files:
            raise UsageError(f"{self._source}: more than {self._limits.files} files and folders")

    def allow(self, size: int) -> None:
        if self._bytes + size > self._limits.total:
            raise UsageError(
                f"{self._source}: larger than {self._limits.total >> 20} MiB when unpacked"
            )

    def copy(self, data: IO[bytes], target: Path, *, packed: int | None = None) -> None:
        written = 0
        with target.open("xb") as out:
            while chunk := data.read(1 << 16):
                self.allow(len(chunk))
                self._bytes += len(chunk)
                written += len(chunk)
                if (
                    packed is not None
                    and written > _RATIO_FROM_BYTES
                    and written > packed * self._limits.ratio
                ):
                    raise UsageError(
                        f"{self._source}: {target.name} unpacks to more than "
                        f"{self._limits.ratio} times its size"
                    )
                out.write(chunk)


class _Names:
    """Refuses names that Windows or ``cmd`` would take for something else."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._seen: dict[str, str] = {}

    def check(self, path: PurePosixPath, *, folder: bool = False) -> PurePosixPath:
        shown = f"{self._source}: {str(path)[:80]!r}"
        if not path.parts or len(path.parts) > _MAX_DEPTH:
            raise UsageError(f"{shown} is no usable path")
        for part in path.parts:
            if not _SAFE_NAME.fullmatch(part) or part != part.rstrip(". ") or part[0] == " ":
                raise UsageError(f"{shown} has a name that the guest cannot take")
            if _DEVICE.fullmatch(part):
                raise UsageError(f"{shown} has the name of a Windows device")
        for known in self._prefixes(path):
            key = str(known).lower()
            if self._seen.setdefault(key, str(known)) != str(known):
                raise UsageError(f"{shown} and {self._seen[key]!r} differ only in case")
        if not folder:
            key = f"{str(path).lower()}/"
            if key in self._seen:
                raise UsageError(f"{shown} is there twice")
            self._seen[key] = str(path)
        return path

    @staticmethod
    def _prefixes(path: PurePosixPath) -> Iterable[PurePosixPath]:
        return (path, *list(path.parents)[:-1])


def discard(folder: Path) -> None:
    """Remove a folder that ``take_in`` filled, whatever state it is in."""
    shutil.rmtree(folder, ignore_errors=True)
