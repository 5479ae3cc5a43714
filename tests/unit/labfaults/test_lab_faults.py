from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import made_faults
import pytest

from lab.cli import labfaults, suite
from lab.cli import main as cli
from lab.cli.suite import SuiteRequest
from lab.core.command import CommandResult
from lab.core.errors import Blame, LabBroken, UsageError
from lab.core.paths import repo_root
from lab.labfaults import injector
from lab.labfaults.catalogue import FAULTS, LabFault, choose
from lab.labfaults.outcome import FaultOutcome, FaultsDocument

FAKES = repo_root() / "tests" / "unit" / "plugin"
sys.path.insert(0, str(FAKES))

import plugin_fakes  # noqa: E402

AREAS = {"attach", "data", "lifecycle", "faults", "crash", "install"}


def fault(**changes: Any) -> LabFault:
    values = {"name": "f", "title": "t", "area": "data", "test": "t.py::t", "moment": "^copy "}
    return LabFault(**{**values, **changes})


# -- the catalogue ----------------------------------------------------------------------


def test_catalogue_has_every_area():
    assert len(FAULTS) >= 8
    assert {one.area for one in FAULTS} == AREAS
    assert len({one.name for one in FAULTS}) == len(FAULTS)
    assert sum(one.quick for one in FAULTS) >= 3


