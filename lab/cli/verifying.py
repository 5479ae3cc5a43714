"""``pvlab gate verify``: a gate's document held against what is here."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from lab.cli.comparing import driver_of, suite_identity
from lab.core.errors import ExitCode, LabBroken, UsageError
from lab.core.paths import results_dir
from lab.gate.document import GateDocument, load_document
from lab.gate.policy import load_policy
from lab.gate.verify import Check, Here, State, verify
from lab.images.store import Store
from lab.suite.digest import suite_digest

COLOURS = {State.OK: "green", State.WRONG: "red", State.UNCHECKED: "yellow"}


def verify_gate(
    file: Path,
    *,
    results: Path | None,
    driver: Path | None,
    baseline: Path | None,
    policy: str | None,
    suite: Sequence[Path],
    sha256: str | None,
    as_json: bool,
) -> int:
    """Check a document and print what came of it.

    Raises:
        UsageError: the document, or what it is to be held against, cannot be read.
    """
    document = load_document(file)
    here = Here(
        results=results or _results(document, file),
        driver=driver_of(driver).sha256 if driver else None,
        baseline=driver_of(baseline).sha256 if baseline else None,
        policy=load_policy(policy) if policy else None,
        suite=_suite(document, suite),
        image=_image_problems,
        seal=sha256,
    )
    checks = verify(document, here)
    if as_json:
        found = {
            "schema_version": 1,
            "document": document.sha256,
            "verdict": document.verdict.model_dump(mode="json"),
            "checks": [asdict(check) for check in checks],
        }
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    else:
        show(document, checks)
    wrong = any(check.state is State.WRONG for check in checks)
    return int(ExitCode.DRIVER_FAILED if wrong else ExitCode.PASS)


def show(document: GateDocument, checks: Sequence[Check]) -> None:
    """Print the checks for people: what is wrong first, what is in order only counted."""
    console = Console(highlight=False, soft_wrap=True)
    counts = Counter(check.state for check in checks)
    for state in (State.WRONG, State.UNCHECKED):
        for check in checks:
            if check.state is state:
                console.print(state.value, style=COLOURS[state], end=" ")
                console.print(f"{check.what}: {check.said}", markup=False)
    good = "as the gate left it" if not counts[State.WRONG] else "NOT as the gate left it"
    console.print(
        f"{document.run_id}: {document.verdict.status.value}, {good}: {counts[State.OK]} checks "
        f"passed, {counts[State.WRONG]} failed, {counts[State.UNCHECKED]} could not be made",
        markup=False,
    )


def _results(document: GateDocument, file: Path) -> Path:
    """Where the runs' folders are: around the document, or where the lab writes them.

    Raises:
        UsageError: they are in none of these.
    """
    wanted = {name.partition("/")[0] for name in document.artifacts}
    if document.comparison is None:
        wanted = {document.run_id}
    for folder in (file.resolve().parent, file.resolve().parent.parent, results_dir()):
        if not wanted or any((folder / name).is_dir() for name in wanted):
            return folder
    raise UsageError(
        f"{file}: the runs that it is about are not here", hint="name their folder: --results"
    )


def _suite(document: GateDocument, folders: Sequence[Path]) -> str | None:
    if folders:
        return suite_digest(*sorted(folder.resolve() for folder in folders))
    comparison = document.comparison
    try:
        return suite_identity(comparison.policy.suite.tests if comparison else ())
    except UsageError:
        return None


def _image_problems(name: str, key: str) -> list[str] | None:
    store = Store()
    try:
        return store.verify(name) if store.key(name) == key else None
    except UsageError:
        return None
    except LabBroken as error:
        return [error.message]
