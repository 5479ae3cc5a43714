from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from place_fakes import (
    DOMAIN,
    HOST,
    FakeChannel,
    FakeDom0,
    FakeMachine,
    accel_choice,
    guest_image,
    host_image,
    profile,
)

from lab.core.errors import ExitCode, LabBroken, UsageError
from lab.core.paths import repo_root
from lab.images.store import BuiltImage
from lab.place import bake, stage, warm
from lab.place.bake import Baker, baked_domain
from lab.place.hardware import machine_spec
from lab.place.place import Access
from lab.place.stage import Stage, StageStore
from lab.place.standin import guest_image as guest_image_for
from lab.place.warm import Kitchen, prepare
from lab.qemu.accel import AccelChoice
from lab.xen.config import DomainConfig
from lab.xen.xm import shim


class World:
    """What bakes run on."""

    def __init__(self) -> None:
        self.dom0 = FakeDom0()
        self.channel = FakeChannel()
        self.machines: list[FakeMachine] = []
        self.disks: list[tuple[str, object]] = []
        self.created: list[str] = []
        self.said: list[str] = []

    def machine(self, *args: Any) -> FakeMachine:
        self.machines.append(FakeMachine(*args))
        return self.machines[-1]

    def overlay(self, path: Path, base: Path, kind: str) -> Path:
        assert base.exists()
        self.disks.append((path.name, base.name))
        path.write_text("overlay")
        return path

    def blank(self, path: Path, size_mib: int) -> Path:
        self.disks.append((path.name, size_mib))
        path.write_text("blank")
        return path


class FakeXl:
    def __init__(self, world: World) -> None:
        self.world = world

    def info(self, deadline: object) -> dict[str, object]:
        return {"xen_version": "4.17.5", "release": "6.1.0-30-amd64"}

    def configuration(self, config: DomainConfig) -> str:
        return config.for_xl()

    def create(self, path: str, deadline: object) -> object:
        self.world.created.append(path)
        return DOMAIN

    def config(self, domain: object, deadline: object) -> dict[str, object]:
        return {"type": "hvm"}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr(bake, "Machine", made.machine)
    monkeypatch.setattr(stage, "Machine", FakeMachine)
    monkeypatch.setattr(bake, "create_overlay", made.overlay)
    monkeypatch.setattr(bake, "create_blank", made.blank)
    monkeypatch.setattr(bake, "XlToolstack", lambda dom0: FakeXl(made))
    monkeypatch.setattr(Access, "connect", lambda self, machine, deadline: made.dom0)
    monkeypatch.setattr(Access, "channel", lambda self, machine: made.channel)
    return made


BakerMaker = Callable[..., Baker]


@pytest.fixture
def baker(world: World, tmp_path: Path) -> BakerMaker:
    def make(
        *,
        accel: AccelChoice | None = None,
        host: BuiltImage | None = None,
        guest: BuiltImage | None = None,
        **of_profile: Any,
    ) -> Baker:
        return Baker(
            profile(**of_profile),
            accel or accel_choice(),
            host or host_image(tmp_path / "host"),
            guest or guest_image(tmp_path / "guest"),
            world.said.append,
            stages=StageStore(tmp_path / "templates"),
        )

    return make


def kinds(tmp_path: Path) -> list[str]:
    return sorted(kind for _, kind, _, _ in StageStore(tmp_path / "templates").stages())


# -- baking -----------------------------------------------------------------------------


def test_bake(baker: BakerMaker, world: World, tmp_path: Path):
    stage = baker().stage()
    assert kinds(tmp_path) == ["guest standin tcg-hvm", "host standin tcg-hvm"]
    assert baked_domain(stage) == DOMAIN
    assert Baker.recorded(stage, "versions") == {"xen": "4.17.5", "dom0": "6.1.0-30-amd64"}
    assert set(Baker.recorded(stage, "seconds")) == {"dom0_ssh", "guest_winrm"}
    assert stage.facts["serial_bytes"] == 123
    assert stage.facts["identity"] == {
        "domain": {"type": "hvm"},
        "guest": "Microsoft Windows\r\n",
    }
    assert stage.state.read_bytes() == b"state"
    # Frozen before the connections would notice, and stopped for good.
    assert [machine.alive for machine in world.machines] == [False, False]
    assert world.dom0.closed == 2
    assert len(world.channel.closed) == 1


