"""What files are recognised as, and what is said of those that are refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from isomaker import centos_files, make_iso, setup_program, windows_files
from pemaker import X64, program

from lab.media.kinds import WANTED, MediaKind, Unusable
from lab.media.recognise import identify

W2K3 = MediaKind.W2K3_SP2_I386


def refused(path: Path) -> Unusable:
    with pytest.raises(Unusable) as caught:
        identify(path)
    assert "\n" not in str(caught.value)
    return caught.value


def test_server_2003_sp2_with_edition_and_language(tmp_path: Path) -> None:
    disc = make_iso(tmp_path / "a.iso", windows_files(), label="CRMEFPP_EN")
    found = identify(disc)
    assert found.kind is W2K3
    assert found.title == "Windows Server 2003 Enterprise Edition SP2 i386 en_US"
    assert found.facts == {
        "label": "CRMEFPP_EN",
        "arch": "i386",
        "service_pack": "2",
        "version": "5.2.3790.3959",
        "edition": "Enterprise Edition",
        "language": "en_US",
    }


@pytest.mark.parametrize(
    ("tag", "edition"),
    [("S", "Standard Edition"), ("D", "Datacenter Edition"), ("B", "Web Edition")],
)
def test_other_editions(tmp_path: Path, tag: str, edition: str) -> None:
    files = windows_files(WIN51IA=None, WIN51IA_SP2=None)
    disc = make_iso(tmp_path / "a.iso", {f"/WIN51I{tag}": b"Windows", **files})
    assert identify(disc).facts["edition"] == edition


def test_the_service_pack_by_tag_file_and_the_language_by_keyboard(tmp_path: Path) -> None:
    found = identify(make_iso(tmp_path / "a.iso", windows_files(I386_WINNT32_EXE=None)))
    assert found.facts["service_pack"] == "2"
    assert found.facts["language"] == "de_DE"


@pytest.mark.parametrize(
    ("changes", "more", "says"),
    [
        ({}, {"/AMD64/TXTSETUP.SIF": b"x"}, "is Windows Server 2003 for x64, the 64-bit one"),
        ({}, {"/IA64/TXTSETUP.SIF": b"x"}, "is Windows Server 2003 for Itanium"),
        (
            {"I386_WINNT32_EXE": setup_program((5, 2, 3790, 1830)), "WIN51IA_SP2": None},
            {},
            "is Windows Server 2003 with Service Pack 1",
        ),
        (
            {"I386_WINNT32_EXE": setup_program((5, 2, 3790, 0)), "WIN51IA_SP2": None},
            {},
            "is Windows Server 2003 without a service pack",
        ),
        ({"I386_WINNT32_EXE": setup_program((5, 1, 2600, 5512))}, {}, "is Windows XP"),
        ({"I386_WINNT32_EXE": setup_program((5, 0, 2195, 1))}, {}, "is Windows 2000"),
        ({"WIN51IA": None, "WIN51IA_SP2": None}, {"/WIN51IP": b"x"}, "is Windows XP Professional"),
        ({"I386_TXTSETUP_SIF": None}, {}, "one cannot install from: no /I386/TXTSETUP.SIF"),
        ({}, {"/SOURCES/INSTALL.WIM": b"x"}, "is a disc of Windows Vista or later"),
        ({"I386_WINNT32_EXE": b"MZ damaged"}, {}, "is a damaged disc: /I386/WINNT32.EXE"),
    ],
)
def test_other_windows_is_refused_by_name(
    tmp_path: Path, changes: dict[str, bytes | None], more: dict[str, bytes], says: str
) -> None:
    error = refused(make_iso(tmp_path / "a.iso", {**windows_files(**changes), **more}))
    assert says in error.message
    if "damaged" not in says:
        assert WANTED[W2K3].title in error.hint
        assert WANTED[W2K3].source in error.hint


def test_the_play_setup_disc_is_no_windows(tmp_path: Path) -> None:
    found = identify(make_iso(tmp_path / "a.iso", {"/PLAY.BIN": b"x"}, label="PVLAB_PLAY_SETUP"))
    assert found.kind is MediaKind.PLAY_SETUP
    assert "no Windows" in found.title


def test_a_disc_that_does_not_boot_is_refused(tmp_path: Path) -> None:
    disc = make_iso(tmp_path / "a.iso", windows_files(), boot=False)
    assert "without a boot record" in refused(disc).message


def test_a_disc_of_something_else(tmp_path: Path) -> None:
    error = refused(make_iso(tmp_path / "a.iso", {"/README.TXT": b"x"}, label="HOLIDAY"))
    assert error.message == "a.iso: is a disc of something else (label HOLIDAY)"


def test_a_disc_that_is_cut_off_says_how_much_is_there(tmp_path: Path) -> None:
    disc = make_iso(tmp_path / "a.iso", {**windows_files(), "/BIG.BIN": bytes(3 << 20)})
    disc.write_bytes(disc.read_bytes()[: 1 << 20])
    assert re.search(r"cut off: 1 of 3 MiB are there", refused(disc).message)


@pytest.mark.parametrize(
    ("arch", "kind"), [("x86_64", MediaKind.EL5_X86_64), ("i386", MediaKind.EL5_I386)]
)
def test_centos_5(tmp_path: Path, arch: str, kind: MediaKind) -> None:
    found = identify(make_iso(tmp_path / "a.iso", centos_files(arch=arch), rock_ridge=True))
    assert found.kind is kind
    assert found.title == f"CentOS 5.5 {arch}"


def test_red_hat_5_without_a_treeinfo(tmp_path: Path) -> None:
    files = centos_files()
    del files["/.treeinfo"]
    files["/.discinfo"] = b"1.0\nRed Hat Enterprise Linux Server 5.3\ni386\n1\nServer/base\n"
    found = identify(make_iso(tmp_path / "a.iso", files, rock_ridge=True, label="RHEL/5.3"))
    assert found.kind is MediaKind.EL5_I386
    assert found.facts["version"] == "5.3"


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (centos_files(version="6.5"), "is a disc of CentOS 6.5 x86_64"),
        (centos_files(family="Fedora", version="5"), "is a disc of Fedora 5 x86_64"),
        (centos_files(arch="ppc64"), "is CentOS 5.5 ppc64, for another processor"),
        (centos_files(discs="3"), "is disc 3 of CentOS 5.5 x86_64"),
    ],
)
def test_other_linux_is_refused_by_name(tmp_path: Path, files: dict[str, bytes], says: str) -> None:
    error = refused(make_iso(tmp_path / "a.iso", files, rock_ridge=True))
    assert says in error.message
    assert "CentOS vault" in error.hint


KB = {"FileDescription": "Self-Extracting Cabinet", "KB Article Number": "KB968930"}
DBGVIEW = {"FileDescription": "Sysinternals Debugview", "OriginalFilename": "Dbgview.exe"}


@pytest.mark.parametrize(
    ("strings", "version", "kind"),
    [
        (KB, (6, 3, 13, 0), MediaKind.KB968930),
        (DBGVIEW, (4, 81, 0, 0), MediaKind.DBGVIEW),
        (
            {"FileDescription": "Windows Setup API", "OriginalFilename": "DevCon.exe"},
            (6, 1, 7600, 16385),
            MediaKind.DEVCON,
        ),
        ({"FileDescription": "WDF Coinstaller"}, (1, 5, 6000, 0), MediaKind.WDF_COINSTALLER),
        (
            {"ProductName": "Microsoft .NET Framework 2.0 SP1"},
            (2, 1, 21022, 8),
            MediaKind.DOTNET20,
        ),
    ],
)
def test_programs(
    tmp_path: Path, strings: dict[str, str], version: tuple[int, int, int, int], kind: MediaKind
) -> None:
    path = tmp_path / "setup.exe"
    path.write_bytes(program(strings, version))
    found = identify(path)
    assert found.kind is kind
    assert found.facts["version"] == ".".join(map(str, version))
    assert found.facts["language"] == "en_US"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (program(KB, machine=X64), "is Self-Extracting Cabinet 1.0.0.0 for x64"),
        (program({**KB, "Applies to": "Windows XP"}), "is KB968930 for Windows XP"),
        (program({"KB Article Number": "KB936059"}), "is an update, but KB936059"),
        (program(DBGVIEW, (4, 90, 0, 0), needs=(6, 0)), "which needs Windows 6.0 or later"),
        (program({"FileDescription": "Calculator"}), "has no use for: Calculator 1.0.0.0"),
        (program(None), "has no use for: a program without a description"),
        (b"MZ" + bytes(100), "is a damaged program"),
        (b"", "is empty"),
        (b"<!DOCTYPE html><title>404</title>", "is a web page"),
        (b"PK\x03\x04 zip", "is a ZIP archive: unpack it"),
        (b"something", "is neither an ISO 9660 disc nor a Windows program"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "given"
    path.write_bytes(content)
    assert says in refused(path).message
