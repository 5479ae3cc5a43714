"""The command ``pvlab bench``."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from lab import __version__
from lab.bench.figure import Figure
from lab.bench.measure import Bench, scratch_folder
from lab.config.load import load_profile
from lab.core.paths import cache_dir
from lab.images.store import Store
from lab.place.standin import DRIVERS, guest_label
from lab.place.warm import Kitchen
from lab.results import facts

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
GOOD_DRIVER = "good"


@app.command()
def bench(
    profile: Annotated[str | None, typer.Option(help="Profile of lab.toml.")] = None,
    accel: Annotated[str | None, typer.Option(help="Rung of the accelerator ladder.")] = None,
    rounds: Annotated[int, typer.Option(min=1, max=100, help="Samples of each quick step.")] = 5,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print JSON instead of a table.")
    ] = False,
) -> None:
    """Measure the lab itself: boots, clones, WinRM commands, attaches; all in one run.

    Exits 0 however the figures turn out: a slow machine is not a broken one.
    """

    def say(line: str) -> None:
        print(f"pvlab: {line}", file=sys.stderr, flush=True)

    chosen = load_profile(profile, None)
    kitchen = Kitchen.open(chosen, accel=accel, progress=say)
    driver = Store().ensure(DRIVERS[kitchen.accel.guest_type]).path / GOOD_DRIVER
    figures: list[Figure] = []
    # In the cache: its disk has room for a template, which a runtime folder may not have.
    with scratch_folder(cache_dir() / "bench") as scratch:
        for figure in Bench(kitchen, driver, scratch, rounds=rounds, say=say).run():
            figures.append(figure)
            say(f"{figure.name}: {figure.median:.3g} {figure.unit}")
    if json_output:
        print(
            json.dumps(
                {
                    "schema_version": 1,
                    "pvlab": __version__,
                    "profile": chosen.name,
                    "guest": guest_label(chosen, kitchen.accel.guest_type),
                    "accelerator": kitchen.accel.line,
                    "host": facts.host().model_dump(mode="json"),
                    "figures": [figure.model_dump(mode="json") for figure in figures],
                },
                indent=2,
            )
        )
        return
    Console().print(_table(figures, kitchen.accel.line))


def _table(figures: list[Figure], title: str) -> Table:
    table = Table(title=title)
    for column in ("figure", "median", "min", "max", "n", "target", "met"):
        table.add_column(column, justify="left" if column == "figure" else "right")
    for figure in figures:
        sign = "≥" if figure.at_least else "≤"
        table.add_row(
            figure.name,
            f"{figure.median:.3g} {figure.unit}",
            f"{figure.minimum:.3g}",
            f"{figure.maximum:.3g}",
            str(len(figure.samples)),
            f"{sign} {figure.target:g}" if figure.target is not None else "",
            {True: "yes", False: "no", None: ""}[figure.met],
        )
    return table
