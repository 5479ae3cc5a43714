"""Installing, removing and asking about drivers in the guest, through devcon.

Blame: when devcon or SetupAPI says that a driver could not be installed, that is a
``DriverFailure`` with the new lines of ``setupapi.log``; a missing devcon is the lab's.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from lab.core.command import CommandResult
from lab.core.deadline import Deadline, NotYet, wait_for
from lab.core.errors import DeadlineExpired, DriverFailure, LabBroken, UsageError
from lab.core.journal import noun
from lab.guest.channel import Channel
from lab.guest.errors import DeviceError
from lab.guest.files import Files
from lab.guest.names import WORK_DIR, checked_path

_SETUP_LOG = r"%windir%\setupapi.log"
_UNKNOWN_COMMAND = "is not recognized as an internal or external command"

# Ids and patterns that devcon takes and ``cmd`` leaves alone inside quotes.
_SAFE_ID = re.compile(r"[@*]?[A-Za-z0-9_.*&\\{}#+\-]+")
_PROBLEM = re.compile(r"The device has the following problem: (\d+)")
_INSTALLED_FROM = re.compile(r"Driver installed from (\S.*?\.inf) \[", re.IGNORECASE)
_DRIVER_VER = re.compile(r"DriverVer\s*=\s*[\d/-]+\s*,\s*([\d.]+)", re.IGNORECASE)
_CHANGED = re.compile(r"^(\S+\\\S+)\s*: ", re.MULTILINE)
# SetupAPI's errors for a package that is not signed as the policy wants (winerror.h and
# setupapi.h): ERROR_NO_AUTHENTICODE_CATALOG..., TRUST_E_NOSIGNATURE, ERROR_DRIVER_BLOCKED, and
# "the operation was canceled by the user", where nobody was there to be asked.
_UNSIGNED = re.compile(
    r"0x(?:e000022f|e000023f|e0000242|e0000247|800b0100|800704c7)"
    r"|does not contain digital signature|not (?:been )?(?:digitally )?signed"
    r"|unsigned or incorrectly signed",
    re.IGNORECASE,
)
# Devices that are there without a driver take one from here when the system starts, without an
# INF (Microsoft, KB314082).
_CRITICAL = r"HKLM\SYSTEM\CurrentControlSet\Control\CriticalDeviceDatabase"
# InstallHinfSection: never restart, and take files from where the INF is (setupapi.h; Windows
# Driver Kit, "InstallHinfSection").
_NO_RESTART = 128

# setupapi.log marks what went wrong with #E and warnings with #W (Microsoft, "Troubleshooting
# Device Installation with the SetupAPI Log File").
_LOG_ERROR = re.compile(r"#E\d+")


class InfLike(Protocol):
    """One INF of a package, as far as installing it needs to know."""

    @property
    def path(self) -> PurePosixPath:
        """Where it is, relative to the package's folder."""

    @property
    def hardware_ids(self) -> Sequence[str]:
        """The hardware ids it serves."""

    @property
    def class_guid(self) -> str:
        """The device setup class's GUID."""

    @property
    def sections(self) -> Sequence[tuple[str, str]]:
        """The install section of each hardware id."""

    @property
    def services(self) -> Sequence[ServiceLike]:
        """The services it adds."""


class ServiceLike(Protocol):
    """A service that an INF adds."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def drives(self) -> bool:
        """Whether it is the device's function driver."""


class PackageLike(Protocol):
    """A driver package on this machine."""

    @property
    def name(self) -> str:
        """Short name, usable as a folder name."""

    @property
    def folder(self) -> Path:
        """Where its files are."""

    @property
    def files(self) -> Sequence[PurePosixPath]:
        """Every file, relative to ``folder``."""

    @property
    def infs(self) -> Sequence[InfLike]:
        """Its INFs in the order in which they must be installed."""


class DeviceState(enum.StrEnum):
    """What devcon says of a device."""

    RUNNING = "running"
    STOPPED = "stopped"
    DISABLED = "disabled"
    PROBLEM = "problem"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class DeviceStatus:
    """One device.

    Attributes:
        instance: instance id, such as ``XEN\\VBD\\0``.
        name: friendly name, or empty.
        state: what devcon said.
        problem: Configuration Manager problem code (``CM_PROB_``, 28: no driver), or None.
    """

    instance: str
    name: str
    state: DeviceState
    problem: int | None = None


@dataclass(frozen=True, slots=True)
class InstallResult:
    """What came of an installation or another change to devices.

    Attributes:
        reboot_needed: whether it takes effect after a reboot only.
        log_lines: what devcon printed, then the new lines of setupapi.log.
        devices: the hardware ids that were served.
    """

    reboot_needed: bool
    log_lines: tuple[str, ...]
    devices: tuple[str, ...]


