from __future__ import annotations

import contextlib
import io
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.core.errors import UsageError
from lab.core.paths import repo_root
from lab.drivers.package import DriverPackage

STANDIN = repo_root() / "images/standin-drivers"


def inf(name: str = "xenvbd", hwid: str = r"XEN\VBD", ver: str = "11/09/2007,0.0.3.1") -> bytes:
    return (
        f'[Version]\r\nSignature="$WINDOWS NT$"\r\nProvider=Someone\r\nDriverVer={ver}\r\n'
        "[Manufacturer]\r\nx=M,NTx86\r\n"
        f"[M.NTx86]\r\nx=I,{hwid}\r\n[I.NT]\r\nCopyFiles=@{name}.sys\r\n"
        f"[I.NT.Services]\r\nAddService={name},2,S\r\n[S]\r\nServiceBinary=%12%\\{name}.sys\r\n"
        "[SourceDisksNames]\r\n1=d,,,\\i386\r\n"
        f"[SourceDisksFiles]\r\n{name}.sys=1\r\n"
    ).encode()


def pe(machine: int) -> bytes:
    return (
        b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40) + b"PE\0\0" + struct.pack("<H", machine)
    )


FILES = {"xenvbd.inf": inf(), "i386/xenvbd.sys": pe(0x14C), "readme.txt": b"hello"}


