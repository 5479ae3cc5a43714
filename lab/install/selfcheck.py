"""Whether a guest that says it is ready is: asked over WinRM, as the lab will use it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lab.core.deadline import Deadline
from lab.core.errors import LabBroken
from lab.guest.channel import Channel
from lab.install.bootini import GPLPV
from lab.install.firstboot import DUMP_NUMBERS
from lab.install.settings import InstallSettings

_SHOWN = 120


@dataclass(frozen=True, slots=True)
class Check:
    """One question.

    Attributes:
        name: what it is about.
        command: for the guest's ``cmd``.
        wanted: regular expression that the answer has to match somewhere.
        remedy: what to do when it does not.
    """

    name: str
    command: str
    wanted: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a check.

    Attributes:
        check: the question.
        ok: whether the answer is the wanted one.
        seen: the answer's beginning, one line.
    """

    check: Check
    ok: bool
    seen: str


def checks_2003(settings: InstallSettings) -> tuple[Check, ...]:
    """What has to hold in a Server 2003 guest."""
    crash = r"HKLM\SYSTEM\CurrentControlSet\Control\CrashControl"
    return (
        Check("version", "ver", r"5\.2\.3790"),
        Check(
            "PAE",
            "wmic os get PAEEnabled /value < nul",
            r"(?i)PAEEnabled=TRUE",
            "boot.ini has /pae; does the machine's processor have it?",
        ),
        Check(
            "crash dumps",
            f'reg query "{crash}" /v CrashDumpEnabled',
            rf"CrashDumpEnabled\s+REG_DWORD\s+0x{DUMP_NUMBERS[settings.dump]:x}\b",
        ),
        Check("boot.ini", r"type C:\boot.ini", rf"(?i){re.escape(GPLPV)}\b"),
        Check("DbgView", 'tasklist /fi "imagename eq dbgview.exe"', r"(?i)dbgview\.exe"),
        Check("devcon", "devcon status *", r"(?i)matching device"),
        Check(
            "MaxTimeoutms",
            "winrm get winrm/config",
            rf"MaxTimeoutms = {settings.max_timeout_ms}\b",
        ),
    )


def self_check(
    channel: Channel,
    checks: Sequence[Check],
    deadline: Deadline,
    *,
    while_waiting: Callable[[], None] | None = None,
) -> tuple[Answer, ...]:
    """Ask a guest everything.

    Args:
        channel: its command line.
        checks: the questions.
        deadline: for its first answer and all others together.
        while_waiting: called while it does not answer yet; may raise.

    Raises:
        LabBroken: an answer is not the wanted one.
        GuestSilent, DeadlineExpired: as ``Channel.wait_ready``.
    """
    channel.wait_ready(deadline, while_waiting=while_waiting)
    answers = []
    for check in checks:
        result = channel.run(check.command, deadline)
        said = f"{result.stdout}\n{result.stderr}"
        seen = " ".join(said.split())[:_SHOWN] or f"nothing, exit status {result.exit_code}"
        answers.append(Answer(check, re.search(check.wanted, said) is not None, seen))
    if wrong := [answer for answer in answers if not answer.ok]:
        told = "; ".join(f"{answer.check.name}: {answer.seen}" for answer in wrong)
        raise LabBroken(
            f"the guest is not as it should be: {told}",
            hint="; ".join(filter(None, (answer.check.remedy for answer in wrong))),
        )
    return tuple(answers)
