"""The lab, broken in the middle of driver tests, takes it upon itself.

``pvlab lab-faults`` runs the whole table; these are those of it that are told soon.
"""

from __future__ import annotations

import json

import pytest

from lab.labfaults.catalogue import FAULTS

# A machine that is killed has tests of its own, in test_gate_trouble.py.
QUICK = [fault for fault in FAULTS if fault.quick and fault.name != "qemu-killed"]


@pytest.mark.parametrize("name", [fault.name for fault in QUICK])
def test_fault_is_the_lab_s(gate, good_driver, late, name):
    ended = gate.run("lab-faults", name, "--driver", good_driver, "--json", deadline=late)
    assert ended.code == 0, ended.err
    (fault,) = json.loads(ended.out)["faults"]
    assert (fault["happened"], fault["blamed"], fault["exit_code"]) == (True, "lab", 3)
    assert len(fault["cause"].splitlines()) == 1
    assert gate.record()["verdict"]["status"] == "LAB"
    assert gate.left() == []
