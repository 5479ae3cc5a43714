"""``pvlab bisect``: which of a row of driver builds brought a defect.

Exit codes: 0 the build is found, 1 the defect is not one that came between the two builds, 2 bad
input, 3 not found: the lab failed, or the runs did not suffice.
"""

from __future__ import annotations

import hashlib
import json as json_module
import re
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from lab.cli.options import AccelOption, ConfigOption, ProfileOption
from lab.cli.suite import SuiteRequest, run_suite
from lab.config.load import load_profile
from lab.core.errors import Blame, ExitCode, LabBroken, UsageError
from lab.core.paths import results_dir
from lab.results.record import Outcome, RunRecord, Status
from lab.results.writer import load_run
from lab.suite.intensity import Level

if TYPE_CHECKING:
    from lab.bisect.builds import Build, Make
    from lab.bisect.state import Run, State

STATE_NAME = "bisect.json"
"""In the results folder: what is known so far."""

SCENARIOS = (".yaml", ".yml")

Observe = Callable[["Build", Path], "Run"]
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Limits:
    """When to give up.

    Attributes:
        most: runs.
        lost: runs in a row that say nothing.
    """

    most: int
    lost: int


def bisect(
    good: Annotated[str, typer.Option("--good", help="Build without the defect.")],
    bad: Annotated[str, typer.Option("--bad", help="Later build with it.")],
    builds: Annotated[
        Path,
        typer.Option(
            "--builds",
            help="Folder with a driver package for each build; with --build-command, a file "
            "with a name for each, one a line.",
        ),
    ],
    test: Annotated[
        str, typer.Option("--test", help="Node id of the test that fails, or a scenario's file.")
    ],
    says: Annotated[
        str,
        typer.Option(
            "--says", metavar="REGEX", help="What its message says; other failures are ignored."
        ),
    ] = "",
    order: Annotated[
        str, typer.Option("--order", help="Order of the folder's builds: name or version.")
    ] = "name",
    build_command: Annotated[
        str | None,
        typer.Option(
            "--build-command",
            metavar="COMMAND",
            help="Makes the package of {build} in the folder {out}.",
        ),
    ] = None,
    confidence: Annotated[
        float, typer.Option("--confidence", min=0.5, max=0.9999, help="Of the answer.")
    ] = 0.95,
    most: Annotated[int, typer.Option("--most", min=1, help="Runs after which to give up.")] = 1000,
    retries: Annotated[
        int, typer.Option("--retries", min=0, help="Runs in a row that the lab may lose.")
    ] = 5,
    state: Annotated[
        Path | None,
        typer.Option("--state", help="File with what is known; bisect.json in the results."),
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Forget what is known.")] = False,
    json: Annotated[bool, typer.Option("--json", help="The result as JSON on stdout.")] = False,
    profile: ProfileOption = None,
    config: ConfigOption = None,
    accel: AccelOption = None,
    intensity: Annotated[
        Level, typer.Option("--intensity", envvar="PVLAB_INTENSITY", help="How much the test does.")
    ] = Level.STANDARD,
) -> int:
    """Find the build that brought a defect, even one that shows only sometimes."""
    # Imported late: it brings numerics that few commands need.
    from lab.bisect.builds import Order, between, builds_in, builds_named, maker, packaged
    from lab.bisect.state import Question, State, load_state

    load_profile(profile, config)
    if order not in tuple(Order):
        raise UsageError(f"--order: name or version, not {order!r}")
    try:
        pattern = re.compile(says)
    except re.error as error:
        raise UsageError(f"--says: not a regular expression: {error}") from None
    make: Make = packaged
    if build_command is None:
        row = builds_in(builds, Order(order))
    else:
        make, row = maker(build_command), builds_named(builds)
    row = between(row, good, bad)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pvlab-bisect-")))
        tests, test_sha256 = _test(test, folder)
        question = Question(
            builds=tuple(build.name for build in row),
            test=test,
            test_sha256=test_sha256,
            says=says,
            confidence=confidence,
            intensity=intensity.value,
        )
        file = state or results_dir() / STATE_NAME
        known = State(question=question) if restart else load_state(file, question)
        # What is known of a release would hide the very failure that is looked for.
        errata = folder / "errata"
        errata.mkdir()

        def observe(build: Build, package: Path) -> Run:
            request = SuiteRequest(
                driver=package,
                profile=profile,
                config=config,
                accel=accel,
                tests=tests,
                quiet=True,
                intensity=intensity,
                errata=errata,
                # Which build fails is asked, not what it dies of.
                core=False,
            )
            return _observe(build, request, pattern)

        console = Console(stderr=json, highlight=False, soft_wrap=True)
        known = search(
            known,
            row,
            make,
            observe,
            file,
            limits=Limits(most=most, lost=retries),
            say=lambda line: console.print(line, markup=False),
        )
    if json:
        sys.stdout.write(json_module.dumps(known.model_dump(mode="json"), indent=2) + "\n")
    return int(show(known, file, console))


def search(
    state: State,
    row: list[Build],
    make: Make,
    observe: Observe,
    file: Path,
    *,
    limits: Limits,
    say: Say,
) -> State:
    """Run builds until it is known which is the first bad one.

    Args:
        state: what is known already.
        row: the builds, in order.
        make: gives a build's package.
        observe: runs the test on one.
        file: where the state is kept.
        limits: when to give up.
        say: told in lines what happens.

    Returns:
        The state, with its conclusion if there is one.

    Raises:
        UsageError: the state cannot be written, or the test cannot be run.
        KeyboardInterrupt: the state is as it was after the last run.
    """
    from lab.bisect.builds import Untestable, check
    from lab.bisect.search import Found
    from lab.bisect.state import Run, Seen, write_state

    if state.runs:
        say(f"going on after {len(state.runs)} runs: {file}")
    say(f"{len(row)} builds, from {row[0].name} to {row[-1].name}")
    looking, lost = state.search(), 0
    while (number := looking.next()) is not None and len(state.runs) < limits.most:
        build = row[number]
        with tempfile.TemporaryDirectory(prefix="pvlab-build-") as out:
            try:
                package = make(build, Path(out))
                identity = check(package)
                _unchanged(state, build, identity)
                run = observe(build, package).model_copy(update={"package": identity})
            except Untestable as error:
                run = Run(build=build.name, seen=Seen.UNTESTABLE, message=error.why)
        state = state.plus(run)
        write_state(state, file)
        looking = state.search()
        answer = looking.answer
        likely = row[min(answer.first, len(row) - 1)].name
        said = f": {run.message}" if run.message else ""
        say(
            f"[{len(state.runs)}] {build.name}: {run.seen.value}{said}; most likely {likely} "
            f"({answer.probability:.0%})"
        )
        lost = lost + 1 if run.seen is Seen.LOST else 0
        if lost > limits.lost:
            say(f"given up: {lost} runs in a row said nothing")
            break
    answer = looking.answer
    if answer.found is not Found.OPEN:
        state = state.concluded(answer, looking.bad_rate)
        write_state(state, file)
    return state


def show(state: State, file: Path, console: Console) -> ExitCode:
    """Print what a bisection came to, and say how to exit."""
    from lab.bisect.search import Found
    from lab.bisect.state import Seen
    from lab.scenario.rate import rate

    found = state.conclusion
    lost = sum(run.seen is Seen.LOST for run in state.runs)
    runs = f"{len(state.runs)} runs" + (f", {lost} of them lost" if lost else "")
    if found is None:
        console.print(f"not found in {runs}", style="yellow", markup=False)
        console.print(f"  to go on: the same command; what is known: {file}", markup=False)
        return ExitCode.LAB_BROKEN
    sure = f"{found.probability:.1%}"
    if found.found is not Found.CULPRIT:
        name = state.question.builds[0 if found.found is Found.GOOD_FAILS else -1]
        console.print(f"{found.found.value}: {name} ({sure}, {runs})", style="red", markup=False)
        return ExitCode.DRIVER_FAILED
    which = found.first if found.first == found.last else f"one of {found.first} to {found.last}"
    console.print(f"first bad build: {which} ({sure}, {runs})", style="green", markup=False)
    search = state.search()
    builds = state.question.builds
    edge = builds.index(found.first)
    for number in range(max(0, edge - 2), min(len(builds), builds.index(found.last) + 2)):
        tally = search.tally(number)
        if tally.attempts:
            console.print(f"  {builds[number]}: failed {rate(tally).words}", markup=False)
    console.print(f"  bad builds fail about {found.bad_rate:.0%} of the runs", markup=False)
    console.print(f"  log: {file}", markup=False)
    return ExitCode.PASS


def _observe(build: Build, request: SuiteRequest, pattern: re.Pattern[str]) -> Run:
    from lab.bisect.state import Run, Seen

    slug = re.sub(r"[^A-Za-z0-9.]+", "-", build.name).strip("-.")[:40] or "build"
    try:
        result = run_suite(request, label=f"bisect-{slug}")
        record = load_run(result.folder)
    except LabBroken as error:
        return Run(build=build.name, seen=Seen.LOST, message=error.message)
    seen, message = seen_in(record, pattern)
    return Run(
        build=build.name,
        seen=Seen(seen),
        message=" ".join(message.split()),
        run_id=record.run_id,
    )


def seen_in(record: RunRecord, pattern: re.Pattern[str]) -> tuple[str, str]:
    """What a run says of the defect: ``passed``, ``failed`` or ``lost``, and why.

    Args:
        record: of the run.
        pattern: what the message of a failure has to match to be the defect's.
    """
    from lab.gate.verdict import verdict

    failed = [t for t in record.tests if t.outcome.bad and t.blame is Blame.DRIVER]
    mine = [test for test in failed if pattern.search(test.message)]
    if mine:
        return "failed", mine[0].message
    if failed:
        return "lost", f"another failure: {failed[0].message}"
    judged = verdict(record)
    passed = any(test.outcome is Outcome.PASSED for test in record.tests)
    if judged.status is Status.PASS and passed:
        return "passed", ""
    return "lost", judged.reasons[0] if judged.reasons else judged.status.value


def _test(test: str, folder: Path) -> tuple[tuple[str, ...], str]:
    """What pytest is told to run, and the hash of what that is made of, if it is a scenario."""
    path = Path(test)
    if path.suffix.lower() not in SCENARIOS:
        return (test,), ""
    from lab.scenario.bundle import load_any
    from lab.scenario.pytest_file import write_test
    from lab.scenario.rate import rate
    from lab.suite.sequential import Tally

    loaded = load_any(path, folder)
    suite = folder / "suite"
    suite.mkdir()
    source = write_test(loaded.scenario, rate(Tally()))
    file = suite / "test_scenario.py"
    file.write_text(source, encoding="utf-8")
    names = re.findall(r"^def (test_\w+)\(", source, re.MULTILINE)
    digest = hashlib.sha256(source.encode()).hexdigest()
    # By name: what is named is run at every intensity.
    return tuple(f"{file}::{name}" for name in names), digest


def _unchanged(state: State, build: Build, identity: str) -> None:
    """Refuse a package that is not the one that was run before under its name.

    Raises:
        UsageError: it is another; a package that is made anew each time may differ.
    """
    if build.path is None:
        return
    before = {run.package for run in state.runs if run.build == build.name and run.package}
    if before - {identity}:
        raise UsageError(
            f"{build.path}: not the package that was run before", hint="--restart begins anew"
        )
