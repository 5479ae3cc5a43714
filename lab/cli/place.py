"""``pvlab up``, ``down``, ``ssh`` and ``console``: a place that stays until it is taken down."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from lab.cli.errors import say
from lab.cli.options import AccelOption, ConfigOption, NameOption, ProfileOption
from lab.config.load import load_profile
from lab.core.errors import LabBroken

if TYPE_CHECKING:
    from lab.xen.dom0 import Dom0

DEFAULT_NAME = "default"


def up(
    name: NameOption = DEFAULT_NAME,
    profile: ProfileOption = None,
    config: ConfigOption = None,
    accel: AccelOption = None,
) -> None:
    """Start a place that stays: Xen, dom0 and a guest to work in by hand."""
    from lab.place import detached

    detached.up(load_profile(profile, config), name=name, accel=accel, progress=say)
    print(f"{name} is up; pvlab ssh, pvlab console and pvlab down use it (--name {name})")


def down(name: NameOption = DEFAULT_NAME) -> None:
    """Take a place down and remove what it left."""
    from lab.place import detached

    detached.down(name)


def ssh(
    command: Annotated[
        list[str] | None, typer.Argument(help="Command for dom0; a login shell if left out.")
    ] = None,
    name: NameOption = DEFAULT_NAME,
) -> None:
    """Log in to dom0 of a place that is up, or run a command there."""
    from lab.place import detached

    place = detached.attach(name)
    place.dom0.close()
    become(ssh_command(place.dom0, command or []))


def console(name: NameOption = DEFAULT_NAME) -> None:
    """Join the guest's serial console; Ctrl-] leaves it."""
    from lab.place import detached

    place = detached.attach(name)
    place.dom0.close()
    words = shlex.split(place.toolstack.command("console", place.domain.name))
    become(ssh_command(place.dom0, words, terminal=True))


def ssh_command(dom0: Dom0, words: Sequence[str], *, terminal: bool = False) -> list[str]:
    """The command line of OpenSSH's client for a dom0.

    Args:
        dom0: where to.
        words: command to run there; none for a login shell.
        terminal: whether the command needs a terminal.
    """
    return [
        "ssh",
        *(["-t"] if terminal else []),
        *("-i", str(dom0.key_file), "-p", str(dom0.port)),
        # The key is this image's own, and the port a loopback one that any place may get:
        # what known_hosts remembers of it means nothing.
        *("-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=no"),
        *("-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"),
        f"{dom0.username}@{dom0.host}",
        *([shlex.join(words)] if words else []),
    ]


def become(command: Sequence[str]) -> None:
    """Replace this process by a program.

    Raises:
        LabBroken: it is not installed.
    """
    try:
        os.execvp(command[0], list(command))  # noqa: S606 - no shell is the point
    except OSError as error:
        raise LabBroken(
            f"{command[0]} cannot be started: {error.strerror}",
            hint="apt-get install openssh-client",
        ) from error
