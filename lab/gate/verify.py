"""Is a gate's document still what the gate wrote, and are the files that it names?

Two things are checked beside hashes: the verdict is made once more from the records of the runs,
by the code that made it, so a document says what its runs say; and the pieces of evidence are
held against the lists beside them, which the document vouches for. Whoever can write both the
document and the results can forge both: keep the document's own hash where they cannot.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.core.errors import UsageError
from lab.evidence.manifest import MANIFEST_NAME, load_manifest
from lab.gate.document import Artifact, GateDocument, digest_of, gated_findings
from lab.gate.policy import Policy
from lab.gate.session import Session
from lab.gate.verdict import verdict
from lab.results.record import RECORD_NAME, RunRecord, Verdict
from lab.results.writer import load_run


class State(enum.StrEnum):
    """What came of a check."""

    OK = "ok"
    WRONG = "wrong"
    UNCHECKED = "not checked"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        what: it was.
        state: what came of it.
        said: why, in one line; empty when it is as it should be.
    """

    what: str
    state: State
    said: str = ""


ImageProblems = Callable[[str, str], list[str] | None]
"""What is wrong with an image, given its name and key; None if it is not here."""


@dataclass(frozen=True, slots=True)
class Here:
    """What a document is held against.

    Attributes:
        results: folder with the runs' folders.
        driver: identity of the driver package; None if it was not given.
        baseline: identity of the baseline.
        policy: None if it was not given.
        suite: SHA-256 of the suite's files; None if they are not here.
        image: gives what is wrong with an image.
        seal: what the document's hash was said to be; None if it was not given.
    """

    results: Path
    driver: str | None = None
    baseline: str | None = None
    policy: Policy | None = None
    suite: str | None = None
    image: ImageProblems = lambda name, key: None
    seal: str | None = None


def verify(document: GateDocument, here: Here) -> list[Check]:
    """Check a document.

    Args:
        document: as it was read.
        here: what it is held against.

    Returns:
        Every check, in the order in which they were made.
    """
    return [
        _seal(document, here),
        *_files(document, here.results),
        *_evidence(document, here.results),
        _verdict(document, here.results),
        *_subjects(document, here),
        *_images(document, here),
    ]


def folder_of(document: GateDocument, results: Path) -> Path:
    """The folder that a document's files are relative to."""
    return results if document.comparison is not None else results / document.run_id


def _seal(document: GateDocument, here: Here) -> Check:
    what = "the document"
    if document.sha256 != document.seal():
        return Check(what, State.WRONG, "its content is not what its sha256 says")
    if here.seal is not None and here.seal != document.sha256:
        return Check(what, State.WRONG, f"its sha256 is {document.sha256}, not the one given")
    return Check(what, State.OK)


def _files(document: GateDocument, results: Path) -> Iterator[Check]:
    folder = folder_of(document, results)
    if not document.artifacts:
        yield Check("files", State.UNCHECKED, "the document names none")
    for name, artifact in document.artifacts.items():
        yield _file(name, folder / name, artifact, inside=folder)


def _file(name: str, path: Path, artifact: Artifact, *, inside: Path) -> Check:
    if not path.resolve().is_relative_to(inside.resolve()):
        return Check(name, State.WRONG, "it is not below the results folder")
    try:
        found = digest_of(path)
    except UsageError as error:
        return Check(name, State.WRONG, error.message)
    if found != artifact:
        return Check(name, State.WRONG, "it is not the file that the gate saw")
    return Check(name, State.OK)


def _evidence(document: GateDocument, results: Path) -> Iterator[Check]:
    folder = folder_of(document, results)
    for name in document.artifacts:
        if not name.endswith(f"/{MANIFEST_NAME}"):
            continue
        here = (folder / name).parent
        if not here.resolve().is_relative_to(folder.resolve()):
            continue
        try:
            manifest = load_manifest(here)
        except UsageError as error:
            yield Check(f"evidence beside {name}", State.WRONG, error.message)
            continue
        for piece in manifest.pieces:
            if piece.path is None or piece.sha256 is None:
                continue
            path = here / piece.path
            expected = Artifact(bytes=piece.bytes, sha256=piece.sha256)
            yield _file(
                f"{name.removesuffix(MANIFEST_NAME)}{piece.path}", path, expected, inside=here
            )


