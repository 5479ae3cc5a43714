from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from lab.core.deadline import Deadline, NotYet, wait_for
from lab.core.errors import DeadlineExpired, LabBroken, UsageError
from lab.images.errors import BuildFailed
from lab.images.store import Store

fork = multiprocessing.get_context("fork")

# Waits until the test lets it go, and counts how often it ran.
GATED = """
import os
from lab.core.deadline import Deadline, NotYet, wait_for

def build(ctx):
    with open(os.path.join(os.environ["GATE"], "runs"), "a") as file:
        file.write("run\\n")
    def probe():
        if not os.path.exists(os.path.join(os.environ["GATE"], "open")):
            raise NotYet("closed")
    (ctx.scratch / "half").write_text("half")
    wait_for("the gate", probe, Deadline(60))
    (ctx.out / "data").write_text("whole")
"""

HANGING = """
def build(ctx):
    ctx.run(["sh", "-c", "(sleep 1000 & echo $! > $GATE/pid; wait); true"])
"""


class Recorder:
    def __init__(self) -> None:
        self.events: list[tuple[str, ...]] = []

    def started(self, image: str, minutes: float) -> None:
        self.events.append(("started", image))

    def waiting(self, image: str, reason: str) -> None:
        self.events.append(("waiting", image))

    def step(self, image: str, text: str) -> None:
        self.events.append(("step", image, text))

    def output(self, image: str, line: str) -> None:
        self.events.append(("output", image, line))

    def finished(self, image: str, seconds: float) -> None:
        self.events.append(("finished", image))

    def failed(self, image: str) -> None:
        self.events.append(("failed", image))


def partials(store: Store, name: str = "x") -> list[Path]:
    return sorted((store.root / name).glob(".partial-*"))


def await_file(path: Path) -> None:
    def probe() -> None:
        if not path.exists() or not path.read_text():
            raise NotYet("no file")

    wait_for(str(path), probe, Deadline(30))


def test_a_build_fills_the_store_once(make_recipe, store: Store) -> None:
    make_recipe("x")
    recorder = Recorder()
    built = store.ensure("x", recorder)
    assert (built.path / "data").read_text() == "one\n"
    assert built.manifest.versions == {"data": "1"}
    assert built.folder.name == built.key[:16]
    assert store.ensure("x", recorder) == built
    assert [event[0] for event in recorder.events].count("started") == 1
    assert ("step", "x", "copying") in recorder.events
    assert partials(store) == []
    entry = json.loads((built.folder / "manifest.json").read_text())["files"][0]
    assert entry["path"] == "data"
    assert entry["size"] == 4


def test_dependencies_come_first_and_are_reachable(make_recipe, store: Store) -> None:
    make_recipe("base", data="from base\n")
    make_recipe(
        "x",
        "def build(ctx):\n    (ctx.out / 'y').write_bytes((ctx.dep('base') / 'data').read_bytes())",
        depends=("base",),
    )
    built = store.ensure("x")
    assert (built.path / "y").read_text() == "from base\n"
    assert built.manifest.depends == {"base": store.key("base")}


def test_what_is_shared_is_reachable_and_nothing_else(make_recipe, store: Store) -> None:
    make_recipe("base")
    make_recipe(
        "x",
        'def build(ctx):\n    (ctx.out / "a").write_bytes(ctx.shared("base/data").read_bytes())\n',
        extra='shared = ["base/data"]',
    )
    assert (store.ensure("x").path / "a").read_text() == "one\n"
    make_recipe("y", 'def build(ctx):\n    ctx.shared("base/data")\n')
    with pytest.raises(LabBroken, match="base/data is not in its recipe's shared"):
        store.ensure("y")


def test_an_unnamed_dependency_is_refused(make_recipe, store: Store) -> None:
    make_recipe("base")
    make_recipe("x", "def build(ctx):\n    ctx.dep('base')")
    with pytest.raises(BuildFailed, match="base is not in its recipe's depends"):
        store.ensure("x")


