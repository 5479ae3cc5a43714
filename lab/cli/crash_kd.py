"""``pvlab crash kd``: listen to a guest's kernel debugger on its serial port."""

from __future__ import annotations

import math
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from lab.core.deadline import Deadline
from lab.core.errors import UsageError


def kd(
    port: Annotated[
        str,
        typer.Argument(
            metavar="SOCKET_OR_PTY",
            help="The guest's serial port: a Unix socket, a terminal such as /dev/pts/3, or "
            "HOST:PORT.",
            show_default=False,
        ),
    ],
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Let the guest run on after a bugcheck, so that it writes its dump."
        ),
    ] = False,
    break_in: Annotated[
        bool,
        typer.Option(
            "--break-in",
            help="Stop the guest first: one that booted unheard notices us by that. It stays "
            "stopped without --resume.",
        ),
    ] = False,
    inspect: Annotated[
        bool,
        typer.Option(help="Read bugcheck data and modules out of a stopped guest."),
    ] = True,
    seconds: Annotated[
        float | None,
        typer.Option("--for", metavar="SECONDS", min=0, help="Stop listening after that time."),
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option(
            "--record", metavar="FILE", help="Append the events to a file, as JSON lines."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines for programs.")] = False,
) -> None:
    """Listen to a Windows guest started with /debug: prints, modules, bugchecks as they happen.

    Ends when the line is closed, when the time is up, or with Ctrl-C. The JSON lines are read
    by pvlab crash show.
    """
    from lab.crash.kd.listener import KdListener, Manners
    from lab.crash.kd.log import JsonLog, TextLog
    from lab.crash.kd.stream import open_serial

    with ExitStack() as stack:
        stream = stack.enter_context(open_serial(port))
        sinks: list[TextLog | JsonLog] = [JsonLog(sys.stdout) if as_json else TextLog(sys.stdout)]
        if record is not None:
            try:
                sinks.append(JsonLog(stack.enter_context(record.open("a", encoding="utf-8"))))
            except OSError as error:
                raise UsageError(f"cannot write {record}: {error.strerror or error}") from None
        manners = Manners(resume=resume, inspect=inspect)
        listener = stack.enter_context(KdListener(stream, manners, sinks=sinks, file=port))
        if break_in:
            listener.break_in()
        listener.wait_closed(Deadline(math.inf if seconds is None else seconds))
