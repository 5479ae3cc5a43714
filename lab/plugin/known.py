"""Errata in a session: tests that must fail, and what to make of it when they do not."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import pytest

from lab.core.errors import Blame, GuestCrashed
from lab.plugin.keys import ERRATUM, tests_driver
from lab.plugin.recorder import attach
from lab.plugin.turns import base_id
from lab.suite.blame import Verdict
from lab.suite.errata import Errata, Erratum


def expect(items: Iterable[pytest.Item], errata_for: Callable[[pytest.Item], Errata]) -> None:
    """Mark the tests that the errata name as expected to fail.

    Args:
        items: the tests.
        errata_for: gives the errata of the driver that a test runs on.
    """
    for item in items:
        erratum = errata_for(item).about(base_id(item)) if tests_driver(item) else None
        if erratum is not None:
            item.stash[ERRATUM] = erratum
            item.add_marker(pytest.mark.xfail(reason=erratum.why, strict=True))


def compare(
    item: pytest.Item, report: pytest.TestReport, verdict: Verdict, crash: GuestCrashed | None
) -> Verdict:
    """Compare how a test went with what was expected of it.

    Args:
        item: the test.
        report: of the phase that did not go as a test should; a failure that the errata do
            not excuse is made one again.
        verdict: whom to blame, were nothing expected.
        crash: of the guest, if there was one.

    Returns:
        The verdict, which names the erratum when a test passed in spite of it.
    """
    erratum = item.stash.get(ERRATUM, None)
    if report.failed and report.when == "call" and verdict.blame is Blame.UNDECIDED:
        if not report.longrepr or "XPASS(strict)" not in report.longreprtext:
            return verdict
        attach(report, unexpected_pass=True)
        if erratum is None:
            return verdict
        return Verdict(
            Blame.UNDECIDED,
            f"it passed, but is known to fail: {erratum.why} ({erratum.source}; "
            f"until {erratum.until})",
        )
    if erratum is None or not hasattr(report, "wasxfail") or not report.skipped:
        return verdict
    why_not = unexcused(erratum, verdict, crash)
    if not why_not:
        return verdict
    # pytest takes any failure for the expected one; ours may be another.
    del report.wasxfail
    report.outcome = "failed"
    report.longrepr = report.longreprtext or verdict.reason
    return Verdict(verdict.blame, f"{verdict.reason} ({why_not}: {erratum.why})")


def unexcused(erratum: Erratum, verdict: Verdict, crash: GuestCrashed | None) -> str:
    """Why an erratum does not excuse a failure; empty when it does.

    Args:
        erratum: what is known.
        verdict: on the failure.
        crash: of the guest, if there was one.
    """
    if verdict.blame is not Blame.DRIVER:
        return "not what is known of the driver"
    if crash is not None and not erratum.crash:
        return "a crash, which is not what is known"
    if not re.search(erratum.says, verdict.reason):
        return "not the failure that is known"
    return ""
