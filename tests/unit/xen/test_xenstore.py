from __future__ import annotations

from pathlib import Path

import pytest
from xen_fakes import FakeTools, ScriptedDom0, ShellDom0

from lab.core.deadline import Deadline
from lab.core.errors import DeadlineExpired, LabBroken
from lab.xen.xenstore import Xenstore, parse_ls

GOLDEN = Path(__file__).parent / "golden"


def test_whole_paths() -> None:
    nodes = parse_ls((GOLDEN / "xenstore_ls_whole.txt").read_text())
    front = "/local/domain/3/device/vbd/5632"
    back = "/local/domain/0/backend/vbd/3/5632"
    assert nodes[f"{front}/backend"] == back
    assert nodes[f"{front}/empty"] == ""
    assert nodes[f"{back}/hotplug-error"] == (
        'Device "x" is mounted in a guest domain,\nand so cannot be mounted now.\\'
    )
    assert len(nodes) == 6


def test_tree() -> None:
    nodes = parse_ls((GOLDEN / "xenstore_ls_tree.txt").read_text(), "/local/domain/0/backend")
    assert nodes["/local/domain/0/backend/vbd/6/768/state"] == "4"
    assert nodes["/local/domain/0/backend/vbd/6/5632/state"] == "2"
    assert nodes["/local/domain/0/backend/console"] == ""
    assert nodes["/local/domain/0/backend/console/tty"] == "/dev/pts/1"


def test_nonsense() -> None:
    with pytest.raises(LabBroken, match="cannot read this line of xenstore-ls"):
        parse_ls("not a node\n")


def test_read_write_rm() -> None:
    dom0 = (
        ScriptedDom0()
        .answer("xenstore-read /a", "value with spaces \n")
        .answer("xenstore-read", stderr="xenstore-read: couldn't read path /b", exit_code=1)
        .answer("xenstore-write")
        .answer("xenstore-rm", stderr="xenstore-rm: could not remove path /b", exit_code=1)
        .answer("xenstore-ls", stderr="xenstore-ls: xs_directory (/b): No such file", exit_code=1)
    )
    store = Xenstore(dom0)
    assert store.read("/a", Deadline(5)) == "value with spaces "
    assert store.read("/b", Deadline(5)) is None
    store.write("/a b", "it's", Deadline(5))
    assert dom0.commands[-1] == """xenstore-write '/a b' 'it'"'"'s'"""
    store.rm("/b", Deadline(5))
    assert store.ls("/b", Deadline(5)) == {}


def test_xenstore_that_does_not_answer() -> None:
    store = Xenstore(ScriptedDom0().answer("", stderr="xs_open: No such file", exit_code=1))
    with pytest.raises(LabBroken, match="xs_open"):
        store.read("/a", Deadline(5))
    with pytest.raises(LabBroken, match="xs_open"):
        store.ls("/a", Deadline(5))


@pytest.mark.parametrize("watches", [True, False])
def test_wait(tmp_path: Path, watches: bool) -> None:
    tools = FakeTools(tmp_path)
    store = Xenstore(ShellDom0(tools.bin), watches=watches)
    tools.hook("later", "put /a/state 1; ( sleep 0.4; put /a/state 4 ) >/dev/null 2>&1 &")
    store.dom0.run("xl later", Deadline(5))
    assert store.wait("/a/state", {"4", "5"}, Deadline(20)) == "4"
    assert store.wait("/a/state", {"4"}, Deadline(20)) == "4"
    with pytest.raises(DeadlineExpired, match="/a/state to become 6; last seen: 4"):
        store.wait("/a/state", {"6"}, Deadline(3))
