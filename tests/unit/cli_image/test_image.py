from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lab.cli import image
from lab.core.errors import UsageError
from lab.images.errors import BuildFailed
from lab.images.store import Store

RECIPE = """
name = "x"
description = "a test image"
kind = "disk"
inputs = ["data"]
[resources]
disk_mib = 1
minutes = 2
"""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    folder = tmp_path / "recipes" / "x"
    folder.mkdir(parents=True)
    (folder / "recipe.toml").write_text(RECIPE)
    (folder / "data").write_text("one")
    (folder / "build.py").write_text(
        "def build(ctx):\n    ctx.step('writing')\n    (ctx.out / 'd').write_text('x')"
    )
    made = Store(tmp_path / "recipes", tmp_path / "store")
    monkeypatch.setattr(image, "Store", lambda: made)
    return made


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(image.app, list(arguments))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_build_says_each_step_as_a_line(store: Store) -> None:
    code, output = run("build")
    assert code == 0
    steps = [line.partition("] ")[2] for line in output.splitlines()]
    assert steps[:2] == ["x: building, about 2 min", "x: writing"]
    assert steps[-1].startswith("x: built in ")
    assert run("build", "x") == (0, "")


def test_a_failed_build_shows_the_end_of_its_log(
    store: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipes/x/build.py").write_text(
        "def build(ctx):\n    ctx.run(['sh', '-c', 'echo the reason; exit 1'])"
    )
    with pytest.raises(BuildFailed):
        image.build_images(["x"], store=store)
    assert "  | the reason" in capfd.readouterr().err


def test_an_unknown_name_builds_nothing(store: Store) -> None:
    with pytest.raises(UsageError, match="no image is called 'y'"):
        image.build_images(["x", "y"], store=store)
    assert store.find("x") is None


def test_list_tells_the_state(store: Store, tmp_path: Path) -> None:
    assert "missing" in run("list")[1]
    store.ensure("x")
    (listed,) = json.loads(run("list", "--json")[1])
    assert (listed["name"], listed["state"], listed["others"]) == ("x", "built", 0)
    (tmp_path / "recipes/x/data").write_text("two")
    assert "stale (+1 old)" in run("list")[1]


def test_verify_exits_3_on_damage(store: Store) -> None:
    built = store.ensure("x")
    assert run("verify") == (0, "x: sound\n")
    (built.path / "d").write_text("y")
    code, output = run("verify", "x")
    assert code == 3
    assert "d has other contents" in output


def test_verify_of_what_is_not_built(store: Store) -> None:
    with pytest.raises(UsageError, match="image x is not built"):
        run("verify", "x")


def test_rm_wants_to_know_what(store: Store) -> None:
    store.ensure("x")
    for arguments in ((), ("x", "--all")):
        with pytest.raises(UsageError, match="name the images"):
            run("rm", *arguments)
    assert run("rm", "--stale") == (0, "")
    assert store.find("x") is not None
    assert run("rm", "x")[0] == 0
    assert store.find("x") is None


def test_path_names_the_folder_with_the_files(store: Store) -> None:
    with pytest.raises(UsageError, match="image x is not built"):
        run("path", "x")
    run("build", "x")
    code, output = run("path", "x")
    assert code == 0
    assert (Path(output.strip()) / "d").read_text() == "x"
