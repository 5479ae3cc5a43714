"""Small installation discs, made here with pycdlib."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import pycdlib
from pemaker import program

TXTSETUP = b"[SetupData]\r\nMajorVersion = 5\r\n[nls]\r\nDefaultLayout = 00000407\r\n"
SP2 = (5, 2, 3790, 3959)


def setup_program(version: tuple[int, int, int, int] = SP2, **more: int) -> bytes:
    return program({"FileDescription": "Windows Installer Program"}, version, **more)


def windows_files(**changes: bytes | None) -> dict[str, bytes]:
    """Files of a Windows Server 2003 SP2 Enterprise disc; ``changes`` by name replace or drop
    them (``_`` for dots and slashes in names)."""
    files: dict[str, bytes | None] = {
        "/WIN51": b"Windows",
        "/WIN51IA": b"Windows",
        "/WIN51IA.SP2": b"Windows",
        "/I386/TXTSETUP.SIF": TXTSETUP,
        "/I386/SETUPLDR.BIN": b"loader",
        "/I386/WINNT32.EXE": setup_program(),
    }
    for name, content in changes.items():
        path = next(p for p in files if p.strip("/").replace("/", "_").replace(".", "_") == name)
        files[path] = content
    return {path: content for path, content in files.items() if content is not None}


def make_iso(
    target: Path,
    files: Mapping[str, bytes],
    *,
    label: str = "TEST",
    boot: bool = True,
    rock_ridge: bool = False,
) -> Path:
    """Write an ISO 9660 disc.

    Args:
        target: the file.
        files: by path; folders are made as they come.
        label: volume identifier.
        boot: with an El Torito boot record.
        rock_ridge: paths are Rock Ridge names; the ISO ones are made up.
    """
    iso = pycdlib.PyCdlib()
    iso.new(vol_ident=label, interchange_level=3, **({"rock_ridge": "1.09"} if rock_ridge else {}))
    folders: dict[str, str] = {"": ""}
    for number, (path, content) in enumerate(files.items()):
        folder, _, name = path.rpartition("/")
        at = ""
        for part in filter(None, folder.split("/")):
            if f"{at}/{part}" not in folders:
                plain = f"D{number}" if rock_ridge else part
                folders[f"{at}/{part}"] = f"{folders[at]}/{plain}"
                iso.add_directory(
                    folders[f"{at}/{part}"], **({"rr_name": part} if rock_ridge else {})
                )
            at += f"/{part}"
        plain = f"F{number}.;1" if rock_ridge else f"{name};1"
        iso.add_fp(
            io.BytesIO(content),
            len(content),
            f"{folders[folder]}/{plain}",
            **({"rr_name": name} if rock_ridge else {}),
        )
    if boot:
        code = b"\xeb\xfe".ljust(2048, b"\0")
        iso.add_fp(
            io.BytesIO(code), len(code), "/BOOT.BIN;1", **({"rr_name": "x"} if rock_ridge else {})
        )
        iso.add_eltorito(
            "/BOOT.BIN;1", "/BOOT.CAT;1", **({"rr_bootcatname": "y"} if rock_ridge else {})
        )
    iso.write(str(target))
    iso.close()
    return target


def centos_files(
    version: str = "5.5", arch: str = "x86_64", discs: str = "ALL", family: str = "CentOS"
) -> dict[str, bytes]:
    tree = f"[general]\nfamily = {family}\nversion = {version}\narch = {arch}\n[checksums]\na = b\n"
    return {
        "/.discinfo": f"1272326751.405938\nFinal\n{arch}\n{discs}\n".encode(),
        "/.treeinfo": tree.encode(),
        "/isolinux/vmlinuz": b"kernel",
        "/isolinux/initrd.img": b"initrd",
        f"/CentOS/centos-release-5-5.el5.centos.{arch}.rpm": b"rpm",
    }
