"""A night on many machines: items as tasks of dask.distributed.

The plan stays here, and so does the store: the scheduler is given only as many items as workers
have room for, so that the order of the plan holds, and a night that is killed leaves nothing
behind. A task that was lost with its worker is run again elsewhere by the scheduler. Each begin
of an item is told through the scheduler, under a run's name of its own: the second time that an
item begins, its first attempt is lost.

Workers say what they have as resources: ``place`` is how many items they run side by side,
``memory`` is in MiB, ``kvm`` is 1 where there is nested KVM.
"""

from __future__ import annotations

import io
import os
import platform
import queue
import secrets
import shutil
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Self

from lab.core.deadline import Deadline, NotYet, wait_for
from lab.core.errors import DeadlineExpired, LabBroken, PvlabError, UsageError
from lab.core.paths import cache_dir, results_dir
from lab.nightly.pool import Ended, Event, Started
from lab.nightly.process import Stopped
from lab.nightly.work import Done, Launcher, Order, Site, new_run, run_order

# What distributed has is typed in part only, so its objects are Any here.

PLACE = "place"
MEMORY = "memory"
KVM = "kvm"

TOPIC = "pvlab-items"
"""Of the scheduler's events."""

WORKER_PATIENCE_SECONDS = 300.0
"""How long a night waits for a worker that has what an item needs."""

CONNECT_SECONDS = 15.0

LOOK_SECONDS = 1.0
"""For how long it is taken for known which workers there are."""

FILE_LIMIT = 32 << 20
"""Bytes of a file of a run that still travel; larger ones, such as cores, stay on the worker."""

PACKAGE_LIMIT = 64 << 20
"""Bytes of a driver package; more would crowd the scheduler, which passes it on."""

LEFT_BEHIND = "left-on-worker.txt"


@dataclass(frozen=True, slots=True)
class Task:
    """All that a worker needs for an item.

    Attributes:
        ticket: names the item in events.
        order: what to run; its package is a name alone.
        package: the driver package as a tar archive; empty for the profile's own.
        token: name of a file that lies in the results folder of whoever asks.
        launcher: makes the command, on the worker.
    """

    ticket: str
    order: Order
    package: bytes
    token: str
    launcher: Launcher


@dataclass(frozen=True, slots=True)
class Answer:
    """What a worker says.

    Attributes:
        done: what came of the item.
        files: the run's folder as a tar archive; empty where both see the same folder.
    """

    done: Done
    files: bytes = b""


