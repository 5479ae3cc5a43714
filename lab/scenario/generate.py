"""Scenarios made by chance, weighted by what a report points at.

Each is a handful of blocks out of the triggers' own scenarios and of small steps around them,
mixed, with what cannot be done where it stands left out. A seed decides all of it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

from lab.scenario.model import (
    MIB,
    AnyStep,
    Attach,
    Check,
    Detach,
    DisableDriver,
    EnableDriver,
    Fault,
    Flush,
    Io,
    JitterStep,
    Pause,
    Reboot,
    Repeat,
    Scenario,
    StartIo,
    StopIo,
    Together,
    Unpause,
    disks,
)
from lab.scenario.sense import explained
from lab.scenario.triggers import Suspicion

LONGEST = 5
"""Most blocks of one scenario: what is short is run often."""

_DISKS = ("hdc", "hdd", "sdb", "xvdf")

_Small = Callable[[random.Random, str], Sequence[AnyStep]]


def generate(suspicions: Sequence[Suspicion], seed: int) -> Scenario:
    """A scenario.

    Args:
        suspicions: what is likely, with scores; the squares of the scores are the weights.
        seed: decides everything, the scenario's own jitter too.
    """
    chance = random.Random(seed)  # noqa: S311 - to be repeated, not secret
    steps: list[AnyStep] = []
    for disk in _DISKS[: chance.randint(1, 3)]:
        steps.append(Attach(disk=disk, size=4 * MIB + 8 * _DISKS.index(disk)))
    weights = [one.score**2 for one in suspicions]
    for _ in range(chance.randint(1, LONGEST)):
        if chance.random() < 0.5:
            small = chance.choice(_SMALL)
            steps += small(chance, chance.choice(_DISKS))
        else:
            trigger = chance.choices(suspicions, weights)[0].trigger
            steps += _joined(steps, trigger.build(chance))
    if chance.random() < 0.3:
        steps = _shuffled_in_part(steps, chance)
    return Scenario(seed=seed, steps=explained(_mixed(steps)))


def _joined(before: Sequence[AnyStep], block: Sequence[AnyStep]) -> list[AnyStep]:
    """A block behind other steps: disks that are attached already are not attached again."""
    known = set(disks(before))
    return [
        step
        for step in block
        if not (isinstance(step, Attach) and step.size and step.disk in known)
    ]


def _mixed(steps: Sequence[AnyStep]) -> list[AnyStep]:
    """Steps of different blocks, changed so that none of them fails of another.

    Requests stay within their disk. What a disk holds, and whether it still has faults, nobody
    knows any more: patterns are written before they are verified, and errors say nothing.
    """
    sizes = {label: attach.size or 1 for label, attach in disks(steps).items()}

    def fit(step: AnyStep) -> Iterator[AnyStep]:
        change: dict[str, object] = {}
        if isinstance(step, Check):
            return
        if isinstance(step, Repeat):
            change["steps"] = fit_all(step.steps)
        elif isinstance(step, Together):
            change["lanes"] = tuple(fit_all(lane) for lane in step.lanes)
        elif isinstance(step, Io | StartIo):
            size = sizes.get(step.disk, 1)
            if step.first + step.count > size:
                change |= {"first": 0, "count": max(1, min(step.count, size))}
        if isinstance(step, Io | StopIo | Flush):
            change["expect"] = "any"
        if isinstance(step, Io) and step.action == "verify":
            change["action"] = "exercise"
        yield step.model_copy(update=change)

    def fit_all(some: Sequence[AnyStep]) -> tuple[AnyStep, ...]:
        return tuple(fitted for step in some for fitted in fit(step))

    return list(fit_all(steps))


def _shuffled_in_part(steps: list[AnyStep], chance: random.Random) -> list[AnyStep]:
    """Two neighbours that changed their places, a few times."""
    mixed = list(steps)
    for _ in range(chance.randint(1, 3)):
        if len(mixed) > 2:
            at = chance.randrange(1, len(mixed) - 1)
            mixed[at], mixed[at + 1] = mixed[at + 1], mixed[at]
    return mixed


def _again(chance: random.Random, disk: str) -> Sequence[AnyStep]:
    return (Detach(disk=disk), JitterStep(up_to=0.5, name=f"{disk} away"), Attach(disk=disk))


def _busy(chance: random.Random, disk: str) -> Sequence[AnyStep]:
    return (
        StartIo(disk=disk, threads=chance.choice((1, 2, 8)), order="random", shift=True),
        JitterStep(up_to=1.0, name=f"{disk} busy"),
    )


def _idle(chance: random.Random, disk: str) -> Sequence[AnyStep]:
    return (StopIo(job=disk),)


def _requests(chance: random.Random, disk: str) -> Sequence[AnyStep]:
    return (
        Io(
            disk=disk,
            threads=chance.choice((1, 4, 16)),
            block=chance.choice((1, 13, 88, 89, 2048)),
            order="random",
            shift=chance.random() < 0.5,
        ),
    )


def _stop_and_go(chance: random.Random, disk: str) -> Sequence[AnyStep]:
    return (Pause(), JitterStep(up_to=1.0, name="paused"), Unpause())


def _fault(chance: random.Random, disk: str) -> Sequence[AnyStep]:
    faults = (
        Fault(disk=disk, kind="delay"),
        Fault(disk=disk, kind="refuse_writes"),
        Fault(disk=disk, kind="flakey"),
    )
    return (chance.choice(faults), Io(disk=disk), Fault(disk=disk, kind="heal"))


def _driver(chance: random.Random, disk: str) -> Sequence[AnyStep]:
    return (DisableDriver(), JitterStep(up_to=0.5, name="disabled"), EnableDriver())


def _boot(chance: random.Random, disk: str) -> Sequence[AnyStep]:
    return (Reboot(),) if chance.random() < 0.2 else (Flush(disk=disk),)


_SMALL: tuple[_Small, ...] = (
    *(_again, _again, _busy, _busy, _idle, _requests, _requests),
    *(_stop_and_go, _fault, _driver, _boot),
)
