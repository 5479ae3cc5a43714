from __future__ import annotations

import io
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from night_fakes import NIGHT, FakeLauncher, item, plan, ran, write_templates

from lab.cli import farm as command
from lab.cli.main import main
from lab.core.errors import LabBroken, UsageError
from lab.nightly import farm
from lab.nightly.farm import LEFT_BEHIND, FarmPool, pack, scheduler_command, unpack, worker_command
from lab.nightly.night import Night
from lab.nightly.work import Order, Site
from lab.results.store import AttemptEnd, ItemState, Store, attempts, items, runs

distributed = pytest.importorskip("distributed")


@pytest.fixture
def workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of a scheduler with two workers in this process: no machines, the same code."""
    monkeypatch.setenv("PVLAB_RESULTS", str(tmp_path / "theirs"))
    monkeypatch.setenv("PVLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(farm, "results_dir", lambda: tmp_path / "theirs")
    with distributed.LocalCluster(
        n_workers=2,
        processes=False,
        threads_per_worker=1,
        dashboard_address="127.0.0.1:0",
        resources={"place": 1, "memory": 4096, "kvm": 0},
    ) as cluster:
        yield cluster.scheduler_address


@pytest.fixture
def site(tmp_path: Path) -> Site:
    (tmp_path / "theirs").mkdir()
    write_templates(tmp_path)
    return Site(tmp_path / "ours", places=1, grace=5.0)


def nothing(line: str) -> None:
    pass


def run_night(
    store: Store,
    workers: str,
    site: Site,
    launcher: FakeLauncher,
    say: Callable[[str], None] = nothing,
) -> dict[str, str]:
    with FarmPool(workers, site, launcher, patience=0.1) as pool:
        return Night(store, NIGHT, pool, site, seconds=3600.0, say=say).run()


def test_results_come_back_to_the_store(
    store: Store, workers: str, site: Site, tmp_path: Path
) -> None:
    hows = ["pass", "fail", "lab-once", "pass"]
    plan(store, [item(f"i{n}", how) for n, how in enumerate(hows)])
    assert run_night(store, workers, site, FakeLauncher(tmp_path, 0.0)) == {}
    there = items(store, NIGHT)
    assert {one.state for one in there} == {ItemState.DONE}
    assert [a.how for a in attempts(store, NIGHT, "i2")] == [
        AttemptEnd.LAB_FAILED,
        AttemptEnd.DONE,
    ]
    assert len(runs(store)) == 5
    for one in there:
        assert (site.results / (one.run or "") / "run.json").is_file()
    assert not [one for one in site.results.iterdir() if one.name.startswith(".")]


def test_a_folder_that_both_see_is_not_sent(
    store: Store,
    workers: str,
    site: Site,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(farm, "results_dir", lambda: site.results)
    monkeypatch.setattr(farm, "pack", None)
    plan(store, [item("i")])
    run_night(store, workers, site, FakeLauncher(tmp_path, 0.0))
    assert items(store, NIGHT)[0].state is ItemState.DONE


class PackageLauncher(FakeLauncher):
    """Fails unless the package has come along."""

    def __call__(self, order: Order, run: str, results: Path) -> Any:
        assert order.package is not None
        if (order.package / "xenvbd.inf").read_text() != "the driver":
            raise UsageError("no package")
        return super().__call__(order, run, results)


def test_the_package_goes_to_the_worker(
    store: Store, workers: str, site: Site, tmp_path: Path
) -> None:
    package = tmp_path / "packages" / "trunk"
    package.mkdir(parents=True)
    (package / "xenvbd.inf").write_text("the driver")
    plan(store, [item("i", package=str(package)), item("gone", package="/nowhere/at/all")])
    run_night(store, workers, site, PackageLauncher(tmp_path, 0.0))
    one, gone = items(store, NIGHT)
    assert one.state is ItemState.DONE
    assert gone.state is ItemState.LAB_FAILED
    assert "/nowhere/at/all: cannot be packed" in gone.message


def test_what_no_worker_has_is_not_waited_for(
    store: Store, workers: str, site: Site, tmp_path: Path
) -> None:
    plan(store, [item("kvm", needs={"kvm": 1}), item("big", needs={"memory": 1e6}), item("any")])
    not_run = run_night(store, workers, site, FakeLauncher(tmp_path, 0.0))
    assert not_run == {"kvm": "no worker has kvm 1", "big": "no worker has memory 1e+06"}
    assert items(store, NIGHT)[2].state is ItemState.DONE


def test_an_interrupt_ends_what_runs_on_workers(
    store: Store, workers: str, site: Site, tmp_path: Path
) -> None:
    plan(store, [item("i")])

    def say(line: str) -> None:
        if "i: on " in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_night(store, workers, site, FakeLauncher(tmp_path, 60.0), say)
    assert items(store, NIGHT)[0].state is ItemState.PENDING
    assert [a.how for a in attempts(store, NIGHT, "i")] == [AttemptEnd.RELEASED]
    # The place is free again: its run has ended, long before it would have by itself.
    run_night(store, workers, site, FakeLauncher(tmp_path, 0.0))
    assert items(store, NIGHT)[0].state is ItemState.DONE
    assert len(ran(tmp_path)["end"]) == 1


def test_no_scheduler(site: Site) -> None:
    with pytest.raises(UsageError, match=r"no scheduler answers at tcp://127\.0\.0\.1:1"):
        FarmPool("tcp://127.0.0.1:1", site, FakeLauncher(site.results, 0.0), timeout=0.5)


def test_a_run_s_folder_there_and_back(tmp_path: Path) -> None:
    run = tmp_path / "a" / "run"
    (run / "tests").mkdir(parents=True)
    (run / "run.json").write_text("{}")
    (run / "tests" / "core").write_bytes(bytes(100))
    (run / "latest").symlink_to("/etc/passwd")
    unpack(pack(run, limit=50), tmp_path / "a", "run")  # is there: stays
    assert (run / "tests" / "core").exists()
    (tmp_path / "b").mkdir()
    unpack(pack(run, limit=50), tmp_path / "b", "run")
    got = {str(one.relative_to(tmp_path / "b")) for one in (tmp_path / "b").rglob("*")}
    assert got == {"run", "run/tests", "run/run.json", f"run/{LEFT_BEHIND}"}
    assert "100 run/tests/core" in (tmp_path / "b" / "run" / LEFT_BEHIND).read_text()


@pytest.mark.parametrize("name", ["../out", "/tmp/out", "run/../../out"])
def test_what_a_worker_sends_cannot_leave_its_folder(tmp_path: Path, name: str) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo(name))
    inner = tmp_path / "inner"
    inner.mkdir()
    with pytest.raises(LabBroken, match="cannot be kept"):
        unpack(data.getvalue(), inner, "run")
    assert list(tmp_path.iterdir()) == [inner]
    assert list(inner.iterdir()) == []


def test_what_a_worker_sends_may_be_damaged(tmp_path: Path) -> None:
    with pytest.raises(LabBroken, match="cannot be kept"):
        unpack(b"no archive", tmp_path, "run")
    whole = pack(tmp_path, limit=1)
    with pytest.raises(LabBroken, match="cannot be kept"):
        unpack(whole[: len(whole) // 2], tmp_path, "run")


def test_the_worker_says_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[list[str]] = []
    monkeypatch.setattr(command, "become", made.append)
    address = "tcp://127.0.0.1:8786"
    words = ["farm", "worker", address, "--places", "3", "--memory", "9000", "--kvm"]
    assert main([*words, "--", "--tls-ca-file", "ca.pem"]) == 0
    assert made[0] == worker_command(
        address, places=3, memory_mib=9000, kvm=True, extra=["--tls-ca-file", "ca.pem"]
    )
    assert "place=3 memory=9000 kvm=1" in made[0]
    assert main(["farm", "scheduler"]) == 0
    assert made[1] == scheduler_command("127.0.0.1", 8786)
    assert made[1][0] == sys.executable


def test_addresses_and_the_missing_library(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["farm", "worker", "somewhere"]) == 2
    assert "'somewhere' is no scheduler's address" in capsys.readouterr().err
    monkeypatch.setattr(command.importlib.util, "find_spec", lambda name: None)
    assert main(["farm", "scheduler"]) == 2
    assert "pip install 'pvlab[farm]'" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UsageError, match=r"pvlab\[farm\]"):
        farm.connect("tcp://127.0.0.1:1", 0.5)
