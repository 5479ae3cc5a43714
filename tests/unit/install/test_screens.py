"""What screens say about an installation."""

from __future__ import annotations

import pytest

from lab.crash.screen import Layout, ScreenText
from lab.crash.vgafont import Font
from lab.install.screens import look

LAYOUT = Layout(Font(16, (), "none"), 8, 16, 0, 0)


def screen(text: str) -> ScreenText:
    return ScreenText(tuple(text.split("\n")), 80, LAYOUT, 0, 0)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (
            "Windows Server 2003, Enterprise Edition Setup\n\n  Setup did not find any hard disk "
            "drives installed\n  in your computer.",
            "no-disk",
        ),
        ("Windows Licensing Agreement\n\nEND-USER\n  F8=I agree  ESC=I do not agree", "licence"),
        ("The Product Key is not valid.", "key-refused"),
        ("Setup cannot copy the file: xenvbd.sys", "file-missing"),
        ("The file ntdll.dl_ was not found", "file-missing"),
        (
            "Line 3 of the INF file \\I386\\TXTSETUP.SIF is invalid.\nSetup cannot continue.",
            "file-bad",
        ),
        ("Setup cannot continue. To quit Setup, press F3.", "refused"),
        (
            "Booting from DVD/CD...\nBoot failed: Could not read from CDROM (code 0003)",
            "nothing-boots",
        ),
        ("NTLDR is missing\nPress Ctrl+Alt+Del to restart", "nothing-boots"),
        ("*** STOP: 0x0000007B (0xF78D2524,0xC0000034,0x00000000,0x00000000)", "blue-screen"),
    ],
)
def test_trouble(text: str, name: str) -> None:
    found = look(screen(text)).trouble
    assert found is not None
    assert found.name == name
    assert found.remedy
    assert "\n" not in found.cause + found.remedy


def test_a_blue_screen_is_told_with_its_code() -> None:
    found = look(screen("*** STOP: 0x0000007B (0xF78D2524,0xC0000034,0x00000000,0x00000000)"))
    assert found.trouble is not None
    assert found.trouble.cause == "a blue screen: 0x0000007B INACCESSIBLE_BOOT_DEVICE"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (
            "Please wait while Setup copies files\n Setup is copying files...",
            "text mode: copying files",
        ),
        (
            "Please wait while Setup formats the partition\n  Setup is formatting...  20%",
            "text mode: formatting",
        ),
        (
            "Setup is inspecting your computer's hardware configuration...",
            "text mode: looking at the hardware",
        ),
        ("Press F6 if you need to install a third party SCSI driver", "text mode: loading"),
        (
            "SeaBIOS (version 1.16)\nBooting from Hard Disk...\nBoot failed: not a bootable disk",
            "BIOS",
        ),
        ("something else", ""),
    ],
)
def test_parts_that_are_no_trouble(text: str, part: str) -> None:
    found = look(screen(text))
    assert found.trouble is None
    assert found.part == part


def test_no_text_is_no_trouble() -> None:
    assert look(None).trouble is None
    assert look(screen("")).text == ()
