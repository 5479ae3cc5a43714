"""Faults of WinRM 2.0 on Server 2003, played by the stand-in's endpoint; the channel lives on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_against_standin import FakeKernel
from winrm.protocol import Protocol

from lab.core.deadline import Deadline
from lab.core.errors import DeadlineExpired, LabBroken
from lab.core.paths import repo_root
from lab.guest import channel as channel_module
from lab.guest.channel import Channel, NoShellLeft

STANDIN = repo_root() / "images/standin-pae"
KEY = r"HKLM\SOFTWARE\pvlab\WinRMQuirks"
EVERY = 0xFFFFFFFF


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[Any]:
    sys.path.insert(0, str(STANDIN))
    from standin import winrm
    from standin.config import Config
    from standin.system import System

    kernel = FakeKernel(tmp_path / "kernel")
    settings = {
        "password": "secret", "listen": "127.0.0.1", "port": 0, "uevents": False,
        "preload": False, "c_root": str(kernel.root / "c"), "kmsg": str(kernel.root / "kmsg"),
        "mount_root": str(kernel.root / "letters"), "sys_root": str(kernel.root / "sys"),
        "dev_root": str(kernel.root / "dev"), "proc_root": str(kernel.root / "proc"),
    }  # fmt: skip
    system = System(Config(settings), kernel)
    server = winrm.start(system)
    server.system = system
    yield server
    server.close()
    sys.path.remove(str(STANDIN))


Connect = Callable[..., Channel]


@pytest.fixture
def connect(endpoint: Any) -> Iterator[Connect]:
    made: list[Channel] = []

    def connect(**options: float) -> Channel:
        made.append(
            Channel("127.0.0.1", endpoint.port, "Administrator", "secret", name="g", **options)
        )
        return made[-1]

    yield connect
    for channel in made:
        channel.close(Deadline(2))


def quirk(channel: Channel, name: str, value: int) -> None:
    """Switched on in the running guest, as a person would."""
    done = channel.run(f"reg add {KEY} /v {name} /t REG_DWORD /d {value} /f", Deadline(10))
    assert done.ok, done


def raw(endpoint: Any) -> Protocol:
    return Protocol(
        f"http://127.0.0.1:{endpoint.port}/wsman", transport="basic", username="Administrator",
        password="secret", operation_timeout_sec=2, read_timeout_sec=7,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _plain_http(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)


# -- HTTP 500 for commands of more than a minute -------------------------------------------


def test_http_500_in_the_middle_of_a_long_command(connect: Connect) -> None:
    channel = connect(operation_s=1.0)
    quirk(channel, "ReceiveErrors", 2)
    quirk(channel, "ReceiveErrorAfterMs", 500)
    done = channel.run("ping -n 3 127.0.0.1 > nul & echo still here", Deadline(30))
    assert (done.exit_code, done.stdout.split()[-2:]) == (0, ["still", "here"])
    # The counter shows that they came.
    assert "0x0" in channel.run(f"reg query {KEY} /v ReceiveErrors", Deadline(10)).stdout


def test_http_500_that_does_not_end(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_module, "_ERRORS_S", 1.0)
    channel = connect(operation_s=1.0)
    quirk(channel, "ReceiveErrorAfterMs", 500)
    with pytest.raises(LabBroken, match="HTTP 500, awaited the end of `ping") as caught:
        channel.run("ping -n 30 127.0.0.1", Deadline(30))
    assert "MaxTimeoutms" in caught.value.hint
    # The next command has a shell of its own, and is short.
    assert channel.run("echo fine", Deadline(10)).stdout == "fine\r\n"
    assert channel.shells_lost == 0


# -- MaxShells -----------------------------------------------------------------------------


def test_shells_that_others_left_behind_make_room(connect: Connect, endpoint: Any) -> None:
    first = connect()
    quirk(first, "MaxShells", 3)
    left = raw(endpoint)
    for _ in range(2):
        left.open_shell()
    left.transport.close_session()
    second = connect()
    assert second.run("echo room", Deadline(10)).stdout == "room\r\n"
    # The shells of this process are left alone.
    assert first.run("echo mine", Deadline(10)).stdout == "mine\r\n"
    assert first.shells_lost == 0
    third = connect()
    assert third.run("echo third", Deadline(10)).stdout == "third\r\n"


def test_no_shell_is_left_for_anybody(connect: Connect) -> None:
    first = connect()
    quirk(first, "MaxShells", 1)
    with pytest.raises(NoShellLeft, match="no shell left") as caught:
        connect().run("echo", Deadline(10))
    assert "MaxShellsPerUser" in caught.value.hint
    assert first.run("echo fine", Deadline(10)).ok


def test_shell_is_not_taken_for_its_namesake_in_a_clone(connect: Connect) -> None:
    first = connect()
    quirk(first, "MaxShells", 1)
    # Clones of one guest may draw the same name; the other one is closed.
    twin = Channel("127.0.0.1", first.port + 1, "Administrator", "secret", name="clone")
    twin._shell = first._shell
    twin._forget_shell()
    with pytest.raises(NoShellLeft):
        connect().run("echo", Deadline(10))
    assert first.run("echo mine", Deadline(10)).ok
    assert first.shells_lost == 0


# -- code page 65001 -----------------------------------------------------------------------


def test_batch_files_run_whatever_the_code_page(connect: Connect, endpoint: Any) -> None:
    channel = connect()
    channel.run(r"md C:\pvlab & echo echo it ran> C:\pvlab\x.cmd", Deadline(10))
    quirk(channel, "CodePage65001", 1)
    assert channel.run(r"C:\pvlab\x.cmd", Deadline(10)).stdout == "it ran\r\n"
    # The fault is there: a client that asks for 65001 is told of nothing.
    other = raw(endpoint)
    shell = other.open_shell(codepage=65001)
    command = other.run_command(shell, r"C:\pvlab\x.cmd")
    assert other.get_command_output(shell, command) == (b"", b"", 0)
    other.close_shell(shell)


# -- fault 2150858793 ----------------------------------------------------------------------


def test_timeout_faults_are_waited_out(connect: Connect) -> None:
    channel = connect()
    quirk(channel, "TimeoutFaults", 3)
    assert channel.run("echo in the end", Deadline(20)).stdout == "in the end\r\n"


def test_endless_timeout_faults_end_with_the_deadline(connect: Connect, endpoint: Any) -> None:
    channel = connect()
    channel.run("rem", Deadline(10))
    endpoint.system.hive.set(KEY, "TimeoutFaults", "REG_DWORD", EVERY)
    with pytest.raises(DeadlineExpired, match="still running"):
        channel.run("echo never", Deadline(1.5))
    endpoint.system.hive.set(KEY, "TimeoutFaults", "REG_DWORD", 0)
    assert channel.run("echo again", Deadline(10)).stdout == "again\r\n"


def test_all_are_off_unless_asked_for(endpoint: Any) -> None:
    quirks = endpoint.system.quirks
    assert not quirks.breaks_receive(3600)
    assert not quirks.times_out()
    assert quirks.max_shells(64) == 64
    assert not quirks.skips_batch_files(65001)
