from __future__ import annotations

import codecs
import contextlib
from datetime import date
from pathlib import PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.core.errors import UsageError
from lab.drivers import inf
from lab.drivers.inf import InfError, parse

# Written after the Windows Driver Kit's descriptions; every turn of the syntax once.
TEXT = r"""
; a comment
[version]                          ; names know no case
Signature = "$Windows NT$"
Class=SCSIAdapter
Provider=%Maker%
DriverVer=11/09/2007, 0.0.3.1
CatalogFile=plain.cat
CatalogFile.NTx86=x86.cat

[Manufacturer]
%Maker%=Models, NTx86, NTx86.5.2, NTx86.6.0, NTamd64

[Models]
%Old%=Old_Inst, XEN\OLD
[Models.NTx86]
%Old%=Old_Inst, XEN\X86
[Models.NTx86.5.2]
%Dev%=Vbd_Inst, XEN\VBD, \
    XEN\VBD_COMPAT, \              ; continued
    GEN\DISK
[Models.NTx86.6.0]
%Dev%=New_Inst, XEN\NEW
[Models.NTamd64]
%Dev%=Amd_Inst, XEN\AMD

[Vbd_Inst]
CopyFiles=Wrong
[Vbd_Inst.NT]
CopyFiles=Vbd.Files, @extra.dll
CopyFiles=More
[Vbd.Files]
xenvbd.sys
target.dat,source.dat,,2
[More]
[More]
%file%.txt
[Vbd_Inst.NT.CoInstallers]
CopyFiles=@coinst.dll
[Vbd_Inst.NT.Services]
AddService=,2
AddService = xenvbd, 2, Vbd_Service
[Vbd_Service]
ServiceBinary = %12%\xenvbd.sys

[DestinationDirs]
DefaultDestDir=12
More=11,sub

[SourceDisksNames.x86]
1 = %Disk%,,,\i386
[SourceDisksNames]
1 = %Disk%,,,\other
2 = %Disk%
[SourceDisksFiles]
xenvbd.sys = 1
source.dat = 2,sub\dir,123
extra.dll=1
coinst.dll=9

[Strings]
Maker="James ""J"" Harper; and, others"
Dev = Xen Block Device             ; unquoted
Disk="100%% free"
file=read me
Quoted = "trailing blanks  "
"""


def inf_of(text: str) -> inf.Inf:
    return parse(text.encode("cp1252"), "test.inf")


def minimal(rest: str = "", version: str = 'Signature="$CHICAGO$"') -> inf.Inf:
    return inf_of(f"[Version]\n{version}\n{rest}")


@pytest.fixture
def whole() -> inf.Inf:
    return inf_of(TEXT)


def test_version_section(whole: inf.Inf) -> None:
    assert whole.provider == 'James "J" Harper; and, others'
    assert whole.class_name == "SCSIAdapter"
    assert whole.catalog_file == "x86.cat"
    assert whole.driver_ver == inf.DriverVer(date(2007, 11, 9), "0.0.3.1")


def test_the_best_decorated_models_for_server_2003(whole: inf.Inf) -> None:
    (model,) = whole.models()
    assert model.description == "Xen Block Device"
    assert model.hardware_id == r"XEN\VBD"
    assert model.compatible_ids == (r"XEN\VBD_COMPAT", r"GEN\DISK")
    assert whole.decorations() == {"ntx86", "ntx86.5.2", "ntx86.6.0", "ntamd64"}


@pytest.mark.parametrize(
    ("decorations", "taken"),
    [
        ("", "M"),
        (", NT", "M.NT"),
        (", NTx86, NT", "M.NTx86"),
        (", NT.5.1, NTx86", "M.NT.5.1"),
        (", NTx86.5.1, NTx86.5.3", "M.NTx86.5.1"),
        (", NTx86...1, NTx86...3", "M.NTx86...3"),
        (", NTamd64, NTia64", None),
    ],
)
def test_decorations(decorations: str, taken: str | None) -> None:
    names = [f"M{d.strip() and '.' + d.strip()}" for d in decorations.split(",")] or ["M"]
    sections = "".join(f"[{name}]\nx=I,ID\\{name}\n" for name in {"M", *names})
    models = minimal(f"[Manufacturer]\nx=M{decorations}\n{sections}").models()
    assert [m.hardware_id for m in models] == ([f"ID\\{taken}"] if taken else [])


