from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from night_fakes import FakeLauncher, write_templates

from lab.cli import main as cli
from lab.cli import nightly, suite
from lab.core.deadline import Deadline
from lab.core.errors import UsageError
from lab.core.lock import locked
from lab.core.paths import repo_root
from lab.nightly.night import order_of
from lab.nightly.work import Order, new_run
from lab.results.store import ItemState, claim, items, note_run, open_store, plans, runs
from lab.suite.catalogue import Catalogue, Entry
from lab.suite.intensity import Level

FAKES = repo_root() / "tests" / "unit" / "plugin"
sys.path.insert(0, str(FAKES))

import plugin_fakes  # noqa: E402

real_command = nightly.suite_command

CONFTEST = """
from pathlib import Path
import plugin_fakes

def pytest_pvlab_prepare(profile, accel, progress):
    return plugin_fakes.Template(Path({folder!r}, "journal"))
"""

SUITE = """
import pytest
from lab.core.errors import GuestCrashed

@pytest.mark.area("attach")
@pytest.mark.cost(seconds=90)
def test_attach(installed_driver):
    raise GuestCrashed("attaching phy:x to virtdemo: the guest's domain shut down")

@pytest.mark.area("attach")
@pytest.mark.cost(seconds=30)
def test_install(installed_driver):
    pass
"""

MATRIX = """
budget = "1h"
lab_retries = 1

[[driver]]
name = "trunk"
package = "trunk"

[[suite]]
name = "standard"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a matrix and a driver, where the command is given."""
    plugin_fakes.write_package(tmp_path / "trunk")
    (tmp_path / "matrix.toml").write_text(MATRIX)

    class Images:
        def key(self, name: str) -> str:
            return f"key of {name}"

    monkeypatch.setattr(nightly, "Images", Images)
    for name in ("results", "runtime", "cache"):
        monkeypatch.setenv(f"PVLAB_{name.upper()}", str(tmp_path / name))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def entry(test: str, area: str, seconds: float) -> Entry:
    return Entry(
        id=f"tests/drivers/test_it.py::{test}",
        area=area,
        claim="",
        source="",
        expected_seconds=seconds,
        markers=(),
    )


CATALOGUE = Catalogue(
    intensity=Level.STANDARD,
    accelerator="tcg-hvm",
    expected_seconds=120.0,
    tests=(entry("test_attach", "attach", 90.0), entry("test_install", "install", 30.0)),
)


@pytest.fixture
def lab(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The command with a script in the place of pytest.

    What the file ``trouble`` says befalls ``test_attach``.
    """
    write_templates(folder)
    launcher = FakeLauncher(folder, 0.0)

    def command(
        order: Order, run: str, results: Path, *, config: Path | None = None
    ) -> Sequence[str]:
        trouble = folder / "trouble"
        bad = trouble.exists() and order.tests[0].endswith("test_attach")
        return launcher(
            replace(order, profile=trouble.read_text() if bad else "pass"), run, results
        )

    monkeypatch.setattr(nightly, "collect", lambda *a, **k: CATALOGUE)
    monkeypatch.setattr(nightly, "suite_command", command)
    return folder


@pytest.fixture
def real(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The command with a suite of fakes, run by a real pytest in child processes."""
    tests = folder / "suite"
    tests.mkdir()
    (tests / "conftest.py").write_text(CONFTEST.format(folder=str(folder)))
    (tests / "test_it.py").write_text(SUITE)
    (tests / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    for module in ("lab.cli.suite", "lab.cli.mutants", "lab.cli.tests", "lab.cli.nightly"):
        monkeypatch.setattr(f"{module}.driver_suite", lambda: tests)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(repo_root()), str(FAKES)]))
    return folder


