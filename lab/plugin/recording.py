"""The scenario that a test really ran, recorded while it runs and kept with its evidence."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from lab.core import journal
from lab.core.errors import Blame, PvlabError
from lab.evidence.operations import OPERATIONS_NAME
from lab.plugin.keys import COLLECTOR, OPERATIONS, RECORDER, WORKPLACE, tests_driver
from lab.plugin.operations import Both, OperationLog
from lab.plugin.options import settings
from lab.scenario.bundle import SCENARIO
from lab.scenario.outcome import End
from lab.scenario.record import Recorder
from lab.scenario.text import dumps

if TYPE_CHECKING:
    from lab.plugin.session import Lab
    from lab.suite.blame import Verdict

DEFAULT_SEED = 1
"""Of the jitter of a test that is no race, unless one is asked for."""


def seed_of(item: pytest.Item) -> int:
    """The seed of a test's jitter: an attempt's own, else the one asked for."""
    asked = settings(item.config).seed
    seed: int = getattr(item, "seed", DEFAULT_SEED if asked is None else asked)
    return seed


@contextmanager
def recording(item: pytest.Item, *, installed: bool) -> Iterator[None]:
    """Record what a test does with its place.

    Args:
        item: the test.
        installed: whether its guest has the driver already.
    """
    recorder = item.stash[RECORDER] = Recorder(seed=seed_of(item), installed=installed)
    operations = item.stash[OPERATIONS] = OperationLog()
    with journal.listening(Both((recorder, operations))):
        yield


def keep(item: pytest.Item, lab: Lab, verdict: Verdict | None) -> None:
    """Put the scenario so far with a test's evidence; nothing when it did nothing.

    Args:
        item: the test.
        lab: of the session.
        verdict: on its failure; None when it passed.
    """
    recorder = item.stash.get(RECORDER, None)
    collector = item.stash.get(COLLECTOR, None)
    workplace = item.config.stash.get(WORKPLACE, None)
    if recorder is None or collector is None:
        return
    outcome = End.PASSED.value if verdict is None else str(verdict)
    about = {"title": item.name, "origin": item.nodeid, "outcome": outcome}
    about["profile"] = lab.profile.name
    if lab.prepared is not None:
        about["accelerator"] = lab.prepared.accel.name
    if workplace is not None and tests_driver(item):
        with contextlib.suppress(PvlabError):
            package = workplace.package_for(item)
            about["driver"] = f"{package.name} {package.version}".strip()
            about["driver_sha256"] = package.identity
    scenario = recorder.scenario(failed=verdict is not None, **about)
    # A driver that fails while it is installed needs no step to do so.
    if scenario.steps or (verdict is not None and verdict.blame is Blame.DRIVER):
        collector.add(SCENARIO, dumps(scenario))


def keep_times(item: pytest.Item) -> None:
    """Put what a test did when with its evidence."""
    operations = item.stash.get(OPERATIONS, None)
    collector = item.stash.get(COLLECTOR, None)
    if operations is not None and collector is not None:
        collector.add(OPERATIONS_NAME, operations.document().model_dump_json(indent=2) + "\n")
