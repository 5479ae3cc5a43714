"""What a session measures before its first test."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from plugin_fakes import Template

from lab.config.profile import Profile
from lab.core.errors import LabBroken
from lab.place.warm import Template as RealTemplate
from lab.plugin.session import Lab


class Slow(Template):
    """Tells that the machine is slow."""

    asked = 0
    error: LabBroken | None = None

    def pace(self, scratch: Path, deadline: object) -> float:
        self.asked += 1
        assert scratch.is_dir()
        if self.error is not None:
            raise self.error
        return 2.5


def session(template: Slow, scratch: Path, said: list[str]) -> Lab:
    def prepare() -> RealTemplate:
        return cast(Any, template)

    return Lab(Profile(), prepare, scratch, said.append)


def test_the_pace_is_measured_once_before_the_first_clone(tmp_path: Path) -> None:
    template, said = Slow(tmp_path / "journal"), list[str]()
    lab = session(template, tmp_path, said)
    assert lab.pace == 1.0
    for _ in range(2):
        lab.discard(lab.clone())
    assert template.asked == 1
    assert lab.pace == 2.5
    assert said == ["tests may take 2.5 times as long here as they say"]
    assert not (tmp_path / "pace").exists()
    # It is no part of the first test's time.
    assert lab.preparation() > 0


def test_a_pace_that_cannot_be_measured_is_left_to_the_tests(tmp_path: Path) -> None:
    template, said = Slow(tmp_path / "journal"), list[str]()
    template.error = LabBroken("QEMU did not start")
    lab = session(template, tmp_path, said)
    lab.discard(lab.clone())
    assert lab.pace == 1.0
    assert said == ["how fast this machine is could not be measured: QEMU did not start"]
