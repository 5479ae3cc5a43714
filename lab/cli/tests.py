"""``pvlab tests``: what the suite consists of, found without starting a machine."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from itertools import groupby
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console

from lab.cli.options import (
    AccelOption,
    IntensityOption,
    KeywordOption,
    Tests,
    split_tests,
)
from lab.cli.suite import driver_suite, pytest_command
from lab.core.errors import LabBroken, UsageError
from lab.suite.catalogue import Catalogue
from lab.suite.intensity import Level

TIME = len("100 min 00 s")
"""Width of the column of times."""


def list_tests(
    which: Tests = None,
    keyword: KeywordOption = "",
    accel: AccelOption = None,
    intensity: IntensityOption = Level.STANDARD,
    json: Annotated[bool, typer.Option("--json", help="The catalogue as JSON.")] = False,
) -> None:
    """List the tests: area, what each guards, and how long it takes at most."""
    chosen, extra = split_tests(which or [])
    if keyword:
        extra = ["-k", keyword, *extra]
    found = collect(chosen, extra, accel=accel, intensity=intensity)
    if json:
        sys.stdout.write(found.model_dump_json(indent=2) + "\n")
    else:
        show(found)


def collect(
    chosen: list[str], extra: list[str], *, accel: str | None, intensity: Level
) -> Catalogue:
    """Collect tests with pytest, in a process of its own, as a run would.

    Args:
        chosen: files, folders or node ids; the driver suite when empty.
        extra: more arguments for pytest.
        accel: accelerator that the times are for; ``None`` for the likely one.
        intensity: that the tests are selected and their times are for.

    Raises:
        UsageError: nothing matches, or the tests cannot be collected.
        LabBroken: pytest could not be started, or left no catalogue.
    """
    with tempfile.TemporaryDirectory(prefix="pvlab-") as folder:
        file = Path(folder) / "tests.json"
        command = [*pytest_command(), "--collect-only", "-q", f"--pvlab-catalogue={file}"]
        command.append(f"--pvlab-intensity={intensity.value}")
        if accel:
            command.append(f"--pvlab-accel={accel}")
        command += [*extra, *(chosen or [str(driver_suite())])]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            raise LabBroken(f"the tests could not be collected: {error}") from error
        if done.returncode:
            sys.stderr.write(done.stderr or done.stdout)
            raise UsageError("the tests could not be collected", hint="see the message above")
        try:
            return Catalogue.model_validate_json(file.read_bytes())
        except (OSError, ValidationError) as error:
            raise LabBroken(
                f"pytest left no catalogue: {type(error).__name__}", hint="pvlab doctor"
            ) from None


def show(catalogue: Catalogue) -> None:
    """Print the catalogue for people, area by area."""
    console = Console(highlight=False, soft_wrap=True)
    count = "1 test" if len(catalogue.tests) == 1 else f"{len(catalogue.tests)} tests"
    by_area = sorted(catalogue.tests, key=lambda test: (test.area, test.id))
    for area, members in groupby(by_area, key=lambda test: test.area):
        console.print(area or "no area", style="bold", markup=False)
        for test in members:
            race = f", a race of at most {test.attempts} attempts" if test.attempts else ""
            time = _duration(test.expected_seconds)
            console.print(f"{time:>{TIME}}  {test.id.rpartition('/')[2]}{race}", markup=False)
            if test.claim:
                source = f" ({test.source})" if test.source else ""
                console.print(f"{'':{TIME}}  {test.claim}{source}", style="dim", markup=False)
    console.print(
        f"{count}, at most {_duration(catalogue.expected_seconds)} "
        f"({catalogue.intensity.value}, {catalogue.accelerator})",
        markup=False,
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
