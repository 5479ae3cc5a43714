"""Files of limited size for one piece of evidence."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lab.core.atomic import atomic_file, atomic_write
from lab.core.errors import LabBroken
from lab.evidence.compress import compressor


@dataclass(frozen=True, slots=True)
class Written:
    """A file that was written.

    Attributes:
        path: where.
        bytes: its size.
        sha256: of its content, in hex.
        truncated: whether the limit cut something off.
        error: what ended the data early; None when it ended by itself.
    """

    path: Path
    bytes: int
    sha256: str
    truncated: bool
    error: Exception | None


class Tail:
    """The last bytes of what is put in: of a log, the end is what matters.

    Args:
        limit: how many bytes to keep.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._received = 0

    def put(self, chunk: bytes) -> None:
        """Append a chunk and forget what no longer counts."""
        self._chunks.append(chunk)
        self._size += len(chunk)
        self._received += len(chunk)
        while self._size - len(self._chunks[0]) >= self._limit:
            self._size -= len(self._chunks.popleft())

    def save(self, path: Path) -> Written:
        """Write the kept bytes, from the first whole line on if something was cut off.

        Raises:
            OSError: it cannot be written.
        """
        data = b"".join(self._chunks)[-self._limit :]
        truncated = self._received > self._limit
        if truncated:
            newline = data.find(b"\n", 0, -1)
            data = data[newline + 1 :]
        atomic_write(path, data)
        return Written(path, len(data), hashlib.sha256(data).hexdigest(), truncated, None)


def save_compressed(folder: Path, stem: str, chunks: Iterable[bytes], limit: int) -> Written:
    """Stream data into a compressed file.

    When the source fails half-way, what came before is kept: half a core dump has its headers,
    the registers and the first memory pages.

    Args:
        folder: where the file goes.
        stem: its name without the suffix of the compression.
        chunks: the data; errors of the iterator end it.
        limit: size of the file, in bytes, at which to stop.

    Returns:
        The file; its ``error`` says what ended the data early.

    Raises:
        OSError: the file cannot be written.
        LabBroken: the source had nothing.
        Exception: whatever the source raised before its first byte.
    """
    suffix, stream = compressor()
    path = folder / (stem + suffix)
    digest = hashlib.sha256()
    size = 0
    truncated = False
    error: Exception | None = None
    with atomic_file(path) as file:

        def write(data: bytes) -> None:
            nonlocal size
            file.write(data)
            digest.update(data)
            size += len(data)

        source = iter(chunks)
        received = False
        while True:
            try:
                chunk = next(source)
            except StopIteration:
                break
            except Exception as failure:
                if not received:
                    raise
                error = failure
                break
            if size >= limit:
                truncated = True
                break
            received = True
            write(stream.compress(chunk))
        if not received:
            raise LabBroken("the source gave no data")
        write(stream.flush())
    return Written(path, size, digest.hexdigest(), truncated, error)
