"""``pvlab run`` and ``pvlab gate``: the driver tests, and the verdict on a package."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
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
    SeedOption,
    Tests,
    WorkersOption,
    split_tests,
)
from lab.cli.suite import SuiteRequest, SuiteResult, driver_suite, run_suite
from lab.config.load import load_profile
from lab.core.errors import ExitCode, UsageError
from lab.drivers.package import DriverPackage
from lab.gate.document import GateDocument, gate_document, write_document
from lab.gate.verdict import verdict
from lab.results.record import RunRecord, Status, Verdict
from lab.results.writer import load_run
from lab.suite.digest import suite_digest
from lab.suite.intensity import Level

COLOURS = {Status.PASS: "green", Status.FAIL: "red"}


@dataclass(frozen=True, slots=True)
class Judgement:
    """A run of the suite, and what the gate says of it.

    Attributes:
        record: of the run.
        verdict: of the gate.
        result: where the run's files are.
        suite: SHA-256 of the suite that was run; None for chosen tests.
    """

    record: RunRecord
    verdict: Verdict
    result: SuiteResult
    suite: str | None = None

    @property
    def document(self) -> GateDocument:
        """What the gate says, for programs."""
        return gate_document(self.record, self.verdict, self.result.folder, suite=self.suite)


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
    suite = None if request.tests else suite_digest(driver_suite())
    return Judgement(record, verdict(record), result, suite)


def check_package(path: Path) -> None:
    """Refuse a package before anything is built or booted for it.

    Raises:
        UsageError: in one line, why.
    """
    with tempfile.TemporaryDirectory(prefix="pvlab-") as folder:
        DriverPackage.load(path, Path(folder))


def show(judgement: Judgement, *, quiet: bool = False) -> None:
    """Print the verdict for people: on stdout, or on stderr beside JSON."""
    _show_verdict(judgement.document, quiet=quiet)
    console = Console(stderr=quiet, highlight=False, soft_wrap=True)
    console.print(f"  report: {judgement.result.report}", markup=False)


def _show_verdict(document: GateDocument, *, quiet: bool) -> None:
    console = Console(stderr=quiet, highlight=False, soft_wrap=True)
    said = document.verdict
    name = document.driver.basename if document.driver else "no driver"
    if document.comparison is not None and document.comparison.baseline is not None:
        name += f" against {document.comparison.baseline.basename}"
    console.print(f"{said.status.value}", style=COLOURS.get(said.status, "yellow"), end=" ")
    toolstack = document.versions.get("toolstack", "xl")
    through = "" if toolstack == "xl" else f", through {toolstack}"
    console.print(f"{name} on {document.guest_label}{through}", markup=False)
    for reason in said.reasons:
        console.print(f"  {reason}", markup=False)


def write_json(judgement: Judgement, file: Path | None) -> None:
    """Write the gate's document where ``--json`` says.

    Raises:
        UsageError: it cannot be written.
    """
    if file is not None:
        _write_document(judgement.document, file)


def _write_document(document: GateDocument, file: Path | None) -> None:
    if file is None:
        return
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


app = typer.Typer(add_completion=False)


@app.callback(invoke_without_command=True)
def gate(
    context: typer.Context,
    driver: DriverOption = None,
    baseline: Annotated[
        Path | None,
        typer.Option("--baseline", help="Driver package to compare with: run on both by turns."),
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option("--policy", help="A gate.toml, or a policy of the lab: standard or release."),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option("--resume", metavar="FOLDER", help="Go on with a gate that was interrupted."),
    ] = None,
    profile: ProfileOption = None,
    config: ConfigOption = None,
    accel: AccelOption = None,
    intensity: Annotated[
        Level | None,
        typer.Option("--intensity", envvar="PVLAB_INTENSITY", help="How much the tests do."),
    ] = None,
    workers: WorkersOption = 1,
    errata: ErrataOption = None,
    json: JsonFile = None,
    keep_going: KeepGoing = False,
) -> int:
    """Judge a driver package: exit 0 passed, 1 the driver failed, 3 the lab could not tell.

    With a baseline, or a policy, tests are run until it is known what failures mean.
    """
    if context.invoked_subcommand is not None:
        return int(ExitCode.PASS)
    if driver is None:
        raise UsageError("Missing option '--driver'", hint="pvlab gate --help shows what there is")
    load_profile(profile, config)
    request = SuiteRequest(
        driver=driver,
        profile=profile,
        config=config,
        accel=accel,
        workers=workers,
        errata=errata,
        quiet=json == STDOUT,
    )
    if baseline is None and policy is None and resume is None:
        check_package(driver)
        asked = replace(
            request, intensity=intensity or Level.STANDARD, stop_at_first=not keep_going
        )
        judgement = judge(asked)
        show(judgement, quiet=request.quiet)
        write_json(judgement, json)
        return judgement.verdict.exit_code
    # Imported late: `pvlab run` and a gate of one run do without.
    from lab.cli.comparing import compare
    from lab.gate.policy import load_policy

    chosen = load_policy(policy or "standard").adjusted(
        intensity=intensity, stop_early=False if keep_going else None
    )
    compared = compare(
        replace(request, baseline=baseline), chosen, resume=resume, say=_say_on_stderr
    )
    document = compared.document
    _show_verdict(document, quiet=request.quiet)
    console = Console(stderr=request.quiet, highlight=False, soft_wrap=True)
    console.print(f"  page: {compared.page}", markup=False)
    console.print(f"  signed off: {compared.file}, SHA-256 {document.sha256}", markup=False)
    _write_document(document, json)
    return document.verdict.exit_code


@app.command("verify")
def verify_document(
    document: Annotated[Path, typer.Argument(metavar="DOC", help="A gate's JSON document.")],
    results: Annotated[
        Path | None, typer.Option("--results", help="Folder with the runs; found if left out.")
    ] = None,
    driver: Annotated[
        Path | None, typer.Option("--driver", help="The driver package that was gated.")
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option("--baseline", help="The package that it was compared with.")
    ] = None,
    policy: Annotated[
        str | None, typer.Option("--policy", help="The policy: a gate.toml, or a name.")
    ] = None,
    suite: Annotated[
        list[Path] | None,
        typer.Option("--suite", help="Folder of the suite; this checkout's if left out."),
    ] = None,
    sha256: Annotated[
        str | None, typer.Option("--sha256", help="The document's hash, as it was written down.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="The checks as JSON.")] = False,
) -> int:
    """Check that a gate's document and all that it names are as the gate left them.

    Exit 0 all is, 1 something is not, 2 there is no such document or no results to hold it
    against.
    """
    from lab.cli.verifying import verify_gate

    return verify_gate(
        document,
        results=results,
        driver=driver,
        baseline=baseline,
        policy=policy,
        suite=suite or [],
        sha256=sha256,
        as_json=json,
    )


def _say_on_stderr(line: str) -> None:
    print(f"pvlab: {line}", file=sys.stderr, flush=True)
