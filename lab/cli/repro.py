"""``pvlab repro``: from a crash report to a scenario that shows the crash again.

Exit codes: 0 reproduced, 1 not reproduced within the budget (whether the driver failed in other
ways or not), 2 bad input, 3 the lab failed.
"""

from __future__ import annotations

import itertools
import json as json_module
import os
import re
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from lab.cli.errors import say, terminable
from lab.cli.options import (
    STDOUT,
    AccelOption,
    ConfigOption,
    JsonFile,
    ProfileOption,
)
from lab.cli.scenario import outcome_json
from lab.config.load import load_profile
from lab.core.deadline import Deadline
from lab.core.errors import ExitCode, UsageError
from lab.core.paths import results_dir
from lab.crash.signature import signature
from lab.crash.signature import to_json as signature_json
from lab.drivers.package import DriverPackage
from lab.scenario.bundle import SCENARIO, write_bundle
from lab.scenario.minimise import CUT_SHARE, Minimal, minimise
from lab.scenario.model import AnyStep, Scenario
from lab.scenario.outcome import Outcome
from lab.scenario.pytest_file import write_test
from lab.scenario.rate import Rate, rate
from lab.scenario.repro import Bench, Different, Report, Search, Wanted, read_report, search
from lab.scenario.text import dumps, outline, plain
from lab.scenario.workers import Workers
from lab.suite.balance import available_mib, check_memory, fitting

NOT_REPRODUCED = 1
"""Exit code when the budget ended first; bad input and the lab's failures have their own."""

DEFAULT_BUDGET = "30m"

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_SHOWN = 5


