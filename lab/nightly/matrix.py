"""The matrix, ``matrix.toml``: profiles x driver builds x suites, and what is left out.

A profile of ``lab.toml`` names a host and a guest, so that the first axis is both of them.
"""

from __future__ import annotations

import enum
import fnmatch
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from lab.core.errors import UsageError
from lab.core.suggest import did_you_mean
from lab.suite.intensity import Level

FILE_NAME = "matrix.toml"

_UNITS = {"d": 86_400, "h": 3600, "m": 60, "s": 1}
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


def parse_duration(text: str) -> float:
    """Seconds of ``8h``, ``1h30m``, ``90m`` or ``45s``.

    Raises:
        ValueError: it is none of these, or no time at all.
    """
    match = _DURATION.fullmatch(text.replace(" ", ""))
    found = zip(_UNITS.values(), match.groups(), strict=True) if match else ()
    seconds = sum(unit * int(number) for unit, number in found if number)
    if not seconds:
        raise ValueError(f"'{text[:40]}' is no length of time: write 8h, 1h30m or 45s")
    return float(seconds)


def _duration(value: Any) -> Any:
    return parse_duration(value) if isinstance(value, str) else value


def _header_text(text: str) -> str:
    # A line break would end a mail's header and begin another (RFC 5322, 2.2).
    if not text.isprintable():
        raise ValueError("must be one line of printable text")
    return text


