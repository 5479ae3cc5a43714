"""Tonight against before: which change a pair of results is, and how often a test failed."""

from __future__ import annotations

import pytest
from builders import KEY, result, run, site

from lab.core.errors import Blame
from lab.results.record import Outcome
from lab.site.compare import Change, compare
from lab.site.model import Key, Mark, Night, Site, mark

P, F, L, U, K, X, S = (
    Mark.PASSED,
    Mark.FAILED,
    Mark.LAB,
    Mark.UNDECIDED,
    Mark.KNOWN,
    Mark.XPASSED,
    Mark.SKIPPED,
)


@pytest.mark.parametrize(
    ("marks", "change"),
    [
        ((P, F), Change.REGRESSION),
        ((P, L, F), Change.REGRESSION),
        ((P, None, F), Change.REGRESSION),
        ((K, F), Change.REGRESSION),
        ((F,), Change.NEW_FAILURE),
        ((S, F), Change.NEW_FAILURE),
        ((F, F), Change.STILL),
        ((F, U, F), Change.STILL),
        ((F, P), Change.FIXED),
        ((P, L), Change.LAB),
        ((P, U), Change.UNDECIDED),
        ((K, K), Change.KNOWN),
        ((K, X), Change.XPASSED),
        ((P, P), Change.SAME),
        ((P, None), Change.NOT_RUN),
        ((P, S), Change.SAME),
    ],
)
def test_change(marks: tuple[Mark | None, ...], change: Change) -> None:
    assert [one.change for one in compare(site(*marks))] == [change]


def test_regressions_come_first() -> None:
    keys = [Key(f"test_{n}", "here") for n in range(4)]
    before = Night("1", (run("a", [result(P, key) for key in keys[:2]]),))
    marks = (P, F, L, F)
    after = Night("2", (run("b", [result(m, k) for m, k in zip(marks, keys, strict=True)]),))
    found = compare(Site(nights=(before, after)))
    assert [(one.key.test, one.change) for one in found] == [
        ("test_1", Change.REGRESSION),
        ("test_3", Change.NEW_FAILURE),
        ("test_2", Change.LAB),
        ("test_0", Change.SAME),
    ]


def test_still_failing_tells_since_when() -> None:
    (found,) = compare(site(P, F, L, F, F))
    assert found.since == "2026-11-02"


def test_an_earlier_night_knows_nothing_of_later_ones() -> None:
    all_nights = site(P, F, F)
    (found,) = compare(all_nights, all_nights.nights[1])
    assert found.change is Change.REGRESSION
    assert found.stats.rate.failures == 1


def test_flake_rate_counts_what_says_something_of_the_driver() -> None:
    (found,) = compare(site(P, L, U, S, F, P))
    assert (found.stats.rate.failures, found.stats.rate.attempts) == (1, 3)
    assert found.stats.lab == 1
    assert found.stats.flaky
    assert 0.0 < found.stats.rate.low < 1 / 3 < found.stats.rate.high < 1.0


def test_a_test_that_fails_with_another_build_is_not_flaky() -> None:
    (found,) = compare(site(P, P, F, builds=("a", "a", "b")))
    assert not found.stats.flaky


def test_of_several_results_the_driver_s_failure_counts() -> None:
    night = Night("1", (run("a", [result(F)]), run("b", [result(P)])))
    assert night.results[KEY].mark is F


def test_a_second_try_replaces_what_the_lab_broke() -> None:
    night = Night("1", (run("a", [result(L)]), run("b", [result(P)])))
    assert night.results[KEY].mark is P


@pytest.mark.parametrize(
    ("outcome", "blame", "expected"),
    [
        (Outcome.FAILED, Blame.DRIVER, F),
        (Outcome.ERROR, Blame.LAB, L),
        (Outcome.FAILED, None, U),
        (Outcome.ERROR, Blame.UNDECIDED, U),
        (Outcome.XFAILED, Blame.DRIVER, K),
        (Outcome.PASSED, None, P),
        (Outcome.SKIPPED, None, S),
        (Outcome.XPASSED, None, X),
    ],
)
def test_mark(outcome: Outcome, blame: Blame | None, expected: Mark) -> None:
    assert mark(outcome, blame) is expected
