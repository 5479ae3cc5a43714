from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.suite.campaign import ATTEMPTS, Campaign, Plan
from lab.suite.sequential import (
    Answer,
    Tally,
    answer,
    evidence_above,
    evidence_within,
    least,
    most,
)

RUNS, LONGEST = 200, 300


def first_answer(rate, rng, limit=0.02):
    tally = Tally()
    for _ in range(LONGEST):
        tally = tally.plus(rng.random() < rate)
        found = answer(tally, limit)
        if found is not Answer.OPEN:
            return found, tally.attempts
    return Answer.OPEN, LONGEST


def shares(rate, seed):
    rng = random.Random(seed)  # noqa: S311
    answers = [first_answer(rate, rng) for _ in range(RUNS)]
    found = [word for word, _ in answers]
    lengths = sorted(length for _, length in answers)
    return {word: found.count(word) / RUNS for word in Answer}, lengths[RUNS // 2]


# At a rate right at the limit both answers are wrong to give; 3.5 standard errors are allowed
# for: of 200 runs with an error rate of 5 %, 0.05 + 3.5 * sqrt(0.05 * 0.95 / 200) = 10.4 %.
ALLOWED = 0.05 + 3.5 * math.sqrt(0.05 * 0.95 / RUNS)


@pytest.mark.parametrize("rate", [0.0, 0.002, 0.01, 0.02])
def test_rates_within_the_limit_are_seldom_called_above(rate):
    share, _ = shares(rate, seed=1)
    assert share[Answer.ABOVE] <= ALLOWED


@pytest.mark.parametrize("rate", [0.02, 0.03, 0.1, 0.5, 1.0])
def test_rates_above_the_limit_are_seldom_called_within(rate):
    share, _ = shares(rate, seed=2)
    assert share[Answer.WITHIN] <= ALLOWED


def test_clear_cases_are_answered_rightly_and_soon():
    share, length = shares(0.0, seed=3)
    assert share[Answer.WITHIN] == 1.0
    assert length == 171
    share, length = shares(0.2, seed=3)
    assert share[Answer.ABOVE] >= 0.99
    assert length <= 20


def test_a_failure_at_once_is_an_answer():
    assert answer(Tally(1, 1)) is Answer.ABOVE
    assert answer(Tally(0, 1)) is Answer.OPEN
    assert answer(Tally()) is Answer.OPEN


def integral(function, low, high, steps=20_000):
    """Midpoint rule."""
    width = (high - low) / steps
    return sum(function(low + (i + 0.5) * width) for i in range(steps)) * width


@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (0, 40), (2, 30), (5, 60)])
def test_closed_forms_are_the_integrals(k, n):
    limit = 0.02

    def likelihood(p):
        return p**k * (1 - p) ** (n - k)

    above = integral(likelihood, limit, 1.0) / (1 - limit) / likelihood(limit)
    assert math.exp(evidence_above(Tally(k, n), limit)) == pytest.approx(above, rel=1e-4)
    within = integral(likelihood, 0.0, limit) / limit / likelihood(limit)
    never = (1.0 if k == 0 else 0.0) / likelihood(limit)
    assert math.exp(evidence_within(Tally(k, n), limit)) == pytest.approx(
        (never + within) / 2, rel=1e-4
    )


@given(st.integers(0, 150), st.data())
def test_bounds_enclose_the_rate_and_agree_with_the_answer(n, data):
    k = data.draw(st.integers(0, n))
    tally = Tally(k, n)
    low, high = least(tally), most(tally)
    rate = k / n if n else 0.0
    assert 0.0 <= low <= rate <= high <= 1.0
    assert (low > 0.02) <= (answer(tally) is Answer.ABOVE)
    assert (high < 0.02) <= (answer(tally) is Answer.WITHIN)


def run_campaign(plan, fails):
    campaign = Campaign(plan)
    for seed in campaign.seeds():
        campaign.record(seed, failed=fails(seed))
    return campaign


def test_campaign_of_a_good_driver_ends_when_the_question_is_answered():
    campaign = run_campaign(Plan(attempts=ATTEMPTS.standard), lambda seed: False)
    assert campaign.tally == Tally(0, 171)
    assert not campaign.failed
    assert campaign.summary == (
        "0 of 171 attempts failed, a rate of at most 2.0% at 95% confidence: "
        "within the limit of 0.02"
    )


def test_campaign_that_is_too_short_says_so_and_passes():
    campaign = run_campaign(Plan(attempts=12), lambda seed: False)
    assert not campaign.failed
    assert "at most 24.8%" in campaign.summary
    assert "too few to compare" in campaign.summary


def test_campaign_stops_at_a_failure_that_cannot_be_outweighed():
    campaign = run_campaign(Plan(attempts=200, first_seed=10), lambda seed: seed == 14)
    assert campaign.failed
    assert campaign.failed_seeds == [14]
    assert campaign.tally == Tally(1, 5)


def test_long_campaign_may_clear_a_driver_that_failed_once():
    campaign = run_campaign(Plan(attempts=1000), lambda seed: seed == 30)
    assert campaign.answer is Answer.WITHIN
    assert campaign.failed_seeds == [30]
    assert not campaign.failed


def test_campaign_of_one_seed_repeats_it():
    campaign = run_campaign(Plan(attempts=1, first_seed=17), lambda seed: seed == 17)
    assert campaign.failed_seeds == [17]
    assert campaign.failed
