"""From records to verdicts."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.core.errors import Blame
from lab.gate.verdict import NAMED, verdict
from lab.results.record import EndedHow, Host, Outcome, RunRecord, Status, TestRecord

DRIVER, LAB, UNDECIDED = Blame.DRIVER, Blame.LAB, Blame.UNDECIDED
Case = tuple[str, Blame | None]


def record(cases: Sequence[Case], ended_how: EndedHow = EndedHow.FINISHED) -> RunRecord:
    return RunRecord(
        run_id="r",
        started="2026-01-02T03:04:05Z",
        ended_how=ended_how,
        profile="standin",
        guest_label="stand-in",
        host=Host(kernel="k", cpus=2, memory_mib=1, os="o"),
        tests=tuple(
            TestRecord(id=f"t{n}", outcome=Outcome(o), blame=b, seconds=1, message=f"m{n}")
            for n, (o, b) in enumerate(cases)
        ),
    )


@pytest.mark.parametrize(
    ("cases", "status", "code"),
    [
        ([], "LAB", 3),
        ([("skipped", None)], "LAB", 3),
        ([("passed", None)], "PASS", 0),
        ([("passed", None), ("skipped", None), ("xfailed", None)], "PASS", 0),
        ([("xpassed", None)], "PASS", 0),
        ([("xfailed", None)], "UNDECIDED", 3),
        ([("xfailed", DRIVER), ("passed", None)], "PASS", 0),
        ([("xfailed", LAB), ("passed", None)], "LAB", 3),
        ([("failed", DRIVER)], "FAIL", 1),
        ([("error", DRIVER)], "FAIL", 1),
        ([("passed", None), ("failed", DRIVER), ("error", LAB)], "FAIL", 1),
        ([("failed", LAB), ("passed", None)], "LAB", 3),
        ([("failed", LAB), ("failed", UNDECIDED)], "LAB", 3),
        ([("failed", UNDECIDED), ("passed", None)], "UNDECIDED", 3),
        ([("failed", None), ("passed", None)], "UNDECIDED", 3),
        ([("error", None), ("passed", None)], "UNDECIDED", 3),
    ],
)
def test_verdicts(cases: list[Case], status: str, code: int) -> None:
    found = verdict(record(cases))
    assert (found.status, found.exit_code) == (Status(status), code)
    assert found.reasons


@pytest.mark.parametrize("ended_how", [EndedHow.INTERRUPTED, EndedHow.RUNNING])
def test_a_run_that_did_not_end_never_passes(ended_how: EndedHow) -> None:
    found = verdict(record([("passed", None)], ended_how))
    assert found.status is Status.UNDECIDED
    assert found.exit_code == 3
    assert "the run" in found.reasons[-1]


def test_driver_failure_stands_and_reasons_name_both() -> None:
    found = verdict(
        record([("error", LAB), ("failed", None), ("failed", DRIVER)], EndedHow.INTERRUPTED)
    )
    assert found.status is Status.FAIL
    assert found.reasons == (
        "the driver failed: t2: m2",
        "the lab failed: t0: m0",
        "no one could be blamed for: t1: m1",
        "the run was interrupted: not every test had its turn",
    )


def test_pass_says_what_was_left_out() -> None:
    found = verdict(record([("passed", None)] * 2 + [("skipped", None), ("xfailed", None)]))
    assert found.reasons == ("2 tests passed, 1 skipped, 1 failed as expected",)


def test_many_failures_are_counted_not_listed() -> None:
    reasons = verdict(record([("failed", DRIVER)] * (NAMED + 5))).reasons
    assert len(reasons) == NAMED + 1
    assert reasons[-1] == "the driver failed: 5 more"


CASES = st.lists(st.tuples(st.sampled_from(list(Outcome)), st.none() | st.sampled_from(Blame)))


@given(CASES, st.sampled_from(EndedHow))
def test_status_and_code_agree_and_only_clean_runs_pass(
    cases: list[Case], ended_how: EndedHow
) -> None:
    run = record(cases, ended_how)
    found = verdict(run)
    assert (found.exit_code == 0) == (found.status is Status.PASS)
    assert (found.exit_code == 1) == (found.status is Status.FAIL)
    assert all("\n" not in reason for reason in found.reasons)
    if found.status is Status.PASS:
        assert ended_how is EndedHow.FINISHED
        assert not any(test.outcome.bad for test in run.tests)
    driver_failed = any(t.outcome.bad and t.blame is Blame.DRIVER for t in run.tests)
    assert driver_failed == (found.status is Status.FAIL)
