from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest
from wsman import FakeCmd

from lab.core.deadline import Deadline
from lab.core.errors import DriverFailure, LabBroken, UsageError
from lab.guest import driverstore
from lab.guest.channel import Channel
from lab.guest.driverstore import DeviceState, DriverStore
from lab.guest.errors import DeviceError
from lab.guest.files import Files

GOLDEN = Path(__file__).parent / "golden"
SETUP_LOG = r"%windir%\setupapi.log"


@dataclass
class OneService:
    name: str
    drives: bool


@dataclass
class OneInf:
    path: PurePosixPath
    hardware_ids: tuple[str, ...]
    class_guid: str = "{4D36E97B-E325-11CE-BFC1-08002BE10318}"
    sections: tuple[tuple[str, str], ...] = ((r"XEN\VBD", "XenVbd_Inst.NT"),)
    services: tuple[OneService, ...] = ()


@dataclass
class Package:
    name: str
    folder: Path
    files: tuple[PurePosixPath, ...]
    infs: tuple[OneInf, ...]


@pytest.fixture
def store(channel: Channel) -> DriverStore:
    return DriverStore(channel, Files(channel))


@pytest.fixture
def package(tmp_path: Path) -> Package:
    (tmp_path / "i386").mkdir()
    (tmp_path / "xenvbd.inf").write_bytes(b"[Version]")
    (tmp_path / "i386/xenvbd.sys").write_bytes(b"MZ")
    return Package(
        "xenvbd",
        tmp_path,
        (PurePosixPath("i386/xenvbd.sys"), PurePosixPath("xenvbd.inf")),
        (OneInf(PurePosixPath("xenvbd.inf"), (r"XEN\VBD",)),),
    )


@dataclass
class Devcon:
    """devcon with scripted answers by verb."""

    cmd: FakeCmd
    hwids: str = (GOLDEN / "devcon_hwids.txt").read_text()
    update: tuple[str, str, int] = ("Drivers installed successfully.\r\n", "", 0)
    log: bytes = b""

    def __post_init__(self) -> None:
        self.cmd.folders.add("%windir%")
        self.cmd.files[SETUP_LOG] = b"old lines\r\n"
        self.cmd.programs["devcon"] = self.run

    def run(self, line: str) -> tuple[str, str, int]:
        if line.startswith("devcon hwids"):
            return self.hwids, "", 0
        if line.startswith("devcon update"):
            self.cmd.files[SETUP_LOG] = self.cmd.files.get(SETUP_LOG, b"") + self.log
            return self.update
        raise AssertionError(line)


def test_status() -> None:
    found = driverstore.parse_status((GOLDEN / "devcon_status.txt").read_text())
    assert [(d.name, d.state, d.problem) for d in found] == [
        ("Xen PCI Driver", DeviceState.RUNNING, None),
        ("vbd", DeviceState.PROBLEM, 28),
        ("", DeviceState.DISABLED, None),
        ("Something", DeviceState.STOPPED, None),
    ]
    assert driverstore.parse_status("No matching devices found.\r\n") == ()


def test_ids() -> None:
    found = driverstore.parse_hwids((GOLDEN / "devcon_hwids.txt").read_text())
    assert found[r"XEN\VBD\4&33C61A47&0&00"] == (r"XEN\VBD",)
    assert next(iter(found.values()))[-1] == r"PCI\VEN_5853&DEV_0001"


def test_install(store: DriverStore, package: Package, cmd: FakeCmd, deadline: Deadline) -> None:
    Devcon(cmd, log=b"#I121 Device install finished successfully.\r\n")
    result = store.install(package, deadline)
    assert not result.reboot_needed
    assert result.devices == (r"XEN\VBD",)
    assert result.log_lines == (
        "Drivers installed successfully.",
        "#I121 Device install finished successfully.",
    )
    assert cmd.files[r"C:\pvlab\drivers\xenvbd\i386\xenvbd.sys"] == b"MZ"
    assert r'devcon update "C:\pvlab\drivers\xenvbd\xenvbd.inf" "XEN\VBD"' in cmd.lines


