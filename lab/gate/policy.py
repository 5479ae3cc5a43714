"""What a gate asks for: how often tests are run, what counts as a failure of the driver, and
when it has seen enough. Read from TOML; two policies come with the lab.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lab.core.errors import UsageError
from lab.core.suggest import did_you_mean
from lab.suite.intensity import Level

POLICIES = Path(__file__).resolve().parent / "policies"
DEFAULT = "standard"

Share = Annotated[float, Field(gt=0, lt=1)]
Lenience = Literal["pass", "undecided", "fail"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Suite(_Part):
    """Which tests are run."""

    intensity: Level = Field(default=Level.STANDARD, description="How much each test does.")
    tests: tuple[str, ...] = Field(
        default=(), description="Files, folders or node ids; the driver suite when empty."
    )
    keyword: str = Field(default="", description="pytest's -k expression; empty for all.")


class Failures(_Part):
    """When a test's failures are the driver's."""

    rate: Share = Field(
        default=0.10,
        description="Failure rate of one test that the gate must not let through. A test that "
        "failed, but is shown to fail less often than this, is called flaky.",
    )
    confidence: Share = Field(
        default=0.95, description="That a test is not called flaky which fails that often."
    )
    false_alarm: Share = Field(
        default=0.01,
        description="Chance, for one test, that a failure is put down to the new driver although "
        "the baseline fails as often.",
    )
    repeats: Annotated[int, Field(ge=1)] | Literal["rate"] = Field(
        default=1,
        description="Runs of a test that does not fail, on each driver; `rate`: as many as rule "
        "out a failure rate of `rate`.",
    )
    most: int = Field(
        default=80, ge=1, description="The most runs of a test that failed, on each driver."
    )
    existing: Lenience = Field(
        default="undecided",
        description="What becomes of a gate in which a test fails on both drivers, and no "
        "erratum says so.",
    )


class Performance(_Part):
    """When a figure that tests measure has become too much worse."""

    limit: float = Field(default=0.10, gt=0, description="How much slower is too slow; 0.1: 10 %.")
    confidence: Share = Field(default=0.95, description="Of what is said of a figure.")
    looks: tuple[Annotated[int, Field(ge=2)], ...] = Field(
        default=(4, 8, 16),
        min_length=1,
        description="Pairs of measurements after which a figure is looked at; the last is the "
        "most that are made.",
    )
    inconclusive: Lenience = Field(
        default="pass",
        description="What becomes of a gate with a figure that is shown neither to be worse "
        "than the limit nor to be better.",
    )

    @model_validator(mode="after")
    def _ascending(self) -> Performance:
        if list(self.looks) != sorted(set(self.looks)):
            raise ValueError("looks: each has to be larger than the one before")
        return self


class LabTrouble(_Part):
    """How much of the lab's own trouble is put up with."""

    retries: int = Field(
        default=3, ge=0, description="Further attempts at a run that the lab lost, in a row."
    )
    give_up: int = Field(
        default=10, ge=1, description="Runs lost one after the other that end the gate."
    )


class Running(_Part):
    """How the runs are made."""

    stop_early: bool = Field(
        default=True, description="End as soon as the verdict cannot change any more."
    )
    batch: int = Field(
        default=8, ge=1, description="Runs a pytest session; between sessions the gate decides."
    )


class Policy(_Part):
    """A gate's policy: ``gate.toml``."""

    name: str = Field(default="", description="What people call it; the file's name if empty.")
    suite: Suite = Suite()
    failures: Failures = Failures()
    performance: Performance = Performance()
    lab: LabTrouble = LabTrouble()
    running: Running = Running()

    @property
    def sha256(self) -> str:
        """Identity of what the policy asks: SHA-256 over its values as JSON, keys sorted."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def adjusted(self, *, intensity: Level | None, stop_early: bool | None) -> Policy:
        """The same with what a command line asks otherwise."""
        suite, running = self.suite, self.running
        if intensity is not None:
            suite = suite.model_copy(update={"intensity": intensity})
        if stop_early is not None:
            running = running.model_copy(update={"stop_early": stop_early})
        return self.model_copy(update={"suite": suite, "running": running})


def bundled() -> tuple[str, ...]:
    """Names of the policies that come with the lab."""
    return tuple(sorted(file.stem for file in POLICIES.glob("*.toml")))


def load_policy(which: str | Path = DEFAULT) -> Policy:
    """Read a policy.

    Args:
        which: a file, or the name of a policy that comes with the lab.

    Raises:
        UsageError: there is none, or it says what it must not.
    """
    file = Path(which)
    if str(which) in bundled():
        file = POLICIES / f"{which}.toml"
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        names = bundled()
        raise UsageError(
            f"{which}: no such policy",
            hint=did_you_mean(str(which), names) or f"a file, or one of: {', '.join(names)}",
        ) from None
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: not TOML: {' '.join(str(error).split())}") from None
    try:
        return Policy.model_validate({"name": file.stem, **content})
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise UsageError(f"{file}: {where}: {' '.join(problem['msg'].split())}") from None
