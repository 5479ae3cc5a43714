from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.cli.setup import playbooks_dir


def test_the_playbook_is_well_formed(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("ansible-playbook")
    if not program.exists():
        pytest.skip("ansible-core is not installed here")
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(playbooks_dir() / "ansible.cfg"),
        "ANSIBLE_HOME": str(tmp_path),
        "LC_ALL": "C.UTF-8",
    }
    result = subprocess.run(
        [program, "--syntax-check", playbooks_dir() / "lab-host.yml"],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "WARNING" not in result.stderr
