from __future__ import annotations

import os
import platform
import signal
import subprocess
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from night_fakes import NIGHT, FakeLauncher, item, plan, ran, record, write_templates

from lab.core.deadline import Deadline, NotYet, wait_for
from lab.core.errors import DeadlineExpired, UsageError
from lab.core.lock import locked
from lab.nightly.night import SILENT_SECONDS, Night, order_of, take_over
from lab.nightly.pool import Ended, Event, LocalPool, Started
from lab.nightly.work import Done, Order, Site, finished_run, new_run
from lab.results.store import (
    AttemptEnd,
    ItemState,
    Store,
    attempts,
    claim,
    heartbeat,
    items,
    note_run,
    reap,
    runs,
)
from lab.results.writer import encode


@pytest.fixture
def site(tmp_path: Path) -> Site:
    (tmp_path / "results").mkdir()
    write_templates(tmp_path)
    return Site(tmp_path / "results", places=2, locks=tmp_path / "places", grace=5.0)


def nothing(line: str) -> None:
    pass


def run_night(
    store: Store,
    site: Site,
    *,
    seconds: float = 3600.0,
    takes: float = 0.0,
    say: Callable[[str], None] = nothing,
) -> dict[str, str]:
    with LocalPool(site, FakeLauncher(site.results.parent, takes)) as pool:
        return Night(store, NIGHT, pool, site, seconds=seconds, say=say).run()


def states(store: Store) -> dict[str, ItemState]:
    return {one.key: one.state for one in items(store, NIGHT)}


def hows(store: Store, key: str) -> list[AttemptEnd | None]:
    return [one.how for one in attempts(store, NIGHT, key)]


def test_every_item_runs_once_in_the_plan_s_order(store: Store, site: Site) -> None:
    plan(store, [item(f"i{n}", "fail" if n == 1 else "pass") for n in range(4)])
    said: list[str] = []
    assert run_night(store, replace(site, places=1), say=said.append) == {}
    assert set(states(store).values()) == {ItemState.DONE}
    ended = [run.split("-")[2] for run in ran(site.results.parent)["end"]]
    assert ended == ["00000", "00001", "00002", "00003"]
    assert {run.name for run in runs(store)} == {one.run for one in items(store, NIGHT)}
    assert any("[2/4] i1: FAIL: the driver failed" in line for line in said)
    logs = list((site.results / "nightly" / NIGHT).glob("*.log"))
    assert len(logs) == 4


def test_what_the_lab_failed_on_runs_again_and_not_for_ever(store: Store, site: Site) -> None:
    plan(store, [item("once", "lab-once"), item("ever", "lab")], max_lab_failures=3)
    run_night(store, site)
    assert states(store) == {"once": ItemState.DONE, "ever": ItemState.LAB_FAILED}
    assert hows(store, "once") == [AttemptEnd.LAB_FAILED, AttemptEnd.DONE]
    assert hows(store, "ever") == [AttemptEnd.LAB_FAILED] * 3
    assert "dom0 is gone" in attempts(store, NIGHT, "ever")[0].message
    # Each attempt has its run, and all of them are in the store.
    assert len(runs(store)) == 5


def test_what_the_driver_fails_on_does_not_run_again(store: Store, site: Site) -> None:
    plan(store, [item("bad", "fail")])
    run_night(store, site)
    assert hows(store, "bad") == [AttemptEnd.DONE]


class Launcher(FakeLauncher):
    """Runs a command of its own."""

    def __init__(self, *words: str) -> None:
        self.words = words

    def __call__(self, order: Order, run: str, results: Path) -> tuple[str, ...]:
        if not self.words:
            raise UsageError("no such profile here")
        return self.words


@pytest.mark.parametrize(
    ("words", "tries", "says"),
    [
        (("sh", "-c", "exit 4"), 1, "left no record and exited 4"),
        (("sh", "-c", "exit 1"), 3, "left no record and exited 1"),
        (("sh", "-c", "kill -9 $$"), 3, "left no record and exited -9"),
        ((), 1, "no such profile here"),
        (("/nonexistent/program",), 3, "left no record and exited 127"),
    ],
)
def test_items_that_leave_no_record(
    store: Store, site: Site, words: tuple[str, ...], tries: int, says: str
) -> None:
    plan(store, [item("i")], max_lab_failures=3)
    with LocalPool(site, Launcher(*words)) as pool:
        Night(store, NIGHT, pool, site, seconds=3600.0, say=nothing).run()
    [one] = items(store, NIGHT)
    assert one.state is ItemState.LAB_FAILED
    assert one.message == says
    assert hows(store, "i") == [AttemptEnd.LAB_FAILED] * tries


def test_an_item_that_does_not_end_is_ended(store: Store, site: Site) -> None:
    plan(store, [item("i", limit_seconds=0.3)], max_lab_failures=1)
    run_night(store, replace(site, grace=0.3), takes=60.0)
    [one] = items(store, NIGHT)
    assert one.state is ItemState.LAB_FAILED
    assert "was not done within 0 s" in one.message


