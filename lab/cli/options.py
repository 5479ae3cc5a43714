"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from lab.suite.intensity import Level

DriverOption = Annotated[
    Path | None,
    typer.Option("--driver", help="Driver package: a folder or a .zip; else the profile's own."),
]
ProfileOption = Annotated[
    str | None, typer.Option("--profile", help="Profile of lab.toml; the default one if left out.")
]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="A lab.toml.")]
AccelOption = Annotated[
    str | None, typer.Option("--accel", help="kvm, tcg-hvm or tcg-pv; chosen if left out.")
]
NameOption = Annotated[str, typer.Option("--name", help="Name of the place.")]
JsonFile = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", help="Write the result as JSON; - for stdout."),
]
Tests = Annotated[
    list[str] | None,
    typer.Argument(help="Files, folders or node ids; after --, options for pytest."),
]

KeywordOption = Annotated[
    str, typer.Option("-k", metavar="EXPRESSION", help="Only tests whose name matches.")
]
KeepGoing = Annotated[
    bool, typer.Option("--keep-going", help="Run all tests, not only up to the first failure.")
]
IntensityOption = Annotated[
    Level,
    typer.Option("--intensity", envvar="PVLAB_INTENSITY", help="How much the tests do."),
]
WorkersOption = Annotated[
    int,
    typer.Option("-n", "--workers", min=1, help="Tests that run side by side, a clone each."),
]
SeedOption = Annotated[
    int | None,
    typer.Option("--seed", min=0, help="Repeat one attempt of each race: the one with this seed."),
]
ErrataOption = Annotated[
    Path | None,
    typer.Option("--errata", help="Folder of errata files; drivers/errata if left out."),
]

STDOUT = Path("-")


def split_tests(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Part tests from options for pytest, which begin at the first word with a dash."""
    cut = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
    return list(words[:cut]), list(words[cut:])
