"""The copy of the disc, the PC's command line, the self-check, and the plan of a build."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Interface
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pycdlib
import pytest
from pydantic import SecretStr

from lab.cli.main import main
from lab.core.command import CommandResult
from lab.core.deadline import Deadline
from lab.core.errors import LabBroken
from lab.core.paths import repo_root
from lab.guest.channel import Channel
from lab.install import pipeline, secret
from lab.install.oem import remaster
from lab.install.pipeline import Sources, answer_floppy, disc_files
from lab.install.selfcheck import Check, checks_2003, self_check
from lab.install.settings import InstallSettings
from lab.media.disc import Disc
from lab.qemu.emulator import Emulator
from lab.qemu.pc import PcSpec

KEY = "BCDFG-HJKMP-QRTVW-XY234-67892"
BOOT = b"\xfa\xeb\xfe".ljust(2048, b"\x11")


def disc(path: Path, *, joliet: bool = False) -> Path:
    iso = pycdlib.PyCdlib()
    iso.new(vol_ident="ORIGINAL", joliet=3 if joliet else None)
    for name, content in (("BOOT.BIN", BOOT), ("README.TXT", b"as it was")):
        more = {"joliet_path": f"/{name}"} if joliet else {}
        iso.add_fp(io.BytesIO(content), len(content), f"/{name};1", **more)
    iso.add_eltorito("/BOOT.BIN;1", "/BOOT.CAT;1", boot_load_size=4)
    iso.write(str(path))
    iso.close()
    return path


@pytest.mark.parametrize("joliet", [False, True])
def test_files_are_added_and_what_was_there_stays(tmp_path: Path, joliet: bool) -> None:
    program = tmp_path / "p.exe"
    program.write_bytes(b"MZ program")
    source = disc(tmp_path / "a.iso", joliet=joliet)
    before = source.read_bytes()
    remaster(
        source,
        tmp_path / "b.iso",
        {"$OEM$/CMDLINES.TXT": b"[Commands]", "$OEM$/$1/PVLAB/SETUP/P.EXE": program},
    )
    assert source.read_bytes() == before
    with Disc(tmp_path / "b.iso") as copy:
        assert copy.label == "ORIGINAL"
        assert copy.boots
        assert copy.read("/README.TXT") == b"as it was"
        assert copy.read("/$OEM$/CMDLINES.TXT") == b"[Commands]"
        assert copy.read("/$OEM$/$1/PVLAB/SETUP/P.EXE") == b"MZ program"
    data = (tmp_path / "b.iso").read_bytes()
    # El Torito 1.0: the boot record at 17 points to the catalog, whose entry to the program.
    catalog = int.from_bytes(data[17 * 2048 + 0x47 :][:4], "little") * 2048
    start = int.from_bytes(data[catalog + 32 + 8 :][:4], "little") * 2048
    assert data[catalog + 32] == 0x88
    assert data[start : start + 8] == BOOT[:8]


def test_a_disc_that_has_the_folder_already_is_refused(tmp_path: Path) -> None:
    first = tmp_path / "b.iso"
    remaster(disc(tmp_path / "a.iso"), first, {"$OEM$/A.TXT": b"x"})
    with pytest.raises(LabBroken, match=r"cannot put the lab's files on a copy of b\.iso"):
        remaster(first, tmp_path / "c.iso", {"$OEM$/A.TXT": b"x"})
    assert not (tmp_path / "c.iso").exists()


def test_a_damaged_disc_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.iso").write_bytes(b"nothing")
    with pytest.raises(LabBroken, match=r"a copy of a\.iso"):
        remaster(tmp_path / "a.iso", tmp_path / "b.iso", {})


def sources(tmp_path: Path) -> Sources:
    return Sources(tmp_path, {}, SecretStr(KEY), SecretStr("Geheim1234567890abcd"))


def test_the_floppy_is_private_and_goes(tmp_path: Path) -> None:
    with answer_floppy(tmp_path, InstallSettings(), sources(tmp_path)) as path:
        assert path.stat().st_mode & 0o777 == 0o600
        assert KEY.encode() in path.read_bytes()
        with (
            pytest.raises(LabBroken, match="is there already"),
            answer_floppy(tmp_path, InstallSettings(), sources(tmp_path)),
        ):
            pass
    assert not path.exists()


def test_no_secret_is_on_the_disc(tmp_path: Path) -> None:
    for content in disc_files(InstallSettings(), {}).values():
        assert isinstance(content, bytes)
        assert KEY.encode() not in content
        assert b"Geheim" not in content
    assert "Geheim" not in repr(sources(tmp_path))


def pc(**changes: Any) -> PcSpec:
    given: dict[str, Any] = {
        "name": "pc",
        "emulator": Emulator(("qemu",), "7.2", "system"),
        "accel": "tcg",
        "cpu": "qemu64",
        "memory_mib": 512,
        "disk": Path("/d/a,b.qcow2"),
        "cdrom": Path("/d/c.iso"),
        "floppy": Path("/d/f.img"),
        "address": IPv4Interface("192.168.53.10/24"),
        "forwards": {"winrm": 5985},
        **changes,
    }
    return PcSpec(**given)


class TestPc:
    def test_disk_before_cd_and_the_lab_s_network(self) -> None:
        words = pc(paused=True).argv(incoming=False, monitor_fd=9)
        text = " ".join(words)
        assert "-boot order=cd" in text
        assert "file=/d/a,,b.qcow2,format=qcow2,cache=unsafe,snapshot=off" in text
        assert "if=floppy,index=0,file=/d/f.img,format=raw,readonly=on" in text
        assert "net=192.168.53.0/24,dhcpstart=192.168.53.10" in text
        assert "restrict=on" in text
        assert "hostfwd=tcp:127.0.0.1:0-:5985" in text
        assert words.index("chardev:debug") < words.index("chardev:serial")
        assert "-S" in words

    def test_without_drives(self) -> None:
        text = " ".join(pc(disk=None, cdrom=None, floppy=None).argv(incoming=False, monitor_fd=9))
        assert "-drive" not in text

    def test_a_clone_writes_to_nothing_it_shares(self) -> None:
        spec = pc(ram_file=Path("/d/ram"), ram_shared=True, paused=True)
        assert "mem-path=/d/ram,share=on" in " ".join(spec.argv(incoming=False, monitor_fd=9))
        words = spec.cloned("clone", Path("/d/ram")).argv(incoming=True, monitor_fd=9)
        text = " ".join(words)
        assert "mem-path=/d/ram,share=off" in text
        assert "snapshot=on" in text
        assert "-S" not in words
        assert words[-2:] == ["-incoming", "defer"]


class FakeChannel:
    def __init__(self, answers: dict[str, str]) -> None:
        self.answers = answers

    def wait_ready(self, deadline: Deadline, *, while_waiting: object = None) -> None:
        pass

    def run(self, command: str, deadline: Deadline) -> CommandResult:
        return CommandResult(command, 0, self.answers.get(command, ""), "", 0.0, "guest")


class TestSelfCheck:
    GOOD = (
        "Microsoft Windows [Version 5.2.3790]",
        "PAEEnabled=TRUE",
        "    CrashDumpEnabled    REG_DWORD    0x2",
        'multi(0)disk(0)rdisk(0)partition(1)\\WINDOWS="PV" /pae /gplpv',
        "dbgview.exe   1234 Console",
        "12 matching device(s) found.",
        "Config\n    MaxEnvelopeSizekb = 150\n    MaxTimeoutms = 1800000\n",
    )

    def ask(self, *changes: tuple[int, str]) -> Any:
        checks = checks_2003(InstallSettings())
        said = list(self.GOOD)
        for index, text in changes:
            said[index] = text
        channel = FakeChannel(
            {check.command: text for check, text in zip(checks, said, strict=True)}
        )
        return self_check(channel, checks, Deadline(5))  # type: ignore[arg-type]

    def test_a_guest_as_it_should_be(self) -> None:
        assert all(answer.ok for answer in self.ask())

    @pytest.mark.parametrize("index", range(7))
    def test_each_check_can_fail(self, index: int) -> None:
        name = checks_2003(InstallSettings())[index].name
        with pytest.raises(LabBroken, match=f"not as it should be: {name}: nothing"):
            self.ask((index, ""))

    def test_all_that_is_wrong_is_told_in_a_line(self) -> None:
        with pytest.raises(
            LabBroken, match=r"PAE: PAEEnabled=FALSE; .*MaxTimeoutms = 60000"
        ) as caught:
            self.ask((1, "PAEEnabled=FALSE"), (6, "MaxTimeoutms = 60000"))
        assert "boot.ini has /pae" in caught.value.hint
        assert "\n" not in str(caught.value)

    def test_over_winrm_against_the_stand_in(self, standin: Channel) -> None:
        checks = (Check("version", "ver", r"5\.2\.3790"), Check("echo", "echo ready", "^ready"))
        assert [answer.ok for answer in self_check(standin, checks, Deadline(60))] == [True, True]


@pytest.fixture
def standin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Channel]:
    """The stand-in's own WinRM server, in this process."""
    monkeypatch.syspath_prepend(str(repo_root() / "images/standin-pae"))
    from standin import winrm
    from standin.config import Config
    from standin.system import System

    kernel = SimpleNamespace(
        run=lambda *_, **__: (0, b""), reread_partitions=lambda _: None, is_mounted=lambda _: False
    )
    folders = {f"{name}_root": tmp_path / name for name in ("c", "mount", "sys", "dev", "proc")}
    for folder in folders.values():
        folder.mkdir()
    (tmp_path / "sys/block").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 196608 kB\nMemAvailable: 98304 kB\n")
    (tmp_path / "kmsg").touch()
    config = Config(
        {
            "password": "Geheim1234567890abcd",
            "listen": "127.0.0.1",
            "port": 0,
            **{name: str(folder) for name, folder in folders.items()},
            "kmsg": str(tmp_path / "kmsg"),
            "uevents": False,
            "preload": False,
        }
    )
    server = winrm.start(System(config, kernel))
    password = sources(tmp_path).password.get_secret_value()
    with Channel("127.0.0.1", server.port, pipeline.USERNAME, password, name="standin") as channel:
        yield channel
    server.close()


