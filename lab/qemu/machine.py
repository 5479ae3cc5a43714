"""One QEMU process: its command line, its life and its end."""

from __future__ import annotations

import codecs
import contextlib
import functools
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pexpect.socket_pexpect import SocketSpawn

from lab.core import errand
from lab.core.deadline import Deadline, NotYet, wait_for
from lab.core.errors import DeadlineExpired, LabBroken
from lab.images.boot import Hardware
from lab.qemu.emulator import Emulator
from lab.qemu.qmp import Monitor, prompt

# slirp's defaults: the guest's first address (QEMU, "Using the user mode network stack").
_USERNET_LINE = re.compile(
    r"TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(?P<host>\d+)\s+\S+\s+(?P<guest>\d+)"
)
#: Code buffer of the translator per process, in MiB: the default of a quarter of the host's
#: memory would make every clone look far larger than it is.
TB_SIZE_MIB = 192


#: The exchange disk's file, in the machine's scratch folder.
EXCHANGE = "exchange.raw"


@dataclass(frozen=True, slots=True)
class DiskSpec:
    """A disk.

    Attributes:
        path: a qcow2 file.
        throwaway: writes go to an unlinked temporary file instead of ``path``.
    """

    path: Path
    throwaway: bool = False


class Spec(Protocol):
    """What ``Machine`` has to know of the machine it starts."""

    @property
    def name(self) -> str:
        """For messages."""

    @property
    def emulator(self) -> Emulator:
        """The QEMU to start."""

    @property
    def forwards(self) -> Mapping[str, int]:
        """Ports inside (TCP) that get a loopback port outside, by name."""

    @property
    def exchange_mib(self) -> int:
        """Size of the exchange disk in MiB; 0 for none."""

    def argv(self, *, incoming: bool, monitor_fd: int) -> list[str]:
        """The command line, without the emulator's own words."""

    def cloned(self, name: str, ram_file: Path) -> Spec:
        """The same machine over a private view of ``ram_file`` and throwaway disks."""


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """What a machine is made of; equal specs give machines that can load each other's state.

    Attributes:
        name: for messages.
        emulator: the QEMU to start.
        accel: ``"kvm"`` or ``"tcg"``.
        cpu: QEMU's ``-cpu`` argument.
        memory_mib: RAM in MiB.
        kernel: multiboot or Linux kernel for direct boot; None to start from the first disk.
        append: its command line.
        initrd: QEMU's ``-initrd`` argument: multiboot modules with their arguments.
        disks: disks in order (vda, vdb, ... or hda, hdb, ...).
        forwards: ports inside (TCP) that get a loopback port outside, by name.
        ram_file: file that holds the RAM, or None for anonymous memory.
        ram_shared: whether writes reach ``ram_file`` (a template) or stay private (a clone).
        exchange_mib: size in MiB of the last disk, a raw file in the machine's scratch folder
            through which large things leave it at the speed of this machine; 0 for none.
        hardware: chipset, and the kinds of its disks and network card.
    """

    name: str
    emulator: Emulator
    accel: str
    cpu: str
    memory_mib: int
    kernel: Path | None
    append: str
    initrd: str
    disks: tuple[DiskSpec, ...]
    forwards: Mapping[str, int] = field(default_factory=dict)
    ram_file: Path | None = None
    ram_shared: bool = False
    exchange_mib: int = 0
    hardware: Hardware = field(default_factory=Hardware)

    def cloned(self, name: str, ram_file: Path) -> MachineSpec:
        """The same machine over a private view of ``ram_file`` and throwaway disks."""
        disks = tuple(replace(disk, throwaway=True) for disk in self.disks)
        return replace(self, name=name, ram_file=ram_file, ram_shared=False, disks=disks)

    def argv(self, *, incoming: bool, monitor_fd: int) -> list[str]:
        """The command line, without the emulator's own words."""
        # One processor needs one translating thread, and no code that is safe for two.
        tcg = f"tcg,thread=single,tb-size={TB_SIZE_MIB}"
        accel = "kvm" if self.accel == "kvm" else tcg
        words = [
            "-nodefaults", "-no-user-config", "-display", "none",
            "-name", f"guest={escaped(self.name)}", "-accel", accel, "-cpu", self.cpu,
            "-smp", "1", "-m", str(self.memory_mib),
        ]  # fmt: skip
        if self.kernel is not None:
            words += ["-kernel", str(self.kernel), "-append", self.append]
            words += ["-initrd", self.initrd]
        kind = self.hardware.machine
        if self.ram_file is None:
            words += ["-machine", kind]
        else:
            share = "on" if self.ram_shared else "off"
            words += [
                "-machine", f"{kind},memory-backend=ram",
                "-object", f"memory-backend-file,id=ram,size={self.memory_mib}M,"
                           f"mem-path={escaped(self.ram_file)},share={share}",
            ]  # fmt: skip
        for index, disk in enumerate(self.disks):
            mode = "on" if disk.throwaway else "off"
            words += [
                "-drive", f"if=none,id=disk{index},file={escaped(disk.path)},format=qcow2,"
                          f"cache=unsafe,snapshot={mode}",
                "-device", self._disk_device(f"disk{index}", index),
            ]  # fmt: skip
        if self.exchange_mib:
            words += [
                "-drive", f"if=none,id=exchange,file={EXCHANGE},format=raw,cache=unsafe",
                "-device", self._disk_device("exchange", len(self.disks)),
            ]  # fmt: skip
        # Port 0: the kernel picks a free port at the moment QEMU binds it, so that two
        # machines can never be given the same one. restrict=on: nothing gets out.
        forwards = "".join(f",hostfwd=tcp:127.0.0.1:0-:{port}" for port in self.forwards.values())
        words += [
            "-netdev", f"user,id=net0,restrict=on{forwards}",
            "-device", f"{self.hardware.nic},netdev=net0,romfile=",
            "-chardev", "socket,id=serial,path=serial.sock,server,nowait,"
                        "logfile=serial.log,logappend=on",
            "-serial", "chardev:serial",
            "-chardev", f"socket,id=monitor,fd={monitor_fd}",
            "-mon", "chardev=monitor,mode=control",
        ]  # fmt: skip
        if incoming:
            words += ["-incoming", "defer"]
        return words

    def _disk_device(self, drive: str, index: int) -> str:
        if self.hardware.disk_bus == "virtio":
            return f"virtio-blk-pci,drive={drive}"
        # Two disks on each of the two channels of the chipset's own controller.
        return f"ide-hd,drive={drive},bus=ide.{index // 2},unit={index % 2}"


