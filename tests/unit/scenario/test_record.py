"""What a recorder makes of what a test does."""

from __future__ import annotations

import inspect
import threading
from types import SimpleNamespace

import pytest
from scenario_fakes import DONE, GOOD, REFUSED, WRONG

from lab.core.errors import DriverFailure, GuestCrashed
from lab.core.journal import Call, listening
from lab.guest.bootini import BootMenu
from lab.guest.channel import Channel
from lab.guest.crash import CrashMonitor
from lab.guest.dbgview import DbgView
from lab.guest.diskio import DiskIo, Job
from lab.guest.disks import Disks
from lab.guest.driverstore import DriverStore
from lab.guest.files import Files
from lab.place.place import Place
from lab.scenario import record
from lab.scenario.model import Opaque, Scenario
from lab.scenario.record import LOOKS, Recorder
from lab.scenario.run import Runner
from lab.scenario.text import dumps, loads, plain
from lab.suite.at_once import Move
from lab.suite.backing import Backing, Backings, Mapped
from lab.suite.devices import BlockDevices
from lab.suite.jitter import Jitter
from lab.xen.blockspec import BlockSpec
from lab.xen.dom0 import Dom0
from lab.xen.storage import VolumeGroup
from lab.xen.toolstack import Toolstack
from lab.xen.xenstore import Xenstore


class Test:
    """A test as a recorder hears it."""

    __test__ = False

    def __init__(self):
        self.recorder = Recorder(seed=5)

    def call(self, what, result=None, /, *, error=None, target=None, **arguments):
        self.recorder.heard(Call(what, target, arguments, result, error, 0.0, 1.0))
        return result

    def backing(self, sectors, kind="exact", **how):
        path = f"/dev/{kind}-{sectors}"
        made = SimpleNamespace(path=path, sectors=sectors, spec=f"phy:{path}")
        self.call(f"Backings.{kind}", made, sectors=sectors, **how)
        return made

    def attach(self, backing, vdev="hdc", number=1, mode="w"):
        spec = BlockSpec.parse(f"phy:{backing.path}", vdev, mode)
        self.call("BlockDevices.attach", (ends(spec), SimpleNamespace(number=number)), spec=spec)
        return spec

    def disk(self, vdev="hdc", sectors=2048, number=1):
        backing = self.backing(sectors)
        self.attach(backing, vdev, number)
        return backing

    def steps(self, *, failed=False):
        scenario = self.recorder.scenario(failed=failed, title="a test")
        assert loads(dumps(scenario)) == scenario
        assert scenario.seed == 5
        return [plain(step) for step in scenario.steps]


def ends(spec):
    return SimpleNamespace(
        devid=spec.devid,
        backend=SimpleNamespace(path=f"/back/{spec.devid}"),
        frontend=SimpleNamespace(path=f"/front/{spec.devid}"),
    )


@pytest.fixture
def test():
    return Test()


