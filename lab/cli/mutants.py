"""``pvlab mutants``: whether the suite finds the defects that it is known to be given."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lab.cli.gate import judge
from lab.cli.image import build_images
from lab.cli.options import (
    AccelOption,
    ConfigOption,
    IntensityOption,
    ProfileOption,
    WorkersOption,
)
from lab.cli.suite import SuiteRequest, driver_suite
from lab.cli.tests import collect
from lab.config.load import load_profile
from lab.core.errors import LabBroken
from lab.core.paths import results_dir
from lab.drivers.package import DriverPackage
from lab.images.store import Store
from lab.mutants.campaign import run_campaign
from lab.mutants.catalogue import Mutant, choose, load_mutants
from lab.mutants.outcome import (
    Fate,
    MutantOutcome,
    MutantsDocument,
    judge_mutant,
    read_document,
)
from lab.plugin.keys import STANDIN_DRIVERS
from lab.suite.digest import suite_digest
from lab.suite.intensity import Level

DOCUMENT = "mutants.json"
"""In the results folder: what is known so far, for ``--resume`` and for programs."""

COLOURS = {Fate.KILLED: "green", Fate.SURVIVED: "red"}


def mutants(
    names: Annotated[list[str] | None, typer.Argument(help="Mutants; all if left out.")] = None,
    json: Annotated[bool, typer.Option("--json", help="The result as JSON.")] = False,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with an earlier run: keep what it has settled."),
    ] = False,
    profile: ProfileOption = None,
    config: ConfigOption = None,
    accel: AccelOption = None,
    intensity: IntensityOption = Level.STANDARD,
    workers: WorkersOption = 1,
) -> int:
    """Run the suite against drivers with one defect each: exit 0 if all are found."""
    known = load_mutants()
    chosen = choose(known, names or [])
    label = load_profile(profile, config).guest_label
    tests = collect([], [], accel=accel, intensity=intensity).tests
    build_images([STANDIN_DRIVERS])
    folder = Store().ensure(STANDIN_DRIVERS).path / "mutants"

    def attempt(mutant: Mutant, order: Sequence[str]) -> MutantOutcome:
        request = SuiteRequest(
            driver=folder / mutant.name,
            profile=profile,
            config=config,
            accel=accel,
            tests=[located(test) for test in order],
            as_ordered=True,
            workers=workers,
            stop_at_first=True,
            quiet=True,
            intensity=intensity,
            # Who kills a mutant is asked, not what it died of.
            core=False,
        )
        began = time.monotonic()
        judgement = judge(request, label=mutant.name)
        return judge_mutant(
            mutant,
            judgement.record,
            judgement.verdict,
            seconds=time.monotonic() - began,
            run=judgement.result.folder.name,
        )

    file = results_dir() / DOCUMENT
    document = run_campaign(
        chosen,
        tests,
        attempt,
        MutantsDocument(
            suite=suite_digest(driver_suite()),
            intensity=intensity,
            guest_label=label,
            accelerator=accel or "",
        ),
        file,
        earlier=read_document(file) if resume else None,
        packages=[(mutant.name, digest(folder / mutant.name)) for mutant in known],
        say=lambda line: print(f"pvlab: {line}", file=sys.stderr, flush=True),
        clock=time.monotonic,
    )
    if json:
        sys.stdout.write(document.model_dump_json(indent=2) + "\n")
    else:
        show(document, file)
    return int(document.exit_code)


def digest(package: Path) -> str:
    """The identity of a mutant's package.

    Raises:
        LabBroken: the image has no package of that name.
        UsageError: the package cannot be used.
    """
    if not package.is_dir():
        raise LabBroken(f"the image {STANDIN_DRIVERS} holds no mutant {package.name}")
    with tempfile.TemporaryDirectory(prefix="pvlab-") as folder:
        return DriverPackage.load(package, Path(folder)).identity


def located(test: str) -> str:
    """A node id that pytest finds from any folder: it names files from the folder of its
    settings, which is the suite's or one above it."""
    file, mark, rest = test.partition("::")
    suite = driver_suite()
    for folder in (suite, *suite.parents):
        if (folder / file).is_file():
            return f"{folder / file}{mark}{rest}"
    return test


def short(test: str) -> str:
    """A node id with the file's name alone; the folder is the same for all."""
    file, mark, rest = test.partition("::")
    return f"{file.rpartition('/')[2]}{mark}{rest}"


def show(document: MutantsDocument, file: Path) -> None:
    """Print the table for people."""
    console = Console(highlight=False, soft_wrap=True)
    table = Table("mutant", "fate", "killed by", "after", "blamed", box=None, pad_edge=False)
    for mutant in document.mutants:
        table.add_row(
            mutant.name,
            f"[{COLOURS.get(mutant.fate, 'yellow')}]{mutant.fate.value}[/]",
            escape(short(mutant.killed_by or "-")),
            f"{mutant.seconds:.0f} s",
            mutant.blamed.value if mutant.blamed else "-",
        )
    console.print(table)
    killed = sum(mutant.fate is Fate.KILLED for mutant in document.mutants)
    console.print(
        f"{killed} of {len(document.mutants)} killed on {document.guest_label}", markup=False
    )
    console.print(f"  details: {file}", markup=False)