class FarmPool:
    """Workers of a scheduler.

    Args:
        address: the scheduler's, such as ``tcp://10.0.0.1:8786``.
        site: of this machine: where results come to.
        launcher: makes an item's command on the worker; importable there.
        patience: seconds to wait for a worker that fits.
        timeout: seconds to wait for the scheduler.

    Raises:
        UsageError: there is no such scheduler, or the library is missing.
    """

    def __init__(
        self,
        address: str,
        site: Site,
        launcher: Launcher,
        *,
        patience: float = WORKER_PATIENCE_SECONDS,
        timeout: float | None = None,
    ) -> None:
        self._site = site
        self._launcher = launcher
        self._patience = patience
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._orders: dict[str, Order] = {}
        self._futures: dict[str, Any] = {}
        self._packages: dict[Path, bytes] = {}
        self._waited_for: set[tuple[tuple[str, float], ...]] = set()
        self._known: list[Mapping[str, float]] = []
        self._looked = Deadline(0.0)
        self._token = f".shared-{secrets.token_hex(16)}"
        self._client = connect(address, CONNECT_SECONDS if timeout is None else timeout)
        site.results.mkdir(parents=True, exist_ok=True)
        (site.results / self._token).touch()
        self._client.subscribe_topic(TOPIC, self._heard)

    # -- room ---------------------------------------------------------------------------

    def free(self) -> int:
        """Places of all workers without an item."""
        return max(0, int(self._total().get(PLACE, 0.0)) - len(self._orders))

    def fits(self, order: Order) -> bool:
        """Whether what the workers have, less what is in use, is enough, on one of them.

        What is in use is known of all workers together, not of each: a task may wait for its
        worker a while.
        """
        if not self._one_has(order):
            return False
        left = self._total()
        for other in self._orders.values():
            for name, amount in _needs(other).items():
                left[name] = left.get(name, 0.0) - amount
        return all(left.get(name, 0.0) >= amount for name, amount in _needs(order).items())

    def possible(self, order: Order) -> bool:
        """Whether a worker has what it needs, or comes to have it within a few minutes."""

        def one() -> bool:
            if self._one_has(order):
                return True
            raise NotYet("none has")

        needs = tuple(sorted(_needs(order).items()))
        # Many items may need the same, and each would be waited for.
        patience = 0.0 if needs in self._waited_for else self._patience
        try:
            return wait_for("a worker that fits", one, Deadline(patience))
        except DeadlineExpired:
            self._waited_for.add(needs)
            return False

    def _one_has(self, order: Order) -> bool:
        needs = _needs(order)
        return any(
            all(has.get(name, 0.0) >= amount for name, amount in needs.items())
            for has in self._workers()
        )

    def _total(self) -> dict[str, float]:
        total: dict[str, float] = {}
        for has in self._workers():
            for name, amount in has.items():
                total[name] = total.get(name, 0.0) + amount
        return total

    def _workers(self) -> list[Mapping[str, float]]:
        # With hundreds of workers the scheduler takes a while to list them.
        if self._looked.expired:
            workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
            self._known = [worker.get("resources", {}) for worker in workers]
            self._looked = Deadline(LOOK_SECONDS)
        return self._known

    # -- items --------------------------------------------------------------------------

    def start(self, ticket: str, order: Order, run: str) -> None:
        """Hand an item over; the worker gives its run a name."""
        try:
            package = self._package(order.package)
        except PvlabError as error:
            self._orders[ticket] = order
            self._events.put(Ended(ticket, None, error.message))
            return
        name = Path(order.package.name) if order.package else None
        task = Task(ticket, replace(order, package=name), package, self._token, self._launcher)
        self._orders[ticket] = order
        future = self._client.submit(
            work, task, key=f"pvlab-{ticket}", pure=False, resources=_needs(order)
        )
        self._futures[ticket] = future
        future.add_done_callback(lambda _: self._events.put(Ended(ticket, None)))

    def drop(self, ticket: str) -> None:
        """End an item."""
        if (future := self._futures.get(ticket)) is not None:
            future.cancel(force=True)

    def next(self, seconds: float) -> Event | None:
        """The next event; results are fetched here."""
        try:
            event = self._events.get(timeout=seconds)
        except queue.Empty:
            return None
        if isinstance(event, Started) or event.ticket not in self._orders:
            return event if isinstance(event, Started) else None
        del self._orders[event.ticket]
        future = self._futures.pop(event.ticket, None)
        return event if future is None else self._result(event.ticket, future)

    def stop(self) -> None:
        """End everything: workers see that nobody wants their tasks any more."""
        for future in self._futures.values():
            future.cancel(force=True)

    def close(self) -> None:
        """Leave the scheduler."""
        self.stop()
        self._client.close()
        (self._site.results / self._token).unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _result(self, ticket: str, future: Any) -> Ended:
        from distributed import CancelledError, KilledWorker

        try:
            answer: Answer = future.result()
            if answer.files:
                unpack(answer.files, self._site.results, answer.done.run)
        except (KilledWorker, CancelledError) as error:
            words = " ".join(str(error).split())[:200]
            return Ended(ticket, None, words or type(error).__name__, lost=True)
        except Stopped:
            return Ended(ticket, None, "was stopped", lost=True)
        except PvlabError as error:
            return Ended(ticket, None, error.message)
        except Exception as error:
            # A task raises whatever its worker's libraries raise.
            return Ended(ticket, None, f"{type(error).__name__}: {error}"[:300])
        finally:
            future.release()
        return Ended(ticket, answer.done)

    def _heard(self, event: tuple[float, Any]) -> None:
        """An item has begun; called in the client's own thread."""
        said = event[1]
        if isinstance(said, dict) and said.get("ticket") in self._orders:
            self._events.put(Started(said["ticket"], said["run"], said["machine"]))

    def _package(self, path: Path | None) -> bytes:
        if path is None:
            return b""
        if path not in self._packages:
            self._packages[path] = pack(path, limit=PACKAGE_LIMIT)
            if len(self._packages[path]) > PACKAGE_LIMIT:
                raise UsageError(f"{path}: more than {PACKAGE_LIMIT >> 20} MiB")
        return self._packages[path]


def connect(address: str, timeout: float) -> Any:
    """Connect to a scheduler.

    Args:
        address: the scheduler's.
        timeout: seconds to wait for it.

    Raises:
        UsageError: there is none, or the library is missing.
    """
    try:
        from distributed import Client
    except ModuleNotFoundError:
        raise UsageError(
            "many machines need the library distributed", hint="pip install 'pvlab[farm]'"
        ) from None
    try:
        made: Any = Client
        return made(address, timeout=timeout, set_as_default=False)
    except (OSError, ValueError) as error:
        words = " ".join(str(error).split())[:200]
        raise UsageError(f"no scheduler answers at {address}: {words}") from None


# -- on the worker ----------------------------------------------------------------------


def work(task: Task) -> Answer:
    """Run an item on a worker.

    Raises:
        Stopped: nobody wants the result any more.
        LabBroken: the worker's folders cannot be used.
    """
    from distributed import get_worker

    worker = get_worker()
    site = Site(results=results_dir(), places=int(worker.state.total_resources.get(PLACE, 1)))
    with tempfile.TemporaryDirectory(prefix="pvlab-") as folder:
        order = replace(task.order, package=_settle_package(task, Path(folder)))
        run = new_run(order)
        worker.log_event(
            TOPIC,
            {"ticket": task.ticket, "run": run, "machine": f"{platform.node()}:{os.getpid()}"},
        )
        done = run_order(
            order, site, task.launcher, run=run, stopped=_unwanted(worker, f"pvlab-{task.ticket}")
        )
    if not done.run or (site.results / task.token).is_file():
        return Answer(done)
    return Answer(done, pack(site.results / done.run, limit=FILE_LIMIT))


