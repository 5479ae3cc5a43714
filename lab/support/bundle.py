"""The bundle: a zip archive of what is known about a failure, with every secret removed.

Layout::

    README.txt      what this is
    manifest.json   every file with its hash; what was left out, and why
    doctor.json     what ``pvlab doctor`` says
    versions.json   of Python, packages, system, emulator, checkout
    lab.toml        the configuration
    media.json      which media there are; not their content
    run/            the run's record, and its tests' evidence as far as it is text
    bakes/          how hosts and guests started
    images/         manifests and logs of image builds

Only text goes in. What cannot be searched for secrets (pictures, dumps, disks) is left out and
named.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.metadata
import io
import json
import platform
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from lab import __version__
from lab.core.atomic import atomic_write
from lab.core.errors import LabBroken, UsageError
from lab.core.paths import repo_root
from lab.images.store import Store
from lab.media.store import MediaStore
from lab.place.stage import StageStore
from lab.qemu.emulator import system_emulator
from lab.results.folder import LATEST
from lab.support.secrets import Scrubber

SCHEMA_VERSION = 1
_EPOCH = (1980, 1, 1, 0, 0, 0)
_TEXT = (
    ".json", ".log", ".txt", ".xml", ".yaml", ".yml", ".toml", ".html", ".css", ".md", ".cfg",
    ".conf", ".ini", ".inf", ".sxp", ".csv", "",
)  # fmt: skip
#: Of a longer file, its beginning and its end go in, in bytes.
HEAD_BYTES = 1 << 20
TAIL_BYTES = 4 << 20

_README = """\
A support bundle of pvlab. manifest.json lists what is in it, and what was left out.

