"""What a host with xend adds to the evidence, and how it lists xenstore."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab.core.deadline import Deadline
from lab.plugin import sources
from lab.plugin.sources import PlaceSources
from lab.xen.xend import AutoCore

LOG = (
    "[2007-11-19 12:00:00 3456] DEBUG (DevController:148) Waiting for 5632.\n"
    "[2007-11-19 12:01:40 3456] ERROR (xmlrpclib2:178) Device 5632 (vbd) could not be connected.\n"
    "Traceback (most recent call last):\n"
)
CORE = "2007-1119-1203.59-virtdemo.7.core"


def place(tmp_path: Path, *, watches: bool, cores: tuple[Any, ...] = ()) -> Any:
    asked: list[str] = []
    made = SimpleNamespace(
        scratch=tmp_path,
        domain=SimpleNamespace(domid=7),
        toolstack=SimpleNamespace(has_watches=watches, automatic_cores=lambda deadline: cores),
        dom0=SimpleNamespace(
            run=lambda command, deadline: asked.append(command) or SimpleNamespace(stdout="")
        ),
    )
    made.asked = asked
    return made


@pytest.fixture
def collected(monkeypatch: pytest.MonkeyPatch) -> None:
    def collect(toolstack: object, into: Path, deadline: object) -> list[Path]:
        (into / "xen").mkdir()
        (into / "xen/xend.log").write_text(LOG)
        return [into / "xen/xend.log"]

    monkeypatch.setattr(sources.logs, "collect", collect)


@pytest.mark.usefixtures("collected")
def test_xend_s_trouble_and_cores(tmp_path: Path) -> None:
    core = AutoCore.parse(CORE)
    files = PlaceSources(place(tmp_path, watches=False, cores=(core,))).toolstack_logs(Deadline(5))
    assert files["xend.log"] == LOG.encode()
    assert files["xend-cores.txt"] == f"{CORE}\n".encode()
    trouble = files["xend-trouble.txt"].decode()
    assert trouble.startswith("2007-11-19 12:01:40 ERROR (xmlrpclib2) Device 5632 (vbd)")
    assert "Traceback" in trouble
    assert "Waiting for" not in trouble


@pytest.mark.parametrize(("watches", "words"), [(True, "xenstore-ls -f /"), (False, "-ls /local")])
def test_xenstore_as_the_host_lists_it(tmp_path: Path, watches: bool, words: str) -> None:
    made = place(tmp_path, watches=watches)
    PlaceSources(made).xenstore_vbd(Deadline(5))
    assert words in made.asked[0]
