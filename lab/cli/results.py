"""``pvlab results``: the store of all runs."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lab.cli.errors import say
from lab.core.errors import ExitCode, UsageError
from lab.core.paths import results_dir
from lab.results.record import Outcome, Status
from lab.results.text import duration, size, visible

# The database's libraries take a while to load: no other command waits for them.
if TYPE_CHECKING:
    from lab.results.store import BucketRow, CrashRow, Imported, Pruned, RunDetail, RunRow, Store

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="All runs in one store: fill it, ask it."
)

AsJson = Annotated[bool, typer.Option("--json", help="JSON for programs.")]
DbOption = Annotated[
    str | None,
    typer.Option(
        "--db",
        metavar="URL",
        help="SQLite file, or postgresql://...; PVLAB_DB, or results.db among the results.",
    ),
]

SCHEMA_VERSION = 1

COLOURS = {Status.PASS: "green", Status.FAIL: "red"}


@app.command("import")
def import_(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FOLDER...",
            help="Results folders, runs' own, or a gate's document; the results if left out.",
        ),
    ] = None,
    db: DbOption = None,
    as_json: AsJson = False,
) -> int:
    """Bring the store up to date with folders of runs: exit 2 if one of them is damaged.

    Documents of gates and mutants that lie among the results come along.
    """
    from lab.results.store import Became, import_results

    done: list[Imported] = []
    with _store(db) as store:

        def progress(one: Imported) -> None:
            done.append(one)
            for trouble in one.troubles:
                say(trouble)
            if sys.stderr.isatty():
                print(f"\r{len(done)} read", end="", file=sys.stderr, flush=True)

        try:
            import_results(store, folders or [results_dir()], progress=progress)
        finally:
            if sys.stderr.isatty() and done:
                print(file=sys.stderr)
        name = store.name
    counts = {became: sum(one.became is became for one in done) for became in Became}
    if as_json:
        _print(
            {
                "store": name,
                "counts": {became.value: count for became, count in counts.items()},
                "folders": [_plain(asdict(one)) for one in done],
            }
        )
    else:
        told = [f"{count} {became}" for became, count in counts.items() if count]
        print(f"{', '.join(told) or 'no runs'}: {name}")
    bad = any(one.became is Became.DAMAGED for one in done)
    return int(ExitCode.USAGE if bad else ExitCode.PASS)


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option("-n", "--limit", min=1, help="So many at most.")] = 20,
    driver: Annotated[
        str | None,
        typer.Option("--driver", help="Only of this build: hash or its start, name, version."),
    ] = None,
    days: Annotated[
        float | None, typer.Option("--days", min=0, help="Only of the last so many days.")
    ] = None,
    db: DbOption = None,
    as_json: AsJson = False,
) -> None:
    """List runs, the newest first."""
    from lab.results.store import runs

    since = None if days is None else datetime.now(UTC) - _days(days)
    with _store(db) as store:
        found = runs(store, limit=limit, driver=driver, since=since)
    if as_json:
        _print({"runs": [_run_json(row) for row in found]})
        return
    if not found:
        print("no runs; pvlab results import brings them in")
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("run", min_width=max(len(row.name) for row in found))
    for title in ("verdict", "tests", "took", "driver", "guest"):
        table.add_column(title)
    for row in found:
        verdict = row.status.value if row.status else row.ended_how.value
        build = f"{row.driver.name} {row.driver.version}" if row.driver else "-"
        table.add_row(
            _cell(row.name),
            f"[{COLOURS.get(row.status, 'yellow') if row.status else 'yellow'}]{verdict}[/]",
            _counts(row),
            duration(row.seconds) if row.seconds is not None else "-",
            _cell(build),
            _cell(row.guest_label),
        )
    _console().print(table)


@app.command()
def show(
    run: Annotated[
        str | None,
        typer.Argument(metavar="RUN", help="Its name, or the start of it; the newest if left out."),
    ] = None,
    db: DbOption = None,
    as_json: AsJson = False,
) -> None:
    """Show a run: verdict, what it ran on, and each test that did not pass."""
    from lab.results.store import run as query
    from lab.results.store import runs

    with _store(db) as store:
        if run is None:
            newest = runs(store, limit=1)
            if not newest:
                raise UsageError("no runs", hint="pvlab results import brings them in")
            run = newest[0].name
        detail = query(store, run)
    if as_json:
        _print({"run": _detail_json(detail)})
    else:
        _show(detail)


@app.command()
def buckets(
    key: Annotated[
        str | None,
        typer.Argument(metavar="KEY", help="Show the crashes of this one; the start is enough."),
    ] = None,
    db: DbOption = None,
    as_json: AsJson = False,
) -> None:
    """List the buckets that crashes of all runs fall into, the one seen last first."""
    from lab.results.store import buckets as query
    from lab.results.store import crashes

    with _store(db) as store:
        found = [one for one in query(store) if one.key.startswith(key or "")]
        members = crashes(store, key) if key is not None else []
    if key is not None and not found:
        raise UsageError(f"no bucket {key}", hint="pvlab results buckets lists them")
    if as_json:
        _print(
            {
                "buckets": [_bucket_json(one) for one in found],
                "crashes": [_crash_json(one) for one in members],
            }
        )
        return
    if not found:
        print("no crashes")
        return
    for one in found:
        crash = "1 crash" if one.count == 1 else f"{one.count} crashes"
        span = f"{one.first_seen:%Y-%m-%d %H:%M} to {one.last_seen:%Y-%m-%d %H:%M}"
        builds = ", ".join(f"{sha256[:12]} ({count})" for sha256, count in one.builds.items())
        _line(f"{one.key}  {crash}, {span}" + (f", with {builds}" if builds else ""))
        _line(f"  {one.text}")
        _line(f"  best sample: {one.sample.run}, {one.sample.test}")
    for crash_row in members:
        _line(f"{crash_row.started:%Y-%m-%d %H:%M}  {crash_row.run}  {crash_row.test}")


@app.command()
def prune(
    keep: Annotated[
        int | None, typer.Option("--keep", min=0, metavar="N", help="The newest N runs stay.")
    ] = None,
    days: Annotated[
        float | None,
        typer.Option("--days", min=0, metavar="D", help="Runs younger than D days stay."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell.")] = False,
    db: DbOption = None,
    as_json: AsJson = False,
) -> int:
    """Remove old runs, folders and all; what a bucket, a gate or a nightly needs stays.

    A run stays that is one of the newest N or younger than D days, that holds a bucket's best
    sample, that a gate rests on, that belongs to an unfinished nightly, or that may still be
    going on. The results folder is imported first, so that all its runs are known.
    """
    from lab.results.store import Became, import_results
    from lab.results.store import prune as remove

    done: list[Pruned] = []
    if keep is None and days is None:
        raise UsageError("what should stay?", hint="--keep N, --days D or both")
    with _store(db) as store:
        for one in import_results(store, [results_dir()]):
            if one.became is Became.DAMAGED:
                say(*one.troubles, hint="left alone")

        def progress(one: Pruned) -> None:
            done.append(one)
            if one.failed:
                say(one.why)
            if not as_json:
                _line(_pruned(one, dry_run))

        remove(
            store,
            results_dir(),
            keep=keep,
            younger_than=None if days is None else _days(days),
            dry_run=dry_run,
            progress=progress,
        )
    gone = [one for one in done if one.removed]
    freed = sum(one.bytes for one in gone)
    if as_json:
        _print(
            {
                "dry_run": dry_run,
                "removed": len(gone),
                "bytes": freed,
                "runs": [_plain(asdict(one)) for one in done],
            }
        )
    else:
        word = "would be removed" if dry_run else "removed"
        runs = "1 run" if len(gone) == 1 else f"{len(gone)} runs"
        print(f"{runs} {word}, {size(freed)}; of the old ones {len(done) - len(gone)} must stay")
    failed = any(one.failed for one in done)
    return int(ExitCode.LAB_BROKEN if failed else ExitCode.PASS)


def _store(db: str | None) -> Store:
    from lab.results.store import open_store

    return open_store(db)


def _days(days: float) -> timedelta:
    try:
        return timedelta(days=days)
    except (OverflowError, ValueError):
        raise UsageError(f"{days} is no number of days") from None


def _show(detail: RunDetail) -> None:
    row = detail.row
    console = _console()
    verdict = row.status.value if row.status else row.ended_how.value
    colour = COLOURS.get(row.status, "yellow") if row.status else "yellow"
    console.print(f"[{colour}]{verdict}[/] {_cell(row.name)}")
    for reason in row.reasons:
        _line(f"  {reason}")
    took = duration(row.seconds) if row.seconds is not None else "has not ended"
    _line(f"started {row.started:%Y-%m-%d %H:%M:%S} UTC, {took}, {_counts(row)}")
    if row.driver is not None:
        _line(f"driver: {row.driver.name} {row.driver.version} {row.driver.sha256[:12]}")
    _line(f"guest: {row.guest_label} (profile {row.profile})")
    _line(f"accelerator: {row.accelerator or 'none was chosen'}")
    _line(f"host: {detail.host['kernel']}, {detail.host['os']}, {detail.host['cpus']} processors")
    for name, key in detail.images.items():
        _line(f"image: {name} {key[:12]}")
    for key in detail.gates:
        _line(f"gate: {key}")
    for key in detail.plans:
        _line(f"nightly: {key}")
    failed = {failure.cell.test: failure for failure in detail.failures}
    for cell in detail.tests:
        if cell.outcome in (Outcome.PASSED, Outcome.SKIPPED):
            continue
        blame = f" ({cell.blame.value})" if cell.blame else ""
        _line(f"{cell.outcome.value}{blame} {cell.test}: {cell.message}")
        if cell.campaign is not None and cell.campaign.failed_seeds:
            seeds = ", ".join(str(seed) for seed in cell.campaign.failed_seeds[:5])
            _line(f"  seeds: {seeds}")
        if cell.test in failed:
            for crash in failed[cell.test].crashes:
                _line(f"  bucket {crash.bucket}: {crash.text}")
        if cell.evidence is not None:
            _line(f"  evidence: {Path(row.folder) / cell.evidence}")
    for trouble in row.troubles:
        _line(f"evidence unreadable: {trouble}")
    _line(f"folder: {row.folder} on {row.machine}")


def _counts(row: RunRow) -> str:
    return ", ".join(f"{count} {outcome}" for outcome, count in row.counts.items()) or "no tests"


def _pruned(one: Pruned, dry_run: bool) -> str:
    if not one.removed:
        return f"{one.run}: stays: {one.why}"
    word = "would be removed" if dry_run else "removed"
    return f"{one.run}: {word}, {size(one.bytes)}"


def _console() -> Console:
    return Console(highlight=False, soft_wrap=True)


def _cell(text: str) -> str:
    """Text of a run: it must not steer the terminal, nor the table it is in."""
    return escape(" ".join(visible(text).split()))


def _line(text: str) -> None:
    indent = len(text) - len(text.lstrip())
    _console().print(" " * indent + _cell(text))


def _print(document: dict[str, Any]) -> None:
    json.dump({"schema_version": SCHEMA_VERSION, **document}, sys.stdout, indent=2)
    sys.stdout.write("\n")


def _plain(value: Any) -> Any:
    """Plain values for JSON."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, Path) else value


def _run_json(row: RunRow) -> dict[str, Any]:
    return {**_plain(asdict(row)), "seconds": row.seconds}


def _detail_json(detail: RunDetail) -> dict[str, Any]:
    document: dict[str, Any] = _plain(asdict(detail))
    del document["row"]
    return {**_run_json(detail.row), **document}


def _bucket_json(one: BucketRow) -> dict[str, Any]:
    document: dict[str, Any] = _plain(asdict(one))
    return document


def _crash_json(one: CrashRow) -> dict[str, Any]:
    document: dict[str, Any] = _plain(asdict(one))
    return document
