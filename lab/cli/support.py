"""``pvlab support-bundle``: what to send when something fails, without secrets."""

from __future__ import annotations

import json as jsonlib
import sys
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from lab.cli.doctor import doctor
from lab.config.load import find_config, load_profile
from lab.core.errors import PvlabError
from lab.core.paths import results_dir
from lab.images.store import Store
from lab.support.bundle import find_run, write_bundle
from lab.support.secrets import Scrubber, known_values


def support_bundle(
    run: Annotated[
        str | None,
        typer.Argument(metavar="RUN", help="A run's name or folder; the newest if left out."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="The archive to write.")
    ] = None,
    profile: Annotated[
        str | None, typer.Option(help="Profile; the default one if left out.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A lab.toml.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print what was written as JSON.")] = False,
) -> None:
    """Collect what helps to find a fault into an archive, with every secret removed."""
    folder = find_run(results_dir(), run)
    source = find_config(config)
    target = output or Path(f"pvlab-support-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.zip")
    users, variables = _credentials(source)
    scrubber = Scrubber(known_values(Store().root, variables), users)
    made = write_bundle(
        target,
        scrubber,
        run=folder,
        config=source,
        doctor=_doctor(profile, config),
        say=lambda text: print(text, file=sys.stderr, flush=True),
    )
    if json:
        print(jsonlib.dumps({"schema_version": 1, "path": str(target), **made}, indent=2))
    else:
        run_words = f"run {folder.name}" if folder else "no run was found"
        print(f"{target}: {made['files']} files ({run_words}), {made['left_out']} left out")


def _doctor(profile: str | None, config: Path | None) -> object:
    """doctor's report; a configuration that cannot be read is a finding, too."""
    try:
        return doctor(load_profile(profile, config)).model_dump(mode="json")
    except PvlabError as error:
        return {"error": str(error)}


def _credentials(source: Path | None) -> tuple[set[str], set[str]]:
    """User names, and variables with passwords, that a lab.toml names in any profile."""
    users = {"Administrator"}
    variables: set[str] = set()
    try:
        document: Any = tomllib.loads(source.read_text(encoding="utf-8")) if source else {}
    except (OSError, ValueError):
        # It goes into the bundle as it is, secrets removed by pattern.
        return users, variables
    profiles = document.get("profiles", {})
    for table in profiles.values() if isinstance(profiles, dict) else ():
        winrm = table.get("winrm", {}) if isinstance(table, dict) else {}
        if not isinstance(winrm, dict):
            continue
        if isinstance(user := winrm.get("username"), str):
            users.add(user)
        credentials = winrm.get("credentials")
        if isinstance(credentials, dict) and isinstance(name := credentials.get("env"), str):
            variables.add(name)
    return users, variables
