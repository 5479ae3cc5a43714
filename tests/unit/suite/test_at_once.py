from __future__ import annotations

from types import SimpleNamespace

import pytest

from lab.core.command import CommandResult
from lab.core.deadline import Deadline
from lab.core.errors import DeadlineExpired, DriverFailure
from lab.suite import at_once as module
from lab.suite.at_once import Move, at_once
from lab.xen.blockspec import BlockSpec
from lab.xen.xl import XlToolstack

LAB = SimpleNamespace(deadline=lambda allowance: Deadline(0.2))


class Dom0:
    def __init__(self):
        self.scripts = []

    def run(self, command, deadline, **_):
        self.scripts.append(command)
        return CommandResult(command, 0, "libxl: error: it did not work\n", "", 0.1, "dom0")


class Xenstore:
    """Ends that do what they should, but for those named."""

    def __init__(self, stuck=()):
        self.stuck = stuck
        self.asked = []

    def wait(self, path, values, deadline):
        self.asked.append((path, list(values)))
        if path in self.stuck:
            raise DeadlineExpired(path, "3", 0.2)

    def ls(self, path, deadline):
        self.asked.append((path, []))
        return {"state": "5"} if path in self.stuck else {}


def place(stuck=()):
    dom0 = Dom0()
    return SimpleNamespace(
        dom0=dom0,
        toolstack=XlToolstack(dom0),
        xenstore=Xenstore(stuck),
        domain=SimpleNamespace(domid=3, name="virtdemo"),
    )


HDC = BlockSpec.parse("phy:/dev/vg00/a", "hdc")
FILE = BlockSpec.parse("file:/var/b", "hdd")


def test_all_moves_are_one_script_and_both_ends_are_looked_at():
    made = place()
    at_once(made, [Move("attach", HDC, 0.25), Move("detach", FILE, force=True)], LAB)
    (script,) = made.dom0.scripts
    first, second, last = script.splitlines()
    assert first.startswith("(sleep 0.250; xl block-attach ")
    assert "vdev=hdc" in first
    assert second.startswith("(sleep 0.000; xl block-detach ")
    assert first.endswith(") 2>&1 &")
    assert last == "wait"
    assert made.xenstore.asked == [
        ("/local/domain/3/device/vbd/5632/state", ["4"]),
        ("/local/domain/0/backend/qdisk/3/5696", []),
    ]


@pytest.mark.parametrize(
    ("move", "stuck"),
    [
        (Move("attach", HDC), "/local/domain/3/device/vbd/5632/state"),
        (Move("detach", HDC), "/local/domain/0/backend/vbd/3/5632"),
    ],
)
def test_an_end_that_does_not_follow_is_the_driver_s(move, stuck, monkeypatch):
    left = SimpleNamespace(words="frontend 3", stuck=lambda verb: f"{verb}: frontend 3")
    monkeypatch.setattr(module.vbd, "read", lambda *_: left)
    with pytest.raises(
        DriverFailure, match="of hdc, one of 1 at once: frontend 3; dom0 said last"
    ) as caught:
        at_once(place(stuck=(stuck,)), [move], LAB)
    assert caught.value.stuck == f"{move.kind}: frontend 3"
