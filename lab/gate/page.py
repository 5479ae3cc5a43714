"""``gate.html``: the verdict of a gate for people, with its reasons first.

As the report of a run: one file without scripts, whose content security policy allows its own
style sheet and nothing else, and every text of which is escaped.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from jinja2 import Environment

from lab.core.atomic import atomic_write
from lab.core.errors import UsageError
from lab.gate.document import GatedFigure, GatedFinding, GateDocument, Share
from lab.gate.judging import Kind
from lab.results.page import environment, link, own_text, source_hash, verbatim
from lab.results.record import REPORT_NAME, Status
from lab.results.report import STYLE_NAME

PAGE_NAME = "gate.html"

SIGNS = {
    Status.PASS: "\N{CHECK MARK}",
    Status.FAIL: "\N{MULTIPLICATION X}",
    Status.UNDECIDED: "?",
    Status.LAB: "\N{BLACK UP-POINTING TRIANGLE}",
}
MEANINGS = {
    Status.PASS: "The driver is no worse than was asked.",
    Status.FAIL: "The driver is not fit for release.",
    Status.UNDECIDED: "Undecided: more has to be known.",
    Status.LAB: "The lab failed: nothing is known about the driver.",
}


def render(document: GateDocument) -> str:
    """The page as HTML; links lead to the runs' folders beside the gate's.

    Args:
        document: of a gate that followed a policy.

    Raises:
        ValueError: it is of one that did not.
    """
    if document.comparison is None:
        raise ValueError("a gate without a policy has the report of its run")
    style = own_text("lab.results", STYLE_NAME)
    findings = sorted(document.comparison.findings, key=_weight)
    return (
        _environment()
        .get_template("gate.html.j2")
        .render(
            document=document,
            comparison=document.comparison,
            findings=findings,
            style=verbatim(style),
            style_hash=source_hash(style),
            signs=SIGNS,
            meanings=MEANINGS,
            report=REPORT_NAME,
        )
    )


def write_page(document: GateDocument, folder: Path) -> Path:
    """Write ``gate.html`` into the gate's folder.

    Returns:
        Its path.

    Raises:
        UsageError: it cannot be written.
    """
    path = folder / PAGE_NAME
    try:
        atomic_write(path, render(document).encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from None
    return path


def _weight(finding: GatedFinding) -> tuple[int, int]:
    """What decides the verdict comes first."""
    effects = ("fail", "undecided", "none")
    return effects.index(finding.effect), list(Kind).index(finding.kind)


def _share(share: Share) -> str:
    """``2 of 40 (0.6 to 16.9 %)``."""
    if not share.runs:
        return "no run"
    low, high = f"{share.low * 100:.1f}", f"{share.high * 100:.1f}"
    return f"{share.failures} of {share.runs} ({low} to {high} %)"


def _change(figure: GatedFigure) -> str:
    high = "?" if figure.high is None else f"{figure.high * 100:+.1f}"
    bounds = f"{figure.low * 100:+.1f} to {high} %"
    return f"{figure.change * 100:+.1f} % ({bounds}, {figure.pairs} pairs)"


@cache
def _environment() -> Environment:
    made = environment("lab.gate")
    made.filters |= {"share": _share, "change": _change, "link": _beside}
    return made


def _beside(path: str) -> str:
    """The URL of what lies in the results folder, from the gate's folder in it."""
    return "../" + link(path).removeprefix("./")
