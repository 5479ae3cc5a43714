"""A Dask scheduler and workers on loopback, each a process of its own, as on real machines."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lab.core.deadline import Deadline, NotYet, wait_for
from lab.core.paths import repo_root
from lab.nightly.farm import scheduler_command, worker_command

HERE = Path(__file__).parent
START_SECONDS = 120.0


@dataclass
class Cluster:
    """Processes, and where the scheduler is.

    Attributes:
        folder: logs, and what the workers keep.
        address: of the scheduler.
        workers: by name.
    """

    folder: Path
    address: str
    workers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def add(self, name: str, *, results: Path, memory_mib: int = 4096) -> subprocess.Popen[bytes]:
        """Start a worker with one place, and results in a folder of its own."""
        words = worker_command(
            self.address,
            places=1,
            memory_mib=memory_mib,
            kvm=False,
            name=name,
            files=self.folder / name,
            extra=["--host", "127.0.0.1"],
        )
        self.workers[name] = _start(
            words,
            self.folder / f"{name}.log",
            PVLAB_RESULTS=str(results),
            PVLAB_CACHE=str(self.folder / name / "cache"),
        )
        return self.workers[name]


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """A scheduler, and whatever workers are added; all end with the block."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "scheduler.log"
    scheduler = _start(scheduler_command("127.0.0.1", 0), log)
    made = Cluster(folder, "")
    try:
        made.address = wait_for("the scheduler", lambda: _address(log), Deadline(START_SECONDS))
        yield made
    finally:
        for process in (*made.workers.values(), scheduler):
            process.kill()
            process.wait()


def _address(log: Path) -> str:
    found = re.search(r"Scheduler at:\s+(tcp://127\.0\.0\.1:\d+)", log.read_text())
    if found is None:
        raise NotYet("it has not said where it is")
    return found[1]


def _start(words: list[str], log: Path, **environment: str) -> subprocess.Popen[bytes]:
    paths = (str(repo_root()), str(HERE), os.environ.get("PYTHONPATH", ""))
    with log.open("wb") as output:
        return subprocess.Popen(
            words,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={
                **os.environ,
                **environment,
                "PYTHONPATH": os.pathsep.join(path for path in paths if path),
            },
        )
