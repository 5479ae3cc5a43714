"""``pvlab image``: build, list, verify and remove images."""

from __future__ import annotations

import dataclasses
import json as jsonlib
import sys
import time
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress as Bar
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from lab.core.errors import ExitCode, UsageError
from lab.images.errors import BuildFailed
from lab.images.plan import Plan, plan_of
from lab.images.progress import Progress, Silent
from lab.images.store import ImageStatus, Store
from lab.media.store import MediaStore

app = typer.Typer(add_completion=False, no_args_is_help=True, help="The lab's images.")

MIB = 1 << 20


class PlainLines(Silent):
    """A line for each step, for logs and for CI."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def _say(self, text: str) -> None:
        print(f"[{time.monotonic() - self._began:6.1f} s] {text}", file=sys.stderr, flush=True)

    def started(self, image: str, minutes: float) -> None:
        """Say that a build begins."""
        self._say(f"{image}: building, about {minutes:g} min")

    def waiting(self, image: str, reason: str) -> None:
        """Say what is waited for."""
        self._say(f"{image}: waiting, {reason}")

    def step(self, image: str, text: str) -> None:
        """Say what comes next."""
        self._say(f"{image}: {text}")

    def finished(self, image: str, seconds: float) -> None:
        """Say that it is done."""
        self._say(f"{image}: built in {seconds:.0f} s")

    def failed(self, image: str) -> None:
        """Say that it was given up."""
        self._say(f"{image}: failed")


class LiveLines(Silent):
    """One line on a terminal that shows the step, its last output and the time."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._task = bar.add_task("", total=None, detail="")

    def started(self, image: str, minutes: float) -> None:
        """Show a fresh clock."""
        self._bar.reset(self._task, description=f"{image} (about {minutes:g} min)", detail="")

    def waiting(self, image: str, reason: str) -> None:
        """Show what is waited for."""
        self._bar.update(self._task, description=image, detail=f"waiting, {reason}")

    def step(self, image: str, text: str) -> None:
        """Show what comes next, and leave it on the screen."""
        self._bar.console.print(f"{image}: {text}", highlight=False, markup=False)
        self._bar.update(self._task, description=image, detail="")

    def output(self, image: str, line: str) -> None:
        """Show the last line a program wrote."""
        # One row of the terminal, or the display would jump.
        self._bar.update(self._task, detail=line.strip()[: self._bar.console.width // 2])

    def finished(self, image: str, seconds: float) -> None:
        """Leave the time it took on the screen."""
        self._bar.console.print(f"{image}: built in {seconds:.0f} s", highlight=False)


def build_images(names: list[str], *, force: bool = False, store: Store | None = None) -> None:
    """Build images, showing progress on stderr: live on a terminal, else line by line.

    Args:
        names: the images; when empty, all whose media are there.
        force: build them again even if they are there.
        store: where; the usual place when None.

    Raises:
        UsageError: no such image.
        BuildFailed: a builder failed; the log's last lines have been printed.
        LabBroken: no disk space, or a damaged image.
    """
    store = store or Store()
    for name in names:
        store.recipe(name)
    console = Console(stderr=True)
    try:
        if not console.is_terminal:
            _ensure_all(store, names, PlainLines(), force=force)
            return
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            TextColumn("{task.fields[detail]}", style="dim", markup=False),
        )
        with Bar(*columns, console=console, transient=True) as bar:
            _ensure_all(store, names, LiveLines(bar), force=force)
    except BuildFailed as error:
        for line in error.tail:
            print(f"  | {line}", file=sys.stderr)
        raise


def _ensure_all(store: Store, names: list[str], progress: Progress, *, force: bool) -> None:
    for name in names or store.buildable():
        store.ensure(name, progress, force=force)


def show(statuses: list[ImageStatus], console: Console) -> None:
    """Print the state of images for people."""
    table = Table(box=None, pad_edge=False)
    for title in ("image", "state", "MiB", "key", "what"):
        table.add_column(title, justify="right" if title == "MiB" else "left")
    for status in statuses:
        state = status.state + (f" (+{status.others} old)" if status.others else "")
        what = status.description or "no recipe any more"
        table.add_row(status.name, state, str(status.size // MIB), status.key[:16], what)
    console.print(table)


@app.command()
def build(
    names: Annotated[list[str] | None, typer.Argument(help="Images; all when left out.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Even if they are there.")] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show the plan of an image made of media."),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="With --dry-run: print as JSON.")] = False,
) -> None:
    """Build images, and what they depend on."""
    if not dry_run:
        if json:
            raise UsageError("--json goes with --dry-run")
        build_images(names or [], force=force)
        return
    if not names:
        raise UsageError("--dry-run needs the name of an image")
    store = Store()
    plans = [plan_of(store.recipe(name), MediaStore()) for name in names]
    if json:
        print(jsonlib.dumps([dataclasses.asdict(plan) for plan in plans], indent=2))
    else:
        for plan in plans:
            show_plan(plan)
    if missing := [line for plan in plans for line in plan.missing]:
        raise UsageError(
            f"the build cannot begin: {len(missing)} things are missing", hint="see above"
        )


def show_plan(plan: Plan) -> None:
    """Print a plan for people; plain text, since files are to be read as they are."""
    print(f"image {plan.image}")
    for name, value in plan.facts:
        print(f"  {name}: {value}")
    print("steps")
    for number, step in enumerate(plan.steps, 1):
        print(f"  {number}. {step}")
    for file in plan.files:
        print(f"--- {file.where}: {file.path}" + (f" ({file.note})" if file.note else ""))
        if file.content is not None:
            print(file.content.replace("\r\n", "\n").rstrip("\n"))
    for line in plan.missing:
        print(f"missing: {line}")


@app.command("list")
def list_images(
    json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Show all images and whether they are built."""
    statuses = Store().status()
    if json:
        print(jsonlib.dumps([dataclasses.asdict(status) for status in statuses], indent=2))
    else:
        show(statuses, Console())


@app.command()
def verify(
    names: Annotated[
        list[str] | None, typer.Argument(help="Images; all that are built when left out.")
    ] = None,
) -> None:
    """Read images again, byte by byte, and compare them with their manifests."""
    store = Store()
    chosen = names or [s.name for s in store.status() if s.state in ("built", "damaged")]
    sound = True
    for name in chosen:
        problems = store.verify(name)
        print(f"{name}: {'damaged' if problems else 'sound'}")
        for problem in problems:
            print(f"  {problem}")
        sound = sound and not problems
    if not sound:
        raise typer.Exit(int(ExitCode.LAB_BROKEN))


@app.command("rm")
def remove(
    names: Annotated[list[str] | None, typer.Argument(help="Images.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All images.")] = False,
    stale: Annotated[bool, typer.Option("--stale", help="Only builds of older inputs.")] = False,
) -> None:
    """Remove images from the store; refused while one is built or used."""
    store = Store()
    if bool(names) == every and not (stale and not names):
        raise UsageError("name the images to remove, or say --all", hint="pvlab image rm --help")
    for name in names or [status.name for status in store.status()]:
        freed = store.remove(name, stale_only=stale)
        if freed or names:
            print(f"{name}: {freed // MIB} MiB freed")
