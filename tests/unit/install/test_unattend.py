"""The answer file of Windows Vista and later, read back from its disc."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pycdlib
import pytest
from pydantic import SecretStr, ValidationError

from lab.core.errors import LabBroken
from lab.install import modern
from lab.install.settings import InstallSettings
from lab.install.steps import Event, Report, line, parse
from lab.install.unattend import ANSWER_FILE, NAMESPACE, Unattend, answer_disc

KEY = "BCDFG-HJKMP-QRTVW-XY234-67892"
PASSWORD = "Geheim&<1234567890>"
NS = {"u": NAMESPACE}
#: Microsoft, "Unattended Windows Setup Reference": which passes a component may be in.
PASSES = {
    "Microsoft-Windows-International-Core-WinPE": {"windowsPE"},
    "Microsoft-Windows-Setup": {"windowsPE"},
    "Microsoft-Windows-International-Core": {"specialize", "oobeSystem"},
    "Microsoft-Windows-Shell-Setup": {"specialize", "oobeSystem", "auditSystem", "generalize"},
}


def answers(key: str | None = KEY, settings: InstallSettings | None = None) -> Unattend:
    return modern.answers(
        settings or InstallSettings(), SecretStr(PASSWORD), SecretStr(key) if key else None
    )


def text_of(root: ET.Element, path: str) -> str:
    found = root.findall(
        "/".join(f"u:{part}" if part != "." else part for part in path.split("/")), NS
    )
    assert len(found) == 1, path
    return found[0].text or ""


@pytest.fixture
def root() -> ET.Element:
    return ET.fromstring(answers().render())  # noqa: S314 - made here


class TestAnswers:
    def test_every_component_is_in_a_pass_that_knows_it(self, root: ET.Element) -> None:
        assert root.tag == f"{{{NAMESPACE}}}unattend"
        for settings in root.findall("u:settings", NS):
            names = [one.get("name", "") for one in settings.findall("u:component", NS)]
            assert len(names) == len(set(names))
            for name in names:
                assert settings.get("pass") in PASSES[name]

    def test_every_component_says_for_what_it_is(self, root: ET.Element) -> None:
        for one in root.iter(f"{{{NAMESPACE}}}component"):
            assert one.get("processorArchitecture") == "amd64"
            assert one.get("publicKeyToken") == "31bf3856ad364e35"
            assert one.get("versionScope") == "nonSxS"

    def test_entries_of_lists_are_added_and_in_order(self, root: ET.Element) -> None:
        action = "{http://schemas.microsoft.com/WMIConfig/2002/State}action"
        lists = {"Disk", "CreatePartition", "ModifyPartition", "MetaData", "SynchronousCommand"}
        for element in root.iter():
            name = element.tag.partition("}")[2]
            assert (element.get(action) == "add") == (name in lists), name
        orders = [text_of(one, "Order") for one in root.iter(f"{{{NAMESPACE}}}SynchronousCommand")]
        assert orders == ["1", "2", "3"]

    def test_what_setup_has_to_find(self, root: ET.Element) -> None:
        at = {one.get("pass"): one for one in root.findall("u:settings", NS)}
        assert text_of(at["windowsPE"], "component/UserData/ProductKey/Key") == KEY
        assert text_of(at["windowsPE"], "component/UserData/AcceptEula") == "true"
        assert (
            text_of(at["windowsPE"], "component/ImageInstall/OSImage/InstallTo/PartitionID") == "1"
        )
        assert text_of(at["specialize"], "component/ComputerName") == "PVLAB2003"
        assert (
            text_of(at["oobeSystem"], "component/UserAccounts/AdministratorPassword/Value")
            == PASSWORD
        )
        assert text_of(at["oobeSystem"], "component/AutoLogon/Enabled") == "true"

    def test_without_a_key_none_is_named(self) -> None:
        assert b"ProductKey" not in answers(None).render()

    def test_what_is_shown_has_no_secret(self) -> None:
        made = answers()
        for shown in (made.masked(), repr(made), str(made.model_dump()), made.model_dump_json()):
            assert KEY not in shown
            assert "Geheim" not in shown
        ET.fromstring(made.masked())  # noqa: S314 - made here

    def test_errors_have_no_secret(self) -> None:
        with pytest.raises(ValidationError) as caught:
            Unattend(admin_password=[PASSWORD], computer_name="a b", locale="x")  # type: ignore[arg-type]
        assert "Geheim" not in str(caught.value)


class TestDisc:
    def test_read_back_by_the_name_setup_looks_for(self, tmp_path: Path) -> None:
        files = {ANSWER_FILE: answers().render(), **modern.scripts(InstallSettings(), "COM2")}
        answer_disc(tmp_path / "a.iso", files)
        assert (tmp_path / "a.iso").stat().st_mode & 0o777 == 0o600
        iso = pycdlib.PyCdlib()
        iso.open(str(tmp_path / "a.iso"))
        for name, content in files.items():
            target = io.BytesIO()
            iso.get_file_from_iso_fp(target, joliet_path=f"/{name}")
            assert target.getvalue() == content
        iso.close()

    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(LabBroken, match="cannot write the disc with the answers"):
            answer_disc(tmp_path / "none" / "a.iso", {"A": b"x"})


class TestScripts:
    def test_steps_and_parts_agree(self) -> None:
        made = modern.scripts(InstallSettings(), "COM2")
        parts = re.findall(rb"^:do-([a-z-]+)\r$", made["FIRST.CMD"], re.M)
        assert [name.decode() for name in parts] == [step.name for step in modern.MODERN_STEPS]
        assert made["STEPS.TXT"].splitlines()[3] == b"drivers-allowed reboot"
        assert all(parse(line(Report(step.name, Event.OK))) for step in modern.MODERN_STEPS)

    @pytest.mark.parametrize("debug", [True, False])
    def test_settings_arrive(self, debug: bool) -> None:
        made = modern.scripts(InstallSettings(debug=debug), "COM2")["FIRST.CMD"]
        assert b"remoteip=192.168.53.0/24" in made
        assert (b"bcdedit /debug {default} on" in made) is debug
        assert b"\n" not in made.replace(b"\r\n", b"")
        assert made.isascii()

    def test_the_answer_file_does_not_stay_in_the_guest(self) -> None:
        commands = answers().first_logon
        assert any("del" in one and ANSWER_FILE in one for one in commands)
        assert commands[-1].endswith("FIRST.CMD")
        for one in commands:
            assert "Geheim" not in one
