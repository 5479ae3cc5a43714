"""``pvlab lab-faults``: whether the lab takes its own faults upon itself."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from lab.cli.gate import judge
from lab.cli.options import AccelOption, ConfigOption, DriverOption, ProfileOption
from lab.cli.suite import SuiteRequest, driver_suite
from lab.config.load import load_profile
from lab.core.errors import LabBroken
from lab.images.store import Store
from lab.labfaults.catalogue import FAULTS, LabFault, choose
from lab.labfaults.injector import OPTION
from lab.labfaults.outcome import FaultOutcome, FaultsDocument, judge_fault
from lab.place.standin import asked_for
from lab.qemu.accel import Ladder

INJECTOR = "lab.labfaults.injector"


def lab_faults(
    names: Annotated[list[str] | None, typer.Argument(help="Faults; all if left out.")] = None,
    area: Annotated[str, typer.Option("--area", help="Only faults in tests of this area.")] = "",
    quick: Annotated[bool, typer.Option("--quick", help="Only a few that are told soon.")] = False,
    json: Annotated[bool, typer.Option("--json", help="The result as JSON.")] = False,
    profile: ProfileOption = None,
    config: ConfigOption = None,
    accel: AccelOption = None,
    driver: DriverOption = None,
) -> int:
    """Break the lab in the middle of driver tests: exit 0 if the driver is never blamed."""
    label = load_profile(profile, config).guest_label
    there = [one for one in FAULTS if one.quick or not quick]
    if any(one.hvm_only for one in there) and guest_type(accel) == "pv":
        there = [one for one in there if not one.hvm_only]
    chosen = choose(there, names or [], area)
    outcomes = []
    for number, fault in enumerate(chosen, 1):
        say(f"[{number}/{len(chosen)}] {fault.name}: {fault.title}")
        request = SuiteRequest(
            driver=driver,
            profile=profile,
            config=config,
            accel=accel,
            tests=[str(driver_suite() / fault.test)],
            extra=["-p", INJECTOR, f"{OPTION}={fault.name}"],
            quiet=True,
        )
        outcomes.append(attempt(fault, request))
        say(f"[{number}/{len(chosen)}] {fault.name}: {words(outcomes[-1])}")
    document = FaultsDocument(guest_label=label, faults=tuple(outcomes))
    if json:
        sys.stdout.write(document.model_dump_json(indent=2) + "\n")
    else:
        show(document)
    return int(document.exit_code)


def guest_type(accel: str | None) -> str:
    """Type of the guest that will run: some of what breaks is there for HVM guests only.

    Raises:
        UsageError, LabBroken: as ``Ladder.choose``.
    """
    return asked_for(accel) or Ladder(Store()).choose(accel).guest_type


def attempt(fault: LabFault, request: SuiteRequest) -> FaultOutcome:
    """Have one fault happen in a run of its own.

    Raises:
        UsageError: the suite cannot be used.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="pvlab-") as folder:
        if fault.scratch_mib:
            request = replace(request, before=small_scratch(Path(folder), fault.scratch_mib))
        try:
            judgement = judge(request, label=fault.name)
        except LabBroken as error:
            return FaultOutcome(
                name=fault.name,
                title=fault.title,
                area=fault.area,
                test=fault.test,
                happened=False,
                blamed=None,
                exit_code=int(error.exit_code),
                cause=error.message,
                seconds=round(time.monotonic() - began, 1),
            )
    return judge_fault(
        fault,
        judgement.record,
        judgement.verdict,
        seconds=time.monotonic() - began,
        run=judgement.result.folder.name,
    )


def small_scratch(folder: Path, mib: int) -> list[str]:
    """The beginning of a command line that has the lab's scratch folders on a file system of
    their own, which goes with the process: it is mounted in a namespace (unshare(1))."""
    script = f'mount -t tmpfs -o size={mib}m tmpfs {folder} && PVLAB_RUNTIME={folder} exec "$@"'
    # Without privileges, a user namespace gives them over the new mounts.
    mapped = [] if os.geteuid() == 0 else ["--map-root-user"]
    return ["unshare", "--mount", *mapped, "--", "sh", "-c", script, "sh"]


def words(outcome: FaultOutcome) -> str:
    """One outcome as a line."""
    whom = f"blamed on the {outcome.blamed}" if outcome.blamed else "nobody was blamed"
    return f"{whom} after {outcome.seconds:.0f} s, exit {outcome.exit_code}: {outcome.cause}"


def say(line: str) -> None:
    """Tell whoever waits."""
    print(f"pvlab: {line}", file=sys.stderr, flush=True)


def show(document: FaultsDocument) -> None:
    """Print the table for people; the causes are long, so each has a line of its own."""
    console = Console(highlight=False, soft_wrap=True)
    width = max(len(fault.name) for fault in document.faults)
    for fault in document.faults:
        console.print(f"{fault.name:{width}}  {fault.area:9}  blamed: ", end="", markup=False)
        console.print(f"{fault.blamed or '-'}", style="green" if fault.told else "red", end="")
        console.print(f"  exit {fault.exit_code}  after {fault.seconds:.0f} s", markup=False)
        console.print(f"  {fault.title}", style="dim", markup=False)
        console.print(f"  {fault.cause}", markup=False)
    told = sum(fault.told for fault in document.faults)
    console.print(
        f"{told} of {len(document.faults)} taken by the lab upon itself, on {document.guest_label}",
        markup=False,
    )
