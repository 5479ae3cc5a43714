"""What all unit tests share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from lab.cli.setup import playbooks_dir

# How long an example takes says nothing on a machine that has more to do.
settings.register_profile("pvlab", deadline=None)
settings.load_profile("pvlab")


@pytest.fixture
def check_playbook(tmp_path: Path) -> Callable[[str], None]:
    """Sees that a playbook of ours is well-formed."""

    def check_playbook(name: str) -> None:
        program = Path(sys.executable).with_name("ansible-playbook")
        if not program.exists():
            pytest.skip("ansible-core is not installed here")
        result = subprocess.run(
            [program, "--syntax-check", playbooks_dir() / name],
            env={
                **os.environ,
                "ANSIBLE_CONFIG": str(playbooks_dir() / "ansible.cfg"),
                "ANSIBLE_HOME": str(tmp_path),
                "LC_ALL": "C.UTF-8",
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        assert "WARNING" not in result.stderr

    return check_playbook
