"""Frozen states of a machine: RAM file, device state and disk overlays in one folder.

A stage is made under a temporary name and renamed when it is whole, so a killed bake leaves
nothing that looks like one.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab.core.deadline import Deadline, NotYet, wait_for
from lab.core.errors import DeadlineExpired, LabBroken
from lab.core.lock import locked
from lab.core.paths import cache_dir
from lab.place.hardware import GUEST_DISK, ROOT_DISK, VG_DISK
from lab.qemu.machine import EXCHANGE, Machine, Spec

_FACTS = "stage.json"
_SHORT = 16


_HOLD_SECONDS = 60.0
#: Locks that this process keeps until it ends, by path: the kernel lets go of them then.
_HELD: dict[Path, contextlib.ExitStack] = {}


@dataclass(frozen=True, slots=True)
class Stage:
    """A frozen state that machines can start from.

    Attributes:
        key: hash of everything that led to it.
        folder: its files.
        facts: what whoever made it wanted remembered (JSON values).
    """

    key: str
    folder: Path
    facts: dict[str, object]

    @property
    def state(self) -> Path:
        """The device state, for ``Machine.start_from``."""
        return self.folder / "state"

    @property
    def ram(self) -> Path:
        """The RAM file."""
        return self.folder / "ram"

    @property
    def console(self) -> Path:
        """What Xen and dom0 wrote to the serial console until the state was frozen."""
        return self.folder / "serial.log"

    @property
    def size_bytes(self) -> int:
        """Disk space its files take."""
        return sum(path.stat().st_blocks * 512 for path in self.folder.iterdir())


class StageStore:
    """Stages by key, in the cache.

    Args:
        root: the folder; ``templates`` in the cache when None.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or cache_dir() / "templates"

    def find(self, key: str) -> Stage | None:
        """The stage of ``key``, if it was made."""
        folder = self.root / key[:_SHORT]
        try:
            facts = json.loads((folder / _FACTS).read_text())
            return Stage(key, folder, dict(facts["facts"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LabBroken(
                f"the warm state {folder.name} is damaged: {error}", hint=f"rm -r {folder}"
            ) from None

    def lock_path(self, key: str) -> Path:
        """The lock of ``key``: exclusive to make or remove it, shared to use it."""
        return self._short_lock(key[:_SHORT])

    def hold(self, key: str) -> bool:
        """Keep a stage from being pruned for as long as this process lives.

        Returns:
            Whether it is there; a stage that someone just removed has to be made again.

        Raises:
            DeadlineExpired: someone has been making or removing it for a minute.
        """
        path = self.lock_path(key)
        if path not in _HELD:
            holder = contextlib.ExitStack()
            holder.enter_context(locked(path, Deadline(_HOLD_SECONDS), shared=True))
            _HELD[path] = holder
        if self.find(key) is not None:
            return True
        # Whoever makes it again needs the lock for itself.
        _HELD.pop(path).close()
        return False

    @contextmanager
    def making(self, key: str) -> Iterator[Path]:
        """An empty folder to make a stage in; the caller holds the key's lock.

        Whatever is left over from killed attempts at this key is removed first.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        for left in self.root.glob(f".partial-{key[:_SHORT]}-*"):
            shutil.rmtree(left, ignore_errors=True)
        folder = self.root / f".partial-{key[:_SHORT]}-{os.getpid()}"
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def finish(self, key: str, folder: Path, kind: str, facts: dict[str, object]) -> Stage:
        """Give a made stage its final name.

        Args:
            key: its key.
            folder: what ``making`` gave.
            kind: stages of one kind replace each other; see ``prune``.
            facts: to be remembered.
        """
        about = {"key": key, "kind": kind, "made": time.time(), "facts": facts}
        (folder / _FACTS).write_text(json.dumps(about, indent=2) + "\n")
        for leftover in ("serial.sock", "qemu.log", EXCHANGE):
            (folder / leftover).unlink(missing_ok=True)
        final = self.root / key[:_SHORT]
        shutil.rmtree(final, ignore_errors=True)
        folder.rename(final)
        return Stage(key, final, facts)

    def stages(self) -> list[tuple[str, str, float, int]]:
        """(short key, kind, time made in s since the epoch, bytes) of every stage."""
        found = []
        for path in sorted(self.root.glob(f"[!.]*/{_FACTS}")):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                about = json.loads(path.read_text())
                size = Stage(about["key"], path.parent, {}).size_bytes
                found.append((path.parent.name, str(about["kind"]), float(about["made"]), size))
        return found

    def prune(self, kind: str, keep: set[str]) -> None:
        """Remove stages of ``kind`` that nobody uses, except those in ``keep`` (keys).

        What killed attempts left goes too, whatever its key.
        """
        short = {key[:_SHORT] for key in keep}
        for name, other, _, _ in self.stages():
            if other != kind or name in short:
                continue
            with (
                contextlib.suppress(DeadlineExpired, OSError),
                locked(self._short_lock(name), Deadline(0)),
            ):
                # Out of sight in one step: half a stage must not look like one.
                grave = self.root / f".partial-{name}-{os.getpid()}-old"
                (self.root / name).rename(grave)
        for left in self.root.glob(".partial-*"):
            with (
                contextlib.suppress(DeadlineExpired, OSError),
                locked(self._short_lock(left.name.split("-")[1]), Deadline(0)),
            ):
                shutil.rmtree(left, ignore_errors=True)

    def _short_lock(self, name: str) -> Path:
        return self.root / ".locks" / name


def copy_stage(stage: Stage, folder: Path) -> None:
    """Copy a stage's files so that a machine may write to them."""
    names = ["ram", "state", stage.console.name, ROOT_DISK, VG_DISK, GUEST_DISK]
    sources = [str(stage.folder / name) for name in names]
    done = subprocess.run(
        ["cp", "--sparse=always", "--reflink=auto", *sources, str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise LabBroken(f"cannot copy the warm state: {done.stderr.strip()}")


def freeze(machine: Machine, folder: Path, deadline: Deadline) -> None:
    """Stop a machine for good and leave its state in ``folder``, tried once.

    The machine may have to run on a little first: QEMU does not load a state of an emulated
    processor that was just executing a guest of the machine's own hypervisor
    (target/i386/machine.c, ``cpu_post_load``: HF_GUEST_MASK without a nested state of KVM's).

    Raises:
        LabBroken: the state does not start.
        DeadlineExpired: the processor was never seen outside the inner guest.
    """

    def attempt() -> None:
        machine.save_state(folder / "state", deadline)
        if _caught_inside(machine.spec, folder, deadline):
            machine.resume(deadline)
            raise NotYet("the processor executed the inner guest")

    wait_for("a moment at which the machine can be frozen", attempt, deadline)
    machine.stop()


def _caught_inside(spec: Spec, folder: Path, deadline: Deadline) -> bool:
    """Start from a state in ``folder``.

    Returns:
        Whether it is refused for having been taken inside the inner guest.

    Raises:
        LabBroken: it is refused for any other reason.
    """
    with tempfile.TemporaryDirectory(prefix=".trial-", dir=folder) as scratch:
        trial = Machine(spec.cloned("trial of the warm state", folder / "ram"), Path(scratch))
        try:
            with trial:
                trial.start_from(folder / "state", deadline)
        except LabBroken:
            if "vCPU set in guest-mode" not in trial.log.read_text(errors="replace"):
                raise
            return True
    return False
