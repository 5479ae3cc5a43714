from __future__ import annotations

import json
import math

import pytest
from pydantic import ValidationError

from lab.bench.figure import Figure, ratio


def figure(*samples: float, target: float | None = None, at_least: bool = False) -> Figure:
    return Figure(name="a step", unit="s", samples=samples, target=target, at_least=at_least)


def test_of_several_samples():
    found = figure(3.0, 1.0, 2.0, 10.0)
    assert (found.minimum, found.median, found.maximum) == (1.0, 2.5, 10.0)
    # In the order they were made: a drift must be seen.
    assert found.samples == (3.0, 1.0, 2.0, 10.0)


def test_of_one_sample():
    found = figure(0.5)
    assert found.minimum == found.median == found.maximum == 0.5


@pytest.mark.parametrize(
    ("median", "at_least", "met"),
    [
        (1.9, False, True),
        (2.0, False, True),
        (2.1, False, False),
        (1.9, True, False),
        (2.0, True, True),
        (2.1, True, True),
    ],
)
def test_target(median: float, at_least: bool, met: bool):
    assert figure(median, target=2.0, at_least=at_least).met is met


def test_one_slow_sample_does_not_miss_the_target():
    assert figure(1.0, 1.1, 60.0, target=2.0).met is True


def test_without_a_target():
    assert figure(1.0).met is None


def test_document():
    found = json.loads(figure(1.0, 3.0, target=2.0).model_dump_json())
    assert found == {
        "name": "a step",
        "unit": "s",
        "samples": [1.0, 3.0],
        "target": 2.0,
        "at_least": False,
        "note": "",
        "median": 2.0,
        "minimum": 1.0,
        "maximum": 3.0,
        "met": True,
    }


def test_figures_do_not_change():
    with pytest.raises(ValidationError):
        figure(1.0).samples = (2.0,)  # type: ignore[misc]


def test_ratio_of_pairs():
    """Each pair shares its moment's load; the medians of two series do not."""
    found = ratio("lab over raw", (2.0, 30.0, 3.0), (1.0, 10.0, 3.0), target=1.1)
    assert found.samples == (2.0, 3.0, 1.0)
    assert (found.unit, found.median, found.met) == ("x", 2.0, False)


def test_ratio_of_series_of_different_lengths():
    found = ratio("cold over clone", (50.0,), (1.0, 2.0, 90.0), target=25.0, at_least=True)
    assert found.samples == (25.0,)
    assert found.met is True


def test_ratio_keeps_its_note():
    found = ratio("r", (1.0,), (3.0,), target=1.0, note="how")
    assert found.note == "how"
    assert math.isclose(found.median, 1 / 3)
