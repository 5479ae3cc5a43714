"""Logs keep their end, core dumps their beginning."""

from __future__ import annotations

import gzip
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.core.errors import LabBroken
from lab.evidence.sink import Tail, save_compressed


@pytest.fixture(autouse=True)
def _gzip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "compression.zstd", None)
    monkeypatch.setitem(sys.modules, "zstandard", None)


@given(st.lists(st.binary(max_size=30), min_size=1), st.integers(1, 100))
def test_tail_is_the_end(
    tmp_path_factory: pytest.TempPathFactory, chunks: list[bytes], limit: int
) -> None:
    path = tmp_path_factory.mktemp("tail") / "log"
    tail = Tail(limit)
    for chunk in chunks:
        tail.put(chunk)
    written = tail.save(path)
    whole = b"".join(chunks)
    kept = path.read_bytes()
    assert whole.endswith(kept)
    assert len(kept) <= limit
    assert written.truncated == (len(whole) > limit)
    assert written.truncated or kept == whole
    assert (written.bytes, written.sha256) == (len(kept), hashlib.sha256(kept).hexdigest())


def test_truncated_log_starts_with_a_whole_line(tmp_path: Path) -> None:
    tail = Tail(12)
    for chunk in (b"first line\n", b"second\n", b"third\n"):
        tail.put(chunk)
    tail.save(tmp_path / "log")
    assert (tmp_path / "log").read_bytes() == b"third\n"


def test_one_endless_line_is_kept(tmp_path: Path) -> None:
    tail = Tail(4)
    tail.put(b"abcdefgh\n")
    tail.save(tmp_path / "log")
    assert (tmp_path / "log").read_bytes() == b"fgh\n"


def test_core_is_compressed(tmp_path: Path) -> None:
    written = save_compressed(tmp_path, "core", [b"\x7fELF", b"\0" * 100_000], 1 << 20)
    assert written.path.name == "core.gz"
    data = written.path.read_bytes()
    assert gzip.decompress(data) == b"\x7fELF" + b"\0" * 100_000
    assert (written.bytes, written.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert (written.truncated, written.error) == (False, None)


def test_core_stops_at_the_limit_and_still_unpacks(tmp_path: Path) -> None:
    def endless() -> Iterator[bytes]:
        number = 0
        while True:
            number += 1
            yield b"".join(hashlib.sha256(f"{number}-{i}".encode()).digest() for i in range(1024))

    written = save_compressed(tmp_path, "core", endless(), 200_000)
    assert written.truncated
    assert 200_000 <= written.bytes < 400_000
    assert gzip.decompress(written.path.read_bytes()).startswith(hashlib.sha256(b"1-0").digest())


def test_half_a_core_is_kept(tmp_path: Path) -> None:
    def breaks() -> Iterator[bytes]:
        yield b"headers"
        raise LabBroken("dom0 went away")

    written = save_compressed(tmp_path, "core", breaks(), 1 << 20)
    assert str(written.error) == "dom0 went away"
    assert gzip.decompress(written.path.read_bytes()) == b"headers"


def test_no_core_leaves_no_file(tmp_path: Path) -> None:
    def breaks() -> Iterator[bytes]:
        raise LabBroken("no such domain")
        yield b""

    with pytest.raises(LabBroken, match="no such domain"):
        save_compressed(tmp_path, "core", breaks(), 1 << 20)
    with pytest.raises(LabBroken, match="no data"):
        save_compressed(tmp_path, "core", [], 1 << 20)
    assert list(tmp_path.iterdir()) == []
