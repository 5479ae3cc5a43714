from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lab.bench import ledger
from lab.bench.app import app


def test_the_store_needs_no_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PVLAB_CACHE", str(tmp_path))
    monkeypatch.setattr(ledger, "TESTS", 5)
    monkeypatch.setattr(ledger, "ITEMS", 2)
    monkeypatch.setattr(ledger, "_FAILS", 2)
    result = CliRunner().invoke(app, ["--only", "store", "--nights", "2", "--json"])
    assert result.exit_code == 0, result.output
    figures = {figure["name"]: figure for figure in json.loads(result.stdout)["figures"]}
    assert list(figures) == [
        "run imported",
        "import of unchanged runs",
        "all outcomes read",
        "all failures read",
        "list of runs",
        "history of a test",
        "items claimed and done",
    ]
    assert len(figures["run imported"]["samples"]) == 2
    assert all(figure["minimum"] > 0 for figure in figures.values())
    assert not any(path.is_dir() for path in (tmp_path / "bench").iterdir())