@noun
class DriverStore:
    """Drivers and devices in one guest.

    Args:
        channel: the guest's command line.
        files: its file system.
    """

    def __init__(self, channel: Channel, files: Files) -> None:
        self._channel = channel
        self._files = files
        self._logs = 0

    def install(
        self,
        package: PackageLike,
        deadline: Deadline,
        *,
        restart: Callable[[], None] | None = None,
    ) -> InstallResult:
        """Copy a package into the guest and make its drivers those of the devices present.

        Where devcon's way refuses a driver because nobody signed it, SetupAPI installs its
        section, and the device takes the driver at the next start.

        Args:
            package: its INFs are installed in their order; a device that an earlier INF's
                driver brings into being is waited for.
            deadline: when to give up.
            restart: restarts the guest and returns when it answers. Called whenever an INF asks
                for it; without it the result only says that it was asked for.

        Raises:
            DriverFailure: an installation failed, or a device expected from an earlier INF
                did not appear; the message ends with setupapi.log's own reason.
            LabBroken: devcon is missing, or no device fits the package's first INF.
            GuestSilent, DeadlineExpired: as ``Channel.run``.
        """
        folder = rf"{WORK_DIR}\drivers\{package.name}"
        for file in package.files:
            self._files.put(package.folder / file, "\\".join((folder, *file.parts)), deadline)
        self._set_log_aside(deadline)
        reboot = False
        served: list[str] = []
        said: list[str] = []
        for inf in package.infs:
            inf_path = "\\".join((folder, *inf.path.parts))
            for device in self._present(inf, deadline, first=not served, reboot=reboot):
                result = self._devcon(f'update "{inf_path}" "{device}"', deadline)
                said += _lines(result.stdout)
                reboot = reboot or result.exit_code == 1
                if result.exit_code not in (0, 1) or "failed" in result.stdout.lower():
                    if not self._refused_unsigned(said, deadline):
                        raise self._install_failure(inf.path.name, device, said, deadline)
                    self._install_section(inf, inf_path, device, deadline)
                    said.append(f"{inf.path.name}: installed by SetupAPI, unsigned: {device}")
                    reboot = True
                served.append(device)
            if reboot and restart is not None:
                restart()
                reboot = False
        return InstallResult(reboot, (*said, *self.new_log_lines(deadline)), tuple(served))

    def _refused_unsigned(self, said: Sequence[str], deadline: Deadline) -> bool:
        """Whether an installation failed for want of a signature."""
        return any(_UNSIGNED.search(line) for line in (*said, *self.new_log_lines(deadline)))

    def _install_section(
        self, inf: InfLike, inf_path: str, device: str, deadline: Deadline
    ) -> None:
        """Have SetupAPI copy an INF's files and add its services, and bind a device to them.

        It knows nothing of devices and so asks for no signature of a driver. The device is
        forgotten, and claimed by the service when the system starts.

        Raises:
            DriverFailure: SetupAPI did not install it.
            LabBroken: the INF does not say which service drives the device.
        """
        name = inf.path.name
        section = next((one for id_, one in inf.sections if id_.upper() == device.upper()), "")
        service = next((one.name for one in inf.services if one.drives), "")
        if not section or not service or not _SAFE_ID.fullmatch(section + service):
            raise LabBroken(
                f"{name} is not signed, and devcon does not install it; it does not say which "
                f"service drives {device}, so that nothing else can",
                hint="set DriverSigningPolicy=ignore in the guest's answer file",
            )
        # rundll32 is a window program, which a command line does not wait for by itself.
        self._channel.run(
            'start "" /wait rundll32.exe setupapi.dll,InstallHinfSection '
            f"{section} {_NO_RESTART} {checked_path(inf_path)}",
            deadline,
        )
        key = rf"HKLM\SYSTEM\CurrentControlSet\Services\{service}"
        if not self._channel.run(f'reg query "{key}" /v ImagePath', deadline).ok:
            log = [line for line in self.new_log_lines(deadline) if _LOG_ERROR.search(line)]
            reason = log[-1].strip() if log else "setupapi.log does not say why"
            raise DriverFailure(f"{name}: SetupAPI added no service {service}: {reason}")
        critical = rf"{_CRITICAL}\{device.replace(chr(92), '#')}"
        for value, data in (("Service", service), ("ClassGUID", inf.class_guid)):
            if data:
                self._channel.run(
                    f'reg add "{critical}" /v {value} /t REG_SZ /d "{data}" /f', deadline
                ).check()
        self._devcon(f"remove {_quoted(device)}", deadline)

    def status(self, pattern: str, deadline: Deadline) -> tuple[DeviceStatus, ...]:
        """The devices that match a hardware id or, after ``@``, an instance id.

        Raises:
            LabBroken: devcon is missing or could not tell.
            UsageError: not a pattern that devcon takes.
            GuestSilent, DeadlineExpired: as ``Channel.run``.
        """
        result = self._devcon(f"status {_quoted(pattern)}", deadline)
        if not result.ok:
            raise LabBroken(
                f"{result.where}: devcon status exited {result.exit_code}: {_tail(result)}"
            )
        return parse_status(result.stdout)

    def hardware_ids(
        self, patterns: Sequence[str], deadline: Deadline
    ) -> dict[str, tuple[str, ...]]:
        """Hardware and compatible ids of the devices present that match any pattern.

        Returns:
            The ids by instance id, best match first.

        Raises:
            As ``status``.
        """
        wanted = " ".join(_quoted(pattern) for pattern in patterns)
        return parse_hwids(self._devcon(f"hwids {wanted}", deadline).stdout)

    def version(self, hardware_id: str, deadline: Deadline) -> str | None:
        """Version of the driver installed for the first device with this hardware id.

        Returns:
            The version in DriverVer of the INF it was installed from; None when there is no
            such device, no driver, or no number in its DriverVer.

        Raises:
            As ``status``.
        """
        # The INF that Windows keeps as oemN.inf is the same on every version; the registry key
        # of the driver is found through the device's instance only.
        listed = self._devcon(f"driverfiles {_quoted(hardware_id)}", deadline).stdout
        inf = _INSTALLED_FROM.search(listed)
        if inf is None:
            return None
        result = self._channel.run(f'findstr /i /b "DriverVer" "{checked_path(inf[1])}"', deadline)
        found = _DRIVER_VER.search(result.stdout)
        return found[1] if found else None

    def remove(self, pattern: str, deadline: Deadline) -> InstallResult:
        """Remove the devices that match, and with them their driver's hold on them.

        Raises:
            DriverFailure: devcon failed on a device: its driver did not let go.
            DeviceError: no device matches.
            LabBroken, UsageError, GuestSilent, DeadlineExpired: as ``status``.
        """
        return self._change("remove", pattern, deadline)

    def disable(self, pattern: str, deadline: Deadline) -> InstallResult:
        """Disable the devices that match. Raises like ``remove``."""
        return self._change("disable", pattern, deadline)

    def enable(self, pattern: str, deadline: Deadline) -> InstallResult:
        """Enable the devices that match. Raises like ``remove``."""
        return self._change("enable", pattern, deadline)

    def restart(self, pattern: str, deadline: Deadline) -> InstallResult:
        """Stop and start the devices that match. Raises like ``remove``."""
        return self._change("restart", pattern, deadline)

    def rescan(self, deadline: Deadline) -> None:
        """Make Plug and Play look for new devices. Raises like ``status``."""
        result = self._devcon("rescan", deadline)
        if not result.ok:
            raise LabBroken(f"{result.where}: devcon rescan failed: {_tail(result)}")

    def new_log_lines(self, deadline: Deadline) -> tuple[str, ...]:
        """What setupapi.log has gained since the last installation began.

        Raises:
            GuestSilent, DeadlineExpired: as ``Channel.run``.
        """
        result = self._channel.run(f"type {_SETUP_LOG} 2>nul", deadline)
        return tuple(_lines(result.stdout))

    def _set_log_aside(self, deadline: Deadline) -> None:
        """Move setupapi.log away, so that all of the next one is new.

        Nothing in Server 2003 prints a file from an offset, and a real setupapi.log is some
        hundred kilobytes. SetupAPI starts a new log when there is none.
        """
        self._logs += 1
        old = rf"%windir%\setupapi.before-pvlab-{self._logs}.log"
        self._channel.run(f"move /y {_SETUP_LOG} {old} >nul 2>&1", deadline)

    def _present(self, inf: InfLike, deadline: Deadline, *, first: bool, reboot: bool) -> list[str]:
        """Those of the INF's hardware ids for which there is a device; waits for a child."""

        misses = 0

        def look() -> list[str]:
            nonlocal misses
            devices = self.hardware_ids(inf.hardware_ids, deadline)
            best = []
            for ids in devices.values():
                there = {one.upper() for one in ids}
                # A device may go by several of the INF's ids: update it once.
                best += [one for one in inf.hardware_ids if one.upper() in there][:1]
            if not best:
                misses += 1
                raise NotYet("no device with that id")
            return list(dict.fromkeys(best))

        ids = ", ".join(inf.hardware_ids)
        if first:
            try:
                return look()
            except NotYet as error:
                raise LabBroken(
                    f"{self._channel.name}: no device for {inf.path.name}: {ids}",
                    hint="is the guest an HVM domain with the Xen platform device?",
                ) from error
        try:
            return wait_for(f"a device with {ids}", look, deadline, interval=0.3)
        except DeadlineExpired as error:
            if not misses:
                raise
            why = "; the guest may have to reboot first" if reboot else ""
            raise DriverFailure(
                f"{inf.path.name}: the drivers before it brought no device {ids}{why}"
            ) from error

    def _install_failure(
        self, inf: str, device: str, said: Sequence[str], deadline: Deadline
    ) -> DriverFailure:
        """The error for a failed installation, with SetupAPI's own words."""
        log = self.new_log_lines(deadline)
        errors = [line for line in log if _LOG_ERROR.search(line)]
        reason = (errors or list(said) or ["devcon said nothing"])[-1].strip()
        return DriverFailure(f"{inf} could not be installed for {device}: {reason}")

    def _change(self, verb: str, pattern: str, deadline: Deadline) -> InstallResult:
        result = self._devcon(f"{verb} {_quoted(pattern)}", deadline)
        devices = tuple(match[1] for match in _CHANGED.finditer(result.stdout))
        if result.exit_code not in (0, 1):
            what = f"{result.where}: devcon {verb} {pattern} failed: {_tail(result)}"
            raise DriverFailure(what) if devices else DeviceError(what)
        return InstallResult(result.exit_code == 1, tuple(_lines(result.stdout)), devices)

    def _devcon(self, arguments: str, deadline: Deadline) -> CommandResult:
        """Exit codes: 0 done, 1 reboot needed, 2 failed, 3 bad usage (devcon's sources)."""
        result = self._channel.run(f"devcon {arguments}", deadline)
        if _UNKNOWN_COMMAND in result.stderr:
            raise LabBroken(
                f"{result.where}: devcon is not installed in the guest",
                hint="put devcon.exe (Windows support tools) into the guest image's PATH",
            )
        if result.exit_code == 3:
            raise LabBroken(f"{result.where}: devcon does not take `{arguments}`")
        return result


