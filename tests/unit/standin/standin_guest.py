"""A stand-in guest on temporary folders, with plain files as disks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from standin import mbr
from standin.cmd import Interpreter, Session
from standin.config import Config
from standin.console import Queue
from standin.host import Host
from standin.system import System

PASSWORD = "made-up-for-tests"
GOLDEN = Path(__file__).parent / "golden"


class FakeHost(Host):
    """Programs and mounts that are only recorded; partitions are files.

    Attributes:
        calls: (program, *arguments) of every program run.
        results: (exit code, output) by program, for those that are to fail.
        powered: (action, delay in seconds) of every restart or stop.
    """

    def __init__(self, config: Config, root: Path) -> None:
        super().__init__(config)
        self.root = root
        self.calls: list[tuple[str, ...]] = []
        self.results: dict[str, tuple[int, bytes]] = {}
        self.powered: list[tuple[str, float]] = []
        self.mounts: set[str] = set()
        self.clock: float | None = None

    def run(self, program: str, *args: str, process: Any = None) -> tuple[int, bytes]:
        self.calls.append((program, *args))
        if program in self.results:
            return self.results[program]
        if program == "mkntfs":
            Path(args[-1]).write_bytes(ntfs_volume(args[args.index("-L") + 1]))
        elif program.startswith("mount."):
            self.mounts.add(args[-1])
        elif program == "umount":
            self.mounts.discard(args[-1])
        elif program == "insmod":
            (self.root / "sys/module" / module_name(args[0])).mkdir(parents=True)
        elif program == "rmmod":
            (self.root / "sys/module" / args[0]).rmdir()
        return 0, b""

    def set_clock(self, seconds: float) -> None:
        if seconds < 0:
            raise OSError
        self.clock = seconds

    def reread_partitions(self, device: str) -> None:
        disk = Path(device)
        for old in disk.parent.glob(disk.name + "?"):
            old.unlink()
        with disk.open("rb") as file:
            table = mbr.decode(file.read(512))
        for partition in table.partitions:
            with (disk.parent / f"{disk.name}{partition.number}").open("wb") as file:
                file.truncate(partition.sectors * 512)

    def is_mounted(self, folder: str) -> bool:
        return folder in self.mounts

    def power(self, action: str, delay_s: float, process: Any, before: Any) -> None:
        self.powered.append((action, delay_s))
        if not delay_s:
            before()


def module_name(path: str) -> str:
    return Path(path).read_bytes().split(b"\0name=")[1].split(b"\0")[0].decode()


def ntfs_volume(label: str) -> bytes:
    """The few bytes of an NTFS volume that the stand-in looks at."""
    data = bytearray(64 * 1024)
    data[3:11] = b"NTFS    "
    data[11:14] = b"\x00\x02\x08"  # 512 bytes a sector, 8 sectors a cluster
    data[0x30:0x38] = (4).to_bytes(8, "little")  # MFT at cluster 4
    data[0x40] = 0xF6  # records of 1 << 10 bytes
    data[0x48:0x50] = (0x1234ABCD).to_bytes(8, "little")
    data[510:512] = b"\x55\xaa"
    record = bytearray(1024)
    record[:4] = b"FILE"
    record[4:8] = b"\x30\x00\x03\x00"
    record[0x14:0x16] = b"\x38\x00"
    text = label.encode("utf-16-le")
    attribute = bytearray(24 + len(text))
    attribute[0:4] = b"\x60\0\0\0"
    attribute[4:8] = len(attribute).to_bytes(4, "little")
    attribute[16:20] = len(text).to_bytes(4, "little")
    attribute[20:22] = b"\x18\0"
    attribute[24:] = text
    record[0x38 : 0x38 + len(attribute)] = attribute
    record[0x38 + len(attribute) :][:4] = b"\xff\xff\xff\xff"
    data[4 * 4096 + 3 * 1024 : 4 * 4096 + 4 * 1024] = record[:1024]
    return bytes(data)


class Guest:
    """A stand-in with helpers for tests."""

    def __init__(self, root: Path, **settings: Any) -> None:
        self.root = root
        for folder in ("sys/block", "sys/bus/xen/devices", "sys/module", "dev", "proc/self"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        (root / "proc/self/mounts").write_text("/dev/sda2 / ext4 rw 0 0\n")
        self.config = Config(
            {
                "password": PASSWORD,
                "listen": "127.0.0.1",
                "port": 0,
                "c_root": str(root / "c"),
                "mount_root": str(root / "letters"),
                "sys_root": str(root / "sys"),
                "dev_root": str(root / "dev"),
                "proc_root": str(root / "proc"),
                "kmsg": str(root / "kmsg"),
                **settings,
            }
        )
        self.host = FakeHost(self.config, root)
        self.system = System(self.config, self.host)
        self.session = Session(self.system.environment(), "C:\\pvlab")
        self.c = root / "c"
        (self.c / "pvlab").mkdir(exist_ok=True)
        self.disk("sda", 4096)

    def disk(self, name: str, sectors: int) -> Path:
        """Plug a disk in; returns the file behind it."""
        folder = self.root / "sys/block" / name
        (folder / "queue").mkdir(parents=True)
        (folder / "size").write_text(f"{sectors}\n")
        (folder / "queue/logical_block_size").write_text("512\n")
        (folder / "queue/nomerges").write_text("0\n")
        path = self.root / "dev" / name
        with path.open("wb") as file:
            file.truncate(sectors * 512)
        return path

    def unplug(self, name: str) -> None:
        """Take a disk away."""
        folder = self.root / "sys/block" / name
        for file in ("size", "queue/logical_block_size", "queue/nomerges"):
            (folder / file).unlink()
        (folder / "queue").rmdir()
        folder.rmdir()
        for path in (self.root / "dev").glob(name + "*"):
            path.unlink()

    def run(self, line: str, stdin: bytes = b"") -> tuple[int, str, str]:
        """Run a line as ``cmd /c``; (exit code, output, errors) with plain line ends."""
        process = self.system.processes.start("cmd.exe")
        source, out, err = Queue(), Queue(), Queue()
        source.write(stdin)
        source.close()
        code = Interpreter(self.system, self.session, process, source, out, err).run(line)
        process.exited()
        texts = []
        for stream in (out, err):
            stream.close()
            texts.append(stream.read().decode("cp437").replace("\r\n", "\n"))
        return code, texts[0], texts[1]

    def diskpart(self, *lines: str) -> tuple[int, str]:
        """Run a diskpart script; (exit code, output without the banner)."""
        (self.c / "pvlab/s.txt").write_text("\n".join(lines))
        code, out, err = self.run("diskpart /s C:\\pvlab\\s.txt")
        assert err == ""
        return code, out.split("On computer: STANDIN\n\n", 1)[1]