@pytest.mark.parametrize("one", FAULTS, ids=lambda one: one.name)
def test_fault_can_happen(one: LabFault):
    re.compile(one.moment)
    assert one.dom0 or one.signal or one.fill_scratch
    assert bool(one.scratch_mib) == one.fill_scratch, "the machine's own disk must not be filled"
    file, _, test = one.test.partition("::")
    text = (suite.driver_suite() / file).read_text()
    assert f"\ndef {test}(" in text
    assert f'pytest.mark.area("{one.area}")' in text
    # No more than a syntax check: these scripts are for a machine that is thrown away.
    done = subprocess.run(["sh", "-n"], input=one.dom0, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_choice():
    assert choose(FAULTS, []) == list(FAULTS)
    assert [one.name for one in choose(FAULTS, ["ssh-cut", "qemu-killed"])] == [
        "qemu-killed",
        "ssh-cut",
    ]
    assert {one.area for one in choose(FAULTS, [], "crash")} == {"crash"}
    with pytest.raises(UsageError, match="no fault of the lab is called 'rain'"):
        choose(FAULTS, ["rain"])
    with pytest.raises(UsageError, match="no such fault in the area 'rain'"):
        choose(FAULTS, [], "rain")


# -- making one happen ------------------------------------------------------------------


class Side:
    def __init__(self, error: LabBroken | None = None) -> None:
        self.error = error
        self.commands: list[str] = []

    def run(self, command: str, deadline: object, *, check: bool) -> CommandResult:
        assert check
        self.commands.append(command)
        if self.error:
            raise self.error
        return CommandResult(command, 0, "", "", 0.1, "dom0")


class World:
    """A place, and what it and the fault did, in order."""

    def __init__(self, folder: Path, error: LabBroken | None = None) -> None:
        self.side = Side(error)
        self.done: list[str] = []
        self.happened: list[str] = []

        def run(command: str, deadline: object = None) -> str:
            self.done.append(f"{command} after {len(self.side.commands)}")
            return command.upper()

        self.place: Any = SimpleNamespace(
            deadlines=SimpleNamespace(boot=10.0, command=5.0),
            access=SimpleNamespace(connect=lambda machine, deadline: self.side),
            connect=lambda deadline: None,
            machine=SimpleNamespace(pid=os.getpid()),
            domain=SimpleNamespace(domid=7, name="virtdemo"),
            toolstack=SimpleNamespace(command=lambda *words: " ".join(["xl", *words])),
            scratch=folder,
            guest=SimpleNamespace(channel=SimpleNamespace(run=run)),
            dom0=SimpleNamespace(run_raw=run),
        )

    def lie_in_wait(self, one: LabFault) -> None:
        injector.lie_in_wait(one, self.place, self.happened.append)


def test_fault_comes_with_its_moment_and_once(tmp_path: Path):
    world = World(tmp_path)
    world.lie_in_wait(fault(dom0="kill @DOMID@; @DESTROY@"))
    run = world.place.guest.channel.run
    assert [run("dir"), run("copy a b"), run("copy b c")] == ["DIR", "COPY A B", "COPY B C"]
    assert world.done == ["dir after 0", "copy a b after 1", "copy b c after 1"]
    assert world.side.commands == ["kill 7; xl destroy virtdemo"]
    assert world.happened == ["f"]


def test_moment_may_be_a_command_in_dom0(tmp_path: Path):
    world = World(tmp_path)
    world.lie_in_wait(fault(moment="block-attach", dom0="true"))
    world.place.guest.channel.run("dir")
    world.place.dom0.run_raw("\nmark command\nxl block-attach 1")
    assert world.happened == ["f"]


def test_fault_that_cannot_be_made_is_told(tmp_path: Path):
    world = World(tmp_path, LabBroken("no kill in dom0"))
    world.lie_in_wait(fault(dom0="kill"))
    assert world.place.guest.channel.run("copy a b") == "COPY A B"
    assert world.happened == ["f failed: no kill in dom0"]


def test_signal_comes_while_the_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(injector, "_LATER_SECONDS", 0.01)
    with subprocess.Popen(["sleep", "60"]) as process:
        world = World(tmp_path)
        world.place.machine.pid = process.pid
        world.lie_in_wait(fault(signal=signal.SIGKILL))
        world.place.guest.channel.run("copy a b")
        assert process.wait(30) == -signal.SIGKILL
        # Gone by then: no more than silence.
        injector._send(process.pid, signal.SIGKILL)


def test_file_system_is_filled():
    injector.fill(Path("/dev/full"))
    with pytest.raises(LabBroken, match="no-such-folder"):
        injector.fill(Path("/no-such-folder/ballast"))


# -- what came of it --------------------------------------------------------------------


def outcome(**changes: Any) -> FaultOutcome:
    values: dict[str, Any] = {
        "name": "f",
        "title": "t",
        "area": "data",
        "test": "t.py::t",
        "happened": True,
        "blamed": Blame.LAB,
        "exit_code": 3,
        "cause": "it broke",
        "seconds": 1.0,
    }
    return FaultOutcome(**{**values, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"happened": False},
        {"blamed": Blame.DRIVER, "exit_code": 1},
        {"blamed": Blame.UNDECIDED},
        {"blamed": None, "exit_code": 0},
        {"cause": ""},
    ],
)
def test_only_the_lab_s_own_word_will_do(changes: dict[str, Any]):
    assert outcome().told
    assert not outcome(**changes).told
    assert FaultsDocument(faults=(outcome(),)).exit_code == 0
    assert FaultsDocument(faults=(outcome(), outcome(**changes))).exit_code == 3
    assert FaultsDocument().exit_code == 3


# -- the command ------------------------------------------------------------------------

CONFTEST = """
from pathlib import Path
import plugin_fakes
from types import SimpleNamespace

class Place(plugin_fakes.Place):
    def __post_init__(self):
        super().__post_init__()
        place = self
        self.deadlines = SimpleNamespace(boot=10.0, command=5.0)
        self.connect = lambda deadline: None

        class Side:
            def run(self, command, deadline, check):
                place.broken = f"dom0 did {command.split()[0]}"

        self.access = SimpleNamespace(
            connect=lambda machine, deadline: Side(),
            guest=SimpleNamespace(boot_ini=False),
        )
        self.toolstack.command = lambda *words: " ".join(words)
        self.guest.channel = SimpleNamespace(run=lambda command: None)

plugin_fakes.Template.clone = lambda self, scratch, deadline: Place(self, scratch)

def pytest_pvlab_prepare(profile, accel, progress):
    return plugin_fakes.Template(Path("@FOLDER@", "journal"))
"""

