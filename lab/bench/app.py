"""The command ``pvlab bench``."""

from __future__ import annotations

import enum
import json
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from lab import __version__
from lab.bench import ledger, logs
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


class Only(enum.StrEnum):
    """A part that can be measured alone."""

    LOGS = "logs"
    STORE = "store"


@app.command()
def bench(
    profile: Annotated[str | None, typer.Option(help="Profile of lab.toml.")] = None,
    accel: Annotated[str | None, typer.Option(help="Rung of the accelerator ladder.")] = None,
    rounds: Annotated[int, typer.Option(min=1, max=100, help="Samples of each quick step.")] = 5,
    only: Annotated[
        Only | None, typer.Option(help="Measure one part alone: logs and store need no machine.")
    ] = None,
    log_mb: Annotated[
        int, typer.Option("--log-mb", min=1, max=100_000, help="With --only logs: the log's MB.")
    ] = logs.LOG_MB,
    nights: Annotated[
        int, typer.Option(min=1, max=10_000, help="With --only store: how many nights are in it.")
    ] = ledger.NIGHTS,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print JSON instead of a table.")
    ] = False,
) -> None:
    """Measure the lab itself: boots, clones, WinRM commands, attaches; all in one run.

    Exits 0 however the figures turn out: a slow machine is not a broken one.
    """

    def say(line: str) -> None:
        print(f"pvlab: {line}", file=sys.stderr, flush=True)

    if only is Only.LOGS:
        with scratch_folder(cache_dir() / "bench") as scratch:
            read = logs.figures(scratch, megabytes=log_mb, say=say)
        _show({}, read, "reading logs", as_json=json_output)
        return
    if only is Only.STORE:
        with scratch_folder(cache_dir() / "bench") as scratch:
            kept = ledger.figures(scratch, nights_made=nights, say=say)
        _show({}, kept, f"results store, {nights} nights", as_json=json_output)
        return
    chosen = load_profile(profile, None)
    kitchen = Kitchen.open(chosen, accel=accel, progress=say)
    driver = Store().ensure(DRIVERS[kitchen.accel.guest_type]).path / GOOD_DRIVER
    figures: list[Figure] = []
    # In the cache: its disk has room for a template, which a runtime folder may not have.
    with scratch_folder(cache_dir() / "bench") as scratch:
        for figure in Bench(kitchen, driver, scratch, rounds=rounds, say=say).run():
            figures.append(figure)
            say(f"{figure.name}: {figure.median:.3g} {figure.unit}")
    told = {
        "profile": chosen.name,
        "guest": guest_label(chosen, kitchen.accel.guest_type),
        "accelerator": kitchen.accel.line,
    }
    _show(told, figures, kitchen.accel.line, as_json=json_output)


def _show(told: dict[str, str], figures: list[Figure], title: str, *, as_json: bool) -> None:
    if not as_json:
        Console().print(_table(figures, title))
        return
    document = {
        "schema_version": 1,
        "pvlab": __version__,
        **told,
        "host": facts.host().model_dump(mode="json"),
        "figures": [figure.model_dump(mode="json") for figure in figures],
    }
    print(json.dumps(document, indent=2))


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
