from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from types import SimpleNamespace

import pytest
from plugin_bench import CONFTEST, PLUGIN, by_name, evidence_of

import lab.plugin.parallel
from lab.plugin.parallel import NOTE, Note, collected

pytest_plugins = ["pytester"]

XDIST = ["-p", "xdist", "-n", "2", "--dist=load", "--maxschedchunk=1"]

SUITE = """
import os
import pytest

@pytest.mark.parametrize("number", range(6))
def test_it(installed_driver, place, number, lab):
    with open("who", "a") as file:
        file.write(f"{os.environ['PYTEST_XDIST_WORKER']} {number} {lab.scratch}\\n")
    assert number != 4, "no disk"

@pytest.mark.cost(reboot=9)
def test_long(place):
    with open("who", "a") as file:
        file.write(f"{os.environ['PYTEST_XDIST_WORKER']} long x\\n")

def test_without_lab(): pass
"""


@pytest.fixture
def parallel(bench):
    def run(test, *args, **others):
        # Workers have the path that their controller started with.
        return bench(test, *XDIST, *args, process=True, **others)

    return run


def who(run, bench):
    return [line.split() for line in (bench.path / "who").read_text().splitlines()]


def test_one_run_of_all_workers(parallel, bench):
    run = parallel(SUITE)
    assert run.code == 1
    assert run.record["workers"] == 2
    assert run.record["ended_how"] == "finished"
    assert run.record["verdict"]["status"] == "FAIL"
    assert run.record["accelerator"]["name"] == "tcg-hvm"
    assert run.record["driver"]["name"] == "xenvbd"
    outcomes = {name: test["outcome"] for name, test in by_name(run).items()}
    assert outcomes == {
        **{f"test_it[{n}]": "failed" if n == 4 else "passed" for n in range(6)},
        "test_long": "passed",
    }
    assert by_name(run)["test_it[4]"]["blame"] == "driver"
    assert {"dbgview", "xl-dmesg"} <= evidence_of(run, "test_it[4]")
    assert evidence_of(run, "test_it[0]")
    folders = {test["evidence"] for test in run.record["tests"]}
    assert len(folders) == 7
    assert [path.name for path in (bench.path / "results").iterdir() if path.is_dir()].count(
        "run"
    ) == 1
    assert (bench.path / "results" / "latest").resolve() == run.folder
    assert (run.folder / "junit.xml").is_file()
    # The controller prepares once for all to see; each worker then finds what is there.
    assert sum("prepare" in line for line in run.journal) <= 3
    run.pytest.stdout.fnmatch_lines(
        ["pvlab: driver: xenvbd*", "pvlab: intensity: standard, 2 workers*", "pvlab: baking"]
    )
    assert not list((bench.path.parent / "runtime").glob("run-*"))
    assert not list((bench.path.parent / "runtime").glob("notes-*"))


def test_workers_share_nothing_and_the_longest_comes_first(parallel, bench):
    parallel(SUITE)
    lines = who(run=None, bench=bench)
    assert {worker for worker, _, _ in lines} == {"gw0", "gw1"}
    scratches = {worker: scratch for worker, _, scratch in lines if scratch != "x"}
    assert len(set(scratches.values())) == len(scratches)
    assert "long" in [number for _, number, _ in lines[:2]]


def test_without_the_lab_nothing_is_left(parallel, bench):
    run = parallel("def test_one(): pass\ndef test_two(): pass", driver=False)
    assert run.code == 0
    assert (run.record, run.journal) == (None, [])
    assert not (bench.path / "results").exists()
    assert not (bench.path.parent / "runtime").exists()


def test_bad_driver_is_told_once(parallel, bench):
    run = parallel(SUITE, "--pvlab-driver=missing", driver=False)
    assert run.code == pytest.ExitCode.USAGE_ERROR
    assert run.record is None
    errors = [line for line in run.pytest.stderr.lines if "ERROR" in line]
    assert len(errors) == 1
    assert "missing" in errors[0]
    assert not (bench.path / "who").exists()


def test_malformed_marker_is_told_once(parallel):
    run = parallel("import pytest\n@pytest.mark.cost(dance=1)\ndef test_it(place): pass")
    assert run.code == pytest.ExitCode.USAGE_ERROR
    errors = [line for line in run.pytest.stderr.lines if "ERROR" in line]
    assert len(errors) == 1
    assert "dance" in errors[0]


def test_broken_template_is_told_once_and_gives_a_verdict(parallel, bench):
    run = parallel(SUITE, prepare="raise LabBroken('mirror unreachable')")
    assert run.code == 3
    assert run.journal == ["prepare None"]
    assert run.record["verdict"]["status"] == "LAB"
    assert "mirror unreachable" in run.record["verdict"]["reasons"][0]
    assert not (bench.path / "who").exists()


