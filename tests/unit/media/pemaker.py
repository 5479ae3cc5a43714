"""Small Windows programs, made here: a header, and a version resource to read.

Layouts: PE format (Microsoft Learn), "Optional header", "The .rsrc section"; VS_VERSIONINFO,
StringFileInfo and VarFileInfo (Win32 API, "Version information").
"""

from __future__ import annotations

import struct

I386, X64 = 0x14C, 0x8664
_RVA = 0x1000
_FILE = 0x200


def program(
    strings: dict[str, str] | None = None,
    version: tuple[int, int, int, int] = (1, 0, 0, 0),
    *,
    machine: int = I386,
    needs: tuple[int, int] = (4, 0),
    language: int = 0x409,
) -> bytes:
    """A program that does nothing.

    Args:
        strings: of its version resource; none when None.
        version: its file version.
        machine: COFF machine type.
        needs: subsystem version.
        language: LCID of the version resource.
    """
    resource = b"" if strings is None else _resources(_version(strings, version, language))
    padded = resource + bytes(-len(resource) % 0x200)
    dos = struct.pack("<2s58xI", b"MZ", 0x40)
    coff = struct.pack("<HHIIIHH", machine, 1, 0, 0, 0, 0xE0 if machine == I386 else 0xF0, 0x102)
    directories = bytearray(16 * 8)
    if resource:
        struct.pack_into("<II", directories, 2 * 8, _RVA, len(resource))
    common = struct.pack("<BBIIIII", 8, 0, 0, len(padded), 0, 0, _RVA)
    if machine == I386:
        head = struct.pack("<H", 0x10B) + common + struct.pack("<II", 0, 0x400000)
        sizes = struct.pack("<IIIII", 0x100000, 0x1000, 0x100000, 0x1000, 0)
    else:
        head = struct.pack("<H", 0x20B) + common + struct.pack("<Q", 0x400000)
        sizes = struct.pack("<QQQQI", 0x100000, 0x1000, 0x100000, 0x1000, 0)
    middle = struct.pack(
        "<IIHHHHHHIIIIHH", 0x1000, 0x200, 4, 0, 0, 0, *needs, 0, 0x3000, 0x200, 0, 2, 0
    )
    optional = head + middle + sizes + struct.pack("<I", 16) + bytes(directories)
    section = struct.pack(
        "<8sIIIIIIHHI", b".rsrc", max(1, len(resource)), _RVA, len(padded), _FILE, 0, 0, 0, 0,
        0x40000040,
    )  # fmt: skip
    return (dos + b"PE\0\0" + coff + optional + section).ljust(_FILE, b"\0") + padded


def _resources(version: bytes) -> bytes:
    """Three levels of directories with one entry each: type 16, name 1, language 1033."""
    directory = struct.Struct("<IIHHHHII")
    high = 1 << 31
    tree = directory.pack(0, 0, 0, 0, 0, 1, 16, high | 24)
    tree += directory.pack(0, 0, 0, 0, 0, 1, 1, high | 48)
    tree += directory.pack(0, 0, 0, 0, 0, 1, 1033, 72)
    tree += struct.pack("<IIII", _RVA + 88, len(version), 0, 0)
    return tree + version


def _block(key: str, value: bytes, kind: int, children: bytes = b"", count: int = -1) -> bytes:
    name = key.encode("utf-16-le") + b"\0\0"
    head = 6 + len(name)
    body = bytes(-head % 4) + value
    body += bytes(-(head + len(body)) % 4) + children if children else b""
    length = len(value) if count < 0 else count
    return struct.pack("<HHH", head + len(body), length, kind) + name + body


def _aligned(block: bytes) -> bytes:
    return block + bytes(-len(block) % 4)


def _version(strings: dict[str, str], version: tuple[int, int, int, int], language: int) -> bytes:
    high, low = version[0] << 16 | version[1], version[2] << 16 | version[3]
    fixed = struct.pack(
        "<13I", 0xFEEF04BD, 0x10000, high, low, high, low, 0x3F, 0, 0x40004, 1, 0, 0, 0
    )
    entries = b""
    for key, text in strings.items():
        value = text.encode("utf-16-le") + b"\0\0"
        entries += _aligned(_block(key, value, 1, count=len(text) + 1))
    table = _block(f"{language:04X}04B0", b"", 1, entries)
    string_info = _aligned(_block("StringFileInfo", b"", 1, table))
    var = _block("Translation", struct.pack("<HH", language, 0x4B0), 0)
    var_info = _block("VarFileInfo", b"", 1, var)
    return _block("VS_VERSION_INFO", fixed, 0, string_info + var_info)