def test_a_test_s_doings_become_steps(test):
    call = test.call
    backing = test.backing(2053, room=8)
    spec = test.attach(backing)
    call("DiskIo.write", GOOD, disk=1, first=0, count=64, gen=2, threads=4, shift=True)
    job = call("DiskIo.start", object(), disk=1, first=0, count=1024, order="random")
    call("Job.wait_busy", target=job, more=2)
    call("Toolstack.pause")
    call("Toolstack.unpause")
    call("Mapped.fail", target=backing, first=8, count=16)
    call("Mapped.heal", target=backing)
    call("Mapped.grow", target=backing, sectors=2061)
    call("Xenstore.write", path="/back/5632/state", value="5")
    call("Xenstore.rm", path="/front/5632")
    call("Job.end", DONE, target=job)
    call("Backing.wrong", (), target=backing, first=0, count=64, gen=2)
    call("Jitter.point", name="before the detach", up_to=0.5)
    call("vbd.detach", devid=spec.devid, force=True)
    test.attach(backing, "hdd", number=2)
    call("DiskIo.bench", GOOD, disk=2, first=0, count=64, ops=7, op="write")
    call("DiskIo.flush", GOOD, disk=2)
    call("Disks.partition", disk=2, letter="x", size_mib=1)
    call("Disks.format", letter="X", file_system="fat32")
    call("Files.put_bytes", data=b"12345", remote=r"C:\a.bin")
    call("Channel.run", SimpleNamespace(ok=True), command=r"copy C:\a.bin X:\a.bin")
    call("DriverStore.disable")
    call("DriverStore.enable")
    call("lifecycle.save")
    call("lifecycle.restore")
    call("lifecycle.reboot")
    assert test.steps() == [
        {"attach": {"disk": "hdc", "size": 2053, "room": 8}},
        {
            "io": {
                "disk": "hdc",
                "action": "write",
                "count": 64,
                "gen": 2,
                "threads": 4,
                "shift": True,
            }
        },
        {"start_io": {"disk": "hdc", "order": "random", "wait": 0}},
        {"wait_io": {"job": "hdc", "more": 2}},
        "pause",
        "unpause",
        {"fault": {"disk": "hdc", "kind": "error", "first": 8, "count": 16}},
        {"fault": {"disk": "hdc", "kind": "heal"}},
        {"fault": {"disk": "hdc", "kind": "grow"}},
        {"fault": {"disk": "hdc", "kind": "backend_state"}},
        {"fault": {"disk": "hdc", "kind": "remove_nodes"}},
        {"stop_io": "hdc"},
        {"check": {"disk": "hdc", "count": 64, "gen": 2}},
        {"jitter": {"up_to": 0.5, "name": "before the detach"}},
        {"detach": {"disk": "hdc", "force": True}},
        {"attach": {"disk": "hdc", "device": "hdd"}},
        {"io": {"disk": "hdc", "action": "bench", "count": 64, "ops": 7, "direction": "write"}},
        {"flush": "hdc"},
        {"partition": {"disk": "hdc", "size_mib": 1}},
        {"format": {"file_system": "fat32"}},
        {"put_file": {"path": r"C:\a.bin", "size_bytes": 5}},
        {"in_guest": r"copy C:\a.bin X:\a.bin"},
        "disable_driver",
        "enable_driver",
        "save",
        "restore",
        "reboot",
    ]


def test_every_kind_of_backing(test):
    for number, (kind, how) in enumerate(
        [
            ("volume", {}),
            ("file", {}),
            ("sparse", {"sector_bytes": 4096}),
            ("exact", {}),
        ],
        1,
    ):
        vdev = ("hdc", "hdd", "sdb", "xvdf")[number - 1]
        test.attach(test.backing(4096 * number, kind, **how), vdev, number)
    cached = SimpleNamespace(disk=SimpleNamespace(path="/dev/loop9", sectors=4096))
    test.call("Backings.cached", cached, sectors=4096)
    test.attach(cached.disk, "xvdg", 9, "r")
    test.call(
        "VolumeGroup.create",
        SimpleNamespace(path="/dev/vg00/a", sectors=2048),
        name="a",
        size_mib=1,
    )
    test.attach(SimpleNamespace(path="/dev/vg00/a"), "xvdh", 10)
    assert test.steps() == [
        {"attach": {"disk": "hdc", "size": "2 MiB", "backing": "volume"}},
        {"attach": {"disk": "hdd", "size": "4 MiB", "backing": "file"}},
        {"attach": {"disk": "sdb", "size": "6 MiB", "backing": "sparse", "sector_bytes": 4096}},
        {"attach": {"disk": "xvdf", "size": "8 MiB"}},
        {"attach": {"disk": "xvdg", "size": "2 MiB", "mode": "r", "backing": "cached"}},
        {"attach": {"disk": "xvdh", "size": "1 MiB", "backing": "volume"}},
    ]


def test_looks_leave_nothing(test):
    for name in sorted(LOOKS):
        test.call(name)
    medium = SimpleNamespace(path="/dev/mapper/medium")
    test.call("Backing.wrong", ("sector 5",), target=medium, first=0, count=8)
    assert test.steps() == []


