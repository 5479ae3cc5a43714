from __future__ import annotations

import json
import signal
import subprocess
import sys
from types import SimpleNamespace

import plugin_fakes
import pytest
from plugin_bench import CONFTEST, OWN_PROFILE, PLUGIN, by_name, evidence_of

import lab.place.standin
import lab.plugin.workplace
from lab.core.errors import LabBroken
from lab.drivers.package import DriverPackage

pytest_plugins = ["pytester"]


def test_inert_without_its_fixtures(bench):
    run = bench("def test_nothing(): pass", driver=False)
    assert run.code == 0
    assert run.record is None
    assert run.journal == []
    assert "pvlab" not in run.text.replace("plugins: ", "").split("collected")[1]
    assert not (bench.path / "results").exists()


def test_collect_only_starts_nothing(bench):
    run = bench("def test_it(place): pass", "--collect-only")
    assert run.code == 0
    assert (run.record, run.journal) == (None, [])


def test_every_test_gets_a_clone_of_its_own(bench):
    run = bench(
        """
        def test_one(place, guest, xen_host):
            assert place.guest is guest
            assert xen_host.dom0 is place.dom0
        def test_two(place): pass
        """
    )
    assert run.code == 0
    assert run.journal == ["prepare None", "clone 1", "closed 1", "clone 2", "closed 2"]
    assert run.record["verdict"]["status"] == "PASS"
    assert run.record["ended_how"] == "finished"
    assert run.record["accelerator"]["name"] == "tcg-hvm"
    assert run.record["versions"]["qemu"] == "5.2.0"
    assert run.record["images"]["xen417-debian"]["versions"] == {"xen": "4.17.5"}
    assert by_name(run)["test_one"]["outcome"] == "passed"
    assert (run.folder / "report.html").is_file()
    assert (bench.path / "results" / "latest").resolve() == run.folder
    assert not list((bench.path.parent / "runtime").glob("run-*"))


def test_says_what_it_runs_on(bench):
    run = bench("def test_it(installed_driver): pass")
    run.pytest.stdout.fnmatch_lines(
        [
            "pvlab: guest: stand-in: *",
            "pvlab: driver: xenvbd 0.0.3.0 (package)",
            "pvlab: baking",
            "*= pvlab =*",
            "accelerator: tcg-hvm (no /dev/kvm)",
            "verdict: PASS",
            "report: *report.html",
        ]
    )
    assert run.record["driver"]["name"] == "xenvbd"
    kept = DriverPackage.load(run.folder / "driver", bench.path / "again")
    assert kept.identity == run.record["driver"]["sha256"]


def test_another_guest_than_the_profile_s_is_called_so(bench):
    run = bench(
        "def test_it(place): pass",
        driver=False,
        template="accel=plugin_fakes.accelerator('tcg-pv', 'pv')",
    )
    assert "64-bit PV guest" in run.record["guest_label"]
    assert run.record["guest_label"].startswith("stand-in")
    assert "HVM guest" not in run.record["guest_label"]


def test_passed_test_leaves_light_evidence(bench):
    run = bench("def test_it(installed_driver): pass")
    assert evidence_of(run, "test_it") == {"guest-serial", "xen-serial", "timings", "dbgview"}


def test_assertion_is_blamed_on_the_driver_with_full_evidence(bench):
    run = bench("def test_it(installed_driver):\n    assert 0, 'no disk'")
    assert run.code == 1
    run.pytest.stdout.fnmatch_lines(["*pvlab: blamed on DRIVER: no disk*", "evidence: tests/*"])
    test = by_name(run)["test_it"]
    assert (test["outcome"], test["blame"], test["phase"]) == ("failed", "driver", "call")
    assert "no disk" in test["details"]
    assert test["properties"]["pvlab.blame"] == "driver"
    assert {"xl-dmesg", "xenstore-vbd", "toolstack-logs"} <= evidence_of(run, "test_it")
    assert "core" not in evidence_of(run, "test_it")


