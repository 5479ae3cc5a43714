"""``pvlab gate --baseline``: its runs made up, but for one gate over a lab of fakes."""

from __future__ import annotations

import json
import os
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from lab.cli import comparing
from lab.cli import main as cli
from lab.core.paths import repo_root
from lab.gate.document import GateDocument, load_document
from lab.results.record import EndedHow, Outcome

FAKES = repo_root() / "tests" / "unit" / "plugin"
sys.path.insert(0, str(FAKES))

import plugin_fakes  # noqa: E402
from fake_suite import FakeSuite, failed, lost, no_record  # noqa: E402

CONFTEST = """
from pathlib import Path
import plugin_fakes
from lab.core.errors import LabBroken

def pytest_pvlab_prepare(profile, accel, progress):
    if Path({folder!r}, "no-lab").exists():
        raise LabBroken("no emulator")
    return plugin_fakes.Template(Path({folder!r}, "journal"))
"""

SUITE = """
import pytest

def test_attach(installed_driver, driver_package):
    assert "broken" not in driver_package.source.name, "<b>no disk</b>"

def test_speed(installed_driver, driver_package, figure):
    figure("reads, ms", 200 if "slow" in driver_package.source.name else 20)
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A suite and a folder to work in; makes packages."""
    tests = tmp_path / "suite"
    tests.mkdir()
    (tests / "conftest.py").write_text(CONFTEST.format(folder=str(tmp_path)))
    (tests / "test_it.py").write_text(SUITE)
    (tests / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    for module in ("lab.cli.suite", "lab.cli.comparing", "lab.cli.tests", "lab.cli.gate"):
        monkeypatch.setattr(f"{module}.driver_suite", lambda: tests)
    monkeypatch.setenv("PVLAB_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("PVLAB_RUNTIME", str(tmp_path / "runtime"))
    monkeypatch.setenv("PVLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(repo_root()), str(FAKES)]))
    monkeypatch.delenv("PVLAB_INTENSITY", raising=False)
    monkeypatch.chdir(tmp_path)

    def make(name: str) -> str:
        folder = tmp_path / name
        if not folder.exists():
            plugin_fakes.write_package(folder, plugin_fakes.I386 + name.encode())
        return str(folder)

    return make


@pytest.fixture
def runs(package, monkeypatch) -> FakeSuite:
    """Runs of the suite that are made up."""
    fake = FakeSuite()
    monkeypatch.setattr(comparing, "run_suite", fake.run_suite)
    monkeypatch.setattr(comparing, "collect", fake.collect)
    return fake


@pytest.fixture
def quick(tmp_path):
    """A policy that looks at figures soon."""
    file = tmp_path / "gate.toml"
    file.write_text("[performance]\nlooks = [2, 3]\n[lab]\ngive_up = 4\n")
    return str(file)


@pytest.fixture
def words(package, quick):
    """The usual question."""

    def words(new: str, *more: str) -> tuple[str, ...]:
        return ("--driver", package(new), "--baseline", package("good"), "--policy", quick, *more)

    return words


def gate(*words: str) -> int:
    return cli.main(["gate", *words])


def document() -> GateDocument:
    (folder,) = Path("results").glob("*-gate")
    return load_document(folder / "gate.json")


def measured(times: float):
    """Passes, and measures."""

    def behave(test, package, number):
        value = 20 * (times if package == "new" else 1) * (1 + 0.001 * (number % 3))
        return {"properties": {"pvlab.figure.reads, ms": str(value)}}

    return behave


def test_good_against_good_passes_with_bounds(runs, words, capfd):
    runs.behaviour = measured(1.0)
    assert gate(*words("new"), "--json", "signed.json") == 0
    out = capfd.readouterr().out
    assert "PASS new against good on stand-in" in out
    assert "the new driver, 2 tests: failed 0 of 4, below 52.7 % at 95 %" in out
    said = document()
    assert load_document(Path("signed.json")) == said
    assert said.ended_how is EndedHow.FINISHED
    assert {finding.kind.value for finding in said.comparison.findings} == {"same"}
    assert said.comparison.findings[0].figures[0].answer.value == "within"
    for run in said.comparison.runs:
        order = [(turn.test, turn.driver) for turn in run.turns]
        pairs = list(zip(order[::2], order[1::2], strict=True))
        # Pair by pair, each test on both drivers.
        assert all(a[0] == b[0] and a[1] != b[1] for a, b in pairs)
    assert f"SHA-256 {said.sha256}" in out


@pytest.mark.parametrize(("times", "code"), [(10.0, 1), (1.02, 0)])
def test_slower_drivers(runs, words, capfd, times, code):
    runs.behaviour = measured(times)
    assert gate(*words("new")) == code
    out = capfd.readouterr().out
    assert ("performance change: test_it.py::test_" in out) is (code == 1)
    if code:
        assert "slower: reads, ms +900.0 % (+" in out


def test_failures_are_run_again_on_both_and_cores_are_kept_once(runs, words, capfd):
    runs.behaviour = lambda test, package, n: (
        failed("<b>no disk</b>") if (test, package) == ("test_attach", "new") else {}
    )
    assert gate(*words("new")) == 1
    out = capfd.readouterr().out
    assert "regression: test_it.py::test_attach: failed 5 of 5" in out
    finding = document().comparison.findings[0]
    assert (finding.effect, finding.new.failures, finding.baseline.failures) == ("fail", 5, 0)
    assert [request.core for request in runs.requests] == [True, False, False]
    page = next(Path("results").glob("*-gate/gate.html")).read_text()
    assert "<b>no disk" not in page
    assert "&lt;b&gt;no disk" in page
    assert "default-src 'none'" in page


def test_a_run_that_the_lab_lost_is_made_again(runs, words, capfd):
    runs.behaviour = lambda test, package, n: lost() if n == 1 and package == "new" else {}
    assert gate(*words("new")) == 0
    assert "the lab lost 2 of 6 runs" in capfd.readouterr().out


@pytest.mark.parametrize("how", ["in every place", "no record"])
def test_a_lab_that_is_broken_everywhere_is_undecided(runs, words, capfd, monkeypatch, how):
    if how == "no record":
        monkeypatch.setattr(comparing, "run_suite", no_record)
    runs.behaviour = lambda test, package, n: lost()
    assert gate(*words("new")) == 3
    out = capfd.readouterr().out
    assert "UNDECIDED new against good" in out
    assert "the lab broke: it lost 4 runs in a row, so the gate ended: " in out
    assert document().verdict.exit_code == 3


def test_a_policy_alone_repeats_what_failed(runs, package, quick, capfd):
    runs.behaviour = lambda test, package, n: failed() if test == "test_attach" else {}
    assert gate("--driver", package("new"), "--policy", quick) == 1
    assert "new failure: test_it.py::test_attach: failed 3 of 3" in capfd.readouterr().out
    assert all(request.baseline is None for request in runs.requests)


def test_what_the_command_line_asks_is_part_of_the_policy(runs, words, package):
    more = ("--keep-going", "--intensity", "smoke", "-n", "6", "--profile", "standin")
    assert gate(*words("new"), *more) == 0
    (request,) = runs.requests
    assert (request.intensity.value, request.workers, request.profile) == ("smoke", 6, "standin")
    policy = document().comparison.policy
    assert (policy.suite.intensity.value, policy.running.stop_early) == ("smoke", False)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--baseline", "nowhere"), "nowhere"),
        (("--policy", "lenient"), "no such policy"),
        (("--resume", "nowhere"), "nowhere"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(package, capfd, more, said):
    assert gate("--driver", package("new"), *more) == 2
    assert said in capfd.readouterr().err
    assert not Path("results").exists()


def test_an_interrupted_gate_goes_on_where_it_was(runs, words, package, capfd):
    def interrupt(number):
        if number == 2:
            raise KeyboardInterrupt

    runs.before, runs.behaviour = interrupt, measured(1.0)
    assert gate(*words("new")) == 130
    said = document()
    assert (said.ended_how, said.verdict.exit_code) == (EndedHow.INTERRUPTED, 3)
    assert said.verdict.reasons[0].startswith("the gate was interrupted")
    assert "to go on: the same command with --resume" in capfd.readouterr().err
    (folder,) = Path("results").glob("*-gate")
    assert gate(*words("other"), "--resume", str(folder)) == 2
    assert "another driver" in capfd.readouterr().err
    before = runs.made.copy()
    assert gate(*words("new"), "--resume", str(folder)) == 0
    ended = document()
    assert ended.ended_how is EndedHow.FINISHED
    assert ended.comparison.runs[: len(said.comparison.runs)] == said.comparison.runs
    assert ended.comparison.runs[1].interrupted
    assert before["test_attach", "new"] < ended.comparison.findings[0].new.runs
    assert gate("verify", str(folder / "gate.json")) == 0
    assert gate(*words("new"), "--resume", str(folder)) == 2
    assert "that gate has ended: PASS" in capfd.readouterr().err


def test_a_package_that_is_changed_under_the_gate_is_noticed(runs, words, package, capfd):
    def change(number):
        (Path(package("new")) / "xenvbd.sys").write_bytes(plugin_fakes.I386 + b"%d" % number)

    runs.before = change
    assert gate(*words("new")) == 3
    assert "tested another driver than the gate was asked about" in capfd.readouterr().out


def test_a_suite_that_is_changed_under_the_gate_is_noticed(runs, words, tmp_path, capfd):
    runs.before = lambda n: (tmp_path / "suite" / "test_it.py").write_text(f"# {n}")
    assert gate(*words("new")) == 3
    assert "the suite's files were changed" in capfd.readouterr().out


class TestVerify:
    """``pvlab gate verify``."""

    @pytest.fixture
    def signed(self, runs, words, capfd) -> Path:
        def behave(test, package, number):
            return {"outcome": Outcome.SKIPPED, "message": "no"} if test == "test_speed" else {}

        runs.behaviour = behave
        assert gate(*words("new"), "--json", "signed.json") == 0
        capfd.readouterr()
        return Path("signed.json")

    def test_all_that_can_be_checked(self, signed, package, quick, capfd):
        more = ("--driver", package("new"), "--baseline", package("good"), "--policy", quick)
        sha256 = load_document(signed).sha256
        assert gate("verify", str(signed), *more, "--sha256", sha256) == 0
        out = capfd.readouterr().out
        assert "as the gate left it" in out
        # The image of the made-up runs is nowhere.
        assert "0 failed, 1 could not be made" in out

    @pytest.mark.parametrize(
        ("more", "said"),
        [
            (("--driver", "good"), "the driver: another one was gated"),
            (("--baseline", "other"), "the baseline: another one was gated"),
            (("--policy", "release"), "the policy: another one was gated"),
            (("--sha256", "0" * 64), "not the one given"),
            (("--suite", "good"), "the suite: another one was gated"),
        ],
    )
    def test_something_else_was_gated(self, signed, package, capfd, more, said):
        package("good"), package("other")
        assert gate("verify", str(signed), *more) == 1
        assert said in capfd.readouterr().out

    def test_a_changed_run_is_found(self, signed, capfd):
        run = next(iter(Path("results").glob("2*/run.json")))
        run.write_text(run.read_text().replace("stand-in", "Windows"))
        assert gate("verify", str(signed), "--json") == 1
        checks = json.loads(capfd.readouterr().out)["checks"]
        wrong = [check["what"] for check in checks if check["state"] == "wrong"]
        assert wrong == [f"{run.parent.name}/run.json"]

    def test_a_vanished_run_is_found(self, signed, capfd):
        runs = sorted(Path("results").glob("2*/run.json"))
        runs[0].unlink()
        assert gate("verify", str(signed)) == 1
        assert "the verdict: it cannot be made from the runs" in capfd.readouterr().out

    @pytest.mark.parametrize("resealed", [False, True])
    def test_a_verdict_that_was_written_by_hand_is_found(self, signed, capfd, resealed):
        said = load_document(signed)
        better = said.verdict.model_copy(update={"reasons": ("it is perfect",)})
        forged = said.model_copy(update={"verdict": better})
        signed.write_text((forged.sealed() if resealed else forged).model_dump_json())
        assert gate("verify", str(signed)) == 1
        out = capfd.readouterr().out
        assert "the verdict: its reasons are not those of the runs" in out
        assert ("the document: its content is not" in out) is not resealed

    def test_findings_that_were_written_by_hand_are_found(self, signed, capfd):
        said = load_document(signed)
        comparison = said.comparison.model_copy(update={"findings": said.comparison.findings[:1]})
        forged = said.model_copy(update={"comparison": comparison}).sealed()
        signed.write_text(forged.model_dump_json())
        assert gate("verify", str(signed)) == 1
        assert "the findings are not what the runs show" in capfd.readouterr().out

    def test_a_path_that_leads_out_is_refused(self, signed, capfd):
        said = load_document(signed)
        artifacts = {"../signed.json": next(iter(said.artifacts.values())), **said.artifacts}
        forged = said.model_copy(update={"artifacts": artifacts}).sealed()
        signed.write_text(forged.model_dump_json())
        assert gate("verify", str(signed)) == 1
        assert "../signed.json: it is not below the results folder" in capfd.readouterr().out

    def test_no_results_is_bad_input(self, signed, tmp_path, capfd):
        shutil.rmtree(tmp_path / "results")
        assert gate("verify", str(signed)) == 2
        assert "the runs that it is about are not here" in capfd.readouterr().err

    @pytest.mark.parametrize("content", ["", "{}", "[1]", '{"schema_version": 2}'])
    def test_no_document_is_bad_input(self, tmp_path, capfd, content):
        (tmp_path / "x.json").write_text(content)
        assert gate("verify", str(tmp_path / "x.json")) == 2
        err = capfd.readouterr().err
        assert err.count("\n") == 1
        assert "no document of a gate" in err
        assert gate("verify", str(tmp_path / "y.json")) == 2


class Links(HTMLParser):
    """Where a page's links lead."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag != "script"
        self.found += [value for name, value in attrs if name == "href" and value]


def test_sessions_of_pytest_decide_a_gate_and_vouch_for_it(words, package, tmp_path, capfd):
    """The whole way: pytest in child processes, with the plugin, over a lab of fakes."""
    assert gate(*words("broken")) == 1
    out = capfd.readouterr().out
    assert "regression: test_it.py::test_attach: failed 5 of 5" in out
    (folder,) = Path("results").glob("*-gate")
    said = load_document(folder / "gate.json")
    finding = said.comparison.findings[0]
    assert finding.proofs[0].driver.value == "new"
    assert [f.name for f in said.comparison.findings[1].figures] == ["reads, ms"]
    links = Links((folder / "gate.html").read_text()).found
    assert any("tests/test_attach" in link for link in links)
    for link in links:
        assert (folder / link).exists(), link
    assert gate("verify", str(folder / "gate.json"), "--driver", package("broken")) == 0
    proof = Path("results", finding.proofs[0].run_id, finding.proofs[0].evidence)
    serial = next(proof.glob("guest-serial*"))
    serial.write_text("nothing happened\n")
    capfd.readouterr()
    assert gate("verify", str(folder / "gate.json")) == 1
    assert f"{serial.name}: it is not the file that the gate saw" in capfd.readouterr().out


def test_a_plain_gate_s_document_verifies_too(package, monkeypatch, capfd):
    fake = FakeSuite()
    monkeypatch.setattr("lab.cli.gate.run_suite", fake.run_suite)
    assert gate("--driver", package("good"), "--json", "plain.json") == 0
    assert fake.requests[0].stop_at_first
    assert gate("verify", "plain.json", "--driver", package("good")) == 0
    assert gate("verify", "plain.json", "--driver", package("other")) == 1
    said = load_document(Path("plain.json"))
    forged = said.model_copy(update={"tests": said.tests[:1]}).sealed()
    Path("plain.json").write_text(forged.model_dump_json())
    assert gate("verify", "plain.json") == 1
    assert "the tests are not those of the run" in capfd.readouterr().out
