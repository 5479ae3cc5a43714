"""How often the lab's decisions are wrong, over simulated drivers: no machine is started."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from lab.bench.figure import Figure
from lab.bisect.simulate import Row, searches
from lab.gate.policy import bundled, load_policy
from lab.gate.simulate import WORLDS, tries
from lab.results.record import Status

ROUNDS = 200
"""Simulated gates, and searches, of each kind."""

Say = Callable[[str], None]

WANTED: dict[tuple[str, str], tuple[Status, float, bool]] = {
    ("standard", "no worse"): (Status.FAIL, 1.0, False),
    ("release", "no worse"): (Status.FAIL, 1.0, False),
    ("release", "one test fails 10 %"): (Status.FAIL, 95.0, True),
    ("standard", "one test always fails"): (Status.FAIL, 100.0, True),
    ("release", "one test always fails"): (Status.FAIL, 100.0, True),
    ("standard", "2 % slower"): (Status.FAIL, 0.0, False),
    ("release", "2 % slower"): (Status.FAIL, 0.0, False),
    ("standard", "10 times slower"): (Status.FAIL, 100.0, True),
    ("release", "10 times slower"): (Status.FAIL, 100.0, True),
    ("standard", "the lab is killed everywhere"): (Status.UNDECIDED, 100.0, True),
    ("release", "the lab is killed everywhere"): (Status.UNDECIDED, 100.0, True),
}
"""By policy and world: which verdict is counted, the share in percent that it is held against, and
whether that is the least or the most."""

ROWS = {
    "64 builds, fails 20 %": Row(),
    "64 builds, fails 10 %": Row(rate=0.1),
    "64 builds, fails 20 %, good ones 1 %": Row(flake=0.01),
    "64 builds, fails always": Row(rate=1.0),
    "8 builds, fails 20 %": Row(builds=8),
}


def gates(say: Say, *, rounds: int = ROUNDS) -> Iterator[Figure]:
    """Shares of simulated gates that end so or so, and the runs that they make."""
    for name in reversed(bundled()):
        policy = load_policy(name)
        for world, what in WORLDS.items():
            say(f"{name}: {rounds} gates, {world}")
            found = tries(what, policy, range(rounds))
            status, target, at_least = WANTED.get((name, world), (Status.FAIL, None, False))
            yield Figure(
                name=f"{name}: {world}: {status.value}",
                unit="%",
                samples=(100.0 * found.share(status),),
                target=target,
                at_least=at_least,
                note=f"of {rounds} simulated gates over 10 tests, with 3 % lab noise and a test "
                "that fails 1 %",
            )
            yield Figure(
                name=f"{name}: {world}: runs", unit="runs", samples=tuple(map(float, found.runs))
            )


def bisections(say: Say, *, rounds: int = ROUNDS) -> Iterator[Figure]:
    """Shares of simulated searches that find the right build, and the runs that they make."""
    for name, row in ROWS.items():
        say(f"{rounds} searches, {name}")
        found = searches(row, range(rounds))
        yield Figure(
            name=f"{name}: right",
            unit="%",
            samples=(100.0 * found.right,),
            target=95.0 if not row.flake else None,
            at_least=True,
            note=f"of {rounds} simulated searches at 95 % confidence, with 3 % lab noise",
        )
        yield Figure(name=f"{name}: runs", unit="runs", samples=tuple(map(float, found.runs)))
