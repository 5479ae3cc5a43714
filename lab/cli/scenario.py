"""``pvlab scenario``: scenarios shown, run and recorded.

Exit codes of ``run``: 0 every attempt passed, 1 the driver failed in one, 2 bad input, 3 the lab
failed or nobody can be blamed. Of ``record``: 0 recorded, whether the tests passed or not, 2 bad
input, 3 nothing was recorded.
"""

from __future__ import annotations

import inspect
import itertools
import json as json_module
import re
import shutil
import sys
import tempfile
import textwrap
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from rich.console import Console

from lab.cli.errors import say
from lab.cli.options import (
    STDOUT,
    AccelOption,
    ConfigOption,
    DriverOption,
    IntensityOption,
    JsonFile,
    ProfileOption,
    SeedOption,
    split_tests,
)
from lab.config.load import load_profile
from lab.core.errors import ExitCode, LabBroken, UsageError
from lab.crash.facts import to_json
from lab.scenario.bundle import SCENARIO, Loaded, load_any
from lab.scenario.model import OPERATIONS, weight, where
from lab.scenario.outcome import End, Outcome
from lab.scenario.rate import rate
from lab.scenario.sense import unexplained
from lab.scenario.text import dumps, outline, plain
from lab.suite.intensity import Level
from lab.suite.sequential import Tally

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="What is done to a guest and its disks, as a list: show it, run it, record it.",
)

ScenarioFile = Annotated[
    Path,
    typer.Argument(metavar="SCENARIO", help="A scenario's YAML, a bundle, or a folder with one."),
]

_WARNED = 3

COLOURS = {End.PASSED: "green", End.LAB: "yellow"}


@app.command()
def show(
    file: ScenarioFile,
    as_json: Annotated[bool, typer.Option("--json", help="JSON for programs.")] = False,
    as_yaml: Annotated[bool, typer.Option("--yaml", help="The scenario's YAML.")] = False,
) -> None:
    """Show what a scenario does, after checking it."""
    with tempfile.TemporaryDirectory(prefix="pvlab-") as folder:
        loaded = load_any(file, Path(folder))
    scenario = loaded.scenario
    if as_json:
        _print_json(
            {
                "schema_version": 1,
                "file": loaded.source,
                "seed": scenario.seed,
                "complete": scenario.complete,
                "about": scenario.about.model_dump(mode="json"),
                "steps": [plain(step) for step in scenario.steps],
                "facts": [to_json(fact) for fact in loaded.facts],
            }
        )
        return
    if as_yaml:
        sys.stdout.write(dumps(scenario))
        return
    console = Console(highlight=False, soft_wrap=True)
    about = scenario.about
    for name, value in about.model_dump(mode="json").items():
        if value:
            console.print(f"{name.replace('_', ' ')}: {value}", style="dim", markup=False)
    console.print(f"seed: {scenario.seed}", style="dim", markup=False)
    for line in outline(scenario):
        console.print(f"  {line}", markup=False)
    total, _ = weight(scenario.steps)
    console.print(f"{total} steps" + ("" if scenario.complete else "; not complete"), markup=False)


@app.command()
def steps() -> None:
    """List the steps that a scenario can have, with their values."""
    console = Console(highlight=False, soft_wrap=True)
    for name, kind in OPERATIONS.items():
        text, _, attributes = inspect.cleandoc(kind.__doc__ or "").partition("\n\nAttributes:\n")
        console.print(name, style="bold", markup=False)
        summary = " ".join(text.split()).replace("``", "`")
        console.print(textwrap.indent(summary, "    "), markup=False)
        for field, told in kind.model_fields.items():
            if field in ("op", "may_fail"):
                continue
            default = "" if told.is_required() else f" [{told.default!r}]"
            short = ", or alone" if field == kind.main else ""
            said = " ".join(_attribute(attributes, field).split()).replace("``", "`")
            if get_origin(told.annotation) is Literal:
                said += f" One of: {', '.join(map(str, get_args(told.annotation)))}."
            console.print(f"    {field}{default}{short}: {said}", style="dim", markup=False)
    console.print("Every step can have may_fail [False]: the scenario goes on when it fails.")


def _attribute(attributes: str, name: str) -> str:
    """What a docstring says of one attribute."""
    found = re.search(rf"^    {name}: (.*?)(?=^    \w+: |\Z)", attributes, re.M | re.S)
    return found[1] if found else "see lab/guest/diskio.py"


