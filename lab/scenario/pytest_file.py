"""A scenario as a test of the driver suite."""

from __future__ import annotations

import math
import re

from lab.scenario.model import (
    AnyStep,
    Attach,
    Check,
    Detach,
    DisableDriver,
    EnableDriver,
    Fault,
    Format,
    InstallDriver,
    Io,
    JitterStep,
    Migrate,
    Partition,
    PowerOff,
    PutFile,
    Reboot,
    RemoveDriver,
    Repeat,
    Restore,
    Save,
    Scenario,
    Together,
    Wait,
)
from lab.scenario.rate import Rate
from lab.scenario.text import dumps
from lab.suite.sequential import CONFIDENCE

ALWAYS = 0.9
"""A scenario whose failure rate may be below this is run as a race."""

_MIB = 2048
_STEPS: dict[type, str] = {
    Detach: "detach",
    Partition: "partition",
    Format: "format",
    PowerOff: "shutdown",
    Reboot: "reboot",
    Save: "save",
    Restore: "restore",
    DisableDriver: "driver",
    EnableDriver: "driver",
    RemoveDriver: "driver",
    InstallDriver: "install",
}


def write_test(scenario: Scenario, found: Rate) -> str:
    """The source of a test file that runs a scenario; it passes when the driver is mended.

    Args:
        scenario: it.
        found: how often it shows the failure: a rare one is run as often as it takes to see it.
    """
    about = scenario.about
    title = about.title or "a scenario"
    origin = about.origin or "a scenario"
    name = re.sub(r"[^a-z0-9]+", "_", title.lower()).strip("_")[:60].strip("_") or "scenario"
    costs = ", ".join(f"{step}={count:g}" for step, count in cost(scenario).items())
    race, imports = "", ""
    if found.attempts and found.low < ALWAYS:
        # Each one that is needed is a clone; more than a campaign's most makes no sense.
        attempts = attempts_for(found.low)
        race = f"@pytest.mark.race(attempts=Count({attempts}, tcg={attempts}))\n"
        imports = "\nfrom lab.suite.intensity import Count\n"
    return (
        f'"""A regression test that `pvlab repro` made."""\n\n'
        "from __future__ import annotations\n\n"
        f"import pytest\n{imports}\n"
        'pytestmark = pytest.mark.area("repro")\n\n'
        f"SCENARIO = {_literal(dumps(scenario))}\n\n\n"
        f"{race}"
        f"@pytest.mark.claim({_word(title)}, {_word(origin)})\n"
        f"@pytest.mark.cost({costs})\n"
        f"def test_{name}(replay):\n"
        "    replay(SCENARIO)\n"
    )


def attempts_for(least: float) -> int:
    """Attempts after which a failure of that rate has shown, at 95 %; 2 to 400."""
    if least >= 1.0:
        return 2
    needed = 400 if least <= 0.0 else math.log(1 - CONFIDENCE) / math.log1p(-least)
    return min(400, max(2, math.ceil(needed)))


def cost(scenario: Scenario) -> dict[str, float]:
    """What a scenario costs, in the steps of ``lab.suite.costs``."""
    found: dict[str, float] = {}
    _add(scenario.steps, 1, found)
    return {step: round(count, 2) for step, count in found.items()} or {"command": 1}


def _add(steps: tuple[AnyStep, ...], times: float, found: dict[str, float]) -> None:
    def more(step: str, count: float) -> None:
        found[step] = found.get(step, 0) + count * times

    for step in steps:
        if isinstance(step, Repeat):
            _add(step.steps, times * step.times, found)
        elif isinstance(step, Together):
            for lane in step.lanes:
                _add(lane, times, found)
        elif isinstance(step, Attach):
            more("attach", 1)
        elif isinstance(step, Io):
            more("mib", step.count * step.gens / _MIB)
            more("command", 1)
        elif isinstance(step, Wait):
            more("seconds", step.seconds)
        elif isinstance(step, JitterStep):
            more("seconds", step.up_to)
        elif isinstance(step, PutFile):
            more("transfer", step.size_bytes / 65536)
        elif isinstance(step, Fault | Check):
            more("dom0", 2)
        elif isinstance(step, Migrate):
            more("save", 1)
            more("restore", 1)
        else:
            more(_STEPS.get(type(step), "command"), 1)


def _literal(text: str) -> str:
    """Text as a Python literal over several lines, if it can be one."""
    if '"""' in text or "\\" in text or text.endswith('"'):
        lines = "".join(f"    {line!r}\n" for line in text.splitlines(keepends=True))
        return f"(\n{lines})"
    return f'"""\\\n{text}"""'


def _word(text: str) -> str:
    quoted = repr(" ".join(text.split())[:80])
    plain = quoted[1:-1]
    return f'"{plain}"' if quoted[0] == "'" and '"' not in plain else quoted
