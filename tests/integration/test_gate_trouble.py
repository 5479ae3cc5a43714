"""The gate when something goes wrong under it: whom it blames, and what it leaves."""

from __future__ import annotations

import json
import os
import signal

import pytest
from gate_process import LISTEN, children, in_state, loop_devices, sockets

GUEST_ANSWERS = """
def test_guest_answers(guest, lab):
    assert guest.channel.run("ver", lab.deadline("command")).ok
"""


def next_run_works(gate, deadline):
    """Whatever happened before, the next run works, and says of its guest what it is."""
    tests = gate.folder / "test_next_run.py"
    tests.write_text(GUEST_ANSWERS)
    ended = gate.run("run", tests, deadline=deadline)
    assert ended.code == 0, ended.out
    record = gate.record()
    assert record["verdict"]["status"] == "PASS"
    assert gate.left() == []
    guest = gate.results / "latest" / "guest"
    domain = json.loads((guest / "domain.json").read_text())
    expected = "pv" if record["accelerator"]["name"] == "tcg-pv" else "hvm"
    assert domain["config"]["c_info"]["type"] == expected
    assert "PAEEnabled=TRUE" in (guest / "systeminfo.txt").read_text()


@pytest.mark.parametrize(
    "connections",
    [pytest.param(1, id="in-the-guest"), pytest.param(2, id="in-dom0-too")],
)
def test_killed_machine_is_the_lab_s_failure(gate, good_driver, late, connections):
    gate.start("gate", "--driver", good_driver)
    pid = gate.machine_under_test(late, connections=connections)
    os.kill(pid, signal.SIGKILL)
    ended = gate.wait(late)
    assert ended.code == 3
    assert f"QEMU (pid {pid}) ended with signal SIGKILL" in ended.out
    assert "LAB good on stand-in" in ended.out
    record = gate.record()
    assert record["ended_how"] == "finished"
    assert record["verdict"]["status"] == "LAB"
    assert [test["blame"] for test in record["tests"]] == ["lab"]
    assert f"QEMU (pid {pid}) ended with signal SIGKILL" in record["tests"][0]["message"]
    assert gate.left() == []
    next_run_works(gate, late)


@pytest.mark.parametrize("to_group", [True, False], ids=["group", "parent-only"])
def test_interrupt_leaves_nothing(gate, good_driver, late, to_group):
    loops = loop_devices()
    pid = gate.start("gate", "--driver", good_driver)
    machine = gate.machine_under_test(late, connections=1)
    listening = sockets(machine, LISTEN)
    assert listening
    (os.killpg if to_group else os.kill)(pid, signal.SIGINT)
    ended = gate.wait(late)
    assert ended.code == 130
    assert ended.err.splitlines()[-1] == "pvlab: interrupted"
    assert gate.left() == []
    assert not listening & in_state(LISTEN)
    assert loop_devices() <= loops
    record = gate.record()
    assert record["ended_how"] == "interrupted"
    assert record["tests"][-1]["message"] == "interrupted while it ran"


def test_machine_dies_with_the_tests_process(gate, good_driver, late):
    pid = gate.start("gate", "--driver", good_driver)
    gate.machine_under_test(late, connections=1)
    (tests,) = children(pid)
    os.kill(tests, signal.SIGKILL)
    ended = gate.wait(late)
    assert ended.code == 3
    assert gate.machines() == []
    assert "the run did not end" in ended.out
    assert gate.record()["ended_how"] == "running"
    next_run_works(gate, late)
