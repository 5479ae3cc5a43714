"""Watching an installation, against a guest that is a thread and a socket."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from pydantic import SecretStr

from lab.core.deadline import Deadline
from lab.core.errors import LabBroken
from lab.install import watch
from lab.install.screens import Look, Trouble
from lab.install.secret import Redactor
from lab.install.steps import Step
from lab.install.watch import PICTURE, TRANSCRIPT, InstallFailed, Watcher
from lab.qemu.machine import Console

STEPS = (
    Step("text-mode", "text mode", 1, reboots=True),
    Step("gui-mode", "GUI mode", 1, reboots=True),
    Step("winrm", "WinRM", 1),
    Step("ready", "ready", 1),
)
#: A minute of a step becomes 0.3 s, for those that hang.
SHORT = 0.3 / 60


def said(*reports: str) -> str:
    return "".join(f"@pvlab 1 {report}\r\n" for report in reports)


WHOLE = said("gui-mode begin", "gui-mode ok", "winrm begin", "winrm ok", "ready begin", "ready ok")


class FakeBench:
    """A guest that says one text after each start."""

    def __init__(self, *texts: str) -> None:
        self._texts = list(texts)
        self.ours, self._theirs = socket.socketpair()
        self.resets = 0
        self.dead = ""
        self.pictures = True
        self.restarted = 0

    def restarts(self, deadline: Deadline) -> int:
        if self.restarted < 0:
            raise LabBroken("nobody can tell")
        return self.restarted

    @contextlib.contextmanager
    def console(self) -> Iterator[Console]:
        yield Console(self.ours)

    def _speak(self) -> None:
        if self._texts:
            self._theirs.sendall(self._texts.pop(0).encode())

    def resume(self, deadline: Deadline) -> None:
        self._speak()

    def reset(self, deadline: Deadline) -> None:
        self.resets += 1
        self._speak()

    def hang_up(self) -> None:
        """Close the port after what is said first."""
        self._speak()
        self._texts.clear()
        self._theirs.close()

    def picture(self, target: Path, deadline: Deadline) -> None:
        if not self.pictures:
            raise LabBroken("no screen")
        Image.new("RGB", (8, 8)).save(target)

    def why_dead(self) -> str:
        return self.dead

    def close(self) -> None:
        self.ours.close()
        self._theirs.close()


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def start(tmp_path: Path, told: list[str]) -> Iterator[Callable[..., tuple[FakeBench, Watcher]]]:
    benches = []

    def make(*texts: str, **more: object) -> tuple[FakeBench, Watcher]:
        bench = FakeBench(*texts)
        benches.append(bench)
        options: dict[str, object] = {
            "say": told.append,
            "redact": Redactor([SecretStr("Geheim12")]),
            "look_every": 0.1,
            "fonts": [],
            **more,
        }
        return bench, Watcher("guest", bench, STEPS, tmp_path, **options)  # type: ignore[arg-type]

    yield make
    for bench in benches:
        bench.close()


Start = Callable[..., tuple[FakeBench, Watcher]]


def test_all_steps_in_order(start: Start, told: list[str], tmp_path: Path) -> None:
    bench, watcher = start("SeaBIOS" + WHOLE)
    done = watcher.run(Deadline(30))
    assert [(one.name, one.attempts) for one in done.steps] == [(one.name, 1) for one in STEPS]
    assert (done.restarts, done.resets, bench.resets) == (0, 0, 0)
    assert "winrm: WinRM" in told
    assert "@pvlab 1 winrm ok" in (tmp_path / TRANSCRIPT).read_text()


def test_restarts_are_counted(start: Start) -> None:
    _, watcher = start(
        WHOLE.replace("@pvlab 1 winrm begin", "@pvlab 1 gui-mode reboot\r\n@pvlab 1 winrm begin")
    )
    assert watcher.run(Deadline(30)).restarts == 1


@pytest.mark.parametrize("bad", ["winrm fail exit status 5", "winrm begin"])
def test_failed_or_hung_is_tried_again(start: Start, told: list[str], bad: str) -> None:
    first = said("gui-mode begin", "gui-mode ok", bad)
    bench, watcher = start(
        first, said("winrm begin", "winrm ok", "ready begin", "ready ok"), patience=SHORT
    )
    done = watcher.run(Deadline(30))
    assert bench.resets == done.resets == 1
    assert len(done.steps[2].troubles) == 1
    assert any("reset, attempt 2" in line for line in told)


def test_failed_too_often(start: Start, tmp_path: Path) -> None:
    first = said(
        "gui-mode begin", "gui-mode ok", "winrm begin", "winrm fail exit status 5 Geheim12"
    )
    bench, watcher = start(first, said("winrm begin", "winrm fail exit status 6"))
    with pytest.raises(InstallFailed) as caught:
        watcher.run(Deadline(30))
    assert bench.resets == 1
    assert caught.value.step.name == "winrm"
    assert caught.value.cause == "it failed: exit status 6"
    assert caught.value.picture == tmp_path / PICTURE
    assert str(tmp_path / PICTURE) in caught.value.hint
    transcript = (tmp_path / TRANSCRIPT).read_text()
    assert "Geheim12" not in transcript
    assert "exit status 5 *****" in transcript


def test_a_hang_says_what_was_heard_last(start: Start) -> None:
    _, watcher = start(
        said("gui-mode begin") + "installing Geheim12\r\n", retries=0, patience=SHORT
    )
    with pytest.raises(InstallFailed, match=r"nothing came for 0 s .*installing \*\*\*\*\*"):
        watcher.run(Deadline(30))


def test_a_screen_that_stands_still_is_told(start: Start) -> None:
    _, watcher = start("", retries=0, patience=2 * SHORT)
    with pytest.raises(InstallFailed, match=r"shows no text and has not changed for \d+ s"):
        watcher.run(Deadline(30))


def test_silence_from_the_start(start: Start) -> None:
    bench, watcher = start("", retries=0, patience=SHORT)
    bench.pictures = False
    with pytest.raises(
        InstallFailed, match=r"text-mode .*silent.*no picture of the screen"
    ) as caught:
        watcher.run(Deadline(30))
    assert caught.value.picture is None


def test_text_mode_ends_with_its_restart(start: Start) -> None:
    """GUI mode says nothing until its end: its time must not be text mode's."""
    bench, watcher = start("", retries=0, patience=SHORT)
    bench.restarted = 1
    with pytest.raises(InstallFailed) as caught:
        watcher.run(Deadline(30))
    assert caught.value.step.name == "gui-mode"