def test_assertion_in_a_test_of_the_lab_is_blamed_on_the_lab(bench):
    run = bench("def test_it(place):\n    assert 0, 'no vg00'", driver=False)
    assert run.code == 3
    run.pytest.stdout.fnmatch_lines(["*blamed on LAB: a check of the lab itself*no vg00*"])


def test_own_errors_are_told_without_the_lab_s_traceback(bench):
    run = bench(
        """
        from lab.core.errors import DriverFailure
        def deeper():
            raise DriverFailure("frontend stayed Initialising", hint="look there")
        def test_it(installed_driver):
            deeper()
        """
    )
    assert run.code == 1
    run.pytest.stdout.fnmatch_lines(
        [
            "pvlab: blamed on DRIVER: frontend stayed Initialising",
            "*.py:5: in test_it",
            "    deeper()",
            "E   DriverFailure: frontend stayed Initialising",
            "E   look there",
        ]
    )


def test_crash_found_after_the_failure_is_named_and_dumped(bench):
    run = bench(
        """
        def test_it(installed_driver, place):
            place.bugcheck()
            assert 0, "disk missing"
        """
    )
    run.pytest.stdout.fnmatch_lines(
        ["*blamed on DRIVER: the guest crashed: Kernel panic*", "E   | call trace"]
    )
    assert {"core", "dbgview"} <= evidence_of(run, "test_it")


def test_dead_guest_is_frozen_and_read_past(bench):
    run = bench(
        """
        import pytest
        @pytest.fixture(autouse=True)
        def calls(place):
            yield
            with open("calls", "w") as file:
                file.write("\\n".join(place.calls))
        def test_it(installed_driver, place):
            place.bugcheck()
            assert 0, "disk missing"
        """
    )
    assert run.code == 1
    calls = (bench.path / "calls").read_text().split()
    assert calls.index("pause") < calls.index("read_offline")
    assert "read" not in calls, "a dead guest was asked for its log"


def test_what_the_guest_is_is_kept_with_the_run(bench):
    run = bench("def test_it(place): pass", driver=False)
    domain = json.loads((run.folder / "guest" / "domain.json").read_text())
    assert domain == {"type": "hvm"}
    assert "stand-in" in (run.folder / "guest" / "systeminfo.txt").read_text()


def test_crash_is_found_though_the_test_passed(bench):
    run = bench("def test_it(installed_driver, place):\n    place.bugcheck()")
    assert run.code == 1
    test = by_name(run)["test_it"]
    assert (test["outcome"], test["blame"]) == ("failed", "driver")
    assert "in a test that passed otherwise" in test["message"]


def test_broken_place_is_the_lab_s_whatever_the_assertion_says(bench):
    run = bench(
        """
        def test_it(installed_driver, place):
            place.broken = "QEMU (pid 4711) died of signal 9"
            assert 0, "disk missing"
        def test_next(installed_driver): pass
        """
    )
    assert run.code == 3
    run.pytest.stdout.fnmatch_lines(["*blamed on LAB: the place broke*QEMU (pid 4711) died*"])
    assert evidence_of(run, "test_it") == {"xen-serial", "timings", "operations.json"}
    assert by_name(run)["test_next"]["outcome"] == "passed"
    assert run.record["verdict"]["status"] == "LAB"


def test_no_core_of_a_crash_when_none_is_wanted(bench):
    run = bench(
        """
        def test_it(installed_driver, place):
            place.bugcheck()
            assert 0
        """,
        "--pvlab-core=no",
    )
    assert run.code == 1
    assert "xl-dmesg" in evidence_of(run, "test_it")
    assert "core" not in evidence_of(run, "test_it")


def test_broken_place_whose_dom0_answers_is_asked_why(bench):
    run = bench(
        """
        def test_it(installed_driver, place):
            place.dom0.connected = True
            place.broken = "the guest's device model (qemu-dm) does not run in dom0"
            assert 0, "disk missing"
        """
    )
    assert run.code == 3
    assert evidence_of(run, "test_it") >= {"xen-serial", "timings", "xl-dmesg", "guest-serial"}


