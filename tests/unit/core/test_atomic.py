"""Files that are whole or not there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.core.atomic import atomic_file, atomic_write


@given(st.lists(st.binary(max_size=2000), min_size=1, max_size=5))
def test_reads_back(tmp_path_factory: pytest.TempPathFactory, versions: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("atomic") / "file"
    for data in versions:
        atomic_write(path, data)
        assert path.read_bytes() == data
    assert os.listdir(path.parent) == ["file"]


def test_failure_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "file"
    atomic_write(path, b"old")

    def interrupted() -> None:
        with atomic_file(path) as stream:
            stream.write(b"half of the new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_readers_see_old_or_new_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "file"
    atomic_write(path, b"old")
    with atomic_file(path) as stream:
        stream.write(b"new")
        stream.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
from lab.core.atomic import atomic_file
with atomic_file(Path(sys.argv[1])) as stream:
    stream.write(b"half of the new")
    stream.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_kill_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    atomic_write(path, b"old")
    done = subprocess.run(
        [sys.executable, "-c", KILLED_WHILE_WRITING, str(path)], check=False, timeout=60
    )
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
