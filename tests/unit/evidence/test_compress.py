"""Which compression is used, and that it can be undone."""

from __future__ import annotations

import gzip
import sys
import types
from typing import Any

import pytest

from lab.evidence.compress import compressor


def hide(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)


class Recorder:
    """Stands for a zstd stream."""

    def __init__(self, level: int) -> None:
        self.level = level

    def compressobj(self) -> Recorder:
        return self


def test_gzip_without_zstd(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "compression.zstd", "zstandard")
    suffix, stream = compressor()
    data = stream.compress(b"page" * 5000) + stream.compress(b"x") + stream.flush()
    assert suffix == ".gz"
    assert gzip.decompress(data) == b"page" * 5000 + b"x"


@pytest.mark.parametrize("module", ["compression.zstd", "zstandard"])
def test_zstd_of_the_library_or_the_package(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    hide(monkeypatch, "compression.zstd", "zstandard")
    fake: Any = types.ModuleType(module)
    fake.ZstdCompressor = Recorder
    monkeypatch.setitem(sys.modules, module, fake)
    if "." in module:
        monkeypatch.setitem(sys.modules, "compression", types.ModuleType("compression"))
    suffix, stream = compressor()
    assert suffix == ".zst"
    assert isinstance(stream, Recorder)
