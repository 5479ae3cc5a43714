from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from lab.bench import app as app_module
from lab.bench.app import app
from lab.bench.figure import Figure
from lab.config.profile import Profile

FIGURES = (
    Figure(name="clone to guest running", unit="s", samples=(0.2, 0.4), target=0.5),
    Figure(name="Session over channel", unit="x", samples=(1.5,), target=2.0, at_least=True),
    Figure(name="bake", unit="s", samples=(100.0,), note="from nothing"),
)


class FakeBench:
    made: list[FakeBench]

    def __init__(self, kitchen: Any, driver: Path, scratch: Path, *, rounds: int, say: Any) -> None:
        self.kitchen, self.driver, self.scratch, self.rounds = kitchen, driver, scratch, rounds
        assert scratch.is_dir()
        FakeBench.made.append(self)
        say("measuring")

    def run(self) -> Iterator[Figure]:
        yield from FIGURES


@pytest.fixture
def benches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[FakeBench]:
    FakeBench.made = []

    def open_kitchen(profile: Profile, *, accel: str | None, progress: Any) -> Any:
        progress("accelerator: tcg-hvm")
        line = f"tcg-hvm on QEMU 5.2.0: {accel or 'probed'}"
        guest_type = "pv" if accel == "tcg-pv" else "hvm"
        found = SimpleNamespace(line=line, guest_type=guest_type)
        return SimpleNamespace(profile=profile, accel=found)

    monkeypatch.setenv("PVLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "120")
    # No lab.toml of whoever runs the tests.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(app_module, "Kitchen", SimpleNamespace(open=open_kitchen))
    monkeypatch.setattr(app_module, "Bench", FakeBench)
    store = SimpleNamespace(ensure=lambda name: SimpleNamespace(path=tmp_path / name))
    monkeypatch.setattr(app_module, "Store", lambda: store)
    return FakeBench.made


def test_json(benches: list[FakeBench]):
    result = CliRunner().invoke(app, ["--json", "--rounds", "2"])
    assert result.exit_code == 0, result.output
    # Progress is for people, on stderr; stdout is one document.
    document = json.loads(result.stdout)
    assert list(document) == [
        "schema_version",
        "pvlab",
        "profile",
        "guest",
        "accelerator",
        "host",
        "figures",
    ]
    assert document["schema_version"] == 1
    assert document["profile"] == "standin"
    assert "stand-in" in document["guest"]
    assert document["accelerator"] == "tcg-hvm on QEMU 5.2.0: probed"
    assert {"kernel", "cpus", "memory_mib", "os"} <= set(document["host"])
    assert [Figure.model_validate(_given(figure)) for figure in document["figures"]] == list(
        FIGURES
    )
    first = document["figures"][0]
    assert (first["median"], first["met"]) == (pytest.approx(0.3), True)
    assert "pvlab: clone to guest running: 0.3 s" in result.stderr


def _given(figure: dict[str, Any]) -> dict[str, Any]:
    """Without what is computed from the rest."""
    return {name: value for name, value in figure.items() if name in Figure.model_fields}


def test_the_driver_is_the_guest_s(benches: list[FakeBench], tmp_path: Path):
    assert CliRunner().invoke(app, []).exit_code == 0
    assert benches[0].driver == tmp_path / "standin-drivers/good"


def test_missed_targets_are_no_failure(benches: list[FakeBench]):
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 0
    lines = {line.split("│")[1].strip(): line for line in result.stdout.splitlines() if "│" in line}
    assert "yes" in lines["clone to guest running"]
    assert "≤ 0.5" in lines["clone to guest running"]
    assert "no" in lines["Session over channel"]
    assert "≥ 2" in lines["Session over channel"]
    assert "≤" not in lines["bake"]


def test_what_is_measured(benches: list[FakeBench], tmp_path: Path):
    result = CliRunner().invoke(app, ["--json", "--rounds", "7", "--accel", "tcg-pv"])
    assert result.exit_code == 0
    (bench,) = benches
    assert bench.rounds == 7
    assert bench.driver == tmp_path / "standin-drivers-pv/good"
    document = json.loads(result.stdout)
    assert document["accelerator"].endswith("tcg-pv")
    assert "64-bit PV guest" in document["guest"]
    # In the cache, where there is room; gone with the run.
    assert bench.scratch.parent == tmp_path / "cache/bench"
    assert not bench.scratch.exists()


@pytest.mark.parametrize("rounds", ["0", "101", "many"])
def test_rounds_are_a_sane_number(benches: list[FakeBench], rounds: str):
    assert CliRunner().invoke(app, ["--rounds", rounds]).exit_code == 2
    assert benches == []
