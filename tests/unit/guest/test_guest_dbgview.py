from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsman import FakeCmd

from lab.core import dbglog
from lab.core.deadline import Deadline
from lab.core.errors import LabBroken
from lab.core.paths import repo_root
from lab.guest import dbgview
from lab.guest.channel import Channel
from lab.guest.dbgview import DbgView
from lab.guest.errors import GuestFileMissing
from lab.guest.files import Files

GOLDEN = Path(__file__).parent / "golden"
SAMPLES = repo_root().parent / "shared/samples"


@pytest.fixture
def view(channel: Channel) -> DbgView:
    return DbgView(channel, Files(channel))


def test_elapsed_times() -> None:
    lines = list(dbgview.parse_file(GOLDEN / "dbgview_elapsed.log"))
    assert lines[0].index is None
    assert lines[0].text == r"\\VIRTDEMO"
    assert lines[2].text == "XenVbd     TotalSectors = 2097152"
    assert lines[2].seconds == pytest.approx(0.00012345)
    assert (lines[3].missing, lines[3].text) == (2, "XenVbd\ttabbed\t")
    assert lines[4].text == " "
    assert (lines[5].pid, lines[5].text) == (1234, "from user space")
    assert (lines[6].pid, lines[6].text) == (None, "[text] from a kernel")
    assert lines[7].text == "cut off at the en"
    assert lines[8].restarted
    assert [line.missing for line in lines if line.missing] == [2]


def test_clock_times() -> None:
    lines = list(dbgview.parse_file(GOLDEN / "dbgview_clock.log"))
    assert [line.seconds for line in lines] == [86399, 1, 43201.25, 50602.007, None]
    assert [line.clock for line in lines] == [True, True, True, True, False]


def test_logs_of_real_drivers() -> None:
    if not SAMPLES.exists():
        pytest.skip("the collection of real output is not here")
    lines = list(dbgview.parse_file(SAMPLES / "dbgview_kernel_xpsp3_driver.log"))
    assert [(line.index, line.missing) for line in lines if line.missing] == [(21, 11)]
    win32 = list(dbgview.parse_file(SAMPLES / "dbgview_win32_pid_lines.log"))
    assert {line.pid for line in win32} == {15232}


def test_capture(view: DbgView, cmd: FakeCmd, tmp_path: Path, deadline: Deadline) -> None:
    cmd.programs["start"] = lambda _: ("", "", 0)
    view.start(deadline)
    assert cmd.lines[-1].endswith(r"dbgview /accepteula /t /f /k /l C:\pvlab\dbgview.log")
    assert view.lines(deadline) == ()
    with pytest.raises(GuestFileMissing):
        view.read(tmp_path / "log", deadline)
    cmd.files[dbgview.LOG] = (GOLDEN / "dbgview_elapsed.log").read_bytes()
    log = view.read(tmp_path / "log", deadline)
    assert log.read_bytes() == cmd.files[dbgview.LOG]
    assert view.lines(deadline) == tuple(dbgview.parse_file(log))
    cmd.programs["taskkill"] = lambda _: ("", "ERROR: not found.\r\n", 128)
    view.stop(deadline)


def test_no_dbgview_is_the_labs(view: DbgView, deadline: Deadline) -> None:
    with pytest.raises(LabBroken, match="does not start") as caught:
        view.start(deadline)
    assert "licence" in caught.value.hint


@given(st.lists(st.text(max_size=40), max_size=20))
def test_any_text_parses(lines: list[str]) -> None:
    for line in dbglog.parse(lines):
        assert line.missing >= 0


def test_a_log_is_not_held_as_a_whole() -> None:
    parsed = dbglog.parse(f"{n:08d}\t0.1\tx\t\r\n" for n in iter(int, 1))
    assert next(parsed).index == 0
    assert next(parsed).restarted
