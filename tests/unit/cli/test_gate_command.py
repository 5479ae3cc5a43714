from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from lab.cli import main as cli
from lab.cli import suite
from lab.core.paths import repo_root

FAKES = repo_root() / "tests" / "unit" / "plugin"
sys.path.insert(0, str(FAKES))

import plugin_fakes  # noqa: E402

CONFTEST = """
from pathlib import Path
import plugin_fakes
from lab.core.errors import LabBroken
from lab.guest.crash import CrashKind, CrashReport

def pytest_pvlab_prepare(profile, accel, progress):
    if Path({folder!r}, "no-lab").exists():
        raise LabBroken("no emulator")
    template = plugin_fakes.Template(Path({folder!r}, "journal"))
    if Path({folder!r}, "shim").exists():
        template.versions["toolstack"] = "xm (shim over xl)"
    return template
"""

SUITE = """
import pytest
from lab.core.errors import GuestCrashed

def test_attach(installed_driver, driver_package):
    if "broken" in driver_package.source.name:
        raise GuestCrashed("attaching phy:x to virtdemo: the guest's domain shut down")

def test_more(installed_driver): pass
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A gate whose suite, run by a real pytest in a child process, uses a lab of fakes."""
    tests = tmp_path / "suite"
    tests.mkdir()
    (tests / "conftest.py").write_text(CONFTEST.format(folder=str(tmp_path)))
    (tests / "test_it.py").write_text(SUITE)
    (tests / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    monkeypatch.setattr(suite, "driver_suite", lambda: tests)
    monkeypatch.setenv("PVLAB_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("PVLAB_RUNTIME", str(tmp_path / "runtime"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(repo_root()), str(FAKES)]))
    monkeypatch.chdir(tmp_path)
    return lambda name: plugin_fakes.write_package(tmp_path / name)


def test_good_driver_passes(package, tmp_path, capfd):
    file = tmp_path / "gate.json"
    assert cli.main(["gate", "--driver", str(package("good")), "--json", str(file)]) == 0
    assert "PASS good on stand-in" in capfd.readouterr().out
    document = json.loads(file.read_text())
    assert document["verdict"]["status"] == "PASS"
    assert document["counts"] == {"passed": 2}
    assert {"run.json", "report.html", "junit.xml"} <= set(document["artifacts"])


def test_broken_driver_fails_and_stops_the_suite(package, capfd):
    assert cli.main(["gate", "--driver", str(package("broken"))]) == 1
    out = capfd.readouterr().out
    assert "FAIL broken on stand-in" in out
    record = json.loads(Path("results/latest/run.json").read_text())
    assert [test["outcome"] for test in record["tests"]] == ["failed"]
    assert record["tests"][0]["properties"]["pvlab.crash"].startswith("attaching phy:x")


def test_keep_going_runs_the_rest(package):
    assert cli.main(["gate", "--keep-going", "--driver", str(package("broken"))]) == 1
    record = json.loads(Path("results/latest/run.json").read_text())
    assert len(record["tests"]) == 2


def test_broken_lab_is_neither(package, tmp_path, capfd):
    (tmp_path / "no-lab").touch()
    assert cli.main(["gate", "--driver", str(package("good"))]) == 3
    assert "LAB good on stand-in" in capfd.readouterr().out


def test_shim_is_named_in_every_report(package, tmp_path, capfd):
    (tmp_path / "shim").touch()
    file = tmp_path / "gate.json"
    assert cli.main(["gate", "--driver", str(package("good")), "--json", str(file)]) == 0
    out = capfd.readouterr().out
    assert "toolstack: xm (shim over xl)\n" in out
    assert ", through xm (shim over xl)\n" in out
    for report in (file, *(Path("results/latest", n) for n in ("run.json", "report.html"))):
        assert "xm (shim over xl)" in report.read_text(), report
    assert "xm (shim over xl)" in Path("results/latest/junit.xml").read_text()


def test_json_on_stdout_stands_alone(package, capfd):
    assert cli.main(["gate", "--driver", str(package("good")), "--json", "-"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["verdict"]["exit_code"] == 0
    assert "test_it.py" in err


def test_run_passes_options_on(package, capfd):
    words = ["run", "--driver", str(package("good")), "-k", "more", "--", "--verbose"]
    assert cli.main(words) == 0
    assert "test_more PASSED" in capfd.readouterr().out


def test_run_of_nothing_is_bad_input(package):
    assert cli.main(["run", "--driver", str(package("good")), "-k", "nothing"]) == 2


@pytest.mark.parametrize(
    ("folders", "code"),
    [(("good", "broken-attach"), 0), (("broken-good", "broken-attach"), 3), (("good",) * 2, 3)],
)
def test_demo_tells_good_from_broken(package, monkeypatch, tmp_path, capfd, folders, code):
    from lab.cli import demo

    acts = zip(demo.ACTS, folders, strict=True)
    monkeypatch.setattr(demo, "build_images", lambda names: None)
    monkeypatch.setattr(demo, "drivers_image", lambda accel: "standin-drivers")

    class Packages:
        def ensure(self, name):
            return self

        path = tmp_path

    monkeypatch.setattr(demo, "Store", Packages)
    monkeypatch.setattr(
        demo, "ACTS", [demo.Act(folder, a.what, a.expected, a.met) for a, folder in acts]
    )
    for folder in set(folders):
        package(folder)
    assert cli.main(["demo"]) == code
    out = capfd.readouterr().out
    assert "accelerator: tcg-hvm (no /dev/kvm)" in out
    assert out.count("report.html") >= 2
    if code == 0:
        assert "PASS: a driver that works" in out
        assert "FAIL (driver, crash on attach): a driver that crashes" in out
    else:
        assert "NOT AS EXPECTED" in out