def killed_with(store: Store, site: Site, **differs: object) -> str:
    """A night was killed with this in the record of its only item's run; the run's id."""
    plan(store, [item("i")])
    begun = claim(store, NIGHT, f"{platform.node()}:1")
    assert begun is not None
    run = new_run(order_of(begun.item))
    note_run(store, begun, run)
    (site.results / run).mkdir()
    (site.results / run / "run.json").write_bytes(encode(record(run, **differs)))
    return run


def test_a_run_that_had_ended_when_the_night_was_killed_counts(store: Store, site: Site) -> None:
    run = killed_with(store, site)
    run_night(store, site)
    [one] = items(store, NIGHT)
    assert (one.state, one.run, one.losses) == (ItemState.DONE, run, 0)
    assert not (site.results.parent / "journal").exists()
    # The report, which is written last, is there all the same.
    assert (site.results / run / "report.html").is_file()


def test_a_run_that_had_not_ended_does_not_count(store: Store, site: Site) -> None:
    run = killed_with(store, site, ended=None, ended_how="running", verdict=None)
    run_night(store, site)
    [one] = items(store, NIGHT)
    assert (one.state, one.losses) == (ItemState.DONE, 1)
    assert one.run != run
    assert hows(store, "i") == [AttemptEnd.LOST, AttemptEnd.DONE]


def test_an_item_that_ends_every_night_it_runs_in_is_given_up(store: Store, site: Site) -> None:
    plan(store, [item("killer"), item("other")], max_losses=2)
    for _ in range(2):
        claim(store, NIGHT, f"{platform.node()}:1", item="killer")
        take_over(store, NIGHT, site, nothing)
    run_night(store, site)
    assert states(store) == {"killer": ItemState.LAB_FAILED, "other": ItemState.DONE}


def test_a_night_that_lives_on_another_machine_is_left_alone(store: Store, site: Site) -> None:
    plan(store, [item("i")])
    theirs = claim(store, NIGHT, "elsewhere:1")
    assert theirs is not None
    with pytest.raises(UsageError, match="runs on elsewhere:1"):
        run_night(store, site)
    long_ago = datetime.now(UTC) - timedelta(seconds=SILENT_SECONDS + 1)
    heartbeat(store, theirs, now=long_ago)
    run_night(store, site)
    assert states(store) == {"i": ItemState.DONE}


def test_what_there_is_no_time_for_does_not_begin(store: Store, site: Site) -> None:
    plan(store, [replace(item("long"), expected_seconds=600.0), item("short")])
    assert run_night(store, site, seconds=60.0) == {"long": "no time was left"}
    assert states(store) == {"long": ItemState.PENDING, "short": ItemState.DONE}


