"""A driver package: the files under test, checked and with an identity."""

from __future__ import annotations

import hashlib
import struct
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lab.core.errors import UsageError
from lab.drivers import archive
from lab.drivers.inf import TARGET_ARCH, Inf, InfError, Service, parse

# xenvbd's device is a child of xenpci's, and xenhide hides the emulated disk that xenvbd
# replaces: the order in which the drivers' own instructions install them.
_ORDER = ("xenpci", "xenvbd", "xenhide")

KEPT = "driver"
"""Folder of the package among a run's results, and in a scenario's bundle."""

_PE_MACHINES = {0x014C: "x86", 0x8664: "amd64", 0x0200: "ia64", 0x01C0: "arm", 0xAA64: "arm64"}
_ELF_AMD64 = "amd64 ELF"
#: By EI_CLASS and e_machine (System V ABI, 4.1). The stand-ins' drivers are ELF, of two kinds.
_ELF_MACHINES = {(1, 3): TARGET_ARCH, (2, 62): _ELF_AMD64}


@dataclass(frozen=True, slots=True)
class PackageInf:
    """One INF of a package, for the guest's architecture.

    Attributes:
        path: relative to the package's folder.
        provider: who made it.
        class_name: device setup class.
        version: ``w.x.y.z``, or the date where the INF gives no number.
        date: ``yyyy-mm-dd``.
        hardware_ids: what it serves, in the INF's order.
        services: what it adds, in the INF's order.
        catalog: name of its catalog file; empty when it is unsigned.
        class_guid: of its device setup class; empty when the INF has none.
        sections: the install section of each hardware id.
    """

    path: PurePosixPath
    provider: str
    class_name: str
    version: str
    date: str
    hardware_ids: tuple[str, ...]
    services: tuple[Service, ...]
    catalog: str
    class_guid: str = ""
    sections: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class DriverPackage:
    """A package, ready to be installed.

    Attributes:
        folder: its files, in a place of the lab's own.
        source: where the user has it.
        files: every file, relative to ``folder``, sorted.
        identity: SHA-256 over the sorted pairs of path and file SHA-256: the same files give
            the same identity, whether they came from a folder or an archive.
        infs: in the order in which they are to be installed.
    """

    folder: Path
    source: Path
    files: tuple[PurePosixPath, ...]
    identity: str
    infs: tuple[PackageInf, ...]

    @classmethod
    def load(cls, path: Path, into: Path) -> DriverPackage:
        """Check a package and copy it to a place of the lab's own.

        Args:
            path: folder or zip archive.
            into: folder for copies; this one's is named by its identity.

        Raises:
            UsageError: in one line, why it is not a driver package for the guest.
        """
        into.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix="incoming-", dir=into))
        try:
            files = archive.take_in(path, scratch)
            infs = _read_infs(scratch, files, str(path))
            identity = _identity(scratch, files)
            folder = _settle(scratch, into / identity[:16], files, identity)
        finally:
            archive.discard(scratch)
        return cls(folder=folder, source=path, files=files, identity=identity, infs=infs)

    def keep(self, folder: Path) -> None:
        """Copy the files to a folder that is not there yet; it is whole, or not there.

        Raises:
            OSError: they cannot be copied.
        """
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
            whole = Path(scratch) / folder.name
            for file in self.files:
                (whole / file).parent.mkdir(parents=True, exist_ok=True)
                (whole / file).write_bytes((self.folder / file).read_bytes())
            whole.rename(folder)

    @property
    def name(self) -> str:
        """The INFs' names joined by ``+``: ``xenvbd`` or ``xenpci+xenvbd``."""
        return "+".join(inf.path.stem.lower() for inf in self.infs)

    @property
    def version(self) -> str:
        """The INFs' version, or versions in their order where they differ."""
        return ", ".join(dict.fromkeys(inf.version for inf in self.infs))

    @property
    def provider(self) -> str:
        """The INFs' provider, or providers in their order where they differ."""
        return ", ".join(dict.fromkeys(inf.provider for inf in self.infs if inf.provider))

    @property
    def hardware_ids(self) -> tuple[str, ...]:
        """Every hardware id served, each once."""
        return tuple(dict.fromkeys(one for inf in self.infs for one in inf.hardware_ids))

    @property
    def services(self) -> tuple[Service, ...]:
        """Every service added, in order."""
        return tuple(service for inf in self.infs for service in inf.services)

    @property
    def processor(self) -> str | None:
        """``x86``, ``amd64`` (of the PV stand-in's drivers only), or None when no file says."""
        found = {
            _architecture((self.folder / file).read_bytes())
            for file in self.files
            if file.suffix.lower() == ".sys"
        }
        if _ELF_AMD64 in found:
            return "amd64"
        return TARGET_ARCH if TARGET_ARCH in found else None

    @property
    def inf_paths(self) -> tuple[PurePosixPath, ...]:
        """The INFs, relative to ``folder``, in install order."""
        return tuple(inf.path for inf in self.infs)


