"""Free text in which somebody tells of a crash: mails, forum posts, notes.

Three things are taken out of it: what it names (stop codes, their names, drivers, systems),
what the person was doing (sentences such as "it crashes when I detach the disk"), and pieces
of logs that are quoted in it, which go to the readers of such logs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from lab.core.errors import UsageError
from lab.crash import bluescreenview, bugchecks, dbgview_log, eventlog, oops, windbg, xenlog
from lab.crash.draft import Draft, module_name
from lab.crash.facts import CrashFact, Kind, Source
from lab.crash.text import Line, head_text, lines

READER = "mail"

SAID = "said: "
"""How a note begins that holds a sentence about what was done or seen."""

LIMIT = 2 << 20
"""Most characters of a text that are read; what people write is far shorter."""

MAX_SAID = 12

_HEADER = re.compile(r"^(?:From|To|Subject|Date|Message-ID|Received|MIME-Version): ", re.MULTILINE)
_QUOTE = re.compile(r"^(?:\s{0,3}[>|]\s?)+")
_PERSON = re.compile(r"\b(?:I|I'm|I've|we|my|our|me|anyone|anybody|hi|hello)\b", re.I)
_CRASH = re.compile(
    r"\b(?:crash(?:es|ed|ing)?|b\.?s\.?o\.?d(?:s|'s)?|blue ?-?screen(?:s|ed|ing)?|bug ?-?checks?"
    r"|bugchecked|hang(?:s|ing)?|hung|fr[eo]ez(?:es|ing|e)|froze|frozen|lock(?:s|ed)? up"
    r"|panic(?:s|ked)?|dead ?locks?|dies|died|reboots? (?:by itself|itself)"
    r"|stop (?:error|code|0x))\b",
    re.IGNORECASE,
)
_HANG = re.compile(
    r"\b(?:hang(?:s|ing)?|hung|fr[eo]ez(?:es|ing|e)|froze|frozen|lock(?:s|ed)? up|dead ?locks?"
    r"|stops? responding)\b",
    re.IGNORECASE,
)
_BLUE = re.compile(
    r"(?<!\bno )(?<!\bno real )\b(?:b\.?s\.?o\.?d|blue ?-?screen|bug ?-?check)", re.IGNORECASE
)
_DOING = re.compile(
    r"\b(?:when(?:ever)?|while|after|during|if|as soon as|once|upon|every time|on|by|with)\b"
    r".{0,200}?"
    r"\b(?:(?:block-?)?(?:at|de)tach\w*|cop(?:y|ies|ied|ying)|format\w*|diskpart|reboot\w*"
    r"|shut(?:ting)? ?down|shutdown|suspend\w*|hibernat\w*|sav(?:e|ed|ing)|restor\w*|migrat\w*"
    r"|install\w*|uninstall\w*|unload\w*|disabl\w*|enabl\w*|boot(?:s|ed|ing)?|start(?:s|ed|ing)?"
    r"|vcpus?|gplpv|/gplpv|load|i/?o|writ\w*|read\w*|unplug\w*|remov\w*|add(?:s|ed|ing)?|dd"
    r"|iometer|memory|partition\w*|chkdsk|dump\w*|network|resum\w*|power\w*)\b",
    re.IGNORECASE | re.DOTALL,
)
_CODE = re.compile(
    r"\b(?:stop(?: code| error| message)?|bug ?-?check(?: code)?|bsod|blue ?-?screen(?: with)?"
    r"|error(?: code)?)[\s:=(-]{1,4}(?:0x([0-9a-f]{1,8})|([0-9a-f]{8}|[0-9a-f]{2,3}))\b",
    re.IGNORECASE,
)
_HEX = re.compile(r"\b0x([0-9a-f]{1,8})\b", re.IGNORECASE)
_PARAMETERS = re.compile(
    r"\(\s*0x([0-9a-f]{1,16})\s*,\s*0x([0-9a-f]{1,16})\s*,\s*0x([0-9a-f]{1,16})\s*,"
    r"\s*0x([0-9a-f]{1,16})\s*\)",
    re.IGNORECASE,
)
_NAME = re.compile(r"\b[A-Z][A-Z0-9]{2,}(?:_[A-Z0-9]+){1,9}\b")
_DRIVER_FILE = re.compile(r"\b([A-Za-z][\w-]{1,30})\.sys\b", re.IGNORECASE)
_DRIVER = re.compile(
    r"\b(xenpci|xenvbd|xenhide|xennet|xenscsi|xenstub|xenvif|xeniface|xen_blkfront)\b",
    re.IGNORECASE,
)
_SYSTEM = re.compile(
    r"\b(?:windows|win|w)[ -]?(?:server[ -]?)?(?:xp|vista|7|2000|2003|2008|2k[38]?)\b"
    r"(?:[ ,-]{1,3}(?:r2|sp ?\d|service pack \d|x64|x86|32[- ]?bit|64[- ]?bit|pae|server"
    r"|standard|enterprise)){0,5}",
    re.IGNORECASE,
)
_XEN = re.compile(r"\bxen[ -]?(?:version )?(\d\.\d(?:\.\d+)?(?:-\w+)?)", re.IGNORECASE)
_SUBJECT = re.compile(r"^Subject: (.{1,200})")
_DATE = re.compile(r"^Date: (.{5,80})")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n\s*\n")
_LOGGY = re.compile(
    r"^\s*(?:\(XEN\)|\[\s*\d+\.\d+\]|\d{8}\t|[0-9a-f]{8} [0-9a-f]{8} |\.?ModLoad:|[A-Z_]{5,}:"
    r"|kd>|\*{4,}|-{5,}|={5,})"
)

_CODES = {one.name: code for code, one in bugchecks.BUGCHECKS.items()}

_QUOTED_LOGS: tuple[ModuleType, ...] = (windbg, bluescreenview, eventlog, oops, xenlog)


def recognise(head: bytes, name: str) -> bool:
    """Whether a file's beginning is a person's own words about a crash."""
    text = head_text(head)
    if text.lstrip()[:1] in ("{", "[", "<"):
        return False
    headers = len(_HEADER.findall(text[:8000])) >= 2
    quoted = sum(bool(_QUOTE.match(line)) for line in text.split("\n")[:400]) >= 3
    prose = _PERSON.search(_prose_of(text)) is not None
    return (headers or quoted or prose) and (
        _CRASH.search(text) is not None or _names(text) is not None
    )


def mentions(head: bytes) -> bool:
    """Whether text that nobody else reads at least names a stop code or a crashed driver."""
    text = head_text(head)
    if text.lstrip()[:1] in ("{", "[", "<"):
        return False
    return _names(text) is not None or (
        _CRASH.search(text) is not None
        and (_DRIVER.search(text) or _DRIVER_FILE.search(text)) is not None
    )


def _names(text: str) -> str | None:
    return next((one[0] for one in _NAME.finditer(text) if one[0] in _CODES), None)


def _prose_of(text: str) -> str:
    return "\n".join(line for line in text.split("\n") if not _LOGGY.match(line))


def read(path: Path) -> list[CrashFact]:
    """Read a mail or another text of a person's.

    Returns:
        First what the person says, then one fact for each crash in quoted logs.

    Raises:
        UsageError: it cannot be read, or says nothing of a crash.
    """
    kept: list[Line] = []
    size = 0
    cut = False
    for line in lines(path):
        size += len(line.text) + 1
        if size > LIMIT:
            cut = True
            break
        kept.append(line)
    found = parse(kept, path.name)
    if not found:
        raise UsageError(f"{path.name}: no word of a crash in it")
    if cut:
        note = f"only the first {LIMIT >> 20} MiB were read"
        found = [replace(fact, notes=(*fact.notes, note)) for fact in found]
    return found


def parse(source: Sequence[Line], file: str) -> list[CrashFact]:
    """Read text that is in memory.

    Args:
        source: its lines.
        file: name for the facts' sources.
    """
    plain = [Line(line.number, _QUOTE.sub("", line.text, count=1)) for line in source]
    quoted = list(_logs(plain, file))
    told = _told(plain, file)
    if told is not None and quoted and told.kind == "unknown" and not told.notes:
        told = None
    return ([told] if told is not None else []) + quoted


def said(fact: CrashFact) -> tuple[str, ...]:
    """The sentences about what was done or seen when it crashed."""
    return tuple(note.removeprefix(SAID) for note in fact.notes if note.startswith(SAID))


def _logs(plain: list[Line], file: str) -> Iterator[CrashFact]:
    text = "\n".join(line.text for line in plain)
    data = text.encode("utf-8", "replace")
    for module in _QUOTED_LOGS:
        if module.recognise(data, file):
            for fact in module.parse(plain, file):
                yield _in_mail(fact)
    for fact in dbgview_log.parse(plain, file):
        yield _in_mail(fact)


def _in_mail(fact: CrashFact) -> CrashFact:
    return replace(
        fact,
        sources={
            name: Source(f"{READER}, quoted {one.reader}", one.file, one.at)
            for name, one in fact.sources.items()
        },
    )


@dataclass(frozen=True, slots=True)
class _Sentence:
    number: int
    text: str


def _told(plain: list[Line], file: str) -> CrashFact | None:
    """What the person says in words."""
    draft = Draft(READER, file)
    prose = [line for line in plain if not _LOGGY.match(line.text)]
    kinds: list[Kind] = []
    systems: list[str] = []
    drivers: dict[str, int] = {}
    for line in prose:
        _named(draft, line)
        for match in (*_DRIVER_FILE.finditer(line.text), *_DRIVER.finditer(line.text)):
            drivers.setdefault(module_name(match[1]), line.number)
        if (system := _SYSTEM.search(line.text)) and system[0] not in systems:
            systems.append(system[0])
            draft.put("system", ", ".join(systems[:3]), line.number, again=True)
        if xen := _XEN.search(line.text):
            draft.note(f"Xen {xen[1]}")
        if date := _DATE.match(line.text):
            draft.put("when", f"mail of {date[1]}", line.number)
    if drivers:
        # A file that is named, else a driver: the first one is whom the person suspects.
        first = next(iter(drivers))
        draft.put("module", first, drivers[first])
        if len(drivers) > 1:
            draft.note("drivers named: " + ", ".join(list(drivers)[:12]))
    count = 0
    for sentence in _sentences(prose):
        telling = _CRASH.search(sentence.text) is not None
        doing = _DOING.search(sentence.text) is not None
        if telling:
            kinds.append("bugcheck" if _BLUE.search(sentence.text) else
                         "hang" if _HANG.search(sentence.text) else "unknown")  # fmt: skip
        if (telling or doing) and count < MAX_SAID and (telling or kinds or draft.has("code")):
            count += 1
            draft.note(SAID + sentence.text)
            if telling and doing:
                draft.put("message", sentence.text, sentence.number)
    subject = next((found for line in prose if (found := _SUBJECT.match(line.text))), None)
    if subject is not None:
        draft.note(f"subject: {subject[1].strip()}")
    if subject is not None and _CRASH.search(subject[1]):
        draft.put("message", subject[1].strip(), 1)
    if draft.has("code") or draft.has("name"):
        draft.kind = "bugcheck"
    else:
        draft.kind = next((kind for kind in kinds if kind != "unknown"), "unknown")
        if not kinds:
            return None
        if not draft.has("message") and count:
            told = next(one for one in _sentences(prose) if _CRASH.search(one.text))
            draft.put("message", told.text, told.number)
    return draft.fact() if draft.knows() else None


def _named(draft: Draft, line: Line) -> None:
    """Stop codes, by number or by name, and the parameters behind them."""
    text = line.text
    if not draft.has("code"):
        for found in _CODE.finditer(text):
            code = int(found[1] or found[2], 16)
            if found[1] or bugchecks.lookup(code) is not None:
                draft.put("code", code, line.number)
                break
        else:
            if _CRASH.search(text) or _names(text):
                # A bare number counts where the same line speaks of a crash.
                known = (int(one[1], 16) for one in _HEX.finditer(text))
                code_or_none = next(
                    (one for one in known if one > 9 and bugchecks.lookup(one) is not None), None
                )
                draft.put("code", code_or_none, line.number)
    name = _names(text)
    if name is not None:
        draft.put("name", name, line.number)
        if draft.get("name") == name:
            draft.put("code", _CODES[name], line.number)
    if draft.has("code") and (given := _PARAMETERS.search(text)):
        draft.put("parameters", tuple(int(one, 16) for one in given.groups()), line.number)


def _sentences(prose: list[Line]) -> Iterator[_Sentence]:
    """Sentences, across the line breaks of mails, each with the line where it begins."""
    paragraph: list[Line] = []
    for line in [*prose, Line(0, "")]:
        # A dozen lines without an empty one is more than a paragraph of a mail should have.
        if line.text.strip() and len(paragraph) < 12 and not _HEADER.match(line.text):
            paragraph.append(line)
            continue
        yield from _split(paragraph)
        paragraph = [line] if line.text.strip() and not _HEADER.match(line.text) else []


def _split(paragraph: list[Line]) -> Iterator[_Sentence]:
    text = "\n".join(line.text.strip() for line in paragraph)
    start = 0
    for piece in [*(one.start() for one in _SENTENCE_END.finditer(text)), len(text)]:
        sentence = text[start:piece]
        if sentence.strip():
            skipped = len(sentence) - len(sentence.lstrip())
            number = paragraph[text.count("\n", 0, start + skipped)].number
            yield _Sentence(number, " ".join(sentence.split())[:400])
        start = piece
