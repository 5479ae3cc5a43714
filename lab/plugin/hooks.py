"""The plugin's hooks: they start a run where tests use the lab, and look after each test.

A session in which no test uses the lab pays for an import of this module and a look at the
names of its tests' fixtures; nothing of the lab is imported, started or written for it.
"""

from __future__ import annotations

import contextlib
import gc
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from lab.core.errors import UsageError
from lab.plugin import hookspecs
from lab.plugin.keys import EXPECTED, PLACE, RUN, WORKPLACE, tests_driver, uses_lab
from lab.plugin.marks import MARKERS
from lab.plugin.options import add_options, catalogue_file

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController  # type: ignore[import-untyped]

    from lab.config.profile import Profile
    from lab.place.warm import Template


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options."""
    add_options(parser)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Offer this plugin's own hooks."""
    pluginmanager.add_hookspecs(hookspecs)


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers; in a worker of a distributed session, look after the order."""
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    if hasattr(config, "workerinput"):
        from lab.plugin.parallel import Order

        config.pluginmanager.register(Order(), "pvlab-order")


@pytest.hookimpl(trylast=True)
def pytest_pvlab_prepare(
    profile: Profile, accel: str | None, progress: Callable[[str], None]
) -> Template:
    """Prepare the template as the lab does it, unless another plugin did."""
    from lab.place.warm import prepare

    return prepare(profile, accel=accel, progress=progress)


@pytest.hookimpl(tryfirst=True)  # deselection by name and marker comes after
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Make campaigns of races, select for a smoke run, and note what each test takes."""
    if any(uses_lab(item) for item in items):
        from lab.plugin.selection import arrange

        try:
            arrange(config, items)
        except UsageError as error:
            # The collection is called finished all the same; nothing is to start then.
            dropped, items[:] = items[:], []
            if hasattr(config, "workerinput"):
                from lab.plugin.parallel import REFUSED

                config.stash[REFUSED] = error
                items[:] = dropped
                return
            raise pytest.UsageError(f"pvlab: {error}") from None


@pytest.hookimpl(tryfirst=True)  # before the terminal asks what to say of the collection
def pytest_collection_finish(session: pytest.Session) -> None:
    """Start a run if a collected test uses the lab."""
    config = session.config
    mine = [item for item in session.items if uses_lab(item)]
    if (file := catalogue_file(config)) is not None:
        from lab.plugin.selection import write_catalogue

        write_catalogue(config, session.items, file)
    if not mine or config.option.collectonly:
        return
    if hasattr(config, "workerinput"):
        from lab.plugin.parallel import start_worker

        start_worker(config, mine)
    else:
        _start(config, mine)
    _interrupt_on(signal.SIGTERM, config)


def _start(config: pytest.Config, mine: Sequence[pytest.Item]) -> None:
    from lab.plugin.known import expect
    from lab.plugin.parallel import start_run

    run = start_run(
        config,
        driver_wanted=any(tests_driver(item) for item in mine),
        tests=[item.nodeid for item in mine],
    )
    config.stash[WORKPLACE] = run
    if any(tests_driver(item) for item in mine):
        expect(mine, run.errata_for)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: WorkerController) -> None:
    """Tell a worker which run it works for, should its tests use the lab."""
    from lab.plugin.parallel import brief

    brief(node)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: WorkerController) -> None:
    """Start the run in the controller when the workers' tests use the lab."""
    from lab.plugin.parallel import collected

    collected(node)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: WorkerController) -> None:
    """Clear away what a worker said."""
    from lab.plugin.parallel import forget

    forget(node)


def pytest_report_collectionfinish(
    config: pytest.Config, items: Sequence[pytest.Item]
) -> list[str]:
    """Say what is about to be tested, and where the results go."""
    run = config.stash.get(RUN, None)
    if run is None:
        return []
    from lab.plugin.telling import introduce

    seconds = sum(item.stash.get(EXPECTED, 0.0) for item in items)
    return introduce(run, seconds)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what the session's first error makes impossible."""
    workplace = item.config.stash.get(WORKPLACE, None)
    if workplace is not None and uses_lab(item) and workplace.lab.broken:
        from lab.results.record import LAB_IS_BROKEN

        pytest.skip(f"{LAB_IS_BROKEN}{workplace.lab.broken}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """After a test passed, see that its guest has lived through it."""
    outcome = yield
    place = item.stash.get(PLACE, None)
    workplace = item.config.stash.get(WORKPLACE, None)
    if place is not None and workplace is not None:
        from lab.plugin.attempt import check_guest

        check_guest(place, workplace.lab.deadline("crash"))
    return outcome


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Blame somebody for a failure and collect evidence, while the test's place lives."""
    with _reading_sources():
        report = yield
    workplace = item.config.stash.get(WORKPLACE, None)
    if workplace is not None and uses_lab(item):
        from lab.plugin.attempt import look_after

        look_after(item, call, report, workplace.lab)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_keyboard_interrupt() -> Generator[None, None, None]:
    """Let others say where it came, which fails in CPython 3.11 while threads do the same."""
    with _reading_sources():
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> Generator[None, None, None]:
    """End the record before other plugins write theirs; release the rest after them."""
    run = session.config.stash.get(RUN, None)
    if run is None:
        try:
            return (yield)
        finally:
            if (workplace := session.config.stash.get(WORKPLACE, None)) is not None:
                workplace.close()
    from lab.plugin.junit import add_properties
    from lab.plugin.parallel import interrupt_workers, status_of

    if run.interrupted and exitstatus == pytest.ExitCode.OK:
        # Something failed between the interrupt and pytest's note of it.
        exitstatus = pytest.ExitCode.INTERRUPTED
    status = status_of(session.config, exitstatus)
    try:
        if status == pytest.ExitCode.INTERRUPTED:
            interrupt_workers(session.config)
        run.finish(status)
        add_properties(session.config, run.suite_properties())
        return (yield)
    finally:
        run.close()
        session.exitstatus = run.exit_code(status)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Close with what people look for first."""
    run = config.stash.get(RUN, None)
    if run is not None:
        from lab.plugin.telling import summarize

        summarize(terminalreporter, run)


@contextlib.contextmanager
def _reading_sources() -> Iterator[None]:
    """Keep other threads from parsing sources while pytest does, to show where something failed.

    CPython 3.11 before 3.11.8 counts the depth of all threads' trees in one place and fails with
    a SystemError when they meet (gh-106905); it is the collector that lets another thread in,
    and those of a lab format tracebacks whenever a machine goes away.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _interrupt_on(signum: signal.Signals, config: pytest.Config) -> None:
    """Treat a signal as an interrupt from the keyboard, so that fixtures clean up."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signum, interrupt)

    def restore() -> None:
        signal.signal(signum, previous)

    config.add_cleanup(restore)
