from __future__ import annotations

import gzip
import lzma
import shutil
import stat
import struct
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.core.errors import LabBroken
from lab.images.kernel import Initramfs, extract_vmlinux, module_closure, unpack_gzip

ELF = b"\x7fELF" + bytes(range(256)) * 64


# -- kernels ----------------------------------------------------------------------------


def bzimage(payload: bytes, *, protocol: int = 0x20F, setup_sectors: int = 3) -> bytes:
    """A bzImage of nothing but the fields that say where the payload is."""
    stub = b"decompressor"
    sectors = setup_sectors or 4
    image = bytearray((sectors + 1) * 512)
    image[0x1F1] = setup_sectors
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x206, protocol)
    struct.pack_into("<II", image, 0x248, len(stub), len(payload))
    return bytes(image) + stub + payload + b"what follows the payload"


def size_of(kernel: bytes) -> bytes:
    """Linux appends it to all compressed kernels but gzip's, which ends with it anyway
    (scripts/Makefile.lib, ``size_append``)."""
    return struct.pack("<I", len(kernel))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return tmp_path / "vmlinuz"


@pytest.mark.parametrize("setup_sectors", [0, 3, 39])
def test_xz_kernel(image: Path, tmp_path: Path, setup_sectors: int):
    payload = lzma.compress(ELF, check=lzma.CHECK_CRC32) + size_of(ELF)
    image.write_bytes(bzimage(payload, setup_sectors=setup_sectors))
    extract_vmlinux(image, tmp_path / "vmlinux")
    assert (tmp_path / "vmlinux").read_bytes() == ELF


def test_gzip_kernel(image: Path, tmp_path: Path):
    image.write_bytes(bzimage(gzip.compress(ELF)))
    extract_vmlinux(image, tmp_path / "vmlinux")
    assert (tmp_path / "vmlinux").read_bytes() == ELF


@pytest.mark.parametrize("compress", [lzma.compress, gzip.compress], ids=["xz", "gzip"])
def test_payload_that_ends_early(image: Path, tmp_path: Path, compress: Callable[[bytes], bytes]):
    payload = compress(ELF)
    image.write_bytes(bzimage(payload[: len(payload) - 10]))
    with pytest.raises(LabBroken, match="payload ends early"):
        extract_vmlinux(image, tmp_path / "vmlinux")
    assert not (tmp_path / "vmlinux").exists()


@pytest.mark.parametrize("compress", [lzma.compress, gzip.compress], ids=["xz", "gzip"])
def test_damaged_payload(image: Path, tmp_path: Path, compress: Callable[[bytes], bytes]):
    payload = bytearray(compress(ELF))
    payload[len(payload) // 2] ^= 0xFF
    image.write_bytes(bzimage(bytes(payload)))
    with pytest.raises(LabBroken, match="vmlinuz: damaged payload: "):
        extract_vmlinux(image, tmp_path / "vmlinux")


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"MZ",
        bytes(4096),
        bzimage(lzma.compress(ELF), protocol=0x207),
        bzimage(lzma.compress(ELF))[:0x248],
    ],
    ids=["empty", "short", "zeros", "old protocol", "cut off"],
)
def test_no_kernel(image: Path, tmp_path: Path, junk: bytes):
    image.write_bytes(junk)
    with pytest.raises(LabBroken, match=r"vmlinuz has no boot protocol 2\.08 header"):
        extract_vmlinux(image, tmp_path / "vmlinux")
    assert not (tmp_path / "vmlinux").exists()


def test_unknown_compression(image: Path, tmp_path: Path):
    image.write_bytes(bzimage(b"\x28\xb5\x2f\xfd and zstd's data"))
    with pytest.raises(LabBroken, match="unknown kernel compression 28b52ffd"):
        extract_vmlinux(image, tmp_path / "vmlinux")


def test_payload_that_is_no_kernel(image: Path, tmp_path: Path):
    image.write_bytes(bzimage(lzma.compress(b"text") + size_of(b"text")))
    with pytest.raises(LabBroken, match="not an ELF kernel"):
        extract_vmlinux(image, tmp_path / "vmlinux")


def test_gzip_file(tmp_path: Path):
    (tmp_path / "xen.gz").write_bytes(gzip.compress(ELF))
    unpack_gzip(tmp_path / "xen.gz", tmp_path / "xen")
    assert (tmp_path / "xen").read_bytes() == ELF


# -- modules ----------------------------------------------------------------------------

