"""A plain PC: BIOS, floppy, CD, IDE disk, two serial ports. What old systems install on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Interface
from pathlib import Path

from lab.qemu.emulator import Emulator
from lab.qemu.machine import TB_SIZE_MIB, escaped

# What QEMU's user network gives out by default.
_SLIRP = IPv4Interface("10.0.2.15/24")

DEBUG_LOG = "com1.log"
"""What the machine wrote to its first serial port, in its scratch folder."""


@dataclass(frozen=True, slots=True)
class PcSpec:
    """What a PC is made of; see ``MachineSpec``.

    The chipset, disk controller, network card and graphics are those that Xen's own device
    model gives an HVM guest (QEMU's ``pc``, PIIX3 IDE, RTL8139, Cirrus), so that a system
    which was installed here finds the same devices there.

    The second serial port is the one that ``Machine.console`` leads to: the first may belong
    to a kernel debugger.

    Attributes:
        name: for messages.
        emulator: the QEMU to start.
        accel: ``"kvm"`` or ``"tcg"``.
        cpu: QEMU's ``-cpu`` argument.
        memory_mib: RAM in MiB.
        disk: qcow2 file of the hard disk; None for a PC without one.
        cdrom: ISO in the drive.
        floppy: raw image in drive A:.
        address: IPv4 address with prefix length that the network gives to the machine.
        forwards: ports inside (TCP) that get a loopback port outside, by name.
        ram_file: file that holds the RAM, or None for anonymous memory.
        ram_shared: whether writes reach ``ram_file``.
        throwaway: writes go to an unlinked temporary file instead of ``disk``.
        paused: the processor waits for ``Machine.resume``.
    """

    name: str
    emulator: Emulator
    accel: str
    cpu: str
    memory_mib: int
    disk: Path | None
    cdrom: Path | None = None
    floppy: Path | None = None
    address: IPv4Interface = _SLIRP
    forwards: Mapping[str, int] = field(default_factory=dict)
    ram_file: Path | None = None
    ram_shared: bool = False
    throwaway: bool = False
    paused: bool = False
    exchange_mib: int = 0

    def cloned(self, name: str, ram_file: Path) -> PcSpec:
        """The same PC over a private view of ``ram_file`` and a throwaway disk."""
        return replace(
            self, name=name, ram_file=ram_file, ram_shared=False, throwaway=True, paused=False
        )

    def argv(self, *, incoming: bool, monitor_fd: int) -> list[str]:
        """The command line, without the emulator's own words."""
        tcg = f"tcg,thread=single,tb-size={TB_SIZE_MIB}"
        words = [
            "-nodefaults", "-no-user-config", "-display", "none",
            "-name", f"guest={escaped(self.name)}",
            "-accel", "kvm" if self.accel == "kvm" else tcg, "-cpu", self.cpu,
            "-smp", "1", "-m", str(self.memory_mib), "-vga", "cirrus",
            # Windows keeps the clock in local time, and the answer file asks for UTC.
            "-rtc", "base=utc",
            # A blank disk does not start, and then the CD does; later the disk comes first, so
            # nobody has to press a key in time.
            "-boot", "order=cd",
        ]  # fmt: skip
        if self.ram_file is None:
            words += ["-machine", "pc"]
        else:
            share = "on" if self.ram_shared else "off"
            words += [
                "-machine", "pc,memory-backend=ram",
                "-object", f"memory-backend-file,id=ram,size={self.memory_mib}M,"
                           f"mem-path={escaped(self.ram_file)},share={share}",
            ]  # fmt: skip
        if self.disk is not None:
            mode = "on" if self.throwaway else "off"
            words += [
                "-drive", f"if=ide,index=0,media=disk,file={escaped(self.disk)},format=qcow2,"
                          f"cache=unsafe,snapshot={mode}",
            ]  # fmt: skip
        if self.cdrom is not None:
            words += [
                "-drive", f"if=ide,index=2,media=cdrom,file={escaped(self.cdrom)},format=raw,"
                          "readonly=on",
            ]  # fmt: skip
        if self.floppy is not None:
            words += [
                "-drive", f"if=floppy,index=0,file={escaped(self.floppy)},format=raw,readonly=on",
            ]  # fmt: skip
        forwards = "".join(f",hostfwd=tcp:127.0.0.1:0-:{port}" for port in self.forwards.values())
        words += [
            "-netdev", f"user,id=net0,restrict=on,net={self.address.network},"
                       f"dhcpstart={self.address.ip}{forwards}",
            "-device", "rtl8139,netdev=net0,romfile=",
            "-chardev", f"file,id=debug,path={DEBUG_LOG}", "-serial", "chardev:debug",
            "-chardev", "socket,id=serial,path=serial.sock,server,nowait,"
                        "logfile=serial.log,logappend=on",
            "-serial", "chardev:serial",
            "-chardev", f"socket,id=monitor,fd={monitor_fd}",
            "-mon", "chardev=monitor,mode=control",
        ]  # fmt: skip
        if self.paused:
            words += ["-S"]
        if incoming:
            words += ["-incoming", "defer"]
        return words
