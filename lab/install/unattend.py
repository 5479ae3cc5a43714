"""``Autounattend.xml``, the answer file of Windows Vista and later, from a typed model.

Passes, components and elements: Microsoft, "Unattended Windows Setup Reference" (windowsPE:
Microsoft-Windows-International-Core-WinPE and Microsoft-Windows-Setup; specialize and
oobeSystem: Microsoft-Windows-Shell-Setup). Setup looks for the file in the root of removable
media ("Implicit Answer File Search Order"), so it goes on a disc of its own.
"""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import pycdlib
from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints

from lab.core.errors import LabBroken
from lab.install.secret import MASK
from lab.install.settings import ComputerName, Text

ANSWER_FILE = "Autounattend.xml"
ANSWER_LABEL = "PVLAB_ANSWERS"
NAMESPACE = "urn:schemas-microsoft-com:unattend"
WCM = "http://schemas.microsoft.com/WMIConfig/2002/State"
# Of every component of Windows itself.
_PUBLIC_KEY_TOKEN = "31bf3856ad364e35"  # noqa: S105 - names a publisher

Architecture = Literal["x86", "amd64"]
Locale = Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}-[A-Z]{2}$")]
CommandLine = Annotated[str, StringConstraints(pattern=r"^[\x20-\x7e]+$", max_length=259)]