def test_copied_files(whole: inf.Inf) -> None:
    install = whole.install_section("vbd_inst")
    assert install == "Vbd_Inst.NT"
    files = whole.copied_files(install)
    assert [(f.name, f.target, f.section) for f in files] == [
        ("xenvbd.sys", "xenvbd.sys", "Vbd.Files"),
        ("source.dat", "target.dat", "Vbd.Files"),
        ("extra.dll", "extra.dll", "Vbd_Inst.NT"),
        ("read me.txt", "read me.txt", "More"),
        ("coinst.dll", "coinst.dll", "Vbd_Inst.NT.CoInstallers"),
    ]
    assert whole.destination("Vbd.Files") == "12"
    assert whole.destination("More") == "11,sub"


def test_source_paths(whole: inf.Inf) -> None:
    assert whole.source_path("XENVBD.SYS") == PurePosixPath("i386/XENVBD.SYS")
    assert whole.source_path("source.dat") == PurePosixPath("sub/dir/source.dat")
    assert whole.source_path("read me.txt") is None
    with pytest.raises(InfError, match=r"test\.inf:\d+: no disk '9'"):
        whole.source_path("coinst.dll")


def test_services(whole: inf.Inf) -> None:
    (service,) = whole.services("Vbd_Inst.NT")
    assert (service.name, service.binary, service.file_name) == (
        "xenvbd", r"%12%\xenvbd.sys", "xenvbd.sys",
    )  # fmt: skip


def test_strings(whole: inf.Inf) -> None:
    assert whole.expand("%disk%", 1) == "100%% free"
    assert whole.expand("100%% %dev%%unknown%%12%", 1) == "100% Xen Block Device%unknown%%12%"
    assert whole.expand("%quoted%|", 1) == "trailing blanks  |"
    assert minimal("[Strings.0409]\na=1\n[Strings]\nb=2\n").expand("%a%%b%", 1) == "12"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    ("bom", "encoding"),
    [
        (b"", "cp1252"),
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
    ],
)
def test_encodings(bom: bytes, encoding: str, end: str) -> None:
    text = '[Version]\nSignature=$CHICAGO$\nProvider="Grüße"\n'.replace("\n", end)
    assert parse(bom + text.encode(encoding), "x.inf").provider == "Grüße"


def test_ctrl_z_ends_the_file() -> None:
    assert minimal("\x1a\x01garbage").section("Version") is not None


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("", 0, "no [Version] section"),
        ("Signature=1", 1, "text before the first section"),
        ("[Version]", 1, "no valid Signature"),
        ("[Version]\nSignature=$CHICAGO$\n[Broken", 3, "not a section title"),
        ("[Version]\nSignature=$CHICAGO$\n[]", 3, "not a section title"),
        ("[Version]\nSignature=$CHICAGO$\n[A] b", 3, "not a section title"),
        ('[Version]\nSignature="$CHICAGO$\n', 2, "a quoted string does not end"),
        ("[Version]\nSignature=\0", 0, "NUL bytes"),
    ],
)
def test_errors_name_the_place(text: str, line: int, problem: str) -> None:
    with pytest.raises(InfError) as caught:
        inf_of(text)
    assert caught.value.line == line
    place = f"test.inf:{line}: " if line else "test.inf: "
    assert caught.value.message.startswith(place)
    assert problem in caught.value.message
    assert isinstance(caught.value, UsageError)


