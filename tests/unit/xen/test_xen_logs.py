from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from xen_fakes import ScriptedDom0

from lab.core.deadline import Deadline
from lab.core.errors import LabBroken
from lab.xen.dom0 import RawOutput
from lab.xen.logs import collect
from lab.xen.xl import XlToolstack


class TarDom0(ScriptedDom0):
    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.data = data

    def run_raw(
        self,
        command: str,
        deadline: Deadline,
        *,
        stdin: bytes | None = None,
        while_waiting: Callable[[], None] | None = None,
    ) -> RawOutput:
        self.commands.append(command)
        return RawOutput(0, self.data, b"tar: broken\n", 0.1)


def archive(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text))
        link = tarfile.TarInfo("xen/link")
        link.type = tarfile.SYMTYPE
        link.linkname = "/etc/passwd"
        tar.addfile(link)
    return buffer.getvalue()


def test_collect(tmp_path: Path) -> None:
    data = archive(
        **{
            "xl-dmesg.txt": b"(XEN) x",
            "xen/xl-virtdemo.log": b"log",
            "../out": b"no",
            "/abs": b"no",
        }
    )
    dom0 = TarDom0(data)
    written = collect(XlToolstack(dom0), tmp_path, Deadline(5))
    assert written == [tmp_path / "xen/xl-virtdemo.log", tmp_path / "xl-dmesg.txt"]
    assert (tmp_path / "xl-dmesg.txt").read_bytes() == b"(XEN) x"
    assert len(dom0.commands) == 1
    assert "xl dmesg" in dom0.commands[0]


def test_nothing_arrives(tmp_path: Path) -> None:
    with pytest.raises(LabBroken, match="did not arrive: tar: broken"):
        collect(XlToolstack(TarDom0(b"")), tmp_path, Deadline(5))
