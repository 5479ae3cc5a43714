from __future__ import annotations

import os
import re
import subprocess

from lab.core.paths import repo_root


def ci_command() -> str:
    text = (repo_root() / ".ci" / "run").read_text()
    match = re.search(r"^test_command='(.*)'$", text, re.MULTILINE)
    assert match is not None
    return match[1]


def test_the_readme_names_the_command_that_ci_runs() -> None:
    assert ci_command() in (repo_root() / "README.md").read_text().splitlines()


def test_the_script_is_executable_and_parses() -> None:
    script = repo_root() / ".ci" / "run"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", script], check=True, stdin=subprocess.DEVNULL)
