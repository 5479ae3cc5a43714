"""``pvlab crash``: crash reports of any kind, in words and sorted."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from lab.cli import crash_kd
from lab.core.errors import UsageError
from lab.core.paths import results_dir
from lab.crash import buckets, bugchecks, labrun
from lab.crash import facts as facts_module
from lab.crash import signature as signatures
from lab.crash.buckets import Bucket, BucketStore, Put
from lab.crash.facts import CrashFact, Module
from lab.crash.incidents import incidents, silent
from lab.crash.reader import Findings, examine
from lab.crash.symbols import named, read_map

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Read crash reports, and sort them."
)
app.command()(crash_kd.kd)

Files = Annotated[
    list[Path],
    typer.Argument(
        metavar="FILE...",
        help="Dump, log, mail, archive, folder, or a folder of the lab's results.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON for programs.")]
StoreOption = Annotated[
    Path | None,
    typer.Option("--store", help="Folder of the buckets; crashes/ among the results if absent."),
]

#: Of a fact, in people's view; --json has all.
_FRAMES = 12
_LINES = 12
_MODULES = 12
_SKIPPED = 10


@app.command()
def show(
    files: Files,
    maps: Annotated[
        list[Path] | None,
        typer.Option("--map", help="Map file of a driver, for names in frames; several are taken."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what crash reports say: codes in words, modules, frames, last lines, sources."""
    known = [read_map(path) for path in maps or ()]
    read = [
        (path, found, [named(fact, known) for fact in found.facts])
        for path, found in ((path, examine(path)) for path in files)
    ]
    if as_json:
        _print_json(
            {
                "schema_version": 1,
                "files": [
                    {
                        "file": str(path),
                        "facts": [_fact_json(fact) for fact in facts],
                        "skipped": found.skipped,
                    }
                    for path, found, facts in read
                ],
            }
        )
        return
    console = _console()
    for path, found, facts in read:
        for number, fact in enumerate(facts, 1):
            title = f"{path}" + (f", {number} of {len(facts)}" if facts[1:] else "")
            console.rule(escape(title), align="left")
            _show(console, fact)
        _tell_skipped(path, found)


