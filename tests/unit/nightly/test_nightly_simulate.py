from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from night_fakes import a_test, record
from typer.testing import CliRunner

from lab.bench import farm
from lab.bench.app import app
from lab.nightly.simulate import Paper, draw, kinds_of, recorded, simulate
from lab.results.writer import encode

PAPERS = st.lists(st.builds(Paper, st.floats(1, 100), st.floats(1, 100)), min_size=1, max_size=40)


@given(PAPERS, st.integers(1, 8), st.floats(0, 0.5), st.integers(0, 5))
def test_no_night_ends_before_the_lower_bound(
    items: list[Paper], places: int, loss: float, seed: int
) -> None:
    smooth = simulate(items, places)
    assert smooth.ratio >= 1 - 1e-9
    assert smooth.makespan <= sum(one.actual for one in items) + 1e-6
    assert smooth.lost == 0
    rough = simulate(items, places, loss=loss, seed=seed, serial=0.1)
    assert rough.ratio >= 1 - 1e-9
    assert rough.makespan >= 0.1 * len(items)


def test_known_lengths_on_two_places() -> None:
    items = [Paper(seconds, seconds) for seconds in (3.0, 3.0, 2.0, 2.0, 2.0)]
    # Longest first: 3 + 2 + 2 beside 3 + 2, where 3 + 3 beside 2 + 2 + 2 would be the best.
    assert simulate(items, 2).makespan == 7.0
    assert simulate(items, 2).bound == 6.0
    assert simulate([Paper(9.0, 9.0), *items], 2).bound == 10.5
    assert simulate([Paper(50.0, 50.0), *items], 2).ratio == 1.0


def test_what_is_lost_runs_again() -> None:
    items = [Paper(10.0, 10.0)] * 50
    lost = simulate(items, 5, loss=0.5, seed=1)
    assert lost.lost > 10
    assert lost.makespan > simulate(items, 5).makespan
    assert lost == simulate(items, 5, loss=0.5, seed=1)


def test_who_hands_items_out_does_one_at_a_time() -> None:
    items = [Paper(1.0, 1.0)] * 100
    assert simulate(items, 100, serial=1.0).makespan == 101.0


def test_the_recorded_durations_say_where_they_are_from() -> None:
    durations = recorded()
    assert "stand-in" in durations.source
    assert "emulat" in durations.source
    assert len(durations.kinds) >= 4
    assert draw(durations, 10, seed=1) == draw(durations, 10, seed=1)
    assert draw(durations, 10, seed=1) != draw(durations, 10, seed=2)


def test_durations_come_from_runs(tmp_path: Path) -> None:
    accelerator = {"name": "kvm", "emulator": "qemu", "emulator_version": "7.2", "why": "."}
    tests = (
        a_test(id="d/test_a.py::a", seconds=2.0, expected_seconds=3.0),
        a_test(id="d/test_a.py::b", outcome="failed", blame="driver", expected_seconds=3.0),
    )
    for number in range(2):
        name = f"20260101T00000{number}Z-abcdef"
        (tmp_path / name).mkdir()
        made = record(name, *tests, accelerator=accelerator)
        (tmp_path / name / "run.json").write_bytes(encode(made))
    [(key, kind)] = kinds_of([tmp_path]).items()
    assert key == "standin/standard/kvm/test_a.py::a"
    assert (kind.expected, kind.seconds) == (3.0, (2.0, 2.0))


def test_the_figures_need_no_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PVLAB_CACHE", str(tmp_path))
    monkeypatch.setattr(farm, "HANDED", 3)
    monkeypatch.setattr(farm, "ITEMS", 300)
    result = CliRunner().invoke(app, ["--only", "farm", "--json"])
    assert result.exit_code == 0, result.output
    figures = {figure["name"]: figure for figure in json.loads(result.stdout)["figures"]}
    assert len(figures["item claimed, settled, imported"]["samples"]) == 2
    assert len(figures["makespan over lower bound"]["samples"]) == farm.SEEDS
    assert figures["makespan over lower bound"]["minimum"] >= 1
    assert not any(path.is_dir() for path in (tmp_path / "bench").iterdir())
