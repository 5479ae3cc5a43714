"""The setup, with a program that plays anaconda on its serial port; and what comes of it."""

from __future__ import annotations

import gzip
import sys
import textwrap
from pathlib import Path

import paramiko
import pycdlib
import pytest

from lab.config.profile import Profile
from lab.core.deadline import Deadline
from lab.core.errors import LabBroken
from lab.core.paths import repo_root
from lab.el5.build import describe, new_rsa_key, take_installer
from lab.el5.kickstart import BEGUN, DONE, FAILED, HOST_KEY, INSTALLED
from lab.el5.model import Variant
from lab.el5.setup import SetupMachine, run_setup
from lab.images.boot import read_host, write_host
from lab.images.store import Store
from lab.media.store import MediaMissing, MediaStore
from lab.place import hardware
from lab.place.hardware import exchange_disk, guest_disk, machine_spec
from lab.qemu.accel import AccelChoice
from lab.qemu.emulator import Emulator
from lab.qemu.kvm import KvmFacts

IMAGES = repo_root() / "images"
VARIANT = Variant.load(IMAGES / "xen31-centos5")
KEY_LINE = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQ=="

# newt draws windows with escape sequences, and lines end as on a terminal.
WHOLE = f"""
    say("\\x1b[2J\\x1b[1;1HWelcome to CentOS  \\x1b[0;37;44m")
    say({BEGUN!r})
    say("Package Installation  \\x1b[12;3H 312 of 312")
    say({INSTALLED!r})
    say("{HOST_KEY}: {KEY_LINE}")
    say({DONE!r})
    say("Power down.")
"""


def anaconda(tmp_path: Path, body: str) -> list[str]:
    program = tmp_path / "anaconda.py"
    program.write_text(
        "import sys, time\n"
        "def say(text):\n    sys.stdout.write(text + '\\r\\n'); sys.stdout.flush()\n"
        + textwrap.dedent(body)
    )
    return [sys.executable, str(program)]


class Watcher:
    def __init__(self) -> None:
        self.steps: list[str] = []
        self.lines: list[str] = []

    def run(self, argv: list[str], seconds: float = 30, patience: float = 1.0) -> str:
        return run_setup(
            argv, Deadline(seconds), patience=patience,
            say=self.steps.append, heard=self.lines.append,
        )  # fmt: skip


def test_a_whole_setup(tmp_path: Path) -> None:
    watcher = Watcher()
    assert watcher.run(anaconda(tmp_path, WHOLE)) == KEY_LINE
    assert len(watcher.steps) == 4
    assert watcher.lines[0] == "Welcome to CentOS"
    assert watcher.lines[-1] == "Power down."


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (f"say({FAILED!r} + ': no room in /boot')\ntime.sleep(60)", "not be set up: no room in /b"),
        ("say('\\x1b[5;3HError Parsing Kickstart Config')\ntime.sleep(60)", "refuses the kickst"),
        ("say('Kernel panic - not syncing: VFS: Unable')\ntime.sleep(60)", "panicked: VFS: Unable"),
        ("say('No hard drives have been found')\ntime.sleep(60)", "finds no disk"),
        ("say('Please insert disc 2')\ntime.sleep(60)", "wants another medium"),
        ("say('bye')", "the machine ended while the lab waited for the installer .* serial.* bye"),
        (f"say({BEGUN!r})\ntime.sleep(60)", "waited .* for the packages to be installed"),
    ],
)
def test_a_setup_that_fails(tmp_path: Path, body: str, message: str) -> None:
    watcher = Watcher()
    with pytest.raises(LabBroken, match=message) as caught:
        watcher.run(anaconda(tmp_path, body), seconds=3 if "waited" in message else 30)
    assert "\n" not in caught.value.message


def test_the_machine_of_the_setup() -> None:
    machine = SetupMachine(
        emulator=Emulator(("qemu",), "7.2", "system"),
        accel="tcg",
        cpu="qemu64",
        memory_mib=1024,
        nic="e1000",
        disk=Path("/o/root.img"),
        discs=[Path("/m/a,b"), Path("/m/c")],
        kernel=Path("/s/vmlinuz"),
        initrd=Path("/s/initrd"),
    )
    text = " ".join(machine.argv)
    assert "if=none,id=disc0,file=/m/a,,b,format=raw,readonly=on" in text
    assert "ide-cd,drive=disc1,bus=ide.1,unit=1" in text
    assert "ide-hd,drive=root,bus=ide.0,unit=0" in text
    assert "user,id=net0,restrict=on" in text
    assert machine.argv[:3] == ["setpriv", "--pdeathsig", "KILL"]


