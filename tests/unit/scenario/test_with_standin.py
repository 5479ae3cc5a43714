"""Scenarios in the stand-in's own server on loopback: all is real but Xen and the kernel.

Disks are files, which a dom0 made of a few lines plugs in and out.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from types import SimpleNamespace

import pytest

from lab.core.deadline import Deadline
from lab.core.journal import listening, noun
from lab.core.paths import repo_root
from lab.guest.channel import Channel
from lab.guest.diskio import DiskIo, pattern
from lab.guest.guest import Guest
from lab.scenario import run as module
from lab.scenario.outcome import End
from lab.scenario.record import Recorder
from lab.scenario.run import run
from lab.scenario.text import dumps, loads, plain
from lab.suite import backing as real
from lab.suite import devices
from lab.suite.devices import BlockDevices
from lab.suite.jitter import Jitter
from lab.xen.blockspec import BlockSpec, vdev_name

STANDIN = repo_root() / "images/standin-pae"
LAB = SimpleNamespace(deadline=lambda allowance: Deadline(60))


@pytest.fixture(scope="module")
def standin():
    if not (STANDIN / "standin/winrm.py").exists():
        pytest.skip("the stand-in's server is not in this checkout")
    sys.path.insert(0, str(STANDIN))
    import standin.boot

    yield standin
    sys.path.remove(str(STANDIN))


class Kernel:
    """The guest's kernel as folders and files, and the disks that dom0 has plugged in."""

    def __init__(self, root):
        self.root = root
        self.serial = 0
        for folder in ("sys/block", "sys/module", "sys/bus/xen/devices", "dev", "proc", "c"):
            (root / folder).mkdir(parents=True)
        (root / "proc/meminfo").write_text("MemTotal: 196608 kB\nMemAvailable: 98304 kB\n")
        (root / "kmsg").touch()
        system = root / "system-disk"
        with system.open("wb") as file:
            file.truncate(1 << 20)
        self.plug("sda", system)

    def plug(self, name, file):
        folder = self.root / "sys/block" / name
        (folder / "queue").mkdir(parents=True)
        (folder / "queue/logical_block_size").write_text("512\n")
        (folder / "size").write_text(f"{file.stat().st_size // 512}\n")
        self.serial += 1
        (folder / "diskseq").write_text(f"{self.serial}\n")
        os.symlink(file, self.root / "dev" / name)

    def unplug(self, name):
        shutil.rmtree(self.root / "sys/block" / name)
        (self.root / "dev" / name).unlink()

    def run(self, program, *args, process=None):
        return 0, b""

    def reread_partitions(self, device):
        pass

    def is_mounted(self, folder):
        return False


@noun
class Backing:
    """A backing device that is a file."""

    def __init__(self, file, sectors):
        self.file, self.sectors, self.path = file, sectors, f"/dev/{file.name}"
        self.spec = f"phy:{self.path}"

    def wrong(self, first, count, deadline, *, gen=1, seed=1):
        data = self.file.read_bytes()[first * 512 : (first + count) * 512]
        return () if data == pattern(first, count, gen, seed) else ("it is wrong",)


@noun
class Backings:
    def __init__(self, root):
        self.root = root

    def exact(self, sectors, deadline, *, room=0):
        file = self.root / f"map-{len(list(self.root.glob('map-*')))}"
        with file.open("wb") as made:
            made.truncate(sectors * 512)
        return Backing(file, sectors)


class Vbd:
    """Attaching and detaching, as ``lab.xen.vbd`` offers it."""

    def __init__(self, kernel):
        self.kernel = kernel

    def attach(self, toolstack, xenstore, domain, spec, deadline, *, while_waiting=None):
        self.kernel.plug(f"xvd{spec.vdev[-1]}", self.kernel.root / spec.path.rpartition("/")[2])
        return SimpleNamespace(devid=spec.devid)

    def detach(self, toolstack, xenstore, domain, devid, deadline, **_):
        self.kernel.unplug(f"xvd{vdev_name(devid)[-1]}")

    def read(self, xenstore, domid, devid, deadline):
        return SimpleNamespace(devid=devid)


class Crash:
    def check(self, deadline):
        return None

    def raise_if_seen(self, deadline):
        pass

    @contextlib.contextmanager
    def guard(self, operation, deadline):
        yield


@pytest.fixture
def new_place(standin, tmp_path, monkeypatch):
    """Makes places, each with a guest of its own."""
    from standin import winrm
    from standin.config import Config
    from standin.system import System

    closing = contextlib.ExitStack()
    count = iter(range(9))

    def new_place():
        root = tmp_path / str(next(count))
        kernel = Kernel(root)
        settings = Config(
            {
                "password": "secret",
                "listen": "127.0.0.1",
                "port": 0,
                **{f"{name}_root": str(root / name) for name in ("sys", "dev", "proc", "c")},
                "mount_root": str(root / "letters"),
                "kmsg": str(root / "kmsg"),
                "uevents": False,
                "preload": False,
            }
        )
        system = System(settings, kernel)
        system.disks.scan()
        server = winrm.start(system)
        closing.callback(server.close)
        channel = closing.enter_context(
            Channel("127.0.0.1", server.port, "Administrator", "secret", name="standin")
        )
        vbd = Vbd(kernel)
        monkeypatch.setattr(module, "vbd", vbd)
        monkeypatch.setattr(devices, "vbd", vbd)
        monkeypatch.setattr(module, "Backings", lambda dom0, vg: Backings(root))
        monkeypatch.setattr(
            module, "at_once", lambda place, moves, lab: [move(place, one) for one in moves]
        )

        def move(place, one):
            if one.kind == "attach":
                vbd.attach(None, None, None, one.spec, None)
            else:
                vbd.detach(None, None, None, one.spec.devid, None)

        return SimpleNamespace(
            guest=Guest("standin", channel, Crash()),
            toolstack=SimpleNamespace(pause=lambda *_: None, unpause=lambda *_: None),
            xenstore=None,
            dom0=None,
            vg=None,
            domain=SimpleNamespace(domid=1, name="standin"),
            timings={},
            backings=Backings(root),
            health=lambda deadline: SimpleNamespace(ok=True, cause=""),
        )

    with closing:
        yield new_place


