"""``boot.ini``: which options Windows before Vista starts with, and how that is changed.

The loader takes the first entry whose path is ``default`` (Microsoft, "Boot options in a Boot.ini
file"). A driver may read an option of it from ``SystemStartOptions``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from lab.core.deadline import Deadline
from lab.core.errors import LabBroken
from lab.core.journal import noun
from lab.guest.channel import CODE_PAGE, Channel
from lab.guest.files import Files

BOOT_INI = r"C:\boot.ini"
SAVED = r"C:\boot.pvlab.ini"
"""What ``boot.ini`` was before the lab changed it."""

_SECTION = re.compile(r"\[(.+)\]")
_ENTRY = re.compile(r'(?P<path>[^=]+?)\s*=\s*"(?P<title>[^"]*)"\s*(?P<options>.*)')
_ADDED = ", PV drivers"


@dataclass(frozen=True, slots=True)
class BootEntry:
    """One system of the menu.

    Attributes:
        path: where it is, in ARC or drive notation.
        title: as the menu shows it.
        options: its options, such as ``/fastdetect``.
    """

    path: str
    title: str
    options: tuple[str, ...]

    def has(self, option: str) -> bool:
        """Whether it starts with an option; upper and lower case are one."""
        return option.lower() in (one.lower() for one in self.options)

    @property
    def line(self) -> str:
        """As ``boot.ini`` has it."""
        return " ".join((f'{self.path}="{self.title}"', *self.options))


@dataclass(frozen=True, slots=True)
class BootIni:
    """The file.

    Attributes:
        loader: lines of ``[boot loader]``, as they are.
        default: the path that is started.
        entries: lines of ``[operating systems]``.
    """

    loader: tuple[str, ...]
    default: str
    entries: tuple[BootEntry, ...]

    @classmethod
    def parse(cls, text: str) -> BootIni:
        """Read the file.

        Raises:
            LabBroken: it has no default, or nothing that the default means.
        """
        loader: list[str] = []
        entries: list[BootEntry] = []
        default = section = ""
        for line in map(str.strip, text.splitlines()):
            if not line:
                continue
            if match := _SECTION.fullmatch(line):
                section = match[1].lower()
            elif section == "boot loader":
                loader.append(line)
                name, _, value = line.partition("=")
                default = value.strip() if name.strip().lower() == "default" else default
            elif section == "operating systems" and (match := _ENTRY.fullmatch(line)):
                options = tuple(match["options"].split())
                entries.append(BootEntry(match["path"].strip(), match["title"], options))
        made = cls(tuple(loader), default, tuple(entries))
        if not default or made._started() is None:
            raise LabBroken(f"{BOOT_INI} names no system that it starts")
        return made

    @property
    def started(self) -> BootEntry:
        """The entry that is started when nobody chooses."""
        found = self._started()
        assert found is not None  # noqa: S101 - parse saw to it
        return found

    def _started(self) -> BootEntry | None:
        wanted = self.default.lower()
        return next((one for one in self.entries if one.path.lower() == wanted), None)

    def started_with(self, option: str) -> BootIni:
        """The same, but starting the same system with an option.

        An entry that has it is moved to the front; else a copy of the one that was started goes
        there. No other entry changes, so the menu still offers the system as it was.
        """
        now = self.started
        if now.has(option):
            return self
        same = [one for one in self.entries if one.path.lower() == now.path.lower()]
        chosen = next(
            (one for one in same if one.has(option)),
            replace(now, title=now.title + _ADDED, options=(*now.options, option)),
        )
        others = tuple(one for one in self.entries if one != chosen)
        return replace(self, entries=(chosen, *others))

    @property
    def text(self) -> str:
        """As it is written."""
        lines = ["[boot loader]", *self.loader, "[operating systems]"]
        return "\r\n".join([*lines, *(one.line for one in self.entries), ""])


@noun
class BootMenu:
    """``boot.ini`` of one guest.

    Args:
        channel: the guest's command line.
        files: its file system.
    """

    def __init__(self, channel: Channel, files: Files) -> None:
        self._channel = channel
        self._files = files

    def read(self, deadline: Deadline) -> BootIni:
        """The menu as it is.

        Raises:
            GuestFileMissing: the guest has none.
            LabBroken: it cannot be read.
            GuestSilent, DeadlineExpired: as ``Channel.run``.
        """
        return BootIni.parse(self._files.read_text(BOOT_INI, deadline))

    def start_with(self, option: str, deadline: Deadline) -> bytes:
        """Have the guest start with an option from its next start on.

        Returns:
            The file as it was, for ``restore`` or for a guest that does not come back.

        Raises:
            As ``read``; LabBroken also when it cannot be written.
        """
        before = self._files.read_text(BOOT_INI, deadline)
        wanted = BootIni.parse(before).started_with(option)
        data = before.encode(CODE_PAGE)
        self._files.put_bytes(data, SAVED, deadline)
        self._write(wanted.text.encode(CODE_PAGE), deadline)
        if not self.read(deadline).started.has(option):
            self._write(data, deadline)
            raise LabBroken(f"{self._channel.name}: {BOOT_INI} did not take {option}")
        return data

    def restore(self, before: bytes, deadline: Deadline) -> None:
        """Put the file back as it was. Raises like ``start_with``."""
        self._write(before, deadline)

    def _write(self, data: bytes, deadline: Deadline) -> None:
        # Setup makes it read-only, hidden and a system file, which programs do not overwrite.
        self._channel.run(f"attrib -r -s -h {BOOT_INI}", deadline)
        try:
            self._files.put_bytes(data, BOOT_INI, deadline)
        finally:
            self._channel.run(f"attrib +r +s +h {BOOT_INI}", deadline)
