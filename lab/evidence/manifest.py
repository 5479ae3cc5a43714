"""``evidence.json``: what a test's evidence folder holds, and what is missing and why."""

from __future__ import annotations

import enum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lab.core.errors import UsageError

MANIFEST_NAME = "evidence.json"
SCHEMA_VERSION = 1


class PieceName(enum.StrEnum):
    """The pieces of evidence the lab knows, in the order it collects them.

    Cheap and volatile ones come first, the core dump last: it takes longest, and by then
    everything else is safe.
    """

    GUEST_SERIAL = "guest-serial"
    XEN_SERIAL = "xen-serial"
    TIMINGS = "timings"
    XENSTORE_VBD = "xenstore-vbd"
    XL_DMESG = "xl-dmesg"
    TOOLSTACK_LOGS = "toolstack-logs"
    DBGVIEW = "dbgview"
    CORE = "core"


# What can be had without a round trip to dom0: enough for a test that passed.
LIGHT = frozenset({PieceName.GUEST_SERIAL, PieceName.XEN_SERIAL, PieceName.TIMINGS})
# A failure of a guest that still lives.
FULL = frozenset(PieceName) - {PieceName.CORE}
# A guest that crashed or hangs.
CRASH = frozenset(PieceName)


class Piece(BaseModel):
    """One piece of evidence, there or missing.

    A piece can have both a path and an error: a log that stopped half-way is kept.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="A PieceName, or 'toolstack-logs/FILE' for one log of many.")
    path: str | None = Field(
        default=None, description="File name relative to the manifest; null when missing."
    )
    bytes: int = Field(default=0, ge=0, description="Size of the file, in bytes.")
    sha256: str | None = Field(default=None, description="Of the file, in hex.")
    seconds: float = Field(ge=0, description="How long it took to collect, in s.")
    error: str | None = Field(default=None, description="Why it is missing or incomplete.")
    truncated: bool = Field(
        default=False,
        description="The size limit cut it: logs lose their beginning, a core dump its end.",
    )


class Manifest(BaseModel):
    """The pieces of one test, in the order they were collected."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = SCHEMA_VERSION
    test_id: str
    complete: bool = Field(
        default=False, description="Whether collecting ended; false after a kill half-way."
    )
    pieces: tuple[Piece, ...] = ()

    def find(self, name: str) -> Piece | None:
        """The piece of this name, if collecting it was tried."""
        return next((piece for piece in self.pieces if piece.name == name), None)


def load_manifest(folder: Path) -> Manifest:
    """Read a test's ``evidence.json``.

    Args:
        folder: the test's evidence folder.

    Raises:
        UsageError: it is missing or damaged.
    """
    path = folder / MANIFEST_NAME
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        raise UsageError(f"{path}: damaged: {error.errors(include_url=False)[0]['msg']}") from None
