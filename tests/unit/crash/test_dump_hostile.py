"""Dumps and cores that are cut off, damaged or made up: no error but ``UsageError``."""

from __future__ import annotations

import contextlib
import random
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from dumpmaker import in_xenvbd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lab.core.errors import UsageError
from lab.crash import dump
from lab.crash import dumpformat as form
from lab.crash.dumpwriter import memory_dump, triage_dump
from lab.crash.facts import CrashFact, from_json, to_json

CRASH = in_xenvbd()
DUMPS = {
    "triage": triage_dump(CRASH),
    "full": memory_dump(CRASH),
    "kernel": memory_dump(CRASH, "kernel"),
}
# For each kind of file, and for all kinds together.
TRUNCATIONS = 200
FLIPS = 1000
MOST_MEMORY = 8 << 20


def attempt(read: Callable[[Path], list[CrashFact]], path: Path, data: bytes) -> list[CrashFact]:
    """Read; whatever comes out can be written down, and its error is one line."""
    path.write_bytes(data)
    facts: list[CrashFact] = []
    with contextlib.suppress(UsageError):
        facts = read(path)
    for fact in facts:
        assert from_json(to_json(fact)) == fact
        assert len(fact.frames) <= 64
        assert len(fact.modules) <= 1100
    return facts


@pytest.fixture(params=DUMPS)
def data(request: pytest.FixtureRequest) -> bytes:
    return DUMPS[request.param]


def test_truncations(tmp_path: Path, data: bytes) -> None:
    rng = random.Random(1)  # noqa: S311
    # The dense parts of the file, and all of it.
    places = [rng.randrange(0x1200) for _ in range(TRUNCATIONS // 2)]
    places += [rng.randrange(len(data)) for _ in range(TRUNCATIONS // 2)]
    for at in places:
        for fact in attempt(dump.read, tmp_path / "x.dmp", data[:at]):
            assert fact.code == CRASH.code


def test_flipped_bits(tmp_path: Path, data: bytes) -> None:
    rng = random.Random(2)  # noqa: S311
    for _ in range(FLIPS // len(DUMPS)):
        damaged = bytearray(data)
        for _ in range(rng.choice((1, 1, 1, 4, 64))):
            # Most of a dump with memory is zeros: aim at the header as often.
            end = rng.choice((0x1068, len(data)))
            damaged[rng.randrange(end)] ^= 1 << rng.randrange(8)
        attempt(dump.read, tmp_path / "x.dmp", bytes(damaged))


@pytest.mark.parametrize("value", [0, 0x7FFFFFFF, 0xFFFFFFFF])
def test_every_count_and_offset_at_its_limits(tmp_path: Path, data: bytes, value: int) -> None:
    words = [form.RUNS, form.RUNS + 8, form.RUNS + 12, form.DUMP_TYPE, form.DEBUGGER_DATA]
    words += [form.DIRECTORY_TABLE, form.MODULE_LIST, form.PROCESSORS, form.REQUIRED_SPACE + 4]
    words += range(form.TRIAGE_AT, form.TRIAGE_AT + 0x4C, 4)
    tracemalloc.start()
    try:
        for at in words:
            damaged = bytearray(data)
            struct.pack_into("<I", damaged, at, value)
            attempt(dump.read, tmp_path / "x.dmp", bytes(damaged))
        assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY
    finally:
        tracemalloc.stop()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(sorted(DUMPS)),
    st.lists(st.tuples(st.integers(8, 0x1100), st.integers(0, 0xFFFFFFFF)), min_size=1, max_size=6),
)
def test_words_of_the_header_may_say_anything(
    tmp_path: Path, name: str, words: list[tuple[int, int]]
) -> None:
    damaged = bytearray(DUMPS[name])
    for at, value in words:
        struct.pack_into("<I", damaged, at, value)
    attempt(dump.read, tmp_path / "x.dmp", bytes(damaged))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=9000))
def test_anything_behind_the_signature(tmp_path: Path, tail: bytes) -> None:
    attempt(dump.read, tmp_path / "x.dmp", b"PAGEDUMP" + tail)