@pytest.mark.parametrize(
    "value",
    ["", "yesterday", "13/01/2007,1.0", "02/30/2007,1.0", "11/09/07,1.0", "11/09/2007,1.x",
     "11/09/2007,1.2.3.4.5", "11/09/2007,1.70000", "11/09/0000"],
)  # fmt: skip
def test_bad_driver_versions(value: str) -> None:
    found = minimal(version=f"Signature=$CHICAGO$\nDriverVer={value}")
    with pytest.raises(InfError, match="DriverVer"):
        found.driver_ver  # noqa: B018 - reading it is the test


def test_a_version_may_be_a_date_alone() -> None:
    found = minimal(version="Signature=$CHICAGO$\nDriverVer=11-09-2007")
    assert found.driver_ver == inf.DriverVer(date(2007, 11, 9), "")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[Manufacturer]\nx=Gone", "no models section [Gone]"),
        ("[Manufacturer]\nx=M,NTx86", "no models section [M.NTx86]"),
        ("[Manufacturer]\nx=M,Windows95", "not a target platform"),
        ("[Manufacturer]\nx=M\n[M]\ny=", "no install section named"),
    ],
)
def test_bad_models(text: str, problem: str) -> None:
    with pytest.raises(InfError) as caught:
        minimal(text).models()
    assert problem in caught.value.message


def test_bad_lists_and_services() -> None:
    with pytest.raises(InfError, match=r"no section \[Gone\]"):
        minimal("[I]\nCopyFiles=Gone").copied_files("I")
    with pytest.raises(InfError, match=r"no section \[Gone\]"):
        minimal("[I.Services]\nAddService=x,2,Gone").services("I")
    with pytest.raises(InfError, match="no ServiceBinary"):
        minimal("[I.Services]\nAddService=x,2,S\n[S]").services("I")


def test_bombs_are_refused_in_time() -> None:
    long = "x" * 5000
    with pytest.raises(InfError, match="longer than"):
        minimal(f"[Strings]\na={long}\n").expand("%a%%a%", 1)
    lists = "[I]\n" + "CopyFiles=L\n" * 20_000 + "[L]\n" + "file\n" * 20_000
    with pytest.raises(InfError, match="copies more than"):
        minimal(lists).copied_files("I")
    makers = "[Manufacturer]\n" + "x=M\n" * 20_000 + "[M]\n" + "y=I,ID\n" * 20_000
    with pytest.raises(InfError, match="more than"):
        minimal(makers).models()
    with pytest.raises(InfError, match="larger than 1 MiB"):
        parse(b";" * (inf.MAX_INF_BYTES + 1), "big.inf")


def everything(found: inf.Inf) -> None:
    """Read all that the model offers."""
    _ = found.provider, found.class_name, found.catalog_file, found.uses_system_files
    _ = found.driver_ver
    for model in found.models():
        install = found.install_section(model.install_section)
        if install:
            found.services(install)
            for file in found.copied_files(install):
                found.source_path(file.name)
                found.destination(file.section)


PIECES = st.sampled_from(
    [*TEXT.splitlines(), "[", "]", '"', "%", ",", "=", ";", "\\", "\n", "\r\n", "NTx86.0x", "@"]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=60), st.booleans())
def test_mangled_infs_give_inf_errors_only(pieces: list[str], whole: bool) -> None:
    text = (TEXT if whole else "[Version]\nSignature=$CHICAGO$\n") + "\n".join(pieces)
    with contextlib.suppress(InfError):
        everything(inf_of(text))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_give_inf_errors_only(data: bytes) -> None:
    for prefix in (b"", codecs.BOM_UTF16_LE, codecs.BOM_UTF8):
        with contextlib.suppress(InfError):
            everything(parse(prefix + data, "x.inf"))


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60), st.text(max_size=60))
def test_any_value_is_read_or_refused(key: str, value: str) -> None:
    text = f"[Version]\nSignature=$CHICAGO$\nDriverVer={value}\n[Manufacturer]\n{key}=M,{value}\n"
    for encoding in ("utf-16-le", "utf-8"):
        bom = codecs.BOM_UTF16_LE if encoding == "utf-16-le" else codecs.BOM_UTF8
        with contextlib.suppress(InfError):
            everything(parse(bom + text.encode(encoding, "replace"), "x.inf"))