def test_a_night_of_pytest_s(real: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["nightly"]) == 1
    out, err = capfd.readouterr()
    assert out.startswith("1 new failure; 2 tests in 1 of 1 item\n")
    assert "test_it.py::test_attach (trunk on standin, standard)" in out
    assert "the guest's domain shut down" in out
    assert "[1/1] standin/trunk/standard/attach: FAIL: the driver failed" in err
    with open_store() as store:
        [run] = runs(store)
        assert "--pvlab-intensity=standard" in run.command
        [item] = items(store, plans(store)[0].key)
        assert item.run == run.name
    record = json.loads((real / "results" / run.name / "run.json").read_text())
    assert record["driver"]["basename"].startswith("trunk-")
    assert (real / "results" / "latest" / "report.html").is_file()


def test_an_item_s_command_is_that_of_a_run(lab: Path) -> None:
    order = Order(
        night="n",
        key="k",
        prefix="n-0-0-",
        profile="standin",
        driver="trunk",
        package=lab / "trunk",
        suite="soak",
        intensity="soak",
        accel="tcg-hvm",
        tests=("tests/drivers/test_attach.py::test_read_only_disk",),
        limit_seconds=1.0,
    )
    words = real_command(order, "run-1", lab / "results")
    assert words[: len(suite.pytest_command())] == suite.pytest_command()
    for word in ("run-id=run-1", "intensity=soak", "accel=tcg-hvm", f"driver={lab / 'trunk'}"):
        assert f"--pvlab-{word}" in words
    located = repo_root() / "tests" / "drivers" / "test_attach.py"
    assert words[-1] == f"{located}::test_read_only_disk"
    with pytest.raises(UsageError, match="no profile 'other'"):
        real_command(replace(order, profile="other"), "run-1", lab / "results")


def test_from_a_matrix_to_a_digest(lab: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["nightly", "--plan"]) == 0
    out, _ = capfd.readouterr()
    assert out.index("standin/trunk/standard/attach") < out.index("standin/trunk/standard/install")
    assert "never ran" in out
    assert "2 items, about 2 min" in out

    assert cli.main(["nightly"]) == 0
    out, err = capfd.readouterr()
    assert out.startswith("nothing new; 2 tests in 2 of 2 items")
    assert "[2/2] standin/trunk/standard/install: PASS" in err
    with open_store() as store:
        [night] = plans(store)
        assert night.closed is not None
        assert {one.state for one in items(store, night.key)} == {ItemState.DONE}
        assert {run.name for run in runs(store)} == {one.run for one in items(store, night.key)}
    folder = lab / "results" / "nightly" / night.key
    assert (folder / "digest.txt").read_text() == out
    assert "nothing new" in (folder / "digest.html").read_text()
    # What was tested is kept: the builds go on.
    [copy] = (folder / "packages").iterdir()
    assert copy.name.startswith("trunk-")

    # The next night the driver crashes the guest: that is what is new.
    (lab / "trouble").write_text("fail")
    assert cli.main(["nightly", "--json"]) == 1
    out, err = capfd.readouterr()
    told = json.loads(out)
    [failing] = told["failing"]
    assert failing["now"]["subject"]["test"].endswith("test_it.py::test_attach")
    assert failing["before"]["outcome"] == "passed"
    # And the night after, it still does, so that nothing is.
    assert cli.main(["nightly"]) == 1
    out, _ = capfd.readouterr()
    assert out.startswith("1 still failing; 2 tests in 2 of 2 items")
    (lab / "trouble").unlink()
    assert cli.main(["nightly"]) == 0
    out, _ = capfd.readouterr()
    assert out.startswith("1 fixed; 2 tests")


