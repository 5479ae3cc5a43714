"""What a profile may say, each field with its unit and its default.

The defaults describe the profile ``standin``, which therefore exists without any file.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from lab.core.errors import UsageError

DEFAULT_PROFILE = "standin"

# Set aside for Xen itself: its heap, the frame table, the guest's nested page tables. A
# reserve that catches sizes which cannot work, not a measured need.
XEN_RESERVE_MIB = 128

# Server 2003 with the PAE kernel needs at least 256 MB.
WINDOWS_MINIMUM_MIB = 256

# Linux: kernel/panic.c, lib/bug.c, arch/x86/kernel/dumpstack.c, arch/x86/mm/fault.c,
# arch/x86/kernel/traps.c and kernel/watchdog.c (6.1).
LINUX_CRASH_PATTERNS = (
    r"Kernel panic - not syncing",
    r"kernel BUG at ",
    r"BUG: unable to handle ",
    r"Oops: [0-9a-f]{4} \[#\d+\]",
    r"general protection fault",
    r"watchdog: BUG: soft lockup",
)

Mib = Annotated[int, Field(strict=True, gt=0, le=1 << 20)]
Seconds = Annotated[float, Field(strict=True, gt=0, le=86_400, allow_inf_nan=False)]
Port = Annotated[int, Field(strict=True, ge=1, le=65_535)]


def _regular_expression(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return text


def _image_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", text):
        raise ValueError("an image name has letters, digits, '.', '_' and '-' only")
    return text


def _credentials_shape(value: Any) -> Any:
    """One message for a union that would otherwise be refused once per member."""
    by_name = isinstance(value, dict) and list(value) == ["env"]
    if value == "image" or by_name or isinstance(value, EnvPassword):
        return value
    raise ValueError('must be "image" or { env = "NAME" }')


ImageName = Annotated[str, AfterValidator(_image_name)]
Pattern = Annotated[str, Field(min_length=1), AfterValidator(_regular_expression)]


class _Table(BaseModel):
    """A table of ``lab.toml``: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class EnvPassword(_Table):
    """A password that the user's environment holds."""

    env: str = Field(
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="Name of the environment variable that holds the password.",
    )

    def read(self) -> str:
        """The password.

        Raises:
            UsageError: the variable is not set or empty.
        """
        if password := os.environ.get(self.env):
            return password
        raise UsageError(
            f"the guest's password is expected in the environment variable {self.env}, "
            "which is not set",
            hint=f"export {self.env}=...",
        )


class Winrm(_Table):
    """How to reach the guest's WinRM service."""

    port: Port = Field(
        default=5985,
        description="TCP port in the guest. 5985 from WinRM 2.0 on, the first with a shell.",
    )
    username: str = Field(
        default="Administrator", min_length=1, description="Local account, Basic authentication."
    )
    credentials: Annotated[Literal["image"] | EnvPassword, BeforeValidator(_credentials_shape)] = (
        Field(
            default="image",
            description='Where the password comes from: "image" takes the one that the image\'s '
            'build made and stored beside it; { env = "NAME" } reads an environment variable.',
        )
    )


