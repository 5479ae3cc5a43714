"""Which of the collected tests are run, in which form and order, and what they take."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from lab.core.atomic import atomic_write
from lab.core.errors import UsageError
from lab.plugin.campaigns import CampaignItem
from lab.plugin.keys import EXPECTED, uses_lab
from lab.plugin.marks import entry, expected, in_smoke, likely_accelerator, plan_of
from lab.plugin.options import settings
from lab.plugin.turns import arrange_turns
from lab.suite.catalogue import Catalogue
from lab.suite.intensity import Intensity, Level


def likely_intensity(config: pytest.Config) -> Intensity:
    """The intensity of a session, on the accelerator that it will probably have.

    Raises:
        UsageError: an option is unusable.
    """
    asked = settings(config)
    return Intensity(asked.intensity, likely_accelerator(asked.accel))


def arrange(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put turns in the place of tests and campaigns in that of races, note every test's time,
    deselect for smoke runs.

    Args:
        config: of the session.
        items: the collected tests; changed in place.

    Raises:
        UsageError: a marker or an option is unusable.
    """
    arrange_turns(config, items)
    intensity = likely_intensity(config)
    seed = settings(config).seed
    for position, item in enumerate(items):
        if not uses_lab(item):
            continue
        plan = plan_of(item, intensity, seed)
        if plan is not None and isinstance(item, pytest.Function):
            items[position] = CampaignItem.instead_of(item, plan)
        items[position].stash[EXPECTED] = expected(items[position], intensity)
    if intensity.level is Level.SMOKE and settings(config).plan is None:
        _deselect_all_but_smoke(config, items)


def write_catalogue(config: pytest.Config, items: Sequence[pytest.Item], file: Path) -> None:
    """Write the catalogue of the tests that use the lab.

    Raises:
        pytest.UsageError: a marker or an option is unusable, or the file cannot be written.
    """
    try:
        intensity = likely_intensity(config)
        entries = tuple(entry(item, intensity) for item in items if uses_lab(item))
        found = Catalogue(
            intensity=intensity.level,
            accelerator=intensity.accelerator,
            expected_seconds=round(sum(test.expected_seconds for test in entries), 1),
            tests=entries,
        )
        atomic_write(file, found.model_dump_json(indent=2).encode() + b"\n")
    except UsageError as error:
        raise pytest.UsageError(f"pvlab: {error}") from None
    except OSError as error:
        raise pytest.UsageError(f"pvlab: {file}: cannot be written: {error.strerror}") from None


def _deselect_all_but_smoke(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests marked for a smoke run, and those that the user named one by one."""
    named = [argument.partition("::")[2] for argument in config.args if "::" in argument]

    def kept(item: pytest.Item) -> bool:
        name = item.nodeid.partition("::")[2]
        return in_smoke(item) or any(name.startswith(one) for one in named)

    dropped = [item for item in items if not kept(item)]
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if kept(item)]
