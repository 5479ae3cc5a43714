"""Collecting one test's evidence without ever making things worse."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.core.atomic import atomic_write
from lab.core.deadline import Deadline
from lab.core.errors import PvlabError
from lab.evidence.compress import SUFFIXES
from lab.evidence.manifest import CRASH, FULL, MANIFEST_NAME, Manifest, Piece, PieceName
from lab.evidence.pull import Answer, Named, SourceFailed, encoded, pull
from lab.evidence.sink import Tail, Written, save_compressed
from lab.evidence.slug import slug
from lab.evidence.sources import Content, Sources

MIB = 1 << 20
READ_SIZE = 256 * 1024
ERROR_LENGTH = 300
# Share of a piece's time that its source gets on top, to report its own expiry.
GRACE = 0.1

FILES: Mapping[PieceName, str] = {
    PieceName.GUEST_SERIAL: "guest-serial.log",
    PieceName.XEN_SERIAL: "xen-serial.log",
    PieceName.TIMINGS: "timings.json",
    PieceName.XENSTORE_VBD: "xenstore-vbd.txt",
    PieceName.XL_DMESG: "xl-dmesg.txt",
    PieceName.DBGVIEW: "dbgview.log",
}

CORE_STEM = "core"
# Names that logs from dom0 and pieces of the test's own may not take.
RESERVED = frozenset([MANIFEST_NAME, *FILES.values(), *(CORE_STEM + suffix for suffix in SUFFIXES)])


@dataclass(frozen=True, slots=True)
class Limit:
    """What one piece may cost.

    Attributes:
        seconds: with KVM; the collector's ``factor`` multiplies it.
        bytes: size of its file, or of each of its files.
    """

    seconds: float
    bytes: int


# Generous against what the pieces take when all is well; they exist for when it is not.
LIMITS: Mapping[PieceName, Limit] = {
    PieceName.GUEST_SERIAL: Limit(5.0, 4 * MIB),
    PieceName.XEN_SERIAL: Limit(5.0, 4 * MIB),
    PieceName.TIMINGS: Limit(5.0, MIB),
    PieceName.XENSTORE_VBD: Limit(5.0, MIB),
    PieceName.XL_DMESG: Limit(5.0, MIB),
    PieceName.TOOLSTACK_LOGS: Limit(10.0, 2 * MIB),
    PieceName.DBGVIEW: Limit(10.0, 16 * MIB),
    PieceName.CORE: Limit(60.0, 512 * MIB),
}


class Collector:
    """Collects one test's evidence into ``tests/SLUG/`` of a run's folder.

    Each piece is a file that is whole or not there, and ``evidence.json`` is rewritten after
    each piece, so a kill at any moment leaves a folder that tells the truth. No error leaves
    this class: a piece that cannot be had is listed with its reason.

    Args:
        sources: where the pieces come from.
        run_folder: the run's folder, ``results/RUN-ID``.
        test_id: pytest's node id.
        factor: multiplies the pieces' deadlines, for emulated processors.
        limits: what each piece may cost.
    """

    def __init__(
        self,
        sources: Sources,
        run_folder: Path,
        test_id: str,
        *,
        factor: float = 1.0,
        limits: Mapping[PieceName, Limit] = LIMITS,
    ) -> None:
        self._sources = sources
        self._run_folder = run_folder
        self._test_id = _clean(test_id)
        self._factor = factor
        self._limits = limits
        self._pieces: dict[str, Piece] = {}
        self._files: dict[str, str] = {}
        self._complete = False
        self.folder = run_folder / "tests" / slug(test_id)

    @property
    def relative(self) -> str:
        """The folder relative to the run's, with forward slashes, for ``TestRecord.evidence``."""
        return self.folder.relative_to(self._run_folder).as_posix()

    @property
    def manifest(self) -> Manifest:
        """What was collected so far, even where the manifest's file could not be written."""
        return Manifest(
            test_id=self._test_id,
            complete=self._complete,
            pieces=tuple(self._pieces.values()),
        )

    def collect(self, deadline: Deadline, pieces: Collection[PieceName] = FULL) -> Manifest:
        """Collect pieces in the order of ``PieceName``.

        Calling it again adds to the folder: a piece collected twice is replaced, unless the
        second try got nothing.

        Args:
            deadline: for all of them together; pieces that find no time left are listed so.
            pieces: which; ``LIGHT``, ``FULL`` or ``CRASH``, or any others.

        Returns:
            What the folder now holds and lacks.
        """
        self._complete = False
        for name in PieceName:
            if name in pieces:
                self._collect(name, deadline)
        self._complete = True
        self._save_manifest()
        return self.manifest

    def add(self, name: str, content: Content) -> Piece:
        """Keep something that the test itself has at hand, a traceback for example.

        Args:
            name: of the piece; its file is called the same, unsafe characters replaced.
            content: text or bytes, kept whole.

        Returns:
            The piece, with ``error`` set when it could not be written.
        """
        started = time.monotonic()
        data = encoded(content)
        tail = Tail(limit=max(len(data), 1))
        tail.put(data)
        return self._save(name, name, started, lambda path: tail.save(path), None)

    def _collect(self, name: PieceName, deadline: Deadline) -> None:
        started = time.monotonic()
        limit = self._limits[name]
        # What is on this machine is read whatever the time: it costs nothing.
        local = name in (PieceName.TIMINGS, PieceName.XEN_SERIAL)
        if deadline.expired and not local:
            self._record(Piece(name=name, seconds=0.0, error="no time was left to collect it"))
            return
        seconds = limit.seconds * self._factor
        mine = Deadline(seconds) if local else deadline.at_most(seconds)
        data = pull(name, self._call(name), mine, grace=GRACE * seconds)
        with contextlib.closing(data):
            if name is PieceName.CORE:
                self._core(data, limit.bytes, started)
            else:
                self._logs(name, data, limit.bytes, started)

    def _call(self, name: PieceName) -> Callable[[Deadline], Answer]:
        calls: dict[PieceName, Callable[[Deadline], Answer]] = {
            PieceName.GUEST_SERIAL: self._sources.guest_serial,
            PieceName.XEN_SERIAL: lambda _: _read(self._sources.xen_serial()),
            PieceName.TIMINGS: lambda _: _as_json(self._sources.timings()),
            PieceName.XENSTORE_VBD: self._sources.xenstore_vbd,
            PieceName.XL_DMESG: self._sources.xl_dmesg,
            PieceName.TOOLSTACK_LOGS: self._sources.toolstack_logs,
            PieceName.DBGVIEW: self._sources.dbgview,
            PieceName.CORE: self._sources.dump_core,
        }
        return calls[name]

    def _logs(self, name: PieceName, data: Iterator[Named], limit: int, started: float) -> None:
        """Write one log, or one of each name that the source has."""
        tails: dict[str, Tail] = {}
        error: Exception | None = None
        try:
            for log, chunk in data:
                tails.setdefault(log, Tail(limit)).put(chunk)
        except Exception as failure:
            error = failure
        for log, tail in tails.items():
            piece, file = (f"{name}/{log}", log) if log else (str(name), FILES.get(name, name))
            self._save(piece, file, started, tail.save, error)
        if not tails:
            why = _one_line(error) if error else "the source has none"
            self._record(Piece(name=name, seconds=time.monotonic() - started, error=why))

    def _core(self, data: Iterator[Named], limit: int, started: float) -> None:
        chunks = (chunk for _, chunk in data)
        self._save(
            PieceName.CORE,
            CORE_STEM,
            started,
            lambda path: save_compressed(path.parent, path.name, chunks, limit),
            None,
        )

    def _save(
        self,
        name: str,
        file: str,
        started: float,
        write: Callable[[Path], Written],
        error: Exception | None,
    ) -> Piece:
        """Write one piece and list it, whatever happens."""
        why = _one_line(error) if error else None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            written = write(self.folder / self._file_name(name, file))
        except Exception as failure:
            return self._record(
                Piece(
                    name=_clean(name),
                    seconds=time.monotonic() - started,
                    error=why or _one_line(failure),
                )
            )
        if written.error is not None:
            why = _one_line(written.error)
        return self._record(
            Piece(
                name=_clean(name),
                path=written.path.name,
                bytes=written.bytes,
                sha256=written.sha256,
                seconds=time.monotonic() - started,
                error=why,
                truncated=written.truncated,
            )
        )

    def _file_name(self, piece: str, wanted: str) -> str:
        """A safe file name that no other piece has."""
        if piece in CRASH:
            return wanted
        if piece not in self._files:
            safe = re.sub(r"[^A-Za-z0-9._-]+", "-", wanted).strip("-.")[:100] or "piece"
            # Compared without case, or a copy onto some other system's disk merges two files.
            taken = RESERVED | {name.lower() for name in self._files.values()}
            candidates = itertools.chain([safe], (f"{n}-{safe}" for n in itertools.count(2)))
            self._files[piece] = next(c for c in candidates if c.lower() not in taken)
        return self._files[piece]

    def _record(self, piece: Piece) -> Piece:
        old = self._pieces.get(piece.name)
        if old is not None and old.path is not None and piece.path is None:
            piece = old.model_copy(
                update={"error": f"from an earlier collection; the next one failed: {piece.error}"}
            )
        self._pieces[piece.name] = piece
        self._save_manifest()
        return piece

    def _save_manifest(self) -> None:
        # A disk that is full has failed the piece itself and been listed; ``manifest`` has it.
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            text = self.manifest.model_dump_json(indent=2)
            atomic_write(self.folder / MANIFEST_NAME, text.encode() + b"\n")


def _clean(text: str) -> str:
    """Text that has a UTF-8 form."""
    return text.encode("utf-8", "backslashreplace").decode()


def _one_line(error: Exception) -> str:
    """Why a piece is missing, for people."""
    cause: BaseException = error.error if isinstance(error, SourceFailed) else error
    text = str(cause) if isinstance(cause, PvlabError) else f"{type(cause).__name__}: {cause}"
    text = " ".join(_clean(text).split()).removesuffix(":")
    return text if len(text) <= ERROR_LENGTH else text[: ERROR_LENGTH - 3] + "..."


def _read(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        # Of an empty file one empty chunk, so that it counts as read.
        yield stream.read(READ_SIZE)
        while chunk := stream.read(READ_SIZE):
            yield chunk


def _as_json(timings: Mapping[str, float]) -> str:
    return json.dumps(dict(timings), indent=2) + "\n"
