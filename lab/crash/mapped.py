"""Large binary files of unknown origin: mapped, not read, and no access leaves them.

What lies behind the end of a file is simply absent: readers get ``None`` or fewer bytes, so a
truncated file still gives what is there. Compressed files are unpacked before, by
``lab.crash.reader``.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

from lab.core.errors import UsageError

# One read never returns more: everything a reader asks for at once is far smaller.
_MOST_AT_ONCE = 16 << 20


class View:
    """Bytes of a file, little-endian numbers in them, and nothing behind their end.

    Args:
        data: a mapping or bytes.

    Attributes:
        size: in bytes.
    """

    def __init__(self, data: mmap.mmap | bytes) -> None:
        self._data = data
        self.size = len(data)

    def take(self, at: int, count: int) -> bytes:
        """Up to ``count`` bytes from an offset; fewer, or none, at the end of the file."""
        if at < 0 or count <= 0 or at >= self.size:
            return b""
        return self._data[at : at + min(count, _MOST_AT_ONCE)]

    def u16(self, at: int) -> int | None:
        """An unsigned 16-bit number, or None where the file has none."""
        return self._number("<H", at, 2)

    def u32(self, at: int) -> int | None:
        """An unsigned 32-bit number, or None where the file has none."""
        return self._number("<I", at, 4)

    def u64(self, at: int) -> int | None:
        """An unsigned 64-bit number, or None where the file has none."""
        return self._number("<Q", at, 8)

    def find(self, what: bytes, start: int = 0, end: int | None = None) -> int:
        """The offset of the next occurrence from ``start`` on, or -1."""
        return self._data.find(what, max(start, 0), self.size if end is None else max(end, 0))

    def _number(self, form: str, at: int, width: int) -> int | None:
        if at < 0 or at + width > self.size:
            return None
        value: int = struct.unpack_from(form, self._data, at)[0]
        return value


@contextlib.contextmanager
def opened(path: Path) -> Iterator[View]:
    """A file's bytes, while the block lasts.

    Raises:
        UsageError: not a regular file, unreadable, or empty.
    """
    with contextlib.ExitStack() as stack:
        try:
            # A pipe or a device would block or never end.
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise UsageError(f"not a file: {path}")
            file = stack.enter_context(path.open("rb"))
            size = os.fstat(file.fileno()).st_size
            if not size:
                raise UsageError(f"{path} is empty")
            data = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
        except (OSError, ValueError, OverflowError) as error:
            raise UsageError(f"cannot read {path}: {error}") from None
        stack.callback(data.close)
        yield View(data)
