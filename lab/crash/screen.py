"""Text from a picture of a guest's screen, and the blue screen's facts from the text.

The picture has to show the screen pixel by pixel: a VNC capture, QEMU's ``screendump``, or
either of them enlarged by a whole number. Every cell is compared with the glyphs of the fonts
of ``lab.crash.vgafont``; nothing is guessed from blurred pictures.
"""

from __future__ import annotations

import bisect
import functools
import itertools
import operator
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from lab.core.errors import UsageError
from lab.crash import bugchecks, oops
from lab.crash.draft import Draft, hexadecimal, module_name
from lab.crash.facts import CrashFact, Frame, Module
from lab.crash.text import Line
from lab.crash.vgafont import WIDTH, Font, default_fonts

if TYPE_CHECKING:
    from PIL.Image import Image

READER = "screen"

MAX_PIXELS = 16 << 20
"""Largest picture, in pixels: 4096 times 4096."""

UNKNOWN = "\N{REPLACEMENT CHARACTER}"
"""Stands for a cell that is no glyph of the font."""

_COLOURS = 4096  # more of them are a photograph, not a text screen
_SAMPLE = 160  # cells with ink that are enough to judge a layout
_SURE = 0.97  # share of them that are glyphs, for no other layout to be tried
_ENOUGH = 0.6  # share below which there is no text on the screen
_FEWEST = 3
_LARGEST_SCALE = 4
_SHIFT = 3  # rows by which a font's empty rows may leave its true beginning open
_LARGE = 2 << 20  # pixels above which only whole screens are looked for
_MISSES = 2  # pixels by which a cell may differ from its glyph


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the cells of a screen are, in pixels.

    Attributes:
        font: whose glyphs they show.
        across: from one cell to the next: 8, or 9 in the text mode with 720 pixels.
        down: from one line to the next: the font's height, or one more for bootvid.
        left: of the first cell.
        top: of the first line; negative where the font begins with rows that the screen cuts.
    """

    font: Font
    across: int
    down: int
    left: int
    top: int


@dataclass(frozen=True, slots=True)
class ScreenText:
    """What a screen says.

    Attributes:
        lines: from the top, without trailing blanks; unknown cells are ``UNKNOWN``.
        columns: cells in a line.
        layout: how it was read.
        unknown: how many cells could not be read.
        near: how many differ by a few pixels from the glyph they are taken for.
    """

    lines: tuple[str, ...]
    columns: int
    layout: Layout
    unknown: int
    near: int

    def text(self) -> tuple[str, list[int]]:
        """The lines, with those joined that only the screen's edge has broken.

        Returns:
            The text, and where in it each line of the screen begins.
        """
        joined, begins = "", []
        for line in self.lines:
            begins.append(len(joined))
            joined += line if len(line) == self.columns else line + "\n"
        return joined, begins


class _Bitmap:
    """Which pixels differ from the background: one number a row, the left pixel highest."""

    def __init__(self, rows: Sequence[int], width: int) -> None:
        self._rows = [0] * _SHIFT + list(rows)
        self.width = width
        self.height = len(rows)

    def band(self, top: int, height: int) -> list[int]:
        """The rows of a line; those above the picture are empty."""
        return self._rows[top + _SHIFT : top + _SHIFT + height]


class _Glyphs:
    """A font turned around: the character for what a cell shows."""

    def __init__(self, font: Font) -> None:
        self.table: dict[bytes, str] = {}
        # Plain characters win over code page 437's others where both look the same.
        order = [*range(0x20, 0x7F), *range(0x80, 0x100)]
        shown = bytes(range(256)).decode("cp437")
        for code in order:
            char = shown[code]
            self.table.setdefault(font.glyphs[code], char if char.isprintable() else " ")
        for code in range(0x20, 0x7F):
            # Text on a bar of the text's colour.
            inverse = bytes(bits ^ 0xFF for bits in font.glyphs[code])
            self.table.setdefault(inverse, self.table[font.glyphs[code]])

    def exact(self, cell: bytes) -> str | None:
        return self.table.get(cell)

    def nearest(self, cell: bytes) -> str:
        """The glyph that differs least, if by few pixels and no other does as little."""
        value = int.from_bytes(cell, "big")
        best: list[tuple[int, str]] = sorted(
            ((int.from_bytes(bits, "big") ^ value).bit_count(), char)
            for bits, char in self.table.items()
        )[:2]
        if best[0][0] > _MISSES or (best[1][0] == best[0][0] and best[1][1] != best[0][1]):
            return UNKNOWN
        return best[0][1]


def read_screen(picture: Image, fonts: Sequence[Font]) -> ScreenText | None:
    """Read the text on a screen.

    Args:
        picture: of any mode.
        fonts: to be tried.

    Returns:
        The text; None when there is none, or none in these fonts.
    """
    bitmap = _bitmap(picture)
    if bitmap is None:
        return None
    best: tuple[float, Layout] | None = None
    tables = {id(font): _Glyphs(font) for font in fonts}
    for layout in _layouts(bitmap, fonts):
        share = _share(bitmap, layout, tables[id(layout.font)])
        if best is None or share > best[0]:
            best = share, layout
        if share >= _SURE:
            break
    if best is None or best[0] < _ENOUGH:
        return None
    return _read(bitmap, best[1], tables[id(best[1].font)])


def open_picture(path: Path) -> Image:
    """Open a PNG or PPM picture, whole.

    Raises:
        UsageError: it is none, is damaged, or is too large.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path, formats=("PNG", "PPM")) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise UsageError(f"{path}: {opened.width} x {opened.height} pixels are no screen")
            return opened.convert("RGB")
    except UnidentifiedImageError:
        raise UsageError(f"{path}: neither a PNG nor a PPM picture") from None
    except Image.DecompressionBombError:
        raise UsageError(f"{path}: too many pixels for a screen") from None
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        # Pillow raises all of these for damaged pictures.
        raise UsageError(f"{path}: damaged picture: {' '.join(str(error).split())}") from None


