"""Killing nights, and what has to be true of them afterwards; for every kind of store."""

from __future__ import annotations

import os
import random
import select
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from night_fakes import NIGHT, item, plan, ran, write_templates

from lab.core.paths import repo_root
from lab.results.store import AttemptEnd, ItemState, Store, attempts, items, runs

ITEMS = 24
KILLS = 5
HERE = Path(__file__).parent


def start(*words: object) -> subprocess.Popen[str]:
    """Start the night's process; its lines come on stdout."""
    paths = [str(repo_root()), str(HERE), os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        [sys.executable, *map(str, words)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)},
    )


def kill_after(process: subprocess.Popen[str], lines: int, seconds: float) -> bool:
    """Kill a process (SIGKILL) some lines and seconds after it began to speak.

    Returns:
        Whether it was still running.
    """
    assert process.stdout is not None
    for _ in range(lines):
        process.stdout.readline()
    # Until it ends, at most: its end closes the pipe, and what it says meanwhile stays in it.
    poller = select.poll()
    poller.register(process.stdout, select.POLLHUP)
    poller.poll(seconds * 1000)
    running = process.poll() is None
    process.kill()
    process.communicate()
    return running


def killed_and_resumed(database: str, store: Store, folder: Path, seed: int) -> None:
    """Kill a night five times at random moments, let it end, and check every item."""
    results = folder / "results"
    results.mkdir(exist_ok=True)
    write_templates(folder)
    hows = ["pass", "pass", "fail", "lab-once", "pass", "pass"]
    plan(store, [item(f"item-{n:02d}", hows[n % len(hows)]) for n in range(ITEMS)])
    words = (HERE / "night_process.py", database, results, folder, 2, 0.05)
    chance = random.Random(seed)  # noqa: S311 - no secret
    for _ in range(KILLS):
        process = start(*words)
        assert kill_after(process, chance.randint(1, 8), chance.uniform(0.0, 0.1))
    process = start(*words)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
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


def began(folder: Path) -> Sequence[str]:
    return ran(folder)["begin"]
