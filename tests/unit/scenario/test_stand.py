"""Attempts in clones whose QEMU is a fake one: nothing of them is left, whenever they end."""

from __future__ import annotations

import itertools
import json
import os
import queue
import signal
import sys
import threading
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from lab.config.load import load_profile
from lab.core.deadline import Deadline, NotYet, wait_for
from lab.core.errors import LabBroken
from lab.core.paths import repo_root
from lab.guest.channel import Channel
from lab.guest.driverstore import InstallResult
from lab.place.stage import Stage
from lab.place.warm import Template
from lab.qemu.emulator import Emulator
from lab.qemu.machine import DiskSpec, MachineSpec
from lab.scenario import stand as module
from lab.scenario.model import Attach, Scenario
from lab.scenario.outcome import End, Outcome
from lab.scenario.repro import Bench
from lab.scenario.run import outcome_of
from lab.scenario.stand import Stand
from lab.scenario.workers import Workers

FAKE = Path(__file__).parents[1] / "qemu" / "fake_qemu.py"
PATIENCE = 60.0
LONG = 3600.0
FAST, SLOW = (Scenario(seed=seed, steps=(Attach(disk="hdc", size=8),)) for seed in (1, 2))


def processes_in(folder):
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if Path(os.readlink(entry / "cwd")).is_relative_to(folder):
                found.append(entry.name)
        except OSError:
            continue
    return found


def none_is_left_in(folder):
    """What was killed needs a moment to be gone."""

    def gone():
        if left := processes_in(folder):
            raise NotYet(f"{left}")

    wait_for("all processes to be gone", gone, Deadline(PATIENCE), interval=0.001)


@pytest.fixture
def stage(tmp_path):
    folder = tmp_path / "stage"
    folder.mkdir()
    (folder / "state").write_bytes(b"fake state\n")
    (folder / "serial.log").write_text("(XEN) Xen version fake\n")
    (folder / "ram").touch()
    domain = {"name": "g", "domid": 1, "mem_mib": 256, "vcpus": 1, "state": "-b----", "time_s": 1.0}
    return Stage("ab" * 32, folder, {"serial_bytes": 0, "domain": domain})


@pytest.fixture
def make_stand(stage, tmp_path):
    def make_stand(**orders):
        spec = MachineSpec(
            name="template",
            emulator=Emulator(
                (sys.executable, "-I", "-S", str(FAKE), json.dumps(orders)), "7.2.0", "system"
            ),
            accel="tcg",
            cpu="EPYC",
            memory_mib=64,
            kernel=Path("/images/xen"),
            append="",
            initrd="",
            disks=(DiskSpec(Path("/images/root.qcow2")),),
            forwards={"ssh": 22, "winrm": 5985},
        )
        template = Template(
            key=stage.key,
            profile=load_profile(None, repo_root() / "lab.toml"),
            accel=SimpleNamespace(name="tcg-hvm"),
            images={},
            versions={},
            stage=stage,
            spec=spec,
            access=SimpleNamespace(
                connect=no_dom0,
                channel=lambda machine: Channel("127.0.0.1", 1, "nobody", "secret"),
                domain="g",
                serial_log="/serial.log",
            ),
            bake_seconds={},
            spec_in=lambda folder: spec,
            installed=InstallResult(False, (), ()),
        )
        return Stand(template, SimpleNamespace(name="xenvbd", version="1"), scratch)

    scratch = tmp_path / "scratch"
    scratch.mkdir()
    yield make_stand
    none_is_left_in(scratch)
    assert list(scratch.iterdir()) == []
    assert not [one for one in threading.enumerate() if one.name == "attempt"]


def no_dom0(machine, deadline):
    raise LabBroken(f"dom0 does not answer: {machine.why_dead() or 'it never does'}")


def runs_on(place):
    place.machine.check_alive()
    raise NotYet("it runs")


def waits(place):
    """As for a guest that is to restart."""
    wait_for("what never comes", lambda: runs_on(place), Deadline(LONG), interval=LONG)


