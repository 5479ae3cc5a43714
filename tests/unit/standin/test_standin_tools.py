"""reg, tasklist, taskkill, shutdown, systeminfo, hostname, ping, and bugs in a tool."""

from __future__ import annotations

import re
import threading

import pytest
from standin import tools
from standin.hive import Hive
from standin.processes import ProcessTable
from standin_guest import Guest

DONE = "\nThe operation completed successfully\n"
NO_KEY = "\nError:  The system was unable to find the specified registry key or value\n"


def test_reg(guest: Guest):
    add = "reg add HKLM\\Software\\Thing"
    assert guest.run(f"{add} /v Name /d text /f") == (0, DONE, "")
    assert guest.run(f"{add}\\Sub /v N /t REG_DWORD /d 0x1F") == (0, DONE, "")
    assert guest.run("reg query hklm\\SOFTWARE\\thing") == (
        0,
        "\n! REG.EXE VERSION 3.0\n\nHKEY_LOCAL_MACHINE\\SOFTWARE\\thing\n"
        "    Name\tREG_SZ\ttext\n\nHKEY_LOCAL_MACHINE\\SOFTWARE\\thing\\Sub\n",
        "",
    )
    assert "    N\tREG_DWORD\t0x1f\n" in guest.run("reg query HKLM\\Software /s")[1]
    assert guest.run("reg delete HKLM\\Software\\Thing\\Sub /v N /f") == (0, DONE, "")
    assert guest.run("reg query HKLM\\Software\\Thing\\Sub /v N") == (1, "", NO_KEY)
    assert guest.run("reg delete HKLM\\Software\\Thing /f") == (0, DONE, "")
    assert guest.run("reg query HKLM\\Software\\Thing") == (1, "", NO_KEY)


def test_reg_asks(guest: Guest):
    guest.run("reg add HKCU\\K /v V /d a /f")
    out = guest.run("reg add HKCU\\K /v v /d b", b"n\r\n")[1]
    assert out.endswith("\nThe operation was cancelled\n")
    assert guest.system.hive.get("HKCU\\K", "V") == "a"
    assert guest.run("reg delete HKCU\\K /va", b"y\r\n")[0] == 0
    assert guest.system.hive.values("HKCU\\K") == {}


@pytest.mark.parametrize(
    "line",
    ["reg", "reg eat HKLM", "reg query NOROOT\\x", "reg add HKLM\\x /z", "reg add HKLM\\x /v",
     "reg add HKLM\\x /v a /t REG_ODD /d 1", "reg add HKLM\\x /v a /t REG_DWORD /d x",
     "reg add HKLM\\x /v a /t REG_BINARY /d zz"],
)  # fmt: skip
def test_reg_bad_parameters(guest: Guest, line):
    assert guest.run(line) == (1, "", "\nError:  The parameter is incorrect\n")


def test_hive_survives_a_restart(tmp_path):
    path = tmp_path / "config/hive.json"
    hive = Hive(str(path))
    hive.set("HKLM\\SYSTEM\\CurrentControlSet\\A", "x", "REG_MULTI_SZ", ["1", "2"])
    again = Hive(str(path))
    assert again.get("HKEY_LOCAL_MACHINE\\system\\ControlSet001\\a", "X") == ["1", "2"]
    assert again.keys("HKLM\\SYSTEM") == ["ControlSet001"]


def test_tasklist(guest: Guest):
    code, out, _ = guest.run("tasklist")
    assert code == 0
    assert out.startswith(
        "\nImage Name                   PID Session Name     Session#    Mem Usage\n"
        "========================= ====== ================ ======== ============\n"
        "System Idle Process            0 Console                 0         28 K\n"
    )
    assert guest.run('tasklist /fi "imagename eq no.exe"')[1] == (
        "INFO: No tasks running with the specified criteria.\n"
    )
    out = guest.run('tasklist /fo csv /nh /fi "imagename eq task*"')[1]
    assert re.fullmatch(r'"tasklist\.exe","\d+","Console","0","[\d,]+ K"\n', out)
    assert "PID:          4\n" in guest.run('tasklist /fo list /fi "pid eq 4"')[1]
    assert guest.run("tasklist /q")[0] == 1
    assert guest.run("tasklist /fi nonsense")[0] == 1
    assert guest.run("tasklist /fo xml")[0] == 1