Duration = Annotated[float, BeforeValidator(_duration), Field(gt=0, le=30 * 86_400)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Address = Annotated[str, Field(min_length=3, pattern="@"), AfterValidator(_header_text)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Split(enum.StrEnum):
    """What one item of a suite is: the more items, the less is lost with one of them, and the
    more often the suite starts."""

    WHOLE = "whole"
    AREA = "area"
    TEST = "test"


class DriverBuild(_Table):
    """A driver build to run, by a name that stays the same from night to night."""

    name: Name
    package: Path | None = Field(
        default=None,
        description="Folder or zip, relative to the matrix; the profile's own when left out.",
    )


class Suite(_Table):
    """Tests to run, and how much they do."""

    name: Name
    intensity: Level = Level.STANDARD
    accel: Literal["kvm", "tcg-hvm", "tcg-pv"] | None = Field(
        default=None, description="Accelerator; chosen by each machine when left out."
    )
    tests: tuple[str, ...] = Field(
        default=(), description="Files, folders or node ids; the driver suite when left out."
    )
    keyword: str = Field(default="", description="pytest's -k expression.")
    split: Split = Split.AREA


class Exclude(_Table):
    """Combinations that do not run: shell patterns, all of which have to match."""

    profile: str = "*"
    driver: str = "*"
    suite: str = "*"
    why: str = ""

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if (self.profile, self.driver, self.suite) == ("*", "*", "*"):
            raise ValueError("excludes everything: name a profile, a driver or a suite")
        return self

    def matches(self, profile: str, driver: str, suite: str) -> bool:
        """Whether it leaves this combination out."""
        pairs = ((profile, self.profile), (driver, self.driver), (suite, self.suite))
        return all(fnmatch.fnmatchcase(word, pattern) for word, pattern in pairs)


class Mail(_Table):
    """Where the digest is mailed to."""

    host: str = Field(min_length=1)
    port: int = Field(default=587, ge=1, le=65_535)
    security: Literal["none", "starttls", "tls"] = "starttls"
    user: str = Field(default="", description="Account at the server; none when empty.")
    password_env: Variable = Field(
        default="PVLAB_SMTP_PASSWORD",
        description="Name of the environment variable that holds the password.",
    )
    sender: Address = Field(alias="from")
    to: tuple[Address, ...] = Field(min_length=1)
    only_news: bool = Field(default=False, description="No mail of a night with nothing new.")


class Webhook(_Table):
    """Where the digest is posted to, as Slack's incoming webhooks take it."""

    url_env: Variable = Field(
        default="PVLAB_WEBHOOK",
        description="Name of the environment variable that holds the URL, which is a secret.",
    )
    only_news: bool = False


@dataclass(frozen=True, slots=True)
class Cell:
    """One combination of the matrix."""

    profile: str
    driver: DriverBuild
    suite: Suite


class Matrix(_Table):
    """What a night is made of."""

    budget: Duration = Field(default=8 * 3600.0, description="How long the night may take.")
    places: int = Field(default=1, ge=1, le=64, description="Items side by side on this machine.")
    lab_retries: int = Field(
        default=2, ge=0, le=10, description="How often an item that the lab failed on runs again."
    )
    interruptions: int = Field(
        default=3,
        ge=1,
        le=20,
        description="How often an item may be running when the night is killed, before it counts "
        "as what kills it.",
    )
    profiles: tuple[str, ...] = Field(
        default=("standin",), min_length=1, description="Profiles of lab.toml."
    )
    drivers: tuple[DriverBuild, ...] = Field(alias="driver", min_length=1)
    suites: tuple[Suite, ...] = Field(
        default=(Suite(name="standard"),), alias="suite", min_length=1
    )
    excludes: tuple[Exclude, ...] = Field(default=(), alias="exclude")
    mail: Mail | None = None
    webhook: Webhook | None = None
    results_url: str = Field(
        default="",
        pattern=r"^(https?://\S+)?$",
        description="Where people see the results folder, for links in mails.",
    )

    @model_validator(mode="after")
    def _names_once(self) -> Self:
        _once("profiles", self.profiles)
        _once("driver", (one.name for one in self.drivers))
        _once("suite", (one.name for one in self.suites))
        return self

    @model_validator(mode="after")
    def _excludes_fit(self) -> Self:
        names = {
            "profile": self.profiles,
            "driver": [one.name for one in self.drivers],
            "suite": [one.name for one in self.suites],
        }
        for exclude in self.excludes:
            for axis, known in names.items():
                pattern = getattr(exclude, axis)
                if not fnmatch.filter(known, pattern):
                    hint = did_you_mean(pattern, known) or f"there are: {', '.join(known)}"
                    raise ValueError(f"exclude: no {axis} is called {pattern!r}; {hint}")
        if not any(self.cells()):
            raise ValueError("exclude: leaves nothing to run")
        return self

    def cells(self) -> Iterator[Cell]:
        """Every combination that is not excluded."""
        for profile in self.profiles:
            for driver in self.drivers:
                for suite in self.suites:
                    words = (profile, driver.name, suite.name)
                    if not any(exclude.matches(*words) for exclude in self.excludes):
                        yield Cell(profile, driver, suite)


def _once(what: str, names: Iterable[str]) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise ValueError(f"{what}: {name!r} is there twice")


def load_matrix(file: Path, profiles: Sequence[str]) -> Matrix:
    """Read a matrix.

    Args:
        file: the matrix; packages in it are resolved against its folder.
        profiles: those that ``lab.toml`` has.

    Raises:
        UsageError: it cannot be read, or does not say what it must say.
    """
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            f"{file}: cannot be read: {error.strerror}", hint="--matrix names another file"
        ) from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{file}: not UTF-8 text (byte {error.start})") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{file}: not valid TOML: {' '.join(str(error).split())}") from None
    try:
        matrix = Matrix.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        text = first["msg"].removeprefix("Value error, ")
        raise UsageError(f"{file}: {where + ': ' if where else ''}{text}") from None
    for name in matrix.profiles:
        if name not in profiles:
            hint = did_you_mean(name, profiles) or f"there are: {', '.join(profiles)}"
            raise UsageError(f"{file}: profiles: no profile {name!r}", hint=hint)
    folder = file.resolve().parent
    drivers = tuple(
        one.model_copy(update={"package": folder / one.package.expanduser()})
        if one.package is not None
        else one
        for one in matrix.drivers
    )
    return matrix.model_copy(update={"drivers": drivers})
