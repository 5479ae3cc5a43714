from __future__ import annotations

from pathlib import Path

import pytest

from lab.core.errors import UsageError
from lab.images.store import Store


def test_the_same_inputs_give_the_same_key_elsewhere(
    make_recipe, store: Store, recipes: Path, tmp_path: Path
) -> None:
    folder = make_recipe("x")
    key = store.key("x")
    folder.chmod(0o700)
    (folder / "data").chmod(0o600)
    recipes.rename(tmp_path / "moved")
    assert Store(tmp_path / "moved", tmp_path / "other").key("x") == key


@pytest.mark.parametrize("name", ["data", "build.py", "recipe.toml"])
def test_every_input_changes_the_key(make_recipe, store: Store, name: str) -> None:
    folder = make_recipe("x")
    key = store.key("x")
    with (folder / name).open("a") as file:
        file.write("# more\n")
    assert store.key("x") != key


def test_what_is_no_input_does_not(make_recipe, store: Store) -> None:
    folder = make_recipe("x")
    key = store.key("x")
    (folder / "README.md").write_text("about")
    assert store.key("x") == key


def test_the_execute_bit_and_a_link_count(make_recipe, store: Store) -> None:
    folder = make_recipe("x")
    keys = {store.key("x")}
    (folder / "data").chmod(0o755)
    keys.add(store.key("x"))
    (folder / "data").unlink()
    (folder / "data").symlink_to("build.py")
    keys.add(store.key("x"))
    assert len(keys) == 3


def test_a_dependency_changes_the_key(make_recipe, store: Store) -> None:
    make_recipe("base")
    make_recipe("x", depends=("base",))
    key = store.key("x")
    make_recipe("base", data="two\n")
    assert store.key("x") != key


def test_a_module_counts_with_its_source(make_recipe, store: Store) -> None:
    make_recipe("x")
    key = store.key("x")
    make_recipe("x", extra='modules = ["lab.core.command"]')
    assert store.key("x") != key
    make_recipe("x", extra='modules = ["lab.no.such"]')
    with pytest.raises(UsageError, match="no Python module"):
        store.key("x")


def test_recipes_that_depend_on_each_other_are_refused(make_recipe, store: Store) -> None:
    make_recipe("a", depends=("b",))
    make_recipe("b", depends=("a",))
    with pytest.raises(UsageError, match="a -> b -> a"):
        store.key("a")


def test_of_a_package_every_file_counts(
    make_recipe, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "bits_of_mine"
    (package / "deep").mkdir(parents=True)
    for name in ("__init__.py", "a.j2", "deep/b.j2"):
        (package / name).write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    make_recipe("x", extra='modules = ["bits_of_mine"]')
    keys = {store.key("x")}
    for name in ("a.j2", "deep/b.j2"):
        (package / name).write_text("changed")
        keys.add(store.key("x"))
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "x.pyc").write_text("no input")
    keys.add(store.key("x"))
    assert len(keys) == 3
