from __future__ import annotations

import subprocess
import sys

from lab.core.paths import repo_root
from lab.core.scratch import Scratch

LEAVE_ONE = """
import os, signal, sys
from pathlib import Path
from lab.core.scratch import Scratch
scratch = Scratch(Path(sys.argv[1]), "run-")
(scratch.path / "file").touch()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_folders_of_the_living_stay(tmp_path):
    one, other = Scratch(tmp_path, "run-"), Scratch(tmp_path, "run-")
    assert one.path != other.path
    assert one.path.is_dir()
    other.close()
    other.close()
    assert list(tmp_path.glob("run-*")) == [one.path]
    one.close()
    assert list(tmp_path.glob("run-*")) == []


def test_what_a_killed_process_left_is_removed(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LEAVE_ONE, str(tmp_path)], cwd=repo_root(), check=False
    )
    assert done.returncode == -9
    (left,) = tmp_path.glob("run-*")
    (tmp_path / "other").mkdir()
    scratch = Scratch(tmp_path, "run-")
    assert not left.exists()
    assert (tmp_path / "other").is_dir()
    scratch.close()
