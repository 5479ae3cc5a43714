"""``grub.conf`` of GRUB 0.97 (GNU GRUB manual 0.97, "Configuration", "kernel", "module")."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class XenEntry:
    """An entry that starts a hypervisor with its dom0.

    Attributes:
        title: in the menu.
        hypervisor: its file below ``/boot``.
        hypervisor_words: its command line.
        kernel: dom0's kernel below ``/boot``.
        kernel_words: its command line.
        initrd: below ``/boot``.
    """

    title: str
    hypervisor: str
    hypervisor_words: Sequence[str]
    kernel: str
    kernel_words: Sequence[str]
    initrd: str

    def lines(self) -> list[str]:
        """The entry, for a ``/boot`` of its own on the first disk's first partition."""
        return [
            f"title {self.title}",
            "\troot (hd0,0)",
            f"\tkernel /{' '.join([self.hypervisor, *self.hypervisor_words])}",
            f"\tmodule /{' '.join([self.kernel, *self.kernel_words])}",
            f"\tmodule /{self.initrd}",
        ]


@dataclass(frozen=True, slots=True)
class GrubConf:
    """The whole file.

    Attributes:
        entries: the first is started.
        timeout_s: how long the menu waits for a key, in seconds.
        baud: speed of the serial port that the menu is on.
    """

    entries: Sequence[XenEntry] = field(default_factory=tuple)
    timeout_s: int = 1
    baud: int = 115200

    def text(self) -> str:
        """As GRUB reads it."""
        lines = [
            "default=0",
            f"timeout={self.timeout_s}",
            f"serial --unit=0 --speed={self.baud}",
            "terminal --timeout=1 serial console",
        ]
        for entry in self.entries:
            lines += entry.lines()
        return "\n".join(lines) + "\n"
