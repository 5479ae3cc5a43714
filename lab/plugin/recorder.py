"""From pytest's reports to the run's record.

Works on reports alone, which is all that reaches the controller of a distributed run: what
only the process with the place knows travels on the report, as plain data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from lab.core.errors import Blame
from lab.results.record import INTERRUPTED, EndedHow, Outcome, TestRecord
from lab.suite.blame import first_line

ATTRIBUTE = "pvlab"
"""Where a report carries the lab's findings."""

Findings = Mapping[str, Any]


def attach(report: pytest.TestReport, **found: Any) -> None:
    """Put findings onto a report; plain data only, for it may cross a process."""
    setattr(report, ATTRIBUTE, {**findings(report), **found})


def findings(report: pytest.TestReport) -> Findings:
    """What the lab found out about this phase of a test; empty for tests without the lab."""
    found: Findings = getattr(report, ATTRIBUTE, {})
    return found


def merge(old: TestRecord | None, report: pytest.TestReport, seconds: float) -> TestRecord:
    """A test's record after one more of its phases.

    Args:
        old: its record so far; ``None`` when the test has none yet.
        report: of the phase that ended.
        seconds: how long the test took up to now.
    """
    found = findings(report)
    if old is not None and (old.outcome.bad or report.passed):
        # The first error stays the test's; evidence may have come later.
        return old.model_copy(
            update={"seconds": seconds, "evidence": found.get("evidence") or old.evidence}
        )
    blame = found.get("blame")
    return TestRecord(
        id=report.nodeid,
        area=str(found.get("area", old.area if old else "")),
        outcome=_outcome(report),
        blame=Blame(blame) if blame else None,
        phase=report.when or "call",
        seconds=seconds,
        expected_seconds=found.get("expected"),
        message=_message(report, found),
        details=_details(report),
        evidence=found.get("evidence") or (old.evidence if old else None),
        campaign=found.get("campaign"),
        properties={str(k): str(v) for k, v in report.user_properties},
    )


def interrupted(nodeid: str, seconds: float) -> TestRecord:
    """The record of the test that was running when somebody interrupted the run."""
    return TestRecord(id=nodeid, outcome=Outcome.SKIPPED, seconds=seconds, message=INTERRUPTED)


def ended(exit_status: int) -> EndedHow:
    """How a session ended, from pytest's exit status."""
    whole = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
    return EndedHow.FINISHED if exit_status in whole else EndedHow.INTERRUPTED


def worker_died(report: pytest.TestReport) -> bool:
    """Whether this is what pytest-xdist reports of a test whose process died."""
    # xdist.dsession.DSession.handle_crashitem: no phase of a test is called so.
    return report.failed and report.when not in ("setup", "call", "teardown")


def orphan(report: pytest.TestReport, seconds: float) -> TestRecord:
    """The record of a test whose process died: a driver cannot do that."""
    return TestRecord(
        id=report.nodeid,
        outcome=Outcome.ERROR,
        blame=Blame.LAB,
        seconds=seconds,
        message=first_line(report.longreprtext) or "the process that ran it died",
    )


def _outcome(report: pytest.TestReport) -> Outcome:
    expected_to_fail = hasattr(report, "wasxfail")
    if report.failed and findings(report).get("unexpected_pass"):
        return Outcome.XPASSED
    if report.passed:
        return Outcome.XPASSED if expected_to_fail else Outcome.PASSED
    if report.skipped:
        return Outcome.XFAILED if expected_to_fail else Outcome.SKIPPED
    return Outcome.FAILED if report.when == "call" else Outcome.ERROR


def _message(report: pytest.TestReport, found: Findings) -> str:
    if reason := found.get("reason"):
        return str(reason)
    if report.skipped and isinstance(report.longrepr, tuple):
        return first_line(report.longrepr[2].removeprefix("Skipped: "))
    return first_line(str(getattr(report, "wasxfail", "")))


def _details(report: pytest.TestReport) -> str:
    if not report.failed:
        return ""
    captured = [f"--- {name} ---\n{text}" for name, text in report.sections]
    return "\n".join([report.longreprtext, *captured])
