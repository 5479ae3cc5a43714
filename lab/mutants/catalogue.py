"""The catalogue of mutants, ``images/standin-drivers/mutants/mutants.toml``."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lab.core.errors import UsageError
from lab.core.paths import repo_root

CATALOGUE = Path("images/standin-drivers/mutants/mutants.toml")

Words = Annotated[str, Field(min_length=1)]


class Mutant(BaseModel):
    """A driver with one defect.

    Attributes:
        name: its package is the folder of this name among the image's mutants.
        build: last part of its DriverVer.
        title: the defect in a few words.
        defect: what exactly is wrong, and when.
        shows: where it can be seen.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    build: int = Field(ge=0, le=65535)
    title: Words
    defect: Words
    shows: Words


def load_mutants(file: Path | None = None) -> tuple[Mutant, ...]:
    """All mutants, in the catalogue's order.

    Args:
        file: the catalogue; the checkout's when None.

    Raises:
        UsageError: it cannot be read, or does not say what it must say.
    """
    file = file or repo_root() / CATALOGUE
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
        mutants = tuple(Mutant.model_validate(entry) for entry in data["mutant"])
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{file}: {error}") from error
    except (KeyError, TypeError):
        raise UsageError(f"{file}: there is no table called mutant") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{file}: {where}: {first['msg']}") from error
    for field in ("name", "build"):
        values = [getattr(mutant, field) for mutant in mutants]
        if len(set(values)) < len(values):
            raise UsageError(f"{file}: two mutants have the same {field}")
    return mutants


def choose(mutants: Sequence[Mutant], names: Sequence[str]) -> tuple[Mutant, ...]:
    """Those with the given names, in the catalogue's order; all when none is given.

    Raises:
        UsageError: there is none of a name.
    """
    if unknown := sorted(set(names) - {mutant.name for mutant in mutants}):
        raise UsageError(
            f"no mutant is called {unknown[0]!r}",
            hint=f"there are: {', '.join(mutant.name for mutant in mutants)}",
        )
    return tuple(mutant for mutant in mutants if not names or mutant.name in names)
