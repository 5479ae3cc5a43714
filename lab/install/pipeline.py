"""From media to an installed guest: floppy and disc are made, a PC is started and watched."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from lab.core.deadline import Deadline, NotYet, wait_for
from lab.core.errors import LabBroken
from lab.guest.channel import Channel
from lab.install.firstboot import DUMP_NUMBERS, FIRST_STEPS, PROGRAMS, cmdlines, scripts
from lab.install.floppy import make_floppy
from lab.install.nested import DomainBench, NestedHost
from lab.install.oem import OEM, SETUP_ON_DISC, remaster
from lab.install.pcbench import PcBench
from lab.install.secret import Redactor
from lab.install.selfcheck import Answer, Check, self_check
from lab.install.settings import InstallSettings
from lab.install.steps import SETUP_STEPS, Step
from lab.install.watch import TRANSCRIPT, Bench, Watched, Watcher
from lab.install.winnt import WinntSif
from lab.media.kinds import MediaKind
from lab.place.hardware import GUEST_DISK
from lab.place.stage import freeze
from lab.qemu.disk import create_blank
from lab.qemu.emulator import Emulator
from lab.qemu.machine import Machine
from lab.qemu.pc import PcSpec

ANSWER_FILE = "WINNT.SIF"
USERNAME = "Administrator"
WINRM_PORT = 5985
PROGRESS_PORTS = {"qemu": "COM2", "domain": "COM1"}
"""Where the guest reports. Xen 3.x gives an HVM domain one serial port only."""

DISC, RAM = "setup.iso", "ram"
FLOPPY, BLANK = "floppy.img", "blank.img"
SHUTDOWN_MINUTES = 10


@dataclass(frozen=True, slots=True)
class Sources:
    """What an installation is made of.

    Attributes:
        disc: the installation disc.
        programs: what the first boot installs, by kind.
        product_key: shown nowhere.
        password: the one Administrator gets; shown nowhere.
    """

    disc: Path
    programs: Mapping[MediaKind, Path]
    product_key: SecretStr
    password: SecretStr


@dataclass(frozen=True, slots=True)
class Hardware:
    """What a PC runs on.

    Attributes:
        emulator: the QEMU to start.
        accel: ``"kvm"`` or ``"tcg"``.
        cpu: QEMU's ``-cpu`` argument.
        patience: factor on deadlines: how much slower than with KVM it is.
    """

    emulator: Emulator
    accel: str
    cpu: str
    patience: float


def answers(settings: InstallSettings, sources: Sources) -> WinntSif:
    """The answer file of an installation."""
    return WinntSif(
        product_key=sources.product_key,
        admin_password=sources.password,
        computer_name=settings.computer_name,
        full_name=settings.full_name,
        organisation=settings.organisation,
        timezone=settings.timezone,
        crash_dump=DUMP_NUMBERS[settings.dump],
    )


def steps_of(settings: InstallSettings) -> tuple[Step, ...]:
    """All steps, in order."""
    return (*SETUP_STEPS, *FIRST_STEPS)


def disc_files(
    settings: InstallSettings, programs: Mapping[MediaKind, Path]
) -> dict[str, bytes | Path]:
    """What is put on the copy of the disc, by path."""
    port = PROGRESS_PORTS[settings.way]
    files: dict[str, bytes | Path] = {f"{OEM}/CMDLINES.TXT": cmdlines()}
    for name, content in scripts(settings, port).items():
        files[f"{SETUP_ON_DISC}/{name}"] = content
    for kind, name in PROGRAMS.items():
        if kind in programs:
            files[f"{SETUP_ON_DISC}/{name}"] = programs[kind]
    return files


@contextlib.contextmanager
def answer_floppy(folder: Path, settings: InstallSettings, sources: Sources) -> Iterator[Path]:
    """The floppy with the answer file; it holds secrets, and goes when the block ends.

    Raises:
        LabBroken: it cannot be written.
    """
    path = folder / FLOPPY
    try:
        content = answers(settings, sources).render().encode("ascii")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(make_floppy({ANSWER_FILE: content}))
        yield path
    except FileExistsError:
        raise LabBroken(f"{path} is there already") from None
    finally:
        path.unlink(missing_ok=True)


class Installation:
    """One installation in a plain PC.

    Args:
        what: what is installed, for messages.
        settings: what it is to become.
        sources: media and secrets.
        hardware: what the PC runs on.
        folder: an empty folder for disk, disc and the PC's own files.
        evidence: where transcript and picture go; ``folder`` when None.
        say: told in lines what happens.
        steps: in order; those of Server 2003 when None.
        extra: more files for the disc, by path.
        keep_ram: RAM in a file, so that the PC can be frozen.
        look_every: seconds between two looks at the screen.
    """

    def __init__(
        self,
        what: str,
        settings: InstallSettings,
        sources: Sources,
        hardware: Hardware,
        folder: Path,
        *,
        say: Callable[[str], None],
        evidence: Path | None = None,
        steps: tuple[Step, ...] | None = None,
        extra: Mapping[str, bytes] | None = None,
        keep_ram: bool = False,
        look_every: float = 10.0,
    ) -> None:
        self._what = what
        self._settings = settings
        self._sources = sources
        self._hardware = hardware
        self._folder = folder
        self._evidence = evidence or folder
        self._say = say
        self._steps = steps_of(settings) if steps is None else steps
        self._extra = dict(extra or {})
        self._keep_ram = keep_ram
        self._look_every = look_every
        self.redact = Redactor([sources.product_key, sources.password])

    @property
    def disk(self) -> Path:
        """The guest's system disk, a qcow2 file."""
        return self._folder / GUEST_DISK

    def spec(self, floppy: Path | None) -> PcSpec:
        """The PC."""
        return PcSpec(
            name=self._what,
            emulator=self._hardware.emulator,
            accel=self._hardware.accel,
            cpu=self._hardware.cpu,
            memory_mib=self._settings.memory_mib,
            disk=self.disk,
            cdrom=self._folder / DISC,
            floppy=floppy,
            address=self._settings.address,
            forwards={"winrm": WINRM_PORT},
            ram_file=self._folder / RAM if self._keep_ram else None,
            ram_shared=self._keep_ram,
            paused=True,
        )

    @contextlib.contextmanager
    def run(self, deadline: Deadline) -> Iterator[tuple[Machine, Watched]]:
        """Install, up to the last step; the PC runs until the block ends.

        Raises:
            InstallFailed: it does not go on.
            LabBroken: the PC or a program failed.
            DeadlineExpired: it took too long.
        """
        self._make_disc()
        create_blank(self.disk, self._settings.disk_gib << 10)
        if self._keep_ram:
            with (self._folder / RAM).open("wb") as ram:
                ram.truncate(self._settings.memory_mib << 20)
        with (
            answer_floppy(self._folder, self._settings, self._sources) as floppy,
            Machine(self.spec(floppy), self._folder) as machine,
        ):
            machine.start(deadline.at_most(60))
            self._write_command_line(machine)
            yield machine, self.watcher(PcBench(machine)).run(deadline)

    @contextlib.contextmanager
    def run_nested(
        self, host: NestedHost, deadline: Deadline
    ) -> Iterator[tuple[Machine, DomainBench, Watched]]:
        """Install in an HVM domain of the nested host; it runs until the block ends.

        Raises:
            InstallFailed: it does not go on.
            LabBroken: the host or a program failed.
            DeadlineExpired: it took too long.
        """
        self._make_disc()
        host.make_disks(self._folder, self._folder / DISC, self._settings.disk_gib)
        access = host.access(USERNAME, self._sources.password.get_secret_value())
        self._say("starting the nested host")
        with (
            answer_floppy(self._folder, self._settings, self._sources) as floppy,
            Machine(host.spec(self._folder), self._folder) as machine,
        ):
            machine.start(deadline.at_most(60))
            self._write_command_line(machine)
            with contextlib.closing(access.connect(machine, deadline)) as dom0:
                bench = DomainBench(machine, dom0, host.toolstack(dom0))
                bench.prepare(floppy, self._settings.memory_mib, deadline)
                try:
                    watched = self.watcher(bench).run(deadline)
                finally:
                    bench.forget_floppy(Deadline(20))
                yield machine, bench, watched
                bench.flush(deadline)

    def watcher(self, bench: Bench) -> Watcher:
        """Who watches a machine for this installation."""
        return Watcher(
            self._what,
            bench,
            self._steps,
            self._evidence,
            say=self._say,
            redact=self.redact,
            retries=self._settings.retries,
            patience=self._settings.patience * self._hardware.patience,
            look_every=self._look_every,
        )

    def _make_disc(self) -> None:
        self._say("making the disc and the floppy")
        remaster(
            self._sources.disc,
            self._folder / DISC,
            {**disc_files(self._settings, self._sources.programs), **self._extra},
        )

    def _write_command_line(self, machine: Machine) -> None:
        words = [*machine.spec.emulator.argv, *machine.spec.argv(incoming=False, monitor_fd=0)]
        (self._evidence / TRANSCRIPT).write_text(f"$ {shlex.join(words)}\n", encoding="utf-8")

    @property
    def state(self) -> Path:
        """The device state that ``freeze`` leaves."""
        return self._folder / "state"

    def freeze(self, machine: Machine, deadline: Deadline) -> PcSpec:
        """Stop the PC for good, in a state that clones start from; for ``keep_ram``.

        The floppy, which holds secrets, is exchanged for an empty one first.

        Returns:
            The PC whose state it is.

        Raises:
            LabBroken: QEMU refused, or the state does not start.
            DeadlineExpired: it took too long.
        """
        blank = self._folder / BLANK
        blank.write_bytes(make_floppy({}))
        arguments = {"device": "floppy0", "filename": str(blank), "format": "raw"}
        machine.monitor.execute("blockdev-change-medium", arguments, deadline=deadline)
        warm = self.spec(blank)
        machine.spec = warm
        freeze(machine, self._folder, deadline)
        return warm

    def channel(self, machine: Machine) -> Channel:
        """The guest's command line."""
        return Channel(
            "127.0.0.1",
            machine.ports["winrm"],
            USERNAME,
            self._sources.password.get_secret_value(),
            name=self._what,
        )

    def check(
        self, machine: Machine, checks: tuple[Check, ...], deadline: Deadline
    ) -> tuple[Answer, ...]:
        """Ask the guest over WinRM whether it is as it should be.

        Raises:
            LabBroken: it is not, or the PC died.
            GuestSilent, DeadlineExpired: it does not answer.
        """
        self._say("checking it through WinRM")
        with self.channel(machine) as channel:
            return self_check(channel, checks, deadline, while_waiting=machine.check_alive)

    def shut_down(
        self, machine: Machine, deadline: Deadline, *, domain: Callable[[], str] | None = None
    ) -> None:
        """Let the guest shut down, so that its disk is whole, and wait until it is off.

        Args:
            machine: the PC, or the nested host.
            deadline: when to give up.
            domain: tells of a domain what it still is; empty when it is off.

        Raises:
            LabBroken: it refused.
            GuestSilent, DeadlineExpired: it did not end in time.
        """
        self._say("shutting it down")
        with self.channel(machine) as channel:
            channel.run("shutdown -s -f -t 0", deadline).check()

        def off() -> None:
            still = domain() if domain else "the PC is still on" if machine.alive else ""
            if still:
                raise NotYet(still)

        wait_for("the guest to shut down", off, deadline, interval=1.0)