def test_installation_failure_is_the_driver_s(bench):
    run = bench(
        "def test_it(installed_driver): pass",
        template="install=DriverFailure('xenvbd.inf could not be installed')",
    )
    assert run.code == 1
    test = by_name(run)["test_it"]
    assert (test["outcome"], test["blame"], test["phase"]) == ("error", "driver", "setup")
    run.pytest.stdout.fnmatch_lines(["*blamed on DRIVER: xenvbd.inf could not be installed*"])


def test_failed_teardown_does_not_accuse_a_place_that_is_closed(bench):
    run = bench(
        """
        import pytest
        from lab.core.errors import DriverFailure
        @pytest.fixture
        def held():
            yield
            raise DriverFailure("did not let go")
        def test_it(held, installed_driver): pass
        """
    )
    test = by_name(run)["test_it"]
    assert (test["outcome"], test["blame"], test["phase"]) == ("error", "driver", "teardown")
    assert test["message"] == "did not let go"
    assert test["evidence"]


def test_broken_template_is_told_once_and_skips_the_rest(bench):
    run = bench(
        """
        import pytest
        @pytest.mark.parametrize("number", range(4))
        def test_it(place, number): pass
        def test_other(): pass
        """,
        prepare="raise LabBroken('mirror unreachable', hint='try later')",
        driver=False,
    )
    assert run.code == 3
    run.pytest.assert_outcomes(errors=1, skipped=3, passed=1)
    assert run.journal == ["prepare None"]
    assert run.text.count("blamed on LAB: mirror unreachable") >= 1
    run.pytest.stdout.fnmatch_lines(["verdict: LAB"])
    skipped = by_name(run)["test_it[3]"]
    assert skipped["message"] == "the lab is broken: mirror unreachable (try later)"


def test_unexpected_error_of_the_template_is_the_lab_s(bench):
    run = bench("def test_it(place): pass", prepare="raise KeyError('x')", driver=False)
    assert run.code == 3
    assert "template could not be prepared: KeyError" in by_name(run)["test_it"]["message"]


def test_unusable_template_is_a_usage_error(bench):
    run = bench("def test_it(place): pass", prepare="raise UsageError('no ISO')", driver=False)
    assert run.code == pytest.ExitCode.USAGE_ERROR


def test_failed_clone_leaves_later_tests_alone(bench):
    run = bench(
        "def test_one(place): pass\ndef test_two(place): pass",
        template="[LabBroken('no port')]",
        driver=False,
    )
    run.pytest.assert_outcomes(errors=1, passed=1)
    assert run.code == 3
    assert "no clone of the template: no port" in by_name(run)["test_one"]["message"]


def test_clones_that_fail_in_a_row_break_the_session(bench):
    run = bench(
        """
        import pytest
        @pytest.mark.parametrize("number", range(5))
        def test_it(place, number): pass
        """,
        template="[LabBroken('no port')] * 9",
        driver=False,
    )
    run.pytest.assert_outcomes(errors=2, skipped=3)
    assert run.code == 3


def test_expected_failure_that_the_lab_broke_is_not_hidden(bench):
    run = bench(
        """
        import pytest
        @pytest.mark.xfail(strict=True)
        def test_it(installed_driver, place):
            place.broken = "dom0 does not answer"
            assert 0
        """
    )
    assert run.code == 3
    assert by_name(run)["test_it"]["blame"] == "lab"


def test_skipped_by_choice_blames_nobody(bench):
    run = bench(
        """
        import pytest
        def test_it(place): pytest.skip("not on this guest")
        def test_two(place): pass
        """,
        driver=False,
    )
    assert run.code == 0
    test = by_name(run)["test_it"]
    assert (test["outcome"], test["blame"], test["message"]) == (
        "skipped",
        None,
        "not on this guest",
    )


def test_junit_has_the_blame_and_the_run(bench):
    run = bench("def test_it(installed_driver):\n    assert 0, 'no disk'")
    xml = (run.folder / "junit.xml").read_text()
    assert '<property name="pvlab.blame" value="driver"' in xml
    assert '<property name="pvlab.verdict" value="FAIL"' in xml
    assert '<property name="pvlab.accelerator" value="tcg-hvm"' in xml
    assert "blamed on DRIVER: no disk" in xml


