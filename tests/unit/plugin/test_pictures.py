"""The screen of a guest that crashed is among the evidence, of guests that have one."""

from __future__ import annotations

from typing import Any

import pytest
from PIL import Image
from plugin_bench import by_name, evidence_of

from lab.config.profile import Profile
from lab.core.errors import LabBroken
from lab.plugin import attempt

pytest_plugins = ["pytester"]

TESTS = """
def test_crash(installed_driver, place):
    place.bugcheck()
    assert 0

def test_bad(installed_driver):
    assert 0
"""


@pytest.fixture
def screens(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Answers of the guest's screen, the next one last; an error is raised."""
    answers: list[Any] = []

    def screen_of(*_: Any, **__: Any) -> Any:
        answer = answers.pop()
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(attempt, "screen_of", screen_of)
    monkeypatch.setattr(Profile, "has_screen", True)
    return answers


def test_a_crash_leaves_a_picture(bench: Any, screens: Any) -> None:
    screens.append(Image.new("RGB", (8, 4), (0, 0, 170)))
    run = bench(TESTS)
    assert "screen.png" in evidence_of(run, "test_crash")
    # A guest that lives is asked in better ways.
    assert "screen.png" not in evidence_of(run, "test_bad")
    file = run.folder / by_name(run)["test_crash"]["evidence"] / "screen.png"
    with Image.open(file) as picture:
        assert (picture.size, picture.getpixel((3, 3))) == ((8, 4), (0, 0, 170))


def test_why_there_is_no_picture_is_kept(bench: Any, screens: Any) -> None:
    screens.append(LabBroken("no VNC server"))
    run = bench(TESTS)
    found = evidence_of(run, "test_crash")
    assert "screen.png" not in found
    assert "screen.txt" in found
    assert by_name(run)["test_crash"]["blame"] == "driver"


def test_the_stand_in_has_no_screen(bench: Any) -> None:
    run = bench(TESTS)
    assert not {"screen.png", "screen.txt"} & evidence_of(run, "test_crash")
