"""Failing more often, and being slower: what pairs of runs show."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.gate.paired import Answer, change
from lab.gate.worse import BETS, evidence_worse, is_worse
from lab.suite.sequential import Tally

rates = st.floats(0.0, 1.0)


def test_the_bets_share_one_stake():
    assert math.fsum(weight for weight, _, _ in BETS) == pytest.approx(1.0)
    assert all(new > old for _, new, old in BETS)


@given(p=rates, q=rates)
def test_evidence_does_not_grow_while_the_new_driver_is_no_worse(p: float, q: float):
    p, q = min(p, q), max(p, q)
    expected = math.fsum(
        (p if new else 1 - p) * (q if old else 1 - q) * math.exp(evidence_worse(new, old, 1))
        for new, old in itertools.product((0, 1), repeat=2)
    )
    assert expected <= 1.0 + 1e-12


@given(p=rates, q=rates)
def test_nor_over_several_pairs(p: float, q: float):
    p, q, pairs = min(p, q), max(p, q), 4

    def chance(rate: float, failures: int) -> float:
        return math.comb(pairs, failures) * rate**failures * (1 - rate) ** (pairs - failures)

    expected = math.fsum(
        chance(p, new) * chance(q, old) * math.exp(evidence_worse(new, old, pairs))
        for new, old in itertools.product(range(pairs + 1), repeat=2)
    )
    assert expected <= 1.0 + 1e-9


@pytest.mark.parametrize(
    ("new", "old", "pairs", "worse"),
    [(4, 0, 4, False), (5, 0, 5, True), (5, 5, 5, False), (0, 5, 5, False), (9, 0, 90, True)],
)
def test_is_worse(new: int, old: int, pairs: int, worse: bool):
    assert is_worse(Tally(new, pairs), Tally(old, pairs), 0.01) is worse


def test_looking_after_every_pair_keeps_the_false_alarms_down():
    alarms = 0
    for seed in range(300):
        chance = random.Random(seed)  # noqa: S311 - to be repeated
        new = old = 0
        for pairs in range(1, 200):
            new += chance.random() < 0.3
            old += chance.random() < 0.3
            if is_worse(Tally(new, pairs), Tally(old, pairs), 0.05):
                alarms += 1
                break
    # 5 % of 300, and three standard deviations.
    assert alarms <= 26


def measured(seed: int, slower: float, pairs: int, noise: float = 0.05):
    chance = random.Random(seed)  # noqa: S311 - to be repeated
    found = []
    for _ in range(pairs):
        machine = math.exp(chance.gauss(0, 0.5))
        new, old = (machine * math.exp(chance.gauss(0, noise)) for _ in range(2))
        found.append((new * (1 + slower), old))
    return found


def test_what_slows_both_is_not_the_driver_s():
    found = change(measured(1, 0.02, 16))
    assert found.low < 0.02 < found.high
    assert found.against(0.10) is Answer.WITHIN
    assert found.high - found.low < 0.10


def test_ten_times_slower_shows_soon():
    found = change(measured(1, 9.0, 4), looks=3)
    assert found.low > 3
    assert found.against(0.10) is Answer.WORSE


@pytest.mark.parametrize(("pairs", "answer"), [([], "open"), ([(2.0, 1.0)], "open")])
def test_too_few_pairs_have_no_bounds(pairs: list[tuple[float, float]], answer: str):
    found = change(pairs)
    assert found.against(0.1) == answer
    assert math.isinf(found.high)
    assert "no bounds" in found.words


def test_the_interval_is_student_s_on_logarithms():
    # Ratios 2, 2, 4: logarithms ln 2 (1, 1, 2); t(0.975, 2) = 4.3027 (NIST/SEMATECH, table t).
    found = change([(2, 1), (4, 2), (4, 1)])
    middle, half = math.log(2) * 4 / 3, 4.302653 * math.log(2) / math.sqrt(3) / math.sqrt(3)
    assert found.change == pytest.approx(math.expm1(middle))
    assert found.low == pytest.approx(math.expm1(middle - half), rel=1e-5)
    assert found.high == pytest.approx(math.expm1(middle + half), rel=1e-5)
    assert found.words.startswith("+152.0 % (")


def test_the_interval_covers():
    held = sum(
        (found := change(measured(seed, 0.3, 6))).low <= 0.3 <= found.high for seed in range(400)
    )
    # 95 % of 400, less three standard deviations.
    assert held >= 367
