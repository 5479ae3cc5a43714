from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from place_fakes import (
    DOMAIN,
    FakeChannel,
    FakeDom0,
    FakeMachine,
    accel_choice,
    guest_image,
    host_image,
    profile,
)

from lab.core.errors import DriverFailure, GuestCrashed, LabBroken, PvlabError
from lab.guest.driverstore import InstallResult
from lab.place import bake, equip, stage, warm
from lab.place.bake import baked_domain
from lab.place.place import Access
from lab.place.stage import StageStore
from lab.place.warm import Kitchen, Template

RESULT = InstallResult(False, ("devcon: done", "#I121 installed"), ("XEN\\VBD",))


class Crash:
    def __init__(self) -> None:
        self.seen: PvlabError | None = None

    @contextlib.contextmanager
    def guard(self, operation: str, deadline: object) -> Iterator[None]:
        yield

    def raise_if_seen(self, deadline: object) -> None:
        if self.seen is not None:
            raise self.seen


class World:
    """A guest in which a driver can be installed."""

    def __init__(self) -> None:
        self.did: list[str] = []
        self.machines: list[FakeMachine] = []
        self.failure: PvlabError | None = None
        self.crash = Crash()
        self.dom0 = FakeDom0(stdout="123\n")

    def machine(self, *args: Any) -> FakeMachine:
        self.machines.append(FakeMachine(*args))
        return self.machines[-1]

    def install(self, package: Any, deadline: object) -> InstallResult:
        self.did.append(f"install {package.name}")
        if self.failure is not None:
            raise self.failure
        return RESULT

    def place(self, *args: Any) -> SimpleNamespace:
        machine = args[3]
        assert args[5:7] == (DOMAIN, 123)
        return SimpleNamespace(
            guest=SimpleNamespace(
                dbgview=SimpleNamespace(start=lambda deadline: self.did.append("dbgview")),
                drivers=SimpleNamespace(install=self.install),
                crash=self.crash,
            ),
            dom0=FakeDom0(stdout="456\n"),
            domain=DOMAIN,
            disconnect=lambda deadline: self.did.append(f"disconnect {machine.alive}"),
            close=lambda: self.did.append("close"),
        )


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    for module in (bake, stage):
        monkeypatch.setattr(module, "Machine", FakeMachine)
    monkeypatch.setattr(equip, "Machine", made.machine)
    monkeypatch.setattr(equip, "Place", made.place)
    for name in ("create_overlay", "create_blank"):
        monkeypatch.setattr(bake, name, lambda path, *_: path.write_text("disk"))
    toolstack = SimpleNamespace(
        info=lambda deadline: {},
        create=lambda path, deadline: DOMAIN,
        configuration=lambda config: config.for_xl(),
        config=lambda domain, deadline: {"type": "hvm"},
    )
    monkeypatch.setattr(bake, "XlToolstack", lambda dom0: toolstack)
    monkeypatch.setattr(Access, "connect", lambda self, machine, deadline: made.dom0)
    monkeypatch.setattr(Access, "channel", lambda self, machine: FakeChannel())
    return made


@pytest.fixture
def stages(tmp_path: Path) -> StageStore:
    return StageStore(tmp_path / "templates")


@pytest.fixture
def template(world: World, stages: StageStore, tmp_path: Path) -> Template:
    host, guest = host_image(tmp_path / "host"), guest_image(tmp_path / "guest")
    return Kitchen(profile(), accel_choice(), host, guest, lambda line: None).template(stages)


def package(identity: str = "d" * 64, name: str = "good") -> Any:
    return SimpleNamespace(name=name, version="0.0.3", identity=identity)


def test_driver_is_installed_once(world: World, template: Template, stages: StageStore) -> None:
    said: list[str] = []
    first = equip.equip(template, package(), said.append, stages)
    assert world.did == ["dbgview", "install good", "disconnect True", "close"]
    assert said == ["driver: installing good 0.0.3, once for all tests"]
    assert first.installed == RESULT
    assert first.spec == template.spec_in(first.stage.folder)
    assert first.stage.ram.exists()
    assert first.stage.state.read_bytes() == b"state"
    # What the guest printed until then is no crash of a test's.
    assert first.stage.facts["serial_bytes"] == 456
    assert baked_domain(first.stage) == DOMAIN
    assert first.identity == template.identity

    assert equip.equip(template, package(), said.append, stages) == first
    assert len(world.machines) == 1
    assert not world.machines[0].alive


def test_other_package_other_state(world: World, template: Template, stages: StageStore) -> None:
    states = [
        equip.equip(template, package(digit * 64), print, stages).stage.folder for digit in "abc"
    ]
    assert len(set(states)) == 3
    assert template.stage.folder not in states


def test_only_the_newest_states_are_kept(
    world: World, template: Template, stages: StageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What this process uses stays, so that it is another's that go."""
    monkeypatch.setattr(StageStore, "hold", lambda self, key: True)
    for digit in "012345":
        equip.equip(template, package(digit * 64), print, stages)
    kinds = [kind for _, kind, _, _ in stages.stages()]
    assert kinds.count("driver standin tcg-hvm") == equip.KEPT
    assert kinds.count("guest standin tcg-hvm") == 1


@pytest.mark.parametrize(
    "failure",
    [DriverFailure("devcon failed"), GuestCrashed("bugcheck"), LabBroken("dom0 hung up")],
    ids=lambda failure: type(failure).__name__,
)
def test_what_fails_leaves_nothing(
    world: World, template: Template, stages: StageStore, failure: PvlabError
) -> None:
    world.failure = failure
    with pytest.raises(type(failure)):
        equip.equip(template, package(), print, stages)
    assert len(stages.stages()) == 2
    assert not list(stages.root.glob(".partial*"))
    assert not world.machines[0].alive

    said: list[str] = []
    assert equip.equipped_or_not(template, package(), said.append, stages) is template
    assert said[-1].endswith(f"not installed once for all tests, but in each: {failure.message}")


def test_crash_behind_an_installation_that_worked(
    world: World, template: Template, stages: StageStore
) -> None:
    world.crash.seen = GuestCrashed("a bugcheck a moment later")
    assert equip.equipped_or_not(template, package(), print, stages).installed is None


def test_clones_have_the_driver(
    world: World,
    template: Template,
    stages: StageStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from lab.core.deadline import Deadline

    monkeypatch.setattr(warm, "Machine", FakeMachine)
    equipped = equip.equip(template, package(), print, stages)
    for of, installed in ((equipped, RESULT), (template, None)):
        scratch = tmp_path / of.key[:8]
        scratch.mkdir()
        with of.clone(scratch, Deadline(5.0)) as place:
            assert place.installed == installed
