from __future__ import annotations

from pathlib import Path

import pytest
from place_fakes import FakeMachine

from lab.core.deadline import Deadline
from lab.core.errors import LabBroken
from lab.place import stage
from lab.place.stage import freeze
from lab.qemu.emulator import Emulator
from lab.qemu.machine import MachineSpec

INSIDE = (
    "warning: TCG doesn't support requested feature\n"
    "vCPU set in guest-mode inconsistent with migrated kernel nested state\n"
    "load of migration failed: Invalid argument\n"
)


class Refusing(FakeMachine):
    """A trial that ends as QEMU does when it does not take a state."""

    words: list[str]

    def start_from(self, state: Path, deadline: Deadline) -> FakeMachine:
        started = super().start_from(state, deadline)
        if not self.words:
            return started
        self.log.write_text(self.words.pop(0))
        raise LabBroken(f"{self.spec.name}: QEMU ended with status 1")


@pytest.fixture
def refusals(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What trials say, one after the other, before they work."""
    words: list[str] = []
    monkeypatch.setattr(stage, "Machine", type("Trial", (Refusing,), {"words": words}))
    return words


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    emulator = Emulator(("qemu",), "5.2.0", "system")
    spec = MachineSpec(
        "template", emulator, "tcg", "EPYC", 64, Path("xen"), "", "", (), {},
        ram_file=tmp_path / "ram", ram_shared=True,
    )  # fmt: skip
    booted = FakeMachine(spec, tmp_path)
    booted.start(Deadline(1))
    return booted


def test_state_is_tried_before_the_machine_ends(refusals, machine, tmp_path):
    freeze(machine, tmp_path, Deadline(1))
    assert (machine.resumed, machine.alive) == (0, False)
    assert (tmp_path / "state").read_bytes() == b"state"
    assert not list(tmp_path.glob(".trial-*"))


def test_machine_runs_on_when_it_was_caught_inside_the_inner_guest(refusals, machine, tmp_path):
    refusals += [INSIDE, INSIDE]
    freeze(machine, tmp_path, Deadline(5))
    assert (machine.resumed, machine.alive) == (2, False)


def test_other_refusals_are_not_tried_again(refusals, machine, tmp_path):
    refusals += ["disk image is damaged\n", INSIDE]
    with pytest.raises(LabBroken, match="trial of the warm state: QEMU ended"):
        freeze(machine, tmp_path, Deadline(5))
    assert refusals == [INSIDE]