@app.command()
def run(
    file: ScenarioFile,
    driver: DriverOption = None,
    attempts: Annotated[
        int, typer.Option("--attempts", "-n", min=1, max=100_000, help="How often to run it.")
    ] = 1,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of its jitter; its own if left out.")
    ] = None,
    profile: ProfileOption = None,
    config: ConfigOption = None,
    accel: AccelOption = None,
    json: JsonFile = None,
) -> int:
    """Run a scenario: exit 0 passed, 1 the driver failed, 2 bad input, 3 the lab could not tell.

    The driver is --driver, else the one in the bundle, else the profile's.
    """
    from lab.scenario.stand import open_stand

    quiet = json == STDOUT
    console = Console(stderr=quiet, highlight=False, soft_wrap=True)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="pvlab-"))
        loaded = load_any(file, Path(folder))
        chosen = load_profile(profile, config)
        package = driver or loaded.driver or chosen.driver
        if package is None:
            raise UsageError("no driver package to run it with", hint="name one: --driver PATH")
        scenario = loaded.scenario if seed is None else loaded.scenario.with_seed(seed)
        stand = stack.enter_context(open_stand(chosen, package, accel=accel, say=say))
        wanted = scenario.about.driver_sha256
        if wanted and wanted != stand.package.identity:
            say("the driver is not the one that the scenario names")
        if not scenario.complete:
            say("the scenario is not complete: some of what it stands for is not done")
        for path, said in itertools.islice(unexplained(scenario.steps), _WARNED):
            say(f"{where(path)}: {said}: a failure there says nothing of the driver")
        outcomes: list[Outcome] = []
        for number in range(1, attempts + 1):
            outcome = stand.attempt(scenario)
            outcomes.append(outcome)
            at = f"[{number}/{attempts}] " if attempts > 1 else ""
            console.print(
                f"{at}{outcome.line} ({outcome.seconds:.1f} s)",
                style=COLOURS.get(outcome.end, "red"),
                markup=False,
            )
            if outcome.end is End.LAB:
                break
    if attempts == 1:
        _timeline(console, outcomes[0])
    failed = sum(one.exit_code is ExitCode.DRIVER_FAILED for one in outcomes)
    if attempts > 1:
        console.print(f"failed {rate(Tally(failed, len(outcomes))).words}", markup=False)
    if json is not None:
        _write_json(json, loaded, outcomes)
    codes = {one.exit_code for one in outcomes}
    for code in (ExitCode.DRIVER_FAILED, ExitCode.LAB_BROKEN):
        if code in codes:
            return int(code)
    return int(ExitCode.PASS)


@app.command()
def record(
    tests: Annotated[
        list[str], typer.Argument(metavar="TEST...", help="Node ids of driver tests.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for the scenarios; else where they are."),
    ] = None,
    driver: DriverOption = None,
    profile: ProfileOption = None,
    config: ConfigOption = None,
    accel: AccelOption = None,
    intensity: IntensityOption = Level.STANDARD,
    seed: SeedOption = None,
) -> int:
    """Run driver tests and print where the scenarios are that they ran."""
    # A run of the suite: every test keeps its scenario with its evidence.
    from lab.cli.suite import SuiteRequest, run_suite
    from lab.results.writer import load_run

    load_profile(profile, config)
    chosen, extra = split_tests(tests)
    result = run_suite(
        SuiteRequest(
            driver=driver,
            profile=profile,
            config=config,
            accel=accel,
            tests=chosen,
            extra=extra,
            intensity=intensity,
            seed=seed,
            quiet=True,
        ),
        label="record",
    )
    found = [
        file
        for test in load_run(result.folder).tests
        if test.evidence and (file := result.folder / test.evidence / SCENARIO).is_file()
    ]
    if not found:
        raise LabBroken(f"no test did anything that was recorded; see {result.report}")
    for file in found:
        print(_copied(file, output) if output is not None else file)
    return int(ExitCode.PASS)


def _copied(file: Path, folder: Path) -> Path:
    """Copy a scenario out of a run's folder, named for its test."""
    target = folder / f"{file.parent.name}.yaml"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    except OSError as error:
        raise UsageError(f"{target}: cannot be written: {error.strerror}") from None
    return target


def _timeline(console: Console, outcome: Outcome) -> None:
    for moment in sorted(outcome.moments, key=lambda one: (one.start, one.path)):
        failed = f"  {moment.error}" if moment.error else ""
        indent = "  " * sum(isinstance(part, int) for part in moment.path)
        console.print(
            f"{moment.start:8.2f} s {moment.end - moment.start:8.2f} s {indent}"
            f"{moment.words}{failed}",
            markup=False,
            style="dim" if not moment.error else "red",
        )


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """An outcome as plain values for JSON."""
    return {
        "end": outcome.end.value,
        "blame": outcome.blame.value if outcome.blame else None,
        "reason": outcome.reason,
        "at": outcome.at,
        "seconds": round(outcome.seconds, 3),
        "facts": [to_json(fact) for fact in outcome.facts],
        "moments": [
            {
                "path": list(one.path),
                "step": one.words,
                "start": round(one.start, 3),
                "end": round(one.end, 3),
                "error": one.error,
            }
            for one in outcome.moments
        ],
    }


def _write_json(file: Path, loaded: Loaded, outcomes: Sequence[Outcome]) -> None:
    document = {
        "schema_version": 1,
        "scenario": loaded.source,
        "attempts": [outcome_json(one) for one in outcomes],
    }
    if file == STDOUT:
        _print_json(document)
        return
    try:
        file.write_text(json_module.dumps(document, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{file}: cannot be written: {error.strerror}") from None


def _print_json(document: dict[str, Any]) -> None:
    sys.stdout.write(json_module.dumps(document, indent=2) + "\n")
