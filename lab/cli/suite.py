"""Running the driver tests: pytest in a child process, with the plugin.

A child of its own so that a crash of the tests' process is an exit code here, and so that
the tests run exactly as they do for a user who types ``pytest``.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from lab.core.errors import LabBroken, UsageError
from lab.core.paths import repo_root, results_dir
from lab.results.folder import new_run_id
from lab.suite.intensity import Level

PLUGIN = "lab.plugin.plugin"

UNTOUCHED = (pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.NO_TESTS_COLLECTED)
"""pytest ended before a test could run, because of what it was asked for."""

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

INTERACTIVE = frozenset({"--pdb", "--trace"})
"""Options of pytest that make it read from the terminal."""


@dataclass(frozen=True)
class SuiteRequest:
    """What to run.

    Attributes:
        driver: package under test; ``None`` for the profile's own.
        profile: name of a profile; ``None`` for the default.
        config: a ``lab.toml``; ``None`` for the usual search.
        accel: accelerator; ``None`` to choose.
        tests: files, folders or node ids; the driver suite when empty.
        keyword: pytest's ``-k`` expression; empty for all.
        stop_at_first: whether the first failure ends the run.
        extra: more arguments for pytest, as they are.
        results: folder of the runs' folders.
        quiet: whether pytest's output goes to stderr, to keep stdout for JSON.
        intensity: how much the tests do.
        workers: processes that run tests side by side.
        seed: of the one attempt that each race makes; ``None`` for whole campaigns.
        errata: folder of errata files; ``None`` for the published drivers'.
        baseline: package that the turns of ``plan`` compare the driver with.
        plan: file with the turns to run; ``None`` to run every test once.
        core: whether the memory of a guest that crashed is kept.
        as_ordered: whether workers take the tests in the order given, rather than in one that
            lets them end together.
        before: words of a command that runs the child process, before its own.
    """

    driver: Path | None = None
    profile: str | None = None
    config: Path | None = None
    accel: str | None = None
    tests: Sequence[str] = ()
    keyword: str = ""
    stop_at_first: bool = False
    extra: Sequence[str] = ()
    results: Path = field(default_factory=results_dir)
    quiet: bool = False
    intensity: Level = Level.STANDARD
    workers: int = 1
    seed: int | None = None
    errata: Path | None = None
    baseline: Path | None = None
    plan: Path | None = None
    core: bool = True
    as_ordered: bool = False
    before: Sequence[str] = ()

    def command(self, run_id: str) -> list[str]:
        """The command line of the child process."""
        command = [*self.before, *pytest_command()]
        options = {
            "driver": self.driver,
            "profile": self.profile,
            "config": self.config,
            "accel": self.accel,
            "results": self.results,
            "run-id": run_id,
            "intensity": self.intensity.value,
            "seed": self.seed,
            "errata": self.errata,
            "baseline": self.baseline,
            "plan": self.plan,
            "core": None if self.core else "no",
            "order": "given" if self.as_ordered else None,
        }
        given = {name: value for name, value in options.items() if value not in (None, "")}
        command += [f"--pvlab-{name}={value}" for name, value in given.items()]
        if self.workers > 1:
            # One test at a time to whoever is free: the order that the plugin makes is for that.
            command += ["-n", str(self.workers), "--dist=load", "--maxschedchunk=1"]
        if self.keyword:
            command += ["-k", self.keyword]
        if self.stop_at_first:
            command.append("--maxfail=1")
        return [*command, *self.extra, *(self.tests or [str(driver_suite())])]


@dataclass(frozen=True)
class SuiteResult:
    """How a run of the suite ended.

    Attributes:
        exit_code: pytest's.
        folder: the run's folder.
    """

    exit_code: int
    folder: Path

    @property
    def run_file(self) -> Path:
        """The run's record, for programs."""
        return self.folder / "run.json"

    @property
    def report(self) -> Path:
        """The run's report, for people."""
        return self.folder / "report.html"


def pytest_command() -> list[str]:
    """How pytest is started with the plugin."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
    if not entry_points(group="pytest11", name="pvlab"):
        # A checkout that was not installed: nothing loads the plugin by itself.
        command += ["-p", PLUGIN]
    return command


def driver_suite() -> Path:
    """The folder of the tests that every driver package is judged by."""
    return repo_root() / "tests" / "drivers"


def run_suite(request: SuiteRequest, *, label: str = "", run_id: str | None = None) -> SuiteResult:
    """Run the tests and wait for them.

    An interrupt reaches the child too; it cleans up and writes its record before this
    returns by ``KeyboardInterrupt``.

    Args:
        request: what to run.
        label: word that the run's folder gets, for people.
        run_id: the folder's name; made of the time and the label when ``None``.

    Raises:
        UsageError: pytest refused its arguments, or no test matches.
        LabBroken: the child could not be started, or left no record.
        KeyboardInterrupt: after the child has ended.
    """
    run_id = run_id or "-".join(part for part in (new_run_id(), label) if part)
    sys.stdout.flush()
    try:
        with _interruptible():
            child = subprocess.Popen(
                request.command(run_id),
                stdout=sys.stderr if request.quiet else None,
                # A group of its own, so that the terminal's interrupt comes once, from here. A
                # debugger has to stay in the group that may read the terminal.
                process_group=None if INTERACTIVE.intersection(request.extra) else 0,
            )
    except OSError as error:
        raise LabBroken(f"the tests could not be started: {error}") from error
    code = _wait(child)
    result = SuiteResult(code, request.results / run_id)
    if code in UNTOUCHED:
        raise UsageError(
            "no test was run: "
            + (
                "nothing matches" if code == pytest.ExitCode.NO_TESTS_COLLECTED else "bad arguments"
            ),
            hint="see the message above",
        )
    if not result.run_file.is_file():
        raise LabBroken(
            f"the tests left no record in {result.folder} (pytest exited {code})",
            hint="none of the chosen tests uses the lab, or their process was killed",
        )
    return result


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Processes started in here can be interrupted, even where this one was told to ignore it,
    as shells do with what they start in the background."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _wait(child: subprocess.Popen[bytes]) -> int:
    """Wait for the child; what would end this process interrupts the child instead."""

    def interrupt(signum: int, frame: object) -> None:
        # The child holds the machines, so it is asked and waited for; asked again, it drops
        # what it was tidying up.
        child.send_signal(signal.SIGTERM if asked else signal.SIGINT)
        asked.append(signum)

    asked: list[int] = []
    previous = {
        signum: signal.signal(signum, interrupt)
        for signum in STOP_SIGNALS
        if signal.getsignal(signum) is not signal.SIG_IGN
    }
    try:
        code = child.wait()
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
    if asked or code == pytest.ExitCode.INTERRUPTED:
        raise KeyboardInterrupt
    return code