class Memory(_Table):
    """Memory sizes, in MiB."""

    host_mib: Mib = Field(default=2048, description="The emulated machine that runs Xen, in MiB.")
    dom0_mib: Mib = Field(default=768, description="dom0, in MiB (Xen's dom0_mem).")
    guest_mib: Mib = Field(default=96, description="The guest under test, in MiB.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        needed = self.dom0_mib + self.guest_mib + XEN_RESERVE_MIB
        if needed > self.host_mib:
            raise ValueError(
                f"host_mib = {self.host_mib} is too small: dom0 {self.dom0_mib} + guest "
                f"{self.guest_mib} + Xen {XEN_RESERVE_MIB} = {needed} MiB"
            )
        return self


class Deadlines(_Table):
    """How long things may take, in seconds on a host with KVM."""

    boot: Seconds = Field(
        default=120.0,
        description="Power-on to dom0's SSH, and guest start to its WinRM, each, in s.",
    )
    attach: Seconds = Field(
        default=20.0, description="A block-attach until both ends are Connected, or a detach, in s."
    )
    command: Seconds = Field(default=20.0, description="One command in dom0 or in the guest, in s.")
    crash: Seconds = Field(
        default=15.0,
        description="Silence of a guest after which it counts as crashed or hung, in s.",
    )
    evidence: Seconds = Field(
        default=60.0, description="Collecting one test's evidence, a core dump included, in s."
    )
    tcg_factor: float = Field(
        default=6.0,
        ge=1.0,
        le=100.0,
        strict=True,
        allow_inf_nan=False,
        description="All of the above are multiplied by this when QEMU emulates the processor.",
    )

    def under(self, accelerator: str) -> Deadlines:
        """These deadlines as they apply under one accelerator.

        Args:
            accelerator: its name; everything but ``"kvm"`` is emulation.

        Returns:
            A table whose own factor is 1, so that applying it twice changes nothing.
        """
        factor = 1.0 if accelerator == "kvm" else self.tcg_factor
        return Deadlines(
            boot=self.boot * factor,
            attach=self.attach * factor,
            command=self.command * factor,
            crash=self.crash * factor,
            evidence=self.evidence * factor,
            tcg_factor=1.0,
        )


class Profile(_Table):
    """One profile of ``lab.toml``, its parents merged in."""

    name: str = Field(
        default=DEFAULT_PROFILE, description="Set from the table's name, not in the file."
    )
    host_image: ImageName = Field(
        default="xen417-debian", description="Image of the machine that runs Xen and dom0."
    )
    guest_image: ImageName = Field(
        default="standin-pae", description="Image of the guest under test."
    )
    toolstack: Literal["xl", "xm"] = Field(
        default="xl", description='dom0\'s toolstack: "xl", or "xm" where dom0 runs xend.'
    )
    guest_kind: Literal["standin", "windows"] = Field(
        default="standin",
        description='"standin": a free guest that answers like Server 2003 where drivers and '
        'tests look; "windows": the real thing.',
    )
    guest_label: str = Field(
        default="stand-in: 32-bit PAE HVM guest with a Linux kernel",
        min_length=1,
        max_length=120,
        description="What every report calls the guest.",
    )
    winrm: Winrm = Field(default=Winrm(), description="The guest's WinRM service.")
    memory: Memory = Field(default=Memory(), description="Memory sizes, in MiB.")
    deadlines: Deadlines = Field(default=Deadlines(), description="Deadlines, in seconds with KVM.")
    crash_patterns: tuple[Pattern, ...] = Field(
        default=LINUX_CRASH_PATTERNS,
        description="Regular expressions; a line of the guest's serial log that one of them "
        "matches anywhere is proof of a crash.",
    )
    driver: Path | None = Field(
        default=None,
        description="Driver package (folder or zip) to test when the command line names none; "
        "relative to the folder of lab.toml.",
    )

    @field_validator("guest_label")
    @classmethod
    def _one_line(cls, label: str) -> str:
        if not label.isprintable():
            raise ValueError("must be one line of printable text")
        return label

    @model_validator(mode="after")
    def _honest_label(self) -> Self:
        label = self.guest_label.lower()
        if self.guest_kind == "standin" and ("windows" in label or "stand-in" not in label):
            raise ValueError(
                "guest_label must call a stand-in a stand-in: reports may not pass it off "
                "as Windows"
            )
        return self

    @model_validator(mode="after")
    def _windows_memory(self) -> Self:
        if self.guest_kind == "windows" and self.memory.guest_mib < WINDOWS_MINIMUM_MIB:
            raise ValueError(
                f"memory.guest_mib = {self.memory.guest_mib}: a Windows guest needs at least "
                f"{WINDOWS_MINIMUM_MIB} MiB"
            )
        return self

    # What a guest's kind means for the rest of the lab, which asks for these and not for it.

    @property
    def own_drivers(self) -> bool:
        """Whether the lab builds drivers for this guest, so that none need be named."""
        return self.guest_kind == "standin"

    @property
    def pv_twin(self) -> bool:
        """Whether a PV guest takes its place on a rung without HVM."""
        return self.guest_kind == "standin"

    @property
    def has_screen(self) -> bool:
        """Whether the guest's screen can be looked at; the stand-in has no display adapter."""
        return self.guest_kind != "standin"

    def crashed_in(self, line: str) -> str | None:
        """The crash pattern that ``line`` of the guest's serial log matches, if any."""
        return next((p for p in self.crash_patterns if re.search(p, line)), None)
