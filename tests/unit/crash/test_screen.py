from __future__ import annotations

import contextlib
import random
from pathlib import Path

import pytest
from PIL import Image

from lab.core.errors import UsageError
from lab.crash import screen, vgafont
from lab.crash.vgafont import Font

BLUE = (0, 0, 170)
WHITE = (255, 255, 255)

BLUE_SCREEN = """\
A problem has been detected and Windows has been shut down to prevent damage
to your computer.

The problem seems to be caused by the following file: xenvbd.sys

DRIVER_IRQL_NOT_LESS_OR_EQUAL

Technical information:

*** STOP: 0x000000D1 (0x0000001C,0x00000002,0x00000001,0xF7A3C1B2)

***     xenvbd.sys - Address F7A3C1B2 base at F7A3C000, DateStamp 4733a8c1

Beginning dump of physical memory"""


def made_font(height=14, seed=3):
    """A font of our own: shapes that a font has to have, random ones for the rest."""
    chance = random.Random(seed)  # noqa: S311
    glyphs = [bytes(height)] * 256
    for code in range(0x21, 0xFF):
        body = [chance.randrange(1, 128) << 1 for _ in range(height - 4)]
        glyphs[code] = bytes([0, 0, *body, 0, 0])

    def shape(char, rows):
        glyphs[ord(char)] = bytes(rows.get(row, 0) for row in range(height))

    shape("-", {height // 2: 0x7C})
    shape("_", {height - 2: 0xFE})
    shape(".", {height - 4: 0x30, height - 3: 0x30})
    shape("'", {2: 0x18, 3: 0x18})
    shape("|", dict.fromkeys(range(1, height - 1), 0x10))
    shape("=", {height // 2 - 1: 0x7C, height // 2 + 2: 0x7C})
    return Font(height, tuple(glyphs), "made")


def drawn(
    text,
    font,
    *,
    across=8,
    down=None,
    columns=80,
    rows=None,
    left=0,
    top=0,
    ink=WHITE,
    paper=BLUE,
    inverse=(),
):
    down = down or font.height
    lines = text.split("\n")
    height = top + down * (rows or len(lines))
    picture = Image.new("RGB", (left + across * columns, height), paper)
    for number, line in enumerate(lines):
        for column, char in enumerate(line):
            for row, bits in enumerate(font.glyphs[ord(char)]):
                for bit in range(8):
                    if (bits >> (7 - bit) & 1) != (number in inverse):
                        place = left + column * across + bit, top + number * down + row
                        picture.putpixel(place, ink)
    return picture


def lines_of(text):
    return tuple(line.rstrip() for line in text.split("\n"))


@pytest.mark.parametrize(
    ("height", "across", "down"), [(16, 9, 16), (16, 8, 16), (13, 8, 14), (8, 8, 8), (14, 8, 14)]
)
def test_every_layout_of_text_modes_is_read(height, across, down):
    font = made_font(height)
    read = screen.read_screen(drawn(BLUE_SCREEN, font, across=across, down=down), [font])
    assert read.lines == lines_of(BLUE_SCREEN)
    assert (read.layout.across, read.layout.down, read.unknown) == (across, down, 0)


def test_the_right_one_of_several_fonts_is_taken():
    fonts = [made_font(16, 1), made_font(14, 2), made_font(13, 3)]
    read = screen.read_screen(drawn(BLUE_SCREEN, fonts[2], down=14), fonts)
    assert read.layout.font is fonts[2]
    assert read.lines == lines_of(BLUE_SCREEN)


def test_an_enlarged_screen_and_one_with_a_border():
    font = made_font(16)
    picture = drawn(BLUE_SCREEN, font, across=9)
    large = picture.resize((picture.width * 2, picture.height * 2), Image.Resampling.NEAREST)
    assert screen.read_screen(large, [font]).lines == lines_of(BLUE_SCREEN)
    framed = drawn(BLUE_SCREEN, font, left=5, top=11)
    assert screen.read_screen(framed, [font]).lines == lines_of(BLUE_SCREEN)


def test_inverse_text_is_read():
    font = made_font(16)
    read = screen.read_screen(drawn(BLUE_SCREEN, font, inverse=(5,)), [font])
    assert read.lines == lines_of(BLUE_SCREEN)


def test_a_speck_is_tolerated_and_told_and_a_blot_is_not_guessed():
    font = made_font(16)
    picture = drawn(BLUE_SCREEN, font)
    picture.putpixel((0, 0), WHITE)
    picture.paste(WHITE, (8, 0, 14, 9))
    read = screen.read_screen(picture, [font])
    assert (read.near, read.unknown) == (1, 1)
    assert (
        read.lines[0]
        == BLUE_SCREEN.split("\n")[0][0] + screen.UNKNOWN + BLUE_SCREEN.split("\n")[0][2:]
    )


def test_what_is_no_text_is_not_read():
    font = made_font(16)
    chance = random.Random(5)  # noqa: S311
    noise = Image.frombytes("L", (320, 200), chance.randbytes(64000)).point(
        lambda v: 255 * (v > 128)
    )
    assert screen.read_screen(noise, [font]) is None
    assert screen.read_screen(Image.new("RGB", (640, 480)), [font]) is None
    photograph = Image.frombytes("RGB", (100, 100), chance.randbytes(30000))
    assert screen.read_screen(photograph, [font]) is None
    assert screen.read_screen(Image.new("L", (3, 3)), [font]) is None


def test_the_blue_screen_becomes_a_fact():
    font = made_font(13)
    read = screen.read_screen(drawn(BLUE_SCREEN, font, down=14), [font])
    (fact,) = screen.facts_on(read, "shot.png")
    assert (fact.kind, fact.code) == ("bugcheck", 0xD1)
    assert fact.parameters == (0x1C, 2, 1, 0xF7A3C1B2)
    assert (fact.name, fact.module) == ("DRIVER_IRQL_NOT_LESS_OR_EQUAL", "xenvbd")
    assert fact.frames[0].text() == "xenvbd+0x1b2"
    assert fact.modules[0].timestamp == 0x4733A8C1
    assert fact.sources["code"].text() == "screen shot.png, line 10"
    assert fact.notes == ()


def test_a_stop_line_broken_at_the_edge_is_joined():
    stop = (
        "*** STOP: 0x0000000A (0xFFFFFADFE47C1B20,0x0000000000000002,0x0000000000000000,"
        "0xFFFFF80001028C8A)"
    )
    font = made_font(13)
    text = f"IRQL_NOT_LESS_OR_EQUAL\n{stop[:80]}\n{stop[80:]}"
    read = screen.read_screen(drawn(text, font), [font])
    (fact,) = screen.facts_on(read, "shot.png")
    assert fact.parameters[0] == 0xFFFFFADFE47C1B20
    assert fact.parameters[3] == 0xFFFFF80001028C8A


def test_a_stop_line_that_cannot_be_read_is_told():
    font = made_font(13)
    picture = drawn(BLUE_SCREEN, font)
    picture.paste(WHITE, (8 * 12, 13 * 9, 8 * 14, 13 * 10))
    (fact,) = screen.facts_on(screen.read_screen(picture, [font]), "shot.png")
    assert fact.code is None
    assert fact.module == "xenvbd"
    assert any("stop code" in note for note in fact.notes)


def test_a_linux_guest_s_panic_is_read_too():
    text = "xenvbd: attached\nKernel panic - not syncing: Fatal exception in interrupt"
    font = made_font(16)
    read = screen.read_screen(drawn(text, font, across=9), [font])
    (fact,) = screen.facts_on(read, "shot.png")
    assert fact.kind == "panic"
    assert screen.facts_on(screen.read_screen(drawn("login:", font), [font]), "x") == []


@pytest.mark.parametrize("height", [16, 13, 8])
def test_a_font_is_found_inside_of_a_file(height):
    font = made_font(height)
    chance = random.Random(height)  # noqa: S311
    data = chance.randbytes(3001) + bytes(500) + b"".join(font.glyphs) + chance.randbytes(2000)
    (found,) = vgafont.fonts_in(data, "bootvid.dll")
    assert found.height == height
    read = screen.read_screen(drawn(BLUE_SCREEN, font, down=14 if height == 13 else None), [found])
    assert read.lines == lines_of(BLUE_SCREEN)


def test_files_without_a_font_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "file"
    for raw in (b"", bytes(vgafont.MAX_FILE), random.Random(1).randbytes(1 << 16)):  # noqa: S311
        path.write_bytes(raw)
        with pytest.raises(UsageError, match="no font"):
            vgafont.load_fonts(path)
    path.write_bytes(b"SZDD" + bytes(100))
    with pytest.raises(UsageError, match="expand"):
        vgafont.load_fonts(path)
    path.write_bytes(bytes(vgafont.MAX_FILE + 1))
    with pytest.raises(UsageError, match="too large"):
        vgafont.load_fonts(path)
    monkeypatch.delenv(vgafont.FONT_VARIABLE, raising=False)
    with pytest.raises(UsageError, match="seabios"):
        vgafont.default_fonts(places=())


def test_fonts_can_be_named(tmp_path, monkeypatch):
    path = tmp_path / "bootvid.dll"
    path.write_bytes(b"MZ" + b"".join(made_font(13).glyphs))
    monkeypatch.setenv(vgafont.FONT_VARIABLE, str(path))
    (font,) = vgafont.default_fonts(places=())
    assert (font.height, font.source) == (13, "bootvid.dll")
    picture = tmp_path / "shot.png"
    drawn(BLUE_SCREEN, made_font(13), down=14).save(picture)
    assert screen.recognise(picture.read_bytes()[:64], "shot.png")
    assert screen.read(picture)[0].code == 0xD1


def test_the_vga_bios_of_this_machine_reads_its_own_screens():
    rom = Path("/usr/share/seabios/vgabios-stdvga.bin")
    if not rom.is_file():
        pytest.skip("no VGA BIOS installed")
    fonts = vgafont.load_fonts(rom)
    assert [font.height for font in fonts] == [16, 14, 8]
    printable = "".join(map(chr, range(0x20, 0x7F)))
    text = f"{printable[:40]}\n{printable[40:]}\n{BLUE_SCREEN}"
    for font in fonts:
        for across in (8, 9):
            read = screen.read_screen(drawn(text, font, across=across), fonts)
            assert read.lines == lines_of(text)
            assert read.layout.font is font


def test_pictures_are_opened_or_refused(tmp_path):
    picture = drawn(BLUE_SCREEN, made_font(8))
    path = tmp_path / "shot.ppm"
    picture.save(path)
    assert screen.recognise(path.read_bytes()[:16], "x")
    assert screen.open_picture(path).tobytes() == picture.tobytes()
    same = screen.from_rgb(picture.tobytes(), *picture.size)
    assert same.tobytes() == picture.tobytes()
    with pytest.raises(UsageError, match="not 5 x 5 pixels"):
        screen.from_rgb(b"abc", 5, 5)
    path.write_bytes(b"P6\n100000 100000\n255\n")
    with pytest.raises(UsageError, match="pixels"):
        screen.open_picture(path)
    path.write_bytes(b"hello")
    with pytest.raises(UsageError, match="neither"):
        screen.open_picture(path)
    with pytest.raises(UsageError):
        screen.open_picture(tmp_path / "none.png")


def test_damaged_pictures_never_escape(tmp_path):
    path = tmp_path / "shot.png"
    drawn("*** STOP", made_font(8), columns=20).save(path)
    whole = path.read_bytes()
    chance = random.Random(11)  # noqa: S311
    for _ in range(150):
        raw = bytearray(whole[: chance.randrange(len(whole))] if chance.random() < 0.5 else whole)
        for _ in range(chance.randrange(4)):
            if raw:
                raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
        path.write_bytes(bytes(raw))
        with contextlib.suppress(UsageError):
            screen.read_screen(screen.open_picture(path), [made_font(8)])