def folder(at: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (at / name).parent.mkdir(parents=True, exist_ok=True)
        (at / name).write_bytes(data)
    return at


def archive(at: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(at, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in files.items():
            out.writestr(name, data)
    return at


@pytest.fixture
def load(tmp_path: Path) -> Callable[[Path], DriverPackage]:
    return lambda path: DriverPackage.load(path, tmp_path / "packages")


@pytest.fixture
def refused(tmp_path: Path) -> Callable[[Path], str]:
    def check(path: Path) -> str:
        into = tmp_path / "packages"
        with pytest.raises(UsageError) as caught:
            DriverPackage.load(path, into)
        assert type(caught.value) is UsageError
        assert "\n" not in str(caught.value)
        assert list(into.iterdir()) == []
        assert not (tmp_path / "evil").exists()
        return str(caught.value)

    return check


def test_folder_and_archive_are_the_same_package(
    load: Callable[[Path], DriverPackage], tmp_path: Path
) -> None:
    one = load(folder(tmp_path / "src", FILES))
    two = load(archive(tmp_path / "x.zip", dict(reversed(FILES.items()))))
    assert one.identity == two.identity
    assert len(one.identity) == 64
    assert one.folder == two.folder
    assert (one.name, one.version, one.provider) == ("xenvbd", "0.0.3.1", "Someone")
    assert one.hardware_ids == (r"XEN\VBD",)
    assert [s.name for s in one.services] == ["xenvbd"]
    assert one.inf_paths == (PurePosixPath("xenvbd.inf"),)
    assert [str(f) for f in one.files] == ["i386/xenvbd.sys", "readme.txt", "xenvbd.inf"]
    assert (one.folder / "readme.txt").read_bytes() == b"hello"


def test_identity_follows_content_and_names(
    load: Callable[[Path], DriverPackage], tmp_path: Path
) -> None:
    base = load(folder(tmp_path / "a", FILES)).identity
    assert load(folder(tmp_path / "b", {**FILES, "readme.txt": b"hullo"})).identity != base
    renamed = {("read.me" if k == "readme.txt" else k): v for k, v in FILES.items()}
    assert load(folder(tmp_path / "c", renamed)).identity != base


def test_a_damaged_copy_is_made_anew(load: Callable[[Path], DriverPackage], tmp_path: Path) -> None:
    source = folder(tmp_path / "a", FILES)
    first = load(source)
    (first.folder / "readme.txt").write_bytes(b"changed")
    assert (load(source).folder / "readme.txt").read_bytes() == b"hello"


def test_several_drivers_are_ordered(load: Callable[[Path], DriverPackage], tmp_path: Path) -> None:
    files: dict[str, bytes] = {}
    for name, hwid in (("xenhide", "PCI\\A"), ("xenvbd", r"XEN\VBD"), ("xenpci", "PCI\\B")):
        files[f"Xen/{name}.inf"] = inf(name, hwid, ver=f"11/09/2007,0.{len(name)}")
        files[f"Xen/i386/{name}.sys"] = b"MZ"
    package = load(folder(tmp_path / "a", files))
    assert package.name == "xenpci+xenvbd+xenhide"
    assert package.hardware_ids == ("PCI\\B", r"XEN\VBD", "PCI\\A")
    assert package.version == "0.6, 0.7"


@pytest.mark.parametrize("kind", ["good", "broken-attach"])
def test_the_stand_ins_own_packages(
    load: Callable[[Path], DriverPackage], tmp_path: Path, kind: str
) -> None:
    data = (STANDIN / kind / "xenvbd.inf").read_bytes()
    assert data.count(b"\n") == data.count(b"\r\n")
    elf = b"\x7fELF\x01".ljust(18, b"\0") + struct.pack("<H", 3)
    binaries = ("xenpci.sys", "xenvbd.sys", "xenvbdx.sys")
    files = {"xenvbd.inf": data, **{f"i386/{name}": elf for name in binaries}}
    package = load(folder(tmp_path / "a", files))
    assert "not a Windows driver" in package.provider
    assert package.hardware_ids == (r"XEN\VBD",)
    expected = ["xenvbd", "xenpci"] if kind == "good" else ["xenvbd", "xenvbdx"]
    assert [service.name for service in package.services] == expected


@pytest.mark.parametrize(
    ("binary", "processor"),
    [
        (b"\x7fELF\x01".ljust(18, b"\0") + b"\x03\0", "x86"),
        (b"\x7fELF\x02".ljust(18, b"\0") + b"\x3e\0", "amd64"),
        (b"MZ", None),
    ],
)
def test_processor(
    load: Callable[[Path], DriverPackage], tmp_path: Path, binary: bytes, processor: str | None
) -> None:
    """The PV stand-in is a 64-bit guest, whose drivers are let in."""
    package = load(folder(tmp_path / "a", {**FILES, "i386/xenvbd.sys": binary}))
    assert package.processor == processor


@pytest.mark.parametrize("kind", ["good", "broken-attach"])
def test_the_pv_stand_ins_own_packages(
    load: Callable[[Path], DriverPackage], tmp_path: Path, kind: str
) -> None:
    data = (STANDIN.with_name("standin-drivers-pv") / kind / "xenvbd.inf").read_bytes()
    assert data.count(b"\n") == data.count(b"\r\n")
    elf = b"\x7fELF\x02".ljust(18, b"\0") + b"\x3e\0"
    files = {"xenvbd.inf": data, "x86_64/xenvbd.sys": elf, "x86_64/xenvbdx.sys": elf}
    package = load(folder(tmp_path / "a", files))
    assert "not a Windows driver" in package.provider
    assert package.hardware_ids == (r"XEN\VBD",)
    assert package.processor == "amd64"


def without(name: str) -> dict[str, bytes]:
    return {key: value for key, value in FILES.items() if key != name}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (without("xenvbd.inf"), "no INF file"),
        (without("i386/xenvbd.sys"),
         "xenvbd.inf:10: no xenvbd.sys, which [I.NT] copies: looked for i386/xenvbd.sys"),
        ({**FILES, "b/xenvbd.inf": inf()}, "more than one xenvbd.inf"),
        ({**FILES, "xenvbd.inf": inf(ver="")}, "no DriverVer"),
        ({**FILES, "xenvbd.inf": inf(ver="soon")}, "xenvbd.inf:4: DriverVer has no date"),
        ({**FILES, "xenvbd.inf": inf().replace(b"x=I,XEN\\VBD", b"")}, "no hardware id"),
        ({**FILES, "xenvbd.inf": inf().replace(b"NTx86", b"NTamd64")}, "only for NTAMD64"),
        ({**FILES, "i386/xenvbd.sys": pe(0x8664)}, "is for amd64, the guest is x86"),
        ({**FILES, "i386/xenvbd.sys": b"\x7fELF\x02".ljust(18, b"\0") + b"\xb7\0"},
         "is for ELF machine 183"),
        ({**FILES, "xenvbd.inf": inf().replace(b"[I.NT]", b"[J]")}, "no install section [i]"),
        ({**FILES, "xenvbd.inf": inf().replace(b"\\i386", b"\\..\\..\\etc")}, "no xenvbd.sys"),
        ({**FILES, "xenvbd.inf": inf().replace(b"%12%\\xenvbd", b"%12%\\other")},
         "runs other.sys, which [I.NT] does not copy"),
        ({**FILES, "xenvbd.inf": b"MZ not an INF"}, "text before the first section"),
    ],
)  # fmt: skip
def test_bad_packages(
    refused: Callable[[Path], str], tmp_path: Path, files: dict[str, bytes], said: str
) -> None:
    assert said in refused(folder(tmp_path / "src", files))
    assert said in refused(archive(tmp_path / "x.zip", files))


def test_no_package_at_all(refused: Callable[[Path], str], tmp_path: Path) -> None:
    assert "no driver package at" in refused(tmp_path / "absent")
    (tmp_path / "plain").write_text("not a zip")
    assert "neither a folder nor a zip" in refused(tmp_path / "plain")
    os.mkfifo(tmp_path / "pipe")
    assert "neither a folder nor a zip" in refused(tmp_path / "pipe")
    (tmp_path / "cut.zip").write_bytes(archive(tmp_path / "x.zip", FILES).read_bytes()[:-40])
    assert "zip" in refused(tmp_path / "cut.zip")


def test_links_and_special_files(refused: Callable[[Path], str], tmp_path: Path) -> None:
    source = folder(tmp_path / "src", FILES)
    (source / "link").symlink_to("/etc/passwd")
    assert "link is a symbolic link" in refused(source)
    (source / "link").unlink()
    os.mkfifo(source / "pipe")
    assert "pipe is a special file" in refused(source)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("../evil", "climbs out"),
        ("a/../../evil", "climbs out"),
        ("/evil", "absolute path"),
        ("C:/evil", "absolute path"),
        ("c:evil", "absolute path"),
        ("..\\evil", "backslash"),
        ("a\\b", "backslash"),
        ("NUL", "Windows device"),
        ("sub/com1.txt", "Windows device"),
        ("a:stream", "absolute path"),
        ("ab:stream", "a name that the guest cannot take"),
        ("tab\tbed", "a name that the guest cannot take"),
        ("100%", "a name that the guest cannot take"),
        ("a&b", "a name that the guest cannot take"),
        ("dot.", "a name that the guest cannot take"),
        ("XENVBD.INF", "differ only in case"),
        ("I386/other.sys", "differ only in case"),
        ("/".join("abcdefghijklmnop"), "no usable path"),
    ],
)
def test_hostile_names(
    refused: Callable[[Path], str], tmp_path: Path, name: str, said: str
) -> None:
    assert said in refused(archive(tmp_path / "x.zip", {**FILES, name: b"x"}))


