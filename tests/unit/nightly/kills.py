"""Killing nights, and what has to be true of them afterwards; for every kind of store."""

from __future__ import annotations

import contextlib
import multiprocessing
import random
from collections import Counter
from pathlib import Path

import night_process
from night_fakes import NIGHT, item, plan, ran, write_templates

from lab.results.store import AttemptEnd, ItemState, Store, attempts, items, runs

ITEMS = 18
KILLS = 5
PATIENCE_SECONDS = 120.0


class NightProcess:
    """A night in a process of its own.

    Args:
        words: arguments of ``night_process.run`` after the first.
    """

    # Forked from a process that has imported everything: seconds are saved with each.
    _context = multiprocessing.get_context("forkserver")
    _context.set_forkserver_preload(["night_process"])

    def __init__(self, *words: object) -> None:
        self._said, theirs = self._context.Pipe(duplex=False)
        self.process = self._context.Process(target=night_process.run, args=(theirs, *words))
        self.process.start()
        theirs.close()

    def kill_after(self, lines: int, seconds: float) -> bool:
        """Kill it (SIGKILL) some lines and seconds after it began to speak.

        Returns:
            Whether it was still running.
        """
        with contextlib.suppress(EOFError):
            for _ in range(lines):
                self._said.recv()
        # Until it ends, at most.
        self.process.join(seconds)
        running = self.process.is_alive()
        self.process.kill()
        self.close()
        return running

    def close(self) -> int | None:
        """Wait for its end.

        Returns:
            Its exit status.
        """
        with contextlib.suppress(EOFError):
            while True:
                self._said.recv()
        self._said.close()
        self.process.join(PATIENCE_SECONDS)
        return self.process.exitcode


def killed_and_resumed(database: str, store: Store, folder: Path, seed: int) -> None:
    """Kill a night five times at random moments, let it end, and check every item."""
    (folder / "results").mkdir()
    write_templates(folder)
    hows = ["pass", "pass", "fail", "lab-once", "pass", "pass"]
    plan(store, [item(f"item-{n:02d}", hows[n % len(hows)]) for n in range(ITEMS)])
    words = (database, folder, 2, 0.05)
    chance = random.Random(seed)  # noqa: S311 - no secret
    for _ in range(KILLS):
        assert NightProcess(*words).kill_after(chance.randint(1, 8), chance.uniform(0.0, 0.1))
    assert NightProcess(*words).close() == 0
    check(store, folder)


def check(store: Store, folder: Path) -> None:
    """Every item is in the store once, with a run that is there once; none is lost."""
    there = items(store, NIGHT)
    assert [one.key for one in there] == [f"item-{n:02d}" for n in range(ITEMS)]
    assert {one.state for one in there} == {ItemState.DONE}
    named = [one.run for one in there]
    assert len(set(named)) == ITEMS
    stored = Counter(run.name for run in runs(store))
    assert all(stored[name or ""] == 1 for name in named)
    ended = Counter(prefix(run) for run in ran(folder)["end"])
    for one in there:
        tries = attempts(store, NIGHT, one.key)
        assert [attempt.number for attempt in tries] == list(range(1, len(tries) + 1))
        assert [a.how for a in tries].count(AttemptEnd.DONE) == 1
        assert tries[-1].how is AttemptEnd.DONE
        assert tries[-1].run == one.run
        # What had come to its end was not run again, however the night was killed.
        done = prefix(one.run or "")
        assert ended[done] <= 1
        if one.payload["order"]["profile"] == "lab-once":
            assert one.lab_failures == 1


def prefix(run: str) -> str:
    return run.rpartition("-")[0]
