"""What a step of a test costs, so that a test's time is known before it has run.

A figure is what the step takes at most, with as many tests side by side as there are cores.
Those for emulation are of the stand-in guest on two cores of a server processor whose speed
changes by half with what its neighbours do: most tests take half of what the figures add up to,
and none of three whole runs with two tests side by side took more. Those for KVM are the same
ones divided by the factor between both in ``lab.config.profile.Deadlines``: estimates, which no
machine with nested KVM has confirmed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lab.core.errors import UsageError
from lab.suite.intensity import Count, Intensity

Steps = Mapping[str, float | Count]
"""Step to how often it is done, or for ``seconds`` how many."""

EMULATED: Mapping[str, float] = {
    "place": 10.0,
    "install": 10.0,
    "attach": 10.0,
    "detach": 5.0,
    "command": 0.3,
    "dom0": 0.5,
    "partition": 4.5,
    "format": 4.5,
    "mib": 1.4,
    "transfer": 4.5,
    "driver": 8.0,
    "reboot": 110.0,
    "shutdown": 18.0,
    "save": 27.0,
    "restore": 33.0,
    "crash": 27.0,
    "dump": 45.0,
}
"""Seconds a step, where the processor is emulated.

place: clone, dom0, DbgView, evidence of a test that passes. install: of a driver package.
attach: until the guest lists the disk. detach: until dom0's end is gone. command: in the
guest. dom0: a command in dom0. partition: diskpart makes one and gives it a letter. format:
of a small volume. mib: 1 MiB through the PV disk, in the guest. transfer: 64 KiB into the
guest or out of it. driver: disable, enable, remove or update. reboot: until WinRM answers
again. shutdown: until the domain is gone. save, restore: of the domain. crash: until it is
noticed and its evidence kept. dump: a core of the domain.
"""

KVM_SPEEDUP = 6.0
"""Emulation to KVM, estimated; see ``Deadlines.tcg_factor``."""

SECONDS = "seconds"
"""The step whose count is its time: waits that are equally long everywhere."""

STEPS = frozenset({*EMULATED, SECONDS})


def step_seconds(step: str, accelerator: str) -> float:
    """What one step takes, in s.

    Raises:
        UsageError: no such step.
    """
    if step == SECONDS:
        return 1.0
    if step not in EMULATED:
        raise UsageError(f"'{step}' is no step that costs", hint=f"one of: {_listed(STEPS)}")
    return EMULATED[step] / (KVM_SPEEDUP if accelerator == "kvm" else 1.0)


def expected_seconds(steps: Steps, intensity: Intensity) -> float:
    """What a test takes that consists of these steps, in s.

    Raises:
        UsageError: no such step.
    """
    return sum(
        step_seconds(step, intensity.accelerator)
        * (intensity.count(times) if isinstance(times, Count) else times)
        for step, times in steps.items()
    )


def check_steps(steps: Mapping[str, object]) -> None:
    """Refuse steps that are unknown or counted by something else than a number.

    Raises:
        UsageError: naming the first one.
    """
    for step, times in steps.items():
        step_seconds(step, "kvm")
        if isinstance(times, bool) or not isinstance(times, int | float | Count):
            raise UsageError(f"cost: {step} is counted by a number or a Count, not {times!r}")


def _listed(words: Iterable[str]) -> str:
    return ", ".join(sorted(words))
