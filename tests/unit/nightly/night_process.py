"""A night in a process of its own, for tests that kill it.

Arguments: URL of the store, results folder, templates' folder, places, seconds an item takes.
"""

from __future__ import annotations

import sys
from pathlib import Path

from night_fakes import NIGHT, FakeLauncher

from lab.nightly.night import Night
from lab.nightly.pool import LocalPool
from lab.nightly.work import Site
from lab.results.store import open_store


def main() -> None:
    database, results, folder, places, seconds = sys.argv[1:]
    site = Site(Path(results), places=int(places), locks=Path(folder) / "places", grace=5.0)

    def say(line: str) -> None:
        print(line, flush=True)

    launcher = FakeLauncher(Path(folder), float(seconds))
    with open_store(database) as store, LocalPool(site, launcher) as pool:
        Night(store, NIGHT, pool, site, seconds=3600.0, say=say).run()


if __name__ == "__main__":
    main()
