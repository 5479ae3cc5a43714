"""The store, and the commands over it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from isomaker import make_iso, windows_files
from pemaker import X64, program

from lab.cli.main import main
from lab.core.errors import UsageError
from lab.media import store as store_module
from lab.media.kinds import Identity, MediaKind, Unusable
from lab.media.store import MediaMissing, MediaStore

DBGVIEW = {"FileDescription": "DebugView", "OriginalFilename": "Dbgview.exe"}


@pytest.fixture
def media(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MediaStore:
    monkeypatch.setenv("PVLAB_CACHE", str(tmp_path / "cache"))
    return MediaStore()


@pytest.fixture
def dbgview(tmp_path: Path) -> Path:
    path = tmp_path / "Dbgview.exe"
    path.write_bytes(program(DBGVIEW, (4, 81, 0, 0)))
    return path


def test_added_once_found_again(media: MediaStore, dbgview: Path) -> None:
    medium, new = media.add(dbgview)
    assert new
    assert media.content(medium).read_bytes() == dbgview.read_bytes()
    assert media.add(dbgview) == (medium, False)
    assert media.all() == [medium]
    assert media.find(MediaKind.DBGVIEW) == medium
    assert media.find(MediaKind.DEVCON) is None


def test_what_is_missing_is_named(media: MediaStore, dbgview: Path) -> None:
    medium, _ = media.add(dbgview)
    assert media.require("w", [MediaKind.DBGVIEW]) == {MediaKind.DBGVIEW: medium}
    with pytest.raises(MediaMissing, match=r"image w needs media: devcon\.exe for x86"):
        media.require("w", [MediaKind.DBGVIEW, MediaKind.DEVCON])


def test_a_damaged_copy_is_replaced(media: MediaStore, dbgview: Path) -> None:
    medium, _ = media.add(dbgview)
    copy = media.content(medium)
    copy.chmod(0o644)
    copy.write_bytes(b"short")
    assert media.all() == []
    assert media.add(dbgview)[1]
    assert copy.read_bytes() == dbgview.read_bytes()


def test_known_by_its_hash(
    media: MediaStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "update.exe"
    path.write_bytes(b"not even a program")
    known = Identity(kind=MediaKind.KB968930, title="known")
    sha256 = MediaStore._hash(path)
    monkeypatch.setitem(store_module.KNOWN_HASHES, sha256, known)
    assert media.add(path)[0].identity == known


def test_nothing_is_left_of_what_was_refused(media: MediaStore, tmp_path: Path) -> None:
    path = tmp_path / "x64.exe"
    path.write_bytes(program(DBGVIEW, machine=X64))
    with pytest.raises(Unusable, match="for x64"):
        media.add(path)
    with pytest.raises(UsageError, match="is missing"):
        media.add(tmp_path / "none")
    with pytest.raises(UsageError, match="is no file"):
        media.add(tmp_path)
    assert not list(media.root.glob("*"))


def test_removed_by_its_hash(media: MediaStore, dbgview: Path) -> None:
    medium, _ = media.add(dbgview)
    with pytest.raises(UsageError, match="no medium's hash"):
        media.remove("xyz")
    assert media.remove(medium.sha256[:6]) == medium
    assert media.all() == []


@pytest.mark.usefixtures("media")
class TestCommands:
    def test_add_and_list(
        self, dbgview: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        disc = make_iso(tmp_path / "w.iso", windows_files())
        assert main(["media", "add", str(dbgview), str(disc)]) == 0
        out = capsys.readouterr().out
        assert "Dbgview.exe: DebugView 4.81.0.0 [dbgview], added" in out
        assert "Windows Server 2003 Enterprise Edition SP2 i386" in out
        assert main(["media", "add", str(dbgview)]) == 0
        assert "was there" in capsys.readouterr().out
        assert main(["media", "list", "--json"]) == 0
        listed = json.loads(capsys.readouterr().out)
        assert [one["identity"]["kind"] for one in listed["media"]] == ["dbgview", "w2k3-sp2-i386"]
        assert {one["kind"] for one in listed["missing"]} >= {"kb968930", "el5-i386"}
        assert Path(listed["media"][0]["path"]).read_bytes() == dbgview.read_bytes()
        assert main(["media", "list"]) == 0
        text = " ".join(capsys.readouterr().out.split())
        assert "dbgview DebugView 4.81.0.0" in text
        assert "devcon: devcon.exe for x86; from:" in text

    def test_refusals_are_one_line(
        self, dbgview: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "page.iso").write_bytes(b"<html>not found</html>")
        assert main(["media", "add", str(tmp_path / "page.iso"), "--as", "w2k3-sp2-i386"]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert "page.iso: is a web page" in said
        assert "wanted: Windows Server 2003 with Service Pack 2" in said
        assert "usually from: the original disc" in said
        assert main(["media", "add", str(dbgview), "--as", "devcon"]) == 2
        assert "is DebugView 4.81.0.0 (wanted: devcon.exe" in capsys.readouterr().err
        assert main(["media", "add", str(dbgview), "--as", "toast"]) == 2
        assert "no kind of media is called 'toast'" in capsys.readouterr().err

    def test_rm(self, dbgview: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["media", "add", str(dbgview), "--json"]) == 0
        sha256 = json.loads(capsys.readouterr().out)[0]["sha256"]
        assert main(["media", "rm", sha256[:8]]) == 0
        assert main(["media", "rm", sha256[:8]]) == 2
