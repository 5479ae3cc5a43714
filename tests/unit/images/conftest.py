from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lab.images.store import Store

RecipeMaker = Callable[..., Path]

COPY = """
def build(ctx):
    ctx.step("copying")
    (ctx.out / "data").write_bytes((ctx.recipe_dir / "data").read_bytes())
    ctx.record_version("data", "1")
"""


@pytest.fixture
def recipes(tmp_path: Path) -> Path:
    folder = tmp_path / "recipes"
    folder.mkdir()
    return folder


@pytest.fixture
def store(tmp_path: Path, recipes: Path) -> Store:
    return Store(recipes, tmp_path / "store")


@pytest.fixture
def make_recipe(recipes: Path) -> RecipeMaker:
    def make(
        name: str,
        build: str = COPY,
        *,
        data: str = "one\n",
        depends: tuple[str, ...] = (),
        inputs: tuple[str, ...] = ("data",),
        disk_mib: int = 1,
        extra: str = "",
    ) -> Path:
        folder = recipes / name
        folder.mkdir(exist_ok=True)
        (folder / "data").write_text(data)
        (folder / "build.py").write_text(build)
        (folder / "recipe.toml").write_text(
            f'name = "{name}"\ndescription = "A test image"\nkind = "tree"\n'
            f"inputs = {list(inputs)}\ndepends = {list(depends)}\n{extra}\n"
            f"[resources]\ndisk_mib = {disk_mib}\nminutes = 0.1\n"
        )
        return folder

    return make