@pytest.mark.parametrize(
    ("arguments", "code"),
    [("", 1), ("/q", 1), ("/im no.exe /f", 128), ("/pid 4 /f", 128), ("/pid x", 128)],
)
def test_taskkill_errors(guest: Guest, arguments, code):
    found, out, err = guest.run(f"taskkill {arguments}")
    assert (found, out) == (code, "")
    assert err.startswith("ERROR: ")


def test_shutdown(guest: Guest):
    assert guest.run("shutdown /r /t 0 /f") == (0, "", "")
    assert guest.run("shutdown /s") == (1115, "", "A system shutdown is in progress.(1115)\n")
    assert guest.run("shutdown /a") == (0, "", "")
    assert guest.run("shutdown /a")[0] == 1116
    assert guest.run("shutdown -s -t 60") == (0, "", "")
    assert guest.run("shutdown /a")[0] == 0
    assert guest.host.powered == [("reboot", 0), ("poweroff", 60)]


@pytest.mark.parametrize("arguments", ["", "/q", "now", "/r /t", "/r /t x", "/t 5"])
def test_shutdown_usage(guest: Guest, arguments):
    code, out, _ = guest.run(f"shutdown {arguments}")
    assert code == 1
    assert out.startswith("Usage: shutdown")
    assert guest.host.powered == []


def test_systeminfo_says_what_it_is(guest: Guest):
    code, out, _ = guest.run("systeminfo")
    assert code == 0
    assert "OS Name:                   pvlab stand-in\n" in out
    assert "Windows Server" not in out
    assert '"OS Name"' in guest.run("systeminfo /fo csv")[1]
    assert guest.run("systeminfo /x")[0] == 1


def test_hostname_and_ping(guest: Guest):
    assert guest.run("hostname") == (0, "STANDIN\n", "")
    assert guest.run("hostname x")[0] == 1
    code, out, _ = guest.run("ping -n 1 127.0.0.1")
    assert code == 0
    assert "Reply from 127.0.0.1: bytes=32 time<1ms TTL=128\n" in out
    guest.host.results["ping"] = (1, b"")
    code, out, _ = guest.run("ping -n 1 192.0.2.1")
    assert code == 1
    assert "Request timed out.\n" in out
    assert guest.run("ping")[0] == 1
    assert guest.run("ping /z x")[0] == 1
    assert guest.run("ping -n x")[0] == 1


def test_bug_in_a_tool_is_an_error_of_the_standin(guest: Guest, monkeypatch, capsys):
    def broken(ctx):
        raise RuntimeError("oops")

    monkeypatch.setattr("standin.tools.hostname.run", broken)
    code, _, err = guest.run("hostname")
    assert code == 255
    assert err == "hostname: internal error of the stand-in: RuntimeError('oops')\n"
    assert "RuntimeError: oops" in capsys.readouterr().err


def test_every_tool_is_there():
    tools.preload()
    assert all(callable(tools.find(name + ".exe")) for name in tools.NAMES)
    assert tools.find("nosuch") is None


def test_what_is_forgotten_runs_no_more():
    process = ProcessTable().start("dbgview.exe")
    under_way, go_on, order = threading.Event(), threading.Event(), []

    def wake():
        under_way.set()
        assert go_on.wait(60)
        order.append("woken")

    def tool():
        process.forget(wake)
        order.append("closed")

    process.on_end(wake)
    ending = threading.Thread(target=process.end)
    ending.start()
    assert under_way.wait(60)
    leaving = threading.Thread(target=tool)
    leaving.start()
    leaving.join(0.2)
    go_on.set()
    for thread in (ending, leaving):
        thread.join(60)
    assert process.ended
    assert order == ["woken", "closed"]
