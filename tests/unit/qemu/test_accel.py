from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab.core.deadline import Deadline
from lab.core.errors import LabBroken, UsageError
from lab.qemu import accel
from lab.qemu.accel import KVM_CPU, LAB_EMULATOR, TCG_CPU, AccelChoice, Ladder, accel_checks
from lab.qemu.emulator import Emulator
from lab.qemu.kvm import KvmFacts
from lab.qemu.probe import ProbeResult

GOOD = ProbeResult(True, svm=True)
QUIRK = ProbeResult(True, svm=True, pae_quirk=True)
DEAD = ProbeResult(False, said="no such thing")

NO_KVM = KvmFacts("A CPU", "", True, "missing", (), None)
KVM = KvmFacts("A CPU", "svm", False, "usable", ("kvm_amd",), True)


@dataclass
class World:
    """A machine as the ladder sees it."""

    tmp_path: Path
    facts: KvmFacts = NO_KVM
    system: Emulator | None = None
    built: Path | None = None
    own: str = "5.2.0"
    build_fails: str = ""
    results: dict[tuple[str, str], ProbeResult] = field(default_factory=dict)
    probes: list[tuple[str, str, str]] = field(default_factory=list)
    builds: int = 0

    # What the ladder asks.

    def find(self, name: str) -> SimpleNamespace | None:
        assert name == LAB_EMULATOR
        return SimpleNamespace(folder=self.built) if self.built else None

    def ensure(self, name: str, progress: object) -> SimpleNamespace:
        assert name == LAB_EMULATOR
        if self.build_fails:
            raise LabBroken(self.build_fails)
        if self.built is None:
            self.builds += 1
            self.built = self.tmp_path / "own-1"
        return SimpleNamespace(path=self.built, folder=self.built)

    def tree(self, tree: Path, origin: str) -> Emulator:
        return Emulator((str(tree / "ld.so"), "qemu"), self.own, origin)

    def probe(self, emulator: Emulator, name: str, cpu: str, deadline: Deadline) -> ProbeResult:
        assert cpu == (KVM_CPU if name == "kvm" else TCG_CPU)
        self.probes.append((emulator.origin, name, cpu))
        return self.results[emulator.origin, name]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """No KVM, and a system QEMU of the kind that the lab's own replaces."""
    program = tmp_path / "qemu"
    program.write_text("7.2")
    made = World(tmp_path)
    made.system = Emulator((str(program),), "7.2.0", "system")
    made.results = {
        ("system", "kvm"): GOOD,
        ("system", "tcg"): QUIRK,
        (LAB_EMULATOR, "tcg"): GOOD,
    }
    monkeypatch.setattr(accel, "kvm_facts", lambda: made.facts)
    monkeypatch.setattr(accel, "system_emulator", lambda: made.system)
    monkeypatch.setattr(accel, "tree_emulator", made.tree)
    monkeypatch.setattr(accel, "run_probe", made.probe)
    monkeypatch.setenv("PVLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PVLAB_ACCEL", raising=False)
    return made


@pytest.fixture
def choose(world: World) -> Callable[..., AccelChoice]:
    def choose(requested: str | None = None) -> AccelChoice:
        store: Any = world
        return Ladder(store).choose(requested)

    return choose


Choose = Callable[..., AccelChoice]


# -- the ladder -------------------------------------------------------------------------


def test_kvm_first(world: World, choose: Choose):
    world.facts = KVM
    choice = choose()
    assert (choice.name, choice.guest_type, choice.cpu) == ("kvm", "hvm", KVM_CPU)
    assert choice.qemu_accel == "kvm"
    assert choice.line == "kvm on QEMU 7.2.0 (system): it works"
    assert world.probes == [("system", "kvm", KVM_CPU)]


def test_kvm_that_promises_and_does_not_keep_it(world: World, choose: Choose):
    """A paravirtual KVM shows everything but its guests get no SVM."""
    world.facts = KVM
    world.results["system", "kvm"] = ProbeResult(True)
    choice = choose()
    assert choice.name == "tcg-hvm"
    assert "no KVM: its machines have neither SVM nor VMX" in choice.why


