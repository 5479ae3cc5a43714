"""A session's run: in this process, or, with pytest-xdist, in several.

The controller of a distributed session collects nothing; its workers do, and only they know
whether a test uses the lab. So the controller names the run before it is sure that there is
one, a worker whose tests use the lab leaves a note of it, and the controller starts the run
when the first worker has collected, before any test is given out. Workers have places, and
write evidence into the run's folder; everything else is written by the controller.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lab.core.errors import PvlabError, UsageError
from lab.core.paths import runtime_dir
from lab.plugin.keys import EXPECTED, RUN, WORKPLACE, tests_driver
from lab.plugin.options import SETTINGS, settings
from lab.plugin.telling import introduce, say_past_capture
from lab.suite.balance import available_mib, check_memory, spread

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController  # type: ignore[import-untyped]

    from lab.plugin.run import Run

FOLDER, NOTE = "pvlab_folder", "pvlab_note"
"""What a worker is told: the run's folder, and the file to leave its note in."""

REFUSED: pytest.StashKey[UsageError] = pytest.StashKey()
"""In a worker's config: what is wrong with what the user asked for."""

READY: pytest.StashKey[dict[str, int]] = pytest.StashKey()
"""In the controller's config: the workers that have collected tests that use the lab, and
still run; their process ids by name."""


@dataclass(frozen=True, slots=True)
class Note:
    """What a worker says of its tests; all workers have the same ones.

    Attributes:
        pid: the worker's process.
        refused: what is wrong with what the user asked for; empty when nothing is.
        hint: what to do about it.
        driver_wanted: whether a test uses the driver under test.
        tests: those that use the lab, by id.
        seconds: what they take at most, one after the other.
    """

    pid: int
    refused: str = ""
    hint: str = ""
    driver_wanted: bool = False
    tests: tuple[str, ...] = ()
    seconds: float = 0.0


