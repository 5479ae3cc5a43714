"""The search for a culprit among builds whose tests may lie."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.bisect.search import BAD_WEIGHTS, GOOD_WEIGHTS, Found, Search
from lab.bisect.simulate import Row, search, searches


def find(builds: int, culprit: int, untestable: frozenset[int] = frozenset()) -> Search:
    """A search among builds that fail always, or never."""
    looking = Search(builds)
    for build in untestable:
        looking.rule_out(build)
    for _ in range(200):
        build = looking.next()
        if build is None:
            return looking
        assert build not in untestable
        looking.observe(build, failed=build >= culprit)
    raise AssertionError("the search does not end")


def test_weights_are_chances():
    assert BAD_WEIGHTS.sum() == pytest.approx(1.0)
    assert GOOD_WEIGHTS.sum() == pytest.approx(1.0)


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=40))
def test_the_posterior_is_a_chance_whatever_was_seen(seen: list[tuple[int, bool]]):
    looking = Search(10)
    for build, failed in seen:
        looking.observe(build, failed=failed)
    chance = looking.posterior
    assert chance.sum() == pytest.approx(1.0)
    assert np.all(chance >= 0)
    build = looking.next()
    assert build is None or 0 <= build < 10


@pytest.mark.parametrize("culprit", [1, 2, 5, 14, 15])
def test_a_defect_that_always_shows(culprit: int):
    looking = find(16, culprit)
    answer = looking.answer
    assert (answer.found, answer.first, answer.last) == (Found.CULPRIT, culprit, culprit)
    assert answer.probability >= 0.95
    assert looking.bad_rate > 0.5


def test_two_builds_leave_one_question():
    assert find(2, 1).answer.first == 1


def test_the_good_build_may_fail_too():
    assert find(16, 0).answer.found is Found.GOOD_FAILS


def test_a_bad_build_that_passes_is_doubted_in_the_end():
    looking = Search(8)
    runs = 0
    while (build := looking.next()) is not None and runs < 3000:
        looking.observe(build, failed=False)
        runs += 1
    assert looking.answer.found is Found.BAD_PASSES
    # Not soon: a defect that shows rarely looks the same.
    assert runs > 20


@pytest.mark.parametrize(
    ("untestable", "first", "last"),
    [({6, 7}, 6, 8), ({5, 6}, 5, 7), ({8, 9}, 8, 10), ({3}, 8, 8)],
)
def test_builds_that_cannot_be_tested_stay_suspect(untestable: set[int], first: int, last: int):
    answer = find(16, last, frozenset(untestable)).answer
    assert (answer.found, answer.first, answer.last) == (Found.CULPRIT, first, last)


def test_nothing_to_tell_ends_the_search():
    looking = Search(3)
    for build in range(3):
        looking.rule_out(build)
    assert looking.next() is None


def test_one_failure_of_a_good_build_is_not_the_end():
    looking = Search(16)
    for build in range(16):
        for _ in range(30):
            looking.observe(build, failed=build >= 9)
    before = looking.answer
    looking.observe(3, failed=True)
    assert (before.first, looking.answer.first) == (9, 9)


@pytest.mark.parametrize("builds", [0, 1])
def test_there_has_to_be_a_good_and_a_bad_one(builds: int):
    with pytest.raises(ValueError, match="a good build and a bad one"):
        Search(builds)


def test_a_defect_that_shows_one_time_in_five_is_found_among_64_builds():
    found = searches(Row(builds=64, rate=0.2), range(200))
    assert found.right >= 0.95
    # 124 on average when this was written.
    assert found.mean_runs < 200


def test_simulated_searches_can_be_repeated():
    assert search(Row(builds=8), 3) == search(Row(builds=8), 3)


def test_a_lab_that_loses_every_run_says_nothing():
    assert not search(Row(builds=4, lab_noise=1.0), 1).decided
