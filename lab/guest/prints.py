"""What a family of drivers prints, as rules in files: the order of an attach, and trouble.

A rule file says which packages it is for, so that the lab's code knows no family. Where no file
matches, or the driver prints nothing at all (a free build), nothing is judged.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from lab.core.dbglog import DbgLine
from lab.core.errors import UsageError
from lab.core.paths import repo_root


def _expression(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return text


Expression = Annotated[str, Field(min_length=1), AfterValidator(_expression)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Match(_Table):
    """Which packages a file is for.

    Attributes:
        provider: matches the INFs' provider; any when None. A file that names one comes first.
        services: services that the package must add.
    """

    provider: Expression | None = None
    services: tuple[str, ...] = Field(min_length=1)


class AttachRules(_Table):
    """The prints of an attach that worked.

    Attributes:
        speaks: what any print of the drivers matches.
        steps: what is printed, in this order.
    """

    speaks: Expression
    steps: tuple[Expression, ...] = Field(min_length=1)


class BootRules(_Table):
    """The option that makes the drivers look for devices when the system starts.

    Attributes:
        option: as in ``boot.ini``, such as ``/gplpv``.
        with_option: what is printed with it.
        without_option: what is printed without it.
    """

    option: str = Field(pattern=r"^/[a-z]+$")
    with_option: Expression = Field(alias="with")
    without_option: Expression = Field(alias="without")


class Trouble(_Table):
    """A print that means trouble.

    Attributes:
        print: what it matches.
        means: in words.
    """

    print: Expression
    means: str


class Rules(_Table):
    """One rule file.

    Attributes:
        family: what reports call the drivers.
        source: where their prints are known from.
        match: which packages it is for.
        attach: the prints of an attach.
        boot: the boot option; None for drivers without one.
        trouble: prints that mean trouble.
    """

    family: str
    source: str
    match: Match
    attach: AttachRules
    boot: BootRules | None = None
    trouble: tuple[Trouble, ...] = ()


class ServiceLike(Protocol):
    """A service that a package adds."""

    @property
    def name(self) -> str:
        """Its name."""


class SaysWhatItIs(Protocol):
    """A driver package, as far as rules are chosen by it."""

    @property
    def provider(self) -> str:
        """Its INFs' provider."""

    @property
    def services(self) -> Sequence[ServiceLike]:
        """The services it adds."""


@dataclass(frozen=True, slots=True)
class Order:
    """How an attach's prints compare with the rules.

    Attributes:
        spoke: whether the drivers printed anything.
        found: the steps that came, in order, with their lines.
        missing: the first step that did not come, or came too early; empty when all came.
        early: the line of ``missing`` that came before its turn; empty when there is none.
    """

    spoke: bool
    found: tuple[str, ...]
    missing: str = ""
    early: str = ""

    @property
    def problem(self) -> str:
        """What is wrong, in one line; empty when all is well or nothing can be said."""
        if not self.spoke or not self.missing:
            return ""
        after = f"after {self.found[-1]!r}" if self.found else "at all"
        if self.early:
            return f"{self.early!r} came too early: it was awaited {after}"
        return f"nothing like {self.missing!r} was printed {after}"


def check_attach(rules: Rules, lines: Iterable[DbgLine]) -> Order:
    """Compare what was printed during an attach with the order that is known.

    Args:
        rules: of the drivers' family.
        lines: what was printed since the attach began.
    """
    printed = [line.text.strip("\r\n\t") for line in lines if line.pid is None]
    spoke = any(re.search(rules.attach.speaks, text) for text in printed)
    found: list[str] = []
    at = 0
    for step in rules.attach.steps:
        match = next((n for n in range(at, len(printed)) if re.search(step, printed[n])), None)
        if match is None:
            early = next((text for text in printed[:at] if re.search(step, text)), "")
            return Order(spoke, tuple(found), step, early.strip())
        found.append(printed[match].strip())
        at = match + 1
    return Order(spoke, tuple(found))


def troubles(rules: Rules, lines: Iterable[DbgLine]) -> tuple[str, ...]:
    """Prints that mean trouble, each with its meaning, in their order."""
    return tuple(
        f"{line.text.strip()} ({one.means})"
        for line in lines
        for one in rules.trouble
        if re.search(one.print, line.text)
    )


def rules_for(package: SaysWhatItIs, folder: Path | None = None) -> Rules | None:
    """The rules of a package's family; None when no file is for it.

    Args:
        package: the package under test.
        folder: where the files are; the checkout's ``drivers/rules`` when None.

    Raises:
        UsageError: a file is malformed.
    """
    services = {service.name.lower() for service in package.services}
    for rules in load_rules(folder or repo_root() / "drivers/rules"):
        match = rules.match
        if not {one.lower() for one in match.services} <= services:
            continue
        if match.provider is None or re.search(match.provider, package.provider):
            return rules
    return None


def load_rules(folder: Path) -> tuple[Rules, ...]:
    """Every rule file of a folder, those that name a provider first.

    Raises:
        UsageError: one of them is malformed.
    """
    files = sorted(folder.glob("*.toml"))
    return tuple(sorted(map(_read, files), key=lambda rules: rules.match.provider is None))


def _read(path: Path) -> Rules:
    try:
        return Rules.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{path}: {where}: {first['msg']}") from error
