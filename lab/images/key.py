"""The key of an image: the hash of everything that went into it."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from collections.abc import Mapping
from pathlib import Path

from lab.core.errors import UsageError
from lab.images.recipe import Recipe

#: Raised whenever the build context changes in a way that makes older images wrong.
BUILDER_API = 1

#: Hex digits of the key used in folder names: 64 bits, no two of one image's builds clash.
SHORT = 16


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _content(path: Path) -> tuple[str, str]:
    """A file's mode and hash.

    Of the mode only the execute bit counts: it is all that git keeps, and the other bits
    follow the umask of whoever made the checkout.
    """
    if path.is_symlink():
        return "link", str(path.readlink())
    return ("exec" if path.stat().st_mode & 0o100 else "file"), file_sha256(path)


def _module_content(dotted: str) -> str | list[list[str]]:
    """The hash of a module, or those of all files of a package."""
    source = module_source(dotted)
    if source.name != "__init__.py":
        return file_sha256(source)
    return [
        [path.relative_to(source.parent).as_posix(), *_content(path)]
        for path in sorted(source.parent.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    ]


def module_source(dotted: str) -> Path:
    """The source file of a module, found without importing it.

    Raises:
        UsageError: there is no such module, or it has no source file.
    """
    try:
        spec = importlib.util.find_spec(dotted)
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise UsageError(f"no Python module {dotted}")
    return Path(spec.origin)


def image_key(
    recipe: Recipe, depends: Mapping[str, str], media: Mapping[str, str] | None = None
) -> str:
    """The key of what ``recipe`` would build now.

    Args:
        recipe: the recipe.
        depends: the keys of the images it depends on, by name.
        media: the hashes of the media it is made of, by kind.

    Returns:
        64 hex digits.

    Raises:
        UsageError: an input, the builder or a module is missing.
    """
    modules = list(recipe.modules)
    if recipe.builder_file is None:
        modules.append(recipe.builder)
    everything: dict[str, object] = {
        "builder_api": BUILDER_API,
        "suites": sorted(recipe.suites),
        "files": [
            [Path(os.path.relpath(path, recipe.folder)).as_posix(), *_content(path)]
            for path in recipe.input_files()
        ],
        "modules": {name: _module_content(name) for name in modules},
        "depends": dict(depends),
    }
    if media:
        # Left out otherwise: images without media keep the keys they have.
        everything["media"] = dict(media)
    return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()
