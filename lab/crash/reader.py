"""Whatever holds a crash report, read into facts: files, folders, archives, mails.

Every file is recognised by its content. What users send is hostile until proven otherwise: an
archive's names go through the rules for driver packages (``lab/drivers/archive.py``), and what
is unpacked has limits.
"""

from __future__ import annotations

import contextlib
import email
import email.message
import importlib
import os
import re
import stat
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import IO

from lab.core.errors import UsageError
from lab.crash import (
    bluescreenview,
    dbgview_log,
    dump,
    elfcore,
    eventlog,
    labrun,
    mail,
    oops,
    screen,
    windbg,
    xenlog,
)
from lab.crash.facts import CrashFact, Source
from lab.crash.kd import log as kd_log
from lab.crash.text import BLOCK, HEAD, blocks, head_text, is_text
from lab.drivers import archive

MAX_FILES = 2000
"""Most files of a folder, with all below it, that are looked at."""

MAX_DEPTH = 4
"""Archives, mails and compressed files inside each other, and folders eight times as deep."""

MAX_UNPACKED = 4 << 30
"""Most bytes that a compressed file may have: cores of guests have a few hundred MiB."""

MAX_STORED = 1 << 30
"""Most of them that are not zeros: zeros take no room on disk."""

MAX_TEXT = 128 << 20
"""Largest text, in bytes, that is read line by line. DbgView's logs have no limit."""

MAX_MAIL = 64 << 20

_GZIP = b"\x1f\x8b"
# RFC 8878, section 3.1.1: magic number of a frame.
_ZSTD = b"\x28\xb5\x2f\xfd"
# APPNOTE.TXT, sections 4.3.7 and 4.3.16: local header, and the end record of an empty archive.
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_HEADERS = re.compile(
    r"^(?:From|To|Subject|Date|Message-ID|Received|MIME-Version|Return-Path|Content-Type): ?\S",
    re.MULTILINE | re.IGNORECASE,
)
_FIRST_HEADER = re.compile(r"(?:From \S|[A-Za-z][A-Za-z-]{1,40}: ?\S)")
_TAG = re.compile(r"<(?:script|style)\b.{0,100000}?</(?:script|style)>|<[^>]{0,2000}>", re.S | re.I)
_BREAK = re.compile(r"<(?:br|/p|/div|/tr|/li)\b[^>]{0,200}>", re.IGNORECASE)

WHOLE_READERS: tuple[ModuleType, ...] = (dump, elfcore, screen, kd_log, labrun)
"""Readers of files that are of one kind from their first bytes on."""

TEXT_READERS: tuple[ModuleType, ...] = (bluescreenview, windbg, eventlog, xenlog, oops)
"""Readers of logs that may be pieces of a larger text; ``NEEDLES`` make the search quick."""


@dataclass(slots=True)
class Report:
    """Facts that came together: out of one file, folder or archive, or one test of the lab's.

    Attributes:
        facts: in the order of the files.
        of_test: whether it is a test of the lab's, which may have failed without a crash.
        build: the driver that the test ran on, in words; None when nothing tells.
    """

    facts: list[CrashFact] = field(default_factory=list)
    of_test: bool = False
    build: str | None = None


@dataclass(slots=True)
class Findings:
    """What a path holds.

    Attributes:
        reports: those with any facts; a run of the lab's has one for each failed test.
        skipped: files that were not read, each with the reason, one line each.
    """

    reports: list[Report] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    @property
    def facts(self) -> list[CrashFact]:
        """Of all reports."""
        return [fact for report in self.reports for fact in report.facts]


def read(path: Path) -> list[CrashFact]:
    """Read everything that a path holds.

    Args:
        path: a file, a folder, a zip archive, a mail, a file compressed with gzip or zstd, or
            a folder of this lab's results (a run's, or one test's evidence).

    Returns:
        One fact for each account of a crash.

    Raises:
        UsageError: nobody reads it, or it is damaged, or too large.
    """
    return examine(path).facts