def test_a_changed_input_makes_a_new_build_and_leaves_the_old(make_recipe, store: Store) -> None:
    make_recipe("x")
    first = store.ensure("x")
    make_recipe("x", data="two\n")
    assert store.find("x") is None
    assert [status.state for status in store.status()] == ["stale"]
    second = store.ensure("x")
    assert (second.path / "data").read_text() == "two\n"
    assert first.path.is_dir()
    assert store.remove("x", stale_only=True) > 0
    assert not first.path.exists()
    assert store.find("x") == second


def test_a_failed_program_is_told_with_its_output(make_recipe, store: Store) -> None:
    make_recipe("x", "def build(ctx):\n    ctx.run(['sh', '-c', 'echo one; echo two >&2; exit 7'])")
    recorder = Recorder()
    with pytest.raises(BuildFailed, match="image x: sh exited 7: two") as caught:
        store.ensure("x", recorder)
    assert {"one", "two"} <= set(caught.value.tail)
    assert caught.value.log is not None
    assert "two" in caught.value.log.read_text()
    assert ("output", "x", "two") in recorder.events
    assert recorder.events[-1] == ("failed", "x")
    assert partials(store) == []
    assert store.find("x") is None


def test_a_program_that_is_not_there(make_recipe, store: Store) -> None:
    make_recipe("x", "def build(ctx):\n    ctx.run(['no-such-program'])")
    with pytest.raises(BuildFailed, match=r"no-such-program exited 127: .*No such file"):
        store.ensure("x")


def test_a_builder_that_cannot_be_loaded(make_recipe, store: Store) -> None:
    make_recipe("x", "def other(ctx): pass")
    with pytest.raises(UsageError, match="no attribute 'build'"):
        store.ensure("x")
    assert partials(store) == []


def test_a_full_disk_is_one_line(make_recipe, store: Store) -> None:
    make_recipe(
        "x", f"def build(ctx):\n    raise OSError({errno.ENOSPC}, 'No space left on device')"
    )
    with pytest.raises(LabBroken, match="no space left below"):
        store.ensure("x")
    make_recipe("x", disk_mib=1 << 40)
    with pytest.raises(LabBroken, match="image x needs 1099511627776 MiB"):
        store.ensure("x")


def test_inputs_that_change_under_way_fail_the_build(make_recipe, store: Store) -> None:
    make_recipe("x", "def build(ctx):\n    (ctx.recipe_dir / 'data').write_text('other')")
    with pytest.raises(LabBroken, match="inputs changed"):
        store.ensure("x")
    assert partials(store) == []