def test_what_cannot_be_expressed_is_said(test):
    test.call("Dom0.run", command="xl debug-keys g\n\x1b[1m" + "x" * 500)
    test.call("DiskIo.write", GOOD, disk=0, first=0, count=8)
    test.call("Backings.from_the_future", sectors=8)
    test.call("Channel.run", SimpleNamespace(ok=True), command="two\nlines")
    test.call("Disks.clean", disk=4)
    steps = test.steps()
    assert all(list(step) == ["opaque"] for step in steps)
    assert steps[0]["opaque"].startswith("Dom0.run command=xl debug-keys g [1mxxx")
    assert len(steps[0]["opaque"]) == 200
    assert steps[1] == {"opaque": "DiskIo.write disk=0 first=0 count=8"}
    assert not test.recorder.scenario(failed=False).complete


def test_a_step_that_failed_and_was_survived_may_fail(test):
    test.disk()
    test.call("vbd.detach", devid=5632, error=DriverFailure("no"))
    test.call("Toolstack.pause")
    assert test.steps()[1] == {"detach": {"disk": "hdc", "may_fail": True}}


def test_the_step_that_a_test_failed_at_may_not(test):
    test.disk()
    test.call("vbd.detach", devid=5632, error=GuestCrashed("crash"))
    assert test.steps(failed=True)[1] == {"detach": "hdc"}
    test.call("Toolstack.pause")
    assert test.steps(failed=True)[1] == {"detach": "hdc"}


def test_requests_that_had_to_fail(test):
    test.disk()
    test.call("DiskIo.write", REFUSED, disk=1, first=0, count=8)
    assert test.steps()[1]["io"]["expect"] == "errors"
    # With it the test ended: nobody expected them.
    assert "expect" not in test.steps(failed=True)[1]["io"]
    test.call("DiskIo.verify", WRONG, disk=1, first=0, count=8)
    assert test.steps(failed=True)[1]["io"]["expect"] == "errors"
    assert "expect" not in test.steps(failed=True)[2]["io"]
    job = test.call("DiskIo.start", object(), disk=1, first=0, count=8)
    test.call("Job.result", REFUSED, target=job)
    assert test.steps()[-1] == {"stop_io": {"job": "hdc", "tell": False, "expect": "any"}}


def test_the_first_installation_is_where_a_scenario_begins(test):
    test.call("DriverStore.install")
    test.call("DriverStore.install")
    assert test.steps() == ["install_driver"]


def test_disks_that_change_their_numbers(test):
    test.disk("hdc", 2048, 1)
    test.disk("hdd", 4096, 2)
    test.call("lifecycle.reboot")
    test.call("DiskIo.size", SimpleNamespace(sectors=4096), disk=1)
    test.call("DiskIo.size", SimpleNamespace(sectors=2048), disk=2)
    test.call("DiskIo.flush", GOOD, disk=1)
    test.call("DiskIo.flush", GOOD, disk=2)
    assert test.steps()[-2:] == [{"flush": "hdd"}, {"flush": "hdc"}]


def test_two_jobs_on_one_disk_and_one_on_none(test):
    test.disk()
    first = test.call("DiskIo.start", object(), disk=1, first=0, count=8)
    second = test.call("DiskIo.start", object(), disk=1, first=8, count=8)
    for job in (second, first, object()):
        test.call("Job.end", DONE, target=job)
    assert [list(step) for step in test.steps()[1:]] == [
        ["start_io"],
        ["start_io"],
        ["stop_io"],
        ["stop_io"],
        ["opaque"],
    ]
    assert test.steps()[3] == {"stop_io": "hdc-again"}


def test_moves_at_once(test):
    one, other = test.disk("hdc", 2048, 1), test.backing(4096)
    spec = BlockSpec.parse(f"phy:{one.path}", "hdc")
    more = BlockSpec.parse(f"phy:{other.path}", "hdd")
    moves = [Move("detach", spec, 0.25), Move("attach", more)]
    test.call("at_once.at_once", moves=moves)
    assert test.steps()[1] == {
        "together": [
            [{"wait": 0.25}, {"detach": "hdc"}],
            [{"attach": {"disk": "hdd", "size": "2 MiB"}}],
        ]
    }


def test_what_does_not_make_sense_alone_is_opaque(test):
    test.disk()
    test.call("vbd.detach", devid=5632)
    test.call("Job.wait_busy", target=object())
    spec = BlockSpec.parse("phy:/dev/unknown", "hdd")
    test.call("BlockDevices.attach", (ends(spec), SimpleNamespace(number=3)), spec=spec)
    # As a recording of half a test would have it.
    test.recorder._steps.append(test.recorder._steps[1])
    steps = test.steps()
    assert steps[-1] == {"opaque": "detach hdc, which this list does not explain"}
    assert not test.recorder.scenario(failed=False).complete


