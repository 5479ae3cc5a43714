"""Reading INF files as far as installing a driver package needs.

Sources: Windows Driver Kit, "INF File Sections and Directives": Version, Manufacturer,
Models (with TargetOSVersion decorations), DDInstall (CopyFiles, AddReg), DDInstall.Services
(AddService), DestinationDirs, SourceDisksNames, SourceDisksFiles, Strings.
"""

#: Directory ids of DestinationDirs ("Using Dirids") as paths under C:\.
DIRIDS = {
    "10": "WINDOWS",
    "11": "WINDOWS\\system32",
    "12": "WINDOWS\\system32\\drivers",
    "17": "WINDOWS\\inf",
    "24": "",
    "-1": "",
}

#: Decorations of section names that a 32-bit 5.2 system takes, best first.
DECORATIONS = (".NTx86.5.2", ".NTx86.5.1", ".NTx86.5", ".NTx86", ".NT.5", ".NT", "")


class InfError(Exception):
    """The file is not an INF that this system can install from."""


def decode(data):
    """The text of an INF: UTF-16 with a byte order mark, else code page 1252."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16")
    return data.decode("cp1252", "replace")


def fields(text):
    """Split a value at commas outside quotes; quotes go, doubled ones stay as one."""
    out, current, quoted = [], [], False
    index = 0
    while index < len(text):
        char = text[index]
        if char == '"':
            if quoted and text[index + 1 : index + 2] == '"':
                current.append(char)
                index += 1
            else:
                quoted = not quoted
        elif char == "," and not quoted:
            out.append("".join(current).strip())
            current = []
        else:
            current.append(char)
        index += 1
    out.append("".join(current).strip())
    return out


def _strip_comment(line):
    quoted = False
    for index, char in enumerate(line):
        if char == '"':
            quoted = not quoted
        elif char == ";" and not quoted:
            return line[:index]
    return line


class Service:
    """One AddService directive.

    Attributes:
        name: service name.
        binary: file name of its .sys.
        start, kind, error_control: numbers of the service-install section.
        display, group: texts, may be empty.
        registry: AddReg lines of the service-install section, as field lists.
        is_function: whether it is the device's function driver (SPSVCINST_ASSOCSERVICE).
    """

    def __init__(self, name, is_function, section, registry):
        self.name = name
        self.is_function = is_function
        self.binary = section.get("servicebinary", "").rsplit("\\", 1)[-1]
        self.start = _number(section.get("starttype", "3"))
        self.kind = _number(section.get("servicetype", "1"))
        self.error_control = _number(section.get("errorcontrol", "1"))
        self.display = section.get("displayname", "")
        self.group = section.get("loadordergroup", "")
        self.registry = registry


def _number(text):
    try:
        return int(text.split(",")[0], 0)
    except ValueError:
        return 0


class Model:
    """What an INF offers for one hardware id.

    Attributes:
        description: device description.
        manufacturer: its manufacturer.
        section: install section's undecorated name.
        actual: the decorated name that exists.
        copies: (source path relative to the INF, destination under C:\\) pairs.
        services: ``Service`` objects in AddService order.
    """

    def __init__(self, description, manufacturer, section):
        self.description = description
        self.manufacturer = manufacturer
        self.section = section
        self.actual = section
        self.copies = []
        self.services = []


class Inf:
    """An INF file.

    Args:
        text: its text.

    Raises:
        InfError: it has no Version section with a known signature.
    """

    def __init__(self, text):
        self._sections = {}
        self._strings = {}
        self._read(text)
        version = self.mapping("Version")
        if version.get("signature", "").lower() not in ("$windows nt$", "$chicago$"):
            raise InfError("no valid signature in [Version]")
        self.class_name = version.get("class", "")
        self.class_guid = version.get("classguid", "")
        self.provider = version.get("provider", "")
        date, _, number = version.get("driverver", "").partition(",")
        self.date = date.strip()
        self.version = number.strip()

    def _read(self, text):
        current = None
        pending = ""
        for raw in text.splitlines():
            line = pending + _strip_comment(raw).strip()
            pending = ""
            if line.endswith("\\") and not line.startswith("["):
                pending = line[:-1].rstrip() + " "
                continue
            if not line:
                continue
            if line.startswith("["):
                name = line[1:].split("]", 1)[0].strip().lower()
                current = self._sections.setdefault(name, [])
            elif current is not None:
                current.append(line)
        for line in self._sections.get("strings", ()):
            key, _, value = line.partition("=")
            self._strings[key.strip().lower()] = fields(value)[0]

    def _expand(self, text):
        if "%" not in text:
            return text
        parts = text.split("%")
        for index in range(1, len(parts) - 1, 2):
            token = parts[index]
            if token:
                parts[index] = self._strings.get(token.lower(), f"%{token}%")
            else:
                parts[index] = "%"
        return "".join(parts)

    def has(self, section):
        """Whether a section exists."""
        return section.lower() in self._sections

    def lines(self, section):
        """(key, fields) of a section's lines; the key is empty for lines without ``=``."""
        out = []
        for line in self._sections.get(section.lower(), ()):
            key, equals, value = _split_line(line)
            if equals:
                out.append((self._expand(key), [self._expand(item) for item in fields(value)]))
            else:
                out.append(("", [self._expand(item) for item in fields(line)]))
        return out

    def mapping(self, section):
        """A section's lines as lower-case key to the whole value."""
        return {key.lower(): ",".join(values) for key, values in self.lines(section) if key}

    def _rows(self, section):
        """A section's lines as lower-case key to fields."""
        return {key.lower(): values for key, values in self.lines(section) if key}

    def _decorated(self, name, tail=""):
        for decoration in DECORATIONS:
            if self.has(name + decoration + tail):
                return name + decoration + tail
        return None

    def model(self, hardware_id):
        """What the INF offers for a hardware id.

        Raises:
            InfError: nothing, or a section is missing.
        """
        wanted = hardware_id.lower()
        for manufacturer, values in self.lines("Manufacturer"):
            section = self._models_section(values)
            for description, entry in self.lines(section) if section else ():
                if wanted in (item.lower() for item in entry[1:]):
                    return self._model(Model(description, manufacturer, entry[0]))
        raise InfError(f"no model for {hardware_id}")

    def section_model(self, section):
        """What the install section of this name, decorated or not, would install.

        Raises:
            InfError: there is none, or a section that it names is missing.
        """
        for decoration in DECORATIONS:
            if decoration and section.lower().endswith(decoration.lower()):
                section = section[: -len(decoration)]
                break
        return self._model(Model("", "", section))

    def hardware_ids(self):
        """All hardware ids it has models for."""
        found = []
        for _, values in self.lines("Manufacturer"):
            section = self._models_section(values)
            for _, entry in self.lines(section) if section else ():
                found += [item for item in entry[1:] if item]
        return found

    def _models_section(self, values):
        """The best models section of a Manufacturer line that this system takes."""
        name = values[0]
        offered = {decoration.lower() for decoration in values[1:]}
        for decoration in DECORATIONS:
            bare = decoration[1:].lower()
            if (not decoration or bare in offered) and self.has(name + decoration):
                return name + decoration
        return None

    def _model(self, model):
        actual = self._decorated(model.section)
        if actual is None:
            raise InfError(f"no section [{model.section}]")
        model.actual = actual
        for key, values in self.lines(actual):
            if key.lower() == "copyfiles":
                for item in values:
                    model.copies += self._copy(item)
        services = self._decorated(model.section, ".Services")
        for key, values in self.lines(services) if services else ():
            if key.lower() == "addservice" and values[0]:
                flags = _number(values[1]) if len(values) > 1 else 0
                install = values[2] if len(values) > 2 else ""
                if not self.has(install):
                    raise InfError(f"no section [{install}]")
                registry = [
                    row
                    for name, sections in self.lines(install)
                    if name.lower() == "addreg"
                    for item in sections
                    for _, row in self.lines(item)
                ]
                section = self.mapping(install)
                model.services.append(Service(values[0], bool(flags & 2), section, registry))
        return model

    def _copy(self, item):
        """(source, destination) pairs of one CopyFiles entry."""
        destinations = self.mapping("DestinationDirs")
        default = destinations.get("defaultdestdir", "11")
        if item.startswith("@"):
            names = [(item[1:], item[1:])]
            target = default
        else:
            names = [
                (values[1] if len(values) > 1 and values[1] else values[0], values[0])
                for _, values in self.lines(item)
            ]
            target = destinations.get(item.lower(), default)
        dirid, _, below = target.partition(",")
        if dirid.strip() not in DIRIDS:
            raise InfError(f"directory id {dirid.strip()} is not known")
        folder = "\\".join(part for part in (DIRIDS[dirid.strip()], below.strip()) if part)
        return [(self._source(source), f"{folder}\\{name}") for source, name in names]

    def _source(self, name):
        """Where a file is in the package: SourceDisksNames' path and SourceDisksFiles' subdir."""
        files = {**self._rows("SourceDisksFiles"), **self._rows("SourceDisksFiles.x86")}
        disks = {**self._rows("SourceDisksNames"), **self._rows("SourceDisksNames.x86")}
        disk, *rest = files.get(name.lower(), [""])
        described = disks.get(disk, [])
        path = described[3] if len(described) > 3 else ""
        below = rest[0] if rest else ""
        parts = [part.strip().strip("\\") for part in (path, below)]
        return "\\".join([part for part in parts if part] + [name])


def _split_line(line):
    """Split at the first ``=`` outside quotes."""
    quoted = False
    for index, char in enumerate(line):
        if char == '"':
            quoted = not quoted
        elif char == "=" and not quoted:
            return line[:index].strip().strip('"'), "=", line[index + 1 :]
    return line, "", ""
