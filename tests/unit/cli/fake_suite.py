"""Runs of the suite without a process: records of what a table says that tests do."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from lab.cli.suite import SuiteRequest, SuiteResult
from lab.core.errors import Blame, LabBroken
from lab.drivers.package import DriverPackage
from lab.results import facts
from lab.results.record import (
    Accelerator,
    EndedHow,
    Host,
    Image,
    Outcome,
    RunRecord,
    TestRecord,
    Turn,
    Verdict,
)
from lab.results.report import write_report
from lab.results.writer import RunWriter
from lab.suite.catalogue import Catalogue, Entry
from lab.suite.intensity import Level

Behaviour = Callable[[str, str, int], dict[str, Any]]
"""Gives the fields of a record, from a test's name, the package's and the number of its run."""


def passes(test: str, package: str, number: int) -> dict[str, Any]:
    """A driver without a fault."""
    return {}


def failed(message: str = "no disk") -> dict[str, Any]:
    """The fields of a failure of the driver."""
    return {"outcome": Outcome.FAILED, "blame": Blame.DRIVER, "message": message}


def lost(message: str = "QEMU died") -> dict[str, Any]:
    """The fields of a failure of the lab."""
    return {"outcome": Outcome.ERROR, "blame": Blame.LAB, "message": message}


@dataclass
class FakeSuite:
    """Takes the place of ``run_suite`` and ``collect``.

    Attributes:
        tests: their names.
        behaviour: what they do.
        requests: every run that was asked for.
    """

    tests: tuple[str, ...] = ("test_attach", "test_speed")
    behaviour: Behaviour = passes
    requests: list[SuiteRequest] = field(default_factory=list)
    made: dict[tuple[str, str], int] = field(default_factory=dict)
    before: Callable[[int], None] = lambda number: None

    def collect(
        self, chosen: list[str], extra: list[str], *, accel: str | None, intensity: Level
    ) -> Catalogue:
        entries = tuple(
            Entry(
                id=f"test_it.py::{test}",
                area="a",
                claim="",
                source="",
                expected_seconds=10.0 + number,
                markers=(),
            )
            for number, test in enumerate(self.tests)
        )
        return Catalogue(
            intensity=intensity, accelerator="kvm", expected_seconds=10.0, tests=entries
        )

    def run_suite(
        self, request: SuiteRequest, *, label: str = "", run_id: str | None = None
    ) -> SuiteResult:
        self.requests.append(request)
        self.before(len(self.requests))
        folder = request.results / (run_id or f"run-{len(self.requests)}")
        folder.mkdir(parents=True)
        packages = {
            side: DriverPackage.load(path, folder / "packages" / side) if path else None
            for side, path in (("new", request.driver), ("baseline", request.baseline))
        }
        writer = RunWriter(
            folder,
            RunRecord(
                run_id=folder.name,
                started="2026-01-02T03:04:05Z",
                profile=request.profile or "standin",
                guest_label="stand-in",
                host=Host(kernel="k", cpus=2, memory_mib=1, os="o"),
                accelerator=Accelerator(name="kvm", emulator="q", emulator_version="7", why="w"),
                images={"guest": Image(key="ab" * 32)},
                driver=facts.driver(packages["new"]) if packages["new"] else None,
                baseline=facts.driver(packages["baseline"]) if packages["baseline"] else None,
                intensity=request.intensity.value,
            ),
        )
        for turn in self._turns(request):
            package = request.driver if turn.driver == "new" else request.baseline
            assert package is not None
            name = turn.test.rpartition("::")[2]
            number = self.made[name, turn.driver] = self.made.get((name, turn.driver), 0) + 1
            fields = {"outcome": Outcome.PASSED, "seconds": 1.0}
            fields |= self.behaviour(name, package.name, number)
            if request.plan is not None:
                fields |= {"id": f"{turn.test}[{turn.driver}{turn.repeat}]", "turn": turn}
            else:
                fields |= {"id": turn.test}
            writer.put(TestRecord(**fields))
        said = Verdict(status="PASS", exit_code=0, reasons=("a child's own",))
        write_report(writer.finish(said, EndedHow.FINISHED), folder)
        return SuiteResult(0, folder)

    def _turns(self, request: SuiteRequest) -> list[Turn]:
        if request.plan is not None:
            return [Turn(**turn) for turn in json.loads(request.plan.read_text())]
        chosen = request.tests or [f"test_it.py::{test}" for test in self.tests]
        return [Turn(test=test, driver="new", repeat=1) for test in chosen]


def no_record(*args: Any, **kwargs: Any) -> SuiteResult:
    """A session that died at once."""
    raise LabBroken("the tests left no record in the results folder (pytest exited 3)")
