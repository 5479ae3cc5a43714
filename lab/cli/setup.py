"""``pvlab setup``: the Debian packages the lab needs on this machine.

The list is playbooks/vars/lab-host.json, which the playbook, this command and ``pvlab
doctor`` share. With everything in place nothing is started and nothing is printed.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from lab.core.errors import LabBroken
from lab.core.paths import cache_dir, repo_root

app = typer.Typer(add_completion=False)


@dataclass(frozen=True, slots=True)
class HostPackage:
    """A Debian package the lab needs.

    Attributes:
        name: the package.
        why: what for, in words.
    """

    name: str
    why: str


def playbooks_dir() -> Path:
    """The folder of the playbooks."""
    return repo_root() / "playbooks"


def host_packages(*, tests: bool = False) -> list[HostPackage]:
    """All packages the lab needs on its host.

    Args:
        tests: also those that only the project's own tests need.

    Raises:
        LabBroken: the list is not readable.
    """
    path = playbooks_dir() / "vars" / "lab-host.json"
    try:
        lists = json.loads(path.read_text(encoding="utf-8"))
        listed = lists["lab_host_packages"] + (lists["lab_test_packages"] if tests else [])
        return [HostPackage(item["name"], item["why"]) for item in listed]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LabBroken(f"the list of host packages {path} is unusable: {error}") from error


def installed(names: Sequence[str]) -> set[str]:
    """Those of ``names`` that dpkg knows as installed, by dpkg-query(1).

    Raises:
        LabBroken: this is no Debian system.
    """
    try:
        result = subprocess.run(
            ["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n", *names],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        raise LabBroken(
            f"dpkg-query cannot be run: {error.strerror}", hint="the lab needs Debian 12"
        ) from error
    return parse_installed(result.stdout)


def parse_installed(output: str) -> set[str]:
    """Package names out of ``NAME STATUS`` lines."""
    pairs = (line.split() for line in output.splitlines())
    return {pair[0] for pair in pairs if len(pair) == 2 and pair[1] == "installed"}


def missing_packages(*, tests: bool = False) -> list[HostPackage]:
    """The packages the lab needs and this machine lacks.

    Args:
        tests: also those that only the project's own tests need.

    Raises:
        LabBroken: the list is not readable, or this is no Debian system.
    """
    wanted = host_packages(tests=tests)
    present = installed([package.name for package in wanted])
    return [package for package in wanted if package.name not in present]


def apt_line(packages: Sequence[HostPackage]) -> str:
    """The command that installs ``packages``, for root to type."""
    names = [package.name for package in packages]
    return "apt-get update && " + shlex.join(
        ["apt-get", "install", "--yes", "--no-install-recommends", *names]
    )


def become_options(*, uid: int, sudo: str | None, passwordless: bool, terminal: bool) -> list[str]:
    """Options that let ansible-playbook become root.

    Args:
        uid: the effective user id.
        sudo: where sudo is; None when it is not installed.
        passwordless: whether sudo works without asking.
        terminal: whether there is someone to ask for a password.

    Raises:
        PermissionError: there is no way to become root.
    """
    if uid == 0 or (sudo and passwordless):
        return []
    if sudo and terminal:
        return ["--ask-become-pass"]
    raise PermissionError("no way to become root")


def set_up_host(*, tests: bool = False) -> bool:
    """Install what is missing; returns whether anything was.

    Args:
        tests: also what only the project's own tests need.

    Raises:
        LabBroken: packages are missing and cannot be installed from here. The command that
            root may type instead has then been printed on standard output.
    """
    missing = missing_packages(tests=tests)
    if not missing:
        return False
    names = ", ".join(package.name for package in missing)
    sudo = shutil.which("sudo")
    try:
        options = become_options(
            uid=os.geteuid(),
            sudo=sudo,
            passwordless=sudo is not None and _succeeds([sudo, "-n", "true"]),
            terminal=sys.stdin.isatty(),
        )
    except PermissionError:
        print(apt_line(missing), flush=True)
        raise LabBroken(
            f"packages are missing and installing them needs root: {names}",
            hint="let root run the line above",
        ) from None
    # Next to this interpreter: that is the environment pvlab was installed into.
    playbook = Path(sys.executable).with_name("ansible-playbook")
    if not playbook.is_file():
        print(apt_line(missing), flush=True)
        raise LabBroken(
            f"packages are missing and ansible-core is not installed: {names}",
            hint="let root run the line above, or install pvlab[setup]",
        )
    print(f"installing what the lab needs on this machine: {names}", flush=True)
    command = [str(playbook), *options]
    if tests:
        command += ["--extra-vars", "lab_host_tests=true"]
    code = _run_playbook([*command, str(playbooks_dir() / "lab-host.yml")], options)
    still = ", ".join(package.name for package in missing_packages(tests=tests))
    if code != 0 or still:
        print(apt_line(missing), flush=True)
        raise LabBroken(
            f"the host's set-up failed (ansible-playbook exited {code})"
            + (f"; still missing: {still}" if still else ""),
            hint="let root run the line above",
        )
    return True


def _succeeds(argv: Sequence[str]) -> bool:
    result = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return result.returncode == 0


def _run_playbook(argv: Sequence[str], options: Sequence[str]) -> int:
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(playbooks_dir() / "ansible.cfg"),
        "ANSIBLE_HOME": str(cache_dir() / "ansible"),
        # ansible-core refuses any other character set.
        "LC_ALL": "C.UTF-8",
    }
    # Ansible wants blocking standard streams, which a CI's standard input may not be.
    stdin = None if options else subprocess.DEVNULL
    return subprocess.run(argv, stdin=stdin, env=environment, check=False).returncode


@app.callback(invoke_without_command=True)
def setup(
    tests: Annotated[
        bool, typer.Option("--tests", help="Also what the project's own tests need.")
    ] = False,
) -> None:
    """Install the Debian packages the lab needs; says nothing when all are there."""
    set_up_host(tests=tests)
