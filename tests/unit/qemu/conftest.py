from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.qemu.emulator import Emulator
from lab.qemu.machine import DiskSpec, Machine, MachineSpec

FAKE = Path(__file__).with_name("fake_qemu.py")
MachineMaker = Callable[..., Machine]


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "machine"
    folder.mkdir()
    return folder


@pytest.fixture
def make_machine(scratch: Path, no_process_left: None) -> Iterator[MachineMaker]:
    """A machine whose QEMU is the fake one, and follows the given orders."""
    made: list[Machine] = []

    def make(*, detached: bool = False, ram_file: Path | None = None, **orders: Any) -> Machine:
        # -I -S: it needs nothing of this environment, and starts in a few milliseconds.
        argv = (sys.executable, "-I", "-S", str(FAKE), json.dumps(orders))
        spec = MachineSpec(
            name="clone 1",
            emulator=Emulator(argv, "7.2.0", "system"),
            accel="tcg",
            cpu="EPYC",
            memory_mib=64,
            kernel=Path("/images/xen"),
            append="console=com1",
            initrd="/images/vmlinux root=/dev/vda",
            disks=(DiskSpec(Path("/images/root.qcow2")),),
            forwards={"ssh": 22, "winrm": 5985},
            ram_file=ram_file,
        )
        machine = Machine(spec, scratch, detached=detached)
        made.append(machine)
        return machine

    yield make
    for machine in made:
        machine.stop(grace=1)


@pytest.fixture(autouse=True)
def no_process_left(scratch: Path) -> Iterator[None]:
    """Whatever a test did, no process works in its folder afterwards, not even a zombie."""
    yield
    assert _processes_in(scratch) == []


def _processes_in(folder: Path) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if Path(os.readlink(entry / "cwd")) == folder:
                found.append(entry.name)
        except OSError:
            continue
    return found
