"""Bitmap fonts of text screens, found inside the files that hold them anyway.

No font is shipped. The fonts of text modes (8 pixels wide, 8, 14 and 16 high) are in every VGA
BIOS, and QEMU's is installed with the lab. The blue screen of Windows XP and Server 2003 is
graphics: its font is in the ``bootvid.dll`` of that Windows, which the user has. Both are plain
tables of one byte a row and 256 glyphs in the order of their codes, and are recognised by what
some glyphs have to look like in any font.

Sources: IBM VGA technical reference, character generator (one byte a row, highest bit left);
ReactOS, drivers/base/bootvid/precomp.h and fontdata.c (13 rows, 256 glyphs, the same order).
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.core.errors import UsageError

WIDTH = 8
"""Pixels of a glyph's width: one byte."""

HEIGHTS = (16, 14, 13, 12, 11, 10, 9, 8)
"""Heights that are looked for, in pixels; 13 is that of bootvid."""

FONT_VARIABLE = "PVLAB_SCREEN_FONT"
"""Environment variable with files to search for fonts, before the usual ones."""

MAX_FILE = 256 << 10
"""Largest file that is searched for fonts, in bytes; a VGA BIOS has 40 KiB."""

_PLACES = (
    "/usr/share/seabios/vgabios-stdvga.bin",
    "/usr/share/vgabios/vgabios-stdvga.bin",
    "/usr/share/qemu/vgabios-stdvga.bin",
    "/usr/share/qemu/vgabios.bin",
    "/usr/lib/xen-4.17/boot/vgabios-stdvga.bin",
    "/usr/local/share/qemu/vgabios-stdvga.bin",
)
"""Where distributions put QEMU's VGA BIOS (Debian: package seabios)."""

_INK = re.compile(rb"[^\0]")
_LETTERS = tuple(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")


@dataclass(frozen=True, slots=True)
class Font:
    """A font of fixed width.

    Attributes:
        height: rows of a glyph.
        glyphs: 256 glyphs, each of ``height`` bytes, by code (code page 437 in a VGA BIOS).
        source: the file it was found in.
    """

    height: int
    glyphs: tuple[bytes, ...]
    source: str


def fonts_in(data: bytes, source: str) -> list[Font]:
    """All fonts in a file's content, larger ones first.

    Args:
        data: a VGA BIOS, a ``bootvid.dll`` (not the packed ``bootvid.dl_``), a raw font.
        source: the file's name.
    """
    found: list[Font] = []
    for height in HEIGHTS:
        for base in _tables(data, height):
            glyphs = tuple(data[base + code * height :][:height] for code in range(256))
            if all(glyphs != one.glyphs for one in found):
                found.append(Font(height, glyphs, source))
    return found


def load_fonts(path: Path) -> list[Font]:
    """The fonts in a file.

    Raises:
        UsageError: it cannot be read, or holds none.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from None
    if len(data) > MAX_FILE:
        raise UsageError(f"{path}: too large for a VGA BIOS or a bootvid.dll")
    found = fonts_in(data, path.name)
    if not found:
        packed = data.startswith((b"SZDD", b"MSCF"))
        raise UsageError(
            f"{path}: no font of a text screen in it",
            hint="it is packed: expand it first" if packed else "",
        )
    return found


def default_fonts(places: Sequence[str] = _PLACES) -> list[Font]:
    """The fonts of the files named in the environment, and of the first VGA BIOS installed.

    Raises:
        UsageError: there are none, or a named file holds none.
    """
    named = [one for one in os.environ.get(FONT_VARIABLE, "").split(os.pathsep) if one]
    found = [font for one in named for font in load_fonts(Path(one))]
    for place in places:
        if Path(place).is_file():
            return found + load_fonts(Path(place))
    if not found:
        raise UsageError(
            "no font to read a screen with",
            hint=f"apt-get install seabios, or name a VGA BIOS in {FONT_VARIABLE}",
        )
    return found


def _tables(data: bytes, height: int) -> Iterator[int]:
    """Offsets of font tables; of neighbouring candidates the one that cuts no glyph."""
    size = 256 * height
    blank = bytes(height)
    run: list[int] = []
    at = data.find(blank, 32 * height)
    while 0 <= at <= len(data) - (size - 32 * height):
        base = at - 32 * height
        if run and base > run[-1] + 1:
            yield _least_cut(data, height, run)
            run = []
        if _looks_like_font(data, base, height):
            run.append(base)
        ink = _INK.search(data, at)
        if ink is None:
            break
        # The dash is 13 glyphs behind the blank: longer stretches of zeros are passed over.
        at = data.find(blank, max(at + 1, ink.start() - 14 * height))
    if run:
        yield _least_cut(data, height, run)


def _least_cut(data: bytes, height: int, bases: Sequence[int]) -> int:
    def ink(base: int) -> int:
        tops = sum(data[base + code * height] != 0 for code in _LETTERS)
        return tops + sum(data[base + code * height + height - 1] != 0 for code in _LETTERS)

    return min(bases, key=ink)


def _looks_like_font(data: bytes, base: int, height: int) -> bool:
    def glyph(char: str) -> bytes:
        start = base + ord(char) * height
        return data[start : start + height]

    def inked(char: str) -> list[int]:
        return [row for row, bits in enumerate(glyph(char)) if bits]

    dash = inked("-")
    if not (1 <= len(dash) <= 2 and dash[-1] - dash[0] == len(dash) - 1):
        return False
    if not height // 4 <= dash[0] <= 3 * height // 4 or glyph("-")[dash[0]].bit_count() < 3:
        return False
    line = inked("_")
    if not line or len(line) > 2 or line[0] < height // 2 or line[0] <= dash[-1]:
        return False
    dot, tick, pipe = inked("."), inked("'"), inked("|")
    if not dot or dot[0] < height // 2 - 1 or not tick or tick[-1] > height * 2 // 3:
        return False
    if len(pipe) < height // 2 or len({glyph("|")[row] for row in pipe}) != 1:
        return False
    equals = inked("=")
    gaps = sum(after - before > 1 for before, after in itertools.pairwise(equals))
    if not 2 <= len(equals) <= 4 or gaps != 1:
        return False
    letters = [data[base + code * height :][:height] for code in _LETTERS]
    return bytes(height) not in letters and len(set(letters)) >= len(letters) - 2
