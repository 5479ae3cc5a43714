"""Damaged text of every kind: facts or one line, and nothing else.

PVLAB_FUZZ multiplies the cases; 100 gives 200 truncations and 1000 flips of each kind.
"""

from __future__ import annotations

import contextlib
import os
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lab.core.errors import UsageError
from lab.crash import bluescreenview, dbgview_log, eventlog, mail, oops, windbg, xenlog
from lab.crash.facts import CrashFact, from_json, to_json
from lab.crash.reader import read
from lab.crash.signature import signature, similarity
from lab.crash.text import split_text

GOLDEN = Path(__file__).parent / "golden"
KINDS = sorted(path.name for path in GOLDEN.iterdir() if path.suffix != ".json")
FUZZ = float(os.environ.get("PVLAB_FUZZ", "1"))
TRUNCATIONS = round(2 * FUZZ)
FLIPS = round(10 * FUZZ)


def attempt(path: Path, data: bytes) -> None:
    """Read; what comes out can be written down and sorted."""
    path.write_bytes(data)
    facts: list[CrashFact] = []
    with contextlib.suppress(UsageError):
        facts = read(path)
    for fact in facts:
        assert from_json(to_json(fact)) == fact
        assert fact.parameters == fact.parameters[:4]
        assert len(fact.frames) <= 200
        assert similarity(signature(fact), signature(facts[0]))[0] <= 1.0


@pytest.mark.parametrize("name", KINDS)
def test_damaged(name: str, tmp_path: Path):
    rng = random.Random(name)  # noqa: S311
    data = (GOLDEN / name).read_bytes()
    for _ in range(TRUNCATIONS):
        attempt(tmp_path / name, data[: rng.randrange(len(data))])
    for _ in range(FLIPS):
        flipped = bytearray(data)
        for _ in range(rng.choice((1, 1, 1, 30))):
            flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        attempt(tmp_path / name, bytes(flipped))


PIECES = [line for name in KINDS for line in (GOLDEN / name).read_text("latin-1").splitlines()]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=30)), max_size=40))
def test_lines_of_all_kinds_mixed(lines: list[str]):
    source = list(split_text("\n".join(lines)))
    for module in (bluescreenview, dbgview_log, eventlog, mail, oops, windbg, xenlog):
        for fact in module.parse(source, "file"):
            assert from_json(to_json(fact)) == fact