def test_guest_s_disk_comes_with_the_guest(baker: BakerMaker, world: World, tmp_path: Path):
    """The host stage knows its size alone, in whole MiB."""
    baker(guest=guest_image(tmp_path / "guest", disk_bytes=(3 << 20) + 1)).stage()
    host, guest = world.disks[:3], world.disks[3:]
    assert host == [("root.qcow2", "root.img"), ("vg.qcow2", 64 * 1024), ("guest.qcow2", 4)]
    assert guest == [("guest.qcow2", "disk.img")]


def test_guest_s_configuration(baker: BakerMaker, world: World, tmp_path: Path):
    baker(memory={"guest_mib": 256}).stage()
    (written,) = world.dom0.stdin.values()
    text = written.decode()
    assert 'name = "virtdemo"' in text
    assert "memory = 256" in text
    assert 'disk = [ "/dev/vdc" ]' in text
    ((remote, local),) = world.dom0.put_files.items()
    assert f'kernel = "{remote}"' in text
    assert local == tmp_path / "guest/files/vmlinuz"
    assert world.created == ["/etc/xen/virtdemo.cfg"]


def test_guest_without_a_disk(baker: BakerMaker, world: World, tmp_path: Path):
    """A PV guest with all of it in memory: dom0 has its kernel, and logs its console."""
    guest = guest_image(tmp_path / "guest", guest_type="pv", disk="", c_partition=0)
    made = baker(guest=guest, accel=accel_choice(name="tcg-pv", guest_type="pv"))
    made.stage()
    host, rest = world.disks[:3], world.disks[3:]
    # An empty one keeps its place: dom0's names do not depend on the guest.
    assert host == [("root.qcow2", "root.img"), ("vg.qcow2", 64 * 1024), ("guest.qcow2", 1)]
    assert rest == [("guest.qcow2", 1)]
    log = "/var/log/xen/console/guest-virtdemo.log"
    assert made.access().serial_log == log
    assert f'serial = "{log}"' in next(iter(world.dom0.stdin.values())).decode()
    assert any(command.startswith(f"stat -c %s {log};") for command in world.dom0.commands)
    assert list(world.dom0.put_files.values()) == [guest.path / "vmlinuz"]
    assert kinds(tmp_path) == ["guest standin tcg-pv", "host standin tcg-pv"]


def test_second_time_nothing_is_baked(baker: BakerMaker, world: World):
    first = baker().stage()
    assert baker().stage() == first
    assert len(world.machines) == 2


def test_goes_on_from_the_last_whole_stage(baker: BakerMaker, world: World, tmp_path: Path):
    world.channel.error = LabBroken("no answer")
    world.dom0.stdout = "Linux version 6.1\n\nKernel panic\n"
    with pytest.raises(LabBroken) as caught:
        baker().stage()
    assert "the guest did not come up: no answer" in caught.value.message
    assert "its serial port: Linux version 6.1 | Kernel panic" in caught.value.message
    assert "last line of the console: dom0 login:" in caught.value.message
    assert kinds(tmp_path) == ["host standin tcg-hvm"]
    assert not any(machine.alive for machine in world.machines)

    world.channel.error = None
    world.dom0.stdout = "123"
    baker().stage()
    assert kinds(tmp_path) == ["guest standin tcg-hvm", "host standin tcg-hvm"]
    assert len(world.machines) == 3


def test_dom0_that_fails(baker: BakerMaker, world: World, tmp_path: Path):
    world.dom0.fails = lambda command: LabBroken("dom0 hung up", hint="look")
    with pytest.raises(LabBroken) as caught:
        baker().stage()
    assert caught.value.message == "bake: dom0 hung up; last line of the console: dom0 login:"
    assert caught.value.hint == "look"
    assert kinds(tmp_path) == []


