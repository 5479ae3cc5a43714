"""An ordered row of driver builds: packages in a folder, or names that a command makes one of."""

from __future__ import annotations

import enum
import re
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.core.errors import UsageError
from lab.core.suggest import did_you_mean
from lab.drivers.package import DriverPackage

BUILD, OUT = "{build}", "{out}"
"""What a build command names: the build, and the folder that its package goes into."""

LAST_LINES = 3
"""Lines of a build command's output that an error tells."""


class Order(enum.StrEnum):
    """What builds are ordered by."""

    NAME = "name"
    VERSION = "version"


class Untestable(Exception):
    """A build cannot be tested: it cannot be made, or is no driver package.

    Args:
        why: in one line.
    """

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


@dataclass(frozen=True, slots=True)
class Build:
    """One build.

    Attributes:
        name: that people know it by.
        path: its package; None for one that has to be made.
    """

    name: str
    path: Path | None = None


def natural(name: str) -> tuple[tuple[int, int | str], ...]:
    """A key by which ``build-9`` comes before ``build-10``."""
    parts = re.split(r"(\d+)", name.lower())
    return tuple((0, int(part)) if part.isdigit() else (1, part) for part in parts if part)


def builds_in(folder: Path, order: Order = Order.NAME) -> list[Build]:
    """The packages of a folder, in order.

    Args:
        folder: with a folder or a zip archive for each build.
        order: by name, digits by their value; or by the INF's DriverVer, then by name.

    Raises:
        UsageError: there are none, or their versions are asked for and cannot be read.
    """
    try:
        found = [
            Build(path.name, path)
            for path in folder.iterdir()
            if not path.name.startswith(".") and (path.is_dir() or path.suffix.lower() == ".zip")
        ]
    except OSError as error:
        raise UsageError(f"{folder}: cannot be read: {error.strerror}") from None
    if not found:
        raise UsageError(f"{folder}: no driver packages in it", hint="a folder or a zip each")
    if order is Order.NAME:
        return sorted(found, key=lambda build: natural(build.name))
    with tempfile.TemporaryDirectory(prefix="pvlab-") as scratch:
        return sorted(found, key=lambda build: (_version(build, scratch), natural(build.name)))


def builds_named(file: Path) -> list[Build]:
    """Builds by name, one a line, in the file's order: the output of ``git rev-list --reverse``.

    Raises:
        UsageError: the file cannot be read, or names a build twice or none.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: cannot be read: {error}") from None
    names = [line.split()[0] for line in lines if line.strip() and not line.startswith("#")]
    if not names or len(set(names)) < len(names):
        raise UsageError(f"{file}: {'a build is there twice' if names else 'no build in it'}")
    return [Build(name) for name in names]


def between(builds: Sequence[Build], good: str, bad: str) -> list[Build]:
    """The builds from the good one to the bad one, both included.

    Args:
        builds: in order.
        good: name of it, or its path.
        bad: likewise.

    Raises:
        UsageError: one is not there, or they are in the wrong order.
    """
    first, last = _index(builds, good), _index(builds, bad)
    if first >= last:
        raise UsageError(
            f"{good} does not come before {bad}", hint="see --order; the good build is the older"
        )
    return list(builds[first : last + 1])


def _index(builds: Sequence[Build], name: str) -> int:
    for number, build in enumerate(builds):
        if name in (build.name, build.name.removesuffix(".zip")):
            return number
        if build.path is not None and Path(name).resolve() == build.path.resolve():
            return number
    raise UsageError(
        f"{name}: no such build", hint=did_you_mean(name, (build.name for build in builds))
    )


def _version(build: Build, scratch: str) -> tuple[int, ...]:
    assert build.path is not None  # noqa: S101 - of a folder
    package = DriverPackage.load(build.path, Path(scratch))
    # DriverVer has up to four numbers; without them, it is a date.
    return tuple(int(part) for part in re.findall(r"\d+", package.infs[0].version))


Make = Callable[[Build, Path], Path]
"""Gives a build's package, made in a folder if need be; raises ``Untestable``."""


def packaged(build: Build, out: Path) -> Path:
    """The package of a build that is there already."""
    assert build.path is not None  # noqa: S101 - of a folder
    return build.path


def maker(command: str) -> Make:
    """A way to make packages by a command.

    Args:
        command: words with ``{build}`` and ``{out}`` in them; no shell reads them.

    Raises:
        UsageError: it is no command, or lacks one of these.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"--build-command: {error}") from None
    for needed in (BUILD, OUT):
        if not any(needed in word for word in words):
            raise UsageError(f"--build-command does not say {needed}")

    def make(build: Build, out: Path) -> Path:
        named = [word.replace(BUILD, build.name).replace(OUT, str(out)) for word in words]
        try:
            done = subprocess.run(named, capture_output=True, text=True, errors="replace")
        except OSError as error:
            raise UsageError(f"--build-command: {named[0]}: {error.strerror}") from None
        if done.returncode:
            said = _last(done.stderr.splitlines() or done.stdout.splitlines())
            raise Untestable(f"the build command exited {done.returncode}: {said}")
        return out

    return make


def check(package: Path) -> str:
    """The identity of a package.

    Raises:
        Untestable: it cannot be installed.
    """
    with tempfile.TemporaryDirectory(prefix="pvlab-") as scratch:
        try:
            return DriverPackage.load(package, Path(scratch)).identity
        except UsageError as error:
            raise Untestable(error.message) from None


def _last(lines: Iterable[str]) -> str:
    kept = [" ".join(line.split()) for line in lines if line.strip()][-LAST_LINES:]
    return " | ".join(kept) or "no output"