def examine(path: Path) -> Findings:
    """Read everything that a path holds, and tell what was left out.

    Raises:
        UsageError: there is nothing in it that anybody reads.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="pvlab-crash-") as scratch:
            reading = _Reading(Path(scratch))
            reading.path(path)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from None
    found = reading.findings
    found.reports = [report for report in found.reports if report.facts]
    if not found.facts:
        why = f": {found.skipped[0]}" if found.skipped else ""
        raise UsageError(f"{path}: no crash report in it{why}")
    return found


class _Nothing(UsageError):
    """A log with no crash in it: an error where it was named, nothing where it lay about."""


class _Reading:
    def __init__(self, scratch: Path) -> None:
        self.findings = Findings([Report()])
        self._report = self.findings.reports[0]
        self._scratch = scratch
        self._folders = 0
        self._files = 0
        self._unzipped = 0

    def path(self, path: Path) -> None:
        """Read what the user named: here every error counts."""
        try:
            mode = path.stat().st_mode
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "no such file"
            raise UsageError(f"cannot read {path}: {reason}") from None
        if stat.S_ISDIR(mode):
            self._folder(path, "", 0)
        elif stat.S_ISREG(mode):
            self._file(path, path.name, 0)
        else:
            raise UsageError(f"{path}: neither a file nor a folder")

    # -- folders --------------------------------------------------------------------------

    def _folder(self, folder: Path, label: str, depth: int) -> None:
        if (folder / labrun.RECORD).is_file():
            self._run(folder, label)
            return
        if (folder / labrun.MANIFEST).is_file():
            with self._test() as report:
                self._try(label or folder.name, partial(self._recorded, folder, report))
                self._evidence(folder, label)
            return
        if depth > MAX_DEPTH * 8:
            self.findings.skipped.append(f"{label}: too many folders inside each other")
            return
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda one: one.name)
        for entry in found:
            name = f"{label}/{entry.name}" if label else entry.name
            if entry.is_symlink():
                continue
            if entry.is_dir():
                self._folder(Path(entry.path), name, depth + 1)
            elif entry.is_file():
                path = Path(entry.path)
                self._try(name, partial(self._file, path, name, 0))

    def _run(self, folder: Path, label: str) -> None:
        name = f"{label}/{labrun.RECORD}" if label else labrun.RECORD
        try:
            failed = labrun.failed(folder)
        except UsageError as error:
            self.findings.skipped.append(str(error))
            return
        for test in failed:
            with self._test() as report:
                self._tell(report, test, name)
                if test.evidence is not None and test.evidence.is_dir():
                    inside = test.evidence.relative_to(folder).as_posix()
                    self._evidence(test.evidence, f"{label}/{inside}" if label else inside)

    @contextlib.contextmanager
    def _test(self) -> Iterator[Report]:
        """Facts from now on are of one test of the lab's."""
        outer, self._report = self._report, Report(of_test=True)
        self.findings.reports.append(self._report)
        try:
            yield self._report
        finally:
            self._report = outer

    def _recorded(self, evidence: Path, report: Report) -> None:
        """What the record of its run says of one test's evidence."""
        test = labrun.of_test(evidence)
        if test is not None:
            self._tell(report, test, None)

    def _tell(self, report: Report, test: labrun.Failed, label: str | None) -> None:
        report.build = test.build
        if test.fact is not None:
            self._add([test.fact], label)

    def _evidence(self, folder: Path, label: str) -> None:
        """One test's evidence: logs and cores, and no prose."""
        for path in sorted(folder.rglob("*")):
            if path.is_symlink() or not path.is_file() or path.name == labrun.MANIFEST:
                continue
            name = path.relative_to(folder).as_posix()
            name = f"{label}/{name}" if label else name
            self._try(name, partial(self._file, path, name, 0, prose=False))

    def _try(self, label: str, action: Callable[[], None]) -> None:
        self._files += 1
        if self._files > MAX_FILES:
            if self._files == MAX_FILES + 1:
                self.findings.skipped.append(f"{label} and more: more than {MAX_FILES} files")
            return
        try:
            action()
        except _Nothing:
            # Most logs of a lab's run tell of no crash, and that is no news.
            return
        except UsageError as error:
            self.findings.skipped.append(str(error))
        except OSError as error:
            self.findings.skipped.append(f"{label}: {error.strerror or error}")

    # -- files ----------------------------------------------------------------------------

    def _file(self, path: Path, label: str, depth: int, *, prose: bool = True) -> None:
        with path.open("rb") as file:
            head = file.read(HEAD)
        if not head:
            raise _Nothing(f"{label}: empty")
        if depth > MAX_DEPTH:
            raise UsageError(f"{label}: too many archives inside each other")
        if head.startswith(_ZIP):
            self._zip(path, label, depth)
            return
        if head.startswith((_GZIP, _ZSTD)):
            unpacked, note = self._unpack(path, label, zstd=head.startswith(_ZSTD))
            before = len(self._report.facts)
            self._file(unpacked, label, depth + 1, prose=prose)
            if note:
                for at, fact in enumerate(self._report.facts[before:], before):
                    self._report.facts[at] = replace(fact, notes=(*fact.notes, note))
            return
        for reader in WHOLE_READERS:
            if reader.recognise(head, path.name):
                self._add(reader.read(path), label)
                return
        if labrun.is_account(head):
            raise _Nothing(f"{label}: what the lab tells of its own doings, no log of a crash")
        if not is_text(head):
            raise UsageError(f"{label}: not a kind of file that anybody here reads")
        if dbgview_log.recognise(head, path.name):
            self._add(dbgview_log.read(path), label)
            return
        if prose and _is_mail(head) and path.stat().st_size <= MAX_MAIL:
            self._mail(path, label, depth)
            return
        self._text(path, label, head, prose=prose)

    def _text(self, path: Path, label: str, head: bytes, *, prose: bool) -> None:
        if path.stat().st_size > MAX_TEXT:
            raise UsageError(
                f"{label}: larger than {MAX_TEXT >> 20} MiB and no DbgView log",
                hint="cut out the part around the crash",
            )
        if prose and mail.recognise(head, path.name):
            self._add(mail.read(path), label)
            return
        readers = _recognised(path)
        found = [fact for reader in readers for fact in reader.read(path)]
        if not found and prose and mail.mentions(head):
            found = mail.read(path)
        if not found:
            raise _Nothing(f"{label}: text without a crash that anybody here reads")
        self._add(found, label)

    def _add(self, facts: list[CrashFact], label: str | None) -> None:
        for fact in facts:
            self._report.facts.append(fact if label is None else _relabelled(fact, label))

    # -- containers -----------------------------------------------------------------------

    def _zip(self, path: Path, label: str, depth: int) -> None:
        target = self._new_folder()
        limits = replace(archive.REPORT, total=max(0, archive.REPORT.total - self._unzipped))
        try:
            members = archive.take_in(path, target, limits)
        finally:
            # Of archives in archives, and of several that lie side by side, all together count.
            files = [one for one in target.rglob("*") if one.is_file()]
            self._unzipped += sum(one.stat().st_size for one in files)
        for inside in members:
            name = f"{label}: {inside}"
            member = target / inside
            self._try(name, partial(self._file, member, name, depth + 1))

    def _unpack(self, path: Path, label: str, *, zstd: bool) -> tuple[Path, str]:
        """Unpack a compressed file; what a cut-off one still gives is kept.

        Returns:
            The file, and a note if it is not all there.
        """
        name = re.sub(r"\.(?:gz|zst)$", "", path.name) or "unpacked"
        target = self._new_folder() / name
        note = ""
        with path.open("rb") as packed, target.open("wb") as out:
            try:
                _copy(_unzstd(packed) if zstd else _gunzip(packed), out, label)
            except (EOFError, zlib.error) as error:
                note = f"truncated: the compressed file is damaged: {error}"
            except _zstd_error() as error:
                note = f"truncated: the compressed file is damaged: {error}"
        if target.stat().st_size == 0:
            raise UsageError(f"{label}: damaged or empty compressed file")
        return target, note

    def _mail(self, path: Path, label: str, depth: int) -> None:
        target = self._new_folder()
        parts = list(_parts(path.read_bytes(), target, path.name))
        for part, name in parts:
            inside = label if name is None else f"{label}: {name}"
            if name is None:
                self._try(inside, partial(self._body, part, inside))
            else:
                self._try(inside, partial(self._file, part, inside, depth + 1))

    def _body(self, text: Path, label: str) -> None:
        self._add(mail.read(text), label)

    def _new_folder(self) -> Path:
        self._folders += 1
        folder = self._scratch / str(self._folders)
        folder.mkdir()
        return folder


