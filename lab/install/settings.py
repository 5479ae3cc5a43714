"""What an installation is to become: ``install.toml`` of a recipe, as a typed model."""

from __future__ import annotations

import tomllib
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from lab.core.errors import UsageError
from lab.images.recipe import ImageName

SETTINGS_FILE = "install.toml"

Text = Annotated[str, StringConstraints(pattern=r'^[^"\r\n%]+$', max_length=64)]
# NetBIOS: 15 characters; only those that DNS takes too.
ComputerName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9-]{0,14}$")]

DumpKind = Literal["none", "small", "kernel", "complete"]

# The first guest's address on the bridge of the lab's hosts (images/xen417-debian, nat.nft;
# HostBoot.guest_address).
LAB_ADDRESS = IPv4Interface("192.168.53.10/24")


class InstallSettings(BaseModel):
    """One installation.

    Attributes:
        way: where setup runs: ``qemu`` (plain QEMU, then moved into a Xen domain) or
            ``domain`` (as an HVM domain of the nested host from the first boot on).
        host_image: the host whose domain it is, for ``domain``.
        computer_name: of the guest.
        full_name: whom Windows is registered to.
        organisation: likewise.
        timezone: index of the time zone (Microsoft, "Time Zone Index Values"): 85 is London,
            90 Casablanca, which is UTC without summer time.
        memory_mib: while it is installed, in MiB.
        disk_gib: of the system disk, in GiB.
        dump: what a bugcheck writes.
        debug: boot.ini switches the kernel debugger to COM1.
        max_timeout_ms: WinRM's MaxTimeoutms, in ms.
        address: the guest's, on the lab's private network; WinRM, with Basic authentication,
            can be reached from there only.
        retries: how often a step that failed or hung is tried again, after a reset.
        patience: factor on all steps' deadlines.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    way: Literal["qemu", "domain"] = "qemu"
    host_image: ImageName = "xen417-debian"
    computer_name: ComputerName = "PVLAB2003"
    full_name: Text = "pvlab"
    organisation: Text = "pvlab"
    timezone: int = Field(default=90, ge=0, le=999)
    memory_mib: int = Field(default=512, ge=256, le=4096)
    disk_gib: int = Field(default=8, ge=4, le=120)
    dump: DumpKind = "kernel"
    debug: bool = True
    max_timeout_ms: int = Field(default=1_800_000, ge=60_000, le=4_294_967_295)
    address: IPv4Interface = LAB_ADDRESS
    retries: int = Field(default=1, ge=0, le=5)
    patience: float = Field(default=1.0, gt=0, le=100)

    @classmethod
    def load(cls, path: Path) -> InstallSettings:
        """The settings in a file; the defaults when there is none.

        Raises:
            UsageError: it does not say what settings can say.
        """
        try:
            data = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return cls()
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise UsageError(f"{path}: {error}") from None
        try:
            settings = cls(**data)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise UsageError(f"{path}: {where}: {first['msg']}") from None
        if not settings.address.network.is_private:
            raise UsageError(f"{path}: address: {settings.address} is on no private network")
        return settings
