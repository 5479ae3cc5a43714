"""Fixtures: a stand-in guest on temporary folders, and its WinRM server."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# The stand-in is guest code, not part of the installed package: it has no import path here.
sys.path.insert(0, str(Path(__file__).parents[3] / "images" / "standin-pae"))
sys.path.insert(0, str(Path(__file__).parent))

from standin import winrm
from standin_guest import GOLDEN, Guest


@pytest.fixture(autouse=True)
def _plain_http(monkeypatch: pytest.MonkeyPatch) -> None:
    """pywinrm warns of certificate and proxy settings in the environment."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    return Guest(tmp_path)


@pytest.fixture
def golden() -> Callable[[str], str]:
    """A function giving a golden file's text."""
    return lambda name: (GOLDEN / name).read_text()


@pytest.fixture
def server(guest: Guest) -> Iterator[winrm.Server]:
    running = winrm.start(guest.system)
    yield running
    running.close()
