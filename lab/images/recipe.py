"""Recipes: what an image is made of, as ``images/<name>/recipe.toml`` says it."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from lab.core.errors import UsageError
from lab.media.kinds import MediaKind

RECIPE_FILE = "recipe.toml"

ImageName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=64)]


class Resources(BaseModel):
    """What a build is expected to take.

    Attributes:
        disk_mib: MiB needed at the peak of the build, temporary files included.
        minutes: how long it takes on a small machine with a usual mirror.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    disk_mib: int = Field(gt=0)
    minutes: float = Field(gt=0)


class Recipe(BaseModel):
    """One image's recipe.

    Attributes:
        folder: the recipe's folder; every input but the shared ones is inside it.
        name: the folder's name.
        description: one line for people.
        kind: ``disk`` (files of a virtual disk), ``tree`` (files used where they are) or
            ``drivers`` (driver packages for a guest).
        suites: Debian suites it takes packages from.
        inputs: globs within ``folder``; a folder that matches counts with all it holds.
        shared: files or folders of other recipes, as ``recipe/path``, that count the same.
        modules: dotted Python modules the builder leans on, whose source is an input too; of
            a package all its files are.
        depends: images that must be built first.
        media: kinds of media that users bring, which it is made of.
        builder: a file in ``folder``, or a dotted module, with ``build(ctx) -> None``.
        resources: what a build takes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: Path
    name: ImageName
    description: str
    kind: Literal["disk", "tree", "drivers"]
    suites: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    depends: tuple[ImageName, ...] = ()
    media: tuple[MediaKind, ...] = ()
    builder: str = "build.py"
    resources: Resources

    @classmethod
    def load(cls, folder: Path) -> Recipe:
        """The recipe in ``folder``.

        Raises:
            UsageError: there is none, or it does not say what a recipe must say.
        """
        path = folder / RECIPE_FILE
        try:
            data = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UsageError(f"no recipe at {path}") from None
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise UsageError(f"{path}: {error}") from error
        if "folder" in data:
            raise UsageError(f"{path}: folder: is not for a recipe to set")
        try:
            recipe = cls(folder=folder, **data)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise UsageError(f"{path}: {where}: {first['msg']}") from error
        if recipe.name != folder.name:
            raise UsageError(f"{path}: name is {recipe.name}, its folder is {folder.name}")
        return recipe

    @property
    def builder_file(self) -> Path | None:
        """The builder's file, or None when the builder is a dotted module."""
        return self.folder / self.builder if self.builder.endswith(".py") else None

    def input_files(self) -> list[Path]:
        """Every file (or symbolic link) that counts as an input, sorted.

        Raises:
            UsageError: a glob matches nothing or leads out of the folder, or the builder's
                file or something shared is missing.
        """
        found = {self.folder / RECIPE_FILE}
        if self.builder_file is not None:
            if not self.builder_file.is_file():
                raise UsageError(f"image {self.name}: builder {self.builder_file} is missing")
            found.add(self.builder_file)
        for pattern in self.inputs:
            if pattern.startswith("/") or ".." in Path(pattern).parts:
                raise UsageError(f"image {self.name}: input {pattern} leads out of its folder")
            matches = list(self.folder.glob(pattern))
            if not matches:
                raise UsageError(f"image {self.name}: input {pattern} matches nothing")
            for match in matches:
                found.update(_files_in(match))
        for name in self.shared:
            found.update(_files_in(self.shared_path(name)))
        return sorted(found)

    def shared_path(self, name: str) -> Path:
        """Where something of ``shared`` is.

        Raises:
            UsageError: it is not of another recipe, or it is missing.
        """
        parts = Path(name).parts
        if len(parts) < 2 or parts[0] in ("/", self.name) or ".." in parts:
            raise UsageError(f"image {self.name}: shared {name} is no path in another recipe")
        path = self.folder.parent / name
        if not path.exists():
            raise UsageError(f"image {self.name}: shared {name} is missing")
        return path


def _files_in(path: Path) -> Iterator[Path]:
    if path.name == "__pycache__":
        return
    if path.is_symlink() or not path.is_dir():
        yield path
        return
    for child in path.iterdir():
        yield from _files_in(child)


def load_recipes(folder: Path) -> dict[str, Recipe]:
    """Every recipe in ``folder``'s sub-folders, by name, in the order of their names.

    Raises:
        UsageError: one of them is malformed.
    """
    if not folder.is_dir():
        return {}
    return {
        path.parent.name: Recipe.load(path.parent)
        for path in sorted(folder.glob(f"*/{RECIPE_FILE}"))
    }
