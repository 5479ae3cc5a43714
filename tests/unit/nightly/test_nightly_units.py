"""What starts nights by themselves: systemd's units, the crontab, the playbook, the docs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import jinja2
import pytest

from lab.cli.setup import playbooks_dir
from lab.core.paths import repo_root
from lab.nightly.matrix import Matrix, load_matrix

UNITS = playbooks_dir() / "units"
DOCS = repo_root() / "docs" / "nightly.md"


def verify(home: Path, *units: Path, user: bool) -> str:
    """What systemd complains of."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("no systemd here")
    done = subprocess.run(
        [program, *(["--user"] if user else []), "verify", *units],
        env={**os.environ, "HOME": str(home), "XDG_RUNTIME_DIR": str(home)},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    # Of this machine's own units it may complain as well.
    named = [line for line in done.stderr.splitlines() if "pvlab" in line]
    return "\n".join(named)


def program(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)


def test_the_user_s_units(tmp_path: Path) -> None:
    units = sorted([*UNITS.glob("*.service"), *UNITS.glob("*.timer")])
    assert len(units) == 3
    assert "is not executable" in verify(tmp_path, *units, user=True)
    program(tmp_path / "pvlab" / ".venv" / "bin" / "pvlab")
    (tmp_path / "pvlab" / "docs").mkdir()
    shutil.copy(DOCS, tmp_path / "pvlab" / "docs")
    assert verify(tmp_path, *units, user=True) == ""


def test_the_worker_s_unit(tmp_path: Path) -> None:
    template = playbooks_dir() / "templates" / "pvlab-farm-worker.service.j2"
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)  # noqa: S701
    unit = tmp_path / "pvlab-farm-worker.service"
    unit.write_text(
        environment.from_string(template.read_text()).render(
            farm_user="root",
            farm_home=str(tmp_path),
            farm_folder=str(repo_root()),
            farm_venv=str(tmp_path / "venv"),
            farm_places=2,
            farm_scheduler="tls://192.0.2.1:8786",
            farm_environment={"DASK_DISTRIBUTED__COMM__TLS__CA_FILE": "ca.pem"},
        )
    )
    program(tmp_path / "venv" / "bin" / "pvlab")
    assert verify(tmp_path, unit, user=False) == ""
    assert 'Environment="DASK_DISTRIBUTED__COMM__TLS__CA_FILE=ca.pem"' in unit.read_text()


def test_the_crontab_says_the_same() -> None:
    lines = [
        line
        for line in (UNITS / "pvlab-nightly.cron").read_text().splitlines()
        if not line.startswith("#")
    ]
    assert [re.split(r"\s+cd ", line)[0] for line in lines] == ["0 22 * * *", "@reboot"]
    for line, unit in zip(lines, ("pvlab-nightly", "pvlab-nightly-resume"), strict=True):
        [words] = re.findall(
            r"^ExecStart=%h/pvlab/(.+)$", (UNITS / f"{unit}.service").read_text(), re.M
        )
        assert line.endswith(f'cd "$HOME/pvlab" && {words}')
        subprocess.run(["sh", "-n", "-c", line.partition("cd ")[2]], check=True)


def test_the_playbook_is_well_formed(check_playbook: Callable[[str], None]) -> None:
    check_playbook("farm-worker.yml")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", DOCS.read_text(), re.M | re.S)


def test_the_matrix_of_the_docs_is_one(tmp_path: Path) -> None:
    [text] = blocks("toml")
    file = tmp_path / "matrix.toml"
    file.write_text(text)
    matrix = load_matrix(file, ["standin", "standin-xm"])
    assert len(list(matrix.cells())) > 3
    # Every key is shown.
    shown = set(tomllib.loads(text))
    known = {field.alias or name for name, field in Matrix.model_fields.items()}
    assert shown == known


def test_the_docs_name_what_there_is() -> None:
    text = DOCS.read_text()
    for file in sorted(UNITS.iterdir()):
        assert file.name in text
    assert "farm-worker.yml" in text
