"""Sessions of the plugin in a folder of tests whose lab is made of fakes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import plugin_fakes
import pytest

# pytester forgets what its sessions import: without these each would load the lab anew.
import lab.plugin.attempt
import lab.plugin.campaigns
import lab.plugin.junit
import lab.plugin.known
import lab.plugin.parallel
import lab.plugin.run
import lab.plugin.selection
import lab.plugin.telling
import lab.plugin.turns
import lab.plugin.workplace  # noqa: F401
from lab.core.paths import repo_root

PLUGIN = ["-p", "lab.plugin.plugin"]

OWN_PROFILE = """
default = "mine"
[profiles.mine]
extends = "standin"
guest_kind = "windows"
guest_label = "Windows Server 2003 SP2, 32-bit PAE"
memory.guest_mib = 256
"""

CONFTEST = """
from pathlib import Path
import pytest
import plugin_fakes
from lab.core.errors import *

@pytest.hookimpl
def pytest_pvlab_prepare(profile, accel, progress):
    with open("journal", "a") as file:
        file.write(f"prepare {{accel}}\\n")
    progress("baking")
    {prepare}
    return plugin_fakes.Template(Path("journal").absolute(), {template})
"""


@pytest.fixture
def bench(pytester, monkeypatch, tmp_path):
    """A folder of tests whose lab is made of fakes."""
    monkeypatch.setenv("PVLAB_RUNTIME", str(tmp_path / "runtime"))
    for name in (
        *("DRIVER", "PROFILE", "CONFIG", "ACCEL", "RESULTS", "RUN_ID"),
        *("INTENSITY", "SEED", "ERRATA", "CATALOGUE", "BASELINE", "PLAN"),
    ):
        monkeypatch.delenv(f"PVLAB_{name}", raising=False)
    # What an earlier probe found on this machine must not matter.
    monkeypatch.setenv("PVLAB_CACHE", str(tmp_path / "cache"))
    # This plugin alone, whether it is installed or not.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    paths = [repo_root(), Path(plugin_fakes.__file__).parent]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, paths)))
    package = plugin_fakes.write_package(pytester.path / "package")
    pytester.makeini("[pytest]\nfilterwarnings = error\n")

    def run(test, *args, prepare="pass", template="", driver=True, process=False):
        pytester.makeconftest(CONFTEST.format(prepare=prepare, template=template))
        pytester.makepyfile(test)
        named = [f"--pvlab-driver={package}"] if driver else []
        start = pytester.runpytest_subprocess if process else pytester.runpytest_inprocess
        result = start(*PLUGIN, "-p", "no:cacheprovider", "--pvlab-run-id=run", *named, *args)
        record = pytester.path / "results" / "run" / "run.json"
        journal = pytester.path / "journal"
        return SimpleNamespace(
            pytest=result,
            text=result.stdout.str(),
            code=result.ret,
            record=json.loads(record.read_text()) if record.is_file() else None,
            folder=record.parent,
            journal=journal.read_text().splitlines() if journal.is_file() else [],
        )

    run.path = pytester.path
    run.pytester = pytester
    return run


def by_name(run):
    return {test["id"].rpartition("::")[2]: test for test in run.record["tests"]}


def evidence_of(run, name):
    folder = run.folder / by_name(run)[name]["evidence"]
    return {piece["name"] for piece in json.loads((folder / "evidence.json").read_text())["pieces"]}
