"""The catalogue: which tests there are, what each guards, and how long it takes."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from lab.suite.intensity import Level

SCHEMA_VERSION: Literal[1] = 1


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Entry(_Part):
    """One test."""

    id: str = Field(min_length=1, description="pytest's node id.")
    area: str = Field(description="What of the driver it tests; empty when it does not say.")
    claim: str = Field(description="The claim or the report that it guards.")
    source: str = Field(description="Where that claim or report stands.")
    expected_seconds: float = Field(
        ge=0, description="What it takes at most, in s, on a machine that does nothing else."
    )
    markers: tuple[str, ...] = Field(description="Names, sorted.")
    attempts: int | None = Field(
        default=None, description="Of a race: the most attempts that its campaign makes."
    )


class Catalogue(_Part):
    """The tests that a run of this intensity consists of."""

    schema_version: Literal[1] = SCHEMA_VERSION
    intensity: Level
    accelerator: str = Field(description="That the expected times are for.")
    expected_seconds: float = Field(ge=0, description="Of all tests, one after the other, in s.")
    tests: tuple[Entry, ...]
