"""What a Windows program says of itself: its header and its version resource."""

from __future__ import annotations

from dataclasses import dataclass, field
from locale import windows_locale
from typing import Any

import pefile

# PE format ("Machine Types"): IMAGE_FILE_MACHINE_*.
_MACHINES = {0x14C: "i386", 0x8664: "x64", 0x200: "Itanium", 0x1C0: "ARM", 0xAA64: "ARM64"}


class NoProgram(Exception):
    """The bytes are no Windows program, or a damaged one.

    Args:
        why: in words.
    """

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


@dataclass(frozen=True, slots=True)
class Program:
    """A Windows program.

    Attributes:
        machine: ``i386``, ``x64`` or another.
        needs: the Windows version it needs at least (the header's subsystem version).
        version: the file version, four numbers; empty without a version resource.
        language: of its version resource, such as ``en_US``; empty when it does not say.
        strings: the version resource's strings by name.
    """

    machine: str
    needs: tuple[int, int]
    version: tuple[int, ...] = ()
    language: str = ""
    strings: dict[str, str] = field(default_factory=dict)

    @property
    def words(self) -> str:
        """All strings together, to search in."""
        return "\n".join(f"{name}: {value}" for name, value in self.strings.items())

    @property
    def title(self) -> str:
        """What it calls itself."""
        named = (self.strings.get(name, "") for name in ("FileDescription", "ProductName"))
        title = next(filter(None, named), "a program without a description")
        return f"{title} {self.number}".strip()

    @property
    def number(self) -> str:
        """The file version with dots."""
        return ".".join(map(str, self.version))


def is_program(head: bytes) -> bool:
    """Whether a file's beginning is that of a DOS or Windows program."""
    return head.startswith(b"MZ")


def read_program(data: bytes) -> Program:
    """Read a program from its bytes.

    Raises:
        NoProgram: it is none, or is damaged.
    """
    try:
        pe = pefile.PE(data=data, fast_load=True)
        pe.parse_data_directories(
            directories=[pefile.DIRECTORY_ENTRY["IMAGE_DIRECTORY_ENTRY_RESOURCE"]]
        )
        return _facts(pe)
    except Exception as error:
        # pefile.PEFormatError, and whatever a hostile file makes it stumble over.
        raise NoProgram(" ".join(str(error).strip("'\" ").split())[:120]) from error


def _facts(pe: Any) -> Program:
    needs = (
        int(pe.OPTIONAL_HEADER.MajorSubsystemVersion),
        int(pe.OPTIONAL_HEADER.MinorSubsystemVersion),
    )
    version: tuple[int, ...] = ()
    for fixed in getattr(pe, "VS_FIXEDFILEINFO", ())[:1]:
        high, low = int(fixed.FileVersionMS), int(fixed.FileVersionLS)
        version = (high >> 16, high & 0xFFFF, low >> 16, low & 0xFFFF)
    strings: dict[str, str] = {}
    language = 0
    for group in getattr(pe, "FileInfo", ()):
        for entry in group:
            for table in getattr(entry, "StringTable", ()):
                for name, value in table.entries.items():
                    strings[_text(name)] = _text(value)
            for var in getattr(entry, "Var", ()):
                for value in var.entry.values():
                    # VarFileInfo, Translation: language and code page, hexadecimal.
                    language = language or int(str(value).split()[0], 16)
    return Program(
        machine=_MACHINES.get(pe.FILE_HEADER.Machine, f"machine {pe.FILE_HEADER.Machine:#x}"),
        needs=needs,
        version=version,
        language=windows_locale.get(language, ""),
        strings=strings,
    )


def _text(raw: bytes) -> str:
    text = raw.decode("utf-8", "replace")
    return "".join(char for char in text if char.isprintable()).strip()[:200]
