"""Files that are either whole or not there."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from lab.core.errors import UsageError


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Write a file under a temporary name and rename it when the block ends well.

    A reader, and a kill at any moment, sees the old file or the new one (rename(2)). The
    data is synced first, or a power cut could leave the new name on an empty file.

    Args:
        path: the final name; its folder exists.

    Raises:
        OSError: it cannot be written; ``path`` is then as it was.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def atomic_write(path: Path, data: bytes) -> None:
    """Replace the content of ``path`` in one step.

    Raises:
        OSError: it cannot be written; ``path`` is then as it was.
    """
    with atomic_file(path) as stream:
        stream.write(data)


def save(path: Path, data: bytes) -> None:
    """``atomic_write`` of what people get or may go on with, in a folder that is made for it.

    Raises:
        UsageError: it cannot be written; ``path`` is then as it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, data)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from None
