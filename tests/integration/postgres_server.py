"""A PostgreSQL server of the tests' own: a new cluster, a socket in its folder, no network."""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from lab.core.deadline import Deadline, NotYet, wait_for

USER = "pvlab"
START_SECONDS = 120.0
STOP_SECONDS = 60.0


def server_programs() -> Path | None:
    """Folder of Debian's newest server, which is not in the PATH; None when there is none."""
    found = Path("/usr/lib/postgresql").glob("*/bin/postgres")
    versions = sorted(found, key=lambda path: float(path.parts[-3]))
    return versions[-1].parent if versions else None


@dataclass
class Server:
    """A running server.

    Attributes:
        folder: of its cluster and socket.
        pid: of its first process.
    """

    folder: Path
    pid: int
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def url(self, database: str = "postgres") -> str:
        """Of a database."""
        return f"postgresql://{USER}@/{database}?host={self.folder}"

    def new_database(self) -> str:
        """URL of a database with nothing in it."""
        name = f"lab{next(self._numbers)}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")  # type: ignore[call-overload]
        return self.url(name)


@contextlib.contextmanager
def server(programs: Path) -> Iterator[Server]:
    """Start a server, and end it with the block.

    Args:
        programs: folder of ``initdb`` and ``postgres``.
    """
    # Not pytest's folder: the path of a socket has at most 107 bytes (unix(7)).
    folder = Path(tempfile.mkdtemp(prefix="pvlab-pg-"))
    try:
        start = _unprivileged(folder)
        log = folder / "log"
        with log.open("wb") as output:
            subprocess.run(
                [*start, programs / "initdb", "-D", folder / "data", "-U", USER,
                 "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"],
                stdout=output, stderr=output, check=True, cwd=folder,
            )  # fmt: skip
            process = subprocess.Popen(
                [*start, programs / "postgres", "-D", folder / "data", "-k", folder,
                 "-c", "listen_addresses=", "-c", "fsync=off"],
                stdout=output, stderr=output, cwd=folder,
            )  # fmt: skip
        try:
            _wait(process, folder, log)
            yield Server(folder, process.pid)
        finally:
            # SIGINT: a fast shutdown, which does not wait for clients (its manual, section 19.5).
            process.send_signal(signal.SIGINT)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    finally:
        shutil.rmtree(folder)


def _unprivileged(folder: Path) -> Sequence[str | Path]:
    """How to start programs that refuse to run as root; the folder becomes that user's."""
    die = ["setpriv", "--pdeathsig", "INT"]
    if os.geteuid() != 0:
        return die
    nobody = pwd.getpwnam("nobody")
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    # A change of user clears the signal that a parent's death sends (prctl(2)): user first.
    user = ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]
    return [*user, *die]


def _wait(process: subprocess.Popen[bytes], folder: Path, log: Path) -> None:
    url = Server(folder, process.pid).url()

    def answers() -> None:
        if process.poll() is not None:
            raise AssertionError(f"postgres ended: {log.read_text(errors='replace')[-2000:]}")
        try:
            psycopg.connect(url, connect_timeout=10).close()
        except psycopg.OperationalError as error:
            raise NotYet(str(error)) from None

    wait_for("PostgreSQL", answers, Deadline(START_SECONDS))
