"""The ``pvlab`` command as users start it, watched from outside through ``/proc``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.core.deadline import Deadline, NotYet, wait_for
from lab.core.paths import repo_root

#: States of a TCP socket (linux/include/net/tcp_states.h), as proc_pid_net(5) writes them.
ESTABLISHED, LISTEN = "01", "0A"

#: Settings of whoever runs the tests that must not reach the command under test.
OWN = ("DRIVER", "PROFILE", "CONFIG", "RESULTS", "RUN_ID", "RUNTIME")


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that has ended.

    Attributes:
        code: its exit code; negative when a signal ended it.
        out: what it and its tests printed on stdout.
        err: the same of stderr.
    """

    code: int
    out: str
    err: str


class Gate:
    """Starts ``pvlab`` and looks at what it has running.

    Args:
        folder: an empty folder; the command's working directory.

    Attributes:
        runtime: the lab's runtime folder, of this object alone.
        results: the lab's results folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runtime = folder / "runtime"
        self.results = folder / "results"
        self._child: subprocess.Popen[bytes] | None = None

    def start(self, *words: str | Path) -> int:
        """Start the command in a process group of its own.

        Returns:
            Its process id, which is the group's too.
        """
        environment = {
            name: value
            for name, value in os.environ.items()
            if name not in {f"PVLAB_{own}" for own in OWN}
        }
        with (self.folder / "out").open("wb") as out, (self.folder / "err").open("wb") as err:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "lab.cli", *map(str, words)],
                cwd=self.folder,
                env={
                    **environment,
                    "PVLAB_RUNTIME": str(self.runtime),
                    "PVLAB_RESULTS": str(self.results),
                    "PYTHONPATH": str(repo_root()),
                },
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                process_group=0,
            )
        return self._child.pid

    def wait(self, deadline: Deadline) -> Ended:
        """Wait for the command to end."""
        assert self._child is not None

        def probe() -> int:
            assert self._child is not None
            if (code := self._child.poll()) is None:
                raise NotYet(self._said("out")[-500:])
            return code

        code = wait_for("the command to end", probe, deadline)
        return Ended(code, self._said("out"), self._said("err"))

    def run(self, *words: str | Path, deadline: Deadline) -> Ended:
        """Start the command and wait for it."""
        self.start(*words)
        return self.wait(deadline)

    def record(self) -> dict[str, Any]:
        """``run.json`` of the latest run."""
        found: dict[str, Any] = json.loads((self.results / "latest" / "run.json").read_text())
        return found

    def machines(self) -> list[int]:
        """Process ids of the machines that run, known by the folder they run in."""
        return sorted(pid for pid, _ in self._machines())

    def machine(self, deadline: Deadline) -> int:
        """Wait for one machine to run."""

        def probe() -> int:
            found = self.machines()
            if len(found) != 1:
                raise NotYet(f"{len(found)} machines")
            return found[0]

        return wait_for("a machine", probe, deadline)

    def machine_under_test(self, deadline: Deadline, *, connections: int) -> int:
        """Wait for the machine of a test's place, not of one that something is measured in.

        Args:
            deadline: when to give up.
            connections: how many connections of the lab it must have: the first is a command
                in the guest, the second one in dom0.
        """

        def probe() -> int:
            found = [pid for pid, folder in self._machines() if folder.name.isdigit()]
            if len(found) != 1:
                raise NotYet(f"{len(found)} machines")
            there = len(sockets(found[0], ESTABLISHED))
            if there < connections:
                raise NotYet(f"{there} connections")
            return found[0]

        return wait_for("a machine under test", probe, deadline)

    def left(self) -> list[str]:
        """What is still there of a command that has ended, in words."""
        machines = [f"QEMU (pid {pid})" for pid in self.machines()]
        scratch = [str(path) for path in self.runtime.glob("run-*")]
        return machines + scratch

    def end(self) -> None:
        """Leave nothing running, whatever a test did."""
        if self._child is not None and self._child.poll() is None:
            for pid in [*children(self._child.pid), self._child.pid]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._child.wait()
        for pid in self.machines():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _machines(self) -> Iterator[tuple[int, Path]]:
        return ((pid, folder) for pid, folder in _folders() if folder.is_relative_to(self.runtime))

    def _said(self, stream: str) -> str:
        return (self.folder / stream).read_text(errors="replace")


def children(pid: int) -> list[int]:
    """Process ids of a process's children (proc_pid_stat(5), field 4)."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(path.parent.name))
    return found


def sockets(pid: int, state: str) -> set[str]:
    """Inodes of a process's IPv4 TCP sockets in one state."""
    mine = set()
    with suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                mine.add(os.readlink(link).removeprefix("socket:[").removesuffix("]"))
    return mine & in_state(state)


def in_state(state: str) -> set[str]:
    """Inodes of all IPv4 TCP sockets of this machine in one state (proc_pid_net(5))."""
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return {row[9] for row in rows if row[3] == state}


def loop_devices() -> set[str]:
    """Files behind this machine's loop devices."""
    return {path.read_text().strip() for path in Path("/sys/block").glob("loop*/loop/backing_file")}


def _folders() -> Iterator[tuple[int, Path]]:
    """Working directories of all processes that this user may look at."""
    for link in Path("/proc").glob("[0-9]*/cwd"):
        with suppress(OSError):
            yield int(link.parent.name), Path(os.readlink(link))