def test_emulation_by_the_system_s_qemu(world: World, choose: Choose):
    world.results["system", "tcg"] = GOOD
    choice = choose()
    assert (choice.name, choice.origin, choice.guest_type) == ("tcg-hvm", "system", "hvm")
    assert choice.qemu_accel == "tcg"
    assert choice.why == "no KVM: /dev/kvm does not exist"
    assert world.builds == 0
    assert choice.qemu == world.system


def test_emulation_by_the_lab_s_own_qemu(world: World, choose: Choose):
    choice = choose()
    assert (choice.name, choice.origin) == ("tcg-hvm", LAB_EMULATOR)
    assert choice.emulator == f"QEMU 5.2.0 ({LAB_EMULATOR})"
    assert choice.emulator_version == "5.2.0"
    assert choice.argv == (str(world.tmp_path / "own-1/ld.so"), "qemu")
    assert "no KVM: /dev/kvm does not exist" in choice.why
    assert "QEMU 7.2.0 of this system: its page walk marks PAE" in choice.why


def test_pv_guests_last(world: World, choose: Choose):
    world.build_fails = "the mirror does not answer"
    choice = choose()
    assert (choice.name, choice.guest_type, choice.origin) == ("tcg-pv", "pv", "system")
    assert "the mirror does not answer" in choice.why


def test_own_qemu_that_fails_the_probe(world: World, choose: Choose):
    world.results[LAB_EMULATOR, "tcg"] = DEAD
    choice = choose()
    assert choice.name == "tcg-pv"
    assert "QEMU 5.2.0: a machine does not start: no such thing" in choice.why


def test_nothing_works(world: World, choose: Choose):
    world.build_fails = "the mirror does not answer"
    world.results["system", "tcg"] = DEAD
    with pytest.raises(LabBroken) as caught:
        choose()
    assert caught.value.hint == "pvlab doctor"
    for reason in (
        "no KVM: /dev/kvm does not exist",
        "no nested HVM: QEMU 7.2.0 of this system: a machine does not start: no such thing",
        "the mirror does not answer",
        "no PV: no such thing",
    ):
        assert reason in caught.value.message


def test_system_without_a_qemu_has_only_the_lab_s_own(world: World, choose: Choose):
    world.system = None
    choice = choose()
    assert choice.origin == LAB_EMULATOR
    assert choice.why == "no KVM: no QEMU on this system; no QEMU on this system"
    world.build_fails = "the mirror does not answer"
    with pytest.raises(LabBroken, match="no PV: no QEMU on this system"):
        Ladder(world).probe()  # type: ignore[arg-type]


# -- what was asked for -----------------------------------------------------------------


def test_requested_rung(world: World, choose: Choose):
    world.facts = KVM
    for name in ("kvm", "tcg-hvm", "tcg-pv"):
        choice = choose(name)
        assert choice.name == name
        assert choice.why.startswith("asked for")


def test_environment_counts_when_nothing_else_is_said(
    world: World, choose: Choose, monkeypatch: pytest.MonkeyPatch
):
    world.facts = KVM
    monkeypatch.setenv("PVLAB_ACCEL", "tcg-pv")
    assert choose().name == "tcg-pv"
    assert choose("tcg-hvm").name == "tcg-hvm"
    assert choose("auto").name == "kvm"
    monkeypatch.setenv("PVLAB_ACCEL", "")
    assert choose().name == "kvm"


@pytest.mark.parametrize("name", ["hax", "KVM", "tcg"])
def test_unknown_rung(choose: Choose, name: str):
    with pytest.raises(UsageError, match=f"unknown accelerator {name}") as caught:
        choose(name)
    assert caught.value.hint == "one of: auto, kvm, tcg-hvm, tcg-pv"


def test_requested_rung_that_does_not_work(world: World, choose: Choose):
    """No other rung is taken in its place."""
    with pytest.raises(LabBroken, match="kvm does not work here: no KVM: /dev/kvm does not exist"):
        choose("kvm")
    world.results["system", "tcg"] = DEAD
    with pytest.raises(LabBroken, match="tcg-pv does not work here: no PV: no such thing"):
        choose("tcg-pv")