def _verdict(document: GateDocument, results: Path) -> Check:
    what = "the verdict"
    try:
        wrong = _compared(document, results) if document.comparison else _plain(document, results)
    except (UsageError, KeyError) as error:
        return Check(what, State.WRONG, f"it cannot be made from the runs: {error}")
    return Check(what, State.WRONG if wrong else State.OK, wrong)


def _plain(document: GateDocument, results: Path) -> str:
    record = load_run(folder_of(document, results))
    told = {(t.id, t.outcome, t.blame) for t in document.tests}
    if told != {(t.id, t.outcome, t.blame) for t in record.tests}:
        return "the tests are not those of the run"
    return _differs(document.verdict, verdict(record))


def _compared(document: GateDocument, results: Path) -> str:
    session = replay(document, results)
    assert document.comparison is not None  # noqa: S101 - replay asked already
    if gated_findings(session) != document.comparison.findings:
        return "the findings are not what the runs show"
    return _differs(document.verdict, session.verdict(document.comparison.troubles))


def _differs(told: Verdict, made: Verdict) -> str:
    if told.status is not made.status or told.exit_code != made.exit_code:
        return f"it is {told.status.value}, and the runs say {made.status.value}"
    return "" if told == made else "its reasons are not those of the runs"


def replay(document: GateDocument, results: Path) -> Session:
    """A gate that compares drivers, once more, from the records of its runs.

    Args:
        document: of the gate.
        results: folder with the runs' folders.

    Raises:
        UsageError: the document is of no such gate, or a record cannot be read.
        KeyError: a run is of a test that the gate does not have.
    """
    comparison = document.comparison
    if comparison is None or document.driver is None:
        raise UsageError("the document is of a gate that compared nothing")
    session = Session(
        comparison.tests,
        comparison.policy,
        driver=document.driver,
        baseline=comparison.baseline,
    )
    for run in comparison.runs:
        # Whether a run left a record is the document's to say: one that has vanished is missed.
        left = f"{run.run_id}/{RECORD_NAME}" in document.artifacts
        record: RunRecord | None = load_run(results / run.run_id) if left else None
        session.take(run, record)
    return session


def _subjects(document: GateDocument, here: Here) -> Iterator[Check]:
    comparison = document.comparison
    driver, baseline = document.driver, comparison.baseline if comparison else None
    if driver is not None:
        yield _same("the driver", driver.sha256, here.driver, "not given: --driver")
    if baseline is not None:
        yield _same("the baseline", baseline.sha256, here.baseline, "not given: --baseline")
    if comparison is not None:
        if comparison.policy.sha256 != comparison.policy_sha256:
            yield Check("the policy", State.WRONG, "its content is not what its sha256 says")
        given = here.policy.sha256 if here.policy else None
        yield _same("the policy", comparison.policy_sha256, given, "not given: --policy")
    if document.suite_sha256 is not None:
        yield _same("the suite", document.suite_sha256, here.suite, "its files are not here")


def _same(what: str, told: str, found: str | None, why_not: str) -> Check:
    if found is None:
        return Check(what, State.UNCHECKED, why_not)
    if found != told:
        return Check(what, State.WRONG, f"another one was gated: {told[:16]}, not {found[:16]}")
    return Check(what, State.OK)


def _images(document: GateDocument, here: Here) -> Iterator[Check]:
    for name, image in document.images.items():
        problems = here.image(name, image.key)
        what = f"image {name}"
        if problems is None:
            yield Check(what, State.UNCHECKED, "that build of it is not here")
        elif problems:
            yield Check(what, State.WRONG, problems[0])
        else:
            yield Check(what, State.OK)
