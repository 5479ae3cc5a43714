"""Watching an installation: reports on the serial port, the screen, a deadline for each step.

A step that fails or hangs is tried again after a reset: the guest's script goes on with the
first step that has no mark. What cannot get better is told at once, with a picture.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import pexpect

from lab.core.deadline import Deadline
from lab.core.errors import LabBroken, PvlabError, UsageError
from lab.crash.text import plain
from lab.crash.vgafont import Font
from lab.install.screens import Look, Trouble, known_fonts, look_at
from lab.install.steps import Event, Report, Step, parse
from lab.qemu.machine import Console

PICTURE = "screen.png"
TRANSCRIPT = "install.log"
_LINE = r"[^\n]*\n"
# For one question, and for one start, to a nested host in emulation on a busy machine.
_ASK_SECONDS = 60.0
_START_SECONDS = 600.0
_LAST_LINES = 3


class Bench(Protocol):
    """The machine that something is installed on, wherever it runs."""

    def console(self) -> contextlib.AbstractContextManager[Console]:
        """The port that reports come from."""

    def picture(self, target: Path, deadline: Deadline) -> None:
        """Write a picture of the screen, a PNG file.

        Raises:
            LabBroken: there is none.
        """

    def reset(self, deadline: Deadline) -> None:
        """Press the reset button.

        Raises:
            LabBroken: it did not work.
        """

    def resume(self, deadline: Deadline) -> None:
        """Let the processor run, which waits for a listener until then."""

    def restarts(self, deadline: Deadline) -> int:
        """How often the guest restarted the machine so far; resets from outside do not count.

        Raises:
            PvlabError: nobody can tell.
        """

    def why_dead(self) -> str:
        """Why nothing more will come; empty while the machine runs."""


class InstallFailed(LabBroken):
    """An installation that does not go on.

    Args:
        what: what was installed.
        step: where it stopped.
        cause: why, one line.
        remedy: what to do about it.
        picture: of the screen; None when there is none.
    """

    def __init__(
        self, what: str, step: Step, cause: str, remedy: str, picture: Path | None
    ) -> None:
        hints = [remedy, f"picture: {picture}" if picture else "no picture of the screen"]
        super().__init__(
            f"{what}: {step.name} ({step.title}): {cause}", hint="; ".join(filter(None, hints))
        )
        self.step = step
        self.cause = cause
        self.picture = picture


@dataclass(slots=True)
class StepRecord:
    """How a step went.

    Attributes:
        name: of the step.
        seconds: from the end of the step before it to its own.
        attempts: how often it was begun.
        troubles: why attempts failed.
    """

    name: str
    seconds: float = 0.0
    attempts: int = 0
    troubles: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Watched:
    """An installation whose steps are all done.

    Attributes:
        steps: how each went, in order.
        restarts: restarts the guest reported.
        resets: resets from outside.
    """

    steps: tuple[StepRecord, ...]
    restarts: int
    resets: int


class _Attempt(Exception):
    """The attempt at the present step came to nothing."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.cause)
        self.trouble = trouble