def _relabelled(fact: CrashFact, label: str) -> CrashFact:
    return replace(
        fact,
        sources={name: Source(one.reader, label, one.at) for name, one in fact.sources.items()},
    )


def _recognised(path: Path) -> list[ModuleType]:
    """The readers of logs that find theirs anywhere in a text."""
    found: list[ModuleType] = []
    left = list(TEXT_READERS)
    for block in blocks(path):
        for reader in tuple(left):
            if any(needle in block for needle in reader.NEEDLES) and reader.recognise(
                block, path.name
            ):
                left.remove(reader)
                found.append(reader)
        if not left:
            break
    return found


def _copy(source: Iterator[bytes], out: IO[bytes], label: str) -> None:
    size = stored = 0
    for chunk in source:
        size += len(chunk)
        if size > MAX_UNPACKED:
            raise UsageError(f"{label}: unpacks to more than {MAX_UNPACKED >> 30} GiB")
        if chunk.count(0) == len(chunk):
            out.seek(len(chunk), os.SEEK_CUR)
            out.truncate()
            continue
        stored += len(chunk)
        if stored > MAX_STORED:
            raise UsageError(f"{label}: unpacks to more than {MAX_STORED >> 30} GiB of data")
        out.write(chunk)


def _gunzip(packed: IO[bytes]) -> Iterator[bytes]:
    """Unpack gzip, member after member. The gzip module gives nothing of a cut-off file.

    Raises:
        EOFError: it ends too early.
        zlib.error: it is damaged.
    """
    # zlib.h, inflateInit2: a window of 32 KiB (15) plus 16 for a gzip header and trailer.
    stream = zlib.decompressobj(15 + 16)
    raw = b""
    while raw or (raw := packed.read(HEAD)):
        if stream.eof:
            # What pads the last member to a block of tape or disk is no member.
            raw = raw.lstrip(b"\0")
            if not raw:
                continue
            stream = zlib.decompressobj(15 + 16)
        if chunk := stream.decompress(raw, BLOCK):
            yield chunk
        raw = stream.unused_data if stream.eof else stream.unconsumed_tail
    # All input may be taken in while output is still waiting for room.
    while not stream.eof and (chunk := stream.decompress(b"", BLOCK)):
        yield chunk
    if not stream.eof:
        raise EOFError("it ends too early")


