"""Holdings of a guest, compared."""

from __future__ import annotations

from dataclasses import astuple, replace
from types import SimpleNamespace

import pytest

from lab.core.deadline import Deadline
from lab.core.errors import DeadlineExpired
from lab.suite import leaks
from lab.suite.leaks import Holdings, grown, settled

BEFORE = Holdings(261, 2, 15, 89, 21, 96)


def test_nothing_leaked():
    assert BEFORE.more_than(BEFORE) == {}
    assert replace(BEFORE, grants=200, memory_mib=95).more_than(BEFORE) == {}


def test_what_grew_is_named():
    after = replace(BEFORE, grants=270, event_channels=16)
    assert after.more_than(BEFORE) == {"grants": 9, "event_channels": 1}


class Dom0:
    """Counts what it is told to, the last for ever."""

    def __init__(self, *counts: Holdings) -> None:
        self.counts = list(counts)
        self.asked = 0

    def run(self, script, deadline, *, stdin):
        self.asked += 1
        if not self.counts:
            raise deadline.expire("an answer of dom0", "nothing")
        now = self.counts.pop(0) if len(self.counts) > 1 else self.counts[0]
        return SimpleNamespace(ok=True, stdout=" ".join(map(str, astuple(now))), stderr="")


@pytest.fixture
def place_of(monkeypatch):
    monkeypatch.setattr(leaks, "INTERVAL", 0.01)

    def make(*counts):
        return SimpleNamespace(dom0=Dom0(*counts), domain=SimpleNamespace(domid=1))

    return make


def more(grants):
    return replace(BEFORE, grants=BEFORE.grants + grants)


def test_counts_until_nothing_more_is_let_go_of(place_of):
    assert settled(place_of(more(60), more(11), BEFORE, BEFORE, more(1)), Deadline(20)) == BEFORE


def test_what_never_settles_is_told_with_the_last_count(place_of):
    place = place_of(*(more(count) for count in range(1000)))
    with pytest.raises(DeadlineExpired, match="grants=2"):
        settled(place, Deadline(0.2))


def test_what_is_let_go_of_late_did_not_leak(place_of):
    assert grown(place_of(more(60), more(3), more(2)), BEFORE, Deadline(20), by=3) == {}


def test_what_stays_leaked(place_of):
    place = place_of(more(60), replace(more(3), memory_mib=99))
    assert grown(place, BEFORE, Deadline(0.2), of=("grants", "event_channels")) == {"grants": 3}
    assert place.dom0.asked > 2


def test_what_could_not_be_counted_did_not_end_well(place_of):
    with pytest.raises(DeadlineExpired, match="an answer of dom0"):
        grown(place_of(), BEFORE, Deadline(0.2))
