"""Keeping a run's record on disk while the run goes on."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lab.core.atomic import atomic_write
from lab.core.errors import LabBroken, UsageError
from lab.drivers.package import KEPT, DriverPackage
from lab.results.folder import point_latest
from lab.results.record import RECORD_NAME, SCHEMA_VERSION, EndedHow, RunRecord, TestRecord, Verdict


class RunWriter:
    """Writes ``run.json`` after every change, whole each time.

    A kill at any moment leaves the record as it was after the last test, with ``ended_how``
    still ``running``.

    Args:
        folder: the run's, as ``create_run_folder`` made it; its name is the run's id.
        record: what is known at the start.

    Raises:
        UsageError: ``latest`` cannot be set.
        LabBroken: the record cannot be written.
    """

    def __init__(self, folder: Path, record: RunRecord) -> None:
        self.folder = folder
        self._record = record
        self._save()
        point_latest(folder)

    @property
    def record(self) -> RunRecord:
        """The record as it is on disk."""
        return self._record

    def update(self, **fields: Any) -> RunRecord:
        """Set fields that became known, ``accelerator`` or ``images`` for example.

        Args:
            **fields: fields of ``RunRecord``.

        Raises:
            LabBroken: the record cannot be written.
            ValidationError: no such field, or not a value for it.
        """
        shallow = {name: getattr(self._record, name) for name in RunRecord.model_fields}
        self._record = RunRecord.model_validate(shallow | fields)
        self._save()
        return self._record

    def put(self, test: TestRecord) -> RunRecord:
        """Add a test, or replace the one of the same id.

        Replacing lets a test be recorded after its call already, and once more should its
        teardown fail.

        Raises:
            LabBroken: the record cannot be written.
        """
        tests = list(self._record.tests)
        place = next((i for i, old in enumerate(tests) if old.id == test.id), len(tests))
        tests[place : place + 1] = [test]
        return self.update(tests=tuple(tests))

    def keep(self, package: DriverPackage) -> None:
        """Keep the driver under test in the run's folder, so that the folder says all of a crash.

        Raises:
            LabBroken: it cannot be written.
        """
        folder = self.folder / KEPT
        try:
            package.keep(folder)
        except OSError as error:
            raise LabBroken(f"{folder}: cannot be written: {error.strerror}") from None

    def finish(
        self,
        verdict: Verdict,
        ended_how: EndedHow = EndedHow.FINISHED,
        *,
        now: datetime | None = None,
    ) -> RunRecord:
        """End the run.

        Args:
            verdict: what the gate says.
            ended_how: ``INTERRUPTED`` when not all tests had their turn.
            now: when it ended.

        Raises:
            LabBroken: the record cannot be written.
        """
        return self.update(verdict=verdict, ended_how=ended_how, ended=now or datetime.now(UTC))

    def _save(self) -> None:
        path = self.folder / RECORD_NAME
        try:
            atomic_write(path, encode(self._record))
        except OSError as error:
            raise LabBroken(f"{path}: cannot be written: {error.strerror}") from None


def encode(record: RunRecord) -> bytes:
    """The record as ``run.json`` has it: UTF-8, indented, one newline at the end."""
    return record.model_dump_json(indent=2).encode() + b"\n"


def load_run(path: Path) -> RunRecord:
    """Read a run's record.

    Args:
        path: ``run.json``, or the run's folder.

    Raises:
        UsageError: there is none, it is damaged, or another version of the lab wrote it.
    """
    file = path / RECORD_NAME if path.is_dir() else path
    try:
        data = file.read_bytes()
    except OSError as error:
        raise UsageError(
            f"{file}: cannot be read: {error.strerror}", hint="name a run's folder"
        ) from None
    try:
        return RunRecord.model_validate_json(data)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        if where == "schema_version":
            raise UsageError(
                f"{file}: its schema_version is not {SCHEMA_VERSION}",
                hint="another version of pvlab wrote it",
            ) from None
        raise UsageError(
            " ".join(f"{file}: damaged: {where or 'not a record'}: {problem['msg']}".split())
        ) from None
