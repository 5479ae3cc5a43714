from __future__ import annotations

import pytest

from lab.results.measured import Bar, Plot, bar_property, plots
from lab.results.record import Outcome, TestRecord


def test_of(*properties: tuple[str, str]) -> TestRecord:
    return TestRecord(id="t::a", outcome=Outcome.PASSED, seconds=1, properties=dict(properties))


test_of.__test__ = False  # type: ignore[attr-defined]


def test_bars_of_one_group_are_drawn_together() -> None:
    found = plots(
        [
            test_of(bar_property("reads, MiB/s", "emulated disk", 1.25)),
            test_of(
                ("pvlab.figure.reads", "3"),
                bar_property("writes, MiB/s", "PV disk", 3),
                bar_property("reads, MiB/s", "PV disk", 10.123456789),
            ),
        ]
    )
    assert found == (
        Plot("reads, MiB/s", (Bar("emulated disk", 1.25), Bar("PV disk", 10.1235))),
        Plot("writes, MiB/s", (Bar("PV disk", 3.0),)),
    )
    assert found[0].most == 10.1235


@pytest.mark.parametrize("text", ["much", "nan", "inf", "-1", ""])
def test_what_is_no_number_is_no_bar(text: str) -> None:
    assert plots([test_of(("pvlab.bar.reads|PV disk", text))]) == ()


def test_names_that_are_no_bars() -> None:
    assert plots([test_of(("pvlab.bar.reads", "3"), ("reads|x", "3"))]) == ()


def test_a_group_s_name_may_hold_anything() -> None:
    (plot,) = plots([test_of(bar_property("a|b", "c|d", 1))])
    assert (plot.title, plot.bars[0].label) == ("a b", "c|d")