class TestPlan:
    @pytest.fixture(autouse=True)
    def _cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PVLAB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(secret, "_taken", {})
        monkeypatch.delenv(secret.KEY_FILE_VARIABLE, raising=False)
        monkeypatch.delenv(secret.KEY_VARIABLE, raising=False)

    def test_every_file_is_shown_and_no_secret(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv(secret.KEY_VARIABLE, KEY)
        assert main(["image", "build", "w2k3-sp2-pae", "--dry-run"]) == 2
        out = capsys.readouterr().out
        for name in (
            "WINNT.SIF",
            "CMDLINES.TXT",
            "FIRST.CMD",
            "STEPS.TXT",
            "BOOT.INI",
            "WINRM20.EXE",
        ):
            assert name in out
        assert 'ProductKey="*****"' in out
        assert "DriverSigningPolicy" in out
        assert "winrm set winrm/config" in out
        assert "product key: given" in out
        assert KEY not in out
        assert "missing: dbgview: DbgView" in out

    def test_as_json(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["image", "build", "w2k3-sp2-pae", "--dry-run", "--json"]) == 2
        said = capsys.readouterr()
        plan = json.loads(said.out)[0]
        assert plan["image"] == "w2k3-sp2-pae"
        assert {file["where"] for file in plan["files"]} == {"floppy", "disc", "image"}
        assert any("no product key" in line for line in plan["missing"])
        assert said.err.count("\n") == 1

    def test_nothing_is_made(self, tmp_path: Path) -> None:
        main(["image", "build", "w2k3-sp2-pae", "--dry-run"])
        assert not (tmp_path / "cache" / "images").exists()

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (["--dry-run"], "needs the name of an image"),
            (["standin-pae", "--dry-run"], "has no plan to show"),
            (["standin-pae", "--json"], "--json goes with --dry-run"),
            (["none", "--dry-run"], "no image is called 'none'"),
        ],
    )
    def test_mistakes(
        self, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["image", "build", *arguments]) == 2
        assert says in capsys.readouterr().err

    def test_without_media_a_build_says_what_is_missing(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["image", "build", "w2k3-sp2-pae"]) == 2
        said = capsys.readouterr().err
        assert "image w2k3-sp2-pae needs media: Windows Server 2003" in said
        assert said.count("\n") == 1


def test_the_play_setup_program_is_built_by_the_compiler(tmp_path: Path) -> None:
    """Whoever changes it learns here, not in an integration test, that it does not compile."""
    if shutil.which("gcc") is None:
        pytest.skip("no compiler")
    source = repo_root() / "images/play-setup/src/play.c"
    flags = ["-m16", "-march=i386", "-std=gnu11", "-ffreestanding", "-Wall", "-Wextra", "-Werror"]
    done = subprocess.run(
        ["gcc", *flags, "-fsyntax-only", source], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
