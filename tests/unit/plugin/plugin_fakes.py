"""A template whose places are plain objects, for sessions that pytester runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lab.core.errors import DeadlineExpired, DriverFailure, GuestCrashed, LabBroken, PvlabError
from lab.guest.crash import CrashKind, CrashReport

INF = """\
[Version]
Signature="$Windows NT$"
Class=SCSIAdapter
ClassGuid={4D36E97B-E325-11CE-BFC1-08002BE10318}
Provider=%maker%
DriverVer=11/09/2007,0.0.3.0

[Manufacturer]
%maker%=Models,NTx86

[Models.NTx86]
"Disk"=Install,XEN\\VBD

[Install.NTx86]
CopyFiles=Files

[Install.NTx86.Services]
AddService=xenvbd,2,Service

[Files]
xenvbd.sys

[Service]
ServiceType=1
StartType=0
ErrorControl=1
ServiceBinary=%12%\\xenvbd.sys

[DestinationDirs]
DefaultDestDir=12

[SourceDisksNames]
1="disk"

[SourceDisksFiles]
xenvbd.sys=1

[Strings]
maker="pvlab tests"
"""


def elf(elf_class: int, machine: int) -> bytes:
    """The head of a kernel module."""
    head = bytearray(64)
    head[:7] = b"\x7fELF" + bytes((elf_class, 1, 1))
    head[16:20] = (1).to_bytes(2, "little") + machine.to_bytes(2, "little")
    return bytes(head)


I386, AMD64 = elf(1, 3), elf(2, 62)


def write_package(folder: Path, binary: bytes = I386) -> Path:
    """A driver package that the lab accepts."""
    folder.mkdir(parents=True)
    (folder / "xenvbd.inf").write_text(INF)
    (folder / "xenvbd.sys").write_bytes(binary)
    return folder


def ladder(guest_type: str) -> Any:
    """An accelerator ladder that chooses without looking at this machine."""
    return lambda *_: SimpleNamespace(choose=lambda asked: SimpleNamespace(guest_type=guest_type))


class Crash:
    def __init__(self) -> None:
        self.found: CrashReport | None = None

    def check(self, deadline: object) -> CrashReport | None:
        return self.found

    def raise_if_seen(self, deadline: object) -> None:
        if self.found is not None:
            raise GuestCrashed(f"crashed: {self.found.summary}", evidence=self.found.evidence)

    @contextlib.contextmanager
    def guard(self, operation: str, deadline: object) -> Iterator[None]:
        try:
            yield
        except (DriverFailure, DeadlineExpired) as error:
            if self.found is None:
                raise
            raise GuestCrashed(
                f"crashed during {operation}: {self.found.summary}", evidence=self.found.evidence
            ) from error


@dataclass
class Place:
    template: Template
    scratch: Path
    broken: str = ""
    closed: bool = False
    crash: Crash = field(default_factory=Crash)
    timings: dict[str, float] = field(default_factory=lambda: {"clone_running": 0.25})
    calls: list[str] = field(default_factory=list)
    installed: Any = None

    def __post_init__(self) -> None:
        def note(name: str, answer: Any = None) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                self.calls.append(name)
                if isinstance(answer, Exception):
                    raise answer
                return answer

            return call

        serial = self.scratch / "xen-serial.log"
        serial.write_text("(XEN) booted\n")
        self.machine = SimpleNamespace(serial_log=serial, pid=4711)
        self.domain = SimpleNamespace(domid=1, name="virtdemo")
        self.access = SimpleNamespace(
            guest=SimpleNamespace(boot_ini=False), serial_log="/var/log/guest.log"
        )
        self.toolstack = SimpleNamespace(
            dmesg=note("dmesg", "(XEN) ring"), pause=note("pause"), has_watches=True
        )
        self.dump_core = note("core", (b"\x7fELF",))
        self.read_offline = note("read_offline", b"[1] flushed before the end\n")
        self.xenstore = SimpleNamespace()
        self.vg = SimpleNamespace()
        self._dom0 = SimpleNamespace(
            run=note("run", SimpleNamespace(stdout="nodes")),
            run_raw=note("run_raw", SimpleNamespace(stdout=b"")),
            connected=False,
        )
        self.guest = SimpleNamespace(
            crash=self.crash,
            dbgview=SimpleNamespace(start=note("dbgview"), read=note("read", LabBroken("no log"))),
            drivers=SimpleNamespace(
                install=note("install", self.template.install or SimpleNamespace(devices=()))
            ),
        )

    @property
    def dom0(self) -> SimpleNamespace:
        if self.broken.startswith("QEMU"):
            raise LabBroken(self.broken)
        return self._dom0

    def health(self, deadline: object) -> SimpleNamespace:
        return SimpleNamespace(ok=not self.broken, cause=self.broken)

    def guest_serial(self, deadline: object) -> str:
        return "guest says hello\n"

    def bugcheck(self, summary: str = "Kernel panic - not syncing") -> None:
        self.crash.found = CrashReport(CrashKind.SERIAL, summary, ("call trace", summary))

    def close(self) -> None:
        self.closed = True
        self.template.log(f"closed {self.scratch.name}")


def accelerator(name: str = "tcg-hvm", guest_type: str = "hvm") -> SimpleNamespace:
    return SimpleNamespace(
        name=name,
        emulator="/opt/qemu",
        emulator_version="5.2.0",
        guest_type=guest_type,
        why="no /dev/kvm",
    )


@dataclass
class Template:
    journal: Path
    clone_errors: list[PvlabError | None] = field(default_factory=list)
    install: Exception | None = None
    key: str = "0123456789abcdef"
    accel: Any = field(default_factory=accelerator)
    images: dict[str, Any] = field(
        default_factory=lambda: {
            "xen417-debian": SimpleNamespace(
                key="ab" * 32, manifest=SimpleNamespace(versions={"xen": "4.17.5"})
            )
        }
    )
    versions: dict[str, str] = field(default_factory=lambda: {"qemu": "5.2.0"})
    identity: dict[str, Any] = field(
        default_factory=lambda: {"domain": {"type": "hvm"}, "guest": "OS Name: stand-in\n"}
    )

    def log(self, line: str) -> None:
        with self.journal.open("a") as file:
            file.write(line + "\n")

    def pace(self, scratch: Path, deadline: object) -> float:
        return 1.0

    def with_driver(self, package: object, say: object, install: object = None) -> Template:
        return self

    def clone(self, scratch: Path, deadline: object) -> Place:
        error = self.clone_errors.pop(0) if self.clone_errors else None
        self.log(f"clone {scratch.name}")
        if error is not None:
            raise error
        return Place(self, scratch)