def test_a_name_cut_at_a_nul(refused: Callable[[Path], str], tmp_path: Path) -> None:
    path = archive(tmp_path / "x.zip", {**FILES, "a_b_c": b"x"})
    path.write_bytes(path.read_bytes().replace(b"a_b_c", b"a\0b_c"))
    assert "a name that the guest cannot take" in refused(path)


def test_members_twice(refused: Callable[[Path], str], tmp_path: Path) -> None:
    path = archive(tmp_path / "x.zip", FILES)
    with zipfile.ZipFile(path, "a") as out, pytest.warns(UserWarning, match="Duplicate"):
        out.writestr("readme.txt", b"again")
    assert "is there twice" in refused(path)


def test_a_file_that_is_also_a_folder(refused: Callable[[Path], str], tmp_path: Path) -> None:
    path = archive(tmp_path / "x.zip", {**FILES, "a": b"", "a/b": b""})
    assert "both a file and a folder" in refused(path)


@pytest.mark.parametrize(
    ("mode", "said"), [(0o120777, "a symbolic link"), (0o010644, "a special file")]
)
def test_special_members(
    refused: Callable[[Path], str], tmp_path: Path, mode: int, said: str
) -> None:
    path = archive(tmp_path / "x.zip", FILES)
    member = zipfile.ZipInfo("odd")
    member.create_system = 3
    member.external_attr = mode << 16
    with zipfile.ZipFile(path, "a") as out:
        out.writestr(member, "/etc/passwd")
    assert said in refused(path)


def test_encrypted_members(refused: Callable[[Path], str], tmp_path: Path) -> None:
    data = bytearray(archive(tmp_path / "x.zip", FILES).read_bytes())
    # Flag bit 0 in the first central directory record (APPNOTE.TXT 4.4.4).
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "x.zip").write_bytes(data)
    assert "is encrypted" in refused(tmp_path / "x.zip")


def test_bombs(refused: Callable[[Path], str], tmp_path: Path) -> None:
    zeros = {**FILES, "zeros": bytes(8 << 20)}
    assert "200 times its size" in refused(archive(tmp_path / "x.zip", zeros))
    big = {**FILES, "a": os.urandom(1 << 16) * 520, "b": os.urandom(1 << 16) * 520}
    with zipfile.ZipFile(tmp_path / "big.zip", "w") as out:
        for name, content in big.items():
            out.writestr(name, content)
    assert "larger than 64 MiB" in refused(tmp_path / "big.zip")
    assert "larger than 64 MiB" in refused(folder(tmp_path / "big", big))
    many = {f"f{n}": b"" for n in range(1001)}
    assert "more than 1000" in refused(archive(tmp_path / "many.zip", many))
    assert "more than 1000" in refused(folder(tmp_path / "many", many))


def test_a_lying_size_does_not_help(refused: Callable[[Path], str], tmp_path: Path) -> None:
    data = bytearray(archive(tmp_path / "x.zip", {"zeros": bytes(8 << 20)}).read_bytes())
    at = data.index(b"PK\x01\x02") + 24  # uncompressed size (APPNOTE.TXT 4.3.12)
    data[at : at + 4] = struct.pack("<I", 10)
    (tmp_path / "x.zip").write_bytes(data)
    refused(tmp_path / "x.zip")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_archives_are_refused_or_loaded(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as whole:
        for name, content in FILES.items():
            whole.writestr(name, content)
    raw = bytearray(out.getvalue())
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("zip") / "x.zip"
    path.write_bytes(raw)
    with contextlib.suppress(UsageError):
        DriverPackage.load(path, path.parent / "into")
