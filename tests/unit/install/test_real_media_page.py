"""docs/real-media.md against what is there: profiles, kinds, steps, files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lab.config.load import load_profile
from lab.core.paths import repo_root
from lab.images.store import Store
from lab.install.firstboot import FIRST_STEPS
from lab.install.steps import SETUP_STEPS
from lab.media.kinds import MediaKind

PAGE = repo_root() / "docs/real-media.md"


@pytest.fixture(scope="module")
def text() -> str:
    return PAGE.read_text(encoding="utf-8")


def test_its_profiles_load(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```toml\n(.*?)```", text, re.S)
    Path("lab.toml").write_text("\n".join(blocks))
    names = re.findall(r"^\[profiles\.([\w-]+)\]", "\n".join(blocks), re.M)
    assert len(names) == 2
    images = Store().names()
    for name in names:
        profile = load_profile(name)
        assert profile.guest_kind == "windows"
        assert profile.guest_image in images
        assert profile.host_image in images


def test_what_it_names_is_there(text: str) -> None:
    recipe = Store().recipe("w2k3-sp2-pae")
    for kind in recipe.media:
        assert f"| `{kind}` |" in text
    steps = {step.name for step in (*SETUP_STEPS, *FIRST_STEPS)}
    named = set(re.findall(r"`([a-z-]+)`", "".join(re.findall(r"^\| `.*min.*$", text, re.M))))
    assert named - {"cmdlines"} <= steps | set(MediaKind)
    for path in re.findall(r"\]\(\.\./([^)#]+)\)", text):
        assert (repo_root() / path).exists()


def test_it_gives_no_times_that_nobody_measured(text: str) -> None:
    rows = re.findall(r"^\| `(?:text-mode|gui-mode|settings|winrm-config|ready)`.*$", text, re.M)
    assert len(rows) == 5
    assert all(row.rstrip(" |").endswith("not measured") for row in rows)
