"""The main program as the guest starts it, settings, real programs, uevents."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import winrm
from standin import config, uevents
from standin.host import Host
from standin.processes import ProcessTable
from standin_guest import PASSWORD

BOOT = Path(__file__).parents[3] / "images/standin-pae/standin/boot.py"


def test_starts_isolated_and_says_so(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    console = tmp_path / "console"
    os.mkfifo(console)
    settings = tmp_path / "s.json"
    settings.write_text(
        json.dumps(
            {
                "password": PASSWORD,
                "port": port,
                "listen": "127.0.0.1",
                "console": str(console),
                "c_root": str(tmp_path / "c"),
                "mount_root": str(tmp_path / "letters"),
                "sys_root": str(tmp_path / "sys"),
                "uevents": False,
            }
        )
    )
    command = [sys.executable, "-I", "-S", "-W", "error", BOOT, settings]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        try:
            assert console.read_bytes() == b"pvlab: winrm ready\r\n"
            session = winrm.Session(
                f"http://127.0.0.1:{port}/wsman",
                auth=("Administrator", PASSWORD),
                transport="basic",
            )
            assert session.run_cmd("ver").std_out == b"\r\npvlab stand-in [Version 5.2.3790]\r\n"
            assert (tmp_path / "c/boot.ini").read_bytes().startswith(b"[boot loader]\r\n")
        finally:
            process.terminate()
        assert process.stderr.read() == b""


@pytest.mark.parametrize("values", [{}, {"password": ""}, {"password": "x", "pasword": "y"}])
def test_bad_settings(values):
    with pytest.raises(ValueError, match=r"password|unknown"):
        config.Config(values)


def test_settings_file(tmp_path):
    path = tmp_path / "s.json"
    path.write_text('{"password": "x", "programs": {"insmod": ["busybox", "insmod"]}}')
    settings = config.load(path)
    assert settings.programs["insmod"] == ["busybox", "insmod"]
    assert settings.programs["rmmod"] == ["rmmod"]


def host(**programs) -> Host:
    return Host(config.Config({"password": "x", "programs": programs}))


def test_real_program_and_its_exit_code():
    runner = host(sh=["sh", "-c"])
    assert runner.run("sh", "echo out; echo err >&2; exit 3") == (3, b"out\nerr\n")
    assert runner.run("sh", "kill -9 $$") == (137, b"")
    code, output = host(no=["/no/such/program"]).run("no")
    assert (code, output) == (127, b"/no/such/program: " + os.strerror(errno.ENOENT).encode())


def test_ending_a_process_kills_its_program():
    runner = host(sleep=["sleep"])
    process = ProcessTable().start("x.exe")
    threading.Timer(0.05, process.end).start()
    assert runner.run("sleep", "60", process=process) == (137, b"")


def test_power_can_be_called_off():
    runner = host()
    process = ProcessTable().start("shutdown.exe")
    called = []
    runner.power("reboot", 600, process, lambda: called.append(1))
    process.end()
    for thread in threading.enumerate():
        if thread.name == "shutdown":
            thread.join()
    assert called == []


def test_power_unmounts_then_acts(tmp_path):
    done = tmp_path / "done"
    settings = config.Config({"password": "x", "power": ["sh", "-c", f"echo {{action}} >{done}"]})
    called = []
    Host(settings).power("poweroff", 0, ProcessTable().start("x"), lambda: called.append(1))
    for thread in threading.enumerate():
        if thread.name == "shutdown":
            thread.join()
    os.wait()
    assert called == [1]
    assert done.read_text() == "poweroff\n"


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        (b"add@/x\0ACTION=add\0SUBSYSTEM=block\0DEVTYPE=disk\0", True),
        (b"remove@/x\0ACTION=remove\0SUBSYSTEM=block\0DEVTYPE=disk\0", True),
        (b"add@/x\0ACTION=add\0SUBSYSTEM=block\0DEVTYPE=partition\0", False),
        (b"change@/x\0ACTION=change\0SUBSYSTEM=block\0DEVTYPE=disk\0", False),
        (b"add@/x\0ACTION=add\0SUBSYSTEM=net\0", False),
    ],
)
def test_uevents(message, wanted):
    assert uevents.is_disk_event(message) is wanted
