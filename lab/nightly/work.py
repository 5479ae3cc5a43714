"""One item of a night, done in one place of one machine.

Runs of an item have names that begin alike, so that a run which ended although the night was
killed is found again, by whoever looks for it.
"""

from __future__ import annotations

import contextlib
import platform
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from lab.core.deadline import Deadline, NotYet, wait_for
from lab.core.errors import DeadlineExpired, LabBroken, UsageError
from lab.core.lock import locked
from lab.core.paths import cache_dir
from lab.nightly.process import GRACE_SECONDS, Stopped, run_command
from lab.results.record import REPORT_NAME, EndedHow, RunRecord
from lab.results.report import write_report
from lab.results.writer import load_run

LOGS = "nightly"
"""Folder in the results folder that holds what nights leave beside their runs."""

USAGE = (2, 4, 5)
"""Exit codes after which another attempt would end the same: bad arguments to pvlab (2) or to
pytest (4), and no test that matches (5)."""


@dataclass(frozen=True, slots=True)
class Order:
    """An item to be run.

    Attributes:
        night: name of the night.
        key: the item's.
        prefix: how its runs' names begin.
        profile: of ``lab.toml``.
        driver: name of the driver build in the matrix.
        package: the package; None for the profile's own.
        suite: name of the suite in the matrix.
        intensity: how much the tests do.
        accel: accelerator; None to choose.
        tests: node ids.
        limit_seconds: after which the item is ended.
        needs: resources of a worker, by name.
    """

    night: str
    key: str
    prefix: str
    profile: str
    driver: str
    package: Path | None
    suite: str
    intensity: str
    accel: str | None
    tests: tuple[str, ...]
    limit_seconds: float
    needs: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Site:
    """Where items run.

    Attributes:
        results: folder of the runs' folders.
        places: how many items run side by side.
        locks: folder of the places' locks, the same for everything that uses this machine.
        grace: seconds that an item gets to end when it is interrupted.
    """

    results: Path
    places: int
    locks: Path = field(default_factory=lambda: cache_dir() / "nightly" / "places")
    grace: float = GRACE_SECONDS


@dataclass(frozen=True, slots=True)
class Done:
    """What came of an item, before anybody judged it.

    Attributes:
        run: name of its run; empty when there is no record of one.
        machine: where it ran.
        recognised: whether an earlier attempt had left the whole run.
        trouble: why there is no whole record, or "".
        retry: whether another attempt may do better.
    """

    run: str
    machine: str
    recognised: bool = False
    trouble: str = ""
    retry: bool = True


class Launcher(Protocol):
    """Makes the command that runs an item."""

    def __call__(self, order: Order, run: str, results: Path) -> Sequence[str]:
        """The command line; it leaves its record in ``results/run``.

        Raises:
            UsageError: the item cannot be run.
        """


def run_order(
    order: Order,
    site: Site,
    launcher: Launcher,
    *,
    run: str,
    stopped: Callable[[], bool],
) -> Done:
    """Run an item in the first place that is free, unless an earlier attempt ended well.

    Args:
        order: what to run.
        site: where.
        launcher: makes the command.
        run: name of the run.
        stopped: asked now and then whether to give up.

    Raises:
        Stopped: it was to stop.
    """
    machine = platform.node()
    with a_place(site, stopped) as lock:
        # Only now: whoever was at it in this place has ended.
        if found := finished_run(site.results, order.prefix):
            return Done(found, machine, recognised=True)
        logs = site.results / LOGS / order.night
        trouble, retry = "", True
        try:
            logs.mkdir(parents=True, exist_ok=True)
            code = run_command(
                launcher(order, run, site.results),
                log=logs / f"{run}.log",
                keep=lock,
                deadline=Deadline(order.limit_seconds),
                stopped=stopped,
                grace=site.grace,
            )
            if record_of(site.results / run) is None:
                trouble, retry = f"left no record and exited {code}", code not in USAGE
        except UsageError as error:
            return Done("", machine, trouble=error.message, retry=False)
        except LabBroken as error:
            return Done("", machine, trouble=error.message)
        except OSError as error:
            return Done("", machine, trouble=f"{logs}: {error.strerror or error}")
        except DeadlineExpired:
            trouble = f"was not done within {order.limit_seconds:.0f} s"
        there = record_of(site.results / run) is not None
        return Done(run if there else "", machine, trouble=trouble, retry=retry)


def new_run(order: Order) -> str:
    """A name for the next run of an item."""
    return f"{order.prefix}{secrets.token_hex(3)}"


def finished_run(results: Path, prefix: str) -> str:
    """The run with such a name that has ended by itself; empty when there is none.

    Raises:
        LabBroken: the results folder cannot be read.
    """
    try:
        folders = sorted(one for one in results.glob(f"{prefix}*") if one.is_dir())
    except OSError as error:
        raise LabBroken(f"{results}: cannot be read: {error.strerror}") from None
    for folder in folders:
        record = record_of(folder)
        if record is not None and record.ended_how is EndedHow.FINISHED:
            if not (folder / REPORT_NAME).is_file():
                with contextlib.suppress(UsageError):
                    write_report(record, folder)
            return folder.name
    return ""


def record_of(folder: Path) -> RunRecord | None:
    """A run's record; None when there is none, or a damaged one."""
    try:
        return load_run(folder)
    except UsageError:
        return None


@contextlib.contextmanager
def a_place(site: Site, stopped: Callable[[], bool]) -> Iterator[int]:
    """Hold the lock of a place that is free; wait for one if need be.

    Yields:
        The descriptor that holds the lock.

    Raises:
        Stopped: meanwhile, it was to stop.
    """
    with contextlib.ExitStack() as held:

        def take() -> int:
            for number in range(site.places):
                with contextlib.suppress(DeadlineExpired):
                    lock = locked(site.locks / f"{number}.lock", Deadline(0.0))
                    return held.enter_context(lock)
            if stopped():
                raise Stopped
            raise NotYet("all places are in use")

        yield wait_for("a free place", take, Deadline(float("inf")))
