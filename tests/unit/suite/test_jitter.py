from __future__ import annotations

from lab.suite.jitter import Jitter


def delays(seed, points=("a", "b", "a", "c")):
    jitter = Jitter(seed)
    return [jitter.delay(point) for point in points]


def test_a_seed_repeats_itself():
    assert delays(7) == delays(7)
    assert delays(7) != delays(8)


def test_a_new_point_leaves_the_others_alone():
    first, second, _, _ = delays(7)
    assert delays(7, ("new", "a", "new", "b"))[1::2] == [first, second]


def test_delays_are_none_or_spread_over_the_orders_of_magnitude():
    found = [Jitter(seed).delay("point", up_to=1.0) for seed in range(2000)]
    assert all(delay == 0.0 or 0.001 <= delay <= 1.0 for delay in found)
    still = sum(delay == 0.0 for delay in found) / len(found)
    assert 0.2 < still < 0.3
    short = sum(0.0 < delay < 0.0316 for delay in found) / len(found)
    assert 0.3 < short < 0.45


def test_point_waits_what_it_says_and_notes_it(monkeypatch):
    noted = []
    jitter = Jitter(3, lambda name, seconds: noted.append((name, seconds)))
    waited = [jitter.point("before attach", up_to=0.01) for _ in range(8)]
    assert noted == [("before attach", seconds) for seconds in waited]
    assert max(waited) <= 0.01


def test_order_and_choice_are_the_seed_s():
    things = list(range(20))
    assert Jitter(1).order("disks", things) == Jitter(1).order("disks", things)
    assert sorted(Jitter(1).order("disks", things)) == things
    assert {Jitter(seed).choose("one", "ab") for seed in range(20)} == {"a", "b"}
    assert {Jitter(seed).number("n", 1, 2) for seed in range(20)} == {1, 2}
