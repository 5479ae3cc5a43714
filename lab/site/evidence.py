"""One failure's evidence, read for its pages; whatever is missing or damaged is said."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from lab.core.errors import UsageError
from lab.crash import reader
from lab.crash.facts import CrashFact
from lab.crash.incidents import incidents
from lab.crash.text import blocks, decode
from lab.evidence.manifest import Manifest, Piece, PieceName, load_manifest
from lab.evidence.operations import (
    CLOCKS_NAME,
    OPERATIONS_NAME,
    Clocks,
    Operations,
    load_clocks,
    load_operations,
)
from lab.results.text import visible

MOST_LINES = 20_000
"""Lines of a log that the site shows, its last; the file has all."""

LINE_LENGTH = 2_000
"""Characters of a line that are shown."""

MOST_IMAGE = 4 << 20
"""Largest picture that is shown, in bytes; a screen of 1024 by 768 has some ten thousand."""

#: PNG (third edition), 5.2: the signature that every file begins with.
_PNG = b"\x89PNG\r\n\x1a\n"

LOGS = {
    PieceName.DBGVIEW: "DbgView",
    PieceName.GUEST_SERIAL: "Guest serial port",
    PieceName.XEN_SERIAL: "Xen and dom0 console",
    PieceName.XL_DMESG: "Hypervisor messages",
    PieceName.XENSTORE_VBD: "xenstore, vbd nodes",
}
_TEXT = re.compile(r"\.(?:txt|log|json|yaml|yml|xml|cfg)$")


@dataclass(frozen=True, slots=True)
class Log:
    """A text of the evidence.

    Attributes:
        name: of the piece.
        title: what it is.
        file: its name in the evidence folder.
        first: number of the first line that is shown, counted from 1.
        lines: those that are shown, made visible.
        piece: its line in the manifest.
    """

    name: str
    title: str
    file: str
    first: int
    lines: tuple[str, ...]
    piece: Piece

    @property
    def cut(self) -> int:
        """Lines at the beginning that are not shown."""
        return self.first - 1


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a test left.

    Attributes:
        folder: where; None when the test has no evidence.
        problem: why it cannot be read; empty when it can.
        manifest: what it holds.
        logs: its texts.
        operations: what the test did when; None when that was not recorded.
        clocks: readings that put the logs on one clock; None when there are none.
        pictures: name and PNG.
        facts: of its crashes.
        notes: pieces that could not be read, each with why.
    """

    folder: Path | None
    problem: str = ""
    manifest: Manifest | None = None
    logs: tuple[Log, ...] = ()
    operations: Operations | None = None
    clocks: Clocks | None = None
    pictures: tuple[tuple[str, bytes], ...] = ()
    facts: tuple[CrashFact, ...] = ()
    notes: tuple[str, ...] = ()

    def log(self, name: str) -> Log | None:
        """The text of this name, if it is there."""
        return next((log for log in self.logs if log.name == name), None)

    def log_of_file(self, file: str) -> Log | None:
        """The text in this file, if it is one of those shown."""
        return next((log for log in self.logs if log.file == file), None)


def read(folder: Path | None) -> Evidence:
    """Read a test's evidence folder; never raises for what is in it.

    Args:
        folder: it; None when the test has none.
    """
    if folder is None:
        return Evidence(None, problem="no evidence was collected")
    if not folder.is_dir():
        return Evidence(folder, problem="the evidence is no longer there")
    try:
        manifest = load_manifest(folder)
    except UsageError as error:
        return Evidence(folder, problem=error.message)
    logs: list[Log] = []
    pictures: list[tuple[str, bytes]] = []
    notes: list[str] = []
    for piece in manifest.pieces:
        path = _inside(folder, piece)
        if path is None:
            continue
        try:
            if path.suffix == ".png":
                pictures.append((piece.name, _picture(path)))
            elif _TEXT.search(path.name):
                logs.append(_log(piece, path))
        except (OSError, UsageError) as error:
            notes.append(f"{piece.name}: {error}")
    operations = clocks = None
    try:
        if (folder / OPERATIONS_NAME).is_file():
            operations = load_operations(folder / OPERATIONS_NAME)
        if (folder / CLOCKS_NAME).is_file():
            clocks = load_clocks(folder / CLOCKS_NAME)
    except UsageError as error:
        notes.append(error.message)
    order = {str(name): place for place, name in enumerate(LOGS)}
    return Evidence(
        folder=folder,
        manifest=manifest,
        logs=tuple(sorted(logs, key=lambda log: order.get(log.name, len(order)))),
        operations=operations,
        clocks=clocks,
        pictures=tuple(pictures),
        facts=_facts(folder, logs),
        notes=tuple(notes),
    )


def _inside(folder: Path, piece: Piece) -> Path | None:
    """A piece's file, if it is the folder's own: a manifest from elsewhere may name any path."""
    if piece.path is None:
        return None
    path = folder / piece.path
    return path if path.is_file() and path.resolve().is_relative_to(folder.resolve()) else None


def _picture(path: Path) -> bytes:
    if path.stat().st_size > MOST_IMAGE:
        raise UsageError(f"larger than {MOST_IMAGE >> 20} MiB: not shown")
    data = path.read_bytes()
    if not data.startswith(_PNG):
        raise UsageError("not a PNG picture: not shown")
    return data


def _log(piece: Piece, path: Path) -> Log:
    kept: deque[str] = deque(maxlen=MOST_LINES)
    count = 0
    for block in blocks(path):
        for raw in block.removesuffix(b"\n").split(b"\n"):
            count += 1
            kept.append(_line(raw))
    title = LOGS.get(PieceName(piece.name)) if piece.name in set(PieceName) else None
    return Log(
        name=piece.name,
        title=title or piece.name,
        file=path.name,
        first=count - len(kept) + 1,
        lines=tuple(kept),
        piece=piece,
    )


def _line(raw: bytes) -> str:
    text = visible(decode(raw).rstrip("\r"))
    more = len(text) - LINE_LENGTH
    return text if more <= 0 else f"{text[:LINE_LENGTH]} ... {more} more characters"


def _facts(folder: Path, logs: list[Log]) -> tuple[CrashFact, ...]:
    """What the logs say of crashes. A core dump is left to ``pvlab crash``: it takes minutes."""
    telling = (PieceName.GUEST_SERIAL, PieceName.DBGVIEW, PieceName.XL_DMESG, PieceName.XEN_SERIAL)
    found: list[CrashFact] = []
    for log in logs:
        if log.name in telling:
            try:
                found += reader.read(folder / log.file)
            except UsageError:
                continue
    return tuple(incidents(found))
