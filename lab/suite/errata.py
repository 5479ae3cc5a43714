"""Errata: what is known to be wrong with a release of a driver, a TOML file each.

A test that an erratum names is expected to fail, for the reason that the erratum tells. If it
passes, or fails otherwise, that is news: either the release is not what was thought, or the
test has lost its teeth.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from lab.core.errors import UsageError
from lab.core.paths import repo_root

if TYPE_CHECKING:
    from lab.drivers.package import DriverPackage

OPEN = "open"
"""``until`` of what no release is known to mend."""


def _one_line(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError("must be one line of printable text")
    return text


def _version(text: str) -> str:
    if not re.fullmatch(r"\d+(\.\d+)*", text):
        raise ValueError("must be a version, numbers with dots between")
    return text


def _until(text: str) -> str:
    return text if text == OPEN else _version(text)


def _test(text: str) -> str:
    path, _, name = text.partition("::")
    if not path.endswith(".py") or not name or path.startswith("/"):
        raise ValueError("must be a test's id: path/test_x.py::test_y")
    return text


def _expression(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return text


OneLine = Annotated[str, AfterValidator(_one_line)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Erratum(_Table):
    """One thing that is known to be wrong."""

    test: Annotated[str, AfterValidator(_test)] = Field(
        description="Id of the test that shows it; without a parameter, all parameters."
    )
    why: OneLine = Field(description="What is wrong.")
    source: OneLine = Field(description="Who says so, and where.")
    until: Annotated[str, AfterValidator(_until)] = Field(
        description='Version from which it is mended, or "open".'
    )
    says: Annotated[str, AfterValidator(_expression)] = Field(
        default="",
        description="Regular expression that the failure's message has to match: any other "
        "failure of the test is a failure.",
    )
    crash: bool = Field(
        default=False, description="Whether the guest is expected to crash or hang of it."
    )

    def names(self, test_id: str) -> bool:
        """Whether this is about a test.

        Args:
            test_id: pytest's node id; its path may begin above that of the erratum.
        """
        own_path, _, own_name = self.test.partition("::")
        path, _, name = test_id.partition("::")
        if not _ends_with(path, own_path):
            return False
        return own_name in (name, name.partition("[")[0])


class Release(_Table):
    """An errata file: what is wrong with one release, or several."""

    driver: OneLine = Field(description="Name of the driver package.")
    provider: OneLine = Field(
        description="Who made it, as its INF says: drivers for different guests share names."
    )
    version: OneLine = Field(description='Its DriverVer; "0.0.3.*" for all that begin so.')
    known: tuple[Erratum, ...] = Field(default=(), strict=False, description="What is wrong.")

    def covers(self, package: DriverPackage) -> bool:
        """Whether a package is of this release."""
        return (
            package.name.lower() == self.driver.lower()
            and package.provider == self.provider
            and fnmatchcase(package.version, self.version)
        )


@dataclass(frozen=True, slots=True)
class Errata:
    """All that is known of the driver under test.

    Attributes:
        known: the errata of its release.
        files: where they stand.
    """

    known: tuple[Erratum, ...] = ()
    files: tuple[Path, ...] = ()

    def about(self, test_id: str) -> Erratum | None:
        """What is known about a test; the first of several."""
        return next((erratum for erratum in self.known if erratum.names(test_id)), None)

    def naming(self, test_ids: Iterable[str]) -> tuple[tuple[str, Erratum], ...]:
        """The tests that something is known about, with what it is."""
        found = ((test_id, self.about(test_id)) for test_id in test_ids)
        return tuple((test_id, erratum) for test_id, erratum in found if erratum is not None)


def errata_folder() -> Path:
    """Where the errata of published drivers are kept."""
    return repo_root() / "drivers" / "errata"


def load_release(path: Path) -> Release:
    """Read one errata file.

    Raises:
        UsageError: it cannot be read, or says what it must not.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        return Release.model_validate(content)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not TOML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise UsageError(f"{path}: {where}: {' '.join(problem['msg'].split())}") from None


def errata_of(package: DriverPackage, folder: Path | None = None) -> Errata:
    """What is known about a driver.

    Every file of the folder is read and checked, those of other drivers too: an error is
    found when it is made, not when the other driver is tested.

    Args:
        package: the driver.
        folder: with ``*.toml``; the published drivers' when None.

    Raises:
        UsageError: a file is malformed, or a folder that was named does not exist.
    """
    where = folder or errata_folder()
    if folder is not None and not folder.is_dir():
        raise UsageError(f"{folder}: no folder of errata")
    known: list[Erratum] = []
    files: list[Path] = []
    for path in sorted(where.glob("*.toml")):
        release = load_release(path)
        if release.covers(package):
            known += [e for e in release.known if not _mended(e, package.version)]
            files.append(path)
    return Errata(tuple(known), tuple(files))


def _mended(erratum: Erratum, version: str) -> bool:
    return erratum.until != OPEN and _numbers(version) >= _numbers(erratum.until)


def _numbers(version: str) -> tuple[int, ...]:
    """A version to compare by; DriverVer has up to four numbers."""
    return tuple(int(part) for part in re.findall(r"\d+", version))


def _ends_with(path: str, end: str) -> bool:
    parts, tail = PurePosixPath(path).parts, PurePosixPath(end).parts
    return parts[-len(tail) :] == tail
