from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lab.bench import logs
from lab.bench.app import app
from lab.crash import dbgview_log


def test_the_log_has_gaps_and_restarts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(logs, "_LINES_AT_ONCE", 1000)
    monkeypatch.setattr(logs, "_GAP_EVERY", 301)
    monkeypatch.setattr(logs, "_RESTART_EVERY", 700)
    size = logs.write_log(tmp_path / "log", 50_000)
    assert size == (tmp_path / "log").stat().st_size >= 50_000
    assert dbgview_log.recognise((tmp_path / "log").read_bytes()[:1000], "log")
    first, second = dbgview_log.read(tmp_path / "log")
    assert "2 gaps in the log, 14 lines missing, first: 301 to 307" in first.notes
    assert second.log[-1].seq is not None


def test_reading_logs_needs_no_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PVLAB_CACHE", str(tmp_path))
    result = CliRunner().invoke(app, ["--only", "logs", "--log-mb", "1", "--json"])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert list(document) == ["schema_version", "pvlab", "host", "figures"]
    assert [figure["name"] for figure in document["figures"]] == [
        "DbgView log read",
        "memory to read it",
    ]
    assert all(figure["minimum"] > 0 for figure in document["figures"])
    assert list((tmp_path / "bench").iterdir()) == [] or not any(
        path.is_dir() for path in (tmp_path / "bench").iterdir()
    )
