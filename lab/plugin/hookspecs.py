"""Hooks that this plugin offers to ``conftest.py`` files and to other plugins."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from lab.config.profile import Profile
    from lab.place.warm import Template


@pytest.hookspec(firstresult=True)
def pytest_pvlab_prepare(
    profile: Profile, accel: str | None, progress: Callable[[str], None]
) -> Template | None:
    """Give the warm template that every test's place is cloned from.

    Called once in a session, when the first test needs it. The first implementation that
    returns a template wins; the plugin's own, tried last, is ``lab.place.warm.prepare``.
    A project may serve templates from elsewhere with it; the plugin's unit tests serve
    fakes.

    Args:
        profile: the profile of this session.
        accel: the accelerator asked for; ``None`` to choose.
        progress: takes one line of what is being done, for people who wait.

    Raises:
        LabBroken: no template can be had; every dependent test is then skipped with this
            one cause.
        UsageError: the profile asks for what cannot be.
    """
