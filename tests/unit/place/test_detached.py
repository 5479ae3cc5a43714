from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from place_fakes import DOMAIN, accel_choice, access, profile

from lab.config.profile import Profile
from lab.core.deadline import Deadline, NotYet, wait_for
from lab.core.errors import LabBroken, UsageError
from lab.place import detached
from lab.place.place import Place
from lab.place.stage import Stage
from lab.qemu.emulator import Emulator
from lab.qemu.machine import Machine, MachineSpec, started_at

# A program with QEMU's monitor, which belongs to the tests of the layer below.
FAKE_QEMU = Path(__file__).parents[1] / "qemu/fake_qemu.py"

# A handle that lets go of a process leaves one that runs: that is what `up` is for.
pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")


@dataclass
class FakeTemplate:
    """Clones are real processes of a fake QEMU."""

    spec: MachineSpec
    access: Any
    stage: Stage
    profile: Profile
    accel: Any

    def clone(
        self, scratch: Path, deadline: Deadline, *, name: str = "", detached: bool = False
    ) -> Place:
        assert detached
        machine = Machine(self.spec, scratch, detached=True).start(deadline)
        (scratch.parent / f"{name}.pid").write_text(str(machine.pid))
        return Place(
            name, self.profile, self.profile.deadlines, machine, self.access, DOMAIN, 100, {},
            owned=False,
        )  # fmt: skip


Asked = list[tuple[Profile, str | None]]


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    """What was asked of ``prepare``; machines that tests leave are ended."""
    asked: Asked = []
    argv = (sys.executable, "-I", "-S", str(FAKE_QEMU), "{}")
    spec = MachineSpec(
        "template", Emulator(argv, "7.2.0", "system"), "tcg", "EPYC", 64, Path("xen"), "", "", (),
        {"ssh": 22, "winrm": 5985},
    )  # fmt: skip
    facts: dict[str, object] = {"serial_bytes": 100, "domain": asdict(DOMAIN)}

    def prepare(
        profile: Profile, *, accel: str | None = None, progress: Callable[[str], None]
    ) -> FakeTemplate:
        asked.append((profile, accel))
        progress("prepared")
        stage = Stage("1" * 64, tmp_path, facts)
        return FakeTemplate(spec, access(tmp_path), stage, profile, accel_choice())

    monkeypatch.setattr(detached, "prepare", prepare)
    yield asked
    for file in (tmp_path / "runtime/places").glob("*.pid"):
        pid = int(file.read_text())
        if str(FAKE_QEMU) in _command_line(pid):
            os.kill(pid, signal.SIGKILL)


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def up(name: str = "one", **of_profile: Any) -> int:
    """Start a place; its process id."""
    detached.up(profile(**of_profile), name=name, accel=None, progress=lambda _: None)
    return int(str(facts(name)["pid"]))


def folder(name: str) -> Path:
    return Path(os.environ["PVLAB_RUNTIME"]) / "places" / name


def facts(name: str) -> dict[str, Any]:
    found = json.loads((folder(name) / "place.json").read_text())
    assert isinstance(found, dict)
    return found


def end(pid: int) -> None:
    """Kill a place's machine behind the lab's back."""

    def probe() -> None:
        if started_at(pid):
            raise NotYet("it runs")

    os.kill(pid, signal.SIGKILL)
    wait_for("the machine to end", probe, Deadline(30), interval=0.01)


def test_up_attach_down(asked: Asked):
    pid = up()
    assert started_at(pid)
    assert detached.names() == ["one"]

    place = detached.attach("one")
    assert place.name == "one"
    assert place.machine.pid == pid
    assert place.machine.ports == {"ssh": 20022, "winrm": 25985}
    assert place.machine.alive
    assert place.domain == DOMAIN
    assert place.scratch == folder("one")
    place.close()
    assert started_at(pid)

    detached.down("one")
    assert not started_at(pid)
    assert detached.names() == []
    assert not folder("one").exists()


def test_attach_asks_for_what_up_started(asked: Asked):
    """Another profile, or another rung, might have become the default meanwhile."""
    up(name="mine", memory={"guest_mib": 256}, driver="/a/driver", crash_patterns=["panic"])
    detached.attach("mine").close()
    (first, _), (second, accel) = asked
    assert second == first
    assert second.memory.guest_mib == 256
    assert accel == "tcg-hvm"
    detached.down("mine")


