"""Deciding whether a guest crashed.

No single sign will do. A panicking Linux guest shows as a reboot (``---sr-``), a Windows
bugcheck as nothing at all, and an attach's exit code says nothing either way. So the signs
are asked in the order of what they cost: the serial log, whether WinRM answers, and last
the toolstack's domain list.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from lab.core.deadline import Deadline, NotYet, wait_for
from lab.core.errors import DeadlineExpired, DriverFailure, GuestCrashed, LabBroken
from lab.core.journal import noun
from lab.guest.channel import Channel
from lab.guest.errors import GuestSilent
from lab.xen.domain import Domain

_BEFORE = 5  # serial lines kept before the first telling one
_AFTER = 60  # and after it: a Linux call trace is about forty
_ASKING_S = 30.0  # for dom0 to tell of a silent guest; an emulated one takes a second


class DomainFinder(Protocol):
    """The one thing asked of a toolstack."""

    def find(self, domain: str, deadline: Deadline) -> Domain | None:
        """The domain of that name, or None."""


class CrashKind(enum.StrEnum):
    """By what sign a crash was known."""

    SERIAL = "serial log"
    STOPPED = "domain stopped"
    REBOOTED = "rebooted by itself"
    GONE = "domain gone"
    SILENT = "stopped answering"


@dataclass(frozen=True, slots=True)
class CrashReport:
    """A crash that was seen.

    Attributes:
        kind: the sign.
        summary: one line.
        evidence: lines that prove it, oldest first.
    """

    kind: CrashKind
    summary: str
    evidence: tuple[str, ...]


@noun
class CrashMonitor:
    """Watches one guest for crashes; starts nothing and runs only when asked.

    Args:
        toolstack: finds the domain.
        domain: the domain's name.
        channel: the guest's command line.
        serial_log: reads the guest's whole serial log (the device model writes it in dom0);
            empty for a guest that prints nothing there.
        patterns: regular expressions; a serial line that matches one means a crash.
        vbd_states: XenbusStates of the guest's block devices by name, in words, to be shown
            with a silent guest; absent when nobody can tell.
        cut_off: asked about a silent guest in a running domain: says how the way to it is cut,
            or nothing if it is not, as far as anybody knows.
        silence_s: seconds of unanswered requests after which a running guest counts as
            crashed, once something else has failed already.
        grace_s: seconds ``guard`` may look for a crash after a failure: a call trace takes
            seconds on an emulated serial port.
        known: the domain's id and the length of the serial log at a moment when the guest
            was healthy, in place of a first ``mark``.
    """

    def __init__(
        self,
        toolstack: DomainFinder,
        domain: str,
        channel: Channel,
        serial_log: Callable[[Deadline], str],
        patterns: Sequence[str],
        *,
        vbd_states: Callable[[Deadline], Mapping[str, str]] | None = None,
        cut_off: Callable[[Deadline], str] | None = None,
        silence_s: float = 30.0,
        grace_s: float = 60.0,
        known: tuple[int, int] | None = None,
    ) -> None:
        self._toolstack = toolstack
        self._domain = domain
        self._channel = channel
        self._serial_log = serial_log
        self._patterns = [re.compile(pattern) for pattern in patterns]
        self._vbd_states = vbd_states
        self._cut_off = cut_off
        self._silence_s = silence_s
        self._grace_s = grace_s
        self._domid: int | None = known[0] if known else None
        self._read = known[1] if known else 0
        self._shells_lost = 0
        self._retired = False

    def mark(self, deadline: Deadline) -> None:
        """Take the present as the healthy state: only what happens from now on counts.

        Raises:
            LabBroken, DeadlineExpired: dom0 cannot be asked.
        """
        self._read = len(self._serial_log(deadline))
        found = self._toolstack.find(self._domain, deadline)
        self._domid = found.domid if found else None
        self._shells_lost = self._channel.shells_lost
        self._retired = False

    def log_anew(self) -> None:
        """The guest has a new domain, whose device model writes the serial log from its
        beginning: all of it counts, however long it was before."""
        self._read = 0

    def retire(self) -> None:
        """The guest was ended on purpose: until the next ``mark`` nothing counts as a crash."""
        self._retired = True

    @property
    def retired(self) -> bool:
        """Whether the guest was ended on purpose."""
        return self._retired

    def check(self, deadline: Deadline) -> CrashReport | None:
        """Whether the guest has crashed since ``mark``; None when it has not.

        A paused guest is silent and not crashed, nor is one that was retired. Asking dom0
        about a silent guest may take a while beyond the deadline.

        Raises:
            LabBroken, DeadlineExpired: dom0 cannot be asked, or the way to the guest is cut.
        """
        if self._retired:
            return None
        tail = self._serial_tail(deadline)
        if report := self._in_serial(tail):
            return report
        quiet = deadline.at_most(self._silence_s)
        answers = self._channel.alive(quiet)
        if answers and self._channel.shells_lost == self._shells_lost:
            return None
        # Listening to a silent guest may have used up the time, and only dom0 can tell now.
        asking = Deadline(max(deadline.remaining, _ASKING_S))
        found = self._toolstack.find(self._domain, asking)
        # The guest may have died while we listened to its silence.
        tail = self._serial_tail(asking)
        if report := self._in_serial(tail):
            return report
        return self._in_domain(found, answers, tail, quiet.elapsed, asking)

    def raise_if_seen(self, deadline: Deadline) -> None:
        """A quick look while something else is waited for: at the serial log only.

        Raises:
            GuestCrashed: the guest printed that it crashed.
            LabBroken, DeadlineExpired: dom0 cannot be asked.
        """
        if report := self._in_serial(self._serial_tail(deadline)):
            raise GuestCrashed(f"{self._domain} crashed: {report.summary}")

    @contextmanager
    def guard(self, operation: str, deadline: Deadline) -> Iterator[None]:
        """Name a crash as the cause of what fails inside.

        A ``GuestSilent``, ``DriverFailure`` or ``DeadlineExpired`` from inside becomes
        ``GuestCrashed`` if the guest crashed; otherwise, and for any other error, it passes
        unchanged. Looking for the crash may take ``grace_s`` beyond the deadline, as that
        one may be what ran out.

        Args:
            operation: what is being done, in words, for the error.
            deadline: for taking the first mark, where none was taken.

        Raises:
            GuestCrashed: with the evidence.
        """
        if self._domid is None:
            self.mark(deadline)
        try:
            yield
        except (GuestSilent, DriverFailure, DeadlineExpired) as failure:
            report = self._after_failure(Deadline(self._grace_s))
            if report is None:
                raise
            raise GuestCrashed(
                f"{self._domain} crashed during {operation}: {report.summary}",
                evidence=(*report.evidence, f"seen first: {failure.message}"),
            ) from failure

    def _after_failure(self, deadline: Deadline) -> CrashReport | None:
        """Check, and let the guest finish printing its last words."""
        report = self.check(deadline)
        if report is None or report.kind is not CrashKind.SERIAL:
            return report
        length = -1

        def settled() -> CrashReport:
            nonlocal length
            tail = self._serial_tail(deadline)
            if len(tail) != length:
                length = len(tail)
                raise NotYet("the guest is still printing")
            return self._in_serial(tail) or report

        try:
            return wait_for("the end of the call trace", settled, deadline, interval=0.5)
        except DeadlineExpired:
            return report

    def _serial_tail(self, deadline: Deadline) -> str:
        log = self._serial_log(deadline)
        # A shorter log than before was started anew: all of it is new.
        return log[self._read :] if len(log) >= self._read else log

    def _in_serial(self, tail: str) -> CrashReport | None:
        lines = tail.splitlines()
        for number, line in enumerate(lines):
            if any(pattern.search(line) for pattern in self._patterns):
                context = lines[max(0, number - _BEFORE) : number + _AFTER]
                return CrashReport(
                    CrashKind.SERIAL,
                    _plain(line),
                    tuple(_plain(one) for one in context if one.strip()),
                )
        return None

    def _in_domain(
        self,
        found: Domain | None,
        answers: bool,
        tail: str,
        waited_s: float,
        deadline: Deadline,
    ) -> CrashReport | None:
        last_words = [_plain(line) for line in tail.splitlines() if line.strip()][-_BEFORE:]
        if found is None:
            return CrashReport(
                CrashKind.GONE,
                "the domain does not exist any more",
                (*last_words, f"no domain {self._domain} in the toolstack's list"),
            )
        shown = f"domain {found.name}: id {found.domid}, state {found.state}"
        if self._domid is not None and found.domid != self._domid:
            return CrashReport(
                CrashKind.REBOOTED,
                f"the domain was restarted, id {self._domid} became {found.domid}",
                (*last_words, shown),
            )
        if found.crashed or found.shut_down or found.dying:
            return CrashReport(
                CrashKind.STOPPED, f"the domain stopped, state {found.state}", (*last_words, shown)
            )
        if answers:
            # Same domain, but the shell was forgotten: a reset inside the domain, or a shell
            # that was idle for too long. Not enough to call it a crash.
            return None
        if found.state[2:3] == "p":
            return None
        if self._cut_off is not None and (cut := self._cut_off(deadline)):
            raise LabBroken(cut)
        evidence = [*last_words, shown, f"WinRM silent for {waited_s:.0f} s"]
        if self._vbd_states is not None:
            states = self._vbd_states(deadline)
            evidence += [f"vbd {name}: {state}" for name, state in states.items()]
        return CrashReport(
            CrashKind.SILENT,
            f"it stopped answering while its domain runs (state {found.state})",
            tuple(evidence),
        )


def _plain(line: str) -> str:
    """A serial line without terminal escapes and control characters (ECMA-48, 5.4)."""
    text = re.sub(r"\x1b\[[0-?]*[ -/]*[@-~]", "", line)
    return "".join(char for char in text if char.isprintable() or char == "\t").strip()
