"""What the raw disk tool prints, read."""

from __future__ import annotations

import pytest

from lab.core.errors import DriverFailure
from lab.guest.diskio import describe, parse, pattern

DONE = "done errors=1 mismatches=2 requests=30 ms=45\r\n"


def test_a_result_is_read():
    result = parse(
        "error op=write first=8 count=4 code=1117\r\nmismatch sector=9 gen=1 found=zeroes\r\n"
        "generation=3\r\ngeneration=4\r\n" + DONE,
        "write",
    )
    assert (result.errors, result.mismatches, result.requests, result.ms) == (1, 2, 30, 45)
    assert str(result.refused[0]) == "write of 4 sectors at 8: error 1117"
    assert result.wrong == ("sector=9 gen=1 found=zeroes",)
    assert result.generations == (3, 4)
    with pytest.raises(DriverFailure, match=r"^writing: 1 of 30 requests refused, 2 sectors wrong"):
        result.require("writing")


def test_all_is_well():
    result = parse("done errors=0 mismatches=0 requests=1 ms=0\r\n", "verify")
    assert result.require("reading") is result


def test_no_summary_blames_the_driver():
    with pytest.raises(DriverFailure, match="no result, generation=1"):
        parse("generation=1\r\n", "run")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (bytes(512), "zeroes"),
        (pattern(4, 1, 2, 3), "what was written to sector 4 in generation 2 with seed 3"),
        (pattern(7, 1)[:-1] + b"\0", "damaged data"),
        (b"\xa5" * 512, "foreign data, " + "a5" * 16),
    ],
)
def test_what_a_sector_holds(data, words):
    assert describe(data, 7) == words


def test_sectors_differ_in_every_way():
    found = {pattern(n, 1, gen, seed) for n in (0, 1, 1 << 32) for gen in (1, 2) for seed in (1, 2)}
    assert len(found) == 12
    assert pattern(5, 3)[512:1024] == pattern(6, 1)
