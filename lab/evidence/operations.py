"""``operations.json`` and ``clocks.json``: what a test did when, and what clocks showed when.

The logs of a test have clocks of their own: DbgView counts from its first line, each kernel from
its boot. What puts them on one clock are the times of the lab's operations, on this machine's
clock, and readings: a clock showed so much at some moment between two times of this machine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lab.core.errors import UsageError

OPERATIONS_NAME = "operations.json"
CLOCKS_NAME = "clocks.json"

DOM0_KERNEL = "dom0 kernel"
"""Of the lines that dom0's kernel prints: seconds since it started."""
DOM0_UPTIME = "dom0 uptime"
"""Of ``/proc/uptime`` in dom0 (proc(5)), in s."""
GUEST_KERNEL = "guest kernel"
"""Of the lines that the guest's kernel prints on its serial port: seconds since it started."""

Seconds = float


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class State(_Part):
    """Both ends of a block device at one moment.

    Attributes:
        at: on dom0's uptime, in s.
        device: its name, ``hdc``.
        words: the states.
    """

    at: Seconds
    device: str
    words: str


class Operation(_Part):
    """One thing that the test did to its place."""

    name: str = Field(description="Class and method, or module and function: `vbd.attach`.")
    words: str = Field(description="With its arguments, one line.")
    started: Seconds = Field(ge=0, description="In s since `zero`.")
    ended: Seconds = Field(ge=0, description="In s since `zero`.")
    error: str = Field(default="", description="What it raised, one line; empty when nothing.")
    after: str = Field(default="", description="State of the block device it left, in words.")
    states: tuple[State, ...] = Field(
        default=(), description="Of the block device, as they were seen meanwhile."
    )


class Operations(_Part):
    """What a test did, in the order it ended."""

    schema_version: Literal[1] = 1
    zero: float = Field(description="When the test began: s since 1970, on this machine's clock.")
    kept: float = Field(description="When this was written, likewise.")
    left_out: int = Field(default=0, ge=0, description="Operations beyond what is kept.")
    operations: tuple[Operation, ...] = ()


class Reading(_Part):
    """A clock showed something at some moment between two times of this machine."""

    clock: str = Field(description="Which: `dom0 kernel`, `guest kernel` ...")
    shows: Seconds = Field(description="What it showed, in s.")
    earliest: float = Field(description="The moment was not before: s since 1970.")
    latest: float = Field(description="And not after: s since 1970.")


class Clocks(_Part):
    """The clocks of a place, read when the evidence was collected."""

    schema_version: Literal[1] = 1
    readings: tuple[Reading, ...] = ()
    problems: tuple[str, ...] = Field(default=(), description="Clocks that could not be read.")


_Kind = TypeVar("_Kind", Operations, Clocks)


def load_operations(file: Path) -> Operations:
    """Read ``operations.json``.

    Raises:
        UsageError: it is missing or damaged.
    """
    return _load(file, Operations)


def load_clocks(file: Path) -> Clocks:
    """Read ``clocks.json``.

    Raises:
        UsageError: it is missing or damaged.
    """
    return _load(file, Clocks)


def _load(file: Path, kind: type[_Kind]) -> _Kind:
    try:
        return kind.model_validate_json(file.read_bytes())
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]["msg"]
        raise UsageError(f"{file}: damaged: {problem}") from None