class Order:
    """A plugin of workers: tests in the order that lets all workers end together."""

    @pytest.hookimpl(trylast=True)  # deselection and reordering by fixtures come before
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Put the longest first, if any of them uses the lab."""
        # A plan is an order already.
        asked = settings(config)
        ordered = asked.plan is not None or not asked.balanced
        if not ordered and any(EXPECTED in item.stash for item in items):
            workers = int(config.workerinput["workercount"])  # type: ignore[attr-defined]
            items[:] = spread(items, lambda item: item.stash.get(EXPECTED, 0.0), workers)


def start_run(
    config: pytest.Config, *, driver_wanted: bool, tests: Sequence[str], workers: int = 1
) -> Run:
    """Start the run that this session records.

    Args:
        config: of the session.
        driver_wanted: whether a test uses the driver under test.
        tests: those that use the lab, by id.
        workers: processes that run them.

    Raises:
        pytest.UsageError: the user asked for what cannot be.
        pytest.exit.Exception: the lab cannot run at all.
    """
    from lab.plugin.junit import start_junit
    from lab.plugin.run import Run

    try:
        run = Run(config, driver_wanted=driver_wanted, tests=tests, workers=workers)
    except UsageError as error:
        raise pytest.UsageError(f"pvlab: {error}") from None
    except PvlabError as error:
        pytest.exit(f"pvlab: {error}", returncode=int(error.exit_code))
    config.stash[RUN] = run
    config.pluginmanager.register(run, "pvlab-run")
    start_junit(config, run.junit)
    return run


def start_worker(config: pytest.Config, mine: Sequence[pytest.Item]) -> None:
    """Start a worker's part, and leave the note.

    Args:
        config: of the worker's session.
        mine: its tests that use the lab.
    """
    from lab.plugin.known import expect
    from lab.plugin.workplace import Workplace

    told: dict[str, str] = config.workerinput  # type: ignore[attr-defined]
    driver_wanted = any(tests_driver(item) for item in mine)
    refused = config.stash.get(REFUSED, None)
    if refused is None and FOLDER in told:
        try:
            workplace = Workplace(config, lambda settings: Path(told[FOLDER]))
            config.stash[WORKPLACE] = workplace
            if driver_wanted:
                expect(mine, workplace.errata_for)
        except PvlabError:
            pass  # The controller meets it too, and tells it once, before it gives out tests.
    note = Note(
        pid=os.getpid(),
        refused=refused.message if refused is not None else "",
        hint=refused.hint if refused is not None else "",
        driver_wanted=driver_wanted,
        tests=tuple(item.nodeid for item in mine),
        seconds=sum(item.stash.get(EXPECTED, 0.0) for item in mine),
    )
    path = Path(told[NOTE])
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(note)), encoding="utf-8")


def brief(node: WorkerController) -> None:
    """Tell a worker about the run: called in the controller, before the worker starts."""
    from lab.results.folder import new_run_id

    config = node.config
    session = str(node.workerinput["testrunuid"])
    node.workerinput[NOTE] = str(runtime_dir() / f"notes-{session}" / f"{node.gateway.id}.json")
    # What cannot be read is told when it turns out that tests use the lab.
    with contextlib.suppress(UsageError):
        asked = settings(config)
        if asked.run_id is None:
            # Every worker has to be told the same name, those that are started later too.
            asked = config.stash[SETTINGS] = replace(asked, run_id=new_run_id())
        node.workerinput[FOLDER] = str(asked.results / str(asked.run_id))


def collected(node: WorkerController) -> None:
    """Start the run when the first worker whose tests use the lab has collected, and prepare
    the template when the last one has: called in the controller.

    Raises:
        pytest.UsageError: the user asked for what cannot be.
        pytest.exit.Exception: the lab cannot run at all.
    """
    try:
        text = Path(node.workerinput[NOTE]).read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    found: dict[str, Any] = json.loads(text)
    note = Note(**{**found, "tests": tuple(found["tests"])})
    config, workers = node.config, int(node.workerinput["workercount"])
    run = config.stash.get(RUN, None)
    if run is None:
        if note.refused:
            raise pytest.UsageError(f"pvlab: {UsageError(note.refused, hint=note.hint)}")
        try:
            check_memory(workers, available_mib())
        except UsageError as error:
            raise pytest.UsageError(f"pvlab: {error}") from None
        run = start_run(config, driver_wanted=note.driver_wanted, tests=note.tests, workers=workers)
        for line in introduce(run, note.seconds):
            say_past_capture(config, line)
    ready = config.stash.setdefault(READY, {})
    ready[node.gateway.id] = note.pid
    if len(ready) == workers and run.lab.prepared is None:
        _prepare(run, driver_wanted=note.driver_wanted)


def forget(node: WorkerController) -> None:
    """Forget a worker and its note: called in the controller, when the worker has ended."""
    node.config.stash.setdefault(READY, {}).pop(node.gateway.id, None)
    path = Path(node.workerinput[NOTE])
    path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        # The last worker's note was the last; others are still there otherwise.
        path.parent.rmdir()


def interrupt_workers(config: pytest.Config) -> None:
    """Interrupt the workers that still run: called in the controller when it was interrupted.

    pytest-xdist would wait for their tests for some seconds, and then kill them: they would
    have no time to close their places.
    """
    for pid in config.stash.get(READY, {}).values():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


def status_of(config: pytest.Config, exit_status: int) -> int:
    """The status that a session without workers would end with.

    pytest-xdist ends a session in which enough tests failed by an interrupt of its own, so
    that it looks as if somebody had pressed Ctrl-C.
    """
    session = config.pluginmanager.get_plugin("dsession")
    if exit_status != pytest.ExitCode.INTERRUPTED or session is None:
        return exit_status
    most = session.maxfail or 0
    return pytest.ExitCode.TESTS_FAILED if 0 < most <= session.countfailures else exit_status


def _prepare(run: Run, *, driver_wanted: bool) -> None:
    """Prepare the template before any worker wants it: here, somebody sees what happens."""
    try:
        run.lab.template  # noqa: B018 - made by being asked for
        if driver_wanted:
            run.lab.with_driver(run.driver_package)
    except PvlabError as error:
        run.unprepared(error)
        pytest.exit(f"pvlab: {error}", returncode=int(error.exit_code))
