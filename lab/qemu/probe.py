"""A real start of a few milliseconds that tells whether a QEMU can run nested HVM guests.

Versions and flags promise; a page walk and a register write in a running machine prove.
The kernel's source is ``probe.S`` beside this file.
"""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from lab.core.deadline import Deadline
from lab.qemu.emulator import Emulator

PROBE_KERNEL = bytes.fromhex(
    "02b0ad1b00000100fe4f51e40000100000001000000000000000000020001000"
    "fabc00003000bf0000200031c0b900080000fcf3abc705000020000110200"
    "0c7050010200083000000c70508102000830020000f20e083c8200f22e0b8"
    "000020000f22d80f20c00d000000800f22c0a1000010008b3500002000c1ee"
    "0583e601b8010000800fa2c1e90283e101741183ce02b9800000c00f320d00"
    "1000000f30b8010000000fa2c1e90583e101c1e10209ce83ce1089f066baf4"
    "00eef4ebfd"
)
_MARK = 0x10
_FINDINGS = 0x07


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What the probe kernel saw.

    Attributes:
        started: the kernel ran to its end.
        pae_quirk: the page walk wrote to a page-directory-pointer entry.
        svm: AMD's extension is there and can be switched on.
        vmx: Intel's extension is shown.
        said: QEMU's last words when it did not get that far.
    """

    started: bool
    pae_quirk: bool = False
    svm: bool = False
    vmx: bool = False
    said: str = ""

    @property
    def why_not(self) -> str:
        """Why nested HVM guests cannot run, in one line; empty when they can."""
        if not self.started:
            return f"a machine does not start: {self.said}"
        if not (self.svm or self.vmx):
            return "its machines have neither SVM nor VMX"
        if self.pae_quirk:
            return "its page walk marks PAE directory pointers, which stops 32-bit PAE guests"
        return ""


def run_probe(emulator: Emulator, accel: str, cpu: str, deadline: Deadline) -> ProbeResult:
    """Start the probe kernel once.

    Args:
        emulator: the QEMU to try.
        accel: ``"kvm"`` or ``"tcg"``.
        cpu: QEMU's ``-cpu`` argument.
        deadline: after which the attempt counts as failed.
    """
    with tempfile.TemporaryDirectory(prefix="pvlab-probe-") as folder:
        kernel = Path(folder) / "probe"
        kernel.write_bytes(PROBE_KERNEL)
        words = [
            "setpriv", "--pdeathsig", "KILL", "--", *emulator.argv,
            "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            "-machine", "q35", "-accel", accel, "-cpu", cpu, "-m", "64",
            "-kernel", str(kernel), "-device", "isa-debug-exit,iobase=0xf4,iosize=4",
        ]  # fmt: skip
        try:
            done = subprocess.run(
                words,
                capture_output=True,
                text=True,
                errors="replace",
                stdin=subprocess.DEVNULL,
                timeout=max(deadline.remaining, 0.1),
                check=False,
            )
        except subprocess.TimeoutExpired:
            return ProbeResult(started=False, said="it hangs")
        except OSError as error:
            return ProbeResult(started=False, said=str(error))
    # isa-debug-exit ends QEMU with (value << 1) | 1 (QEMU hw/misc/debugexit.c).
    value = done.returncode >> 1
    # Only the result byte's own bits count: setpriv exits 127 when it finds no QEMU.
    if done.returncode < 0 or not done.returncode & 1 or value & ~_FINDINGS != _MARK:
        told = [
            line
            for line in done.stderr.splitlines()
            if "doesn't support requested feature" not in line
        ]
        said = told[-1].strip() if told else f"it reset (exit status {done.returncode})"
        return ProbeResult(started=False, said=said)
    return ProbeResult(True, bool(value & 1), bool(value & 2), bool(value & 4))
