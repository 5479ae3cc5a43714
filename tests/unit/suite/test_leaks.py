"""Holdings of a guest, compared."""

from __future__ import annotations

from dataclasses import replace

from lab.suite.leaks import Holdings

BEFORE = Holdings(261, 2, 15, 89, 21, 96)


def test_nothing_leaked():
    assert BEFORE.more_than(BEFORE) == {}
    assert replace(BEFORE, grants=200, memory_mib=95).more_than(BEFORE) == {}


def test_what_grew_is_named():
    after = replace(BEFORE, grants=270, event_channels=16)
    assert after.more_than(BEFORE) == {"grants": 9, "event_channels": 1}
