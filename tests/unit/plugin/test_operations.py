"""What is noted of a test's operations."""

from __future__ import annotations

import time
from typing import Any

from lab.core.errors import GuestCrashed
from lab.core.journal import Call
from lab.plugin.operations import LENGTH, MOST, Both, OperationLog
from lab.xen.blockspec import BlockSpec
from lab.xen.vbd import Vbd


def call(name: str, **fields: Any) -> Call:
    now = time.monotonic()
    given: dict[str, Any] = {
        "target": None, "arguments": {}, "result": None, "error": None,
        "started": now, "ended": now + 1.5,
    }  # fmt: skip
    return Call(name=name, **(given | fields))


def test_an_operation_is_told_with_its_arguments_and_its_time() -> None:
    log = OperationLog()
    spec = BlockSpec.parse("phy:/dev/x", "hdc")
    log.heard(call("vbd.attach", arguments={"spec": spec, "force": True, "other": object()}))
    (one,) = log.document().operations
    assert one.words == f"vbd.attach {spec}"
    assert "/dev/x" in one.words
    assert round(one.ended - one.started, 3) == 1.5


def test_looks_are_left_out_unless_they_fail_or_begin_a_clock() -> None:
    log = OperationLog()
    log.heard(call("Disks.list"))
    log.heard(call("DbgView.start"))
    log.heard(call("Disks.list", error=GuestCrashed("it crashed")))
    assert [(one.name, one.error) for one in log.document().operations] == [
        ("DbgView.start", ""),
        ("Disks.list", "GuestCrashed: it crashed"),
    ]


def test_the_state_of_a_device_is_kept() -> None:
    nodes = {
        "/local/domain/1/device/vbd/5632/state": "4",
        "/local/domain/1/device/vbd/5632/backend": "/local/domain/0/backend/vbd/1/5632",
        "/local/domain/0/backend/vbd/1/5632/state": "4",
    }
    vbd = Vbd.of(1, 5632, nodes)
    log = OperationLog()
    log.heard(call("BlockDevices.attach", result=(vbd, object())))
    log.heard(call("vbd.attach", result=vbd))
    told = {one.after for one in log.document().operations}
    assert told == {f"{vbd.vdev}: {vbd.words}"}
    assert "Connected" in told.pop()


def test_a_long_test_keeps_its_last_operations() -> None:
    log = OperationLog()
    for number in range(MOST + 3):
        log.heard(call(f"Toolstack.pause{number}"))
    document = log.document()
    assert document.left_out == 3
    assert len(document.operations) == MOST
    assert document.operations[-1].name == f"Toolstack.pause{MOST + 2}"


def test_any_text_is_one_line_that_can_be_written() -> None:
    log = OperationLog()
    log.heard(call("Channel.run", arguments={"command": "a\nb\ud800" + "x" * 1000}))
    (one,) = log.document().operations
    assert "\n" not in one.words
    assert len(one.words) <= LENGTH
    assert log.document().model_dump_json()


def test_an_operation_that_began_before_the_test_is_not_before_it() -> None:
    before = call("Toolstack.pause")
    log = OperationLog()
    log.heard(call("Toolstack.pause", started=before.started - 10, ended=before.started - 9))
    (one,) = log.document().operations
    assert one.started == one.ended == 0.0


def test_every_listener_is_told() -> None:
    first, second = OperationLog(), OperationLog()
    Both((first, second)).heard(call("Toolstack.pause"))
    assert len(first.document().operations) == len(second.document().operations) == 1
