"""What a host of Enterprise Linux 5 is to be: one file, ``variant.toml``, for each image."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from lab.core.errors import UsageError
from lab.images.boot import Hardware, Processor
from lab.media.kinds import MediaKind

VARIANT_FILE = "variant.toml"

Word = Annotated[str, StringConstraints(pattern=r"^[!-~]+$")]

#: Ports and addresses are those of every host of the lab: QEMU's user network outside, the
#: guests' own bridge inside (images/xen417-debian).
DOM0_ADDRESS, DOM0_NETMASK, DOM0_GATEWAY = "10.0.2.15", "255.255.255.0", "10.0.2.2"
BRIDGE, BRIDGE_ADDRESS, BRIDGE_NETMASK = "xenbr0", "192.168.53.1", "255.255.255.0"
GUEST_ADDRESS = "192.168.53.10"
WINRM_PORT = 5985


class Variant(BaseModel):
    """One host.

    Attributes:
        xen: the hypervisor's version, for reports.
        dom0_bits: of dom0's kernel and programs. The hypervisor has 64 in any case: with 32,
            it comes from the x86_64 medium and all else from the i386 one. Drivers before
            February 2008 publish no ``protocol`` node, so their bits must be dom0's.
        dom0_mib: dom0's memory, in MiB; fixed when the host is installed.
        hypervisor: further words of the hypervisor's command line.
        kernel: further words of dom0's kernel command line.
        cpus: QEMU's ``-cpu`` argument by what executes the machine: one of its time, since
            such a hypervisor dies of features it does not know.
        nic: a network card that such a kernel knows.
        domain_keys: what every domain's configuration gets, such as ``hap = 0``.
        xen_rpms: the medium with another Xen than the distribution's, or None.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    xen: Annotated[str, StringConstraints(pattern=r"^3\.\d+$")]
    dom0_bits: Literal[32, 64] = 32
    dom0_mib: int = Field(default=512, ge=256, le=3072)
    hypervisor: tuple[Word, ...] = ()
    kernel: tuple[Word, ...] = ()
    cpus: dict[Processor, Word]
    nic: Literal["e1000", "rtl8139"] = "e1000"
    domain_keys: dict[str, str | int] = {}
    xen_rpms: MediaKind | None = None

    @classmethod
    def load(cls, folder: Path) -> Variant:
        """The variant of the recipe in ``folder``.

        Raises:
            UsageError: there is none, or it does not say what it must say.
        """
        path = folder / VARIANT_FILE
        try:
            return cls(**tomllib.loads(path.read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise UsageError(f"{path}: {error}") from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise UsageError(f"{path}: {where}: {first['msg']}") from error

    @property
    def medium(self) -> MediaKind:
        """The medium that is installed from."""
        return MediaKind.EL5_I386 if self.dom0_bits == 32 else MediaKind.EL5_X86_64

    @property
    def hypervisor_medium(self) -> MediaKind | None:
        """The medium with the 64-bit hypervisor, where it is another one."""
        if self.xen_rpms is not None:
            return self.xen_rpms
        return MediaKind.EL5_X86_64 if self.dom0_bits == 32 else None

    @property
    def hardware(self) -> Hardware:
        """The machine it runs on."""
        return Hardware(machine="pc", disk_bus="ide", nic=self.nic, cpus=self.cpus)
