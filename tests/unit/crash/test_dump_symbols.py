"""Map files of Microsoft's linker, and frames with names."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from dumpmaker import XENVBD, in_xenvbd
from typer.testing import CliRunner

from lab.cli.crash import app
from lab.core.errors import UsageError
from lab.crash import dump
from lab.crash.dumpwriter import triage_dump
from lab.crash.facts import CrashFact, Frame
from lab.crash.symbols import Map, named, read_map

# As the linker of the Windows Driver Kit writes it.
MAP = """ xenvbd

 Timestamp is 473c5a12 (Thu Nov 15 14:39:14 2007)

 Preferred load address is 00010000

 Start         Length     Name                   Class
 0001:00000000 000029aaH .text                   CODE
 0002:00000000 00000110H .rdata                  DATA

  Address         Publics by Value              Rva+Base     Lib:Object

 0000:00000000       ___safe_se_handler_count   00000000     <absolute>
 0001:00000020       _XenVbd_HwScsiInitialize@4 00010480 f   xenvbd.obj
 0001:00001500       _XenVbd_PutSrbOnRing@12    00011a00 f   xenvbd.obj
 0001:00001560       @FastOne@8                 00011a60 f   xenvbd.obj
 0001:00001600       ?Method@Class@@QAEXXZ      00011b00 f   xenvbd.obj
 0002:00000000       __imp__DbgPrint            00013000     ntoskrnl:ntoskrnl.exe

 entry point at        0005:0000003e

 Static symbols

 0001:00001580       _XenVbd_Static             00011a80 f   xenvbd.obj
"""


def written(tmp_path: Path, text: str = MAP) -> Path:
    path = tmp_path / "xenvbd.map"
    path.write_text(text.replace("\n", "\r\n"), newline="")
    return path


def crash(tmp_path: Path) -> CrashFact:
    path = tmp_path / "mini.dmp"
    path.write_bytes(triage_dump(in_xenvbd()))
    return dump.read(path)[0]


def test_map_is_read(tmp_path: Path) -> None:
    read = read_map(written(tmp_path))
    assert read.module == "xenvbd"
    assert read.timestamp == 0x473C5A12
    assert list(zip(read.offsets, read.names, strict=True)) == [
        (0x480, "XenVbd_HwScsiInitialize"),
        (0x1A00, "XenVbd_PutSrbOnRing"),
        (0x1A60, "FastOne"),
        (0x1A80, "XenVbd_Static"),
        (0x1B00, "?Method@Class@@QAEXXZ"),
        (0x3000, "_imp__DbgPrint"),
    ]


def test_nearest_symbol_below() -> None:
    read = Map("x", None, [0x10, 0x20], ["a", "b"])
    assert read.find(0xF) is None
    assert read.find(0x10) == ("a", 0)
    assert read.find(0x1F) == ("a", 0xF)
    assert read.find(0x999) == ("b", 0x979)


def test_frames_get_names(tmp_path: Path) -> None:
    fact = named(crash(tmp_path), [read_map(written(tmp_path))])
    assert fact.frames[1].text() == "xenvbd!XenVbd_PutSrbOnRing+0x2b"
    assert fact.frames[1].address == XENVBD.start + 0x1A2B
    # Other modules keep theirs.
    assert fact.frames[2].text() == "xenpci+0x777"
    assert fact.notes == crash(tmp_path).notes


def test_map_of_another_build_is_not_used(tmp_path: Path) -> None:
    other = written(tmp_path, MAP.replace("473c5a12", "47400000"))
    fact = named(crash(tmp_path), [read_map(other)])
    assert fact.frames == crash(tmp_path).frames
    assert fact.notes[-1] == (
        "the map of xenvbd was not used: it is of a build linked 47400000, "
        "the crash is of one linked 473c5a12"
    )


def test_map_of_an_unknown_build_is_used_with_a_note(tmp_path: Path) -> None:
    fact = replace(crash(tmp_path), modules=())
    fact = named(fact, [read_map(written(tmp_path))])
    assert fact.frames[1].symbol == "XenVbd_PutSrbOnRing"
    assert fact.notes[-1] == "whether the map of xenvbd is of the same build is not known"


def test_frames_with_names_keep_them(tmp_path: Path) -> None:
    known = Frame("xenvbd", "Known", 4, None)
    fact = CrashFact("bugcheck", frames=(known, Frame(None, None, None, 1)))
    assert named(fact, [read_map(written(tmp_path))]).frames == fact.frames


@pytest.mark.parametrize(
    "text", ["", "\n", "xenvbd\n", " xenvbd\n Preferred load address is 00010000\n", "\0" * 5000]
)
def test_what_is_no_map_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError):
        read_map(written(tmp_path, text))


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.map"):
        with pytest.raises(UsageError):
            read_map(path)


def test_damaged_maps(tmp_path: Path) -> None:
    rng = random.Random(4)  # noqa: S311
    path = tmp_path / "x.map"
    for _ in range(200):
        damaged = bytearray(MAP.encode())
        for _ in range(rng.choice((1, 8))):
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged[: rng.randrange(len(damaged))])
        try:
            read = read_map(path)
        except UsageError:
            continue
        assert list(read.offsets) == sorted(read.offsets)


def test_command_takes_maps(tmp_path: Path) -> None:
    (tmp_path / "mini.dmp").write_bytes(triage_dump(in_xenvbd()))
    arguments = ["show", "--map", str(written(tmp_path)), str(tmp_path / "mini.dmp")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0
    assert "xenvbd!XenVbd_PutSrbOnRing+0x2b" in result.output