def talks(place):
    """As to dom0: what ends is the connection, when the machine does."""
    with closing(place.machine.serial_socket()) as connection:
        connection.settimeout(PATIENCE)
        assert connection.recv(1) == b""
    raise LabBroken("the connection to dom0 was lost")


def test_clones_run_at_the_same_time(make_stand, monkeypatch):
    barrier = threading.Barrier(3)

    def run(scenario, place, **how):
        place.machine.check_alive()
        barrier.wait(PATIENCE)
        return Outcome(End.PASSED, reason=str(place.scratch))

    monkeypatch.setattr(module, "run", run)
    with Workers(3) as workers:
        outcomes = list(workers.in_order(make_stand().attempt, [FAST] * 6))
    # Each in a folder of its own.
    assert len({outcome.reason for outcome in outcomes}) == 6


@pytest.mark.parametrize("busy", [waits, talks])
def test_what_runs_when_the_decision_falls_is_ended_with_its_machine(make_stand, monkeypatch, busy):
    stand, told, begun = make_stand(), [], queue.SimpleQueue()
    places = []

    def run(scenario, place, *, lab, **how):
        if scenario is FAST:
            places.extend(begun.get(timeout=PATIENCE) for _ in range(2))
            return Outcome(End.PASSED)
        begun.put(place)
        try:
            busy(place)
        except LabBroken as error:
            return outcome_of(error, place, lab)

    monkeypatch.setattr(module, "run", run)
    with Workers(3) as workers:
        bench = Bench(stand.attempt, told.append, workers.in_order)
        with closing(bench.outcomes(itertools.chain([FAST], itertools.repeat(SLOW)))) as outcomes:
            assert next(outcomes).end is End.PASSED
            assert all(place.machine.alive for place in places)
        assert not any(place.machine.alive for place in places)
    # Nobody is to blame, the lab as little as the driver.
    assert told == []


@pytest.mark.parametrize("orders", [{"mute": True}, {"late": 10**6}, {"silent": ["cont"]}])
def test_clones_that_are_starting_are_ended(make_stand, stage, orders, tmp_path):
    stand = make_stand(**orders)
    started = [tmp_path / "scratch" / str(number) / "argv.json" for number in (1, 2)]

    def clones_start():
        if not all(file.exists() for file in started):
            raise NotYet("not yet")

    def first(scenario):
        """Its time is when the others are starting."""
        if scenario is FAST:
            wait_for("clones to start", clones_start, Deadline(PATIENCE), interval=0.01)
            return Outcome(End.PASSED)
        return stand.attempt(scenario)

    with Workers(3) as workers:
        with closing(workers.in_order(first, [FAST, SLOW, SLOW])) as outcomes:
            assert next(outcomes).end is End.PASSED
        none_is_left_in(tmp_path / "scratch")


def test_a_machine_that_dies_by_itself_is_the_lab_s_failure(make_stand, monkeypatch):
    stand, told = make_stand(), []

    def run(scenario, place, *, lab, **how):
        os.kill(place.machine.pid, signal.SIGKILL)
        try:
            wait_for("its end", lambda: runs_on(place), Deadline(PATIENCE), interval=0.001)
        except LabBroken as error:
            return outcome_of(error, place, lab)

    monkeypatch.setattr(module, "run", run)
    with Workers(2) as workers:
        bench = Bench(stand.attempt, told.append, workers.in_order)
        outcomes = bench.outcomes([SLOW])
        with pytest.raises(LabBroken, match="3 times in a row: the place broke"):
            next(outcomes)
    assert len(told) == 3


def test_a_clone_that_does_not_start_is_told_in_its_turn(make_stand):
    stand = make_stand(die="qemu: no such thing")
    with Workers(2) as workers:
        results = workers.in_order(stand.attempt, [FAST, FAST])
        with pytest.raises(LabBroken, match=r"no clone of the template: .*no such thing"):
            next(results)
