from __future__ import annotations

import base64
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import paramiko
import pytest
from place_fakes import DOMAIN, GUEST, HOST, FakeChannel, FakeDom0, FakeMachine, access, profile

from lab.core.deadline import Deadline
from lab.core.errors import DeadlineExpired, LabBroken, PvlabError
from lab.place import place as place_module
from lab.place.place import Access, Health, Place
from lab.xen.domain import Domain
from lab.xen.xl import XlToolstack
from lab.xen.xm import XmToolstack


def soon() -> Deadline:
    return Deadline(30)


class World:
    def __init__(self, folder: Path) -> None:
        self.dom0 = FakeDom0()
        self.channel = FakeChannel()
        self.connects = 0
        self.refuses: PvlabError | None = None
        spec: Any = type("Spec", (), {"name": "clone 1"})()
        self.machine = FakeMachine(spec, folder)
        self.machine.dead = ""
        self.folder = folder

    def connect(self, machine: object, deadline: Deadline) -> FakeDom0:
        self.connects += 1
        if self.refuses:
            raise self.refuses
        return self.dom0

    def place(self, *, owned: bool = True, **of_profile: Any) -> Place:
        chosen = profile(**of_profile)
        machine: Any = self.machine
        return Place(
            "clone 1",
            chosen,
            chosen.deadlines,
            machine,
            access(self.folder),
            DOMAIN,
            100,
            {"clone_running": 0.25},
            owned=owned,
        )


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path)
    monkeypatch.setattr(Access, "connect", lambda self, *args: made.connect(*args))
    monkeypatch.setattr(Access, "channel", lambda self, machine: made.channel)
    return made


# -- connections ------------------------------------------------------------------------


def test_dom0_is_connected_when_it_is_needed(world: World):
    with world.place() as place:
        _ = place.guest, place.domain, place.scratch
        assert world.connects == 0
        assert place.timings == {"clone_running": 0.25}
        assert place.dom0 is place.dom0
        _ = place.toolstack, place.xenstore, place.vg
        assert world.connects == 1
        assert place.timings["dom0_connect"] >= 0
    assert world.dom0.closed == 1


def test_toolstack_s_dialect(world: World):
    assert isinstance(world.place().toolstack, XlToolstack)
    assert isinstance(world.place(toolstack="xm").toolstack, XmToolstack)


def test_nouns(world: World):
    place = world.place()
    assert place.vg.name == "vg00"
    assert place.guest.domain == "virtdemo"
    assert place.guest.channel is place.guest.files._channel
    assert place.scratch == world.folder


def test_serial_log_is_read_in_dom0(world: World):
    assert world.place().guest_serial(soon()) == "content of /var/log/serial"


def test_domain_s_id_changes_with_a_reboot(world: World, monkeypatch: pytest.MonkeyPatch):
    place = world.place()
    found: list[Domain | None] = [Domain("virtdemo", 4, 192, 1, "-b----", 0.1), None]
    monkeypatch.setattr(XlToolstack, "find", lambda self, name, deadline: found.pop(0))
    again = place.refresh_domain(soon())
    assert again is not None
    assert place.domain.domid == 4
    assert place.refresh_domain(soon()) is None
    assert place.domain.domid == 4


def test_password_is_not_in_messages(world: World):
    assert "pass word" not in repr(world.place().access)


# -- health -----------------------------------------------------------------------------


def test_healthy(world: World):
    world.dom0.stdout = "asking: its processes\nfine\n"
    assert world.place().health(soon()) == Health(True, "")
    assert world.dom0.commands == ["sh -s"]


def test_dead_machine(world: World):
    world.machine.dead = "QEMU (pid 7) ended with signal SIGKILL"
    assert world.place().health(soon()) == Health(False, "QEMU (pid 7) ended with signal SIGKILL")
    assert world.connects == 0


def test_machine_that_is_held(world: World):
    world.machine.held = "QEMU (pid 7) was stopped by a signal"
    assert world.place().health(soon()) == Health(False, "QEMU (pid 7) was stopped by a signal")
    assert world.connects == 0


def test_silent_dom0(world: World):
    world.dom0.fails = lambda command: DeadlineExpired("an answer", "nothing", 5.0)
    health = world.place().health(soon())
    assert not health.ok
    assert health.cause.startswith("dom0 does not answer: waited 5.0 s for an answer")


def test_dom0_that_lets_nobody_in(world: World):
    world.refuses = LabBroken("clone 1: connection refused")
    assert world.place().health(soon()) == Health(False, "clone 1: connection refused")


def test_machine_that_dies_while_dom0_is_asked(world: World):
    def fails(command: str) -> PvlabError:
        world.machine.dead = "QEMU (pid 7) ended with signal SIGSEGV"
        return LabBroken("the connection to dom0 was lost")

    world.dom0.fails = fails
    assert world.place().health(soon()).cause == "QEMU (pid 7) ended with signal SIGSEGV"


