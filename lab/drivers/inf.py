"""Windows INF files: their syntax, and the parts that say what a driver package installs.

Follows the Windows Driver Kit, "General Syntax Rules for INF Files" and the pages of the
sections named below. Sections and keys are matched without regard to case, sections of the
same name are one, and ``%tokens%`` are replaced when a value is read.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import PurePosixPath

from lab.core.errors import UsageError

MAX_INF_BYTES = 1 << 20
"""Largest INF read; the drivers of this lab have some kilobytes."""

# setupapi.h, MAX_INF_STRING_LENGTH: a field after all replacements.
_MAX_FIELD = 4096
# A file of 1 MiB could otherwise ask for gigabytes of replaced text.
_MAX_EXPANDED = 16 << 20

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_TOKEN = re.compile(r"%([^%]*)%")
# NT[Architecture][.[OSMajor][.[OSMinor][.[ProductType][.[SuiteMask][.[BuildNumber]]]]]]
_DECORATION = re.compile(
    r"NT(?P<arch>x86|amd64|ia64|arm64|arm)?(?:\.(?P<major>\d{1,5})?)?(?:\.(?P<minor>\d{1,5})?)?"
    r"(?:\.(?P<product>(?:0x)?[0-9a-f]{1,8})?)?(?:\.(?:(?:0x)?[0-9a-f]{1,8})?)?(?:\.\d{0,9})?",
    re.IGNORECASE | re.ASCII,
)
_DATE = re.compile(r"(\d{1,2})[/-](\d{1,2})[/-](\d{4})", re.ASCII)
_VERSION = re.compile(r"\d{1,5}(\.\d{1,5}){0,3}", re.ASCII)

# Far above any real package, and low enough that lists naming each other stay cheap.
_MAX_MODELS = 5000
_MAX_COPIED = 5000
_MAX_SERVICES = 100

TARGET_ARCH = "x86"
TARGET_VERSION = (5, 2)
"""The guest: Windows Server 2003 is NT 5.2; its PAE kernel is still x86."""


# SPSVCINST_ASSOCSERVICE (setupapi.h).
_ASSOCSERVICE = 0x2


def _flags(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        return 0


class InfError(UsageError):
    """An INF that Windows could not make sense of either.

    Args:
        file: its name.
        line: line number from 1; 0 for the file as a whole.
        problem: what is wrong, in words.
    """

    def __init__(self, file: str, line: int, problem: str) -> None:
        super().__init__(f"{file}:{line}: {problem}" if line else f"{file}: {problem}")
        self.file = file
        self.line = line


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a section, before token replacement.

    Attributes:
        line: line number from 1, of the first line where it is continued.
        key: what stands before ``=``; None for a line without one.
        fields: the values between commas, unquoted and stripped.
    """

    line: int
    key: str | None
    fields: tuple[str, ...]


@dataclass(slots=True)
class Section:
    """A section: all its entries in order, from everywhere in the file.

    Attributes:
        name: as written first.
        line: where it begins first.
        entries: its lines.
    """

    name: str
    line: int
    entries: list[Entry] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class DriverVer:
    """``DriverVer`` of the Version section.

    Attributes:
        date: release date.
        version: ``w.x.y.z``; empty when the directive gives none.
    """

    date: date
    version: str


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file that installing copies.

    Attributes:
        name: its name on the medium.
        target: its name once installed.
        section: the section that asks for it.
        line: where.
    """

    name: str
    target: str
    section: str
    line: int


@dataclass(frozen=True, slots=True)
class Service:
    """A service that installing creates.

    Attributes:
        name: its name.
        binary: ``ServiceBinary`` as written, such as ``%12%\\xenvbd.sys``.
        section: its service-install section.
        line: of its AddService.
        drives: whether it is the device's function driver (SPSVCINST_ASSOCSERVICE).
    """

    name: str
    binary: str
    section: str
    line: int
    drives: bool = False

    @property
    def file_name(self) -> str:
        """The binary's file name alone."""
        return self.binary.replace("/", "\\").rpartition("\\")[2]


@dataclass(frozen=True, slots=True)
class Model:
    """A line of a models section that holds for the target.

    Attributes:
        description: device description.
        install_section: the section named, undecorated.
        hardware_id: first id.
        compatible_ids: the others.
        line: where.
    """

    description: str
    install_section: str
    hardware_id: str
    compatible_ids: tuple[str, ...]
    line: int


