"""``pvlab demo``: the gate lets a good driver through and stops a broken one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console

from lab.cli.gate import Judgement, judge
from lab.cli.image import build_images
from lab.cli.options import AccelOption, ConfigOption, IntensityOption, ProfileOption
from lab.cli.suite import SuiteRequest
from lab.config.load import load_profile
from lab.core.errors import Blame, ExitCode
from lab.images.store import Store
from lab.place.standin import drivers_image
from lab.results.record import Status, TestRecord
from lab.suite.intensity import Level

CRASH_PROPERTY = "pvlab.crash"
"""Property of a test in which the guest crashed; see ``lab.plugin.attempt``."""


@dataclass(frozen=True, slots=True)
class Act:
    """One half of the demonstration.

    Attributes:
        package: folder in the image.
        what: the driver in words.
        expected: what the gate has to say, in words.
        met: whether a judgement is what is expected.
    """

    package: str
    what: str
    expected: str
    met: Callable[[Judgement], bool]


def crashed_on_attach(test: TestRecord) -> bool:
    """Whether the driver crashed the guest in this test while a disk was attached."""
    crash = test.properties.get(CRASH_PROPERTY, "")
    return test.outcome.bad and test.blame is Blame.DRIVER and "attaching" in crash


def passes(judgement: Judgement) -> bool:
    """Whether the gate let the driver through."""
    return judgement.verdict.status is Status.PASS


def fails_by_crash_on_attach(judgement: Judgement) -> bool:
    """Whether the gate stopped the driver, and for a crash on attach."""
    return judgement.verdict.status is Status.FAIL and any(
        crashed_on_attach(test) for test in judgement.record.tests
    )


ACTS = (
    Act("good", "a driver that works", "PASS", passes),
    Act(
        "broken-attach",
        "a driver that crashes the guest when a disk is attached",
        "FAIL (driver, crash on attach)",
        fails_by_crash_on_attach,
    ),
)


def demo(
    profile: ProfileOption = None,
    config: ConfigOption = None,
    accel: AccelOption = None,
    intensity: IntensityOption = Level.SMOKE,
) -> int:
    """Gate a good driver and a broken one; exit 0 only if one passes and the other fails."""
    load_profile(profile, config)
    image = drivers_image(accel)
    build_images([image])
    packages = Store().ensure(image).path
    console = Console(highlight=False, soft_wrap=True)
    lines: list[tuple[bool, str]] = []
    for act in ACTS:
        console.rule(act.what)
        request = SuiteRequest(
            driver=packages / act.package,
            profile=profile,
            config=config,
            accel=accel,
            intensity=intensity,
            stop_at_first=True,
        )
        judgement = judge(request, label=act.package)
        lines.append((act.met(judgement), tell(act, judgement)))
    console.rule("pvlab demo")
    for _, line in lines:
        console.print(line, markup=False)
    return int(ExitCode.PASS if all(met for met, _ in lines) else ExitCode.LAB_BROKEN)


def tell(act: Act, judgement: Judgement) -> str:
    """One act's outcome, for people."""
    record, verdict = judgement.record, judgement.verdict
    accelerator = record.accelerator
    said = act.expected if act.met(judgement) else f"{verdict.status.value}, NOT AS EXPECTED"
    return "\n".join(
        [
            f"{said}: {act.what}",
            f"  guest: {record.guest_label}",
            "  accelerator: "
            + (f"{accelerator.name} ({accelerator.why})" if accelerator else "none was chosen"),
            *(f"  {reason}" for reason in verdict.reasons),
            f"  report: {judgement.result.report}",
        ]
    )
