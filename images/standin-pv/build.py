"""The PV stand-in: a kernel and an initramfs that is its whole root.

The same userland as the HVM stand-in's, 64-bit, since Debian's Xen has no 32-bit PV guests.
All of it is in memory, so only the programs that it starts go in, with the libraries that
they need, out of packages that were unpacked and never installed.
"""

import gzip
import json
import re
import secrets
from pathlib import Path, PurePosixPath

from lab.core.errors import LabBroken
from lab.images.boot import GuestBoot, write_guest
from lab.images.context import BuildContext
from lab.images.kernel import Initramfs, extract_vmlinux, module_closure

PACKAGES = [
    "python3-minimal", "libpython3-stdlib", "busybox-static", "kmod", "iproute2", "mount",
    "ntfs-3g", "dosfstools",
]  # fmt: skip
#: What the init script starts, and the programs in the stand-in's ``config.py``.
PROGRAMS = [
    "python3", "busybox", "ip", "insmod", "rmmod", "mount", "umount",
    "ntfs-3g", "mkntfs", "ntfsfix", "mkfs.vfat", "fsck.vfat",
]  # fmt: skip
#: No xen-blkfront: it arrives as a driver package.
MODULES = ["xen-netfront", "fuse", "vfat", "nls_cp437", "nls_iso8859-1"]
#: Parts of Python's library that a server has no use for, and what drags in large libraries.
NEEDLESS_PYTHON = re.compile(
    r"(^|/)(test|lib2to3|pydoc_data|unittest|asyncio|multiprocessing|sqlite3|curses|dbm|distutils"
    r"|ensurepip|idlelib|tkinter|turtledemo|wsgiref|xmlrpc|__pycache__)/"
    r"|^lib-dynload/(_hashlib|_ssl|_sqlite3|_curses|_dbm|_decimal|_test|_xx|xx|_ctypes|_codecs_"
    r"|_lzma|_bz2|nis|readline|ossaudiodev|audioop)"
)
LIBRARY_PATH = ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu")
LOADER = "lib64/ld-linux-x86-64.so.2"
USERNAME = "Administrator"


def build(ctx: BuildContext) -> None:
    kernel = ctx.dep("standin-kernel-amd64")
    version = (kernel / "version").read_text().strip()
    ctx.record_version("kernel", version)
    ctx.step("unpacking the guest's packages (amd64)")
    tree = ctx.scratch / "tree"
    ctx.mmdebstrap("bookworm", tree, variant="extract", include=PACKAGES)
    ctx.step("unpacking the kernel")
    vmlinux = ctx.scratch / "vmlinux"
    extract_vmlinux(kernel / "vmlinuz", vmlinux)
    # dom0 unpacks it, emulated: gzip is the quickest of what Xen's domain builder knows.
    (ctx.out / "vmlinux.gz").write_bytes(gzip.compress(vmlinux.read_bytes(), mtime=0))

    ctx.step("making the initramfs")
    password = secrets.token_urlsafe(15)
    settings = {"user": USERNAME, "password": password, "system_disk": None}
    root = Root()
    for folder in ("proc", "sys", "tmp", "run", "c", "root", "mnt/letters"):
        root.folder(folder)
    add_programs(ctx, root, tree)
    ctx.run(["tar", "-x", "-f", kernel / "modules.tar"])
    add_modules(root, ctx.scratch / version)
    userland = ctx.shared("standin-pae/standin")
    for path in sorted(userland.rglob("*.py")):
        root.copy(path, f"opt/standin/{path.relative_to(userland)}")
    root.file("etc/standin.json", json.dumps(settings).encode(), 0o600)
    root.file("init", (ctx.recipe_dir / "init").read_bytes(), 0o755)
    write_initramfs(root, ctx.scratch, ctx.out / "initrd")

    (ctx.out / "domain.cfg.j2").write_bytes((ctx.recipe_dir / "domain.cfg.j2").read_bytes())
    secret = ctx.out / "password"
    secret.touch(0o600)
    secret.write_text(password)
    write_guest(
        ctx.out,
        GuestBoot(
            guest_type="pv",
            bits="64-bit",
            # No disk, and drive C: on none of its partitions: it is in the guest's memory.
            disk="",
            c_partition=0,
            c_folder="",
            domain_config="domain.cfg.j2",
            files={"kernel": "vmlinux.gz", "ramdisk": "initrd"},
            username=USERNAME,
            password_file="password",
        ),
    )


