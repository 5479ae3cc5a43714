"""What became of the mutants, and the document that says so."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lab.core.atomic import save
from lab.core.errors import Blame, ExitCode, PvlabError
from lab.mutants.catalogue import Mutant
from lab.results.record import RunRecord, Status, TestRecord, Verdict
from lab.suite.intensity import Level

SCHEMA_VERSION: Literal[1] = 1


class Fate(enum.StrEnum):
    """What the suite made of a mutant."""

    KILLED = "killed"
    SURVIVED = "survived"
    LAB = "lab"
    UNDECIDED = "undecided"

    @property
    def settled(self) -> bool:
        """Whether the suite has said something about the mutant, rather than the lab."""
        return self in (Fate.KILLED, Fate.SURVIVED)


FATES = {
    Status.FAIL: Fate.KILLED,
    Status.PASS: Fate.SURVIVED,
    Status.LAB: Fate.LAB,
    Status.UNDECIDED: Fate.UNDECIDED,
}


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MutantOutcome(_Part):
    """One mutant."""

    name: str
    title: str = Field(description="The defect in a few words.")
    fate: Fate
    killed_by: str | None = Field(
        description="pytest's node id of the test that ended the run; null when none did."
    )
    blamed: Blame | None = Field(description="By that test; null when the mutant survived.")
    seconds: float = Field(ge=0, description="Wall time of the run of the suite, in s.")
    message: str = Field(default="", description="What that test said, one line.")
    tests: int = Field(default=0, ge=0, description="How many tests had ended by then.")
    run: str = Field(default="", description="The run's folder in the results.")
    package: str = Field(default="", description="SHA-256 of the driver package.")


class MutantsDocument(_Part):
    """All mutants of a run of ``pvlab mutants``, also of one that has not ended."""

    schema_version: Literal[1] = SCHEMA_VERSION
    suite: str = Field(description="SHA-256 over the suite's files.")
    intensity: Level
    guest_label: str = Field(default="", description="What the guest was, honestly.")
    accelerator: str = ""
    mutants: tuple[MutantOutcome, ...] = ()

    @property
    def exit_code(self) -> ExitCode:
        """0 when all were killed and blamed, 1 when one survived, 3 when the lab could not
        tell. A mutant that survived is a finding, whatever befell the others."""
        fates = {mutant.fate for mutant in self.mutants}
        if Fate.SURVIVED in fates:
            return ExitCode.DRIVER_FAILED
        return ExitCode.PASS if fates == {Fate.KILLED} else ExitCode.LAB_BROKEN

    def with_outcomes(self, outcomes: Iterable[MutantOutcome]) -> MutantsDocument:
        """The same with some more."""
        return self.model_copy(update={"mutants": (*self.mutants, *outcomes)})


def judge_mutant(
    mutant: Mutant, record: RunRecord, verdict: Verdict, *, seconds: float, run: str
) -> MutantOutcome:
    """What a run of the suite says about a mutant.

    Args:
        mutant: which one.
        record: of the run.
        verdict: of the gate.
        seconds: how long the run took, in s.
        run: name of the run's folder.
    """
    fate = FATES[verdict.status]
    test = _decisive(record, fate)
    reason = verdict.reasons[0] if verdict.reasons and fate is not Fate.SURVIVED else ""
    blame = {Fate.KILLED: Blame.DRIVER, Fate.LAB: Blame.LAB, Fate.UNDECIDED: Blame.UNDECIDED}
    return MutantOutcome(
        name=mutant.name,
        title=mutant.title,
        fate=fate,
        killed_by=test.id if test else None,
        blamed=blame.get(fate),
        seconds=round(seconds, 1),
        message=" ".join(test.message.split()) if test else reason,
        tests=len(record.tests),
        run=run,
        package=record.driver.sha256 if record.driver else "",
    )


def lab_trouble(mutant: Mutant, error: PvlabError, *, seconds: float) -> MutantOutcome:
    """A mutant that the lab did not get to."""
    return MutantOutcome(
        name=mutant.name,
        title=mutant.title,
        fate=Fate.LAB,
        killed_by=None,
        blamed=Blame.LAB,
        seconds=round(seconds, 1),
        message=error.message,
    )


def _decisive(record: RunRecord, fate: Fate) -> TestRecord | None:
    """The first test that the verdict rests on."""
    wanted = {
        Fate.KILLED: (Blame.DRIVER,),
        Fate.LAB: (Blame.LAB,),
        Fate.UNDECIDED: (None, Blame.UNDECIDED),
        Fate.SURVIVED: (),
    }[fate]
    bad = (test for test in record.tests if test.outcome.bad and test.blame in wanted)
    return next(bad, None)


def read_document(file: Path) -> MutantsDocument | None:
    """The document of an earlier run; None when there is none that is of use."""
    try:
        return MutantsDocument.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return None


def write_document(document: MutantsDocument, file: Path) -> None:
    """Write the document; a kill at any moment leaves the old one or the new one.

    Raises:
        UsageError: it cannot be written.
    """
    save(file, document.model_dump_json(indent=2).encode() + b"\n")


def reusable(
    earlier: MutantsDocument | None, asked: MutantsDocument, packages: Sequence[tuple[str, str]]
) -> dict[str, MutantOutcome]:
    """Outcomes of an earlier run that still hold.

    Only what is settled, by the same suite at the same intensity, of the same package: a
    mutant that the lab failed on gets another run.

    Args:
        earlier: document of the earlier run.
        asked: document of this run, still empty.
        packages: name and SHA-256 of each mutant's package as it is now.

    Returns:
        Outcomes by mutant's name.
    """
    if earlier is None or (earlier.suite, earlier.intensity) != (asked.suite, asked.intensity):
        return {}
    return {
        outcome.name: outcome
        for outcome in earlier.mutants
        if outcome.fate.settled and (outcome.name, outcome.package) in packages
    }
