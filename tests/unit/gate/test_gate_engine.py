"""What a gate wants to see next, and what it makes of what it saw."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from lab.gate.compared import compared_verdict
from lab.gate.engine import Engine
from lab.gate.judging import Effect, Finding, Kind, runs_to_rule_out
from lab.gate.observation import Observation, Seen, Side, Step
from lab.gate.policy import Policy, load_policy
from lab.results.record import Status

NEW, OLD = Side.NEW, Side.OLD
PASSED, FAILED, LAB = Seen.PASSED, Seen.FAILED, Seen.LAB
Outcomes = Callable[[Step, int], Seen]


def policy(**parts: dict[str, Any]) -> Policy:
    return Policy.model_validate(parts)


def drive(
    engine: Engine, outcome: Outcomes, *, most: int = 2000, limit: int = 2
) -> list[tuple[Step, Seen]]:
    """Play a gate to its end; outcomes are given by step and how often it was made before."""
    made: list[tuple[Step, Seen]] = []
    while steps := engine.next(limit):
        for step in steps:
            number = sum(one == step for one, _ in made)
            seen = outcome(step, number)
            made.append((step, seen))
            engine.observe(Observation(step.test, step.side, seen, f"{seen} {number}"))
        assert len(made) < most, "the gate does not end"
    return made


def gate(
    outcome: Outcomes,
    tests: Iterable[str] = ("a",),
    *,
    asked: Policy | None = None,
    compared: bool = True,
) -> Engine:
    engine = Engine(tests, asked or policy(), compared=compared)
    drive(engine, outcome)
    return engine


def only(engine: Engine) -> Finding:
    (finding,) = engine.findings
    return finding


def on(side: Side, seen: Seen, other: Seen = PASSED) -> Outcomes:
    return lambda step, _: seen if step.side is side else other


def test_drivers_take_turns_test_by_test():
    made = drive(Engine("ab", policy(failures={"repeats": 2}), compared=True), on(NEW, PASSED))
    assert [(step.test, step.side) for step, _ in made] == [
        ("a", NEW),
        ("a", OLD),
        ("b", OLD),
        ("b", NEW),
        ("a", OLD),
        ("a", NEW),
        ("b", NEW),
        ("b", OLD),
    ]


def test_a_batch_is_what_single_pairs_would_be():
    engine = Engine("abc", policy(failures={"repeats": 2}), compared=True)
    steps = engine.next(100)
    assert len(steps) == 12
    assert engine.next(100) == steps
    assert engine.next(5) == steps[:4]
    assert engine.next(1) == steps[:2]


def test_without_a_baseline_the_new_driver_runs_alone():
    made = drive(Engine("ab", policy(), compared=False), on(NEW, PASSED))
    assert [(step.test, step.side) for step, _ in made] == [("a", NEW), ("b", NEW)]


def test_a_run_that_the_lab_lost_is_made_again_alone():
    engine = Engine("a", policy(), compared=True)
    made = drive(engine, lambda step, n: LAB if step.side is OLD and n < 2 else PASSED)
    assert [step.side for step, _ in made] == [NEW, OLD, OLD, OLD]
    assert only(engine).kind is Kind.SAME
    said = compared_verdict(engine)
    assert said.status is Status.PASS
    assert "the lab lost 2 of 4 runs" in said.reasons


def test_retries_are_bounded():
    asked = policy(lab={"retries": 2})
    engine = Engine("ab", asked, compared=True)
    made = drive(engine, lambda step, n: LAB if step == Step("a", NEW) else PASSED)
    assert sum(step == Step("a", NEW) for step, _ in made) == 3
    kinds = {finding.test: finding.kind for finding in engine.findings}
    assert kinds == {"a": Kind.LAB, "b": Kind.SAME}
    said = compared_verdict(engine)
    assert (said.status, said.exit_code) == (Status.UNDECIDED, 3)
    assert said.reasons[0] == "lab broken: a: 3 runs in a row lost: lab 2"


def test_a_lab_that_is_broken_everywhere_ends_the_gate():
    engine = Engine([f"t{n}" for n in range(50)], policy(lab={"give_up": 6}), compared=True)
    made = drive(engine, lambda step, n: LAB)
    assert len(made) == 6
    said = compared_verdict(engine)
    assert (said.status, said.exit_code) == (Status.UNDECIDED, 3)
    assert said.reasons[0].startswith("the lab broke: it lost 6 runs in a row")
    assert "no test passed on the new driver" in said.reasons


def test_nobody_to_blame_is_no_answer_either():
    engine = gate(on(NEW, Seen.UNDECIDED))
    assert only(engine).kind is Kind.UNDECIDED
    assert compared_verdict(engine).status is Status.UNDECIDED
    assert "nobody could be blamed" in compared_verdict(engine).reasons[0]


def test_good_against_good_passes_with_bounds():
    engine = gate(on(NEW, PASSED), "abcd")
    said = compared_verdict(engine)
    assert (said.status, said.exit_code) == (Status.PASS, 0)
    assert "the new driver, 4 tests: failed 0 of 4, below 52.7 % at 95 %" in said.reasons
    assert "each of 4 tests without a failure: failed 0 of 1, below 95 % at 95 %" in said.reasons


def test_a_test_that_always_fails_is_a_regression_and_ends_the_gate():
    engine = Engine("abcdef", policy(), compared=True)
    made = drive(engine, lambda s, n: FAILED if (s.test, s.side) == ("b", NEW) else PASSED)
    said = compared_verdict(engine)
    assert (said.status, said.exit_code) == (Status.FAIL, 1)
    assert said.reasons[0].startswith("regression: b: failed 5 of 5 (100 %, above 54.9 % at 95 %)")
    assert "no failure on the baseline: failed 0 of 5, below 45.1 % at 95 %" in said.reasons[0]
    assert said.reasons[0].endswith("failed 0")
    assert len(made) == 2 + 10
    assert any("not settled when the gate failed" in reason for reason in said.reasons)


def test_going_on_after_a_failure_settles_the_rest():
    asked = policy(running={"stop_early": False})
    engine = gate(
        lambda s, n: FAILED if (s.test, s.side) == ("b", NEW) else PASSED, "abc", asked=asked
    )
    kinds = [finding.kind for finding in engine.findings]
    assert kinds == [Kind.SAME, Kind.REGRESSION, Kind.SAME]


def test_one_failure_of_many_is_a_flake():
    engine = gate(lambda s, n: FAILED if s.side is NEW and n == 0 else PASSED)
    finding = only(engine)
    assert (finding.kind, finding.effect) == (Kind.FLAKY, Effect.NONE)
    assert finding.reason.startswith("less often than 10 %: failed 1 of 75 (1.3 %, 0 to 7.2 % at")
    assert compared_verdict(engine).status is Status.PASS


def test_failures_that_cannot_be_told_from_a_flake_are_undecided():
    engine = gate(
        lambda s, n: FAILED if s.side is NEW and n % 9 == 0 else PASSED,
        asked=policy(failures={"most": 30}),
    )
    finding = only(engine)
    assert (finding.kind, finding.effect) == (Kind.UNDECIDED, Effect.UNDECIDED)
    assert finding.new.attempts == 30
    assert "could not be told apart in 30 runs" in finding.reason


@pytest.mark.parametrize(
    ("existing", "status"), [("pass", "UNDECIDED"), ("undecided", "UNDECIDED"), ("fail", "FAIL")]
)
def test_failing_on_both_is_no_regression(existing: str, status: str):
    engine = gate(lambda s, n: FAILED, asked=policy(failures={"existing": existing}))
    finding = only(engine)
    assert finding.kind is Kind.EXISTING
    assert finding.new.attempts == 2
    # With "pass" the verdict is undecided still: no test passed at all.
    assert compared_verdict(engine).status is Status(status)


def test_failing_on_both_may_be_let_through():
    engine = gate(
        lambda s, n: FAILED if s.test == "a" else PASSED,
        "ab",
        asked=policy(failures={"existing": "pass"}),
    )
    said = compared_verdict(engine)
    assert said.status is Status.PASS
    assert said.reasons[0].startswith("failing as before: a: failed 2 of 2")


def test_worse_than_a_baseline_that_fails_too_is_a_regression():
    asked = policy(failures={"most": 200})
    engine = gate(lambda s, n: FAILED if s.side is NEW or n % 4 == 3 else PASSED, asked=asked)
    assert only(engine).kind is Kind.REGRESSION
    assert "fewer failures on the baseline" in only(engine).reason


def test_fixed():
    engine = gate(on(OLD, FAILED))
    assert only(engine).kind is Kind.FIXED
    said = compared_verdict(engine)
    assert said.status is Status.PASS
    assert said.reasons[0].startswith("fixed: a: failed 0 of 1, below 95 % at 95 %; the baseline:")


def test_a_known_failure_of_the_baseline_that_is_gone_is_fixed():
    assert only(gate(on(OLD, Seen.KNOWN))).kind is Kind.FIXED


def test_a_flaky_baseline_is_told_of():
    asked = policy(failures={"repeats": 3})
    engine = gate(lambda s, n: FAILED if s.side is OLD and n == 1 else PASSED, asked=asked)
    assert only(engine).kind is Kind.FLAKY
    assert only(engine).reason.startswith("on the baseline, failed 1 of 3")


def test_known_is_not_run_again():
    engine = Engine("ab", policy(failures={"repeats": 5}), compared=True)
    made = drive(engine, lambda s, n: Seen.KNOWN if s.test == "a" else PASSED)
    assert sum(step.test == "a" for step, _ in made) == 2
    assert engine.findings[0].kind is Kind.KNOWN
    assert compared_verdict(engine).status is Status.PASS


def test_passing_what_the_errata_say_fails_is_undecided():
    assert compared_verdict(gate(on(NEW, Seen.NEWS))).status is Status.UNDECIDED


def test_skipped_on_both_is_not_run():
    engine = gate(lambda s, n: Seen.SKIPPED if s.test == "a" else PASSED, "ab")
    assert engine.findings[0].kind is Kind.NOT_RUN
    assert compared_verdict(engine).status is Status.PASS


def test_skipped_on_the_new_driver_only_is_in_the_way():
    engine = gate(on(NEW, Seen.SKIPPED))
    assert only(engine).kind is Kind.NOT_RUN
    assert "but it ran on the baseline" in only(engine).reason
    assert compared_verdict(engine).status is Status.UNDECIDED


def test_a_failure_without_a_result_of_the_baseline_is_a_new_failure():
    engine = gate(on(NEW, FAILED, Seen.SKIPPED))
    finding = only(engine)
    assert (finding.kind, finding.effect) == (Kind.NEW_FAILURE, Effect.FAIL)
    assert finding.new.attempts == 3
    assert only(gate(on(NEW, FAILED), compared=False)).kind is Kind.NEW_FAILURE


def test_rates_can_be_ruled_out_everywhere():
    asked = load_policy("release")
    engine = gate(on(NEW, PASSED), asked=asked)
    runs = runs_to_rule_out(asked.failures.rate, asked.failures.confidence)
    assert only(engine).new.attempts == only(engine).old.attempts == runs == 49


def test_an_interrupted_gate_is_undecided_unless_it_failed():
    engine = Engine("ab", policy(), compared=True)
    engine.observe(Observation("a", NEW, PASSED))
    assert compared_verdict(engine, troubles=["interrupted"]).status is Status.UNDECIDED
    for _ in range(5):
        engine.observe(Observation("b", NEW, FAILED, "no disk"))
        engine.observe(Observation("b", OLD, PASSED))
    assert compared_verdict(engine, troubles=["interrupted"]).status is Status.FAIL


class Measures:
    """Runs of a test that measures something, and a machine whose speed changes."""

    def __init__(self, times: float, *, missing: int = 0) -> None:
        self.times, self.missing = times, missing
        self.made = 0

    def play(self, engine: Engine) -> Finding:
        while steps := engine.next(2):
            for step in steps:
                self.made += 1
                value = 100.0 * (1 + self.made // 10) * (1 + 0.01 * (self.made % 3))
                if step.side is NEW:
                    value *= self.times
                figures = {"ms": value} if self.made > self.missing else {}
                engine.observe(Observation(step.test, step.side, PASSED, figures=figures))
            assert self.made < 500
        return only(engine)


def test_a_slower_driver_fails_on_performance():
    engine = Engine("a", policy(), compared=True)
    finding = Measures(10.0).play(engine)
    assert (finding.kind, finding.effect) == (Kind.SLOWER, Effect.FAIL)
    assert finding.new.attempts <= 8
    said = compared_verdict(engine)
    assert said.reasons[0].startswith("performance change: a: slower: ms +")
    assert said.reasons[0].endswith("limit 10 %")


def test_two_percent_do_not_fail():
    engine = Engine("a", policy(), compared=True)
    finding = Measures(1.02).play(engine)
    assert finding.kind is Kind.SAME
    (figure,) = finding.figures
    assert figure.change.low < 0.02 < figure.change.high
    assert compared_verdict(engine).status is Status.PASS


@pytest.mark.parametrize(("what", "status"), [("pass", "PASS"), ("undecided", "UNDECIDED")])
def test_what_cannot_be_told_from_the_limit_is_told(what: str, status: str):
    asked = policy(performance={"looks": [2, 3], "inconclusive": what, "limit": 0.0001})
    engine = Engine("a", asked, compared=True)
    finding = Measures(1.0).play(engine)
    assert finding.new.attempts == 3
    assert compared_verdict(engine).status is Status(status)


def test_a_figure_that_is_not_always_measured_is_not_waited_for_forever():
    engine = Engine("a", policy(performance={"looks": [4]}), compared=True)
    assert Measures(1.0, missing=10**6).play(engine).new.attempts == 1
    engine = Engine("a", policy(performance={"looks": [4]}), compared=True)
    assert Measures(1.0, missing=1).play(engine).kind is Kind.SAME
