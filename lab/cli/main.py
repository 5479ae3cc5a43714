"""The command ``pvlab``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from lab import __version__
from lab.cli import (
    crash,
    demo,
    doctor,
    farm,
    gate,
    image,
    labfaults,
    media,
    mutants,
    nightly,
    place,
    report,
    repro,
    results,
    scenario,
    setup,
    support,
    tests,
)
from lab.cli.errors import run_guarded

app = typer.Typer(
    name="pvlab",
    help="Integration test lab for Windows PV drivers on Xen.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(doctor.app, name="doctor")
app.add_typer(setup.app, name="setup")
app.add_typer(image.app, name="image")
app.add_typer(media.app, name="media")
app.add_typer(crash.app, name="crash")
app.add_typer(scenario.app, name="scenario")
app.add_typer(farm.app, name="farm")
app.add_typer(results.app, name="results")
app.add_typer(gate.app, name="gate")
app.command()(place.up)
app.command()(place.down)
app.command()(place.ssh)
app.command()(place.console)
app.command()(gate.run)
app.command("tests")(tests.list_tests)
app.command()(mutants.mutants)
app.command()(nightly.nightly)
app.command("lab-faults")(labfaults.lab_faults)
app.command()(repro.repro)
app.add_typer(report.app, name="report")
app.command()(report.serve)
app.command()(demo.demo)
app.command("support-bundle")(support.support_bundle)


@app.command(
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def bench(context: typer.Context) -> object:
    """Measure the lab itself: boots, clones, attaches."""
    # Imported late: it brings numerics that no other command needs.
    from lab.bench.app import app as bench_app

    return bench_app(args=context.args, prog_name="pvlab bench", standalone_mode=False)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pvlab {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Integration test lab for Windows PV drivers on Xen."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``pvlab``.

    Args:
        arguments: the command line without the program; the process's own when absent.

    Returns:
        The exit code: 0 passed, 1 the driver failed, 2 bad input, 3 the lab is broken,
        130 interrupted.
    """
    words = None if arguments is None else list(arguments)
    return run_guarded(lambda: app(args=words, prog_name="pvlab", standalone_mode=False))


if __name__ == "__main__":
    raise SystemExit(main())