class Inf:
    """A parsed INF.

    Args:
        name: file name for errors.
        sections: by lower-case name, as ``parse`` builds them.
    """

    def __init__(self, name: str, sections: dict[str, Section]) -> None:
        self.name = name
        self._sections = sections
        self._expanded = 0
        self._strings = self._read_strings()
        self._indexes: dict[str, dict[str, Entry]] = {}

    @property
    def sections(self) -> tuple[Section, ...]:
        """All sections in the order of the file."""
        return tuple(self._sections.values())

    def section(self, name: str) -> Section | None:
        """The section of that name, or None."""
        return self._sections.get(name.lower())

    def entries(self, section: str, key: str | None = None) -> Iterator[Entry]:
        """A section's entries, or those with one key; none when there is no such section."""
        found = self.section(section)
        for entry in found.entries if found else ():
            if key is None or (entry.key is not None and entry.key.lower() == key.lower()):
                yield entry

    def value(self, section: str, key: str) -> str | None:
        """The first field of the first such entry, tokens replaced; None without one."""
        entry = next(self.entries(section, key), None)
        return self.expand(entry.fields[0], entry.line) if entry and entry.fields else None

    def expand(self, text: str, line: int) -> str:
        """Replace ``%token%`` by its string and ``%%`` by ``%``.

        A token without a string stays: ``%12%`` is a folder, others Windows shows as they are.

        Raises:
            InfError: the result is longer than Windows takes.
        """
        if "%" not in text:
            return text
        size = 0
        pieces: list[str] = []
        at = 0
        for match in _TOKEN.finditer(text):
            token = match[1]
            piece = "%" if not token else self._strings.get(token.lower(), match[0])
            pieces += (text[at : match.start()], piece)
            size += match.start() - at + len(piece)
            at = match.end()
            if size > _MAX_FIELD:
                raise InfError(self.name, line, f"a value is longer than {_MAX_FIELD} characters")
        self._expanded += size
        if self._expanded > _MAX_EXPANDED:
            raise InfError(self.name, line, "its strings add up to more than Windows would take")
        return "".join((*pieces, text[at:]))

    @property
    def provider(self) -> str:
        """``Provider``, or empty."""
        return self.value("Version", "Provider") or ""

    @property
    def class_name(self) -> str:
        """``Class``, or empty."""
        return self.value("Version", "Class") or ""

    @property
    def class_guid(self) -> str:
        """``ClassGUID``, or empty."""
        return self.value("Version", "ClassGUID") or ""

    @property
    def catalog_file(self) -> str:
        """``CatalogFile``, the platform's own first; empty for an unsigned package."""
        for key in (f"CatalogFile.NT{TARGET_ARCH}", "CatalogFile.NT", "CatalogFile"):
            if value := self.value("Version", key):
                return value
        return ""

    @property
    def driver_ver(self) -> DriverVer:
        """``DriverVer``: ``mm/dd/yyyy[,w.x.y.z]``.

        Raises:
            InfError: it is missing or not of that form.
        """
        entry = next(self.entries("Version", "DriverVer"), None)
        if entry is None or not entry.fields or not entry.fields[0]:
            raise InfError(self.name, 0, "no DriverVer in [Version]")
        text = self.expand(entry.fields[0], entry.line)
        match = _DATE.fullmatch(text)
        try:
            if match is None:
                raise ValueError(text)
            day = date(int(match[3]), int(match[1]), int(match[2]))
        except ValueError as error:
            raise InfError(
                self.name, entry.line, f"DriverVer has no date of the form mm/dd/yyyy: {text[:40]}"
            ) from error
        version = self.expand(entry.fields[1], entry.line) if len(entry.fields) > 1 else ""
        if version and (
            not _VERSION.fullmatch(version) or any(int(n) > 65535 for n in version.split("."))
        ):
            raise InfError(
                self.name,
                entry.line,
                f"DriverVer has no version of the form w.x.y.z: {version[:40]}",
            )
        return DriverVer(day, version)

    def decorations(self) -> set[str]:
        """Every platform that [Manufacturer] names, in lower case; empty string for none."""
        found: set[str] = set()
        for entry in self.entries("Manufacturer"):
            # Without decorations the models section is for x86 (and older) alone.
            found |= {field.lower() for field in entry.fields[1:]} or {""}
        return found

    def models(self) -> tuple[Model, ...]:
        """What the INF offers to an x86 Windows Server 2003.

        Raises:
            InfError: a models section that [Manufacturer] names is missing, a line in it
                lacks its install section, or there are too many.
        """
        found: list[Model] = []
        for section in self._models_sections():
            for entry in self.entries(section):
                fields = [self.expand(one, entry.line) for one in entry.fields]
                if not fields or not fields[0]:
                    raise InfError(self.name, entry.line, f"[{section}]: no install section named")
                ids = [one for one in fields[1:] if one]
                if len(found) >= _MAX_MODELS:
                    raise InfError(self.name, entry.line, f"more than {_MAX_MODELS} models")
                if ids:
                    found.append(
                        Model(
                            description=self.expand(entry.key or "", entry.line),
                            install_section=fields[0],
                            hardware_id=ids[0],
                            compatible_ids=tuple(ids[1:]),
                            line=entry.line,
                        )
                    )
        return tuple(found)

    @property
    def for_target(self) -> bool:
        """Whether any maker names a platform that covers x86 Windows Server 2003.

        Raises:
            InfError: as ``models``.
        """
        return next(self._models_sections(), None) is not None

    def install_section(self, base: str) -> str | None:
        """The DDInstall section that x86 takes: decorated ones come first."""
        for suffix in (f".NT{TARGET_ARCH}", ".NT", ""):
            if found := self.section(base + suffix):
                return found.name
        return None

    def copied_files(self, install: str) -> tuple[SourceFile, ...]:
        """The files that a DDInstall section and its co-installers copy.

        Raises:
            InfError: it names a file list that is not there.
        """
        found: list[SourceFile] = []
        for section in (install, f"{install}.CoInstallers"):
            for directive in self.entries(section, "CopyFiles"):
                for raw in directive.fields:
                    listed = self.expand(raw, directive.line)
                    if listed.startswith("@"):
                        name = listed[1:]
                        found.append(SourceFile(name, name, section, directive.line))
                    elif listed:
                        found += self._file_list(listed, directive.line)
                    if len(found) > _MAX_COPIED:
                        raise InfError(
                            self.name, directive.line, f"copies more than {_MAX_COPIED} files"
                        )
        return tuple(found)

    def services(self, install: str) -> tuple[Service, ...]:
        """The services that a DDInstall section's ``.Services`` section adds.

        Raises:
            InfError: a service's own section or its ServiceBinary is missing.
        """
        found: list[Service] = []
        for entry in self.entries(f"{install}.Services", "AddService"):
            fields = [self.expand(one, entry.line) for one in entry.fields]
            if not fields or not fields[0]:
                continue  # ``AddService = ,2``: the device needs no service
            section = fields[2] if len(fields) > 2 else ""
            if not section or self.section(section) is None:
                raise InfError(
                    self.name, entry.line, f"service {fields[0]}: no section [{section}]"
                )
            binary = self.value(section, "ServiceBinary")
            if not binary:
                raise InfError(
                    self.name, entry.line, f"service {fields[0]}: no ServiceBinary in [{section}]"
                )
            flags = fields[1] if len(fields) > 1 else ""
            drives = bool(_flags(flags) & _ASSOCSERVICE)
            found.append(Service(fields[0], binary, section, entry.line, drives))
            if len(found) > _MAX_SERVICES:
                raise InfError(self.name, entry.line, f"adds more than {_MAX_SERVICES} services")
        return tuple(found)

    def source_path(self, file: str) -> PurePosixPath | None:
        """Where on the medium a file lies, relative to the INF's folder.

        Returns:
            None when no SourceDisksFiles section lists it: Windows then takes it from the
            layout of its own installation media.

        Raises:
            InfError: its disk number is not in SourceDisksNames.
        """
        for suffix in (f".{TARGET_ARCH}", ""):
            entry = self._index(f"SourceDisksFiles{suffix}").get(file.lower())
            if entry is not None:
                fields = [self.expand(one, entry.line) for one in entry.fields]
                disk = fields[0] if fields else ""
                subfolder = fields[1] if len(fields) > 1 else ""
                return _posix(self._disk_path(disk, entry.line), subfolder, file)
        return None

    @property
    def uses_system_files(self) -> bool:
        """Whether parts come from Windows' own INFs (``LayoutFile``, ``Include``)."""
        return self.value("Version", "LayoutFile") is not None or any(
            True for section in self.sections for _ in self.entries(section.name, "Include")
        )

    def destination(self, section: str) -> str:
        """Where a file list is copied to: ``DestinationDirs``, such as ``12`` or ``11,sub``."""
        entry = next(self.entries("DestinationDirs", section), None) or next(
            self.entries("DestinationDirs", "DefaultDestDir"), None
        )
        if entry is None:
            return ""
        return ",".join(self.expand(one, entry.line) for one in entry.fields)

    def _read_strings(self) -> dict[str, str]:
        strings: dict[str, str] = {}
        names = sorted(
            (name for name in self._sections if re.fullmatch(r"strings(\.[0-9a-f]{4})?", name)),
        )
        # The undecorated section comes first and wins; a language's own fills what it lacks.
        for name in names:
            for entry in self._sections[name].entries:
                if entry.key is not None:
                    strings.setdefault(entry.key.lower(), ",".join(entry.fields))
        return strings

    def _index(self, section: str) -> dict[str, Entry]:
        """A section's entries by key, lower case; the first of equal ones counts."""
        index = self._indexes.get(section)
        if index is None:
            index = self._indexes[section] = {}
            for entry in self.entries(section):
                if entry.key is not None:
                    index.setdefault(self.expand(entry.key, entry.line).lower(), entry)
        return index

    def _models_sections(self) -> Iterator[str]:
        """The models sections for the target, one a maker."""
        for maker in self.entries("Manufacturer"):
            base = self.expand(maker.fields[0], maker.line) if maker.fields else maker.key or ""
            section = self._models_section(base, maker)
            if section is not None:
                yield section

    def _models_section(self, base: str, maker: Entry) -> str | None:
        """The models section for the target, or None when the maker has none for it."""
        if not maker.fields[1:]:
            if self.section(base) is None:
                raise InfError(self.name, maker.line, f"no models section [{base}]")
            return base
        best: tuple[tuple[int, int, bool], str] | None = None
        for raw in maker.fields[1:]:
            decoration = self.expand(raw, maker.line)
            if not decoration:
                continue
            match = _DECORATION.fullmatch(decoration)
            if match is None:
                raise InfError(self.name, maker.line, f"not a target platform: {decoration[:40]}")
            arch = (match["arch"] or "").lower()
            version = (int(match["major"] or 0), int(match["minor"] or 0))
            # Product type 1 is a workstation (VER_NT_WORKSTATION); the guest is a server.
            product = int(match["product"] or "0", 16)
            if arch not in ("", TARGET_ARCH) or version > TARGET_VERSION or product == 1:
                continue
            rank = (*version, bool(arch))
            if best is None or rank > best[0]:
                best = (rank, f"{base}.{decoration}")
        if best is not None:
            if self.section(best[1]) is None:
                raise InfError(self.name, maker.line, f"no models section [{best[1]}]")
            return best[1]
        return None

    def _file_list(self, section: str, line: int) -> list[SourceFile]:
        if self.section(section) is None:
            raise InfError(self.name, line, f"CopyFiles: no section [{section}]")
        found = []
        for entry in self.entries(section):
            fields = [self.expand(one, entry.line) for one in entry.fields]
            if not fields or not fields[0]:
                continue
            source = fields[1] if len(fields) > 1 and fields[1] else fields[0]
            found.append(SourceFile(source, fields[0], section, entry.line))
        return found

    def _disk_path(self, disk: str, line: int) -> str:
        for suffix in (f".{TARGET_ARCH}", ""):
            entry = self._index(f"SourceDisksNames{suffix}").get(disk.lower())
            if entry is not None:
                path = entry.fields[3] if len(entry.fields) > 3 else ""
                return self.expand(path, entry.line)
        raise InfError(self.name, line, f"no disk {disk[:40]!r} in SourceDisksNames")


