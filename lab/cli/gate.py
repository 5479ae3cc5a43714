"""``pvlab run`` and ``pvlab gate``: the driver tests, and the verdict on a package."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from lab.cli.options import (
    STDOUT,
    AccelOption,
    ConfigOption,
    DriverOption,
    ErrataOption,
    IntensityOption,
    JsonFile,
    KeepGoing,
    KeywordOption,
    ProfileOption,
    RequiredDriver,
    SeedOption,
    Tests,
    WorkersOption,
    split_tests,
)
from lab.cli.suite import SuiteRequest, SuiteResult, run_suite
from lab.config.load import load_profile
from lab.drivers.package import DriverPackage
from lab.gate.document import gate_document, write_document
from lab.gate.verdict import verdict
from lab.results.record import RunRecord, Status, Verdict
from lab.results.writer import load_run
from lab.suite.intensity import Level

COLOURS = {Status.PASS: "green", Status.FAIL: "red"}


@dataclass(frozen=True, slots=True)
class Judgement:
    """A run of the suite, and what the gate says of it.

    Attributes:
        record: of the run.
        verdict: of the gate.
        result: where the run's files are.
    """

    record: RunRecord
    verdict: Verdict
    result: SuiteResult


def judge(request: SuiteRequest, *, label: str = "") -> Judgement:
    """Run the suite and read its record.

    Args:
        request: what to run.
        label: word that the run's folder gets.

    Raises:
        UsageError, LabBroken, KeyboardInterrupt: as ``run_suite``.
    """
    result = run_suite(request, label=label)
    record = load_run(result.folder)
    # Asked anew rather than read: a run whose process was killed has none in its record.
    return Judgement(record, verdict(record), result)


def check_package(path: Path) -> None:
    """Refuse a package before anything is built or booted for it.

    Raises:
        UsageError: in one line, why.
    """
    with tempfile.TemporaryDirectory(prefix="pvlab-") as folder:
        DriverPackage.load(path, Path(folder))


def show(judgement: Judgement, *, quiet: bool = False) -> None:
    """Print the verdict for people: on stdout, or on stderr beside JSON."""
    console = Console(stderr=quiet, highlight=False, soft_wrap=True)
    record, said = judgement.record, judgement.verdict
    name = record.driver.basename if record.driver else "no driver"
    console.print(f"{said.status.value}", style=COLOURS.get(said.status, "yellow"), end=" ")
    toolstack = record.versions.get("toolstack", "xl")
    through = "" if toolstack == "xl" else f", through {toolstack}"
    console.print(f"{name} on {record.guest_label}{through}", markup=False)
    for reason in said.reasons:
        console.print(f"  {reason}", markup=False)
    console.print(f"  report: {judgement.result.report}", markup=False)


def write_json(judgement: Judgement, file: Path | None) -> None:
    """Write the gate's document where ``--json`` says.

    Raises:
        UsageError: it cannot be written.
    """
    if file is None:
        return
    document = gate_document(judgement.record, judgement.verdict, judgement.result.folder)
    if file == STDOUT:
        sys.stdout.write(document.model_dump_json(indent=2) + "\n")
    else:
        write_document(document, file)


def run(
    tests: Tests = None,
    keyword: KeywordOption = "",
    driver: DriverOption = None,
    profile: ProfileOption = None,
    config: ConfigOption = None,
    accel: AccelOption = None,
    intensity: IntensityOption = Level.STANDARD,
    workers: WorkersOption = 1,
    seed: SeedOption = None,
    errata: ErrataOption = None,
    json: JsonFile = None,
) -> int:
    """Run tests of a driver; all of them when none is named."""
    load_profile(profile, config)
    if driver is not None:
        check_package(driver)
    chosen, extra = split_tests(tests or [])
    judgement = judge(
        SuiteRequest(
            driver=driver,
            profile=profile,
            config=config,
            accel=accel,
            tests=chosen,
            keyword=keyword,
            extra=extra,
            intensity=intensity,
            workers=workers,
            seed=seed,
            errata=errata,
            quiet=json == STDOUT,
        )
    )
    write_json(judgement, json)
    return judgement.verdict.exit_code


def gate(
    driver: RequiredDriver,
    profile: ProfileOption = None,
    config: ConfigOption = None,
    accel: AccelOption = None,
    intensity: IntensityOption = Level.STANDARD,
    workers: WorkersOption = 1,
    errata: ErrataOption = None,
    json: JsonFile = None,
    keep_going: KeepGoing = False,
) -> int:
    """Judge a driver package: exit 0 passed, 1 the driver failed, 3 the lab could not tell."""
    load_profile(profile, config)
    check_package(driver)
    judgement = judge(
        SuiteRequest(
            driver=driver,
            profile=profile,
            config=config,
            accel=accel,
            stop_at_first=not keep_going,
            intensity=intensity,
            workers=workers,
            errata=errata,
            quiet=json == STDOUT,
        )
    )
    show(judgement, quiet=json == STDOUT)
    write_json(judgement, json)
    return judgement.verdict.exit_code
