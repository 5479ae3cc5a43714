"""A pytest plugin that breaks the lab in the middle of a test, once.

Loaded by ``pvlab lab-faults`` into the run that it watches, and by nobody else. It acts on the
test's place from the side, through a connection of its own: the test and the lab do not know of
it, and the lab has to find out by itself.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import threading
from collections.abc import Callable, Generator
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lab.core.deadline import Deadline
from lab.core.errors import LabBroken
from lab.labfaults.catalogue import FAULTS, LabFault, choose

if TYPE_CHECKING:
    from lab.place.place import Place
    from lab.xen.dom0 import Dom0

OPTION = "--pvlab-lab-fault"

INJECTED = "pvlab.lab-fault"
"""Property of a test: the fault that happened to it, or how it failed to."""

# How long a command runs before a signal hits it, in s.
_LATER_SECONDS = 0.5
_CHUNK = bytes(1 << 20)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the option."""
    parser.getgroup("pvlab").addoption(OPTION, metavar="NAME", help="fault of the lab to make")


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, object, object]:
    """Lie in wait in a place as soon as a test has one."""
    made = yield
    if fixturedef.argname == "place":
        name = request.config.getoption(OPTION)
        (fault,) = choose(FAULTS, [name])
        place: Any = made
        lie_in_wait(
            fault, place, lambda what: request.node.user_properties.append((INJECTED, what))
        )
    return made


def lie_in_wait(fault: LabFault, place: Place, happened: Callable[[str], None]) -> None:
    """Have a fault happen to a place with the first command that fits its moment.

    Args:
        fault: what is to happen.
        place: where.
        happened: told the fault's name when it has happened, or what prevented it.
    """
    pattern = re.compile(fault.moment)
    deadline = Deadline(place.deadlines.boot)
    # Both now: later, whoever waits would take the handshake for the fault.
    side = place.access.connect(place.machine, deadline)
    place.connect(deadline)
    done = threading.Event()

    def watch(run: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(run)
        def watched(command: str, *args: Any, **options: Any) -> Any:
            if not done.is_set() and pattern.search(command):
                done.set()
                try:
                    strike(fault, place, side)
                    happened(fault.name)
                except Exception as error:
                    happened(f"{fault.name} failed: {error}")
            return run(command, *args, **options)

        return watched

    # On the objects, not their classes: the connection from the side is not watched.
    place.guest.channel.run = watch(place.guest.channel.run)  # type: ignore[method-assign]
    place.dom0.run_raw = watch(place.dom0.run_raw)  # type: ignore[method-assign]


def strike(fault: LabFault, place: Place, side: Dom0) -> None:
    """Make a fault happen, or start it.

    Raises:
        LabBroken: it did not work.
        DeadlineExpired: dom0 does not answer.
    """
    if fault.dom0:
        script = fault.dom0.replace("@DOMID@", str(place.domain.domid)).replace(
            "@DESTROY@", place.toolstack.command("destroy", place.domain.name)
        )
        side.run(script, Deadline(place.deadlines.command), check=True)
    if fault.fill_scratch:
        fill(place.scratch / "ballast")
    if fault.signal is not None:
        threading.Timer(_LATER_SECONDS, _send, (place.machine.pid, fault.signal)).start()


def fill(file: Path) -> None:
    """Write a file until its file system is full.

    Raises:
        LabBroken: it cannot be written at all.
    """
    try:
        with file.open("wb", buffering=0) as out:
            while out.write(_CHUNK):
                pass
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise LabBroken(f"{file}: {error.strerror}") from error


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