class Unattend(BaseModel):
    """The answers.

    Attributes:
        architecture: of Windows.
        image_index: which of the disc's editions, counted from 1.
        product_key: None where the disc needs none (volume and evaluation discs).
        admin_password: of the account Administrator; shown in no message.
        computer_name: NetBIOS name.
        full_name: whom Windows is registered to.
        organisation: likewise.
        locale: of texts, keyboard and formats.
        timezone: its Windows name.
        first_logon: commands of the first logon, in order.
        auto_logons: how often Administrator is logged on without asking.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    architecture: Architecture = "amd64"
    image_index: int = Field(default=1, ge=1, le=64)
    product_key: SecretStr | None = None
    admin_password: SecretStr
    computer_name: ComputerName
    full_name: Text = "pvlab"
    organisation: Text = "pvlab"
    locale: Locale = "en-US"
    timezone: Text = "UTC"
    first_logon: tuple[CommandLine, ...] = ()
    auto_logons: int = Field(default=999, ge=1, le=9999)

    def render(self) -> bytes:
        """The file, secrets and all."""
        key = self.product_key.get_secret_value() if self.product_key else None
        return self._xml(key, self.admin_password.get_secret_value())

    def masked(self) -> str:
        """The file as it may be shown."""
        return self._xml(MASK if self.product_key else None, MASK).decode("utf-8")

    def _xml(self, key: str | None, password: str) -> bytes:
        # Registered names would be process-wide; these are written as they are.
        root = ET.Element("unattend", {"xmlns": NAMESPACE, "xmlns:wcm": WCM})
        self._windows_pe(_pass(root, "windowsPE"), key)
        self._specialize(_pass(root, "specialize"))
        self._oobe(_pass(root, "oobeSystem"), password)
        ET.indent(root)
        text: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
        return text + b"\n"

    def _component(self, settings: ET.Element, name: str) -> ET.Element:
        return ET.SubElement(
            settings,
            "component",
            {
                "name": f"Microsoft-Windows-{name}",
                "processorArchitecture": self.architecture,
                "publicKeyToken": _PUBLIC_KEY_TOKEN,
                "language": "neutral",
                "versionScope": "nonSxS",
            },
        )

    def _windows_pe(self, settings: ET.Element, key: str | None) -> None:
        core = self._component(settings, "International-Core-WinPE")
        _put(core, "SetupUILanguage", {"UILanguage": self.locale})
        for name in ("InputLocale", "SystemLocale", "UILanguage", "UserLocale"):
            _put(core, name, self.locale)
        setup = self._component(settings, "Setup")
        disks = ET.SubElement(setup, "DiskConfiguration")
        _put(disks, "WillShowUI", "OnError")
        disk = _added(disks, "Disk")
        _put(disk, "DiskID", "0")
        _put(disk, "WillWipeDisk", "true")
        # One partition, active: an HVM guest starts through a BIOS.
        create = _added(ET.SubElement(disk, "CreatePartitions"), "CreatePartition")
        _put_all(create, {"Order": "1", "Type": "Primary", "Extend": "true"})
        modify = _added(ET.SubElement(disk, "ModifyPartitions"), "ModifyPartition")
        _put_all(
            modify,
            {"Order": "1", "PartitionID": "1", "Active": "true", "Format": "NTFS", "Letter": "C"},
        )
        image = ET.SubElement(ET.SubElement(setup, "ImageInstall"), "OSImage")
        data = _added(ET.SubElement(image, "InstallFrom"), "MetaData")
        _put_all(data, {"Key": "/IMAGE/INDEX", "Value": str(self.image_index)})
        _put(image, "InstallTo", {"DiskID": "0", "PartitionID": "1"})
        _put(image, "WillShowUI", "OnError")
        user = ET.SubElement(setup, "UserData")
        if key is not None:
            _put(user, "ProductKey", {"Key": key, "WillShowUI": "OnError"})
        _put_all(
            user,
            {
                "AcceptEula": "true",
                "FullName": self.full_name,
                "Organization": self.organisation,
            },
        )

    def _specialize(self, settings: ET.Element) -> None:
        shell = self._component(settings, "Shell-Setup")
        _put_all(shell, {"ComputerName": self.computer_name, "TimeZone": self.timezone})

    def _oobe(self, settings: ET.Element, password: str) -> None:
        core = self._component(settings, "International-Core")
        for name in ("InputLocale", "SystemLocale", "UILanguage", "UserLocale"):
            _put(core, name, self.locale)
        shell = self._component(settings, "Shell-Setup")
        plain = {"Value": password, "PlainText": "true"}
        logon = ET.SubElement(shell, "AutoLogon")
        _put(logon, "Password", plain)
        _put_all(
            logon,
            {
                "Enabled": "true",
                "LogonCount": str(self.auto_logons),
                "Username": "Administrator",
            },
        )
        if self.first_logon:
            commands = ET.SubElement(shell, "FirstLogonCommands")
            for order, line in enumerate(self.first_logon, 1):
                command = _added(commands, "SynchronousCommand")
                _put_all(command, {"Order": str(order), "CommandLine": line})
        _put(shell, "OOBE", {"HideEULAPage": "true", "ProtectYourPC": "3"})
        _put(ET.SubElement(shell, "UserAccounts"), "AdministratorPassword", plain)


def answer_disc(target: Path, files: Mapping[str, bytes]) -> None:
    """Write a disc with an answer file and what goes with it.

    Joliet, since the answer file's name is too long for ISO 9660.

    Args:
        target: the ISO; made readable for its owner only, as it holds secrets.
        files: by name, all in the root.

    Raises:
        LabBroken: it cannot be written.
    """
    iso = pycdlib.PyCdlib()
    iso.new(vol_ident=ANSWER_LABEL, joliet=3)
    try:
        for number, (name, content) in enumerate(files.items()):
            iso.add_fp(io.BytesIO(content), len(content), f"/F{number}.;1", joliet_path=f"/{name}")
        target.touch(0o600)
        iso.write(str(target))
    except (pycdlib.pycdlibexception.PyCdlibException, OSError) as error:
        target.unlink(missing_ok=True)
        raise LabBroken(f"cannot write the disc with the answers: {error}") from error
    finally:
        iso.close()


def _pass(root: ET.Element, name: str) -> ET.Element:
    return ET.SubElement(root, "settings", {"pass": name})


def _put(parent: ET.Element, name: str, value: str | Mapping[str, str]) -> None:
    element = ET.SubElement(parent, name)
    if isinstance(value, str):
        element.text = value
    else:
        _put_all(element, value)


def _put_all(parent: ET.Element, values: Mapping[str, str]) -> None:
    for name, value in values.items():
        _put(parent, name, value)


def _added(parent: ET.Element, name: str) -> ET.Element:
    """A list's entry."""
    return ET.SubElement(parent, name, {"wcm:action": "add"})
