"""The guest layer against the stand-in's own server, on loopback, with disks that are files."""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.core.deadline import Deadline
from lab.core.errors import DeadlineExpired, DriverFailure
from lab.core.paths import repo_root
from lab.drivers.package import DriverPackage
from lab.guest.bootini import BootMenu
from lab.guest.channel import Channel
from lab.guest.dbgview import DbgView
from lab.guest.disks import Disks
from lab.guest.driverstore import DeviceState, DriverStore
from lab.guest.errors import DiskError, GuestFileMissing
from lab.guest.files import Files

STANDIN = repo_root() / "images/standin-pae"
DRIVERS = repo_root() / "images/standin-drivers"
SECTORS = 262145  # 128 MiB and a sector: no whole number of cylinders


@pytest.fixture(scope="module")
def standin() -> Iterator[Any]:
    if not (STANDIN / "standin/winrm.py").exists():
        pytest.skip("the stand-in's server is not in this checkout")
    sys.path.insert(0, str(STANDIN))
    import standin.boot

    yield standin
    sys.path.remove(str(STANDIN))


class FakeKernel:
    """The guest's kernel as folders and files: /sys, /dev, module loading, mkntfs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.insmod_fails = False
        self.system: Any = None
        for folder in ("sys/block", "sys/module", "sys/bus/xen/devices", "dev", "proc", "c"):
            (root / folder).mkdir(parents=True)
        (root / "proc/meminfo").write_text("MemTotal: 196608 kB\nMemAvailable: 98304 kB\n")

    def add_disk(self, name: str, sectors: int) -> None:
        folder = self.root / "sys/block" / name
        (folder / "queue").mkdir(parents=True)
        (folder / "queue/logical_block_size").write_text("512\n")
        (folder / "size").write_text(f"{sectors}\n")
        (folder / "diskseq").write_text(f"{len(os.listdir(folder.parent))}\n")
        with (self.root / "dev" / name).open("wb") as disk:
            disk.truncate(sectors * 512)

    def run(self, program: str, *args: str, process: object = None) -> tuple[int, bytes]:
        if program == "insmod":
            if self.insmod_fails:
                return 1, b"insmod: invalid module format"
            (self.root / "sys/module" / Path(args[0]).stem).mkdir()
        elif program == "rmmod":
            (self.root / "sys/module" / args[0]).rmdir()
        elif program == "mkntfs":
            boot = bytearray(512)
            boot[3:11] = b"NTFS    "
            boot[11:14] = struct.pack("<HB", 512, 8)
            boot[510:] = b"\x55\xaa"
            with open(args[-1], "r+b") as device:
                device.write(boot)
        return 0, b""

    def reread_partitions(self, device: str) -> None:
        with open(device, "rb") as disk:
            table = disk.read(512)
        for number in range(4):
            if table[450 + 16 * number]:
                with open(f"{device}{number + 1}", "ab") as partition:
                    partition.truncate(1 << 20)

    def is_mounted(self, folder: str) -> bool:
        return False


@pytest.fixture
def kernel(tmp_path: Path) -> FakeKernel:
    kernel = FakeKernel(tmp_path)
    kernel.add_disk("sda", 524288)
    return kernel


@pytest.fixture
def live(standin: Any, kernel: FakeKernel) -> Iterator[Channel]:
    from standin import winrm
    from standin.config import Config
    from standin.system import System

    settings = Config(
        {
            "password": "secret",
            "listen": "127.0.0.1",
            "port": 0,
            "c_root": str(kernel.root / "c"),
            "mount_root": str(kernel.root / "letters"),
            "sys_root": str(kernel.root / "sys"),
            "dev_root": str(kernel.root / "dev"),
            "proc_root": str(kernel.root / "proc"),
            "kmsg": str(kernel.root / "kmsg"),
            "uevents": False,
            "preload": False,
        }
    )
    (kernel.root / "kmsg").touch()
    system = System(settings, kernel)
    kernel.system = system
    system.disks.scan()
    server = winrm.start(system)
    with Channel("127.0.0.1", server.port, "Administrator", "secret", name="standin") as channel:
        yield channel
    server.close()


@pytest.fixture
def deadline() -> Deadline:
    return Deadline(60)


def package(tmp_path: Path, kind: str) -> DriverPackage:
    folder = tmp_path / "package"
    (folder / "i386").mkdir(parents=True)
    inf = (DRIVERS / kind / "xenvbd.inf").read_bytes()
    (folder / "xenvbd.inf").write_bytes(inf)
    elf = b"\x7fELF\x01".ljust(18, b"\0") + struct.pack("<H", 3)
    for name in ("xenpci.sys", "xenvbd.sys", "xenvbdx.sys"):
        if name.encode() in inf:
            (folder / "i386" / name).write_bytes(elf)
    return DriverPackage.load(folder, tmp_path / "packages")


def test_commands(live: Channel, deadline: Deadline) -> None:
    live.wait_ready(deadline)
    assert live.run("echo hello & ver", deadline).stdout.startswith("hello")
    unknown = live.run("nonsense", deadline)
    assert unknown.exit_code == 1
    assert "'nonsense' is not recognized" in unknown.stderr
    for _ in range(30):
        assert live.run("exit /b 3", deadline).exit_code == 3
    assert live.alive(deadline)


def test_a_long_command_ends_at_the_deadline(live: Channel, deadline: Deadline) -> None:
    live.wait_ready(deadline)
    with pytest.raises(DeadlineExpired):
        live.run('findstr "^"', Deadline(1.5))
    assert live.run("echo still here", deadline).ok


@pytest.mark.parametrize("size", [0, 1, 1000, 300_000])
def test_files(live: Channel, tmp_path: Path, deadline: Deadline, size: int) -> None:
    data = os.urandom(size)
    files = Files(live)
    remote = r"C:\pvlab\some folder\x.bin"
    assert files.put_bytes(data, remote, deadline) == files.get(remote, tmp_path / "back", deadline)
    assert (tmp_path / "back").read_bytes() == data
    files.remove(remote, deadline)
    with pytest.raises(GuestFileMissing):
        files.get_bytes(remote, deadline)


def test_disks(live: Channel, kernel: FakeKernel, deadline: Deadline) -> None:
    disks = Disks(live)
    assert [d.number for d in disks.list(deadline)] == [0]
    kernel.add_disk("xvdc", SECTORS)
    found = disks.wait_for_disks(2, deadline)
    assert (found[1].status, found[1].size_bytes) == ("Online", 128 << 20)
    drive = disks.drives(deadline)[1]
    assert drive.exact_bytes == SECTORS * 512
    assert drive.fits(SECTORS)
    assert not drive.fits(SECTORS - 1)
    disks.partition(1, "E", deadline, size_mib=64)
    (partition,) = disks.partitions(1, deadline)
    assert partition.kind == "Primary"
    assert "E" in [volume.letter for volume in disks.volumes(deadline)]
    assert disks.detail(1, deadline).model == "XEN PV VBD SCSI Disk Device"
    with pytest.raises(DiskError, match="not valid"):
        disks.clean(7, deadline)


def test_installing(live: Channel, kernel: FakeKernel, tmp_path: Path, deadline: Deadline) -> None:
    store = DriverStore(live, Files(live))
    (before,) = store.status(r"XEN\VBD", deadline)
    assert before.problem == 28  # CM_PROB_FAILED_INSTALL: no driver yet
    assert store.version(r"XEN\VBD", deadline) is None
    result = store.install(package(tmp_path, "broken-attach"), deadline)
    assert result.devices == (r"XEN\VBD",)
    assert any("#I121" in line for line in result.log_lines)
    assert sorted(os.listdir(kernel.root / "sys/module")) == ["xenvbd", "xenvbdx"]
    assert [d.state for d in store.status(r"XEN\VBD", deadline)] == [DeviceState.RUNNING]
    assert store.version(r"XEN\VBD", deadline) == "0.0.3.666"
    store.disable(r"XEN\VBD", deadline)
    assert [d.state for d in store.status(r"XEN\VBD", deadline)] == [DeviceState.DISABLED]
    store.enable(r"XEN\VBD", deadline)
    store.rescan(deadline)
    store.remove(r"XEN\VBD", deadline)
    assert os.listdir(kernel.root / "sys/module") == []


def test_setup_log_holds_only_what_is_new(
    live: Channel, tmp_path: Path, deadline: Deadline
) -> None:
    store = DriverStore(live, Files(live))
    good = package(tmp_path, "good")
    first = store.install(good, deadline)
    second = store.install(good, deadline)
    assert len(second.log_lines) <= len(first.log_lines)


def test_dbgview(live: Channel, deadline: Deadline) -> None:
    view = DbgView(live, Files(live))
    view.start(deadline)
    view.stop(deadline)
    assert all(line.index is None for line in view.lines(deadline))


def test_missing_driver_file_in_the_guest_is_the_drivers(
    live: Channel, tmp_path: Path, deadline: Deadline
) -> None:
    store = DriverStore(live, Files(live))
    good = package(tmp_path, "good")
    inf = good.folder / "xenvbd.inf"
    inf.write_bytes(inf.read_bytes().replace(b"xenvbd.sys=1", b"xenvbd.sys=1,sub"))
    with pytest.raises(DriverFailure, match=r"xenvbd\.inf could not be installed"):
        store.install(good, deadline)


def test_an_unsigned_driver_is_installed_all_the_same(
    live: Channel, kernel: FakeKernel, deadline: Deadline, tmp_path: Path
) -> None:
    """devcon refuses; SetupAPI installs the section, and the device takes it at the next start."""
    (kernel.root / "sys/bus/xen/devices/vbd-5632").mkdir()
    drivers = DriverStore(live, Files(live))
    quirks = r"HKLM\SOFTWARE\pvlab\WinRMQuirks"
    live.run(f"reg add {quirks} /v RefuseUnsigned /t REG_DWORD /d 1 /f", deadline).check()
    restarts: list[str] = []
    system = kernel.system

    def restart() -> None:
        assert drivers.status(r"XEN\VBD", deadline)[0].problem == 28
        restarts.append("restart")
        system.devices.load_at_boot()

    result = drivers.install(package(tmp_path, "good"), deadline, restart=restart)
    assert restarts == ["restart"]
    assert result.devices == (r"XEN\VBD",)
    assert any("0xe000022f" in line for line in result.log_lines)
    (device,) = drivers.status(r"XEN\VBD", deadline)
    assert device.state is DeviceState.RUNNING
    assert (kernel.root / "sys/module/xenvbd").is_dir()


def test_the_boot_menu(live: Channel, deadline: Deadline) -> None:
    menu = BootMenu(live, Files(live))
    before = menu.start_with("/gplpv", deadline)
    assert menu.read(deadline).started.has("/gplpv")
    assert menu.read(deadline).started.has("/fastdetect")
    menu.restore(before, deadline)
    assert not menu.read(deadline).started.has("/gplpv")
