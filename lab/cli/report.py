"""``pvlab report site`` and ``pvlab serve``: what the lab found, as pages."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from lab.core.errors import UsageError
from lab.core.paths import results_dir

FOLDER = "site"
"""The site's folder among the results."""

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Pages about results.")

OutOption = Annotated[
    Path | None,
    typer.Option("--out", help="Folder of the site; site/ among the results if left out."),
]


@app.callback()
def report() -> None:
    """Pages about results."""


@app.command()
def site(
    out: OutOption = None,
    db: Annotated[
        str | None,
        typer.Option(
            "--db",
            metavar="URL",
            help="SQLite file, or postgresql://...; PVLAB_DB, or results.db among the results.",
        ),
    ] = None,
    nights: Annotated[
        int, typer.Option("--nights", min=1, max=1000, help="The last so many nights.")
    ] = 100,
    as_is: Annotated[
        bool,
        typer.Option("--as-is", help="Show what the store has; import no run folders before."),
    ] = False,
    made_up: Annotated[
        bool,
        typer.Option("--made-up", help="Show made-up nights instead, to see what pages look like."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON for programs.")] = False,
) -> None:
    """Write the results site: a folder of pages that need no server."""
    # Imported late: the database's libraries and the charts take a while to load.
    from lab.site.build import write

    target = out if out is not None else results_dir() / FOLDER
    started = time.monotonic()
    if made_up:
        if out is None:
            raise UsageError("--made-up needs --out", hint="it is nothing to keep among results")
        from lab.site.madeup import make

        with tempfile.TemporaryDirectory(prefix="pvlab-") as scratch:
            count = write(make(Path(scratch), nights=nights), target, progress=_say)
    else:
        from lab.results.store import Became, import_results, open_store
        from lab.site.load import load

        results = results_dir()
        with open_store(db) as store:
            if not as_is and results.is_dir():
                for one in import_results(store, [results]):
                    if one.became is Became.DAMAGED:
                        _say(f"left out: {'; '.join(one.troubles)}")
            count = write(load(store, results, nights=nights, progress=_say), target, progress=_say)
    first = target.resolve() / "index.html"
    if as_json:
        told = {
            "schema_version": 1,
            "pages": count,
            "index": str(first),
            "seconds": round(time.monotonic() - started, 1),
        }
        print(json.dumps(told, indent=2))
    else:
        print(f"{count} pages: {first}")


def serve(
    out: OutOption = None,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="0 for any that is free.")
    ] = 8357,
) -> None:
    """Serve the results site on this machine's loopback, until interrupted."""
    from lab.site.serve import SiteServer

    results = results_dir()
    with SiteServer(out if out is not None else results / FOLDER, results, port) as server:
        print(server.url, flush=True)
        server.serve_forever()


def _say(line: str) -> None:
    print(f"pvlab: {line}", file=sys.stderr, flush=True)