def parse_status(text: str) -> tuple[DeviceStatus, ...]:
    """The output of ``devcon status``: an instance id, then indented lines about it."""
    found: list[DeviceStatus] = []
    instance, name, about = "", "", ""

    def end_device() -> None:
        if not instance:
            return
        problem = _PROBLEM.search(about)
        if "Device is disabled" in about:
            state = DeviceState.DISABLED
        elif problem:
            state = DeviceState.PROBLEM
        elif "Driver is running" in about:
            state = DeviceState.RUNNING
        elif "currently stopped" in about:
            state = DeviceState.STOPPED
        else:
            state = DeviceState.UNKNOWN
        found.append(DeviceStatus(instance, name, state, int(problem[1]) if problem else None))

    for line in text.splitlines():
        if line[:1].isspace() and instance:
            stripped = line.strip()
            if stripped.startswith("Name: "):
                name = stripped.removeprefix("Name: ")
            else:
                about += stripped + "\n"
        elif "\\" in line:
            end_device()
            instance, name, about = line.strip(), "", ""
        else:
            end_device()
            instance = ""
    end_device()
    return tuple(found)


def parse_hwids(text: str) -> dict[str, tuple[str, ...]]:
    """The output of ``devcon hwids``: hardware, then compatible ids, by instance id.

    ``devcon update`` takes both; ``PCI\\VEN_5853&DEV_0001`` is a compatible id of the Xen
    platform device (Windows Driver Kit, "Identifiers for PCI Devices").
    """
    found: dict[str, tuple[str, ...]] = {}
    instance = ""
    listing = False
    for line in text.splitlines():
        stripped = line.strip()
        if not line[:1].isspace():
            instance = stripped if "\\" in stripped else ""
            listing = False
            if instance:
                found[instance] = ()
        elif stripped.startswith(("Hardware ID", "Compatible ID")):
            listing = True
        elif stripped.startswith("Name: "):
            listing = False
        elif listing and instance and stripped:
            found[instance] += (stripped,)
    return found


def _quoted(pattern: str) -> str:
    if not _SAFE_ID.fullmatch(pattern):
        raise UsageError(f"not a device id: {pattern[:80]!r}")
    return f'"{pattern}"'


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def _tail(result: CommandResult) -> str:
    lines = _lines(result.stdout + result.stderr)
    return lines[-1].strip() if lines else "it printed nothing"
