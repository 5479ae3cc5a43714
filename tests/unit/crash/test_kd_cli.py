from __future__ import annotations

import json
import os
import socket
import threading
from contextlib import contextmanager

import pytest
from kd_peer import Peer
from typer.testing import CliRunner

from lab.cli import crash
from lab.core.errors import UsageError

D1 = (0x1C, 2, 1, 0xF7A3C1B2)


@contextmanager
def guest(path, work):
    """A guest at the other end of a Unix socket; the line closes when its work is done."""
    raised = []
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def run():
            try:
                connection, _ = server.accept()
                with connection:
                    work(Peer(connection.fileno()))
            except BaseException as error:
                raised.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        yield
        thread.join()
    if raised:
        raise raised[0]


def crashing(peer):
    peer.load("\\WINDOWS\\system32\\ntkrnlpa.exe", 0xFFFFFFFF80800000)
    peer.print("XenVbd --> Put\r\n")
    peer.crash(0xD1, D1)


def invoke(*words):
    return CliRunner().invoke(crash.app, list(words), catch_exceptions=False)


def test_text_and_a_record_that_show_reads(tmp_path):
    port, record = tmp_path / "serial", tmp_path / "kd.jsonl"
    with guest(port, crashing):
        result = invoke("kd", str(port), "--resume", "--record", str(record))
    assert result.exit_code == 0
    lines = [line.split("  ", 1)[1] for line in result.stdout.splitlines()]
    assert "XenVbd --> Put" in lines
    assert any(line.startswith("BUGCHECK 0x000000d1") for line in lines)
    assert "resumed" in lines
    shown = json.loads(invoke("show", str(record), "--json").stdout)
    (fact,) = shown["files"][0]["facts"]
    assert fact["code"] == 0xD1
    assert fact["parameters"] == list(D1)
    assert fact["sources"]["code"]["reader"] == "kernel debugger line"


def test_json_lines(tmp_path):
    with guest(tmp_path / "serial", crashing):
        result = invoke("kd", str(tmp_path / "serial"), "--resume", "--no-inspect", "--json")
    events = [json.loads(line)["event"] for line in result.stdout.splitlines()]
    assert events[:3] == ["module", "print", "print"]
    assert events[-1] == "closed"


def test_a_break_in_is_sent(tmp_path):
    heard = []
    with guest(tmp_path / "serial", lambda peer: heard.append(os.read(peer.fd, 1))):
        assert invoke("kd", str(tmp_path / "serial"), "--break-in").exit_code == 0
    assert heard == [b"\x62"]


def test_a_time_limit(tmp_path):
    over = threading.Event()
    with guest(tmp_path / "serial", lambda _: over.wait(20)):
        assert invoke("kd", str(tmp_path / "serial"), "--for", "0").stdout == ""
        over.set()


def test_no_such_port(tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        invoke("kd", str(tmp_path / "none"))


def test_a_record_that_cannot_be_written(tmp_path):
    port = tmp_path / "serial"
    with guest(port, lambda _: None), pytest.raises(UsageError, match="cannot write"):
        invoke("kd", str(port), "--record", str(tmp_path))
