"""``pvlab doctor``: whether this machine can run a profile, and what to do where it cannot.

Nothing is installed, built or started, except programs that are asked for their version.
"""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

import typer
from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.table import Table

from lab.cli.setup import apt_line, missing_packages
from lab.config.load import load_profile
from lab.config.profile import Profile
from lab.core.errors import ExitCode, PvlabError
from lab.core.paths import cache_dir, runtime_dir
from lab.images.store import ImageStatus, Store
from lab.qemu.emulator import system_emulator, tree_emulator
from lab.qemu.kvm import KvmFacts, kvm_facts

app = typer.Typer(add_completion=False)

MIB = 1 << 20

#: What QEMU needs besides the machine's memory: its own, and TCG's code buffer.
QEMU_OVERHEAD_MIB = 700

#: Room that clones' disk overlays and results take, in MiB.
RUN_DISK_MIB = 1024

#: Longest socket path there can be: sun_path with its final zero (unix(7)).
SOCKET_PATH_BYTES = 107

#: What the lab appends to the runtime folder at most, in bytes.
SOCKET_NAME_BYTES = 48

Level = Literal["required", "optional"]


class Check(BaseModel):
    """One thing that was looked at.

    Attributes:
        name: what.
        ok: whether it is as the lab wants it.
        level: ``required`` if the profile cannot run without it.
        found: what was found, in one line.
        remedy: what to do about it, in one line; empty when there is nothing to do.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    ok: bool
    level: Level
    found: str
    remedy: str = ""


class DoctorReport(BaseModel):
    """Everything that was looked at.

    Attributes:
        schema_version: of this document.
        profile: the profile that was asked about.
        ok: whether it can run: all required checks are ok.
        checks: in the order of the report.
    """

    model_config = ConfigDict(frozen=True)

    schema_version: Literal[1] = 1
    profile: str
    ok: bool
    checks: tuple[Check, ...]


def doctor(profile: Profile, store: Store | None = None) -> DoctorReport:
    """Look at everything a profile needs.

    Args:
        profile: what is to be run.
        store: where its images are; the usual place when None.
    """
    store = store or Store()
    checks: list[Check] = []
    groups: list[tuple[str, Callable[[], Iterable[Check]]]] = [
        ("system", lambda: [system_check()]),
        ("host packages", lambda: [packages_check()]),
        ("emulators", lambda: emulator_checks(store)),
        ("kvm", lambda: [kvm_check(kvm_facts())]),
        ("accelerator", accelerator_checks),
        ("images", lambda: image_checks(profile, store)),
        ("image builds", lambda: [builder_check(profile, store)]),
        ("media", lambda: [media_check(profile)]),
        ("disk", lambda: [disk_check(store)]),
        ("memory", lambda: [memory_check(profile)]),
        ("runtime folder", lambda: [runtime_check(runtime_dir())]),
    ]
    for name, group in groups:
        try:
            checks += group()
        except PvlabError as error:
            # What cannot be found out is a finding too, and must not hide the others.
            checks.append(
                Check(name=name, ok=False, level="required", found=error.message, remedy=error.hint)
            )
    ok = all(check.ok for check in checks if check.level == "required")
    return DoctorReport(profile=profile.name, ok=ok, checks=tuple(checks))


def system_check() -> Check:
    """Whether this is the system the lab is made for."""
    release: dict[str, str] = {}
    with suppress(OSError):
        release = platform.freedesktop_os_release()
    name = release.get("PRETTY_NAME", platform.system())
    fits = release.get("ID") == "debian" and release.get("VERSION_ID") == "12"
    return Check(
        name="system",
        ok=fits and platform.machine() == "x86_64",
        level="optional",
        found=f"{name}, {platform.machine()}, {os.cpu_count()} processors",
        remedy="" if fits else "the lab is made for and tried on Debian 12 (amd64)",
    )


def packages_check() -> Check:
    """Whether the host's packages are installed.

    Raises:
        LabBroken: this is no Debian system.
    """
    missing = missing_packages()
    return Check(
        name="host packages",
        ok=not missing,
        level="required",
        found=f"missing: {', '.join(package.name for package in missing)}"
        if missing
        else "all installed",
        remedy=f"run: pvlab setup (or, as root: {apt_line(missing)})" if missing else "",
    )


def emulator_checks(store: Store) -> list[Check]:
    """The QEMU of the system, and those the lab has as images."""
    checks = []
    try:
        system = system_emulator()
        checks.append(
            Check(
                name="QEMU of the system",
                ok=system is not None,
                level="required",
                found=system.version if system else "not installed",
                remedy="" if system else "run: pvlab setup",
            )
        )
    except PvlabError as error:
        checks.append(
            Check(
                name="QEMU of the system",
                ok=False,
                level="required",
                found=error.message,
                remedy="reinstall qemu-system-x86",
            )
        )
    for name in store.names():
        if store.recipe(name).kind != "tree" or not name.startswith("qemu"):
            continue
        try:
            built = store.find(name)
            found = tree_emulator(built.path, name).version if built else "not built"
            ok, remedy = built is not None, "" if built else "built when first needed"
        except PvlabError as error:
            ok, found, remedy = False, error.message, error.hint
        checks.append(
            Check(name=f"QEMU of the lab ({name})", ok=ok, level="optional", found=found,
                  remedy=remedy)
        )  # fmt: skip
    return checks


def kvm_check(facts: KvmFacts) -> Check:
    """Whether anything speaks against nested Xen under KVM; the lab can run without."""
    return Check(
        name="KVM",
        ok=not facts.why_not,
        level="optional",
        found=f"{facts.why_not}: pure emulation is used" if facts.why_not else facts.summary,
        remedy=facts.remedy,
    )


def accelerator_checks() -> list[Check]:
    """What the layer that chooses the accelerator has to say, if it says anything."""
    try:
        accel = importlib.import_module("lab.qemu.accel")
    except ModuleNotFoundError:
        return []
    return [
        Check(name=name, ok=ok, level="required", found=found, remedy=remedy)
        for name, ok, found, remedy in accel.accel_checks()
    ]


def image_checks(profile: Profile, store: Store) -> list[Check]:
    """The state of the profile's images; one that is missing is built when first needed."""
    known = {status.name: status for status in store.status()}
    return [
        _image_check(role, name, known.get(name))
        for role, name in (("host image", profile.host_image), ("guest image", profile.guest_image))
    ]