def test_worker_that_dies_is_the_lab_s_and_another_goes_on(parallel):
    run = parallel(
        """
        import os
        import pytest
        @pytest.mark.parametrize("number", range(5))
        def test_it(installed_driver, number):
            if number == 1:
                os._exit(9)
        """
    )
    assert run.code == 3
    tests = by_name(run)
    assert (tests["test_it[1]"]["outcome"], tests["test_it[1]"]["blame"]) == ("error", "lab")
    assert [tests[f"test_it[{n}]"]["outcome"] for n in (0, 2, 3, 4)] == ["passed"] * 4
    assert run.record["verdict"]["status"] == "LAB"


def test_races_and_errata_work_in_workers(parallel, bench):
    (bench.path / "errata").mkdir()
    (bench.path / "errata" / "x.toml").write_text(
        'driver = "xenvbd"\nprovider = "pvlab tests"\nversion = "0.0.3.*"\n[[known]]\n'
        'test = "test_races_and_errata_work_in_workers.py::test_known"\n'
        'why = "shows twice"\nsource = "announcement"\nuntil = "open"\n'
    )
    run = parallel(
        """
        import pytest
        @pytest.mark.race(attempts=3)
        def test_race(installed_driver, jitter):
            assert jitter.seed != 2, "no disk"
        def test_known(installed_driver): assert 0
        def test_more(installed_driver): pass
        """,
        "--pvlab-errata=errata",
    )
    tests = by_name(run)
    assert tests["test_race"]["campaign"]["failed_seeds"] == [2]
    assert tests["test_race"]["evidence"]
    assert tests["test_known"]["outcome"] == "xfailed"
    assert len(run.record["errata"]) == 1
    assert json.dumps(run.record["errata"]).count("test_known") == 1


def test_stopping_at_the_first_failure_is_no_interrupt(parallel):
    run = parallel("def test_it(installed_driver): assert 0\ndef test_b(): pass", "-x")
    assert run.code == 1
    assert run.record["ended_how"] == "finished"
    assert by_name(run)["test_it"]["outcome"] == "failed"


def test_more_workers_than_memory_are_refused_before_anything_starts(monkeypatch, tmp_path):
    note = tmp_path / "gw0.json"
    note.write_text(json.dumps(asdict(Note(pid=1, tests=("a.py::test_x",)))))
    config = SimpleNamespace(stash=pytest.Stash())
    node = SimpleNamespace(
        config=config,
        gateway=SimpleNamespace(id="gw0"),
        workerinput={"workercount": 9, NOTE: str(note)},
    )
    monkeypatch.setattr(lab.plugin.parallel, "available_mib", lambda: 4096)
    with pytest.raises(pytest.UsageError, match=r"9 workers need 5760 MiB.*-n 6 fits"):
        collected(node)


def test_interrupt_reaches_the_workers_and_leaves_a_record(bench):
    bench.pytester.makeconftest(CONFTEST.format(prepare="pass", template=""))
    bench.pytester.makepyfile(
        """
        import contextlib, os, pathlib, signal
        import pytest
        @pytest.mark.parametrize("number", range(6))
        def test_it(place, number):
            pathlib.Path(f"runs-{number}").touch()
            if len(list(pathlib.Path().glob("runs-*"))) == 2:
                # Both workers may see both files; a second signal would stop the clean-up.
                with contextlib.suppress(FileExistsError):
                    pathlib.Path("sent").touch(exist_ok=False)
                    os.kill(int(os.environ["CONTROLLER"]), signal.SIGINT)
            signal.pause()
        """
    )
    code = (
        "import os, signal, sys, pytest; os.environ['CONTROLLER'] = str(os.getpid()); "
        # What was started in the background of a script ignores it, and so do its children.
        "signal.signal(signal.SIGINT, signal.default_int_handler); "
        "sys.exit(pytest.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, *PLUGIN, *XDIST, "--pvlab-run-id=run"]
    done = subprocess.run([*command, "-p", "no:cacheprovider"], cwd=bench.path)
    assert done.returncode == pytest.ExitCode.INTERRUPTED
    journal = (bench.path / "journal").read_text().splitlines()
    assert sum("clone" in line for line in journal) == 2
    assert sum("closed" in line for line in journal) == 2
    record = json.loads((bench.path / "results" / "run" / "run.json").read_text())
    assert record["ended_how"] == "interrupted"
    assert {test["message"] for test in record["tests"]} == {"interrupted while it ran"}
    assert not list((bench.path.parent / "runtime").glob("run-*"))
