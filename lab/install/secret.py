"""Product keys and passwords: where they come from, and that they are never shown.

A secret travels as pydantic's ``SecretStr``. It leaves that in two places only: the answer file
on the floppy image, which is removed after the installation, and the image's password file.
"""

from __future__ import annotations

import os
import re
import secrets
import string
from collections.abc import Iterable, MutableMapping
from pathlib import Path

from pydantic import SecretStr

from lab.core.errors import UsageError

KEY_VARIABLE = "PVLAB_PRODUCT_KEY"
"""Environment variable with the product key."""

KEY_FILE_VARIABLE = "PVLAB_PRODUCT_KEY_FILE"
"""Environment variable with the name of a file that holds the product key, and nothing else."""

MASK = "*****"

# Five groups of five of the 24 characters of base 24 that keys of that time are made of.
_KEY = re.compile(r"[BCDFGHJKMPQRTVWXY2346789]{5}(-[BCDFGHJKMPQRTVWXY2346789]{5}){4}")
_PASSWORD_LENGTH = 20

_taken: dict[str, SecretStr] = {}


def product_key(environment: MutableMapping[str, str] | None = None) -> SecretStr:
    """The product key that the user gives, from a file or the environment.

    The variable is taken out of the environment, so that no program started later has it.

    Args:
        environment: the process's own when None.

    Raises:
        UsageError: there is none, or it does not have the form of one. Never shows it.
    """
    own = environment is None
    variables: MutableMapping[str, str] = os.environ if environment is None else environment
    if file := variables.get(KEY_FILE_VARIABLE):
        source = f"the file that {KEY_FILE_VARIABLE} names"
        try:
            text = Path(file).expanduser().read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise UsageError(f"cannot read {source}: {error.strerror}") from None
    elif (given := variables.pop(KEY_VARIABLE, None)) is not None:
        source, text = KEY_VARIABLE, given
        if own:
            _taken[KEY_VARIABLE] = SecretStr(given)
    elif own and KEY_VARIABLE in _taken:
        source, text = KEY_VARIABLE, _taken[KEY_VARIABLE].get_secret_value()
    else:
        raise UsageError(
            "no product key for Windows",
            hint=f"write it to a file only you can read, whose name is in {KEY_FILE_VARIABLE}",
        )
    return checked_key(text, source)


def checked_key(text: str, source: str) -> SecretStr:
    """A product key, if ``text`` has the form of one.

    Args:
        text: blanks around it do not count, nor does the case.
        source: where it comes from, for the message.

    Raises:
        UsageError: it has another form. The message does not show it.
    """
    key = text.strip().upper()
    if not _KEY.fullmatch(key):
        raise UsageError(
            f"{source} holds no product key: that is five groups of five letters and digits "
            "with dashes between, without A, E, I, L, N, O, S, U, Z, 0, 1 and 5"
        )
    return SecretStr(key)


def new_password() -> SecretStr:
    """A password that Windows' complexity rule accepts, and that needs no quoting anywhere.

    Three of the four classes upper, lower, digit and other (Microsoft, "Passwords must meet
    complexity requirements").
    """
    classes = (string.ascii_uppercase, string.ascii_lowercase, string.digits)
    alphabet = "".join(classes)
    while True:
        word = "".join(secrets.choice(alphabet) for _ in range(_PASSWORD_LENGTH))
        if all(any(char in one for char in word) for one in classes):
            return SecretStr(word)


class Redactor:
    """Replaces secrets in text, for what comes from a machine that was told them.

    Args:
        values: the secrets.
    """

    def __init__(self, values: Iterable[SecretStr]) -> None:
        words = {value.get_secret_value() for value in values} - {""}
        words |= {word.replace("-", "") for word in words}
        # The longest first, for a secret that is part of another.
        ordered = sorted(words, key=lambda word: (-len(word), word))
        self._pattern = re.compile("|".join(map(re.escape, ordered)), re.I) if ordered else None

    def __call__(self, text: str) -> str:
        """The text with each secret replaced by ``MASK``."""
        return self._pattern.sub(MASK, text) if self._pattern else text