def test_an_interrupt_leaves_nothing(make_recipe, store: Store) -> None:
    make_recipe("x", "def build(ctx):\n    raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        store.ensure("x")
    assert partials(store) == []


def test_two_builds_at_once_build_once(
    make_recipe, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATE", str(tmp_path))
    make_recipe("x", GATED)
    waited = fork.Queue()

    def child() -> None:
        recorder = Recorder()
        recorder.waiting = lambda image, reason: (tmp_path / "open").write_text("go")  # type: ignore
        waited.put((str(store.ensure("x", recorder).path), recorder.events))

    processes = [fork.Process(target=child) for _ in range(2)]
    processes[0].start()
    await_file(tmp_path / "runs")
    # The second one opens the gate when it finds that it has to wait.
    processes[1].start()
    results = [waited.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert (tmp_path / "runs").read_text() == "run\n"
    assert results[0][0] == results[1][0]
    assert sum(("started", "x") in events for _, events in results) == 1


def test_a_killed_build_is_cleared_away_by_the_next(
    make_recipe, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATE", str(tmp_path))
    make_recipe("x", GATED)
    process = fork.Process(target=store.ensure, args=("x",))
    process.start()
    await_file(tmp_path / "runs")
    assert process.pid is not None
    with pytest.raises(DeadlineExpired, match=f"held by process {process.pid}"):
        store.ensure("x", deadline=Deadline(0))
    os.kill(process.pid, signal.SIGKILL)
    process.join(60)
    assert len(partials(store)) == 1
    (tmp_path / "open").write_text("go")
    assert (store.ensure("x").path / "data").read_text() == "whole"
    assert partials(store) == []


def test_programs_die_with_a_killed_build(
    make_recipe, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATE", str(tmp_path))
    make_recipe("x", HANGING)
    process = fork.Process(target=store.ensure, args=("x",))
    process.start()
    await_file(tmp_path / "pid")
    grandchild = int((tmp_path / "pid").read_text())
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(60)

    def probe() -> None:
        if Path(f"/proc/{grandchild}").exists():
            raise NotYet("alive")

    wait_for("the grandchild to die", probe, Deadline(30))


def test_a_program_over_its_deadline_is_killed(
    make_recipe, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATE", str(tmp_path))
    make_recipe("x", HANGING)
    with pytest.raises(BuildFailed, match="waited"):
        store.ensure("x", deadline=Deadline(1))
    assert partials(store) == []
    if (tmp_path / "pid").exists():
        assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()


def test_verify_catches_a_flipped_byte(make_recipe, store: Store) -> None:
    make_recipe("x")
    built = store.ensure("x")
    assert store.verify("x") == []
    (built.path / "data").write_bytes(b"onf\n")
    assert store.verify("x") == ["data has other contents than when it was built"]
    (built.path / "data").unlink()
    (built.path / "more").write_bytes(b"")
    assert store.verify("x") == ["data is missing", "more does not belong to the image"]


def test_a_damaged_image_is_refused_and_can_be_rebuilt(make_recipe, store: Store) -> None:
    make_recipe("x")
    built = store.ensure("x")
    (built.path / "data").write_bytes(b"")
    with pytest.raises(LabBroken, match="damaged: data has 0 bytes instead of 4"):
        store.ensure("x")
    assert [status.state for status in store.status()] == ["damaged"]
    assert (store.ensure("x", force=True).path / "data").read_text() == "one\n"


@pytest.mark.parametrize("manifest", ["", "{}", "\x00", '{"name": 1}'])
def test_an_unusable_manifest_is_one_line(make_recipe, store: Store, manifest: str) -> None:
    make_recipe("x")
    built = store.ensure("x")
    (built.folder / "manifest.json").write_text(manifest)
    with pytest.raises(LabBroken, match="manifest") as caught:
        store.find("x")
    assert "\n" not in str(caught.value)
    assert [status.state for status in store.status()] == ["damaged"]


def test_links_are_kept_and_checked(make_recipe, store: Store) -> None:
    make_recipe("x", "def build(ctx):\n    (ctx.out / 'l').symlink_to('nowhere')")
    built = store.ensure("x")
    assert built.manifest.files[0].link == "nowhere"
    (built.path / "l").unlink()
    (built.path / "l").symlink_to("elsewhere")
    assert len(store.verify("x")) == 1


def test_what_is_neither_file_nor_link_is_refused(make_recipe, store: Store) -> None:
    make_recipe("x", "import os\ndef build(ctx):\n    os.mkfifo(ctx.out / 'p')")
    with pytest.raises(LabBroken, match="neither a file"):
        store.ensure("x")


def test_an_image_in_use_is_not_removed(make_recipe, store: Store) -> None:
    make_recipe("x")
    built = store.ensure("x")
    with store.hold(built, Deadline(1)), store.hold(built, Deadline(1)):
        with pytest.raises(LabBroken, match="in use"):
            store.remove("x")
        assert built.path.is_dir()
    assert store.remove("x") > 0
    assert [status.state for status in store.status()] == ["missing"]
    with pytest.raises(LabBroken, match="was removed"), store.hold(built, Deadline(1)):
        pass


def test_remove_takes_only_names_of_images(make_recipe, store: Store) -> None:
    make_recipe("x")
    store.ensure("x")
    for name in ("..", "", "y", "x/../x"):
        with pytest.raises(UsageError, match="no image is called"):
            store.remove(name)


def test_status_shows_builds_without_a_recipe(make_recipe, store: Store, recipes: Path) -> None:
    folder = make_recipe("x")
    store.ensure("x")
    (folder / "recipe.toml").unlink()
    (status,) = store.status()
    assert (status.state, status.others, status.description) == ("stale", 1, "")
    assert store.remove("x") > 0