# As depmod writes it: each line has all a module needs, nearest first.
MODULES_DEP = """\
kernel/drivers/block/virtio_blk.ko: kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko
kernel/drivers/virtio/virtio.ko:
kernel/drivers/virtio/virtio_ring.ko: kernel/drivers/virtio/virtio.ko
kernel/drivers/virtio/virtio_pci.ko.xz: kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko
kernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko kernel/lib/crc16.ko kernel/fs/mbcache.ko
kernel/fs/jbd2/jbd2.ko:
kernel/fs/mbcache.ko:
kernel/lib/crc16.ko:
kernel/net/xen-netback.ko:
"""  # noqa: E501


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    (tmp_path / "modules.dep").write_text(MODULES_DEP)
    (tmp_path / "modules.builtin").write_text("kernel/crypto/crc32c_generic.ko\nkernel/a-b.ko\n")
    return tmp_path


def names_of(paths: list[str]) -> list[str]:
    return [Path(path).name for path in paths]


def test_loading_order(modules: Path):
    order = module_closure(modules, ["virtio_blk"])
    assert names_of(order) == ["virtio.ko", "virtio_ring.ko", "virtio_blk.ko"]
    assert order[-1] == "kernel/drivers/block/virtio_blk.ko"


def test_everything_once_and_after_what_it_needs(modules: Path):
    order = names_of(module_closure(modules, ["virtio_pci", "ext4", "virtio_blk", "virtio"]))
    assert sorted(order) == sorted(set(order))
    for line in MODULES_DEP.splitlines():
        path, _, needs = line.partition(":")
        if Path(path).name in order:
            for need in needs.split():
                assert order.index(Path(need).name) < order.index(Path(path).name)
    assert "virtio_pci.ko.xz" in order
    assert "xen-netback.ko" not in order


def test_dashes_are_underscores(modules: Path):
    assert module_closure(modules, ["xen_netback"]) == ["kernel/net/xen-netback.ko"]
    assert module_closure(modules, ["xen-netback"]) == ["kernel/net/xen-netback.ko"]


def test_builtin_modules_need_no_loading(modules: Path):
    assert module_closure(modules, ["crc32c_generic", "a_b", "a-b"]) == []


def test_missing_module(modules: Path):
    with pytest.raises(LabBroken, match="has no module nvme"):
        module_closure(modules, ["ext4", "nvme"])


# -- initramfs --------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """One file of an archive, as the format's description has it."""

    inode: int
    mode: int
    rdev: tuple[int, int]
    content: bytes


def parse_newc(data: bytes) -> dict[str, Entry]:
    """Read an archive by the words of buffer-format.rst, not by those of the writer."""
    found: dict[str, Entry] = {}
    at = 0
    while True:
        assert at % 4 == 0
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + i * 8 : at + 14 + i * 8], 16) for i in range(13)]
        inode, mode, uid, gid, links, mtime, size, _, _, major, minor, name_size, check = fields
        assert (uid, gid, links, mtime, check) == (0, 0, 1, 0, 0)
        at += 110
        assert data[at + name_size - 1] == 0
        name = data[at : at + name_size - 1].decode()
        at += name_size
        at += -at % 4
        content = data[at : at + size]
        assert len(content) == size
        at += size
        at += -at % 4
        if name == "TRAILER!!!":
            assert at == len(data)
            return found
        assert name not in found
        found[name] = Entry(inode, mode, (major, minor), content)


def archive() -> Initramfs:
    made = Initramfs()
    made.directory("bin")
    made.device("dev/console", 5, 1)
    made.file("bin/busybox", b"program", 0o755)
    made.file("empty", b"")
    made.file("odd.length", b"12345")
    made.symlink("bin/sh", "busybox")
    return made


def test_archive(tmp_path: Path):
    archive().write(tmp_path / "initrd")
    found = parse_newc((tmp_path / "initrd").read_bytes())
    assert list(found) == ["bin", "dev/console", "bin/busybox", "empty", "odd.length", "bin/sh"]
    assert found["bin"].mode == stat.S_IFDIR | 0o755
    assert found["dev/console"].mode == stat.S_IFCHR | 0o600
    assert found["dev/console"].rdev == (5, 1)
    assert (found["bin/busybox"].mode, found["bin/busybox"].content) == (
        stat.S_IFREG | 0o755,
        b"program",
    )
    assert found["empty"].content == b""
    assert found["odd.length"].content == b"12345"
    assert (found["bin/sh"].mode, found["bin/sh"].content) == (stat.S_IFLNK | 0o777, b"busybox")
    # Equal inodes would be hard links of one another.
    inodes = [entry.inode for entry in found.values()]
    assert len(set(inodes)) == len(inodes)


def test_same_files_same_bytes(tmp_path: Path):
    archive().write(tmp_path / "one")
    archive().write(tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.skipif(shutil.which("cpio") is None, reason="cpio is not installed")
def test_cpio_reads_the_archive(tmp_path: Path):
    archive().write(tmp_path / "initrd")
    with (tmp_path / "initrd").open("rb") as file:
        done = subprocess.run(
            ["cpio", "-t", "--quiet"], stdin=file, capture_output=True, text=True, check=True
        )
    assert done.stdout.split() == list(parse_newc((tmp_path / "initrd").read_bytes()))