def test_an_interrupt_ends_what_runs_and_gives_it_back(store: Store, site: Site) -> None:
    plan(store, [item("i"), item("j")])

    def say(line: str) -> None:
        if line.startswith("j: begins"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_night(store, replace(site, grace=0.2), takes=60.0, say=say)
    assert set(states(store).values()) == {ItemState.PENDING}
    assert hows(store, "i") == [AttemptEnd.RELEASED]
    assert not finished_run(site.results, NIGHT)
    run_night(store, site)
    assert set(states(store).values()) == {ItemState.DONE}


def test_two_that_want_one_place_take_turns(store: Store, site: Site) -> None:
    one_place = replace(site, places=1)
    plan(store, [item("i")])
    said = threading.Event()
    with locked(site.locks / "0.lock", Deadline(5.0)):
        night = threading.Thread(
            target=run_night, args=(store, one_place), kwargs={"say": lambda line: said.set()}
        )
        night.start()
        assert said.wait(30.0)
        assert states(store) == {"i": ItemState.RUNNING}
        assert not (site.results.parent / "journal").exists()
    night.join(60.0)
    assert states(store) == {"i": ItemState.DONE}


def test_a_place_is_in_use_until_what_ran_in_it_has_ended(site: Site, tmp_path: Path) -> None:
    """Even when the night that held it was killed: the run holds the lock too."""
    script = (
        "import sys, subprocess\n"
        "from pathlib import Path\n"
        "from lab.core.deadline import Deadline\n"
        "from lab.core.lock import locked\n"
        "with locked(Path(sys.argv[1]), Deadline(5)) as fd:\n"
        "    child = subprocess.Popen(['sleep', '60'], pass_fds=(fd,), stdout=subprocess.DEVNULL)\n"
        "    print(child.pid, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        ["python3", "-c", script, str(site.locks / "0.lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    child = int(holder.stdout.readline())
    try:
        holder.kill()
        holder.communicate()
        with (
            pytest.raises(DeadlineExpired, match="held by"),
            locked(site.locks / "0.lock", Deadline(0)),
        ):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
    with locked(site.locks / "0.lock", Deadline(30)):
        pass


def test_a_claim_that_somebody_else_took_counts_nothing_here(store: Store, site: Site) -> None:
    plan(store, [item("i")])
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if line == "i: begins":
            reap(store, NIGHT)
            claim(store, NIGHT, "elsewhere:1")

    run_night(store, site, say=say)
    assert any("no longer" in line for line in said)
    [one] = items(store, NIGHT)
    assert (one.state, one.worker) == (ItemState.RUNNING, "elsewhere:1")
    assert hows(store, "i") == [AttemptEnd.LOST, None]


class ScriptedPool:
    """Says what it was told to say."""

    def __init__(self, results: Path, *script: Callable[[str], Event]) -> None:
        self.results = results
        self.script = list(script)
        self.ticket = ""
        self.dropped: list[str] = []

    def free(self) -> int:
        return 0 if self.ticket else 1

    def fits(self, order: Order) -> bool:
        return not order.needs

    def possible(self, order: Order) -> bool:
        return not order.needs

    def start(self, ticket: str, order: Order, run: str) -> None:
        self.ticket = ticket

    def drop(self, ticket: str) -> None:
        self.dropped.append(ticket)

    def next(self, seconds: float) -> Event | None:
        return self.script.pop(0)(self.ticket) if self.script else None

    def stop(self) -> None:
        pass


def test_an_item_that_begins_again_elsewhere_has_lost_its_first_attempt(
    store: Store, site: Site
) -> None:
    plan(store, [item("i")])
    run = f"{NIGHT}-00000-0-bbbbbb"
    (site.results / run).mkdir()
    pool = ScriptedPool(
        site.results,
        lambda ticket: Started(ticket, f"{NIGHT}-00000-0-aaaaaa", "a:1"),
        lambda ticket: Started(ticket, run, "b:1"),
        lambda ticket: Ended(ticket, Done(run, "b")),
    )
    (site.results / run / "run.json").write_bytes(encode(record(run)))
    Night(store, NIGHT, pool, site, seconds=60.0, say=nothing).run()
    [one] = items(store, NIGHT)
    assert (one.state, one.run, one.losses) == (ItemState.DONE, run, 1)
    first, second = attempts(store, NIGHT, "i")
    assert (first.how, first.message, first.run) == (
        AttemptEnd.LOST,
        "a:1 was lost",
        f"{NIGHT}-00000-0-aaaaaa",
    )
    assert (second.how, second.run) == (AttemptEnd.DONE, run)


def test_an_item_that_is_lost_too_often_is_dropped(store: Store, site: Site) -> None:
    plan(store, [item("i")], max_losses=1)
    pool = ScriptedPool(
        site.results,
        lambda ticket: Started(ticket, f"{NIGHT}-00000-0-aaaaaa", "a:1"),
        lambda ticket: Started(ticket, f"{NIGHT}-00000-0-bbbbbb", "b:1"),
    )
    Night(store, NIGHT, pool, site, seconds=60.0, say=nothing).run()
    assert states(store) == {"i": ItemState.LAB_FAILED}
    assert pool.dropped == [pool.ticket]


def test_what_no_worker_can_run_does_not_hold_up_the_rest(store: Store, site: Site) -> None:
    run = f"{NIGHT}-00001-0-aaaaaa"
    (site.results / run).mkdir()
    (site.results / run / "run.json").write_bytes(encode(record(run)))
    plan(store, [item("kvm", needs={"kvm": 1.0}), item("any")])
    pool = ScriptedPool(site.results, lambda ticket: Ended(ticket, Done(run, "a")))
    not_run = Night(store, NIGHT, pool, site, seconds=60.0, say=nothing).run()
    assert not_run == {"kvm": "no worker has kvm 1"}
    assert states(store) == {"kvm": ItemState.PENDING, "any": ItemState.DONE}


def test_children_end_with_a_night_that_is_killed(site: Site, tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from lab.core.deadline import Deadline\n"
        "from lab.nightly.process import run_command\n"
        "with open(sys.argv[1]) as keep:\n"
        "    run_command(['sh', '-c', 'echo $$ > ' + sys.argv[2] + '; exec sleep 60'],"
        " log=Path(sys.argv[1]), keep=keep.fileno(), deadline=Deadline(60),"
        " stopped=lambda: False)\n"
    )
    log, pid_file = tmp_path / "log", tmp_path / "pid"
    log.touch()
    night = subprocess.Popen(["python3", "-c", script, str(log), str(pid_file)])

    def pid() -> int:
        text = pid_file.read_text() if pid_file.exists() else ""
        if not text.endswith("\n"):
            raise NotYet("it has not begun")
        return int(text)

    child = wait_for("the child", pid, Deadline(60))
    night.kill()
    night.wait()

    def gone() -> None:
        stat = Path(f"/proc/{child}/stat")
        # A zombie has ended; who its parent is now may take its time.
        if stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z":
            raise NotYet("it runs")

    wait_for("the child's end", gone, Deadline(30))
