"""What a file is, by its content: an installation disc, a program, or nothing the lab can use."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from locale import windows_locale
from pathlib import Path

from lab.media.disc import SECTOR, Damaged, Disc, is_iso, truncated
from lab.media.kinds import Identity, MediaKind, Unusable
from lab.media.program import NoProgram, Program, is_program, read_program

HEAD = 18 * SECTOR
PROGRAM_LIMIT = 512 << 20
"""The largest program that is read, in bytes: .NET 3.5 SP1 has 231 MiB."""

PLAY_LABEL = "PVLAB_PLAY_SETUP"
"""Volume identifier of the lab's own disc (images/play-setup)."""

_W2K3 = MediaKind.W2K3_SP2_I386
# Builds of 5.2.3790: Service Pack 1 is 1830, Service Pack 2 is 3959 (file versions of its own
# system files; updates count on from there).
_SP1, _SP2 = 1830, 3959
_NEEDS_2003 = (5, 2)

# The tag file in a disc's root that names the product: win51 + architecture (i, a, m) +
# product. TXTSETUP.SIF's [SourceDisksNames] asks for it; names as public detectors list them.
_PRODUCTS = {
    "S": "Standard Edition",
    "A": "Enterprise Edition",
    "D": "Datacenter Edition",
    "B": "Web Edition",
    "L": "Small Business Server",
}
_XP_PRODUCTS = {"P": "XP Professional", "C": "XP Home Edition"}
# File names of RPM packages: NAME-VERSION-RELEASE.ARCHITECTURE.rpm.
_XEN_RPM = re.compile(r"XEN-(3\.\d+)\.\S+\.(I[36]86|X86_64)\.RPM")
_TAG = re.compile(r"WIN51([IAM])([A-Z])(?:\.SP(\d)|\.RC\d)?")