class Watcher:
    """Watches one installation.

    Args:
        what: what is installed, for messages.
        bench: the machine.
        steps: all steps in order.
        folder: where transcript and picture go.
        say: told in lines what happens.
        redact: takes secrets out of what the guest says.
        silent_steps: names of steps that report nothing; such a step is done when the guest
            restarts, or the next one begins.
        retries: how often a step is tried again.
        patience: factor on the steps' deadlines.
        look_every: seconds between two looks at the screen.
        fonts: screens are read in; those installed when None.
    """

    def __init__(
        self,
        what: str,
        bench: Bench,
        steps: Sequence[Step],
        folder: Path,
        *,
        say: Callable[[str], None],
        redact: Callable[[str], str],
        silent_steps: frozenset[str] = frozenset({"text-mode"}),
        retries: int = 1,
        patience: float = 1.0,
        look_every: float = 10.0,
        fonts: list[Font] | None = None,
    ) -> None:
        self._what = what
        self._bench = bench
        self._steps = tuple(steps)
        self._folder = folder
        self._say = say
        self._redact = redact
        self._silent = silent_steps
        self._retries = retries
        self._patience = patience
        self._look_every = look_every
        self._fonts = known_fonts() if fonts is None else fonts
        self._records = [StepRecord(step.name) for step in self._steps]
        self._at = 0
        self._restarts = self._resets = 0
        self._begun = self._since = time.monotonic()
        self._step_end = Deadline(0)
        self._last_look = Look()
        self._shown = b""
        self._still = Deadline(0)
        self._recent: list[str] = []

    def run(self, deadline: Deadline) -> Watched:
        """Watch until the last step is done.

        Args:
            deadline: for everything together.

        Raises:
            InstallFailed: it does not go on.
            LabBroken: the machine died.
        """
        with (
            (self._folder / TRANSCRIPT).open("a", encoding="utf-8") as transcript,
            self._bench.console() as console,
        ):
            self._bench.resume(deadline.at_most(_START_SECONDS))
            self._expect_next(deadline)
            self._records[0].attempts = 1
            self._say(self._title())
            while self._at < len(self._steps):
                try:
                    for line in self._lines(console, deadline):
                        self._note(transcript.write, line)
                        self._heard(parse(line), deadline)
                        if self._at == len(self._steps):
                            break
                except _Attempt as failed:
                    self._again(failed.trouble, deadline, lambda text: self._note(
                        transcript.write, text
                    ))  # fmt: skip
                transcript.flush()
        return Watched(tuple(self._records), self._restarts, self._resets)

    # -- hearing ------------------------------------------------------------------------

    def _lines(self, console: Console, deadline: Deadline) -> Iterator[str]:
        """Lines as they come, with a look at the screen whenever none came for a while.

        Raises:
            _Attempt: the step's deadline is over, or the screen shows trouble.
            LabBroken: the machine died.
        """
        while True:
            wait = min(self._look_every, self._step_end.remaining, deadline.remaining)
            found = console.expect([_LINE, pexpect.TIMEOUT, pexpect.EOF], timeout=max(wait, 0.05))
            if found == 0:
                yield plain(str(console.after))
                continue
            if dead := self._bench.why_dead():
                raise LabBroken(f"{self._what}: {self._step.name}: {dead}", hint=self._said())
            if found == 2:
                raise LabBroken(f"{self._what}: its serial port was closed", hint=self._said())
            if self._restarted_silently(deadline):
                self._done(deadline)
                continue
            if (trouble := self._trouble(deadline)) is not None:
                raise _Attempt(trouble)
            if self._step_end.expired or deadline.expired:
                raise _Attempt(self._hung())

    def _heard(self, report: Report | None, deadline: Deadline) -> None:
        if report is None or report.event is Event.NOTE:
            return
        known = {step.name: index for index, step in enumerate(self._steps)}
        index = known.get(report.step)
        if index is None:
            return
        if report.event is Event.REBOOT:
            self._restarts += 1
            self._say(f"{report.step}: restarts")
            return
        if index < self._at:
            # Its mark was lost in a reset; the guest does it again.
            return
        while self._at < index:
            if self._step.name not in self._silent:
                raise _Attempt(
                    Trouble(
                        "order",
                        f"the guest went on to {report.step} before it was done",
                        "the guest's script and the lab's list of steps differ",
                    )
                )
            self._done(deadline)
        record = self._records[index]
        if report.event is Event.BEGIN:
            record.attempts += 1
        elif report.event is Event.FAIL:
            record.attempts = max(record.attempts, 1)
            detail = self._redact(report.detail) or "no reason given"
            raise _Attempt(Trouble("failed", f"it failed: {detail}", "", final=False))
        else:
            record.attempts = max(record.attempts, 1)
            self._done(deadline)

    # -- steps --------------------------------------------------------------------------

    @property
    def _step(self) -> Step:
        return self._steps[min(self._at, len(self._steps) - 1)]

    def _title(self) -> str:
        return f"{self._step.name}: {self._step.title}"

    def _done(self, deadline: Deadline) -> None:
        now = time.monotonic()
        self._records[self._at].seconds = round(now - self._since, 1)
        self._at += 1
        self._since = now
        if self._at < len(self._steps):
            self._expect_next(deadline)
            self._say(self._title())

    def _expect_next(self, deadline: Deadline) -> None:
        self._last_look = Look()
        self._step_end = deadline.at_most(self._step.minutes * 60 * self._patience)

    def _restarted_silently(self, deadline: Deadline) -> bool:
        """Whether the present step, which reports nothing, ended with its restart."""
        if self._step.name not in self._silent or not self._step.reboots:
            return False
        try:
            return self._bench.restarts(_ask(deadline)) > 0
        except PvlabError:
            return False

    def _hung(self) -> Trouble:
        shown = " | ".join(self._last_look.text[:4])
        seen = f"the screen shows: {shown}" if shown else "the screen shows no text"
        if (still := self._still.elapsed) > 2 * self._look_every:
            # A window of GUI mode that waits for an answer cannot be read, but it stands still.
            seen += f" and has not changed for {still:.0f} s"
        return Trouble(
            "hung",
            f"nothing came for {self._step_end.elapsed:.0f} s",
            f"{self._redact(seen)}; {self._said()}",
            final=False,
        )

    def _again(self, trouble: Trouble, deadline: Deadline, write: Callable[[str], None]) -> None:
        """Reset the machine for another attempt, or give up."""
        record = self._records[self._at]
        record.troubles.append(trouble.cause)
        write(f"** {self._step.name}: {trouble.cause}")
        failed_before = len(record.troubles)
        if trouble.final or failed_before > self._retries or deadline.expired:
            raise InstallFailed(
                self._what, self._step, trouble.cause, trouble.remedy, self._picture(deadline)
            )
        self._say(f"{self._step.name}: {trouble.cause}; reset, attempt {failed_before + 1}")
        self._bench.reset(deadline.at_most(_START_SECONDS))
        self._resets += 1
        self._expect_next(deadline)

    # -- looking ------------------------------------------------------------------------

    def _trouble(self, deadline: Deadline) -> Trouble | None:
        """What the screen says, if two looks in a row say so: text comes and goes.

        The two need not read alike: a cursor may blink on what they read.
        """
        seen = self._look(deadline)
        before, self._last_look = self._last_look, seen
        if seen.part and seen.part != before.part:
            self._say(f"{self._step.name}: {seen.part}")
        if seen.trouble is None or before.trouble is None:
            return None
        if seen.trouble.name != before.trouble.name:
            return None
        # Of two readings the longer one has more in it.
        return max(before.trouble, seen.trouble, key=lambda one: len(one.cause))

    def _look(self, deadline: Deadline) -> Look:
        picture = self._picture(deadline)
        if picture is None or not self._fonts:
            return Look()
        try:
            return look_at(picture, self._fonts)
        except UsageError:
            return Look()

    def _picture(self, deadline: Deadline) -> Path | None:
        target = self._folder / PICTURE
        try:
            self._bench.picture(target, _ask(deadline))
            shown = hashlib.sha256(target.read_bytes()).digest()
        except (PvlabError, OSError):
            # A machine without a screen is no reason to stop: the serial port tells.
            return None
        if shown != self._shown:
            self._shown, self._still = shown, Deadline(0)
        return target

    # -- telling ------------------------------------------------------------------------

    def _note(self, write: Callable[[str], object], line: str) -> None:
        clean = self._redact(line)
        self._recent = [*self._recent, clean][-_LAST_LINES:]
        write(f"[{time.monotonic() - self._begun:8.1f} s] {clean}\n")

    def _said(self) -> str:
        said = " | ".join(line for line in self._recent if line)
        return f"the serial port's last words: {said}" if said else "the serial port was silent"


def _ask(deadline: Deadline) -> Deadline:
    """For one question to the machine: some time even at the very end, for the last picture."""
    return Deadline(min(_ASK_SECONDS, max(deadline.remaining, 2.0)))