def test_a_test_without_end_is_cut_and_says_so(test, monkeypatch):
    monkeypatch.setattr(record, "MOST", 3)
    for _ in range(5):
        test.call("Toolstack.pause")
    scenario = test.recorder.scenario(failed=False)
    assert len(scenario.steps) == 3
    assert scenario.about.incomplete == "2 steps more were done"
    assert not scenario.complete


def test_threads_of_the_evidence_are_not_the_test(test):
    thread = threading.Thread(target=lambda: test.call("Toolstack.pause"), name="evidence-core")
    thread.start()
    thread.join()
    assert test.steps() == []


def test_a_scenario_that_a_test_replays_is_what_it_ran(test):
    scenario = loads("pvlab_scenario: 1\nsteps: [pause, unpause]\n")
    test.call("Runner.run", scenario=scenario)
    assert test.steps() == ["pause", "unpause"]


def test_arguments_of_the_wrong_kind_do_no_harm(test):
    test.call("BlockDevices.attach", None, spec=None)
    test.call("Mapped.fail", target=None)
    (first, second) = test.recorder.scenario(failed=False).steps
    assert isinstance(first, Opaque)
    assert "AttributeError while it was recorded" in first.what
    assert isinstance(second, Opaque)


ACTS = {
    "Toolstack": "create destroy shutdown reboot pause unpause block_attach block_detach save "
    "restore migrate_here trigger sysrq",
    "Xenstore": "write rm",
    "VolumeGroup": "create zero remove",
    "Dom0": "run run_raw put",
    "Channel": "run",
    "Disks": "partition clean format script",
    "DriverStore": "install remove disable enable restart",
    "Files": "put put_bytes put_many remove",
    "Backing": "wrong zero write",
    "Mapped": "heal fail delay flake refuse_writes grow suspend resume",
    "Backings": "volume exact sparse file cached",
    "DiskIo": "size write verify exercise bench flush start",
    "Job": "wait_busy end result",
    "BlockDevices": "attach detach",
    "Jitter": "point",
    "Runner": "run",
    "BootMenu": "start_with restore",
    "Place": "end_guest write_offline",
}

NOUNS = (
    *(Toolstack, Xenstore, VolumeGroup, Dom0, Channel, CrashMonitor, DbgView, Disks),
    *(DriverStore, Files, Backing, Mapped, Backings, DiskIo, Job, BlockDevices, Jitter),
    *(Place, Runner, BootMenu),
)


def test_of_every_method_it_is_known_whether_it_acts():
    """A method that is new has to be put into one of the two lists, deliberately."""
    found = {
        f"{kind.__name__}.{name}"
        for kind in NOUNS
        for name, attribute in vars(kind).items()
        if not name.startswith("_") and inspect.isfunction(attribute)
    }
    acts = {f"{noun}.{verb}" for noun, verbs in ACTS.items() for verb in verbs.split()}
    assert not acts & LOOKS
    functions = {name for name in LOOKS if name.partition(".")[0] in ("vbd", "leaks")}
    assert found == acts | (LOOKS - functions)


def test_the_nouns_are_heard():
    heard = Recorder()
    with listening(heard):
        Jitter(1).point("here", up_to=0.001)
        Jitter(1).number("there", 1, 2)
    scenario = heard.scenario(failed=False)
    assert isinstance(scenario, Scenario)
    assert [plain(step) for step in scenario.steps] == [
        {"jitter": {"up_to": 0.001, "name": "here"}}
    ]


def test_what_is_done_after_the_guest_went_down(test):
    """A test may look at dom0 then; nothing that the list cannot hold makes it go on for ever."""
    backing = test.disk("hdc", 2048, 1)
    test.call("lifecycle.power_off")
    test.call("Dom0.run", object(), command="something of the test's own")
    test.call("Backing.wrong", [], target=backing, first=0, count=8)
    test.call("Toolstack.pause")
    steps = test.steps()
    assert steps[1] == "power_off"
    assert "opaque" in steps[2]
    assert "opaque" in steps[-1]
