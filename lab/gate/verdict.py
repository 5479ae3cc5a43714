"""The verdict of a run.

In the order in which they are asked:

1. A test that the driver is to blame for makes the run FAIL, even in a run where the lab broke
   too, or that did not end: blame is decided per test, on evidence, with the lab's side of that
   test proved to be in order. The lab's troubles are listed behind it.
2. Nothing ran, or the lab is to blame for a test: LAB. This includes tests marked as expected
   to fail which the lab broke, since pytest counts any failure as the expected one.
3. A failure nobody can be blamed for, a test that passed although the errata say that it must
   fail, a run that did not end, or a run in which no test passed: UNDECIDED.
4. Otherwise PASS.

Failures of a baseline that the driver is compared with are not the driver's: here they are only
told of. What the comparison amounts to is said by ``lab.gate.compared``.
"""

from __future__ import annotations

from collections.abc import Iterable

from lab.core.errors import Blame, ExitCode
from lab.results.record import EndedHow, Outcome, RunRecord, Status, TestRecord, Verdict

# How many failed tests of one kind are named before the rest is only counted.
NAMED = 10


def verdict(record: RunRecord) -> Verdict:
    """What a run says about the driver.

    Args:
        record: of a run that has ended, or been killed.

    Returns:
        The verdict; its reasons name every party that failed, the driver first.
    """
    blamed = [t for t in record.tests if t.outcome.bad and t.blame is Blame.DRIVER]
    driver = [t for t in blamed if not _on_baseline(t)]
    lab = [t for t in record.tests if _lab_broke(t)]
    undecided = [t for t in record.tests if t.outcome.bad and t.blame in (None, Blame.UNDECIDED)]
    news = [t for t in record.tests if t.outcome is Outcome.XPASSED and t.blame is not None]
    ran = [t for t in record.tests if t.outcome is not Outcome.SKIPPED]
    passed = [t for t in ran if t.outcome in (Outcome.PASSED, Outcome.XPASSED)]

    reasons = [
        *_named("the driver failed", driver),
        *_named("the baseline failed", [t for t in blamed if _on_baseline(t)]),
        *_named("the lab failed", lab),
        *_named("no one could be blamed for", undecided),
        *_named("news", news),
    ]
    if not record.tests:
        reasons.append("no test ran")
    elif not ran:
        reasons.append(f"no test ran: all {len(record.tests)} were skipped")
    if (unfinished := _unfinished(record)) is not None:
        reasons.append(unfinished)

    if driver:
        return _verdict(Status.FAIL, reasons)
    if lab or not ran:
        return _verdict(Status.LAB, reasons)
    if undecided or news or unfinished is not None:
        return _verdict(Status.UNDECIDED, reasons)
    if not passed:
        return _verdict(Status.UNDECIDED, ["no test passed: all that ran were expected to fail"])
    return _verdict(Status.PASS, [_passed(record, len(passed))])


def _on_baseline(test: TestRecord) -> bool:
    return test.turn is not None and test.turn.driver == "baseline"


def _lab_broke(test: TestRecord) -> bool:
    hidden = test.outcome is Outcome.XFAILED
    return (test.outcome.bad or hidden) and test.blame is Blame.LAB


def _verdict(status: Status, reasons: Iterable[str]) -> Verdict:
    codes = {Status.PASS: ExitCode.PASS, Status.FAIL: ExitCode.DRIVER_FAILED}
    code = codes.get(status, ExitCode.LAB_BROKEN)
    return Verdict(status=status, exit_code=int(code), reasons=tuple(reasons))


def _named(what: str, tests: list[TestRecord]) -> list[str]:
    lines = [
        " ".join(f"{what}: {test.id}: {test.message or 'no message'}".split())
        for test in tests[:NAMED]
    ]
    if len(tests) > NAMED:
        lines.append(f"{what}: {len(tests) - NAMED} more")
    return lines


def _unfinished(record: RunRecord) -> str | None:
    match record.ended_how:
        case EndedHow.FINISHED:
            return None
        case EndedHow.INTERRUPTED:
            return "the run was interrupted: not every test had its turn"
        case EndedHow.RUNNING:
            return "the run did not end: it is still going on or was killed"


def _passed(record: RunRecord, passed: int) -> str:
    words = {
        Outcome.SKIPPED: "skipped",
        Outcome.XFAILED: "failed as expected",
        Outcome.XPASSED: "of them expected to fail",
    }
    extra = [f"{record.counts[o]} {word}" for o, word in words.items() if o in record.counts]
    tests = "1 test" if passed == 1 else f"{passed} tests"
    return ", ".join([f"{tests} passed", *extra])
