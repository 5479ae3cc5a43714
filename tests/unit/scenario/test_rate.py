from __future__ import annotations

import pytest

from lab.scenario.rate import rate
from lab.suite.sequential import Tally


@pytest.mark.parametrize(
    ("failures", "attempts", "words"),
    [
        (0, 0, "no attempt"),
        # 1 - 0.05 ** (1 / 214), the exact one-sided bound.
        (0, 214, "0 of 214, below 1.4 % at 95 %"),
        (0, 1, "0 of 1, below 95 % at 95 %"),
        # Clopper and Pearson's table for n = 20.
        (5, 20, "5 of 20 (25 %, 8.7 to 49.1 % at 95 %)"),
        (10, 10, "10 of 10 (100 %, above 74.1 % at 95 %)"),
    ],
)
def test_rates_in_words(failures, attempts, words):
    assert rate(Tally(failures, attempts)).words == words


def test_bounds_enclose_the_rate():
    for failures in range(1, 30):
        found = rate(Tally(failures, 30), 0.9)
        assert found.low < failures / 30 < found.high
        assert "90 %" in found.words
