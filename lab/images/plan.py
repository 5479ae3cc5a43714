"""What a build would do, told without doing it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

from lab.core.errors import UsageError
from lab.images.recipe import Recipe
from lab.media.store import MediaStore


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """A file that a build makes on the way, or leaves in the image.

    Attributes:
        where: what it is on: ``floppy``, ``disc``, ``image``.
        path: its path there.
        content: what is in it, secrets masked; None for what only a build can know.
        note: where its content comes from, when that is not shown.
    """

    where: str
    path: str
    content: str | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """A build, in words.

    Attributes:
        image: the image.
        facts: what is settled before it begins, as (name, value).
        steps: what happens, in order.
        files: what is made.
        missing: what the user has to bring before it can begin.
    """

    image: str
    facts: tuple[tuple[str, str], ...]
    steps: tuple[str, ...]
    files: tuple[PlannedFile, ...]
    missing: tuple[str, ...]


Planner = Callable[[Recipe, MediaStore], Plan]


def plan_of(recipe: Recipe, media: MediaStore) -> Plan:
    """The plan of a build, by ``plan(recipe, media)`` beside the recipe's ``build``.

    Raises:
        UsageError: the builder has no plan, or cannot be loaded.
    """
    planner = _planner(recipe)
    if planner is None:
        raise UsageError(
            f"image {recipe.name} has no plan to show", hint="only images made of media have one"
        )
    return planner(recipe, media)


def _planner(recipe: Recipe) -> Planner | None:
    if recipe.builder_file is None:
        return None
    spec = importlib.util.spec_from_file_location(
        f"pvlab_recipe_{recipe.name}", recipe.builder_file
    )
    if spec is None or spec.loader is None:
        return None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (ImportError, SyntaxError, OSError) as error:
        raise UsageError(f"image {recipe.name}: builder {recipe.builder}: {error}") from error
    found: Planner | None = getattr(module, "plan", None)
    return found