def test_the_installer_gets_the_kickstart(tmp_path: Path) -> None:
    """The medium's own archive is kept, and the kickstart is another one behind it."""
    packed = gzip.compress(b"070701 and so on", mtime=0)
    disc = pycdlib.PyCdlib()
    disc.new()
    disc.add_directory("/ISOLINUX")
    for name, content in (("VMLINUZ.", b"kernel"), ("INITRD.IMG", packed)):
        source = tmp_path / name
        source.write_bytes(content)
        disc.add_file(str(source), f"/ISOLINUX/{name};1")
    disc.write(str(tmp_path / "disc.iso"))
    disc.close()
    kernel, initrd = tmp_path / "vmlinuz", tmp_path / "initrd"
    take_installer(tmp_path / "disc.iso", kernel, initrd, "install\n")
    assert kernel.read_bytes() == b"kernel"
    data = initrd.read_bytes()
    assert data.startswith(packed)
    # Where the kernel looks for a second archive: on the next four bytes.
    second = data[len(packed) + -len(packed) % 4 :]
    # The "newc" format: eight digits each of inode, mode, ..., the size, ..., the name's length.
    assert second.startswith(b"070701")
    assert int(second[54:62], 16) == len(b"install\n")
    assert second[110 : 110 + 7] == b"ks.cfg\0"
    assert b"install\n" in second
    assert b"TRAILER!!!" in second
    with pytest.raises(LabBroken, match="no installer on this medium"):
        take_installer(tmp_path / "initrd", kernel, tmp_path / "other", "")


def test_a_key_that_old_servers_take(tmp_path: Path) -> None:
    line = new_rsa_key(tmp_path / "id")
    assert line.startswith("ssh-rsa ")
    assert (tmp_path / "id").stat().st_mode & 0o777 == 0o600
    key = paramiko.RSAKey.from_private_key_file(str(tmp_path / "id"))
    assert key.get_base64() == line.split()[1]


# -- what the layers above make of it ------------------------------------------------------


def accel(name: str) -> AccelChoice:
    return AccelChoice(
        name, "QEMU", "7.2", "hvm", "asked for", "host" if name == "kvm" else "EPYC",
        ("qemu",), "system",
    )  # type: ignore[arg-type]  # fmt: skip


@pytest.mark.parametrize(
    ("rung", "flag", "cpu"),
    [
        ("tcg-hvm", "", "Opteron_G2,+svm"),
        ("kvm", "svm", "Opteron_G2,+svm"),
        ("kvm", "vmx", "Conroe,+vmx"),
    ],
)
def test_the_machine_it_runs_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rung: str, flag: str, cpu: str
) -> None:
    facts = KvmFacts("x", flag, False, "usable", (), True)
    monkeypatch.setattr(hardware, "kvm_facts", lambda: facts)
    write_host(tmp_path, describe(VARIANT, KEY_LINE))
    host = read_host(tmp_path)
    spec = machine_spec("template", Profile(), accel(rung), host, tmp_path, tmp_path)
    assert spec.cpu == cpu
    assert spec.kernel is None
    words = spec.argv(incoming=False, monitor_fd=3)
    assert "pc,memory-backend=ram" in words
    assert "e1000,netdev=net0,romfile=" in words
    assert (guest_disk(host), exchange_disk(host)) == ("/dev/hdc", "/dev/hdd")
    assert (host.ssh, host.toolstacks) == ("sha1", ("xm",))


def test_without_media_the_build_says_which(tmp_path: Path) -> None:
    store = Store(IMAGES, tmp_path / "images", MediaStore(tmp_path / "media"))
    with pytest.raises(MediaMissing) as caught:
        store.ensure("xen31-centos5")
    assert "\n" not in str(caught.value)
    for word in ("el5-i386", "el5-x86_64", "pvlab media add"):
        assert word in str(caught.value)
    assert "xen31-centos5" not in store.buildable()
    states = {one.name: one.state for one in store.status()}
    assert states["xen34-centos5"] == "needs media"
