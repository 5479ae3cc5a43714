"""Small sites for the tests."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from lab.evidence.manifest import MANIFEST_NAME, Manifest, Piece
from lab.evidence.operations import CLOCKS_NAME, OPERATIONS_NAME, Clocks, Operations
from lab.site.model import Build, Key, Mark, Night, Result, Run, Site

KEY = Key("tests/test_a.py::test_a", "here")
START = datetime(2026, 11, 1, 22, 0, tzinfo=UTC)


def result(mark: Mark = Mark.PASSED, key: Key = KEY, run: str = "run-0", **more: Any) -> Result:
    return Result(key=key, run=run, mark=mark, seconds=more.pop("seconds", 1.5), **more)


def run(name: str, results: Sequence[Result], **more: Any) -> Run:
    fields: dict[str, Any] = {
        "started": START,
        "seconds": 60.0,
        "ended_how": "finished",
        "profile": "standin",
        "guest": "stand-in",
        "driver": Build("virtdemo", "1.0", "ab" * 32),
        "status": "PASS",
    }
    return Run(id=name, results=tuple(results), **(fields | more))


def site(*marks: Mark | None, builds: Sequence[str] = (), **more: Any) -> Site:
    """A site of one test: a night for each mark, the oldest first; none where it did not run."""
    nights = []
    for number, mark in enumerate(marks):
        name = f"run-{number}"
        results = [] if mark is None else [result(mark, run=name)]
        driver = Build("virtdemo", "1.0", builds[number] if builds else "ab" * 32)
        started = START + timedelta(days=number)
        nights.append(
            Night(f"{started:%Y-%m-%d}", (run(name, results, started=started, driver=driver),))
        )
    return Site(nights=tuple(nights), **more)


def evidence(
    folder: Path,
    files: dict[str, str | bytes],
    operations: Operations | None = None,
    clocks: Clocks | None = None,
) -> Path:
    """An evidence folder: content by name of piece, in files as the collector calls them."""
    from lab.evidence.collector import FILES

    folder.mkdir(parents=True, exist_ok=True)
    pieces = []
    for name, content in files.items():
        file = dict(FILES).get(name, name)  # type: ignore[call-overload]
        data = content.encode() if isinstance(content, str) else content
        (folder / file).write_bytes(data)
        pieces.append(Piece(name=name, path=file, bytes=len(data), seconds=0.5))
    if operations is not None:
        (folder / OPERATIONS_NAME).write_text(operations.model_dump_json())
    if clocks is not None:
        (folder / CLOCKS_NAME).write_text(clocks.model_dump_json())
    manifest = Manifest(test_id=KEY.test, complete=True, pieces=tuple(pieces))
    (folder / MANIFEST_NAME).write_text(manifest.model_dump_json())
    return folder
