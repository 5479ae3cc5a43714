"""Installing with restarts, and the way back when the guest does not start with the drivers."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from lab.core.deadline import Deadline
from lab.core.errors import DriverFailure, GuestCrashed, LabBroken, PvlabError
from lab.guest.driverstore import InstallResult
from lab.suite import installation, lifecycle

WHERE = r"multi(0)disk(0)rdisk(0)partition(1)\WINDOWS"
PLAIN = (
    f"[boot loader]\r\ntimeout=30\r\ndefault={WHERE}\r\n[operating systems]\r\n"
    f'{WHERE}="Windows" /fastdetect\r\n'
)
INI = r"C:\boot.ini"


@dataclass
class Named:
    name: str


class World:
    """A guest whose boot.ini is a text, and which starts or does not."""

    def __init__(self, *, boot_ini: bool = True) -> None:
        self.did: list[str] = []
        self.ini = PLAIN
        self.starts: dict[bool, PvlabError | None] = {True: None, False: None}
        self.writable = True
        self.asks_to_restart = 1
        files = SimpleNamespace(read_text=self._read, put_bytes=self._put)
        self.place: Any = SimpleNamespace(
            access=SimpleNamespace(guest=SimpleNamespace(boot_ini=boot_ini)),
            guest=SimpleNamespace(
                channel=SimpleNamespace(run=lambda line, deadline: None, name="g"),
                files=files,
                drivers=SimpleNamespace(install=self._install),
            ),
            end_guest=lambda deadline: self.did.append("end"),
            write_offline=self._write_offline,
        )

    def _read(self, path: str, deadline: Deadline) -> str:
        assert path == INI
        return self.ini

    def _put(self, data: bytes, path: str, deadline: Deadline) -> None:
        if path == INI:
            self.ini = data.decode()

    def _write_offline(self, path: str, data: bytes, deadline: Deadline) -> None:
        self.did.append("write offline")
        if not self.writable:
            raise LabBroken("dom0 cannot write ntfs")
        assert path == INI
        self.ini = data.decode()

    def _install(self, package: Any, deadline: Deadline, *, restart: Any) -> InstallResult:
        self.did.append("install")
        for _ in range(self.asks_to_restart):
            restart()
        return InstallResult(False, (), ("XEN\\VBD",))

    def come_up(self, what: str) -> None:
        self.did.append(what)
        if error := self.starts["/gplpv" in self.ini]:
            raise error


GPLPV: Any = SimpleNamespace(provider="GPL", services=(Named("xenpci"), Named("xenvbd")))
STANDIN: Any = SimpleNamespace(provider="pvlab stand-in", services=(Named("xenvbd"),))


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr(lifecycle, "reboot", lambda place, deadline: made.come_up("reboot"))
    monkeypatch.setattr(lifecycle, "start", lambda place, deadline: made.come_up("start"))
    return made


def soon() -> Deadline:
    return Deadline(60)


def test_installed_restarted_and_switched_on(world: World) -> None:
    result = installation.install(world.place, GPLPV, soon())
    assert result.devices == ("XEN\\VBD",)
    assert world.did == ["install", "reboot", "reboot"]
    assert "/gplpv" in world.ini


def test_once_switched_on_it_stays(world: World) -> None:
    installation.switch_on(world.place, "/gplpv", soon())
    world.did.clear()
    installation.switch_on(world.place, "/gplpv", soon())
    assert world.did == []


def test_a_family_without_an_option(world: World) -> None:
    installation.install(world.place, STANDIN, soon())
    assert world.did == ["install", "reboot"]
    assert world.ini == PLAIN


def test_a_guest_without_boot_ini(world: World) -> None:
    world.place.access.guest.boot_ini = False
    installation.install(world.place, GPLPV, soon())
    assert world.did == ["install", "reboot"]


def test_last_known_good(world: World) -> None:
    world.starts[True] = GuestCrashed("bugcheck 0x7B", evidence=("*** STOP: 0x0000007B",))
    with pytest.raises(GuestCrashed, match="does not start with /gplpv: bugcheck 0x7B") as caught:
        installation.switch_on(world.place, "/gplpv", soon())
    assert "was put back, and it starts without" in caught.value.message
    assert caught.value.evidence == ("*** STOP: 0x0000007B",)
    assert world.did == ["reboot", "end", "write offline", "start"]
    assert world.ini == PLAIN


def test_a_guest_that_hangs_is_put_back_too(world: World) -> None:
    world.starts[True] = DriverFailure("waited 60 s for an answer")
    with pytest.raises(DriverFailure, match="put back"):
        installation.switch_on(world.place, "/gplpv", soon())
    assert world.ini == PLAIN


def test_a_way_back_that_is_closed_is_told_besides(world: World) -> None:
    world.starts[True] = DriverFailure("silence")
    world.writable = False
    with pytest.raises(DriverFailure, match="silence; it could not be put back: dom0 cannot write"):
        installation.switch_on(world.place, "/gplpv", soon())


def test_the_lab_s_own_failure_is_not_the_driver_s(world: World) -> None:
    world.starts[True] = LabBroken("QEMU ended")
    with pytest.raises(LabBroken, match="QEMU ended"):
        installation.switch_on(world.place, "/gplpv", soon())