@app.command()
def bucket(
    files: Files,
    store: StoreOption = None,
    driver_build: Annotated[
        str | None,
        typer.Option(
            "--driver-build", help="Driver the crash happened with; known for the lab's own runs."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Put crashes into buckets by signature, and tell which known ones are much like them."""
    read = [(path, examine(path)) for path in files]
    target = _store(store)
    done: list[tuple[Path, Put]] = []
    for path, found in read:
        for report in found.reports:
            build = driver_build or report.build or _build_of(path)
            for fact in incidents(report.facts):
                # A test may fail without a crash; what its driver printed last is then no news.
                if not (report.of_test and silent(fact)):
                    done.append((path, target.put(fact, build=build)))
    if as_json:
        _print_json(
            {
                "schema_version": 1,
                "store": str(target.folder),
                "crashes": [_put_json(path, put) for path, put in done],
                "skipped": [line for _, found in read for line in found.skipped],
            }
        )
        return
    console = _console()
    for path, put in done:
        _show_put(console, path, put)
    if not done:
        console.print("no crash in it", markup=False)
    for path, found in read:
        _tell_skipped(path, found)


@app.command("buckets")
def list_buckets(store: StoreOption = None, as_json: AsJson = False) -> None:
    """List the buckets, the one seen last first."""
    target = _store(store)
    found = target.buckets()
    if as_json:
        _print_json(
            {
                "schema_version": 1,
                "store": str(target.folder),
                "buckets": [buckets.to_json(one) for one in found],
            }
        )
        return
    console = _console()
    if not found:
        console.print(f"no buckets in {target.folder}", markup=False)
        return
    for one in found:
        builds = f", with {_builds(one)}" if one.builds else ""
        console.print(
            f"{one.key}  {_crashes(one)}, {_span(one)}{builds}",
            markup=False,
        )
        console.print(f"  {one.signature.text()}", markup=False)


def _store(folder: Path | None) -> BucketStore:
    return BucketStore(folder if folder is not None else results_dir() / "crashes")


def _build_of(path: Path) -> str | None:
    """The driver build, where the report is of a run of the lab's."""
    for folder in (path, *path.resolve().parents[:3]):
        record = folder / labrun.RECORD if folder.is_dir() else folder
        if record.name == labrun.RECORD and record.is_file():
            try:
                return labrun.driver_build(record)
            except UsageError:
                return None
    return None


def _console() -> Console:
    return Console(highlight=False, soft_wrap=True)


def _print_json(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


def _fact_json(fact: CrashFact) -> dict[str, Any]:
    document = facts_module.to_json(fact)
    explained = bugchecks.explain(fact.code, fact.parameters) if fact.code is not None else []
    return document | {
        "explained": explained,
        "signature": signatures.to_json(signatures.signature(fact)),
    }


def _put_json(path: Path, put: Put) -> dict[str, Any]:
    return {
        "file": str(path),
        "bucket": put.bucket.key,
        "new": put.new,
        "counted": put.counted,
        "count": put.bucket.count,
        "signature": signatures.to_json(put.bucket.signature),
        "near": [
            {"bucket": one.bucket.key, "score": one.score, "reasons": list(one.reasons)}
            for one in put.near
        ],
    }


def _show(console: Console, fact: CrashFact) -> None:
    def line(text: str, name: str = "") -> None:
        source = fact.sources.get(name)
        # What a report holds must not steer the terminal.
        text = "".join(char if char.isprintable() else "?" for char in text)
        console.print(escape(text) + (f"  [dim]({escape(source.text())})[/dim]" if source else ""))

    if fact.code is not None:
        first, *rest = bugchecks.explain(fact.code, fact.parameters)
        line(first, "code")
        for one in rest:
            line(one)
    else:
        line(f"kind: {fact.kind}")
    if fact.name and (fact.code is None or fact.name != bugchecks.name(fact.code)):
        line(f"name: {fact.name}", "name")
    for label, name in (
        ("message", "message"),
        ("driver", "module"),
        ("process", "process"),
        ("system", "system"),
        ("when", "when"),
    ):
        if (value := getattr(fact, name)) is not None:
            line(f"{label}: {value}", name)
    if fact.registers:
        line("registers: " + " ".join(f"{k}={v:08x}" for k, v in fact.registers.items()),
             "registers")  # fmt: skip
    if fact.frames:
        line("frames:", "frames")
        for frame in fact.frames[:_FRAMES]:
            line(f"  {frame.text()}")
        _more(console, len(fact.frames) - _FRAMES, "frames")
    if fact.modules:
        line(f"modules: {len(fact.modules)}", "modules")
        telling = _telling(fact)
        for module in telling[:_MODULES]:
            line(f"  {_module(module)}")
        _more(console, len(fact.modules) - min(len(telling), _MODULES), "modules")
    if fact.log:
        line("last lines:", "log")
        for printed in fact.log[-_LINES:]:
            columns = (printed.seq, printed.time, printed.text)
            line("  " + " ".join(str(part) for part in columns if part is not None))
    for note in fact.notes:
        line(f"note: {note}")
    own = signatures.signature(fact)
    line(f"signature: {own.key} {own.text()}")


def _telling(fact: CrashFact) -> list[Module]:
    """The modules that matter: those of the frames, the blamed one, and PV drivers."""
    named = {signatures.module_name(one.module) for one in fact.frames if one.module}
    if fact.module:
        named.add(signatures.module_name(fact.module))

    def matters(module: Module) -> bool:
        name = signatures.module_name(module.name)
        return name in named or name.startswith("xen")

    found = [one for one in fact.modules if matters(one)]
    return found or list(fact.modules)


def _module(module: Module) -> str:
    words = [module.name]
    if module.start or module.end:
        words.append(f"{module.start:08x}-{module.end:08x}")
    if module.timestamp is not None:
        words.append(f"linked {module.timestamp:08x}")
    if module.version:
        words.append(module.version)
    if module.unloaded:
        words.append("unloaded")
    return " ".join(words)


def _more(console: Console, count: int, what: str) -> None:
    if count > 0:
        console.print(f"  {what}: {count} more", markup=False)


def _show_put(console: Console, path: Path, put: Put) -> None:
    one = put.bucket
    state = "new bucket" if put.new else "known bucket"
    again = "" if put.counted else ", this crash was counted before"
    console.print(
        f"{path}: {state} {one.key}, {_crashes(one)}{again}",
        markup=False,
    )
    console.print(f"  {one.signature.text()}", markup=False)
    console.print(f"  seen {_span(one)}"
                  + (f", with {_builds(one)}" if one.builds else ""), markup=False)  # fmt: skip
    for near in put.near:
        console.print(
            f"  like {near.bucket.key} ({near.score:.0%}): {'; '.join(near.reasons)}",
            markup=False,
        )


def _builds(one: Bucket) -> str:
    return ", ".join(f"{build} ({count})" for build, count in sorted(one.builds.items()))


def _crashes(one: Bucket) -> str:
    return "1 crash" if one.count == 1 else f"{one.count} crashes"


def _span(one: Bucket) -> str:
    return f"{one.first_seen:%Y-%m-%d %H:%M} to {one.last_seen:%Y-%m-%d %H:%M}"


def _tell_skipped(path: Path, found: Findings) -> None:
    for line in found.skipped[:_SKIPPED]:
        print(f"pvlab: {path}: not read: {line}", file=sys.stderr)
    if len(found.skipped) > _SKIPPED:
        more = len(found.skipped) - _SKIPPED
        print(f"pvlab: {path}: not read: {more} more, see --json", file=sys.stderr)
