"""Paths inside the guest: where the lab works, and which names it will send to ``cmd``."""

from __future__ import annotations

import re

from lab.core.errors import UsageError

WORK_DIR = r"C:\pvlab"
"""The lab's own folder in every guest."""

# ``cmd`` expands or splits on the characters left out even inside quotes (%), or Win32
# forbids them in names (Microsoft, "Naming Files, Paths, and Namespaces").
_SAFE_PATH = re.compile(r"[A-Za-z]:(\\[A-Za-z0-9_ .\-$~{}()+,=@#']+)+")
_MAX_PATH = 259  # MAX_PATH less its terminator, same document


def checked_path(path: str) -> str:
    """``path``, if it is an absolute Windows path that needs no escaping inside quotes.

    Raises:
        UsageError: it is relative, too long, climbs with ``..`` or holds other characters.
    """
    parts = path.split("\\")
    if (
        len(path) > _MAX_PATH
        or not _SAFE_PATH.fullmatch(path)
        or any(part != part.rstrip(". ") for part in parts[1:])
    ):
        raise UsageError(
            f"not a safe guest path: {path[:80]!r}",
            hint=r"use an absolute path such as C:\pvlab\file.txt",
        )
    return path


def parent(path: str) -> str:
    """The folder of a guest path: ``C:\\pvlab`` for ``C:\\pvlab\\a.txt``."""
    return path.rpartition("\\")[0]
