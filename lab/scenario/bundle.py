"""A scenario with all that another machine needs to run it: a zip archive.

``scenario.yaml``, the driver package in ``driver/``, what is known of the crash in
``crash.json``, and ``README.txt``, which says how to run it. Archives come from elsewhere, so
they are taken in by the rules for driver packages (``lab/drivers/archive.py``).
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.core.errors import UsageError
from lab.crash.facts import CrashFact, from_json, to_json
from lab.drivers import archive
from lab.drivers.package import KEPT, DriverPackage
from lab.scenario.model import Scenario
from lab.scenario.text import dumps, load, looks_like

SCENARIO = "scenario.yaml"
CRASH = "crash.json"
README = "README.txt"

_ZIP = b"PK\x03\x04"
# FAT's first day: the archive of the same scenario is the same file.
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A scenario and what came with it.

    Attributes:
        scenario: it.
        source: the file it was read from, for messages.
        driver: folder of the driver package that came with it.
        facts: of the crash that it shows.
    """

    scenario: Scenario
    source: str
    driver: Path | None = None
    facts: tuple[CrashFact, ...] = ()


def is_zip(path: Path) -> bool:
    """Whether a file begins as a zip archive does.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return file.read(len(_ZIP)) == _ZIP


def is_bundle(path: Path) -> bool:
    """Whether a file is a zip archive with a scenario in it."""
    try:
        if not is_zip(path):
            return False
        with zipfile.ZipFile(path) as found:
            return SCENARIO in found.namelist()
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return False


def is_scenario(path: Path) -> bool:
    """Whether a file says that it is a scenario."""
    try:
        with path.open("rb") as file:
            return looks_like(file.read(4096))
    except OSError:
        return False


def load_any(path: Path, scratch: Path) -> Loaded:
    """Read a scenario's file, a folder that has one, or a bundle.

    Args:
        path: of the file, the folder or the archive.
        scratch: an existing folder for what an archive holds.

    Raises:
        UsageError: it is none of them, or damaged.
    """
    if path.is_dir():
        return _of_folder(path, str(path / SCENARIO))
    if not is_bundle(path):
        return Loaded(load(path), str(path))
    into = Path(tempfile.mkdtemp(dir=scratch))
    archive.take_in(path, into)
    return _of_folder(into, f"{path}: {SCENARIO}")


def _of_folder(folder: Path, name: str) -> Loaded:
    file = folder / SCENARIO
    if not file.is_file():
        raise UsageError(f"{folder}: no {SCENARIO} in it")
    driver = folder / KEPT
    return Loaded(
        load(file, name),
        name,
        driver if driver.is_dir() else None,
        _facts(folder / CRASH, name.removesuffix(SCENARIO) + CRASH),
    )


def _facts(file: Path, name: str) -> tuple[CrashFact, ...]:
    if not file.is_file():
        return ()
    try:
        data = json.loads(file.read_bytes())
        return tuple(from_json(one) for one in data["facts"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise UsageError(f"{name}: damaged: {' '.join(str(error).split())[:100]}") from None


def crash_json(facts: Sequence[CrashFact]) -> str:
    """The facts of a crash as the bundle's file has them."""
    return json.dumps({"schema_version": 1, "facts": [to_json(one) for one in facts]}, indent=2)


def write_bundle(
    path: Path,
    scenario: Scenario,
    *,
    package: DriverPackage | None = None,
    facts: Sequence[CrashFact] = (),
) -> None:
    """Write a bundle.

    Args:
        path: of the archive.
        scenario: it.
        package: the driver that it is run with; left out when None.
        facts: of the crash.

    Raises:
        UsageError: it cannot be written.
    """
    members: list[tuple[str, bytes]] = [
        (README, _readme(scenario, package, path.name).encode()),
        (SCENARIO, dumps(scenario).encode()),
        (CRASH, crash_json(facts).encode() + b"\n"),
    ]
    try:
        if package is not None:
            members += [
                (f"{KEPT}/{file.as_posix()}", (package.folder / file).read_bytes())
                for file in package.files
            ]
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
            for name, data in members:
                info = zipfile.ZipInfo(name, _EPOCH)
                info.compress_type = zipfile.ZIP_DEFLATED
                info.external_attr = 0o644 << 16
                made.writestr(info, data)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from None


def _readme(scenario: Scenario, package: DriverPackage | None, name: str) -> str:
    about = scenario.about
    driver = (
        f"Driver: {package.name} {package.version}, SHA-256 of its files {package.identity}\n"
        if package is not None
        else "The driver package is not in here; name one with --driver.\n"
    )
    return (
        f"{about.title or 'A scenario of pvlab.'}\n\n"
        f"{driver}"
        + (f"Made from: {about.origin}\n" if about.origin else "")
        + (f"What came of it: {about.outcome}\n" if about.outcome else "")
        + f"\nTo run it:  pvlab scenario run {name}\n"
        f"To read it: pvlab scenario show {name}\n"
    )
