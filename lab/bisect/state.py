"""What a bisection knows, on disk after every run, so that it goes on after a kill."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lab.bisect.search import Answer, Found, Search
from lab.core.atomic import save
from lab.core.errors import UsageError

SCHEMA_VERSION: Literal[1] = 1


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Seen(enum.StrEnum):
    """What a run of a build showed."""

    PASSED = "passed"
    FAILED = "failed"
    LOST = "lost"
    UNTESTABLE = "untestable"


class Run(_Part):
    """One run of the test on one build."""

    build: str
    seen: Seen
    message: str = ""
    run_id: str = Field(default="", description="The run's folder in the results.")
    package: str = Field(default="", description="SHA-256 of the driver package.")


class Question(_Part):
    """What is asked; a state belongs to one question."""

    builds: tuple[str, ...] = Field(min_length=2, description="From the good to the bad one.")
    test: str = Field(description="Node id, or a scenario's file.")
    test_sha256: str = Field(default="", description="Of the scenario.")
    says: str = Field(default="", description="What the failure's message has to match.")
    confidence: float = Field(gt=0, lt=1)
    intensity: str = "standard"


class Conclusion(_Part):
    """What a bisection came to."""

    found: Found
    first: str = Field(description="The first bad build, or the first that may be.")
    last: str = Field(description="The last that may be; the same where all can be tested.")
    probability: float
    bad_rate: float = Field(description="How often bad builds fail the test, as inferred.")


class State(_Part):
    """A bisection so far."""

    schema_version: Literal[1] = SCHEMA_VERSION
    question: Question
    runs: tuple[Run, ...] = ()
    conclusion: Conclusion | None = Field(default=None, description="Null while it goes on.")

    def plus(self, run: Run) -> State:
        """One more run."""
        return self.model_copy(update={"runs": (*self.runs, run)})

    def search(self) -> Search:
        """The search, with all that was seen."""
        search = Search(len(self.question.builds), confidence=self.question.confidence)
        index = {name: number for number, name in enumerate(self.question.builds)}
        for run in self.runs:
            if run.seen is Seen.UNTESTABLE:
                search.rule_out(index[run.build])
            elif run.seen is not Seen.LOST:
                search.observe(index[run.build], failed=run.seen is Seen.FAILED)
        return search

    def concluded(self, answer: Answer, bad_rate: float) -> State:
        """The same with what it came to."""
        builds = self.question.builds
        conclusion = Conclusion(
            found=answer.found,
            first=builds[min(answer.first, len(builds) - 1)],
            last=builds[answer.last],
            probability=answer.probability,
            bad_rate=bad_rate,
        )
        return self.model_copy(update={"conclusion": conclusion})


def load_state(file: Path, question: Question) -> State:
    """The state of a question; a new one if there is none.

    Raises:
        UsageError: the file is damaged, or of another question.
    """
    try:
        state = State.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return State(question=question)
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in problem["loc"]) or "not JSON"
        raise UsageError(
            f"{file}: no state of a bisection: {where}: {' '.join(problem['msg'].split())}",
            hint="--restart begins anew",
        ) from None
    if state.question != question:
        raise UsageError(
            f"{file}: the state of another bisection",
            hint="--state names another file, --restart begins anew",
        )
    unknown = {run.build for run in state.runs} - set(question.builds)
    if unknown:
        raise UsageError(f"{file}: no state of a bisection: a run of {sorted(unknown)[0]}")
    return state


def write_state(state: State, file: Path) -> None:
    """Write the state; a kill at any moment leaves the old one or the new one.

    Raises:
        UsageError: it cannot be written.
    """
    save(file, state.model_dump_json(indent=2).encode() + b"\n")
