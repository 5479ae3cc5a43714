"""Images that boot nothing, and a machine, a dom0 and a guest that are plain objects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from lab.config.profile import Profile
from lab.core.command import CommandResult
from lab.core.deadline import Deadline
from lab.core.errors import LabBroken, PvlabError
from lab.images.boot import GuestBoot, HostBoot, write_guest, write_host
from lab.images.manifest import Manifest
from lab.images.store import BuiltImage
from lab.place.place import Access
from lab.qemu.accel import AccelChoice
from lab.qemu.machine import MachineSpec
from lab.xen.domain import Domain

DOMAIN = Domain("virtdemo", 3, 192, 1, "-b----", 1.5)

HOST = HostBoot(
    kernel="xen",
    append="console=com1 dom0_mem={dom0_mib}M,max:{dom0_mib}M",
    modules=(("vmlinux", "root=/dev/vda console=hvc0"), ("initrd", "")),
    root="root.img",
    private_key="id_ed25519",
    host_key="ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA==",
    ssh_port=22,
    winrm_port=5985,
    guest_address="192.168.53.10",
    toolstacks=("xl",),
)

GUEST = GuestBoot(
    guest_type="hvm",
    bits="32-bit PAE",
    disk="disk.img",
    domain_config="domain.cfg.j2",
    files={"kernel": "vmlinuz"},
    username="Administrator",
    password_file="password",
    c_partition=2,
    c_folder="C",
)


def accel_choice(**changes: Any) -> AccelChoice:
    values: dict[str, Any] = {
        "name": "tcg-hvm",
        "emulator": "QEMU 5.2.0 (qemu52-bullseye)",
        "emulator_version": "5.2.0",
        "guest_type": "hvm",
        "why": "asked for",
        "cpu": "EPYC",
        "argv": ("qemu",),
        "origin": "system",
    }
    return AccelChoice(**{**values, **changes})


def image(folder: Path, name: str, key: str, built_at: str = "2024-05-01") -> BuiltImage:
    (folder / "files").mkdir(parents=True, exist_ok=True)
    manifest = Manifest(
        name=name,
        kind="disk",
        key=key,
        depends={},
        versions={},
        notes=(),
        built_at=built_at,
        seconds=1.0,
        host={},
        files=(),
    )
    return BuiltImage(name, key, folder, manifest)


def host_image(folder: Path, key: str = "a" * 64, **changes: Any) -> BuiltImage:
    made = image(folder, "xen417-debian", key, changes.pop("built_at", "2024-05-01"))
    write_host(made.path, HOST.model_copy(update=changes))
    for name in ("xen", "vmlinux", "initrd", "root.img", "id_ed25519"):
        (made.path / name).write_bytes(b"host")
    return made


def guest_image(
    folder: Path, key: str = "b" * 64, *, disk_bytes: int = 1 << 20, **changes: Any
) -> BuiltImage:
    made = image(folder, "standin-pae", key, changes.pop("built_at", "2024-05-01"))
    write_guest(made.path, GUEST.model_copy(update=changes))
    (made.path / "disk.img").write_bytes(bytes(disk_bytes))
    (made.path / "vmlinuz").write_bytes(b"guest kernel")
    (made.path / "password").write_text("pass word\n")
    (made.path / "domain.cfg.j2").write_text(
        'name="{{ name }}"\nmemory={{ memory_mib }}\ndisk=["{{ system_disk }}"]\n'
        'serial="{{ serial_log }}"\nkernel="{{ kernel }}"\n'
    )
    return made


class FakeMachine:
    """Leaves the files that a machine leaves."""

    def __init__(self, spec: MachineSpec, scratch: Path, **_: object) -> None:
        self.spec = spec
        self.scratch = scratch
        self.serial_log = scratch / "serial.log"
        self.log = scratch / "qemu.log"
        self.exchange = scratch / "exchange.raw"
        self.ports = {"ssh": 10022, "winrm": 15985}
        self.dead = "QEMU was not started"
        self.held = ""
        self.stops: list[float] = []
        self.resumed = 0
        self.released = 0
        self.pid = 4711

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def alive(self) -> bool:
        return not self.dead

    def why_dead(self) -> str:
        return self.dead

    def why_stopped(self, deadline: Deadline) -> str:
        return self.held

    def check_alive(self) -> None:
        if self.dead:
            raise LabBroken(self.dead)

    def start(self, deadline: Deadline) -> Self:
        assert self.spec.ram_shared
        assert self.spec.ram_file is not None
        self.spec.ram_file.write_bytes(b"ram after boot")
        self.serial_log.write_text("(XEN) booting\ndom0 login: \n\n")
        (self.scratch / "qemu.log").write_text("")
        self.dead = ""
        return self

    def start_from(self, state: Path, deadline: Deadline) -> Self:
        assert state.read_bytes() == b"state"
        assert self.spec.ram_file is not None
        assert self.spec.ram_file.exists()
        self.dead = ""
        return self

    def save_state(self, state: Path, deadline: Deadline) -> None:
        assert self.alive
        state.write_bytes(b"state")

    def resume(self, deadline: Deadline) -> None:
        assert self.alive
        self.resumed += 1

    def stop(self, grace: float = 10.0) -> None:
        self.stops.append(grace)
        self.dead = "QEMU (pid 4711) ended with status 0"

    def release(self) -> None:
        self.released += 1


@dataclass
class FakeDom0:
    """Notes what is asked of it."""

    fails: Callable[[str], PvlabError | None] = lambda command: None
    stdout: str = "123\n"
    seconds: float = 0.1
    commands: list[str] = field(default_factory=list)
    stdin: dict[str, bytes] = field(default_factory=dict)
    sent: list[tuple[str, bytes]] = field(default_factory=list)
    put_files: dict[str, Path] = field(default_factory=dict)
    closed: int = 0

    def run(
        self,
        command: str,
        deadline: Deadline,
        *,
        stdin: bytes | None = None,
        check: bool = False,
        while_waiting: object = None,
    ) -> CommandResult:
        self.commands.append(command)
        if stdin is not None:
            self.stdin[command] = stdin
            self.sent.append((command, stdin))
        if error := self.fails(command):
            raise error
        return CommandResult(command, 0, self.stdout, "", self.seconds, "dom0")

    def read_text(self, path: str, deadline: Deadline) -> str:
        return f"content of {path}"

    def put(self, local: Path, remote: str, deadline: Deadline) -> None:
        self.put_files[remote] = local

    def close(self) -> None:
        self.closed += 1


class FakeChannel:
    """A guest that answers, or fails with ``error``."""

    def __init__(self, error: PvlabError | None = None) -> None:
        self.error = error
        self.closed: list[float] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait_ready(self, deadline: Deadline, *, while_waiting: Callable[[], None]) -> None:
        while_waiting()
        if self.error:
            raise self.error

    def run(self, command: str, deadline: Deadline, **_: object) -> CommandResult:
        return CommandResult(command, 0, "Microsoft Windows\r\n", "", 0.1, "virtdemo")

    def close(self, deadline: Deadline | None = None) -> None:
        self.closed.append(deadline.remaining if deadline else -1.0)


def access(folder: Path) -> Access:
    return Access(HOST, folder, GUEST, "Administrator", "pass word", "virtdemo", "/var/log/serial")


def profile(**changes: Any) -> Profile:
    return Profile.model_validate(changes)