def test_only_the_newest_is_kept(baker: BakerMaker, world: World, tmp_path: Path):
    """Without what this process uses: that goes with the next bake."""
    script = """\
import sys
from pathlib import Path
from lab.place.stage import StageStore
store = StageStore(Path(sys.argv[1]))
for kind in ("host standin tcg-hvm", "guest standin tcg-hvm"):
    key = kind[0] * 64
    with store.making(key) as folder:
        store.finish(key, folder, kind, {})
"""
    root = tmp_path / "templates"
    environment = {**os.environ, "PYTHONPATH": str(repo_root())}
    subprocess.run([sys.executable, "-c", script, str(root)], check=True, env=environment)
    assert len(kinds(tmp_path)) == 2
    baker().stage()
    names = [name for name, _, _, _ in StageStore(root).stages()]
    assert len(names) == 2
    assert "h" * 16 not in names
    assert "g" * 16 not in names


def test_other_rungs_and_profiles_keep_theirs(baker: BakerMaker, tmp_path: Path):
    baker().stage()
    baker(accel=accel_choice(name="kvm")).stage()
    assert len(kinds(tmp_path)) == 4


def test_cold_boot(baker: BakerMaker, world: World, tmp_path: Path):
    folder = tmp_path / "cold"
    folder.mkdir()
    seconds = baker().cold_boot(folder)
    assert 0 <= seconds["dom0_ssh"] <= seconds["guest_winrm"]
    assert ("guest.qcow2", "disk.img") in world.disks
    assert kinds(tmp_path) == []


# -- keys -------------------------------------------------------------------------------


def key_of(stage: Stage) -> str:
    assert stage.folder.name == stage.key[:16]
    return stage.key


@pytest.mark.parametrize(
    "change",
    [
        {"accel": accel_choice(name="kvm")},
        {"accel": accel_choice(cpu="host")},
        {"accel": accel_choice(emulator="QEMU 7.2.0 (system)")},
        {"memory": {"host_mib": 3072}},
        {"memory": {"dom0_mib": 512}},
        {"memory": {"guest_mib": 256}},
    ],
    ids=str,
)
def test_key_follows_what_is_asked_for(baker: BakerMaker, change: dict[str, Any]):
    assert key_of(baker(**change).stage()) != key_of(baker().stage())


@pytest.mark.parametrize(
    "change", [{"key": "c" * 64}, {"built_at": "2024-06-01"}], ids=["key", "built again"]
)
@pytest.mark.parametrize("which", ["host", "guest"])
def test_key_follows_the_images(
    baker: BakerMaker, tmp_path: Path, which: str, change: dict[str, str]
):
    make = host_image if which == "host" else guest_image
    other = make(tmp_path / f"other {which}", **change)
    made: dict[str, Any] = {which: other}
    assert key_of(baker(**made).stage()) != key_of(baker().stage())


@pytest.mark.parametrize("name", ["BAKE_VERSION", "__version__"])
def test_key_follows_the_lab(baker: BakerMaker, monkeypatch: pytest.MonkeyPatch, name: str):
    before = key_of(baker().stage())
    monkeypatch.setattr(bake, name, "99")
    assert key_of(baker().stage()) != before


@pytest.mark.parametrize(
    "change",
    [
        {"deadlines": {"boot": 300.0}},
        {"crash_patterns": ["panic"]},
        {"driver": "/drivers"},
        {"guest_label": "another stand-in"},
        {"accel": accel_choice(why="another reason", argv=("other", "words"))},
    ],
    ids=str,
)
def test_key_does_not_follow_what_a_bake_does_not_depend_on(
    baker: BakerMaker, change: dict[str, Any]
):
    assert key_of(baker(**change).stage()) == key_of(baker().stage())


def test_guest_s_change_leaves_the_host_stage(baker: BakerMaker, world: World, tmp_path: Path):
    baker().stage()
    baker(guest=guest_image(tmp_path / "other", key="c" * 64)).stage()
    # One boot of the host, two of guests.
    assert len(world.machines) == 3