_OTHER = (
    (b"PK\x03\x04", "a ZIP archive: unpack it and add what is inside"),
    (b"MSCF", "a cabinet file: unpack it and add what is inside"),
    (b"SZDD", "a compressed setup file: expand it first"),
    (b"\x1f\x8b", "a gzip archive: unpack it and add what is inside"),
    (b"7z\xbc\xaf", "a 7-Zip archive: unpack it and add what is inside"),
    (b"Rar!", "a RAR archive: unpack it and add what is inside"),
    (b"QFI\xfb", "a qcow2 disk of a virtual machine, not an installation disc"),
    (b"KDMV", "a VMware disk, not an installation disc"),
    (b"conectix", "a virtual PC disk, not an installation disc"),
    (b"\x7fELF", "a program for Linux or the like"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself"),
)


def identify(path: Path) -> Identity:
    """Recognise a file.

    Raises:
        Unusable: it is nothing the lab can use; says what it is and what is wanted.
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(HEAD)
    if not head:
        raise Unusable(path.name, "is empty")
    if is_iso(head):
        if missing := truncated(head, size):
            raise Unusable(path.name, f"is a disc that is cut off: {missing}", _discs())
        return _disc(path)
    if is_program(head):
        return _program(path, size)
    if re.match(rb"\s*(<!doctype html|<html|<\?xml)", head[:200], re.IGNORECASE):
        raise Unusable(path.name, "is a web page, saved in place of a download")
    for magic, what in _OTHER:
        if head.startswith(magic):
            raise Unusable(path.name, f"is {what}")
    raise Unusable(path.name, "is neither an ISO 9660 disc nor a Windows program")


def _discs() -> tuple[MediaKind, ...]:
    return (_W2K3, MediaKind.EL5_X86_64, MediaKind.EL5_I386)


def _disc(path: Path) -> Identity:
    try:
        with Disc(path) as disc:
            root = disc.names()
            if disc.label == PLAY_LABEL and "PLAY.BIN" in root:
                return Identity(
                    kind=MediaKind.PLAY_SETUP,
                    title="play-setup, which plays the part of Windows' setup (no Windows)",
                    facts={"label": disc.label},
                )
            if ".DISCINFO" in root or ".TREEINFO" in root:
                return _linux(path.name, disc)
            if "SOURCES" in root or (disc.udf and "I386" not in root):
                raise Unusable(
                    path.name, f"is a disc of Windows Vista or later ({_label(disc)})", (_W2K3,)
                )
            if {"I386", "AMD64", "IA64"} & set(root) or any(map(_TAG.fullmatch, root)):
                return _windows(path.name, disc)
            if packages := [one for one in map(_XEN_RPM.fullmatch, root) if one]:
                return _xen(path.name, packages)
            raise Unusable(path.name, f"is a disc of something else ({_label(disc)})", _discs())
    except Damaged as error:
        raise Unusable(path.name, f"is a damaged disc: {error.why}", _discs()) from error


def _label(disc: Disc) -> str:
    shown = "".join(char for char in disc.label if char.isprintable())
    return f"label {shown}" if shown else "no label"


def _xen(name: str, packages: list[re.Match[str]]) -> Identity:
    versions = sorted({one[1] for one in packages})
    bits = {"64" if one[2] == "X86_64" else "32" for one in packages}
    wanted = (MediaKind.XEN34_EL5,)
    if versions != ["3.4"]:
        raise Unusable(name, f"is a disc with packages of Xen {', '.join(versions)}", wanted)
    if "64" not in bits:
        raise Unusable(
            name, "is a disc with packages of Xen 3.4 that lacks the x86_64 ones", wanted
        )
    title = "Xen 3.4 for Enterprise Linux 5, packages"
    return Identity(kind=MediaKind.XEN34_EL5, title=title, facts={"xen": versions[0]})


# -- Windows ----------------------------------------------------------------------------------


def _windows(name: str, disc: Disc) -> Identity:
    root = disc.names()
    tags = [tag for tag in map(_TAG.fullmatch, root) if tag]
    machine = _architecture(root, tags)
    version, language = _setup_version(disc)
    shown = f"{_label(disc)}, {_versioned(version)}"
    if version and version[:2] != _NEEDS_2003:
        raise Unusable(name, f"is {_release(version)} ({shown})", (_W2K3,))
    if any(tag[2] in _XP_PRODUCTS for tag in tags):
        product = next(_XP_PRODUCTS[tag[2]] for tag in tags if tag[2] in _XP_PRODUCTS)
        bits = "" if machine == "i386" else f" for {machine}"
        raise Unusable(name, f"is Windows {product}{bits} ({shown})", (_W2K3,))
    if machine != "i386":
        raise Unusable(
            name, f"is Windows Server 2003 for {machine}, the 64-bit one ({shown})", (_W2K3,)
        )
    pack = _service_pack(version, tags)
    if pack is None:
        raise Unusable(
            name, f"looks like Windows, but nothing on it tells which ({shown})", (_W2K3,)
        )
    if pack != 2:
        which = f"with Service Pack {pack}" if pack else "without a service pack"
        raise Unusable(name, f"is Windows Server 2003 {which} ({shown})", (_W2K3,))
    for needed in ("/I386/TXTSETUP.SIF", "/I386/SETUPLDR.BIN"):
        if not disc.has(needed):
            raise Unusable(
                name,
                f"is a disc of Windows Server 2003 SP2 one cannot install from: no {needed}",
                (_W2K3,),
            )
    if not disc.boots:
        raise Unusable(
            name,
            "is Windows Server 2003 SP2 without a boot record (copied file by file?)",
            (_W2K3,),
        )
    edition = next((_PRODUCTS[tag[2]] for tag in tags if tag[2] in _PRODUCTS), "")
    language = language or _layout_language(disc)
    facts = {"label": disc.label, "arch": machine, "service_pack": str(pack)}
    facts |= {
        key: value
        for key, value in (
            ("version", ".".join(map(str, version))),
            ("edition", edition),
            ("language", language),
        )
        if value
    }
    words = ["Windows Server 2003", edition, f"SP{pack} i386", language]
    return Identity(kind=_W2K3, title=" ".join(filter(None, words)), facts=facts)


def _architecture(root: list[str], tags: list[re.Match[str]]) -> str:
    # An x64 disc has an I386 folder too, for what is 32-bit in it.
    if "AMD64" in root or any(tag[1] == "A" for tag in tags):
        return "x64"
    if "IA64" in root or any(tag[1] == "M" for tag in tags):
        return "Itanium"
    return "i386"


def _setup_version(disc: Disc) -> tuple[tuple[int, ...], str]:
    """Version and language of the disc's own setup programs; empty when there are none."""
    for path in ("/I386/WINNT32.EXE", "/SETUP.EXE", "/AMD64/WINNT32.EXE"):
        data = disc.read(path)
        if data is None:
            continue
        try:
            program = read_program(data)
        except NoProgram as error:
            raise Damaged(f"{path}: {error.why}") from error
        if program.version:
            return program.version, program.language
    return (), ""


def _versioned(version: tuple[int, ...]) -> str:
    return "version " + ".".join(map(str, version)) if version else "no version"


def _release(version: tuple[int, ...]) -> str:
    names = {(4, 0): "Windows NT 4.0", (5, 0): "Windows 2000", (5, 1): "Windows XP"}
    return names.get((version[0], version[1]), "another Windows")


def _service_pack(version: tuple[int, ...], tags: list[re.Match[str]]) -> int | None:
    if version:
        revision = version[3]
        return 2 if revision >= _SP2 else 1 if revision >= _SP1 else 0
    packs = [int(tag[3]) for tag in tags if tag[3]]
    if packs:
        return max(packs)
    return 0 if tags else None


def _layout_language(disc: Disc) -> str:
    """The language of the default keyboard in TXTSETUP.SIF: [nls] DefaultLayout = KKKKLLLL."""
    text = (disc.read("/I386/TXTSETUP.SIF") or b"").decode("latin-1")
    found = re.search(r"^\s*DefaultLayout\s*=\s*\"?[0-9A-F]{4}([0-9A-F]{4})\b", text, re.M | re.I)
    return windows_locale.get(int(found[1], 16), "") if found else ""


# -- Linux ------------------------------------------------------------------------------------


def _linux(name: str, disc: Disc) -> Identity:
    """CentOS or RHEL 5, by ``.treeinfo`` (INI: family, version, arch) and ``.discinfo`` (lines:
    time, release, architecture, discs), as anaconda writes them."""
    tree = _ini(disc.read("/.treeinfo") or b"")
    lines = (disc.read("/.discinfo") or b"").decode("utf-8", "replace").splitlines()
    family = tree.get("family", "") or (lines[1].strip() if len(lines) > 1 else "")
    version = tree.get("version", "") or next(iter(re.findall(r"\d+(?:\.\d+)?", family)), "")
    arch = tree.get("arch", "") or (lines[2].strip() if len(lines) > 2 else "")
    discs = lines[3].strip() if len(lines) > 3 else ""
    if not version and any(re.match(r"(CENTOS|REDHAT)-RELEASE-5", n) for n in _packages(disc)):
        version = "5"
    family = "CentOS" if "centos" in (family + _label(disc)).lower() else family
    kinds = (MediaKind.EL5_X86_64, MediaKind.EL5_I386)
    what = " ".join(filter(None, (family or "a Linux", version, arch)))
    if not re.fullmatch(r"5(\.\d+)?", version) or not re.search("centos|red hat", family, re.I):
        raise Unusable(name, f"is a disc of {what} ({_label(disc)})", kinds)
    if arch not in ("x86_64", "i386"):
        raise Unusable(name, f"is {what}, for another processor", kinds)
    if discs and "1" not in re.split(r"[,\s]+", discs) and discs.upper() != "ALL":
        raise Unusable(name, f"is disc {discs} of {what}; installing starts from disc 1", kinds)
    for needed in ("/isolinux/vmlinuz", "/isolinux/initrd.img"):
        if not disc.has(needed):
            raise Unusable(name, f"is a disc of {what} one cannot install from: no {needed}", kinds)
    facts = {"label": disc.label, "family": family, "version": version, "arch": arch}
    if discs:
        facts["discs"] = discs
    kind = MediaKind.EL5_X86_64 if arch == "x86_64" else MediaKind.EL5_I386
    return Identity(kind=kind, title=what, facts=facts)


def _packages(disc: Disc) -> list[str]:
    return disc.names("/CentOS") + disc.names("/Server")


def _ini(data: bytes) -> dict[str, str]:
    """The ``[general]`` section; the other ones list checksums."""
    found: dict[str, str] = {}
    section = ""
    for line in data.decode("utf-8", "replace").splitlines():
        if header := re.match(r"\s*\[([^]]*)\]", line):
            section = header[1].strip()
        elif section == "general" and (pair := re.match(r"\s*([\w.]+)\s*[=:]\s*(.*?)\s*$", line)):
            found[pair[1]] = pair[2]
    return found


# -- programs ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Rule:
    """How a kind of program is known.

    Attributes:
        kind: what it is.
        matches: whether a program is of that kind.
    """

    kind: MediaKind
    matches: Callable[[Program], bool]


def _says(pattern: str) -> Callable[[Program], bool]:
    expression = re.compile(pattern, re.IGNORECASE)
    return lambda program: expression.search(program.words) is not None


def _dotnet(program: Program) -> bool:
    # 2.0 SP1 and SP2 have file versions 2.1 and 2.2; 3.5 SP1 brings 2.0 SP2 along.
    if not re.search(r"\.NET Framework", program.words, re.IGNORECASE):
        return False
    return program.version[:2] in {(2, 1), (2, 2)} or bool(
        re.search(r"2\.0 (SP|Service Pack )[12]|3\.5 SP1", program.words, re.IGNORECASE)
    )


_RULES = (
    _Rule(MediaKind.KB968930, _says(r"\b(KB)?968930\b")),
    _Rule(MediaKind.DBGVIEW, _says(r"dbgview|debugview")),
    _Rule(MediaKind.DEVCON, _says(r"\bdevcon\b")),
    _Rule(MediaKind.WDF_COINSTALLER, _says(r"wdf ?co-?installer")),
    _Rule(MediaKind.DOTNET20, _dotnet),
)


def _program(path: Path, size: int) -> Identity:
    if size > PROGRAM_LIMIT:
        raise Unusable(path.name, f"is a program of {size >> 20} MiB, larger than any wanted one")
    try:
        program = read_program(path.read_bytes())
    except NoProgram as error:
        raise Unusable(path.name, f"is a damaged program: {error.why}") from error
    kind = next((rule.kind for rule in _RULES if rule.matches(program)), None)
    if kind is None:
        if re.search(r"\bKB\d{6}\b", program.words):
            found = re.findall(r"\bKB\d{6}\b", program.words)[0]
            raise Unusable(
                path.name, f"is an update, but {found} ({program.title})", (MediaKind.KB968930,)
            )
        raise Unusable(path.name, f"is a program the lab has no use for: {program.title}")
    title = program.title
    if program.machine != "i386":
        raise Unusable(path.name, f"is {title} for {program.machine}", (kind,))
    if program.needs > _NEEDS_2003:
        needs = ".".join(map(str, program.needs))
        raise Unusable(path.name, f"is {title}, which needs Windows {needs} or later", (kind,))
    if kind is MediaKind.KB968930 and re.search(r"Windows ?XP", program.words, re.IGNORECASE):
        raise Unusable(path.name, f"is KB968930 for Windows XP ({title})", (kind,))
    facts = {"arch": program.machine, "version": program.number, "language": program.language}
    if original := program.strings.get("OriginalFilename"):
        facts["original_name"] = original
    return Identity(kind=kind, title=title, facts={k: v for k, v in facts.items() if v})