def test_exit_code_1_asks_for_a_reboot(
    store: DriverStore, package: Package, cmd: FakeCmd, deadline: Deadline
) -> None:
    Devcon(cmd, update=("Drivers installed successfully.\r\n", "", 1))
    assert store.install(package, deadline).reboot_needed


def test_a_failed_install_is_the_drivers(
    store: DriverStore, package: Package, cmd: FakeCmd, deadline: Deadline
) -> None:
    Devcon(
        cmd,
        update=("devcon failed.\r\n", "", 2),
        log=b"#I123 Doing full install.\r\n#E122 Device install failed. Error 2: no file.\r\n",
    )
    with pytest.raises(DriverFailure, match=r"xenvbd\.inf could not .*#E122 .*no file"):
        store.install(package, deadline)


def test_no_device_for_the_first_inf_is_the_labs(
    store: DriverStore, package: Package, cmd: FakeCmd, deadline: Deadline
) -> None:
    Devcon(cmd, hwids="No matching devices found.\r\n")
    with pytest.raises(LabBroken, match=r"no device for xenvbd\.inf: XEN\\VBD"):
        store.install(package, deadline)


def test_a_child_that_never_comes_is_the_drivers(
    store: DriverStore, package: Package, cmd: FakeCmd
) -> None:
    Devcon(cmd)
    package.infs = (
        *package.infs,
        OneInf(PurePosixPath("xenvif.inf"), (r"XEN\NEVER",)),
    )
    with pytest.raises(DriverFailure, match=r"brought no device XEN\\NEVER"):
        store.install(package, Deadline(1))


def test_no_devcon_is_the_labs(
    store: DriverStore, package: Package, cmd: FakeCmd, deadline: Deadline
) -> None:
    with pytest.raises(LabBroken, match="devcon is not installed"):
        store.status(r"XEN\VBD", deadline)


@pytest.mark.parametrize("verb", ["remove", "disable", "enable", "restart"])
def test_changes(store: DriverStore, cmd: FakeCmd, deadline: Deadline, verb: str) -> None:
    line = f"{'XEN' + chr(92) + 'VBD' + chr(92) + '0':60}: Done\r\n"
    cmd.programs["devcon"] = lambda _: (line + "1 device(s) done.\r\n", "", 1)
    result = getattr(store, verb)(r"XEN\VBD", deadline)
    assert result.reboot_needed
    assert result.devices == (r"XEN\VBD\0",)
    assert cmd.lines[-1] == rf'devcon {verb} "XEN\VBD"'
    cmd.programs["devcon"] = lambda _: (line + "No devices were changed.\r\n", "", 2)
    with pytest.raises(DriverFailure, match=f"devcon {verb}"):
        getattr(store, verb)(r"XEN\VBD", deadline)
    cmd.programs["devcon"] = lambda _: ("No devices were changed.\r\n", "", 2)
    with pytest.raises(DeviceError):
        getattr(store, verb)(r"XEN\VBD", deadline)


def test_version(store: DriverStore, cmd: FakeCmd, deadline: Deadline) -> None:
    cmd.programs["devcon"] = lambda _: (
        "XEN\\VBD\\0\r\n    Name: vbd\r\n    Driver installed from c:\\windows\\inf\\oem0.inf "
        "[XenVbd_Inst]. 1 file(s) used by driver:\r\n",
        "",
        0,
    )
    cmd.programs["findstr"] = lambda _: ("DriverVer=11/20/2007,0.3.0.2\r\n", "", 0)
    assert store.version(r"XEN\VBD", deadline) == "0.3.0.2"
    cmd.programs["devcon"] = lambda _: ("No matching devices found.\r\n", "", 0)
    assert store.version(r"XEN\VBD", deadline) is None


def test_odd_ids_are_never_sent(store: DriverStore, cmd: FakeCmd, deadline: Deadline) -> None:
    for pattern in ("", 'a" & del', "%windir%", "a|b"):
        with pytest.raises(UsageError, match="not a device id"):
            store.status(pattern, deadline)
    assert cmd.lines == []