def _image_check(role: str, name: str, status: ImageStatus | None) -> Check:
    if status is None or (not status.key and status.state != "built"):
        return Check(
            name=role,
            ok=False,
            level="required",
            found=f"{name}: there is no recipe of that name",
            remedy="pvlab image list shows what there is",
        )
    size = f", {status.size // MIB} MiB" if status.size else ""
    if status.state == "built":
        return Check(name=role, ok=True, level="required", found=f"{name}: built{size}")
    if status.state == "damaged":
        return Check(
            name=role,
            ok=False,
            level="required",
            found=f"{name}: damaged",
            remedy=f"run: pvlab image build --force {name}",
        )
    return Check(
        name=role,
        ok=True,
        level="required",
        found=f"{name}: {status.state}; a build takes about {status.minutes:g} min",
        remedy=f"built when first needed, or now: pvlab image build {name}",
    )


def builder_check(profile: Profile, store: Store) -> Check:
    """Whether this user could build images; it matters while the profile's are not built."""
    wanted = {profile.host_image, profile.guest_image}
    built = {status.name for status in store.status() if status.state == "built"}
    problem = ""
    if os.geteuid() != 0:
        try:
            helper = subprocess.run(
                ["mmdebstrap", "--unshare-helper", "true"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            if helper.returncode != 0:
                said = helper.stderr.strip().splitlines()
                problem = said[0] if said else "mmdebstrap cannot make a user namespace"
        except OSError as error:
            problem = f"mmdebstrap cannot be run: {error.strerror}"
    return Check(
        name="image builds",
        ok=not problem,
        level="optional" if wanted <= built else "required",
        found=problem or "possible",
        remedy="run: pvlab setup; this user also needs lines in /etc/subuid and /etc/subgid"
        if problem
        else "",
    )


def media_dir() -> Path:
    """Where users put what only they may supply: ``PVLAB_MEDIA``, else in the cache."""
    own = os.environ.get("PVLAB_MEDIA")
    return Path(own).expanduser().resolve() if own else cache_dir() / "media"


def media_check(profile: Profile) -> Check:
    """Whether the installation media that a profile needs are there."""
    if profile.own_drivers:
        return Check(
            name="media", ok=True, level="required", found="none needed: the guest is a stand-in"
        )
    folder = media_dir()
    found = sorted(path.name for path in folder.glob("*.[iI][sS][oO]"))
    return Check(
        name="media",
        ok=bool(found),
        level="required",
        found=f"{folder}: {', '.join(found) or 'no .iso file'}",
        remedy=""
        if found
        else "put the installation medium of your own licence there, or set PVLAB_MEDIA",
    )


def disk_check(store: Store, free: Callable[[Path], int] | None = None) -> Check:
    """Whether the images that are missing, and a run, fit on the disk."""
    missing = [status for status in store.status() if status.key and status.state != "built"]
    needed = sum(status.disk_mib for status in missing) + RUN_DISK_MIB
    place = _existing(store.root)
    available = (free or _free)(place) // MIB
    fits = available >= needed
    return Check(
        name="disk",
        ok=fits,
        level="required",
        found=f"{available} MiB free below {place}, {needed} MiB needed"
        + (f" ({len(missing)} images to build)" if missing else ""),
        remedy="" if fits else "make room, or set PVLAB_CACHE to a folder on a larger disk",
    )


def memory_check(profile: Profile, meminfo: Path = Path("/proc/meminfo")) -> Check:
    """Whether the profile's machine fits into memory."""
    needed = profile.memory.host_mib + QEMU_OVERHEAD_MIB
    available = parse_available(_read(meminfo))
    fits = available >= needed
    return Check(
        name="memory",
        ok=fits,
        level="required",
        found=f"{available} MiB available, {needed} MiB needed for one machine",
        remedy="" if fits else "end other programs, or lower memory.host_mib in lab.toml",
    )


def parse_available(meminfo: str) -> int:
    """MiB of memory a new program may take: MemAvailable of /proc/meminfo (proc(5), in kB)."""
    for line in meminfo.splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable" and value.split():
            return int(value.split()[0]) // 1024
    return 0


def runtime_check(folder: Path) -> Check:
    """Whether sockets can be made in the runtime folder."""
    place = _existing(folder)
    fits = len(os.fsencode(folder)) + SOCKET_NAME_BYTES <= SOCKET_PATH_BYTES
    writable = os.access(place, os.W_OK | os.X_OK)
    problem = "" if fits else " is too long for a socket's path"
    if not writable:
        problem = " cannot be written"
    return Check(
        name="runtime folder",
        ok=not problem,
        level="required",
        found=f"{folder}{problem}",
        remedy="set PVLAB_RUNTIME to a short path that this user may write" if problem else "",
    )


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def _free(place: Path) -> int:
    return shutil.disk_usage(place).free


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def show(report: DoctorReport, console: Console) -> None:
    """Print a report for people."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for check in report.checks:
        mark = "[green]ok[/]" if check.ok else "[red]no[/]"
        if not check.ok and check.level == "optional":
            mark = "[yellow]--[/]"
        remedy = f"\n[dim]{_plain(check.remedy)}[/]" if check.remedy else ""
        table.add_row(mark, check.name, f"{_plain(check.found)}{remedy}")
    console.print(table)
    verdict = "can run here" if report.ok else "cannot run here"
    console.print(f"\nprofile {report.profile}: {verdict}")


def _plain(text: str) -> str:
    # Square brackets would be taken for rich's mark-up.
    return text.replace("[", r"\[")


@app.callback(invoke_without_command=True)
def command(
    profile: Annotated[
        str | None, typer.Option(help="Profile; the default one if left out.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A lab.toml.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Say whether this machine can run a profile, and what to do where it cannot."""
    report = doctor(load_profile(profile, config))
    if json:
        print(report.model_dump_json(indent=2))
    else:
        show(report, Console())
    if not report.ok:
        raise typer.Exit(int(ExitCode.LAB_BROKEN))
