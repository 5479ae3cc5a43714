"""Simulated gates and searches as figures."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from lab.bench import decisions
from lab.bench.app import app
from lab.gate.simulate import WORLDS


def test_gates_are_held_against_what_is_promised(monkeypatch):
    few = {name: WORLDS[name] for name in ("one test always fails", "10 times slower")}
    monkeypatch.setattr(decisions, "WORLDS", few)
    said: list[str] = []
    figures = list(decisions.gates(said.append, rounds=3))
    assert len(figures) == 8
    shares = [figure for figure in figures if figure.unit == "%"]
    assert all(figure.met and figure.median == 100.0 for figure in shares)
    assert all(len(figure.samples) == 3 for figure in figures if figure.unit == "runs")
    assert "standard: 3 gates, 10 times slower" in said


def test_every_promise_is_about_a_world_that_there_is():
    assert {world for _, world in decisions.WANTED} == set(WORLDS)


def test_searches(monkeypatch):
    monkeypatch.setattr(decisions, "ROWS", {"4 builds": decisions.Row(builds=4, rate=1.0)})
    right, runs = decisions.bisections(lambda line: None, rounds=4)
    assert (right.met, right.median) == (True, 100.0)
    assert max(runs.samples) < 40


def test_command(monkeypatch):
    figure = decisions.Figure(name="x", unit="%", samples=(1,))
    monkeypatch.setattr(decisions, "bisections", lambda say: iter([figure]))
    result = CliRunner().invoke(app, ["--only", "bisect", "--json"])
    assert result.exit_code == 0
    assert [figure["name"] for figure in json.loads(result.stdout)["figures"]] == ["x"]