SUITE = """
import os
import pytest

pytestmark = pytest.mark.area("data")

def test_fails(installed_driver, place):
    place.guest.channel.run("copy a b")
    assert 0, "the disk is gone"

def test_passes(installed_driver, place):
    place.guest.channel.run("copy a b")
    place.broken = ""

def test_small(installed_driver, place):
    room = os.statvfs(place.scratch)
    assert room.f_blocks * room.f_frsize == 8 << 20
    place.guest.channel.run("copy a b")
    assert 0, "the disk is full"
"""


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The command with a suite of fakes, run by a real pytest in a child process."""
    tests = tmp_path / "suite"
    tests.mkdir()
    (tests / "conftest.py").write_text(CONFTEST.replace("@FOLDER@", str(tmp_path)))
    (tests / "test_it.py").write_text(SUITE)
    (tests / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    driver = plugin_fakes.write_package(tmp_path / "driver")
    monkeypatch.setattr(labfaults, "FAULTS", made_faults.FAULTS)
    monkeypatch.setattr(labfaults, "INJECTOR", made_faults.__name__)
    monkeypatch.setattr(labfaults, "driver_suite", lambda: tests)
    monkeypatch.setattr(labfaults, "guest_type", lambda accel: accel or "hvm")
    monkeypatch.setenv("PVLAB_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("PVLAB_RUNTIME", str(tmp_path / "runtime"))
    monkeypatch.setenv("PVLAB_DRIVER", str(driver))
    path = [str(repo_root()), str(FAKES), str(Path(__file__).parent)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_fault_that_the_lab_takes_upon_itself(lab: Path, capfd: pytest.CaptureFixture[str]):
    assert cli.main(["lab-faults", "fails"]) == 0
    out, err = capfd.readouterr()
    assert "the place broke during the test: dom0 did kill" in out
    assert "1 of 1 taken by the lab upon itself, on stand-in" in out
    assert "[1/1] fails: blamed on the lab after" in err


def test_fault_that_changes_nothing(lab: Path, capfd: pytest.CaptureFixture[str]):
    assert cli.main(["lab-faults", "passes", "never", "--json"]) == 3
    passes, never = json.loads(capfd.readouterr().out)["faults"]
    assert (passes["happened"], passes["blamed"], passes["exit_code"]) == (True, None, 0)
    assert passes["cause"] == "the test passed all the same"
    assert (never["happened"], never["blamed"]) == (False, "driver")
    assert never["cause"].startswith("the moment of the fault did not come: ")


def test_scratch_of_its_own(lab: Path, capfd: pytest.CaptureFixture[str]):
    tried = subprocess.run([*labfaults.small_scratch(lab, 8), "true"], capture_output=True)
    if tried.returncode:
        pytest.skip("this machine lets us mount nothing")
    assert cli.main(["lab-faults", "small", "--json"]) == 0
    (small,) = json.loads(capfd.readouterr().out)["faults"]
    assert small["cause"] == "the place broke during the test: dom0 did kill"


def test_unknown_fault(lab: Path, capfd: pytest.CaptureFixture[str]):
    assert cli.main(["lab-faults", "rain"]) == 2
    assert "no fault of the lab is called 'rain'" in capfd.readouterr().err


def test_fault_of_what_is_not_there(lab: Path, capfd: pytest.CaptureFixture[str]):
    assert cli.main(["lab-faults", "hvm", "--accel", "pv"]) == 2
    assert "there are: fails, passes, never, small" in capfd.readouterr().err


def test_run_without_a_record(lab: Path, monkeypatch: pytest.MonkeyPatch):
    def judge(request: SuiteRequest, *, label: str) -> None:
        raise LabBroken("the tests left no record")

    monkeypatch.setattr(labfaults, "judge", judge)
    found = labfaults.attempt(fault(), SuiteRequest())
    assert (found.told, found.exit_code, found.cause) == (False, 3, "the tests left no record")
