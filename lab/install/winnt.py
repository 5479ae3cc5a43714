"""``winnt.sif``, the answer file of Windows Server 2003's setup, from a typed model.

Keys and values: Microsoft, Windows Server 2003 deployment tools, ``ref.chm`` ("Unattend.txt"):
[Data], [Unattended], [GuiUnattended], [UserData], [LicenseFilePrintData], [Components],
[Networking], [Identification], [GuiRunOnce].
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints

from lab.install.secret import MASK
from lab.install.settings import ComputerName, Text

Section = tuple[str, tuple[tuple[str, str], ...]]

# What starts the script at the first logon; the scripts are on drive C: by then.
Command = Annotated[str, StringConstraints(pattern=r'^[^"\r\n]+$', max_length=255)]


class WinntSif(BaseModel):
    """The answers.

    Attributes:
        product_key: 25 characters; shown in no message.
        admin_password: of the account Administrator; shown in no message.
        computer_name: NetBIOS name.
        full_name: whom Windows is registered to.
        organisation: likewise.
        timezone: index of the time zone.
        install_folder: of Windows, on the first partition.
        driver_signing: what happens with unsigned drivers. On 2003 nothing else does away
            with the prompt (KB298503).
        oem_preinstall: whether the disc has a ``$OEM$`` folder.
        auto_logons: how often Administrator is logged on without asking.
        run_once: commands of the first logon.
        crash_dump: what a bugcheck writes; numbers as of CrashDumpEnabled in the registry.
        x_resolution: in pixels across; 600 down.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    product_key: SecretStr
    admin_password: SecretStr
    computer_name: ComputerName
    full_name: Text
    organisation: Text
    timezone: int
    install_folder: Literal["\\WINDOWS"] = "\\WINDOWS"
    driver_signing: Literal["Ignore", "Warn", "Block"] = "Ignore"
    oem_preinstall: bool = True
    auto_logons: int = Field(default=20, ge=1, le=99)
    run_once: tuple[Command, ...] = ()
    crash_dump: int = Field(default=2, ge=0, le=3)
    x_resolution: Literal[800, 1024] = 800

    def render(self) -> str:
        """The file, secrets and all, with the line ends setup wants."""
        return self._text(
            self.product_key.get_secret_value(), self.admin_password.get_secret_value()
        )

    def masked(self) -> str:
        """The file as it may be shown."""
        return self._text(MASK, MASK)

    def _text(self, key: str, password: str) -> str:
        lines = []
        for name, pairs in self._sections(key, password):
            lines.append(f"[{name}]")
            lines += [f'{left}="{right}"' for left, right in pairs]
            lines.append("")
        return "\r\n".join(lines)

    def _sections(self, key: str, password: str) -> Iterator[Section]:
        yield (
            "Data",
            # "0" and "No": this is a start from the CD itself, not from DOS.
            (("AutoPartition", "1"), ("MsDosInitiated", "0"), ("UnattendedInstall", "Yes")),
        )
        yield (
            "Unattended",
            (
                ("UnattendMode", "FullUnattended"),
                ("OemSkipEula", "Yes"),
                ("OemPreinstall", "Yes" if self.oem_preinstall else "No"),
                ("TargetPath", self.install_folder),
                ("Repartition", "Yes"),
                ("FileSystem", "ConvertNTFS"),
                ("UnattendSwitch", "Yes"),
                ("WaitForReboot", "No"),
                ("NoWaitAfterTextMode", "1"),
                ("NoWaitAfterGUIMode", "1"),
                ("DriverSigningPolicy", self.driver_signing),
                ("NonDriverSigningPolicy", self.driver_signing),
                ("Hibernation", "No"),
                ("CrashDumpSetting", str(self.crash_dump)),
            ),
        )
        yield (
            "GuiUnattended",
            (
                ("AdminPassword", password),
                ("EncryptedAdminPassword", "No"),
                ("AutoLogon", "Yes"),
                ("AutoLogonCount", str(self.auto_logons)),
                ("OEMSkipRegional", "1"),
                ("OemSkipWelcome", "1"),
                ("TimeZone", str(self.timezone)),
            ),
        )
        yield (
            "UserData",
            (
                ("ProductKey", key),
                ("FullName", self.full_name),
                ("OrgName", self.organisation),
                ("ComputerName", self.computer_name),
            ),
        )
        yield "LicenseFilePrintData", (("AutoMode", "PerServer"), ("AutoUsers", "5"))
        yield (
            "Display",
            (("BitsPerPel", "16"), ("Xresolution", str(self.x_resolution)), ("Yresolution", "600")),
        )
        # A firewall that the answers speak of keeps Post-Setup Security Updates away, which
        # would refuse every connection until someone clicks.
        yield "WindowsFirewall", (("Profiles", "WindowsFirewall.Lab"),)
        yield "WindowsFirewall.Lab", (("Mode", "1"), ("Exceptions", "1"))
        yield "Networking", (("InstallDefaultComponents", "Yes"),)
        yield "Identification", (("JoinWorkgroup", "WORKGROUP"),)
        if self.run_once:
            commands = tuple(
                (f"Command{number}", command) for number, command in enumerate(self.run_once)
            )
            yield "GuiRunOnce", commands


def read_sif(text: str) -> dict[str, dict[str, str]]:
    """The sections and values of an answer file, as setup reads them: names without case.

    Quotes around a value are taken off; comments begin with ``;``.
    """
    found: dict[str, dict[str, str]] = {}
    current: dict[str, str] = {}
    for raw in text.splitlines():
        entry = raw.strip()
        if not entry or entry.startswith(";"):
            continue
        if entry.startswith("[") and entry.endswith("]"):
            current = found.setdefault(entry[1:-1].lower(), {})
            continue
        left, _, right = entry.partition("=")
        current[left.strip().lower()] = right.strip().strip('"')
    return found
