from __future__ import annotations

import json
import os
import sys

import pytest

from lab.cli import main as cli
from lab.cli import mutants, suite
from lab.core.paths import repo_root
from lab.mutants.catalogue import load_mutants

FAKES = repo_root() / "tests" / "unit" / "plugin"
sys.path.insert(0, str(FAKES))

import plugin_fakes  # noqa: E402

CONFTEST = """
from pathlib import Path
import plugin_fakes

def pytest_pvlab_prepare(profile, accel, progress):
    return plugin_fakes.Template(Path({folder!r}, "journal"))
"""

SUITE = """
import pytest
from lab.core.errors import GuestCrashed, LabBroken

@pytest.mark.cost(seconds=90)
def test_long(installed_driver): raise GuestCrashed("the long test ran first")

@pytest.mark.parametrize("way", ["a/b"])
def test_attach(installed_driver, driver_package, way):
    name = driver_package.source.name
    if name == "crash-attach":
        raise GuestCrashed("attaching phy:x to virtdemo: the guest's domain shut down")
    if name == "slow":
        raise LabBroken("dom0 is gone")
"""


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """The command with a suite of fakes, run by a real pytest in a child process."""
    tests = tmp_path / "suite"
    tests.mkdir()
    (tests / "conftest.py").write_text(CONFTEST.format(folder=str(tmp_path)))
    (tests / "test_it.py").write_text(SUITE)
    (tests / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    for mutant in load_mutants():
        plugin_fakes.write_package(tmp_path / "image" / "mutants" / mutant.name)

    class Images:
        path = tmp_path / "image"

        def ensure(self, name):
            return self

    monkeypatch.setattr(mutants, "Store", Images)
    monkeypatch.setattr(mutants, "build_images", lambda names: None)
    monkeypatch.setattr(suite, "driver_suite", lambda: tests)
    monkeypatch.setattr(mutants, "driver_suite", lambda: tests)
    monkeypatch.setattr("lab.cli.tests.driver_suite", lambda: tests)
    monkeypatch.setenv("PVLAB_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("PVLAB_RUNTIME", str(tmp_path / "runtime"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(repo_root()), str(FAKES)]))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_killed_mutant(lab, capfd):
    assert cli.main(["mutants", "crash-attach", "--json"]) == 0
    out, err = capfd.readouterr()
    [outcome] = json.loads(out)["mutants"]
    assert outcome["name"] == "crash-attach"
    assert outcome["killed_by"].endswith("test_it.py::test_attach[a/b]")
    assert outcome["blamed"] == "driver"
    assert outcome["seconds"] > 0
    assert "[1/1] crash-attach: killed by test_attach[a/b]" in err
    run = json.loads((lab / "results" / outcome["run"] / "run.json").read_text())
    assert len(run["tests"]) == 1


def test_table_and_resume(lab, capfd):
    assert cli.main(["mutants", "crash-attach"]) == 0
    out, _ = capfd.readouterr()
    assert "test_it.py::test_attach[a/b]" in out
    assert "1 of 1 killed on stand-in" in out
    assert cli.main(["mutants", "crash-attach", "--resume"]) == 0
    out, err = capfd.readouterr()
    assert "known: killed" in err
    assert len(list((lab / "results").glob("*-crash-attach"))) == 1


def test_lab_trouble(lab, capfd):
    assert cli.main(["mutants", "slow"]) == 3
    out, _ = capfd.readouterr()
    assert "0 of 1 killed" in out
    assert "lab" in out


def test_unknown_mutant(lab, capfd):
    assert cli.main(["mutants", "fast"]) == 2
    assert "no mutant is called 'fast'" in capfd.readouterr().err