def _read_infs(
    folder: Path, files: tuple[PurePosixPath, ...], source: str
) -> tuple[PackageInf, ...]:
    paths = [file for file in files if file.suffix.lower() == ".inf"]
    if not paths:
        raise UsageError(f"{source}: no INF file in it")
    counts = Counter(path.name.lower() for path in paths)
    if twice := next((path for path in paths if counts[path.name.lower()] > 1), None):
        raise UsageError(
            f"{source}: more than one {twice.name}", hint="give the folder of one build"
        )
    by_lower = {str(file).lower(): file for file in files}
    infs = []
    for path in paths:
        try:
            infs.append(_read_inf(folder, path, by_lower))
        except InfError as error:
            raise UsageError(f"{source}: {error.message}") from error

    def order(inf: PackageInf) -> tuple[int, str]:
        stem = inf.path.stem.lower()
        return (_ORDER.index(stem) if stem in _ORDER else len(_ORDER), stem)

    return tuple(sorted(infs, key=order))


def _read_inf(folder: Path, path: PurePosixPath, by_lower: dict[str, PurePosixPath]) -> PackageInf:
    """Read one INF and check that all it installs is there.

    Raises:
        InfError: it is not.
    """
    name = str(path)
    inf = parse((folder / path).read_bytes(), name)
    driver_ver = inf.driver_ver
    models = inf.models()
    if not models:
        others = ", ".join(sorted(one.upper() for one in inf.decorations() if one))
        if others and not inf.for_target:
            raise InfError(
                name, 0, f"nothing for {TARGET_ARCH} Windows Server 2003, only for {others[:80]}"
            )
        raise InfError(name, 0, "no hardware id: no model in the sections [Manufacturer] names")
    services: list[Service] = []
    for base in dict.fromkeys(model.install_section.lower() for model in models):
        install = inf.install_section(base)
        if install is None:
            line = next(m.line for m in models if m.install_section.lower() == base)
            raise InfError(name, line, f"no install section [{base}]")
        services += _check_install(folder, inf, path, install, by_lower)
    return PackageInf(
        path=path,
        provider=inf.provider,
        class_name=inf.class_name,
        version=driver_ver.version or driver_ver.date.isoformat(),
        date=driver_ver.date.isoformat(),
        hardware_ids=tuple(dict.fromkeys(model.hardware_id for model in models)),
        services=tuple(services),
        catalog=inf.catalog_file,
        class_guid=inf.class_guid,
        sections=tuple(
            (model.hardware_id, inf.install_section(model.install_section) or "")
            for model in models
        ),
    )


def _check_install(
    folder: Path,
    inf: Inf,
    path: PurePosixPath,
    install: str,
    by_lower: dict[str, PurePosixPath],
) -> tuple[Service, ...]:
    """Check one DDInstall section's files; returns its services.

    Raises:
        InfError: a file is missing or for another processor.
    """
    copied: set[str] = set()
    for file in inf.copied_files(install):
        copied.add(file.target.lower())
        where = inf.source_path(file.name)
        if where is None:
            if inf.uses_system_files:
                continue
            raise InfError(
                inf.name, file.line, f"{file.name} of [{file.section}] is not in [SourceDisksFiles]"
            )
        place = path.parent / where
        found = by_lower.get(str(place).lower()) if ".." not in place.parts else None
        if found is None:
            raise InfError(
                inf.name,
                file.line,
                f"no {file.name}, which [{file.section}] copies: looked for {place}",
            )
        if found.suffix.lower() == ".sys":
            arch = _architecture((folder / found).read_bytes())
            if arch not in (None, TARGET_ARCH, _ELF_AMD64):
                raise InfError(
                    inf.name, file.line, f"{found} is for {arch}, the guest is {TARGET_ARCH}"
                )
    services = inf.services(install)
    for service in services:
        if service.file_name.lower() not in copied and not inf.uses_system_files:
            raise InfError(
                inf.name,
                service.line,
                f"service {service.name} runs {service.file_name}, which [{install}] does not copy",
            )
    return services


def _architecture(data: bytes) -> str | None:
    """The processor a driver binary is for; None when the file does not say.

    PE: "PE Format", COFF file header. ELF: the stand-in guest's drivers.
    """
    if data[:2] == b"MZ" and len(data) >= 0x40:
        (at,) = struct.unpack_from("<I", data, 0x3C)
        if data[at : at + 4] == b"PE\0\0" and len(data) >= at + 6:
            (machine,) = struct.unpack_from("<H", data, at + 4)
            return _PE_MACHINES.get(machine, f"machine 0x{machine:04x}")
    elif data[:4] == b"\x7fELF" and len(data) >= 20:
        (machine,) = struct.unpack_from("<H", data, 18)
        return _ELF_MACHINES.get((data[4], machine), f"ELF machine {machine}")
    return None


def _identity(folder: Path, files: tuple[PurePosixPath, ...]) -> str:
    whole = hashlib.sha256()
    for file in files:
        digest = hashlib.sha256((folder / file).read_bytes()).hexdigest()
        # Neither part can hold a NUL or a line end, so no two packages run together.
        whole.update(f"{file}\0{digest}\n".encode())
    return whole.hexdigest()


def _settle(scratch: Path, folder: Path, files: tuple[PurePosixPath, ...], identity: str) -> Path:
    """Give the copy its final name; one already there is kept if it is whole."""
    try:
        scratch.rename(folder)
    except OSError:
        # Another load of the same package was first. Trust it as far as its hash goes.
        try:
            whole = _identity(folder, files) == identity
        except OSError:
            whole = False
        if not whole:
            archive.discard(folder)
            scratch.rename(folder)
    return folder
