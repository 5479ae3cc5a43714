"""DbgView: records of a made-up /dev/kmsg become log lines."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest
from standin.tools.dbgview import Formatter, Log
from standin_guest import Guest

RECORDS = (
    "6,100,5000000,-;blkfront: xvdc: flush diskcache: disabled\n"
    " SUBSYSTEM=xen\n"
    "30,101,5000100,-;systemd: xen something from user space\n"
    "6,102,5100000,-;usb 1-1: new device\n"
    "7,103,6569200,-,caller=T1;xen_blkfront:blkback_changed: state 4.\n"
    "4,104,7000000,-;xenvbdx: about to fail\n"
)


@pytest.fixture
def kmsg(guest: Guest):
    """The write end of the kernel log, held open so that the reader sees no end."""
    path = guest.root / "kmsg"
    os.mkfifo(path)
    fd = os.open(path, os.O_RDWR)
    yield fd
    os.close(fd)


def wait_for_lines(path: Path, count: int) -> list[bytes]:
    for _ in range(1000):
        if path.exists() and path.read_bytes().count(b"\n") >= count:
            return path.read_bytes().splitlines(keepends=True)
        time.sleep(0.005)
    raise AssertionError(f"{path} has no {count} lines")


def test_capture(guest: Guest, kmsg):
    log = guest.c / "pvlab/dbgview.log"
    line = 'start "" dbgview /accepteula /t /f /k /l C:\\pvlab\\dbgview.log'
    assert guest.run(line) == (0, "", "")
    os.write(kmsg, RECORDS.encode())
    assert wait_for_lines(log, 3) == [
        b"00000001\t0.00000000\tblkfront: xvdc: flush diskcache: disabled\t\r\n",
        b"00000002\t1.56920000\txen_blkfront:blkback_changed: state 4.\t\r\n",
        b"00000003\t2.00000000\txenvbdx: about to fail\t\r\n",
    ]
    assert "dbgview.exe" in guest.run("tasklist")[1]
    os.write(kmsg, b"4,105,8000000,-;xenbus: more\n")
    wait_for_lines(log, 4)
    code, out, _ = guest.run("taskkill /im dbgview.exe /f")
    assert code == 0
    assert re.fullmatch(
        r'SUCCESS: The process "dbgview\.exe" with PID \d+ has been terminated\.\n', out
    )
    assert "dbgview.exe" not in guest.run("tasklist")[1]
    assert guest.run("taskkill /im dbgview.exe /f")[0] == 128


def test_names_of_installed_services_are_caught(guest: Guest, kmsg):
    key = "HKLM\\SYSTEM\\CurrentControlSet\\Services\\oddname"
    guest.system.hive.set(key, "ImagePath", "REG_EXPAND_SZ", "system32\\DRIVERS\\oddname.sys")
    guest.run('start "" dbgview /k /l C:\\pvlab\\d.log')
    os.write(kmsg, b"6,1,10,-;OddName: hello\n")
    assert wait_for_lines(guest.c / "pvlab/d.log", 1) == [
        b"00000001\t0.00000000\tOddName: hello\t\r\n"
    ]
    guest.run("taskkill /im dbgview.exe /f")


def test_append_and_clock(guest: Guest, kmsg):
    log = guest.c / "pvlab/d.log"
    log.write_bytes(b"old\r\n")
    guest.run('start "" dbgview /k /om /p /l C:\\pvlab\\d.log')
    os.write(kmsg, b"6,1,10,-;xen: hello\n")
    lines = wait_for_lines(log, 2)
    guest.run("taskkill /im dbgview.exe /f")
    assert lines[0] == b"old\r\n"
    assert re.fullmatch(rb"00000001\t\d\d:\d\d:\d\d\.\d{3} [AP]M\txen: hello\t\r\n", lines[1])


@pytest.mark.parametrize("arguments", ["/q", "/l", "/m x", "log.txt"])
def test_bad_switches(guest: Guest, arguments):
    code, _, err = guest.run(f"dbgview {arguments}")
    assert code == 1
    assert err.startswith("Usage: dbgview")


@pytest.mark.parametrize(
    "record", ["", "no semicolon", "x,1,2,-;xen", "6;xen", "30,1,2,-;xen", "6,1,2,-;other"]
)
def test_records_that_are_no_driver_lines(record):
    assert Formatter(re.compile("xen")).line(record) == b""


def test_empty_print_is_one_space():
    assert Formatter(re.compile("")).line("6,1,2,-;") == b"00000001\t0.00000000\t \t\r\n"


def test_size_limit(tmp_path):
    for wrap, left in ((False, b"12345678"), (True, b"abcd")):
        path = tmp_path / str(wrap)
        log = Log(path, False, 10, wrap)
        log.write(b"12345678")
        log.write(b"abcd")
        log.close()
        assert path.read_bytes() == left
