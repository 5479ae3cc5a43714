"""Places that stay, and what the machine is good for, from the command line."""

from __future__ import annotations

import json
import shutil

from lab.cli import main as cli
from lab.place import detached


def test_up_ssh_down(gate, late):
    up = gate.run("up", "--name", "t", deadline=late)
    assert (up.code, gate.left()[1:]) == (0, [])
    assert detached.names() == ["t"]
    pid = gate.machine(late)

    again = gate.run("up", "--name", "t", deadline=late)
    assert again.code == 2
    assert again.err == "pvlab: the place t is up already (pvlab down --name t)\n"

    place = detached.attach("t")
    try:
        assert place.machine.pid == pid
        assert place.dom0.run("true", late).ok
        assert place.guest.channel.run("echo there", late).stdout.strip() == "there"
        assert place.health(late).ok
    finally:
        place.close()
    assert gate.machines() == [pid], "letting go of a place takes it down"

    if shutil.which("ssh"):
        done = gate.run("ssh", "--name", "t", "--", "echo", "a  b", deadline=late)
        assert (done.code, done.out, done.err) == (0, "a  b\n", "")

    down = gate.run("down", "--name", "t", deadline=late)
    assert (down.code, down.out, down.err) == (0, "", "")
    assert gate.left() == []
    assert detached.names() == []
    assert gate.run("down", "--name", "t", deadline=late).code == 2


def test_doctor_says_that_this_machine_will_do(template, capsys):
    assert cli.main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"]
    assert all(check["ok"] for check in report["checks"] if check["level"] == "required")