def decode(data: bytes, name: str) -> str:
    """The text of an INF: UTF-8 or UTF-16 with a byte order mark, else code page 1252.

    Raises:
        InfError: it is too large, or not text in that encoding.
    """
    if len(data) > MAX_INF_BYTES:
        raise InfError(name, 0, f"larger than {MAX_INF_BYTES >> 20} MiB")
    for bom, encoding in _BOMS:
        if data.startswith(bom):
            try:
                return data[len(bom) :].decode(encoding)
            except UnicodeDecodeError as error:
                raise InfError(name, 0, f"not {encoding} text, as its first bytes say") from error
    if b"\0" in data:
        raise InfError(name, 0, "holds NUL bytes: not text, or UTF-16 without byte order mark")
    return data.decode("cp1252", errors="replace")


def parse(data: bytes, name: str) -> Inf:
    """Parse an INF.

    Args:
        data: the file's bytes.
        name: its name, for errors.

    Raises:
        InfError: naming file and line.
    """
    sections: dict[str, Section] = {}
    current: Section | None = None
    for line, text in _logical_lines(decode(data, name), name):
        if text.startswith("["):
            title, closed, rest = text[1:].partition("]")
            if not closed or rest.strip() or not title.strip():
                raise InfError(name, line, f"not a section title: {text[:60]}")
            title = title.strip()
            current = sections.setdefault(title.lower(), Section(title, line))
        elif current is None:
            raise InfError(name, line, f"text before the first section: {text[:60]}")
        else:
            current.entries.append(_entry(text, line))
    version = sections.get("version")
    if version is None:
        raise InfError(name, 0, "no [Version] section: not an INF")
    inf = Inf(name, sections)
    signature = inf.value("Version", "Signature") or ""
    if signature.lower() not in ("$windows nt$", "$chicago$", "$windows 95$"):
        raise InfError(name, version.line, "no valid Signature in [Version]: not an INF")
    return inf


