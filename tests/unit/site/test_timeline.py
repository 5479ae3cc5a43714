"""One clock: what is known of each source's, within which bounds, and what stays apart."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders import evidence

from lab.evidence.manifest import PieceName
from lab.evidence.operations import (
    DOM0_KERNEL,
    DOM0_UPTIME,
    GUEST_KERNEL,
    Clocks,
    Operation,
    Operations,
    Reading,
    State,
)
from lab.site import evidence as reading
from lab.site.clocks import kernel_time, offsets
from lab.site.timeline import Entry, Source, Timeline, timeline

ZERO = 1_000_000.0


def operation(name: str, started: float, ended: float, **more: object) -> Operation:
    return Operation.model_validate(
        {"name": name, "words": name, "started": started, "ended": ended, **more}
    )


def operations(*made: Operation, kept: float = 20.0) -> Operations:
    return Operations(zero=ZERO, kept=ZERO + kept, operations=made)


def clock(name: str, shows: float, at: float, width: float = 0.1) -> Reading:
    return Reading(
        clock=name, shows=shows, earliest=ZERO + at - width / 2, latest=ZERO + at + width / 2
    )


def made(folder: Path, files: dict[str, str], *steps: Operation, clocks: Clocks | None = None
         ) -> Timeline:  # fmt: skip
    return timeline(reading.read(evidence(folder, files, operations(*steps), clocks)))  # type: ignore[arg-type]


def of(line: Timeline, source: Source) -> list[Entry]:
    return [entry for entry in line.entries if entry.source is source]


def test_a_kernel_s_lines_are_placed_by_its_mark(tmp_path: Path) -> None:
    log = "[  100.000000] boot\n[  499.500000] near\n(XEN) of no time\n[  501.000000] after\n"
    line = made(
        tmp_path,
        {PieceName.XEN_SERIAL: log},
        operation("vbd.attach", 1.0, 3.0),
        clocks=Clocks(readings=(clock(DOM0_KERNEL, 510.0, at=12.0),)),
    )
    shown = of(line, Source.XEN)
    # 510 on dom0's clock is 12 s after zero; what is long before the test is left out.
    assert [(round(e.at, 3), e.text, e.after, e.line) for e in shown] == [
        (1.5, "near", False, 2),
        (1.5, "(XEN) of no time", True, 3),
        (3.0, "after", False, 4),
    ]
    assert shown[0].slack == pytest.approx(0.05)


def test_readings_that_contradict_each_other_give_no_clock(tmp_path: Path) -> None:
    readings = (clock(DOM0_KERNEL, 510.0, at=12.0), clock(DOM0_KERNEL, 510.0, at=14.0))
    line = made(
        tmp_path,
        {PieceName.XEN_SERIAL: "[  510.000000] one\n"},
        operation("vbd.attach", 1.0, 3.0),
        clocks=Clocks(readings=readings),
    )
    assert of(line, Source.XEN) == []
    assert [clock.known for clock in line.clocks] == [False]


def test_several_readings_narrow_the_bounds(tmp_path: Path) -> None:
    readings = (
        clock(DOM0_KERNEL, 510.0, at=12.0, width=2.0),
        clock(DOM0_KERNEL, 511.0, at=13.5, width=2.0),
    )
    folder = evidence(tmp_path, {PieceName.XEN_SERIAL: "[  510.000000] one\n"}, operations(),
                      Clocks(readings=readings))  # fmt: skip
    found = offsets(reading.read(folder))[PieceName.XEN_SERIAL]
    assert found.slack == pytest.approx(0.75)


def test_dbgview_follows_the_serial_port_it_shares_lines_with(tmp_path: Path) -> None:
    serial = "[   50.000000] virtdemo: one\n[   52.500000] virtdemo: two\n"
    dbgview = "00000001\t0.00000000\tvirtdemo: one\t\r\n00000002\t2.50000000\tvirtdemo: two\t\r\n"
    line = made(
        tmp_path,
        {PieceName.GUEST_SERIAL: serial, PieceName.DBGVIEW: dbgview},
        operation("DbgView.start", 0.0, 0.5),
        clocks=Clocks(readings=(clock(GUEST_KERNEL, 52.5, at=9.0),)),
    )
    assert [(round(e.at, 3), e.text) for e in of(line, Source.DBGVIEW)] == [
        (6.5, "virtdemo: one"),
        (9.0, "virtdemo: two"),
    ]
    # What stands in both logs is shown once.
    assert of(line, Source.GUEST) == []


def test_lines_printed_twice_do_not_tie_clocks(tmp_path: Path) -> None:
    serial = "[   50.000000] same\n[   60.000000] same\n"
    dbgview = "00000001\t0.00000000\tsame\t\r\n"
    line = made(
        tmp_path,
        {PieceName.GUEST_SERIAL: serial, PieceName.DBGVIEW: dbgview},
        clocks=Clocks(readings=(clock(GUEST_KERNEL, 60.0, at=9.0),)),
    )
    assert of(line, Source.DBGVIEW) == []


def test_dbgview_alone_is_bounded_by_its_capture_and_its_reading(tmp_path: Path) -> None:
    dbgview = "00000001\t0.00000000\tone\t\r\n00000002\t6.00000000\ttwo\t\r\n"
    line = made(tmp_path, {PieceName.DBGVIEW: dbgview}, operation("DbgView.start", 4.0, 4.5))
    first, last = of(line, Source.DBGVIEW)
    # Written at 20 s and half a second to collect: zero lies between 4 and 14.5 s.
    assert first.at == pytest.approx(9.25)
    assert first.slack == pytest.approx(5.25)
    assert last.at == pytest.approx(15.25)


def test_a_clock_of_day_is_not_taken_for_elapsed_seconds(tmp_path: Path) -> None:
    dbgview = "00000001\t10:00:01.000 AM\tone\t\r\n"
    line = made(tmp_path, {PieceName.DBGVIEW: dbgview}, operation("DbgView.start", 4.0, 4.5))
    assert of(line, Source.DBGVIEW) == []
    assert [clock.words for clock in line.clocks] == ["no times"]


def test_states_are_on_dom0_s_uptime(tmp_path: Path) -> None:
    state = State(at=502.0, device="hdc", words="backend 2, frontend 1")
    line = made(
        tmp_path,
        {},
        operation("vbd.attach", 1.0, 6.0, states=[state], after="both Connected"),
        clocks=Clocks(readings=(clock(DOM0_UPTIME, 510.0, at=12.0),)),
    )
    assert [(round(e.at, 3), e.text) for e in of(line, Source.VBD)] == [
        (4.0, "hdc: backend 2, frontend 1")
    ]


def test_without_dom0_s_clock_the_state_after_an_operation_is_shown(tmp_path: Path) -> None:
    line = made(tmp_path, {}, operation("vbd.attach", 1.0, 6.0, after="both Connected"))
    assert [(e.at, e.text) for e in of(line, Source.VBD)] == [(6.0, "both Connected")]


def test_a_failed_operation_says_what_it_raised(tmp_path: Path) -> None:
    line = made(tmp_path, {}, operation("vbd.attach", 1.0, 6.0, error="GuestCrashed: it did"))
    (entry,) = of(line, Source.OPERATION)
    assert entry.bad
    assert entry.text == "vbd.attach: GuestCrashed: it did"
    assert entry.ended == 6.0


def test_without_operations_there_is_no_timeline(tmp_path: Path) -> None:
    folder = evidence(tmp_path, {PieceName.XEN_SERIAL: "[  1.000000] one\n"})
    line = timeline(reading.read(folder))
    assert line.zero is None
    assert line.entries == ()
    assert [clock.known for clock in line.clocks] == [False]


def test_a_log_keeps_its_order_when_its_times_go_back(tmp_path: Path) -> None:
    log = "[  500.000000] one\n[  499.000000] two\n[  501.000000] three\n"
    line = made(
        tmp_path,
        {PieceName.XEN_SERIAL: log},
        clocks=Clocks(readings=(clock(DOM0_KERNEL, 510.0, at=12.0),)),
    )
    assert [e.text for e in of(line, Source.XEN)] == ["one", "two", "three"]


@pytest.mark.parametrize(
    ("line", "seconds"),
    [
        ("[    0.000000] Linux version", 0.0),
        ("[12345.678901] x", 12345.678901),
        ("<6>[   12.345678] x", 12.345678),
        ("[   12.345678][    C0] x", 12.345678),
        ("(XEN) x", None),
        ("[12.3] x", None),
        ("", None),
    ],
)
def test_kernel_time(line: str, seconds: float | None) -> None:
    assert kernel_time(line) == seconds
