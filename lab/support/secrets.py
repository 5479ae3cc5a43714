"""Secrets: the known ones of this machine by value, and whatever looks like one by pattern."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from urllib.parse import quote
from xml.sax.saxutils import escape

from lab.core.errors import LabBroken

MASK = "[removed]"

# A shorter value would be found everywhere; such a one is removed by pattern only.
_SHORTEST = 4
_SHORTEST_IN_ENVIRONMENT = 6

# Environment variables that hold secrets, by how they are called; and this lab's own.
_VARIABLE = re.compile(
    r"PASS(?:W|PHRASE|CODE|$|_)|SECRET|TOKEN|CREDENTIAL|API_?KEY|PRODUCT_KEY|PRIVATE"
)
_FILE_VARIABLE = re.compile(r"(?:PASSWORD|SECRET|TOKEN|PRODUCT_KEY)_FILE$")

# Names of what is secret, in configurations, command lines and answer files. What may stand
# before them is bounded, so that no text takes long.
_NAMES = (
    r"[a-z0-9_.-]{0,40}?(?:passw(?:or)?d|passphrase|pwd|secret|token|api[-_]?key|access[-_]?key"
    r"|product[-_ ]?(?:key|id)|private[-_]?key)"
)
# What such a name holds without being secret: a reference, a flag, a number of few digits.
_HARMLESS = r"(?!(?:null|none|true|false|yes|no|image|env|\d{1,3}|\*+)\b|[{(<\[$%*])"

_Rule = tuple[re.Pattern[str], str]

PATTERNS: tuple[_Rule, ...] = (
    # PEM and OpenSSH (RFC 7468, section 2); a log may have lost the end, or its line breaks.
    (
        re.compile(
            r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----"
            r"(?:.*?-----END [A-Z0-9 ]*PRIVATE KEY-----|[A-Za-z0-9+/=\s\\]*)",
            re.DOTALL,
        ),
        MASK,
    ),
    # "openssh-key-v1" in base64, where the armour is gone.
    (re.compile(r"b3BlbnNzaC1rZXktdjE[A-Za-z0-9+/=\s]*"), MASK),
    # RFC 7617, RFC 6750: in a header, or something that only base64 looks like.
    (
        re.compile(
            r"(?i)(authorization[\"']?\s*[:=]\s*[\"']?(?:basic|bearer|negotiate|ntlm) +)"
            r"(?!\[removed\])[^\s\"']+"
        ),
        rf"\1{MASK}",
    ),
    (
        re.compile(
            r"\b([Bb]asic|[Bb]earer) +(?=[^\s]*\d)(?=[^\s]*[A-Z])(?=[^\s]*[a-z])"
            r"[A-Za-z0-9+/_.~-]{12,}=*"
        ),
        rf"\1 {MASK}",
    ),
    # RFC 3986, section 3.2.1.
    (re.compile(r"(://[^/\s:@\"']{0,64}:)(?!\[removed\]@)[^/\s@\"']{1,128}@"), rf"\1{MASK}@"),
    # Windows product keys: five groups of five.
    (re.compile(r"(?i)\b[B-DF-HJ-NP-RTV-Y0-9]{5}(?:-[B-DF-HJ-NP-RTV-Y0-9]{5}){4}\b"), MASK),
    # crypt(5).
    (re.compile(r"\$(?:1|2[abxy]|5|6|y|7)\$[./A-Za-z0-9$=,]{12,}"), MASK),
    # JSON Web Tokens, and tokens that say what they are.
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"), MASK),
    (re.compile(r"\bgh[pousr]_[A-Za-z0-9]{20,}|\bglpat-[A-Za-z0-9_-]{16,}"), MASK),
    (re.compile(r"\bAKIA[A-Z0-9]{16}\b"), MASK),
    # name = value, "name": "value", (name value), <Name>value</Name>, --name value.
    (
        re.compile(rf"(?i)(?<![a-z0-9])(\(?{_NAMES}[\"']?\s*[:=]\s*)\"(?!\[removed\]\")(?:[^\"\\\n]|\\.)+\""),
        rf'\1"{MASK}"',
    ),
    (
        re.compile(rf"(?i)(?<![a-z0-9])({_NAMES}[\"']?\s*[:=]\s*)'(?!\[removed\]')[^'\n]+'"),
        rf"\1'{MASK}'",
    ),
    (
        re.compile(rf"(?i)(?<![a-z0-9])({_NAMES}[\"']?\s*[:=]\s*){_HARMLESS}[^\s\"',;)}}\]&<]+"),
        rf"\1{MASK}",
    ),
    (re.compile(rf"(?i)(\({_NAMES}\s+)(?!\[removed\])[^()\s]+\)"), rf"\1{MASK})"),
    (re.compile(rf"(?i)(<({_NAMES})>)(?!\[removed\])[^<]+(</\2>)"), rf"\1{MASK}\3"),
    (re.compile(rf"(?i)(--?{_NAMES}\s+){_HARMLESS}[^\s-]\S*"), rf"\1{MASK}"),
)  # fmt: skip
"""What looks like a secret, and what is left of it. Applied twice, they change nothing more."""


class Scrubber:
    """Removes secrets from text, and says whether any is left.

    Args:
        values: the known ones.
        users: names that a known password may go with, as in HTTP's Basic scheme.
    """

    def __init__(self, values: Iterable[str], users: Iterable[str] = ("Administrator",)) -> None:
        words: set[str] = set()
        known = {value.strip() for value in values}
        for value in known:
            if len(value) >= _SHORTEST:
                words |= _forms(value, tuple(users))
        # The longest first, for one that is part of another.
        ordered = sorted(words, key=lambda word: (-len(word), word))
        self._known = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def clean(self, text: str) -> str:
        """The text without its secrets."""
        if self._known is not None:
            text = self._known.sub(MASK, text)
        for pattern, left in PATTERNS:
            text = pattern.sub(left, text)
        return text

    def found(self, data: bytes) -> str:
        """What kind of secret is in some bytes; empty when there is none.

        Looks at them as they are, and as text of two bytes a character.
        """
        for text in (data.decode("latin-1"), data.decode("utf-16-le", errors="ignore"),
                     data[1:].decode("utf-16-le", errors="ignore")):  # fmt: skip
            if self._known is not None and self._known.search(text):
                return "a known password or key"
            for pattern, left in PATTERNS:
                if any(match.expand(left) != match[0] for match in pattern.finditer(text)):
                    return "what looks like a secret"
        return ""


def known_values(
    image_root: Path,
    credential_variables: Iterable[str],
    environment: Mapping[str, str] | None = None,
) -> set[str]:
    """The secrets of this machine: its images' and those in the environment.

    Args:
        image_root: the image store's folder.
        credential_variables: variables that profiles name.
        environment: the process's own when None.

    Raises:
        LabBroken: a file that holds one cannot be read, so that it could not be looked for.
    """
    variables = os.environ if environment is None else environment
    values: set[str] = set()
    for name, value in variables.items():
        named = name in set(credential_variables)
        if named or (_VARIABLE.search(name.upper()) and len(value) >= _SHORTEST_IN_ENVIRONMENT):
            values |= {value, *value.splitlines()}
        if _FILE_VARIABLE.search(name.upper()) and (file := Path(value).expanduser()).is_file():
            values |= _lines_of(file)
            values.discard(value)
    for description, fields in (
        ("host.json", ("private_key",)),
        ("guest.json", ("password_file",)),
    ):
        for found in image_root.glob(f"*/*/files/{description}"):
            for field in fields:
                if (name := _field(found, field)) and (file := found.parent / name).is_file():
                    values |= _lines_of(file)
    return values


def _field(description: Path, field: str) -> str:
    try:
        value = json.loads(description.read_bytes()).get(field)
    except (OSError, ValueError, AttributeError):
        return ""
    return value if isinstance(value, str) else ""


def _lines_of(file: Path) -> set[str]:
    """Each line of a file with a secret: a fragment of a key is one, too."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise LabBroken(
            f"cannot read {file}, whose content must not get into the bundle: {error.strerror}"
        ) from error
    return {line.strip() for line in lines if line.strip() and not line.startswith("-----")}


def _forms(value: str, users: Iterable[str]) -> set[str]:
    """How a secret may be written."""
    writers: tuple[Callable[[str], str], ...] = (
        str,
        lambda text: text.replace("-", ""),
        quote,
        lambda text: quote(text, safe=""),
        escape,
        lambda text: escape(text, {'"': "&quot;", "'": "&apos;"}),
        lambda text: json.dumps(text)[1:-1],
        lambda text: repr(text)[1:-1],
    )
    forms = {write(value) for write in writers}
    raw = value.encode()
    encoded = {base64.b64encode(data).decode() for data in (raw, value.encode("utf-16-le"))}
    encoded |= {base64.b64encode(f"{user}:{value}".encode()).decode() for user in users}
    # Without its padding it is found in the middle of more.
    forms |= {one.rstrip("=") for one in encoded}
    return {one for one in forms if len(one) >= _SHORTEST}
