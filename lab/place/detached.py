"""Places that stay: started by one command, used by others, taken down by a last one.

What is known of a place is in a small file of this user's runtime folder. Its machine is
identified by process id *and* start time, so that a recycled pid is never touched.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

from lab.config.profile import Profile
from lab.core.deadline import Deadline, NotYet, wait_for
from lab.core.errors import DeadlineExpired, LabBroken, UsageError
from lab.core.lock import locked
from lab.core.paths import runtime_dir
from lab.place.bake import baked_domain
from lab.place.place import Place
from lab.place.warm import prepare
from lab.qemu.machine import Machine, started_at

_FACTS = "place.json"
#: How long a machine may take to end of one signal.
_SIGNAL_SECONDS = 10.0


def _folder(name: str) -> Path:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,40}", name):
        raise UsageError(f"{name!r} is no name for a place", hint="letters, digits, '.', '_', '-'")
    return runtime_dir() / "places" / name


def names() -> list[str]:
    """Names of the places that were started, whether they still run or not."""
    return sorted(path.parent.name for path in (runtime_dir() / "places").glob(f"*/{_FACTS}"))


def up(profile: Profile, *, name: str, accel: str | None, progress: Callable[[str], None]) -> None:
    """Start a place that outlives this process.

    Raises:
        UsageError: a place of this name runs already, or the name is no name.
        LabBroken: it could not be started.
    """
    folder = _folder(name)
    with locked(folder.parent / ".locks" / name, Deadline(5.0)):
        if _alive(folder):
            raise UsageError(f"the place {name} is up already", hint=f"pvlab down --name {name}")
        template = prepare(profile, accel=accel, progress=progress)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        deadline = Deadline(profile.deadlines.under(template.accel.name).boot)
        place = template.clone(folder, deadline, name=name, detached=True)
        try:
            facts = {
                "pid": place.machine.pid,
                "started_at": started_at(place.machine.pid),
                "ports": place.machine.ports,
                "profile": profile.model_dump(mode="json"),
                "accel": template.accel.name,
            }
            fresh = folder / f".{_FACTS}"
            fresh.write_text(json.dumps(facts))
            fresh.replace(folder / _FACTS)
        except BaseException:
            # Nobody would ever find it again.
            place.machine.stop(grace=1)
            raise
        place.close()


def down(name: str) -> None:
    """End a place and remove what it left.

    Raises:
        UsageError: there is no such place.
        LabBroken: its process does not end.
    """
    folder = _folder(name)
    if not folder.is_dir():
        raise UsageError(f"no place {name} is up", hint=f"up are: {', '.join(names()) or 'none'}")
    if _alive(folder):
        pid = int(str(_facts(folder)["pid"]))
        if not (_ends(folder, pid, signal.SIGTERM) or _ends(folder, pid, signal.SIGKILL)):
            raise LabBroken(f"the place {name} does not end: process {pid} survives SIGKILL")
    shutil.rmtree(folder)


def _ends(folder: Path, pid: int, how: signal.Signals) -> bool:
    """Whether a place's process ends of a signal, in a few seconds."""

    def probe() -> None:
        if _alive(folder):
            raise NotYet(f"process {pid} runs")

    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, how)
    try:
        wait_for("the machine to end", probe, Deadline(_SIGNAL_SECONDS))
    except DeadlineExpired:
        return False
    return True


def attach(name: str) -> Place:
    """Get hold of a place that is up; closing it leaves it up.

    Raises:
        UsageError: there is no such place.
        LabBroken: its machine ended, or its warm state is gone.
    """
    folder = _folder(name)
    if not folder.is_dir():
        raise UsageError(f"no place {name} is up", hint="pvlab up")
    if not _alive(folder):
        raise LabBroken(
            f"the machine of the place {name} has ended", hint=f"pvlab down --name {name}"
        )
    facts = _facts(folder)
    profile = Profile.model_validate(facts["profile"])
    template = prepare(profile, accel=str(facts["accel"]), progress=lambda _: None)
    ports = facts["ports"]
    assert isinstance(ports, dict)  # noqa: S101 - written by up
    machine = Machine.running(template.spec, folder, int(str(facts["pid"])), ports)
    deadlines = profile.deadlines.under(template.accel.name)
    domain = baked_domain(template.stage)
    serial = int(str(template.stage.facts["serial_bytes"]))
    return Place(
        name, profile, deadlines, machine, template.access, domain, serial, {}, owned=False
    )


def _facts(folder: Path) -> dict[str, object]:
    try:
        facts = json.loads((folder / _FACTS).read_text())
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _alive(folder: Path) -> bool:
    facts = _facts(folder)
    if "pid" not in facts:
        return False
    started = started_at(int(str(facts["pid"])))
    return bool(started) and started == facts["started_at"]
