"""Answer file, floppy, scripts and boot.ini, read back by others than who wrote them."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from ipaddress import IPv4Interface
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from lab.core.errors import UsageError
from lab.core.paths import repo_root
from lab.install.bootini import boot_ini
from lab.install.firstboot import FIRST_STEPS, PROGRAMS, cmdlines, scripts
from lab.install.floppy import CLUSTERS, SECTOR, SIZE, make_floppy
from lab.install.settings import InstallSettings
from lab.install.winnt import WinntSif, read_sif

KEY = "BCDFG-HJKMP-QRTVW-XY234-67892"


def answers(**changes: object) -> WinntSif:
    given: dict[str, object] = {
        "product_key": SecretStr(KEY),
        "admin_password": SecretStr("Geheim1234567890abcd"),
        "computer_name": "PVLAB2003",
        "full_name": "pvlab",
        "organisation": "pvlab",
        "timezone": 90,
        **changes,
    }
    return WinntSif(**given)  # type: ignore[arg-type]


class TestWinntSif:
    def test_what_setup_has_to_find(self) -> None:
        found = read_sif(answers(crash_dump=1).render())
        assert found["data"]["msdosinitiated"] == "0"
        assert found["unattended"]["driversigningpolicy"] == "Ignore"
        assert found["unattended"]["oemskipeula"] == "Yes"
        assert found["unattended"]["oempreinstall"] == "Yes"
        assert found["unattended"]["crashdumpsetting"] == "1"
        assert found["userdata"]["productkey"] == KEY
        assert found["userdata"]["computername"] == "PVLAB2003"
        assert found["guiunattended"]["adminpassword"] == "Geheim1234567890abcd"
        assert found["guiunattended"]["autologon"] == "Yes"
        assert found["windowsfirewall"]["profiles"].lower() in found

    def test_another_reader_agrees(self) -> None:
        parser = configparser.ConfigParser(interpolation=None, strict=True)
        parser.read_string(answers(run_once=("cmd /c a.cmd",)).render())
        assert {name.lower() for name in parser.sections()} == set(
            read_sif(answers(run_once=("cmd /c a.cmd",)).render())
        )
        assert parser["UserData"]["ProductKey"] == f'"{KEY}"'

    def test_lines_end_as_setup_wants_them(self) -> None:
        text = answers().render()
        assert text.isascii()
        assert "\n" not in text.replace("\r\n", "")

    def test_what_is_shown_has_no_secret(self) -> None:
        sif = answers()
        for text in (
            sif.masked(),
            repr(sif),
            str(sif),
            str(sif.model_dump()),
            sif.model_dump_json(),
        ):
            assert KEY not in text
            assert "Geheim" not in text
        assert 'ProductKey="*****"' in sif.masked()
        assert sif.masked().replace("*****", "") == re.sub(
            f"{KEY}|Geheim1234567890abcd", "", sif.render()
        )

    def test_errors_have_no_secret(self) -> None:
        with pytest.raises(ValidationError) as caught:
            answers(product_key={"a": KEY}, admin_password=["Geheim"], computer_name='a"b')
        assert KEY not in str(caught.value)
        assert "Geheim" not in str(caught.value)

    @pytest.mark.parametrize(
        "change",
        [
            {"computer_name": "X" * 16},
            {"computer_name": "a b"},
            {"computer_name": "-a"},
            {"full_name": 'a"b'},
            {"organisation": "a\r\nb"},
            {"run_once": ('echo "',)},
            {"auto_logons": 0},
        ],
    )
    def test_what_would_break_the_file_is_refused(self, change: dict[str, object]) -> None:
        with pytest.raises(ValidationError):
            answers(**change)


class TestFloppy:
    FILES: ClassVar = {"WINNT.SIF": b"x" * 1300, "EMPTY": b"", "B.TXT": b"short"}

    @pytest.fixture
    def image(self, tmp_path: Path) -> Path:
        path = tmp_path / "floppy.img"
        path.write_bytes(make_floppy(self.FILES))
        return path

    def test_mtools_reads_it_back(self, image: Path, tmp_path: Path) -> None:
        if shutil.which("mcopy") is None:
            pytest.skip("mtools is not installed")
        for name, content in self.FILES.items():
            target = tmp_path / name
            subprocess.run(["mcopy", "-n", "-i", image, f"::{name}", target], check=True)
            assert target.read_bytes() == content
        shown = subprocess.run(
            ["mdir", "-i", image, "::"], capture_output=True, text=True, check=True
        )
        assert "PVLAB" in shown.stdout
        geometry = subprocess.run(
            ["minfo", "-i", image, "::"], capture_output=True, text=True, check=True
        ).stdout
        assert "sectors per track: 18" in geometry
        assert "media descriptor byte: 0xf0" in geometry

    def test_fsck_finds_nothing(self, image: Path) -> None:
        fsck = shutil.which("fsck.fat", path="/usr/sbin:/sbin:/usr/bin")
        if fsck is None:
            pytest.skip("dosfstools are not installed")
        done = subprocess.run([fsck, "-n", image], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout

    @settings(max_examples=25)
    @given(
        st.dictionaries(
            st.from_regex(r"[A-Z][A-Z0-9]{0,7}\.[A-Z]{1,3}", fullmatch=True),
            st.binary(max_size=3000),
            max_size=20,
        )
    )
    def test_every_file_is_found_by_its_chain(self, files: dict[str, bytes]) -> None:
        image = make_floppy(files)
        assert len(image) == SIZE
        assert read_back(image) == files

    def test_both_tables_are_alike(self) -> None:
        image = make_floppy(self.FILES)
        assert image[SECTOR : 10 * SECTOR] == image[10 * SECTOR : 19 * SECTOR]

    def test_a_full_disk_and_one_more(self) -> None:
        assert read_back(make_floppy({"A": bytes(CLUSTERS * SECTOR)})) == {
            "A": bytes(CLUSTERS * SECTOR)
        }
        with pytest.raises(ValueError, match="do not fit"):
            make_floppy({"A": bytes(CLUSTERS * SECTOR), "B": b"x"})

    @pytest.mark.parametrize("name", ["winnt.sif", "LONGERNAME.TXT", "A.LONG", "A/B", "", "A."])
    def test_names_are_8_3(self, name: str) -> None:
        with pytest.raises(ValueError, match=r"8\.3"):
            make_floppy({name: b""})


def read_back(image: bytes) -> dict[str, bytes]:
    """The files by a reader of its own: root folder at sector 19, data at 33."""
    found = {}
    for at in range(19 * SECTOR, 33 * SECTOR, 32):
        entry = image[at : at + 32]
        if not entry[0] or entry[11] & 8:
            continue
        name = ".".join(filter(None, (entry[:8].decode().strip(), entry[8:11].decode().strip())))
        cluster, size = int.from_bytes(entry[26:28], "little"), int.from_bytes(entry[28:], "little")
        content = b""
        while 2 <= cluster < 0xFF0:
            content += image[(31 + cluster) * SECTOR : (32 + cluster) * SECTOR]
            pair = int.from_bytes(image[SECTOR + cluster * 3 // 2 :][:2], "little")
            cluster = pair >> 4 if cluster % 2 else pair & 0xFFF
        found[name] = content[:size]
    return found


class TestScripts:
    def test_every_step_has_its_part_and_every_part_its_step(self) -> None:
        made = scripts(InstallSettings(), "COM2")
        parts = re.findall(rb"^:do-([a-z-]+)\r$", made["FIRST.CMD"], re.M)
        assert [name.decode() for name in parts] == [step.name for step in FIRST_STEPS]
        table = made["STEPS.TXT"].decode().splitlines()
        assert table == [f"{step.name} {'reboot' if step.reboots else '-'}" for step in FIRST_STEPS]

    def test_every_label_that_is_called_is_there(self) -> None:
        for content in scripts(InstallSettings(), "COM2").values():
            text = content.decode("ascii")
            labels = set(re.findall(r"^:([a-z-]+)", text, re.M))
            wanted = set(re.findall(r"(?:call|goto) :?([a-z-]+)", text)) - {"eof", "winrm"}
            assert {name for name in wanted if not name.startswith("do-")} <= labels

    @pytest.mark.parametrize("port", ["COM1", "COM2"])
    def test_reports_go_to_the_port_that_is_listened_to(self, port: str) -> None:
        made = scripts(InstallSettings(), port)
        for name in ("OEM.CMD", "FIRST.CMD"):
            assert f"set PORT={port}\r\n".encode() in made[name]
            assert b"@pvlab 1 " in made[name]

    def test_files_are_what_cmd_reads(self) -> None:
        for name, content in scripts(InstallSettings(), "COM2").items():
            assert content.isascii()
            assert b"\n" not in content.replace(b"\r\n", b""), name
            assert content.count(b"(") == content.count(b")"), name
        assert cmdlines().startswith(b"[Commands]\r\n")

    def test_settings_arrive(self) -> None:
        own = InstallSettings(
            dump="complete",
            max_timeout_ms=600_000,
            address=IPv4Interface("192.168.7.5/24"),
        )
        first = scripts(own, "COM2")["FIRST.CMD"].decode()
        assert "CrashDumpEnabled /t REG_DWORD /d 1 /f" in first
        assert 'MaxTimeoutms="600000"' in first
        assert 'IPv4Filter="192.168.7.0-192.168.7.255"' in first
        assert "CUSTOM 192.168.7.0/255.255.255.0" in first
        assert b'EnableStatic ("192.168.7.5"),("255.255.255.0")' in scripts(own, "COM2")["NET.CMD"]
        assert 'Basic="true"' in first
        assert "NoAutoUpdate" in first
        assert "/l C:\\pvlab\\dbgview.log" in first

    def test_programs_have_names_that_a_disc_takes(self) -> None:
        made = scripts(InstallSettings(), "COM2")["FIRST.CMD"].decode()
        for name in PROGRAMS.values():
            assert re.fullmatch(r"[A-Z0-9]{1,8}\.EXE", name)
            assert f"%HERE%\\{name}" in made


class TestBootIni:
    def test_two_entries_and_only_the_second_with_the_drivers(self) -> None:
        parser = configparser.ConfigParser(
            interpolation=None, delimiters="=", strict=False, allow_no_value=True
        )
        text = boot_ini(debug=True)
        parser.read_string(text)
        assert parser["boot loader"]["timeout"] == "5"
        entries = [line for line in text.splitlines() if line.startswith("multi(0)")]
        assert len(entries) == 2
        assert all(
            "/pae" in line and "/debug /debugport=com1 /baudrate=115200" in line for line in entries
        )
        assert ["/gplpv" in line for line in entries] == [False, True]
        assert all(line.startswith(parser["boot loader"]["default"]) for line in entries)

    def test_without_a_debugger(self) -> None:
        assert "/debug" not in boot_ini(debug=False)


class TestSettings:
    def test_the_recipe_s_own_are_the_defaults(self) -> None:
        path = repo_root() / "images/w2k3-sp2-pae/install.toml"
        assert InstallSettings.load(path) == InstallSettings()

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("way = 'magic'", "way"),
            ("memory_mib = 128", "memory_mib"),
            ("colour = 1", "colour"),
            ("address = '8.8.8.8/24'", "is on no private network"),
            ("way = ", "Invalid value"),
        ],
    )
    def test_mistakes_are_one_line(self, tmp_path: Path, text: str, says: str) -> None:
        path = tmp_path / "install.toml"
        path.write_text(text)
        with pytest.raises(UsageError, match=says) as caught:
            InstallSettings.load(path)
        assert "\n" not in str(caught.value)

    def test_no_file_means_defaults(self, tmp_path: Path) -> None:
        assert InstallSettings.load(tmp_path / "none") == InstallSettings()