def test_dom0_that_panics_while_it_is_asked(world: World):
    def fails(command: str) -> PvlabError:
        world.machine.serial_log.write_text("(XEN) Hardware Dom0 crashed: 'noreboot' set\n")
        return DeadlineExpired("an answer", "nothing", 5.0)

    world.dom0.fails = fails
    cause = world.place().health(soon()).cause
    assert cause == "dom0 or Xen ended: (XEN) Hardware Dom0 crashed: 'noreboot' set"


def test_dom0_says_what_is_broken(world: World):
    world.dom0.stdout = "asking: its processes\nbroken: xenstored does not run in dom0\n"
    place = world.place()
    assert place.health(soon()) == Health(False, "xenstored does not run in dom0")
    with pytest.raises(LabBroken, match="the place broke: xenstored does not run in dom0"):
        place.check(soon())


def test_guest_is_not_asked(world: World):
    world.channel.error = LabBroken("the guest is silent")
    world.dom0.stdout = "fine\n"
    assert world.place().health(soon()).ok


def test_guest_that_was_ended_on_purpose_is_not_looked_for(world: World):
    world.dom0.stdout = "fine\n"
    place = world.place()
    place.health(soon())
    place.guest.crash.retire()
    place.health(soon())
    first, second = (script for command, script in world.dom0.sent if command == "sh -s")
    assert b'[ -n "1" ] || { echo fine; exit; }' in first
    assert b'[ -n "" ] || { echo fine; exit; }' in second


# -- the end ----------------------------------------------------------------------------


def test_close_ends_the_machine(world: World):
    place = world.place()
    place.close()
    assert world.machine.stops == [0.5]
    assert not world.machine.released
    # What nobody used is not made just to be closed.
    assert world.connects == 0
    assert world.channel.closed == []


def test_close_twice(world: World):
    place = world.place()
    _ = place.dom0, place.guest
    place.close()
    place.close()
    assert world.dom0.closed == 1


def test_shell_of_a_machine_that_ends_is_not_waited_for(world: World):
    place = world.place()
    _ = place.guest
    place.close()
    assert world.channel.closed == [0.0]


def test_close_lets_go_of_a_machine_that_stays(world: World):
    place = world.place(owned=False)
    _ = place.guest
    place.close()
    assert world.machine.stops == []
    assert world.machine.released == 1
    assert world.channel.closed[0] > 1


def test_close_survives_what_fails(world: World, monkeypatch: pytest.MonkeyPatch):
    place = world.place()

    def fails(deadline: Deadline) -> None:
        raise LabBroken("no connection")

    monkeypatch.setattr(place.guest, "close", fails)
    place.close()
    assert world.machine.stops


# -- access -----------------------------------------------------------------------------


class Refusing:
    """A dom0 that does not let itself be connected to."""

    made: list[Refusing]

    def __init__(self, *args: object, **names: object) -> None:
        self.args = args
        self.names = names
        self.closed = False
        Refusing.made.append(self)

    def connect(self, deadline: Deadline, **_: object) -> None:
        raise DeadlineExpired("dom0's SSH server", "connection refused", 9.0)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> list[Refusing]:
    Refusing.made = []
    monkeypatch.setattr(place_module, "Dom0", Refusing)
    # The host key of the fakes is no key.
    monkeypatch.setattr(paramiko.PKey, "from_type_string", lambda kind, blob: (kind, blob))
    return Refusing.made


def machine(folder: Path) -> Any:
    spec: Any = type("Spec", (), {"name": "clone 1"})()
    made = FakeMachine(spec, folder)
    made.dead = ""
    return made


def test_connect_that_fails(tmp_path: Path, refusing: list[Refusing]):
    with pytest.raises(LabBroken, match=r"clone 1: waited 9.0 s for dom0's SSH server"):
        access(tmp_path).connect(machine(tmp_path), soon())
    (dom0,) = refusing
    assert dom0.closed
    assert dom0.args == ("127.0.0.1", 10022, "root", tmp_path / "id_ed25519")
    # Only this image's dom0 is let in: its key is pinned.
    blob = base64.b64decode(HOST.host_key.split()[1])
    assert dom0.names["host_key"] == ("ssh-ed25519", blob)


def test_connect_to_a_dead_machine(tmp_path: Path, refusing: list[Refusing]):
    dead = machine(tmp_path)
    dead.dead = "QEMU (pid 7) ended with status 1"
    with pytest.raises(LabBroken, match=r"clone 1: QEMU \(pid 7\) ended with status 1"):
        access(tmp_path).connect(dead, soon())
    assert refusing == []


