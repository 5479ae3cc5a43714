"""``pvlab media``: what users bring, because it may not be shipped."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn
from rich.table import Table

from lab.media.kinds import WANTED, MediaKind, kind_named
from lab.media.store import MediaStore, Medium

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Installation media and programs that users bring.",
)

AsJson = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


@app.command()
def add(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", show_default=False)],
    meant: Annotated[
        str | None,
        typer.Option("--as", metavar="KIND", help="What it is meant to be; refused if it is not."),
    ] = None,
    json: AsJson = False,
) -> None:
    """Recognise media by their content and copy them into the store."""
    store = MediaStore()
    kind = kind_named(meant) if meant else None
    console = Console(stderr=True)
    added = []
    for path in paths:
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn())
        with Progress(
            *columns, console=console, transient=True, disable=json or not console.is_terminal
        ) as bar:
            task = bar.add_task(path.name, total=None)
            medium, new = store.add(
                path,
                kind=kind,
                progress=lambda done, size, bar=bar, task=task: bar.update(  # type: ignore[misc]
                    task, completed=done, total=size
                ),
            )
        added.append((medium, new))
        if not json:
            state = "added" if new else "was there"
            print(f"{path.name}: {medium.identity.title} [{medium.identity.kind}], {state}")
    if json:
        print(jsonlib.dumps([{**_json(medium), "new": new} for medium, new in added], indent=2))


@app.command("list")
def list_media(json: AsJson = False) -> None:
    """Show the media that were added, and what else the lab can use."""
    media = MediaStore().all()
    missing = [kind for kind in MediaKind if all(one.identity.kind is not kind for one in media)]
    if json:
        print(
            jsonlib.dumps(
                {
                    "schema_version": 1,
                    "media": [_json(one) for one in media],
                    "missing": [
                        {"kind": kind, "title": WANTED[kind].title, "source": WANTED[kind].source}
                        for kind in missing
                    ],
                },
                indent=2,
            )
        )
        return
    console = Console()
    table = Table(box=None, pad_edge=False)
    for title in ("kind", "what", "language", "MiB", "hash"):
        table.add_column(title, justify="right" if title == "MiB" else "left")
    for one in media:
        language = one.identity.facts.get("language", "")
        size = f"{one.size / (1 << 20):.1f}"
        table.add_row(one.identity.kind, escape(one.identity.title), language, size, one.short)
    if media:
        console.print(table)
    if missing:
        console.print("not there:" if media else "no media yet; the lab can use:")
    for kind in missing:
        wanted = WANTED[kind]
        console.print(f"  {kind}: {wanted.title}; from: {wanted.source}", markup=False)


@app.command("rm")
def remove(
    prefix: Annotated[str, typer.Argument(metavar="HASH", help="Or its beginning.")],
) -> None:
    """Remove a medium from the store."""
    medium = MediaStore().remove(prefix)
    print(f"{medium.identity.title}: {medium.size >> 20} MiB freed")


def _json(medium: Medium) -> dict[str, object]:
    return {**medium.model_dump(mode="json"), "path": str(MediaStore().content(medium))}
