from __future__ import annotations

from pathlib import Path

import pytest

from lab.core.errors import UsageError
from lab.images.recipe import Recipe
from lab.images.store import Store


def test_a_recipe_that_does_not_say_enough_is_refused_in_one_line(recipes: Path) -> None:
    (recipes / "x").mkdir()
    (recipes / "x" / "recipe.toml").write_text('name = "x"\n')
    with pytest.raises(UsageError, match=r"recipe\.toml: description: Field required") as caught:
        Recipe.load(recipes / "x")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("extra", ["colour = 'red'", "folder = '/etc'", "kind = [", "\x00"])
def test_a_recipe_that_says_something_else_is_refused(make_recipe, recipes, extra: str) -> None:
    make_recipe("x", extra=extra)
    with pytest.raises(UsageError, match=r"recipe\.toml"):
        Recipe.load(recipes / "x")


def test_the_name_is_the_folder(make_recipe, recipes: Path) -> None:
    make_recipe("x").rename(recipes / "y")
    with pytest.raises(UsageError, match="name is x, its folder is y"):
        Recipe.load(recipes / "y")


@pytest.mark.parametrize(
    ("pattern", "why"),
    [("nothing*", "matches nothing"), ("../other", "leads out"), ("/etc/passwd", "leads out")],
)
def test_an_input_must_match_inside_the_folder(
    make_recipe, store: Store, pattern: str, why: str
) -> None:
    make_recipe("x", inputs=(pattern,))
    with pytest.raises(UsageError, match=why):
        store.key("x")


def test_a_folder_counts_with_all_it_holds(make_recipe) -> None:
    folder = make_recipe("x", inputs=("root",))
    (folder / "root" / "etc").mkdir(parents=True)
    (folder / "root" / "__pycache__").mkdir()
    (folder / "root" / "__pycache__" / "a.pyc").write_text("")
    (folder / "root" / "etc" / "fstab").write_text("")
    names = [path.relative_to(folder).as_posix() for path in Recipe.load(folder).input_files()]
    assert names == ["build.py", "recipe.toml", "root/etc/fstab"]


def test_unknown_image_names_those_that_exist(make_recipe, store: Store) -> None:
    make_recipe("x")
    with pytest.raises(UsageError, match=r"no image is called 'y' \(there are: x\)"):
        store.recipe("y")


def test_what_recipes_share_is_an_input_of_both(make_recipe, store: Store) -> None:
    folder = make_recipe("base")
    (folder / "tree").mkdir()
    (folder / "tree" / "file").write_text("one")
    make_recipe("x", extra='shared = ["base/tree"]')
    key = store.key("x")
    (folder / "tree" / "file").write_text("two")
    assert store.key("x") != key
    assert folder / "tree" / "file" in store.recipe("x").input_files()


@pytest.mark.parametrize(
    ("shared", "why"),
    [
        ("base/nothing", "is missing"),
        ("base", "no path in another recipe"),
        ("x/data", "no path in another recipe"),
        ("../base/data", "no path in another recipe"),
        ("base/../x/data", "no path in another recipe"),
        ("/etc/passwd", "no path in another recipe"),
    ],
)
def test_only_another_recipe_s_files_are_shared(
    make_recipe, store: Store, shared: str, why: str
) -> None:
    make_recipe("base")
    make_recipe("x", extra=f'shared = ["{shared}"]')
    with pytest.raises(UsageError, match=why):
        store.key("x")
