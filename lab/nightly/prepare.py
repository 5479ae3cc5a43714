"""From a plan to items in the store, with all that they need kept for the length of the night."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.config.profile import Profile
from lab.core.errors import LabBroken
from lab.drivers.package import DriverPackage
from lab.nightly.history import LEFT_OUT
from lab.nightly.matrix import Cell, Mail, Matrix, Webhook
from lab.nightly.plan import Candidate, Plan, Planned
from lab.results.store import NewItem

LIMIT_FACTOR = 3.0
LIMIT_FLOOR_SECONDS = 1800.0
"""An item is ended after so many times what it should take, and not before this much more: a
lab may have to build its images first."""

LEFT_OUT_NAMED = 1000
"""How many items that had no room are kept with a night."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A driver package, copied for the night: whoever builds drivers goes on while it lasts.

    Attributes:
        path: the copy; None for the stand-in's own.
        identity: SHA-256 over its files, or what else it is known by.
    """

    path: Path | None
    identity: str


def keep_package(source: Path, folder: Path, name: str) -> Kept:
    """Check a package and copy it.

    Args:
        source: folder or zip.
        folder: for copies.
        name: of the copy.

    Raises:
        UsageError: it is no package for the guest.
        LabBroken: it cannot be copied.
    """
    copy = folder / name
    try:
        with tempfile.TemporaryDirectory(prefix="pvlab-") as scratch:
            package = DriverPackage.load(source, Path(scratch))
            if not copy.exists():
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copytree(package.folder, copy)
            return Kept(copy, package.identity)
    except OSError as error:
        raise LabBroken(f"{copy}: cannot be written: {error.strerror or error}") from None


def hash_of(words: object) -> str:
    """A short hash of plain values."""
    return hashlib.sha256(json.dumps(words, sort_keys=True, default=str).encode()).hexdigest()[:16]


def new_items(
    plan: Plan,
    package: Callable[[Cell], Kept],
    profiles: Mapping[str, Profile],
) -> list[NewItem]:
    """A plan's items, as the store keeps them.

    Args:
        plan: the plan.
        package: the driver package that a combination runs with.
        profiles: by name.
    """
    return [
        _item(one, package(one.candidate.cell).path, profiles[one.candidate.cell.profile])
        for one in plan.chosen
    ]


def settings_of(matrix: Matrix, plan: Plan, config: Path | None) -> dict[str, Any]:
    """What is kept with a night beside its items, so that going on with it needs no matrix."""
    return {
        "places": matrix.places,
        "config": str(config.resolve()) if config else None,
        "mail": matrix.mail.model_dump(mode="json", by_alias=True) if matrix.mail else None,
        "webhook": matrix.webhook.model_dump(mode="json") if matrix.webhook else None,
        "results_url": matrix.results_url,
        LEFT_OUT: left_out(plan.left_out),
    }


def left_out(planned: Sequence[Planned]) -> list[tuple[str, float, str]]:
    """What had no room, as a plan's settings keep it."""
    return [
        (one.candidate.key, one.seconds, f"no room in the budget; {one.why}")
        for one in planned[:LEFT_OUT_NAMED]
    ]


def mail_of(settings: Mapping[str, Any]) -> Mail | None:
    """Where a night's digest is mailed to."""
    said = settings.get("mail")
    return Mail.model_validate(said) if said else None


def webhook_of(settings: Mapping[str, Any]) -> Webhook | None:
    """Where a night's digest is posted to."""
    said = settings.get("webhook")
    return Webhook.model_validate(said) if said else None


def _item(planned: Planned, package: Path | None, profile: Profile) -> NewItem:
    candidate = planned.candidate
    cell = candidate.cell
    needs = {"memory": float(profile.memory.host_mib)}
    if cell.suite.accel == "kvm":
        needs["kvm"] = 1.0
    return NewItem(
        key=candidate.key,
        expected_seconds=planned.seconds,
        payload={
            "order": {
                "profile": cell.profile,
                "driver": cell.driver.name,
                "package": str(package) if package else None,
                "suite": cell.suite.name,
                "intensity": cell.suite.intensity.value,
                "accel": cell.suite.accel,
                "tests": list(candidate.tests),
                "limit_seconds": limit_of(candidate, planned.seconds),
                "needs": needs,
            },
            "content": dict(candidate.content),
            "kin": candidate.kin,
            "why": planned.why,
        },
    )


def limit_of(candidate: Candidate, expected: float) -> float:
    """Seconds after which an item is ended."""
    return LIMIT_FLOOR_SECONDS + LIMIT_FACTOR * max(expected, candidate.catalogue_seconds)
