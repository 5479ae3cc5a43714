"""What xend of Xen 3.x leaves on disk: its log, which rotates, and the cores that it dumps."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from lab.core.errors import UsageError

#: Where xend dumps cores by itself: as released, and as Enterprise Linux moves it for SELinux.
DUMP_FOLDERS = ("/var/xen/dump", "/var/lib/xen/dump")

# XendDomainInfo.dumpCore: strftime("%Y-%m%d-%H%M.%S"), then NAME.DOMID.core; a name may hold
# anything but a slash. What could not be dumped to the end is renamed.
_CORE = re.compile(
    r"(?P<time>\d{4}-\d{4}-\d{4}\.\d{2})-(?P<name>[^/]+)\.(?P<domid>\d+)\.core(?P<bad>-incomplete)?"
)

# XendLogging.py: "[%(asctime)s %(process)d] %(levelname)s (%(module)s:%(lineno)d) %(message)s";
# up to 3.0 the logger's name stood where the process id stands.
_LINE = re.compile(
    r"\[(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (?P<who>\S+)\] (?P<level>[A-Z]+) "
    r"\((?P<module>\w+):(?P<line>\d+)\) (?P<text>.*)"
)


@dataclass(frozen=True, slots=True)
class AutoCore:
    """A core that xend dumped of a domain that crashed.

    Attributes:
        file: its name.
        time: when, on dom0's clock.
        name: the domain's name.
        domid: the domain's id.
        complete: whether the dump came to its end.
    """

    file: str
    time: datetime
    name: str
    domid: int
    complete: bool

    @classmethod
    def parse(cls, file: str) -> AutoCore | None:
        """Read a file's name; None when xend does not name cores like that."""
        match = _CORE.fullmatch(file)
        if match is None:
            return None
        try:
            time = datetime.strptime(match["time"], "%Y-%m%d-%H%M.%S")
        except ValueError:
            return None
        return cls(file, time, match["name"], int(match["domid"]), match["bad"] is None)


@dataclass(frozen=True, slots=True)
class XendLine:
    """One message of xend's log.

    Attributes:
        time: on dom0's clock, without a zone.
        level: ``DEBUG``, ``INFO``, ``WARNING``, ``ERROR``, ``CRITICAL``.
        module: module of xend.
        text: the message; a trace that follows it is part of it.
    """

    time: datetime
    level: str
    module: str
    text: str

    @property
    def trouble(self) -> bool:
        """Whether xend calls it worse than information."""
        return self.level in ("WARNING", "WARN", "ERROR", "CRITICAL")


def rotated(folder: Path, name: str = "xend.log") -> tuple[Path, ...]:
    """A log and those it was rotated to (``xend.log.1`` is the youngest), oldest first."""
    old = [
        (int(path.suffix[1:]), path)
        for path in folder.glob(f"{name}.*")
        if path.suffix[1:].isdecimal()
    ]
    current = folder / name
    return (
        *(path for _, path in sorted(old, reverse=True)),
        *([current] if current.exists() else []),
    )


def read_log(folder: Path) -> Iterator[XendLine]:
    """xend's log as ``lab.xen.logs.collect`` left it, over all rotations, oldest first.

    Raises:
        UsageError: a file cannot be read.
    """
    try:
        yield from parse_log(
            line
            for path in rotated(folder)
            for line in path.read_text(errors="replace").splitlines()
        )
    except OSError as error:
        raise UsageError(f"cannot read {error.filename}: {error.strerror}") from error


def parse_log(lines: Iterable[str]) -> Iterator[XendLine]:
    """Parse xend's log; what precedes the first whole message is left out."""
    current: XendLine | None = None
    more: list[str] = []
    for line in lines:
        match = _LINE.fullmatch(line)
        if match is None:
            more.append(line)
            continue
        if current is not None:
            yield _joined(current, more)
        more = []
        time = datetime.strptime(match["time"], "%Y-%m-%d %H:%M:%S")
        current = XendLine(time, match["level"], match["module"], match["text"])
    if current is not None:
        yield _joined(current, more)


def _joined(line: XendLine, more: list[str]) -> XendLine:
    return XendLine(line.time, line.level, line.module, "\n".join([line.text, *more]).rstrip())
