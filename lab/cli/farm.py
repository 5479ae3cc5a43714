"""``pvlab farm``: the scheduler and the workers of nights on many machines.

Both are Dask's own programs, started with what the lab's items ask for. Whoever reaches a
scheduler or a worker can run programs on its machine, so both listen on loopback unless told
otherwise; docs/nightly.md says how to have them speak TLS.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import Annotated

import typer

from lab.core.errors import LabBroken, UsageError
from lab.nightly.farm import scheduler_command, worker_command
from lab.qemu.kvm import kvm_facts
from lab.results import facts

SYSTEM_MIB = 1024
"""Memory that is left to the machine itself, by default."""

app = typer.Typer(
    name="farm",
    help="Scheduler and workers of nights on many machines.",
    no_args_is_help=True,
    add_completion=False,
)

Extra = Annotated[
    list[str] | None, typer.Argument(metavar="[-- OPTIONS]", help="More options of Dask's own.")
]


@app.command()
def scheduler(
    extra: Extra = None,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0: any.")] = 8786,
) -> None:
    """Start the scheduler, which hands items to workers."""
    become(scheduler_command(host, port, extra or []))


@app.command()
def worker(
    address: Annotated[str, typer.Argument(metavar="tcp://HOST:PORT", help="The scheduler's.")],
    extra: Extra = None,
    places: Annotated[int, typer.Option(min=1, max=64, help="Items side by side.")] = 1,
    memory: Annotated[
        int | None, typer.Option(min=1, metavar="MIB", help="For all of them; else what is there.")
    ] = None,
    kvm: Annotated[
        bool | None, typer.Option("--kvm/--no-kvm", help="Nested KVM; looked for if left out.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="The worker's; else made from the host's.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address of this machine to listen at.")] = None,
) -> None:
    """Make this machine a worker: results and images are its own, as for any other run."""
    if not address.startswith(("tcp://", "tls://")):
        raise UsageError(f"'{address}' is no scheduler's address", hint="such as tcp://HOST:8786")
    if memory is None:
        memory = max(1, facts.host().memory_mib - SYSTEM_MIB)
    options = [*(["--host", host] if host else []), *(extra or [])]
    become(
        worker_command(
            address,
            places=places,
            memory_mib=memory,
            kvm=not kvm_facts().why_not if kvm is None else kvm,
            name=name,
            extra=options,
        )
    )


def become(words: list[str]) -> None:
    """Turn this process into a program, so that whoever started it ends that.

    Raises:
        UsageError: the library is missing.
        LabBroken: it cannot be started.
    """
    if importlib.util.find_spec("distributed") is None:
        raise UsageError(
            "many machines need the library distributed", hint="pip install 'pvlab[farm]'"
        )
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execv(words[0], words)  # noqa: S606 - no shell is wanted
    except OSError as error:
        raise LabBroken(f"{words[0]}: cannot be started: {error.strerror}") from None
