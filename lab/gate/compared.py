"""The verdict of a gate that was decided by ``lab.gate.engine``.

FAIL if some test shows that the new driver is not fit. UNDECIDED if the lab, or a test that
could not be settled, is in the way of saying that it is; or if nothing passed. Otherwise PASS,
with the bound on what the runs can have missed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from lab.core.errors import ExitCode
from lab.gate.engine import Engine
from lab.gate.judging import Effect, Finding, Kind
from lab.gate.observation import Seen, Side
from lab.gate.paired import Answer
from lab.results.record import Status, Verdict
from lab.scenario.rate import rate
from lab.suite.sequential import Tally

NAMED = 10
"""How many tests of one kind are named before the rest is only counted."""

TOLD = (
    Kind.EXISTING,
    Kind.SLOWER,
    Kind.FLAKY,
    Kind.FIXED,
    Kind.KNOWN,
    Kind.NOT_RUN,
)
"""Kinds that are told of although they change nothing."""


def compared_verdict(engine: Engine, *, troubles: Sequence[str] = ()) -> Verdict:
    """What a gate's runs say about the new driver.

    Args:
        engine: of the gate, with all that was seen.
        troubles: what else stands in the way of a PASS, a line each.
    """
    findings = engine.findings
    failed = [f for f in findings if f.effect is Effect.FAIL]
    open_ = [f for f in findings if f.effect is Effect.UNDECIDED]
    reasons = [*_named(failed), *_slower(failed)]
    reasons += troubles
    if engine.gave_up:
        reasons.append(_gave_up(engine))
    if not failed:
        reasons += _named(open_)
    nothing = engine.runs(Side.NEW)[Seen.PASSED] == 0
    if nothing and not failed:
        reasons.append("no test passed on the new driver")
    for kind in TOLD:
        reasons += _named(f for f in findings if f.kind is kind and f.effect is Effect.NONE)
    if failed and open_:
        reasons.append(f"not settled when the gate failed: {_tests(len(open_))}")
    reasons += bounds(engine)
    if failed:
        return Verdict(
            status=Status.FAIL, exit_code=int(ExitCode.DRIVER_FAILED), reasons=tuple(reasons)
        )
    if open_ or nothing or troubles or engine.gave_up:
        return Verdict(
            status=Status.UNDECIDED, exit_code=int(ExitCode.LAB_BROKEN), reasons=tuple(reasons)
        )
    return Verdict(status=Status.PASS, exit_code=int(ExitCode.PASS), reasons=tuple(reasons))


def bounds(engine: Engine) -> list[str]:
    """What the runs can have missed, in lines: never "0 of n" without its upper bound."""
    confidence = engine.policy.failures.confidence
    lines = []
    for side in Side:
        ran = [f for f in engine.findings if _tally(f, side).attempts]
        whole = Tally(
            sum(_tally(f, side).failures for f in ran),
            sum(_tally(f, side).attempts for f in ran),
        )
        if not whole.attempts:
            continue
        who = "the new driver" if side is Side.NEW else "the baseline"
        lines.append(f"{who}, {_tests(len(ran))}: failed {rate(whole, confidence).words}")
    passed = [f for f in engine.findings if f.new.attempts and not f.new.failures]
    if passed:
        fewest = min(passed, key=lambda f: f.new.attempts).new
        most = max(passed, key=lambda f: f.new.attempts).new
        tallies = [fewest] if fewest == most else [fewest, most]
        said = " to ".join(rate(tally, confidence).words for tally in tallies)
        lines.append(f"each of {_tests(len(passed))} without a failure: failed {said}")
    lost = sum(engine.runs(side)[Seen.LAB] for side in Side)
    runs = sum(sum(engine.runs(side).values()) for side in Side)
    if lost:
        lines.append(f"the lab lost {lost} of {runs} runs")
    return lines


def _tally(finding: Finding, side: Side) -> Tally:
    return finding.new if side is Side.NEW else finding.old


def _named(findings: Iterable[Finding]) -> Iterator[str]:
    by_kind: dict[Kind, list[Finding]] = {kind: [] for kind in Kind}
    for finding in findings:
        by_kind[finding.kind].append(finding)
    for kind, found in by_kind.items():
        for finding in found[:NAMED]:
            yield " ".join(f"{kind}: {finding.test}: {finding.reason}".split())
        if len(found) > NAMED:
            yield f"{kind}: {len(found) - NAMED} more"


def _slower(failed: Iterable[Finding]) -> Iterator[str]:
    """Figures that have become worse, of tests that failed otherwise."""
    for finding in failed:
        if finding.kind is Kind.SLOWER:
            continue
        for figure in finding.figures:
            if figure.answer is Answer.WORSE:
                yield f"{Kind.SLOWER}: {finding.test}: {figure.name} {figure.change.words}"


def _gave_up(engine: Engine) -> str:
    lost = engine.lost
    said = " ".join(lost[-1].message.split()) or "no message"
    return f"the lab broke: it lost {len(lost)} runs in a row, so the gate ended: {said}"


def _tests(count: int) -> str:
    return "1 test" if count == 1 else f"{count} tests"