def escaped(value: Path | str) -> str:
    """A value inside a comma-separated QEMU option (a comma is written twice)."""
    return str(value).replace(",", ",,")


class Machine:
    """A running QEMU process, supervised.

    Use as a context manager; the process dies with the thread that started it
    (PR_SET_PDEATHSIG) and is killed when that thread's errand is ended, unless it was started
    ``detached``.

    Args:
        spec: what to start.
        scratch: an existing folder for its logs, sockets and throwaway disks.
        detached: the process is to outlive this one (``pvlab up``).
    """

    def __init__(self, spec: Spec, scratch: Path, *, detached: bool = False) -> None:
        self.spec = spec
        self.scratch = scratch
        self.serial_log = scratch / "serial.log"
        self.log = scratch / "qemu.log"
        self.exchange = scratch / EXCHANGE
        self.ports: dict[str, int] = {}
        self._detached = detached
        self._adopted = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._monitor: Monitor | None = None
        self._stopping = threading.Lock()
        self._forget: Callable[[], None] = lambda: None

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @classmethod
    def running(cls, spec: Spec, scratch: Path, pid: int, ports: dict[str, int]) -> Machine:
        """A handle on a detached machine that another process started.

        Args:
            spec: what it was started from.
            scratch: its folder.
            pid: its process id.
            ports: its loopback ports by name.
        """
        machine = cls(spec, scratch, detached=True)
        machine._adopted = pid
        machine.ports = dict(ports)
        return machine

    # -- life ---------------------------------------------------------------------------

    def start(self, deadline: Deadline) -> Machine:
        """Power on.

        Raises:
            LabBroken: QEMU did not start; the message carries its last words.
            DeadlineExpired: it did not bind its ports in time.
        """
        self._spawn(incoming=False, deadline=deadline)
        return self

    def start_from(self, state: Path, deadline: Deadline) -> Machine:
        """Start a process that continues from a state that ``save_state`` wrote.

        Raises:
            LabBroken: QEMU did not start or refused the state.
            DeadlineExpired: it was not running in time.
        """
        self._spawn(incoming=True, deadline=deadline)
        try:
            self._ignore_shared_ram(deadline)
            uri = f"exec:cat {shlex.quote(str(state))}"
            self._call("migrate-incoming", {"uri": uri}, deadline=deadline)
            self._on_monitor(lambda monitor: monitor.wait_loaded(deadline))
            self._call("cont", deadline=deadline)
        except BaseException:
            self.stop(grace=1)
            raise
        return self

    def save_state(self, state: Path, deadline: Deadline) -> None:
        """Stop the processor and write everything but the RAM, which stays in its file.

        Raises:
            LabBroken: QEMU refused or died.
            DeadlineExpired: it took too long.
        """
        self._call("stop", deadline=deadline)
        self._ignore_shared_ram(deadline)
        uri = f"exec:cat > {shlex.quote(str(state))}"
        self._call("migrate", {"uri": uri}, deadline=deadline)
        self._on_monitor(lambda monitor: monitor.wait_saved(deadline))

    def resume(self, deadline: Deadline) -> None:
        """Let a machine run on that ``save_state`` stopped.

        Raises:
            LabBroken: QEMU refused or died.
        """
        self._call("cont", deadline=deadline)

    def stop(self, grace: float = 10.0) -> None:
        """End the process: politely, then by force. Never raises; may be called twice.

        Args:
            grace: seconds granted for the polite way.
        """
        with self._stopping:
            process, monitor = self._process, self._monitor
            self._monitor = None
            if monitor is not None:
                if process is not None and process.poll() is None:
                    with contextlib.suppress(LabBroken, DeadlineExpired):
                        monitor.execute("quit", deadline=Deadline(grace))
                monitor.close()
            if process is not None:
                try:
                    process.wait(grace)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            # There is nothing left that could be killed.
            self._forget()

    def release(self) -> None:
        """Forget the process without ending it (a detached machine)."""
        if self._monitor is not None:
            self._monitor.close()
            self._monitor = None
        self._process = None

    @property
    def pid(self) -> int:
        """The process id.

        Raises:
            LabBroken: not started.
        """
        if self._process is not None:
            return self._process.pid
        if self._adopted:
            return self._adopted
        raise LabBroken(f"{self.spec.name}: not started")

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return not self.why_dead()

    def why_dead(self) -> str:
        """One line about the end of the process; empty while it runs."""
        if self._process is None:
            if self._adopted:
                there = started_at(self._adopted)
                return "" if there else f"QEMU (pid {self._adopted}) has ended"
            return "QEMU was not started"
        status = self._process.poll()
        if status is None:
            return ""
        how = f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
        words = self._last_words()
        return f"QEMU (pid {self._process.pid}) ended with {how}" + (f": {words}" if words else "")

    def why_stopped(self, deadline: Deadline) -> str:
        """One line about why a living process does not run its machine; empty when it does.

        Args:
            deadline: for the monitor, which a place of ``pvlab up`` does not have.
        """
        if process_state(self.pid) in ("T", "t"):
            return f"QEMU (pid {self.pid}) was stopped by a signal"
        if self._monitor is None:
            return ""
        try:
            status = self._monitor.execute("query-status", deadline=deadline)["status"]
        except LabBroken as error:
            return self.why_dead() or error.message
        if status == "running":
            return ""
        if status == "io-error":
            room = shutil.disk_usage(self.scratch).free >> 20
            return (
                f"QEMU (pid {self.pid}) stopped the machine, one of its disks could not be "
                f"written: {room} MiB are free in {self.scratch}"
            )
        return f"QEMU (pid {self.pid}) does not run the machine: {status}"

    def check_alive(self) -> None:
        """For those who wait for something inside: nothing comes of a dead machine.

        Raises:
            LabBroken: the process has ended.
        """
        if dead := self.why_dead():
            raise LabBroken(f"{self.spec.name}: {dead}")

    @property
    def monitor(self) -> Monitor:
        """The connection to its monitor.

        Raises:
            LabBroken: there is none any more.
        """
        if self._monitor is None:
            raise LabBroken(self.why_dead() or f"{self.spec.name}: no monitor")
        return self._monitor

    @property
    def resident_kib(self) -> dict[str, int]:
        """Memory of the process in KiB: ``RssAnon``, ``RssFile``, ``RssShmem`` (proc(5))."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        return {k: int(v) for k, v in re.findall(r"^(Rss\w+):\s+(\d+) kB", text, re.MULTILINE)}

    def screen(self, target: Path, deadline: Deadline) -> Path:
        """Write a picture of its screen, a PPM file.

        Args:
            target: a file in the machine's scratch folder.
            deadline: for the monitor.

        Raises:
            LabBroken: QEMU refused or died.
        """
        self._call("screendump", {"filename": str(target)}, deadline=deadline)
        return target

    def reset(self, deadline: Deadline) -> None:
        """Press the reset button.

        Raises:
            LabBroken: QEMU refused or died.
        """
        self._call("system_reset", deadline=deadline)

    # -- serial -------------------------------------------------------------------------

    @contextlib.contextmanager
    def console(self) -> Iterator[Console]:
        """A pexpect handle on the serial console; one user at a time.

        Raises:
            LabBroken: the console is busy or gone.
        """
        with contextlib.closing(self.serial_socket()) as sock:
            yield Console(sock)

    def serial_socket(self) -> socket.socket:
        """A raw connection to the serial console; the caller closes it."""
        return connect_unix(self.scratch, "serial.sock")

    # -- inside -------------------------------------------------------------------------

    def _call(
        self,
        command: str,
        arguments: Mapping[str, object] | None = None,
        *,
        deadline: Deadline,
    ) -> None:
        self._on_monitor(lambda monitor: monitor.execute(command, arguments, deadline=deadline))

    def _on_monitor(self, action: Callable[[Monitor], object]) -> None:
        """Act on the monitor; if QEMU died of it, say that and not that a socket closed."""
        try:
            action(self.monitor)
        except LabBroken as error:
            with contextlib.suppress(subprocess.TimeoutExpired):
                if self._process is not None:
                    self._process.wait(1)
            if dead := self.why_dead():
                raise LabBroken(f"{self.spec.name}: {dead}") from error
            raise

    def _ignore_shared_ram(self, deadline: Deadline) -> None:
        """Leave RAM out of the state: it is in its file (QEMU docs/devel/migration:
        ``x-ignore-shared``)."""
        capability = {"capability": "x-ignore-shared", "state": True}
        self._call("migrate-set-capabilities", {"capabilities": [capability]}, deadline=deadline)

    def _spawn(self, *, incoming: bool, deadline: Deadline) -> None:
        errand.check()
        ours, theirs = socket.socketpair()
        words = [
            *self.spec.emulator.argv,
            *self.spec.argv(incoming=incoming, monitor_fd=theirs.fileno()),
        ]
        if not self._detached:
            words = ["setpriv", "--pdeathsig", "KILL", "--", *words]
        environment = {**os.environ, "TMPDIR": str(self.scratch)}
        if self.spec.exchange_mib:
            with self.exchange.open("wb") as file:
                file.truncate(self.spec.exchange_mib << 20)
        try:
            with self.log.open("wb") as log:
                self._process = subprocess.Popen(
                    words,
                    cwd=self.scratch,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
        except OSError as error:
            ours.close()
            raise LabBroken(f"{self.spec.name}: cannot start QEMU: {error}") from None
        finally:
            theirs.close()
        self._monitor = Monitor(ours, self.spec.name)
        try:
            if not self._detached:
                self._forget = errand.at_end(functools.partial(_kill, self._process))
                errand.check()
            self._monitor.connect(deadline)
            self.ports = self._find_ports(deadline)
        except LabBroken as error:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(1)
            dead = self.why_dead()
            self.stop(grace=1)
            raise LabBroken(f"{self.spec.name}: {dead or error}") from None
        except BaseException:
            self.stop(grace=1)
            raise

    def _find_ports(self, deadline: Deadline) -> dict[str, int]:
        def probe() -> dict[int, int]:
            text = self.monitor.human("info usernet", deadline=prompt(deadline))
            found = {int(m["guest"]): int(m["host"]) for m in _USERNET_LINE.finditer(text)}
            if len(found) < len(self.spec.forwards):
                raise NotYet(f"{len(found)} of {len(self.spec.forwards)} forwards")
            return found

        by_guest = wait_for("QEMU's port forwards", probe, deadline, interval=0.01)
        return {name: by_guest[port] for name, port in self.spec.forwards.items()}

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            lines = self.log.read_text(errors="replace").splitlines()
            # TCG names every processor feature it lacks; that is never why it ended.
            told = [line for line in lines if "doesn't support requested feature" not in line]
            return told[-1].strip() if told else ""
        return ""


if TYPE_CHECKING:
    _TextSpawn = SocketSpawn[str]
else:  # generic in its type stubs only
    _TextSpawn = SocketSpawn


class Console(_TextSpawn):
    """A pexpect handle on text, which pexpect 4.9 forgets to decode when it is a socket's.

    Args:
        sock: connected; whoever made it closes it.
    """

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock, encoding="utf-8", codec_errors="replace", use_poll=True)
        self._text = codecs.getincrementaldecoder("utf-8")("replace")

    def read_nonblocking(self, size: int = 1, timeout: float | None = -1) -> str:
        """See ``pexpect.socket_pexpect.SocketSpawn``."""
        data: str | bytes = super().read_nonblocking(size, timeout)
        return self._text.decode(data) if isinstance(data, bytes) else data


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that leads its session, and what it has started for its state."""
    # Its number is its own as long as nobody was told of its end.
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def started_at(pid: int) -> str:
    """Start time of a process in clock ticks since boot (proc(5), /proc/pid/stat field 22);
    empty when there is no such process, or only a zombie of it."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    # The second field, the program's name, may itself hold spaces and parentheses.
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]


def process_state(pid: int) -> str:
    """State of a process, a letter (proc(5), /proc/pid/stat field 3); empty when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def connect_unix(folder: Path, name: str) -> socket.socket:
    """Connect to a socket file, however long the path of its folder.

    ``sun_path`` holds 108 bytes (unix(7)), so the folder is reached through a descriptor.

    Raises:
        LabBroken: nobody listens there.
    """
    sock = socket.socket(socket.AF_UNIX)
    descriptor = -1
    try:
        descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
        sock.connect(f"/proc/self/fd/{descriptor}/{name}")
    except OSError as error:
        sock.close()
        raise LabBroken(f"cannot reach {name}: {error.strerror}") from None
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    return sock
