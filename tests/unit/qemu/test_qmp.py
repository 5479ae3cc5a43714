from __future__ import annotations

import gc
import json
import socket
import threading

import pytest

from lab.core.deadline import Deadline
from lab.core.errors import LabBroken
from lab.qemu.qmp import Monitor

GREETING = {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""}}}


def greet_and_hang_up(theirs: socket.socket) -> None:
    greeting = {"QMP": {**GREETING["QMP"], "capabilities": []}}
    with theirs:
        theirs.sendall(json.dumps(greeting).encode() + b"\r\n")
        asked = json.loads(theirs.recv(65536))
        theirs.sendall(json.dumps({"return": {}, "id": asked.get("id")}).encode() + b"\r\n")


def talk(monitor: Monitor) -> None:
    monitor.connect(Deadline(30))
    # The greeting was there before the end was seen.
    monitor.execute("query-status", deadline=Deadline(30))


@pytest.mark.parametrize("attempt", range(5))
def test_one_that_dies_right_after_the_greeting_leaves_nothing(attempt: int) -> None:
    """As when it is killed; a transport that is left would be told of, and fail the test."""
    ours, theirs = socket.socketpair()
    other = threading.Thread(target=greet_and_hang_up, args=(theirs,))
    other.start()
    monitor = Monitor(ours, "clone 1")

    try:
        with pytest.raises(LabBroken, match="clone 1: QEMU's monitor is gone"):
            talk(monitor)
    finally:
        other.join(30)
        monitor.close()
    del monitor
    gc.collect()