def from_rgb(data: bytes, width: int, height: int) -> Image:
    """A picture from raw pixels, three bytes each, top left first.

    Raises:
        UsageError: there are not as many.
    """
    from PIL import Image

    if not 0 < width * height <= MAX_PIXELS or len(data) != 3 * width * height:
        raise UsageError(f"{len(data)} bytes are not {width} x {height} pixels")
    return Image.frombytes("RGB", (width, height), data)


def recognise(head: bytes, name: str) -> bool:
    """Whether a file begins as a PNG (RFC 2083, 3.1) or a raw PPM (netpbm, ppm(5))."""
    return head.startswith(b"\x89PNG\r\n\x1a\n") or re.match(rb"P6\s", head) is not None


def read(path: Path) -> list[CrashFact]:
    """The crash that a picture of a screen shows, if it shows one.

    Raises:
        UsageError: it cannot be read, no font is there, or it shows no text.
    """
    screen = read_screen(open_picture(path), default_fonts())
    if screen is None:
        raise UsageError(
            f"{path}: no text in a font that is known here",
            hint="for Windows XP and 2003 name its bootvid.dll in PVLAB_SCREEN_FONT",
        )
    return facts_on(screen, path.name)


_STOP = re.compile(
    r"\*\*\* STOP: 0x([0-9A-F]{8})\s*\(((?:0x)?[0-9A-F]{8,16}(?:,\s*(?:0x)?[0-9A-F]{8,16}){3})\)",
    re.IGNORECASE,
)
_STOP_LIKE = re.compile(r"\*\*\* ?STOP")
_NAME = re.compile(r"^([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)$", re.MULTILINE)
_CAUSED = re.compile(r"caused by the following file: *(\S+)")
_IMAGE = re.compile(
    r"\*\*\* +(\S+) - Address ([0-9A-F]{8,16}) base at ([0-9A-F]{8,16}), DateStamp ([0-9A-F]{8})",
    re.IGNORECASE,
)
"""Source of these: Microsoft Learn, Windows drivers, Debugger, "Blue screen data"; ReactOS,
ntoskrnl/ke/bug.c, KiDisplayBlueScreen and KiDumpParameterImages."""


def facts_on(screen: ScreenText, file: str) -> list[CrashFact]:
    """The crash that a screen tells of: a blue screen, or a Linux guest's oops or panic.

    Args:
        screen: its text.
        file: the picture's name.
    """
    text, begins = screen.text()
    if _STOP_LIKE.search(text) is None:
        lines = [Line(number, line) for number, line in enumerate(screen.lines, 1)]
        return oops.parse(lines, file, READER)
    draft = Draft(READER, file)
    draft.kind = "bugcheck"

    def row(place: int) -> int:
        return bisect.bisect_right(begins, place)

    if shown := _NAME.search(text):
        draft.put("name", shown[1], row(shown.start()))
    if stop := _STOP.search(text):
        code = hexadecimal(stop[1])
        draft.put("code", code, row(stop.start()))
        parameters = tuple(hexadecimal(one) for one in stop[2].split(","))
        draft.put("parameters", parameters, row(stop.start()))
        if name := bugchecks.name(code):
            draft.put("name", name, row(stop.start()))
    else:
        draft.note("the line with the stop code cannot be read")
    for image in _IMAGE.finditer(text):
        module, address = module_name(image[1]), hexadecimal(image[2])
        base, line = hexadecimal(image[3]), row(image.start())
        draft.put("module", module, line)
        draft.module(Module(image[1], base, base, hexadecimal(image[4])), line)
        if address >= base:
            draft.frame(Frame(module, None, address - base, address), line)
    if caused := _CAUSED.search(text):
        draft.put("module", module_name(caused[1]), row(caused.start()))
    if screen.unknown:
        draft.note(f"{screen.unknown} cells of the screen cannot be read")
    if screen.near:
        draft.note(f"{screen.near} cells of the screen are not quite like their glyphs")
    return [draft.fact()]