Passwords, keys, tokens and private keys were removed: the known ones of the machine by their
value, others by what they look like; [removed] stands in their place. Have a look yourself
before you send it: names of hosts, users and files are still in it.
"""


@dataclass
class Bundle:
    """What goes into the archive, in memory: text of a few megabytes.

    Attributes:
        scrubber: removes the secrets.
        files: content by name.
        left_out: names of what does not go in, with why.
    """

    scrubber: Scrubber
    files: dict[str, bytes] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def add_text(self, name: str, text: str) -> None:
        """Take a text, without its secrets."""
        self.files[self.scrubber.clean(name)] = self.scrubber.clean(text).encode()

    def add_json(self, name: str, value: object) -> None:
        """Take something as JSON."""
        self.add_text(name, json.dumps(value, indent=2, sort_keys=True, default=str) + "\n")

    def add_file(self, path: Path, name: str) -> None:
        """Take a file if it is text; note it otherwise."""
        plain, packed = name, path.suffix == ".gz"
        if packed:
            plain = name.removesuffix(".gz")
        if Path(plain).suffix.lower() not in _TEXT:
            self._leave(name, "not text, so it cannot be searched for secrets")
            return
        try:
            data = _ends_of(path, packed=packed)
        except (OSError, EOFError, gzip.BadGzipFile) as error:
            self._leave(name, f"cannot be read: {error}")
            return
        if b"\0" in data and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
            self._leave(name, "not text, so it cannot be searched for secrets")
            return
        wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
        self.add_text(plain, data.decode("utf-16" if wide else "utf-8", errors="replace"))

    def add_folder(self, folder: Path, name: str, *, skip: tuple[str, ...] = ()) -> None:
        """Take the files below a folder, but for some names; links are not followed."""
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.is_symlink() and path.name not in skip:
                self.add_file(path, f"{name}/{path.relative_to(folder).as_posix()}")

    def _leave(self, name: str, why: str) -> None:
        self.left_out[self.scrubber.clean(name)] = self.scrubber.clean(why)

    def archive(self) -> bytes:
        """The zip archive.

        Raises:
            LabBroken: a secret is still in it; says in which file.
        """
        listing = {
            name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in sorted(self.files.items())
        }
        self.add_json(
            "manifest.json",
            {
                "schema_version": SCHEMA_VERSION,
                "pvlab": __version__,
                "made": datetime.now(UTC).isoformat(timespec="seconds"),
                "files": listing,
                "left_out": self.left_out,
            },
        )
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in sorted(self.files.items()):
                archive.writestr(zipfile.ZipInfo(name, _EPOCH), data, zipfile.ZIP_DEFLATED)
        made = buffer.getvalue()
        check(made, self.scrubber)
        return made


def check(archive: bytes, scrubber: Scrubber) -> None:
    """Look through a finished archive for secrets, as whoever gets it could.

    Raises:
        LabBroken: there is one; says in which file.
    """
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        for name in opened.namelist():
            for what, data in (("name", name.encode()), ("content", opened.read(name))):
                if kind := scrubber.found(data):
                    raise LabBroken(
                        f"the bundle was not written: the {what} of one of its files, "
                        f"{scrubber.clean(name)}, still holds {kind}",
                        hint="this is a fault of pvlab's",
                    )


def find_run(results: Path, wanted: str | None) -> Path | None:
    """The folder of a run.

    Args:
        results: the results folder.
        wanted: a run's name or folder; the newest run when None.

    Returns:
        The folder; None when no run was asked for and there is none.

    Raises:
        UsageError: there is no such run.
    """
    if wanted is not None:
        for folder in (Path(wanted), results / wanted):
            if (folder / "run.json").is_file():
                return folder.resolve()
        raise UsageError(f"{wanted} is no run: no run.json in it", hint=f"runs are in {results}")
    latest = results / LATEST
    if (latest / "run.json").is_file():
        return latest.resolve()
    runs = sorted(path.parent for path in results.glob("*/run.json"))
    return runs[-1] if runs else None


def write_bundle(
    target: Path,
    scrubber: Scrubber,
    *,
    run: Path | None,
    config: Path | None,
    doctor: object,
    say: Callable[[str], None],
) -> dict[str, object]:
    """Collect everything and write the archive, whole or not at all.

    Args:
        target: the archive.
        scrubber: removes the secrets.
        run: a run's folder, or None.
        config: the ``lab.toml`` that is used, or None.
        doctor: what ``pvlab doctor`` says, as JSON values.
        say: told what is collected.

    Returns:
        ``files`` and ``left_out``: how many there are.

    Raises:
        LabBroken: a secret would have been in it: nothing is written.
        UsageError: the archive cannot be written.
    """
    bundle = Bundle(scrubber)
    bundle.add_text("README.txt", _README)
    bundle.add_json("doctor.json", doctor)
    bundle.add_json("versions.json", versions())
    if config is not None:
        bundle.add_file(config, "lab.toml")
    bundle.add_json("media.json", [medium.model_dump(mode="json") for medium in MediaStore().all()])
    if run is not None:
        say(f"collecting run {run.name}")
        bundle.add_folder(run, f"run/{run.name}")
    say("collecting logs of bakes and image builds")
    for folder in _folders(StageStore().root):
        for name in ("stage.json", "serial.log", "qemu.log"):
            if (folder / name).is_file():
                bundle.add_file(folder / name, f"bakes/{folder.name}/{name}")
    for folder in _folders(Store().root):
        for pattern in ("*/manifest.json", "*/build.log", "failed.log"):
            for path in sorted(folder.glob(pattern)):
                bundle.add_file(path, f"images/{path.relative_to(folder.parent).as_posix()}")
    say("searching it for secrets")
    data = bundle.archive()
    try:
        atomic_write(target, data)
    except OSError as error:
        raise UsageError(f"cannot write {target}: {error.strerror}") from error
    return {"files": len(bundle.files), "left_out": len(bundle.left_out), "bytes": len(data)}


def versions() -> dict[str, object]:
    """What this machine and this lab are."""
    packages = {}
    for requirement in importlib.metadata.requires("pvlab") or ():
        name = requirement.split(";")[0].split("[")[0]
        name = name.split(">")[0].split("=")[0].split("<")[0].split("~")[0].strip()
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            packages[name] = "not installed"
    emulator = _quietly(system_emulator)
    return {
        "pvlab": __version__,
        "checkout": _checkout(),
        "python": sys.version.split()[0],
        "system": platform.platform(),
        "machine": platform.machine(),
        "qemu": getattr(emulator, "label", str(emulator)),
        "packages": packages,
    }


def _checkout() -> str:
    done = subprocess.run(
        ["git", "-C", str(repo_root()), "describe", "--always", "--dirty", "--tags"],
        capture_output=True,
        text=True,
    )
    return done.stdout.strip() or "no git checkout"


def _quietly(what: Callable[[], object]) -> object:
    try:
        return what() or "none"
    except LabBroken as error:
        return error.message


def _folders(root: Path) -> Iterator[Path]:
    if root.is_dir():
        yield from (one for one in sorted(root.iterdir()) if one.is_dir() and one.name[0] != ".")


def _ends_of(path: Path, *, packed: bool) -> bytes:
    """A file's content; of a long one its beginning and its end."""
    if packed:
        with gzip.open(path) as stream:
            data = stream.read(HEAD_BYTES + TAIL_BYTES + 1)
            rest = b""
            while more := stream.read(TAIL_BYTES):
                rest = (rest + more)[-TAIL_BYTES:]
            if len(data) + len(rest) <= HEAD_BYTES + TAIL_BYTES:
                return data + rest
            return _joined(data[:HEAD_BYTES], (data + rest)[-TAIL_BYTES:])
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= HEAD_BYTES + TAIL_BYTES:
            return file.read()
        head = file.read(HEAD_BYTES)
        file.seek(size - TAIL_BYTES)
        return _joined(head, file.read(TAIL_BYTES))


def _joined(head: bytes, tail: bytes) -> bytes:
    # Whole lines only: half of a secret at the cut would be one that nobody knows.
    head = head[: head.rfind(b"\n") + 1]
    tail = tail[tail.find(b"\n") + 1 :]
    return head + b"[... left out ...]\n" + tail