# -- unsigned drivers, and restarts in between -------------------------------------------------

UNSIGNED = (
    b'#E358 An unsigned or incorrectly signed file "c:\\x.inf" for driver "x" blocked (server '
    b"install). Error 0xe000022f: The third-party INF does not contain digital signature "
    b"information.\r\n"
)


def test_what_nobody_signed_is_installed_by_setupapi(
    store: DriverStore, package: Package, cmd: FakeCmd, deadline: Deadline
) -> None:
    package.infs[0].services = (OneService("xenpci", False), OneService("xenvbd", True))
    devcon = Devcon(cmd, update=("devcon failed.\r\n", "", 2), log=UNSIGNED)
    asked: list[str] = []
    cmd.programs["start"] = cmd.programs["reg"] = lambda line: (asked.append(line) or "", "", 0)
    run = devcon.run
    cmd.programs["devcon"] = lambda line: (
        ("1 device(s) were removed.\r\n", "", 0) if line.startswith("devcon remove") else run(line)
    )
    result = store.install(package, deadline)
    assert result.reboot_needed
    assert result.devices == (r"XEN\VBD",)
    assert "installed by SetupAPI, unsigned" in "\n".join(result.log_lines)
    critical = r"HKLM\SYSTEM\CurrentControlSet\Control\CriticalDeviceDatabase\XEN#VBD"
    assert asked == [
        'start "" /wait rundll32.exe setupapi.dll,InstallHinfSection XenVbd_Inst.NT 128 '
        r"C:\pvlab\drivers\xenvbd\xenvbd.inf",
        r'reg query "HKLM\SYSTEM\CurrentControlSet\Services\xenvbd" /v ImagePath',
        f'reg add "{critical}" /v Service /t REG_SZ /d "xenvbd" /f',
        f'reg add "{critical}" /v ClassGUID /t REG_SZ '
        '/d "{4D36E97B-E325-11CE-BFC1-08002BE10318}" /f',
    ]


def test_setupapi_that_adds_no_service(
    store: DriverStore, package: Package, cmd: FakeCmd, deadline: Deadline
) -> None:
    package.infs[0].services = (OneService("xenvbd", True),)
    Devcon(cmd, update=("devcon failed.\r\n", "", 2), log=UNSIGNED)
    cmd.programs["start"] = lambda line: ("", "", 0)
    cmd.programs["reg"] = lambda line: ("", "ERROR: not found", 1)
    with pytest.raises(DriverFailure, match="SetupAPI added no service xenvbd"):
        store.install(package, deadline)


def test_an_unsigned_inf_that_does_not_say_what_drives_the_device(
    store: DriverStore, package: Package, cmd: FakeCmd, deadline: Deadline
) -> None:
    Devcon(cmd, update=("devcon failed.\r\n", "", 2), log=UNSIGNED)
    with pytest.raises(LabBroken, match="not signed") as caught:
        store.install(package, deadline)
    assert "DriverSigningPolicy=ignore" in caught.value.hint


def test_a_restart_between_two_infs(
    store: DriverStore, package: Package, cmd: FakeCmd, deadline: Deadline, tmp_path: Path
) -> None:
    """The bus driver asks for it, and its child is there only after it."""
    (tmp_path / "xenpci.inf").write_bytes(b"[Version]")
    package.files = (*package.files, PurePosixPath("xenpci.inf"))
    bus = OneInf(PurePosixPath("xenpci.inf"), (r"PCI\VEN_5853&DEV_0001",))
    package.infs = (bus, *package.infs)
    devcon = Devcon(cmd, update=("Drivers installed successfully.\r\n", "", 1))
    whole = devcon.hwids
    devcon.hwids = whole[: whole.index(r"XEN\VBD")]
    restarts: list[str] = []

    def restart() -> None:
        restarts.append(cmd.lines[-1])
        devcon.hwids = whole

    result = store.install(package, deadline, restart=restart)
    assert result.devices == (r"PCI\VEN_5853&DEV_0001", r"XEN\VBD")
    assert not result.reboot_needed
    assert len(restarts) == 2
