"""Running a scenario: what is done, in which order, and what is made of what happened."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import scenario_fakes
from scenario_fakes import DONE, PANIC, REFUSED, WRONG

from lab.core.errand import Ended, Errand
from lab.core.errors import (
    Blame,
    DeadlineExpired,
    DriverFailure,
    ExitCode,
    GuestCrashed,
    LabBroken,
    UsageError,
)
from lab.guest.crash import CrashKind, CrashReport
from lab.scenario import run as module
from lab.scenario.outcome import End
from lab.scenario.text import loads


@pytest.fixture
def place(tmp_path, monkeypatch):
    return scenario_fakes.install(monkeypatch, module, scenario_fakes.Place(tmp_path))


@pytest.fixture
def play(place):
    def play(steps, **how):
        text = "pvlab_scenario: 1\nsteps:\n" + "".join(f"- {step}\n" for step in steps)
        return module.run(
            loads(text), place, installed=SimpleNamespace(devices=("XEN\\VBD",)), **how
        )

    return play


ATTACH = "attach: {disk: hdc, size: 1 MiB}"


def test_steps_are_done_in_their_order(place, play):
    outcome = play(
        [
            "attach: {disk: hdc, size: 1 MiB, room: 8}",
            "partition: {disk: hdc, size_mib: 3}",
            "format: X",
            "put_file: {path: 'C:\\a.bin', size_bytes: 10}",
            "in_guest: chkdsk X",
            "io: {disk: hdc, action: write, count: 16, threads: 4, shift: true}",
            "start_io: {disk: hdc, threads: 2, wait: 3}",
            "fault: {disk: hdc, kind: error, first: 8, count: 8}",
            "fault: {disk: hdc, kind: heal}",
            "wait_io: hdc",
            "stop_io: hdc",
            "check: {disk: hdc, gen: null}",
            "flush: hdc",
            "pause",
            "unpause",
            "detach: {disk: hdc, force: true}",
            "attach: hdc",
            "disable_driver",
            "enable_driver",
            "save",
            "restore",
            "opaque: pulled the plug",
            "reboot",
            "io: {disk: hdc, action: bench, ops: 5}",
            "power_off",
        ]
    )
    assert outcome.end is End.PASSED, outcome
    assert place.calls == [
        "make /dev/exact-1 2048 room=8",
        "attach /dev/exact-1 hdc w",
        "disks.partition 1 X size_mib=3",
        "disks.format X",
        r"files.put_bytes C:\a.bin",
        "channel.run chkdsk X",
        "write 1 0 16 threads=4 shift=True",
        "start 1 0 1024 threads=2",
        "busy 3",
        "table 16 2032 linear",
        "table 0 2048 linear",
        "busy 1",
        "end job",
        "check 0 1024 gen=3",
        "flush 1",
        "toolstack.pause",
        "toolstack.unpause",
        "detach 5632 force",
        "attach /dev/exact-1 hdc w",
        "drivers.disable XEN\\VBD",
        "drivers.enable XEN\\VBD",
        "save",
        "restore",
        "reboot",
        "bench 2 0 1024 ops=5 op=read",
        "power_off",
    ]
    starts = [moment.start for moment in outcome.moments]
    assert len(outcome.moments) == 25
    assert starts == sorted(starts)
    assert all(moment.start <= moment.end for moment in outcome.moments)


def test_repetitions_and_jitter_of_a_seed(place, play):
    outcome = play(
        [
            ATTACH,
            "repeat: {times: 3, steps: [{jitter: {up_to: 0.002}}, {detach: hdc}, {attach: hdc}]}",
        ]
    )
    assert outcome.end is End.PASSED
    assert [call.split()[0] for call in place.calls] == ["make", "attach"] + [
        "detach",
        "attach",
    ] * 3
    assert sum("jitter" in moment.words for moment in outcome.moments) == 3


def test_lanes_of_attaches_and_detaches_are_one_script(place, play):
    outcome = play(
        [
            ATTACH,
            "together: [[{wait: 0.5}, {detach: hdc}], [{attach: {disk: hdd, size: 9}}]]",
            "io: {disk: hdd}",
        ]
    )
    assert outcome.end is End.PASSED, outcome
    assert "at once: detach hdc, attach hdd" in place.calls
    assert "exercise 2 0 1024 gens=1" in place.calls


def test_other_lanes_run_side_by_side(place, play):
    outcome = play(
        [
            ATTACH,
            "attach: {disk: hdd, size: 5000}",
            "together: [[{io: hdc}, {detach: hdc}], [pause, {wait: 0.01}, unpause],"
            " [{flush: hdd}]]",
            "io: hdd",
        ]
    )
    assert outcome.end is End.PASSED, outcome
    assert {"exercise 1 0 1024 gens=1", "detach 5632", "toolstack.pause", "flush 2"} <= set(
        place.calls
    )


def test_a_crash_is_the_driver_s_with_its_facts(place, play):
    place.crash.after = "detach"
    place.serial = "booted\n" + "\n".join(PANIC.evidence) + "\n"
    place.fails["detach"] = DriverFailure("the frontend does not let go")
    outcome = play([ATTACH, "start_io: hdc", "detach: hdc"])
    assert (outcome.end, outcome.blame) == (End.CRASH, Blame.DRIVER)
    assert outcome.at == "step 3, detach hdc"
    assert outcome.facts
    assert outcome.facts[0].kind in ("oops", "panic")
    assert outcome.exit_code is ExitCode.DRIVER_FAILED
    assert outcome.line.startswith("crash at step 3, detach hdc: crashed during detach hdc")


def test_a_crash_in_a_lane_is_found(place, play):
    place.crash.after = "detach"
    place.fails["detach"] = DriverFailure("the frontend does not let go")
    outcome = play([ATTACH, "together: [[{io: hdc}, {detach: hdc}], [pause, unpause]]"])
    assert outcome.end is End.CRASH
    assert outcome.at == "step 2.1.2, detach hdc"


def test_a_crash_after_the_last_step_is_found(place, play):
    place.crash.after = "attach"
    outcome = play([ATTACH])
    assert outcome.end is End.CRASH
    assert "after the last step" in outcome.reason
    assert outcome.facts


def test_a_silent_guest_hangs(place, play):
    place.crash.after = "detach"
    place.crash.found = CrashReport(
        CrashKind.SILENT, "it stopped answering while its domain runs", ()
    )
    place.fails["detach"] = DriverFailure("the frontend does not let go")
    outcome = play([ATTACH, "detach: hdc"])
    assert outcome.end is End.HANG
    assert outcome.facts[0].kind == "hang"


def test_requests_without_an_answer_hang(place, play):
    place.fails["end job"] = DeadlineExpired("the running writes to end", "generation=3", 60.0)
    outcome = play([ATTACH, "start_io: hdc", "stop_io: hdc"])
    assert (outcome.end, outcome.blame) == (End.HANG, Blame.DRIVER)
    assert outcome.at == "step 3, stop_io hdc"
    assert outcome.facts[0].stuck == "requests"


def test_a_driver_that_does_not_let_go_hangs(place, play):
    held = "detach: backend Closing, frontend Connected"
    place.fails["detach"] = DriverFailure("the frontend does not let go", stuck=held)
    outcome = play([ATTACH, "detach: hdc"])
    assert (outcome.end, outcome.blame) == (End.HANG, Blame.DRIVER)
    assert [(fact.kind, fact.stuck) for fact in outcome.facts] == [("hang", held)]


def test_a_driver_that_gives_up_does_not_hang(place, play):
    place.fails["detach"] = DriverFailure("the frontend closed")
    outcome = play([ATTACH, "detach: hdc"])
    assert (outcome.end, outcome.facts) == (End.FAILED, ())


@pytest.mark.parametrize(
    ("steps", "results", "end"),
    [
        (["io: hdc"], [WRONG], End.WRONG_DATA),
        (["io: {disk: hdc, expect: any}"], [WRONG], End.WRONG_DATA),
        (["io: hdc"], [REFUSED], End.FAILED),
        (["io: {disk: hdc, may_fail: true}"], [REFUSED], End.PASSED),
        (["io: {disk: hdc, expect: any}"], [REFUSED], End.PASSED),
        (["io: {disk: hdc, expect: errors}"], [REFUSED], End.PASSED),
        (["io: {disk: hdc, expect: errors}"], [DONE], End.FAILED),
    ],
)
def test_what_requests_come_to(place, play, steps, results, end):
    place.results = list(results)
    outcome = play([ATTACH, *steps])
    assert outcome.end is end
    assert outcome.blame is (None if end is End.PASSED else Blame.DRIVER)


def test_wrong_data_on_the_backing_device(place, play, monkeypatch):
    monkeypatch.setattr(scenario_fakes.FakeMapped, "wrong", lambda *_, **__: ("sector 5: zeroes",))
    outcome = play([ATTACH, "check: hdc"])
    assert outcome.end is End.WRONG_DATA
    assert outcome.reason == "the backing device of hdc holds: sector 5: zeroes"


def test_a_broken_lab_is_not_the_driver_s(place, play):
    place.broken = "QEMU (pid 4711) ended"
    place.fails["detach"] = DriverFailure("the frontend does not let go")
    outcome = play([ATTACH, "detach: hdc"])
    assert (outcome.end, outcome.blame) == (End.LAB, Blame.LAB)
    assert outcome.exit_code is ExitCode.LAB_BROKEN


def test_the_lab_s_failure_ends_a_step_that_may_fail(place, play):
    place.fails["detach"] = LabBroken("dom0 is gone")
    outcome = play([ATTACH, "detach: {disk: hdc, may_fail: true}"])
    assert outcome.end is End.LAB


def test_a_mistake_of_the_lab_is_the_lab_s(place, play):
    place.fails["detach"] = ZeroDivisionError("oh")
    outcome = play([ATTACH, "detach: hdc"])
    assert (outcome.end, outcome.blame) == (End.LAB, Blame.LAB)
    assert "ZeroDivisionError" in outcome.reason


def test_a_crash_that_a_step_met_is_not_forgiven(place, play):
    place.fails["detach"] = GuestCrashed("it crashed")
    outcome = play([ATTACH, "detach: {disk: hdc, may_fail: true}"])
    assert outcome.end is End.CRASH


def test_disks_of_one_size_cannot_be_told_apart(place, play):
    with pytest.raises(UsageError, match="have 4096 sectors each"):
        play(
            [
                "together: [[{attach: {disk: hdc, size: 4096}}],"
                " [{attach: {disk: hdd, size: 4096}}]]",
                "io: hdc",
            ]
        )


def test_a_detach_leaves_the_others_their_numbers(place, play):
    outcome = play(
        [
            ATTACH,
            "attach: {disk: hdd, size: 3000}",
            "attach: {disk: sdb, size: 3000}",
            "detach: hdc",
            "io: sdb",
            "io: hdd",
        ]
    )
    assert outcome.end is End.PASSED, outcome
    assert place.calls[-2:] == ["exercise 3 0 1024 gens=1", "exercise 2 0 1024 gens=1"]


def test_disks_are_found_by_their_size_after_a_restart(place, play, monkeypatch):
    def reboot(_, deadline):
        # The guest's own disk, number 0 before, is among those that changed places.
        place.numbers = [0, 1, 2]
        place.sizes = {0: 3000, 1: 99, 2: 2048}

    monkeypatch.setattr(module.lifecycle, "reboot", reboot)
    outcome = play([ATTACH, "attach: {disk: hdd, size: 3000}", "reboot", "io: hdc", "io: hdd"])
    assert outcome.end is End.PASSED, outcome
    assert place.calls[-2:] == ["exercise 2 0 1024 gens=1", "exercise 0 0 1024 gens=1"]


def test_disks_of_one_size_keep_their_numbers_over_a_restore(place, play):
    outcome = play(
        [ATTACH, "attach: {disk: hdd, size: 1 MiB}", "save", "restore", "io: hdd", "io: hdc"]
    )
    assert outcome.end is End.PASSED, outcome
    assert place.calls[-2:] == ["exercise 2 0 1024 gens=1", "exercise 1 0 1024 gens=1"]


@pytest.mark.parametrize(
    "steps",
    [
        ["pause: {}", "wait: 3600"],
        ["pause: {}", "repeat: {times: 2, steps: [wait: 3600]}"],
        ["together: {lanes: [[pause: {}, wait: 3600], [wait: 3600, destroy: {}]]}"],
        ["wait: {seconds: 3600, may_fail: true}"],
    ],
)
def test_one_that_is_ended_has_no_outcome(place, play, monkeypatch, steps):
    """Nobody is blamed, and nothing is looked into: its machine is gone."""
    errand = Errand()
    rest = module.rest

    def ended_in_it(what, seconds):
        errand.end()
        rest(what, seconds)

    monkeypatch.setattr(module, "rest", ended_in_it)
    monkeypatch.setattr(module, "outcome_of", lambda *args, **how: pytest.fail("looked into"))
    with pytest.raises(Ended):
        errand.run(lambda: play(steps))
    assert "destroy" not in " ".join(place.calls)
