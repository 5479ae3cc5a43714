from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from lab.nightly.matrix import Cell, DriverBuild, Split, Suite
from lab.nightly.plan import Candidate, Past, make_plan, makespan, split
from lab.suite.catalogue import Entry

NOW = datetime(2026, 1, 2, 22, 0, tzinfo=UTC)
CELL = Cell("standin", DriverBuild(name="trunk"), Suite(name="standard"))


def candidate(part: str, seconds: float = 60.0, **content: str) -> Candidate:
    return Candidate(CELL, part, (f"t.py::{part}",), seconds, content)


def past(one: Candidate, days: float, *seconds: float, **content: str) -> dict[str, Past]:
    return {one.key: Past(one.kin, NOW - timedelta(days=days), content, seconds)}


def parts(planned) -> list[str]:
    return [one.candidate.part for one in planned]


def test_longest_first_among_what_is_chosen() -> None:
    every = [candidate("a", 10), candidate("b", 30), candidate("c", 20)]
    plan = make_plan(every, {}, budget=100, places=1, now=NOW)
    assert parts(plan.chosen) == ["b", "c", "a"]
    assert plan.seconds == 60
    assert plan.left_out == ()


def test_what_has_not_run_for_long_comes_before_what_ran_yesterday() -> None:
    old, new = candidate("old"), candidate("new")
    known = past(old, 3) | past(new, 1)
    plan = make_plan([new, old], known, budget=60, places=1, now=NOW)
    assert parts(plan.chosen) == ["old"]
    assert plan.chosen[0].why == "last ran 3 days ago"
    assert parts(plan.left_out) == ["new"]


def test_what_changed_comes_first_and_says_so() -> None:
    same, changed = candidate("same", driver="1"), candidate("changed", driver="2")
    known = past(same, 3, driver="1") | past(changed, 1, driver="1")
    plan = make_plan([same, changed], known, budget=60, places=1, now=NOW)
    assert parts(plan.chosen) == ["changed"]
    assert plan.chosen[0].why == "driver changed"


def test_what_changes_every_night_does_not_keep_the_rest_out_for_ever() -> None:
    same, changed = candidate("same", driver="1"), candidate("changed", driver="2")
    known = past(same, 9, driver="1") | past(changed, 1, driver="1")
    plan = make_plan([same, changed], known, budget=60, places=1, now=NOW)
    assert parts(plan.chosen) == ["same"]


def test_what_never_ran_comes_before_all() -> None:
    never, changed = candidate("never"), candidate("changed", driver="2")
    plan = make_plan([changed, never], past(changed, 80), budget=60, places=1, now=NOW)
    assert parts(plan.chosen) == ["never"]


def test_recorded_durations_before_the_catalogue_s() -> None:
    known = candidate("known", 600)
    plan = make_plan([known], past(known, 1, 50, 60, 500), budget=100, places=1, now=NOW)
    assert plan.chosen[0].seconds == 60


def test_another_build_of_the_driver_tells_how_long_it_takes() -> None:
    other = Cell("standin", DriverBuild(name="release"), CELL.suite)
    known = past(candidate("a", 600), 1, 50)
    unknown = Candidate(other, "a", ("t.py::a",), 600.0)
    plan = make_plan([unknown], known, budget=1000, places=1, now=NOW)
    assert plan.chosen[0].seconds == 50
    assert plan.chosen[0].why == "never ran"


def test_an_item_longer_than_the_budget_is_left_out_and_others_are_not() -> None:
    plan = make_plan([candidate("long", 90), candidate("b", 30)], {}, budget=60, places=4, now=NOW)
    assert parts(plan.chosen) == ["b"]
    assert parts(plan.left_out) == ["long"]


def test_parts_of_a_suite() -> None:
    def entry(test: str, area: str) -> Entry:
        return Entry(
            id=test,
            area=area,
            claim="",
            source="",
            expected_seconds=10.0,
            markers=(),
            attempts=None,
        )

    entries = [entry("t.py::a", "attach"), entry("t.py::b", "install"), entry("t.py::c", "attach")]

    def cut(how: Split):
        cell = Cell("standin", CELL.driver, Suite(name="s", split=how))
        return {one.key: (one.tests, one.catalogue_seconds) for one in split(cell, entries, {})}

    assert cut(Split.WHOLE) == {"standin/trunk/s": (("t.py::a", "t.py::b", "t.py::c"), 30.0)}
    assert cut(Split.AREA) == {
        "standin/trunk/s/attach": (("t.py::a", "t.py::c"), 20.0),
        "standin/trunk/s/install": (("t.py::b",), 10.0),
    }
    assert len(cut(Split.TEST)) == 3


@given(
    lengths=st.lists(st.floats(1, 500), max_size=25),
    ages=st.lists(st.floats(0, 30), min_size=25, max_size=25),
    budget=st.floats(1, 1000),
    places=st.integers(1, 4),
)
def test_a_plan_keeps_to_its_budget_and_forgets_nothing(
    lengths: list[float], ages: list[float], budget: float, places: int
) -> None:
    every = [candidate(f"{n:02d}", seconds) for n, seconds in enumerate(lengths)]
    known: dict[str, Past] = {}
    for one, age in zip(every, ages, strict=False):
        known |= past(one, age)
    plan = make_plan(every, known, budget=budget, places=places, now=NOW)
    assert sorted(parts(plan.chosen) + parts(plan.left_out)) == [one.part for one in every]
    seconds = [one.seconds for one in plan.chosen]
    assert seconds == sorted(seconds, reverse=True)
    assert makespan(seconds, places) == plan.seconds <= budget
    if places == 1 and plan.left_out:
        # On one place nothing that is left out would still have fitted.
        assert all(one.seconds > budget - sum(seconds) for one in plan.left_out)
