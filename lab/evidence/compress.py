"""Compression of core dumps: zstd where this Python has it, else gzip."""

from __future__ import annotations

import importlib
import zlib
from typing import Protocol

# zlib: window of 32 KiB (15) plus 16 for a gzip header and trailer (zlib.h, deflateInit2).
GZIP_WBITS = 15 + 16
# Guest memory is mostly zeros and repeats; on those, level 1 is several times faster than
# the default for nearly the same size, and the emulator wants the processor too.
GZIP_LEVEL = 1
ZSTD_LEVEL = 3
ZSTD_SUFFIX = ".zst"
GZIP_SUFFIX = ".gz"
SUFFIXES = (ZSTD_SUFFIX, GZIP_SUFFIX)


class Stream(Protocol):
    """An incremental compressor."""

    def compress(self, data: bytes, /) -> bytes:
        """Take more data; return what is ready to be written."""

    def flush(self) -> bytes:
        """End the stream; return the rest."""


def compressor() -> tuple[str, Stream]:
    """The best compressor there is.

    Returns:
        The file name suffix (``".zst"`` or ``".gz"``) and a new stream.
    """
    try:
        # In the standard library from Python 3.14 on.
        standard = importlib.import_module("compression.zstd")
        return ZSTD_SUFFIX, standard.ZstdCompressor(level=ZSTD_LEVEL)
    except ImportError:
        pass
    try:
        package = importlib.import_module("zstandard")
        return ZSTD_SUFFIX, package.ZstdCompressor(level=ZSTD_LEVEL).compressobj()
    except ImportError:
        return GZIP_SUFFIX, zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, GZIP_WBITS)
