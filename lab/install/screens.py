"""What a screen says about an installation: which part it is in, or why it does not go on.

Only text in a font that is known can be read (``lab.crash.screen``): the text mode of setup,
the BIOS, and blue screens if the user names a ``bootvid.dll``. Of GUI mode the picture alone is
kept, for people.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from lab.core.errors import UsageError
from lab.crash.screen import ScreenText, facts_on, open_picture, read_screen
from lab.crash.text import plain
from lab.crash.vgafont import Font, default_fonts


@dataclass(frozen=True, slots=True)
class Trouble:
    """A screen on which an installation has stopped.

    Attributes:
        name: of the kind of trouble, ``no-disk``.
        cause: what it is, one line.
        remedy: what to do about it.
        final: trying again does not help.
    """

    name: str
    cause: str
    remedy: str
    final: bool = True


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen.

    Attributes:
        text: the lines that could be read, without blank ones.
        part: which part of setup it is, in words; empty when unknown.
        trouble: why it does not go on, or None.
    """

    text: tuple[str, ...] = ()
    part: str = ""
    trouble: Trouble | None = None


# English texts of Server 2003's text mode (txtsetup.sif and setupdd.sys' messages) and of
# BIOSes. Other languages show as "unchanged screen", with the picture.
_TROUBLES: tuple[tuple[str, Trouble], ...] = (
    (
        r"did not find any hard disk drives",
        Trouble(
            "no-disk",
            "setup finds no hard disk",
            "the disk has to be an IDE one; see the machine's command line in install.log",
        ),
    ),
    (
        r"F8 ?= ?I agree|Windows Licensing Agreement",
        Trouble(
            "licence",
            "setup asks for the licence, so it has not read the answer file",
            "is WINNT.SIF on the floppy, and the floppy in drive A:? It must have OemSkipEula=Yes",
        ),
    ),
    (
        r"product key\b.*\b(not valid|invalid)|(invalid|not valid)\b.*\bproduct key",
        Trouble(
            "key-refused",
            "the product key is refused",
            "a key fits one edition and one kind of disc: retail, OEM or volume",
        ),
    ),
    (
        r"(product key|Product ID)\b.*\benter it again|type your product key",
        Trouble("key-wanted", "setup asks for a product key", "give one that fits the disc"),
    ),
    (
        r"Setup cannot copy the file|file .{1,60} (was not|cannot be) (copied|found)",
        Trouble(
            "file-missing",
            "setup misses a file on the disc",
            "compare the disc's hash with another copy",
        ),
    ),
    (
        r"not enough (free )?(disk )?space|does not have enough room",
        Trouble("disk-small", "the disk is too small", "raise disk_gib in install.toml"),
    ),
    (
        r"INF file .{1,60} is corrupt|Line \d+ of the INF file|"
        r"(SIF|answer) file .{0,60}(is missing|is corrupt|not valid)",
        Trouble(
            "file-bad", "setup does not understand a file it reads", "see the picture for which one"
        ),
    ),
    (
        r"Setup cannot continue",
        Trouble("refused", "setup refuses to go on", "see the picture for its reason"),
    ),
    (
        r"No bootable device|Boot failed: Could not read from CDROM|NTLDR is missing|"
        r"Error loading operating system|Missing operating system",
        Trouble(
            "nothing-boots",
            "the machine finds nothing to start from",
            "is the disc one that starts a PC?",
        ),
    ),
)
_PARTS = (
    (r"copying files", "text mode: copying files"),
    (r"formatting", "text mode: formatting"),
    (r"inspecting your computer", "text mode: looking at the hardware"),
    (r"Setup is (loading|starting)", "text mode: loading"),
    (r"Press F6|Press F2 to run", "text mode: loading"),
    (r"(Press any key to boot from CD|Booting from|SeaBIOS|iPXE)", "BIOS"),
    (r"Windows Setup|Setup is", "text mode"),
)


def look(screen: ScreenText | None) -> Look:
    """What the text of a screen says; nothing when there is none."""
    if screen is None:
        return Look()
    lines = tuple(line for line in map(plain, screen.lines) if line.strip())
    text = " ".join(line.strip() for line in lines)
    for fact in facts_on(screen, "screen"):
        if fact.kind == "bugcheck":
            return Look(lines, "", _blue(fact.name, fact.code))
    for pattern, trouble in _TROUBLES:
        if re.search(pattern, text, re.IGNORECASE):
            return Look(lines, "", trouble)
    part = next((name for pattern, name in _PARTS if re.search(pattern, text, re.I)), "")
    return Look(lines, part)


def look_at(picture: Path, fonts: list[Font]) -> Look:
    """What a picture of a screen says.

    Raises:
        UsageError: the picture is damaged.
    """
    return look(read_screen(open_picture(picture), fonts))


def known_fonts() -> list[Font]:
    """The fonts that screens are read in; none where none is installed."""
    try:
        return default_fonts()
    except UsageError:
        return []


def _blue(name: str | None, code: int | None) -> Trouble:
    what = " ".join(filter(None, (f"0x{code:08X}" if code is not None else "", name or "")))
    return Trouble(
        "blue-screen",
        f"a blue screen{': ' + what if what else ''}",
        "0x7B and 0x0A this early point at the machine's board or processor, not at the disc",
    )