def _unwanted(worker: Any, key: str) -> Callable[[], bool]:
    """Whether the scheduler has taken a task back, which does not reach a running thread."""

    def unwanted() -> bool:
        task = worker.state.tasks.get(key)
        return task is None or task.state in ("cancelled", "released", "forgotten")

    return unwanted


def _settle_package(task: Task, folder: Path) -> Path | None:
    if not task.package or task.order.package is None:
        return None
    unpack(task.package, folder, task.order.package.name)
    return folder / task.order.package.name


def pack(path: Path, *, limit: int) -> bytes:
    """A file or folder as a compressed tar archive, under its own name.

    Args:
        path: what to pack.
        limit: bytes of a file; larger ones are left out and listed in the archive.

    Raises:
        LabBroken: it cannot be read.
    """
    left: list[str] = []

    def choose(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        if not (member.isdir() or member.isreg()):
            return None
        if member.size > limit:
            left.append(f"{member.size:>14} {member.name}")
            return None
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        return member

    data = io.BytesIO()
    try:
        with tarfile.open(fileobj=data, mode="w:gz", compresslevel=1) as archive:
            archive.add(path, arcname=path.name, filter=choose)
            if left and path.is_dir():
                text = f"on {platform.node()}, below {path.parent}:\n" + "\n".join(left) + "\n"
                note = tarfile.TarInfo(f"{path.name}/{LEFT_BEHIND}")
                note.size = len(text.encode())
                archive.addfile(note, io.BytesIO(text.encode()))
    except OSError as error:
        raise LabBroken(f"{path}: cannot be packed: {error.strerror or error}") from None
    return data.getvalue()


def unpack(data: bytes, parent: Path, name: str) -> None:
    """Unpack what ``pack`` made, whole or not at all; what is there already stays.

    Raises:
        LabBroken: it holds something else, or cannot be written.
    """
    if (parent / name).exists():
        return
    try:
        with tempfile.TemporaryDirectory(prefix=".incoming-", dir=parent) as folder:
            with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
                for member in archive:
                    _extract(archive, member, Path(folder))
            (Path(folder) / name).rename(parent / name)
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise LabBroken(f"{name}: what the worker sent cannot be kept: {error}") from None


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    """Write a member below a folder: files and folders only, and none outside.

    Python's own filters (PEP 706) are not in the Python 3.11 of Debian 12.

    Raises:
        OSError: it is something else, or cannot be written.
    """
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or not (member.isfile() or member.isdir()):
        raise OSError(f"{member.name!r} is no file or folder of a run")
    target = folder / path
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    content = archive.extractfile(member)
    assert content is not None  # noqa: S101 - of a regular file there is
    with content, target.open("xb") as file:
        shutil.copyfileobj(content, file)


def _needs(order: Order) -> dict[str, float]:
    return {PLACE: 1.0, **order.needs}


# -- programs ---------------------------------------------------------------------------


def worker_command(
    scheduler: str,
    *,
    places: int,
    memory_mib: int,
    kvm: bool,
    name: str | None = None,
    files: Path | None = None,
    extra: Sequence[str] = (),
) -> list[str]:
    """The command line of a worker: Dask's own, with what the lab's items ask for.

    Args:
        scheduler: its address.
        places: items side by side.
        memory_mib: for all of them together.
        kvm: whether there is nested KVM.
        name: the worker's; made by Dask when None.
        files: folder for Dask's own files; in the cache when None.
        extra: more options of Dask's.
    """
    return [
        *(sys.executable, "-m", "distributed.cli.dask_worker", scheduler),
        *("--nthreads", str(places)),
        *("--resources", f"{PLACE}={places} {MEMORY}={memory_mib} {KVM}={int(kvm)}"),
        *("--local-directory", str(files or cache_dir() / "farm")),
        # Machines are processes of their own, so that Dask's limit would not see them.
        *("--memory-limit", "0"),
        # Whoever starts it starts it again; and what dies is then the worker itself.
        *("--no-nanny", "--no-dashboard"),
        *(("--name", name) if name else ()),
        *extra,
    ]


def scheduler_command(host: str, port: int, extra: Sequence[str] = ()) -> list[str]:
    """The command line of a scheduler.

    Args:
        host: address to listen at.
        port: likewise; 0 for any.
        extra: more options of Dask's.
    """
    return [
        *(sys.executable, "-m", "distributed.cli.dask_scheduler"),
        *("--host", host, "--port", str(port)),
        # Its HTTP server listens even without the pages.
        *("--no-dashboard", "--dashboard-address", "127.0.0.1:0"),
        *extra,
    ]