def test_already_up(asked: Asked):
    pid = up()
    with pytest.raises(UsageError, match="the place one is up already") as caught:
        up()
    assert caught.value.hint == "pvlab down --name one"
    assert started_at(pid)
    other = up("two")
    assert other != pid
    assert detached.names() == ["one", "two"]
    detached.down("one")
    detached.down("two")


def test_up_again_after_its_machine_died(asked: Asked):
    pid = up()
    end(pid)
    again = up()
    assert again != pid
    detached.down("one")


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "-x", "x" * 60, "a b", "ä", "x\n"])
def test_bad_names(asked: Asked, name: str):
    for action in (lambda: up(name), lambda: detached.down(name), lambda: detached.attach(name)):
        with pytest.raises(UsageError, match="is no name for a place"):
            action()
    assert asked == []


def test_down_and_attach_of_nothing(asked: Asked):
    with pytest.raises(UsageError, match="no place one is up") as caught:
        detached.down("one")
    assert caught.value.hint == "up are: none"
    with pytest.raises(UsageError, match="no place one is up"):
        detached.attach("one")
    up("two")
    with pytest.raises(UsageError) as caught:
        detached.down("one")
    assert caught.value.hint == "up are: two"
    detached.down("two")


def test_dead_place(asked: Asked):
    pid = up()
    end(pid)
    with pytest.raises(LabBroken, match="the machine of the place one has ended") as caught:
        detached.attach("one")
    assert caught.value.hint == "pvlab down --name one"
    assert detached.names() == ["one"]
    detached.down("one")
    assert detached.names() == []


def test_recycled_process_id_is_not_touched(asked: Asked):
    pid = up()
    with subprocess.Popen(["sleep", "60"]) as stranger:
        try:
            file = folder("one") / "place.json"
            file.write_text(json.dumps({**facts("one"), "pid": stranger.pid}))
            with pytest.raises(LabBroken, match="has ended"):
                detached.attach("one")
            detached.down("one")
            assert stranger.poll() is None
        finally:
            stranger.kill()
    end(pid)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"ports": {}}'])
def test_damaged_facts_are_a_dead_place(asked: Asked, text: str):
    pid = up()
    (folder("one") / "place.json").write_text(text)
    with pytest.raises(LabBroken, match="has ended"):
        detached.attach("one")
    detached.down("one")
    assert not folder("one").exists()
    end(pid)


def test_one_that_ignores_sigterm_is_killed(asked: Asked, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(detached, "_SIGNAL_SECONDS", 0.2)
    pid = up()
    os.kill(pid, signal.SIGSTOP)
    detached.down("one")
    assert not started_at(pid)


def test_one_that_nothing_ends(asked: Asked, monkeypatch: pytest.MonkeyPatch):
    """Its file stays, so that it can still be found."""
    monkeypatch.setattr(detached, "_SIGNAL_SECONDS", 0.05)
    pid = up()
    with monkeypatch.context() as patched:
        patched.setattr(detached, "os", SimpleNamespace(kill=lambda pid, how: None))
        with pytest.raises(LabBroken, match=f"process {pid} survives SIGKILL"):
            detached.down("one")
    assert detached.names() == ["one"]
    detached.down("one")


def test_one_that_ends_just_before_the_signal(asked: Asked, monkeypatch: pytest.MonkeyPatch):
    pid = up()

    def kill(target: int, how: signal.Signals) -> None:
        assert target == pid
        real_kill(pid, signal.SIGKILL)
        raise ProcessLookupError

    real_kill = os.kill
    with monkeypatch.context() as patched:
        patched.setattr(detached, "os", SimpleNamespace(kill=kill))
        detached.down("one")
    assert detached.names() == []


def test_machine_that_nobody_could_find_again_is_ended(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
):
    def full_disk(*args: object) -> str:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(detached, "json", SimpleNamespace(dumps=full_disk, loads=json.loads))
        with pytest.raises(OSError, match="No space left"):
            up()
    pid = int((folder("one").parent / "one.pid").read_text())
    assert not started_at(pid)
    assert detached.names() == []


def test_prepare_that_fails_leaves_no_place(asked: Asked, monkeypatch: pytest.MonkeyPatch):
    def fails(*args: object, **names: object) -> None:
        raise LabBroken("no image")

    monkeypatch.setattr(detached, "prepare", fails)
    with pytest.raises(LabBroken, match="no image"):
        up()
    assert detached.names() == []
    assert not folder("one").exists()