def test_junit_goes_where_the_user_says(bench):
    run = bench("def test_it(place): pass", "--junitxml=mine.xml", driver=False)
    assert not (run.folder / "junit.xml").exists()
    assert "pvlab.verdict" in (bench.path / "mine.xml").read_text()


def test_environment_mirrors_options(bench, monkeypatch):
    monkeypatch.setenv("PVLAB_ACCEL", "tcg-pv")
    run = bench("def test_it(place): pass", driver=False)
    assert run.journal[0] == "prepare tcg-pv"


def test_option_wins_over_environment(bench, monkeypatch):
    monkeypatch.setenv("PVLAB_ACCEL", "tcg-pv")
    run = bench("def test_it(place): pass", "--pvlab-accel=kvm", driver=False)
    assert run.journal[0] == "prepare kvm"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--pvlab-driver=missing"], "missing"),
        (["--pvlab-profile=nonsense"], "nonsense"),
        (["--pvlab-run-id=../x"], "cannot name a run"),
        (["--pvlab-config=own.toml"], "no driver package to test"),
    ],
)
def test_bad_input_is_one_line_and_no_test_runs(bench, args, message):
    (bench.path / "own.toml").write_text(OWN_PROFILE)
    run = bench("def test_it(installed_driver): pass", *args, driver=False)
    assert run.code == pytest.ExitCode.USAGE_ERROR
    errors = [line for line in run.pytest.stderr.lines if line.strip()]
    assert len(errors) == 1
    assert errors[0].startswith("ERROR: pvlab: ")
    assert message in errors[0]
    assert run.journal == []


def test_stand_in_comes_with_a_driver(bench, monkeypatch):
    class Store:
        def ensure(self, name):
            plugin_fakes.write_package(bench.path / name / "good")
            return SimpleNamespace(path=bench.path / name)

    monkeypatch.setattr(lab.plugin.workplace, "Store", Store)
    monkeypatch.setattr(lab.place.standin, "Ladder", plugin_fakes.ladder("hvm"))
    run = bench("def test_it(installed_driver): pass", driver=False)
    assert run.code == 0
    assert run.record["driver"]["basename"] == "good"
    assert "the stand-in's own, standin-drivers/good" in run.text


def test_stand_in_without_hvm_comes_with_a_driver_of_its_own(bench, monkeypatch):
    class Store:
        def ensure(self, name):
            plugin_fakes.write_package(bench.path / name / "good", plugin_fakes.AMD64)
            return SimpleNamespace(path=bench.path / name)

    monkeypatch.setattr(lab.plugin.workplace, "Store", Store)
    monkeypatch.setattr(lab.place.standin, "Ladder", plugin_fakes.ladder("pv"))
    run = bench(
        "def test_it(installed_driver): pass",
        driver=False,
        template="accel=plugin_fakes.accelerator('tcg-pv', 'pv')",
    )
    assert run.code == 0
    assert "the stand-in's own, standin-drivers-pv/good" in run.text


def test_driver_of_the_other_stand_in_is_bad_input(bench):
    plugin_fakes.write_package(bench.path / "pv", plugin_fakes.AMD64)
    run = bench("def test_it(installed_driver): pass", "--pvlab-driver=pv", driver=False)
    assert run.code == pytest.ExitCode.USAGE_ERROR
    assert "the driver is for amd64, the guest that this accelerator runs is x86" in run.text
    assert not any(line.startswith("clone") for line in run.journal)


def test_guest_is_called_what_it_will_be(bench):
    """Before anything is prepared, as far as the options tell."""
    run = bench("def test_it(place): pass", "--pvlab-accel=tcg-pv", driver=False)
    assert "pvlab: guest: stand-in: 64-bit PV guest" in run.text