class Root:
    """An initramfs that makes the folders above its files."""

    def __init__(self) -> None:
        self.archive = Initramfs()
        self._there: set[str] = {"."}

    def folder(self, name: str) -> None:
        if name not in self._there:
            self.folder(str(PurePosixPath(name).parent))
            self._there.add(name)
            self.archive.directory(name)

    def file(self, name: str, content: bytes, mode: int = 0o644) -> None:
        if name not in self._there:
            self.folder(str(PurePosixPath(name).parent))
            self._there.add(name)
            self.archive.file(name, content, mode)

    def copy(self, source: Path, name: str) -> None:
        self.file(name, source.read_bytes(), 0o755 if source.stat().st_mode & 0o100 else 0o644)

    def link(self, name: str, target: str) -> None:
        if name not in self._there:
            self.folder(str(PurePosixPath(name).parent))
            self._there.add(name)
            self.archive.symlink(name, target)


def add_programs(ctx: BuildContext, root: Root, tree: Path) -> None:
    """Add ``PROGRAMS``, Python's library, and the shared libraries that they load."""
    loading = []
    for name in PROGRAMS:
        places = [tree / part / name for part in ("bin", "sbin", "usr/bin", "usr/sbin")]
        found = next((path for path in places if path.is_symlink() or path.exists()), None)
        if found is None:
            raise LabBroken(f"the packages of {ctx.name} hold no {name}")
        while found.is_symlink():
            target = found.readlink()
            root.link(str(found.relative_to(tree)), str(target))
            found = (
                tree / target.relative_to("/") if target.is_absolute() else found.parent / target
            )
        found = found.resolve()
        root.copy(found, str(found.relative_to(tree.resolve())))
        loading.append(found)
    library = next((tree / "usr/lib").glob("python3.*"))
    for path in sorted(library.rglob("*")):
        inside = str(path.relative_to(library))
        if path.is_file() and not path.is_symlink() and not NEEDLESS_PYTHON.search(inside):
            root.copy(path, f"usr/lib/{library.name}/{inside}")
            if path.suffix == ".so":
                loading.append(path)
    # The tree's own loader tells what it would load (ld.so(8), --list).
    loader = tree / LIBRARY_PATH[0] / PurePosixPath(LOADER).name
    words = [
        loader,
        "--library-path",
        ":".join(str(tree / part) for part in LIBRARY_PATH),
        "--list",
    ]
    root.copy(loader.resolve(), LOADER)
    for path in loading:
        listed = ctx.run([*words, path], check=False)  # it fails on what is linked statically
        for line in listed.stdout.splitlines():
            if match := re.search(r"=> (/\S+)", line):
                soname = Path(match[1])
                root.copy(soname, f"{LIBRARY_PATH[0]}/{soname.name}")


def add_modules(root: Root, modules: Path) -> None:
    """Add the kernel modules of ``MODULES`` and what they need, and their order."""
    names = []
    for path in module_closure(modules, MODULES):
        names.append(Path(path).name)
        root.copy(modules / path, f"modules/{names[-1]}")
    root.file("modules.order", "\n".join([*names, ""]).encode())


def write_initramfs(root: Root, scratch: Path, target: Path) -> None:
    """Write the root compressed, after an archive that is not.

    Xen's domain builder would unpack what starts like gzip, and the guest have it in its memory
    twice. The kernel takes one archive after another, each in its own format.
    """
    first = Initramfs()
    first.directory("dev")
    first.device("dev/console", 5, 1)
    first.write(scratch / "first.cpio")
    root.archive.write(scratch / "root.cpio")
    target.write_bytes(
        (scratch / "first.cpio").read_bytes()
        + gzip.compress((scratch / "root.cpio").read_bytes(), mtime=0)
    )
