from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from wsman import FakeCmd, Responder, WsmanServer

from lab.core.deadline import Deadline
from lab.core.errors import LabBroken, UsageError
from lab.guest.channel import Channel
from lab.guest.errors import GuestFileMissing
from lab.guest.files import Files

DATA = bytes(range(256)) * 3


@pytest.fixture
def files(channel: Channel) -> Files:
    return Files(channel)


def sha1(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


@pytest.mark.parametrize("data", [b"x", DATA, b"\r\n" * 50_000, b""])
def test_there_and_back(
    files: Files, cmd: FakeCmd, tmp_path: Path, deadline: Deadline, data: bytes
) -> None:
    (tmp_path / "in").write_bytes(data)
    assert files.put(tmp_path / "in", r"C:\pvlab\a b.sys", deadline) == sha1(data)
    assert cmd.files == {r"C:\pvlab\a b.sys": data}
    assert files.get(r"C:\pvlab\a b.sys", tmp_path / "out", deadline) == sha1(data)
    assert (tmp_path / "out").read_bytes() == data
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".part"] == []


def test_a_file_is_one_command(
    files: Files, server: WsmanServer, tmp_path: Path, deadline: Deadline
) -> None:
    files.put_bytes(DATA, r"C:\pvlab\x", deadline)
    assert server.actions == ["Create", "Command", "Send", "Receive"]


def test_folders_are_made_once(files: Files, cmd: FakeCmd, deadline: Deadline) -> None:
    for name in ("a", "b"):
        files.put_bytes(DATA, rf"C:\pvlab\deep\er\{name}", deadline)
    assert ["md" in line for line in cmd.lines] == [True, True]
    assert r'md "C:\pvlab\deep\er"' in cmd.lines[0]
    assert r'md "C:\pvlab\deep\er"' not in cmd.lines[1]


@pytest.mark.parametrize("hashes", [True, False])
def test_damage_is_noticed(
    serve: Callable[[Responder], WsmanServer],
    connect: Callable[..., Channel],
    deadline: Deadline,
    hashes: bool,
) -> None:
    cmd = FakeCmd(certutil_hashes=hashes)
    cmd.corrupt = True
    with pytest.raises(LabBroken, match="arrived damaged"):
        Files(connect(serve(cmd))).put_bytes(DATA, r"C:\pvlab\x", deadline)


def test_a_guest_whose_certutil_cannot_hash(
    serve: Callable[[Responder], WsmanServer], connect: Callable[..., Channel], deadline: Deadline
) -> None:
    cmd = FakeCmd(certutil_hashes=False)
    files = Files(connect(serve(cmd)))
    files.put_bytes(DATA, r"C:\pvlab\x", deadline)
    files.put_bytes(DATA, r"C:\pvlab\y", deadline)
    assert "-hashfile" not in cmd.lines[-1]
    assert files.get_bytes(r"C:\pvlab\x", deadline) == DATA


def test_what_cannot_be_written(
    files: Files, cmd: FakeCmd, tmp_path: Path, deadline: Deadline
) -> None:
    cmd.programs["md"] = lambda line: ("", "Access is denied.\r\n", 1)
    with pytest.raises(LabBroken, match=r"could not write C:\\pvlab\\x"):
        files.put_bytes(DATA, r"C:\pvlab\x", deadline)
    with pytest.raises(UsageError, match="cannot read"):
        files.put(tmp_path / "absent", r"C:\pvlab\x", deadline)


def test_what_cannot_be_read(files: Files, tmp_path: Path, deadline: Deadline) -> None:
    with pytest.raises(GuestFileMissing, match="no such file"):
        files.get(r"C:\pvlab\absent", tmp_path / "out", deadline)
    with pytest.raises(GuestFileMissing):
        files.read_text(r"C:\pvlab\absent", deadline)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "path",
    ["x", r"\x", r"C:x", r"C:\a\..\b", 'C:\\a"b', r"C:\%windir%\x", r"C:\a&b", "C:\\a\nb",
     r"C:\a|b", r"C:\a^b", r"C:\dot.", "C:\\" + "a" * 300, r"C:\é"],
)  # fmt: skip
def test_unsafe_paths_are_refused(
    files: Files, server: WsmanServer, deadline: Deadline, path: str
) -> None:
    with pytest.raises(UsageError, match="not a safe guest path"):
        files.put_bytes(DATA, path, deadline)
    with pytest.raises(UsageError):
        files.get_bytes(path, deadline)
    assert server.actions == []
