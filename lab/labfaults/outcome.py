"""What the lab said of its own faults, and the document that holds it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from lab.core.errors import Blame, ExitCode
from lab.labfaults.catalogue import LabFault
from lab.labfaults.injector import INJECTED
from lab.results.record import RunRecord, Verdict


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FaultOutcome(_Part):
    """One fault."""

    name: str
    title: str
    area: str
    test: str
    happened: bool = Field(description="Whether the fault was made.")
    blamed: Blame | None = Field(description="By the test; null when it did not fail.")
    exit_code: int = Field(description="Of the run.")
    cause: str = Field(description="What the lab said, one line.")
    seconds: float = Field(ge=0, description="Wall time of the run, in s.")
    run: str = Field(default="", description="The run's folder in the results.")

    @property
    def told(self) -> bool:
        """Whether the fault happened and the lab took it upon itself."""
        return (
            self.happened
            and self.blamed is Blame.LAB
            and self.exit_code == ExitCode.LAB_BROKEN
            and bool(self.cause)
        )


class FaultsDocument(_Part):
    """All faults of a run of ``pvlab lab-faults``."""

    schema_version: Literal[1] = 1
    guest_label: str = ""
    faults: tuple[FaultOutcome, ...] = ()

    @property
    def exit_code(self) -> ExitCode:
        """0 when the lab took every fault upon itself, else 3: its word cannot be relied on."""
        return (
            ExitCode.PASS
            if self.faults and all(fault.told for fault in self.faults)
            else ExitCode.LAB_BROKEN
        )


def judge_fault(
    fault: LabFault, record: RunRecord, verdict: Verdict, *, seconds: float, run: str
) -> FaultOutcome:
    """What the lab said of a fault.

    Args:
        fault: which one.
        record: of the run that it happened in.
        verdict: of the gate.
        seconds: how long the run took, in s.
        run: name of the run's folder.
    """
    test = record.tests[0] if record.tests else None
    happened = test.properties.get(INJECTED, "") if test else ""
    failed = test is not None and test.outcome.bad
    if happened == fault.name:
        cause = test.message if test and failed else "the test passed all the same"
    else:
        cause = happened or "the moment of the fault did not come"
        if test and test.message:
            cause += f": {test.message}"
    return FaultOutcome(
        name=fault.name,
        title=fault.title,
        area=fault.area,
        test=fault.test,
        happened=happened == fault.name,
        blamed=test.blame if test and failed else None,
        exit_code=verdict.exit_code,
        cause=" ".join(cause.split()),
        seconds=round(seconds, 1),
        run=run,
    )