def _logical_lines(text: str, name: str) -> Iterator[tuple[int, str]]:
    """Lines without comments, continued ones joined; quotes are still in them."""
    # DOS text files may end at Ctrl-Z.
    physical = re.split(r"\r\n|\r|\n", text.partition("\x1a")[0])
    joined: list[str] = []
    first = 0
    for number, raw in enumerate(physical, 1):
        content = _without_comment(raw, number, name).strip()
        if not joined:
            first = number
        # No quoted string reaches over a line's end, so a last backslash is never inside one.
        if content.endswith("\\"):
            joined.append(content[:-1])
            continue
        joined.append(content)
        whole = "".join(joined).strip()
        joined = []
        if whole:
            yield first, whole
    if whole := "".join(joined).strip():
        yield first, whole


def _without_comment(line: str, number: int, name: str) -> str:
    quoted = False
    for at, char in enumerate(line):
        if char == '"':
            quoted = not quoted
        elif char == ";" and not quoted:
            return line[:at]
    if quoted:
        raise InfError(name, number, "a quoted string does not end")
    return line


def _entry(text: str, line: int) -> Entry:
    """Split ``key = value, value`` outside quotes."""
    fields: list[str] = []
    key: str | None = None
    piece: list[str] = []
    # Blanks are stripped around a field but kept inside quotes: ``solid`` is the length up
    # to which the text must not be stripped.
    solid = 0
    quoted = False
    at = 0

    def take() -> str:
        whole = "".join(piece)
        return whole[:solid] + whole[solid:].rstrip()

    while at < len(text):
        char = text[at]
        if char == '"':
            if quoted and text[at + 1 : at + 2] == '"':
                piece.append('"')
                at += 1
            else:
                quoted = not quoted
            solid = len(piece)
        elif quoted:
            piece.append(char)
            solid = len(piece)
        elif char == "=" and key is None and not fields:
            key, piece, solid = take(), [], 0
        elif char == ",":
            fields.append(take())
            piece, solid = [], 0
        elif piece or solid or not char.isspace():
            piece.append(char)
        at += 1
    last = take()
    if last or fields or key is not None:
        fields.append(last)
    return Entry(line, key, tuple(fields))


def _posix(*parts: str) -> PurePosixPath:
    """Join Windows path pieces below the medium's root."""
    names = [name for part in parts for name in part.replace("\\", "/").split("/") if name]
    return PurePosixPath(*[name for name in names if name != "."])
