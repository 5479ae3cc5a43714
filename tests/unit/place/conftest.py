from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.place import stage


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test reaches this machine's cache or places, and none keeps a lock."""
    monkeypatch.setenv("PVLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PVLAB_RUNTIME", str(tmp_path / "runtime"))
    before = set(stage._HELD)
    yield
    for path in set(stage._HELD) - before:
        stage._HELD.pop(path).close()
