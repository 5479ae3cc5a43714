"""A night in a process of its own, for tests that kill it."""

from __future__ import annotations

from multiprocessing.connection import Connection
from pathlib import Path

from night_fakes import NIGHT, FakeLauncher

from lab.nightly.night import Night
from lab.nightly.pool import LocalPool
from lab.nightly.work import Site
from lab.results.store import open_store


def run(said: Connection, database: str, folder: Path, places: int, seconds: float) -> None:
    """Run the night from where it is to its end.

    Args:
        said: gets its lines.
        database: URL of the store.
        folder: templates, journal and results.
        places: items side by side.
        seconds: that an item takes.
    """
    site = Site(folder / "results", places=places, locks=folder / "places", grace=5.0)
    launcher = FakeLauncher(folder, seconds)
    with open_store(database) as store, LocalPool(site, launcher) as pool:
        Night(store, NIGHT, pool, site, seconds=3600.0, say=said.send).run()
