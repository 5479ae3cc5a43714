"""A domain's configuration: read once, written in the dialect of each toolstack.

Both dialects assign plain values to names; xm's files are Python programs (xmdomain.cfg(5)),
xl's look like them (xl.cfg(5)). They differ in a few names and in how a guest is called HVM.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from lab.core.errors import UsageError

# A value of a configuration.
Value = str | int | tuple[str, ...]

# What xm needs to start an HVM guest (tools/examples/xmexample.hvm, Xen 3.1).
_HVM_LOADER = "/usr/lib/xen/boot/hvmloader"
_DEVICE_MODEL = "/usr/{lib}/xen/bin/qemu-dm"

# What a domain's end may lead to (xmdomain.cfg(5) of 3.1; xl knows more).
_ACTIONS = ("destroy", "restart", "preserve", "rename-restart")
_ENDS = ("on_poweroff", "on_reboot", "on_crash")


@dataclass(frozen=True, slots=True)
class DomainConfig:
    """A domain as it is to be started.

    Attributes:
        name: its name.
        hvm: whether it is an HVM guest; else it is a PV guest.
        memory_mib: memory in MiB.
        vcpus: virtual CPUs.
        kernel: of a PV guest; of an HVM guest that is booted without a disk, which only xl can.
        ramdisk: goes with the kernel.
        cmdline: the kernel's command line.
        disks: ``phy:/dev/x,hda,w`` each, as both dialects read them.
        vifs: ``mac=...,bridge=...`` each.
        others: any other assignment, in its order.
    """

    name: str
    hvm: bool
    memory_mib: int
    vcpus: int = 1
    kernel: str = ""
    ramdisk: str = ""
    cmdline: str = ""
    disks: tuple[str, ...] = ()
    vifs: tuple[str, ...] = ()
    others: Mapping[str, Value] = field(default_factory=dict)

    @classmethod
    def read(cls, text: str) -> DomainConfig:
        """Read a configuration in either dialect.

        Args:
            text: assignments of plain values; a Python program that computes is refused.

        Raises:
            UsageError: it is not such a text, or lacks a name or a memory size.
        """
        values = _assignments(text)
        hvm = values.pop("type", values.pop("builder", "pv")) == "hvm"
        kernel = _text(values.pop("kernel", ""))
        if hvm and kernel.endswith("/hvmloader"):
            kernel = ""
        values.pop("device_model", None)
        if not values.get("name") or "memory" not in values:
            raise UsageError("a domain's configuration needs a name and a memory size")
        cmdline = _text(values.pop("cmdline", values.pop("extra", "")))
        for end in _ENDS:
            if end in values and values[end] not in _ACTIONS:
                raise UsageError(
                    f"{end}: `{values[end]}` is not for every toolstack",
                    hint=f"one of {', '.join(_ACTIONS)}",
                )
        return cls(
            name=_text(values.pop("name")),
            hvm=hvm,
            memory_mib=_number(values.pop("memory")),
            vcpus=_number(values.pop("vcpus", 1)),
            kernel=kernel,
            ramdisk=_text(values.pop("ramdisk", "")),
            cmdline=cmdline,
            disks=_texts(values.pop("disk", ())),
            vifs=_texts(values.pop("vif", ())),
            others=values,
        )

    def with_name(self, name: str) -> DomainConfig:
        """The same for a domain of another name."""
        return replace(self, name=name)

    def with_keys(self, keys: Mapping[str, Value]) -> DomainConfig:
        """The same with further assignments, which go before its own of the same name."""
        return replace(self, others={**self.others, **keys})

    def for_xl(self) -> str:
        """As xl reads it (xl.cfg(5))."""
        return _written(
            [
                ("name", self.name),
                ("type", "hvm" if self.hvm else "pv"),
                ("memory", self.memory_mib),
                ("vcpus", self.vcpus),
                *_given(kernel=self.kernel, ramdisk=self.ramdisk, cmdline=self.cmdline),
                *_given(disk=self.disks, vif=self.vifs),
                *self.others.items(),
            ]
        )

    def for_xm(self, *, library: str = "lib") -> str:
        """As xm of Xen 3.x executes it, with dom0's Python 2.

        Names that xm does not know are kept: it leaves them alone (tools/python/xen/xm/opts.py).

        Args:
            library: ``lib``, or ``lib64`` in a 64-bit dom0, where the device model is.

        Raises:
            UsageError: an HVM guest is to be booted from a kernel.
        """
        if self.hvm and self.kernel:
            raise UsageError(f"domain {self.name}: xm cannot boot an HVM guest from a kernel file")
        hvm: list[tuple[str, Value]] = [
            ("builder", "hvm"),
            ("kernel", _HVM_LOADER),
            ("device_model", _DEVICE_MODEL.format(lib=library)),
        ]
        pv = _given(kernel=self.kernel, ramdisk=self.ramdisk, extra=self.cmdline)
        return _written(
            [
                ("name", self.name),
                *(hvm if self.hvm else pv),
                ("memory", self.memory_mib),
                ("vcpus", self.vcpus),
                *_given(disk=self.disks, vif=self.vifs),
                *self.others.items(),
            ]
        )


def _assignments(text: str) -> dict[str, Value]:
    try:
        program = ast.parse(text)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", 0)
        raise UsageError(f"domain configuration, line {line}: cannot be read: {error}") from error
    values: dict[str, Value] = {}
    for statement in program.body:
        refusal = UsageError(f"domain configuration, line {statement.lineno}: not a plain value")
        if not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
            raise refusal
        target = statement.targets[0]
        try:
            value = ast.literal_eval(statement.value)
        except (ValueError, TypeError, SyntaxError):
            raise refusal from None
        if isinstance(value, list) and all(isinstance(one, str) for one in value):
            value = tuple(value)
        if not isinstance(target, ast.Name) or not isinstance(value, str | int | tuple):
            raise refusal
        values[target.id] = value
    return values


def _written(values: Iterable[tuple[str, Value]]) -> str:
    return "".join(f"{name} = {_quoted(value)}\n" for name, value in values)


def _quoted(value: Value) -> str:
    if isinstance(value, tuple):
        return "[ " + ", ".join(map(_quoted, value)) + " ]" if value else "[ ]"
    if isinstance(value, int):
        return str(value)
    # xl knows no escapes (libxlu_cfg_l.l), and a string of neither may hold its own quote.
    for quote in "\"'":
        if quote not in value and "\\" not in value and value.isprintable():
            return f"{quote}{value}{quote}"
    raise UsageError(f"a domain configuration cannot hold this text: {value!r}")


def _given(**values: Value) -> list[tuple[str, Value]]:
    return [(name, value) for name, value in values.items() if value]


def _text(value: Value) -> str:
    if not isinstance(value, str):
        raise UsageError(f"a domain's configuration has {value!r} where a text belongs")
    return value


def _number(value: Value) -> int:
    # xmexample files write some numbers as texts.
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    if not isinstance(value, int) or value < 1:
        raise UsageError(f"a domain's configuration has {value!r} where a number belongs")
    return value


def _texts(value: Value) -> tuple[str, ...]:
    if not isinstance(value, tuple):
        raise UsageError(f"a domain's configuration has {value!r} where a list belongs")
    return value
