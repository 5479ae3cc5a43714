"""ISO 9660 discs, read with pycdlib.

Whatever a damaged disc makes pycdlib raise becomes ``Damaged``. A disc may also make it loop:
``lab.media.probe`` bounds that from outside.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path
from types import TracebackType
from typing import Any

import pycdlib

# ECMA-119 (ISO 9660), 6.2.1: logical sectors of 2048 bytes, the first 16 of them unused; 8.4:
# the primary volume descriptor, its standard identifier at 1 and volume space size at 80.
SECTOR = 2048
_DESCRIPTORS = 16 * SECTOR
_SPACE_SIZE = 80

READ_LIMIT = 16 << 20
"""The largest file that is read from a disc to recognise it, in bytes."""

_TREE_LIMIT = 1 << 20  # names looked at in one folder


class Damaged(Exception):
    """The disc cannot be read.

    Args:
        why: in words.
    """

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


def is_iso(head: bytes) -> bool:
    """Whether a file that begins with ``head`` (34 KiB at least) claims to be ISO 9660."""
    return head[_DESCRIPTORS + 1 : _DESCRIPTORS + 6] == b"CD001"


def truncated(head: bytes, size: int) -> str:
    """What is missing of a disc of which ``size`` bytes are there; empty when nothing is."""
    (blocks,) = struct.unpack_from("<I", head, _DESCRIPTORS + _SPACE_SIZE)
    whole = blocks * SECTOR
    if size >= whole:
        return ""
    return f"{size >> 20} of {whole >> 20} MiB are there"


class Disc:
    """An opened disc; use as a context manager.

    Names are compared without case, version and trailing dot (ECMA-119, 7.5: ``NAME.EXT;1``);
    Rock Ridge names count too.

    Args:
        path: the ISO.

    Raises:
        Damaged: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._iso = pycdlib.PyCdlib()
        self._folders: dict[str, dict[str, Any]] = {}
        try:
            self._iso.open(str(path))
        except Exception as error:
            # pycdlib's own errors, and whatever a hostile disc makes it stumble over.
            raise Damaged(_why(error)) from error

    def __enter__(self) -> Disc:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._iso.close()

    @property
    def label(self) -> str:
        """The volume identifier."""
        raw: bytes = self._iso.pvd.volume_identifier
        return raw.decode("ascii", "replace").strip("\0 ")

    @property
    def boots(self) -> bool:
        """Whether it has an El Torito boot record."""
        return self._iso.eltorito_boot_catalog is not None

    @property
    def udf(self) -> bool:
        """Whether it has a UDF file system beside the ISO 9660 one."""
        return bool(self._iso.has_udf())

    def names(self, folder: str = "/") -> list[str]:
        """The names in a folder, in upper case; none when there is no such folder.

        Raises:
            Damaged: the folder cannot be read.
        """
        found = self._folder(folder)
        return sorted(found) if found is not None else []

    def has(self, path: str) -> bool:
        """Whether there is a file or folder at ``path``.

        Raises:
            Damaged: a folder on the way cannot be read.
        """
        return self._find(path) is not None

    def read(self, path: str) -> bytes | None:
        """The content of a file; None when there is none at ``path``.

        Raises:
            Damaged: it cannot be read, or is larger than ``READ_LIMIT``.
        """
        found = self._find(path)
        if found is None or found[1].is_dir():
            return None
        where, record = found
        try:
            size = record.get_data_length()
            if size > READ_LIMIT:
                raise Damaged(f"{path} has {size} bytes")
            target = io.BytesIO()
            self._iso.get_file_from_iso_fp(target, iso_path=where)
        except Damaged:
            raise
        except Exception as error:
            raise Damaged(f"{path}: {_why(error)}") from error
        if len(data := target.getvalue()) < size:
            raise Damaged(f"{path} ends early")
        return data

    def _find(self, path: str) -> tuple[str, Any] | None:
        folder, _, name = path.rstrip("/").rpartition("/")
        entries = self._folder(folder or "/")
        if entries is None or (record := entries.get(_plain(name))) is None:
            return None
        return f"{self._true_path(folder or '/').rstrip('/')}/{_identifier(record)}", record

    def _true_path(self, folder: str) -> str:
        """The path of a folder with the identifiers as they are on the disc."""
        true = ""
        at = ""
        for part in filter(None, folder.split("/")):
            entries = self._folder(at or "/") or {}
            true += f"/{_identifier(entries[_plain(part)])}"
            at += f"/{part}"
        return true or "/"

    def _folder(self, folder: str) -> dict[str, Any] | None:
        key = folder.upper().rstrip("/") or "/"
        if key in self._folders:
            return self._folders[key]
        if key != "/":
            found = self._find(key)
            if found is None or not found[1].is_dir():
                return None
            where = found[0]
        else:
            where = "/"
        entries: dict[str, Any] = {}
        try:
            for count, record in enumerate(self._iso.list_children(iso_path=where)):
                if count > _TREE_LIMIT:
                    raise Damaged(f"{folder} does not end")
                if record is None or record.is_dot() or record.is_dotdot():
                    continue
                entries[_plain(_identifier(record))] = record
                if record.rock_ridge is not None and (long := record.rock_ridge.name()):
                    entries[_plain(long.decode("utf-8", "replace"))] = record
        except Damaged:
            raise
        except Exception as error:
            raise Damaged(f"{folder}: {_why(error)}") from error
        self._folders[key] = entries
        return entries


def _identifier(record: Any) -> str:
    raw: bytes = record.file_identifier()
    return raw.decode("utf-8", "replace")


def _plain(name: str) -> str:
    return name.partition(";")[0].rstrip(".").upper()


def _why(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
