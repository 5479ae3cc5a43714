from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import paramiko
import pytest

from lab.core.errors import LabBroken
from lab.images.rootfs import install, kernel_version, make_ext4, make_initramfs, new_ssh_key

TOOLS = ("fakeroot", "mke2fs", "debugfs")


class Context:
    """A build that runs its programs here and is told what mmdebstrap would install."""

    def __init__(self, scratch: Path, versions: dict[str, str] | None = None) -> None:
        self.scratch = scratch
        self.versions: dict[str, str] = {}
        self._installs = versions or {}
        self.asked: dict[str, Any] = {}

    def run(self, argv: Sequence[str | Path]) -> None:
        words = [str(word) for word in argv]
        subprocess.run(words, check=True, capture_output=True, cwd=self.scratch)

    def mmdebstrap(self, suite: str, out: Path, **options: Any) -> dict[str, str]:
        self.asked = {"suite": suite, **options}
        make_tar(out)
        return self._installs

    def record_version(self, name: str, version: str) -> None:
        self.versions[name] = version


def make_tar(path: Path) -> None:
    with tarfile.open(path, "w") as tar:
        for name in ("./", "./dev/", "./etc/", "./root/", "./opt/", "./sbin/", "./usr/local/"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder)
        node = tarfile.TarInfo("./dev/null")
        node.type, node.devmajor, node.devminor = tarfile.CHRTYPE, 1, 3
        tar.addfile(node)
        file = tarfile.TarInfo("./etc/shadow")
        file.mode, file.gid, file.size = 0o640, 42, 5
        tar.addfile(file, BytesIO(b"root:"))


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


# -- packages ---------------------------------------------------------------------------


def test_install(scratch: Path, tmp_path: Path):
    context = Context(
        scratch,
        {
            "linux-image-amd64": "6.1.1",
            "linux-image-6.1.0-30-amd64": "6.1.124-1",
            "kmod": "30",
        },
    )
    ctx: Any = context
    tree = tmp_path / "tree"
    archive = install(
        ctx, tree, suite="bookworm", packages=["linux-image-amd64", "kmod"], architecture="amd64"
    )
    assert archive == scratch / "tree.tar"
    # Owners are in the archive; the tree is for reading, and needs no device nodes.
    assert (tree / "etc/shadow").read_text() == "root:"
    assert (tree / "etc/shadow").stat().st_uid == os.getuid()
    assert list((tree / "dev").iterdir()) == []
    # The kernel's own package, which the one that names the newest leads to.
    assert context.versions == {"linux-image-6.1.0-30-amd64": "6.1.124-1"}
    assert context.asked["include"] == ["linux-image-amd64", "kmod"]
    assert "path-exclude=/usr/share/man/*" in context.asked["dpkgopts"]


@pytest.mark.parametrize("names", [[], ["6.1.0-30-amd64", "6.1.0-31-amd64"]])
def test_not_one_kernel(tmp_path: Path, names: list[str]):
    (tmp_path / "usr/lib/modules").mkdir(parents=True)
    for name in names:
        (tmp_path / "usr/lib/modules" / name).mkdir()
    with pytest.raises(LabBroken, match="expected one kernel in the root, found"):
        kernel_version(tmp_path)


# -- initramfs --------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree/usr/lib/modules/6.1.0-30-amd64"
    folder.mkdir(parents=True)
    for name in ("virtio.ko", "virtio_blk.ko", "unwanted.ko"):
        (folder / name).write_bytes(f"module {name}".encode())
    (folder / "modules.dep").write_text(
        "virtio.ko:\nvirtio_blk.ko: virtio.ko\nunwanted.ko: virtio.ko\n"
    )
    (folder / "modules.builtin").write_text("kernel/ext4.ko\n")
    return tmp_path / "tree"


def test_initramfs(tree: Path, tmp_path: Path):
    (tmp_path / "init").write_bytes(b"#!/bin/busybox sh\n")
    (tmp_path / "busybox").write_bytes(b"busybox program")
    target = tmp_path / "initrd"
    assert kernel_version(tree) == "6.1.0-30-amd64"
    make_initramfs(
        target,
        tree=tree,
        init=tmp_path / "init",
        modules=["virtio_blk", "ext4"],
        busybox=tmp_path / "busybox",
    )
    data = target.read_bytes()
    for part in (b"#!/bin/busybox sh\n", b"busybox program", b"module virtio.ko", b"dev/console"):
        assert part in data
    # The init script loads them in this order.
    assert b"virtio.ko\nvirtio_blk.ko\n" in data
    assert b"unwanted" not in data


def test_initramfs_with_a_module_that_is_not_there(tree: Path, tmp_path: Path):
    for name in ("init", "busybox"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(LabBroken, match="has no module xen_blkfront"):
        make_initramfs(
            tmp_path / "initrd",
            tree=tree,
            init=tmp_path / "init",
            modules=["xen-blkfront"],
            busybox=tmp_path / "busybox",
        )


# -- filesystem -------------------------------------------------------------------------


def debugfs(image: Path, request: str) -> str:
    done = subprocess.run(
        ["debugfs", "-R", request, str(image)], capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.skipif(
    not all(map(shutil.which, TOOLS)), reason="fakeroot or e2fsprogs are not installed"
)
def test_ext4(scratch: Path, tmp_path: Path):
    make_tar(tmp_path / "root.tar")
    overlay = tmp_path / "it's an overlay"
    (overlay / "etc").mkdir(parents=True)
    (overlay / "etc/hostname").write_text("dom0\n")
    key = tmp_path / "key"
    key.write_text("secret\n")
    target = tmp_path / "root.img"
    ctx: Any = Context(scratch)
    make_ext4(
        ctx,
        target,
        archive=tmp_path / "root.tar",
        size_mib=8,
        overlays=[overlay],
        copies={"/root/.ssh/authorized_keys": key},
        modes={"/root/.ssh/authorized_keys": 0o600},
        script="echo made > etc/made",
    )
    assert target.stat().st_size == 8 << 20
    assert debugfs(target, "cat /etc/hostname") == "dom0\n"
    assert debugfs(target, "cat /etc/made") == "made\n"
    assert debugfs(target, "cat /root/.ssh/authorized_keys") == "secret\n"
    features = debugfs(target, "features")
    assert "has_journal" not in features
    listing = debugfs(target, "ls -p /root/.ssh")
    assert "/100600/0/0/authorized_keys/" in listing
    # Nobody's own user and group are in the image.
    assert "/0/0/hostname/" in debugfs(target, "ls -p /etc")
    assert list(scratch.iterdir()) == []


# -- keys -------------------------------------------------------------------------------


def test_ssh_key(tmp_path: Path):
    private = tmp_path / "id_ed25519"
    line = new_ssh_key(private, "root of dom0")
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    key = paramiko.Ed25519Key.from_private_key_file(str(private))
    assert line == f"ssh-ed25519 {key.get_base64()} root of dom0\n"
    assert new_ssh_key(tmp_path / "other", "root of dom0") != line
