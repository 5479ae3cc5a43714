"""Images that are made of media which users bring."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.core.errors import LabBroken
from lab.images.store import Store
from lab.media import store as media_module
from lab.media.kinds import Identity, MediaKind
from lab.media.store import MediaMissing, MediaStore

BUILD = """
from lab.media.kinds import MediaKind

def build(ctx):
    (ctx.out / "copy").write_bytes(ctx.medium(MediaKind.DEVCON).read_bytes())
    if ctx.name == "greedy":
        ctx.medium(MediaKind.DBGVIEW)
"""
NEEDS = 'media = ["devcon"]'


@pytest.fixture
def media(tmp_path: Path) -> MediaStore:
    return MediaStore(tmp_path / "media")


@pytest.fixture
def store(recipes: Path, tmp_path: Path, media: MediaStore) -> Store:
    return Store(recipes, tmp_path / "store", media)


@pytest.fixture
def bring(media: MediaStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def one(content: bytes) -> None:
        path = tmp_path / "devcon.exe"
        path.write_bytes(content)
        known = {MediaStore._hash(path): Identity(kind=MediaKind.DEVCON, title="devcon")}
        monkeypatch.setattr(media_module, "KNOWN_HASHES", known)
        media.add(path)

    return one


def test_without_its_media_an_image_is_not_built_and_says_so(
    make_recipe, store: Store, bring
) -> None:
    make_recipe("plain")
    make_recipe("x", BUILD, extra=NEEDS)
    make_recipe("above", depends=("x",))
    with pytest.raises(MediaMissing, match="image x needs media"):
        store.ensure("x")
    assert store.buildable() == ["plain"]
    assert {one.name: one.state for one in store.status()} == {
        "plain": "missing",
        "x": "needs media",
        "above": "needs media",
    }
    bring(b"one")
    assert store.buildable() == ["above", "plain", "x"]
    assert (store.ensure("x").path / "copy").read_bytes() == b"one"


def test_another_medium_is_another_image(make_recipe, store: Store, bring) -> None:
    make_recipe("x", BUILD, extra=NEEDS)
    bring(b"one")
    first = store.ensure("x")
    bring(b"two")
    assert store.find("x") is None
    assert store.ensure("x").key != first.key


def test_images_without_media_keep_their_keys(make_recipe, store: Store, bring) -> None:
    make_recipe("x")
    key = store.key("x")
    bring(b"one")
    assert store.key("x") == key


def test_only_what_the_recipe_names_is_given(make_recipe, store: Store, bring) -> None:
    make_recipe("greedy", BUILD, extra=NEEDS)
    bring(b"one")
    with pytest.raises(LabBroken, match="dbgview is not in its recipe's media"):
        store.ensure("greedy")


def test_stale_builds_of_an_image_without_its_media_can_go(
    make_recipe, store: Store, media: MediaStore, bring
) -> None:
    make_recipe("x", BUILD, extra=NEEDS)
    bring(b"one")
    store.ensure("x")
    media.remove(media.all()[0].sha256)
    assert store.remove("x", stale_only=True) > 0