def _bitmap(picture: Image) -> _Bitmap | None:
    """Ink and background of a picture; None for a photograph or an empty screen."""
    from PIL import Image, ImageChops

    plain = picture.convert("RGB")
    colours = plain.getcolors(_COLOURS)
    if colours is None or len(colours) < 2:
        return None
    # The commonest colour is the background.
    counted = cast("list[tuple[int, tuple[int, ...]]]", colours)
    paper = max(counted, key=lambda one: one[0])[1]
    small = _unscaled(plain)
    differing = ImageChops.difference(small, Image.new("RGB", small.size, paper)).split()
    marked = [band.point(lambda value: 255 if value else 0) for band in differing]
    ink = ImageChops.lighter(ImageChops.lighter(marked[0], marked[1]), marked[2])
    packed = ink.convert("1", dither=Image.Dither.NONE).tobytes()
    # Each row is packed into whole bytes, its first pixel in the highest bit.
    stride = len(packed) // small.height
    spare = stride * 8 - small.width
    rows = [
        int.from_bytes(packed[at : at + stride], "big") >> spare
        for at in range(0, len(packed), stride)
    ]
    return _Bitmap(rows, small.width)


def _unscaled(picture: Image) -> Image:
    """The picture at its own size, where it was enlarged by a whole number."""
    from PIL.Image import Resampling

    for scale in range(_LARGEST_SCALE, 1, -1):
        if picture.width % scale or picture.height % scale:
            continue
        size = picture.width // scale, picture.height // scale
        small = picture.resize(size, Resampling.NEAREST)
        if small.resize(picture.size, Resampling.NEAREST).tobytes() == picture.tobytes():
            return small
    return picture


def _layouts(bitmap: _Bitmap, fonts: Sequence[Font]) -> Iterator[Layout]:
    """Layouts to try, likely ones first: whole screens before parts of one."""
    kinds = [
        (font, across, font.height + more)
        for font in fonts
        for more in (0, 1)
        for across in (8, 9)
        if bitmap.width >= across and bitmap.height >= font.height
    ]
    kinds.sort(key=lambda one: (bitmap.width % one[1] != 0, bitmap.height % one[2] != 0))
    for font, across, down in kinds:
        yield Layout(font, across, down, 0, 0)
    if bitmap.width * bitmap.height > _LARGE:
        return
    for font, across, down in kinds:
        for top in range(-_SHIFT, down):
            for left in range(across):
                yield Layout(font, across, down, left, top)


def _cells(bitmap: _Bitmap, layout: Layout) -> Iterator[tuple[int, int, bytes]]:
    """The cells that have ink: line, column and bits."""
    height = layout.font.height
    lefts = range(layout.left, bitmap.width - WIDTH + 1, layout.across)
    for line, top in enumerate(range(layout.top, bitmap.height - height + 1, layout.down)):
        rows = bitmap.band(top, height)
        ink = functools.reduce(operator.or_, rows)
        if not ink:
            continue
        for column, left in enumerate(lefts):
            shift = bitmap.width - left - WIDTH
            if ink >> shift & 0xFF:
                yield line, column, bytes(row >> shift & 0xFF for row in rows)


def _share(bitmap: _Bitmap, layout: Layout, glyphs: _Glyphs) -> float:
    """Which part of the cells with ink are glyphs."""
    seen = good = 0
    for _, _, cell in itertools.islice(_cells(bitmap, layout), _SAMPLE):
        seen += 1
        good += glyphs.exact(cell) is not None
    return good / seen if seen >= _FEWEST else 0.0


def _read(bitmap: _Bitmap, layout: Layout, glyphs: _Glyphs) -> ScreenText:
    columns = len(range(layout.left, bitmap.width - WIDTH + 1, layout.across))
    lines: list[list[str]] = []
    unknown = near = 0
    known: dict[bytes, str] = {}
    for line, column, cell in _cells(bitmap, layout):
        while len(lines) <= line:
            lines.append([" "] * columns)
        char = glyphs.exact(cell)
        if char is None:
            char = known.get(cell) or known.setdefault(cell, glyphs.nearest(cell))
            unknown += char == UNKNOWN
            near += char != UNKNOWN
        lines[line][column] = char
    shown = tuple("".join(line).rstrip() for line in lines)
    return ScreenText(shown, columns, layout, unknown, near)
