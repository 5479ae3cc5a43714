"""The parts of images/standin-pv that need neither packages nor a kernel."""

from __future__ import annotations

import gzip
import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from lab.core.paths import repo_root
from lab.images.recipe import load_recipes

FOLDER = repo_root() / "images/standin-pv"


@pytest.fixture(scope="module")
def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("standin_pv_build", FOLDER / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def entries(archive: bytes) -> tuple[dict[str, bytes], bytes]:
    """Files of the first "newc" archive by name, and what follows it."""
    found: dict[str, bytes] = {}
    at = 0
    while True:
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        size, name_size = fields[6], fields[11]
        name = archive[at + 110 : at + 110 + name_size - 1].decode()
        start = at + 110 + name_size + (-(110 + name_size) % 4)
        at = start + size + (-size % 4)
        if name == "TRAILER!!!":
            return found, archive[at:]
        found[name] = archive[start : start + size]


def test_folders_come_before_what_is_in_them(build: ModuleType, tmp_path: Path) -> None:
    root = build.Root()
    root.file("opt/standin/boot.py", b"boot")
    root.file("opt/standin/boot.py", b"once only")
    root.link("sbin/insmod", "../bin/kmod")
    root.archive.write(tmp_path / "cpio")
    found, rest = entries((tmp_path / "cpio").read_bytes())
    assert list(found) == ["opt", "opt/standin", "opt/standin/boot.py", "sbin", "sbin/insmod"]
    assert found["opt/standin/boot.py"] == b"boot"
    assert rest == b""


def test_initramfs_is_no_gzip_at_its_start(build: ModuleType, tmp_path: Path) -> None:
    """The domain builder would unpack it, and the guest hold it twice."""
    root = build.Root()
    root.file("init", b"#!/bin/busybox sh\n", 0o755)
    build.write_initramfs(root, tmp_path, tmp_path / "initrd")
    first, rest = entries((tmp_path / "initrd").read_bytes())
    assert list(first) == ["dev", "dev/console"]
    second, end = entries(gzip.decompress(rest))
    assert list(second) == ["init"]
    assert end == b""


@pytest.mark.parametrize(
    ("name", "needless"),
    [
        ("json/decoder.py", False),
        ("lib-dynload/mmap.cpython-311-x86_64-linux-gnu.so", False),
        ("lib-dynload/_hashlib.cpython-311-x86_64-linux-gnu.so", True),
        ("asyncio/base_events.py", True),
        ("json/__pycache__/decoder.cpython-311.pyc", True),
        ("testing.py", False),
    ],
)
def test_needless_parts_of_python(build: ModuleType, name: str, needless: bool) -> None:
    assert bool(build.NEEDLESS_PYTHON.search(name)) == needless


def test_block_driver_is_not_in_it(build: ModuleType) -> None:
    assert not [name for name in build.MODULES if "blkfront" in name]
    assert "blkfront" not in "".join(
        line for line in (FOLDER / "init").read_text().splitlines() if not line.startswith("#")
    )


def test_userland_is_the_hvm_stand_in_s() -> None:
    recipes = load_recipes(repo_root() / "images")
    shared = {path for path in recipes["standin-pv"].input_files() if "standin-pae" in path.parts}
    own = set(recipes["standin-pae"].input_files())
    assert {path for path in own if "standin" in path.relative_to(FOLDER.parent).parts} == shared


def test_settings_are_some_that_the_userland_knows(build: ModuleType) -> None:
    text = (FOLDER.parent / "standin-pae/standin/config.py").read_text()
    for key in ("user", "password", "system_disk"):
        assert f"{json.dumps(key)}:" in text