def test_channel_goes_to_the_machine_s_port(tmp_path: Path):
    channel = access(tmp_path).channel(machine(tmp_path))
    assert "15985" in repr(vars(channel))
    channel.close(Deadline(0))


# -- past a guest that is dead ------------------------------------------------------------


class RawDom0(FakeDom0):
    def __init__(self, stdout: bytes = b"", stderr: bytes = b"", exit_code: int = 0) -> None:
        super().__init__()
        self.raw = (stdout, stderr, exit_code)

    def run_raw(self, command: str, deadline: Deadline) -> Any:
        self.commands.append(command)
        out, err, code = self.raw
        return type("Raw", (), {"stdout": out, "stderr": err, "exit_code": code})()


def test_file_of_the_system_disk(world: World):
    world.dom0 = RawDom0(b"\x00line\r\n")
    assert world.place().read_offline("c:\\pvlab\\it's.log", soon()) == b"\x00line\r\n"
    (script,) = world.dom0.commands
    assert f"mount -o ro /dev/vdc{GUEST.c_partition} /mnt" in script
    assert "'/mnt/C/pvlab/it'\"'\"'s.log'" in script


@pytest.mark.parametrize("exit_code", [0, 32])
def test_file_that_is_not_there(world: World, exit_code: int):
    world.dom0 = RawDom0(b"", b"mount: /mnt: wrong fs type\n", exit_code)
    with pytest.raises(LabBroken, match=r"no C:\\x on the guest's disk: mount: /mnt: wrong"):
        world.place().read_offline("C:\\x", soon())


def test_file_of_another_drive(world: World):
    with pytest.raises(LabBroken, match=r"E:\\x is not on drive C:"):
        world.place().read_offline("E:\\x", soon())


def test_drive_in_the_memory_of_a_dead_guest(world: World):
    place = world.place()
    assert not place.drive_c_in_memory
    boot = GUEST.model_copy(update={"guest_type": "pv", "disk": "", "c_partition": 0})
    place.access = replace(place.access, guest=boot)
    assert place.drive_c_in_memory
    with pytest.raises(LabBroken, match="was in the guest's memory and is lost with it") as caught:
        place.read_offline("C:\\pvlab\\dbgview.log", soon())
    assert "\n" not in str(caught.value)
    assert world.connects == 0


@pytest.mark.parametrize("quick", [True, False])
def test_core_leaves_through_the_exchange_disk(
    world: World, monkeypatch: pytest.MonkeyPatch, quick: bool
):
    core = bytearray(3 << 20)
    core[:5] = b"\x7fELF\x02"
    section_table, size = 64, (2 << 20) + 17
    struct.pack_into("<Q", core, 0x28, section_table)
    struct.pack_into("<HH", core, 0x3A, 64, 1)
    struct.pack_into("<QQ", core, section_table + 0x18, 4096, size - 4096)
    (world.folder / "exchange.raw").write_bytes(core)
    dumped: list[str] = []
    quickly: list[str] = []

    def dump_quickly(dom0: object, domid: int, path: str, deadline: object) -> bool:
        quickly.append(path)
        return quick

    monkeypatch.setattr(place_module, "dump_quickly", dump_quickly)
    monkeypatch.setattr(
        XlToolstack, "dump_core", lambda self, domain, path, deadline: dumped.append(path)
    )
    chunks = list(world.place().dump_core(soon()))
    assert b"".join(chunks) == core[:size]
    assert len(chunks) == 3
    assert quickly == ["/dev/vdd"]
    assert dumped == ([] if quick else ["/dev/vdd"])
    # Before reading: what dom0 still holds in memory is not in the file.
    assert world.dom0.commands == ["blockdev --flushbufs /dev/vdd"]


def test_no_core_on_the_exchange_disk(world: World, monkeypatch: pytest.MonkeyPatch):
    (world.folder / "exchange.raw").write_bytes(bytes(4096))
    monkeypatch.setattr(XlToolstack, "dump_core", lambda *args: None)
    with pytest.raises(LabBroken, match="no ELF core"):
        list(world.place().dump_core(soon()))


def test_vbd_states_in_words(world: World, monkeypatch: pytest.MonkeyPatch):
    trees = {
        "/local/domain/0/backend/vbd/3": {
            "/local/domain/0/backend/vbd/3/5632/state": "2",
            "/local/domain/0/backend/vbd/3/5632/mode": "w",
        },
        "/local/domain/3/device/vbd": {"/local/domain/3/device/vbd/5632/state": "1"},
    }
    place = world.place()
    monkeypatch.setattr(type(place.xenstore), "ls", lambda self, path, deadline: trees[path])
    states = place._vbd_states(soon())
    assert set(states) == {"vbd 5632 backend", "vbd 5632 frontend"}
    assert "InitWait" in states["vbd 5632 backend"]
    assert "Initialising" in states["vbd 5632 frontend"]
