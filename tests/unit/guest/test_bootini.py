from __future__ import annotations

import pytest
from wsman import FakeCmd

from lab.core.deadline import Deadline
from lab.core.errors import LabBroken
from lab.guest.bootini import BOOT_INI, SAVED, BootIni, BootMenu
from lab.guest.channel import Channel
from lab.guest.files import Files

WHERE = r"multi(0)disk(0)rdisk(0)partition(1)\WINDOWS"
PLAIN = (
    "[boot loader]\r\ntimeout=30\r\n"
    f"default={WHERE}\r\n[operating systems]\r\n"
    f'{WHERE}="Windows Server 2003, Enterprise" /noexecute=optout /fastdetect\r\n'
)
# As the drivers' own instructions have it: the second entry is never started by itself.
BOTH = (
    PLAIN
    + f'{WHERE}="Windows Server 2003, Enterprise, PV" /noexecute=optout /fastdetect /gplpv\r\n'
    + 'C:\\CMDCONS\\BOOTSECT.DAT="Recovery Console" /cmdcons\r\n'
)


def test_parse() -> None:
    menu = BootIni.parse(BOTH)
    assert menu.default == WHERE
    assert [one.has("/GPLPV") for one in menu.entries] == [False, True, False]
    assert menu.started == menu.entries[0]
    assert menu.started.options == ("/noexecute=optout", "/fastdetect")
    assert menu.text == BOTH


def test_an_entry_that_is_there_is_started() -> None:
    menu = BootIni.parse(BOTH).started_with("/gplpv")
    assert menu.started.title == "Windows Server 2003, Enterprise, PV"
    assert len(menu.entries) == 3
    assert BootIni.parse(menu.text) == menu
    assert menu.started_with("/gplpv") is menu


def test_an_entry_is_made_where_there_is_none() -> None:
    menu = BootIni.parse(PLAIN).started_with("/gplpv")
    assert menu.started.options == ("/noexecute=optout", "/fastdetect", "/gplpv")
    assert [one.title for one in menu.entries] == [
        "Windows Server 2003, Enterprise, PV drivers",
        "Windows Server 2003, Enterprise",
    ]


@pytest.mark.parametrize(
    "text",
    ["", "[boot loader]\ntimeout=30\n", PLAIN.replace("default=", "default=x"), "default=a"],
)
def test_a_file_that_starts_nothing(text: str) -> None:
    with pytest.raises(LabBroken, match="names no system"):
        BootIni.parse(text)


@pytest.fixture
def menu(channel: Channel, cmd: FakeCmd) -> BootMenu:
    cmd.files[BOOT_INI] = PLAIN.encode()
    cmd.programs["attrib"] = lambda line: ("", "", 0)
    return BootMenu(channel, Files(channel))


def test_switch_and_restore(menu: BootMenu, cmd: FakeCmd, deadline: Deadline) -> None:
    before = menu.start_with("/gplpv", deadline)
    assert before == PLAIN.encode()
    assert cmd.files[SAVED] == before
    assert menu.read(deadline).started.has("/gplpv")
    attributes = [line for line in cmd.lines if line.startswith("attrib")]
    assert attributes == [f"attrib -r -s -h {BOOT_INI}", f"attrib +r +s +h {BOOT_INI}"]
    menu.restore(before, deadline)
    assert cmd.files[BOOT_INI] == PLAIN.encode()