def _unzstd(packed: IO[bytes]) -> Iterator[bytes]:
    """Unpack zstd, with the standard library (Python 3.14 on) or a package.

    Raises:
        UsageError: there is neither.
    """
    try:
        reader = importlib.import_module("compression.zstd").ZstdFile(packed)
    except ImportError:
        try:
            package = importlib.import_module("zstandard")
        except ImportError:
            raise UsageError(
                "a file compressed with zstd needs the Python package zstandard",
                hint="pip install zstandard, or unpack the file first",
            ) from None
        reader = package.ZstdDecompressor().stream_reader(packed, read_across_frames=True)
    while chunk := reader.read(BLOCK):
        yield chunk


def _zstd_error() -> tuple[type[Exception], ...]:
    found: list[type[Exception]] = []
    for module in ("compression.zstd", "zstandard"):
        try:
            found.append(importlib.import_module(module).ZstdError)
        except ImportError:
            continue
    return tuple(found)


def _is_mail(head: bytes) -> bool:
    """Whether a file is a mail with its headers (RFC 5322), as mail programs save it."""
    text = head_text(head[:8192])
    return (
        _FIRST_HEADER.match(text) is not None
        and len({found[0].lower() for found in _HEADERS.finditer(text)}) >= 3
        and "mime-version:" in text.lower()
    )


def _parts(data: bytes, target: Path, name: str) -> Iterator[tuple[Path, str | None]]:
    """A mail's text, with None for its name, and its attachments."""
    try:
        message = email.message_from_bytes(data)
        bodies: list[str] = []
        attached: list[tuple[str, bytes]] = []
        for part in message.walk():
            if part.is_multipart() or len(attached) >= archive.MAX_FILES:
                continue
            payload = part.get_payload(decode=True)
            if not isinstance(payload, bytes) or not payload:
                continue
            file = part.get_filename()
            if file is None and part.get_content_maintype() == "text":
                bodies.append(_body(part, payload))
            else:
                attached.append((str(file or "attachment"), payload))
        heading = [f"{key}: {message[key]}" for key in ("Subject", "Date") if message[key]]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        # What the email package raises on headers that no standard allows.
        raise UsageError(f"{name}: damaged mail: {type(error).__name__}") from None
    body = target / "body.txt"
    text = "\n".join([*heading, "", *bodies])
    body.write_text(text, encoding="utf-8", errors="replace")
    yield body, None
    for number, (file, payload) in enumerate(attached, 1):
        safe = re.sub(r"[^A-Za-z0-9._-]+", "_", file)[-80:].lstrip(".") or "attachment"
        folder = target / str(number)
        folder.mkdir()
        (folder / safe).write_bytes(payload)
        yield folder / safe, safe


def _body(part: email.message.Message[str, str], payload: bytes) -> str:
    try:
        text = payload.decode(part.get_content_charset() or "utf-8", "replace")
    except LookupError:
        text = payload.decode("latin-1")
    if part.get_content_subtype() == "html":
        text = _TAG.sub("", _BREAK.sub("\n", text))
    return text.replace("\r\n", "\n")
