"""Pieces of Linux that images boot from: kernels unpacked once, at build time, and initramfs
archives with nothing in them but what the root disk needs.

Decompressing on the emulated processor is dear, so it is done here instead.
"""

from __future__ import annotations

import gzip
import lzma
import stat
import struct
import zlib
from pathlib import Path

from lab.core.errors import LabBroken

_XZ_MAGIC = b"\xfd7zXZ\x00"
_GZIP_MAGIC = b"\x1f\x8b\x08"
# Added to zlib's window bits: the stream has a gzip header (zlib manual, inflateInit2).
_GZIP_WRAPPER = 16
# First byte after the header's ``payload_length``.
_HEADER_END = 0x250


def unpack_gzip(source: Path, target: Path) -> None:
    """Write the content of a gzip file, such as Debian's ``xen-*.gz``, to ``target``."""
    target.write_bytes(gzip.decompress(source.read_bytes()))


def extract_vmlinux(bzimage: Path, target: Path) -> None:
    """Write the ELF kernel inside a bzImage to ``target``.

    Fields are those of Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header":
    ``setup_sects`` at 0x1f1, ``payload_offset`` at 0x248, ``payload_length`` at 0x24c.

    Raises:
        LabBroken: not a bzImage of boot protocol 2.08 or later, an unknown compression, or
            damaged.
    """
    data = bzimage.read_bytes()
    header = data[:_HEADER_END]
    if (
        len(header) < _HEADER_END
        or header[0x202:0x206] != b"HdrS"
        or struct.unpack_from("<H", header, 0x206)[0] < 0x208
    ):
        raise LabBroken(f"{bzimage} has no boot protocol 2.08 header")
    setup_sectors = data[0x1F1] or 4
    offset, length = struct.unpack_from("<II", data, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    payload = data[start : start + length]
    # Both stop at the end of their stream: an xz payload is followed by the unpacked size.
    stream: lzma.LZMADecompressor | zlib._Decompress
    if payload.startswith(_XZ_MAGIC):
        stream = lzma.LZMADecompressor(format=lzma.FORMAT_XZ)
    elif payload.startswith(_GZIP_MAGIC):
        stream = zlib.decompressobj(wbits=zlib.MAX_WBITS | _GZIP_WRAPPER)
    else:
        raise LabBroken(f"{bzimage}: unknown kernel compression {payload[:4].hex()}")
    try:
        kernel = stream.decompress(payload)
    except (lzma.LZMAError, zlib.error) as error:
        raise LabBroken(f"{bzimage}: damaged payload: {error}") from None
    if not stream.eof:
        raise LabBroken(f"{bzimage}: the payload ends early")
    if not kernel.startswith(b"\x7fELF"):
        raise LabBroken(f"{bzimage}: the payload is not an ELF kernel")
    target.write_bytes(kernel)


def module_closure(modules_dir: Path, names: list[str]) -> list[str]:
    """Relative paths of the named modules and what they need, in loading order.

    Args:
        modules_dir: a ``/lib/modules/VERSION`` folder with its ``modules.dep`` and
            ``modules.builtin`` (modules.dep(5)).
        names: module names, with ``-`` or ``_``; built-in ones are left out.

    Raises:
        LabBroken: a name is neither a module nor built in.
    """

    def plain(path: str) -> str:
        return Path(path).name.split(".ko")[0].replace("-", "_")

    depends: dict[str, list[str]] = {}
    paths: dict[str, str] = {}
    for line in (modules_dir / "modules.dep").read_text().splitlines():
        path, _, needs = line.partition(":")
        paths[plain(path)] = path
        depends[plain(path)] = [plain(need) for need in needs.split()]
    builtin = {plain(p) for p in (modules_dir / "modules.builtin").read_text().split()}
    order: list[str] = []

    def visit(name: str) -> None:
        if name in builtin or name in order:
            return
        if name not in paths:
            raise LabBroken(f"{modules_dir} has no module {name}")
        # modules.dep lists direct and indirect needs, nearest first.
        for need in reversed(depends[name]):
            visit(need)
        if name not in order:
            order.append(name)

    for name in names:
        visit(name.replace("-", "_"))
    return [paths[name] for name in order]


class Initramfs:
    """A cpio archive in the "newc" format (Documentation/driver-api/early-userspace/
    buffer-format.rst), written without root and without timestamps."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._inode = 0

    def directory(self, name: str) -> None:
        """Add a folder."""
        self._add(name, stat.S_IFDIR | 0o755, b"")

    def file(self, name: str, content: bytes, mode: int = 0o644) -> None:
        """Add a regular file."""
        self._add(name, stat.S_IFREG | mode, content)

    def symlink(self, name: str, target: str) -> None:
        """Add a symbolic link."""
        self._add(name, stat.S_IFLNK | 0o777, target.encode())

    def device(self, name: str, major: int, minor: int) -> None:
        """Add a character device node."""
        self._add(name, stat.S_IFCHR | 0o600, b"", rdev=(major, minor))

    def write(self, target: Path) -> None:
        """Write the archive."""
        closing = self._entry("TRAILER!!!", 0, b"", (0, 0))
        target.write_bytes(b"".join([*self._parts, closing]))

    def _add(self, name: str, mode: int, content: bytes, rdev: tuple[int, int] = (0, 0)) -> None:
        self._inode += 1
        self._parts.append(self._entry(name, mode, content, rdev))

    def _entry(self, name: str, mode: int, content: bytes, rdev: tuple[int, int]) -> bytes:
        encoded = name.encode() + b"\0"
        fields = (
            self._inode if mode else 0, mode, 0, 0, 1, 0, len(content),
            0, 0, rdev[0], rdev[1], len(encoded), 0,
        )  # fmt: skip
        header = b"070701" + b"".join(b"%08X" % field for field in fields)
        head = header + encoded
        return _pad(head) + _pad(content)


def _pad(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
