"""What this machine says about KVM, read without starting anything.

The facts can rule nested Xen under KVM out; only a real start can rule it in. A KVM that
exists may be of a kind that offers its guests no SVM or VMX at all, such as the
paravirtual one, ``kvm_pvm``.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Device = Literal["missing", "denied", "usable"]

#: The processor flag that a vendor's KVM module needs (/proc/cpuinfo; Linux,
#: arch/x86/include/asm/cpufeatures.h).
MODULE_FLAGS = {"kvm_amd": "svm", "kvm_intel": "vmx"}


@dataclass(frozen=True, slots=True)
class KvmFacts:
    """What was found.

    Attributes:
        cpu: the processor's model name.
        flag: ``svm``, ``vmx``, or empty when the processor shows neither.
        virtual: whether this machine is itself a virtual one.
        device: whether ``/dev/kvm`` can be opened by this user.
        modules: loaded modules that provide KVM, besides ``kvm`` itself.
        nested: the module's ``nested`` parameter; None when there is no such parameter.
    """

    cpu: str
    flag: str
    virtual: bool
    device: Device
    modules: tuple[str, ...]
    nested: bool | None

    @property
    def why_not(self) -> str:
        """Why KVM cannot run nested Xen here, in one line; empty when nothing speaks against it."""
        if self.device == "missing":
            return "/dev/kvm does not exist"
        if self.device == "denied":
            return "/dev/kvm may not be opened by this user"
        if not self.flag:
            kind = f" (KVM is here through {', '.join(self.modules)})" if self.modules else ""
            return f"the processor shows neither svm nor vmx{kind}"
        if self.nested is None:
            return "no KVM module with a nested parameter is loaded"
        if not self.nested:
            return f"nested virtualisation is off in {', '.join(self.modules)}"
        return ""

    @property
    def remedy(self) -> str:
        """What to do about ``why_not``; empty when nothing can be done from in here."""
        if self.device == "denied":
            return "add this user to the group that owns /dev/kvm"
        if self.flag and self.nested is False:
            return f"load {' '.join(self.modules)} with nested=1"
        if self.virtual and not self.flag:
            return "the outer machine would have to offer nested virtualisation"
        return ""

    @property
    def summary(self) -> str:
        """All facts in one line."""
        nested = {True: "nested on", False: "nested off", None: "no nested parameter"}[self.nested]
        modules = ", ".join(self.modules) or "no vendor module"
        where = ", itself virtual" if self.virtual else ""
        return (
            f"{self.cpu or 'unknown processor'}{where}; {self.flag or 'no svm or vmx'};"
            f" /dev/kvm {self.device}; {modules}; {nested}"
        )


def kvm_facts(root: Path = Path("/")) -> KvmFacts:
    """Read the facts.

    Args:
        root: where ``proc``, ``sys`` and ``dev`` are; another folder in tests.
    """
    fields = parse_cpuinfo(_text(root / "proc/cpuinfo"))
    flags = fields.get("flags", "").split()
    modules = tuple(sorted(path.name for path in (root / "sys/module").glob("kvm_*")))
    return KvmFacts(
        cpu=fields.get("model name", ""),
        flag=next((flag for flag in MODULE_FLAGS.values() if flag in flags), ""),
        virtual="hypervisor" in flags,
        device=_device(root / "dev/kvm"),
        modules=modules,
        nested=_nested(root / "sys/module", modules),
    )


def parse_cpuinfo(text: str) -> dict[str, str]:
    """The fields of the first processor in /proc/cpuinfo (proc(5))."""
    first = text.strip().split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): re.sub(r"\s+", " ", value).strip() for name, _, value in pairs}


def _nested(modules_dir: Path, modules: tuple[str, ...]) -> bool | None:
    values = [_text(modules_dir / name / "parameters/nested").strip() for name in modules]
    given = [value for value in values if value]
    # kvm_intel writes Y or N, kvm_amd 1 or 0.
    return any(value in ("Y", "1") for value in given) if given else None


def _device(path: Path) -> Device:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return "missing"
    except OSError:
        # ENODEV too: the node is there, but no module answers.
        return "denied" if not os.access(path, os.R_OK | os.W_OK) else "missing"
    return "usable"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
