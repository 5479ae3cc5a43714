"""What the terminal says: of a failed test, and of the whole run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING

import pytest

from lab.core.errors import GuestCrashed, PvlabError
from lab.plugin.recorder import findings
from lab.suite.blame import Verdict

if TYPE_CHECKING:
    from lab.plugin.run import Run

SLOWEST = 5
"""Tests that took longer than they say which the terminal names."""

PROOF_LINES = 30
"""Lines of a crash's proof that the terminal shows; the evidence has all of them."""


def say_past_capture(config: pytest.Config, line: str) -> None:
    """Print a line on the terminal in the middle of a test; a worker has none."""
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    capture = config.pluginmanager.get_plugin("capturemanager")
    if terminal is None:
        return
    with capture.global_and_fixture_disabled() if capture else nullcontext():
        terminal.ensure_newline()
        terminal.write_line(line)
        terminal.flush()


def introduce(run: Run, seconds: float) -> list[str]:
    """Say what is about to be tested, and where the results go.

    Args:
        run: of the session.
        seconds: what its tests take at most, one after the other.
    """
    record = run.record
    lines = [f"pvlab: guest: {record.guest_label} (profile {record.profile})"]
    if record.driver is not None:
        driver = record.driver
        lines.append(f"pvlab: driver: {driver.name} {driver.version} ({driver.basename})")
    if record.errata:
        lines.append(f"pvlab: errata: {len(record.errata)} of the tests are expected to fail")
    workers = f", {record.workers} workers" if record.workers > 1 else ""
    minutes = f"at most {seconds / record.workers / 60:.0f} min" if seconds >= 60 else "a minute"
    asked = run.settings.accel or "chosen by what this machine can do"
    return [
        *lines,
        f"pvlab: intensity: {record.intensity}{workers}, {minutes}",
        f"pvlab: accelerator: {asked}",
        f"pvlab: results: {run.folder}",
    ]


def tell(
    item: pytest.Item,
    report: pytest.TestReport,
    error: BaseException | None,
    crash: GuestCrashed | None,
    verdict: Verdict,
) -> None:
    """Put the blame into what pytest shows of a failure.

    The lab's own errors are shown with the test's lines only: how the lab came to raise them
    says nothing to somebody who tests a driver. Everything else keeps pytest's traceback.

    Args:
        item: the test.
        report: of its failed phase.
        error: what it raised, if anything.
        crash: the guest's crash, if there was one.
        verdict: whom to blame, and why.
    """
    blamed = f"pvlab: blamed on {verdict}"
    proof = [f"E   | {line}" for line in crash.evidence[-PROOF_LINES:]] if crash else []
    evidence = findings(report).get("evidence")
    where = [f"evidence: {evidence}"] if evidence else []
    if isinstance(error, PvlabError):
        report.longrepr = "\n".join([blamed, *_own_lines(item, report, error), *proof, *where])
        return
    text = "\n".join([blamed, *proof, *where])
    add_section = getattr(report.longrepr, "addsection", None)
    if add_section is not None:
        add_section("pvlab", text)
    else:
        report.sections.append(("pvlab", text))


def _own_lines(item: pytest.Item, report: pytest.TestReport, error: PvlabError) -> Iterator[str]:
    """Where in the test's file it happened, the error and its hint."""
    for entry in pytest.ExceptionInfo.from_exception(error).traceback:
        if entry.path == item.path:
            yield f"{item.location[0]}:{entry.lineno + 1}: in {entry.name}"
            yield f"    {str(entry.statement).strip()}"
    if report.when != "call":
        yield f"in the {report.when} of {item.name}"
    yield f"E   {type(error).__name__}: {error.message}"
    if error.hint:
        yield f"E   {error.hint}"


def summarize(terminal: pytest.TerminalReporter, run: Run) -> None:
    """Write the run's closing section: on what it ran, the verdict, where the results are."""
    record = run.record
    accelerator = record.accelerator
    terminal.section("pvlab")
    terminal.line(f"guest: {record.guest_label} (profile {record.profile})")
    if accelerator is not None:
        terminal.line(f"accelerator: {accelerator.name} ({accelerator.why})")
    if toolstack := record.versions.get("toolstack"):
        terminal.line(f"toolstack: {toolstack}")
    if record.driver is not None:
        driver = record.driver
        terminal.line(f"driver: {driver.name} {driver.version} ({driver.basename})")
    for test in record.tests:
        if test.campaign is not None:
            summary = test.properties.get("pvlab.campaign", "did not end")
            terminal.line(f"race: {test.id}: {summary}")
    late = [test for test in record.tests if test.late]
    for test in sorted(late, key=lambda test: -test.seconds)[:SLOWEST]:
        terminal.line(
            f"slow: {test.id} took {test.seconds:.0f} s, "
            f"expected at most {test.expected_seconds:.0f} s"
        )
    if len(late) > SLOWEST:
        terminal.line(f"slow: {len(late) - SLOWEST} more")
    if record.verdict is not None:
        terminal.line(f"verdict: {record.verdict.status.value}")
        for reason in record.verdict.reasons:
            terminal.line(f"  {reason}")
    terminal.line(f"results: {run.folder}")
    terminal.line(f"report: {run.report}")
