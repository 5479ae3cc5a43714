"""Tables as diskpart prints them: a header, a ruler of dashes, rows cut at the ruler's columns.

Column widths differ between Windows versions, so nothing but the ruler says where a column
begins; a column's text may run past its dashes only in the last column.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_RULER = re.compile(r"^\s*-{2,}(\s+-{2,})*\s*$")
_DASHES = re.compile(r"-{2,}")

# diskpart counts in powers of 1024 and rounds to three or four digits.
_UNITS = {"B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40}
_SIZE = re.compile(r"^\s*(\d+)\s*([KMGT]?B)(?:ytes)?\s*$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Row:
    """One row.

    Attributes:
        cells: text by column title, stripped.
        marked: whether a ``*`` stands before it: the selected object.
    """

    cells: dict[str, str]
    marked: bool

    def __getitem__(self, column: str) -> str:
        return self.cells.get(column, "")


def rows(text: str) -> Iterator[Row]:
    """Every row of every table in ``text``, in order.

    A table ends at the first empty line after its ruler.
    """
    spans: list[tuple[int, int | None]] | None = None
    titles: list[str] = []
    before = ""
    for line in text.splitlines():
        if _RULER.match(line):
            runs = [match.span() for match in _DASHES.finditer(line)]
            # A cell reaches to where the next one begins: sizes are right-aligned within
            # their dashes, the gap between two columns is always blank.
            spans = [
                (start, runs[i + 1][0] if i + 1 < len(runs) else None)
                for i, (start, _) in enumerate(runs)
            ]
            titles = [before[start:end].strip() for start, end in spans]
        elif not line.strip():
            spans = None
        elif spans is not None:
            yield Row(
                {
                    title: line[start:end].strip()
                    for title, (start, end) in zip(titles, spans, strict=True)
                },
                marked=line[: spans[0][0]].strip() == "*",
            )
        before = line


def size_bytes(text: str) -> int | None:
    """``75 GB`` in bytes, as exact as the text is; None for what is no size."""
    match = _SIZE.match(text)
    return int(match[1]) * _UNITS[match[2].upper()] if match else None


def number(text: str) -> int | None:
    """The number in ``Disk 0`` or ``Volume 12``; None for anything else."""
    match = re.fullmatch(r"[A-Za-z]+ (\d+)", text)
    return int(match[1]) if match else None
