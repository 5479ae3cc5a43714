"""The installation of a host: anaconda in a QEMU, watched on its serial port."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pexpect

from lab.core.deadline import Deadline
from lab.core.errors import LabBroken
from lab.el5.kickstart import BEGUN, DONE, FAILED, HOST_KEY, INSTALLED
from lab.qemu.emulator import Emulator
from lab.qemu.machine import escaped

#: How long each step may take, in seconds where KVM executes it; the last is the machine's end.
_STEPS: tuple[tuple[str, str, float], ...] = (
    (re.escape(BEGUN), "the installer to read its kickstart", 300.0),
    (re.escape(INSTALLED), "the packages to be installed", 2400.0),
    (re.escape(HOST_KEY) + r": (ssh-rsa [A-Za-z0-9+/=]+)", "the host's own SSH key", 300.0),
    (re.escape(DONE), "the host to be set up", 300.0),
)
_POWER_OFF_S = 300.0

# What ends the setup, in the words of anaconda 11.1 (Enterprise Linux 5: iw/, text.py,
# kickstart.py, loader2/), of the Linux kernel, and of the kickstart's own scripts.
_TROUBLE: tuple[tuple[str, str], ...] = (
    (re.escape(FAILED) + r": ([^\r\n]+)", "the host could not be set up: {0}"),
    (
        r"Error Parsing Kickstart Config|error was found while parsing",
        "anaconda refuses the kickstart",
    ),
    (
        r"An unhandled exception has occurred|Traceback \(most recent call last\)",
        "anaconda crashed",
    ),
    (
        r"Could not allocate requested partitions|not have enough disk space",
        "the disk is too small",
    ),
    (r"No hard drives have been found|No drives found", "anaconda finds no disk"),
    (
        r"(?:CD-?ROM|CD/DVD) (?:image )?(?:was )?not found|Please insert",
        "anaconda wants another medium",
    ),
    (
        r"Unable to read (?:package|header)|cannot be opened|Missing Package",
        "the medium is damaged",
    ),
    (r"Kernel panic - not syncing: ([^\r\n]+)", "the installer's kernel panicked: {0}"),
    (
        r"Enter the installation number|Installation Number",
        "anaconda asks for an installation number",
    ),
)


@dataclass(frozen=True, slots=True)
class SetupMachine:
    """The machine that the host is installed on: as the host's own, with CD drives.

    Attributes:
        emulator: the QEMU to start.
        accel: QEMU's ``-accel`` argument.
        cpu: QEMU's ``-cpu`` argument.
        memory_mib: RAM in MiB.
        nic: QEMU's network device.
        disk: raw image that is installed to, ``hda``.
        discs: ISO images, ``hdc`` and ``hdd``; one or two.
        kernel: the installer's kernel.
        initrd: the installer's initramfs, with the kickstart in it.
    """

    emulator: Emulator
    accel: str
    cpu: str
    memory_mib: int
    nic: str
    disk: Path
    discs: Sequence[Path]
    kernel: Path
    initrd: Path

    @property
    def argv(self) -> list[str]:
        """The whole command line: the serial port is standard output."""
        words = [
            "setpriv", "--pdeathsig", "KILL", "--",
            *self.emulator.argv,
            "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            "-machine", "pc", "-accel", self.accel, "-cpu", self.cpu, "-smp", "1",
            "-m", str(self.memory_mib),
            "-kernel", str(self.kernel), "-initrd", str(self.initrd),
            "-append", "ks=file:/ks.cfg text serial console=ttyS0,115200",
            "-drive", f"if=none,id=root,file={escaped(self.disk)},format=raw,cache=unsafe",
            "-device", "ide-hd,drive=root,bus=ide.0,unit=0",
        ]  # fmt: skip
        for unit, disc in enumerate(self.discs):
            words += [
                "-drive", f"if=none,id=disc{unit},file={escaped(disc)},format=raw,readonly=on",
                "-device", f"ide-cd,drive=disc{unit},bus=ide.1,unit={unit}",
            ]  # fmt: skip
        # restrict=on: nothing gets out; the host's address is fixed.
        return [
            *words,
            "-netdev", "user,id=net0,restrict=on",
            "-device", f"{self.nic},netdev=net0,romfile=",
            "-serial", "stdio", "-monitor", "none",
        ]  # fmt: skip


def run_setup(
    argv: Sequence[str],
    deadline: Deadline,
    *,
    patience: float = 1.0,
    say: Callable[[str], None],
    heard: Callable[[str], None],
) -> str:
    """Install, from power-on to the machine's own end.

    Args:
        argv: the machine's command line; its standard output is the serial port.
        deadline: for all of it; each step has its own part.
        patience: what each step's time is multiplied by, for emulation.
        say: told which step comes next.
        heard: told each line of the serial port.

    Returns:
        The public line of the host's SSH key.

    Raises:
        LabBroken: a step failed or did not come in time; the message says which, and what
            anaconda showed.
    """
    process = pexpect.spawn(argv[0], list(argv[1:]), timeout=None, echo=False, encoding="latin-1")
    screen = _Screen(heard)
    process.logfile_read = screen
    key = ""
    try:
        for pattern, what, seconds in _STEPS:
            say(f"waiting for {what}")
            match = _await(process, pattern, what, deadline.at_most(seconds * patience), screen)
            key = match if pattern.startswith(re.escape(HOST_KEY)) else key
        _await(process, pexpect.EOF, "the machine to switch itself off",
               deadline.at_most(_POWER_OFF_S * patience), screen)  # fmt: skip
    finally:
        process.close(force=True)
    return key


def _await(
    process: pexpect.spawn[str],
    wanted: str | type[pexpect.EOF],
    what: str,
    deadline: Deadline,
    screen: _Screen,
) -> str:
    """Wait for one pattern while looking for trouble; gives its first group."""
    pattern = wanted if not isinstance(wanted, str) else re.compile(wanted)
    trouble = [re.compile(one) for one, _ in _TROUBLE]
    ends = [] if pattern is pexpect.EOF else [pexpect.EOF]
    patterns: list[Any] = [pattern, *trouble, pexpect.TIMEOUT, *ends]
    found = process.expect(patterns, timeout=max(0.1, deadline.remaining))
    match = process.match
    groups = match.groups() if isinstance(match, re.Match) else ()
    words = [group.strip() for group in groups]
    if found == 0:
        return words[0] if words else ""
    if found <= len(trouble):
        cause = _TROUBLE[found - 1][1].format(*words)
    elif patterns[found] is pexpect.TIMEOUT:
        cause = f"waited {deadline.elapsed:.0f} s for {what}"
    else:
        cause = f"the machine ended while the lab waited for {what}"
    raise LabBroken(f"{cause}; last on its serial port: {screen.last or 'nothing'}")


class _Screen:
    """The serial port as lines: newt's windows are drawn with escape sequences."""

    _ESCAPE = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|[()][0-9A-B]|[=>78])")

    def __init__(self, heard: Callable[[str], None]) -> None:
        self.last = ""
        self._rest = ""
        self._heard = heard

    def write(self, data: str) -> None:
        """Take what came."""
        text = self._rest + data
        *lines, self._rest = re.split(r"[\r\n]+", text)
        for line in lines:
            plain = "".join(one for one in self._ESCAPE.sub(" ", line) if one.isprintable())
            plain = " ".join(plain.split())
            if plain:
                self.last = plain[:200]
                self._heard(plain)

    def flush(self) -> None:
        """Nothing is kept back."""