def duration(text: str) -> float:
    """Seconds of ``90s``, ``30m``, ``1.5h`` or ``1h30m``.

    Raises:
        UsageError: it is none.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)([smh])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise UsageError(f"{text!r} is no length of time", hint="such as 90s, 30m or 1h30m")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if not 0 < seconds < 366 * 24 * 3600:
        raise UsageError(f"{text!r} is no length of time that can be waited for")
    return seconds


def repro(
    report: Annotated[
        Path,
        typer.Argument(
            metavar="REPORT",
            help="Dump, log, mail, folder, zip, a folder of results, a scenario or a bundle.",
        ),
    ],
    driver: Annotated[
        Path | None,
        typer.Option(
            "--driver",
            help="Driver package: a folder or a .zip; else what the report brings with it (a run "
            "keeps the driver that it tested), else the profile's own.",
        ),
    ] = None,
    budget: Annotated[str, typer.Option(help="How long to try: 90s, 30m, 2h.")] = DEFAULT_BUDGET,
    minimal: Annotated[
        bool, typer.Option("--minimise/--no-minimise", help="Cut down what was found.")
    ] = True,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for what is made of it.")
    ] = None,
    profile: ProfileOption = None,
    config: ConfigOption = None,
    accel: AccelOption = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "-n",
            "--workers",
            min=1,
            help="Attempts that run side by side, a clone each; as many as fit if left out.",
        ),
    ] = None,
    json: JsonFile = None,
) -> int:
    """Make a crash report's crash happen again: exit 0 reproduced, 1 not within the budget.

    What is found is cut down and written as a scenario, as a test for the suite, and as a bundle
    that runs on another machine: pvlab scenario run bundle.zip.
    """
    from lab.scenario.stand import open_stand

    seconds = duration(budget)
    count = _workers(workers)
    console = Console(stderr=json == STDOUT, highlight=False, soft_wrap=True)
    with ExitStack() as stack:
        stack.enter_context(terminable())
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pvlab-")))
        read = read_report(report, scratch)
        for line in read.words:
            console.print(line, markup=False)
        wanted = Wanted.of_report(read)
        console.print(f"looked for: {wanted.words}", markup=False)
        chosen = load_profile(profile, config)
        package = driver or read.driver or chosen.driver
        if package is None:
            raise UsageError("no driver package to try", hint="name one: --driver PATH")
        stand = stack.enter_context(open_stand(chosen, package, accel=accel, say=say))
        console.print(f"attempts at the same time: {count}", markup=False)
        deadline = Deadline(seconds)

        def left() -> bool:
            return not deadline.expired

        def share(part: float) -> Callable[[], bool]:
            own = deadline.at_most(deadline.remaining * part)
            return lambda: not own.expired

        cut: Minimal | None = None
        shown: dict[tuple[AnyStep, ...], Outcome] = {}
        # Closed before the stand is: what works there has ended by then.
        with Workers(count) as pool:
            bench = Bench(stand.attempt, say, pool.in_order)
            found = search(read, bench, left=left, say=say, share=share if minimal else None)
            if found.found is not None and found.outcome is not None and minimal and left():
                cut = minimise(
                    found.found.scenario,
                    bench.trial(
                        Wanted.of_outcome(found.outcome),
                        lambda scenario, outcome: shown.setdefault(scenario.steps, outcome),
                    ),
                    found.baseline,
                    left=left,
                    cutting=share(CUT_SHARE),
                    say=say,
                    in_order=pool.in_order,
                )
        _show(console, found, cut)
        folder: Path | None = None
        if found.found is not None and found.outcome is not None:
            scenario = cut.scenario if cut else found.found.scenario
            # Its own, which names its own steps; the whole one's if nothing smaller holds.
            outcome = shown.get(scenario.steps, found.outcome)
            scenario = stand.described(
                scenario,
                title=scenario.about.title or _title(found),
                origin=f"{Path(read.source).name}, {found.found.name}",
                outcome=outcome.line,
            )
            folder = output or results_dir() / f"repro-{datetime.now():%Y%m%d-%H%M%S}"
            fails = rate(cut.tally) if cut else found.rate()
            _write(folder, scenario, stand.package, outcome, fails)
            console.print(f"written to {folder}", markup=False)
        if json is not None:
            _write_json(json, read, found, cut, folder, count)
    return int(ExitCode.PASS) if found.found is not None else NOT_REPRODUCED


def _workers(asked: int | None) -> int:
    """How many attempts may be under way.

    Raises:
        UsageError: more than there is memory for.
    """
    free = available_mib()
    if asked is None:
        return fitting(free, len(os.sched_getaffinity(0)))
    check_memory(asked, free)
    return asked


def _title(found: Search) -> str:
    assert found.outcome is not None  # noqa: S101 - asked for what was found only
    return f"{found.outcome.end.value} at {found.outcome.at.partition(', ')[2] or 'the end'}"


def _show(console: Console, found: Search, cut: Minimal | None) -> None:
    colour = "green" if found.found is not None else "yellow"
    console.print(found.words, style=colour, markup=False)
    if found.found is not None and found.outcome is not None:
        console.print(f"  by {found.found.name}", markup=False)
        console.print(f"  {found.outcome.line}", markup=False)
        if found.match is not None and found.wanted.signatures:
            why = "; ".join(found.match.reasons[:3])
            console.print(f"  {found.match.score:.0%} like the report: {why}", markup=False)
    if found.found is None:
        _show_different(console, found)
    if cut is None:
        return
    state = "validated" if cut.validated else "not validated: the budget ended"
    if cut.validated and not cut.finished:
        state += ", not every cut was tried: the budget ended"
    console.print(
        f"cut down in {cut.runs} runs, {state}, fails in {rate(cut.tally).words}:", markup=False
    )
    for line in outline(cut.scenario):
        console.print(f"  {line}", markup=False)


def _show_different(console: Console, found: Search) -> None:
    """Each other failure once, the nearest first."""
    by_line: dict[str, list[Different]] = {}
    for one in found.different:
        facts = one.outcome.facts
        line = signature(facts[0]).text() if facts else one.outcome.line
        by_line.setdefault(line, []).append(one)
    for line, ones in itertools.islice(by_line.items(), _SHOWN):
        console.print(f"  different, seen {len(ones)} times: {line}", markup=False)
        console.print(
            f"    {ones[0].match.score:.0%} like the report, by {ones[0].candidate.name}",
            markup=False,
        )


def _write(
    folder: Path, scenario: Scenario, package: DriverPackage, outcome: Outcome, fails: Rate
) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / SCENARIO).write_text(dumps(scenario), encoding="utf-8")
        (folder / "test_repro.py").write_text(write_test(scenario, fails), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written: {error.strerror}") from None
    write_bundle(folder / "bundle.zip", scenario, package=package, facts=outcome.facts)


def _write_json(
    file: Path,
    read: Report,
    found: Search,
    cut: Minimal | None,
    folder: Path | None,
    workers: int,
) -> None:
    def figures(one: Rate) -> dict[str, Any]:
        return {
            "failures": one.failures,
            "attempts": one.attempts,
            "low": one.low,
            "high": one.high,
            "confidence": one.confidence,
        }

    document: dict[str, Any] = {
        "schema_version": 1,
        "report": read.source,
        "wanted": [signature_json(one) for one in found.wanted.signatures],
        "reproduced": found.found is not None,
        "workers": workers,
        "attempts": found.attempts,
        "rate": figures(found.rate()),
        "by": found.found.name if found.found else None,
        "outcome": outcome_json(found.outcome) if found.outcome else None,
        "likeness": found.match.score if found.match else None,
        "different": [
            {
                "by": one.candidate.name,
                "likeness": one.match.score,
                "reasons": list(one.match.reasons),
                "outcome": outcome_json(one.outcome),
            }
            for one in found.different
        ],
        "minimal": None
        if cut is None
        else {
            "steps": [plain(step) for step in cut.scenario.steps],
            "validated": cut.validated,
            "finished": cut.finished,
            "runs": cut.runs,
            "rate": figures(rate(cut.tally)),
        },
        "folder": str(folder) if folder else None,
    }
    text = json_module.dumps(document, indent=2) + "\n"
    if file == STDOUT:
        sys.stdout.write(text)
        return
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{file}: cannot be written: {error.strerror}") from None