def test_image_that_cannot_be_built_is_the_lab_s(bench, monkeypatch):
    class Store:
        def ensure(self, name):
            raise LabBroken("no disk space")

    monkeypatch.setattr(lab.plugin.workplace, "Store", Store)
    monkeypatch.setattr(lab.place.standin, "Ladder", plugin_fakes.ladder("hvm"))
    run = bench("def test_it(installed_driver): pass", driver=False)
    assert run.code == 3
    assert "pvlab: no disk space" in run.text
    assert run.record is None


def test_maxfail_stops_at_the_first_failure(bench):
    run = bench(
        "def test_one(installed_driver): assert 0\ndef test_two(installed_driver): pass",
        "--maxfail=1",
    )
    assert run.code == 1
    assert run.record["verdict"]["status"] == "FAIL"
    assert [test["outcome"] for test in run.record["tests"]] == ["failed"]


def test_area_and_claim_markers_are_known(bench):
    run = bench(
        """
        import pytest
        @pytest.mark.area("attach")
        @pytest.mark.claim("size detected correctly", source="announcement 0.0.3")
        def test_it(place): pass
        """,
        "--strict-markers",
        driver=False,
    )
    assert run.code == 0
    assert by_name(run)["test_it"]["area"] == "attach"


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_cleans_up_and_leaves_a_record(bench, signum):
    bench.pytester.makeconftest(CONFTEST.format(prepare="pass", template=""))
    bench.pytester.makepyfile(
        f"""
        import os, signal
        def test_done(place): pass
        def test_it(place):
            os.kill(os.getpid(), {int(signum)})
            signal.pause()
        def test_never(place): pass
        """
    )
    command = [sys.executable, "-m", "pytest", *PLUGIN, "-p", "no:cacheprovider"]
    done = subprocess.run([*command, "--pvlab-run-id=run"], cwd=bench.path, capture_output=True)
    assert done.returncode == pytest.ExitCode.INTERRUPTED
    journal = (bench.path / "journal").read_text().splitlines()
    assert journal[-2:] == ["clone 2", "closed 2"]
    folder = bench.path / "results" / "run"
    record = json.loads((folder / "run.json").read_text())
    assert record["ended_how"] == "interrupted"
    assert record["verdict"]["status"] == "UNDECIDED"
    assert record["tests"][1]["message"] == "interrupted while it ran"
    assert (folder / "report.html").is_file()


def test_interrupt_is_known_even_when_nobody_can_say_where(bench):
    bench.pytester.makeconftest(
        CONFTEST.format(prepare="pass", template="")
        + "\ndef pytest_keyboard_interrupt(excinfo): raise SystemError('depth mismatch')\n"
    )
    bench.pytester.makepyfile(
        """
        def test_done(place): pass
        def test_it(place): raise KeyboardInterrupt
        """
    )
    command = [sys.executable, "-m", "pytest", *PLUGIN, "-p", "no:cacheprovider"]
    done = subprocess.run([*command, "--pvlab-run-id=run"], cwd=bench.path, capture_output=True)
    assert b"depth mismatch" in done.stderr
    record = json.loads((bench.path / "results" / "run" / "run.json").read_text())
    assert record["ended_how"] == "interrupted"
    assert record["verdict"]["status"] == "UNDECIDED"


def test_nothing_is_collected_while_pytest_reads_sources(bench):
    bench.pytester.makeconftest(
        CONFTEST.format(prepare="pass", template="")
        + """
import gc, pytest

def note(hook):
    with open("collects", "a") as file:
        print(hook, gc.isenabled(), file=file)

def pytest_keyboard_interrupt(excinfo):
    note("interrupt")

@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item, call):
    note(call.when)
"""
    )
    bench.pytester.makepyfile(
        """
        import gc
        def test_it(place): assert gc.isenabled()
        def test_interrupted(place): raise KeyboardInterrupt
        """
    )
    command = [sys.executable, "-m", "pytest", *PLUGIN, "-p", "no:cacheprovider"]
    subprocess.run(command, cwd=bench.path, capture_output=True)
    assert (bench.path / "collects").read_text().splitlines() == [
        "setup False",
        "call False",
        "teardown False",
        "setup False",
        "interrupt False",
    ]
