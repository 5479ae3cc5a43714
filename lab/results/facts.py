"""What the record says about this machine and its tools, and about a driver."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from lab import __version__
from lab.results.record import Driver, Host

if TYPE_CHECKING:
    from lab.drivers.package import DriverPackage

LIBRARIES = ("paramiko", "pytest", "pytest-testinfra", "pywinrm", "pydantic", "qemu.qmp")


def host(
    meminfo: Path = Path("/proc/meminfo"), cpus: int | None = None, os_name: str | None = None
) -> Host:
    """This machine.

    Args:
        meminfo: proc(5); its ``MemTotal`` line is in KiB.
        cpus: processors; by default those this process may use.
        os_name: by default ``PRETTY_NAME`` of os-release(5).
    """
    return Host(
        kernel=f"{platform.system()} {platform.release()} {platform.machine()}",
        cpus=cpus or len(os.sched_getaffinity(0)),
        memory_mib=_memory_mib(meminfo),
        os=os_name or _os_name(),
    )


def versions(libraries: Iterable[str] = LIBRARIES) -> dict[str, str]:
    """Versions of the lab, of Python and of the libraries that talk to machines.

    QEMU's and Xen's are the caller's to add.
    """
    found = {"pvlab": __version__, "python": platform.python_version()}
    for name in libraries:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def driver(package: DriverPackage) -> Driver:
    """A driver package, as records have it."""
    return Driver(
        name=package.name,
        version=package.version,
        sha256=package.identity,
        basename=package.source.name,
        files=tuple(str(file) for file in package.files),
    )


def _memory_mib(meminfo: Path) -> int:
    try:
        lines = meminfo.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    total = next((line.split()[1] for line in lines if line.startswith("MemTotal:")), "0")
    return int(total) // 1024


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return platform.system()
