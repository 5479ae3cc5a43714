from __future__ import annotations

import mmap
import os
import subprocess
from pathlib import Path

import pytest

from lab.bench.measure import private_mib, scratch_folder


def test_memory_of_one_process():
    before = private_mib(os.getpid())
    assert before > 1
    with mmap.mmap(-1, 32 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        for page in range(0, 32 << 20, mmap.PAGESIZE):
            memory[page] = 1
        assert private_mib(os.getpid()) - before > 24


def test_memory_that_a_file_holds_is_shared_until_it_is_written(tmp_path: Path):
    """So it is with a clone's view of the template's RAM."""
    path = tmp_path / "ram"
    path.write_bytes(b"r" * (32 << 20))
    before = private_mib(os.getpid())
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0, flags=mmap.MAP_SHARED) as memory:
        with subprocess.Popen(["sleep", "60"]) as other:
            assert private_mib(other.pid) < 16
            other.kill()
        view = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE)
        with view:
            view[: 16 << 20] = b"w" * (16 << 20)
            assert private_mib(os.getpid()) - before > 12
        assert memory[0] == ord("r")


def test_scratch_goes_with_the_run(tmp_path: Path):
    with scratch_folder(tmp_path / "cache/bench") as folder:
        (folder / "1").mkdir()
        (folder / "1/ram").write_bytes(b"ram")
        assert folder.parent == tmp_path / "cache/bench"
    assert list((tmp_path / "cache/bench").iterdir()) == []


def fail_inside(parent: Path) -> None:
    with scratch_folder(parent) as folder:
        (folder / "ram").write_bytes(b"ram")
        raise RuntimeError("a clone did not start")


def test_scratch_goes_with_a_run_that_fails(tmp_path: Path):
    with pytest.raises(RuntimeError):
        fail_inside(tmp_path)
    assert list(tmp_path.iterdir()) == []
