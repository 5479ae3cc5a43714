from __future__ import annotations

import json

import pytest

from lab.cli.main import main
from lab.cli.suite import SuiteRequest
from lab.suite.catalogue import Catalogue
from lab.suite.intensity import Level

SUITE = """
import pytest

@pytest.mark.smoke
@pytest.mark.area("attach")
@pytest.mark.claim("size detected correctly", "announcement of 0.0.3")
@pytest.mark.cost(attach=2)
def test_size(installed_driver, block_device): pass

@pytest.mark.area("attach")
@pytest.mark.race(attempts=30)
def test_race(installed_driver, jitter): pass

def test_without_lab(): pass
"""


@pytest.fixture
def suite(tmp_path, monkeypatch):
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_it.py").write_text(SUITE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PVLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_catalogue_as_json(suite, capsys):
    assert main(["tests", "--json", "--accel", "tcg-hvm", "test_it.py"]) == 0
    found = Catalogue.model_validate(json.loads(capsys.readouterr().out))
    assert [test.id for test in found.tests] == ["test_it.py::test_size", "test_it.py::test_race"]
    assert found.tests[0].area == "attach"
    assert found.tests[0].claim == "size detected correctly"
    assert found.tests[0].source == "announcement of 0.0.3"
    assert found.tests[0].attempts is None
    assert found.tests[1].attempts == 30
    assert not (suite / "results").exists()
    assert not (suite / "cache").exists()


def test_catalogue_for_people(suite, capsys):
    assert main(["tests", "--accel", "kvm", "--intensity", "smoke", "test_it.py"]) == 0
    said = capsys.readouterr().out
    assert "test_it.py::test_size" in said
    assert "size detected correctly (announcement of 0.0.3)" in said
    assert "test_race" not in said
    assert "1 test, at most" in said
    assert "(smoke, kvm)" in said


def test_selection_by_name(suite, capsys):
    assert main(["tests", "--json", "--accel", "kvm", "-k", "race", "test_it.py"]) == 0
    assert len(json.loads(capsys.readouterr().out)["tests"]) == 1


@pytest.mark.parametrize("arguments", [["missing.py"], ["-k", "nothing", "test_it.py"]])
def test_nothing_to_collect_is_bad_input(suite, capsys, arguments):
    assert main(["tests", *arguments]) == 2
    assert "could not be collected" in capsys.readouterr().err


def test_options_reach_pytest(tmp_path):
    command = SuiteRequest(
        intensity=Level.SMOKE, workers=3, seed=0, errata=tmp_path, tests=["a.py"]
    ).command("r1")
    assert "--pvlab-intensity=smoke" in command
    assert "--pvlab-seed=0" in command
    assert f"--pvlab-errata={tmp_path}" in command
    assert command[command.index("-n") + 1] == "3"
    assert "--maxschedchunk=1" in command


def test_one_worker_is_no_worker():
    assert "-n" not in SuiteRequest(workers=1).command("r1")