# -- cache ------------------------------------------------------------------------------


def test_answer_is_kept(world: World, choose: Choose):
    first = choose()
    probes = len(world.probes)
    assert choose() == first
    assert len(world.probes) == probes
    assert isinstance(choose().argv, tuple)


def replace_program(world: World) -> None:
    (world.tmp_path / "qemu").write_text("another build")


def change_version(world: World) -> None:
    assert world.system is not None
    world.system = Emulator(world.system.argv, "8.0.0", "system")


def remove_system(world: World) -> None:
    world.system = None


def get_kvm(world: World) -> None:
    world.facts = KVM


def rebuild_own(world: World) -> None:
    world.built = world.tmp_path / "own-2"


def remove_own(world: World) -> None:
    world.built = None


@pytest.mark.parametrize(
    "change",
    [replace_program, change_version, remove_system, get_kvm, rebuild_own, remove_own],
)
def test_answer_is_found_anew_when_what_it_depends_on_changes(
    world: World, choose: Choose, change: Callable[[World], None]
):
    choose()
    world.probes.clear()
    change(world)
    choose()
    assert world.probes
    world.probes.clear()
    choose()
    assert world.probes == []


def test_another_lab_version_asks_anew(
    world: World, choose: Choose, monkeypatch: pytest.MonkeyPatch
):
    choose()
    world.probes.clear()
    monkeypatch.setattr(accel, "__version__", "99")
    choose()
    assert world.probes


@pytest.mark.parametrize("text", ["", "[]", "{", '"x"', "{}", '{"key": 1}', "\x00"])
def test_damaged_answer_is_found_anew(world: World, choose: Choose, text: str):
    first = choose()
    path = world.tmp_path / "cache/accel.json"
    path.write_text(text)
    assert choose() == first
    assert json.loads(path.read_text())["choice"]["name"] == first.name


@pytest.mark.parametrize("choice", [[], {}, {"name": "kvm"}, "x", {"argv": None}])
def test_answer_of_another_shape_is_found_anew(world: World, choose: Choose, choice: object):
    first = choose()
    path = world.tmp_path / "cache/accel.json"
    stored = json.loads(path.read_text())
    path.write_text(json.dumps({**stored, "choice": choice}))
    assert choose() == first


def test_lack_of_nested_hvm_is_not_taken_to_last(world: World):
    """A mirror without the release may have it again."""
    clock = [1000.0]
    store: Any = world

    def choose() -> AccelChoice:
        return Ladder(store, now=lambda: clock[0]).choose()

    world.build_fails = "mmdebstrap bullseye exited 1: E: no Release file"
    first = choose()
    assert first.name == "tcg-pv"
    assert "no Release file" in first.line
    world.build_fails = ""
    world.probes.clear()
    clock[0] += 600
    assert choose() == first
    assert world.probes == []
    clock[0] += 3600
    assert choose().name == "tcg-hvm"
    clock[0] += 1e9
    world.probes.clear()
    assert choose().name == "tcg-hvm"
    assert world.probes == []


def test_requested_rung_is_not_kept(world: World, choose: Choose):
    choose("tcg-pv")
    assert choose().name == "tcg-hvm"
    assert sorted(path.name for path in (world.tmp_path / "cache").iterdir()) == ["accel.json"]


# -- doctor -----------------------------------------------------------------------------


def test_check(world: World, choose: Choose):
    name, ok, found, remedy = accel_checks(choose)[0]
    assert (name, ok, remedy) == ("accelerator", True, "")
    assert found.startswith("tcg-hvm on QEMU 5.2.0")


def test_check_that_fails(world: World, choose: Choose):
    name, ok, found, remedy = accel_checks(lambda: choose("kvm"))[0]
    assert (name, ok) == ("accelerator", False)
    assert "/dev/kvm" in found
    assert remedy == "see the checks above"
