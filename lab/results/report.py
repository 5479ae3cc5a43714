"""``report.html``: what happened, whose fault it is, and where the proof lies.

One file without scripts or anything to load. Its content security policy allows the one style
sheet that it carries, by hash, and nothing else, so that a log line cannot act even if it got
past the escaping.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from lab.core.atomic import atomic_write
from lab.core.errors import UsageError
from lab.evidence.manifest import MANIFEST_NAME, Manifest, Piece, PieceName, load_manifest
from lab.results import text
from lab.results.measured import plots
from lab.results.page import environment, own_text, source_hash, verbatim
from lab.results.page import link as link_to
from lab.results.record import (
    JUNIT_NAME,
    RECORD_NAME,
    REPORT_NAME,
    Outcome,
    RunRecord,
    Status,
    TestRecord,
)

PACKAGE = "lab.results"
STYLE_NAME = "report.css"

# The logs a driver developer reads first come first.
INLINED = (
    PieceName.DBGVIEW,
    PieceName.GUEST_SERIAL,
    PieceName.XENSTORE_VBD,
    PieceName.XL_DMESG,
    PieceName.XEN_SERIAL,
)
TITLES = {
    PieceName.DBGVIEW: "DbgView (the driver's own prints)",
    PieceName.GUEST_SERIAL: "Guest serial port",
    PieceName.XENSTORE_VBD: "xenstore, vbd nodes",
    PieceName.XL_DMESG: "Hypervisor messages",
    PieceName.XEN_SERIAL: "Xen and dom0 console",
}
# Every state has a sign and a word beside its colour.
SIGNS = {
    Status.PASS: "\N{CHECK MARK}",
    Status.FAIL: "\N{MULTIPLICATION X}",
    Status.LAB: "\N{BLACK UP-POINTING TRIANGLE}",
    Status.UNDECIDED: "?",
}
MEANINGS = {
    Status.PASS: "The driver passed.",
    Status.FAIL: "The driver failed.",
    Status.LAB: "The lab failed: this run says nothing about the driver.",
    Status.UNDECIDED: "Undecided: this run does not say whose fault it was.",
}


@dataclass(frozen=True, slots=True)
class Log:
    """A log shown in the report.

    Attributes:
        title: what it is.
        link: URL of the whole file.
        tail: its end.
        piece: its line in the manifest.
    """

    title: str
    link: str
    tail: text.LogTail
    piece: Piece


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a test left, as the report needs it.

    Attributes:
        link: URL of the folder.
        manifest: what it holds; None when it cannot be read.
        problem: why it cannot be read.
        logs: those to show.
        core: the core dump's line in the manifest, if one was asked for.
        others: pieces that are only linked to.
        missing: pieces that are not there.
        timings: step to seconds.
    """

    link: str
    manifest: Manifest | None = None
    problem: str = ""
    logs: tuple[Log, ...] = ()
    core: Piece | None = None
    others: tuple[Piece, ...] = ()
    missing: tuple[Piece, ...] = ()
    timings: tuple[tuple[str, float], ...] = ()


def render(record: RunRecord, run_folder: Path) -> str:
    """The report as HTML.

    Args:
        record: of the run; one that has not ended yet makes a report that says so.
        run_folder: the run's, for the evidence.
    """
    style = own_text(PACKAGE, STYLE_NAME)
    troubled = [test for test in record.tests if _needs_a_look(test)]
    return (
        environment(PACKAGE)
        .get_template("report.html.j2")
        .render(
            record=record,
            style=verbatim(style),
            style_hash=source_hash(style),
            troubled=[
                (number, test, _evidence(test, run_folder))
                for number, test in enumerate(troubled, start=1)
            ],
            numbers={test.id: number for number, test in enumerate(troubled, start=1)},
            links=[name for name in (RECORD_NAME, JUNIT_NAME) if (run_folder / name).is_file()],
            plots=plots(record.tests),
            longest=max((test.seconds for test in record.tests), default=0.0),
            signs=SIGNS,
            meanings=MEANINGS,
        )
    )


def write_report(record: RunRecord, run_folder: Path) -> Path:
    """Write ``report.html`` into the run's folder.

    Returns:
        Its path.

    Raises:
        UsageError: it cannot be written.
    """
    path = run_folder / REPORT_NAME
    try:
        atomic_write(path, render(record, run_folder).encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from None
    return path


def _needs_a_look(test: TestRecord) -> bool:
    """Whether the test gets a section of its own: whatever failed or has somebody to blame."""
    return test.outcome.bad or test.blame is not None or test.outcome is Outcome.XPASSED


def _inside(path: Path, folder: Path) -> bool:
    """Whether a file is the run's own: a record from elsewhere may name any path."""
    return path.is_file() and path.resolve().is_relative_to(folder.resolve())


def _evidence(test: TestRecord, run_folder: Path) -> Evidence | None:
    if test.evidence is None:
        return None
    link = link_to(test.evidence + "/")
    folder = run_folder / test.evidence
    if not _inside(folder / MANIFEST_NAME, run_folder):
        return Evidence(link=link, problem=f"{test.evidence}/{MANIFEST_NAME} is missing")
    try:
        manifest = load_manifest(folder)
    except UsageError as error:
        return Evidence(link=link, problem=error.message)
    there = {p.name: p for p in manifest.pieces if p.path and _inside(folder / p.path, folder)}
    logs = [
        Log(
            TITLES[name],
            link_to(f"{test.evidence}/{piece.path}"),
            text.tail(folder / piece.path),
            piece,
        )
        for name in INLINED
        if (piece := there.get(name)) is not None and piece.path is not None
    ]
    shown = {*INLINED, PieceName.CORE}
    return Evidence(
        link=link,
        manifest=manifest,
        logs=tuple(logs),
        core=manifest.find(PieceName.CORE),
        others=tuple(piece for name, piece in there.items() if name not in shown),
        missing=tuple(p for p in manifest.pieces if p.name not in there),
        timings=_timings(folder, there.get(PieceName.TIMINGS)),
    )


def _timings(folder: Path, piece: Piece | None) -> tuple[tuple[str, float], ...]:
    """The steps of the test; none if the file is not what the collector writes."""
    if piece is None or piece.path is None:
        return ()
    try:
        found = json.loads((folder / piece.path).read_bytes())
    except (OSError, ValueError):
        return ()
    if not isinstance(found, dict):
        return ()
    return tuple((k, float(v)) for k, v in found.items() if isinstance(v, int | float))
