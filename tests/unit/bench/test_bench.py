from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab.bench import measure
from lab.bench.figure import Figure
from lab.bench.measure import Bench
from lab.config.profile import Profile
from lab.core.deadline import Deadline


class World:
    """Places where every step takes a known time on a clock of its own."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[str] = []
        self.open = 0
        self.fails = ""

    def takes(self, seconds: float, what: str) -> None:
        self.now += seconds
        self.log.append(what)
        if what == self.fails:
            raise RuntimeError(what)

    # What the measurements reach for.

    def kitchen(self) -> Any:
        def cold_boot(folder: Path) -> dict[str, float]:
            assert list(folder.iterdir()) == []
            self.takes(120.0, "cold boot")
            return {"dom0_ssh": 40.0, "guest_winrm": 120.0}

        def template(stages: Any) -> Any:
            # From nothing: not from what the cache has.
            assert list(stages.root.iterdir()) == []
            self.takes(130.0, "bake")
            return SimpleNamespace(clone=self.clone)

        return SimpleNamespace(
            profile=Profile(),
            accel=SimpleNamespace(name="tcg-hvm"),
            baker=lambda: SimpleNamespace(cold_boot=cold_boot),
            template=template,
        )

    @contextmanager
    def clone(self, scratch: Path, deadline: Deadline) -> Iterator[Any]:
        assert list(scratch.iterdir()) == []
        self.takes(0.25, "clone")
        self.open += 1

        def run(command: str, deadline: Deadline, **_: object) -> None:
            self.takes(0.5, f"guest {command}")

        def dom0_run(command: str, deadline: Deadline, *, check: bool = False) -> None:
            assert check
            self.takes(1.0, f"dom0 {command}")

        try:
            yield SimpleNamespace(
                machine=SimpleNamespace(pid=7, ports={"winrm": 5985}),
                access=SimpleNamespace(username="u", password="p"),
                guest=SimpleNamespace(
                    channel=SimpleNamespace(run=run),
                    drivers=SimpleNamespace(
                        install=lambda package, deadline: self.takes(5.0, f"install {package}")
                    ),
                ),
                dom0=SimpleNamespace(run=dom0_run),
                vg=SimpleNamespace(
                    create=lambda name, size, deadline: SimpleNamespace(path=f"/dev/vg00/{name}")
                ),
                toolstack=SimpleNamespace(
                    block_attach_words=lambda domain, spec: ("block-attach", str(spec)),
                    command=lambda *words: f"xl {words[0]}",
                ),
                xenstore=None,
                domain=None,
            )
        finally:
            self.open -= 1

    def attach(self, *_: object) -> None:
        self.takes(1.5, "lab attach")

    def detach(self, *_: object) -> None:
        self.takes(0.1, "detach")


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    clock = SimpleNamespace(monotonic=lambda: made.now)
    session = SimpleNamespace(run_cmd=lambda command: made.takes(2.0, f"session {command}"))
    monkeypatch.setattr(measure, "time", clock)
    monkeypatch.setattr(measure.winrm, "Session", lambda *args, **names: session)
    monkeypatch.setattr(measure, "private_mib", lambda pid: 100.0 + pid)
    monkeypatch.setattr(measure.vbd, "attach", made.attach)
    monkeypatch.setattr(measure.vbd, "detach", made.detach)
    monkeypatch.setattr(
        measure, "DriverPackage", SimpleNamespace(load=lambda folder, into: folder.name)
    )
    return made


BenchMaker = Callable[..., Bench]


@pytest.fixture
def bench(world: World, tmp_path: Path) -> BenchMaker:
    def make(rounds: int = 3) -> Bench:
        return Bench(
            world.kitchen(), Path("/drivers/good"), tmp_path, rounds=rounds, say=lambda line: None
        )

    return make


def figures(bench: Bench) -> dict[str, Figure]:
    found = list(bench.run())
    assert len({figure.name for figure in found}) == len(found)
    return {figure.name: figure for figure in found}


def test_figures(bench: BenchMaker):
    found = figures(bench())
    assert {name: figure.median for name, figure in found.items()} == pytest.approx(
        {
            "cold boot to dom0 SSH": 40.0,
            "cold boot to guest WinRM": 120.0,
            "bake": 130.0,
            "clone to guest running": 0.25,
            "clone to first WinRM answer": 0.75,
            "cold boot to WinRM over clone to WinRM": 160.0,
            "memory a clone adds": 107.0,
            "clone to first dom0 command": 1.25,
            "WinRM command, lab channel": 0.5,
            "WinRM command, pywinrm Session": 2.0,
            "Session over channel": 4.0,
            "attach, raw xl": 1.0,
            "attach, lab": 1.5,
            "lab attach over raw": 1.5,
        }
    )


def test_targets(bench: BenchMaker):
    found = figures(bench())
    assert {name for name, figure in found.items() if figure.met is False} == {
        "cold boot to dom0 SSH",
        "lab attach over raw",
    }
    lower_bounds = {name for name, figure in found.items() if figure.at_least}
    assert lower_bounds == {"cold boot to WinRM over clone to WinRM", "Session over channel"}


def test_number_of_samples(bench: BenchMaker):
    found = figures(bench(rounds=2))
    sizes = {name: len(figure.samples) for name, figure in found.items()}
    assert sizes["cold boot to guest WinRM"] == sizes["bake"] == 1
    assert sizes["clone to first WinRM answer"] == sizes["attach, raw xl"] == 2
    assert sizes["WinRM command, lab channel"] == sizes["Session over channel"] == 8


def test_what_is_compared_is_measured_in_pairs(bench: BenchMaker, world: World):
    figures(bench(rounds=2))
    winrm = [line for line in world.log if line.startswith(("guest", "session"))]
    # After the clones' own: one unmeasured command each, then pairs.
    assert winrm[2:] == ["guest ver", "session ver"] * 9
    attaches = [line for line in world.log if "attach" in line or "detach" in line]
    assert attaches == ["dom0 xl block-attach", "detach", "lab attach", "detach"] * 2


def test_figures_come_as_they_are_known(bench: BenchMaker, world: World):
    names = [figure.name for figure in itertools.islice(bench().run(), 2)]
    assert names == ["cold boot to dom0 SSH", "cold boot to guest WinRM"]
    assert world.log == ["cold boot"]


@pytest.mark.parametrize("step", ["clone", "guest ver", "dom0 true", "lab attach", "session ver"])
def test_no_place_is_left_when_a_step_fails(bench: BenchMaker, world: World, step: str):
    world.fails = step
    with pytest.raises(RuntimeError, match=step):
        list(bench().run())
    assert world.open == 0
