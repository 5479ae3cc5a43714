from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from lab.core.deadline import Deadline
from lab.core.errors import DeadlineExpired, LabBroken
from lab.core.lock import locked
from lab.core.paths import repo_root
from lab.place.stage import Stage, StageStore, copy_stage

ONE, TWO, THREE = "1" * 64, "2" * 64, "3" * 64
FILES = ("ram", "state", "root.qcow2", "vg.qcow2", "guest.qcow2", "serial.log")


@pytest.fixture
def store(tmp_path: Path) -> StageStore:
    return StageStore(tmp_path / "templates")


def make(store: StageStore, key: str, kind: str = "host standin kvm", content: str = "x") -> Stage:
    with store.making(key) as folder:
        for name in FILES:
            (folder / name).write_text(content)
        return store.finish(key, folder, kind, {"seconds": {"dom0_ssh": 1.5}})


def visible(store: StageStore) -> list[str]:
    return sorted(path.name for path in store.root.iterdir() if path.name != ".locks")


def test_in_the_cache_by_default(tmp_path: Path):
    assert StageStore().root == tmp_path / "cache/templates"


def test_made_and_found(store: StageStore):
    assert store.find(ONE) is None
    made = make(store, ONE)
    found = store.find(ONE)
    assert found == made
    assert found is not None
    assert found.facts == {"seconds": {"dom0_ssh": 1.5}}
    assert found.state.read_text() == found.ram.read_text() == found.console.read_text() == "x"
    assert found.size_bytes > 0
    assert visible(store) == ["1" * 16]
    assert store.find(TWO) is None


def test_what_only_the_machine_needed_is_not_kept(store: StageStore):
    with store.making(ONE) as folder:
        for name in ("ram", "serial.sock", "qemu.log", "exchange.raw"):
            (folder / name).write_text("")
        made = store.finish(ONE, folder, "kind", {})
    assert sorted(path.name for path in made.folder.iterdir()) == ["ram", "stage.json"]


def test_new_one_replaces_an_old_one_of_its_key(store: StageStore):
    make(store, ONE, content="old")
    assert make(store, ONE, content="new").ram.read_text() == "new"
    assert visible(store) == ["1" * 16]


def test_failed_attempt_leaves_nothing(store: StageStore):
    def attempt() -> None:
        with store.making(ONE) as folder:
            (folder / "ram").write_text("half")
            raise LabBroken("the guest did not come up")

    with pytest.raises(LabBroken):
        attempt()
    assert store.find(ONE) is None
    assert visible(store) == []


KILLED = """\
import os, signal, sys
from pathlib import Path
from lab.place.stage import StageStore

with StageStore(Path(sys.argv[1])).making("1" * 64) as folder:
    (folder / "ram").write_text("half")
    (folder / "stage.json").write_text('{"key": "x", "kind": "k", "made": 1, "facts": {}}')
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def killed(store: StageStore) -> str:
    """Name of what an attempt at ONE left that was killed just before it was whole."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(store.root)],
        env={**os.environ, "PYTHONPATH": str(repo_root())},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    left = [name for name in visible(store) if name.startswith(".partial-")]
    assert len(left) == 1
    return left[0]


def test_killed_attempt_is_no_stage(store: StageStore, killed: str):
    assert store.find(ONE) is None
    assert store.stages() == []


def test_next_attempt_sweeps_up(store: StageStore, killed: str):
    make(store, ONE)
    assert visible(store) == ["1" * 16]


def test_attempt_at_another_key_leaves_it(store: StageStore, killed: str):
    """It may belong to someone who is at it right now."""
    make(store, TWO)
    assert visible(store) == [killed, "2" * 16]


def test_prune_sweeps_up_whatever_the_key(store: StageStore, killed: str):
    store.prune("host standin kvm", set())
    assert visible(store) == []


def test_prune_leaves_attempts_under_way(store: StageStore, killed: str):
    with locked(store.lock_path(ONE), Deadline(0)):
        store.prune("host standin kvm", set())
    assert visible(store) == [killed]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"facts": 1}', '{"facts": null}', "null", "\x00"]
)
def test_damaged_facts(store: StageStore, text: str):
    made = make(store, ONE)
    (made.folder / "stage.json").write_text(text)
    with pytest.raises(LabBroken, match="the warm state 1111111111111111 is damaged") as caught:
        store.find(ONE)
    assert caught.value.hint == f"rm -r {made.folder}"
    assert "\n" not in str(caught.value)
    assert store.stages() == []


def test_list(store: StageStore):
    make(store, TWO, "guest standin kvm")
    make(store, ONE)
    one, two = store.stages()
    assert one[:2] == ("1" * 16, "host standin kvm")
    assert two[:2] == ("2" * 16, "guest standin kvm")
    assert one[2] > two[2] > 0
    assert one[3] > 0


def test_list_of_nothing(store: StageStore):
    assert store.stages() == []
    store.prune("kind", set())


def test_prune(store: StageStore):
    make(store, ONE)
    make(store, TWO)
    make(store, THREE, "host standin tcg-hvm")
    store.prune("host standin kvm", {TWO})
    assert visible(store) == ["2" * 16, "3" * 16]


def test_prune_leaves_what_is_used(store: StageStore):
    make(store, ONE)
    with locked(store.lock_path(ONE), Deadline(0), shared=True):
        store.prune("host standin kvm", set())
        assert store.find(ONE) is not None
    store.prune("host standin kvm", set())
    assert store.find(ONE) is None


def test_held_stage_is_not_pruned(store: StageStore):
    make(store, ONE)
    assert store.hold(ONE)
    assert store.hold(ONE)
    store.prune("host standin kvm", set())
    assert store.find(ONE) is not None


def test_stage_that_is_gone_cannot_be_held(store: StageStore):
    assert not store.hold(ONE)
    # Whoever makes it again gets the lock.
    with locked(store.lock_path(ONE), Deadline(0)):
        make(store, ONE)
    assert store.hold(ONE)
    with pytest.raises(DeadlineExpired), locked(store.lock_path(ONE), Deadline(0)):
        pytest.fail("it is held")


def test_half_a_removal_is_no_stage(store: StageStore, monkeypatch: pytest.MonkeyPatch):
    """Removal is out of sight in one step, so that killing it leaves nothing usable."""
    make(store, ONE)
    monkeypatch.setattr("shutil.rmtree", lambda path, **_: None)
    store.prune("host standin kvm", set())
    assert store.find(ONE) is None
    assert store.stages() == []


def test_copy(store: StageStore, tmp_path: Path):
    made = make(store, ONE)
    with made.ram.open("wb") as file:
        file.truncate(64 << 20)
        file.seek(1 << 20)
        file.write(b"ram")
    copy = tmp_path / "copy"
    copy.mkdir()
    copy_stage(made, copy)
    assert sorted(path.name for path in copy.iterdir()) == sorted(FILES)
    assert (copy / "ram").stat().st_size == 64 << 20
    assert (copy / "ram").stat().st_blocks * 512 < 8 << 20
    with (copy / "ram").open("rb") as file:
        file.seek(1 << 20)
        assert file.read(3) == b"ram"


def test_copy_of_half_a_stage(store: StageStore, tmp_path: Path):
    made = make(store, ONE)
    made.ram.unlink()
    with pytest.raises(LabBroken, match=r"cannot copy the warm state: .*ram"):
        copy_stage(made, tmp_path)


def test_facts_are_readable_by_people(store: StageStore):
    about = json.loads((make(store, ONE).folder / "stage.json").read_text())
    assert (about["key"], about["kind"]) == (ONE, "host standin kvm")