def test_without_anyone_who_counts_restarts_the_next_report_ends_it(start: Start) -> None:
    bench, watcher = start(WHOLE)
    bench.restarted = -1
    assert len(watcher.run(Deadline(30)).steps) == len(STEPS)


def test_a_step_that_was_skipped(start: Start) -> None:
    _, watcher = start(said("gui-mode begin", "winrm begin"))
    with pytest.raises(InstallFailed, match="went on to winrm before it was done"):
        watcher.run(Deadline(30))


def test_a_step_done_again_after_its_mark_was_lost(start: Start) -> None:
    _, watcher = start(
        said(
            "gui-mode begin", "gui-mode ok", "gui-mode begin", "gui-mode ok", "winrm ok", "ready ok"
        )
    )
    assert [step.attempts for step in watcher.run(Deadline(30)).steps] == [1, 1, 1, 1]


def test_reports_of_unknown_steps_and_notes_are_passed_over(start: Start) -> None:
    _, watcher = start(said("toast begin", "alive note 1") + WHOLE)
    assert len(watcher.run(Deadline(30)).steps) == len(STEPS)


def test_a_machine_that_dies(start: Start) -> None:
    bench, watcher = start(said("gui-mode begin"))
    bench.dead = "QEMU (pid 1) ended with status 1"
    bench.hang_up()
    with pytest.raises(LabBroken, match=r"guest: gui-mode: QEMU .* ended with status 1"):
        watcher.run(Deadline(30))


def test_a_port_that_closes(start: Start) -> None:
    bench, watcher = start(said("gui-mode begin"))
    bench.hang_up()
    with pytest.raises(LabBroken, match="its serial port was closed"):
        watcher.run(Deadline(30))


class TestScreen:
    @pytest.fixture
    def shows(self, monkeypatch: pytest.MonkeyPatch) -> list[Look]:
        looks: list[Look] = []
        monkeypatch.setattr(
            watch, "look_at", lambda *_: looks.pop(0) if len(looks) > 1 else looks[0]
        )
        return looks

    BLUE = Trouble("blue-screen", "a blue screen: 0x0000000A", "look")
    DIM = Trouble("blue-screen", "a blue screen", "look")
    OTHER = Trouble("no-disk", "setup finds no hard disk", "look")

    def test_what_cannot_get_better_is_told_at_once(self, start: Start, shows: list[Look]) -> None:
        shows += [Look(trouble=self.DIM), Look(trouble=self.BLUE), Look(trouble=self.DIM)]
        bench, watcher = start(said("gui-mode begin"), fonts=[object()])
        with pytest.raises(InstallFailed, match=r"gui-mode .*: a blue screen: 0x0000000A"):
            watcher.run(Deadline(30))
        assert bench.resets == 0

    def test_one_look_is_not_enough(self, start: Start, shows: list[Look]) -> None:
        shows += [Look(trouble=self.BLUE), Look(trouble=self.OTHER), Look(part="BIOS")]
        _, watcher = start(said("gui-mode begin"), fonts=[object()], retries=0, patience=2 * SHORT)
        with pytest.raises(InstallFailed, match="nothing came for"):
            watcher.run(Deadline(30))

    def test_parts_are_told(self, start: Start, shows: list[Look], told: list[str]) -> None:
        shows += [Look(part="text mode: formatting")]
        _, watcher = start("", fonts=[object()], retries=0, patience=2 * SHORT)
        with pytest.raises(InstallFailed):
            watcher.run(Deadline(30))
        assert told.count("text-mode: text mode: formatting") == 1