def test_the_lab_s_own_trouble(lab: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (lab / "trouble").write_text("lab")
    assert cli.main(["nightly"]) == 3
    out, _ = capfd.readouterr()
    assert out.startswith("1 item lost to the lab; 2 tests in 1 of 2 items")
    assert "standin/trunk/standard/attach: no result after 2 attempts" in out


def begin_and_die(lab: Path) -> str:
    """A night whose process was killed while its first item ran."""
    with open_store() as store:
        night = nightly.begin(Path("matrix.toml"), None, store, lab / "results", None)
        begun = claim(store, night.key, f"{os.uname().nodename}:1")
        assert begun is not None
        note_run(store, begun, new_run(order_of(begun.item)))
        return night.key


def test_a_night_that_was_killed_is_gone_on_with(
    lab: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    key = begin_and_die(lab)
    # Neither the matrix nor the package is needed any more.
    (lab / "matrix.toml").unlink()
    (lab / "trunk" / "xenvbd.inf").unlink()
    assert cli.main(["nightly", "--resume"]) == 0
    out, err = capfd.readouterr()
    assert "the night was killed" in err
    assert out.startswith("nothing new; 2 tests in 2 of 2 items")
    with open_store() as store:
        assert [night.key for night in plans(store)] == [key]
    assert cli.main(["nightly", "--resume"]) == 0
    assert "no night was killed" in capfd.readouterr().err


def test_a_night_that_nobody_went_on_with_is_closed(
    lab: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    key = begin_and_die(lab)
    assert cli.main(["nightly"]) == 0
    _, err = capfd.readouterr()
    assert f"the night {key} was never ended; 2 of its items have not run" in err
    with open_store() as store:
        assert len(plans(store)) == 2
        assert plans(store, unfinished=True) == []
    assert (
        "standin/trunk/standard/attach"
        in (lab / "results" / "nightly" / key / "digest.txt").read_text()
    )


def test_no_time_is_left_of_a_night_that_is_long_over(
    lab: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    begin_and_die(lab)
    assert cli.main(["nightly", "--resume", "--budget", "1s"]) == 3
    out, _ = capfd.readouterr()
    assert "no test in 0 of 2 items" in out
    assert "no time was left" in out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--budget", "soon"], "--budget: 'soon' is no length of time"),
        (["--budget", "1s"], "nothing fits the budget of 1.00 s"),
        (["--matrix", "none.toml"], "none.toml: cannot be read"),
        (["--scheduler", "tcp://127.0.0.1:1"], "no scheduler answers"),
    ],
)
def test_bad_input(
    lab: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    says: str,
) -> None:
    monkeypatch.setattr("lab.nightly.farm.CONNECT_SECONDS", 0.3)
    assert cli.main(["nightly", *words]) == 2
    _, err = capfd.readouterr()
    assert says in err
    assert "Traceback" not in err


def test_a_package_that_is_none(lab: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (lab / "trunk" / "xenvbd.inf").unlink()
    assert cli.main(["nightly"]) == 2
    assert "no INF file" in capfd.readouterr().err
    with open_store() as store:
        assert plans(store) == []
    left = [one.name for one in (lab / "results" / "nightly").iterdir()]
    assert left == [".lock"]


def test_one_night_at_a_time(
    lab: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nightly, "LOCK_PATIENCE_SECONDS", 0.1)
    with locked(lab / "results" / "nightly" / ".lock", Deadline(5)):
        assert cli.main(["nightly"]) == 2
    assert f"held by process {os.getpid()}" in capfd.readouterr().err


def test_the_digest_is_told(
    lab: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, ...]] = []
    monkeypatch.setattr("lab.nightly.morning.send_mail", lambda mail, *what: told.append(what))
    monkeypatch.setattr(
        "lab.nightly.morning.post", lambda hook, text: told.append((text,)) or "no webhook: ..."
    )
    (lab / "matrix.toml").write_text(
        f'results_url = "https://lab.example.org/results"\n{MATRIX}'
        "[mail]\nhost='127.0.0.1'\nfrom='a@example.org'\nto=['b@example.org']\n"
        "[webhook]\nonly_news = false\n"
    )
    assert cli.main(["nightly"]) == 0
    (subject, text, page), (posted,) = told
    assert subject == "pvlab: nothing new; 2 tests in 2 of 2 items"
    assert text == posted
    assert "href" not in page  # nothing failed, so that nothing is linked to
    # What could not be told is told here, and is no failure of the night.
    assert "pvlab: no webhook: ..." in capfd.readouterr().err


def test_a_quiet_night_may_stay_untold(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.nightly.morning.post", lambda hook, text: pytest.fail("told"))
    (lab / "matrix.toml").write_text(f"{MATRIX}[webhook]\nonly_news = true\n")
    assert cli.main(["nightly"]) == 0
