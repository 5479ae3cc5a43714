"""``pvlab nightly``: what runs unattended, and what is told of it in the morning."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from pydantic import TypeAdapter
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from lab.cli.errors import terminable
from lab.cli.mutants import located
from lab.cli.options import ConfigOption
from lab.cli.suite import SuiteRequest, driver_suite
from lab.cli.tests import collect
from lab.config.load import find_config, load_profile, profile_names
from lab.core.deadline import Deadline
from lab.core.errors import DeadlineExpired, UsageError
from lab.core.lock import locked
from lab.core.paths import results_dir
from lab.images.store import Store as Images
from lab.nightly.digest import Digest, as_text
from lab.nightly.farm import FarmPool
from lab.nightly.history import past
from lab.nightly.matrix import FILE_NAME, Cell, Suite, load_matrix, parse_duration
from lab.nightly.morning import HTML_NAME, end_night
from lab.nightly.night import Night, take_over
from lab.nightly.plan import Candidate, Plan, make_plan, split
from lab.nightly.pool import LocalPool, Pool
from lab.nightly.prepare import (
    HOME,
    Kept,
    hash_of,
    home,
    keep_package,
    new_items,
    settings_of,
)
from lab.nightly.work import LOGS, Order, Site
from lab.place.standin import DRIVERS, asked_for
from lab.results.folder import new_run_id
from lab.results.store import Plan as StoredPlan
from lab.results.store import Store, create_plan, open_store, plans
from lab.results.text import duration
from lab.suite.catalogue import Entry
from lab.suite.digest import suite_digest
from lab.suite.intensity import Level

LOCK_PATIENCE_SECONDS = 3.0

_DIGEST = TypeAdapter(Digest)


def nightly(
    matrix: Annotated[Path, typer.Option("--matrix", help="What the night is made of.")] = Path(
        FILE_NAME
    ),
    budget: Annotated[
        str | None,
        typer.Option("--budget", metavar="8h", help="How long it may take; the matrix's own."),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the night that was killed, if there is one."),
    ] = False,
    plan_only: Annotated[
        bool, typer.Option("--plan", help="Show what would run tonight, and run nothing.")
    ] = False,
    scheduler: Annotated[
        str | None,
        typer.Option("--scheduler", metavar="tcp://...", help="Run on the workers of this one."),
    ] = None,
    db: Annotated[
        str | None, typer.Option("--db", envvar="PVLAB_DB", help="The store: a file or URL.")
    ] = None,
    config: ConfigOption = None,
    json: Annotated[bool, typer.Option("--json", help="The digest as JSON.")] = False,
) -> int:
    """Run a matrix of profiles, drivers and suites within a time: exit 0 passed, 1 a driver
    failed, 3 the lab could not tell."""
    seconds = _seconds(budget)
    results = results_dir()
    with open_store(db) as store:
        if plan_only:
            with tempfile.TemporaryDirectory(prefix="pvlab-") as folder:
                show_plan(Preparation(matrix, config, Path(folder)).plan(store, seconds))
            return 0
        with _night_lock(results), terminable():
            if resume:
                left = unfinished(store, results)
                if not left:
                    say("no night was killed: nothing to go on with")
                    return 0
                night = left[0]
            else:
                abandon(store, results)
                night = begin(matrix, config, store, results, seconds)
            digest = go_on(
                store, night, results, scheduler=scheduler, seconds=seconds if resume else None
            )
    if json:
        sys.stdout.write(_DIGEST.dump_json(digest, indent=2).decode() + "\n")
    else:
        Console(highlight=False, soft_wrap=True).print(as_text(digest), markup=False, end="")
        say(f"digest: {results / LOGS / night.key / HTML_NAME}")
    return int(digest.exit_code)


# -- a night ----------------------------------------------------------------------------


def begin(
    matrix: Path, config: Path | None, store: Store, results: Path, seconds: float | None
) -> StoredPlan:
    """Plan a new night and keep it.

    Raises:
        UsageError: the matrix, a package or a test of it cannot be used, or nothing fits.
        LabBroken: the store or the results folder cannot be used.
    """
    key = new_run_id()
    folder = results / LOGS / key
    try:
        preparation = Preparation(matrix, config, folder / "packages")
        budget = seconds or preparation.matrix.budget
        made = preparation.plan(store, budget)
        if not made.chosen:
            raise UsageError(
                f"nothing fits the budget of {duration(budget)}", hint="--budget gives more time"
            )
        items = new_items(made, preparation.package, preparation.profiles)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    left = f"; no room for {len(made.left_out)}" if made.left_out else ""
    say(f"{_items(items)}, about {duration(made.seconds)}{left}")
    said = preparation.matrix
    return create_plan(
        store,
        key,
        items,
        budget_seconds=budget,
        max_lab_failures=said.lab_retries + 1,
        max_losses=said.interruptions,
        settings=settings_of(said, made, find_config(config), results),
    )


def go_on(
    store: Store, night: StoredPlan, results: Path, *, scheduler: str | None, seconds: float | None
) -> Digest:
    """Run a night from where it is to its end.

    Args:
        store: with the night.
        night: the night.
        results: the results folder.
        scheduler: address of one; None for this machine alone.
        seconds: left; what is left of its budget when None.

    Raises:
        UsageError, LabBroken, KeyboardInterrupt: as ``Night.run``.
    """
    if seconds is None:
        spent = (datetime.now(UTC) - night.created).total_seconds()
        seconds = max(0.0, (night.budget_seconds or 0.0) - spent)
    site = Site(results=results, places=int(night.settings.get("places", 1)))
    with _pool(site, night, scheduler) as pool:
        not_run = Night(store, night.key, pool, site, seconds=seconds, say=say).run()
    return end_night(store, night.key, results, not_run=not_run, say=say)


@contextlib.contextmanager
def _pool(site: Site, night: StoredPlan, scheduler: str | None) -> Iterator[Pool]:
    if scheduler is not None:
        with FarmPool(scheduler, site, suite_command) as farm:
            yield farm
        return
    config = night.settings.get("config")
    launcher = partial(suite_command, config=Path(config) if config else None)
    with LocalPool(site, launcher) as pool:
        yield pool


def suite_command(
    order: Order, run: str, results: Path, *, config: Path | None = None
) -> Sequence[str]:
    """The command line of an item: the driver tests, as ``pvlab run`` starts them.

    Args:
        order: the item.
        run: name of its run.
        results: the results folder.
        config: a lab.toml; the machine's own when None.

    Raises:
        UsageError: the profile is unknown here.
    """
    load_profile(order.profile, config)
    return SuiteRequest(
        driver=order.package,
        profile=order.profile,
        config=config,
        accel=order.accel,
        tests=[located(test) for test in order.tests],
        results=results,
        intensity=Level(order.intensity),
    ).command(run)


def unfinished(store: Store, results: Path) -> list[StoredPlan]:
    """Nights of this machine and folder that were not ended, the newest first."""
    own = home(results)
    return [one for one in plans(store, unfinished=True) if one.settings.get(HOME) == own]


def abandon(store: Store, results: Path) -> None:
    """Close nights that were killed and never gone on with: their items are old, so that they
    come first tonight.

    Raises:
        LabBroken: the store or the results folder cannot be used.
    """
    for night in unfinished(store, results):
        site = Site(results=results, places=1)
        take_over(store, night.key, site, say)
        digest = end_night(store, night.key, results, not_run={}, say=say, told=False)
        left = len([one for one in digest.not_run if "budget" not in one.why])
        say(f"the night {night.key} was never ended; {left} of its items have not run")


# -- its plan ---------------------------------------------------------------------------


class Preparation:
    """What is asked of the machine for a plan: tests, packages, images; each asked once.

    Args:
        file: the matrix.
        config: a lab.toml; None for the usual search.
        packages: folder that driver packages are kept in.

    Raises:
        UsageError: the matrix or a profile of it cannot be used.
    """

    def __init__(self, file: Path, config: Path | None, packages: Path) -> None:
        self.matrix = load_matrix(file, profile_names(config))
        self.profiles = {name: load_profile(name, config) for name in self.matrix.profiles}
        self._packages = packages
        self._kept: dict[tuple[str, Path], Kept] = {}
        self._tests: dict[Suite, tuple[Entry, ...]] = {}
        self._images = Images()
        self._suite = suite_digest(driver_suite())

    def plan(self, store: Store, seconds: float | None) -> Plan:
        """Choose what runs tonight.

        Args:
            store: knows earlier nights.
            seconds: the budget; the matrix's own when None.

        Raises:
            UsageError: a package or a test cannot be used.
            LabBroken: the store or the packages' folder cannot be used.
        """
        candidates: list[Candidate] = []
        for cell in self.matrix.cells():
            candidates += split(cell, self._entries(cell.suite), self._content(cell))
        now = datetime.now(UTC)
        return make_plan(
            candidates,
            past(store, now=now),
            budget=seconds or self.matrix.budget,
            places=self.matrix.places,
            now=now,
        )

    def package(self, cell: Cell) -> Kept:
        """The driver package that a combination runs with.

        Raises:
            UsageError: it cannot be used.
            LabBroken: it cannot be kept.
        """
        source = cell.driver.package or self.profiles[cell.profile].driver
        if source is None:
            image = DRIVERS[asked_for(cell.suite.accel) or "hvm"]
            return Kept(None, self._images.key(image))
        known = (cell.driver.name, source)
        if known not in self._kept:
            # Several profiles may each have a package of their own.
            name = f"{cell.driver.name}-{hash_of(str(source))[:6]}"
            self._kept[known] = keep_package(source, self._packages, name)
        return self._kept[known]

    def _entries(self, suite: Suite) -> tuple[Entry, ...]:
        if suite not in self._tests:
            extra = ["-k", suite.keyword] if suite.keyword else []
            found = collect(list(suite.tests), extra, accel=suite.accel, intensity=suite.intensity)
            self._tests[suite] = found.tests
        return self._tests[suite]

    def _content(self, cell: Cell) -> dict[str, str]:
        profile = self.profiles[cell.profile]
        images = [self._images.key(name) for name in (profile.host_image, profile.guest_image)]
        return {
            "driver": self.package(cell).identity,
            "suite": hash_of([self._suite, cell.suite.model_dump(mode="json")]),
            "profile": hash_of(profile.model_dump(mode="json")),
            "images": hash_of(images),
        }


def show_plan(plan: Plan) -> None:
    """Print what would run, for people."""
    item = Column("item", overflow="fold")
    table = Table(item, "takes", "because", box=None, pad_edge=False)
    for one in plan.chosen:
        table.add_row(escape(one.candidate.key), duration(one.seconds), one.why)
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    console.print(f"{_items(plan.chosen)}, about {duration(plan.seconds)}", markup=False)
    if plan.left_out:
        console.print(f"no room for {len(plan.left_out)}:", markup=False)
    for one in plan.left_out:
        line = f"  {one.candidate.key} ({duration(one.seconds)}): {one.why}"
        console.print(line, markup=False)


# -- around it --------------------------------------------------------------------------


@contextlib.contextmanager
def _night_lock(results: Path) -> Iterator[None]:
    """One night at a time in a results folder.

    Raises:
        UsageError: another one is under way.
    """
    with contextlib.ExitStack() as held:
        try:
            lock = locked(results / LOGS / ".lock", Deadline(LOCK_PATIENCE_SECONDS))
            held.enter_context(lock)
        except DeadlineExpired as error:
            raise UsageError(
                f"another night is under way in {results}: {error.last_seen}"
            ) from None
        except OSError as error:
            raise UsageError(f"{results}: cannot be written: {error.strerror}") from None
        yield


def _seconds(budget: str | None) -> float | None:
    if budget is None:
        return None
    try:
        return parse_duration(budget)
    except ValueError as error:
        raise UsageError(f"--budget: {error}") from None


def _items(some: Sequence[object]) -> str:
    return "1 item" if len(some) == 1 else f"{len(some)} items"


def say(line: str) -> None:
    """Tell whoever waits."""
    print(f"pvlab: {line}", file=sys.stderr, flush=True)