# -- access -----------------------------------------------------------------------------


def test_password_of_the_image(baker: BakerMaker):
    access = baker().access()
    assert (access.username, access.password) == ("Administrator", "pass word")
    assert access.domain == "virtdemo"
    assert "pass word" not in repr(access)


def test_password_of_the_environment(baker: BakerMaker, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GUEST_PASSWORD", "from outside")
    of_profile = {"winrm": {"username": "tester", "credentials": {"env": "GUEST_PASSWORD"}}}
    access = baker(**of_profile).access()
    assert (access.username, access.password) == ("tester", "from outside")


def test_password_that_nobody_says(
    baker: BakerMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    guest = guest_image(tmp_path / "guest", password_file=None)
    with pytest.raises(UsageError, match="standin-pae has no password of its own"):
        baker(guest=guest).access()
    monkeypatch.delenv("GUEST_PASSWORD", raising=False)
    with pytest.raises(UsageError) as caught:
        baker(winrm={"credentials": {"env": "GUEST_PASSWORD"}}).stage()
    # Still the user's to put right, however deep in a bake it is found.
    assert caught.value.exit_code is ExitCode.USAGE


def test_toolstack_that_the_host_lacks(baker: BakerMaker, tmp_path: Path):
    for has, asked in ((("xm",), "xl"), ((), "xm")):
        host = host_image(tmp_path / "bare", toolstacks=has)
        with pytest.raises(UsageError, match=f"xen417-debian has no {asked}") as caught:
            baker(host=host, toolstack=asked)
        assert caught.value.hint == f"it has {', '.join(has)}"


def test_xm_where_there_is_only_xl_is_a_shim(
    baker: BakerMaker, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(bake, "XmToolstack", lambda dom0: FakeXl(world))
    plain = baker()
    shimmed = baker(toolstack="xm")
    assert (plain.toolstack, shimmed.toolstack) == ("xl", "xm (shim over xl)")
    # dom0 ready is the same for both; the guest is not, nor is it for another shim.
    (host_key, guest_key), (same, other) = plain._keys(), shimmed._keys()
    assert host_key == same
    assert guest_key != other
    shimmed.stage()
    (command,) = (one for one in world.dom0.commands if one.startswith("cat > /usr/sbin/xm"))
    assert world.dom0.stdin[command] == shim()
    assert world.dom0.commands.index(command) > world.dom0.commands.index(bake._WARM_UP)
    monkeypatch.setattr(bake, "shim", lambda: b"another")
    assert shimmed._keys()[1] not in (guest_key, other)


def test_xm_of_the_host_s_own_is_no_shim(baker: BakerMaker, world: World, tmp_path: Path):
    own = baker(host=host_image(tmp_path / "own", toolstacks=("xm",)), toolstack="xm")
    assert own.toolstack == "xm"


# -- machine ----------------------------------------------------------------------------


def test_machine(baker: BakerMaker, tmp_path: Path):
    folder = tmp_path / "stage"
    spec = baker(memory={"host_mib": 3072, "dom0_mib": 512}).spec(folder)
    files = tmp_path / "host/files"
    assert spec.kernel == files / "xen"
    assert spec.append == "console=com1 dom0_mem=512M,max:512M"
    assert spec.initrd == f"{files}/vmlinux root=/dev/vda console=hvc0,{files}/initrd"
    assert spec.memory_mib == 3072
    assert (spec.accel, spec.cpu) == ("tcg", "EPYC")
    assert spec.forwards == {"ssh": 22, "winrm": 5985}
    assert (spec.ram_file, spec.ram_shared) == (folder / "ram", True)
    assert [disk.path.name for disk in spec.disks] == ["root.qcow2", "vg.qcow2", "guest.qcow2"]
    assert not any(disk.throwaway for disk in spec.disks)


def test_commas_of_a_module_s_arguments_are_escaped(tmp_path: Path):
    """QEMU takes a comma for the next module's start."""
    host = HOST.model_copy(update={"modules": (("vmlinux", "console=ttyS0,115200"),)})
    spec = machine_spec("m", profile(), accel_choice(), host, Path("/a,b"), tmp_path)
    assert spec.initrd == "/a,,b/vmlinux console=ttyS0,,115200"


# -- kitchen ----------------------------------------------------------------------------


def test_guest_image_by_rung():
    assert guest_image_for(profile(), "hvm", "kvm") == "standin-pae"
    assert guest_image_for(profile(guest_image="other"), "hvm", "kvm") == "other"
    assert guest_image_for(profile(), "pv", "tcg-pv") == "standin-pv"


def test_windows_is_not_replaced_by_a_stand_in():
    windows = profile(
        name="w2k3", guest_kind="windows", guest_label="W2003", memory={"guest_mib": 512}
    )
    with pytest.raises(UsageError, match="profile w2k3 needs an HVM guest") as caught:
        guest_image_for(windows, "pv", "tcg-pv")
    assert "--accel tcg-hvm" in caught.value.hint


def test_prepare(world: World, baker: BakerMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    images = {
        "xen417-debian": host_image(tmp_path / "host"),
        "standin-pae": guest_image(tmp_path / "guest"),
    }
    asked: list[str | None] = []

    def choose(accel: str | None) -> AccelChoice:
        asked.append(accel)
        return accel_choice()

    monkeypatch.setattr(
        warm, "Store", lambda: SimpleNamespace(ensure=lambda name, lines: images[name])
    )
    monkeypatch.setattr(warm, "Ladder", lambda store, lines: SimpleNamespace(choose=choose))
    template = prepare(profile(), accel="tcg-hvm", progress=world.said.append)
    assert asked == ["tcg-hvm"]
    assert template.images == images
    assert template.versions["qemu"] == "5.2.0"
    assert template.versions["xen"] == "4.17.5"
    assert "pvlab" in template.versions
    assert template.folder.parent == tmp_path / "cache/templates"
    assert template.key == template.stage.key
    assert template.identity == {"domain": {"type": "hvm"}, "guest": "Microsoft Windows\r\n"}
    assert template.bake_seconds["guest_winrm"] >= 0
    assert world.said[0].startswith("accelerator: tcg-hvm on QEMU 5.2.0")

    monkeypatch.setattr(warm, "Machine", FakeMachine)
    scratch = tmp_path / "scratch 1"
    scratch.mkdir()
    place = template.clone(scratch, warm.Deadline(30))
    machine: Any = place.machine
    assert place.name == "clone scratch 1"
    assert machine.spec.ram_file == template.stage.ram
    assert not machine.spec.ram_shared
    assert all(disk.throwaway for disk in machine.spec.disks)
    assert place.domain == DOMAIN
    assert "clone_running" in place.timings
    # The console goes on where the template's was.
    assert "dom0 login" in place.machine.serial_log.read_text()
    place.close()
    assert machine.stops


def test_progress_lines_of_image_builds():
    said: list[str] = []
    lines = warm._ImageLines(said.append)
    lines.started("standin-pae", 2.5)
    lines.waiting("standin-pae", "process 7 builds or uses it")
    lines.step("standin-pae", "packing")
    lines.output("standin-pae", "a program's line")
    lines.finished("standin-pae", 61.4)
    assert said == [
        "image standin-pae: building, about 2.5 min",
        "image standin-pae: waiting: process 7 builds or uses it",
        "image standin-pae: packing",
        "image standin-pae: built in 61 s",
    ]


def test_kitchen_bakes_where_it_is_told(world: World, tmp_path: Path):
    kitchen = Kitchen(
        profile(),
        accel_choice(),
        host_image(tmp_path / "host"),
        guest_image(tmp_path / "guest"),
        world.said.append,
    )
    template = kitchen.template(StageStore(tmp_path / "elsewhere"))
    assert template.folder.parent == tmp_path / "elsewhere"