STEPS = """\
pvlab_scenario: 1
steps:
- attach: {disk: hdc, size: 4099}
- attach: {disk: hdd, size: 5001}
- io: {disk: hdc, action: write, count: 64, gen: 3, threads: 4, block: 7, shift: true}
- check: {disk: hdc, count: 64, gen: 3}
- io: {disk: hdc, action: verify, count: 64, gen: 3, flush: true}
- io: {disk: hdd, count: 32, gens: 2, block: 64}
- check: {disk: hdd, count: 32, gen: 2}
- io: {disk: hdd, action: verify, first: 4999, count: 8, expect: errors}
- io: {disk: hdd, action: bench, count: 512, ops: 9, direction: write}
- flush: hdd
- put_file: {path: 'C:\\pvlab\\a.bin', size_bytes: 3000}
- in_guest: copy /y C:\\pvlab\\a.bin C:\\pvlab\\b.bin
- in_guest: fc /b C:\\pvlab\\a.bin C:\\pvlab\\b.bin
- in_guest: {command: fc /b C:\\pvlab\\a.bin C:\\pvlab\\none.bin, may_fail: true}
- start_io: {disk: hdc, count: 64, threads: 2, order: random}
- together:
  - - wait: 0.05
    - detach: hdd
  - - attach: {disk: sdb, size: 6007}
- wait_io: hdc
- together:
  - - io: {disk: sdb, count: 16}
  - - pause
    - jitter: {up_to: 0.01}
    - unpause
- stop_io: hdc
- check: {disk: hdc, count: 64, gen: null}
- attach: hdd
- io: {disk: sdb, action: verify, count: 16}
"""


def test_every_step_that_needs_no_xen(new_place):
    outcome = run(loads(STEPS), new_place(), lab=LAB)
    assert outcome.end is End.PASSED, outcome
    (forgiven,) = [moment for moment in outcome.moments if moment.error]
    assert "none.bin" in forgiven.words


def test_data_that_was_never_written_is_wrong(new_place):
    wrong = STEPS + "- io: {disk: sdb, action: verify, count: 16, gen: 9, expect: any}\n"
    outcome = run(loads(wrong), new_place(), lab=LAB)
    assert outcome.end is End.WRONG_DATA, outcome
    assert outcome.at.startswith("step 23, io sdb")


def test_what_a_test_did_can_be_run_again(new_place):
    place = new_place()
    recorder = Recorder(seed=3)
    with listening(recorder):
        io, guest = DiskIo(place.guest.channel), place.guest
        deadline = Deadline(30)
        backing = place.backings.exact(4099, deadline)
        spec = BlockSpec.parse(backing.spec, "hdc")
        _, disk = BlockDevices(place, LAB).attach(spec)
        assert io.size(disk.number, deadline).sectors == 4099
        io.write(disk.number, 0, 64, deadline, gen=2, threads=2).require("writing")
        assert not backing.wrong(0, 64, deadline, gen=2)
        Jitter(3).point("before the job", up_to=0.01)
        job = io.start(disk.number, 64, 64, deadline, order="random", shift=True)
        job.wait_busy(deadline)
        assert job.end(deadline).require("the job").generations
        assert io.verify(disk.number, 4090, 64, deadline).errors
        guest.files.put_bytes(b"x" * 99, r"C:\pvlab\x.bin", deadline)
        assert guest.channel.run(r"type C:\pvlab\x.bin", deadline).ok
        assert not guest.channel.run("nonsense", deadline).ok
    recorded = recorder.scenario(failed=False, title="by hand")
    assert recorded.complete
    assert [plain(step) for step in recorded.steps] == [
        {"attach": {"disk": "hdc", "size": 4099}},
        {"io": {"disk": "hdc", "action": "write", "count": 64, "gen": 2, "threads": 2}},
        {"check": {"disk": "hdc", "count": 64, "gen": 2}},
        {"jitter": {"up_to": 0.01, "name": "before the job"}},
        {
            "start_io": {
                "disk": "hdc",
                "first": 64,
                "count": 64,
                "order": "random",
                "shift": True,
                "wait": 0,
            }
        },
        {"wait_io": "hdc"},
        {"stop_io": "hdc"},
        {
            "io": {
                "disk": "hdc",
                "first": 4090,
                "count": 64,
                "action": "verify",
                "expect": "errors",
            }
        },
        {"put_file": {"path": r"C:\pvlab\x.bin", "size_bytes": 99}},
        {"in_guest": r"type C:\pvlab\x.bin"},
        {"in_guest": {"command": "nonsense", "may_fail": True}},
    ]
    outcome = run(loads(dumps(recorded)), new_place(), lab=LAB)
    assert outcome.end is End.PASSED, outcome


def test_a_recording_of_a_replay_is_the_scenario(new_place):
    scenario = loads(STEPS)
    recorder = Recorder()
    with listening(recorder):
        run(scenario, new_place(), lab=LAB)
    assert recorder.scenario(failed=False).steps == scenario.steps


def test_the_fakes_are_like_the_real_ones():
    for fake, kind in ((Backing, real.Backing), (Backings, real.Backings)):
        for name in vars(fake):
            assert name.startswith("_") or hasattr(kind, name)
